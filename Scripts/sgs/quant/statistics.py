"""What calibration knows about the activations of a float network: extrema per channel, and histograms.

Statistics are values: they can be saved, loaded and merged (`quant.statistics_file`). Everything in them merges exactly
and in any order (extrema and integer counts), so they do not depend on the order of the pictures or on how many threads
and processes shared them. Memory does not grow with the number of pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sgs.data.shards import processors
from sgs.errors import UserError
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.quant.bins import Bins
from sgs.quant.observe import Counted, ExtremaObserver, Feeds, HistogramObserver, Streams, not_finite, observe
from sgs.quant.propagate import Extrema, Propagation, marked_tensors, observed_tensors

__all__ = [
    "Statistics",
    "TensorStatistics",
    "bin_centres",
    "extrema_statistics",
    "marked_tensors",
    "measure_extrema",
    "measure_histograms",
    "observed_tensors",
    "with_tally",
]


@dataclass(frozen=True, eq=False)
class TensorStatistics:
    """One activation: the smallest and the largest value of each channel (last axis), float32 [C], and how many of
    all its values fall into each of `bins`, int64 [BINS], where they were counted.
    """

    low: Array
    high: Array
    counts: Array | None = None

    @property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest value of all."""
        return float(self.low.min()), float(self.high.max())

    @property
    def bins(self) -> Bins:
        """What `counts` are counts of."""
        return Bins.of(*self.span)


@dataclass(frozen=True)
class Statistics:
    """Statistics of activations by name over `samples` pictures."""

    samples: int = 0
    tensors: Mapping[str, TensorStatistics] = field(default_factory=dict)

    def merged(self, other: Statistics) -> Statistics:
        """Statistics of both sets of pictures, without histograms: their bins follow from the extrema of all pictures.

        Histograms over a cluster: every machine takes the extrema of its pictures, all are merged, every machine takes
        the histograms of its pictures with the merged extrema, and these are put together by `with_counts_of`.
        """
        if not (self.samples and other.samples):
            return self if self.samples else other
        tensors = {
            name: TensorStatistics(
                np.minimum(t.low, other.tensors[name].low), np.maximum(t.high, other.tensors[name].high)
            )
            for name, t in self.tensors.items()
        }
        return Statistics(self.samples + other.samples, tensors)

    def with_counts_of(self, other: Statistics) -> Statistics:
        """These statistics with the histograms of others added, which have the same extrema: shares of one second
        pass. Raises ValueError for other extrema.
        """
        tensors = dict(self.tensors)
        for name, theirs in other.tensors.items():
            if theirs.counts is None:
                continue
            ours = tensors[name]
            if ours.bins != theirs.bins:
                raise ValueError(f"histograms of '{name}' have different bins: merge the extrema first")
            tensors[name] = replace(ours, counts=theirs.counts if ours.counts is None else ours.counts + theirs.counts)
        return Statistics(self.samples, tensors)


def bin_centres(statistics: TensorStatistics) -> Array:
    """Real values that the bins stand for, float64 [BINS]."""
    return statistics.bins.centres


# -- measuring ---------------------------------------------------------------------------------------------------------
def measure_extrema(graph: Graph, feeds: Iterable[Feeds], *, threads: int = 0) -> Statistics:
    """Pass 1 over a float graph: extrema of every activation. Raises UserError for values that are not finite, and
    where there are no feeds."""
    propagation, streams = Propagation.of(graph), Streams.of(graph, threads or processors())
    observer = ExtremaObserver(graph, propagation.measured, streams)
    samples = 0

    def counted() -> Iterator[Feeds]:
        nonlocal samples
        for sample in feeds:
            samples += 1
            yield sample

    tally = observe(observer, counted(), lanes=streams.lanes)
    if not samples:
        raise UserError("there are no calibration samples", stage="calibrate")
    return extrema_statistics(propagation, observer.extrema(tally), samples)


def extrema_statistics(propagation: Propagation, measured: Mapping[str, Extrema], samples: int) -> Statistics:
    """Statistics without histograms of all activations, from what was measured. Raises UserError for values that are
    not finite."""
    tensors = {}
    for name, (low, high) in propagation.completed(measured).items():
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise not_finite(name)
        tensors[name] = TensorStatistics(low, high)
    return Statistics(samples, tensors)


def measure_histograms(
    graph: Graph,
    feeds: Iterable[Feeds],
    names: Sequence[str],
    extrema: Statistics,
    *,
    scaled: Mapping[str, tuple[str, Array]] | None = None,
    threads: int = 0,
) -> Statistics:
    """Pass 2: `extrema` with histograms of `names` added; their bins follow from the extrema, so shares of the pictures
    add up exactly (`Statistics.with_counts_of`).

    `scaled` asks for more: name → (activation, factors float32 [C]) is that activation with each channel multiplied,
    and becomes a tensor of its own in the statistics.
    """
    known = with_scaled(extrema, scaled or {})
    wanted = counted_tensors(known, names, scaled or {})
    if not wanted:
        return known
    streams = Streams.of(graph, threads or processors())
    tally = observe(HistogramObserver(graph, wanted, streams), feeds, lanes=streams.lanes)
    return with_tally(known, [*names, *(scaled or {})], tally)


def counted_tensors(known: Statistics, names: Sequence[str], scaled: Mapping[str, tuple[str, Array]]) -> list[Counted]:
    """What is counted for `names`, then for the `scaled` activations."""
    plain = [Counted(name, known.tensors[name].bins) for name in names]
    return plain + [Counted(source, known.tensors[name].bins, factors) for name, (source, factors) in scaled.items()]


def equalised_name(name: str) -> str:
    """What statistics call an activation whose channels are scaled."""
    return f"{name}/equalised"


def with_scaled(statistics: Statistics, scaled: Mapping[str, tuple[str, Array]]) -> Statistics:
    """Statistics with extrema of activations whose channels are multiplied by factors."""
    tensors = dict(statistics.tensors)
    for name, (source, factors) in scaled.items():
        ends = [end * factors.astype(np.float32) for end in (tensors[source].low, tensors[source].high)]
        tensors[name] = TensorStatistics(np.minimum(*ends), np.maximum(*ends))
    return Statistics(statistics.samples, tensors)


def with_tally(statistics: Statistics, names: Sequence[str], tally: Array) -> Statistics:
    """Statistics with the histograms [names, BINS] of a tally in place of what they have."""
    found = {name: replace(statistics.tensors[name], counts=row) for name, row in zip(names, tally, strict=True)}
    return Statistics(statistics.samples, {**statistics.tensors, **found})
