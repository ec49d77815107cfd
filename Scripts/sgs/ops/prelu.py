"""PRELU: x where it is not negative, else slope · x. The slope broadcasts to x, and may be computed."""

from __future__ import annotations

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Tensor
from sgs.numeric.quantise import Array
from sgs.ops._elementwise import Meaning, add_elementwise
from sgs.ops._import import add, multiply, reshaped
from sgs.ops._integers import in_integers, present
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, Lowering, OnnxCase, SimRow


def _emit(low: Lowering, x: str, slope: str) -> str:
    """max(x, 0) + slope · min(x, 0): the same binary32 numbers, several times faster than onnxruntime's broadcasting
    PRelu."""
    zero = low.const(np.asarray(0, np.float32))
    below = low.op("Mul", [low.op("Min", [x, zero]), slope])
    return str(low.op("Add", [low.op("Relu", [x]), below]))


def _function(x: Array, slope: Array) -> Array:
    return np.where(x >= 0, x, x * slope)


def _example(largest: float, constant: bool = True) -> Graph:
    build = GraphBuilder()
    x = build.input("x", (1, 5, 7, 6))
    slope = np.linspace(-0.5, largest, 6, dtype=np.float32).reshape(1, 1, 6)
    return build.output(build("PRELU", x, slope if constant else build.input("s", (1, 1, 6)), output="y"))


add_elementwise(
    "PRELU",
    "x where x >= 0, else slope * x; the slope broadcasts",
    {"real": Meaning(_emit, _function)},
    examples=lambda: [_example(0.9), _example(1.7), _example(1, constant=False)],
    sim=SimRow(),
)


@IMPORT_ONNX.row("PRelu")
def import_prelu(ctx: ImportContext) -> list[Tensor]:
    """Before operator set 7 a vector of slopes is one of channels."""
    x, slope = present(ctx)
    if ctx.opset < 7 and len(slope.shape) == 1 and slope.shape[0] != 1:
        slope = _of_channels(ctx, slope, len(x.shape))
    if x.dtype.is_float:
        return [ctx.emit("PRELU", x, slope)]
    return [in_integers(ctx, lambda a, b: _of_integers(ctx, a, b), [x, slope])]


def _of_channels(ctx: ImportContext, slope: Tensor, rank: int) -> Tensor:
    shape = (*slope.shape, *(1,) * (rank - 2))
    return reshaped(ctx, slope, shape)


def _of_integers(ctx: ImportContext, x: Tensor, slope: Tensor) -> Tensor:
    zero = np.array([0], np.int32)
    below = multiply(ctx, ctx.emit("MINIMUM", x, zero), slope)
    return add(ctx, ctx.emit("MAXIMUM", x, zero), below)


ONNX_EXAMPLES.add(
    "PRelu",
    [
        OnnxCase("PRelu", {"x": (1, 5, 7, 6)}, {"s": np.linspace(-0.5, 1.5, 5, dtype=np.float32).reshape(5, 1, 1)}),
        OnnxCase("PRelu", {"x": (3, 7)}, {"s": np.linspace(-0.5, 1.5, 7, dtype=np.float32)}),
        OnnxCase("PRelu", {"x": (1, 5, 7, 6), "s": (5, 1, 1)}),
        OnnxCase("PRelu", {"x": (3, 7)}, {"s": np.linspace(-0.5, 1.5, 7, dtype=np.float32)}, opset=9),
    ],
)
