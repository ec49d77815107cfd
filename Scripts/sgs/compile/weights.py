"""The weights section: every constant once, 64-byte aligned, INT4 packed."""

from __future__ import annotations

import hashlib

import numpy as np

from sgs.img.coding import ALIGNMENT, Constant
from sgs.numeric.nibbles import pack_nibbles
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType


class WeightPool:
    """Collects constants; equal bytes share one place."""

    def __init__(self) -> None:
        self._chunks: list[Array] = []
        self._seen: dict[tuple[int, bytes], int] = {}
        self._constants: list[Constant] = []
        self.size = 0

    def add(self, data: Array, dtype: DType) -> int:
        """Store a constant as the machine reads it and return its offset."""
        data = np.ascontiguousarray(data)
        raw = pack_nibbles(data) if dtype is DType.INT4 else data.reshape(-1).view(np.uint8)
        key = raw.size, hashlib.blake2b(raw.tobytes(), digest_size=16).digest()
        if key not in self._seen:
            padding = -self.size % ALIGNMENT
            self._chunks += [np.zeros(padding, np.uint8), raw]
            self._seen[key] = self.size + padding
            if raw.size:
                self._constants.append(Constant(self.size + padding, raw.size, data.dtype.itemsize))
            self.size += padding + raw.size
        return self._seen[key]

    @property
    def constants(self) -> tuple[Constant, ...]:
        """Where each constant lies, in order."""
        return tuple(self._constants)

    def bytes(self) -> Array:
        """The section as uint8 [size]."""
        return np.concatenate([np.zeros(0, np.uint8), *self._chunks])
