"""Which values the plain integers of a graph (indices, counts, truth values) may have, whatever the network is fed."""

from __future__ import annotations

from sgs.ir import Graph, Node
from sgs.numeric.types import DType
from sgs.ops._move import moved_by
from sgs.registry import MOVE, SPAN, Span


def reach(dtype: DType) -> Span:
    """What an integer type, or that of truth values, holds."""
    return (0, 1) if dtype is DType.BOOL else (dtype.qmin, dtype.qmax)


def within(span: Span, dtype: DType) -> bool:
    """Whether a type holds them all."""
    low, high = reach(dtype)
    return low <= span[0] and span[1] <= high


def integer_spans(graph: Graph) -> dict[str, Span]:
    """Plain integer → its least and largest value, of those where these are known."""
    found: dict[str, Span] = {}
    for tensor in graph.tensors.values():
        if tensor.quant is None and not tensor.dtype.is_float and tensor.data is not None and tensor.elements:
            found[tensor.name] = int(tensor.data.min()), int(tensor.data.max())
    for node in graph.nodes:
        span = _span(graph, node, found)
        for result in graph.results(node):
            if span is not None and result.quant is None and not result.dtype.is_float and within(span, result.dtype):
                found[result.name] = span
    return found


def _span(graph: Graph, node: Node, found: dict[str, Span]) -> Span | None:
    """Of a node's results that are plain integers: what its own row says, or what those that it copies have."""
    spans = [None if name is None else found.get(name) for name in node.inputs]
    if node.op in SPAN:
        return SPAN[node.op](node, graph.operands(node), spans)
    copied = [spans[index] for index in moved_by(node)] if node.op in MOVE else []
    known = [span for span in copied if span is not None]
    if not known or len(known) < len(copied):
        return None
    return min(low for low, _ in known), max(high for _, high in known)
