"""Every b-th row and column at every offset, joined along the channels, is a SPACE_TO_DEPTH: the "Focus" of YOLOv5."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sgs.ir.graph import Graph, Node
from sgs.numeric.quantise import Array
from sgs.ops.slice import slices_of
from sgs.passes.editor import Editor
from sgs.registry import OPERATOR

_STACK, _JOIN, _SLICES = "SPACE_TO_DEPTH", "CONCATENATION", ("SLICE", "STRIDED_SLICE")
Offset = tuple[int, int]


def stack_slices(graph: Graph) -> int:
    """CONCATENATION along the channels of b² parts x[:, i::b, j::b, :] of one tensor [N, H·b, W·b, C], every (i, j)
    once: SPACE_TO_DEPTH of x, then, where the parts come in another order than TFLite's (row by row), a GATHER of
    channels. A part may be cut out in several steps (rows, then columns).
    """
    with Editor(graph) as edit:
        for node in graph.nodes:
            if node.op == _JOIN and _STACK in OPERATOR and len(node.inputs) > 1 and node.attrs["axis"] == 3:
                edit.count += _replace(edit, node)
    return edit.count


def _replace(edit: Editor, node: Node) -> bool:
    for source in _sources(edit, node.inputs[0]):
        offsets = [_offset(edit, name, source, len(node.inputs)) for name in node.inputs]
        if None not in offsets and len(set(offsets)) == len(offsets):
            return _stack(edit, node, source, [offset for offset in offsets if offset is not None])
    return False


def _steps(edit: Editor, name: str | None) -> Iterator[Node]:
    """The slices that lead to a tensor, from the last one back to the first."""
    node = edit.producers.get(name or "")
    while node is not None and node.op in _SLICES:
        yield node
        node = edit.producers.get(node.inputs[0] or "")


def _sources(edit: Editor, name: str | None) -> list[str]:
    """Tensors of rank 4 that a tensor is sliced from, the nearest first."""
    found = [node.inputs[0] or "" for node in _steps(edit, name)]
    return [source for source in found if len(edit.graph[source].shape) == 4]


def _offset(edit: Editor, name: str | None, source: str, parts: int) -> Offset | None:
    """(i, j) when the tensor is source[:, i::b, j::b, :] with b² = parts and b divides the pixels; else None."""
    shape, block = edit.graph[source].shape, round(parts**0.5)
    if block**2 != parts or shape[1] % block or shape[2] % block:
        return None
    steps = []
    for node in _steps(edit, name):
        steps.append(node)
        if node.inputs[0] == source:
            break
    else:
        return None
    taken = [range(extent) for extent in shape]
    for node in reversed(steps):
        taken = [indices[part] for indices, part in zip(taken, slices_of(node), strict=True)]
    if 0 in map(len, taken):
        return None
    i, j = taken[1][0], taken[2][0]
    wanted = [range(shape[0]), range(i, shape[1], block), range(j, shape[2], block), range(shape[3])]
    return (i, j) if taken == wanted and max(i, j) < block else None


def _stack(edit: Editor, place: Node, source: str, offsets: list[Offset]) -> bool:
    x, y = edit.graph[source], edit.graph[place.outputs[0]]
    block, channels = round(len(offsets) ** 0.5), x.shape[3]
    made = edit.graph.add_tensor(f"{y.name}/{_STACK.lower()}", y.shape, y.dtype, quant=y.quant)
    edit.insert_before(place, Node(_STACK, [source], [made.name], {"block_size": block}, place.name))
    order = _channels(offsets, block, channels)
    if not np.array_equal(order, np.arange(order.size)):
        indices = edit.add_constant(f"{y.name}/channels", order)
        turned = edit.graph.add_tensor(f"{y.name}/gather", y.shape, y.dtype, quant=y.quant)
        edit.insert_before(place, Node("GATHER", [made.name, indices], [turned.name], {"axis": 3}, place.name))
        made = turned
    return edit.bypass(place, made.name)


def _channels(offsets: list[Offset], block: int, channels: int) -> Array:
    """Which channel of SPACE_TO_DEPTH's result each channel of the joined parts is, int32 [b²·C]."""
    return np.concatenate([(i * block + j) * channels + np.arange(channels, dtype=np.int32) for i, j in offsets])
