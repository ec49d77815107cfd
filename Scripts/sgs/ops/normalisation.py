"""ONNX normalisations, in means and elementwise operators that TFLite has; fixed graphs have NORMALISE for them.

Layer, group, instance, root-mean-square and mean-variance normalisation, and division by a norm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.ops._import import add, divide, multiply, number, subtract
from sgs.ops._tflite import fused, operand
from sgs.ops.normalise import FLOOR
from sgs.registry import (
    IMPORT_ONNX,
    IMPORT_TFLITE,
    ONNX_EXAMPLES,
    TFLITE_EXAMPLES,
    ImportContext,
    OnnxCase,
    Shape,
    TfliteCase,
)

Axes = tuple[int, ...]


def _reduced(ctx: ImportContext, op: str, x: Tensor, axes: Axes) -> Tensor:
    return ctx.emit(op, x, axes=axes, keep_dims=True)


def centred(ctx: ImportContext, x: Tensor, axes: Axes) -> tuple[Tensor, Tensor]:
    """(x less its mean over the axes, the mean)."""
    mean = _reduced(ctx, "MEAN", x, axes)
    return subtract(ctx, x, mean), mean


def deviation(ctx: ImportContext, x: Tensor, axes: Axes, epsilon: float = 0.0) -> Tensor:
    """sqrt(mean(x²) + epsilon) over the axes."""
    mean = _reduced(ctx, "MEAN", multiply(ctx, x, x), axes)
    return ctx.emit("SQRT", add(ctx, mean, epsilon) if epsilon else mean)


def standardised(ctx: ImportContext, x: Tensor, axes: Axes, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x with mean 0 and variance 1 over the axes, the mean, the root of variance + epsilon)."""
    difference, mean = centred(ctx, x, axes)
    root = deviation(ctx, difference, axes, epsilon)
    return divide(ctx, difference, root), mean, root


def _scaled(ctx: ImportContext, x: Tensor, scale: Tensor | None, offset: Tensor | None) -> Tensor:
    """x · scale + offset, where they are given."""
    y = x if scale is None else multiply(ctx, x, scale)
    return y if offset is None else add(ctx, y, offset)


def _operand(ctx: ImportContext) -> Tensor:
    """Operand 0, floating point."""
    x = ctx.inputs[0]
    assert x is not None
    if not x.dtype.is_float:
        raise ctx.refuse(f"a normalisation of {x.dtype.name} numbers")
    return x


def _epsilon(ctx: ImportContext) -> float:
    return float(ctx.attrs.get("epsilon", 1e-5))


def _trailing_axes(ctx: ImportContext, x: Tensor) -> Axes:
    """All axes from attribute `axis` on, the last by default."""
    rank = len(x.shape)
    return tuple(range(int(ctx.attrs.get("axis", -1)) % max(rank, 1), rank))


# -- layers ------------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("LayerNormalization")
def import_layer_normalization(ctx: ImportContext) -> list[Tensor]:
    """Further results, where they are asked for, are the mean and one over the root of the variance."""
    x = _operand(ctx)
    scale, offset = (*ctx.inputs, None)[1:3]
    y, mean, root = standardised(ctx, x, _trailing_axes(ctx, x), _epsilon(ctx))
    results = [_scaled(ctx, y, scale, offset)]
    if ctx.output_count > 1:
        results += [mean, divide(ctx, 1, root)][: ctx.output_count - 1]
    return results


@IMPORT_ONNX.row("RMSNormalization", "SimplifiedLayerNormalization")
def import_rms_normalization(ctx: ImportContext) -> list[Tensor]:
    x = _operand(ctx)
    if ctx.output_count > 1:
        raise ctx.refuse("its further results are not supported")
    root = deviation(ctx, x, _trailing_axes(ctx, x), _epsilon(ctx))
    return [_scaled(ctx, divide(ctx, x, root), ctx.inputs[1], None)]


# -- channels ----------------------------------------------------------------------------------------------------------
def _per_channel(ctx: ImportContext, index: int, x: Tensor, repeats: int = 1) -> Tensor:
    """Operand [C] of an x [N, C, ...], or [C / repeats] with each entry for `repeats` channels, as [C, 1, ...]."""
    value, ones = ctx.inputs[index], (1,) * (len(x.shape) - 2)
    assert value is not None
    if value.elements * repeats != x.shape[1]:
        raise ctx.refuse(f"operand {index} of shape {value.shape} does not fit the channels of shape {x.shape}")
    shape = (value.elements, *((repeats,) if repeats > 1 else ()), *ones)
    if value.data is not None:
        data = value.data.reshape(value.elements, 1).repeat(repeats, 1).reshape(x.shape[1], *ones)
        return Tensor(value.name, data.shape, value.dtype, data)
    if repeats == 1:
        return ctx.emit("RESHAPE", value, shape=shape)
    column = ctx.emit("RESHAPE", value, shape=(value.elements, 1))
    wide = multiply(ctx, column, np.ones((1, repeats), np.float32))
    return ctx.emit("RESHAPE", wide, shape=(x.shape[1], *ones))


@IMPORT_ONNX.row("InstanceNormalization")
def import_instance_normalization(ctx: ImportContext) -> list[Tensor]:
    """Over all axes behind the channels, axis 1.

    Exporters write a group normalisation as this, between Reshapes to [N, groups, rest] and back: the axes that the
    first one joins stay apart here, as in a GroupNormalization, so that none of them has to move to be joined.
    """
    x = _operand(ctx)
    apart = _apart(x.shape, ctx.shape_before(x))
    parted = x if apart is None else ctx.emit("RESHAPE", x, shape=apart)
    y, _, _ = standardised(ctx, parted, tuple(range(2, len(parted.shape))), _epsilon(ctx))
    y = _scaled(ctx, y, _per_channel(ctx, 1, parted), _per_channel(ctx, 2, parted))
    return [y if apart is None else ctx.emit("RESHAPE", y, shape=x.shape)]


def _apart(shape: Shape, before: Shape | None) -> Shape | None:
    """[N, groups, rest] as [N, groups, channels of a group, ...] where it was [N, channels, ...] before; else None."""
    if before is None or len(shape) != 3 or len(before) < 4 or before[0] != shape[0] or before[1] % shape[1]:
        return None
    return (*shape[:2], before[1] // shape[1], *before[2:])


@IMPORT_ONNX.row("GroupNormalization")
def import_group_normalization(ctx: ImportContext) -> list[Tensor]:
    """Channels, axis 1, in `num_groups` runs. Before operator set 21 scale and bias are those of groups."""
    x, groups = _operand(ctx), int(ctx.attrs["num_groups"])
    if len(x.shape) < 3 or groups < 1 or x.shape[1] % groups:
        raise ctx.refuse(f"shape {x.shape} has no channels in {groups} groups")
    width = x.shape[1] // groups
    parted = ctx.emit("RESHAPE", x, shape=(x.shape[0], groups, width, *x.shape[2:]))
    y, _, _ = standardised(ctx, parted, tuple(range(2, len(parted.shape))), _epsilon(ctx))
    y = ctx.emit("RESHAPE", y, shape=x.shape)
    repeats = width if ctx.opset < 21 else 1
    return [_scaled(ctx, y, _per_channel(ctx, 1, x, repeats), _per_channel(ctx, 2, x, repeats))]


# -- other axes --------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("MeanVarianceNormalization")
def import_mean_variance_normalization(ctx: ImportContext) -> list[Tensor]:
    """Over `axes`, all but the channels by default; 1e-9 is added to the standard deviation, not to the variance."""
    x = _operand(ctx)
    axes = tuple(sorted({int(a) % len(x.shape) for a in ctx.attrs.get("axes", (0, 2, 3))}))
    difference, _ = centred(ctx, x, axes)
    root = add(ctx, deviation(ctx, difference, axes), 1e-9)
    return [divide(ctx, difference, root)]


@IMPORT_ONNX.row("LpNormalization")
def import_lp_normalization(ctx: ImportContext) -> list[Tensor]:
    """Along `axis`; rows of zeros stay zeros."""
    x, p = _operand(ctx), int(ctx.attrs.get("p", 2))
    axes = (int(ctx.attrs.get("axis", -1)) % max(len(x.shape), 1),)
    if p == 1:
        norm, floor = _reduced(ctx, "SUM", ctx.emit("ABS", x), axes), float(np.finfo(np.float32).tiny)
    elif p == 2:
        norm, floor = ctx.emit("SQRT", _reduced(ctx, "SUM", multiply(ctx, x, x), axes)), FLOOR
    else:
        raise ctx.refuse(f"the norm of order {p}", "orders 1 and 2 are supported")
    return [divide(ctx, x, ctx.emit("MAXIMUM", norm, number(floor)))]


# -- examples ----------------------------------------------------------------------------------------------------------
def _ramp(*shape: int) -> Array:
    return np.linspace(0.5, 2, math.prod(shape), dtype=np.float32).reshape(shape)


def _case(op: str, shape: Shape, width: Sequence[int], opset: int = 17, outputs: int = 1, **attrs: Any) -> OnnxCase:
    """With a constant scale and offset of shape `width`."""
    constants = {"scale": _ramp(*width), "offset": _ramp(*width) - 1}
    return OnnxCase(op, {"x": shape}, constants, attrs, outputs=outputs, opset=opset)


ONNX_EXAMPLES.add(
    "LayerNormalization",
    [
        _case("LayerNormalization", (2, 5, 7), (7,)),
        _case("LayerNormalization", (1, 5, 7, 6), (7, 6), axis=2, epsilon=1e-3),
        _case("LayerNormalization", (2, 5, 7), (5, 7), axis=-2, outputs=3),
        OnnxCase("LayerNormalization", {"x": (3, 7)}, {"scale": _ramp(7)}),
        OnnxCase("LayerNormalization", {"x": (3, 7), "scale": (7,), "offset": (7,)}),
    ],
)
ONNX_EXAMPLES.add(
    "InstanceNormalization",
    [
        _case("InstanceNormalization", (2, 5, 7, 6), (5,), epsilon=1e-3),
        _case("InstanceNormalization", (2, 5, 7), (5,)),
        OnnxCase("InstanceNormalization", {"x": (1, 5, 7, 6), "scale": (5,), "offset": (5,)}),
    ],
)
ONNX_EXAMPLES.add(
    "GroupNormalization",
    [
        _case("GroupNormalization", (1, 6, 7, 5), (3,), 18, num_groups=3),
        _case("GroupNormalization", (2, 6, 7, 5), (6,), 21, num_groups=2, epsilon=1e-3),
        _case("GroupNormalization", (2, 6, 7), (6,), 21, num_groups=3),
        OnnxCase("GroupNormalization", {"x": (1, 6, 7, 5), "s": (3,), "o": (3,)}, attrs={"num_groups": 3}, opset=18),
    ],
)
ONNX_EXAMPLES.add(
    "RMSNormalization",
    [
        OnnxCase("RMSNormalization", {"x": (2, 5, 7)}, {"scale": _ramp(7)}, opset=23),
        OnnxCase("RMSNormalization", {"x": (1, 5, 7, 6)}, {"scale": _ramp(7, 6)}, {"axis": 2}, opset=23),
    ],
)
ONNX_EXAMPLES.add(
    "SimplifiedLayerNormalization", [OnnxCase("SimplifiedLayerNormalization", {"x": (2, 5, 7)}, {"scale": _ramp(7)})]
)
ONNX_EXAMPLES.add(
    "MeanVarianceNormalization",
    [
        OnnxCase("MeanVarianceNormalization", {"x": (2, 5, 7, 6)}, opset=13),
        OnnxCase("MeanVarianceNormalization", {"x": (2, 5, 7)}, attrs={"axes": [1]}, opset=13),
    ],
)
ONNX_EXAMPLES.add(
    "LpNormalization",
    [
        OnnxCase("LpNormalization", {"x": (2, 5, 7)}),
        OnnxCase("LpNormalization", {"x": (1, 5, 7, 6)}, attrs={"axis": 1, "p": 2}),
        OnnxCase("LpNormalization", {"x": (3, 7)}, attrs={"axis": 0, "p": 1}),
    ],
)


# -- TFLite import -----------------------------------------------------------------------------------------------------
@IMPORT_TFLITE.row("L2_NORMALIZATION")
def import_l2_normalization(ctx: ImportContext) -> list[Tensor]:
    """Along the last axis."""
    return [fused(ctx, ctx.call("LpNormalization", operand(ctx, 0), axis=-1, p=2)[0])]


TFLITE_EXAMPLES.add(
    "L2_NORMALIZATION",
    [TfliteCase("L2_NORMALIZATION", {"x": shape}, table="L2NormOptions") for shape in ((1, 5, 7, 6), (3, 11))],
)
