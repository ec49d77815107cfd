"""ONNX Trilu and EyeLike: parts of matrices on either side of a diagonal."""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.types import DType
from sgs.ops._import import single_operand
from sgs.ops._integers import NARROW, retyped
from sgs.ops.cast import graph_type
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase


@IMPORT_ONNX.row("Trilu")
def import_trilu(ctx: ImportContext) -> list[Tensor]:
    """A choice between the operand and 0."""
    x = ctx.inputs[0]
    assert x is not None
    if len(x.shape) < 2:
        raise ctx.refuse(f"an operand of shape {x.shape}", "it needs matrices")
    k = single_operand(ctx, 1, "diagonal", int) or 0
    kept = np.ones(x.shape[-2:], np.bool_)
    kept = np.triu(kept, k) if ctx.attrs.get("upper", 1) else np.tril(kept, k)
    if kept.all():
        return [x]
    wide = retyped(ctx, x, DType.INT32) if x.dtype in NARROW else x
    return [retyped(ctx, ctx.emit("SELECT_V2", kept, wide, np.zeros(1, wide.dtype.numpy)), x.dtype)]


@IMPORT_ONNX.row("EyeLike")
def import_eye_like(ctx: ImportContext) -> list[Tensor]:
    """A constant, as only the operand's shape counts."""
    x = ctx.inputs[0]
    assert x is not None
    if len(x.shape) != 2:
        raise ctx.refuse(f"an operand of shape {x.shape}", "it is to be a matrix")
    dtype = graph_type(ctx, int(ctx.attrs["dtype"])) if "dtype" in ctx.attrs else x.dtype
    data = np.eye(x.shape[0], x.shape[1], int(ctx.attrs.get("k", 0))).astype(dtype.numpy)
    return [Tensor(f"{ctx.name}/eye", data.shape, DType.of(data.dtype), data)]


ONNX_EXAMPLES.add(
    "Trilu",
    [
        OnnxCase("Trilu", {"x": (5, 7)}, {"k": np.array(1)}),
        OnnxCase("Trilu", {"x": (1, 3, 5, 7)}, {"k": np.array(-2)}, {"upper": 0}),
        OnnxCase("Trilu", {"x": (2, 7, 5)}),
    ],
)
ONNX_EXAMPLES.add("EyeLike", [])  # its result is a constant
