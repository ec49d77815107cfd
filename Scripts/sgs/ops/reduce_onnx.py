"""ONNX reductions: those that are operators of ours, and those that are made of others.

    ReduceL1 Σ|x|    ReduceL2 √Σx²    ReduceSumSquare Σx²    ReduceLogSum ln Σx    ReduceLogSumExp m + ln Σe^(x-m)

with m the maximum, so that no exponential is larger than 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.types import DType
from sgs.ops._import import add, multiply, subtract
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase, Shape

_OPS = {"ReduceMean": "MEAN", "ReduceSum": "SUM", "ReduceMax": "REDUCE_MAX", "ReduceMin": "REDUCE_MIN"}
_OPS["ReduceProd"] = "REDUCE_PROD"
_OF_TRUTH = {"ReduceMax": "REDUCE_ANY", "ReduceMin": "REDUCE_ALL"}


def _axes(ctx: ImportContext) -> tuple[int, ...]:
    """Ascending non-negative axes, from attribute or operand; none where nothing is reduced."""
    x = ctx.inputs[0]
    assert x is not None
    rank = len(x.shape)
    given = ctx.attrs.get("axes")
    if given is None and len(ctx.inputs) > 1:
        given = ctx.constant(1, "axes")
    axes = [] if given is None else [int(a) for a in np.asarray(given).reshape(-1)]
    if any(not -rank <= a < rank for a in axes):
        raise ctx.refuse(f"axes {axes} of an operand of shape {x.shape}")
    if not axes and not ctx.attrs.get("noop_with_empty_axes", 0):
        return tuple(range(rank))
    return tuple(sorted({a % rank for a in axes}))


def _emit(ctx: ImportContext, op: str, x: Tensor, axes: Sequence[int]) -> Tensor:
    if not axes:
        return x
    return ctx.emit(op, x, axes=tuple(axes), keep_dims=bool(ctx.attrs.get("keepdims", 1)))


@IMPORT_ONNX.row(*_OPS)
def import_reduce(ctx: ImportContext) -> list[Tensor]:
    x, op = ctx.inputs[0], _OPS[ctx.op]
    assert x is not None
    if x.dtype is DType.BOOL:
        op = _OF_TRUTH.get(ctx.op, "")
    if not op or (op == "MEAN" and not x.dtype.is_float):
        raise ctx.refuse(f"an operand of type {x.dtype.name}", "cast it to float")
    return [_emit(ctx, op, x, _axes(ctx))]


@IMPORT_ONNX.row("GlobalAveragePool", "GlobalMaxPool")
def import_global_pool(ctx: ImportContext) -> list[Tensor]:
    """All axes after batch and channels."""
    x = ctx.inputs[0]
    assert x is not None
    op = "MEAN" if ctx.op == "GlobalAveragePool" else "REDUCE_MAX"
    return [ctx.emit(op, x, axes=tuple(range(2, len(x.shape))), keep_dims=True)]


# -- made of others ----------------------------------------------------------------------------------------------------
_COMPOSED: dict[str, tuple[str, str]] = {  # function of every element, function of every sum
    "ReduceL1": ("ABS", ""),
    "ReduceL2": ("SQUARE", "SQRT"),
    "ReduceSumSquare": ("SQUARE", ""),
    "ReduceLogSum": ("", "LOG"),
}


@IMPORT_ONNX.row(*_COMPOSED)
def import_composed(ctx: ImportContext) -> list[Tensor]:
    before, behind = _COMPOSED[ctx.op]
    x = ctx.inputs[0]
    assert x is not None
    if behind and not x.dtype.is_float:
        raise ctx.refuse(f"an operand of type {x.dtype.name}", "cast it to float")
    if before == "SQUARE" and not x.dtype.is_float:
        value = multiply(ctx, x, x)
    else:
        value = ctx.emit(before, x) if before else x
    value = _emit(ctx, "SUM", value, _axes(ctx))
    return [ctx.emit(behind, value) if behind else value]


@IMPORT_ONNX.row("ReduceLogSumExp")
def import_log_sum_exp(ctx: ImportContext) -> list[Tensor]:
    x, axes = ctx.inputs[0], _axes(ctx)
    assert x is not None
    if not x.dtype.is_float:
        raise ctx.refuse(f"an operand of type {x.dtype.name}", "cast it to float")
    if not axes:
        return [x]
    largest = ctx.emit("REDUCE_MAX", x, axes=axes, keep_dims=True)
    powers = ctx.emit("EXP", subtract(ctx, x, largest))
    rest = ctx.emit("LOG", _emit(ctx, "SUM", powers, axes))
    if largest.shape != rest.shape:
        largest = ctx.emit("RESHAPE", largest, shape=rest.shape)
    return [add(ctx, rest, largest)]


# -- examples ----------------------------------------------------------------------------------------------------------
def _cases(op: str, low: float) -> list[OnnxCase]:
    """Axes as attribute up to operator set 17 (12 for ReduceSum), as operand from then on."""
    x: dict[str, Shape] = {"x": (1, 5, 7, 6)}
    volume: dict[str, Shape] = {"x": (2, 3, 5)}
    old = 11
    return [
        OnnxCase(op, x, attrs={"axes": [2, 3]}, opset=old, low=low),
        OnnxCase(op, x, attrs={"axes": [-3], "keepdims": 0}, opset=old, low=low),
        OnnxCase(op, x, attrs={"keepdims": 0}, opset=old, low=low),
        OnnxCase(op, x, {"a": np.array([1, -1])}, opset=18, low=low),
        OnnxCase(op, volume, {"a": np.array([1])}, {"keepdims": 0}, opset=18, low=low),
        OnnxCase(op, volume, attrs={"noop_with_empty_axes": 1}, opset=18, low=low),
    ]


for _onnx_op in (*_OPS, *_COMPOSED, "ReduceLogSumExp"):
    ONNX_EXAMPLES.add(_onnx_op, _cases(_onnx_op, 0.25 if _onnx_op == "ReduceLogSum" else -1.0))
for _onnx_op in ("GlobalAveragePool", "GlobalMaxPool"):
    ONNX_EXAMPLES.add(_onnx_op, [OnnxCase(_onnx_op, {"x": (1, 5, 7, 6)}), OnnxCase(_onnx_op, {"x": (2, 5, 9)})])
