"""What TFLite import rows write again and again: constant operands, axes, fused activations."""

from __future__ import annotations

from typing import Any

import numpy as np

from sgs.ir.graph import Tensor
from sgs.ops._mac import ACTIVATIONS
from sgs.registry import ImportContext

AGAIN, SHAPES = "convert the network to .tflite again", "check the input shapes"  # remedies


def operand(ctx: ImportContext, index: int) -> Tensor:
    """An operand that has to be there. Raises the refusal of a node without it."""
    found = ctx.inputs[index] if index < len(ctx.inputs) else None
    if found is None:
        raise ctx.refuse(f"operand {index} is missing", AGAIN)
    return found


def integers(ctx: ImportContext, index: int, what: str) -> list[int]:
    """The numbers of a constant operand that has to be there. Raises the refusal of a computed one."""
    operand(ctx, index)
    value = ctx.constant(index, what)
    if value is None or value.dtype.kind not in "iu":
        raise ctx.refuse(f"its {what} are no integers", AGAIN)
    return [int(number) for number in value.reshape(-1)]


def integer(ctx: ImportContext, index: int, what: str) -> int:
    """The one number of a constant operand. Raises the refusal of a computed one, and of several."""
    found = integers(ctx, index, what)
    if len(found) != 1:
        raise ctx.refuse(f"its {what} is {found}, not one number", AGAIN)
    return found[0]


def axis_of(ctx: ImportContext, axis: int, rank: int) -> int:
    """The axis from the start. Raises the refusal of one that is none."""
    if not -rank <= axis < max(rank, 1):
        raise ctx.refuse(f"there is no axis {axis} of {rank}", AGAIN)
    return axis % max(rank, 1)


def option(ctx: ImportContext, name: str, default: Any) -> Any:
    """An option by its schema name, the schema's `default` where the file does not say it."""
    value = ctx.attrs.get(name)
    return default if value is None else value


def activation_of(ctx: ImportContext) -> str:
    """The fused activation."""
    return str(option(ctx, "fused_activation_function", "NONE"))


def fused(ctx: ImportContext, tensor: Tensor, activation: str | None = None) -> Tensor:
    """The tensor with the node's fused activation behind it. Raises the refusal of SIGN_BIT."""
    activation = activation_of(ctx) if activation is None else activation
    if activation == "NONE":
        return tensor
    if activation not in (*ACTIVATIONS, "TANH"):
        raise ctx.refuse(f"the fused activation {activation} is not supported")
    return ctx.emit(activation, tensor)


def real_constant(ctx: ImportContext, index: int, what: str) -> np.ndarray[Any, Any]:
    """A constant operand of real numbers as float32. Raises the refusal of a computed one, and of other numbers."""
    operand(ctx, index)
    value = ctx.constant(index, what)
    if value is None or value.dtype.kind != "f":
        raise ctx.refuse(f"its {what} are no real numbers", AGAIN)
    return np.asarray(value, np.float32)
