"""ONNX functions of one tensor that become small expressions of TFLite builtins, and one table in fixed graphs."""

from __future__ import annotations

from typing import Any

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.ops._unary import same, unary_cases
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase


def _number(value: float) -> Array:
    return np.array([value], np.float32)


class _Formula:
    """Writes an expression of real numbers with the node's context."""

    def __init__(self, ctx: ImportContext) -> None:
        self.ctx = ctx

    def _binary(self, op: str, a: Tensor | float, b: Tensor | float, **attrs: Any) -> Tensor:
        operands = (_number(value) if isinstance(value, float) else value for value in (a, b))
        return self.ctx.emit(op, *operands, **attrs)

    def add(self, a: Tensor | float, b: Tensor | float) -> Tensor:
        return self._binary("ADD", a, b, activation="NONE")

    def mul(self, a: Tensor | float, b: Tensor | float) -> Tensor:
        return self._binary("MUL", a, b, activation="NONE")

    def div(self, a: Tensor | float, b: Tensor | float) -> Tensor:
        return self._binary("DIV", a, b, activation="NONE")

    def positive_part(self, x: Tensor) -> Tensor:
        return self.ctx.emit("RELU", x)

    def negative_part(self, x: Tensor) -> Tensor:
        return self._binary("MINIMUM", x, 0.0)

    def softplus(self, x: Tensor) -> Tensor:
        """max(x, 0) + log(1 + exp(-|x|)): no exponential overflows."""
        power = self.ctx.emit("EXP", self.ctx.emit("NEG", self.ctx.emit("ABS", x)))
        return self.add(self.positive_part(x), self.ctx.emit("LOG", self.add(power, 1.0)))

    def elu(self, x: Tensor, alpha: float) -> Tensor:
        """x where positive, alpha · (exp(x) − 1) elsewhere."""
        below = self.negative_part(self.ctx.emit("ELU", x))
        return self.add(self.positive_part(x), self.mul(below, alpha))


def _operand(ctx: ImportContext) -> tuple[Tensor, _Formula]:
    x = ctx.inputs[0]
    assert x is not None
    return x, _Formula(ctx)


IMPORT_ONNX.add("Abs", same("ABS"))
IMPORT_ONNX.add("Neg", same("NEG"))
IMPORT_ONNX.add("Sign", same("SIGN"))
IMPORT_ONNX.add("Relu", same("RELU"))
for _op in ("Abs", "Neg", "Sign", "Relu"):
    ONNX_EXAMPLES.add(_op, unary_cases(_op))


@IMPORT_ONNX.row("Reciprocal")
def import_reciprocal(ctx: ImportContext) -> list[Tensor]:
    x, write = _operand(ctx)
    return [write.div(1.0, x)]


ONNX_EXAMPLES.add("Reciprocal", unary_cases("Reciprocal", 0.25, 8))


@IMPORT_ONNX.row("HardSigmoid")
def import_hard_sigmoid(ctx: ImportContext) -> list[Tensor]:
    x, write = _operand(ctx)
    alpha, beta = float(ctx.attrs.get("alpha", 0.2)), float(ctx.attrs.get("beta", 0.5))
    return [ctx.emit("RELU_0_TO_1", write.add(write.mul(x, alpha), beta))]


ONNX_EXAMPLES.add("HardSigmoid", unary_cases("HardSigmoid", alpha=0.17, beta=0.4))


@IMPORT_ONNX.row("Softplus")
def import_softplus(ctx: ImportContext) -> list[Tensor]:
    x, write = _operand(ctx)
    return [write.softplus(x)]


@IMPORT_ONNX.row("Softsign")
def import_softsign(ctx: ImportContext) -> list[Tensor]:
    x, write = _operand(ctx)
    return [write.div(x, write.add(ctx.emit("ABS", x), 1.0))]


@IMPORT_ONNX.row("Mish")
def import_mish(ctx: ImportContext) -> list[Tensor]:
    x, write = _operand(ctx)
    return [write.mul(x, ctx.emit("TANH", write.softplus(x)))]


@IMPORT_ONNX.row("Swish")
def import_swish(ctx: ImportContext) -> list[Tensor]:
    """x · sigmoid(alpha · x)."""
    x, write = _operand(ctx)
    alpha = float(ctx.attrs.get("alpha", 1.0))
    return [write.mul(x, ctx.emit("LOGISTIC", x if alpha == 1 else write.mul(x, alpha)))]


@IMPORT_ONNX.row("Elu")
def import_elu(ctx: ImportContext) -> list[Tensor]:
    x, write = _operand(ctx)
    alpha = float(ctx.attrs.get("alpha", 1.0))
    return [ctx.emit("ELU", x) if alpha == 1 else write.elu(x, alpha)]


@IMPORT_ONNX.row("Selu")
def import_selu(ctx: ImportContext) -> list[Tensor]:
    """gamma · elu(x)."""
    x, write = _operand(ctx)
    alpha, gamma = float(ctx.attrs.get("alpha", 1.6732632423543772)), float(ctx.attrs.get("gamma", 1.0507009873554805))
    return [write.mul(write.elu(x, alpha), gamma)]


@IMPORT_ONNX.row("Celu")
def import_celu(ctx: ImportContext) -> list[Tensor]:
    """max(x, 0) + min(alpha · (exp(x / alpha) − 1), 0). Raises the refusal of an alpha that is not positive."""
    x, write = _operand(ctx)
    alpha = float(ctx.attrs.get("alpha", 1.0))
    if not alpha > 0:
        raise ctx.refuse(f"alpha {alpha}", "alpha must be positive")
    below = write.negative_part(ctx.emit("ELU", write.div(x, alpha)))
    return [write.add(write.positive_part(x), write.mul(below, alpha))]


ONNX_EXAMPLES.add("Softplus", unary_cases("Softplus", -30, 30))
ONNX_EXAMPLES.add("Softsign", unary_cases("Softsign"))
ONNX_EXAMPLES.add("Mish", unary_cases("Mish", -30, 30, opset=18))
ONNX_EXAMPLES.add("Swish", [*unary_cases("Swish", opset=24), *unary_cases("Swish", opset=24, alpha=1.7)])
ONNX_EXAMPLES.add("Elu", [*unary_cases("Elu"), *unary_cases("Elu", alpha=1.7)])
ONNX_EXAMPLES.add("Selu", [*unary_cases("Selu"), *unary_cases("Selu", alpha=1.2, gamma=0.9)])
ONNX_EXAMPLES.add("Celu", [*unary_cases("Celu"), *unary_cases("Celu", alpha=0.6)])

_CLIPS: dict[tuple[float | None, float | None], str] = {
    (0.0, None): "RELU",
    (0.0, 6.0): "RELU6",
    (-1.0, 1.0): "RELU_N1_TO_1",
    (0.0, 1.0): "RELU_0_TO_1",
}


@IMPORT_ONNX.row("Clip")
def import_clip(ctx: ImportContext) -> list[Tensor]:
    """The bounds that TFLite has a builtin for, else MAXIMUM and MINIMUM with constants."""
    low: Any = ctx.attrs.get("min")
    high: Any = ctx.attrs.get("max")
    if len(ctx.inputs) > 1 and ctx.inputs[1] is not None:
        low = ctx.constant(1, "min")
    if len(ctx.inputs) > 2 and ctx.inputs[2] is not None:
        high = ctx.constant(2, "max")
    floor = None if low is None or float(low) < -3e38 else float(low)
    ceiling = None if high is None or float(high) > 3e38 else float(high)
    x = ctx.inputs[0]
    if (floor, ceiling) in _CLIPS:
        return [ctx.emit(_CLIPS[(floor, ceiling)], x)]
    if floor is not None:
        x = ctx.emit("MAXIMUM", x, np.array([floor], np.float32))
    if ceiling is not None:
        x = ctx.emit("MINIMUM", x, np.array([ceiling], np.float32))
    assert x is not None
    return [x]


ONNX_EXAMPLES.add(
    "Clip",
    [
        *(
            OnnxCase(
                "Clip",
                {"x": (1, 5, 7, 6)},
                {"lo": np.asarray(a, np.float32), "hi": np.asarray(b, np.float32)},
                low=-8,
                high=8,
            )
            for a, b in ((0, 6), (-1, 1), (0, 1), (-2.5, 3.25))
        ),
        OnnxCase("Clip", {"x": (1, 5, 7, 6)}, {"lo": np.asarray(0, np.float32)}, low=-8, high=8),
    ],
)
