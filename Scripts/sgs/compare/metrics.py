"""How far the values of one tensor are from those of another, added up over samples."""

from __future__ import annotations

import numpy as np

from sgs.numeric.quantise import Array
from sgs.quant.blocks import BLOCK
from sgs.report.compared import Errors

MOST_DECIBELS = 120.0  # of a tensor without any error, or without a signal in which there might be one


class Sums:
    """Running sums in binary64, of blocks, from which `errors` follow. Places where the reference is not finite tell
    nothing and are left out; a value that is no number beside one that is, is infinitely far off."""

    def __init__(self) -> None:
        self.elements = 0
        self.largest = 0.0
        self._sums = np.zeros(6)  # of (a-b)², |a-b|, |a|, a², b², a·b

    def add(self, reference: Array, value: Array) -> None:
        """Take in two arrays of one shape."""
        a_all, b_all = reference.reshape(-1), value.reshape(-1)
        for start in range(0, a_all.size, BLOCK):
            a, b = (part[start : start + BLOCK].astype(np.float64) for part in (a_all, b_all))
            finite = np.isfinite(a)
            if not finite.all():
                a, b = a[finite], b[finite]
            with np.errstate(invalid="ignore", over="ignore"):  # what B makes of it may be infinite, or no number
                off = np.abs(a - b)
                off[np.isnan(off)] = np.inf
                self._sums += [off @ off, off.sum(), np.abs(a).sum(), a @ a, b @ b, a @ b]
                self.largest = max(self.largest, float(off.max(initial=0.0)))
            self.elements += a.size

    def errors(self) -> Errors:
        squares, off, magnitude, signal, power, product = self._sums
        mse = float(squares / max(self.elements, 1))
        with np.errstate(invalid="ignore"):
            cosine = product / np.sqrt(signal) / np.sqrt(power) if signal and power else signal == power
        return Errors(
            elements=self.elements,
            mse=mse,
            rmse=float(np.sqrt(mse)),
            relative_l1=_ratio(off, magnitude),
            cosine=float(cosine),
            sqnr=_decibels(signal, squares),
            max_abs=self.largest,
        )


def signal_to_noise(reference: Array, value: Array) -> float:
    """`Errors.sqnr` of two arrays of one shape."""
    sums = Sums()
    sums.add(reference, value)
    return sums.errors().sqnr


def _ratio(off: float, magnitude: float) -> float:
    """Infinite where there is an error of nothing."""
    if magnitude > 0:
        return float(off / magnitude)
    return float("inf") if off > 0 else 0.0


def _decibels(signal: float, noise: float) -> float:
    """At most MOST_DECIBELS, at least as far below 0; that too where nothing should be and something is."""
    if noise == 0:
        return MOST_DECIBELS
    if not signal > 0 or not np.isfinite(noise):
        return -MOST_DECIBELS
    return float(np.clip(10 * np.log10(signal / noise), -MOST_DECIBELS, MOST_DECIBELS))


class Spread:
    """Where the values of a tensor lie: `low` and `high` of the reference, `held_low` and `held_high` of what B holds;
    how many of the reference's are beyond the `span` of B's codes, and the energy that is lost there; both arrays have
    their channels multiplied by `scale`, which that energy has not."""

    def __init__(self, span: tuple[float, float] | None, step: float, scale: Array | float = 1.0) -> None:
        self._span, self._step, self._scale = span, step, scale
        self.low = self.held_low = np.inf
        self.high = self.held_high = -np.inf
        self.lost = 0.0  # Σ(distance to the span)²
        self._elements = self._outside = 0

    def add(self, reference: Array, value: Array) -> None:
        """Take in two arrays of one shape."""
        finite = reference[np.isfinite(reference)] if reference.dtype.kind == "f" else reference
        if not finite.size:
            return
        low, high = float(finite.min()), float(finite.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.held_low = min(self.held_low, float(value.min()))
        self.held_high = max(self.held_high, float(value.max()))
        self._elements += finite.size
        if self._span is not None and (low < self._span[0] - self._step or high > self._span[1] + self._step):
            beyond = (reference < self._span[0] - self._step) | (reference > self._span[1] + self._step)
            beyond &= np.isfinite(reference)
            off = ((reference.astype(np.float64) - np.clip(reference, *self._span)) / self._scale)[beyond]
            self.lost += float(off @ off)
            self._outside += off.size

    @property
    def outside(self) -> float:
        """Share of the reference's values that B's codes do not reach."""
        return self._outside / max(self._elements, 1)

    @property
    def constant(self) -> bool:
        """Whether the reference is one number everywhere."""
        return self.low == self.high

    @property
    def held_constant(self) -> bool:
        """Whether B holds one number everywhere."""
        return self.held_low == self.held_high
