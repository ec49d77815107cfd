"""How the range of an activation, or the bound of a weight channel, is chosen. One function an algorithm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgs.numeric.quantise import Array
from sgs.quant.plan import TensorRange
from sgs.quant.statistics import TensorStatistics, bin_centres

KNOWN, PRESET = "known", "preset"  # how ranges were chosen that need no measuring
_SEARCHED = {
    4: (36, 0.3),
    8: (16, 0.6),
}  # bits of weights → bounds tried, the smallest as a share of the largest weight
_LARGEST = float(np.finfo(np.float32).max)


def minmax(statistics: TensorStatistics) -> TensorRange:
    """Everything that was seen."""
    low, high = statistics.span
    return TensorRange(low, high, "minmax")


def widened(chosen: TensorRange, factor: float, limit: float = _LARGEST) -> TensorRange:
    """The range times `factor`, within ±limit."""
    low, high = max(chosen.low * factor, -limit), min(chosen.high * factor, limit)
    return TensorRange(min(low, chosen.low), max(high, chosen.high), f"{chosen.method} x {factor:g}")


def pixel_range(mean: Sequence[float], std: Sequence[float]) -> TensorRange | None:
    """The range of normalised pixels in UINT8 with the least squared error over the 256 values of a pixel, where the
    channels of a picture share one mean and one std; None where they differ.

    With a whole mean in 0..255 it is that of the pixels, every one of which is its own code. With a half, such as
    127.5, all codes of that range would lie in the middle between pixels: a little wider is better.
    """
    if len(set(zip(mean, std, strict=True))) != 1:
        return None
    pixels = (np.arange(256) - mean[0]) / std[0]
    low, high, counts = min(float(pixels[0]), 0.0), max(float(pixels[-1]), 0.0), np.ones(256)
    factors = np.linspace(1, 256 / 254, 129)
    best = factors[int(np.argmin([round(_error(pixels, counts, low * f, high * f, 255), 12) for f in factors]))]
    return TensorRange(low * best, high * best, KNOWN)


def _error(centres: Array, counts: Array, low: float, high: float, steps: int) -> float:
    """Σ count·(x - Q(x))² for an asymmetric quantiser of `steps` steps between low and high (0 inside)."""
    scale = max((high - low) / steps, 1e-30)
    zero = np.rint(-low / scale)
    codes = np.clip(np.rint(centres / scale) + zero, 0, steps)
    return float((counts * (centres - (codes - zero) * scale) ** 2).sum())


def histogram_mse(
    statistics: TensorStatistics, *, steps: int = 255, candidates: int = 40, rounds: int = 2
) -> TensorRange:
    """The clipping range with the least mean squared quantisation error over the histogram.

    Coordinate search: each end is tried at `candidates` fractions of its extreme while the other is held, `rounds`
    times, every round on a grid around the best so far. Never worse on the histogram than min/max, which is the first
    candidate.
    """
    assert statistics.counts is not None
    low, high = (min(statistics.span[0], 0.0), max(statistics.span[1], 0.0))
    if not high > low:
        return minmax(statistics)
    centres, counts = bin_centres(statistics), statistics.counts.astype(np.float64)
    keep = counts > 0
    centres, counts = centres[keep], counts[keep]
    best = (_error(centres, counts, low, high, steps), low, high)
    width = 0.9
    for _ in range(rounds):
        for end in (1, 0):
            anchor = best[1 + end]
            if anchor == 0:
                continue
            for fraction in np.linspace(1 - width, 1, candidates, endpoint=False):
                left, right = (best[1], anchor * fraction) if end else (anchor * fraction, best[2])
                error = _error(centres, counts, left, right, steps)
                if error < best[0]:
                    best = (error, left, right)
        width /= 4
    return TensorRange(best[1], best[2], "histogram-mse")


def percentile(statistics: TensorStatistics, share: float = 0.99999) -> TensorRange:
    """The range that holds `share` of the values, the same part of the others cut off at either end."""
    assert statistics.counts is not None
    counts, edges = statistics.counts, np.clip(statistics.bins.edges, *statistics.span)
    below = np.cumsum(counts) / max(int(counts.sum()), 1)
    first = int(np.searchsorted(below, (1 - share) / 2))
    last = int(np.searchsorted(below, 1 - (1 - share) / 2))
    return TensorRange(float(edges[first]), float(edges[min(last, len(counts) - 1) + 1]), "percentile")


def kullback_leibler(statistics: TensorStatistics, *, levels: int = 256, candidates: int = 32) -> TensorRange:
    """The clipping range whose histogram, coarsened to `levels` values, tells least from the whole one.

    As in TensorRT (Migacz 2017, 8-bit Inference with TensorRT): what is cut off is added to the last bin of the
    reference, the coarse values are spread over the bins that were not empty. Both ends move in proportion.
    """
    assert statistics.counts is not None
    low, high = min(statistics.span[0], 0.0), max(statistics.span[1], 0.0)
    centres, counts = bin_centres(statistics), statistics.counts.astype(np.float64)
    best, half = (np.inf, low, high), statistics.bins.step / 2
    for fraction in np.linspace(1, 0.1, candidates):
        below, above = centres <= low * fraction - half, centres >= high * fraction + half
        inside = counts[~(below | above)]
        if len(inside) < levels:
            break
        reference = inside.copy()
        reference[0] += counts[below].sum()
        reference[-1] += counts[above].sum()
        divergence = _divergence(reference, _coarse(inside, levels))
        if divergence < best[0]:
            best = (divergence, low * fraction, high * fraction)
    return TensorRange(best[1], best[2], "kullback-leibler")


def _coarse(counts: Array, levels: int) -> Array:
    """Counts summed in `levels` groups of neighbours, each spread evenly over its bins that are not empty."""
    group = np.arange(len(counts)) * levels // len(counts)
    total = np.bincount(group, counts, levels)
    filled = np.bincount(group, counts > 0, levels)
    return np.asarray(np.where(counts > 0, (total / np.maximum(filled, 1))[group], 0.0))


def _divergence(p: Array, q: Array) -> float:
    """Kullback-Leibler divergence of two histograms; a thousandth of a count stands in where q alone is empty."""
    p, q = p / max(p.sum(), 1e-30), np.maximum(q, 1e-3)
    q = q / q.sum()
    filled = p > 0
    return float((p[filled] * np.log(p[filled] / q[filled])).sum())


def candidates(statistics: TensorStatistics) -> list[TensorRange]:
    """What to choose from, the range of all that was seen first: of the searched ones those with less squared error
    over the histogram, since a few samples cannot tell what cutting off rare values does."""
    if not statistics.span[1] > statistics.span[0]:
        return [minmax(statistics)]
    searched = [histogram_mse(statistics), percentile(statistics), kullback_leibler(statistics)]
    whole = minmax(statistics)
    return [
        whole,
        *(found for found in searched if _squared_error(statistics, found) < _squared_error(statistics, whole)),
    ]


def _squared_error(statistics: TensorStatistics, chosen: TensorRange) -> float:
    """Over the histogram, in UINT8."""
    assert statistics.counts is not None
    low, high = min(chosen.low, 0.0), max(chosen.high, 0.0)
    return _error(bin_centres(statistics), statistics.counts.astype(np.float64), low, high, 255)


def weight_absmax(weight: Array, axis: int) -> Array:
    """Largest magnitude per output channel, float64 [O]."""
    return np.asarray(np.abs(np.moveaxis(weight, axis, 0)).reshape(weight.shape[axis], -1).max(1), np.float64)


def weight_mse(weight: Array, axis: int, *, steps: int, candidates: int = 24, smallest: float = 0.6) -> Array:
    """Bound per output channel with the least squared quantisation error, float64 [O]; never worse than absmax."""
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)
    bound = weight_absmax(weight, axis)
    best, best_error = bound.copy(), np.full(bound.shape, np.inf)
    for fraction in np.linspace(1, smallest, candidates):
        trial = bound * fraction
        scale = np.where(trial > 0, trial / steps, 1.0)[:, None]
        error = ((rows - np.clip(np.rint(rows / scale), -steps, steps) * scale) ** 2).sum(1)
        better = error < best_error
        best[better], best_error[better] = trial[better], error[better]
    return best


def weight_bound(weight: Array, axis: int, bits: int) -> Array:
    """Bound per output channel for weights of 4, 8 or 16 bits, float64 [O]; of 16, where nothing is gained by cutting
    off, the largest magnitude."""
    if bits == 16:
        return weight_absmax(weight, axis)
    candidates, smallest = _SEARCHED[bits]
    return weight_mse(weight, axis, steps=2 ** (bits - 1) - 1, candidates=candidates, smallest=smallest)
