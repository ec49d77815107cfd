"""How the values of a tensor are distributed: in the float network, and as the fixed one holds them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sgs.numeric.quantise import Array

BINS = 64


@dataclass(frozen=True)
class Histogram:
    """Counts of a tensor's values in equal bins from `low` to `high`: `real` of the float network, `held` of what the
    fixed network holds, dequantised, either empty where it was not looked at. `range_low` and `range_high`: the real
    range of the codes, None where there are none. What is not finite is not counted."""

    name: str
    low: float
    high: float
    real: tuple[int, ...]
    held: tuple[int, ...]
    range_low: float | None
    range_high: float | None


def even(low: float, high: float) -> tuple[float, float]:
    """Where bins begin and end for values from `low` to `high`: where all are equal, they are in the middle of a range
    that is wider; [0, 1] where there are none (`low` above `high`)."""
    if low > high:
        return 0.0, 1.0
    slack = 0.0 if high > low else max(0.5, abs(low) * 1e-3)
    return low - slack, high + slack


def bin_counts(values: Array, low: float, high: float, bins: int = BINS) -> Array:
    """How many of the finite values are in each of equal bins from `low` to `high`, int64 [bins]."""
    flat = finite(values)
    return np.asarray(np.histogram(flat, bins, (low, high))[0], np.int64)


def finite(values: Array) -> Array:
    """float64 [values], of those that are finite."""
    flat = values.reshape(-1).astype(np.float64)
    kept = np.isfinite(flat)
    return flat if kept.all() else np.asarray(flat[kept])
