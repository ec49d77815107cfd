"""Comparisons, with broadcasting: EQUAL NOT_EQUAL LESS LESS_EQUAL GREATER GREATER_EQUAL; results are BOOL.

In fixed graphs the dequantised binary32 numbers are compared.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Tensor
from sgs.numeric.types import DType
from sgs.ops._elementwise import Meaning, add_elementwise, onnx
from sgs.ops._integers import in_integers, present
from sgs.ops.elementwise import integer_example
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, Lowering, OnnxCase, SimRow

_LARGEST = np.finfo(np.float32).max


def _emit_not_equal(low: Lowering, a: str, b: str) -> str:
    return str(low.op("Not", [low.op("Equal", [a, b])]))


_COMPARISONS: dict[str, tuple[str, str, Meaning]] = {  # our name → words, options table, meaning
    "EQUAL": ("is equal to", "EqualOptions", onnx("Equal", np.equal)),
    "NOT_EQUAL": ("differs from", "NotEqualOptions", Meaning(_emit_not_equal, np.not_equal)),
    "LESS": ("is less than", "LessOptions", onnx("Less", np.less)),
    "LESS_EQUAL": ("is at most", "LessEqualOptions", onnx("LessOrEqual", np.less_equal)),
    "GREATER": ("is greater than", "GreaterOptions", onnx("Greater", np.greater)),
    "GREATER_EQUAL": ("is at least", "GreaterEqualOptions", onnx("GreaterOrEqual", np.greater_equal)),
}


def _example(op: str, a: tuple[int, ...], b: tuple[int, ...], constant: bool = False) -> Graph:
    build = GraphBuilder()
    x = build.input("x", a)
    ramp = np.linspace(-1, 1, int(np.prod(b)), dtype=np.float32).reshape(b)
    return build.output(build(op, x, ramp if constant else build.input("y", b), output="z"))


def _of_booleans(op: str) -> Graph:
    build = GraphBuilder()
    x, y = (build("CAST", build("RELU", build.input(n, (3, 7))), to="BOOL") for n in "xy")
    return build.output(build(op, x, y, output="z"))


def _examples(op: str) -> list[Graph]:
    return [
        _example(op, (1, 5, 7, 6), (1, 5, 7, 6)),
        _example(op, (1, 5, 7, 6), (6,), constant=True),
        _example(op, (3, 7, 2), (7, 1)),
        integer_example(op, np.array([4, -3, 1, 0, -2], np.int32)),
        *([_of_booleans(op)] if op in ("EQUAL", "NOT_EQUAL") else ()),
    ]


def _add(op: str) -> None:
    words, options, meaning = _COMPARISONS[op]
    carriers = ("real", "integer", "boolean") if op in ("EQUAL", "NOT_EQUAL") else ("real", "integer")
    add_elementwise(
        op,
        f"whether one {words} the other, with broadcasting",
        dict.fromkeys(carriers, meaning),  # type: ignore[arg-type]
        examples=lambda: _examples(op),
        sim=SimRow(options),
        result=DType.BOOL,
        operations=1,
    )


for _op in _COMPARISONS:
    _add(_op)


# -- ONNX import -------------------------------------------------------------------------------------------------------
def _import(op: str) -> Callable[[ImportContext], list[Tensor]]:
    return lambda ctx: [in_integers(ctx, lambda a, b: ctx.emit(op, a, b), present(ctx))]


for _onnx, _op in {
    "Equal": "EQUAL",
    "Less": "LESS",
    "LessOrEqual": "LESS_EQUAL",
    "Greater": "GREATER",
    "GreaterOrEqual": "GREATER_EQUAL",
}.items():
    IMPORT_ONNX.add(_onnx, _import(_op))
    ONNX_EXAMPLES.add(
        _onnx,
        [
            OnnxCase(_onnx, {"a": (1, 5, 7, 6), "b": (1, 5, 1, 6)}),
            OnnxCase(_onnx, {"a": (1, 5, 7, 6)}, {"c": np.linspace(-1, 1, 5, dtype=np.float32).reshape(5, 1, 1)}),
            OnnxCase(_onnx, {"a": (3, 7), "b": (7,)}),
        ],
    )


@IMPORT_ONNX.row("IsNaN")
def import_is_nan(ctx: ImportContext) -> list[Tensor]:
    """What is no number differs from itself."""
    return [ctx.emit("NOT_EQUAL", ctx.inputs[0], ctx.inputs[0])]


@IMPORT_ONNX.row("IsInf")
def import_is_inf(ctx: ImportContext) -> list[Tensor]:
    """What lies beyond the largest number, on the sides that are asked for."""
    x, (below, above) = ctx.inputs[0], (ctx.attrs.get(f"detect_{side}", 1) for side in ("negative", "positive"))
    if not (below or above):
        return [ctx.emit("LESS", x, x)]
    if below and not above:
        return [ctx.emit("LESS", x, np.array([-_LARGEST], np.float32))]
    return [ctx.emit("GREATER", ctx.emit("ABS", x) if below else x, np.array([_LARGEST], np.float32))]


ONNX_EXAMPLES.add("IsNaN", [OnnxCase("IsNaN", {"x": (1, 5, 7, 6)}), OnnxCase("IsNaN", {"x": (3, 7)})])
ONNX_EXAMPLES.add(
    "IsInf",
    [
        OnnxCase("IsInf", {"x": (1, 5, 7, 6)}, opset=20),
        OnnxCase("IsInf", {"x": (3, 7)}, attrs={"detect_negative": 0}, opset=20),
    ],
)
