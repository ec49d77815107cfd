"""What layers that compute element by element, or over axes, share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgs.frontends.caffe.context import LayerContext, Value


def number(context: LayerContext, value: float) -> Value:
    return context.const(np.array(value, np.float32))


def affine(context: LayerContext, x: Value, scale: float, shift: float) -> Value:
    """x · scale + shift."""
    if scale == 0:
        return context.const(np.full(x.shape, shift, np.float32))
    y = x if scale == 1 else context.emit("Mul", [x, number(context, scale)])
    return y if shift == 0 else context.emit("Add", [y, number(context, shift)])


def rectified(context: LayerContext, x: Value, slope: float) -> Value:
    """max(x, 0) + slope · min(x, 0)."""
    return context.emit("LeakyRelu", [x], alpha=slope) if slope else context.emit("Relu", [x])


def reduced(context: LayerContext, op_type: str, x: Value, axes: Sequence[int], *, keep: bool = True) -> Value:
    """A reduction; of them ReduceSum has its axes as operand, the others as attribute."""
    if op_type == "ReduceSum":
        return context.emit(op_type, [x, context.const(list(axes))], keepdims=int(keep))
    return context.emit(op_type, [x], axes=list(axes), keepdims=int(keep))
