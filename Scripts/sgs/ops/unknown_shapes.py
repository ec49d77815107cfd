"""ONNX operators whose results take their shape from values: only of constants are those known beforehand."""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Tensor
from sgs.ops.gather import pick
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase

_SHAPING = {  # what gives the result its shape, by operand
    "NonZero": ("operand",),
    "Unique": ("operand",),
    "Range": ("start", "limit", "delta"),
    "ConstantOfShape": ("shape",),
}


@IMPORT_ONNX.row(*_SHAPING)
def refuse_unknown_shape(ctx: ImportContext) -> list[Tensor]:
    """Nodes of constants do not come here but for results that are too large."""
    for index, what in enumerate(_SHAPING[ctx.op]):
        operand = ctx.inputs[index]
        if operand is not None and operand.data is None:
            raise ctx.needs_constant(index, f"{what}, which gives the result its shape,")
    raise ctx.refuse("its result is too large")


@IMPORT_ONNX.row("Compress")
def import_compress(ctx: ImportContext) -> list[Tensor]:
    x, condition = ctx.inputs[0], ctx.constant(1, "condition, which gives the result its shape,")
    assert x is not None and condition is not None
    if "axis" in ctx.attrs:
        axis = int(ctx.attrs["axis"]) % len(x.shape)
    else:
        axis, x = 0, ctx.emit("RESHAPE", x, shape=(x.elements,))
    chosen = np.flatnonzero(condition)
    if not chosen.size or chosen[-1] >= x.shape[axis]:
        raise ctx.refuse(f"a condition that chooses {chosen.size} of axis {axis} of shape {x.shape}")
    return [pick(ctx, x, chosen, axis)]


ONNX_EXAMPLES.add(
    "Compress",
    [
        OnnxCase("Compress", {"x": (3, 5)}, {"c": np.array([False, True, True, False, True])}, {"axis": 1}),
        OnnxCase("Compress", {"x": (3, 5)}, {"c": np.array([False, True, False, False, True, True])}),
    ],
)
for _op in _SHAPING:
    ONNX_EXAMPLES.add(_op, [])  # refused
