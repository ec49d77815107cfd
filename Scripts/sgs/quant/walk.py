"""A graph run node by node over a few samples, for algorithms that look at operands and mend what comes next.

Only values that are still to be read are kept: in memory up to a budget, beyond it in temporary files, so that many
samples, or large ones, cost time and not memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sgs.data.shards import processors
from sgs.engine.single import NodeKernel
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array

MEMORY = 32 << 20  # bytes of values that one walk keeps in memory


class _Values:
    """Arrays by (tensor, sample)."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held: dict[tuple[str, int], Array | Path] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="sgs_walk_")
        self._files = 0

    def put(self, name: str, sample: int, value: Array) -> None:
        if value.nbytes <= self._budget:
            self._budget -= value.nbytes
            self._held[(name, sample)] = value
            return
        self._files += 1
        path = Path(self._folder.name) / f"{self._files}.npy"
        np.save(path, value, allow_pickle=False)
        self._held[(name, sample)] = path

    def get(self, name: str, sample: int) -> Array:
        value = self._held[(name, sample)]
        if isinstance(value, Path):
            return np.asarray(np.load(value, allow_pickle=False))
        return value

    def drop(self, name: str, sample: int) -> None:
        value = self._held.pop((name, sample))
        if isinstance(value, Path):
            value.unlink()
        else:
            self._budget += value.nbytes


class Walk:
    """`graph` (a fixed one, or with `real` a float one) run on `feeds` up to one node after another.

    Constants of a node may be changed in `graph` until the walk has passed it.
    """

    def __init__(
        self, graph: Graph, feeds: Sequence[Mapping[str, Array]], *, real: bool = False, budget: int = MEMORY
    ) -> None:
        self.graph = graph
        self.samples = len(feeds)
        self._real = real
        self._next = 0
        self._values = _Values(budget)
        self._last = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs if name is not None}
        for name in graph.inputs:
            for sample, feed in enumerate(feeds):
                self._values.put(name, sample, np.ascontiguousarray(feed[name]))

    def until(self, result: str) -> Node:
        """Run what comes before the node whose first result is `result`, and return that node."""
        while (node := self.graph.nodes[self._next]).outputs[0] != result:
            self._run(node)
            self._next += 1
        return node

    def value(self, name: str, sample: int) -> Array:
        """An operand of the node that comes next."""
        return self._values.get(name, sample)

    def _run(self, node: Node) -> None:
        kernel = NodeKernel(self.graph, node, threads=1, real=self._real)
        done = [name for name in {n for n in node.inputs if n is not None} if self._last[name] == self._next]
        done = [name for name in done if not self.graph[name].is_constant]

        def run(sample: int) -> list[Array]:
            return kernel([self._values.get(name, sample) for name in kernel.operands])

        with ThreadPoolExecutor(processors()) as pool:
            for first in range(0, self.samples, processors()):
                batch = range(first, min(first + processors(), self.samples))
                for sample, results in zip(batch, pool.map(run, batch), strict=True):
                    for name in done:
                        self._values.drop(name, sample)
                    for name, value in zip(node.outputs, results, strict=True):
                        if name in self._last:
                            self._values.put(name, sample, value)
