"""CONV_2D and DEPTHWISE_CONV_2D: sums of products over a window.

x [N,H,W,C], weight [O,KH,KW,C/groups] (CONV_2D) or [1,KH,KW,C*m] (DEPTHWISE_CONV_2D), bias [O] → [N,OH,OW,O].
Attrs: strides (h, w), dilations (h, w), pads (top, left, bottom, right) of zeros, activation. Groups follow from the
shapes, as in TFLite. In .sim explicit pads that are neither VALID nor SAME are spelled as a PAD in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._mac import (
    MAC_LIMITS,
    accumulate,
    activation_float,
    finish,
    publish,
    publish_product,
    publish_wide_product,
    qlinear_conv,
    two_parts,
)
from sgs.ops._tflite import AGAIN, fused, operand, option, real_constant
from sgs.ops._window import (
    conv_output,
    cut_axes,
    mean_window,
    patches,
    same_pads,
    window_node,
    window_part,
    window_rows,
)
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
    OperatorInfo,
    Part,
    QuantRule,
    Shape,
    SimRow,
    SimWindow,
    TfliteCase,
    TileRow,
    whole_box,
)

CONV, DEPTHWISE = "CONV_2D", "DEPTHWISE_CONV_2D"
OPERATOR.add(CONV, OperatorInfo("both", "2-D convolution, dense or grouped", window=True))
OPERATOR.add(DEPTHWISE, OperatorInfo("both", "2-D convolution of each channel on its own", window=True))


def groups_of(node: Node, x: Tensor, weight: Tensor) -> int:
    """Number of groups, read off the shapes."""
    return x.shape[3] if node.op == DEPTHWISE else x.shape[3] // weight.shape[3]


@INFER.row(CONV, DEPTHWISE)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    x, weight = operands[0], operands[1]
    assert x is not None and weight is not None
    channels = weight.shape[3] if node.op == DEPTHWISE else weight.shape[0]
    whole = channels % x.shape[3] == 0 if node.op == DEPTHWISE else x.shape[3] % weight.shape[3] == 0
    if not whole or channels % groups_of(node, x, weight):
        raise ValueError(f"weights of shape {weight.shape} do not fit an input of {x.shape[3]} channels")
    bias = operands[2] if len(operands) > 2 else None
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"a bias of shape {bias.shape} does not fit {channels} channels")
    height, width = conv_output(node, x.shape, weight.shape[1:3])
    return [((x.shape[0], height, width, channels), x.dtype)]


# -- .sim
# ------------------------------------------------------------------------------------------------------------------
def _encode(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[str, Any]:
    extra: dict[str, Any] = {"stride_h": node.attrs["strides"][0], "stride_w": node.attrs["strides"][1]}
    extra["dilation_h_factor"], extra["dilation_w_factor"] = node.attrs["dilations"]
    if node.op == DEPTHWISE:
        assert operands[0] is not None
        extra["depth_multiplier"] = results[0].shape[3] // operands[0].shape[3]
    return extra


def _decode(options: dict[str, Any], operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[str, Any]:
    return {
        "strides": (options["stride_h"], options["stride_w"]),
        "dilations": (options["dilation_h_factor"], options["dilation_w_factor"]),
    }


def _kernel(node: Node, operands: Sequence[Tensor | None]) -> Sequence[int]:
    weight = operands[1]
    assert weight is not None
    return weight.shape[1:3]


for _op, _options in ((CONV, "Conv2DOptions"), (DEPTHWISE, "DepthwiseConv2DOptions")):
    SIM.add(_op, SimRow(_options, activation=True, encode=_encode, decode=_decode, window=SimWindow(_kernel)))


@LAYOUT.row(CONV, DEPTHWISE)
def layout(graph: Graph, node: Node, perm: tuple[int, ...]) -> None:
    """Fixed: NHWC by definition."""
    return


# -- engine
# ----------------------------------------------------------------------------------------------------------------
def _weight_first(weight: Tensor, op: str) -> Array:
    """The weight as ONNX wants it: [O, C/groups, KH, KW]."""
    assert weight.data is not None
    return np.ascontiguousarray(weight.data.transpose((3, 0, 1, 2) if op == DEPTHWISE else (0, 3, 1, 2)))


def _onnx_attrs(graph: Graph, node: Node) -> dict[str, Any]:
    x, weight = graph[node.inputs[0] or ""], graph[node.inputs[1] or ""]
    return {
        "kernel_shape": list(weight.shape[1:3]),
        "strides": list(node.attrs["strides"]),
        "dilations": list(node.attrs["dilations"]),
        "pads": list(node.attrs["pads"]),
        "group": groups_of(node, x, weight),
    }


@FLOAT.row(CONV, DEPTHWISE)
def lower_float(low: Lowering, node: Node) -> None:
    x, weight, bias = (*node.inputs, None)[:3]
    assert x is not None and weight is not None
    operands = [low.real(x, "first"), low.const(_weight_first(low.graph[weight], node.op))]
    if bias is not None:
        operands.append(low.real(bias))
    y = low.op("Conv", operands, **_onnx_attrs(low.graph, node))
    low.put_real(node.outputs[0], activation_float(low, node, y), "first")


@FIXED.row(CONV, DEPTHWISE)
def lower_fixed(low: Lowering, node: Node) -> None:
    """UINT8 → UINT8: QLinearConv, NHWC. Kernels of 1×1: a product of matrices. Else a float convolution of integers."""
    graph = low.graph
    x, weight, bias = (graph[name or ""] for name in node.inputs[:3])
    y = graph[node.outputs[0]]
    kernel = _weight_first(weight, node.op)
    attrs = _onnx_attrs(graph, node)
    assert bias.data is not None
    if x.dtype is DType.UINT8 and y.dtype is DType.UINT8:
        low.put(y.name, qlinear_conv(low, node, low.codes(x.name), kernel, bias.data, **attrs))
        return
    if pointwise(node, x, weight):
        _lower_pointwise(low, node, x, kernel.reshape(kernel.shape[0], -1), bias.data)
        return

    def convolve(value: str, part: Array, offset: Array | None) -> str:
        tail = [] if offset is None else [low.const(offset)]
        return str(low.op("Conv", [value, low.const(part), *tail], **attrs))

    publish(low, node, accumulate(low, x, kernel, bias.data, convolve, "first"), "first")


def _lower_pointwise(low: Lowering, node: Node, x: Tensor, kernel: Array, bias: Array) -> None:
    """UINT8: an integer product. INT16: two binary32 products where they are exact, else one in binary64."""
    flat = low.const(np.array([-1, x.shape[3]], np.int64))
    if x.dtype is DType.UINT8:
        publish_product(low, node, low.op("Reshape", [low.codes(x.name), flat]), kernel.T, bias)
    elif two_parts(kernel, bias) is None:
        publish_wide_product(low, node, low.op("Reshape", [low.codes(x.name), flat]), kernel.T, bias)
    else:
        shape = low.const(np.array(low.graph[node.outputs[0]].shape, np.int64))

        def multiply(value: str, part: Array, offset: Array | None) -> str:
            tail = [] if offset is None else [low.const(offset)]
            product = low.op("Gemm", [low.op("Reshape", [value, flat]), low.const(part), *tail], transB=1)
            return str(low.op("Reshape", [product, shape]))

        publish(low, node, accumulate(low, x, kernel, bias, multiply, "native"), "native")


def pointwise(node: Node, x: Tensor, weight: Tensor) -> bool:
    """True for a dense 1×1 convolution at stride 1 without pads: a product of matrices."""
    plain = (tuple(node.attrs["strides"]), tuple(node.attrs["pads"])) == ((1, 1), (0, 0, 0, 0))
    return node.op == CONV and weight.shape[1:] == (1, 1, x.shape[3]) and plain


@REFERENCE.row(CONV, DEPTHWISE)
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    """acc = Σ (q_x - z_x) q_w + bias, int64; then eq. 7."""
    x, weight, bias = values[:3]
    tensor = operands[0]
    assert x is not None and weight is not None and bias is not None and tensor is not None and tensor.quant is not None
    centred = x.astype(np.int64) - int(tensor.quant.zero_point[0])
    window = patches(centred, node, weight.shape[1:3], fill=0)  # [N,OH,OW,KH,KW,C]
    wide = weight.astype(np.int64)
    if node.op == DEPTHWISE:
        multiplier = wide.shape[3] // x.shape[3]
        acc = np.einsum("nhwklc,klcm->nhwcm", window, wide[0].reshape(*wide.shape[1:3], x.shape[3], multiplier))
        acc = acc.reshape(*acc.shape[:3], -1)
    else:
        groups = x.shape[3] // wide.shape[3]
        window = window.reshape(*window.shape[:5], groups, wide.shape[3])
        by_group = wide.reshape(groups, -1, *wide.shape[1:])
        acc = np.einsum("nhwklgc,goklc->nhwgo", window, by_group).reshape(*window.shape[:3], -1)
    return [finish(node, acc + bias.astype(np.int64), operands, results[0])]


# -- quantisation, compiler
# ------------------------------------------------------------------------------------------------------
QUANTISE.add(CONV, QuantRule("mac", channel_axis=0))
QUANTISE.add(DEPTHWISE, QuantRule("mac", channel_axis=3))


@MATRIX.row(CONV, DEPTHWISE)
def matrix_form(node: Node, x: Tensor, weight: Tensor, result: Tensor) -> MatrixForm:
    """A row is a window in the order KH, KW, channels of the group."""
    groups, (kh, kw), outputs = groups_of(node, x, weight), weight.shape[1:3], result.shape[3]
    width = kh * kw * x.shape[3] // groups

    def rows(values: Array, chosen: Array) -> Array:
        windows = window_rows(values, node, (kh, kw), chosen).reshape(len(chosen), kh * kw, groups, -1)
        return windows.transpose(0, 2, 1, 3).reshape(len(chosen), groups, width)

    def mean(values: Array) -> Array:
        taps = mean_window(values, node, (kh, kw)).reshape(kh * kw, groups, -1)
        return taps.transpose(1, 0, 2).reshape(groups, width)

    def matrix(data: Array) -> Array:
        if node.op == DEPTHWISE:
            return data.reshape(width, groups, outputs // groups).transpose(1, 0, 2)
        return data.reshape(groups, outputs // groups, width).transpose(0, 2, 1)

    def weights(data: Array) -> Array:
        return data.transpose((1, 0, 2) if node.op == DEPTHWISE else (0, 2, 1)).reshape(weight.shape)

    return MatrixForm(result.shape[1] * result.shape[2], rows, mean, matrix, weights)


@COST.row(CONV, DEPTHWISE)
def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """Products of every position of the result with every tap, a tap being all input channels of a group."""
    x, weight = operands[0], operands[1]
    assert x is not None and weight is not None
    groups, outputs = groups_of(node, x, weight), results[0].shape[3]
    positions = results[0].elements // outputs
    return Cost.of_products(
        groups, x.shape[3] // groups, outputs // groups, positions * int(np.prod(weight.shape[1:3]))
    )


def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """Pictures, rows, columns and channels of the result; channels by the group."""
    x, weight = operands[0], operands[1]
    assert x is not None and weight is not None
    groups = groups_of(node, x, weight)
    return cut_axes(node, x.shape, weight.shape[1:3]) | {3: 1 if groups == 1 else results[0].shape[3] // groups}


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    x, weight = operands[0], operands[1]
    assert x is not None and weight is not None
    read, attrs = window_part(node, x.shape, weight.shape[1:3], box)
    groups, (first, last) = groups_of(node, x, weight), box[3]
    if groups > 1:  # the operand's channels of these groups
        outputs, inputs = results[0].shape[3] // groups, x.shape[3] // groups
        read = (*read[:3], (first // outputs * inputs, -(-last // outputs) * inputs))
    kernel = list(whole_box(weight.shape))
    kernel[3 if node.op == DEPTHWISE else 0] = (first, last)
    rest = () if len(operands) < 3 else (None if operands[2] is None else ((first, last),),)
    return Part((read, tuple(kernel), *rest), attrs)


TILE.add(CONV, TileRow(_axes, _part))
TILE.add(DEPTHWISE, TileRow(_axes, _part))


def kernel_below_64(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """The kernel has fewer than 64 taps (height × width)."""
    weight = operands[1]
    return weight is not None and weight.shape[1] * weight.shape[2] < 64


def bias_is_there(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """A convolution has a bias, of zeros where the network has none."""
    return len(operands) > 2 and operands[2] is not None


CONSTRAINTS.add(CONV, (kernel_below_64, bias_is_there, *MAC_LIMITS))
CONSTRAINTS.add(DEPTHWISE, (kernel_below_64, bias_is_there, *MAC_LIMITS))


def _example(op: str, shape: tuple[int, ...], weight: tuple[int, ...], **window: Any) -> Graph:
    rng = np.random.default_rng(sum(weight))
    build = GraphBuilder()
    x = build.input("x", shape)
    channels = weight[3] if op == DEPTHWISE else weight[0]
    data = rng.normal(0, 0.3, weight).astype(np.float32)
    y = build(op, x, data, rng.normal(0, 0.3, channels).astype(np.float32), output="y", **window_node(**window))
    return build.output(y)


EXAMPLES.add(
    CONV,
    lambda: [
        _example(CONV, (1, 11, 13, 5), (7, 3, 3, 5), pads=(1, 1, 1, 1), strides=(2, 1), activation="RELU"),
        _example(CONV, (1, 9, 7, 8), (6, 3, 2, 4), dilations=(2, 1), activation="RELU6"),
        _example(CONV, (2, 5, 6, 16), (9, 1, 1, 16)),
        _example(CONV, (1, 8, 9, 3), (10, 5, 5, 3), pads=(0, 1, 2, 3), strides=(3, 2)),
    ],
)
EXAMPLES.add(
    DEPTHWISE,
    lambda: [
        _example(DEPTHWISE, (1, 11, 13, 6), (1, 3, 3, 6), pads=(1, 1, 1, 1), strides=(2, 2), activation="RELU6"),
        _example(DEPTHWISE, (2, 9, 10, 5), (1, 3, 5, 10), pads=(1, 2, 0, 1)),
        _example(DEPTHWISE, (1, 12, 9, 4), (1, 3, 3, 4), dilations=(2, 2), pads=(2, 2, 2, 2)),
    ],
)


# -- TFLite import -----------------------------------------------------------------------------------------------------
@IMPORT_TFLITE.row(CONV, DEPTHWISE)
def import_tflite(ctx: ImportContext) -> list[Tensor]:
    x, weight = operand(ctx, 0), real_constant(ctx, 1, "weights")
    channels = weight.shape[3 if ctx.op == DEPTHWISE else 0]
    has_bias = len(ctx.inputs) > 2 and ctx.inputs[2] is not None
    bias = real_constant(ctx, 2, "bias") if has_bias else np.zeros(channels, np.float32)
    strides, dilations = tflite_steps(ctx)
    same = option(ctx, "padding", "SAME") == "SAME"
    pads = same_pads(x.shape, weight.shape[1:3], strides, dilations) if same else (0, 0, 0, 0)
    window = {"strides": strides, "dilations": dilations, "pads": pads, "activation": "NONE"}
    return [fused(ctx, ctx.emit(ctx.op, x, weight, bias, **window))]


def tflite_steps(ctx: ImportContext) -> tuple[tuple[int, int], tuple[int, int]]:
    """(strides, dilations), height first. Raises the refusal of what is no step."""
    strides = (int(option(ctx, "stride_h", 0)), int(option(ctx, "stride_w", 0)))
    dilations = (int(option(ctx, "dilation_h_factor", 1)), int(option(ctx, "dilation_w_factor", 1)))
    if min(*strides, *dilations) < 1:
        raise ctx.refuse(f"strides {strides} and dilations {dilations}", AGAIN)
    return strides, dilations


def _tflite_case(op: str, x: Shape, weight: Shape, **options: Any) -> TfliteCase:
    data = np.linspace(-0.5, 0.7, int(np.prod(weight)), dtype=np.float32).reshape(weight)
    channels = weight[3 if op == DEPTHWISE else 0]
    constants = {"w": data, "b": np.linspace(-1, 1, channels, dtype=np.float32)}
    depth = {"depth_multiplier": channels // x[3]} if op == DEPTHWISE else {}
    table = "DepthwiseConv2DOptions" if op == DEPTHWISE else "Conv2DOptions"
    return TfliteCase(op, {"x": x}, constants, {"stride_h": 1, "stride_w": 1, **depth, **options}, table)


TFLITE_EXAMPLES.add(
    CONV,
    [
        _tflite_case(CONV, (1, 11, 13, 5), (7, 3, 3, 5), stride_h=2, fused_activation_function="RELU6"),
        _tflite_case(CONV, (1, 9, 7, 8), (6, 3, 2, 4), padding="VALID", fused_activation_function="RELU_N1_TO_1"),
        _tflite_case(CONV, (1, 9, 10, 3), (4, 3, 3, 3), dilation_h_factor=2, dilation_w_factor=3),
    ],
)
TFLITE_EXAMPLES.add(
    DEPTHWISE,
    [
        _tflite_case(DEPTHWISE, (1, 11, 13, 3), (1, 3, 5, 6), stride_h=2, stride_w=2, fused_activation_function="RELU"),
        _tflite_case(DEPTHWISE, (1, 9, 7, 4), (1, 3, 3, 4), padding="VALID", fused_activation_function="RELU_N1_TO_1"),
    ],
)
