"""Sessions that look at the activations of a float network: their extrema, and their histograms.

An observer takes the feeds of one picture and gives a tally, an array; its `join` puts the tallies of several pictures
together, in any order. Observers may be called from several threads at a time, and travel to other processes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import onnxruntime

from sgs.data.shards import map_threads
from sgs.engine.lowering import SessionBuilder, first_shape, session_options
from sgs.errors import UserError
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._mac import real_bounds
from sgs.quant.bins import BINS, Bins, count
from sgs.quant.masks import bound_constants, fading_tensors, raised
from sgs.quant.prepare import kind_of
from sgs.quant.propagate import Extrema, channels, reduced
from sgs.registry import FLOAT, RANGE, Layout

Feeds = Mapping[str, Array]
LANE_BYTES = 1 << 30  # what the activations of all pictures in flight may take
LARGE = 8  # pictures in flight below which the memory of each counts
CODE_BYTES = 1 << 27  # what the coded activations of one picture may take before the network is run in parts
_FINITE = ("mac", "move")  # kinds of operators that make finite numbers, or infinity, of finite numbers


class Observer(Protocol):
    """Looks at one picture at a time. Tallies form a commutative monoid of `join` and `nothing`."""

    @property
    def labels(self) -> Sequence[str]:
        """What tallies are of: equal labels, comparable tallies."""

    @property
    def nothing(self) -> Array:
        """The tally of no pictures."""

    def start(self) -> None:
        """Make the sessions, before several threads call."""

    def __call__(self, feeds: Feeds) -> Array:
        """The tally of one picture."""

    def join(self, left: Array, right: Array) -> Array:
        """The tally of two sets of pictures."""


def observe(observer: Observer, feeds: Iterable[Feeds], *, lanes: int) -> Array:
    """The joint tally of all feeds, `lanes` of them looked at at a time."""
    observer.start()
    total = observer.nothing
    for tally in map_threads(observer, feeds, lanes):
        total = observer.join(total, tally)
    return total


@dataclass(frozen=True)
class Streams:
    """How processors are shared: `lanes` pictures at a time, each on `threads`.

    One thread for each of many pictures is the fastest; where their activations would take more than LANE_BYTES, there
    are fewer pictures. Nothing else decides on `threads`, so sessions compute the same in any number of processes.
    """

    lanes: int
    threads: int
    large: bool  # whether a single picture counts

    @staticmethod
    def of(graph: Graph, processors: int) -> Streams:
        fit = LANE_BYTES // max(1, live_bytes(graph))
        lanes = max(1, min(processors, fit))
        return Streams(lanes, processors // lanes, fit < LARGE)

    def options(self, *, alone: bool = True) -> onnxruntime.SessionOptions:
        """For a session; `alone` if it is the only one. Where memory counts, onnxruntime neither plans all activations
        of a run as one block, which takes up to twice as much, nor keeps memory for each of many sessions."""
        options = session_options(self.threads)
        options.enable_mem_pattern = not self.large
        options.enable_cpu_mem_arena = alone
        return options


def live_bytes(graph: Graph) -> int:
    """The most that activations take at any time while the nodes run in order."""
    last = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs if name is not None}
    live = {name: graph[name].nbytes for name in graph.inputs}
    peak = total = sum(live.values())
    for index, node in enumerate(graph.nodes):
        for tensor in graph.results(node):
            live[tensor.name] = tensor.nbytes
            total += tensor.nbytes
        peak = max(peak, total)
        for name in {*node.inputs, *node.outputs}:
            if name in live and last.get(name, -1) <= index:
                total -= live.pop(name)
    return peak


def needed_for(graph: Graph, names: Sequence[str]) -> Graph:
    """A copy of the graph without what the named tensors do not need."""
    copy = graph.copy()
    copy.outputs = list(names)
    inputs = list(copy.inputs)
    copy.prune()
    copy.inputs = [name for name in inputs if any(name in node.inputs for node in copy.nodes) or name in names]
    return copy


def lowered(graph: Graph, nodes: Sequence[Node], feeds: Mapping[str, Layout]) -> SessionBuilder:
    """A session builder that has computed the nodes of a float graph from the given tensors."""
    builder = SessionBuilder(graph)
    for name, layout in feeds.items():
        builder.feed(name, layout)
    for node in nodes:
        FLOAT[node.op](builder, node)
    return builder


# -- extrema -----------------------------------------------------------------------------------------------------------
def never_negative(node: Node) -> bool:
    """Whether an operator gives nothing below 0."""
    low = RANGE[node.op][0] if node.op in RANGE else real_bounds(node.attrs.get("activation", "NONE"))[0]
    return low == 0


class ExtremaObserver:
    """The largest and the smallest value of every channel of the named tensors, reduced inside one session: no
    activation leaves it. A tally is a vector: the largest values of all channels, then the smallest ones negated;
    joined by maximum.

    Results that cannot be negative count 0 as their smallest value without being asked. Of masked tensors only the
    values that matter count (quant/masks.py).
    """

    def __init__(self, graph: Graph, names: Sequence[str], streams: Streams) -> None:
        self.labels, self._streams = list(names), streams
        bounded = graph.copy()
        bound_constants(bounded)
        self._graph = needed_for(bounded, names)
        self._fading = fading_tensors(graph)
        producers = graph.producers()
        self._signed = {name for name in names if name not in producers or not never_negative(producers[name])}
        # Maxima and minima do not see a NaN: where an operator can make one of finite numbers, a sum looks for it.
        self._doubted = {name for name in names if name not in producers or kind_of(producers[name]) not in _FINITE}
        widths = np.array([channels(graph[name]) for name in names], np.int64)
        self._starts = np.cumsum([0, *widths])
        self._owner = np.repeat(np.arange(len(names)), 3 * widths)  # of each value of the session's output
        first = 3 * np.repeat(self._starts[:-1], widths) + _counted(widths)
        self._most, self._least = first, first + np.repeat(widths, widths)

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        """Its output holds, of each tensor in turn, maxima [C], minima [C] and sums [C], 0 where not asked for."""
        builder = lowered(self._graph, self._graph.nodes, dict.fromkeys(self._graph.inputs, "native"))
        rows: list[str] = []
        for name in reversed(self.labels):  # onnxruntime turns to late nodes first: each is reduced once it is there
            tensor, layout = self._graph[name], builder.layouts(name)[0]
            asked = {"ReduceSum": name in self._doubted, "ReduceMin": name in self._signed, "ReduceMax": True}
            zeros, value = builder.const(np.zeros(channels(tensor), np.float32)), builder.codes(name, layout)
            if name in self._fading:
                value = raised(builder, value, self._fading[name], layout)
            rows += [reduced(builder, tensor, op, layout, value) if wanted else zeros for op, wanted in asked.items()]
        rows.reverse()
        builder.add_output("tally", builder.op("Concat", rows, axis=0), (self._owner.size,))
        return builder.finish({}, self._streams.options())

    def start(self) -> None:
        if self.labels:
            _ = self._session

    def __call__(self, feeds: Feeds) -> Array:
        if not self.labels:  # a network of nothing but integers
            return self.nothing
        (values,) = self._session.run(["tally"], {f"in:{name}": feeds[name] for name in self._graph.inputs})
        if not np.isfinite(values).all():
            raise not_finite(self.labels[self._owner[~np.isfinite(values)][0]])
        return np.concatenate([values[self._most], -values[self._least]])

    @property
    def nothing(self) -> Array:
        return np.full(2 * self._starts[-1], -np.inf, np.float32)

    def join(self, left: Array, right: Array) -> Array:
        return np.asarray(np.maximum(left, right))

    def extrema(self, tally: Array) -> dict[str, Extrema]:
        """(low, high) of each tensor."""
        high, low = np.split(tally, 2)
        spans = zip(self.labels, self._starts[:-1], self._starts[1:], strict=True)
        return {name: (-low[start:end], high[start:end]) for name, start, end in spans}


def _counted(widths: Array) -> Array:
    """0, 1 ... up to each width, one after the other."""
    return np.concatenate([np.zeros(0, np.int64), *(np.arange(width) for width in widths)])


class NotFinite(UserError):
    """An activation that is infinite or no number."""


def not_finite(name: str) -> NotFinite:
    return NotFinite(
        "the float network gives values that are not finite",
        stage="calibrate",
        node=f"tensor '{name}'",
        remedy="look for a division by zero or an overflow in the network, or a wrong preprocess script",
    )


# -- histograms --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Counted:
    """A histogram to take: of the activation `source`, each channel times `scale` [C] where it is given."""

    source: str
    bins: Bins
    scale: Array | None = None


@dataclass(frozen=True)
class _Part:
    """Nodes that run in one session: the tensors that it reads, those that it hands on to later parts, all that later
    parts read, and the numbers of the histograms that it takes.
    """

    session: onnxruntime.InferenceSession
    reads: Sequence[str]
    hands_on: Sequence[str]
    read_later: Collection[str]
    histograms: Sequence[int]


class HistogramObserver:
    """Histograms of activations. A tally is int64 [histograms, BINS]; joined by addition.

    Activations are coded to numbers of bins inside the session, and counted outside. Where the codes of one picture
    would take more than CODE_BYTES, the network is run in parts, one after the other.
    """

    def __init__(self, graph: Graph, wanted: Sequence[Counted], streams: Streams) -> None:
        self._wanted, self._streams = list(wanted), streams
        self._graph = needed_for(graph, list(dict.fromkeys(counted.source for counted in wanted)))
        self.labels = [f"{w.source} {w.bins} {w.scale}" for w in wanted]

    @property
    def nothing(self) -> Array:
        return np.zeros((len(self._wanted), BINS), np.int64)

    def join(self, left: Array, right: Array) -> Array:
        return np.asarray(np.add(left, right))

    def _groups(self) -> list[list[Node]]:
        """The nodes in groups, in order, whose codes keep to CODE_BYTES where those of one node do."""
        codes = dict.fromkeys(self._graph.tensors, 0)
        for counted in self._wanted:
            codes[counted.source] += 2 * self._graph[counted.source].elements
        groups: list[list[Node]] = [[]]
        taken = sum(codes[name] for name in self._graph.inputs)
        for node in self._graph.nodes:
            more = sum(codes[name] for name in node.outputs)
            if taken and more and taken + more > CODE_BYTES:
                groups.append([])
                taken = 0
            groups[-1].append(node)
            taken += more
        return groups

    @cached_property
    def _parts(self) -> list[_Part]:
        groups = self._groups()
        last: dict[str, int] = {}  # tensor → the last part that reads it
        for index, nodes in enumerate(groups):
            last.update((name, index) for node in nodes for name in node.inputs if name is not None)
        held: dict[str, Layout] = dict.fromkeys(self._graph.inputs, "native")
        parts = []
        for index, nodes in enumerate(groups):
            needed = {name for node in nodes for name in node.inputs} | set(self._graph.inputs if index == 0 else ())
            reads = {name: layout for name, layout in held.items() if name in needed}
            builder = lowered(self._graph, nodes, reads)
            made = {name for node in nodes for name in node.outputs} | set(self._graph.inputs if index == 0 else ())
            histograms = [k for k, counted in enumerate(self._wanted) if counted.source in made]
            for k in reversed(histograms):  # onnxruntime computes outputs in reverse order; this frees them early
                self._add_codes(builder, k)
            later = {name for name, part in last.items() if part > index}
            hands_on = {n: builder.layouts(n)[0] for node in nodes for n in node.outputs if n in later}
            held.update(hands_on)
            session = builder.finish(hands_on, self._streams.options(alone=len(groups) == 1))
            parts.append(_Part(session, list(reads), list(hands_on), later, histograms))
        return parts

    def _add_codes(self, builder: SessionBuilder, k: int) -> None:
        """The numbers of the bins of all values, an output of the session."""
        counted = self._wanted[k]
        tensor, layout = self._graph[counted.source], builder.layouts(counted.source)[0]
        value = builder.codes(tensor.name, layout)
        if counted.scale is not None:
            shape = (-1, 1, 1) if layout == "first" else (-1,)
            value = builder.op("Mul", [value, builder.const(counted.scale.astype(np.float32).reshape(shape))])
        step = builder.const(np.asarray(counted.bins.step, np.float32))
        codes = builder.quantised(value, step, counted.bins.zero, DType.UINT16)
        builder.add_output(
            f"codes:{k}", codes, first_shape(tensor.shape) if layout == "first" else tensor.shape, DType.UINT16
        )

    def start(self) -> None:
        _ = self._parts

    def __call__(self, feeds: Feeds) -> Array:
        tally, values = self.nothing, dict(feeds)
        for part in self._parts:
            values |= self._run(part, values, tally)
            values = {name: value for name, value in values.items() if name in part.read_later}
        return tally

    def _run(self, part: _Part, values: Feeds, tally: Array) -> Feeds:
        """Fill in the histograms of a part; what it hands on."""
        names = [*(f"codes:{k}" for k in part.histograms), *(f"out:{name}" for name in part.hands_on)]
        results = part.session.run(names, {f"in:{name}": values[name] for name in part.reads})
        for k, codes in zip(part.histograms, results, strict=False):
            tally[k] = count(codes)
        return dict(zip(part.hands_on, results[len(part.histograms) :], strict=True))
