"""CausalConvWithState of ONNX: a depthwise convolution of one axis over what came before and the operand.

The state that a step leaves is what the next one takes: the last positions of that joined sequence, one fewer than the
kernel's taps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sgs.ir.graph import Tensor
from sgs.ops._import import multiply
from sgs.ops._spatial import cut_axis, pad_axis
from sgs.ops._window import OnnxWindow
from sgs.ops.conv_import import convolved
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase, Shape


@IMPORT_ONNX.row("CausalConvWithState")
def import_causal_conv(ctx: ImportContext) -> list[Tensor]:
    """x [N, C, L], weight [C, 1, K], bias [C], state [N, C, K - 1] → [N, C, L] and the next state."""
    x, weight = ctx.inputs[0], ctx.constant(1, "weight")
    bias = ctx.constant(2, "bias") if len(ctx.inputs) > 2 else None
    state = ctx.inputs[3] if len(ctx.inputs) > 3 else None
    assert x is not None and weight is not None
    channels, _, taps = weight.shape
    length, activation = x.shape[2], ctx.attrs.get("activation", "none")
    if activation not in ("none", "silu", "swish"):
        raise ctx.refuse(f"activation {activation}", "none, silu and swish are defined")
    if taps == 1:
        if ctx.reader_of(1):
            raise ctx.refuse("the state of a kernel with one tap has no elements", "remove the second output")
        joined = x
    elif state is None:
        joined = pad_axis(ctx, x, 2, taps - 1, 0)
    else:
        joined = ctx.emit("CONCATENATION", state, x, axis=2)
    window = OnnxWindow((1,), (1,), (0, 0))
    bias = np.zeros(channels, np.float32) if bias is None else bias.astype(np.float32)
    y = convolved(ctx, joined, weight, bias, window, channels)
    if activation != "none":
        y = multiply(ctx, y, ctx.emit("LOGISTIC", y))
    return [y] if taps == 1 else [y, cut_axis(ctx, joined, 2, length, taps - 1)]


_CHANNELS, _TAPS = 5, 4
_WEIGHTS: dict[str, Any] = {
    "w": np.linspace(-1, 1, _CHANNELS * _TAPS, dtype=np.float32).reshape(_CHANNELS, 1, _TAPS),
    "b": np.linspace(-0.5, 1, _CHANNELS, dtype=np.float32),
}
_X: dict[str, Shape] = {"x": (2, _CHANNELS, 7)}
_STATE: dict[str, Shape] = {**_X, "s": (2, _CHANNELS, _TAPS - 1)}
ONNX_EXAMPLES.add(
    "CausalConvWithState",
    [
        OnnxCase("CausalConvWithState", _X, {"w": _WEIGHTS["w"]}, outputs=2, opset=27),
        OnnxCase(
            "CausalConvWithState",
            _STATE,
            _WEIGHTS,
            {"activation": "silu"},
            order=("x", "w", "b", "s"),
            outputs=2,
            opset=27,
        ),
    ],
)
