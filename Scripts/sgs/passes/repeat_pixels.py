"""Runs of RESHAPE, TILE and TRANSPOSE that repeat rows and columns become RESIZE_NEAREST_NEIGHBOR."""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Graph, Node
from sgs.passes.editor import Editor
from sgs.passes.move_chain import MOVES, Chain, chains

_MOVES = MOVES | {"TILE"}


def repeat_pixels(graph: Graph) -> int:
    """y [N, aH, bW, C] of x [N, H, W, C] with y[n, h, w, c] = x[n, h // a, w // b, c], however it is made: Keras 3 and
    networks that upsample by hand repeat each axis by itself, over shapes of rank 5 and 6."""
    with Editor(graph) as edit:
        for node in reversed(list(graph.nodes)):
            if node.op in _MOVES and edit.alive(node) and len(node.outputs) == 1:
                edit.count += _replace_longest(edit, node)
    return edit.count


def _replace_longest(edit: Editor, node: Node) -> bool:
    name = node.outputs[0]
    if len(edit.graph[name].shape) != 4 or not (edit.readers[name] or name in edit.graph.outputs):
        return False
    chain = next((run for run in chains(edit, name, _MOVES) if run.has("TILE") and _repeats(edit.graph, run)), None)
    if chain is None:
        return False
    result = chain.result
    made = edit.graph.add_tensor(f"{name}/resize", result.shape, result.dtype, quant=chain.source.quant)
    attrs = {"size": result.shape[1:3], "align_corners": False, "half_pixel_centers": False}
    resize = Node("RESIZE_NEAREST_NEIGHBOR", [chain.source.name], [made.name], attrs, node.name)
    edit.insert_before(node, resize)
    return edit.bypass(node, made.name)


def _repeats(graph: Graph, chain: Chain) -> bool:
    if len(chain.source.shape) != 4 or not chain.source.elements:
        return False
    (n, h, w, c), (n2, h2, w2, c2) = chain.source.shape, chain.result.shape
    if (n, c) != (n2, c2) or (h, w) == (h2, w2) or h2 % h or w2 % w:
        return False
    wanted = np.arange(chain.source.elements, dtype=np.int32).reshape(n, h, w, c)
    return np.array_equal(chain.index_map(graph), wanted.repeat(h2 // h, 1).repeat(w2 // w, 2))
