"""Distributions of tensors: of a reference, of what another model of the network holds for them, and the ranges of its
codes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sgs.compare.measure import code_span
from sgs.compare.stage import Stage
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.numeric.quantise import Array
from sgs.quant.gather import Wrap, plain
from sgs.report.histogram import BINS, Histogram, bin_counts, even, finite

Span = tuple[float, float]


@dataclass
class _Tally:
    """What is known of one tensor so far: the extremes of both models, then counts of each."""

    low: float = math.inf
    high: float = -math.inf
    counts: dict[str, Array] = field(default_factory=dict)

    def widen(self, side: str, values: Array) -> None:
        found = finite(values)
        if found.size:
            self.low, self.high = min(self.low, float(found.min())), max(self.high, float(found.max()))
        self.counts[side] = np.zeros(BINS, np.int64)

    def count(self, side: str, values: Array) -> None:
        self.counts[side] += bin_counts(values, *even(self.low, self.high))

    def histogram(self, name: str, chosen: Span | None) -> Histogram:
        real, held = (tuple(map(int, self.counts.get(side, ()))) for side in ("real", "held"))
        return Histogram(name, *even(self.low, self.high), real, held, *(chosen or (None, None)))


def distributions(
    a: Stage | None,
    b: Stage,
    names: Mapping[str, str | None],
    preprocessors: Sequence[Preprocessor],
    samples: Sequence[Sample],
    *,
    wrap: Wrap = plain,
) -> list[Histogram]:
    """Histograms of tensors of B over the samples, beside those of their counterparts in A. Real numbers of a float
    model B alone are `real`, else what B has is `held`.

    `names`: tensor of B → its counterpart, None where it has none. Values are those of the network as it came, also
    where calibration multiplied channels (`Stage.scales`): a single range is not known then. Samples are run twice, for
    the extremes and for the counts; a tensor is let go of as soon as it has been looked at.
    """
    tallies = {name: _Tally() for name in names}
    standing: dict[str, list[str]] = {}
    for name, other in names.items():
        if other is not None and a is not None:
            standing.setdefault(other, []).append(name)
    own = "real" if a is None and b.kind not in ("Fixed", "Offline") else "held"

    def values(sample: Sample) -> Iterator[tuple[str, str, Array]]:
        """(name, side, real values) of all tensors for a sample."""
        if a is not None:
            for other, value in _values(a, standing, preprocessors, sample):
                yield from ((name, "real", value) for name in standing[other])
        yield from ((name, own, value) for name, value in _values(b, names, preprocessors, sample))

    for title, step in (("ranges", _Tally.widen), ("distributions", _Tally.count)):
        for sample in wrap(samples, title):
            for name, side, value in values(sample):
                step(tallies[name], side, value)
    ranges = chosen_ranges(b)
    return [tally.histogram(name, ranges.get(name)) for name, tally in tallies.items()]


def _values(
    stage: Stage, names: Collection[str], preprocessors: Sequence[Preprocessor], sample: Sample
) -> Iterator[tuple[str, Array]]:
    """The real values of a stage's tensors for a sample, of the network as it came."""
    scales = stage.scales
    for name, held in stage.tensors(stage.feeds(preprocessors, sample), names):
        value = stage.real(name, held)
        yield name, value / scales[name] if name in scales else value


def chosen_ranges(stage: Stage) -> dict[str, Span]:
    """Tensor → the real range of its codes, of those that have one. An output that is handed over as real numbers has
    that of the codes it is made of."""
    nodes = () if stage.graph is None else stage.graph.nodes
    codes = {node.outputs[0]: node.inputs[0] or "" for node in nodes if node.op == "DEQUANTIZE"}
    spans = {name: code_span(stage.described[codes.get(name, name)]) for name in stage.described}
    scales = stage.scales
    return {name: span for name, span in spans.items() if span is not None and name not in scales}
