"""ONNX computes integers of every width, elementwise operators INT32: there by CAST, and back with wraparound."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.types import DType
from sgs.registry import ImportContext

NARROW = (DType.INT8, DType.UINT8, DType.INT16, DType.UINT16)


def retyped(ctx: ImportContext, x: Tensor, dtype: DType) -> Tensor:
    """The tensor in another element type, wrapped or truncated as CAST does; itself where it has that type."""
    if x.dtype is dtype:
        return x
    if x.data is None:
        return ctx.emit("CAST", x, to=dtype.name)
    with np.errstate(invalid="ignore"):
        data = x.data.astype(dtype.numpy)
    return Tensor(x.name, data.shape, dtype, data)


def in_integers(ctx: ImportContext, compute: Callable[..., Tensor], operands: Sequence[Tensor]) -> Tensor:
    """`compute(*operands)` in INT32 where the operands are narrower integers, its result in their type (a comparison's
    as it is)."""
    dtype = operands[0].dtype
    if dtype not in NARROW:
        return compute(*operands)
    y = compute(*(retyped(ctx, x, DType.INT32) for x in operands))
    return y if y.dtype is DType.BOOL else retyped(ctx, y, dtype)


def present(ctx: ImportContext) -> list[Tensor]:
    """The operands that a node has."""
    return [x for x in ctx.inputs if x is not None]
