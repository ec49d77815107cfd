"""Float operators that are short for others: their `EXPAND` row says which, and is all that they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._layout import fixed
from sgs.registry import (
    EXAMPLES,
    EXPAND,
    FLOAT,
    INFER,
    LAYOUT,
    OPERATOR,
    SIM,
    Emit,
    Lowering,
    OperatorInfo,
    Shape,
    SimRow,
)


def expansion(graph: Graph, node: Node) -> list[Node]:
    """What a node is made of, in order; its last results are the node's, others are put into the graph."""
    build = GraphBuilder(Graph(tensors=graph.tensors))

    def emit(stem: str, op: str, /, *operands: Tensor | Array, **attrs: Any) -> Tensor:
        return build(op, *operands, name=f"{node.outputs[0]}/{stem}", **attrs)

    made = EXPAND[node.op](emit, node, [graph[name] for name in node.inputs if name is not None])
    own = {tensor.name: name for tensor, name in zip(made, node.outputs, strict=True)}
    for part in build.graph.nodes:
        part.inputs = [own.get(name or "", name) for name in part.inputs]
        part.outputs = [own.get(name, name) for name in part.outputs]
        part.name = node.name
    for name in own:
        del graph.tensors[name]
    return build.graph.nodes


def expanded(graph: Graph) -> Graph:
    """The graph with what such operators are made of in their place; the graph itself where it has none."""
    if not any(node.op in EXPAND for node in graph.nodes):
        return graph
    whole = graph.copy()
    parts = [expansion(whole, node) if node.op in EXPAND else [node] for node in whole.nodes]
    whole.nodes = [node for few in parts for node in few]
    whole.prune()
    return whole


def _lower(low: Lowering, node: Node) -> None:
    """In a graph that has the inner tensors as well."""
    outside, low.graph = low.graph, low.graph.copy()
    try:
        for part in expansion(low.graph, node):
            FLOAT[part.op](low, part)
    finally:
        low.graph = outside


def add_expansion(
    op: str,
    summary: str,
    infer: Callable[[Node, Sequence[Tensor | None]], list[tuple[Shape, DType]]],
    expand: Callable[[Emit, Node, Sequence[Tensor]], Sequence[Tensor]],
    examples: Callable[[], list[Graph]],
) -> None:
    """All rows of such an operator."""
    OPERATOR.add(op, OperatorInfo("float", summary))
    INFER.add(op, infer)
    LAYOUT.add(op, fixed)
    SIM.add(op, SimRow(custom=True))
    EXPAND.add(op, expand)
    FLOAT.add(op, _lower)
    EXAMPLES.add(op, examples)
