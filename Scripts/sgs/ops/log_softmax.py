"""ONNX LogSoftmax and Hardmax, in reductions and elementwise operators."""

from __future__ import annotations

from math import prod

from sgs.ir.graph import Tensor
from sgs.ops._import import subtract
from sgs.ops._tflite import operand
from sgs.ops.softmax import softmax_axes
from sgs.registry import IMPORT_ONNX, IMPORT_TFLITE, ONNX_EXAMPLES, TFLITE_EXAMPLES, ImportContext, OnnxCase, TfliteCase


@IMPORT_ONNX.row("LogSoftmax")
def import_log_softmax(ctx: ImportContext) -> list[Tensor]:
    """x - max(x) less the logarithm of the sum of its exponentials, which is no less than 0."""
    x, axes = softmax_axes(ctx)
    below = subtract(ctx, x, ctx.emit("REDUCE_MAX", x, axes=axes, keep_dims=True))
    total = ctx.emit("SUM", ctx.emit("EXP", below), axes=axes, keep_dims=True)
    return [subtract(ctx, below, ctx.emit("LOG", total))]


@IMPORT_ONNX.row("Hardmax")
def import_hardmax(ctx: ImportContext) -> list[Tensor]:
    """1 for the first of the largest values, 0 for others."""
    x, axes = softmax_axes(ctx)
    flat, axis = x, axes[0]
    if len(axes) > 1:
        flat, axis = ctx.emit("RESHAPE", x, shape=(prod(x.shape[: axes[0]]), prod(x.shape[axes[0] :]))), 1
    number = ctx.emit("ARG_MAX", flat, axis=axis)
    y = ctx.emit("ONE_HOT", number, axis=axis, depth=flat.shape[axis], on=1.0, off=0.0)
    return [y if flat is x else ctx.emit("RESHAPE", y, shape=x.shape)]


for _op in ("LogSoftmax", "Hardmax"):
    ONNX_EXAMPLES.add(
        _op,
        [
            OnnxCase(_op, {"x": (3, 11)}, low=-8, high=8),
            OnnxCase(_op, {"x": (1, 5, 7, 6)}, attrs={"axis": 1}, low=-8, high=8),
            OnnxCase(_op, {"x": (2, 5, 7)}, low=-8, high=8, opset=11),
            OnnxCase(_op, {"x": (2, 5, 1)}, low=-8, high=8, opset=9),
        ],
    )


IMPORT_TFLITE.add("LOG_SOFTMAX", lambda ctx: ctx.call("LogSoftmax", operand(ctx, 0), axis=-1))
TFLITE_EXAMPLES.add(
    "LOG_SOFTMAX", [TfliteCase("LOG_SOFTMAX", {"x": (3, 11)}, table="LogSoftmaxOptions", low=-8, high=8)]
)
