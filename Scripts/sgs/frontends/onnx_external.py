"""ONNX tensors whose values lie in files beside the model: found, checked, and mapped rather than read.

A model with such data may be larger than the 2 GiB that one protobuf message holds. Large initializers therefore stay
out of the message, as read-only views of the mapped files; they take memory only where they are looked at.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Mapping
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from onnx import ModelProto, TensorProto, helper

from sgs.config.nearest import listing
from sgs.errors import UserError, raise_all
from sgs.frontends.model_file import LARGEST_MESSAGE
from sgs.frontends.onnx_message import NAMED, tensors_of
from sgs.numeric.quantise import Array

INLINE_LIMIT = 64 << 10  # bytes up to which values go into the message, where ONNX's shape inference sees them
_PACKED = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}  # element types below a byte, in bits
_BESIDE = "keep the data file beside the model, as the exporter wrote it"
_AGAIN = "export or download the model again"


class _Fault(ValueError):
    """What is wrong with the external data of a tensor, and what to do."""

    def __init__(self, reason: str, remedy: str = _AGAIN) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


def take_external(proto: ModelProto, path: Path, *, inline_limit: int = INLINE_LIMIT) -> dict[str, Array]:
    """Find the values of all external tensors of a model that was read from `path`.

    Small ones, and those of constants inside nodes, go into the message. Returns the others by name: initializers of
    the graph larger than `inline_limit` bytes. Raises UserError naming every tensor whose data are not where it says,
    or not of the size that its shape asks for.
    """
    files = _DataFiles(path.parent)
    values: dict[str, Array] = {}
    faults: dict[tuple[str, str], list[str]] = {}  # (reason, remedy) → the tensors
    for what, tensor in tensors_of(proto):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        try:
            raw = files.bytes_of(tensor)
        except _Fault as fault:
            faults.setdefault((fault.reason, fault.remedy), []).append(f"{what} '{tensor.name}'")
            continue
        if what == NAMED and raw.size > inline_limit and _packed_bits(tensor) is None:
            values[tensor.name] = _viewed(raw, tensor)
        else:
            _put_in(tensor, raw)
    problems = [
        UserError(reason, stage="convert", file=path, node=listing(tensors, 5), remedy=remedy)
        for (reason, remedy), tensors in faults.items()
    ]
    raise_all(problems, stage="convert", file=path)
    return values


def with_values(proto: ModelProto, values: Mapping[str, Array]) -> ModelProto | None:
    """A copy of the model that holds the values of its external initializers itself; None where no message is large
    enough for them."""
    if proto.ByteSize() + sum(value.nbytes for value in values.values()) > LARGEST_MESSAGE:
        return None
    whole = ModelProto()
    whole.CopyFrom(proto)
    for tensor in whole.graph.initializer:
        if tensor.name in values:
            _put_in(tensor, values[tensor.name].reshape(-1).view(np.uint8))
    return whole


def without_external(proto: ModelProto) -> ModelProto:
    """A copy of the model in which external initializers are inputs: what ONNX's checks, which look for files, take."""
    plain = ModelProto()
    plain.CopyFrom(proto)
    outside = [t for t in plain.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    inside = [t for t in plain.graph.initializer if t.data_location != TensorProto.EXTERNAL]
    plain.graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in outside)
    del plain.graph.initializer[:]
    plain.graph.initializer.extend(inside)
    return plain


def bytes_in_file(tensor: TensorProto) -> int:
    """Bytes that the values of a tensor of this type and shape take in a file. Raises ValueError."""
    if any(extent < 0 for extent in tensor.dims):
        raise _Fault(f"its shape {list(tensor.dims)} is not one")
    bits = _packed_bits(tensor)
    if bits is None:
        try:
            dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        except KeyError:
            raise _Fault(f"its element type {tensor.data_type} is not known") from None
        if dtype.hasobject:
            raise _Fault("it is of text, which cannot lie in another file")
        bits = 8 * dtype.itemsize
    return int(prod(tensor.dims) * bits + 7) // 8


def _packed_bits(tensor: TensorProto) -> int | None:
    known = TensorProto.DataType.values()
    return _PACKED.get(TensorProto.DataType.Name(tensor.data_type)) if tensor.data_type in known else None


def _viewed(raw: Array, tensor: TensorProto) -> Array:
    """Bytes of a file as the tensor's elements; copied only where they lie askew."""
    data = raw.view(helper.tensor_dtype_to_np_dtype(tensor.data_type)).reshape(tuple(tensor.dims))
    return data if data.flags.aligned else data.copy()


def _put_in(tensor: TensorProto, raw: Array) -> None:
    tensor.raw_data = raw.tobytes()
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


# -- files -------------------------------------------------------------------------------------------------------------
def is_outside(location: str) -> bool:
    """Whether a location does not stay below the folder that it is relative to, as far as its words say."""
    pure = PurePosixPath(location)
    return pure.is_absolute() or bool(PureWindowsPath(location).drive) or ".." in pure.parts


class _DataFiles:
    """The data files in a model's folder, each mapped once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mapped: dict[str, Array] = {}

    def bytes_of(self, tensor: TensorProto) -> Array:
        """The bytes that an external tensor points to, uint8 [n]."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        wanted = bytes_in_file(tensor)
        offset = _number(entries, "offset", 0)
        length = _number(entries, "length", wanted)
        if length != wanted:
            dims = ",".join(map(str, tensor.dims))
            raise _Fault(f"its shape [{dims}] takes {wanted} bytes, its external data have {length}")
        content = self._content(location)
        if offset + length > content.size:
            reason = f"its external data end at byte {offset + length} of '{location}', which has {content.size}"
            raise _Fault(reason)
        return content[offset : offset + length]

    def _content(self, location: str) -> Array:
        if location not in self._mapped:
            try:
                self._mapped[location] = _map(self._path(location), location)
            except OSError as error:
                raise _Fault(f"its external data '{location}' cannot be read: {error.strerror}", _BESIDE) from error
        return self._mapped[location]

    def _path(self, location: str) -> str:
        """The data file; it has to lie in the model's folder, links followed."""
        if not location or "\0" in location:
            raise _Fault("its external data name no file")
        if is_outside(location):
            raise _Fault(f"its external data '{location}' lie outside the model's folder", _BESIDE)
        path, folder = (os.path.realpath(name) for name in (self._folder / location, self._folder))
        if not path.startswith(os.path.join(folder, "")):
            raise _Fault(
                f"its external data '{location}' are a link out of the model's folder",
                "put the data file itself beside the model",
            )
        return path


def _map(path: str, location: str) -> Array:
    kind = os.stat(path).st_mode  # before opening: a pipe would wait for a writer
    if not stat.S_ISREG(kind):
        raise _Fault(f"its external data '{location}' are not a regular file", _BESIDE)
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return np.zeros(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _number(entries: Mapping[str, str], key: str, default: int) -> int:
    text = entries.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _Fault(f"its external data have the {key} '{text[:40]}'")
    return int(text)
