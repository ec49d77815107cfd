"""INT4 in memory: two elements a byte, the earlier one in the low bits."""

from __future__ import annotations

import numpy as np

from sgs.numeric.quantise import Array


def pack_nibbles(values: Array) -> Array:
    """Int8 elements in [-8, 7] of any shape as uint8 [(n + 1) / 2]; an odd last one is followed by 0."""
    flat = values.reshape(-1).view(np.uint8) & np.uint8(15)
    pairs = np.concatenate([flat, np.zeros(flat.size % 2, np.uint8)]).reshape(-1, 2)
    return np.asarray(pairs[:, 0] | (pairs[:, 1] << 4), np.uint8)


def unpack_nibbles(data: Array, elements: int) -> Array:
    """The first `elements` INT4 elements of packed bytes, as int8 [elements]."""
    nibbles = np.stack([data & 15, data >> 4], -1).reshape(-1)[:elements]
    return (nibbles ^ 8).astype(np.int8) - np.int8(8)
