"""MAX_POOL_2D and AVERAGE_POOL_2D: the largest value, or the mean, of a window.

x [N,H,W,C] → [N,OH,OW,C]. Attrs: kernel (h, w), strides (h, w), pads (top, left, bottom, right), activation. Padding
takes no part in the maximum, nor in the mean's count. The pads are any below the kernel's extents; .sim knows zeros
and what SAME means for the shape, before another MAX_POOL_2D it has a PADV2, and another AVERAGE_POOL_2D it cannot say.

Fixed: MAX_POOL_2D moves codes. AVERAGE_POOL_2D sums exactly and requantises once (ops/_sum.py), with
M = s_x / (s_y · count) where count is the number of elements under the window at that position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._layout import fixed
from sgs.ops._mac import activation_bounds, activation_float, real_bounds
from sgs.ops._sum import centred_codes, requantised, sum_multiplier
from sgs.ops._window import conv_output, cut_axes, patches, same_pads, window_part
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FIXED,
    FLOAT,
    IMPORT_ONNX,
    INFER,
    LAYOUT,
    ONNX_EXAMPLES,
    OPERATOR,
    QUANTISE,
    REFERENCE,
    SIM,
    TILE,
    Box,
    Cost,
    ImportContext,
    Lowering,
    OnnxCase,
    OperatorInfo,
    Part,
    QuantRule,
    SimRow,
    SimWindow,
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


# -- ONNX import -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Axis:
    """One axis of an ONNX pool. `before`/`after` are the source's pads; `result` the extent that comes out."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    result: int

    def taps(self) -> Array:
        """Positions [result, kernel] in the input that the windows read, negative or past the end over padding."""
        starts = np.arange(self.result)[:, None] * self.stride - self.before
        return starts + np.arange(self.kernel) * self.dilation

    @property
    def overhang(self) -> int:
        """How far the last window reaches past the input."""
        return max(int(self.taps().max()) + 1 - self.size, 0)

    def counts(self, *, with_pads: bool) -> Array:
        """[result] taps that count: those in the input, or `with_pads` in the padded input too."""
        low, high = (-self.before, self.size + self.after) if with_pads else (0, self.size)
        taps = self.taps()
        return np.asarray(((taps >= low) & (taps < high)).sum(1))


def _onnx_axis(ctx: ImportContext, index: int, size: int) -> _Axis:
    """Axis `index` of the windows: pads, auto_pad and ceil_mode resolved as the ONNX specification says."""
    rank = len(ctx.attrs["kernel_shape"])
    kernel = ctx.attrs["kernel_shape"][index]
    stride = (ctx.attrs.get("strides") or [1] * rank)[index]
    dilation = (ctx.attrs.get("dilations") or [1] * rank)[index]
    pads = ctx.attrs.get("pads") or [0] * (2 * rank)
    before, after = pads[index], pads[index + rank]
    span = (kernel - 1) * dilation + 1
    mode = ctx.attrs.get("auto_pad") or "NOTSET"
    if mode.startswith("SAME"):
        result = -(-size // stride)
        total = max((result - 1) * stride + span - size, 0)
        before = total // 2 if mode == "SAME_UPPER" else total - total // 2
        return _Axis(size, kernel, stride, dilation, before, total - before, result)
    if mode == "VALID":
        before = after = 0
    room = size + before + after - span
    result = (-(-room // stride) if ctx.attrs.get("ceil_mode", 0) else room // stride) + 1
    if ctx.attrs.get("ceil_mode", 0) and (result - 1) * stride >= size + before:
        result -= 1  # a window may not start in the right padding
    if room < 0 or result <= 0:
        raise ctx.refuse(f"a window of {span} does not fit an extent of {size} with pads {before}, {after}")
    return _Axis(size, kernel, stride, dilation, before, after, result)


def _spatial(ctx: ImportContext) -> tuple[Tensor, tuple[_Axis, _Axis]]:
    """The operand as NHWC and its two axes; a 1-D pool is a 2-D one of height 1."""
    x = ctx.inputs[0]
    assert x is not None
    rank = len(ctx.attrs["kernel_shape"])
    if rank not in (1, 2) or len(x.shape) != rank + 2:
        reason = f"pooling of a tensor of rank {len(x.shape)} over {rank} axes"
        raise ctx.refuse(reason, "1-D and 2-D pools are supported")
    if ctx.output_count > 1:
        raise ctx.refuse("the indices of the maxima are asked for", "remove the second output")
    axes = [_onnx_axis(ctx, i, x.shape[i + 2]) for i in range(rank)]
    if rank == 1:
        x = ctx.emit("RESHAPE", x, shape=(x.shape[0], x.shape[1], 1, x.shape[2]))
        axes.insert(0, _Axis(1, 1, 1, 1, 0, 0, 1))
    return ctx.nhwc(x), (axes[0], axes[1])


def _result(ctx: ImportContext, y: Tensor) -> list[Tensor]:
    """Back to the source's layout and rank."""
    y = ctx.nchw(y)
    if len(ctx.attrs["kernel_shape"]) == 1:
        y = ctx.emit("RESHAPE", y, shape=(y.shape[0], y.shape[1], y.shape[3]))
    return [y]


def _pool(ctx: ImportContext, op: str, x: Tensor, axes: Sequence[_Axis], pads: tuple[int, int, int, int]) -> Tensor:
    window = {"kernel": tuple(a.kernel for a in axes), "strides": tuple(a.stride for a in axes)}
    return ctx.emit(op, x, **window, pads=pads, activation="NONE")


def _spread(ctx: ImportContext, op: str, x: Tensor, axes: Sequence[_Axis], taps: Sequence[Array]) -> Tensor:
    """Dilated windows: every tap is gathered beside the others of its window, so that the windows lie end to end."""
    for i, positions in enumerate(taps):
        x = ctx.emit("GATHER", x, positions.reshape(-1).astype(np.int32), axis=i + 1)
    kernel = tuple(a.kernel for a in axes)
    return ctx.emit(op, x, kernel=kernel, strides=kernel, pads=(0, 0, 0, 0), activation="NONE")


@IMPORT_ONNX.row("MaxPool")
def import_max_pool(ctx: ImportContext) -> list[Tensor]:
    """Taps over padding take no part; where windows are dilated they repeat another tap of theirs instead."""
    x, axes = _spatial(ctx)
    if any((a.counts(with_pads=False) == 0).any() for a in axes):
        raise ctx.refuse("a window lies wholly over padding", "reduce the pads")
    if any(a.dilation > 1 for a in axes):
        return _result(ctx, _spread(ctx, MAX, x, axes, [_nearest_inside(a) for a in axes]))
    pads = (axes[0].before, axes[1].before, axes[0].overhang, axes[1].overhang)
    return _result(ctx, _pool(ctx, MAX, x, axes, pads))


def _nearest_inside(axis: _Axis) -> Array:
    """The taps [result, kernel] of an axis, those outside the input replaced by the nearest one of their window."""
    taps = axis.taps()
    inside = (taps >= 0) & (taps < axis.size)
    first, last = inside.argmax(1), axis.kernel - 1 - inside[:, ::-1].argmax(1)
    columns = np.clip(np.arange(axis.kernel), first[:, None], last[:, None])
    return np.take_along_axis(taps, columns, 1)


@IMPORT_ONNX.row("AveragePool")
def import_average_pool(ctx: ImportContext) -> list[Tensor]:
    """TFLite's VALID or SAME where they mean the same, else zeros in front; a constant factor where counts differ."""
    x, axes = _spatial(ctx)
    kernel, strides = tuple(a.kernel for a in axes), tuple(a.stride for a in axes)
    dilated = any(a.dilation > 1 for a in axes)
    top, left, bottom, right = *(a.before for a in axes), *(a.overhang for a in axes)
    with_pads = bool(ctx.attrs.get("count_include_pad", 0))
    counts = np.multiply.outer(*(a.counts(with_pads=with_pads) for a in axes))  # [OH, OW]
    plain = np.multiply.outer(*(a.counts(with_pads=False) for a in axes))
    pads = (top, left, bottom, right)
    same = not dilated and pads == same_pads(x.shape, kernel, strides, (1, 1))
    if same and np.array_equal(counts, plain):
        return _result(ctx, _pool(ctx, AVERAGE, x, axes, pads))
    if any(pads):
        x = ctx.emit("PAD", x, paddings=((0, 0), (top, bottom), (left, right), (0, 0)))
    if dilated:
        y = _spread(ctx, AVERAGE, x, axes, [a.taps() + a.before for a in axes])
    else:
        y = _pool(ctx, AVERAGE, x, axes, (0, 0, 0, 0))
    area = kernel[0] * kernel[1]
    if (counts != area).any():
        factor = (area / counts).astype(np.float32).reshape(1, *counts.shape, 1)
        y = ctx.emit("MUL", y, factor, activation="NONE")
    return _result(ctx, y)


def _cases(onnx_op: str, *more: dict[str, Any]) -> list[OnnxCase]:
    x: dict[str, tuple[int, ...]] = {"x": (1, 5, 11, 14)}
    forms: list[dict[str, Any]] = [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 2], "strides": [3, 2], "pads": [2, 0, 1, 1]},
        {"kernel_shape": [5, 3], "auto_pad": "SAME_UPPER", "strides": [2, 3]},
        {"kernel_shape": [3, 4], "auto_pad": "SAME_LOWER", "strides": [2, 1]},
        {"kernel_shape": [3, 4], "auto_pad": "VALID", "strides": [2, 3]},
        {"kernel_shape": [3, 3], "strides": [3, 3], "ceil_mode": 1},
        {"kernel_shape": [2, 3], "strides": [3, 3], "ceil_mode": 1, "pads": [1, 1, 1, 1]},
    ]
    cases = [OnnxCase(onnx_op, x, attrs=form) for form in (*forms, *more)]
    one = {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}
    return [*cases, OnnxCase(onnx_op, {"x": (2, 5, 11)}, attrs=one), OnnxCase(onnx_op, x, attrs=forms[1], opset=7)]


ONNX_EXAMPLES.add(
    "MaxPool", _cases("MaxPool", {"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [2, 1, 2, 1], "strides": [1, 2]})
)
ONNX_EXAMPLES.add(
    "AveragePool",
    [
        *_cases(
            "AveragePool",
            {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
            {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 0, 1, 2], "count_include_pad": 1, "ceil_mode": 1},
        ),
        OnnxCase(
            "AveragePool",
            {"x": (1, 5, 11, 14)},
            attrs={"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [1, 1, 2, 1]},
            opset=19,
        ),
    ],
)


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
