"""Ranges that follow from other ranges, so that they need not be measured.

Per channel (last axis), over any set of pictures:

- an operator that moves values gives each channel of its result the extrema of the channels that it holds. Results with
  fewer values in a channel than their operand (crops, pools, reductions) are measured, as selecting narrows a range;
- an elementwise function that falls up to one point and rises from there (monotone ones, SiLU, h-swish, GELU, |x|) is
  largest at one of the ends of its operand's range, and smallest at the end or, between the ends, at that point. Only
  this last value is a bound that need not have been reached.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sgs.engine.lowering import SessionBuilder, session_options
from sgs.ir import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.quant.edit import moved_operands
from sgs.quant.masks import fading_tensors
from sgs.quant.prepare import FUNCTION, Expression, kind_of, prepare, range_sources
from sgs.registry import FLOAT, Layout

Extrema = tuple[Array, Array]  # (low, high), float32 [C] each
LARGEST_TRACED = 1 << 24  # elements; tracing takes four bytes each
DENSE = 64  # values in a channel of one picture, from which some are taken to be near any point of their range
_REACH = np.geomspace(1e4, 1e-4, 400)
_PROBES = np.unique(np.concatenate([-_REACH, [0.0], _REACH, np.linspace(-20, 20, 4001)]))


# -- activations -------------------------------------------------------------------------------------------------------
def marked_tensors(graph: Graph) -> set[str]:
    """Results that hold fill values which only mark a place; their range is that of the operand they come from."""
    return set(range_sources(graph))


def observed_tensors(graph: Graph) -> list[str]:
    """Float activations with at least one element, but for marked ones."""
    marked = marked_tensors(graph)
    return [t.name for t in graph.activations() if t.dtype.is_float and t.elements and t.name not in marked]


# -- functions ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Valley:
    """An elementwise function that falls up to `bottom` and rises from there; either part may be empty (None)."""

    function: Expression
    bottom: float | None

    @staticmethod
    def of(function: Expression) -> Valley | None:
        """The function as a valley, judged on a few thousand points up to ±10,000; None where it is none there."""
        if function.channels is not None:
            return None
        values = function(_PROBES)
        if not np.isfinite(values).all():
            return None
        steps = np.diff(values)
        slack = 1e-9 * (1 + np.abs(values[1:]))  # rounding
        falls, rises = np.flatnonzero(steps < -slack), np.flatnonzero(steps > slack)
        if not falls.size or not rises.size:
            return Valley(function, None)
        if falls[-1] > rises[0]:
            return None
        left, right = _PROBES[falls[-1]], _PROBES[min(rises[0] + 1, _PROBES.size - 1)]
        for _ in range(3):
            points = np.linspace(left, right, 101)
            best = int(function(points).argmin())
            left, right = points[max(best - 1, 0)], points[min(best + 1, 100)]
        return Valley(function, float(points[best]))

    def image(self, extrema: Extrema) -> Extrema:
        """Extrema of the results over operands between the given ones."""
        ends = [self.function(end.astype(np.float64)) for end in extrema]
        low, high = np.minimum(*ends), np.maximum(*ends)
        if self.bottom is not None:
            inside = (extrema[0] <= self.bottom) & (self.bottom <= extrema[1])
            low = np.where(inside, self.function(np.array(self.bottom)), low)
        return low.astype(np.float32), high.astype(np.float32)


# -- moves -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Selection:
    """Which channels a moved tensor holds: `channels` [C] are numbers given by `numbered`, 0 for padding alone; where
    `zeros` [C] is set, the channel also holds padding.
    """

    channels: Array
    zeros: Array


def channels(tensor: Tensor) -> int:
    return tensor.shape[-1] if tensor.shape else 1


def _depth(tensor: Tensor) -> int:
    """Values in a channel."""
    return tensor.elements // channels(tensor)


def _traceable(graph: Graph, node: Node, known: Collection[str]) -> bool:
    """Whether each result holds all that the operands hold, and nothing else but a constant around it."""
    if kind_of(node) != "move" or node.attrs.get("activation", "NONE") != "NONE":
        return False
    moved = moved_operands(node)
    others = [name for name in node.inputs if name is not None and name not in moved]
    if not all(name in known for name in moved) or not all(graph[name].is_constant for name in others):
        return False
    depth = max(_depth(graph[name]) for name in moved)
    return all(
        t.name in known and t.shape and t.elements <= LARGEST_TRACED and _depth(t) >= depth for t in graph.results(node)
    )


def numbered(graph: Graph, names: Iterable[str]) -> dict[str, Array]:
    """A number of its own for each channel of the tensors, from 1 on: int64 [C] each."""
    numbers, start = {}, 1
    for name in names:
        numbers[name] = np.arange(start, start + channels(graph[name]))
        start += channels(graph[name])
    return numbers


def trace(graph: Graph, nodes: Sequence[Node], numbers: Mapping[str, Array]) -> dict[str, Selection]:
    """Result of each of the moving nodes → what it holds. Results that mix channels are left out.

    The operators of the float network move the numbers of channels instead of values. A second run with the numbers
    negated tells what a maximum hides, and a third with them reversed tells padding from small numbers.
    """
    total = 1 + max(int(own[-1]) for own in numbers.values())
    builder = SessionBuilder(graph)
    origin, direction = builder.add_input("origin", (1,)), builder.add_input("direction", (1,))
    for name, own in numbers.items():
        value = builder.op("Mul", [builder.const(own.astype(np.float32)), direction])
        shape = builder.const(np.array(graph[name].shape, np.int64))
        builder.put(name, builder.op("Expand", [builder.op("Add", [value, origin]), shape]))
    for node in nodes:
        FLOAT[node.op](builder, node)
    results = [tensor for node in nodes for tensor in graph.results(node)]
    for tensor in results:
        rows = [reduced(builder, tensor, op, "native") for op in ("ReduceMin", "ReduceMax")]
        builder.add_output(f"held:{tensor.name}", builder.op("Concat", rows, axis=0), (2 * channels(tensor),))
    session = builder.finish({}, session_options(1))
    names = [f"held:{tensor.name}" for tensor in results]
    runs = [
        session.run(names, {"origin": np.array([a], np.float32), "direction": np.array([b], np.float32)})
        for a, b in ((0, 1), (0, -1), (total, -1))
    ]
    found = {}
    for tensor, plain, negative, backward in zip(results, *runs, strict=True):
        (least, most), (negated, near), (_, far) = (row.reshape(2, -1) for row in (plain, negative, backward))
        largest, smallest = np.maximum(most, -negated), total - far  # of the numbers that are not 0
        if (least >= 0).all() and (near <= 0).all() and ((largest == smallest) | (largest == 0)).all():
            found[tensor.name] = Selection(largest.astype(np.int64), (least == 0) | (near == 0))
    return found


def reduced(builder: SessionBuilder, tensor: Tensor, op: str, layout: Layout, value: str = "") -> str:
    """A tensor, or a `value` of its shape, reduced to one value a channel, [C]."""
    value = value or builder.codes(tensor.name, layout)
    channel = 1 if layout == "first" else len(tensor.shape) - 1
    axes = [axis for axis in range(len(tensor.shape)) if axis != channel]
    if axes:
        return str(builder.op(op, [value, builder.const(np.array(axes, np.int64))], keepdims=0))
    return str(builder.op("Reshape", [value, builder.const(np.array([-1], np.int64))]))


# -- a network ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Propagation:
    """What of a float network is measured, and how the rest of its activations follows.

    `names` are all of them, in topological order; results of functions are named with their operand.
    """

    names: Sequence[str]
    functions: Mapping[str, tuple[str, Valley]]
    selections: Mapping[str, Selection]
    numbers: Mapping[str, Array]

    @staticmethod
    def of(float_graph: Graph) -> Propagation:
        graph = prepare(float_graph)
        names = observed_tensors(graph)
        known, masked = set(names), fading_tensors(graph)
        nodes = [n for n in graph.nodes if _traceable(graph, n, known) and not masked.keys() & set(n.outputs)]
        moved = {name for node in nodes for name in node.outputs}
        roots = dict.fromkeys(name for node in nodes for name in moved_operands(node) if name not in moved)
        numbers = numbered(graph, roots)
        functions = {}
        for node in graph.nodes:
            if node.op == FUNCTION and node.inputs[0] in known and node.outputs[0] not in masked:
                valley = Valley.of(node.attrs["expression"])
                if valley is not None and (valley.bottom is None or _depth(graph[node.outputs[0]]) >= DENSE):
                    functions[node.outputs[0]] = node.inputs[0], valley
        return Propagation(names, functions, trace(graph, nodes, numbers) if nodes else {}, numbers)

    @property
    def measured(self) -> list[str]:
        """Activations to measure."""
        return [name for name in self.names if name not in self.functions and name not in self.selections]

    def completed(self, extrema: Mapping[str, Extrema]) -> dict[str, Extrema]:
        """Extrema of all activations from those of the measured ones."""
        count = 1 + max((int(own[-1]) for own in self.numbers.values()), default=0)
        pool = np.zeros((2, count), np.float32)  # by number of channel
        found: dict[str, Extrema] = {}
        for name in self.names:
            if name in self.functions:
                source, valley = self.functions[name]
                low, high = valley.image(found[source])
            elif name in self.selections:
                chosen = self.selections[name]
                low, high = pool[:, chosen.channels]
                low = np.where(chosen.zeros, np.minimum(low, 0), low)
                high = np.where(chosen.zeros, np.maximum(high, 0), high)
            else:
                low, high = extrema[name]
            found[name] = low, high
            if name in self.numbers:
                pool[:, self.numbers[name]] = low, high
        return found
