"""ONNX tensors of one to three spatial axes, [N, C, *S], as the NHWC pictures that window operators take.

One axis is a picture of height 1. Three axes, [N, D, H, W, C] here, are N·D pictures; a window's depth is a step of its
own: either every tap of it is laid beside the others in the channels (`stack_depth`), or the pictures are turned to
[N, D, H·W, C] for a window along D alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from sgs.ir.graph import Tensor
from sgs.ops._import import reshaped
from sgs.registry import ImportContext

_CHANNELS_LAST, _CHANNELS_FIRST = (0, 2, 3, 4, 1), (0, 4, 1, 2, 3)
LONGEST = 3  # spatial axes


def spatial_rank(ctx: ImportContext, x: Tensor, what: str) -> int:
    """Number of spatial axes of x [N, C, *S]; refuses what is no picture. `what` names the operator in the message."""
    rank = len(x.shape) - 2
    if not 1 <= rank <= LONGEST:
        raise ctx.refuse(f"{what} of a tensor of rank {len(x.shape)}", "1-D, 2-D and 3-D are supported")
    return rank


def to_picture(ctx: ImportContext, x: Tensor) -> Tensor:
    """[N, C, W] or [N, C, H, W] → [N, H, W, C], H being 1 where there is none."""
    if len(x.shape) == 3:
        x = ctx.emit("RESHAPE", x, shape=(*x.shape[:2], 1, x.shape[2]))
    return ctx.nhwc(x)


def from_picture(ctx: ImportContext, y: Tensor, rank: int) -> Tensor:
    """The inverse of `to_picture` for `rank` spatial axes."""
    y = ctx.nchw(y)
    return y if rank == 2 else ctx.emit("RESHAPE", y, shape=(*y.shape[:2], y.shape[3]))


def to_volume(ctx: ImportContext, x: Tensor) -> Tensor:
    """[N, C, D, H, W] → [N, D, H, W, C]."""
    return ctx.emit("TRANSPOSE", x, perm=_CHANNELS_LAST)


def from_volume(ctx: ImportContext, y: Tensor) -> Tensor:
    """[N, D, H, W, C] → [N, C, D, H, W]."""
    return ctx.emit("TRANSPOSE", y, perm=_CHANNELS_FIRST)


def pad_axis(ctx: ImportContext, x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """x with zeros in front of and behind an axis."""
    if not before and not after:
        return x
    paddings = tuple((before, after) if a == axis else (0, 0) for a in range(len(x.shape)))
    return ctx.emit("PAD", x, paddings=paddings)


def cut_axis(ctx: ImportContext, x: Tensor, axis: int, begin: int, count: int, step: int = 1) -> Tensor:
    """`count` entries of an axis, `step` apart."""
    if (begin, count, step) == (0, x.shape[axis], 1):
        return x
    begins, ends, strides = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
    begins[axis], ends[axis], strides[axis] = begin, begin + (count - 1) * step + 1, step
    return ctx.emit("STRIDED_SLICE", x, begin=tuple(begins), end=tuple(ends), strides=tuple(strides))


def stack_depth(ctx: ImportContext, x: Tensor, starts: Sequence[int], count: int, step: int, groups: int) -> Tensor:
    """[N, D, H, W, C] → [N·count, H, W, taps·C]: for each of `count` depths, `step` apart, one picture a tap.

    Tap k of depth i is picture starts[k] + i · step. Channels are ordered by group, tap, channel of the group.
    """
    batch, _, height, width, channels = x.shape
    pictures = (batch * count, height, width, len(starts) * channels)
    taps = [cut_axis(ctx, x, 1, start, count, step) for start in starts]
    if len(taps) > 1:
        grouped = (batch * count * height * width, groups, channels // groups)
        taps = [ctx.emit("RESHAPE", tap, shape=grouped if groups > 1 else (*pictures[:3], channels)) for tap in taps]
        taps = [ctx.emit("CONCATENATION", *taps, axis=len(taps[0].shape) - 1)]
    return reshaped(ctx, taps[0], pictures)
