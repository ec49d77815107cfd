"""Layers that change the size of pictures: Upsample, Interp."""

from __future__ import annotations

import numpy as np

from sgs.frontends.caffe.context import CAFFE, LayerContext, Value
from sgs.frontends.caffe.layers.moving import part


def _picture(context: LayerContext, x: Value) -> Value:
    """Raises UserError unless the value is [N, C, H, W]."""
    if x.rank != 4:
        raise context.refuse(f"its input of shape {list(x.shape)} is not [N, C, H, W]", "check the prototxt")
    return x


@CAFFE.row("Upsample")
def upsample(context: LayerContext) -> list[Value]:
    """Repeats rows and columns. Where a stride is given, `scale` is what values are multiplied by, as in darknet."""
    p = context.layer.upsample_param
    if len(context.bottoms) == 2 or p.upsample_h or p.upsample_w or p.pad_out_h or p.pad_out_w:
        raise context.refuse(
            "it puts values back to where a Pooling layer had found them",
            "cut the network in front of it, or train with a Deconvolution, or an Upsample of one bottom, in its place",
        )
    x, factor = _picture(context, context.bottom), 1.0
    if p.HasField("stride") or p.HasField("stride_h") or p.HasField("stride_w"):
        height, width = (p.stride_h or p.stride or 1), (p.stride_w or p.stride or 1)
        factor = p.scale if p.HasField("scale") else 1.0
    elif p.HasField("scale_h") or p.HasField("scale_w"):
        height, width = (p.scale_h or 1), (p.scale_w or 1)
    else:
        height = width = p.scale if p.HasField("scale") else 1
    if min(height, width) < 1 or height != int(height) or width != int(width):
        raise context.refuse(
            f"it scales by {height:g} and {width:g}, which are not whole numbers", "use an Interp layer"
        )
    scales = context.const(np.array([1, 1, height, width], np.float32))
    told = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    y = context.emit("Resize", [x, None, scales], **told) if max(height, width) > 1 else x
    return [y if factor == 1 else context.emit("Mul", [y, context.const(np.array(factor, np.float32))])]


def _size(context: LayerContext, extents: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width of the result for those of what is read, once it is cut."""
    p = context.layer.interp_param
    if len(context.bottoms) == 2:
        return context.bottoms[1].shape[2:]
    shrink, zoom = p.HasField("shrink_factor"), p.HasField("zoom_factor")
    if not (shrink or zoom):
        return (p.height, p.width)
    if p.HasField("height") and p.HasField("width") and shrink == zoom:
        return (p.height, p.width)
    if min(p.shrink_factor, p.zoom_factor) < 1:
        raise context.refuse("shrink_factor and zoom_factor are 1 or more", "check the prototxt")
    small = [(extent - 1) // p.shrink_factor + 1 for extent in extents]
    return tuple(extent + (extent - 1) * (p.zoom_factor - 1) for extent in small)


@CAFFE.row("Interp")
def interp(context: LayerContext) -> list[Value]:
    """Bilinear, the corners of both pictures on each other; negative paddings cut rows and columns off first."""
    context.check_bottoms(1, 2)
    p, x = context.layer.interp_param, _picture(context, context.bottoms[0])
    if p.pad_beg > 0 or p.pad_end > 0:
        raise context.refuse("Caffe defines pad_beg and pad_end up to 0 only: they cut", "check the prototxt")
    begin, end = -p.pad_beg, -p.pad_end
    if begin + end >= min(x.shape[2:]):
        raise context.refuse(f"pad_beg and pad_end leave nothing of an input of {list(x.shape)}", "check the prototxt")
    x = part(context, x, {axis: (begin, x.shape[axis] - end) for axis in (2, 3)})
    size = _size(context, x.shape[2:])
    if len(size) != 2 or min(size) < 1:
        raise context.refuse("it does not say how large its result is", "give height and width, or zoom_factor")
    if size == x.shape[2:]:
        return [x]
    told = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    return [context.emit("Resize", [x, None, None, context.const([*x.shape[:2], *size])], **told)]
