"""The bins of histograms of activations."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from sgs.numeric.quantise import Array

BINS = 2048
_SMALLEST_STEP = 1e-37  # binary32 numbers below 1.2e-38 lose precision
_COUNTED_AT_ONCE = 1 << 24  # cv2 counts in binary32


@dataclass(frozen=True)
class Bins:
    """BINS bins of width `step`; bin k holds the values nearest to (k - zero) · step, so one bin is centred on 0."""

    step: float  # a binary32 number
    zero: int

    @staticmethod
    def of(low: float, high: float) -> Bins:
        """Bins that cover low, high and 0, with one to spare at each end for what other machines round otherwise."""
        low, high = min(low, 0.0), max(high, 0.0)
        step = float(np.float32(max((high - low) / (BINS - 4), _SMALLEST_STEP)))
        return Bins(step, 1 - round(low / step))

    @property
    def centres(self) -> Array:
        """Real values that the bins stand for, float64 [BINS]."""
        return np.asarray((np.arange(BINS) - self.zero) * self.step)

    @property
    def edges(self) -> Array:
        """Where the bins begin and the last one ends, float64 [BINS + 1]."""
        return np.asarray((np.arange(BINS + 1) - self.zero - 0.5) * self.step)


def count(codes: Array) -> Array:
    """How often each of the numbers 0 .. BINS - 1 occurs in an array of uint16: int64 [BINS]."""
    flat = codes.reshape(1, -1)
    total = np.zeros(BINS, np.int64)
    for start in range(0, flat.size, _COUNTED_AT_ONCE):
        part = flat[:, start : start + _COUNTED_AT_ONCE]
        total += cv2.calcHist([part], [0], None, [BINS], [0, BINS]).reshape(-1).astype(np.int64)
    return total
