"""Attributes of a command as bytes: a flexbuffer map of plain values."""

from __future__ import annotations

from typing import Any

import numpy as np
from flatbuffers import flexbuffers


def pack_attributes(attrs: dict[str, Any]) -> bytes:
    """Attributes (numbers, strings, booleans, None, nested sequences of them) as a flexbuffer map, keys in ASCII order.

    Raises TypeError for anything else, which would not come back as it was.
    """
    return bytes(flexbuffers.Dumps({key: _plain(attrs[key]) for key in sorted(attrs)}))


def unpack_attributes(data: bytes) -> dict[str, Any]:
    """The inverse of `pack_attributes`; every sequence comes back as a tuple. Raises ValueError for bytes that are no
    map."""
    attrs = flexbuffers.Loads(data)
    if not isinstance(attrs, dict):
        raise ValueError("the attributes of a command are not a map")
    return {key: _tuples(value) for key, value in attrs.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"an attribute of type {type(value).__name__} cannot be stored")


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
