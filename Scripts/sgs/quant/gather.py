"""Statistics of a float network over a list of samples, in one process or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from sgs.config.input_config import InputConfig
from sgs.data.feed import Fed, float_inputs
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.data.shards import map_shards
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.quant.statistics import Statistics, measure_extrema, measure_histograms

Wrap = Callable[[Iterable[Sample], str], Iterable[Sample]]


def plain(items: Iterable[Sample], title: str) -> Iterable[Sample]:
    """A `Wrap` that shows nothing."""
    return items


@dataclass(frozen=True)
class FloatFeeds:
    """Samples as feeds of a float network; small and picklable, loads pictures when iterated."""

    config: InputConfig
    preprocessors: tuple[Preprocessor, ...]
    inputs: Mapping[str, Fed]

    def load(self, samples: Iterable[Sample]) -> Iterator[dict[str, Array]]:
        for sample in samples:
            yield float_inputs(self.config, self.preprocessors, sample, self.inputs)


def gather(
    graph: Graph,
    feeds: FloatFeeds,
    samples: Sequence[Sample],
    histograms: Sequence[str],
    *,
    processes: int = 1,
    wrap: Wrap = plain,
) -> Statistics:
    """Both passes over `samples`: extrema of every activation, then histograms of the tensors named.

    The result is the same for any number of processes. `wrap` is put around the samples of each pass (progress bars),
    in this process.
    """
    first = partial(_extrema, graph, feeds, wrap if processes == 1 else plain)
    total = Statistics()
    for part in map_shards(first, samples, processes):
        total = total.merged(part)
    if not histograms:
        return total
    second = partial(_histograms, graph, feeds, wrap if processes == 1 else plain, tuple(histograms), total)
    merged: Statistics | None = None
    for part in map_shards(second, samples, processes):
        merged = part if merged is None else _with_counts(merged, part, histograms)
    assert merged is not None
    return merged


def _extrema(graph: Graph, feeds: FloatFeeds, wrap: Wrap, samples: Sequence[Sample], threads: int) -> Statistics:
    return measure_extrema(graph, feeds.load(wrap(samples, "calibrate 1/2: ranges")), threads=threads)


def _histograms(
    graph: Graph,
    feeds: FloatFeeds,
    wrap: Wrap,
    names: Sequence[str],
    extrema: Statistics,
    samples: Sequence[Sample],
    threads: int,
) -> Statistics:
    loaded = feeds.load(wrap(samples, "calibrate 2/2: histograms"))
    return measure_histograms(graph, loaded, names, extrema, threads=threads)


def _with_counts(left: Statistics, right: Statistics, names: Sequence[str]) -> Statistics:
    """Add up histograms of two shards that share their extrema."""
    tensors = dict(left.tensors)
    for name in names:
        a, b = tensors[name].counts, right.tensors[name].counts
        assert a is not None and b is not None
        tensors[name] = replace(tensors[name], counts=a + b)
    return Statistics(left.samples, tensors)
