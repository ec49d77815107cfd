"""Runs of RESHAPE and TRANSPOSE that exchange channels for pixels become DEPTH_TO_SPACE or SPACE_TO_DEPTH."""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Graph, Node
from sgs.passes.editor import Editor
from sgs.passes.move_chain import MOVES, Chain, IndexMap, chains
from sgs.registry import OPERATOR

_SPREAD, _STACK = "DEPTH_TO_SPACE", "SPACE_TO_DEPTH"


def depth_to_space(graph: Graph) -> int:
    """Case analysis, for the longest run of moving nodes with a TRANSPOSE from x [N,H,W,C] to y [N,H',W',C']:

    * H' = bH, W' = bW: y[h*b+i, w*b+j, k] = x[h, w, p[i,j,k]] is a GATHER of channels p and a DEPTH_TO_SPACE, block b;
    * H = bH', W = bW': y[h, w, p[i,j,k]] = x[h*b+i, w*b+j, k] is a SPACE_TO_DEPTH and a GATHER of channels;

    without the GATHER where p counts up, as TFLite's operators do.
    """
    with Editor(graph) as edit:
        for node in reversed(list(graph.nodes)):
            if (
                node.op in MOVES
                and edit.alive(node)
                and len(node.outputs) == 1
                and edit.readers[node.outputs[0]]
                or node.op in MOVES
                and node.outputs[0] in graph.outputs
            ):
                edit.count += _replace_longest(edit, node)
    return edit.count


def _replace_longest(edit: Editor, node: Node) -> bool:
    for chain in chains(edit, node.outputs[0]):
        block = _block(chain)
        if block and chain.has("TRANSPOSE"):
            grown = chain.result.shape[1] > chain.source.shape[1]
            if (_SPREAD if grown else _STACK) not in OPERATOR:
                return False
            channels = _spread(edit.graph, chain, block) if grown else _stacked(edit.graph, chain, block)
            if channels is not None:
                return _replace(edit, node, chain, block if grown else -block, channels)
    return False


def _block(chain: Chain) -> int:
    """The block size that the shapes allow; 0 for none."""
    if len(chain.source.shape) != 4 or len(chain.result.shape) != 4 or not chain.result.elements:
        return 0
    (n, h, w, c), (n2, h2, w2, c2) = chain.source.shape, chain.result.shape
    small, large, few, many = ((h, w), (h2, w2), c2, c) if h2 > h else ((h2, w2), (h, w), c, c2)
    block = large[0] // small[0]
    fits = n == n2 and block > 1 and large == (small[0] * block, small[1] * block) and many == few * block * block
    return block if fits else 0


def _spread(graph: Graph, chain: Chain, block: int) -> IndexMap | None:
    """p [b*b*C'] of the first case, None when the run is something else."""
    n, h, w, c = chain.source.shape
    table = chain.index_map(graph).reshape(n, h, block, w, block, -1).transpose(0, 1, 3, 2, 4, 5).reshape(n * h * w, c)
    picked = table[0]
    right = picked.max() < c and np.array_equal(table, picked + c * np.arange(n * h * w, dtype=np.int32)[:, None])
    return picked if right else None


def _stacked(graph: Graph, chain: Chain, block: int) -> IndexMap | None:
    """The channels of SPACE_TO_DEPTH's result in the order of the run's result, None when the run is something else."""
    n, h, w, c = chain.source.shape
    numbers = np.arange(chain.source.elements, dtype=np.int32).reshape(n, h // block, block, w // block, block, c)
    stacked = numbers.transpose(0, 1, 3, 2, 4, 5).reshape(-1, block * block * c)
    table = chain.index_map(graph).reshape(stacked.shape)
    order = np.argsort(stacked[0], kind="stable")
    picked = order[np.searchsorted(stacked[0], table[0], sorter=order).clip(max=order.size - 1)].astype(np.int32)
    return picked if np.array_equal(stacked[:, picked], table) else None


def _replace(edit: Editor, place: Node, chain: Chain, block: int, channels: IndexMap) -> bool:
    """Insert GATHER (unless `channels` counts up) and DEPTH_TO_SPACE (block > 0) or SPACE_TO_DEPTH (block < 0)."""
    name = chain.source.name
    if block > 0:
        name = _gather(edit, place, name, channels)
        name = _append(edit, place, _SPREAD, [name], chain.result.shape, {"block_size": block})
    else:
        n, h, w, _ = chain.result.shape
        name = _append(edit, place, _STACK, [name], (n, h, w, channels.size), {"block_size": -block})
        name = _gather(edit, place, name, channels)
    return edit.bypass(place, name)


def _gather(edit: Editor, place: Node, name: str, channels: IndexMap) -> str:
    if np.array_equal(channels, np.arange(channels.size)):
        return name
    indices = edit.add_constant(f"{place.outputs[0]}/channels", channels.astype(np.int32))
    shape = (*edit.graph[name].shape[:3], channels.size)
    return _append(edit, place, "GATHER", [name, indices], shape, {"axis": 3})


def _append(
    edit: Editor, place: Node, op: str, inputs: list[str | None], shape: tuple[int, ...], attrs: dict[str, int]
) -> str:
    source, old = edit.graph[inputs[0] or ""], edit.graph[place.outputs[0]]
    made = edit.graph.add_tensor(f"{old.name}/{op.lower()}", shape, source.dtype, quant=source.quant)
    edit.insert_before(place, Node(op, inputs, [made.name], dict(attrs), place.name))
    return made.name
