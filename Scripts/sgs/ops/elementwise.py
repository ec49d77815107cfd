"""Arithmetic of two tensors with broadcasting: ADD SUB MUL DIV MAXIMUM MINIMUM SQUARED_DIFFERENCE FLOOR_DIV FLOOR_MOD.

Of real numbers and of INT32, which wraps. DIV of integers truncates. Attr `activation` (ADD SUB MUL DIV only) clamps a
real result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._elementwise import Meaning, add_elementwise, carrier_of, numbers, onnx
from sgs.ops._import import add, divide, multiply, subtract
from sgs.ops._integers import in_integers, present
from sgs.ops._marker import is_marker
from sgs.registry import (
    IMPORT_ONNX,
    IMPORT_TFLITE,
    ONNX_EXAMPLES,
    RANGE_FROM,
    SPAN,
    TFLITE_EXAMPLES,
    ImportContext,
    Lowering,
    OnnxCase,
    SimRow,
    Span,
    TfliteCase,
)

_FUSING = ("ADD", "SUB", "MUL", "DIV")


# -- meanings ----------------------------------------------------------------------------------------------------------
def _wide(op_type: str, low: Lowering, a: str, b: str) -> str:
    """An operator of INT32 in INT64, where the quotient of the least number by -1 is no fault."""
    wide = [low.cast(value, DType.INT64) for value in (a, b)]
    return low.cast(low.op(op_type, wide), DType.INT32)


def _truncated_quotient(a: Array, b: Array) -> Array:
    return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)))


def _emit_squared_difference(low: Lowering, a: str, b: str) -> str:
    difference = low.op("Sub", [a, b])
    return str(low.op("Mul", [difference, difference]))


def _squared_difference(a: Array, b: Array) -> Array:
    return np.asarray(np.square(a - b))


def _emit_floor_div(low: Lowering, a: str, b: str) -> str:
    return str(low.op("Floor", [low.op("Div", [a, b])]))


def _emit_integer_floor_div(low: Lowering, a: str, b: str) -> str:
    """(a − a mod b) / b, in INT64."""
    wide = [low.cast(value, DType.INT64) for value in (a, b)]
    even = low.op("Sub", [wide[0], low.op("Mod", wide)])
    return low.cast(low.op("Div", [even, wide[1]]), DType.INT32)


def _emit_floor_mod(low: Lowering, a: str, b: str) -> str:
    """The rest has the divisor's sign; fmod's has the dividend's."""
    zero, rest = low.const(np.asarray(0, np.float32)), low.op("Mod", [a, b], fmod=1)
    apart = low.op("Xor", [low.op("Less", [rest, zero]), low.op("Less", [b, zero])])
    some = low.op("Not", [low.op("Equal", [rest, zero])])
    return str(low.op("Where", [low.op("And", [apart, some]), low.op("Add", [rest, b]), rest]))


def _floor_mod(a: Array, b: Array) -> Array:
    rest = np.fmod(a, b)
    return np.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest)


def _both(op_type: str, function: Callable[..., Array]) -> dict[Any, Meaning]:
    return dict.fromkeys(("real", "integer"), onnx(op_type, function))


_OPTIONS = {  # our name → options table; and meanings
    "ADD": ("AddOptions", _both("Add", np.add)),
    "SUB": ("SubOptions", _both("Sub", np.subtract)),
    "MUL": ("MulOptions", _both("Mul", np.multiply)),
    "MAXIMUM": ("MaximumMinimumOptions", _both("Max", np.maximum)),
    "MINIMUM": ("MaximumMinimumOptions", _both("Min", np.minimum)),
    "DIV": (
        "DivOptions",
        {
            "real": onnx("Div", np.divide),
            "integer": Meaning(lambda low, a, b: _wide("Div", low, a, b), _truncated_quotient),
        },
    ),
    "SQUARED_DIFFERENCE": (
        "SquaredDifferenceOptions",
        dict.fromkeys(("real", "integer"), Meaning(_emit_squared_difference, _squared_difference)),
    ),
    "FLOOR_DIV": (
        "FloorDivOptions",
        {
            "real": Meaning(_emit_floor_div, lambda a, b: np.floor(a / b)),
            "integer": Meaning(_emit_integer_floor_div, np.floor_divide),
        },
    ),
    "FLOOR_MOD": (
        "FloorModOptions",
        {
            "real": Meaning(_emit_floor_mod, _floor_mod),
            "integer": Meaning(lambda low, a, b: _wide("Mod", low, a, b), np.mod),
        },
    ),
}
_SUMMARIES = {
    "SQUARED_DIFFERENCE": "square of the difference, with broadcasting",
    "FLOOR_DIV": "quotient rounded down, with broadcasting",
    "FLOOR_MOD": "what FLOOR_DIV leaves, of the divisor's sign, with broadcasting",
}


# -- examples ----------------------------------------------------------------------------------------------------------
def _example(
    op: str, a: tuple[int, ...], b: tuple[int, ...], activation: str = "NONE", constant: bool = False
) -> Graph:
    rng = np.random.default_rng(len(op) + sum(a))
    build = GraphBuilder()
    x = build.input("x", a)
    other: Any = rng.uniform(0.4, 2, b).astype(np.float32) if constant else build.input("y", b)
    attrs = {"activation": activation} if op in _FUSING else {}
    return build.output(build(op, x, other, output="z", **attrs))


def integer_example(op: str, other: Array, **attrs: Any) -> Graph:
    """x, truncated to integers, with a constant."""
    build = GraphBuilder()
    scaled = build("MUL", build.input("x", (3, 7, 5)), np.array([9.5], np.float32), activation="NONE")
    return build.output(build(op, build("CAST", scaled, to="INT32"), other, output="z", **attrs))


def _examples(op: str) -> list[Graph]:
    divides = op in ("DIV", "FLOOR_DIV", "FLOOR_MOD")
    attrs = {"activation": "NONE"} if op in _FUSING else {}
    return [
        _example(op, (1, 5, 7, 6), (1, 5, 7, 6), constant=divides),
        _example(op, (1, 5, 7, 6), (1, 1, 1, 6), "RELU", constant=True),
        _example(op, (1, 5, 7, 6), (6,), "RELU6", constant=True),
        _example(op, (3, 7, 2), (1,), constant=True),
        integer_example(op, np.array([4, -3, 1, 7, -2], np.int32), **attrs),
    ]


def _add(op: str) -> None:
    options, meanings = _OPTIONS[op]
    name = op.lower().capitalize()
    add_elementwise(
        op,
        _SUMMARIES.get(op, f"elementwise {name} with broadcasting"),
        meanings,
        examples=lambda: _examples(op),
        sim=SimRow(options, activation=op in _FUSING),
        divides=op in ("DIV", "FLOOR_DIV", "FLOOR_MOD"),
        operations=2 if op in (*_FUSING, "MAXIMUM", "MINIMUM") else 3,
        table=op not in ("FLOOR_DIV", "FLOOR_MOD"),
    )


for _op in _OPTIONS:
    _add(_op)


_ENDS: dict[str, Callable[[Span, Span], Span]] = {  # of plain integers; sums that may wrap have no known span
    "ADD": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "SUB": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "MAXIMUM": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "MINIMUM": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
}


@SPAN.row(*_ENDS)
def span(node: Node, operands: Sequence[Tensor | None], spans: Sequence[Span | None]) -> Span | None:
    """From the ends of both operands."""
    a, b = spans
    return None if a is None or b is None else _ENDS[node.op](a, b)


@RANGE_FROM.row("ADD")
def range_from(node: Node, operands: Sequence[Tensor | None]) -> int | None:
    """The other operand where one is a constant mask: 0, or a marker."""
    marked = [index for index in (0, 1) if _is_mask(operands[index])]
    return 1 - marked[0] if len(marked) == 1 else None


def _is_mask(tensor: Tensor | None) -> bool:
    if tensor is None or tensor.data is None or carrier_of(tensor) != "real":
        return False
    values = numbers(tensor, tensor.data)
    marked = is_marker(values)
    return bool(marked.any() and (values == 0).any() and ((values == 0) | marked).all())


# -- ONNX import -------------------------------------------------------------------------------------------------------
def chain(ctx: ImportContext, op: str, operands: list[Tensor]) -> Tensor:
    """The operator from left to right over all operands."""
    attrs: dict[str, Any] = {"activation": "NONE"} if op in _FUSING else {}
    result = operands[0]
    for operand in operands[1:]:
        result = ctx.emit(op, result, operand, **attrs)
    return result


def _import(op: str) -> Callable[[ImportContext], list[Tensor]]:
    def convert(ctx: ImportContext) -> list[Tensor]:
        operands = present(ctx)
        if len(operands) == 1:
            return operands
        return [in_integers(ctx, lambda *values: chain(ctx, op, list(values)), operands)]

    return convert


def _cases(onnx_op: str) -> list[OnnxCase]:
    ramp = np.linspace(0.5, 2, 5, dtype=np.float32)
    return [
        OnnxCase(onnx_op, {"a": (1, 5, 7, 6), "b": (1, 5, 7, 6)}, low=0.25),
        OnnxCase(onnx_op, {"a": (1, 5, 7, 6), "b": (1, 5, 1, 1)}, low=0.25),
        OnnxCase(onnx_op, {"a": (1, 5, 7, 6)}, {"c": ramp.reshape(5, 1, 1)}),
        OnnxCase(onnx_op, {"a": (2, 3, 5)}, {"c": np.asarray(1.5, np.float32)}),
        OnnxCase(onnx_op, {"a": (1, 5, 7, 6)}, {"c": ramp.reshape(1, 5, 1, 1)}, order=("c", "a"), low=0.25),
    ]


for _onnx, _op in {
    "Add": "ADD",
    "Sub": "SUB",
    "Mul": "MUL",
    "Div": "DIV",
    "Max": "MAXIMUM",
    "Min": "MINIMUM",
    "Sum": "ADD",
}.items():
    IMPORT_ONNX.add(_onnx, _import(_op))
    ONNX_EXAMPLES.add(_onnx, _cases(_onnx))


@IMPORT_ONNX.row("Mean")
def import_mean(ctx: ImportContext) -> list[Tensor]:
    """The sum of all operands over their number."""
    operands = present(ctx)
    if len(operands) == 1:
        return operands
    return [divide(ctx, chain(ctx, "ADD", operands), len(operands))]


ONNX_EXAMPLES.add(
    "Mean", [*_cases("Mean"), OnnxCase("Mean", {"a": (1, 5, 7, 6), "b": (1, 5, 1, 6), "c": (7, 1)}, low=-2)]
)


@IMPORT_ONNX.row("Mod")
def import_mod(ctx: ImportContext) -> list[Tensor]:
    """With `fmod` the rest of truncating division, which has the dividend's sign, else of rounding down."""
    x, y = present(ctx)
    if x.dtype.is_float and not ctx.attrs.get("fmod", 0):
        return [ctx.emit("FLOOR_MOD", x, y)]
    if x.dtype.is_float:
        rest = ctx.emit("FLOOR_MOD", *(ctx.emit("ABS", value) for value in (x, y)))
        return [multiply(ctx, ctx.emit("SIGN", x), rest)]
    return [in_integers(ctx, lambda a, b: _integer_mod(ctx, a, b), [x, y])]


def _integer_mod(ctx: ImportContext, x: Tensor, y: Tensor) -> Tensor:
    if not ctx.attrs.get("fmod", 0):
        return ctx.emit("FLOOR_MOD", x, y)
    whole = multiply(ctx, divide(ctx, x, y), y)
    return subtract(ctx, x, whole)


ONNX_EXAMPLES.add(
    "Mod",
    [
        OnnxCase("Mod", {"a": (1, 5, 7, 6), "b": (1, 5, 7, 6)}, attrs={"fmod": 1}, low=-3, high=3),
        OnnxCase("Mod", {"a": (3, 7)}, {"c": np.linspace(-2, 3, 7, dtype=np.float32)}, {"fmod": 1}, low=-9, high=9),
    ],
)


# -- TFLite import -----------------------------------------------------------------------------------------------------
@IMPORT_TFLITE.row("ADD_N")
def import_add_n(ctx: ImportContext) -> list[Tensor]:
    first, *others = present(ctx)
    for other in others:
        first = add(ctx, first, other)
    return [first]


TFLITE_EXAMPLES.add("ADD_N", [TfliteCase("ADD_N", {"a": (3, 5), "b": (3, 5), "c": (3, 5)}, table="AddNOptions")])
