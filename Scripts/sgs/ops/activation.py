"""ONNX functions of one tensor that become small expressions of TFLite builtins, and one table in fixed graphs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.types import DType
from sgs.ops._import import add, divide, multiply, number, subtract
from sgs.ops._integers import in_integers, present
from sgs.ops._unary import unary_cases
from sgs.registry import IMPORT_ONNX, IMPORT_TFLITE, ONNX_EXAMPLES, TFLITE_EXAMPLES, ImportContext, OnnxCase, TfliteCase

_NO_BOUND = 3e38  # a Clip to beyond it is none


def _operand(ctx: ImportContext) -> Tensor:
    x = ctx.inputs[0]
    assert x is not None
    return x


def _positive_part(ctx: ImportContext, x: Tensor) -> Tensor:
    return ctx.emit("RELU", x)


def _negative_part(ctx: ImportContext, x: Tensor) -> Tensor:
    return ctx.emit("MINIMUM", x, number(0))


def _softplus(ctx: ImportContext, x: Tensor) -> Tensor:
    """max(x, 0) + log(1 + exp(-|x|)): no exponential overflows."""
    power = ctx.emit("EXP", ctx.emit("NEG", ctx.emit("ABS", x)))
    return add(ctx, _positive_part(ctx, x), ctx.emit("LOG", add(ctx, power, 1)))


def _elu(ctx: ImportContext, x: Tensor, alpha: float) -> Tensor:
    """x where positive, alpha · (exp(x) − 1) elsewhere."""
    below = _negative_part(ctx, ctx.emit("ELU", x))
    return add(ctx, _positive_part(ctx, x), multiply(ctx, below, alpha))


_ZERO, _ONE = np.array([0], np.int32), np.array([1], np.int32)


def _negated(ctx: ImportContext, x: Tensor) -> Tensor:
    return subtract(ctx, _ZERO, x)


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


def _tflite_case(op: str, table: str, kind: str) -> TfliteCase:
    return TfliteCase(op, {"x": (3, 7)}, table=table, types={"x": kind}, results=(kind,), low=-9, high=9)


for _onnx, _row in _WITH_INTEGERS.items():
    IMPORT_ONNX.add(_onnx, _import(*_row))
    IMPORT_TFLITE.add(_row[0], _import(*_row))
    _kinds, _table = (("float32",), "") if _onnx == "Relu" else (("float32", "int32"), f"{_onnx}Options")
    TFLITE_EXAMPLES.add(_row[0], [_tflite_case(_row[0], _table, kind) for kind in _kinds])
    ONNX_EXAMPLES.add(
        _onnx,
        [
            *unary_cases(_onnx),
            *(OnnxCase(_onnx, {"x": (3, 7)}, low=-99, high=99, types={"x": kind}) for kind in ("int8", "int32")),
        ],
    )


@IMPORT_ONNX.row("Reciprocal")
def import_reciprocal(ctx: ImportContext) -> list[Tensor]:
    x = _operand(ctx)
    return [divide(ctx, 1.0, x)]


ONNX_EXAMPLES.add("Reciprocal", unary_cases("Reciprocal", 0.25, 8))


@IMPORT_ONNX.row("HardSigmoid")
def import_hard_sigmoid(ctx: ImportContext) -> list[Tensor]:
    x = _operand(ctx)
    alpha, beta = float(ctx.attrs.get("alpha", 0.2)), float(ctx.attrs.get("beta", 0.5))
    return [ctx.emit("RELU_0_TO_1", add(ctx, multiply(ctx, x, alpha), beta))]


ONNX_EXAMPLES.add("HardSigmoid", unary_cases("HardSigmoid", alpha=0.17, beta=0.4))


@IMPORT_ONNX.row("Softplus")
def import_softplus(ctx: ImportContext) -> list[Tensor]:
    x = _operand(ctx)
    return [_softplus(ctx, x)]


@IMPORT_ONNX.row("Softsign")
def import_softsign(ctx: ImportContext) -> list[Tensor]:
    x = _operand(ctx)
    return [divide(ctx, x, add(ctx, ctx.emit("ABS", x), 1.0))]


@IMPORT_ONNX.row("Mish")
def import_mish(ctx: ImportContext) -> list[Tensor]:
    x = _operand(ctx)
    return [multiply(ctx, x, ctx.emit("TANH", _softplus(ctx, x)))]


@IMPORT_ONNX.row("Swish")
def import_swish(ctx: ImportContext) -> list[Tensor]:
    """x · sigmoid(alpha · x)."""
    x = _operand(ctx)
    alpha = float(ctx.attrs.get("alpha", 1.0))
    return [multiply(ctx, x, ctx.emit("LOGISTIC", x if alpha == 1 else multiply(ctx, x, alpha)))]


@IMPORT_ONNX.row("Elu")
def import_elu(ctx: ImportContext) -> list[Tensor]:
    x = _operand(ctx)
    alpha = float(ctx.attrs.get("alpha", 1.0))
    return [ctx.emit("ELU", x) if alpha == 1 else _elu(ctx, x, alpha)]


@IMPORT_ONNX.row("Selu")
def import_selu(ctx: ImportContext) -> list[Tensor]:
    """gamma · elu(x)."""
    x = _operand(ctx)
    alpha, gamma = float(ctx.attrs.get("alpha", 1.6732632423543772)), float(ctx.attrs.get("gamma", 1.0507009873554805))
    return [multiply(ctx, _elu(ctx, x, alpha), gamma)]


@IMPORT_ONNX.row("Celu")
def import_celu(ctx: ImportContext) -> list[Tensor]:
    """max(x, 0) + min(alpha · (exp(x / alpha) − 1), 0). Raises the refusal of an alpha that is not positive."""
    x = _operand(ctx)
    alpha = float(ctx.attrs.get("alpha", 1.0))
    if not alpha > 0:
        raise ctx.refuse(f"alpha {alpha}", "alpha must be positive")
    below = _negative_part(ctx, ctx.emit("ELU", divide(ctx, x, alpha)))
    return [add(ctx, _positive_part(ctx, x), multiply(ctx, below, alpha))]


@IMPORT_ONNX.row("ThresholdedRelu")
def import_thresholded_relu(ctx: ImportContext) -> list[Tensor]:
    """x where it exceeds alpha, else 0."""
    x = _operand(ctx)
    exceeding = ctx.emit("GREATER", x, number(ctx.attrs.get("alpha", 1.0)))
    return [ctx.emit("SELECT_V2", exceeding, x, number(0))]


@IMPORT_ONNX.row("Shrink")
def import_shrink(ctx: ImportContext) -> list[Tensor]:
    """x + bias below -lambd, x − bias above lambd, 0 between."""
    x = _operand(ctx)
    if not x.dtype.is_float:
        raise ctx.refuse("integers that shrink", "real numbers are supported")
    lambd, bias = float(ctx.attrs.get("lambd", 0.5)), float(ctx.attrs.get("bias", 0.0))
    above = ctx.emit("SELECT_V2", ctx.emit("GREATER", x, number(lambd)), add(ctx, x, -bias), number(0))
    return [ctx.emit("SELECT_V2", ctx.emit("LESS", x, number(-lambd)), add(ctx, x, bias), above)]


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
