"""Bits of INT32: BITWISE_XOR and RIGHT_SHIFT, which TFLite has, and BITWISE_AND, BITWISE_OR and LEFT_SHIFT of our own.

RIGHT_SHIFT keeps the sign. A shift by a negative number of places, or by 32 or more, leaves nothing but the sign.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sgs.ir.graph import Graph, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._elementwise import Meaning, add_elementwise, onnx
from sgs.ops._integers import in_integers, present
from sgs.ops.elementwise import integer_example
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, Lowering, OnnxCase, SimRow

_ALL = 32  # places


def _operands(low: Lowering, x: str, places: str) -> tuple[str, str]:
    """(x, 2^places) in INT64."""
    zero, all_places = (low.const(np.asarray(end, np.int32)) for end in (0, _ALL))
    below = low.op("Where", [low.op("Less", [places, zero]), all_places, places])
    powers = low.const(np.left_shift(1, np.arange(_ALL + 1), dtype=np.int64))
    return low.cast(x, DType.INT64), low.op("Gather", [powers, low.op("Min", [below, all_places])])


def _emit_left(low: Lowering, x: str, places: str) -> str:
    return low.cast(low.op("Mul", _operands(low, x, places)), DType.INT32)


def _emit_right(low: Lowering, x: str, places: str) -> str:
    value, power = _operands(low, x, places)
    even = low.op("Sub", [value, low.op("Mod", [value, power])])
    return low.cast(low.op("Div", [even, power]), DType.INT32)


def _shifted(shift: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda x, places: shift(x, np.where((places < 0) | (places > _ALL), _ALL, places))


_OPERATORS = {  # our name → (summary, options table or "" for an operator of our own, meaning, operand of the example)
    "BITWISE_AND": ("bits that both integers have", "", onnx("BitwiseAnd", np.bitwise_and), [7, -4, 1, 0, -1]),
    "BITWISE_OR": ("bits that either integer has", "", onnx("BitwiseOr", np.bitwise_or), [7, -4, 1, 0, -1]),
    "BITWISE_XOR": (
        "bits that one integer has and the other has not",
        "BitwiseXorOptions",
        onnx("BitwiseXor", np.bitwise_xor),
        [7, -4, 1, 0, -1],
    ),
    "LEFT_SHIFT": (
        "integers with their bits moved up",
        "",
        Meaning(_emit_left, _shifted(np.left_shift)),
        [1, 0, -1, 27, 31],
    ),
    "RIGHT_SHIFT": (
        "integers with their bits moved down",
        "RightShiftOptions",
        Meaning(_emit_right, _shifted(np.right_shift)),
        [1, 0, 40, 3, 31],
    ),
}


def _add(op: str) -> None:
    summary, options, meaning, other = _OPERATORS[op]

    def examples() -> list[Graph]:
        return [integer_example(op, np.array(other, np.int32)), integer_example(op, np.array([3], np.int32))]

    sim = SimRow(options, custom=not options)
    add_elementwise(op, summary, {"integer": meaning}, examples=examples, sim=sim, operations=1)


for _op in _OPERATORS:
    _add(_op)


# -- ONNX import -------------------------------------------------------------------------------------------------------
def _import(op: str) -> Callable[[ImportContext], list[Tensor]]:
    return lambda ctx: [in_integers(ctx, lambda a, b: ctx.emit(op, a, b), present(ctx))]


def _cases(onnx_op: str) -> list[OnnxCase]:
    bytes_too = {"a": "uint8", "b": "uint8"}
    return [
        OnnxCase(onnx_op, {"a": (1, 5, 7, 6), "b": (5, 1, 6)}, types=bytes_too, opset=18, low=0, high=255),
        OnnxCase(onnx_op, {"a": (3, 7)}, {"c": np.array(-6, np.int32)}, types={"a": "int32"}, opset=18, high=99),
    ]


for _onnx, _op in {"BitwiseAnd": "BITWISE_AND", "BitwiseOr": "BITWISE_OR", "BitwiseXor": "BITWISE_XOR"}.items():
    IMPORT_ONNX.add(_onnx, _import(_op))
    ONNX_EXAMPLES.add(_onnx, _cases(_onnx))


@IMPORT_ONNX.row("BitwiseNot")
def import_bitwise_not(ctx: ImportContext) -> list[Tensor]:
    """Exclusive or with all bits."""
    ones = np.array([-1], np.int32)
    return [in_integers(ctx, lambda x: ctx.emit("BITWISE_XOR", x, ones), present(ctx))]


@IMPORT_ONNX.row("BitShift")
def import_bit_shift(ctx: ImportContext) -> list[Tensor]:
    return _import("LEFT_SHIFT" if ctx.attrs["direction"] == "LEFT" else "RIGHT_SHIFT")(ctx)


ONNX_EXAMPLES.add(
    "BitwiseNot",
    [OnnxCase("BitwiseNot", {"a": (3, 7)}, types={"a": t}, opset=18, low=0, high=99) for t in ("uint8", "int32")],
)
ONNX_EXAMPLES.add(
    "BitShift",
    [
        OnnxCase(
            "BitShift",
            {"a": (3, 7)},
            {"c": np.arange(7, dtype=np.uint8)},
            {"direction": direction},
            types={"a": "uint8"},
            low=0,
            high=255,
        )
        for direction in ("LEFT", "RIGHT")
    ],
)
