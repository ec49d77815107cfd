"""Unary functions that TFLite has as builtins. A function that it lacks is imported as a small expression of these
(`ops/activation.py`) or, where there is none, is an operator of our own (`ops/unary_custom.py`); `quant/prepare.py`
merges expressions of one tensor into one table before calibration.
"""

from __future__ import annotations

import math

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Node, Tensor
from sgs.numeric.quantise import Array
from sgs.ops._unary import Compute, add_unary, same, unary_cases
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, Lowering


def erf(x: Array) -> Array:
    """The error function of float64 values."""
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), np.float64)


def _logistic(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _hard_swish(x: Array) -> Array:
    return np.asarray(x * np.clip(x / 6 + 0.5, 0, 1))


def _gelu(node: Node, x: Array) -> Array:
    if node.attrs["approximate"]:
        return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    return np.asarray(0.5 * x * (1 + erf(x / math.sqrt(2))))


def _between(floor: float, ceiling: float) -> Compute:
    limits = [np.asarray(bound, np.float32) for bound in (floor, ceiling)]
    return lambda low, node, value: low.op("Clip", [value, *map(low.const, limits)])


def _lower_rsqrt(low: Lowering, node: Node, value: str) -> str:
    return str(low.op("Reciprocal", [low.op("Sqrt", [value])]))


def _lower_gelu(low: Lowering, node: Node, value: str) -> str:
    return str(low.op("Gelu", [value], approximate="tanh" if node.attrs["approximate"] else "none"))


def _magnitude(build: GraphBuilder, x: Tensor) -> Tensor:
    return build("ABS", x)


def _positive(build: GraphBuilder, x: Tensor) -> Tensor:
    return build("ADD", build("ABS", x), np.array([0.1], np.float32), activation="NONE")


add_unary("RELU", "Relu", lambda node, x: np.maximum(x, 0))
add_unary("RELU6", _between(0, 6), lambda node, x: np.clip(x, 0, 6))
add_unary("RELU_N1_TO_1", _between(-1, 1), lambda node, x: np.clip(x, -1, 1))
add_unary("RELU_0_TO_1", _between(0, 1), lambda node, x: np.clip(x, 0, 1))
add_unary("LOGISTIC", "Sigmoid", lambda node, x: _logistic(x))
add_unary("TANH", "Tanh", lambda node, x: np.tanh(x))
add_unary("HARD_SWISH", "HardSwish", lambda node, x: _hard_swish(x), options="HardSwishOptions")
add_unary("ELU", "Elu", lambda node, x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))))
add_unary("GELU", _lower_gelu, _gelu, options="GeluOptions", attrs={"approximate": False})
add_unary(
    "LEAKY_RELU",
    "LeakyRelu",
    lambda node, x: np.where(x >= 0, x, x * node.attrs["alpha"]),
    options="LeakyReluOptions",
    attrs={"alpha": 0.1},
)
add_unary("ABS", "Abs", lambda node, x: np.abs(x), options="AbsOptions")
add_unary("NEG", "Neg", lambda node, x: np.negative(x), options="NegOptions")
add_unary("SIGN", "Sign", lambda node, x: np.sign(x), options="SignOptions")
add_unary("FLOOR", "Floor", lambda node, x: np.floor(x))
add_unary("CEIL", "Ceil", lambda node, x: np.ceil(x))
add_unary("ROUND", "Round", lambda node, x: np.rint(x))
add_unary("EXP", "Exp", lambda node, x: np.exp(x), options="ExpOptions")
add_unary("LOG", "Log", lambda node, x: np.log(x), domain=_positive)
add_unary("SQRT", "Sqrt", lambda node, x: np.sqrt(x), domain=_magnitude)
add_unary("RSQRT", _lower_rsqrt, lambda node, x: 1 / np.sqrt(x), domain=_positive)
add_unary(
    "SQUARE",
    lambda low, node, value: low.op("Mul", [value, value]),
    lambda node, x: np.square(x),
    options="SquareOptions",
)
add_unary("SIN", "Sin", lambda node, x: np.sin(x))
add_unary("COS", "Cos", lambda node, x: np.cos(x), options="CosOptions")


# -- ONNX import -------------------------------------------------------------------------------------------------------
_SAME = {  # ONNX name → (our name, bounds of the examples)
    "Sigmoid": ("LOGISTIC", -8, 8),
    "Tanh": ("TANH", -8, 8),
    "HardSwish": ("HARD_SWISH", -8, 8),
    "Floor": ("FLOOR", -8, 8),
    "Ceil": ("CEIL", -8, 8),
    "Round": ("ROUND", -8, 8),
    "Exp": ("EXP", -8, 8),
    "Log": ("LOG", 0.01, 8),
    "Sqrt": ("SQRT", 0, 8),
    "Sin": ("SIN", -8, 8),
    "Cos": ("COS", -8, 8),
}
for _onnx, (_op, _low, _high) in _SAME.items():
    IMPORT_ONNX.add(_onnx, same(_op))
    ONNX_EXAMPLES.add(_onnx, unary_cases(_onnx, _low, _high))


@IMPORT_ONNX.row("LeakyRelu")
def import_leaky_relu(ctx: ImportContext) -> list[Tensor]:
    return [ctx.emit("LEAKY_RELU", ctx.inputs[0], alpha=float(ctx.attrs.get("alpha", 0.01)))]


ONNX_EXAMPLES.add("LeakyRelu", unary_cases("LeakyRelu", alpha=0.2))


@IMPORT_ONNX.row("Gelu")
def import_gelu(ctx: ImportContext) -> list[Tensor]:
    """Raises the refusal of an approximation other than tanh's."""
    kind = ctx.attrs.get("approximate", "none")
    if kind not in ("none", "tanh"):
        raise ctx.refuse(f"approximation '{kind}'", "none and tanh are supported")
    return [ctx.emit("GELU", ctx.inputs[0], approximate=kind == "tanh")]


ONNX_EXAMPLES.add("Gelu", [*unary_cases("Gelu", opset=20), *unary_cases("Gelu", opset=20, approximate="tanh")])
