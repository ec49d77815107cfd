"""Parts of a node: one box of its results, computed from boxes of its operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sgs.img.image import packed_bytes
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import QuantParams
from sgs.registry import TILE, Box, Part, whole_box


def shape_of(box: Box) -> tuple[int, ...]:
    """Extents of a box."""
    return tuple(end - begin for begin, end in box)


def indices_of(box: Box) -> tuple[slice, ...]:
    """A box as numpy indices."""
    return tuple(slice(begin, end) for begin, end in box)


def contiguous(box: Box, shape: Sequence[int]) -> bool:
    """Whether a box of a contiguous tensor is contiguous itself."""
    partial = [axis for axis, (span, extent) in enumerate(zip(box, shape, strict=True)) if span != (0, extent)]
    return not partial or all(end - begin == 1 for begin, end in box[: partial[-1]])


def box_bytes(tensor: Tensor, box: Box) -> int:
    """Bytes of a box as stored."""
    return packed_bytes(shape_of(box), tensor.dtype)


def box_quant(quant: QuantParams | None, box: Box) -> QuantParams | None:
    """Parameters of a box of a tensor: those of its channels, where the tensor has them per channel."""
    if quant is None or quant.per_tensor:
        return quant
    begin, end = box[quant.axis]
    return QuantParams(quant.scale[begin:end], quant.zero_point[begin:end], quant.axis)


def result_box(box: Box, first: Tensor, result: Tensor) -> Box:
    """The box of a further result that belongs to a box of the first one: the same where that is cut, all elsewhere.
    Results of an operator that can be cut have the same number of axes."""
    if box == whole_box(first.shape):
        return whole_box(result.shape)
    return tuple(
        span if span != (0, extent) else (0, own)
        for span, extent, own in zip(box, first.shape, result.shape, strict=True)
    )


def part_of(graph: Graph, node: Node, box: Box) -> Part:
    """What a box of the node's first result takes. Raises UnsupportedOperator for an operator without tile rule."""
    return TILE[node.op].part(node, graph.operands(node), graph.results(node), box)


def part_graph(graph: Graph, node: Node, box: Box) -> tuple[Graph, Node]:
    """A graph of one node that computes a box of the node's results; constants are cut. Tensors keep their names, but
    of one that is read in several boxes there is a tensor for each."""
    part, results = part_of(graph, node, box), graph.results(node)
    alone, names = Graph(node.op), dict[tuple[str, Box], str]()

    def put(name: str | None, span: Box | None) -> str | None:
        if name is None or span is None:
            return name
        if (name, span) not in names:
            piece = names[name, span] = alone.fresh(name)
            alone.tensors[piece] = replace(cut(graph[name], span), name=piece)
        return names[name, span]

    inputs = [put(*pair) for pair in zip(node.inputs, part.operands, strict=True)]
    for result in results:
        put(result.name, result_box(box, results[0], result))
    made = Node(node.op, inputs, list(node.outputs), part.attrs, node.name)
    alone.nodes.append(made)
    return alone, made


def cut(tensor: Tensor, box: Box) -> Tensor:
    """A box of a tensor under the tensor's name."""
    if box == whole_box(tensor.shape):
        return tensor
    data = None if tensor.data is None else np.ascontiguousarray(tensor.data[indices_of(box)])
    return Tensor(tensor.name, shape_of(box), tensor.dtype, data, box_quant(tensor.quant, box))
