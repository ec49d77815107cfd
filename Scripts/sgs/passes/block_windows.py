"""Convolutions of more taps than a kernel may have, as smaller ones over blocks of pixels."""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.ops.conv import CONV, kernel_below_64
from sgs.passes.editor import Editor
from sgs.registry import QUANTISE


def block_windows(graph: Graph) -> int:
    """SPACE_TO_DEPTH makes channels of blocks of s × s pixels, and windows of ⌈kernel / s⌉ blocks step by one: the
    patches of a vision transformer become a 1×1 convolution, 11×11 taps by steps of 4 become 3×3.

    For CONV_2D with too many taps, with constant float weights, in one group, not dilated, whose steps along height and
    width are one number s > 1 (where there is one window, s may be the side of a square kernel). A PAD or STRIDED_SLICE
    in front makes the picture as large as all windows together; what a window has more than before gets weights of 0.
    """
    with Editor(graph) as edit:
        for node in graph.nodes:
            block = _block(edit, node) if node.op == CONV else None
            if block is not None:
                _rewrite(edit, node, block)
                edit.count += 1
    return edit.count


def _block(edit: Editor, node: Node) -> int | None:
    """The side of the blocks, None where the convolution stays as it is."""
    operands, result = edit.graph.operands(node), edit.graph[node.outputs[0]]
    x, weight = operands[0], edit.constant(node.inputs[QUANTISE[CONV].weight])
    if x is None or weight is None or not weight.dtype.is_float or kernel_below_64(node, operands, [result]):
        return None
    (height, width), strides = weight.shape[1:3], tuple(node.attrs["strides"])
    if weight.shape[3] != x.shape[3] or tuple(node.attrs["dilations"]) != (1, 1):
        return None
    single = result.shape[1:3] == (1, 1) and height == width
    block = height if single else strides[0]
    if not single and (strides[0] != strides[1] or block < 2):
        return None
    return int(block) if -(-height // block) * -(-width // block) < 64 else None


def _rewrite(edit: Editor, node: Node, block: int) -> None:
    graph, rule = edit.graph, QUANTISE[CONV]
    weight, result = graph[node.inputs[rule.weight] or ""], graph[node.outputs[0]]
    assert weight.data is not None
    made = _in_blocks(weight.data, block)
    sides = [block * (result.shape[1 + axis] - 1 + made.shape[1 + axis]) for axis in range(2)]
    x = _framed(edit, node, sides)
    shape = (x.shape[0], x.shape[1] // block, x.shape[2] // block, x.shape[3] * block**2)
    blocks = graph.add_tensor(f"{node.inputs[0]}/blocks", shape, x.dtype)
    stack = Node("SPACE_TO_DEPTH", [x.name], [blocks.name], {"block_size": block}, node.name)
    edit.insert_before(node, stack)
    edit.set_input(node, 0, blocks.name)
    edit.set_input(node, rule.weight, edit.add_constant(weight.name, made))
    node.attrs.update(strides=(1, 1), pads=(0, 0, 0, 0))


def _in_blocks(weight: Array, block: int) -> Array:
    """Weights [O, KH, KW, C] as those [O, ⌈KH/s⌉, ⌈KW/s⌉, s·s·C] of windows over blocks of s × s pixels."""
    outputs, height, width, channels = weight.shape
    rows, columns = -(-height // block), -(-width // block)
    more = ((0, 0), (0, rows * block - height), (0, columns * block - width), (0, 0))
    parts = np.pad(weight, more).reshape(outputs, rows, block, columns, block, channels)
    return np.ascontiguousarray(parts.transpose(0, 1, 3, 2, 4, 5)).reshape(outputs, rows, columns, -1)


def _framed(edit: Editor, node: Node, sides: list[int]) -> Tensor:
    """The operand with the padding of the convolution, cut or padded to so many rows and columns."""
    graph = edit.graph
    x, (top, left, *_) = graph[node.inputs[0] or ""], node.attrs["pads"]
    kept = [min(x.shape[1 + axis], side - first) for axis, side, first in zip((0, 1), sides, (top, left), strict=True)]
    shape = (x.shape[0], *kept, x.shape[3])
    if shape != x.shape:
        cut = graph.add_tensor(f"{x.name}/cut", shape, x.dtype)
        attrs = {"begin": (0, 0, 0, 0), "end": shape, "strides": (1, 1, 1, 1)}
        edit.insert_before(node, Node("STRIDED_SLICE", [x.name], [cut.name], attrs, node.name))
        x = cut
    rows, columns = (
        (first, side - extent - first) for first, side, extent in zip((top, left), sides, kept, strict=True)
    )
    if any((*rows, *columns)):
        padded = graph.add_tensor(f"{x.name}/padded", (x.shape[0], *sides, x.shape[3]), x.dtype)
        attrs = {"paddings": ((0, 0), rows, columns, (0, 0))}
        edit.insert_before(node, Node("PAD", [x.name], [padded.name], attrs, node.name))
        x = padded
    return x
