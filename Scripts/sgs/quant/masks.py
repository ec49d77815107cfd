"""Masks: numbers that only have to lose, and how far a range need reach for them.

What a mask hides from a softmax is -10^4, the lowest binary32 or minus infinity there, and would leave the other values
a handful of codes. A softmax does not see how far below the largest of its row a value is, once that is far enough
(`RELEVANT` rows): tensors that only such operators read are measured as if nothing in them were lower than that, and
what is lower saturates.
"""

from __future__ import annotations

import numpy as np

from sgs.ir import Graph, Node
from sgs.registry import RELEVANT

LARGEST = 1e30  # of constants in networks that are quantised: what is larger, or infinite, only marks a place


def bound_constants(graph: Graph) -> None:
    """Bring constants of masks that are beyond ±LARGEST back to it, in place, so that ranges stay finite. Constants of
    masks are those that reach nothing but what `relevant_readers` finds."""
    reached, hidden = _readers(graph), set(relevant_readers(graph))
    for name in [*(name for node in reversed(graph.nodes) for name in node.outputs), *graph.tensors]:
        made = [result for node in reached.get(name, []) for result in node.outputs]
        if made and name not in graph.outputs and hidden.issuperset(made):
            hidden.add(name)
    for tensor in (graph[name] for name in hidden):
        if tensor.data is not None and tensor.dtype.is_float and np.abs(tensor.data).max(initial=0) > LARGEST:
            tensor.data = np.clip(tensor.data, -LARGEST, LARGEST)


def _readers(graph: Graph) -> dict[str, list[Node]]:
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            if name is not None:
                readers.setdefault(name, []).append(node)
    return readers


def relevant_readers(graph: Graph) -> dict[str, Node]:
    """Tensor → the operator that tells which of its values matter, of those that nothing else reads, directly or
    through a RESHAPE that keeps its rows."""
    readers = _readers(graph)
    found: dict[str, Node] = {}
    for node in reversed(graph.nodes):
        for name in node.outputs:
            nodes = [_reader(graph, reader, found) for reader in readers.get(name, [])]
            first = nodes[0] if nodes and name not in graph.outputs else None
            if first is not None and all(n is not None and (n.op, n.attrs) == (first.op, first.attrs) for n in nodes):
                found[name] = first
    return found


def _reader(graph: Graph, node: Node, found: dict[str, Node]) -> Node | None:
    """The operator behind a reader that tells which values matter."""
    if node.op in RELEVANT:
        return node
    if node.op != "RESHAPE":
        return None
    x, y = graph[node.inputs[0] or ""], graph[node.outputs[0]]
    return found.get(y.name) if x.shape[-1:] == y.shape[-1:] else None
