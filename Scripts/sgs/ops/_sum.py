"""Exact integer sums of codes, for averages and reductions: q = clamp(rint(acc · M) + zp) (docs/NUMERICS.md eq. 7, 8).

acc = Σ (q_x - z_x) over `terms` codes. It is held in binary32 where no partial sum can reach 2^24 (511 INT16 or 65,793
UINT8 codes), else in binary64; M = s_x / (s_y · count) has the same precision, rounded once from binary64.
"""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array, requantise
from sgs.numeric.types import DType
from sgs.ops._mac import EXACT_BINARY32


def reach(x: Tensor) -> int:
    """A bound on |q - z| that depends on the type alone."""
    return 255 if x.dtype is DType.UINT8 else 32768


def terms_in_binary32(x: Tensor) -> int:
    """How many codes of x can be summed exactly in binary32."""
    return (EXACT_BINARY32 - 1) // reach(x)


def sum_multiplier(x: Tensor, y: Tensor, count: Array, terms: int) -> Array:
    """M for sums of up to `terms` codes of x that are divided by `count` (any shape; 1 for plain sums)."""
    assert x.quant is not None and y.quant is not None
    exact = np.float64(x.quant.scale[0]) / (np.float64(y.quant.scale[0]) * np.asarray(count, np.float64))
    return np.asarray(exact, np.float32 if terms <= terms_in_binary32(x) else np.float64)


def centred_codes(x: Tensor, codes: Array) -> Array:
    """Reference: q - z in int64."""
    assert x.quant is not None
    return codes.astype(np.int64) - int(x.quant.zero_point[0])


def requantised(y: Tensor, acc: Array, mult: Array, bounds: tuple[int | None, int | None] = (None, None)) -> Array:
    """Reference: eq. 7 or 8 for a multiplier that broadcasts against `acc`."""
    assert y.quant is not None
    return np.asarray(requantise(acc, mult, int(y.quant.zero_point[0]), y.dtype, *bounds))
