"""ONNX MatMul and Gemm. A constant matrix makes them FULLY_CONNECTED, on either side; else they are BATCH_MATMUL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.ops._import import add, fully_connected, multiply, reshaped
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase, Shape


def require_reals(ctx: ImportContext, *tensors: Tensor | None) -> None:
    """Refuse products of integers: they have no sums of products here."""
    whole = next((t.dtype.name for t in tensors if t is not None and not t.dtype.is_float), None)
    if whole is not None:
        raise ctx.refuse(f"a product of {whole} numbers", "cast its operands to floating point")


def swapped(ctx: ImportContext, x: Any) -> Any:
    """The last two axes exchanged, at once where x is an array."""
    if isinstance(x, np.ndarray):
        return x.swapaxes(-1, -2)
    rank = len(x.shape)
    return ctx.emit("TRANSPOSE", x, perm=(*range(rank - 2), rank - 1, rank - 2))


def _single(data: Array | None) -> Array | None:
    """A constant operand as the one matrix that it is; None for a computed operand and for several matrices."""
    if data is None or int(np.prod(data.shape[:-2])) != 1:
        return None
    return data.reshape(data.shape[-2:])


def multiplied(ctx: ImportContext, a: Tensor, b: Tensor) -> Tensor:
    """a [.., M, K] times b [.., K, N], of which one at most is constant."""
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*(int(d) for d in batch), a.shape[-2], b.shape[-1])
    left, right = _single(a.data), _single(b.data)
    if right is not None:
        y = fully_connected(ctx, a, right.T)
    elif left is not None:
        y = swapped(ctx, fully_connected(ctx, swapped(ctx, b), left))
    else:
        y = ctx.emit("BATCH_MATMUL", a, b, adj_x=False, adj_y=False)
    return reshaped(ctx, y, shape)


@IMPORT_ONNX.row("MatMul")
def import_matmul(ctx: ImportContext) -> list[Tensor]:
    """numpy's matmul: a vector is a row on the left and a column on the right, and its axis goes again."""
    a, b = ctx.inputs[0], ctx.inputs[1]
    assert a is not None and b is not None
    require_reals(ctx, a, b)
    if not a.shape or not b.shape:
        raise ctx.refuse(f"a product of shapes {a.shape} and {b.shape}")
    gone = [-2] * (len(a.shape) == 1) + [-1] * (len(b.shape) == 1)
    left = a if len(a.shape) > 1 else reshaped(ctx, a, (1, *a.shape))
    right = b if len(b.shape) > 1 else reshaped(ctx, b, (*b.shape, 1))
    y = multiplied(ctx, left, right)
    kept = tuple(d for axis, d in enumerate(y.shape, -len(y.shape)) if axis not in gone)
    return [reshaped(ctx, y, kept)]


# -- Gemm --------------------------------------------------------------------------------------------------------------
def _scaled(ctx: ImportContext, x: Tensor, factor: float) -> Any:
    """factor · x, at once where x is constant."""
    if factor == 1.0:
        return x
    if x.data is not None:
        return (x.data.astype(np.float64) * factor).astype(np.float32)
    return multiply(ctx, x, factor)


def _as_bias(data: Array, channels: int) -> Array | None:
    """A constant that is the same for every row, as float32 [O]; None for any other."""
    if any(d != 1 for d in data.shape[:-1]) or data.size not in (1, channels):
        return None
    return np.ascontiguousarray(np.broadcast_to(data.reshape(-1), channels), np.float32)


@IMPORT_ONNX.row("Gemm")
def import_gemm(ctx: ImportContext) -> list[Tensor]:
    """alpha · A' · B' + beta · C; ' transposes on demand. With constant B and a C that is the same for every row one
    FULLY_CONNECTED."""
    a, b, c = (*ctx.inputs, None)[:3]
    alpha, beta = float(ctx.attrs.get("alpha", 1.0)), float(ctx.attrs.get("beta", 1.0))
    assert a is not None and b is not None
    require_reals(ctx, a, b, c)
    turn_a, turn_b = bool(ctx.attrs.get("transA", 0)), bool(ctx.attrs.get("transB", 0))
    if b.data is not None:
        weight = (b.data if turn_b else b.data.T) * np.float32(alpha)
        bias = None if c is None or c.data is None else _as_bias(c.data, weight.shape[0])
        x = swapped(ctx, a) if turn_a else a
        y = fully_connected(ctx, x, weight, None if bias is None else bias * np.float32(beta))
        if bias is not None:
            return [y]
    elif a.data is not None:
        weight = (a.data.T if turn_a else a.data) * np.float32(alpha)
        y = swapped(ctx, fully_connected(ctx, b if turn_b else swapped(ctx, b), weight))
    else:
        y = _scaled(ctx, ctx.emit("BATCH_MATMUL", a, b, adj_x=turn_a, adj_y=turn_b), alpha)
    return [y if c is None else add(ctx, y, _scaled(ctx, c, beta))]


# -- examples ----------------------------------------------------------------------------------------------------------
def ramp(*shape: int) -> Array:
    """Numbers from -1 to 1."""
    return np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def _gemm(inputs: dict[str, Shape], constants: dict[str, Array], opset: int = 17, **attrs: Any) -> OnnxCase:
    order: Sequence[str] = sorted([*inputs, *constants])
    return OnnxCase("Gemm", inputs, constants, attrs, tuple(order), opset=opset)


ONNX_EXAMPLES.add(
    "Gemm",
    [
        _gemm({"a": (3, 7)}, {"b": ramp(7, 5), "c": ramp(5)}),
        _gemm({"a": (3, 7)}, {"b": ramp(5, 7), "c": ramp(1, 5)}, 7, transB=1, alpha=0.5, beta=2.0),
        _gemm({"a": (7, 3)}, {"b": ramp(7, 5)}, 11, transA=1),
        _gemm({"a": (3, 7)}, {"b": ramp(7, 5), "c": ramp(3, 1)}, beta=0.5),
        _gemm({"b": (7, 5), "c": (3, 5)}, {"a": ramp(3, 7)}, beta=0.5),
        _gemm({"a": (3, 7)}, {"b": ramp(7, 5), "c": np.array(2, np.float32)}, 9),
        _gemm({"a": (3, 7), "b": (7, 5)}, {}),
        _gemm({"a": (7, 3), "b": (7, 5), "c": (3, 1)}, {}, transA=1, alpha=0.5, beta=2.0),
        _gemm({"a": (7, 3), "b": (5, 7)}, {"c": ramp(5)}, transA=1, transB=1, beta=-1.0),
    ],
)


def _matmul(inputs: dict[str, Shape], constants: dict[str, Array], opset: int = 17) -> OnnxCase:
    return OnnxCase("MatMul", inputs, constants, order=("a", "b"), opset=opset)


ONNX_EXAMPLES.add(
    "MatMul",
    [
        _matmul({"a": (2, 3, 7)}, {"b": ramp(7, 5)}),
        _matmul({"a": (3, 7)}, {"b": ramp(1, 1, 7, 5)}),
        _matmul({"a": (2, 3, 7)}, {"b": ramp(7)}),
        _matmul({"a": (7,)}, {"b": ramp(7, 5)}),
        _matmul({"b": (2, 7, 3)}, {"a": ramp(5, 7)}, 9),
        _matmul({"b": (1, 4, 7, 3)}, {"a": ramp(7)}),
        _matmul({"b": (7,)}, {"a": ramp(5, 7)}),
        _matmul({"a": (3, 7)}, {"b": ramp(2, 7, 5)}),
        _matmul({"b": (2, 7, 5)}, {"a": ramp(2, 3, 7)}),
        _matmul({"a": (3, 7), "b": (7, 5)}, {}),
        _matmul({"a": (2, 3, 5, 7), "b": (3, 7, 4)}, {}),
        _matmul({"a": (2, 3, 1, 5, 7), "b": (1, 4, 7, 6)}, {}),
        _matmul({"a": (7,), "b": (7,)}, {}),
        _matmul({"a": (2, 3, 7), "b": (7,)}, {}),
        _matmul({"a": (7,), "b": (2, 7, 3)}, {}),
    ],
)
