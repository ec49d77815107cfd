"""Explicit padding into the windows of convolutions and max-pools."""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Graph, Node
from sgs.passes.editor import Editor

_LEAST = float(np.finfo(np.float32).min)
# Reader → the value that its own padding stands for.
_FILL = {"CONV_2D": 0.0, "DEPTHWISE_CONV_2D": 0.0, "MAX_POOL_2D": -np.inf}


def fold_pad(graph: Graph) -> int:
    """Case analysis, for a pad of height and width only (rank 4, no paddings on batch and channels):

    * zeros in front of CONV_2D or DEPTHWISE_CONV_2D, which pad with zeros;
    * the least finite number, or less, in front of MAX_POOL_2D, whose padding never wins;

    are added to the reader's attr `pads`. Other readers of the padded tensor keep it.
    """
    with Editor(graph) as edit:
        for node in graph.nodes:
            pad = edit.producers.get(node.inputs[0] or "") if node.op in _FILL else None
            paddings = None if pad is None else _window_paddings(graph, pad, _FILL[node.op])
            if pad is None or paddings is None:
                continue
            (top, bottom), (left, right) = paddings
            before = node.attrs["pads"]
            node.attrs["pads"] = (before[0] + top, before[1] + left, before[2] + bottom, before[3] + right)
            edit.set_input(node, 0, pad.inputs[0] or "")
            edit.count += 1
    return edit.count


def _window_paddings(graph: Graph, pad: Node, fill: float) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """((top, bottom), (left, right)) of a pad with `fill` on height and width alone, None for any other node."""
    if pad.op not in ("PAD", "PADV2") or graph[pad.inputs[0] or ""].quant is not None:
        return None
    value = float(pad.attrs.get("value", 0.0))
    if not (value == fill or (fill == -np.inf and value <= _LEAST)):
        return None
    paddings = pad.attrs["paddings"]
    if len(paddings) != 4 or any(paddings[0]) or any(paddings[3]):
        return None
    return tuple(paddings[1]), tuple(paddings[2])
