"""ConvTranspose of ONNX over one, two or three axes, as TRANSPOSE_CONV or, without a stride, CONV_2D.

Three axes: depths of the result that are a stride apart see the same depths of the operand through taps of the kernel
that are a stride apart. These taps are laid beside each other in the channels, and each such class is one operator over
N·D pictures; the classes are then interleaved.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.ops._spatial import (
    cut_axis,
    from_picture,
    from_volume,
    pad_axis,
    spatial_rank,
    stack_depth,
    to_picture,
    to_volume,
)
from sgs.ops._tflite import AGAIN, fused, integers, operand, option, real_constant
from sgs.ops._window import parted
from sgs.ops.conv_import import check_kernel
from sgs.ops.transpose_conv import OP, full_extent, same_crop, valid_crop
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

_SMALL_WEIGHT = 1 << 20  # values of a block-diagonal weight up to which it is the cheaper form
_FEW_GROUPS = 16  # more parts than these cost more than the zeros


def dilated(weight: Array, dilations: Sequence[int]) -> Array:
    """[C, M, *K] with dilation - 1 zeros between the taps."""
    extents = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    wide = np.zeros((*weight.shape[:2], *extents), weight.dtype)
    wide[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = weight
    return wide


@dataclass(frozen=True)
class Placement:
    """Where a result lies in the full one, along every axis: `start` and `size`, under `strides`."""

    strides: tuple[int, ...]
    start: tuple[int, ...]
    size: tuple[int, ...]

    def picture(self) -> Placement:
        """Of rows and columns; a single axis is that of a picture of height 1."""
        return Placement(
            *((unit, *values)[-2:] for unit, values in ((1, self.strides), (0, self.start), (1, self.size)))
        )


def _placement(ctx: ImportContext, extents: Sequence[int], kernel: Sequence[int]) -> Placement:
    """What is kept of the full result, by whichever of its attributes the node says it."""
    rank = len(extents)
    strides = tuple(int(s) for s in ctx.attrs.get("strides") or (1,) * rank)
    more = ctx.attrs.get("output_padding") or (0,) * rank
    pads = list(ctx.attrs.get("pads") or (0,) * (2 * rank))
    mode = ctx.attrs.get("auto_pad", "NOTSET") or "NOTSET"
    wanted = list(ctx.attrs.get("output_shape") or ())[-rank:]
    full = [full_extent(extents[i], kernel[i], strides[i]) + more[i] for i in range(rank)]
    if mode.startswith("SAME") and not wanted:
        wanted = [min(extents[i] * strides[i], full[i]) for i in range(rank)]  # onnxruntime: nothing is added
    if wanted:
        start = tuple(parted(max(full[i] - wanted[i], 0), mode)[0] for i in range(rank))
        return Placement(strides, start, tuple(wanted))
    if mode == "VALID":
        pads = [0] * (2 * rank)
    if min(pads) < 0:
        raise ctx.refuse(f"negative pads {pads}")
    size = tuple(full[i] - pads[i] - pads[i + rank] for i in range(rank))
    if min(size) <= 0:
        raise ctx.refuse(f"pads {pads} leave nothing of a result of {full}")
    return Placement(strides, tuple(pads[:rank]), size)


def _centred(weight: Array, extents: Sequence[int], place: Placement) -> Array | None:
    """The kernel [C, M, KH, KW] with zeros around it so that SAME cuts off what `place` does.

    None where that takes more zeros than taps.
    """
    zeros = []
    for axis in range(2):
        spare = full_extent(extents[axis], weight.shape[2 + axis], place.strides[axis]) - place.size[axis]
        before_end = 2 * place.start[axis] - spare  # SAME halves what is spare, so as much must go at the end
        zeros.append((max(-before_end - 1, 0), max(before_end, 0)))
    wide = np.pad(weight, [(0, 0), (0, 0), *zeros])
    if wide.size > 2 * weight.size or same_crop(extents, wide.shape[2:], place.strides, place.size) is None:
        return None
    return wide


def _emit(ctx: ImportContext, x: Tensor, weight: Array, bias: Array, place: Placement) -> Tensor:
    """x NHWC, weight [C, M, KH, KW]: CONV_2D without stride, else VALID, else SAME, else VALID and a slice."""
    convolved = _as_convolution(ctx, x, weight, bias, place)
    if convolved is not None:
        return convolved
    extents, size, cut = x.shape[1:3], place.size, False
    pads = valid_crop(extents, weight.shape[2:], place.strides, size) if place.start == (0, 0) else None
    if pads is None and (centred := _centred(weight, extents, place)) is not None:
        weight, pads = centred, same_crop(extents, centred.shape[2:], place.strides, size)
    if pads is None:
        ends = [place.start[i] + place.size[i] for i in range(2)]
        full = [full_extent(extents[i], weight.shape[2 + i], place.strides[i]) for i in range(2)]
        weight = np.pad(weight, [(0, 0), (0, 0), *((0, max(e - f, 0)) for e, f in zip(ends, full, strict=True))])
        size, pads, cut = (max(ends[0], full[0]), max(ends[1], full[1])), (0, 0, 0, 0), True
    data = np.ascontiguousarray(weight.transpose(1, 2, 3, 0), np.float32)
    y = ctx.emit(OP, x, data, bias, strides=place.strides, size=size, pads=pads, activation="NONE")
    if not cut:
        return y
    end = (y.shape[0], *(place.start[i] + place.size[i] for i in range(2)), y.shape[3])
    return ctx.emit("STRIDED_SLICE", y, begin=(0, *place.start, 0), end=end, strides=(1, 1, 1, 1))


def _block_diagonal(weight: Array, groups: int) -> Array:
    """Weights [C, M/groups, KH, KW] of all groups as one [C, M, KH, KW]."""
    depth, channels = weight.shape[0] // groups, weight.shape[1]
    dense = np.zeros((weight.shape[0], channels * groups, *weight.shape[2:]), weight.dtype)
    for g in range(groups):
        dense[g * depth : (g + 1) * depth, g * channels : (g + 1) * channels] = weight[g * depth : (g + 1) * depth]
    return dense


def _as_convolution(ctx: ImportContext, x: Tensor, weight: Array, bias: Array, place: Placement) -> Tensor | None:
    """Without a stride it is a convolution with the kernel turned by 180°; None where that would have negative pads."""
    kernel = weight.shape[2:]
    before = [kernel[i] - 1 - place.start[i] for i in range(2)]
    after = [place.start[i] + place.size[i] - x.shape[1 + i] for i in range(2)]
    if place.strides != (1, 1) or min(*before, *after) < 0:
        return None
    data = np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(1, 2, 3, 0), np.float32)
    return ctx.emit(
        "CONV_2D", x, data, bias, pads=(*before, *after), strides=(1, 1), dilations=(1, 1), activation="NONE"
    )


@IMPORT_ONNX.row("ConvTranspose")
def import_conv_transpose(ctx: ImportContext) -> list[Tensor]:
    """Dilations become zeros in the kernel; groups become zeros in the weight or, few and large, one operator each."""
    x, weight = ctx.inputs[0], ctx.constant(1, "weight")
    bias = ctx.constant(2, "bias") if len(ctx.inputs) > 2 else None
    assert x is not None and weight is not None
    rank = spatial_rank(ctx, x, "transposed convolution")
    groups = int(ctx.attrs.get("group", 1))
    check_kernel(ctx, weight)
    weight = dilated(weight, ctx.attrs.get("dilations") or (1,) * rank)
    place = _placement(ctx, x.shape[2:], weight.shape[2:])
    bias = np.zeros(weight.shape[1] * groups, np.float32) if bias is None else bias.astype(np.float32)
    return [transposed(ctx, x, weight, bias, place, groups)]


def transposed(ctx: ImportContext, x: Tensor, weight: Array, bias: Array, place: Placement, groups: int) -> Tensor:
    """x [N, C, *S], weight [C, M/groups, *K], bias [M] → [N, M, *size]."""
    rank = len(x.shape) - 2
    if rank == 3:
        return from_volume(ctx, _volume(ctx, to_volume(ctx, x), _block_diagonal(weight, groups), bias, place))
    weight = weight.reshape(*weight.shape[:2], *(1, *weight.shape[2:])[-2:])
    return from_picture(ctx, _plane(ctx, to_picture(ctx, x), weight, bias, place.picture(), groups), rank)


def _plane(ctx: ImportContext, x: Tensor, weight: Array, bias: Array, place: Placement, groups: int) -> Tensor:
    """x [N, H, W, C], weight [C, M/groups, KH, KW]."""
    if groups == 1 or groups > _FEW_GROUPS or weight.size * groups <= _SMALL_WEIGHT:
        return _emit(ctx, x, _block_diagonal(weight, groups), bias, place)
    parts = ctx.emit_many("SPLIT", [x], axis=3, num_splits=groups)
    kernels, offsets = np.split(weight, groups), np.split(bias, groups)
    made = [_emit(ctx, p, k, b, place) for p, k, b in zip(parts, kernels, offsets, strict=True)]
    return ctx.emit("CONCATENATION", *made, axis=3)


def _volume(ctx: ImportContext, x: Tensor, weight: Array, bias: Array, place: Placement) -> Tensor:
    """x [N, D, H, W, C], weight [C, M, KD, KH, KW] → [N, OD, OH, OW, M].

    Depth j · stride + p of the full result is the sum over t of depths j - t through tap t · stride + p.
    """
    stride, first, depths = place.strides[0], place.start[0], place.size[0]
    taps = -(-weight.shape[2] // stride)
    weight = np.pad(weight, [(0, 0), (0, 0), (0, taps * stride - weight.shape[2]), (0, 0), (0, 0)])
    begin = first // stride
    count = (first + depths - 1) // stride - begin + 1
    before, after = max(taps - 1 - begin, 0), max(begin + count - x.shape[1], 0)
    starts = [begin - t + before for t in range(taps)]
    pictures = stack_depth(ctx, pad_axis(ctx, x, 1, before, after), starts, count, 1, 1)
    classes = []
    for p in range(stride):
        kernel = weight[:, :, p::stride].transpose(2, 0, 1, 3, 4)  # [taps, C, M, KH, KW]
        classes.append(_emit(ctx, pictures, kernel.reshape(-1, *kernel.shape[2:]), bias, place.picture()))
    y, picture = classes[0], classes[0].shape[1:]
    if stride > 1:
        flat = (x.shape[0] * count, 1, int(np.prod(picture)))
        y = ctx.emit("CONCATENATION", *(ctx.emit("RESHAPE", c, shape=flat) for c in classes), axis=1)
    y = ctx.emit("RESHAPE", y, shape=(x.shape[0], count * stride, *picture))
    return cut_axis(ctx, y, 1, first - begin * stride, depths)


def _case(shape: tuple[int, ...], weight: tuple[int, ...], bias: int = 0, **attrs: Any) -> OnnxCase:
    constants = {"w": np.linspace(-1, 1, int(np.prod(weight)), dtype=np.float32).reshape(weight)}
    if bias:
        constants["b"] = np.linspace(1, 2, bias, dtype=np.float32)
    return OnnxCase("ConvTranspose", {"x": shape}, constants, attrs)


ONNX_EXAMPLES.add(
    "ConvTranspose",
    [
        _case((1, 5, 6, 7), (5, 3, 2, 2), 3, strides=[2, 2]),
        _case((1, 5, 6, 7), (5, 3, 4, 4), 3, strides=[2, 2], pads=[1, 1, 1, 1]),
        _case((1, 5, 6, 7), (5, 3, 3, 3), 3, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
        _case((1, 5, 6, 7), (5, 3, 3, 5), strides=[2, 3], pads=[0, 1, 1, 2]),
        _case((1, 5, 6, 7), (5, 3, 2, 2), 3, strides=[3, 3], output_padding=[2, 1]),
        _case((1, 5, 6, 7), (5, 3, 3, 4), 3, strides=[2, 2], auto_pad="SAME_UPPER"),
        _case((1, 5, 6, 7), (5, 3, 3, 4), strides=[2, 2], auto_pad="SAME_LOWER"),
        _case((1, 5, 6, 7), (5, 3, 3, 3), strides=[2, 2], output_shape=[12, 14]),
        _case((1, 5, 6, 7), (5, 3, 3, 2), dilations=[2, 3], pads=[1, 1, 1, 1]),
        _case((1, 5, 6, 7), (5, 3, 4, 4), 3, strides=[2, 2], pads=[3, 2, 3, 4]),
        _case((1, 6, 5, 7), (6, 1, 4, 4), 6, strides=[2, 2], pads=[1, 1, 1, 1], group=6),
        _case((1, 6, 5, 7), (6, 2, 3, 3), 6, group=3),
        _case((2, 5, 7), (5, 3, 4), 3, strides=[2], pads=[1, 1]),
        _case((1, 4, 7), (4, 3, 3), strides=[3], output_padding=[1], group=2, dilations=[2]),
        _case((2, 3, 4, 5, 6), (3, 4, 2, 2, 2), 4, strides=[2, 2, 2]),
        _case(
            (1, 3, 4, 5, 6), (3, 4, 3, 4, 3), 4, strides=[2, 2, 1], pads=[1, 1, 1, 0, 1, 1], output_padding=[1, 0, 0]
        ),
        _case((1, 4, 3, 5, 6), (4, 2, 2, 3, 3), strides=[3, 2, 2], group=2, pads=[2, 0, 1, 0, 1, 0]),
        _case((1, 3, 4, 5, 6), (3, 2, 3, 2, 3), 2, dilations=[2, 1, 1], pads=[1, 0, 1, 2, 1, 1]),
    ],
)


# -- TFLite import ---------------------------------------------------------------------------------------------------
@IMPORT_TFLITE.row("TRANSPOSE_CONV")
def import_tflite(ctx: ImportContext) -> list[Tensor]:
    """Operands: shape of the result, weight [O, KH, KW, I], x, bias. SAME cuts half of what is too much off."""
    size = integers(ctx, 0, "shape of the result")[1:3]
    strides = (int(option(ctx, "stride_h", 0)), int(option(ctx, "stride_w", 0)))
    return [_tflite_transposed(ctx, 2, 1, 3, strides, size, same=option(ctx, "padding", "SAME") == "SAME")]


@IMPORT_TFLITE.row("custom Convolution2DTransposeBias")
def import_mediapipe(ctx: ImportContext) -> list[Tensor]:
    """MediaPipe's operator. Operands: x, weight [O, KH, KW, I], bias; options: padding (1 SAME, 2 VALID), stride along
    the width, stride along the height, as 32-bit integers."""
    packed = np.asarray(option(ctx, "packed", np.zeros(0, np.uint8)), np.uint8).tobytes()
    if len(packed) < 12:
        raise ctx.refuse("its options are too short", AGAIN)
    padding, width, height = struct.unpack("<3i", packed[:12])
    x, weight, strides = operand(ctx, 0), operand(ctx, 1), (height, width)
    same = padding == 1
    size = [
        d * s if same else d * s + max(k - s, 0)
        for d, s, k in zip(x.shape[1:3], strides, weight.shape[1:3], strict=True)
    ]
    return [_tflite_transposed(ctx, 0, 1, 2, strides, size, same=same)]


def _tflite_transposed(
    ctx: ImportContext,
    x_at: int,
    weight_at: int,
    bias_at: int,
    strides: tuple[int, int],
    size: Sequence[int],
    *,
    same: bool,
) -> Tensor:
    x, weight = operand(ctx, x_at), real_constant(ctx, weight_at, "weights")
    has_bias = len(ctx.inputs) > bias_at and ctx.inputs[bias_at] is not None
    bias = real_constant(ctx, bias_at, "bias") if has_bias else np.zeros(weight.shape[0], np.float32)
    if min(*strides, *size) < 1 or x.shape[3] != weight.shape[3]:
        raise ctx.refuse(f"strides {strides}, size {size}, weights of shape {weight.shape} for {x.shape}")
    spare = [max(full_extent(x.shape[1 + i], weight.shape[1 + i], strides[i]) - size[i], 0) for i in range(2)]
    place = Placement(strides, tuple(s // 2 if same else 0 for s in spare), (size[0], size[1]))
    return fused(ctx, _emit(ctx, x, weight.transpose(3, 0, 1, 2), bias, place))


def _tflite_case(x: Shape, weight: Shape, size: tuple[int, int], *, bias: bool = False, **options: Any) -> TfliteCase:
    data = np.linspace(-0.6, 0.5, int(np.prod(weight)), dtype=np.float32).reshape(weight)
    constants = {"s": np.array([x[0], *size, weight[0]], np.int32), "w": data}
    constants |= {"b": np.linspace(-1, 1, weight[0], dtype=np.float32)} if bias else {}
    order = ("s", "w", "x", "b") if bias else ("s", "w", "x")
    return TfliteCase("TRANSPOSE_CONV", {"x": x}, constants, options, "TransposeConvOptions", order)


TFLITE_EXAMPLES.add(
    "TRANSPOSE_CONV",
    [
        _tflite_case((1, 5, 7, 3), (4, 3, 3, 3), (10, 14), stride_h=2, stride_w=2),
        _tflite_case((1, 5, 7, 3), (4, 3, 2, 3), (11, 14), bias=True, stride_h=2, stride_w=2, padding="VALID"),
        _tflite_case((1, 5, 7, 3), (4, 3, 3, 3), (9, 13), stride_h=2, stride_w=2),
        _tflite_case((1, 5, 7, 3), (4, 3, 3, 3), (5, 7), bias=True, stride_h=1, stride_w=1),
    ],
)


def _mediapipe_judge(x: Array, weight: Array, bias: Array) -> list[Array]:
    """Stride 2, kernel 2×2, SAME: nothing overlaps."""
    y = np.einsum("nhwi,oabi->nhawbo", x, weight)
    return [y.reshape(x.shape[0], 2 * x.shape[1], 2 * x.shape[2], -1) + bias]


TFLITE_EXAMPLES.add(
    "custom Convolution2DTransposeBias",
    [
        TfliteCase(
            "custom Convolution2DTransposeBias",
            {"x": (1, 5, 7, 3)},
            {
                "w": np.linspace(-0.6, 0.5, 48, dtype=np.float32).reshape(4, 2, 2, 3),
                "b": np.linspace(-1, 1, 4, dtype=np.float32),
            },
            packed=struct.pack("<3i", 1, 2, 2),
            judge=_mediapipe_judge,
        )
    ],
)
