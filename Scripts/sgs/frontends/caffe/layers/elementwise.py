"""Arithmetic of several values: Eltwise, Scale, Bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.frontends.caffe.context import CAFFE, LayerContext, Shape, Value


@CAFFE.row("Eltwise")
def eltwise(context: LayerContext) -> list[Value]:
    """Product, sum (with a coefficient for each) or maximum of blobs of one shape."""
    param, values = context.layer.eltwise_param, list(context.bottoms)
    if len(values) < 2 or len({value.shape for value in values}) > 1:
        told = ", ".join(str(list(value.shape)) for value in values)
        raise context.refuse(f"its inputs have the shapes {told or 'of nothing'}", "two or more of one shape are meant")
    if param.coeff and (param.operation != param.SUM or len(param.coeff) != len(values)):
        reason = f"it has {len(param.coeff)} coefficients for {len(values)} inputs"
        raise context.refuse(reason, "SUM takes one for each input, and nothing else takes any")
    if param.operation == param.SUM:
        return [_sum(context, values, list(param.coeff) or [1.0] * len(values))]
    op = "Mul" if param.operation == param.PROD else "Max"
    return [_chained(context, op, values)]


def _chained(context: LayerContext, op: str, values: Sequence[Value]) -> Value:
    total = values[0]
    for value in values[1:]:
        total = context.emit(op, [total, value])
    return total


def _sum(context: LayerContext, values: Sequence[Value], factors: Sequence[float]) -> Value:
    """The first factor is multiplied; others of -1 subtract."""
    total: Value | None = None
    for value, factor in zip(values, factors, strict=True):
        plain = factor == 1 or (factor == -1 and total is not None)
        term = value if plain else context.emit("Mul", [value, context.const(np.float32(factor), "coeff")])
        total = term if total is None else context.emit("Sub" if factor == -1 else "Add", [total, term])
    assert total is not None
    return total


@CAFFE.row("Scale")
def scale(context: LayerContext) -> list[Value]:
    """x · scale (+ bias): both weights of some of the axes, or the scale a second bottom."""
    param = context.layer.scale_param
    context.check_bottoms(1, 2)
    value, *computed = context.bottoms
    axis, shape = _covered(context, param)
    wanted = {} if computed else {"scale": shape}
    wanted |= {"bias": shape} if param.bias_term else {}
    weights = context.blobs(**wanted) if wanted else []
    operands = [*computed, *(context.const(data, name) for name, data in zip(wanted, weights, strict=True))]
    for op, operand in zip(("Mul", "Add"), operands, strict=False):
        value = context.emit(op, [value, _aligned(context, value, operand, axis)])
    return [value]


@CAFFE.row("Bias")
def bias(context: LayerContext) -> list[Value]:
    """x + bias: a weight of some of the axes, or a second bottom."""
    context.check_bottoms(1, 2)
    value, *computed = context.bottoms
    axis, shape = _covered(context, context.layer.bias_param)
    operand = computed[0] if computed else context.const(context.blobs(bias=shape)[0], "bias")
    return [context.emit("Add", [value, _aligned(context, value, operand, axis)])]


def _covered(context: LayerContext, param: Any) -> tuple[int, Shape]:
    """(first axis, shape) of what is applied: of `num_axes` axes from `axis` on (-1: all of them), or the second
    bottom's. Raises UserError where the first bottom does not have that shape there."""
    value = context.bottoms[0]
    if len(context.bottoms) == 2:
        shape = context.bottoms[1].shape
        axis = context.axis(param.axis) if shape else 0
    else:
        axis = context.axis(param.axis)
        count = value.rank - axis if param.num_axes == -1 else param.num_axes
        if not 0 <= count <= value.rank - axis:
            raise context.refuse(f"its num_axes is {count} from axis {axis} on, its input has {value.rank} axes")
        shape = value.shape[axis : axis + count]
    if value.shape[axis : axis + len(shape)] != shape:
        reason = f"its second input has the shape {list(shape)}, its first one {list(value.shape)} (axis {axis})"
        raise context.refuse(reason, "the second one's shape is to be part of the first one's")
    return axis, shape


def _aligned(context: LayerContext, value: Value, operand: Value, axis: int) -> Value:
    """An operand of axes that start at `axis`, as ONNX broadcasts it."""
    shape = operand.shape + (1,) * (value.rank - axis - operand.rank)
    if operand.data is not None:
        return context.const(operand.data.reshape(shape), operand.name.rpartition("/")[2])
    return context.reshape(operand, shape)
