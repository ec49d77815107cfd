"""RESHAPE: the same values in row-major order under another shape, attr `shape`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.ir.permute import reshape_first
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._import import reshaped
from sgs.ops._move import add_move
from sgs.ops._tflite import SHAPES, axis_of, integer, integers, operand, option
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
    Shape,
    SimRow,
    TfliteCase,
)


@INFER.row("RESHAPE")
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    x = operands[0]
    assert x is not None
    shape = tuple(int(d) for d in node.attrs["shape"])
    if int(np.prod(shape)) != x.elements:
        raise ValueError(f"cannot reshape {x.shape} to {shape}")
    return [(shape, x.dtype)]


@LAYOUT.row("RESHAPE")
def layout(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved | None:
    """Passes when each run of axes that is split or merged stays together and in order under the permutation."""
    operand, result = graph.operands(node)[0], graph.results(node)[0]
    assert operand is not None
    moved = reshape_first(operand.shape, perm, result.shape)
    return None if moved is None else Moved({**node.attrs, "shape": moved[0]}, (moved[1],))


def _lower(low: Lowering, node: Node, values: list[str], layout: Layout) -> list[str]:
    return [low.op("Reshape", [values[0], low.const(np.array(node.attrs["shape"], np.int64))])]


def _move(node: Node, arrays: list[Array], results: Sequence[Tensor]) -> list[Array]:
    return [arrays[0].reshape(node.attrs["shape"])]


def _copies(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> list[Copy]:
    return [Copy(0, 0, (results[0].elements,), (0, (1,)), (0, (1,)))]


add_move("RESHAPE", "the same values under another shape", _lower, _move, copies=_copies, alias=True)
SIM.add("RESHAPE", SimRow("ReshapeOptions", fields={"new_shape": "shape"}, constant_inputs={1: "shape"}))


# -- ONNX import
# -----------------------------------------------------------------------------------------------------------
def _reshaped(ctx: ImportContext, shape: Sequence[int]) -> list[Tensor]:
    return [ctx.emit("RESHAPE", ctx.inputs[0], shape=tuple(int(d) for d in shape))]


@IMPORT_ONNX.row("Reshape")
def import_reshape(ctx: ImportContext) -> list[Tensor]:
    x, wanted = ctx.inputs[0], ctx.constant(1, "shape") if len(ctx.inputs) > 1 else ctx.attrs.get("shape")
    assert x is not None and wanted is not None
    shape = [int(d) for d in np.asarray(wanted).reshape(-1)]
    if not ctx.attrs.get("allowzero", 0):
        shape = [x.shape[i] if d == 0 else d for i, d in enumerate(shape)]
    if -1 in shape:
        rest = int(np.prod([d for d in shape if d != -1]))
        shape[shape.index(-1)] = x.elements // rest if rest else 0
    return _reshaped(ctx, shape)


@IMPORT_ONNX.row("Flatten")
def import_flatten(ctx: ImportContext) -> list[Tensor]:
    x = ctx.inputs[0]
    assert x is not None
    axis = ctx.attrs.get("axis", 1)
    axis += len(x.shape) if axis < 0 else 0
    return _reshaped(ctx, (int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:]))))


def _axes(ctx: ImportContext) -> list[int] | None:
    if ctx.attrs.get("axes") is not None:
        return [int(a) for a in ctx.attrs["axes"]]
    value = ctx.constant(1, "axes") if len(ctx.inputs) > 1 else None
    return None if value is None else [int(a) for a in value.reshape(-1)]


@IMPORT_ONNX.row("Squeeze")
def import_squeeze(ctx: ImportContext) -> list[Tensor]:
    x, axes = ctx.inputs[0], _axes(ctx)
    assert x is not None
    gone = {a % len(x.shape) for a in axes} if axes is not None else {i for i, d in enumerate(x.shape) if d == 1}
    return _reshaped(ctx, [d for i, d in enumerate(x.shape) if i not in gone])


@IMPORT_ONNX.row("Unsqueeze")
def import_unsqueeze(ctx: ImportContext) -> list[Tensor]:
    x, axes = ctx.inputs[0], _axes(ctx)
    assert x is not None and axes is not None
    rank = len(x.shape) + len(axes)
    new = {a % rank for a in axes}
    rest = iter(x.shape)
    return _reshaped(ctx, [1 if i in new else next(rest) for i in range(rank)])


ONNX_EXAMPLES.add(
    "Reshape",
    [
        OnnxCase("Reshape", {"x": (1, 6, 5, 7)}, {"s": np.array([0, 2, 3, -1])}),
        OnnxCase("Reshape", {"x": (2, 6, 5)}, {"s": np.array([3, -1])}),
    ],
)
ONNX_EXAMPLES.add(
    "Flatten", [OnnxCase("Flatten", {"x": (1, 3, 5, 7)}), OnnxCase("Flatten", {"x": (2, 3, 5, 7)}, attrs={"axis": -2})]
)
ONNX_EXAMPLES.add(
    "Squeeze",
    [OnnxCase("Squeeze", {"x": (1, 5, 1, 7)}, {"a": np.array([2])}), OnnxCase("Squeeze", {"x": (1, 5, 1, 7)})],
)
ONNX_EXAMPLES.add("Unsqueeze", [OnnxCase("Unsqueeze", {"x": (5, 7)}, {"a": np.array([0, -1])})])


def _example(source: tuple[int, ...], target: tuple[int, ...]) -> Graph:
    build = GraphBuilder()
    return build.output(build("RESHAPE", build.input("x", source), output="y", shape=target))


EXAMPLES.add(
    "RESHAPE",
    lambda: [_example((1, 5, 7, 6), (1, 35, 6)), _example((2, 3, 10), (3, 4, 5)), _example((1, 4, 6), (1, 2, 2, 6))],
)


# -- TFLite import ---------------------------------------------------------------------------------------------------
@IMPORT_TFLITE.row("RESHAPE")
def import_tflite_reshape(ctx: ImportContext) -> list[Tensor]:
    """The shape is an operand or an option, in old files [0] for a number; one extent may be -1, which is whatever is
    left."""
    x = operand(ctx, 0)
    shape = integers(ctx, 1, "shape") if len(ctx.inputs) > 1 else [int(d) for d in option(ctx, "new_shape", [])]
    shape = [] if shape == [0] and x.elements == 1 else shape
    rest = int(np.prod([d for d in shape if d != -1], dtype=np.int64))
    if shape.count(-1) == 1 and rest > 0:
        shape[shape.index(-1)] = x.elements // rest
    if any(d < 0 for d in shape) or int(np.prod(shape, dtype=np.int64)) != x.elements:
        raise ctx.refuse(f"shape {x.shape} does not become {shape}", SHAPES)
    return [reshaped(ctx, x, tuple(shape))]


@IMPORT_TFLITE.row("SQUEEZE")
def import_tflite_squeeze(ctx: ImportContext) -> list[Tensor]:
    x = operand(ctx, 0)
    rank = len(x.shape)
    gone = {axis_of(ctx, int(a), rank) for a in option(ctx, "squeeze_dims", [])}
    gone = gone or {a for a, d in enumerate(x.shape) if d == 1}
    if any(x.shape[a] != 1 for a in gone):
        raise ctx.refuse(f"axes {sorted(gone)} of shape {x.shape} are not all 1", SHAPES)
    return [reshaped(ctx, x, tuple(d for a, d in enumerate(x.shape) if a not in gone))]


@IMPORT_TFLITE.row("EXPAND_DIMS")
def import_expand_dims(ctx: ImportContext) -> list[Tensor]:
    x = operand(ctx, 0)
    axis = axis_of(ctx, integer(ctx, 1, "axis"), len(x.shape) + 1)
    return [reshaped(ctx, x, (*x.shape[:axis], 1, *x.shape[axis:]))]


_FLAT: dict[str, Shape] = {"x": (2, 6, 5)}
TFLITE_EXAMPLES.add(
    "RESHAPE",
    [
        TfliteCase("RESHAPE", _FLAT, {"s": np.array([3, -1], np.int32)}, table="ReshapeOptions"),
        TfliteCase("RESHAPE", _FLAT, options={"new_shape": (4, -1)}, table="ReshapeOptions"),
        TfliteCase("RESHAPE", {"x": (1, 1)}, options={"new_shape": (0,)}, table="ReshapeOptions"),
    ],
)
TFLITE_EXAMPLES.add(
    "SQUEEZE",
    [
        TfliteCase("SQUEEZE", {"x": (1, 5, 1, 7)}, options={"squeeze_dims": (-2,)}, table="SqueezeOptions"),
        TfliteCase("SQUEEZE", {"x": (1, 5, 1, 7)}, table="SqueezeOptions"),
    ],
)
TFLITE_EXAMPLES.add(
    "EXPAND_DIMS",
    [
        TfliteCase("EXPAND_DIMS", {"x": (5, 7)}, {"a": np.array(axis, np.int32)}, table="ExpandDimsOptions")
        for axis in (1, -1)
    ],
)
