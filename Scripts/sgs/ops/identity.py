"""ONNX operators that change nothing here: Identity, and Dropout at inference."""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Tensor
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase, Shape


def _operand(ctx: ImportContext) -> list[Tensor]:
    x = ctx.inputs[0]
    assert x is not None
    return [x]


@IMPORT_ONNX.row("Identity")
def import_identity(ctx: ImportContext) -> list[Tensor]:
    return _operand(ctx)


@IMPORT_ONNX.row("Dropout")
def import_dropout(ctx: ImportContext) -> list[Tensor]:
    """Inference only. The mask, its second result, has no meaning here."""
    training = ctx.constant(2, "training_mode") if len(ctx.inputs) > 2 else None
    if training is not None and bool(training.reshape(-1)[0]):
        raise ctx.refuse("dropout in training mode", "export the network in inference mode")
    return _operand(ctx)


_X: dict[str, Shape] = {"x": (2, 5, 7)}
ONNX_EXAMPLES.add("Identity", [OnnxCase("Identity", _X)])
ONNX_EXAMPLES.add(
    "Dropout",
    [
        OnnxCase("Dropout", _X, attrs={"ratio": 0.4}, opset=7),
        OnnxCase("Dropout", _X, {"ratio": np.array(0.3, np.float32), "training": np.array(False)}, opset=13),
    ],
)
