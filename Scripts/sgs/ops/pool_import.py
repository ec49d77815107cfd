"""MaxPool and AveragePool of ONNX over one, two or three axes, as MAX_POOL_2D and AVERAGE_POOL_2D.

Three axes are pooled in two steps, rows and columns of every picture, then depth: the largest of largest values, and
the mean of means, whose counts multiply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.ops._import import multiply
from sgs.ops._spatial import from_picture, from_volume, spatial_rank, to_picture, to_volume
from sgs.ops._window import parted, same_pads, same_total
from sgs.ops.pool import AVERAGE, MAX
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase, Shape


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
        total = same_total(size, kernel, stride, dilation)
        if total < -1:  # TensorFlow starts at 0 there, the ONNX specification has negative pads
            reason = f"auto_pad {mode} with windows of {span} every {stride} of {size}, which has two meanings"
            raise ctx.refuse(reason, "give pads instead")
        return _Axis(size, kernel, stride, dilation, *parted(max(total, 0), mode), -(-size // stride))
    if mode == "VALID":
        before = after = 0
    room = size + before + after - span
    result = (-(-room // stride) if ctx.attrs.get("ceil_mode", 0) else room // stride) + 1
    if ctx.attrs.get("ceil_mode", 0) and (result - 1) * stride >= size + before:
        result -= 1  # a window may not start in the right padding
    if room < 0 or result <= 0:
        raise ctx.refuse(f"a window of {span} does not fit an extent of {size} with pads {before}, {after}")
    return _Axis(size, kernel, stride, dilation, before, after, result)


def _whole(size: int) -> _Axis:
    """An axis that nothing is pooled along."""
    return _Axis(size, 1, 1, 1, 0, 0, size)


_Pool = Callable[[ImportContext, Tensor, Sequence[_Axis]], Tensor]  # over rows and columns of NHWC pictures


def pooled(ctx: ImportContext, x: Tensor, pool: _Pool) -> Tensor:
    """x [N, C, *S] pooled by `pool` over all its spatial axes, by the window of the node's attributes."""
    rank = spatial_rank(ctx, x, "pooling")
    if len(ctx.attrs["kernel_shape"]) != rank:
        raise ctx.refuse(f"a window over {len(ctx.attrs['kernel_shape'])} axes of a tensor of shape {x.shape}")
    axes = [_onnx_axis(ctx, i, x.shape[i + 2]) for i in range(rank)]
    if rank < 3:
        return from_picture(ctx, pool(ctx, to_picture(ctx, x), [_whole(1), *axes][-2:]), rank)
    volume = to_volume(ctx, x)
    batch, depth, height, width, channels = volume.shape
    y = ctx.emit("RESHAPE", volume, shape=(batch * depth, height, width, channels))
    y = pool(ctx, y, axes[1:])
    pixels = y.shape[1] * y.shape[2]
    shape = (batch, axes[0].result, *y.shape[1:])
    y = pool(ctx, ctx.emit("RESHAPE", y, shape=(batch, depth, pixels, channels)), [axes[0], _whole(pixels)])
    return from_volume(ctx, ctx.emit("RESHAPE", y, shape=shape))


def _pads(axes: Sequence[_Axis]) -> tuple[int, int, int, int]:
    """What the windows read beyond the picture: (top, left, bottom, right)."""
    return axes[0].before, axes[1].before, axes[0].overhang, axes[1].overhang


def _emit(ctx: ImportContext, op: str, x: Tensor, axes: Sequence[_Axis], pads: tuple[int, int, int, int]) -> Tensor:
    window = {"kernel": tuple(a.kernel for a in axes), "strides": tuple(a.stride for a in axes)}
    return ctx.emit(op, x, **window, pads=pads, activation="NONE")


def _spread(ctx: ImportContext, op: str, x: Tensor, axes: Sequence[_Axis], taps: Sequence[Array]) -> Tensor:
    """Dilated windows: every tap is gathered beside the others of its window, so that the windows lie end to end."""
    for i, positions in enumerate(taps):
        if not np.array_equal(positions.reshape(-1), np.arange(x.shape[i + 1])):
            x = ctx.emit("GATHER", x, positions.reshape(-1).astype(np.int32), axis=i + 1)
    kernel = tuple(a.kernel for a in axes)
    return ctx.emit(op, x, kernel=kernel, strides=kernel, pads=(0, 0, 0, 0), activation="NONE")


# -- MaxPool -----------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("MaxPool")
def import_max_pool(ctx: ImportContext) -> list[Tensor]:
    """Taps over padding take no part; where windows are dilated they repeat another tap of theirs instead."""
    assert ctx.inputs[0] is not None
    if ctx.reader_of(1):
        return _max_pool_with_places(ctx, ctx.inputs[0])
    return [pooled(ctx, ctx.inputs[0], _max_pool)]


def _max_pool_with_places(ctx: ImportContext, x: Tensor) -> list[Tensor]:
    """The maxima and where they are in x [N, C, *S], in the source's layout."""
    axes = [_onnx_axis(ctx, i, d) for i, d in enumerate(x.shape[2:])]
    return ctx.emit_many(
        "MAX_POOL_WITH_ARGMAX",
        [x],
        kernel=tuple(a.kernel for a in axes),
        strides=tuple(a.stride for a in axes),
        dilations=tuple(a.dilation for a in axes),
        pads=(*(a.before for a in axes), *(a.overhang for a in axes)),
        column_major=bool(ctx.attrs.get("storage_order", 0)),
    )


def _max_pool(ctx: ImportContext, x: Tensor, axes: Sequence[_Axis]) -> Tensor:
    if any((a.counts(with_pads=False) == 0).any() for a in axes):
        raise ctx.refuse("a window lies wholly over padding", "reduce the pads")
    if any(a.dilation > 1 for a in axes):
        return _spread(ctx, MAX, x, axes, [_nearest_inside(a) for a in axes])
    return _emit(ctx, MAX, x, axes, _pads(axes))


def _nearest_inside(axis: _Axis) -> Array:
    """The taps [result, kernel] of an axis, those outside the input replaced by the nearest one of their window."""
    taps = axis.taps()
    inside = (taps >= 0) & (taps < axis.size)
    first, last = inside.argmax(1), axis.kernel - 1 - inside[:, ::-1].argmax(1)
    columns = np.clip(np.arange(axis.kernel), first[:, None], last[:, None])
    return np.take_along_axis(taps, columns, 1)


# -- AveragePool -------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("AveragePool")
def import_average_pool(ctx: ImportContext) -> list[Tensor]:
    """TFLite's VALID or SAME where they mean the same, else zeros in front; a constant factor where counts differ."""
    assert ctx.inputs[0] is not None
    return [pooled(ctx, ctx.inputs[0], _average_pool)]


def _average_pool(ctx: ImportContext, x: Tensor, axes: Sequence[_Axis]) -> Tensor:
    with_pads = bool(ctx.attrs.get("count_include_pad", 0))
    counts = np.multiply.outer(*(a.counts(with_pads=with_pads) for a in axes))  # [OH, OW]
    plain = np.multiply.outer(*(a.counts(with_pads=False) for a in axes))
    if not counts.all():
        raise ctx.refuse("a window lies wholly over padding", "reduce the pads")
    pads = _pads(axes)
    kernel, strides = tuple(a.kernel for a in axes), tuple(a.stride for a in axes)
    same = all(a.dilation == 1 for a in axes) and pads == same_pads(x.shape, kernel, strides, (1, 1))
    if same and np.array_equal(counts, plain):
        return _emit(ctx, AVERAGE, x, axes, pads)
    y, area = mean_with_zeros(ctx, x, axes), kernel[0] * kernel[1]
    if (counts == area).all():
        return y
    factor = (area / counts).astype(np.float32).reshape(1, *counts.shape, 1)
    return multiply(ctx, y, factor)


def mean_with_zeros(ctx: ImportContext, x: Tensor, axes: Sequence[_Axis]) -> Tensor:
    """The mean of every window, all its taps over padding counting as zeros."""
    pads = top, left, bottom, right = _pads(axes)
    if any(pads):
        x = ctx.emit("PAD", x, paddings=((0, 0), (top, bottom), (left, right), (0, 0)))
    if any(a.dilation > 1 for a in axes):
        return _spread(ctx, AVERAGE, x, axes, [a.taps() + a.before for a in axes])
    return _emit(ctx, AVERAGE, x, axes, (0, 0, 0, 0))


def _cases(onnx_op: str, *more: dict[str, Any]) -> list[OnnxCase]:
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
    cases = [OnnxCase(onnx_op, _X, attrs=form) for form in (*forms, *more)]
    cases += [OnnxCase(onnx_op, {"x": (2, 5, 11)}, attrs={"kernel_shape": [3], "strides": [2], "pads": [1, 1]})]
    cases += [OnnxCase(onnx_op, {"x": (2, 3, 6, 7, 9)}, attrs=form) for form in _VOLUMES]
    return [*cases, OnnxCase(onnx_op, _X, attrs=forms[1], opset=7)]


_X: dict[str, Shape] = {"x": (1, 5, 11, 14)}
_VOLUMES: list[dict[str, Any]] = [
    {"kernel_shape": [2, 3, 3], "strides": [2, 1, 2], "pads": [0, 1, 1, 1, 1, 1]},
    {"kernel_shape": [3, 1, 1], "auto_pad": "SAME_UPPER", "strides": [2, 1, 1]},
    {"kernel_shape": [2, 2, 3], "strides": [2, 2, 3], "ceil_mode": 1},
]
_DILATED = {"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [2, 1, 2, 1], "strides": [1, 2]}
_WITH_PLACES = {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 0, 1], "ceil_mode": 1}
_DILATED_VOLUME = {"kernel_shape": [2, 1, 2], "dilations": [3, 1, 2], "strides": [1, 2, 2], "pads": [1, 0, 0, 1, 0, 1]}
_WITH_PADS: list[dict[str, Any]] = [
    {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 0, 1, 2], "count_include_pad": 1, "ceil_mode": 1},
]
ONNX_EXAMPLES.add(
    "MaxPool",
    [
        *_cases("MaxPool", _DILATED),
        OnnxCase("MaxPool", {"x": (1, 2, 7, 9)}, attrs=_WITH_PLACES, outputs=2),
        OnnxCase("MaxPool", {"x": (1, 3, 6, 7, 9)}, attrs=_DILATED_VOLUME),
    ],
)
ONNX_EXAMPLES.add(
    "AveragePool",
    [
        *_cases("AveragePool", *_WITH_PADS),
        OnnxCase(
            "AveragePool", _X, attrs={"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [1, 1, 2, 1]}, opset=19
        ),
        OnnxCase("AveragePool", {"x": (1, 3, 6, 7, 9)}, attrs={**_DILATED_VOLUME, "count_include_pad": 1}, opset=19),
    ],
)
