"""A fixed graph as a short list of steps: onnxruntime sessions, as large as possible, with host kernels between them.

Each node is given a stage: one more than the latest host kernel before it. All session nodes of a stage form one
session; the host kernels of a stage run after it. Values pass between steps in buffers that are allocated once and
bound.

Sessions are short (a tenth of a millisecond), so threads inside a session gain nothing: waking them costs what they
save. Whole pictures are spread over threads instead: a lane is one set of buffers, sessions are shared (`map`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sgs.data.shards import map_threads, processors
from sgs.engine.lowering import TO_NATIVE, SessionBuilder, first_shape, session_options, sparing
from sgs.engine.single import host_operands
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.registry import COST, FIXED, HOST, Layout

SMALL_TENSOR = 4096  # elements
LANE_BYTES = 1 << 29  # what the buffers of all lanes may take
LARGE_SESSION = 100_000_000  # multiply-accumulates from which a session gets all threads
Step = Callable[[], None]
Key = tuple[str, Layout]


@dataclass
class _Stage:
    session_nodes: list[Node] = field(default_factory=list)
    host_nodes: list[Node] = field(default_factory=list)


def on_host(graph: Graph, node: Node) -> bool:
    """Whether a node runs between sessions. Operators that can do both stay inside for small tensors: a session that is
    cut in two costs more than their slower kernel there."""
    if node.op in HOST and node.op in FIXED:
        return graph[node.outputs[0]].elements > SMALL_TENSOR
    return node.op in HOST


def stages(graph: Graph) -> list[_Stage]:
    """Split the nodes: stage k's session may read what host kernels of stages < k and sessions of stages ≤ k
    produced.
    """
    ready: dict[str, int] = dict.fromkeys(graph.inputs, 0)
    result: list[_Stage] = []
    for node in graph.nodes:
        stage = max((ready[n] for n in node.inputs if n is not None and n in ready), default=0)
        while len(result) <= stage:
            result.append(_Stage())
        host = on_host(graph, node)
        (result[stage].host_nodes if host else result[stage].session_nodes).append(node)
        for name in node.outputs:
            ready[name] = stage + host
    return result


def share_slots(steps: Sequence[Sequence[Key]], sizes: Mapping[Key, int]) -> tuple[dict[Key, int], list[int]]:
    """(number of the slot of every key, sizes of the slots). A key needs its size from the first of the `steps` that
    touches it to the last; keys that never do so at the same time may share a slot."""
    last = {key: index for index, keys in enumerate(steps) for key in keys}
    places: dict[Key, int] = {}
    slots: list[int] = []
    free: list[int] = []
    for index, keys in enumerate(steps):
        for key in dict.fromkeys(keys):
            if key in places:
                continue
            fitting = [slot for slot in free if slots[slot] >= sizes[key]]
            if fitting:
                places[key] = min(fitting, key=slots.__getitem__)
            elif free:
                places[key] = max(free, key=slots.__getitem__)
            else:
                places[key] = len(slots)
                slots.append(0)
                free.append(places[key])
            free.remove(places[key])
            slots[places[key]] = max(slots[places[key]], sizes[key])
        free += [places[key] for key in dict.fromkeys(keys) if last[key] == index]
    return places, slots


class _Lane:
    """Buffers of one picture in flight, and the steps bound to them."""

    def __init__(
        self,
        forms: Mapping[Key, tuple[tuple[int, ...], Any]],
        places: Mapping[Key, int],
        slots: Sequence[int],
        makers: Iterable[Callable[[_Lane], Step]],
    ) -> None:
        memory = [np.empty(size, np.uint8) for size in slots]
        self.buffers: dict[Key, Array] = {}
        for key, (shape, dtype) in forms.items():
            whole = memory[places[key]]
            self.buffers[key] = np.ndarray(shape, dtype, whole.data)
        self.steps = [make(self) for make in makers]


class FixedEngine:
    """Runs a fixed graph. `extra` names inner tensors to return beside the graph's outputs.

    `threads`: how many pictures `map` runs at a time, and threads of a large session; 0 for all processors. Several
    threads may call `run`; each has buffers of its own meanwhile.
    """

    def __init__(self, graph: Graph, *, threads: int = 0, extra: Iterable[str] = ()) -> None:
        self.graph = graph
        self.threads = threads or processors()
        self.results = list(dict.fromkeys([*graph.outputs, *extra]))
        self._keys: dict[Key, None] = {}
        self._makers: list[Callable[[_Lane], Step]] = []
        self._touched: list[list[Key]] = []  # by each step
        self._centred: set[str] = set()  # tensors that host kernels write as codes minus zero point
        self._centred = self._wanted_centred()
        self._plan()
        self._forms = {key: self._form(*key) for key in self._keys}
        sizes = {key: math.prod(shape) * np.dtype(dtype).itemsize for key, (shape, dtype) in self._forms.items()}
        ends: tuple[list[Key], list[Key]] = [(n, "native") for n in graph.inputs], [(n, "native") for n in self.results]
        # constants that are results are there from the start, as nothing writes them
        first = [*ends[0], *(key for key in ends[1] if graph[key[0]].is_constant)]
        self._places, self._slots = share_slots([first, *self._touched, ends[1]], sizes)
        self._free = deque([self._lane()])  # lanes that no thread is using

    def _form(self, name: str, layout: Layout) -> tuple[tuple[int, ...], Any]:
        """(shape, type) of what holds a tensor between steps."""
        tensor = self.graph[name]
        dtype = np.float32 if name in self._centred else tensor.dtype.numpy
        return first_shape(tensor.shape) if layout == "first" else tensor.shape, dtype

    def _lane(self) -> _Lane:
        lane = _Lane(self._forms, self._places, self._slots, self._makers)
        for name in self.results:
            if (data := self.graph[name].data) is not None:
                lane.buffers[(name, "native")][...] = data
        return lane

    # -- planning --------------------------------------------------------------------------------------------------
    def _wanted_centred(self) -> set[str]:
        """Results of host kernels that sessions read only as codes minus zero point: they are best written so at
        once.
        """
        hosts = [node for node in self.graph.nodes if on_host(self.graph, node)]
        able = {name for node in hosts if HOST[node.op].centred for name in node.outputs}
        able -= set(self.results) | {name for node in hosts for name in node.inputs if name is not None}
        asked: dict[str, set[str]] = {}
        for node in self.graph.nodes:
            reads = able & {name for name in node.inputs if name is not None}
            if reads and not on_host(self.graph, node):
                builder = self._lowered([node])
                for name in reads:
                    asked.setdefault(name, set()).update(builder.asked.get(name, ()))
        return {name for name, carriers in asked.items() if carriers == {"centred"}}

    def _lowered(self, nodes: list[Node]) -> SessionBuilder:
        """The nodes in a session builder, fed with what earlier steps hold (in the graph's layout before there are
        any).
        """
        builder = SessionBuilder(self.graph)
        for node in nodes:
            for name in node.inputs:
                if name is None or self.graph[name].is_constant or builder.has(name):
                    continue
                builder.feed(name, self._held(name) or "native", centred=name in self._centred)
            FIXED[node.op](builder, node)
        return builder

    def _plan(self) -> None:
        split = stages(self.graph)
        last_read: dict[str, int] = {}  # tensor → last stage whose session reads it from a buffer
        host_read: dict[str, bool] = {}  # tensor → whether all host kernels that read it take any layout
        for index, stage in enumerate(split):
            for node in stage.session_nodes:
                last_read.update({n: index for n in node.inputs if n is not None})
            for node in stage.host_nodes:
                for name in node.inputs:
                    if name is not None:
                        host_read[name] = host_read.get(name, True) and HOST[node.op].any_layout
        for name in self.graph.inputs:
            self._keys[(name, "native")] = None
        for index, stage in enumerate(split):
            if stage.session_nodes:
                needed = {n for n, last in last_read.items() if last > index} | set(host_read)
                self._add_session(stage.session_nodes, needed, host_read)
            for node in stage.host_nodes:
                self._add_host(node)
        for name in self.results:
            if self.graph[name].is_constant:
                self._keys[(name, "native")] = None
            elif (name, "native") not in self._keys:
                self._add_conversion(name, "native")

    def _held(self, name: str) -> Layout | None:
        """The layout in which a buffer holds the tensor, if any does."""
        layouts: tuple[Layout, Layout] = ("native", "first")
        return next((layout for layout in layouts if (name, layout) in self._keys), None)

    def _add_session(self, nodes: list[Node], needed: set[str], host_read: Mapping[str, bool]) -> None:
        builder = self._lowered(nodes)
        wanted: dict[str, Layout] = {}
        for name in (name for node in nodes for name in node.outputs):
            if name in self.results or not host_read.get(name, True):
                wanted[name] = "native"
            elif name in needed:
                wanted[name] = builder.layouts(name)[0]
        if not wanted:  # nobody reads what these nodes make
            return
        macs = sum(COST[n.op](n, self.graph.operands(n), self.graph.results(n)).macs for n in nodes)
        options = sparing(session_options(self.threads if macs > LARGE_SESSION else 1), self.graph)
        session = builder.finish(wanted, options)
        reads = dict(builder.feeds)
        self._touched.append([*reads.items(), *wanted.items()])
        self._keys.update(dict.fromkeys(wanted.items()))

        def make(lane: _Lane) -> Step:
            binding: Any = session.io_binding()
            for bind, prefix, tensors in ((binding.bind_input, "in", reads), (binding.bind_output, "out", wanted)):
                for key in tensors.items():
                    array = lane.buffers[key]
                    bind(f"{prefix}:{key[0]}", "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            return lambda: session.run_with_iobinding(binding)

        self._makers.append(make)

    def _add_host(self, node: Node) -> None:
        row = HOST[node.op]
        layout: Layout = "native"
        names = [name for name in node.inputs if name is not None and not self.graph[name].is_constant]
        if names and row.any_layout and len(self.graph[node.outputs[0]].shape) == 4:
            layout = self._held(names[0]) or "native"
        for name in names:
            if (name, layout) not in self._keys:
                self._add_conversion(name, layout)
        self._keys.update(((name, layout), None) for name in node.outputs)
        kernel = row.make(self.graph, node)
        self._touched.append([(name, layout) for name in (*names, *node.outputs)])

        def make(lane: _Lane) -> Step:
            def seen(name: str) -> Array:
                buffer = lane.buffers[(name, layout)]
                return buffer.transpose(TO_NATIVE) if layout == "first" else buffer

            inputs = host_operands(self.graph, node, [seen(name) for name in names])
            outputs = [seen(name) for name in node.outputs]
            return lambda: kernel(inputs, outputs)

        self._makers.append(make)

    def _add_conversion(self, name: str, layout: Layout) -> None:
        """A step that copies a buffer into the other layout."""
        other: Layout = "native" if layout == "first" else "first"
        perm = (0, 3, 1, 2) if layout == "first" else (0, 2, 3, 1)
        self._keys[(name, layout)] = None
        self._touched.append([(name, other), (name, layout)])

        def make(lane: _Lane) -> Step:
            source, target = lane.buffers[(name, other)].transpose(perm), lane.buffers[(name, layout)]
            return lambda: np.copyto(target, source)

        self._makers.append(make)

    # -- running ---------------------------------------------------------------------------------------------------
    def _run(self, lane: _Lane, feeds: Mapping[str, Array]) -> dict[str, Array]:
        for name in self.graph.inputs:
            np.copyto(lane.buffers[(name, "native")], feeds[name], casting="no")
        for step in lane.steps:
            step()
        return {name: lane.buffers[(name, "native")].copy() for name in self.results}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run on arrays keyed by input name (codes, or float32 where the input is float); returns copies keyed by
        name.
        """
        try:
            lane = self._free.pop()
        except IndexError:  # all are in use by other threads
            lane = self._lane()
        try:
            return self._run(lane, feeds)
        finally:
            self._free.append(lane)

    def lanes(self) -> int:
        """How many pictures to run at a time: `threads`, or as many as have their buffers in LANE_BYTES."""
        return max(1, min(self.threads, LANE_BYTES // max(1, sum(self._slots))))

    def map(self, samples: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        """Results for many samples, in order, `lanes()` of them at a time."""
        return map_threads(self.run, samples, self.lanes())
