"""What is selected, which is something else at once with the least change, and what tells in its place how near a
network is. Of prepared and of fixed graphs."""

from __future__ import annotations

from sgs.ir import Graph, Node
from sgs.quant.prepare import known_kind


def operands(graph: Graph, node: Node) -> list[str]:
    """What a node reads, each once, without constants."""
    read = dict.fromkeys(name for name in node.inputs if name is not None)
    return [name for name in read if not graph[name].is_constant]


def selected(graph: Graph) -> set[str]:
    """Results of operators that select, and what is made of nothing else."""
    found: set[str] = set()
    for node in graph.nodes:
        read = operands(graph, node)
        if known_kind(node) == "select" or (read and found.issuperset(read)):
            found.update(node.outputs)
    return found


def told_by(graph: Graph, node: Node) -> list[str]:
    """The operands that tell how near the results of a node are. Classes that go with what is selected do not: those of
    the many that are not selected would have as much of a say, and scores stand for them."""
    read = operands(graph, node)
    if known_kind(node) == "select":
        return [name for name in read if graph[name].quant is not None or graph[name].dtype.is_float]
    return read
