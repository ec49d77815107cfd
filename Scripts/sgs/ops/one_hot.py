"""ONE_HOT: attr `on` where an index INT32 is the number of an entry along a new axis, elsewhere attr `off`.

The new axis is attr `axis` (non-negative) of the result and has attr `depth` entries. An index outside of [0, depth)
is no entry's. In fixed graphs both values are codes of the result (eq. 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array, dequantise, quantise
from sgs.numeric.types import DType
from sgs.ops._import import add, multiply
from sgs.ops._integers import retyped
from sgs.ops._layout import fixed
from sgs.ops._move import move_cost
from sgs.ops._tflite import axis_of, integer, operand, option
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FIXED,
    FLOAT,
    IMPORT_ONNX,
    IMPORT_TFLITE,
    INFER,
    LAYOUT,
    ONNX_EXAMPLES,
    OPERATOR,
    QUANTISE,
    REFERENCE,
    SIM,
    TFLITE_EXAMPLES,
    TILE,
    Box,
    ImportContext,
    Lowering,
    OnnxCase,
    OperatorInfo,
    Part,
    QuantRule,
    Shape,
    SimConstant,
    SimRow,
    TfliteCase,
    TileRow,
)

OP = "ONE_HOT"
_UNSIGNED = (DType.UINT8, DType.UINT16)

OPERATOR.add(OP, OperatorInfo("both", "one value where an index is the entry's number, another elsewhere"))
LAYOUT.add(OP, fixed)
QUANTISE.add(OP, QuantRule("real"))
COST.add(OP, move_cost)
CONSTRAINTS.add(OP, ())


@INFER.row(OP)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    indices, axis, depth = operands[0], node.attrs["axis"], node.attrs["depth"]
    assert indices is not None
    if indices.dtype is not DType.INT32 or not 0 <= axis <= len(indices.shape) or depth < 1:
        raise ValueError(f"{indices.dtype.name} of shape {indices.shape} as {depth} entries along axis {axis}")
    return [((*indices.shape[:axis], depth, *indices.shape[axis:]), DType.FLOAT32)]


# -- .sim --------------------------------------------------------------------------------------------------------------
def _code(node: Node, result: Tensor, attr: str) -> Array:
    real = np.asarray(node.attrs[attr], np.float32)
    return real if result.quant is None else quantise(real, result.quant, result.dtype)


def _make(attr: str, node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Tensor:
    return Tensor(attr, (), results[0].dtype, _code(node, results[0], attr), results[0].quant)


def _read(attr: str, constant: Tensor) -> dict[str, Any]:
    if constant.data is None or constant.elements != 1:
        raise ValueError(f"{attr} is not one number")
    real = constant.data if constant.quant is None else dequantise(constant.data, constant.quant)
    return {attr: float(real.reshape(-1)[0])}


_VALUES = {
    place: SimConstant(attr, partial(_make, attr), partial(_read, attr)) for place, attr in ((2, "on"), (3, "off"))
}
SIM.add(OP, SimRow("OneHotOptions", fields={"axis": "axis"}, constant_inputs={1: "depth"}, file_inputs=_VALUES))


# -- meaning -----------------------------------------------------------------------------------------------------------
def _numbers(node: Node, rank: int) -> Array:
    """The numbers of the entries, along the new axis of the result."""
    shape = [1] * rank
    shape[node.attrs["axis"]] = -1
    return np.arange(node.attrs["depth"], dtype=np.int32).reshape(shape)


@FLOAT.row(OP)
@FIXED.row(OP)
def lower(low: Lowering, node: Node) -> None:
    result, axis = low.graph[node.outputs[0]], low.const(np.array([node.attrs["axis"]], np.int64))
    index = low.op("Unsqueeze", [low.codes(node.inputs[0] or ""), axis])
    hit = low.op("Equal", [index, low.const(_numbers(node, len(result.shape)))])
    values = np.stack([_code(node, result, "off"), _code(node, result, "on")])
    low.put(result.name, low.op("Gather", [low.const(values), low.cast(hit, DType.INT32)]))


@REFERENCE.row(OP)
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    assert values[0] is not None
    hit = np.expand_dims(values[0], node.attrs["axis"]) == _numbers(node, len(results[0].shape))
    return [np.where(hit, _code(node, results[0], "on"), _code(node, results[0], "off"))]


def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """All axes but the new one."""
    return {axis: 1 for axis in range(len(results[0].shape)) if axis != node.attrs["axis"]}


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    axis = node.attrs["axis"]
    return Part(((*box[:axis], *box[axis + 1 :]),), dict(node.attrs))


TILE.add(OP, TileRow(_axes, _part))


# -- ONNX import -------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("OneHot")
def import_one_hot(ctx: ImportContext) -> list[Tensor]:
    """A negative index counts from the end: twice the entries, of which those of one number are joined. Values that are
    no real numbers are made of 1 and 0."""
    indices, depth, values = ctx.inputs[0], ctx.constant(1, "depth"), ctx.constant(2, "values")
    kind = ctx.inputs[2]
    assert indices is not None and depth is not None and values is not None and kind is not None
    count, rank = int(depth.reshape(-1)[0]), len(indices.shape)
    axis = int(ctx.attrs.get("axis", -1)) % (rank + 1)
    off, on = (float(v) for v in values.reshape(-1))
    real = kind.dtype.is_float
    numbers = retyped(ctx, indices, DType.INT32)
    y = _entries(ctx, numbers, indices.dtype not in _UNSIGNED, count, axis, (off, on) if real else (0.0, 1.0))
    if real:
        return [y]
    y = retyped(ctx, y, DType.INT32)
    if on - off != 1:
        y = multiply(ctx, y, np.array(int(on - off), np.int32))
    if off:
        y = add(ctx, y, np.array(int(off), np.int32))
    return [retyped(ctx, y, kind.dtype)]


def _entries(
    ctx: ImportContext, indices: Tensor, signed: bool, depth: int, axis: int, values: tuple[float, float]
) -> Tensor:
    off, on = values
    if not signed:
        return ctx.emit(OP, indices, depth=depth, axis=axis, on=on, off=off)
    shifted = add(ctx, indices, np.array(depth, np.int32))
    twice = ctx.emit(OP, shifted, depth=2 * depth, axis=axis, on=on, off=off)
    halves = ctx.emit("RESHAPE", twice, shape=(*twice.shape[:axis], 2, depth, *twice.shape[axis + 1 :]))
    return ctx.emit("REDUCE_MAX" if on >= off else "REDUCE_MIN", halves, axes=(axis,), keep_dims=False)


def _case(shape: Shape, values: tuple[float, float], **attrs: Any) -> OnnxCase:
    """Indices within and without the depth of 4, of either sign."""
    constants = {"d": np.array(4, np.float32), "v": np.array(values, np.float32)}
    return OnnxCase("OneHot", {"i": shape}, constants, attrs, low=-6, high=6)


ONNX_EXAMPLES.add("OneHot", [_case((3, 5), (0.25, 3)), _case((3, 5), (2, -1), axis=1), _case((7,), (3, 10), axis=0)])


def _example(shape: Shape, axis: int) -> Graph:
    """Where the largest of 6 values is."""
    build = GraphBuilder()
    where = build("ARG_MAX", build.input("x", (*shape, 6)), axis=len(shape))
    return build.output(build(OP, where, output="y", depth=5, axis=axis, on=2.5, off=-0.5))


EXAMPLES.add(OP, lambda: [_example((3, 7), 2), _example((2, 5, 7), 1), _example((11,), 0)])


# -- TFLite import -----------------------------------------------------------------------------------------------------
@IMPORT_TFLITE.row(OP)
def import_tflite(ctx: ImportContext) -> list[Tensor]:
    indices, depth = operand(ctx, 0), integer(ctx, 1, "depth")
    axis = axis_of(ctx, int(option(ctx, "axis", -1)), len(indices.shape) + 1)
    on, off = operand(ctx, 2), operand(ctx, 3)
    if on.number is None or off.number is None or not on.dtype.is_float:
        raise ctx.refuse("its values are computed, or no real numbers", "constant real numbers are supported")
    return [ctx.emit(OP, indices, axis=axis, depth=depth, on=on.number, off=off.number)]


TFLITE_EXAMPLES.add(
    OP,
    [
        TfliteCase(
            OP,
            {"i": (3, 5)},
            {"d": np.array(4, np.int32), "on": np.array(2.5, np.float32), "off": np.array(-1, np.float32)},
            {"axis": axis},
            "OneHotOptions",
            types={"i": "int32"},
            low=0,
            high=5,
        )
        for axis in (-1, 1)
    ],
)
