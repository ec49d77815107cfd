"""Resize and Upsample of ONNX, in every form, over any axes.

Rows and columns become TFLite's RESIZE_NEAREST_NEIGHBOR or RESIZE_BILINEAR where these mean the same. Any other axis is
gathered: nearest picks entries, linear and cubic lay the taps of every result side by side, weigh them and add them up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.ops._import import add
from sgs.ops._resize_taps import MODES, ROUNDINGS, Axis, Kernel, cubic, triangle
from sgs.ops._weighed import axis_constant, weighed_sum
from sgs.ops.resize import BILINEAR, NEAREST, coordinates, nearest_taps
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase, Shape

_CHOICES = ((False, False), (False, True), (True, False))  # align_corners, half_pixel_centers


# -- one axis ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Plan:
    """One axis to be resized: which of TFLite's coordinates are the same (indices of _CHOICES), and the way without."""

    result: int
    choices: tuple[int, ...]
    gather: Callable[[ImportContext, Tensor, int], Tensor]


def _plan_nearest(axis: Axis, mode: str, rounding: str, fill: float) -> _Plan:
    outside = axis.outside(mode)
    taps = np.clip(ROUNDINGS[rounding](axis.places(mode)).astype(np.int64), 0, axis.size - 1)
    theirs = [nearest_taps(axis.size, axis.result, align_corners=a, half_pixel_centers=h) for a, h in _CHOICES]
    same = [np.array_equal(choice, taps) and not outside.any() for choice in theirs]

    def gather(ctx: ImportContext, x: Tensor, position: int) -> Tensor:
        """What lies outside is picked from an entry behind the last."""
        if outside.any():
            paddings = tuple((0, int(i == position)) for i in range(len(x.shape)))
            x = ctx.emit("PADV2", x, paddings=paddings, value=fill)
        return ctx.emit("GATHER", x, np.where(outside, axis.size, taps).astype(np.int32), axis=position)

    return _Plan(axis.result, tuple(np.flatnonzero(same)), gather)


def _plan_weighed(axis: Axis, mode: str, kernel: Kernel, fill: float) -> _Plan:
    taps, weights = kernel.taps(axis, mode)
    outside = axis.outside(mode)
    weights = np.where(outside[:, None], 0, weights)
    same = [False] * len(_CHOICES)
    if kernel.weigh is triangle and not (kernel.antialias and axis.scale < 1) and not outside.any():
        places = np.clip(axis.places(mode).astype(np.float64), 0, axis.size - 1)
        near = 2e-6 * axis.size  # binary32 coordinates are this good
        for i, (a, h) in enumerate(_CHOICES):
            theirs = np.array(coordinates(axis.size, axis.result, align_corners=a, half_pixel_centers=h), np.float64)
            same[i] = bool(np.abs(theirs - places).max() <= near)

    def gather(ctx: ImportContext, x: Tensor, position: int) -> Tensor:
        y = weighed_sum(ctx, x, position, taps, weights)
        if fill and outside.any():
            y = add(ctx, y, axis_constant(outside * fill, position, len(x.shape)))
        return y

    return _Plan(axis.result, tuple(np.flatnonzero(same)), gather)


# -- ONNX import: nodes ------------------------------------------------------------------------------------------------
def _resized(ctx: ImportContext, x: Tensor, op: str, plans: Mapping[int, _Plan]) -> Tensor:
    """x with the axes in `plans` resized.

    Height and width of rank 4, in either layout, become TFLite's operator where it means the same, for both axes at
    once or one after the other; any other axis is gathered. Axis 2 alone is taken for the height of NCHW.
    """
    if len(x.shape) == 4 and set(plans) <= {2, 3}:
        return ctx.nchw(_resized_last(ctx, ctx.nhwc(x), op, {axis - 1: plan for axis, plan in plans.items()}))
    return _resized_last(ctx, x, op, plans)


def _resized_last(ctx: ImportContext, x: Tensor, op: str, plans: Mapping[int, _Plan]) -> Tensor:
    """As `_resized`; of rank 4, x is NHWC."""
    spatial = len(x.shape) == 4 and set(plans) <= {1, 2}
    shared = set.intersection(*(set(plan.choices) for plan in plans.values())) if spatial else set()
    if shared:
        return _emit_resize(ctx, x, op, plans, min(shared))
    for axis, plan in plans.items():
        if spatial and plan.choices:
            x = _emit_resize(ctx, x, op, {axis: plan}, min(plan.choices))
        else:
            x = plan.gather(ctx, x, axis)
    return x


def _emit_resize(ctx: ImportContext, x: Tensor, op: str, plans: Mapping[int, _Plan], choice: int) -> Tensor:
    size = tuple(plans[axis].result if axis in plans else x.shape[axis] for axis in (1, 2))
    align, half = _CHOICES[choice]
    return ctx.emit(op, x, size=size, align_corners=align, half_pixel_centers=half)


def _operand(ctx: ImportContext, index: int, what: str) -> Array | None:
    """A constant operand as vector; None when absent or empty."""
    value = ctx.constant(index, what) if index < len(ctx.inputs) and ctx.inputs[index] is not None else None
    return None if value is None or value.size == 0 else value.reshape(-1)


def _named_axes(ctx: ImportContext) -> list[int]:
    """The axes that scales, sizes and regions speak of, in that order."""
    x = ctx.inputs[0]
    assert x is not None
    return [int(a) % len(x.shape) for a in ctx.attrs.get("axes") or range(len(x.shape))]


def _from_scales(ctx: ImportContext, scales: Array) -> dict[int, Axis]:
    x = ctx.inputs[0]
    assert x is not None
    axes = {}
    for axis, scale in zip(_named_axes(ctx), scales.astype(np.float32), strict=True):
        size = x.shape[axis]
        axes[axis] = Axis(size, int(np.float32(size) * scale), np.float32(scale))
    return axes


def _from_sizes(ctx: ImportContext, sizes: Array) -> dict[int, Axis]:
    x = ctx.inputs[0]
    assert x is not None
    results = dict(zip(_named_axes(ctx), (int(s) for s in sizes), strict=True))
    policy = ctx.attrs.get("keep_aspect_ratio_policy", "stretch")
    ratios = {axis: np.float32(result) / np.float32(x.shape[axis]) for axis, result in results.items()}
    if policy != "stretch":
        common = (min if policy == "not_larger" else max)(ratios.values())
        ratios = dict.fromkeys(results, common)
        results = {axis: int(np.floor(float(common) * x.shape[axis] + 0.5)) for axis in results}
    return {axis: Axis(x.shape[axis], results[axis], ratios[axis]) for axis in results}


def _cropped(ctx: ImportContext, axes: dict[int, Axis]) -> dict[int, Axis]:
    """The axes with the region of operand 1, [begin of each, end of each]."""
    region = _operand(ctx, 1, "roi")
    if region is None:
        raise ctx.refuse("mode tf_crop_and_resize without a region")
    begins, ends = region.reshape(2, -1).astype(float)
    regions = dict(zip(_named_axes(ctx), zip(begins, ends, strict=True), strict=True))
    return {i: replace(axis, begin=regions[i][0], end=regions[i][1]) for i, axis in axes.items()}


@IMPORT_ONNX.row("Resize")
def import_resize(ctx: ImportContext) -> list[Tensor]:
    """Sizes, scales and the region are constants."""
    old = ctx.opset < 11
    sizes = None if old else _operand(ctx, 3, "sizes")
    scales = _operand(ctx, 1 if old else 2, "scales")
    if sizes is None and scales is None:
        raise ctx.refuse("neither scales nor sizes are given")
    axes = _from_scales(ctx, scales) if sizes is None and scales is not None else _from_sizes(ctx, np.asarray(sizes))
    coordinate = "asymmetric" if old else ctx.attrs.get("coordinate_transformation_mode", "half_pixel")
    rounding = "floor" if old else ctx.attrs.get("nearest_mode", "round_prefer_floor")
    if coordinate == "tf_crop_and_resize":
        axes = _cropped(ctx, axes)
    return _import(ctx, axes, coordinate, rounding)


@IMPORT_ONNX.row("Upsample")
def import_upsample(ctx: ImportContext) -> list[Tensor]:
    scales = np.asarray(ctx.attrs["scales"], np.float32) if "scales" in ctx.attrs else _operand(ctx, 1, "scales")
    if scales is None:
        raise ctx.refuse("no scales are given")
    return _import(ctx, _from_scales(ctx, scales), "asymmetric", "floor")


def _import(ctx: ImportContext, axes: dict[int, Axis], coordinate: str, rounding: str) -> list[Tensor]:
    x, mode = ctx.inputs[0], ctx.attrs.get("mode", "nearest")
    assert x is not None
    changed = {i: a for i, a in axes.items() if a.size != a.result or a.scale != 1 or (a.begin, a.end) != (0, 1)}
    if coordinate not in MODES:
        reason = f"coordinate_transformation_mode {coordinate} is not defined"
        raise ctx.refuse(reason, f"use one of {', '.join(MODES)}")
    if any(a.result <= 0 for a in changed.values()):
        raise ctx.refuse("an extent of the result is 0")
    if not changed:
        return [x]
    fill = float(ctx.attrs.get("extrapolation_value", 0.0))
    if mode == "nearest":
        if rounding not in ROUNDINGS:
            raise ctx.refuse(f"nearest_mode {rounding} is not known", f"use one of {', '.join(ROUNDINGS)}")
        simple = ctx.op == "Resize" and ctx.opset < 11  # rounds up where it makes smaller
        roundings = {i: "ceil" if simple and a.scale < 1 else rounding for i, a in changed.items()}
        nearest = {i: _plan_nearest(a, coordinate, roundings[i], fill) for i, a in changed.items()}
        return [_resized(ctx, x, NEAREST, nearest)]
    if not x.dtype.is_float:
        raise ctx.refuse(f"{mode} interpolation of {x.dtype.name} numbers", "cast the operand to float in front")
    kernel = _kernel(ctx, mode)
    return [_resized(ctx, x, BILINEAR, {i: _plan_weighed(a, coordinate, kernel, fill) for i, a in changed.items()})]


def _kernel(ctx: ImportContext, mode: str) -> Kernel:
    """What weighs the entries in mode linear or cubic."""
    how = {
        "antialias": bool(ctx.attrs.get("antialias", 0)),
        "exclude_outside": bool(ctx.attrs.get("exclude_outside", 0)),
    }
    if mode == "linear":
        return Kernel(1, triangle, **how)
    if mode == "cubic":
        return Kernel(2, cubic(float(ctx.attrs.get("cubic_coeff_a", -0.75))), **how)
    raise ctx.refuse(f"mode {mode} is not defined", "use nearest, linear or cubic")


def _cases() -> list[OnnxCase]:
    x: dict[str, tuple[int, ...]] = {"x": (1, 3, 5, 8)}
    double, odd = np.array([1, 1, 2, 2], np.float32), np.array([1, 1, 1.5, 0.8], np.float32)
    wide = np.array([1, 1, 1, 2], np.float32)
    sizes = np.array([1, 3, 9, 6], np.int64)
    cases = []
    for coordinate in MODES[:-1]:
        opset = 19 if coordinate == "half_pixel_symmetric" else 11 if coordinate == "tf_half_pixel_for_nn" else 17
        empty = {"roi": np.zeros(0, np.float32), "none": np.zeros(0, np.float32)}
        for mode, rounding in (*(("nearest", r) for r in ROUNDINGS), ("linear", "floor")):
            if mode == "linear" and coordinate == "tf_half_pixel_for_nn":
                continue
            attrs: dict[str, Any] = {"mode": mode, "nearest_mode": rounding}
            attrs["coordinate_transformation_mode"] = coordinate
            for scales in (double, *([] if coordinate == "align_corners" else [odd])):  # onnxruntime rounds the length
                cases.append(OnnxCase("Resize", x, {**empty, "s": scales}, attrs, ("x", "roi", "s"), opset=opset))
            order = ("x", "roi", "none", "z")
            cases.append(OnnxCase("Resize", x, {**empty, "z": sizes}, attrs, order, opset=opset))
    linear: dict[str, Any] = {"mode": "linear"}
    aspect = {**linear, "axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"}
    last, long = np.array([1, 2, 3, 1], np.float32), np.array([1, 1, 2], np.float32)
    two = np.array([10, 9], np.int64)
    return [
        *cases,
        OnnxCase("Resize", x, {"s": double}, {"mode": "nearest"}, opset=10),
        OnnxCase("Resize", x, {"s": odd}, {"mode": "nearest"}, opset=10),
        OnnxCase("Resize", x, {"s": double}, linear, opset=10),
        OnnxCase("Resize", x, {"s": wide}, linear, opset=10),
        OnnxCase("Resize", {"x": (1, 5, 7, 3)}, {"s": last}, linear, ("x", "", "s"), opset=13),
        OnnxCase("Resize", {"x": (2, 3, 7)}, {"s": long}, {"mode": "nearest"}, ("x", "", "s"), opset=13),
        OnnxCase("Resize", {"x": (5, 7)}, {"s": long[1:]}, linear, ("x", "", "s"), opset=13),
        OnnxCase("Resize", x, {"z": two}, {**linear, "axes": [2, 3]}, ("x", "", "", "z"), opset=18),
        OnnxCase("Resize", x, {"z": two}, aspect, ("x", "", "", "z"), opset=18),
        *_weighed_cases(x, odd),
        *_crop_cases(x),
    ]


def _weighed_cases(x: dict[str, Shape], scales: Array) -> list[OnnxCase]:
    """Cubic interpolation, and antialias."""
    order = ("x", "", "s")
    forms: list[dict[str, Any]] = [
        {"mode": "cubic"},
        {"mode": "cubic", "coordinate_transformation_mode": "asymmetric", "cubic_coeff_a": -0.5},
        {"mode": "cubic", "exclude_outside": 1},
        {"mode": "cubic", "antialias": 1, "exclude_outside": 1},
        {"mode": "linear", "antialias": 1, "exclude_outside": 1},
    ]
    sizes = np.array([1, 3, 7, 5], np.int64)
    corners = {"mode": "cubic", "coordinate_transformation_mode": "align_corners"}
    cases = [OnnxCase("Resize", x, {"s": scales}, form, order, opset=18) for form in forms]
    return [*cases, OnnxCase("Resize", x, {"z": sizes}, corners, ("x", "", "", "z"), opset=18)]


def _crop_cases(x: dict[str, Shape]) -> list[OnnxCase]:
    """Regions within the picture, and beyond it."""
    cases = []
    for mode in ("nearest", "linear"):
        for region in ([0, 0, 0.2, 0.3, 1, 1, 0.7, 0.9], [0, 0, -0.2, 0.4, 1, 1, 0.8, 1.3]):
            attrs = {"mode": mode, "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 2.5}
            constants = {"r": np.array(region, np.float32), "z": np.array([1, 3, 4, 6])}
            cases.append(OnnxCase("Resize", x, constants, attrs, ("x", "r", "", "z"), opset=13))
    return cases


_UPSAMPLED: dict[str, tuple[int, ...]] = {"x": (1, 3, 5, 8)}
ONNX_EXAMPLES.add("Resize", _cases())
ONNX_EXAMPLES.add(
    "Upsample",
    [
        OnnxCase("Upsample", _UPSAMPLED, attrs={"mode": "nearest", "scales": [1.0, 1.0, 2.0, 3.0]}, opset=7),
        OnnxCase("Upsample", _UPSAMPLED, {"s": np.array([1, 1, 2, 2], np.float32)}, {"mode": "nearest"}, opset=9),
        OnnxCase("Upsample", _UPSAMPLED, {"s": np.array([1, 1, 2, 4], np.float32)}, {"mode": "linear"}, opset=9),
    ],
)
