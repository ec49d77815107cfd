"""Pooling over one window that is the whole picture, as a reduction."""

from __future__ import annotations

from sgs.ir.graph import Graph, Node

_REDUCTIONS = {"AVERAGE_POOL_2D": "MEAN", "MAX_POOL_2D": "REDUCE_MAX"}


def whole_windows(graph: Graph) -> int:
    """A window as large as the picture is no window: a chip bounds the extents of these, and of reductions it does not.

    For pools with neither pads nor an activation.
    """
    found = [node for node in graph.nodes if _is_whole(graph, node)]
    for node in found:
        node.op, node.attrs = _REDUCTIONS[node.op], {"axes": (1, 2), "keep_dims": True}
    return len(found)


def _is_whole(graph: Graph, node: Node) -> bool:
    if node.op not in _REDUCTIONS or any(node.attrs["pads"]) or node.attrs.get("activation", "NONE") != "NONE":
        return False
    return tuple(node.attrs["kernel"]) == graph[node.inputs[0] or ""].shape[1:3]
