"""Masks: numbers that only have to lose, and how far a range need reach for them.

What a mask hides from a softmax is -10^4, the lowest binary32 or minus infinity there, and would leave the other values
a handful of codes. A softmax does not see how far below the largest of its row a value is, once that is far enough
(`FADES` rows): tensors that only such operators read are measured as if nothing in them were lower than that, and what
is lower saturates.
"""

from __future__ import annotations

import numpy as np

from sgs.engine.lowering import SessionBuilder
from sgs.ir import Graph, Node
from sgs.ops._marker import ENDLESS
from sgs.registry import FADES, Layout


def bound_constants(graph: Graph) -> None:
    """Bring constants of masks that are beyond ±ENDLESS back to it, in place, so that ranges stay finite. Constants of
    masks are those that reach nothing but what `fading_tensors` finds."""
    reached, hidden = graph.readers(), set(fading_tensors(graph))
    for name in [*(name for node in reversed(graph.nodes) for name in node.outputs), *graph.tensors]:
        made = [result for node in reached[name] for result in node.outputs]
        if made and name not in graph.outputs and hidden.issuperset(made):
            hidden.add(name)
    for tensor in (graph[name] for name in hidden):
        if tensor.data is not None and tensor.dtype.is_float and np.abs(tensor.data).max(initial=0) > ENDLESS:
            tensor.data = np.clip(tensor.data, -ENDLESS, ENDLESS)


def fading_tensors(graph: Graph) -> dict[str, float]:
    """Tensor → how far below the largest of its row values make no difference, of those that nothing else reads than
    operators for which that is so, directly or through a RESHAPE that keeps the rows."""
    readers = graph.readers()
    found: dict[str, float] = {}
    for node in reversed(graph.nodes):
        for name in node.outputs:
            distances = [_distance(graph, reader, found) for reader in readers[name]]
            if distances and all(distances) and name not in graph.outputs:
                found[name] = max(distances)
    return found


def _distance(graph: Graph, node: Node, found: dict[str, float]) -> float:
    """How far below the largest of its row of operand 0 values make no difference to a node; 0 where all do."""
    if node.op in FADES:
        return FADES[node.op](node)
    if node.op != "RESHAPE":
        return 0.0
    x, y = graph[node.inputs[0] or ""], graph[node.outputs[0]]
    return found.get(y.name, 0.0) if x.shape[-1:] == y.shape[-1:] else 0.0


def raised(builder: SessionBuilder, value: str, distance: float, layout: Layout) -> str:
    """A session value with everything that is further than that below the largest of its row brought up to there."""
    axis = builder.const(np.array([1 if layout == "first" else -1], np.int64))
    floor = builder.op("ReduceMax", [value, axis], keepdims=1)
    floor = builder.op("Sub", [floor, builder.const(np.asarray(distance, np.float32))])
    return str(builder.op("Max", [value, floor]))
