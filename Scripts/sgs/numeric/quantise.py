"""Scales, zero points, quantisation and requantisation (docs/NUMERICS.md, equations cited by number).

All functions are pure numpy, and every rounding step is stated: a binary32 step really happens in float32 and is never
fused with the next one, so that any IEEE 754 machine computes the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sgs.numeric.types import DType

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class QuantParams:
    """How integer codes stand for real numbers: real = (q - zero_point) * scale (eq. 1).

    `scale` is float32 [1] (per tensor) or [C] (per channel along `axis`); `zero_point` int32 of the same shape.
    `low`/`high` are the real range that calibration chose, in binary32: scale and zero point follow from them (eq. 2,
    3), so what is written down of them gives the same parameters again.
    """

    scale: Array
    zero_point: Array
    axis: int = 0
    low: Array = field(default_factory=lambda: np.zeros(0, np.float32))
    high: Array = field(default_factory=lambda: np.zeros(0, np.float32))

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", np.atleast_1d(np.asarray(self.scale, np.float32)))
        object.__setattr__(self, "zero_point", np.atleast_1d(np.asarray(self.zero_point, np.int32)))
        if self.scale.shape != self.zero_point.shape or self.scale.ndim != 1:
            raise ValueError(f"scale {self.scale.shape} and zero_point {self.zero_point.shape} must be equal vectors")
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise ValueError("scales must be finite and positive")

    @property
    def per_tensor(self) -> bool:
        return self.scale.size == 1

    def same_codes(self, other: QuantParams | None) -> bool:
        """True when both map every code to the same real number."""
        return (
            other is not None
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
            and (self.per_tensor or self.axis == other.axis)
        )

    def shaped(self, rank: int) -> tuple[Array, Array]:
        """(scale, zero_point) reshaped to broadcast against a tensor of `rank` dimensions."""
        shape = [1] * rank
        if not self.per_tensor:
            shape[self.axis] = self.scale.size
        return self.scale.reshape(shape), self.zero_point.reshape(shape)


def asymmetric_params(low: float, high: float, dtype: DType = DType.UINT8) -> QuantParams:
    """Eq. 2: per-tensor scale and integer zero point of a range, widened to contain 0.

    An empty or all-zero range gets scale 1 so that 0 stays exact.
    """
    with np.errstate(over="ignore"):
        lo, hi = (float(np.float32(end)) for end in (min(float(low), 0.0), max(float(high), 0.0)))
    if not (np.isfinite(lo) and np.isfinite(hi)):
        raise ValueError(f"range [{low}, {high}] is not finite")
    steps = dtype.qmax - dtype.qmin
    scale = np.float32((hi - lo) / steps) if hi > lo else np.float32(1)
    scale = max(scale, np.finfo(np.float32).tiny)
    zero = int(np.clip(np.rint(dtype.qmin - lo / float(scale)), dtype.qmin, dtype.qmax))
    return QuantParams(np.array([scale]), np.array([zero]), 0, np.array([lo], np.float32), np.array([hi], np.float32))


def symmetric_params(bound: object, dtype: DType, axis: int = 0) -> QuantParams:
    """Eq. 3: zero point 0 and scale bound / qmax, per tensor (scalar `bound`) or per channel (vector, along `axis`)."""
    with np.errstate(over="ignore"):
        high = np.atleast_1d(np.asarray(bound, np.float32))
    if not np.isfinite(high).all():
        raise ValueError("bounds must be finite")
    scale = np.where(high > 0, high.astype(np.float64) / dtype.qmax, 1.0).astype(np.float32)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    return QuantParams(scale, np.zeros(scale.shape, np.int32), axis, -high, high)


def activation_params(low: float, high: float, dtype: DType) -> QuantParams:
    """Parameters of an activation: asymmetric for UINT8 (eq. 2), symmetric for INT16 (eq. 3)."""
    if dtype is DType.UINT8:
        return asymmetric_params(low, high, dtype)
    return symmetric_params(max(abs(float(low)), abs(float(high))), dtype)


def quantise(real: Array, params: QuantParams, dtype: DType) -> Array:
    """Eq. 4: clamp(rint(x / scale) + zero_point), the division in binary32, ties to even. NaN becomes the zero
    point.
    """
    scale, zero = params.shaped(np.ndim(real))
    with np.errstate(over="ignore"):  # a value too large for the division saturates, as any other outside the range
        x = np.asarray(real, np.float32) / scale
    codes = np.rint(np.nan_to_num(x, nan=0.0, posinf=3e38, neginf=-3e38)).astype(np.float64) + zero
    return np.asarray(np.clip(codes, dtype.qmin, dtype.qmax), dtype.numpy)  # an array where there is no dimension too


def quantise_weights(real: Array, params: QuantParams, dtype: DType) -> Array:
    """Eq. 5: symmetric weights clamped to [-qmax, qmax], computed in binary64."""
    scale, _ = params.shaped(np.ndim(real))
    codes = np.rint(np.asarray(real, np.float64) / scale.astype(np.float64))
    return np.clip(codes, -dtype.qmax, dtype.qmax).astype(dtype.numpy)


def dequantise(codes: Array, params: QuantParams) -> Array:
    """Eq. 1 in binary32: float32(q - zero_point) * scale."""
    scale, zero = params.shaped(np.ndim(codes))
    return np.asarray((codes.astype(np.int64) - zero).astype(np.float32) * scale)


def multiplier(s_in: Array, s_weight: Array, s_out: Array) -> Array:
    """Eq. 6: M = s_in * s_weight / s_out in binary64 [C]; callers round it once to binary32."""
    return np.asarray(s_in.astype(np.float64) * s_weight.astype(np.float64) / s_out.astype(np.float64))


def requantise(
    acc: Array, mult: Array, zero: int, dtype: DType, low: int | None = None, high: int | None = None
) -> Array:
    """Eq. 7/8: clamp(rint(acc * M) + zero_point), ties to even.

    `acc` int64, exact sums with channels last; `mult` float32 (acc is rounded to binary32 first and the product is
    binary32) or float64 (everything binary64), scalar or [C]. `low`/`high` bound the codes where an activation is
    fused, default to the type's range.
    """
    codes = np.rint(acc.astype(mult.dtype) * mult).astype(np.float64) + zero
    return np.asarray(
        np.clip(codes, dtype.qmin if low is None else low, dtype.qmax if high is None else high), dtype.numpy
    )
