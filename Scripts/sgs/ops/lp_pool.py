"""LpPool and GlobalLpPool of ONNX: (Σ |x|^p)^(1/p) over a window, written out in elementwise operators around a mean.

In fixed graphs |x|^p and the root are one table each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sgs.ir.graph import Tensor
from sgs.ops._import import multiply
from sgs.ops.pool_import import mean_with_zeros, pooled
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase, Shape


def _exponent(ctx: ImportContext) -> int:
    p = ctx.attrs.get("p", 2)
    if p != int(p) or p < 1:
        raise ctx.refuse(f"exponent p = {p}", "p is a whole number of at least 1")
    return int(p)


def _power(ctx: ImportContext, x: Tensor, p: int) -> Tensor:
    """|x|^p."""
    if p == 2:
        return ctx.emit("SQUARE", x)
    magnitude = ctx.emit("ABS", x)
    y = magnitude
    for _ in range(p - 1):
        y = multiply(ctx, y, magnitude)
    return y


def _root(ctx: ImportContext, x: Tensor, p: int) -> Tensor:
    """x^(1/p) of non-negative numbers; the logarithm of 0, minus infinity, gives 0."""
    if p == 1:
        return x
    if p == 2:
        return ctx.emit("SQRT", x)
    return ctx.emit("EXP", multiply(ctx, ctx.emit("LOG", x), 1 / p))


@IMPORT_ONNX.row("LpPool")
def import_lp_pool(ctx: ImportContext) -> list[Tensor]:
    """Padding counts as zeros. The sum is the mean times the window's size."""
    p, x = _exponent(ctx), ctx.inputs[0]
    assert x is not None
    mean = pooled(ctx, _power(ctx, x, p), mean_with_zeros)
    return [_root(ctx, multiply(ctx, mean, float(np.prod(ctx.attrs["kernel_shape"]))), p)]


@IMPORT_ONNX.row("GlobalLpPool")
def import_global_lp_pool(ctx: ImportContext) -> list[Tensor]:
    """All axes after batch and channels."""
    p, x = _exponent(ctx), ctx.inputs[0]
    assert x is not None
    total = ctx.emit("SUM", _power(ctx, x, p), axes=tuple(range(2, len(x.shape))), keep_dims=True)
    return [_root(ctx, total, p)]


_X: dict[str, Shape] = {"x": (1, 5, 11, 14)}
_WINDOWS: list[dict[str, Any]] = [
    {"kernel_shape": [3, 2], "strides": [2, 3]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 2], "p": 1},
    {"kernel_shape": [2, 4], "auto_pad": "SAME_LOWER", "p": 3},
]
ONNX_EXAMPLES.add(
    "LpPool",
    [
        *(OnnxCase("LpPool", _X, attrs=attrs) for attrs in _WINDOWS),
        OnnxCase("LpPool", _X, attrs={"kernel_shape": [3, 2], "dilations": [2, 3], "ceil_mode": 1}, opset=18),
        OnnxCase("LpPool", {"x": (2, 5, 11)}, attrs={"kernel_shape": [3], "strides": [2]}),
        OnnxCase("LpPool", {"x": (1, 3, 6, 7, 9)}, attrs={"kernel_shape": [2, 3, 2], "strides": [2, 1, 2]}),
    ],
)
ONNX_EXAMPLES.add(
    "GlobalLpPool",
    [OnnxCase("GlobalLpPool", _X), OnnxCase("GlobalLpPool", {"x": (2, 5, 9)}, attrs={"p": 3})],
)
