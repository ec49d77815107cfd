"""CAST: every element in another type, attr `to` (a type's name).

Real numbers are truncated towards 0, saturated to INT32 and wrapped to narrower integers; integers wrap; to booleans
everything but 0 is true. In fixed graphs codes are dequantised first (eq. 1), and a real result is quantised (eq. 4);
what lies no more than a step of its scale beside a whole number is cast to that (eq. 13).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._elementwise import in_type, numbers
from sgs.ops._integers import NARROW, retyped
from sgs.ops._layout import transparent
from sgs.ops._move import ELEMENTWISE
from sgs.ops._onnx_types import FLOATS, HELD, NAMES, WIDE_UNSIGNED
from sgs.ops._tflite import operand, option
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FIXED,
    FLOAT,
    IMPORT_ONNX,
    IMPORT_TFLITE,
    INFER,
    LAYOUT,
    ONNX_EXAMPLES,
    OPERATOR,
    QUANTISE,
    REAL,
    REFERENCE,
    SIM,
    SPAN,
    TFLITE_EXAMPLES,
    TILE,
    Cost,
    ImportContext,
    Lowering,
    OnnxCase,
    OperatorInfo,
    QuantRule,
    SimRow,
    Span,
    TfliteCase,
)

_TYPES = (DType.FLOAT32, DType.INT32, *NARROW, DType.BOOL)
_LEAST, _LARGEST = np.float32(-(2**31)), np.float32(2**31 - 128)  # binary32 numbers that INT32 holds

OPERATOR.add("CAST", OperatorInfo("both", "elements in another type"))
LAYOUT.add("CAST", transparent)
QUANTISE.add("CAST", QuantRule("real", retypes=True))
TILE.add("CAST", ELEMENTWISE)
CONSTRAINTS.add("CAST", ())


@INFER.row("CAST")
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    """Raises ValueError for a type that graphs do not compute with, and from real numbers to such."""
    x, to = operands[0], DType[node.attrs["to"]]
    assert x is not None
    if to not in _TYPES or (x.quant is None and (x.dtype not in _TYPES or x.dtype is to is DType.FLOAT32)):
        raise ValueError(f"{x.dtype.name} is not cast to {to.name}")
    return [(x.shape, to)]


@SPAN.row("CAST")
def span(node: Node, operands: Sequence[Tensor | None], spans: Sequence[Span | None]) -> Span | None:
    """That of the operand, of truth values 0 and 1."""
    x = operands[0]
    assert x is not None
    return (0, 1) if x.dtype is DType.BOOL else spans[0]


def _encode(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[str, Any]:
    x = operands[0]
    assert x is not None
    return {"in_data_type": x.dtype.name}


SIM.add("CAST", SimRow("CastOptions", fields={"out_data_type": "to"}, encode=_encode))


# -- meaning -----------------------------------------------------------------------------------------------------------
def _is_real(x: Tensor) -> bool:
    return x.quant is not None or x.dtype.is_float


@FLOAT.row("CAST")
@FIXED.row("CAST")
def lower(low: Lowering, node: Node) -> None:
    x, to = low.graph[node.inputs[0] or ""], DType[node.attrs["to"]]
    layout = low.prefer([x.name])
    value = low.real(x.name, layout)
    if _is_real(x) and to not in (DType.BOOL, DType.FLOAT32):
        if x.quant is not None:
            nearest, step = low.op("Round", [value]), low.const(np.asarray(x.quant.scale[0], np.float32))
            near = low.op("LessOrEqual", [low.op("Abs", [low.op("Sub", [value, nearest])]), step])
            value = low.op("Where", [near, nearest, value])
        inside = low.op("Clip", [value, low.const(np.asarray(_LEAST)), low.const(np.asarray(_LARGEST))])
        value = low.cast(inside, DType.INT32)
    low.put_real(node.outputs[0], low.cast(value, to), layout)


def truncated(x: Array) -> Array:
    """Real numbers as INT32 holds them, int64; what is no number becomes 0."""
    whole = np.trunc(np.nan_to_num(x, nan=0.0))
    return np.asarray(np.clip(whole, _LEAST, _LARGEST), np.int64)


@REFERENCE.row("CAST")
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    x, value, to = operands[0], values[0], DType[node.attrs["to"]]
    assert x is not None and value is not None
    number = numbers(x, value)
    if _is_real(x) and to not in (DType.BOOL, DType.FLOAT32):
        if x.quant is not None:
            nearest = np.rint(number)
            number = np.where(np.abs(number - nearest) <= x.quant.scale[0], nearest, number)  # eq. 13
        number = truncated(number)
    return [in_type(results[0], number.astype(to.numpy))]


@REAL.row("CAST")
def real(node: Node, values: Sequence[Array]) -> Array:
    """A step of an expression: reals are float64, integers int64."""
    x, to = np.asarray(values[0]), DType[node.attrs["to"]]
    if to is DType.FLOAT32:
        return np.asarray(x, np.float64)
    if to is DType.BOOL:
        return np.asarray(x != 0)
    whole = truncated(x) if x.dtype.kind == "f" else x
    return np.asarray(whole.astype(to.numpy), np.int64)


@COST.row("CAST")
def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """One operation per element."""
    return Cost(vector_ops=results[0].elements)


def _example(*types: str) -> Graph:
    build = GraphBuilder()
    x = build.input("x", (1, 5, 7, 6))
    y = build("MUL", x, np.array([50], np.float32), activation="NONE")
    for name in types:
        y = build("CAST", y, to=name)
    return build.output(y)


EXAMPLES.add(
    "CAST",
    lambda: [
        _example("INT32"),
        _example("INT32", "FLOAT32"),
        _example("INT32", "UINT8", "INT16"),
        _example("INT8", "BOOL", "FLOAT32"),
        _example("BOOL", "INT32", "UINT16", "FLOAT32"),
    ],
)

# -- ONNX import -------------------------------------------------------------------------------------------------------
_TO_WIDE_UNSIGNED = "a cast of signed integers to unsigned ones of 32 or 64 bits"
_SIGNED = (DType.INT8, DType.INT16, DType.INT32)


def graph_type(ctx: ImportContext, number: int) -> DType:
    """What holds ONNX's element type of this number. Raises the refusal of one that graphs do not hold."""
    held = HELD.get(NAMES.get(number, ""))
    if held is None:
        raise ctx.refuse(f"element type {number}", "float, integer and boolean types are supported")
    return held


@IMPORT_ONNX.row("Cast")
def import_cast(ctx: ImportContext) -> list[Tensor]:
    """Nothing among the types that the graph does not tell apart. Raises the refusal of types that it does not hold."""
    x, number = ctx.inputs[0], int(ctx.attrs["to"])
    assert x is not None
    to = graph_type(ctx, number)
    if NAMES[number] in WIDE_UNSIGNED and x.dtype in _SIGNED:
        raise ctx.refuse(_TO_WIDE_UNSIGNED, "cast to INT64 instead")
    return [retyped(ctx, x, to)]


@IMPORT_ONNX.row("CastLike")
def import_cast_like(ctx: ImportContext) -> list[Tensor]:
    x, like = ctx.inputs
    assert x is not None and like is not None
    wanted = ctx.source_type(1)
    if like.dtype.is_float and wanted not in ("", *FLOATS):
        raise ctx.refuse(f"a cast to {wanted}", "float, integer and boolean types are supported")
    if wanted in WIDE_UNSIGNED and x.dtype in _SIGNED:
        raise ctx.refuse(_TO_WIDE_UNSIGNED, "cast to INT64 instead")
    return [retyped(ctx, x, like.dtype)]


ONNX_EXAMPLES.add(
    "Cast",
    [OnnxCase("Cast", {"x": (3, 7)}, attrs={"to": number}, low=0, high=90) for number in (1, 2, 3, 6, 7, 9, 11)],
)
ONNX_EXAMPLES.add(
    "CastLike",
    [
        OnnxCase("CastLike", {"x": (3, 7)}, {"like": np.zeros(1, dtype)}, low=-90, high=90)
        for dtype in (np.int8, np.int32, np.bool_, np.float32)
    ],
)


# -- TFLite import -----------------------------------------------------------------------------------------------------
_HELD_AS = {"FLOAT16": "FLOAT32", "FLOAT64": "FLOAT32", "BFLOAT16": "FLOAT32", "INT64": "INT32", "UINT32": "INT32"}


@IMPORT_TFLITE.row("CAST")
def import_tflite(ctx: ImportContext) -> list[Tensor]:
    """To a type that graphs have; old files say it by the result alone."""
    x, kind = operand(ctx, 0), str(option(ctx, "result_type", "FLOAT32"))
    to = _HELD_AS.get(kind, kind)
    if to not in DType.__members__ or DType[to] not in _TYPES:
        raise ctx.refuse(f"a cast to {kind} is not supported", f"types are {', '.join(t.name for t in _TYPES)}")
    return [x if x.dtype.name == to else ctx.emit("CAST", x, to=to)]


TFLITE_EXAMPLES.add(
    "CAST",
    [
        TfliteCase("CAST", {"x": (3, 7)}, table=table, results=(to,), types={"x": source}, low=-9, high=9)
        for source, to, table in (
            ("float32", "int32", "CastOptions"),
            ("int32", "float32", ""),
            ("int64", "int32", "CastOptions"),
            ("int32", "int64", "CastOptions"),
            ("float32", "bool", ""),
        )
    ],
)
