"""Large arrays a part at a time, so that what is computed of them takes little memory."""

from __future__ import annotations

import numpy as np

from sgs.ir import Tensor
from sgs.numeric.quantise import Array, quantise

BLOCK = 1 << 18  # elements


def blocks(array: Array) -> list[Array]:
    """The array as rows of channels, in parts of about BLOCK elements."""
    rows = array.reshape(-1, array.shape[-1] if array.ndim else 1)
    step = max(1, BLOCK // max(1, rows.shape[1]))
    return [rows[start : start + step] for start in range(0, len(rows), step)]


def held_in(tensor: Tensor, value: Array) -> Array:
    """Real numbers as a tensor of a fixed graph holds them: its codes; as they are where it has none."""
    if tensor.quant is None:
        return value
    codes = np.empty(value.shape, tensor.dtype.numpy)
    for source, target in zip(blocks(value), blocks(codes), strict=True):
        target[:] = quantise(source, tensor.quant, tensor.dtype)
    return codes
