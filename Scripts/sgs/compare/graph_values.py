"""Every tensor of a graph: operators run one by one, and values are kept only until they have been read for the last
time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from sgs.compare.stage import StageTensor
from sgs.engine.single import NodeKernel
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array


class GraphValues:
    """Runs a fixed graph, or with `real` a float one. `threads`: of one operator, 0 for one per processor."""

    def __init__(self, graph: Graph, *, real: bool, threads: int = 0) -> None:
        self.graph, self._real, self._threads = graph, real, threads
        self._kernels: dict[str, NodeKernel] = {}

    def described(self) -> Iterator[StageTensor]:
        makers = {name: node.op for node in self.graph.nodes for name in node.outputs}
        made = [tensor.name for tensor in self.graph.activations()]
        for name in dict.fromkeys([*made, *self.graph.outputs]):  # an output may be a constant
            tensor = self.graph[name]
            quant = None if tensor.dtype.is_float else tensor.quant
            yield StageTensor(name, tensor.shape, tensor.dtype.numpy.name, makers.get(name, ""), quant)

    def tensors(self, feeds: Mapping[str, Array], wanted: Collection[str]) -> Iterator[tuple[str, Array]]:
        """(name, value) of what is wanted, in the order of the graph; constants that are outputs come last."""
        values = {name: feeds[name] for name in self.graph.inputs}
        yield from ((name, values[name]) for name in self.graph.inputs if name in wanted)
        nodes = _needed(self.graph, wanted)
        last = {name: index for index, node in enumerate(nodes) for name in node.inputs}
        for index, node in enumerate(nodes):
            kernel = self.kernel(node)
            made = kernel([values[name] for name in kernel.operands])
            for name, value in zip(node.outputs, made, strict=True):
                if name in wanted:
                    yield name, value
                if last.get(name, -1) > index:
                    values[name] = value
            for name in kernel.operands:
                if last[name] == index:
                    del values[name]
        for name in self.graph.outputs:
            data = self.graph[name].data
            if data is not None and name in wanted:
                yield name, data

    def kernel(self, node: Node) -> NodeKernel:
        """Built once for all samples."""
        if node.outputs[0] not in self._kernels:
            made = NodeKernel(self.graph, node, threads=self._threads, real=self._real)
            self._kernels[node.outputs[0]] = made
        return self._kernels[node.outputs[0]]


def _needed(graph: Graph, wanted: Collection[str]) -> list[Node]:
    """The nodes without which the wanted tensors cannot be had, in order."""
    needed, nodes = set(wanted), []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            nodes.append(node)
            needed.update(name for name in node.inputs if name is not None)
    return nodes[::-1]
