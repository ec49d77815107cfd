"""The caffemodel: the weights of layers, by their names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from sgs.frontends.caffe.generated import LooseValues, NetWeights
from sgs.frontends.model_file import mapped, refused, require_file
from sgs.numeric.quantise import Array

_HDF5 = b"\x89HDF\r\n"
_AGAIN = "give the caffemodel, or download it again"


def read_weights(path: Path) -> tuple[Mapping[str, Sequence[Any]], bytes]:
    """(BlobProtos of each layer that has any, by its name; SHA-256 of the file). Raises UserError."""
    require_file(path, "give the path of a .caffemodel file")
    content = mapped(path, "a caffemodel", again=_AGAIN, smaller=_AGAIN)
    if content[: len(_HDF5)] == _HDF5:
        raise refused(path, "is in HDF5", "save it with snapshot_format: BINARYPROTO, as a .caffemodel")
    try:
        net = NetWeights.FromString(memoryview(content))
    except (DecodeError, ValueError) as error:
        if content[:64].isascii() and b"\0" not in content[:64]:
            reason, remedy = "is not a caffemodel, but text", "give the binary file with the weights"
            raise refused(path, reason, remedy) from error
        raise refused(path, "is not a caffemodel, or is truncated", _AGAIN) from error
    layers = {layer.name: list(layer.blobs) for layer in net.layer if layer.blobs}
    for old in net.layers:
        held = old.layer if old.HasField("layer") else old  # V0 has its fields in there
        if held.blobs:
            layers[held.name] = list(held.blobs)
    if not (net.layer or net.layers):
        raise refused(path, "is not a caffemodel: it holds no layers", _AGAIN)
    return layers, hashlib.sha256(content).digest()


def shape_of(blob: Any) -> tuple[int, ...]:
    """The extents that a blob says; of old ones four, ones in front."""
    if blob.HasField("shape"):
        return tuple(blob.shape.dim)
    return (blob.num, blob.channels, blob.height, blob.width)


def values_of(blob: Any) -> Array:
    """The values of a blob, float32, in one row. Raises ValueError where they are not as many as its shape says."""
    single, double = (b"".join(chunks) for chunks in (blob.data, blob.double_data))
    if len(single) % 4 or len(double) % 8:
        raise ValueError("its values are damaged")
    values = np.frombuffer(double, "<f8") if double else np.frombuffer(single, "<f4")
    if not values.size:
        loose = LooseValues.FromString(blob.SerializeToString())
        values = np.array(loose.double_data or loose.data, np.float64)
    shape = shape_of(blob)
    if values.size != prod(shape):
        raise ValueError(f"it holds {values.size} values for a shape of {','.join(map(str, shape))}")
    return np.ascontiguousarray(values, np.float32)
