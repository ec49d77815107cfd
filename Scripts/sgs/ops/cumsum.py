"""CUMSUM: sums of all entries up to each one along attr `axis` (non-negative). Also ONNX CumProd.

Attr `exclusive` leaves the entry itself out, attr `reverse` sums from the end. Fixed: exact sums of centred codes,
requantised once (ops/_sum.py) with M = s_x / s_y. Sums of plain integers are those sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._import import multiply
from sgs.ops._layout import remap_axis
from sgs.ops._sum import centred_codes, requantised, sum_multiplier
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
    Cost,
    ImportContext,
    Lowering,
    Moved,
    OnnxCase,
    OperatorInfo,
    Part,
    QuantRule,
    Shape,
    SimRow,
    TfliteCase,
    TileRow,
)

OP = "CUMSUM"
_FLAGS = {"exclusive": "exclusive", "reverse": "reverse"}

OPERATOR.add(OP, OperatorInfo("both", "sums of all entries up to each one along an axis"))
SIM.add(OP, SimRow("CumsumOptions", fields=_FLAGS, constant_inputs={1: "axis"}))
QUANTISE.add(OP, QuantRule("real"))
CONSTRAINTS.add(OP, ())


@INFER.row(OP)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    x, axis = operands[0], node.attrs["axis"]
    assert x is not None
    if not 0 <= axis < len(x.shape):
        raise ValueError(f"shape {x.shape} has no axis {axis}")
    return [(x.shape, x.dtype)]


@LAYOUT.row(OP)
def layout(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved:
    """The axis follows the permutation."""
    return Moved({**node.attrs, "axis": remap_axis(node.attrs["axis"], perm)}, (tuple(perm),))


# -- meaning -----------------------------------------------------------------------------------------------------------
def _sums(low: Lowering, node: Node, value: str) -> str:
    flags: dict[str, Any] = {name: int(node.attrs[name]) for name in _FLAGS}
    return str(low.op("CumSum", [value, low.const(np.asarray(node.attrs["axis"], np.int64))], **flags))


@FLOAT.row(OP)
def lower_float(low: Lowering, node: Node) -> None:
    low.put_real(node.outputs[0], _sums(low, node, low.real(node.inputs[0] or "")))


def _multiplier(node: Node, x: Tensor, y: Tensor) -> Array:
    return sum_multiplier(x, y, np.asarray(1), x.shape[node.attrs["axis"]])


@FIXED.row(OP)
def lower_fixed(low: Lowering, node: Node) -> None:
    x, y = low.graph[node.inputs[0] or ""], low.graph[node.outputs[0]]
    if x.quant is None:
        lower_float(low, node)
        return
    mult, value = _multiplier(node, x, y), low.centred(x.name)
    if mult.dtype == np.float64:
        value = low.cast(value, DType.FLOAT64)
    low.put_scaled(y.name, _sums(low, node, value), mult)


@REFERENCE.row(OP)
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    codes, x, axis = values[0], operands[0], node.attrs["axis"]
    assert codes is not None and x is not None
    terms = codes if x.quant is None else centred_codes(x, codes)
    terms = np.flip(terms, axis) if node.attrs["reverse"] else terms
    acc = np.cumsum(terms, axis, dtype=terms.dtype)
    if node.attrs["exclusive"]:
        acc = acc - terms
    acc = np.flip(acc, axis) if node.attrs["reverse"] else acc
    return [acc if x.quant is None else requantised(results[0], acc, _multiplier(node, x, results[0]))]


# -- compiler ----------------------------------------------------------------------------------------------------------
@COST.row(OP)
def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """Two operations per element: the sum, and the requantisation."""
    return Cost(vector_ops=results[0].elements * 2)


def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """All axes but the one summed along."""
    return {axis: 1 for axis in range(len(results[0].shape)) if axis != node.attrs["axis"]}


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    return Part((box,), dict(node.attrs))


TILE.add(OP, TileRow(_axes, _part))


# -- ONNX import -------------------------------------------------------------------------------------------------------
def _axis(ctx: ImportContext, x: Tensor) -> int:
    value = ctx.constant(1, "axis")
    if value is None or value.size != 1 or not -len(x.shape) <= int(value.reshape(-1)[0]) < len(x.shape):
        raise ctx.refuse(f"axis {value} of an operand of shape {x.shape}")
    return int(value.reshape(-1)[0]) % len(x.shape)


@IMPORT_ONNX.row("CumSum")
def import_cumsum(ctx: ImportContext) -> list[Tensor]:
    x = ctx.inputs[0]
    assert x is not None
    flags = {name: bool(ctx.attrs.get(name, 0)) for name in _FLAGS}
    return [ctx.emit(OP, x, axis=_axis(ctx, x), **flags)]


def _shifted(ctx: ImportContext, x: Tensor, axis: int, by: int, reverse: bool) -> Tensor:
    """The entries `by` places further along an axis (or back, in `reverse`), behind ones."""
    begin, end, paddings = [0] * len(x.shape), list(x.shape), [(0, 0)] * len(x.shape)
    begin[axis], end[axis] = (by, x.shape[axis]) if reverse else (0, x.shape[axis] - by)
    paddings[axis] = (0, by) if reverse else (by, 0)
    if begin[axis] == end[axis]:
        raise ctx.refuse(f"an exclusive product along axis {axis} of shape {x.shape}, which has one entry")
    rest = ctx.emit("STRIDED_SLICE", x, begin=tuple(begin), end=tuple(end), strides=(1,) * len(begin))
    return ctx.emit("PADV2", rest, paddings=tuple(paddings), value=1.0)


@IMPORT_ONNX.row("CumProd")
def import_cumprod(ctx: ImportContext) -> list[Tensor]:
    """Products of 1, 2, 4, 8 … entries, each made of two of those before."""
    x = ctx.inputs[0]
    assert x is not None
    axis, reverse = _axis(ctx, x), bool(ctx.attrs.get("reverse", 0))
    y = _shifted(ctx, x, axis, 1, reverse) if ctx.attrs.get("exclusive", 0) else x
    by = 1
    while by < x.shape[axis]:
        y = multiply(ctx, y, _shifted(ctx, y, axis, by, reverse))
        by *= 2
    return [y]


ONNX_EXAMPLES.add(
    "CumSum",
    [
        OnnxCase("CumSum", {"x": (1, 5, 7, 6)}, {"a": np.array(1)}),
        OnnxCase("CumSum", {"x": (2, 5, 7)}, {"a": np.array([-1])}, {"exclusive": 1}),
        OnnxCase("CumSum", {"x": (3, 11)}, {"a": np.array(0)}, {"reverse": 1}),
        OnnxCase("CumSum", {"x": (13,)}, {"a": np.array(0)}, {"reverse": 1, "exclusive": 1}),
    ],
)
ONNX_EXAMPLES.add("CumProd", [])  # onnxruntime has none; the tests of the onnx package judge it


def _example(shape: Shape, axis: int, exclusive: bool = False, reverse: bool = False) -> Graph:
    build = GraphBuilder()
    x = build.input("x", shape)
    return build.output(build(OP, x, output="y", axis=axis, exclusive=exclusive, reverse=reverse))


EXAMPLES.add(
    OP,
    lambda: [
        _example((1, 5, 7, 6), 3),
        _example((2, 5, 7, 6), 1, exclusive=True),
        _example((3, 601), 1, reverse=True),  # too many terms for binary32
        _example((13,), 0, exclusive=True, reverse=True),
    ],
)


# -- TFLite import -----------------------------------------------------------------------------------------------------
@IMPORT_TFLITE.row(OP)
def import_tflite(ctx: ImportContext) -> list[Tensor]:
    x = operand(ctx, 0)
    flags = {name: bool(option(ctx, name, False)) for name in _FLAGS}
    return [ctx.emit(OP, x, axis=axis_of(ctx, integer(ctx, 1, "axis"), len(x.shape)), **flags)]


TFLITE_EXAMPLES.add(
    OP,
    [
        TfliteCase(
            OP, {"x": (3, 5, 4)}, {"a": np.array(axis, np.int32)}, {"exclusive": flag, "reverse": flag}, "CumsumOptions"
        )
        for axis, flag in ((1, False), (-1, True))
    ],
)
