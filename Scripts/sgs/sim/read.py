"""A .sim file → graph. Nothing in the file is believed: what does not fit is a UserError that names the file."""

from __future__ import annotations

import json
import mmap
import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from os import PathLike
from typing import Any

import numpy as np
from flatbuffers import flexbuffers

from sgs.errors import UserError
from sgs.ir.graph import Graph, Node
from sgs.ir.verify import violations
from sgs.numeric.nibbles import unpack_nibbles
from sgs.numeric.quantise import Array, QuantParams
from sgs.numeric.types import DType
from sgs.registry import SIM
from sgs.sim import generated as schema
from sgs.sim.fields import enum_names, unpack_options
from sgs.sim.spelling import NONSENSE, SpellingError, as_attr, unspell
from sgs.sim.write import RESERVED

STAGES = ("debug", "float", "fixed")
PLAIN = "tflite"  # stage of a file that the toolchain did not write
MAX_RANK = 8
MESSAGE_LENGTH = 1000  # what a damaged file says of itself may be long
MAX_TENSOR_BYTES = 1 << 36  # of one activation; more is a damaged file, not a network

# What the generated classes and the flexbuffer reader raise on bytes that are not theirs.
_MALFORMED = (struct.error, MemoryError, RecursionError, *NONSENSE)
_OPERATORS, _TYPES = enum_names(schema.BuiltinOperator), enum_names(schema.TensorType)
_MADE_BY = {
    "debug": "ConvertTool.py writes it as Debug_<name>",
    "float": "ConvertTool.py writes it",
    "fixed": "run calibrator.py on the float .sim",
    PLAIN: "give the .tflite file itself",
}


@dataclass(frozen=True)
class SimFile:
    """What a .sim holds. `stage`: "debug", "float", "fixed", or "tflite" for a file of another toolchain."""

    graph: Graph
    stage: str
    path: str


def read_sim(path: str | PathLike[str]) -> SimFile:
    """Read a .sim file, or a .tflite file of operators that we know.

    Constants are read-only views of the mapped file. Raises UserError for anything but a well-formed file.
    """
    name = os.fspath(path)
    data = _map(name)
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    except _MALFORMED as error:
        raise fault(name, f"the file is damaged or cut off: {error or type(error).__name__}") from error
    return _Reader(name, data, model).read()


def expect_stage(sim: SimFile, wanted: str | Iterable[str], tool: str) -> Graph:
    """The graph of a file of the wanted stage (or one of several). Raises UserError naming `tool` and the way out."""
    stages = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    if sim.stage in stages:
        return sim.graph
    kinds = " or ".join(f"{_article(stage)} {stage}" for stage in stages)
    has = f"{_article(sim.stage)} {sim.stage}"
    raise UserError(
        f"is {has} .sim; {tool} needs {kinds} .sim", stage="read .sim", file=sim.path, remedy=_MADE_BY[stages[0]]
    )


def fault(path: str, reason: str, node: str | None = None, remedy: str | None = None) -> UserError:
    """The error for what is wrong with a .sim file."""
    return UserError(reason, stage="read .sim", file=path, node=node, remedy=remedy)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _map(path: str) -> mmap.mmap:
    """The file's bytes, mapped, after a look at what kind of file it is."""
    try:
        with open(path, "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise fault(path, "this is not a regular file")
            if facts.st_size == 0:
                raise fault(path, "the file is empty", remedy="write it again with the tool that made it")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise fault(path, error.strerror or str(error)) from error
    if data[:6] == b"SGSIMG":
        raise fault(path, "this is an offline .img, not a .sim", remedy="give the .sim file that it was compiled from")
    if data[4:8] != b"TFL3":
        raise fault(path, "this is not a .sim file: it lacks the identifier TFL3")
    return data


class _Reader:
    """One file on its way to a graph."""

    def __init__(self, path: str, data: mmap.mmap, model: Any) -> None:
        self.path = path
        self.data = data
        self.model = model
        self.graph = Graph()
        self.names: list[str] = []  # of the file's tensors, by index

    def read(self) -> SimFile:
        metadata = self._metadata()
        stage = metadata.get("stage", PLAIN)
        if stage != PLAIN and stage not in STAGES:
            raise fault(self.path, f"its stage {stage!r} is not known", remedy="it may be the work of a newer version")
        subgraphs = self.model.subgraphs or []
        if len(subgraphs) != 1:
            raise fault(self.path, f"it holds {len(subgraphs)} subgraphs; networks of one are supported")
        source = subgraphs[0]
        graph = self.graph
        graph.name = source.name or ""
        self._tensors(source.tensors or [])
        graph.inputs = self._named(source.inputs, "the network's inputs")
        graph.outputs = self._named(source.outputs, "the network's outputs")
        self._operators(source.operators or [])
        self._well_formed("in the file")
        self._spell_out()
        self._well_formed("when read")
        self._node_names(metadata.get("nodes", {}))
        graph.metadata = {key: value for key, value in metadata.items() if key not in RESERVED}
        return SimFile(graph, stage, self.path)

    def _well_formed(self, when: str) -> None:
        found = violations(self.graph)
        found.extend(f"constant '{name}' is an input" for name in self.graph.inputs if self.graph[name].is_constant)
        if found:
            reason = f"the graph is not well formed {when}: " + "; ".join(found[:5])
            raise fault(self.path, reason[:MESSAGE_LENGTH])

    def _spell_out(self) -> None:
        try:
            unspell(self.graph)
        except SpellingError as error:
            raise fault(self.path, str(error)[:MESSAGE_LENGTH], node=error.node or None) from error

    def _named(self, indices: Any, what: str) -> list[str]:
        """Tensor names of a list of indices, all of which must be there."""
        names = self._operands(indices, what)
        if None in names:
            raise fault(self.path, f"{what} leave one out")
        return [name for name in names if name is not None]

    def _operands(self, indices: Any, what: str) -> list[str | None]:
        """Tensor names of a list of indices, None for -1."""
        listed = [] if indices is None else [int(i) for i in indices]
        wrong = [i for i in listed if not -1 <= i < len(self.names)]
        if wrong:
            raise fault(self.path, f"{what} name tensor {wrong[0]}; the file has {len(self.names)}")
        return [None if i < 0 else self.names[i] for i in listed]

    # -- tensors -------------------------------------------------------------------------------------------------------
    def _tensors(self, records: list[Any]) -> None:
        for index, record in enumerate(records):
            stem = record.name or f"tensor{index}"
            self._refuse_special(record, stem)
            dtype, shape = self._dtype(record, stem), self._shape(record, stem)
            if prod(shape) * dtype.numpy.itemsize > MAX_TENSOR_BYTES:
                raise fault(self.path, f"its shape {shape} is absurd", node=stem)
            data = self._constant(record.buffer, shape, dtype, stem)
            quant = self._quant(record.quantization, shape, stem)
            tensor = self.graph.add_tensor(stem, shape, dtype, data=data, quant=quant)
            self.names.append(tensor.name)

    def _refuse_special(self, record: Any, stem: str) -> None:
        kinds = {"sparse": record.sparsity, "a variable": record.isVariable, "in another file": record.externalBuffer}
        found = [what for what, value in kinds.items() if value]
        if found:
            raise fault(self.path, f"it is {found[0]}, which is not supported", node=stem)

    def _dtype(self, record: Any, stem: str) -> DType:
        word = _TYPES.get(record.type, str(record.type))
        if word not in DType.__members__:
            raise fault(self.path, f"its element type {word} is not supported", node=stem)
        return DType[word]

    def _shape(self, record: Any, stem: str) -> tuple[int, ...]:
        shape = () if record.shape is None else tuple(int(d) for d in record.shape)
        if len(shape) > MAX_RANK or any(d < 0 for d in shape):
            raise fault(self.path, f"its shape {shape[: MAX_RANK + 1]} is not one", node=stem)
        return shape

    def _constant(self, index: int, shape: tuple[int, ...], dtype: DType, stem: str) -> Array | None:
        """Content of a tensor, None for one that is computed."""
        buffers = self.model.buffers or []
        if index >= len(buffers):
            raise fault(self.path, f"it names buffer {index}; the file has {len(buffers)}", node=stem)
        raw = self._raw(buffers[index], stem)
        elements = prod(shape)
        if raw is None or (not raw.size and elements):
            return None
        expected = (elements * dtype.bits + 7) // 8
        if raw.size != expected:
            reason = f"{dtype.name}{list(shape)} takes {expected} bytes, but its buffer has {raw.size}"
            raise fault(self.path, reason, node=stem)
        if dtype is DType.BOOL and raw.size and raw.max() > 1:
            raise fault(self.path, "its booleans are neither 0 nor 1", node=stem)
        return _loaded(raw, shape, dtype)

    def _raw(self, buffer: Any, stem: str) -> Array | None:
        """Bytes of a buffer, wherever they lie; None where there are none."""
        if buffer.offset > 1 and buffer.size:
            end = buffer.offset + buffer.size
            if end > len(self.data):
                raise fault(self.path, f"its data end at byte {end} of {len(self.data)}", node=stem)
            return np.frombuffer(self.data, np.uint8, buffer.size, buffer.offset)
        data: Array | None = buffer.data
        return data

    def _quant(self, record: Any, shape: tuple[int, ...], stem: str) -> QuantParams | None:
        if record is None or record.scale is None or not len(record.scale):
            return None
        if record.details is not None:
            raise fault(self.path, "its quantisation is neither per tensor nor per channel", node=stem)
        scale, axis = np.asarray(record.scale), record.quantizedDimension
        zero = np.asarray(np.zeros(scale.shape) if record.zeroPoint is None else record.zeroPoint)
        low, high = (np.array([] if v is None else v, np.float32) for v in (record.min, record.max))
        channels = shape[axis] if 0 <= axis < len(shape) else -1
        if scale.size != 1 and scale.size != channels:
            reason = f"it has {scale.size} scales, but axis {axis} of {list(shape)} has {channels} channels"
            raise fault(self.path, reason, node=stem)
        if zero.size and np.abs(zero.astype(np.float64)).max() > 2**31 - 1:
            raise fault(self.path, "its zero point is out of range", node=stem)
        try:
            return QuantParams(np.array(scale), zero, axis, low, high)
        except ValueError as error:
            raise fault(self.path, str(error), node=stem) from error

    # -- operators -----------------------------------------------------------------------------------------------------
    def _operators(self, records: list[Any]) -> None:
        ops = [self._op(code) for code in self.model.operatorCodes or []]
        for position, record in enumerate(records):
            if record.opcodeIndex >= len(ops):
                raise fault(self.path, f"operator {position} is of kind {record.opcodeIndex}; the file has {len(ops)}")
            op, what = ops[record.opcodeIndex], f"operator {position}"
            outputs = self._named(record.outputs, f"the results of {what}")
            if not outputs:
                raise fault(self.path, f"{what} ({op}) has no result")
            node = Node(op, self._operands(record.inputs, f"the operands of {what}"), outputs)
            try:
                node.attrs = self._options(op, record)
            except _MALFORMED as error:
                reason = f"its options cannot be read: {error or type(error).__name__}"
                raise fault(self.path, reason, node=node.label) from error
            self.graph.nodes.append(node)

    def _op(self, code: Any) -> str:
        """Operator name of an OperatorCode; for one that we lack, what to call it in a message."""
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        word = _OPERATORS.get(number, f"builtin {number}")
        if word == "CUSTOM":
            name = str(code.customCode)
            row = SIM.get(name)
            return name if row is not None and row.custom else f"custom operator {name}"
        row = SIM.get(word)
        return f"builtin operator {word}" if row is not None and row.custom else word

    def _options(self, op: str, record: Any) -> dict[str, Any]:
        """Options by schema names, or the attrs of a custom operator."""
        row = SIM.get(op)
        if row is None:
            return {}
        if row.custom:
            packed = self._custom_options(record)
            if packed is None:
                return {}
            attrs = flexbuffers.Loads(packed)
            if not isinstance(attrs, dict):
                raise ValueError("they are not a map")
            return dict(as_attr(attrs))
        if not row.options:
            return {}
        wanted = getattr(schema.BuiltinOptions, row.options)
        if record.builtinOptionsType not in (0, wanted):
            raise ValueError(f"table {record.builtinOptionsType} instead of {row.options}")
        return unpack_options(record.builtinOptions or getattr(schema, f"{row.options}T")())

    def _custom_options(self, record: Any) -> bytes | None:
        """The options of a custom operator: in the flatbuffer, or behind it where they are large."""
        if record.largeCustomOptionsOffset <= 1:
            return None if record.customOptions is None else bytes(record.customOptions)
        end = record.largeCustomOptionsOffset + record.largeCustomOptionsSize
        if end > len(self.data):
            raise ValueError(f"they end at byte {end} of {len(self.data)}")
        return self.data[record.largeCustomOptionsOffset : end]

    # -- metadata ------------------------------------------------------------------------------------------------------
    def _metadata(self) -> dict[str, Any]:
        """The buffers whose names begin with `sgs.`, by the rest of the name."""
        found: dict[str, Any] = {}
        buffers = self.model.buffers or []
        for record in self.model.metadata or []:
            name = record.name or ""
            if not name.startswith("sgs."):
                continue
            raw = self._raw(buffers[record.buffer], name) if record.buffer < len(buffers) else None
            try:
                found[name.removeprefix("sgs.")] = json.loads(bytes([] if raw is None else raw).decode("utf-8"))
            except (ValueError, RecursionError) as error:
                raise fault(self.path, "it is not JSON", node=f"metadata {name}") from error
        return found

    def _node_names(self, names: Any) -> None:
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise fault(self.path, "it does not map results to names", node="metadata sgs.nodes")
        for node in self.graph.nodes:
            node.name = names.get(node.outputs[0], "")


def _loaded(raw: Array, shape: tuple[int, ...], dtype: DType) -> Array:
    """Inverse of `write.stored`: a view where the bytes are aligned."""
    if dtype is DType.INT4:
        return unpack_nibbles(raw, prod(shape)).reshape(shape)
    data = raw.view(dtype.numpy).reshape(shape)
    return data if data.flags.aligned else data.copy()
