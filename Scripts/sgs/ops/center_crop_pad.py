"""ONNX CenterCropPad: axes cut or padded with 0 to given extents, as much on either side."""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Tensor
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase


@IMPORT_ONNX.row("CenterCropPad")
def import_center_crop_pad(ctx: ImportContext) -> list[Tensor]:
    """A slice, then a PAD; one more is cut off or padded at the end where the difference is odd."""
    x, wanted = ctx.inputs[0], ctx.constant(1, "shape")
    assert x is not None and wanted is not None
    rank = len(x.shape)
    axes = [int(a) % rank for a in ctx.attrs.get("axes") or range(rank)]
    begin, end, paddings = [0] * rank, list(x.shape), [(0, 0)] * rank
    for axis, extent in zip(axes, (int(d) for d in wanted.reshape(-1)), strict=True):
        spare = x.shape[axis] - extent
        if spare > 0:
            begin[axis] = spare // 2
            end[axis] = begin[axis] + extent
        else:
            paddings[axis] = (-spare // 2, -spare - -spare // 2)
    if any(b >= e for b, e in zip(begin, end, strict=True)):
        raise ctx.refuse(f"a shape {wanted.tolist()} that leaves nothing")
    y = x
    if tuple(end) != x.shape:
        y = ctx.emit("STRIDED_SLICE", y, begin=tuple(begin), end=tuple(end), strides=(1,) * rank)
    return [ctx.emit("PAD", y, paddings=tuple(paddings)) if any(map(any, paddings)) else y]


ONNX_EXAMPLES.add(
    "CenterCropPad",
    [
        OnnxCase("CenterCropPad", {"x": (1, 5, 7, 6)}, {"s": np.array([4, 10])}, {"axes": [-2, 3]}, opset=18),
        OnnxCase("CenterCropPad", {"x": (5, 7)}, {"s": np.array([2, 7])}, opset=18),
    ],
)
