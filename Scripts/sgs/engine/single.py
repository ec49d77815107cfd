"""One node at a time: the kernel of a single operator on arrays in the graph's own layout."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime

from sgs.engine.lowering import SessionBuilder, session_options
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.registry import FIXED, FLOAT, HOST


def node_session(graph: Graph, node: Node, threads: int, *, real: bool = False) -> onnxruntime.InferenceSession:
    """A session of one node, fixed or `real` (float): inputs `in:<name>` and outputs `out:<name>` in the graph's own
    layout."""
    builder = SessionBuilder(graph)
    for name in dict.fromkeys(node.inputs):
        if name is not None and not graph[name].is_constant:
            builder.feed(name, "native")
    (FLOAT if real else FIXED)[node.op](builder, node)
    options = session_options(threads)
    # there are as many of these as nodes, and what each keeps between runs adds up to all activations of the graph
    options.enable_mem_pattern = options.enable_cpu_mem_arena = False
    return builder.finish(dict.fromkeys(node.outputs, "native"), options)


def host_operands(graph: Graph, node: Node, activations: Sequence[Array]) -> list[Array]:
    """What a host kernel is given: the node's activations in order, with its constants in their places."""
    given = iter(activations)
    tensors = [graph[name] for name in node.inputs if name is not None]
    return [next(given) if tensor.data is None else tensor.data for tensor in tensors]


class NodeKernel:
    """Runs one node of a fixed graph, or with `real` of a float one. Operands are its activations in order, without
    constants and absent ones."""

    def __init__(self, graph: Graph, node: Node, *, threads: int = 0, real: bool = False) -> None:
        self._reads = [n for n in node.inputs if n is not None and not graph[n].is_constant]
        self.operands = list(dict.fromkeys(self._reads))
        self._graph, self._node, self._results = graph, node, graph.results(node)
        if node.op in HOST and not real:
            self._host = HOST[node.op].make(graph, node)
            self._session = None
            return
        self._session = node_session(graph, node, threads, real=real)
        self._names = [f"out:{name}" for name in node.outputs]

    def __call__(self, operands: Sequence[Array]) -> list[Array]:
        """Results for arrays keyed in the order of `operands`."""
        if self._session is not None:
            feeds = {f"in:{name}": value for name, value in zip(self.operands, operands, strict=True)}
            return list(self._session.run(self._names, feeds))
        by_name = dict(zip(self.operands, operands, strict=True))
        results = [np.empty(t.shape, t.dtype.numpy) for t in self._results]
        self._host(host_operands(self._graph, self._node, [by_name[name] for name in self._reads]), results)
        return results
