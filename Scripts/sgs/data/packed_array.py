"""Arrays of real numbers inside JSON: {"shape", "dtype", "base64"}, the bytes little-endian in C order."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sgs.numeric.quantise import Array

_TYPES = {"float32": "<f4", "float64": "<f8"}


def packed(array: Array) -> dict[str, Any]:
    """The record of an array: float32 stays what it is, anything else becomes float64."""
    name = "float32" if array.dtype == np.float32 else "float64"
    raw = np.ascontiguousarray(array, _TYPES[name]).tobytes()
    return {"shape": list(array.shape), "dtype": name, "base64": base64.b64encode(raw).decode("ascii")}


def unpacked(record: Mapping[str, Any]) -> Array:
    """Inverse of `packed`. Raises ValueError saying what is wrong with the record."""
    if set(record) != {"shape", "dtype", "base64"}:
        raise ValueError(f"has the keys {', '.join(map(repr, record))} instead of 'shape', 'dtype', 'base64'")
    shape, dtype, text = record["shape"], record["dtype"], record["base64"]
    if not isinstance(shape, list) or not all(type(d) is int and d >= 0 for d in shape):
        raise ValueError(f"has the shape {shape!r}, which is no list of whole numbers")
    if dtype not in _TYPES:
        raise ValueError(f"has the dtype {dtype!r} instead of {' or '.join(_TYPES)}")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ValueError("is not base64") from error
    wanted = math.prod(shape) * np.dtype(_TYPES[dtype]).itemsize
    if len(raw) != wanted:
        raise ValueError(f"has {len(raw)} bytes; {dtype} of shape {shape} has {wanted}")
    return np.frombuffer(raw, _TYPES[dtype]).reshape(shape)
