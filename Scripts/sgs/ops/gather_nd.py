"""GATHER_ND: what is at places of a tensor. x [D1 .. DK, inner..], indices INT32 [.., K] → [.., inner..].

An index lies in [-D, D), where TFLite has no negative ones; those count from the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._layout import fixed
from sgs.ops._move import add_move, free_axes
from sgs.ops._places import (
    check_computed,
    computed_places_along,
    from_start,
    places_along,
    read_places,
    with_batches,
)
from sgs.ops._tflite import operand
from sgs.registry import (
    EXAMPLES,
    IMPORT_ONNX,
    IMPORT_TFLITE,
    INFER,
    LAYOUT,
    ONNX_EXAMPLES,
    SIM,
    TFLITE_EXAMPLES,
    Box,
    ImportContext,
    Layout,
    Lowering,
    OnnxCase,
    Part,
    Shape,
    SimRow,
    TfliteCase,
    TileRow,
    whole_box,
)

OP = "GATHER_ND"
LAYOUT.add(OP, fixed)
SIM.add(OP, SimRow("GatherNdOptions"))


@INFER.row(OP)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    x, indices = operands[0], operands[1]
    assert x is not None and indices is not None
    if not indices.shape or not 0 < indices.shape[-1] <= len(x.shape):
        raise ValueError(f"indices of shape {indices.shape} name no places in shape {x.shape}")
    return [((*indices.shape[:-1], *x.shape[indices.shape[-1] :]), x.dtype)]


def _lower(low: Lowering, node: Node, values: list[str], layout: Layout) -> list[str]:
    return [low.op("GatherND", [values[0], low.cast(values[1], DType.INT64)])]


def _move(node: Node, arrays: list[Array], results: Sequence[Tensor]) -> list[Array]:
    return [np.asarray(arrays[0][tuple(np.moveaxis(arrays[1], -1, 0))])]


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    """All of x along the axes that the indices are for: an index may be any."""
    x, indices = operands[0], operands[1]
    assert x is not None and indices is not None
    rows, count = len(indices.shape) - 1, indices.shape[-1]
    return Part(((*whole_box(x.shape[:count]), *box[rows:]), (*box[:rows], (0, count))), dict(node.attrs))


add_move(OP, "what is at places of a tensor", _lower, _move, moved=lambda node: (0,), tile=TileRow(free_axes, _part))


# -- ONNX import -------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("GatherND")
def import_gather_nd(ctx: ImportContext) -> list[Tensor]:
    """Constant indices: slices or GATHER. Computed ones: GATHER_ND."""
    x, numbers, batches = ctx.inputs[0], ctx.inputs[1], int(ctx.attrs.get("batch_dims", 0))
    assert x is not None and numbers is not None
    if numbers.data is None:
        check_computed(ctx, numbers)
        return [ctx.emit(OP, x, with_batches(ctx, numbers, batches) if batches else numbers)]
    indices = ctx.constant(1, "indices")
    assert indices is not None
    indices = from_start(ctx, indices, x.shape[batches : batches + indices.shape[-1]])
    grid = [np.asarray(axis) for axis in np.indices(indices.shape[:-1])[:batches]]
    return [read_places(ctx, x, np.stack([*grid, *np.moveaxis(indices, -1, 0)], -1))]


@IMPORT_ONNX.row("GatherElements")
def import_gather_elements(ctx: ImportContext) -> list[Tensor]:
    """Element by element one index along an axis: places along all axes."""
    x, numbers = ctx.inputs[0], ctx.inputs[1]
    assert x is not None and numbers is not None
    axis = int(ctx.attrs.get("axis", 0)) % len(x.shape)
    if numbers.data is None:
        check_computed(ctx, numbers)
        return [ctx.emit(OP, x, computed_places_along(ctx, axis, numbers))]
    indices = ctx.constant(1, "indices")
    assert indices is not None
    return [read_places(ctx, x, places_along(axis, from_start(ctx, indices, x.shape[axis])))]


ONNX_EXAMPLES.add(
    "GatherND",
    [
        OnnxCase("GatherND", {"x": (1, 5, 7, 6)}, {"i": np.array([[0, 3], [0, -1], [0, 0]])}),
        OnnxCase("GatherND", {"x": (5, 7, 6)}, {"i": np.array([[2], [3]])}),
        OnnxCase("GatherND", {"x": (2, 5, 7)}, {"i": np.array([[[1], [4], [0]], [[2], [2], [3]]])}, {"batch_dims": 1}),
        OnnxCase("GatherND", {"x": (2, 5)}, {"i": np.array([[1, 4], [0, 2]])}, opset=11),
    ],
)
ONNX_EXAMPLES.add(
    "GatherElements",
    [
        OnnxCase("GatherElements", {"x": (3, 5)}, {"i": np.array([[0, 2, -1], [1, 1, 0]])}, {"axis": 0}),
        OnnxCase("GatherElements", {"x": (2, 3, 5)}, {"i": np.arange(12).reshape(2, 3, 2) % 5}, {"axis": -1}),
    ],
)


def _constant(shape: Shape, indices: list[list[int]]) -> Graph:
    build = GraphBuilder()
    return build.output(build(OP, build.input("x", shape), np.array(indices, np.int32), output="y"))


def _computed() -> Graph:
    """Of each of 5 rows the 3 entries where another tensor is largest."""
    build = GraphBuilder()
    _, best = build.node("TOPK_V2", [build.input("s", (5, 7))], k=3)
    rows = np.repeat(np.arange(5, dtype=np.int32), 3).reshape(5, 3, 1)
    places = build("CONCATENATION", rows, build("RESHAPE", best, shape=(5, 3, 1)), axis=2)
    return build.output(build(OP, build.input("x", (5, 7, 11, 6)), places, output="y"))


EXAMPLES.add(
    OP,
    lambda: [
        _constant((1, 5, 7, 6), [[0, 3], [0, 4], [0, 0]]),
        _constant((5, 7), [[4, 6], [0, 2], [4, 6]]),
        _computed(),
    ],
)


@IMPORT_TFLITE.row(OP)
def import_tflite(ctx: ImportContext) -> list[Tensor]:
    return ctx.call("GatherND", operand(ctx, 0), operand(ctx, 1))


TFLITE_EXAMPLES.add(
    OP,
    [
        TfliteCase(OP, {"x": (3, 5, 6)}, {"i": np.array([[2, 4], [0, 1], [1, 3]], np.int32)}, table="GatherNdOptions"),
        TfliteCase(OP, {"x": (3, 5, 6), "i": (4, 1)}, table="GatherNdOptions", types={"i": "int32"}, low=0, high=2),
    ],
)
