"""FULLY_CONNECTED: x [..., I], weight [O, I], bias [O] or absent → [..., O]. Attrs: activation, keep_num_dims.

Without `keep_num_dims`, x is read as rows of I values whatever its shape, and the result is [rows, O].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._import import add, reshaped
from sgs.ops._mac import (
    MAC_LIMITS,
    activation_float,
    bias_of,
    finish,
    publish,
    publish_product,
    publish_wide_product,
    qlinear_conv,
)
from sgs.ops._move import free_axes
from sgs.ops._tflite import AGAIN, fused, operand, option, real_constant
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FIXED,
    FLOAT,
    IMPORT_TFLITE,
    INFER,
    LAYOUT,
    MATRIX,
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
    MatrixForm,
    Moved,
    OperatorInfo,
    Part,
    QuantRule,
    SimRow,
    TfliteCase,
    TileRow,
)

OP = "FULLY_CONNECTED"
OPERATOR.add(OP, OperatorInfo("both", "product with a constant matrix"))
QUANTISE.add(OP, QuantRule("mac", channel_axis=0))
CONSTRAINTS.add(OP, MAC_LIMITS)
FEW_ROWS = 16  # up to here the time goes into reading the weights, so bytes beat binary64
_BYTES_DEPTH = 1 << 15  # 255 · 255 · I stays below 2^31


@MATRIX.row(OP)
def matrix_form(node: Node, x: Tensor, weight: Tensor, result: Tensor) -> MatrixForm:
    """A row is a row."""
    width = weight.shape[1]
    return MatrixForm(
        x.elements // width,
        lambda values, chosen: values.reshape(-1, width)[chosen][:, None],
        lambda values: values.reshape(-1, width).mean(0, dtype=np.float64)[None],
        lambda data: data.T[None],
        lambda data: data[0].T,
    )


@INFER.row(OP)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    x, weight = operands[0], operands[1]
    assert x is not None and weight is not None
    width = weight.shape[1]
    if node.attrs["keep_num_dims"]:
        if not x.shape or x.shape[-1] != width:
            raise ValueError(f"shape {x.shape} does not end in the {width} columns of the weight")
        return [((*x.shape[:-1], weight.shape[0]), x.dtype)]
    if x.elements % width:
        raise ValueError(f"shape {x.shape} is no number of rows of {width}")
    return [((x.elements // width, weight.shape[0]), x.dtype)]


def _decode(options: dict[str, Any], operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[str, Any]:
    if options["weights_format"]:
        raise ValueError("shuffled weights are not supported")
    return {}


SIM.add(OP, SimRow("FullyConnectedOptions", fields={"keep_num_dims": "keep_num_dims"}, activation=True, decode=_decode))


@LAYOUT.row(OP)
def layout(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved | None:
    """Any order of the axes in front, as long as the multiplied one stays last."""
    if not node.attrs["keep_num_dims"] or perm[-1] != len(perm) - 1:
        return None
    return Moved(dict(node.attrs), (perm,))


# -- engine ----------------------------------------------------------------------------------------------------------
def _shaped(low: Lowering, value: str, shape: Sequence[int]) -> str:
    return str(low.op("Reshape", [value, low.const(np.array(shape, np.int64))]))


@FLOAT.row(OP)
def lower_float(low: Lowering, node: Node) -> None:
    weight, y = low.graph[node.inputs[1] or ""], low.graph[node.outputs[0]]
    rows = _shaped(low, low.real(node.inputs[0] or ""), (-1, weight.shape[1]))
    bias = low.const(bias_of(low, node, weight.shape[0]).astype(np.float32))
    value = low.op("Gemm", [rows, low.real(weight.name), bias], transB=1)
    low.put_real(y.name, _shaped(low, activation_float(low, node, value), y.shape))


@FIXED.row(OP)
def lower_fixed(low: Lowering, node: Node) -> None:
    """UINT8 → UINT8: QLinearConv 1×1. UINT8 → INT16: integer product. INT16: few rows by bytes, else in binary64."""
    x, weight, y = low.graph[node.inputs[0] or ""], low.graph[node.inputs[1] or ""], low.graph[node.outputs[0]]
    channels, width = weight.shape
    bias = bias_of(low, node, channels).astype(np.int64)
    rows = x.elements // width
    assert weight.data is not None
    if x.dtype is DType.UINT8 and y.dtype is DType.UINT8:
        pixels = _shaped(low, low.codes(x.name), (1, 1, rows, width))
        kernel = weight.data.reshape(channels, width, 1, 1)
        value = qlinear_conv(low, node, pixels, kernel, bias, kernel_shape=[1, 1])
        low.put(y.name, _shaped(low, value, y.shape))
        return
    if x.dtype is DType.UINT8:
        publish_product(low, node, _shaped(low, low.codes(x.name), (-1, width)), weight.data.T, bias)
        return
    if rows <= FEW_ROWS and width < _BYTES_DEPTH:
        publish(low, node, _shaped(low, _accumulate_bytes(low, x, weight.data, bias), y.shape), "native")
        return
    publish_wide_product(low, node, _shaped(low, low.codes(x.name), (-1, width)), weight.data.T, bias)


def _accumulate_bytes(low: Lowering, x: Tensor, weight: Array, bias: Array) -> str:
    """INT16 as bytes: x = 256·h + l - 32768 and w = 256·(wh - 128) + wl with h, l, wh, wl in [0, 256).

    One MatMulInteger of the stacked planes gives the four partial sums, which add up in binary64. Result [rows, O].
    """
    channels, width = weight.shape
    wide = weight.astype(np.int64)
    planes = np.concatenate([(wide >> 8) + 128, wide & 255]).T.astype(np.uint8)  # [I, 2·O]
    zeros = [np.zeros((), np.uint8), np.repeat(np.array([128, 0], np.uint8), channels)]
    shifted = low.op("Add", [_shaped(low, low.centred(x.name), (-1, width)), low.const(np.asarray(32768, np.float32))])
    high = low.op("Floor", [low.op("Mul", [shifted, low.const(np.asarray(1 / 256, np.float32))])])
    lower = low.op("Sub", [shifted, low.op("Mul", [high, low.const(np.asarray(256, np.float32))])])
    stacked = low.cast(low.op("Concat", [high, lower], axis=0), DType.UINT8)  # [2·rows, I]
    sums = low.op("MatMulInteger", [stacked, low.const(planes), *map(low.const, zeros)])
    parted = _shaped(low, low.cast(sums, DType.FLOAT64), (2, -1, 2, channels))
    factors = np.array([[65536, 256], [256, 1]], np.float64).reshape(2, 1, 2, 1)
    total = low.op("ReduceSum", [low.op("Mul", [parted, low.const(factors)]), low.const(np.array([0, 2]))], keepdims=0)
    return _rounded(low, total, bias - 32768 * wide.sum(1))


def _rounded(low: Lowering, total: str, bias: Array) -> str:
    """A binary64 sum plus bias, exact, rounded once to binary32."""
    return low.cast(low.op("Add", [total, low.const(bias.astype(np.float64))]), DType.FLOAT32)


@REFERENCE.row(OP)
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    """acc = Σ (q_x - z_x) q_w + bias, int64; then eq. 7."""
    x, weight, tensor = values[0], values[1], operands[0]
    bias = values[2] if len(values) > 2 else None
    assert x is not None and weight is not None and tensor is not None and tensor.quant is not None
    rows = x.reshape(-1, weight.shape[1]).astype(np.int64) - int(tensor.quant.zero_point[0])
    acc = rows @ weight.T.astype(np.int64) + (0 if bias is None else bias.astype(np.int64))
    return [finish(node, acc.reshape(results[0].shape), operands, results[0])]


@COST.row(OP)
def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """Products of every row of the operand."""
    weight = operands[1]
    assert weight is not None
    outputs, inputs = weight.shape
    return Cost.of_products(1, inputs, outputs, results[0].elements // outputs)


# -- tiles -----------------------------------------------------------------------------------------------------------
def _row_axis(x: Tensor) -> tuple[int, int]:
    """(axis, elements under one entry of it) of the axis of x that rows can be cut along: the first that is long."""
    axis = next((a for a, extent in enumerate(x.shape) if extent > 1), 0)
    return axis, math.prod(x.shape[axis + 1 :])


def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """Rows and channels; rows that do not lie along an axis of the operand, where one of its entries ends as well."""
    x, weight = operands[0], operands[1]
    assert x is not None and weight is not None
    if node.attrs["keep_num_dims"]:
        return free_axes(node, operands, results)
    width = weight.shape[1]
    return {0: math.lcm(width, _row_axis(x)[1]) // width, 1: 1}


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    x, weight = operands[0], operands[1]
    assert x is not None and weight is not None
    width, channels = weight.shape[1], box[-1]
    if node.attrs["keep_num_dims"]:
        read: Box = (*box[:-1], (0, width))
    else:
        axis, inner = _row_axis(x)
        begin, end = (row * width // inner for row in box[0])
        read = tuple((begin, end) if a == axis else (0, extent) for a, extent in enumerate(x.shape))
    rest = tuple(None if t is None else (channels,) for t in operands[2:])
    return Part((read, (channels, (0, width)), *rest), dict(node.attrs))


TILE.add(OP, TileRow(_axes, _part))


def _example(
    shape: tuple[int, ...], weight: tuple[int, int], activation: str = "NONE", keep: bool = True, bias: bool = True
) -> Graph:
    rng = np.random.default_rng(sum(weight))
    build = GraphBuilder()
    x = build.input("x", shape)
    data = rng.normal(0, 0.3, weight).astype(np.float32)
    offset = rng.normal(0, 0.3, weight[0]).astype(np.float32) if bias else None
    return build.output(build(OP, x, data, offset, output="y", activation=activation, keep_num_dims=keep))


EXAMPLES.add(
    OP,
    lambda: [
        _example((3, 17), (5, 17), "RELU"),
        _example((1, 5, 7, 6), (9, 6), "RELU6"),
        _example((2, 19, 11), (4, 11)),
        _example((1, 3, 5, 7), (4, 35), keep=False),
        _example((3, 2, 10), (4, 5), keep=False),  # rows within an entry
        _example((6, 5), (4, 15), keep=False),  # and over several
        _example((2, 13), (6, 13), bias=False),
    ],
)


# -- TFLite import ---------------------------------------------------------------------------------------------------
@IMPORT_TFLITE.row(OP)
def import_tflite(ctx: ImportContext) -> list[Tensor]:
    """With computed weights it is a product of matrices."""
    x, weight = operand(ctx, 0), operand(ctx, 1)
    bias = ctx.inputs[2] if len(ctx.inputs) > 2 else None
    if int(option(ctx, "weights_format", 0)):
        raise ctx.refuse("its weights are shuffled", AGAIN)
    keep, (channels, width) = bool(option(ctx, "keep_num_dims", False)), weight.shape
    if weight.data is not None and (bias is None or bias.data is not None):
        real_constant(ctx, 1, "weights")
        return [fused(ctx, ctx.emit(OP, x, weight, bias, keep_num_dims=keep, activation="NONE"))]
    rows = reshaped(ctx, x, (x.elements // width, width))
    y = ctx.emit("BATCH_MATMUL", rows, weight, adj_x=False, adj_y=True)
    y = y if bias is None else add(ctx, y, bias)
    return [fused(ctx, reshaped(ctx, y, (*x.shape[:-1], channels) if keep else y.shape))]


_WEIGHT = np.linspace(-1, 0.8, 35, dtype=np.float32).reshape(5, 7)
_BIAS = {"b": np.linspace(-2, 2, 5, dtype=np.float32)}
_TABLE = "FullyConnectedOptions"
TFLITE_EXAMPLES.add(
    OP,
    [
        TfliteCase(OP, {"x": (3, 7)}, {"w": _WEIGHT, **_BIAS}, {"fused_activation_function": "RELU"}, _TABLE),
        TfliteCase(OP, {"x": (1, 3, 2, 7)}, {"w": _WEIGHT}, {"keep_num_dims": True}, _TABLE, ("x", "w", "")),
        TfliteCase(OP, {"x": (2, 14)}, {"w": _WEIGHT, **_BIAS}, {}, _TABLE),
        TfliteCase(OP, {"x": (2, 3, 7), "w": (5, 7)}, _BIAS, {"keep_num_dims": True}, _TABLE),
        TfliteCase(OP, {"w": (5, 7)}, {"x": _WEIGHT[:2]}, {}, _TABLE, ("x", "w")),
    ],
)
