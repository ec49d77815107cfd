"""What calibration knows about activations, gathered in two streaming passes.

Pass 1 takes per-channel minima, maxima and means, reduced inside the session: no activation leaves it. Pass 2 takes
fixed-bin histograms of the tensors whose range is searched. Both merge associatively and exactly (integers and
extrema only), so the result does not depend on the order of the pictures or on how many processes shared them. Memory
does not grow with the number of pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from sgs.engine.lowering import SessionBuilder, session_options
from sgs.errors import UserError
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.quant.prepare import range_source
from sgs.registry import FLOAT, QUANTISE

BINS = 2048
MEAN_ONE = 1 << 24  # means are summed as integers of 2^-24, so that sums are exact in any order
LINEAR = "/linear"  # suffix of a sum of products before its fused activation


@dataclass(frozen=True, eq=False)
class TensorStatistics:
    """One activation: extrema and sum of means per channel (last axis) [C]; counts [BINS] over [low.min(),
    high.max()].
    """

    low: Array
    high: Array
    mean_sum: Array
    counts: Array | None = None

    @property
    def span(self) -> tuple[float, float]:
        """Smallest and largest value seen."""
        return float(self.low.min()), float(self.high.max())

    def merged(self, other: TensorStatistics) -> TensorStatistics:
        counts = self.counts
        if counts is None or other.counts is None:
            counts = counts if counts is not None else other.counts
        else:
            counts = counts + other.counts
        return TensorStatistics(
            np.minimum(self.low, other.low), np.maximum(self.high, other.high), self.mean_sum + other.mean_sum, counts
        )


@dataclass(frozen=True)
class Statistics:
    """Per-tensor statistics over `samples` pictures."""

    samples: int = 0
    tensors: Mapping[str, TensorStatistics] = field(default_factory=dict)

    def merged(self, other: Statistics) -> Statistics:
        """Statistics of both sets of pictures."""
        if not self.samples:
            return other
        if not other.samples:
            return self
        return Statistics(
            self.samples + other.samples, {name: t.merged(other.tensors[name]) for name, t in self.tensors.items()}
        )

    def mean(self, name: str) -> Array:
        """Mean per channel over all pictures and positions, float64 [C]."""
        return np.asarray(self.tensors[name].mean_sum / (MEAN_ONE * self.samples), np.float64)


def split_activations(graph: Graph) -> Graph:
    """A copy in which sums of products carry no activation: their linear results exist as `<result>/linear`."""
    copy = graph.copy()
    nodes: list[Node] = []
    for node in copy.nodes:
        activation = node.attrs.get("activation", "NONE")
        if QUANTISE[node.op].kind != "mac" or activation == "NONE":
            nodes.append(node)
            continue
        result = copy[node.outputs[0]]
        linear = copy.add_tensor(f"{result.name}{LINEAR}", result.shape, result.dtype)
        nodes.append(Node(node.op, list(node.inputs), [linear.name], {**node.attrs, "activation": "NONE"}, node.name))
        nodes.append(Node(activation, [linear.name], [result.name], {}, node.name))
    copy.nodes = nodes
    return copy


class _Observer:
    """The float network with every tensor of `names` reduced to low, high and mean per channel."""

    def __init__(self, graph: Graph, names: Sequence[str], threads: int) -> None:
        self.names = list(names)
        self.inputs = list(graph.inputs)
        builder = SessionBuilder(graph)
        for name in graph.inputs:
            builder.feed(name, "native")
        for node in graph.nodes:
            FLOAT[node.op](builder, node)
        for name in self.names:
            shape = graph[name].shape
            layout = builder.layouts(name)[0]
            channel = 1 if layout == "first" else len(shape) - 1
            axes = builder.const(np.array([a for a in range(len(shape)) if a != channel], np.int64))
            value = builder.codes(name, layout)
            if len(shape) > 1:
                parts = [builder.op(op, [value, axes], keepdims=0) for op in ("ReduceMin", "ReduceMax", "ReduceMean")]
            else:
                parts = [value] * 3
            rows = [builder.op("Unsqueeze", [part, builder.const(np.array([0], np.int64))]) for part in parts]
            builder.add_output(f"stat:{name}", builder.op("Concat", rows, axis=0), (3, shape[-1] if shape else 1))
        self._session = builder.finish({}, session_options(threads))
        self._outputs = [f"stat:{name}" for name in self.names]

    def observe(self, feeds: Mapping[str, Array]) -> dict[str, TensorStatistics]:
        arrays = {f"in:{name}": feeds[name] for name in self.inputs}
        values = self._session.run(self._outputs, arrays)
        result = {}
        for name, rows in zip(self.names, values, strict=True):
            if not np.isfinite(rows).all():
                raise UserError(
                    "the float network gives values that are not finite",
                    stage="calibrate",
                    node=f"tensor '{name}'",
                    remedy="look for a division by zero or an overflow in the network, or a wrong preprocess script",
                )
            means = np.rint(rows[2].astype(np.float64) * MEAN_ONE).astype(np.int64)
            result[name] = TensorStatistics(rows[0], rows[1], means)
        return result


def marked_tensors(graph: Graph) -> set[str]:
    """Results that hold fill values which only mark a place; their range is that of the operand they come from."""
    return {name for node in graph.nodes if range_source(node) is not None for name in node.outputs}


def observed_tensors(graph: Graph) -> list[str]:
    """Float activations with at least one element, but for marked ones."""
    marked = marked_tensors(graph)
    return [t.name for t in graph.activations() if t.dtype.is_float and t.elements and t.name not in marked]


def measure_extrema(graph: Graph, feeds: Iterable[Mapping[str, Array]], *, threads: int = 0) -> Statistics:
    """Pass 1 over a float graph. Raises UserError for values that are not finite, or when there are no feeds."""
    split = split_activations(graph)
    observer = _Observer(split, observed_tensors(split), threads)
    total = Statistics()
    for sample in feeds:
        total = total.merged(Statistics(1, observer.observe(sample)))
    if not total.samples:
        raise UserError("there are no calibration samples", stage="calibrate")
    return total


def measure_histograms(
    graph: Graph, feeds: Iterable[Mapping[str, Array]], names: Sequence[str], extrema: Statistics, *, threads: int = 0
) -> Statistics:
    """Pass 2: `extrema` with histograms of `names` added. Bin edges are fixed by pass 1, so shards merge exactly."""
    from sgs.engine import FloatEngine

    engine = FloatEngine(graph, threads=threads, extra=names)
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    for sample in feeds:
        values = engine.run(sample)
        for name in names:
            counts[name] += histogram(values[name], *extrema.tensors[name].span)
    tensors = dict(extrema.tensors)
    for name in names:
        tensors[name] = replace(tensors[name], counts=counts[name])
    return Statistics(extrema.samples, tensors)


def histogram(values: Array, low: float, high: float) -> Array:
    """Counts [BINS] of float32 values in [low, high]; the top edge belongs to the last bin."""
    if not high > low:
        counts = np.zeros(BINS, np.int64)
        counts[0] = values.size
        return counts
    flat = np.ascontiguousarray(values, np.float32).reshape(1, -1)
    top = float(np.nextafter(np.float32(high), np.float32(np.inf)))
    return np.rint(cv2.calcHist([flat], [0], None, [BINS], [low, top])).astype(np.int64).reshape(-1)


def bin_centres(statistics: TensorStatistics) -> Array:
    """Real values that the bins stand for, float64 [BINS]."""
    low, high = statistics.span
    return low + (np.arange(BINS) + 0.5) * (high - low) / BINS
