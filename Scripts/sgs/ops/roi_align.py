"""ROI_ALIGN: regions of pictures, sampled bilinearly and each brought to one size.

x [N, H, W, C], regions [R, 4] (left, top, right, bottom), pictures INT32 [R] → [R, OH, OW, C]. Attrs as in ONNX: mode
"avg" or "max", size (OH, OW), sampling_ratio, spatial_scale, half_pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.types import DType
from sgs.ops._float_only import add_float_only
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, Lowering, OnnxCase, Shape

OP = "ROI_ALIGN"
_WHY = "reads the picture at places that the network computes, which codes do not keep"


def _infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    x, regions, pictures = operands
    assert x is not None and regions is not None and pictures is not None
    if len(x.shape) != 4 or regions.shape[1:] != (4,) or pictures.shape != regions.shape[:1]:
        raise ValueError(f"regions of shape {regions.shape} of pictures {x.shape}")
    return [((regions.shape[0], *node.attrs["size"], x.shape[3]), x.dtype)]


def _lower(low: Lowering, node: Node) -> None:
    x, regions, pictures = (name or "" for name in node.inputs)
    height, width = node.attrs["size"]
    value = low.op(
        "RoiAlign",
        [low.real(x, "first"), low.real(regions), low.cast(low.codes(pictures), DType.INT64)],
        mode=node.attrs["mode"],
        output_height=height,
        output_width=width,
        sampling_ratio=node.attrs["sampling_ratio"],
        spatial_scale=node.attrs["spatial_scale"],
        coordinate_transformation_mode="half_pixel" if node.attrs["half_pixel"] else "output_half_pixel",
    )
    low.put_real(node.outputs[0], value, "first")


def _example(**attrs: Any) -> Graph:
    build = GraphBuilder()
    operands = [build.input("x", (2, 9, 7, 3)), build.input("regions", (5, 4))]
    pictures = build.constant("pictures", np.array([0, 1, 1, 0, 1], np.int32))
    return build.output(build(OP, *operands, pictures, output="y", size=(3, 4), spatial_scale=0.5, **attrs))


add_float_only(
    OP,
    "regions of pictures, sampled bilinearly at one size",
    _WHY,
    _infer,
    _lower,
    lambda: [
        _example(mode="avg", sampling_ratio=2, half_pixel=True),
        _example(mode="max", sampling_ratio=0, half_pixel=False),
    ],
)


# -- ONNX import -------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("RoiAlign")
def import_roi_align(ctx: ImportContext) -> list[Tensor]:
    """Before operator set 16, regions were not moved by half a pixel."""
    x, regions, pictures = ctx.inputs
    assert x is not None
    coordinates = ctx.attrs.get("coordinate_transformation_mode", "half_pixel")
    y = ctx.emit(
        OP,
        ctx.nhwc(x),
        regions,
        pictures,
        mode=ctx.attrs.get("mode", "avg"),
        size=(int(ctx.attrs.get("output_height", 1)), int(ctx.attrs.get("output_width", 1))),
        sampling_ratio=int(ctx.attrs.get("sampling_ratio", 0)),
        spatial_scale=float(ctx.attrs.get("spatial_scale", 1.0)),
        half_pixel=ctx.opset >= 16 and coordinates == "half_pixel",
    )
    return [ctx.nchw(y)]


_X: dict[str, Shape] = {"x": (2, 3, 9, 7)}
_REGIONS = np.array([[1, 1, 5, 6], [0, 2, 3, 8], [2.5, 0.5, 6, 7]], np.float32)
_OPERANDS = {"r": _REGIONS, "n": np.array([1, 0, 1])}
_SIZE = {"output_height": 3, "output_width": 2}
ONNX_EXAMPLES.add(
    "RoiAlign",
    [
        OnnxCase("RoiAlign", _X, _OPERANDS, {**_SIZE, "sampling_ratio": 2}),
        OnnxCase("RoiAlign", _X, _OPERANDS, {**_SIZE, "coordinate_transformation_mode": "output_half_pixel"}),
        OnnxCase("RoiAlign", _X, _OPERANDS, {**_SIZE, "mode": "max", "sampling_ratio": 1}),
        OnnxCase("RoiAlign", _X, _OPERANDS, {**_SIZE, "spatial_scale": 0.5}, opset=10),
    ],
)
