"""A graph run node by node over a few samples, for algorithms that look at operands and mend what comes next.

Only values that are still to be read are kept: in memory up to a budget, beyond it in temporary files, so that many
samples, or large ones, cost time and not memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sgs.data.shards import processors
from sgs.data.stored import StoredArray
from sgs.engine.lowering import SessionBuilder, session_options
from sgs.engine.single import NodeKernel
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.registry import FLOAT

_Work = Callable[[Sequence[Array]], list[Array]]
MEMORY = 8 << 20  # bytes of values that one walk keeps in memory


class _Values:
    """Arrays by (tensor, sample)."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held: dict[tuple[str, int], Array | StoredArray] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="sgs_walk_")
        self._files = 0

    def put(self, name: str, sample: int, value: Array) -> None:
        if value.nbytes <= self._budget:
            self._budget -= value.nbytes
            self._held[(name, sample)] = value
            return
        self._files += 1
        self._held[(name, sample)] = StoredArray(Path(self._folder.name) / str(self._files), value)

    def get(self, name: str, sample: int) -> Array:
        value = self._held[(name, sample)]
        return value.read() if isinstance(value, StoredArray) else value

    def drop(self, name: str, sample: int) -> None:
        value = self._held.pop((name, sample))
        if isinstance(value, StoredArray):
            value.remove()
        else:
            self._budget += value.nbytes


class Walk:
    """`graph` (a fixed one, or with `real` a float one) run on `feeds` up to one node after another.

    Constants of a node may be changed in `graph` until the walk has passed it.
    """

    def __init__(
        self, graph: Graph, feeds: Iterable[Mapping[str, Array]], *, real: bool = False, budget: int = MEMORY
    ) -> None:
        self.graph = graph
        self.samples = 0
        self._real = real
        self._next = 0
        self._values = _Values(budget)
        self._pool = ThreadPoolExecutor(processors())
        self._last = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs if name is not None}
        for feed in feeds:
            for name in graph.inputs:
                self._values.put(name, self.samples, np.asarray(feed[name], order="C"))
            self.samples += 1

    def until(self, result: str) -> Node:
        """Run what comes before the node whose first result is `result`, and return that node."""
        start = self._next
        while self.graph.nodes[self._next].outputs[0] != result:
            self._next += 1
        if self._next > start:
            self._run(self.graph.nodes[start : self._next])
        return self.graph.nodes[self._next]

    def value(self, name: str, sample: int) -> Array:
        """An operand of the node that comes next."""
        return self._values.get(name, sample)

    def _run(self, nodes: Sequence[Node]) -> None:
        """Run the nodes on every sample; keep of their results what a later node reads."""
        made = {name for node in nodes for name in node.outputs}
        read = {name for node in nodes for name in node.inputs if name is not None} - made
        operands = [name for name in sorted(read) if not self.graph[name].is_constant]
        results = sorted(name for name in made if self._last.get(name, -1) >= self._next)
        make = _session if self._real else _kernels
        work = make(self.graph, nodes, operands, results) if results else _nothing

        def run(sample: int) -> list[Array]:
            return work([self._values.get(name, sample) for name in operands])

        for first in range(0, self.samples, processors()):
            batch = range(first, min(first + processors(), self.samples))
            for sample, values in zip(batch, self._pool.map(run, batch), strict=True):
                for name in operands:
                    if self._last[name] < self._next:
                        self._values.drop(name, sample)
                for name, value in zip(results, values, strict=True):
                    self._values.put(name, sample, value)


def _nothing(values: Sequence[Array]) -> list[Array]:
    """Nodes whose results nobody reads here: those of the network."""
    return []


def _session(graph: Graph, nodes: Sequence[Node], operands: Sequence[str], results: Sequence[str]) -> _Work:
    """Float nodes as one session."""
    builder = SessionBuilder(graph)
    for name in operands:
        builder.feed(name, "native")
    for node in nodes:
        FLOAT[node.op](builder, node)
    session = builder.finish(dict.fromkeys(results, "native"), session_options(1))
    names, outputs = [f"in:{name}" for name in operands], [f"out:{name}" for name in results]
    return lambda values: list(session.run(outputs, dict(zip(names, values, strict=True))))


def _kernels(graph: Graph, nodes: Sequence[Node], operands: Sequence[str], results: Sequence[str]) -> _Work:
    """Fixed nodes one by one."""
    kernels = [(node, NodeKernel(graph, node, threads=1)) for node in nodes]

    def work(given: Sequence[Array]) -> list[Array]:
        values = dict(zip(operands, given, strict=True))
        for node, kernel in kernels:
            made = kernel([values[name] for name in kernel.operands])
            values.update(zip(node.outputs, made, strict=True))
        return [values[name] for name in results]

    return work
