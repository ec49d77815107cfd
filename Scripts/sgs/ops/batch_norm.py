"""ONNX BatchNormalization: one multiplication and one addition per channel. No operator of ours: a pass folds both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.ops._import import add, multiply
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase


def channel_affine(parameters: Sequence[Array], epsilon: float) -> tuple[Array, Array]:
    """(factor, addend), float32 [C], of (x - mean) / sqrt(variance + epsilon) * scale + offset, computed in binary64.

    `parameters`: scale, offset, mean, variance, each [C].
    """
    scale, offset, mean, variance = (v.astype(np.float64) for v in parameters)
    factor = scale / np.sqrt(variance + epsilon)
    return factor.astype(np.float32), (offset - mean * factor).astype(np.float32)


@IMPORT_ONNX.row("BatchNormalization")
def import_batch_norm(ctx: ImportContext) -> list[Tensor]:
    """Channels are axis 1 of the source's layout: [N, C, ...]."""
    x = ctx.inputs[0]
    assert x is not None
    if ctx.attrs.get("training_mode", 0):
        raise ctx.refuse("batch normalisation in training mode", "export the network in inference mode")
    if ctx.attrs.get("spatial", 1) != 1:
        raise ctx.refuse("batch normalisation with statistics per pixel (spatial = 0)")
    parameters = []
    for index, what in enumerate(("scale", "B", "mean", "var"), 1):
        value = ctx.constant(index, what)
        if value is None or len(x.shape) < 2 or value.size != x.shape[1]:
            raise ctx.refuse(f"its {what} does not fit the {x.shape[1:2]} channels of shape {x.shape}")
        parameters.append(value.reshape(-1))
    factor, addend = channel_affine(parameters, float(ctx.attrs.get("epsilon", 1e-5)))
    shape = (-1, *(1,) * (len(x.shape) - 2))
    scaled = multiply(ctx, x, factor.reshape(shape))
    return [add(ctx, scaled, addend.reshape(shape))]


_STATISTICS = {
    "scale": np.linspace(-1, 2, 5, dtype=np.float32),
    "offset": np.linspace(2, -1, 5, dtype=np.float32),
    "mean": np.linspace(-0.5, 0.7, 5, dtype=np.float32),
    "var": np.linspace(0.01, 3, 5, dtype=np.float32),
}
ONNX_EXAMPLES.add(
    "BatchNormalization",
    [
        OnnxCase("BatchNormalization", {"x": (1, 5, 7, 6)}, _STATISTICS),
        OnnxCase("BatchNormalization", {"x": (2, 5)}, _STATISTICS, {"epsilon": 0.001}, opset=9),
        OnnxCase("BatchNormalization", {"x": (2, 5, 7)}, _STATISTICS, {"momentum": 0.8}, opset=15),
    ],
)
