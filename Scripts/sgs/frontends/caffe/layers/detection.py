"""Layers of detectors: ROIPooling, PriorBox."""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

import numpy as np

from sgs.frontends.caffe.context import CAFFE, LayerContext, Value
from sgs.numeric.quantise import Array


@CAFFE.row("ROIPooling")
def roi_pooling(context: LayerContext) -> list[Value]:
    """Regions are [R, 5]: the picture's number and two corners."""
    context.check_bottoms(2)
    p, (x, regions) = context.layer.roi_pooling_param, context.bottoms
    if not (p.pooled_h and p.pooled_w):
        raise context.refuse("it does not say what size it makes", "give roi_pooling_param { pooled_h pooled_w }")
    regions = context.reshape(regions, (max(1, prod(regions.shape) // 5), 5))
    told: dict[str, Any] = {"pooled_shape": [p.pooled_h, p.pooled_w], "spatial_scale": p.spatial_scale}
    return [context.emit("MaxRoiPool", [x, regions], **told)]


# -- prior boxes -------------------------------------------------------------------------------------------------------
def _ratios(p: Any) -> list[float]:
    """The aspect ratios besides 1, each of them once, with their inverses where the layer flips."""
    found = [1.0]
    for ratio in p.aspect_ratio:
        if all(abs(ratio - other) >= 1e-6 for other in found):
            found += [ratio, 1 / ratio] if p.flip else [ratio]
    return found[1:]


def _extents(context: LayerContext, p: Any) -> Array:
    """[boxes of a place, 2]: width and height in pixels. Caffe takes whole pixels of min_size and max_size."""
    if not p.min_size or (p.max_size and len(p.max_size) != len(p.min_size)):
        told = f"{len(p.min_size)} min_size and {len(p.max_size)} max_size"
        raise context.refuse(f"it has {told}", "give at least one min_size, and none or as many max_size")
    if min([*p.min_size, *p.max_size, *p.aspect_ratio]) <= 0:
        raise context.refuse("a size or an aspect_ratio of it is not above 0", "check the prototxt")
    extents: list[tuple[float, float]] = []
    for index, least in enumerate(int(size) for size in p.min_size):
        extents.append((least, least))
        if p.max_size:
            between = sqrt(least * int(p.max_size[index]))
            extents.append((between, between))
        extents += [(least * sqrt(ratio), least / sqrt(ratio)) for ratio in _ratios(p)]
    return np.array(extents)


def _centres(count: int, step: float, offset: float) -> Array:
    return (np.arange(count) + offset) * step


@CAFFE.row("PriorBox")
def prior_box(context: LayerContext) -> list[Value]:
    """[1, 2, 4 · boxes]: corners as shares of the picture, and variances. Of the bottoms only the extents matter."""
    context.check_bottoms(2)
    p, (feature, picture) = context.layer.prior_box_param, context.bottoms
    if feature.rank != 4 or picture.rank != 4:
        raise context.refuse("its bottoms are not [N, C, H, W]", "check the prototxt")
    (rows, columns), size = feature.shape[2:], p.img_size
    height, width = p.img_h or size or picture.shape[2], p.img_w or size or picture.shape[3]
    x = _centres(columns, p.step_w or p.step or width / columns, p.offset)
    y = _centres(rows, p.step_h or p.step or height / rows, p.offset)
    extents = _extents(context, p)
    centres = np.stack(np.meshgrid(x, y), -1)[:, :, None]  # [rows, columns, 1, (x, y)]
    corners = np.concatenate([centres - extents / 2, centres + extents / 2], -1) / (width, height, width, height)
    corners = np.clip(corners, 0, 1) if p.clip else corners
    variance = list(p.variance) or [0.1]
    if len(variance) not in (1, 4):
        raise context.refuse(f"it has {len(variance)} variances", "give one, or four")
    variances = np.broadcast_to(variance, corners.shape)
    boxes = np.stack([corners.ravel(), variances.ravel()])[None]
    return [context.const(boxes.astype(np.float32), "boxes")]
