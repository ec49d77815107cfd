"""CONCATENATION: joins tensors along attr `axis` (non-negative)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._import import reshaped
from sgs.ops._layout import remap_axis
from sgs.ops._move import add_move, all_rank_4, axis_in, box_copy
from sgs.ops._tflite import axis_of, fused, option
from sgs.registry import (
    EXAMPLES,
    IMPORT_ONNX,
    IMPORT_TFLITE,
    INFER,
    LAYOUT,
    ONNX_EXAMPLES,
    SIM,
    TFLITE_EXAMPLES,
    Copy,
    ImportContext,
    Layout,
    Lowering,
    Moved,
    OnnxCase,
    SimRow,
    TfliteCase,
)


@INFER.row("CONCATENATION")
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    tensors = [t for t in operands if t is not None]
    shape = list(tensors[0].shape)
    axis = node.attrs["axis"]
    for tensor in tensors[1:]:
        if len(tensor.shape) != len(shape) or any(
            a != b for i, (a, b) in enumerate(zip(tensor.shape, shape, strict=True)) if i != axis
        ):
            raise ValueError(f"cannot join shapes {[t.shape for t in tensors]} along axis {axis}")
    shape[axis] = sum(t.shape[axis] for t in tensors)
    return [(tuple(shape), tensors[0].dtype)]


@LAYOUT.row("CONCATENATION")
def layout(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved | None:
    """The joined axis follows the permutation; constant operands are turned the other way."""
    inverse = np.argsort(perm)
    constants = {
        i: np.ascontiguousarray(t.data.transpose(inverse))
        for i, t in enumerate(graph.operands(node))
        if t is not None and t.data is not None
    }
    return Moved({**node.attrs, "axis": remap_axis(node.attrs["axis"], perm)}, (perm,), constants)


def _lower(low: Lowering, node: Node, values: list[str], layout: Layout) -> list[str]:
    return [low.op("Concat", values, axis=axis_in(node.attrs["axis"], layout))]


def _move(node: Node, arrays: list[Array], results: Sequence[Tensor]) -> list[Array]:
    return [np.concatenate(arrays, node.attrs["axis"])]


def _copies(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> list[Copy]:
    """Each operand to its place along the axis."""
    axis, target = node.attrs["axis"], results[0].shape
    copies, begin = [], 0
    for index, tensor in enumerate(operands):
        assert tensor is not None
        into = [begin if a == axis else 0 for a in range(len(target))]
        copies.append(box_copy(index, tensor.shape, [0] * len(target), 0, target, into, tensor.shape))
        begin += tensor.shape[axis]
    return copies


add_move("CONCATENATION", "joins tensors along an axis", _lower, _move, any_layout=all_rank_4, copies=_copies)
SIM.add("CONCATENATION", SimRow("ConcatenationOptions", fields={"axis": "axis"}))


@IMPORT_ONNX.row("Concat")
def import_concat(ctx: ImportContext) -> list[Tensor]:
    """Operands without elements, such as an empty list that grew, add nothing."""
    present = [x for x in ctx.inputs if x is not None]
    operands = [x for x in present if x.elements] or present[:1]
    if len(operands) == 1:
        return operands
    return [ctx.emit("CONCATENATION", *operands, axis=int(ctx.attrs.get("axis", 1)) % len(operands[0].shape))]


ONNX_EXAMPLES.add(
    "Concat",
    [
        OnnxCase("Concat", {"a": (1, 5, 7, 6), "b": (1, 3, 7, 6)}, attrs={"axis": 1}),
        OnnxCase("Concat", {"a": (1, 5, 7, 6), "b": (1, 5, 2, 6), "c": (1, 5, 4, 6)}, attrs={"axis": -2}),
        OnnxCase("Concat", {"a": (3, 7)}, {"c": np.ones((3, 2), np.float32)}, {"axis": 1}),
    ],
)


def _example(shapes: list[tuple[int, ...]], axis: int) -> Graph:
    build = GraphBuilder()
    tensors = [build.input(f"x{i}", shape) for i, shape in enumerate(shapes)]
    return build.output(build("CONCATENATION", *tensors, output="y", axis=axis))


EXAMPLES.add(
    "CONCATENATION",
    lambda: [
        _example([(1, 5, 7, 6), (1, 5, 7, 2), (1, 5, 7, 3)], 3),
        _example([(1, 5, 7, 6), (1, 2, 7, 6)], 1),
        _example([(3, 4), (3, 9)], 1),
    ],
)


# -- TFLite import ---------------------------------------------------------------------------------------------------
@IMPORT_TFLITE.row("CONCATENATION")
def import_concatenation(ctx: ImportContext) -> list[Tensor]:
    present = [x for x in ctx.inputs if x is not None]
    operands = [x for x in present if x.elements] or present[:1]
    axis = axis_of(ctx, int(option(ctx, "axis", 0)), len(operands[0].shape))
    joined = operands[0] if len(operands) == 1 else ctx.emit("CONCATENATION", *operands, axis=axis)
    return [fused(ctx, joined)]


@IMPORT_TFLITE.row("PACK")
def import_pack(ctx: ImportContext) -> list[Tensor]:
    """Joined along a new axis."""
    operands = [x for x in ctx.inputs if x is not None]
    axis = axis_of(ctx, int(option(ctx, "axis", 0)), len(operands[0].shape) + 1)
    each = [reshaped(ctx, x, (*x.shape[:axis], 1, *x.shape[axis:])) for x in operands]
    return [each[0] if len(each) == 1 else ctx.emit("CONCATENATION", *each, axis=axis)]


TFLITE_EXAMPLES.add(
    "CONCATENATION",
    [
        TfliteCase(
            "CONCATENATION", {"a": (1, 5, 7, 6), "b": (1, 5, 7, 2)}, options={"axis": 3}, table="ConcatenationOptions"
        ),
        TfliteCase("CONCATENATION", {"a": (3, 4), "b": (3, 2)}, options={"axis": -1}, table="ConcatenationOptions"),
    ],
)
TFLITE_EXAMPLES.add(
    "PACK",
    [
        TfliteCase("PACK", {"a": (5, 7), "b": (5, 7)}, options={"axis": axis, "values_count": 2}, table="PackOptions")
        for axis in (0, -1)
    ],
)
