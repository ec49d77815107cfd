"""Layers that only move values: Slice, Crop, Permute, Tile, Reverse, ShuffleChannel, Reorg."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from sgs.frontends.caffe.context import CAFFE, LayerContext, Value

_START = -(2**31)  # before every first element, for a slice that runs backwards


def part(context: LayerContext, value: Value, bounds: dict[int, tuple[int, int]]) -> Value:
    """The elements from begin to end along each axis that `bounds` names; the value itself if those are all."""
    axes = [axis for axis, found in bounds.items() if found != (0, value.shape[axis])]
    if not axes:
        return value
    begins, ends = zip(*(bounds[axis] for axis in axes), strict=True)
    return context.emit("Slice", [value, *(context.const(list(numbers)) for numbers in (begins, ends, axes))])


def _cuts(context: LayerContext, extent: int, points: Sequence[int], tops: int) -> list[int]:
    """Extents of the tops, from the places where the axis is cut, or all the same."""
    if not points:
        if extent % tops:
            raise context.refuse(f"its axis of {extent} cannot be cut into {tops} equal parts", "give slice_point")
        return [extent // tops] * tops
    places = [0, *points, extent]
    parts = [end - begin for begin, end in zip(places, places[1:], strict=False)]
    if len(parts) != tops or min(parts) <= 0:
        told = ", ".join(map(str, points))
        raise context.refuse(
            f"slice_point {told} does not cut an axis of {extent} into its {tops} tops", "check the prototxt"
        )
    return parts


@CAFFE.row("Slice")
def slice_(context: LayerContext) -> list[Value]:
    p, x, tops = context.layer.slice_param, context.bottom, context.positive(len(context.layer.top), "number of tops")
    axis = context.axis(p.slice_dim if p.HasField("slice_dim") else p.axis)
    extents = _cuts(context, x.shape[axis], p.slice_point, tops)
    return [x] if tops == 1 else context.emit_many("Split", [x, context.const(extents)], tops, axis=axis)


@CAFFE.row("Crop")
def crop(context: LayerContext) -> list[Value]:
    """Of bottom 1 only the extents matter."""
    context.check_bottoms(2)
    p, (x, like) = context.layer.crop_param, context.bottoms
    axis = context.axis(p.axis)
    count = x.rank - axis
    offsets = list(p.offset) or [0]
    offsets = offsets * count if len(offsets) == 1 else offsets
    if len(offsets) != count or like.rank != x.rank:
        reason = f"{len(offsets)} offsets and bottoms of {x.rank} and {like.rank} axes do not fit its axis {p.axis}"
        raise context.refuse(reason, "check the prototxt")
    bounds = {axis + i: (begin, begin + like.shape[axis + i]) for i, begin in enumerate(offsets)}
    outside = [i for i, (_, end) in bounds.items() if end > x.shape[i]]
    if outside:
        end, extent = bounds[outside[0]][1], x.shape[outside[0]]
        reason = f"what it cuts out ends at {end} of axis {outside[0]}, which has only {extent}"
        raise context.refuse(reason, "check its offset, and the extents of both bottoms")
    return [part(context, x, bounds)]


@CAFFE.row("Permute")
def permute(context: LayerContext) -> list[Value]:
    """Axes that `order` leaves out follow in their order."""
    x, order = context.bottom, list(context.layer.permute_param.order)
    if len(set(order)) != len(order) or any(axis >= x.rank for axis in order):
        raise context.refuse(f"order {order} does not name axes of its input, which has {x.rank}", "check the prototxt")
    return [context.emit("Transpose", [x], perm=[*order, *(axis for axis in range(x.rank) if axis not in order)])]


@CAFFE.row("Tile")
def tile(context: LayerContext) -> list[Value]:
    p, x = context.layer.tile_param, context.bottom
    axis, tiles = context.axis(p.axis), context.positive(p.tiles, "tiles")
    return [context.emit("Tile", [x, context.const([tiles if i == axis else 1 for i in range(x.rank)])])]


@CAFFE.row("Reverse")
def reverse(context: LayerContext) -> list[Value]:
    """Without an axis, along the first."""
    x = context.bottom
    axes = [context.axis(axis) for axis in context.layer.reverse_param.axis or [0]]
    if len(set(axes)) != len(axes):
        raise context.refuse("it names an axis twice", "check the prototxt")
    bounds = [[place] * len(axes) for place in (-1, _START)]
    return [context.emit("Slice", [x, *map(context.const, (*bounds, axes, [-1] * len(axes)))])]


@CAFFE.row("ShuffleChannel")
def shuffle_channel(context: LayerContext) -> list[Value]:
    """Channels as [group, C / group], transposed."""
    x, group = context.bottom, context.layer.shuffle_channel_param.group
    if x.rank < 2 or not group or x.shape[1] % group:
        raise context.refuse(
            f"its input of shape {list(x.shape)} has no {group} groups of channels", "check the prototxt"
        )
    n, channels, *rest = x.shape
    apart = context.reshape(x, (n, group, channels // group, *rest))
    turned = context.emit("Transpose", [apart], perm=[0, 2, 1, *range(3, apart.rank)])
    return [context.reshape(turned, x.shape)]


@CAFFE.row("Reorg")
def reorg(context: LayerContext) -> list[Value]:
    """darknet's. Reversed it moves channels to places. Forward it does the inverse of that to another array in the same
    memory: it reads [C, H, W] as [C / s², H s, W s], moves places to channels, and calls the result
    [C s², H / s, W / s]. This is what networks were trained with.
    """
    p, x = context.layer.reorg_param, context.bottom
    s = p.stride if p.HasField("stride") else 2
    if x.rank != 4 or s < 1 or x.shape[1] % s**2 or (not p.reverse and (x.shape[2] % s or x.shape[3] % s)):
        raise context.refuse(f"its input of shape {list(x.shape)} has no parts of stride {s}", "check the prototxt")
    n, channels, height, width = x.shape
    if p.reverse:
        return [context.emit("DepthToSpace", [x], blocksize=s, mode="DCR")]
    memory = context.reshape(x, (n, channels // s**2 * height, s, width, s))
    moved = context.emit("Transpose", [memory], perm=[0, 2, 4, 1, 3])
    assert prod(moved.shape) == prod(x.shape)
    return [context.reshape(moved, (n, channels * s**2, height // s, width // s))]
