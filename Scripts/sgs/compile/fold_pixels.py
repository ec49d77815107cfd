"""Pixels that are codes already go to their readers as they are."""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Graph, Node
from sgs.numeric.quantise import Array

NORMALISE, CONVOLVE = "NORMALISE_IMAGE", "CONV_2D"


def with_direct_pixels(graph: Graph) -> Graph:
    """A graph without the NORMALISE_IMAGE whose tables give every pixel value back and which leave out no row or
    column.

    Where such a node picks or exchanges channels, it can go if only convolutions read it: their weights change places
    instead, and are 0 where a channel (alpha) has no say.
    """
    result = graph.copy()
    for node in [node for node in result.nodes if _gives_back(result, node)]:
        source, codes = result[node.inputs[0] or ""], result[node.outputs[0]]
        readers, order = result.readers(), tuple(node.attrs["order"])
        same = order == tuple(range(source.shape[3]))
        if codes.name in result.outputs or len(readers[source.name]) > 1 or source.name in result.outputs:
            continue
        if not same and not all(_convolves(result, reader, codes.name, len(order)) for reader in readers[codes.name]):
            continue
        source.quant = codes.quant
        for reader in readers[codes.name]:
            if not same:
                weight = result[reader.inputs[1] or ""]
                assert weight.data is not None
                moved = _moved(weight.data, order, source.shape[3])
                stem = f"{weight.name}/{source.name}"
                reader.inputs[1] = result.add_constant(stem, moved, quant=weight.quant, dtype=weight.dtype).name
            reader.inputs = [source.name if name == codes.name else name for name in reader.inputs]
        result.nodes.remove(node)
    result.prune()
    return result


def _gives_back(graph: Graph, node: Node) -> bool:
    """Whether a node looks up pixels in tables that change none, and looks at them all."""
    if node.op != NORMALISE or node.attrs["axis"] != 3:
        return False
    source, table = graph[node.inputs[0] or ""], graph[node.inputs[1] or ""].data
    if table is None or table.dtype != np.uint8 or tuple(node.attrs["size"]) != source.shape[1:3]:
        return False
    return bool((table == np.arange(256)[:, None]).all())


def _convolves(graph: Graph, reader: Node, name: str, channels: int) -> bool:
    """Whether a reader sums products of the pixels with weights that have a place for every channel."""
    if reader.op != CONVOLVE or reader.inputs.count(name) != 1 or reader.inputs[0] != name:
        return False
    weight = graph[reader.inputs[1] or ""]
    return weight.is_constant and weight.shape[3] == channels


def _moved(weight: Array, order: tuple[int, ...], channels: int) -> Array:
    """Weights [O,H,W,C] for pixels of so many channels, of which the c-th of the weights was order[c]."""
    moved = np.zeros((*weight.shape[:3], channels), weight.dtype)
    moved[..., list(order)] = weight
    return moved
