"""Attributes of a command as bytes: a flexbuffer map of plain values."""

from __future__ import annotations

from typing import Any

import numpy as np
from flatbuffers import flexbuffers

_MOST_ATTRIBUTES = 1000
_DEEPEST = 8  # sequences in sequences


def pack_attributes(attrs: dict[str, Any]) -> bytes:
    """Attributes (numbers, strings, booleans, None, nested sequences of them) as a flexbuffer map, keys in ASCII order.

    Raises TypeError for anything else, which would not come back as it was.
    """
    return bytes(flexbuffers.Dumps({key: _plain(attrs[key]) for key in sorted(attrs)}))


def unpack_attributes(data: bytes) -> dict[str, Any]:
    """The inverse of `pack_attributes`; every sequence comes back as a tuple. Raises ValueError for bytes that are no
    map of such values, and what the parser raises for bytes that are no flexbuffer."""
    root = flexbuffers.GetRoot(data)
    if not root.IsMap or len(root.AsMap) > _MOST_ATTRIBUTES:
        raise ValueError("the attributes of a command are not a map, or too many")
    reader = _Reader(len(data))
    return {reader.key(key): reader.value(value) for key, value in zip(root.AsMap.Keys, root.AsMap.Values, strict=True)}


class _Reader:
    """Reads values. As many bytes as there are have to be enough for them: values may lie on top of each other, so that
    a few bytes describe what no memory holds."""

    def __init__(self, size: int) -> None:
        self._left = size

    def _take(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0:
            raise ValueError("the attributes of a command are larger than their bytes")

    def key(self, ref: Any) -> str:
        text = str(ref.AsKey)
        self._take(len(text))
        return text

    def value(self, ref: Any, depth: int = 0) -> Any:
        """A plain value, or a tuple of values up to `_DEEPEST` deep."""
        self._take(1)
        if ref.IsTypedVector or ref.IsFixedTypedVector:
            values = ref.AsTypedVector if ref.IsTypedVector else ref.AsFixedTypedVector
            if values.ElementType is flexbuffers.Type.KEY:
                raise ValueError("an attribute is a sequence of keys")
            self._take(len(values))
            return tuple(values.Value)
        if ref.IsVector and not ref.IsMap and depth < _DEEPEST:
            return tuple(self.value(item, depth + 1) for item in ref.AsVector)
        if ref.IsString:
            text = str(ref.AsString)
            self._take(len(text))
            return text
        if ref.IsNull or ref.IsBool or ref.IsNumeric:
            return ref.Value
        raise ValueError("an attribute is neither a plain value nor a sequence of them")


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
