"""Statistics of a float network over a list of samples: two passes, in one process or several, that can be resumed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from sgs.config.input_config import InputConfig
from sgs.data.feed import Fed, check_indices, float_inputs
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.data.shards import Pool, Workers, map_threads, processes_worth, processors, shares
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.quant.observe import ExtremaObserver, HistogramObserver, Observer, Streams, observe
from sgs.quant.propagate import Propagation
from sgs.quant.statistics import (
    Statistics,
    counted_tensors,
    equalised_name,
    extrema_statistics,
    with_scaled,
    with_tally,
)
from sgs.quant.statistics_file import Checkpoint

_log = logging.getLogger(__name__)
Item = TypeVar("Item")


class Wrap(Protocol):
    """Gives items as they are, and may show under a title how far that has got."""

    def __call__(self, items: Iterable[Item], title: str, /) -> Iterable[Item]: ...


def plain(items: Iterable[Item], title: str) -> Iterable[Item]:
    """A `Wrap` that shows nothing."""
    return items


class Feeds(Protocol):
    """Samples as feeds of a float network; small and picklable, loads arrays when iterated."""

    def load(self, samples: Iterable[Sample]) -> Iterator[dict[str, Array]]:
        """The feeds of each sample: input name → array."""

    def told(self, sample: Sample) -> str:
        """What error messages call a sample."""


@dataclass(frozen=True)
class FloatFeeds:
    """Samples that preprocess scripts make arrays of.

    `entries`: input → how many entries its numbers pick from, of those that pick.
    """

    config: InputConfig
    preprocessors: tuple[Preprocessor, ...]
    inputs: Mapping[str, Fed]
    entries: Mapping[str, int] = field(default_factory=dict)

    def load(self, samples: Iterable[Sample]) -> Iterator[dict[str, Array]]:
        for sample in samples:
            feeds = float_inputs(self.config, self.preprocessors, sample, self.inputs)
            for name, count in self.entries.items():
                check_indices(name, feeds[name], count, stage="calibrate", file=self.told(sample))
            yield feeds

    def told(self, sample: Sample) -> str:
        return ", ".join(map(str, sample))


@dataclass(frozen=True)
class RecordedFeeds:
    """Samples that are .npy files with what the inputs named were fed; called by the name of the first one."""

    inputs: tuple[str, ...]

    def load(self, samples: Iterable[Sample]) -> Iterator[dict[str, Array]]:
        for sample in samples:
            yield {name: np.load(file) for name, file in zip(self.inputs, sample, strict=True)}

    def told(self, sample: Sample) -> str:
        return sample[0].name.partition(".")[0]


def loading_processes(asked: int, feeds: Feeds, samples: Sequence[Sample]) -> int:
    """How many processes to use, in which the preprocess script runs in one thread each."""
    start = time.perf_counter()
    list(feeds.load(samples[:1]))
    return processes_worth(asked, (time.perf_counter() - start) * len(samples))


def lanes_of(pool: Pool, graph: Graph, threads: int) -> int:
    """How many pictures each worker looks at at a time, each on so many `threads`: those on one machine share it."""
    machine = Streams.of(graph, pool.threads * pool.sharing)
    return max(1, min(machine.lanes // pool.sharing, pool.threads // threads))


@dataclass(frozen=True)
class _Share:
    """What a worker process does with its share of the samples."""

    observer: Observer
    feeds: Feeds
    lanes: int

    def __call__(self, samples: Sequence[Sample]) -> Array:
        return observe(self.observer, self.feeds.load(samples), lanes=self.lanes)


@dataclass(frozen=True)
class _Sized:
    """An iterator and how many items it will give, for progress bars."""

    items: Iterator[Sample]
    count: int

    def __iter__(self) -> Iterator[Sample]:
        return self.items

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True)
class _Run:
    """The samples of a run and the means to look at them: `lanes` pictures at a time in each process."""

    feeds: Feeds
    samples: Sequence[Sample]
    lanes: int
    pool: Pool | None
    wrap: Wrap
    checkpoint: Checkpoint | None

    def tally(self, key: str, title: str, observer: Observer) -> Array:
        """The joint tally of all samples; `key` is the checkpoint's name for it."""
        total, done = observer.nothing, np.zeros(len(self.samples), bool)
        if self.checkpoint is not None:
            total, done = self.checkpoint.started(key, observer.labels, total, done.size)
        pending = np.flatnonzero(~done)

        def looked_at() -> Iterator[Sample]:
            nonlocal total
            for indices, tally in self._tallies(observer, pending):
                total, done[indices] = observer.join(total, tally), True
                if self.checkpoint is not None:  # a copy: Ctrl-C may come between the two
                    self.checkpoint.update(key, observer.labels, total, done.copy())
                yield from (self.samples[index] for index in indices)

        for _ in self.wrap(_Sized(looked_at(), pending.size), title):
            pass
        return total

    def _tallies(self, observer: Observer, pending: Array) -> Iterator[tuple[Array, Array]]:
        """(indices of samples, their joint tally) until all pending ones have been looked at."""
        if self.pool is None:
            observer.start()
            feeds = self.feeds.load(self.samples[index] for index in pending)
            for index, tally in zip(pending, map_threads(observer, feeds, self.lanes), strict=True):
                yield np.array([index]), tally
        elif pending.size:
            parts = shares(pending.tolist(), self.pool, self.lanes)
            calls = [([self.samples[index] for index in part],) for part in parts]
            for k, tally in self.pool.map(_Share(observer, self.feeds, self.lanes), calls):
                yield np.array(parts[k]), tally


def gather(
    graph: Graph,
    feeds: Feeds,
    samples: Sequence[Sample],
    histograms: Sequence[str],
    *,
    scales: Callable[[Statistics], Mapping[str, Array]] = lambda extrema: {},
    processes: int = 1,
    pool: Pool | None = None,
    one_at_a_time: bool = False,
    wrap: Wrap = plain,
    checkpoint: Checkpoint | None = None,
) -> Statistics:
    """Both passes over `samples`: extrema of every activation, then histograms of the tensors named, and of those of
    them that `scales` (of the extrema; float32 factors [C]) names once more as `equalised_name`, their channels
    multiplied.

    The result is the same for any number of processes, any order of the samples, and a run that was interrupted and
    resumed. A `pool` that is given takes the place of `processes`. `one_at_a_time` has one picture looked at at a time
    in each process of the pool, or in this one only, for the least memory. `wrap` is put around the samples of each
    pass as they are done (progress bars), in this process.
    """
    streams = Streams.of(graph, processors())
    processes = 1 if one_at_a_time else min(processes, streams.lanes)
    propagation = Propagation.of(graph)
    with Workers(processes) if pool is None and processes > 1 else nullcontext(pool) as pool:
        lanes = 1 if one_at_a_time else streams.lanes if pool is None else lanes_of(pool, graph, streams.threads)
        run = _Run(feeds, samples, lanes, pool, wrap, checkpoint)
        try:
            extrema = ExtremaObserver(graph, propagation.measured, streams)
            tally = run.tally("extrema", "calibrate 1/2: ranges", extrema)
            statistics = extrema_statistics(propagation, extrema.extrema(tally), len(samples))
            if histograms:
                factors = scales(statistics)
                scaled = {equalised_name(name): (name, factors[name]) for name in histograms if name in factors}
                statistics = with_scaled(statistics, scaled)
                counted = counted_tensors(statistics, histograms, scaled)
                tally = run.tally("histograms", "calibrate 2/2: histograms", HistogramObserver(graph, counted, streams))
                statistics = with_tally(statistics, [*histograms, *scaled], tally)
        except BaseException:
            if checkpoint is not None and checkpoint.keep():
                _log.warning("%s keeps what was measured: go on with --resume", checkpoint.path)
            raise
        if checkpoint is not None:
            checkpoint.keep()
    return statistics
