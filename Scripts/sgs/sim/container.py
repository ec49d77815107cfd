"""A TFLite container as plain records: what the file says, of every element type and operator.

Nothing in the file is believed: what does not fit the format is a UserError that names the file. What the records mean
is for the reader to say: `sim.read` for files of ours, `frontends.tflite` for those of others.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from dataclasses import dataclass, field
from math import prod
from os import PathLike
from typing import Any

import numpy as np

from sgs.errors import UserError
from sgs.numeric.nibbles import unpack_nibbles
from sgs.numeric.quantise import Array, QuantParams
from sgs.sim import generated as schema
from sgs.sim.fields import enum_names, unpack_options
from sgs.sim.spelling import NONSENSE

MAX_RANK = 8
MAX_TENSOR_BYTES = 1 << 36  # of one activation; more is a damaged file, not a network
STAGE_KEY = "sgs.stage"  # metadata that only files of ours have

# What the generated classes and the flexbuffer reader raise on bytes that are not theirs.
MALFORMED = (struct.error, MemoryError, RecursionError, *NONSENSE)
_OPERATORS, _TYPES = enum_names(schema.BuiltinOperator), enum_names(schema.TensorType)
# element type → what holds its values; the packed and the narrow ones have a decoder of their own
_HELD: dict[str, Any] = {
    **{
        "FLOAT32": np.float32,
        "FLOAT16": np.float16,
        "FLOAT64": np.float64,
        "BOOL": np.bool_,
        "COMPLEX64": np.complex64,
    },
    **{"INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "COMPLEX128": np.complex128},
    **{"UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64},
}
_BITS = {word: np.dtype(kind).itemsize * 8 for word, kind in _HELD.items()} | {"BFLOAT16": 16, "INT4": 4}


@dataclass
class FileTensor:
    """A tensor of the file. `name` is "" for none, `signature` has -1 for extents that may change, `kind` is the
    schema's word for the element type.

    `raw` are the bytes of a constant, None for a computed tensor. `special` says what else it is: "sparse", "a
    variable", "in another file", or "".
    """

    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    kind: str
    raw: Array | None = None
    quant: QuantParams | None = None
    special: str = ""
    sparsity: Any = None


@dataclass
class FileOperator:
    """An operator of the file: `op` is the builtin's name, "CUSTOM" with the name in `custom`, or a number that the
    schema lacks. Operands and results are numbers of tensors, -1 an operand that is left out. `table` is the name of
    the options table and `options` what it holds, by schema names; `packed` are the options of a custom operator."""

    op: str
    custom: str
    inputs: list[int]
    outputs: list[int]
    table: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    packed: bytes | None = None


@dataclass
class Container:
    """A file of one network. `others`: how many networks there are beside the first; `metadata`: named buffers;
    `aliases`: names of tensors by the signatures of the first network."""

    path: str
    name: str
    description: str
    tensors: list[FileTensor]
    operators: list[FileOperator]
    inputs: list[int]
    outputs: list[int]
    others: int
    metadata: dict[str, bytes]
    aliases: dict[str, int]


def read_container(path: str | PathLike[str], *, stage: str, kind: str) -> Container:
    """Read a file. Constants are read-only views of the mapped file. Raises UserError of that `stage` for anything but
    a well-formed one."""
    name = os.fspath(path)
    data = _map(name, stage, kind)
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    except MALFORMED as error:
        remedy = "write it again with the tool that made it, or copy it again"
        raise UserError("the file is damaged or cut off", stage=stage, file=name, remedy=remedy) from error
    return _Reader(name, stage, data, model).read()


def values_of(tensor: FileTensor) -> Array:
    """The values of a constant, of its shape, in an element type that holds them: INT4 as int8, BFLOAT16 as float32.

    A view where the bytes are aligned. Raises ValueError for bytes that are not those of its type and shape.
    """
    assert tensor.raw is not None
    if tensor.kind not in _BITS:
        raise ValueError(f"its element type {tensor.kind} is not supported")
    elements = prod(tensor.shape)
    expected = (elements * _BITS[tensor.kind] + 7) // 8
    if tensor.raw.size != expected:
        said = f"{tensor.kind}{list(tensor.shape)}"
        raise ValueError(f"{said} takes {expected} bytes, but its buffer has {tensor.raw.size}")
    if tensor.kind == "INT4":
        return unpack_nibbles(tensor.raw, elements).reshape(tensor.shape)
    if tensor.kind == "BFLOAT16":
        return (tensor.raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(tensor.shape)
    if tensor.kind == "BOOL" and tensor.raw.size and tensor.raw.max() > 1:
        raise ValueError("its booleans are neither 0 nor 1")
    data: Array = tensor.raw.view(_HELD[tensor.kind]).reshape(tensor.shape)
    return data if data.flags.aligned else data.copy()


def _map(path: str, stage: str, kind: str) -> mmap.mmap:
    """The file's bytes, mapped, after a look at what kind of file it is."""

    def refused(reason: str, remedy: str | None = None) -> UserError:
        return UserError(reason, stage=stage, file=path, remedy=remedy)

    try:
        with open(path, "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise refused("this is not a regular file")
            if facts.st_size == 0:
                raise refused("the file is empty", "write it again with the tool that made it")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise refused(error.strerror or str(error)) from error
    if data[:6] == b"SGSIMG":
        raise refused(f"this is an offline .img, not a {kind}", f"give the {kind} file that it comes from")
    if data[4:8] != b"TFL3":
        raise refused(f"this is not a {kind} file: it lacks the identifier TFL3", f"give the path of a {kind} file")
    return data


class _Reader:
    """One file on its way to records."""

    def __init__(self, path: str, stage: str, data: mmap.mmap, model: Any) -> None:
        self.path = path
        self.stage = stage
        self.data = data
        self.model = model
        self.buffers = model.buffers or []

    def read(self) -> Container:
        subgraphs = self.model.subgraphs or []
        if not subgraphs:
            raise self.fault("it holds 0 subgraphs; a network is one")
        main = subgraphs[0]
        tensors = [self._tensor(index, record) for index, record in enumerate(main.tensors or [])]
        count = len(tensors)
        return Container(
            self.path,
            main.name or "",
            self.model.description or "",
            tensors,
            self._operators(main.operators or [], count),
            self._ends(main.inputs, "the network's inputs", count),
            self._ends(main.outputs, "the network's outputs", count),
            len(subgraphs) - 1,
            self._metadata(),
            self._aliases(count),
        )

    def fault(self, reason: str, node: str | None = None) -> UserError:
        return UserError(reason, stage=self.stage, file=self.path, node=node)

    def _indices(self, numbers: Any, what: str, count: int) -> list[int]:
        """Numbers of tensors, -1 for one that is left out."""
        listed = [] if numbers is None else [int(i) for i in numbers]
        wrong = [i for i in listed if not -1 <= i < count]
        if wrong:
            raise self.fault(f"{what} name tensor {wrong[0]}; the file has {count}")
        return listed

    def _ends(self, numbers: Any, what: str, count: int) -> list[int]:
        """Numbers of tensors, all of which must be there."""
        listed = self._indices(numbers, what, count)
        if -1 in listed:
            raise self.fault(f"{what} leave one out")
        return listed

    # -- tensors -------------------------------------------------------------------------------------------------------
    def _tensor(self, index: int, record: Any) -> FileTensor:
        where = record.name or f"tensor{index}"
        shape = self._shape(record.shape, where)
        signature = shape if record.shapeSignature is None else tuple(int(d) for d in record.shapeSignature)
        kinds = {"sparse": record.sparsity, "a variable": record.isVariable, "in another file": record.externalBuffer}
        kind = _TYPES.get(record.type, str(record.type))
        if prod(shape) * max(_BITS.get(kind, 8) // 8, 1) > MAX_TENSOR_BYTES:
            raise self.fault(f"its shape {shape} is absurd", where)
        return FileTensor(
            record.name or "",
            shape,
            signature if len(signature) == len(shape) else shape,
            kind,
            self._constant(record.buffer, shape, where),
            self._quant(record.quantization, shape, where),
            next((what for what, value in kinds.items() if value), ""),
            record.sparsity,
        )

    def _shape(self, extents: Any, where: str) -> tuple[int, ...]:
        shape = () if extents is None else tuple(int(d) for d in extents)
        if len(shape) > MAX_RANK or any(d < 0 for d in shape):
            raise self.fault(f"its shape {shape[: MAX_RANK + 1]} is not one", where)
        return shape

    def _constant(self, index: int, shape: tuple[int, ...], where: str) -> Array | None:
        """Bytes of a tensor, None for one that is computed."""
        if index >= len(self.buffers):
            raise self.fault(f"it names buffer {index}; the file has {len(self.buffers)}", where)
        raw = self._raw(self.buffers[index], where)
        return None if raw is None or (not raw.size and 0 not in shape) else raw

    def _raw(self, buffer: Any, where: str) -> Array | None:
        """Bytes of a buffer, wherever they lie; None where there are none."""
        if buffer.offset > 1 and buffer.size:
            end = buffer.offset + buffer.size
            if end > len(self.data):
                raise self.fault(f"its data end at byte {end} of {len(self.data)}", where)
            return np.frombuffer(self.data, np.uint8, buffer.size, buffer.offset)
        data: Array | None = buffer.data
        return data

    def _quant(self, record: Any, shape: tuple[int, ...], where: str) -> QuantParams | None:
        if record is None or record.scale is None or not len(record.scale):
            return None
        if record.details is not None:
            raise self.fault("its quantisation is neither per tensor nor per channel", where)
        scale, axis = np.asarray(record.scale), record.quantizedDimension
        zero = np.asarray(np.zeros(scale.shape) if record.zeroPoint is None else record.zeroPoint)
        zero = np.broadcast_to(zero, scale.shape) if zero.size == 1 else zero
        low, high = (np.array([] if v is None else v, np.float32) for v in (record.min, record.max))
        channels = shape[axis] if 0 <= axis < len(shape) else -1
        if scale.size != 1 and scale.size != channels:
            reason = f"it has {scale.size} scales, but axis {axis} of {list(shape)} has {channels} channels"
            raise self.fault(reason, where)
        if zero.size and np.abs(zero.astype(np.float64)).max() > 2**31 - 1:
            raise self.fault("its zero point is out of range", where)
        try:
            return QuantParams(np.array(scale), zero, axis, low, high)
        except ValueError as error:
            raise self.fault(str(error), where) from error

    # -- operators -----------------------------------------------------------------------------------------------------
    def _operators(self, records: list[Any], count: int) -> list[FileOperator]:
        kinds = [_kind_of(code) for code in self.model.operatorCodes or []]
        found = []
        for position, record in enumerate(records):
            what = f"operator {position}"
            if record.opcodeIndex >= len(kinds):
                raise self.fault(f"{what} is of kind {record.opcodeIndex}; the file has {len(kinds)}")
            op, custom = kinds[record.opcodeIndex]
            outputs = self._ends(record.outputs, f"the results of {what}", count)
            inputs = self._indices(record.inputs, f"the operands of {what}", count)
            made = FileOperator(op, custom, inputs, outputs)
            try:
                self._read_options(made, record)
            except MALFORMED as error:
                reason = f"its options cannot be read: {error or type(error).__name__}"
                raise self.fault(reason, f"{custom or op} '{self._name_of((outputs or [-1])[0])}'") from error
            found.append(made)
        return found

    def _name_of(self, index: int) -> str:
        return "?" if index < 0 else self.model.subgraphs[0].tensors[index].name or f"tensor{index}"

    def _read_options(self, made: FileOperator, record: Any) -> None:
        if record.builtinOptions is not None:
            made.table = type(record.builtinOptions).__name__.removesuffix("T")
            made.options = unpack_options(record.builtinOptions)
        if record.largeCustomOptionsOffset > 1:
            end = record.largeCustomOptionsOffset + record.largeCustomOptionsSize
            if end > len(self.data):
                raise ValueError(f"they end at byte {end} of {len(self.data)}")
            made.packed = self.data[record.largeCustomOptionsOffset : end]
        elif record.customOptions is not None:
            made.packed = bytes(record.customOptions)

    # -- names ---------------------------------------------------------------------------------------------------------
    def _metadata(self) -> dict[str, bytes]:
        found = {}
        for record in self.model.metadata or []:
            name = record.name or ""
            raw = (
                self._raw(self.buffers[record.buffer], f"metadata {name}")
                if record.buffer < len(self.buffers)
                else None
            )
            found[name] = b"" if raw is None else bytes(raw)
        return found

    def _aliases(self, count: int) -> dict[str, int]:
        signatures = [s for s in self.model.signatureDefs or [] if s.subgraphIndex == 0]
        ends = [end for s in signatures for end in (*(s.inputs or []), *(s.outputs or []))]
        return {end.name: end.tensorIndex for end in ends if end.name and end.tensorIndex < count}


def _kind_of(code: Any) -> tuple[str, str]:
    """(builtin's name, name of a custom operator) of an OperatorCode."""
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    word = _OPERATORS.get(number, f"builtin {number}")
    return word, str(code.customCode) if word == "CUSTOM" else ""
