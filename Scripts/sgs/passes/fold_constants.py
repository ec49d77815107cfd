"""Evaluate nodes that read only constants."""

from __future__ import annotations

from sgs.ir.graph import Graph, Node
from sgs.numeric.quantise import Array
from sgs.registry import FLOAT, QUANTISE, REFERENCE

LARGEST_RESULT = 64 << 20  # bytes; larger results are folded only when they are no larger than the operands


def fold_constants(graph: Graph) -> int:
    """A node of a float graph whose operands are all constants becomes constants, unless they would be large.

    Operators that only move values are evaluated by their reference (plain numpy); all others as a float session.
    """
    kept: list[Node] = []
    for node in graph.nodes:
        if any(name in graph.outputs for name in node.outputs) or not evaluate(graph, node):
            kept.append(node)
    count = len(graph.nodes) - len(kept)
    graph.nodes = kept
    if count:
        graph.prune()
    return count


def evaluate(graph: Graph, node: Node) -> bool:
    """Make constants of a node's results; False where it has operands that are none, or where they would be large."""
    if not _constant_operands(graph, node):
        return False
    for name, value in zip(node.outputs, _values(graph, node), strict=True):
        graph[name].data = value
    return True


def _constant_operands(graph: Graph, node: Node) -> bool:
    """True when the node can and should be evaluated now."""
    operands = [t for t in graph.operands(node) if t is not None]
    if not operands or node.op not in FLOAT or not all(t.is_constant and t.quant is None for t in operands):
        return False
    limit = max(LARGEST_RESULT, sum(t.nbytes for t in operands))
    return sum(t.nbytes for t in graph.results(node)) <= limit


def _values(graph: Graph, node: Node) -> list[Array]:
    operands, results = graph.operands(node), graph.results(node)
    rule = QUANTISE.get(node.op)
    if rule is not None and rule.kind == "move":
        return REFERENCE[node.op](node, operands, results, [None if t is None else t.data for t in operands])
    from sgs.engine.float_session import FloatEngine  # loads onnxruntime: only where there is something to fold

    tensors = {t.name: t for t in [*operands, *results] if t is not None}
    alone = Graph("constant", tensors, [node], [], list(node.outputs))
    values = FloatEngine(alone).run({})
    return [values[name] for name in node.outputs]
