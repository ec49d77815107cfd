"""MAX_POOL_2D and AVERAGE_POOL_2D: the largest value, or the mean, of a window.

x [N,H,W,C] → [N,OH,OW,C]. Attrs: kernel (h, w), strides (h, w), pads (top, left, bottom, right), activation. Padding
takes no part in the maximum, nor in the mean's count. The pads are any below the kernel's extents; .sim knows zeros
and what SAME means for the shape, before another MAX_POOL_2D it has a PADV2, and another AVERAGE_POOL_2D it cannot say.

Fixed: MAX_POOL_2D moves codes. AVERAGE_POOL_2D sums exactly and requantises once (ops/_sum.py), with
M = s_x / (s_y · count) where count is the number of elements under the window at that position.
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
from sgs.ops._layout import fixed
from sgs.ops._mac import activation_bounds, activation_float, real_bounds
from sgs.ops._sum import centred_codes, requantised, sum_multiplier
from sgs.ops._tflite import AGAIN, fused, operand, option
from sgs.ops._window import conv_output, cut_axes, patches, same_pads, window_part
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FIXED,
    FLOAT,
    IMPORT_TFLITE,
    INFER,
    LAYOUT,
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
    OperatorInfo,
    Part,
    QuantRule,
    SimRow,
    SimWindow,
    TfliteCase,
    TileRow,
)

MAX, AVERAGE = "MAX_POOL_2D", "AVERAGE_POOL_2D"
OPERATOR.add(MAX, OperatorInfo("both", "largest value of a window", window=True))
OPERATOR.add(AVERAGE, OperatorInfo("both", "mean of a window, padding left out", window=True))
LAYOUT.add(MAX, fixed)
LAYOUT.add(AVERAGE, fixed)


@INFER.row(MAX, AVERAGE)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    x = operands[0]
    assert x is not None
    kernel, pads = node.attrs["kernel"], tuple(node.attrs["pads"])
    if any(pad >= extent for pad, extent in zip(pads, (*kernel, *kernel), strict=True)):
        raise ValueError(f"pads {pads} leave windows of {tuple(kernel)} without any element")
    return [((x.shape[0], *conv_output(node, x.shape, kernel), x.shape[3]), x.dtype)]


# -- .sim --------------------------------------------------------------------------------------------------------------
def _encode(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[str, Any]:
    (stride_h, stride_w), (height, width) = node.attrs["strides"], node.attrs["kernel"]
    return {"stride_h": stride_h, "stride_w": stride_w, "filter_height": height, "filter_width": width}


def _encode_mean(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[str, Any]:
    """Raises ValueError for pads that TFLite cannot say: elements of a PAD in front would count."""
    x, pads = operands[0], tuple(node.attrs["pads"])
    assert x is not None
    if any(pads) and pads != same_pads(x.shape, node.attrs["kernel"], node.attrs["strides"], (1, 1)):
        raise ValueError(f"pads {pads} of a mean are neither VALID nor SAME")
    return _encode(node, operands, results)


def _decode(options: dict[str, Any], operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[str, Any]:
    return {
        "strides": (options["stride_h"], options["stride_w"]),
        "kernel": (options["filter_height"], options["filter_width"]),
    }


def _kernel(node: Node, operands: Sequence[Tensor | None]) -> Sequence[int]:
    return tuple(node.attrs["kernel"])


for _op, _code, _window in (
    (MAX, _encode, SimWindow(_kernel, "lowest")),
    (AVERAGE, _encode_mean, SimWindow(_kernel, None)),
):
    SIM.add(_op, SimRow("Pool2DOptions", activation=True, encode=_code, decode=_decode, window=_window))


# -- engine ------------------------------------------------------------------------------------------------------------
def _onnx_attrs(node: Node) -> dict[str, Any]:
    names = {"kernel_shape": "kernel", "strides": "strides", "pads": "pads"}
    return {theirs: list(node.attrs[ours]) for theirs, ours in names.items()}


@FLOAT.row(MAX, AVERAGE)
def lower_float(low: Lowering, node: Node) -> None:
    onnx_op = "MaxPool" if node.op == MAX else "AveragePool"
    value = low.op(onnx_op, [low.real(node.inputs[0] or "", "first")], **_onnx_attrs(node))
    low.put_real(node.outputs[0], activation_float(low, node, value), "first")


@FIXED.row(MAX)
def lower_fixed_max(low: Lowering, node: Node) -> None:
    """UINT8: NhwcMaxPool (0.2-0.6 ns a result). INT16: in binary32, which holds the codes exactly."""
    x, y = low.graph[node.inputs[0] or ""], low.graph[node.outputs[0]]
    narrow, bounds = y.dtype is DType.UINT8, _code_bounds(node, y)
    if narrow:
        value = low.op("NhwcMaxPool", [low.codes(x.name)], domain="com.microsoft", **_onnx_attrs(node))
    else:
        value = low.cast(low.codes(x.name, "first"), DType.FLOAT32)
        value = low.op("MaxPool", [value], **_onnx_attrs(node))
    if bounds is not None:
        kind = np.uint8 if narrow else np.float32
        value = low.op("Clip", [value, *(low.const(np.asarray(b, kind)) for b in bounds)])
    if narrow:
        low.put(y.name, value)
    else:
        low.put(y.name, low.cast(value, DType.INT16), "first")


def _code_bounds(node: Node, y: Tensor) -> tuple[int, int] | None:
    """Codes between which the fused activation clamps, None without one."""
    return None if real_bounds(node.attrs.get("activation", "NONE")) == (None, None) else activation_bounds(node, y)


@REFERENCE.row(MAX)
def reference_max(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    codes = values[0]
    assert codes is not None
    largest = patches(codes.astype(np.int64), node, node.attrs["kernel"], fill=-(1 << 40)).max(axis=(3, 4))
    bounds = _code_bounds(node, results[0])
    largest = largest if bounds is None else np.clip(largest, *bounds)
    return [largest.astype(results[0].dtype.numpy)]


def _multiplier(node: Node, x: Tensor, y: Tensor) -> Array:
    """M of every position: [1,OH,OW,1], or one number [] where no window reaches over the edge."""
    terms = int(np.prod(node.attrs["kernel"]))
    if not any(node.attrs["pads"]):
        return sum_multiplier(x, y, np.asarray(terms), terms)
    ones = np.ones((1, *x.shape[1:3], 1), np.int64)
    return sum_multiplier(x, y, patches(ones, node, node.attrs["kernel"], fill=0).sum(axis=(3, 4)), terms)


@FIXED.row(AVERAGE)
def lower_fixed_average(low: Lowering, node: Node) -> None:
    """Sums by a depthwise convolution with ones (0.5 ns a result), of bytes where binary32 could not hold them."""
    x, y = low.graph[node.inputs[0] or ""], low.graph[node.outputs[0]]
    mult = _multiplier(node, x, y)
    acc = _window_sums(low, node, x, low.centred(x.name, "first"), wide=mult.dtype == np.float64)
    if mult.ndim:
        acc = low.op("Mul", [acc, low.const(np.ascontiguousarray(mult.transpose(0, 3, 1, 2)))])
        mult = np.asarray(1, mult.dtype)
    low.put_scaled(y.name, acc, mult, "first", _code_bounds(node, y))


def _window_sums(low: Lowering, node: Node, x: Tensor, value: str, *, wide: bool) -> str:
    """Exact sums [N,C,OH,OW] of integer-valued binary32: in binary32, or `wide` in binary64 by two planes of bytes."""
    ones = low.const(np.ones((x.shape[3], 1, *node.attrs["kernel"]), np.float32))

    def total(plane: str) -> str:
        return str(low.op("Conv", [plane, ones], group=x.shape[3], **_onnx_attrs(node)))

    if not wide:
        return total(value)
    high = low.op("Floor", [low.op("Mul", [value, low.const(np.asarray(1 / 256, np.float32))])])
    scale = low.const(np.asarray(256, np.float32))
    planes = [total(high), total(low.op("Sub", [value, low.op("Mul", [high, scale])]))]
    sums = [low.cast(plane, DType.FLOAT64) for plane in planes]
    return str(low.op("Add", [low.op("Mul", [sums[0], low.const(np.asarray(256, np.float64))]), sums[1]]))


@REFERENCE.row(AVERAGE)
def reference_average(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    """acc = Σ (q_x - z_x) in int64; then eq. 7 or 8."""
    codes, x = values[0], operands[0]
    assert codes is not None and x is not None
    acc = patches(centred_codes(x, codes), node, node.attrs["kernel"], fill=0).sum(axis=(3, 4))
    y = results[0]
    return [requantised(y, acc, _multiplier(node, x, y), _code_bounds(node, y) or (None, None))]


# -- quantisation, compiler --------------------------------------------------------------------------------------------
QUANTISE.add(MAX, QuantRule("move", moved=lambda node: (0,)))
QUANTISE.add(AVERAGE, QuantRule("real"))


@COST.row(MAX, AVERAGE)
def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """One operation per tap of every result, and one per mean."""
    taps = int(np.prod(node.attrs["kernel"]))
    return Cost(vector_ops=results[0].elements * (taps + (node.op == AVERAGE)))


def sums_are_exact(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """The window has fewer than 65,536 elements (height × width), so that its sum stays exact."""
    return int(np.prod(node.attrs["kernel"])) < 1 << 16


def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """Pictures, rows, columns and channels."""
    x = operands[0]
    assert x is not None
    return cut_axes(node, x.shape, node.attrs["kernel"]) | {3: 1}


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    x = operands[0]
    assert x is not None
    read, attrs = window_part(node, x.shape, node.attrs["kernel"], box)
    return Part(((*read[:3], box[3]),), attrs)


TILE.add(MAX, TileRow(_axes, _part))
TILE.add(AVERAGE, TileRow(_axes, _part))
CONSTRAINTS.add(MAX, ())
CONSTRAINTS.add(AVERAGE, (sums_are_exact,))


def _example(op: str, shape: tuple[int, ...], *, same: bool = False, **attrs: Any) -> Graph:
    window: dict[str, Any] = {"kernel": (2, 2), "strides": (2, 2), "pads": (0, 0, 0, 0), "activation": "NONE", **attrs}
    if same:
        window["pads"] = same_pads(shape, window["kernel"], window["strides"], (1, 1))
    build = GraphBuilder()
    return build.output(build(op, build.input("x", shape), output="y", **window))


def _examples(op: str) -> list[Graph]:
    return [
        _example(op, (1, 10, 14, 6)),
        _example(op, (2, 11, 13, 5), kernel=(3, 2), strides=(2, 1), same=True),
        _example(op, (1, 9, 12, 16), kernel=(5, 3), strides=(1, 1), same=True, activation="RELU"),
        _example(op, (1, 10, 9, 3), kernel=(4, 3), strides=(3, 2), activation="RELU6"),
        _example(op, (1, 31, 37, 2), kernel=(29, 30), strides=(1, 2)),  # too many terms for binary32
    ]


EXAMPLES.add(
    MAX,
    lambda: [*_examples(MAX), _example(MAX, (1, 11, 13, 5), kernel=(3, 4), strides=(3, 2), pads=(2, 0, 1, 3))],
)
EXAMPLES.add(AVERAGE, lambda: _examples(AVERAGE))


# -- TFLite import -----------------------------------------------------------------------------------------------------
@IMPORT_TFLITE.row(AVERAGE, MAX, "L2_POOL_2D")
def import_tflite(ctx: ImportContext) -> list[Tensor]:
    """L2_POOL_2D is the root of the mean of squares."""
    x, root = operand(ctx, 0), ctx.op == "L2_POOL_2D"
    kernel, strides = (
        (int(option(ctx, height, 0)), int(option(ctx, width, 0)))
        for height, width in (("filter_height", "filter_width"), ("stride_h", "stride_w"))
    )
    if min(*kernel, *strides) < 1:
        raise ctx.refuse(f"a window of {kernel} by steps of {strides}", AGAIN)
    pads = same_pads(x.shape, kernel, strides, (1, 1)) if option(ctx, "padding", "SAME") == "SAME" else (0, 0, 0, 0)
    window = {"kernel": kernel, "strides": strides, "pads": pads, "activation": "NONE"}
    y = ctx.emit(AVERAGE if root else ctx.op, multiply(ctx, x, x) if root else x, **window)
    return [fused(ctx, ctx.emit("SQRT", y) if root else y)]


_WINDOW = {"filter_height": 3, "filter_width": 2, "stride_h": 2, "stride_w": 1}
for _op in (AVERAGE, MAX, "L2_POOL_2D"):
    TFLITE_EXAMPLES.add(
        _op,
        [
            TfliteCase(_op, {"x": (1, 9, 7, 5)}, options={**_WINDOW, **options}, table="Pool2DOptions")
            for options in ({}, {"padding": "VALID", "fused_activation_function": "RELU"})
        ],
    )
