"""ONNX functions of one tensor that become small expressions of TFLite builtins, and one table in fixed graphs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._integers import in_integers, present
from sgs.ops._unary import unary_cases
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase

_NO_BOUND = 3e38  # a Clip to beyond it is none


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

    def exceeds(self, x: Tensor, limit: float) -> Tensor:
        return self._binary("GREATER", x, limit)

    def select(self, condition: Tensor, x: Tensor, other: Tensor | float) -> Tensor:
        return self.ctx.emit("SELECT_V2", condition, x, _number(other) if isinstance(other, float) else other)

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


_ZERO, _ONE = np.array([0], np.int32), np.array([1], np.int32)


def _negated(ctx: ImportContext, x: Tensor) -> Tensor:
    return ctx.emit("SUB", _ZERO, x, activation="NONE")


def _sign(ctx: ImportContext, x: Tensor) -> Tensor:
    return ctx.emit("MINIMUM", ctx.emit("MAXIMUM", x, -_ONE), _ONE)


_WITH_INTEGERS: dict[str, tuple[str, Callable[[ImportContext, Tensor], Tensor]]] = {  # of reals, of INT32
    "Abs": ("ABS", lambda ctx, x: ctx.emit("MAXIMUM", x, _negated(ctx, x))),
    "Neg": ("NEG", _negated),
    "Sign": ("SIGN", _sign),
    "Relu": ("RELU", lambda ctx, x: ctx.emit("MAXIMUM", x, _ZERO)),
}


def _import(op: str, of_integers: Callable[[ImportContext, Tensor], Tensor]) -> Callable[[ImportContext], list[Tensor]]:
    def convert(ctx: ImportContext) -> list[Tensor]:
        (x,) = present(ctx)
        return [ctx.emit(op, x) if x.dtype.is_float else in_integers(ctx, lambda value: of_integers(ctx, value), [x])]

    return convert


for _onnx, _row in _WITH_INTEGERS.items():
    IMPORT_ONNX.add(_onnx, _import(*_row))
    ONNX_EXAMPLES.add(
        _onnx,
        [
            *unary_cases(_onnx),
            *(OnnxCase(_onnx, {"x": (3, 7)}, low=-99, high=99, types={"x": kind}) for kind in ("int8", "int32")),
        ],
    )


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


@IMPORT_ONNX.row("ThresholdedRelu")
def import_thresholded_relu(ctx: ImportContext) -> list[Tensor]:
    """x where it exceeds alpha, else 0."""
    x, write = _operand(ctx)
    return [write.select(write.exceeds(x, float(ctx.attrs.get("alpha", 1.0))), x, 0.0)]


@IMPORT_ONNX.row("Shrink")
def import_shrink(ctx: ImportContext) -> list[Tensor]:
    """x + bias below -lambd, x − bias above lambd, 0 between."""
    x, write = _operand(ctx)
    if not x.dtype.is_float:
        raise ctx.refuse("integers that shrink", "real numbers are supported")
    lambd, bias = float(ctx.attrs.get("lambd", 0.5)), float(ctx.attrs.get("bias", 0.0))
    above = write.select(write.exceeds(x, lambd), write.add(x, -bias), 0.0)
    return [write.select(ctx.emit("LESS", x, _number(-lambd)), write.add(x, bias), above)]


ONNX_EXAMPLES.add("ThresholdedRelu", unary_cases("ThresholdedRelu", alpha=1.7))
ONNX_EXAMPLES.add("Shrink", [*unary_cases("Shrink"), *unary_cases("Shrink", lambd=1.4, bias=1.1)])
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
    """The bounds that TFLite has a builtin for, else MAXIMUM and MINIMUM."""
    x, *bounds = (*ctx.inputs, None, None)[:3]
    assert x is not None
    if "min" in ctx.attrs or "max" in ctx.attrs:  # before operator set 11
        bounds = [_bound(ctx.attrs.get(name)) for name in ("min", "max")]
    known = tuple(_real_bound(bound) for bound in bounds)
    if x.dtype.is_float and known in _CLIPS:
        return [ctx.emit(_CLIPS[known], x)]
    steps = [
        (op, bound)
        for op, bound, value in zip(("MAXIMUM", "MINIMUM"), bounds, known, strict=True)
        if bound is not None and value is not None
    ]

    def clipped(value: Tensor, *ends: Tensor) -> Tensor:
        for (op, _), end in zip(steps, ends, strict=True):
            value = ctx.emit(op, value, end)
        return value

    return [in_integers(ctx, clipped, [x, *(bound for _, bound in steps)])]


def _bound(value: float | None) -> Tensor | None:
    return None if value is None else Tensor("bound", (), DType.FLOAT32, np.array(value, np.float32))


def _real_bound(bound: Tensor | None) -> float | None:
    """The value of a constant bound, NaN for a computed one, None for one that lets everything pass."""
    if bound is None:
        return None
    if bound.data is None:
        return math.nan
    value = float(bound.data.reshape(-1)[0])
    return None if bound.dtype.is_float and abs(value) > _NO_BOUND else value


_BYTES = dict.fromkeys(("x", "lo", "hi"), "int8")
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
        OnnxCase("Clip", {"x": (1, 5, 7, 6)}, attrs={"min": -2.0, "max": 3.0}, low=-8, high=8, opset=10),
        OnnxCase("Clip", {"x": (3, 7), "hi": ()}, order=("x", "", "hi")),
        OnnxCase("Clip", {"x": (3, 7), "lo": (), "hi": ()}, low=-99, high=99, types=_BYTES),
    ],
)
