"""Runs of RESHAPE, TRANSPOSE, SLICE ... that only pick channels become one GATHER (or SLICE) on the last axis."""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Graph, Node
from sgs.passes.editor import Editor
from sgs.passes.move_chain import MOVES, Chain, IndexMap, chains


def channel_shuffle(graph: Graph) -> int:
    """Case analysis, for the longest run of moving nodes from x [..., C] to y [..., K] with y[o, k] = x[o, i[k]]:

    * i = 0 ... C-1: y is a RESHAPE of x;
    * i is a range: y is a SLICE of x on the last axis, unless the run is a SPLIT that does as well;
    * else y is a GATHER of x on the last axis (a channel shuffle, every second channel ...);

    followed by a RESHAPE where y splits the outer axes otherwise. Only when that makes the run shorter.
    """
    with Editor(graph) as edit:
        for node in reversed(list(graph.nodes)):
            if node.op not in MOVES or not edit.alive(node):
                continue
            for name in list(node.outputs):
                if edit.readers[name] or name in graph.outputs:
                    edit.count += _shorten(edit, node, name)
    return edit.count


def _shorten(edit: Editor, node: Node, name: str) -> bool:
    for chain in chains(edit, name):
        if len(chain) < 2 or not chain.has(*MOVES - {"RESHAPE"}):
            continue
        picked = channels_picked(edit.graph, chain)
        if picked is not None and _replace(edit, node, chain, picked):
            return True
    return False


def channels_picked(graph: Graph, chain: Chain) -> IndexMap | None:
    """i [K] such that result[o, k] = source[o, i[k]] for every flattened outer index o; None when no i does that."""
    source, result = chain.source, chain.result
    if not source.shape or not result.shape or not source.elements or not result.elements:
        return None
    rows, channels = source.elements // source.shape[-1], source.shape[-1]
    if result.elements // result.shape[-1] != rows:
        return None
    table = chain.index_map(graph).reshape(rows, -1)
    picked: IndexMap = table[0]
    expected = picked + channels * np.arange(rows, dtype=np.int32)[:, None]
    return picked if picked.max() < channels and np.array_equal(table, expected) else None


def _replace(edit: Editor, place: Node, chain: Chain, picked: IndexMap) -> bool:
    """Put the short form in front of `place` and let readers of the result read it."""
    source, result = chain.source, chain.result
    whole = np.array_equal(picked, np.arange(source.shape[-1]))
    contiguous = np.array_equal(picked, picked[0] + np.arange(picked.size))
    reshaped = source.shape[:-1] != result.shape[:-1] or whole
    if len(chain) <= (not whole) + reshaped or (
        contiguous and chain.has("SPLIT", "SPLIT_V") and not chain.has("GATHER", "TRANSPOSE")
    ):
        return False
    name = source.name
    if not whole:
        name = _pick(edit, place, chain, picked, contiguous)
    if reshaped:
        shaped = edit.graph.add_tensor(f"{result.name}/shaped", result.shape, result.dtype, quant=result.quant)
        edit.insert_before(place, Node("RESHAPE", [name], [shaped.name], {"shape": result.shape}, place.name))
        name = shaped.name
    return edit.bypass(edit.producers[result.name], name, edit.producers[result.name].outputs.index(result.name))


def _pick(edit: Editor, place: Node, chain: Chain, picked: IndexMap, contiguous: bool) -> str:
    source, result = chain.source, chain.result
    axis = len(source.shape) - 1
    shape = (*source.shape[:-1], picked.size)
    made = edit.graph.add_tensor(f"{result.name}/picked", shape, result.dtype, quant=result.quant)
    if contiguous:
        attrs = {"begin": (*(0,) * axis, int(picked[0])), "size": shape}
        node = Node("SLICE", [source.name], [made.name], attrs, place.name)
    else:
        indices = edit.add_constant(f"{result.name}/channels", picked.astype(np.int32))
        node = Node("GATHER", [source.name, indices], [made.name], {"axis": axis}, place.name)
    edit.insert_before(place, node)
    return made.name
