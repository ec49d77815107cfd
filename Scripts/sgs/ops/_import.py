"""What ONNX import rows write again and again: arithmetic, products with a constant matrix, other shapes.

Operands of arithmetic broadcast; a Python number among them is a constant of binary32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.registry import ImportContext, Shape

Operand = Tensor | Array | float
_Number = TypeVar("_Number", int, float)


def number(value: float) -> Array:
    """A constant operand of one number: float32 [1]."""
    return np.array([value], np.float32)


def single_operand(ctx: ImportContext, index: int, what: str, kind: Callable[[Any], _Number]) -> _Number | None:
    """The number that constant operand `index` holds, as a Python number of this kind; None where it is absent. Raises
    the refusal of a computed one."""
    value = ctx.constant(index, what) if index < len(ctx.inputs) else None
    return None if value is None else kind(np.asarray(value).reshape(-1)[0])


# -- arithmetic --------------------------------------------------------------------------------------------------------
def add(ctx: ImportContext, a: Operand, b: Operand) -> Tensor:
    return _arithmetic(ctx, "ADD", a, b)


def subtract(ctx: ImportContext, a: Operand, b: Operand) -> Tensor:
    return _arithmetic(ctx, "SUB", a, b)


def multiply(ctx: ImportContext, a: Operand, b: Operand) -> Tensor:
    return _arithmetic(ctx, "MUL", a, b)


def divide(ctx: ImportContext, a: Operand, b: Operand) -> Tensor:
    return _arithmetic(ctx, "DIV", a, b)


def _arithmetic(ctx: ImportContext, op: str, *operands: Operand) -> Tensor:
    given = (number(value) if isinstance(value, int | float) else value for value in operands)
    return ctx.emit(op, *given, activation="NONE")


# -- matrices and shapes -----------------------------------------------------------------------------------------------
def fully_connected(ctx: ImportContext, x: Tensor, weight: Array, bias: Array | None = None) -> Tensor:
    """x [.., I] times weight [O, I], plus bias [O]: [.., O]."""
    bias = np.zeros(weight.shape[0], np.float32) if bias is None else bias
    weight = np.ascontiguousarray(weight, np.float32)
    return ctx.emit("FULLY_CONNECTED", x, weight, bias, activation="NONE", keep_num_dims=True)


def along(values: Array, axis: int, rank: int) -> Array:
    """One number, or one an entry of an axis, as [1] or [entries, 1..]: it broadcasts against a tensor of that rank."""
    return values.reshape((1,) if values.size == 1 else (-1, *(1,) * (rank - axis % rank - 1)))


def reshaped(ctx: ImportContext, x: Tensor, shape: Shape) -> Tensor:
    """The tensor under another shape, at once where it is constant; itself where it has that shape."""
    if x.shape == shape:
        return x
    if x.data is None:
        return ctx.emit("RESHAPE", x, shape=shape)
    return Tensor(x.name, shape, x.dtype, x.data.reshape(shape))
