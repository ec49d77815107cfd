"""Conv of ONNX over one, two or three axes, as CONV_2D or DEPTHWISE_CONV_2D.

Three axes: the taps of the kernel's depth are laid beside each other in the channels, so that one CONV_2D over N·D
pictures is the whole sum of products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._spatial import (
    from_picture,
    from_volume,
    pad_axis,
    spatial_rank,
    stack_depth,
    to_picture,
    to_volume,
)
from sgs.ops._tflite import AGAIN, fused, integers, operand, option, real_constant
from sgs.ops._window import OnnxWindow, extent, onnx_window
from sgs.ops.conv import CONV, DEPTHWISE
from sgs.registry import (
    IMPORT_ONNX,
    IMPORT_TFLITE,
    ONNX_EXAMPLES,
    TFLITE_EXAMPLES,
    ImportContext,
    OnnxCase,
    Shape,
    TfliteCase,
)


@IMPORT_ONNX.row("Conv")
def import_conv(ctx: ImportContext) -> Sequence[Tensor]:
    """The weight is constant; a kernel of one axis is one of height 1."""
    x, weight = ctx.inputs[0], ctx.constant(1, "weight")
    bias = ctx.constant(2, "bias") if len(ctx.inputs) > 2 else None
    assert x is not None and weight is not None
    spatial_rank(ctx, x, "convolution")
    groups = int(ctx.attrs.get("group", 1))
    check_kernel(ctx, weight)
    if groups < 1 or weight.shape[0] % groups or x.shape[1] != weight.shape[1] * groups:
        reason = f"weights of shape {weight.shape} in {groups} groups do not fit {x.shape[1]} channels"
        raise ctx.refuse(reason, "check the shapes that inputs are given, or export the model again")
    window = onnx_window(ctx, weight.shape[2:], x.shape[2:])
    bias = np.zeros(weight.shape[0], np.float32) if bias is None else bias.astype(np.float32)
    return [convolved(ctx, x, weight, bias, window, groups)]


def check_kernel(ctx: ImportContext, weight: Array) -> None:
    """Raise the refusal of an attribute kernel_shape that is not the weight's."""
    told = tuple(ctx.attrs.get("kernel_shape") or weight.shape[2:])
    if told != weight.shape[2:]:
        raise ctx.refuse(
            f"kernel_shape {told} is not that of weights of shape {weight.shape}", "export the model again"
        )


def convolved(ctx: ImportContext, x: Tensor, weight: Array, bias: Array, window: OnnxWindow, groups: int) -> Tensor:
    """x [N, C, *S], weight [O, C/groups, *K], bias [O] → [N, O, *S']."""
    rank = len(x.shape) - 2
    if rank == 3:
        return from_volume(ctx, _volume(ctx, to_volume(ctx, x), weight, bias, window, groups))
    kernel = weight.reshape(*weight.shape[:2], *(1, *weight.shape[2:])[-2:])
    return from_picture(ctx, _plane(ctx, to_picture(ctx, x), kernel, bias, window, groups), rank)


def _plane(ctx: ImportContext, x: Tensor, weight: Array, bias: Array, window: OnnxWindow, groups: int) -> Tensor:
    """x [N, H, W, C], weight [O, C/groups, KH, KW]."""
    if groups == x.shape[3] and groups > 1:
        kernel, op = weight.transpose(1, 2, 3, 0), DEPTHWISE
        # ONNX orders the outputs of channel c as c*m ... c*m+m-1, and so does TFLite
    else:
        kernel, op = weight.transpose(0, 2, 3, 1), CONV
    data = np.ascontiguousarray(kernel, np.float32)
    return ctx.emit(op, x, data, bias, activation="NONE", **window.picture())


def _volume(ctx: ImportContext, x: Tensor, weight: Array, bias: Array, window: OnnxWindow, groups: int) -> Tensor:
    """x [N, D, H, W, C], weight [O, C/groups, KD, KH, KW] → [N, OD, OH, OW, O]."""
    depth, stride, dilation = weight.shape[2], window.strides[0], window.dilations[0]
    before, after = window.pads[0], window.pads[3]
    count = extent(x.shape[1], depth, stride, dilation, before, after)
    if count <= 0:
        raise ctx.refuse(f"a kernel of depth {depth} does not fit an input of depth {x.shape[1]}")
    starts = [tap * dilation for tap in range(depth)]
    pictures = stack_depth(ctx, pad_axis(ctx, x, 1, before, after), starts, count, stride, groups)
    stacked = weight.transpose(0, 2, 1, 3, 4).reshape(weight.shape[0], -1, *weight.shape[3:])
    y = _plane(ctx, pictures, stacked, bias, window, groups)
    return ctx.emit("RESHAPE", y, shape=(x.shape[0], count, *y.shape[1:]))


def _case(x: Shape, weight: Shape, *, bias: bool = True, **attrs: Any) -> OnnxCase:
    constants = {"w": np.linspace(-1, 1, int(np.prod(weight)), dtype=np.float32).reshape(weight)}
    if bias:
        constants["b"] = np.linspace(-1, 2, weight[0], dtype=np.float32)
    return OnnxCase("Conv", {"x": x}, constants, attrs)


ONNX_EXAMPLES.add(
    "Conv",
    [
        _case((1, 5, 11, 13), (7, 5, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2]),
        _case((1, 6, 9, 8), (6, 1, 3, 5), pads=[0, 1, 2, 3], group=6, dilations=[2, 1]),
        _case((1, 6, 9, 8), (12, 1, 3, 2), bias=False, group=6),
        _case((1, 8, 9, 7), (10, 4, 3, 3), auto_pad="SAME_LOWER", group=2, strides=[1, 2]),
        _case((2, 5, 13), (7, 5, 3), pads=[1, 2], strides=[2]),
        _case((1, 6, 13), (12, 1, 4), bias=False, group=6, dilations=[2]),
        _case((1, 6, 14), (10, 3, 3), group=2, auto_pad="SAME_UPPER", strides=[2]),
        _case((1, 6, 14), (10, 3, 4), group=2, auto_pad="SAME_LOWER"),
        _case((2, 3, 5, 7, 8), (4, 3, 3, 2, 3), pads=[1, 0, 1, 2, 1, 1], strides=[2, 1, 2]),
        _case((1, 6, 7, 8, 9), (4, 3, 3, 2, 2), group=2, dilations=[2, 1, 3], auto_pad="VALID"),
        _case((1, 4, 5, 6, 7), (8, 1, 2, 3, 3), group=4, auto_pad="SAME_UPPER", strides=[1, 2, 3]),
        _case((1, 3, 5, 6, 7), (4, 3, 1, 3, 3), bias=False, strides=[2, 1, 1]),
    ],
)


# -- TFLite import ---------------------------------------------------------------------------------------------------
_AXES = ("d", "h", "w")


def _volume_steps(ctx: ImportContext) -> dict[str, tuple[int, ...]]:
    strides = tuple(int(option(ctx, f"stride_{a}", 0)) for a in _AXES)
    dilations = tuple(int(option(ctx, f"dilation_{a}_factor", 1)) for a in _AXES)
    if min(*strides, *dilations) < 1:
        raise ctx.refuse(f"strides {strides} and dilations {dilations}", AGAIN)
    return {"strides": strides, "dilations": dilations}


def _first(ctx: ImportContext, x: Tensor) -> Tensor:
    """[N, D, H, W, C] channels first."""
    return ctx.emit("TRANSPOSE", x, perm=(0, 4, 1, 2, 3))


def _given(name: str, data: Array) -> Tensor:
    data = np.ascontiguousarray(data, np.float32)
    return Tensor(name, data.shape, DType.FLOAT32, data)


def _bias(ctx: ImportContext, index: int) -> Tensor | None:
    there = len(ctx.inputs) > index and ctx.inputs[index] is not None
    return _given("bias", real_constant(ctx, index, "bias")) if there else None


@IMPORT_TFLITE.row("CONV_3D")
def import_conv_3d(ctx: ImportContext) -> list[Tensor]:
    """x [N, D, H, W, I], weight [KD, KH, KW, I, O]."""
    x, weight, same = operand(ctx, 0), real_constant(ctx, 1, "weights"), option(ctx, "padding", "SAME") == "SAME"
    attrs = {**_volume_steps(ctx), "auto_pad": "SAME_UPPER" if same else "VALID"}
    kernel = _given("weight", weight.transpose(4, 3, 0, 1, 2))
    y = ctx.call("Conv", _first(ctx, x), kernel, _bias(ctx, 2), **attrs)[0]
    return [fused(ctx, ctx.emit("TRANSPOSE", y, perm=(0, 2, 3, 4, 1)))]


@IMPORT_TFLITE.row("CONV_3D_TRANSPOSE")
def import_conv_3d_transpose(ctx: ImportContext) -> list[Tensor]:
    """Operands: shape of the result, weight [KD, KH, KW, O, I], x, bias. SAME cuts half of what is too much off."""
    size, weight, x = integers(ctx, 0, "shape of the result")[1:4], real_constant(ctx, 1, "weights"), operand(ctx, 2)
    steps, same = _volume_steps(ctx), option(ctx, "padding", "SAME") == "SAME"
    full = [
        (d - 1) * s + (k - 1) * dilation + 1
        for d, k, s, dilation in zip(x.shape[1:4], weight.shape, steps["strides"], steps["dilations"], strict=False)
    ]
    before = [max(f - s, 0) // 2 if same else 0 for f, s in zip(full, size, strict=True)]
    behind = [f - s - b for f, s, b in zip(full, size, before, strict=True)]
    attrs = {**steps, "pads": (*before, *(max(b, 0) for b in behind)), "output_padding": [max(-b, 0) for b in behind]}
    y = ctx.call(
        "ConvTranspose", _first(ctx, x), _given("weight", weight.transpose(4, 3, 0, 1, 2)), _bias(ctx, 3), **attrs
    )[0]
    return [fused(ctx, ctx.emit("TRANSPOSE", y, perm=(0, 2, 3, 4, 1)))]


_KERNEL = np.linspace(-0.5, 0.6, 3 * 2 * 3 * 2 * 4, dtype=np.float32)
_STEPS = {"stride_d": 1, "stride_h": 2, "stride_w": 1}
TFLITE_EXAMPLES.add(
    "CONV_3D",
    [
        TfliteCase(
            "CONV_3D",
            {"x": (1, 5, 6, 7, 2)},
            {"w": _KERNEL.reshape(3, 2, 3, 2, 4), "b": np.linspace(-1, 1, 4, dtype=np.float32)},
            {**_STEPS, **options},
            "Conv3DOptions",
        )
        for options in ({"padding": "VALID", "fused_activation_function": "RELU"}, {})
    ],
)
TFLITE_EXAMPLES.add(
    "CONV_3D_TRANSPOSE",
    [
        TfliteCase(
            "CONV_3D_TRANSPOSE",
            {"x": (1, 3, 4, 5, 2)},
            {"s": np.array([1, 3, 8, 5, 4], np.int32), "w": _KERNEL.reshape(3, 2, 3, 4, 2)},
            _STEPS,
            "Conv3DOptions",
            ("s", "w", "x"),
        )
    ],
)
