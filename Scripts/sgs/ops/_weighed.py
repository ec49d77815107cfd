"""Weighed sums of entries of an axis, as a gather of all taps, a product and a sum: any rank, no Transpose."""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.ops._import import multiply
from sgs.registry import ImportContext


def axis_constant(values: Array, axis: int, rank: int) -> Array:
    """A constant operand with a value for each entry of an axis: float32 of that rank."""
    shape = [1] * rank
    shape[axis] = values.size
    return values.astype(np.float32).reshape(shape)


def weighed_sum(ctx: ImportContext, x: Tensor, axis: int, taps: Array, weights: Array) -> Tensor:
    """An axis of x with sum over t of weights[o, t] · entry taps[o, t] for entry o; taps and weights [result, T]."""
    y = ctx.emit("GATHER", x, taps.reshape(-1).astype(np.int32), axis=axis)
    if not (weights == 1).all():
        y = multiply(ctx, y, axis_constant(weights.reshape(-1), axis, len(x.shape)))
    if taps.shape[1] == 1:
        return y
    split = (*x.shape[:axis], *taps.shape, *x.shape[axis + 1 :])
    return ctx.emit("SUM", ctx.emit("RESHAPE", y, shape=split), axes=(axis + 1,), keep_dims=False)
