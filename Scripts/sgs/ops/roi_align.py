"""ROI_ALIGN and ROI_MAX_POOL: regions of pictures, each brought to one size.

ROI_ALIGN: x [N, H, W, C], regions [R, 4] (left, top, right, bottom), pictures INT32 [R] → [R, OH, OW, C]. Attrs as in
ONNX: mode "avg" or "max", size (OH, OW), sampling_ratio, spatial_scale, half_pixel. ROI_MAX_POOL: regions [R, 5] begin
with the picture's number; attrs size, spatial_scale.
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

ALIGN, MAX_POOL = "ROI_ALIGN", "ROI_MAX_POOL"
_WHY = "reads the picture at places that the network computes, which codes do not keep"


def _infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    x, regions = operands[0], operands[1]
    assert x is not None and regions is not None
    width = 4 if node.op == ALIGN else 5
    numbered = node.op == MAX_POOL or (operands[2] is not None and operands[2].shape == regions.shape[:1])
    if len(x.shape) != 4 or len(regions.shape) != 2 or regions.shape[1] != width or not numbered:
        raise ValueError(f"regions of shape {regions.shape} of pictures {x.shape}")
    return [((regions.shape[0], *node.attrs["size"], x.shape[3]), x.dtype)]


def _lower_align(low: Lowering, node: Node) -> None:
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


def _lower_max_pool(low: Lowering, node: Node) -> None:
    x, regions = (name or "" for name in node.inputs)
    how = {"pooled_shape": list(node.attrs["size"]), "spatial_scale": node.attrs["spatial_scale"]}
    low.put_real(node.outputs[0], low.op("MaxRoiPool", [low.real(x, "first"), low.real(regions)], **how), "first")


def _align_example(**attrs: Any) -> Graph:
    build = GraphBuilder()
    operands = [build.input("x", (2, 9, 7, 3)), build.input("regions", (5, 4))]
    pictures = build.constant("pictures", np.array([0, 1, 1, 0, 1], np.int32))
    return build.output(build(ALIGN, *operands, pictures, output="y", size=(3, 4), spatial_scale=0.5, **attrs))


def _max_pool_example() -> Graph:
    build = GraphBuilder()
    regions = np.array([[0, 1, 1, 5, 6], [1, 0, 2, 3, 8]], np.float32)
    y = build(MAX_POOL, build.input("x", (2, 9, 7, 3)), regions, output="y", size=(3, 2), spatial_scale=1.0)
    return build.output(y)


add_float_only(
    ALIGN,
    "regions of pictures, sampled bilinearly at one size",
    _WHY,
    _infer,
    _lower_align,
    lambda: [
        _align_example(mode="avg", sampling_ratio=2, half_pixel=True),
        _align_example(mode="max", sampling_ratio=0, half_pixel=False),
    ],
)
add_float_only(
    MAX_POOL,
    "regions of pictures, their largest values at one size",
    _WHY,
    _infer,
    _lower_max_pool,
    lambda: [_max_pool_example()],
)


# -- ONNX import -------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("RoiAlign")
def import_roi_align(ctx: ImportContext) -> list[Tensor]:
    """Before operator set 16, regions were not moved by half a pixel."""
    x, regions, pictures = ctx.inputs
    assert x is not None
    coordinates = ctx.attrs.get("coordinate_transformation_mode", "half_pixel")
    y = ctx.emit(
        ALIGN,
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


@IMPORT_ONNX.row("MaxRoiPool")
def import_max_roi_pool(ctx: ImportContext) -> list[Tensor]:
    x, regions = ctx.inputs
    assert x is not None
    size = tuple(int(d) for d in ctx.attrs["pooled_shape"])
    scale = float(ctx.attrs.get("spatial_scale", 1.0))
    return [ctx.nchw(ctx.emit(MAX_POOL, ctx.nhwc(x), regions, size=size, spatial_scale=scale))]


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
ONNX_EXAMPLES.add(
    "MaxRoiPool",
    [
        OnnxCase(
            "MaxRoiPool",
            _X,
            {"r": np.array([[1, 1, 1, 5, 6], [0, 0, 2, 3, 8]], np.float32)},
            {"pooled_shape": [3, 2], "spatial_scale": 0.75},
        )
    ],
)
