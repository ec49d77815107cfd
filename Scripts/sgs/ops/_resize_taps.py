"""How ONNX's Resize reads an axis: coordinates, taps and weights.

Every position o of a result has a coordinate in the operand, by `coordinate_transformation_mode`. Nearest takes the
entry that the coordinate is rounded to; linear and cubic weigh the entries around it, 2 and 4 of them, or with
antialias as many as 1 / scale times that where the axis gets shorter. The steps are those of the specification, whose
`length_resized` is the fractional size · scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sgs.numeric.quantise import Array

MODES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)
ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True)
class Axis:
    """An axis to be resized: its extent, the extent it gets, the factor that coordinates are computed with, and the
    part [begin, end] of it, 0 and 1 being its ends, that mode tf_crop_and_resize looks at."""

    size: int
    result: int
    scale: np.float32
    begin: float = 0.0
    end: float = 1.0

    @property
    def length(self) -> np.float32:
        """size · scale, the whole number `result` where it is one but for the rounding of `scale`."""
        return np.float32(self.result if self.whole else float(self.scale) * self.size)

    @property
    def whole(self) -> bool:
        """Whether `length` is a whole number."""
        return abs(float(self.scale) * self.size - self.result) < 1e-5 * self.size

    def places(self, mode: str) -> Array:
        """[result] input coordinates, in binary32 but for asymmetric ones."""
        o, half, last = np.arange(self.result, dtype=np.float32), np.float32(0.5), np.float32(self.size - 1)
        if mode == "align_corners":
            return np.asarray(o * last / (self.length - 1 if self.length != 1 else np.float32(1)))
        if mode == "tf_crop_and_resize":
            begin, end = np.float32(self.begin), np.float32(self.end)
            if self.length <= 1:
                return np.full(self.result, half * (begin + end) * last, np.float32)
            return np.asarray(begin * last + o * (end - begin) * last / (self.length - 1))
        if mode == "asymmetric":  # halves are ties when rounded, so a ratio of whole numbers is not rounded first
            return np.asarray(o.astype(np.float64) * self.size / self.result if self.whole else o / self.scale)
        if mode == "tf_half_pixel_for_nn":
            return np.asarray((o + half) / self.scale)
        if mode == "pytorch_half_pixel" and self.result == 1:
            return np.zeros(1, np.float32)
        offset = np.float32(0)
        if mode == "half_pixel_symmetric":
            offset = np.float32(self.size / 2) * (1 - np.float32(self.result) / (self.scale * np.float32(self.size)))
        return np.asarray(offset + (o + half) / self.scale - half)

    def outside(self, mode: str) -> Array:
        """bool [result]: where mode tf_crop_and_resize looks beyond the axis."""
        places = self.places(mode)
        beyond = (places < 0) | (places > self.size - 1)
        return np.asarray(beyond & (mode == "tf_crop_and_resize"))


@dataclass(frozen=True)
class Kernel:
    """What weighs the entries around a coordinate: `reach` of them on both sides, by `weigh(distance)`."""

    reach: int
    weigh: Callable[[Array], Array]
    antialias: bool = False
    exclude_outside: bool = False

    def taps(self, axis: Axis, mode: str) -> tuple[Array, Array]:
        """(positions [result, T] in the axis, weights float64 [result, T], of which every row sums to 1)."""
        places = axis.places(mode).astype(np.float64)
        shrink = min(float(axis.scale), 1.0) if self.antialias else 1.0
        wide = int(np.ceil(self.reach / shrink))
        taps = np.floor(places)[:, None] + np.arange(1 - wide, wide + 1)
        weights = self.weigh(np.abs(taps - places[:, None]) * shrink)
        if self.exclude_outside:
            weights = np.where((taps < 0) | (taps >= axis.size), 0, weights)
        weights = weights / weights.sum(1, keepdims=True)
        used = (weights != 0).any(0)
        return np.clip(taps[:, used], 0, axis.size - 1).astype(np.int64), weights[:, used]


def triangle(distance: Array) -> Array:
    """Weights of linear interpolation."""
    return np.asarray(np.clip(1 - distance, 0, None))


def cubic(a: float) -> Callable[[Array], Array]:
    """Weights of cubic convolution with coefficient `a`."""

    def weigh(d: Array) -> Array:
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0))

    return weigh
