"""Col2Im of ONNX: blocks added up where they overlap, as a transposed convolution of every channel on its own whose
kernels, one an entry of the block, put that entry in its place."""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Tensor
from sgs.ops._spatial import LONGEST
from sgs.ops._window import extent
from sgs.ops.transpose_conv_import import Placement, dilated, transposed
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase


@IMPORT_ONNX.row("Col2Im")
def import_col2im(ctx: ImportContext) -> list[Tensor]:
    """x [N, C · block, blocks] → [N, C, *image]."""
    x, image, block = ctx.inputs[0], ctx.constant(1, "image shape"), ctx.constant(2, "block shape")
    assert x is not None and image is not None and block is not None
    rank, size, kernel = len(image), tuple(int(d) for d in image), tuple(int(d) for d in block)
    if rank > LONGEST:
        raise ctx.refuse(f"images of {rank} axes", f"up to {LONGEST} axes are supported")
    strides = tuple(ctx.attrs.get("strides") or (1,) * rank)
    dilations = tuple(ctx.attrs.get("dilations") or (1,) * rank)
    pads = tuple(ctx.attrs.get("pads") or (0,) * (2 * rank))
    axes = zip(size, kernel, strides, dilations, pads[:rank], pads[rank:], strict=True)
    blocks = tuple(extent(*axis) for axis in axes)
    entries = int(np.prod(kernel))
    channels = x.shape[1] // entries
    if x.shape != (x.shape[0], channels * entries, int(np.prod(blocks))):
        raise ctx.refuse(f"blocks {x.shape} do not make images of {size}")
    weight = np.tile(np.eye(entries, dtype=np.float32).reshape(entries, 1, *kernel), (channels, *(1,) * (rank + 1)))
    columns = ctx.emit("RESHAPE", x, shape=(*x.shape[:2], *blocks))
    place = Placement(strides, pads[:rank], size)
    bias = np.zeros(channels, np.float32)
    return [transposed(ctx, columns, dilated(weight, dilations), bias, place, channels)]


def _case(x: tuple[int, ...], image: list[int], block: list[int], **attrs: list[int]) -> OnnxCase:
    return OnnxCase("Col2Im", {"x": x}, {"i": np.array(image), "b": np.array(block)}, attrs, opset=18)


ONNX_EXAMPLES.add(
    "Col2Im",
    [
        _case((2, 3 * 6, 20), [6, 6], [2, 3]),
        _case((1, 2 * 9, 12), [6, 9], [3, 3], strides=[2, 2], pads=[1, 0, 0, 1]),
        _case((1, 3 * 4, 15), [6, 6], [2, 2], dilations=[1, 3]),
        _case((1, 2 * 6, 9), [5, 4, 3], [2, 1, 3], strides=[2, 2, 1], pads=[1, 0, 0, 0, 1, 0]),
    ],
)
