"""SELECT_V2: of operands 1 and 2, where operand 0 (BOOL) is true and where it is not, with broadcasting.

In fixed graphs real operands are dequantised (eq. 1), and what is chosen is quantised (eq. 4). A constant that only
marks what is masked out (BERT's -10^4, the lowest float, an infinity) does not count in the result's range: it becomes
the first or last code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._elementwise import carrier_of, common_carrier, in_type, infer_broadcast, is_coded, numbers
from sgs.ops._import import reshaped
from sgs.ops._integers import in_integers
from sgs.ops._layout import transparent
from sgs.ops._marker import is_marker
from sgs.ops._move import ELEMENTWISE
from sgs.ops._tflite import operand
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
    RANGE_FROM,
    REAL,
    REFERENCE,
    SIM,
    TFLITE_EXAMPLES,
    TILE,
    Cost,
    ImportContext,
    Lowering,
    OnnxCase,
    OperatorInfo,
    QuantRule,
    SimRow,
    TfliteCase,
)

OP = "SELECT_V2"
OPERATOR.add(OP, OperatorInfo("both", "elements of one tensor or another, by a third one, with broadcasting"))
LAYOUT.add(OP, transparent)
SIM.add(OP, SimRow("SelectV2Options"))
QUANTISE.add(OP, QuantRule("real"))
REAL.add(OP, lambda node, values: np.where(*values))
TILE.add(OP, ELEMENTWISE)
CONSTRAINTS.add(OP, ())


@INFER.row(OP)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    """Raises ValueError for a condition that is not BOOL, and for operands of different types."""
    condition = operands[0]
    if condition is None or condition.dtype is not DType.BOOL:
        raise ValueError(f"{OP} takes a condition of type BOOL")
    if not any(is_coded(tensor) for tensor in operands[1:]):
        common_carrier(OP, operands[1:], dict.fromkeys(("real", "integer", "boolean")))  # type: ignore[arg-type]
    ((shape, _),) = infer_broadcast(node, operands, 3)
    ((_, dtype),) = infer_broadcast(node, operands[1:])
    return [(shape, dtype)]


@FLOAT.row(OP)
@FIXED.row(OP)
def lower(low: Lowering, node: Node) -> None:
    """onnxruntime selects booleans as bytes."""
    layout = low.prefer(node.inputs)
    condition, *chosen = (low.real(name or "", layout) for name in node.inputs)
    boolean = low.graph[node.outputs[0]].dtype is DType.BOOL
    if boolean:
        chosen = [low.cast(value, DType.UINT8) for value in chosen]
    y = low.op("Where", [condition, *chosen])
    low.put_real(node.outputs[0], low.cast(y, DType.BOOL) if boolean else y, layout)


@REFERENCE.row(OP)
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    condition, a, b = (numbers(t, v) for t, v in zip(operands, values, strict=True) if t is not None and v is not None)
    return [in_type(results[0], np.where(condition, a, b))]


@COST.row(OP)
def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """Two operations per element: the choice, and the requantisation."""
    return Cost(vector_ops=results[0].elements * 2)


@RANGE_FROM.row(OP)
def range_from(node: Node, operands: Sequence[Tensor | None]) -> int | None:
    """The other real operand where one is a constant of markers alone."""
    marked = [index for index in (1, 2) if _is_of_markers(operands[index])]
    return 3 - marked[0] if len(marked) == 1 else None


def _is_of_markers(tensor: Tensor | None) -> bool:
    if tensor is None or tensor.data is None or carrier_of(tensor) != "real":
        return False
    return bool(is_marker(numbers(tensor, tensor.data)).all())


def _example(shapes: Sequence[tuple[int, ...]], constant: float | None = None) -> Graph:
    build = GraphBuilder()
    x, y, z = (build.input(name, shape) for name, shape in zip("xyz", shapes, strict=True))
    other: Any = z if constant is None else np.array([constant], np.float32)
    return build.output(build("SELECT_V2", build("GREATER", x, z), y, other, output="out"))


def _integer_example(to: str) -> Graph:
    build = GraphBuilder()
    x, y = (build.input(name, (3, 7, 5)) for name in "xy")
    chosen = [build("CAST", tensor, to=to) for tensor in (x, y)]
    return build.output(build("SELECT_V2", build("LESS", x, y), *chosen, output="out"))


EXAMPLES.add(
    OP,
    lambda: [
        _example([(1, 5, 7, 6)] * 3),
        _example([(1, 5, 7, 6), (6,), (1, 5, 1, 1)]),
        _example([(1, 5, 7, 6), (1, 1, 7, 1), (1, 5, 1, 6)], -1e9),
        _example([(3, 7), (3, 1), (7,)], 0.5),
        _integer_example("INT32"),
        _integer_example("BOOL"),
    ],
)


# -- ONNX import -------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("Where")
def import_where(ctx: ImportContext) -> list[Tensor]:
    condition, x, y = ctx.inputs
    assert x is not None and y is not None
    return [in_integers(ctx, lambda a, b: ctx.emit(OP, condition, a, b), [x, y])]


_MASK = {"c": "bool"}
ONNX_EXAMPLES.add(
    "Where",
    [
        OnnxCase("Where", {"c": (1, 5, 7, 6), "a": (1, 5, 7, 6), "b": (1, 5, 7, 6)}, types=_MASK),
        OnnxCase("Where", {"c": (1, 5, 1, 6), "a": (5, 7, 1)}, {"m": np.array(-1e9, np.float32)}, types=_MASK),
        OnnxCase("Where", {"a": (3, 7), "b": (7,)}, {"c": np.arange(7) % 2 == 0}, order=("c", "a", "b")),
        OnnxCase("Where", {"c": (3, 1), "a": (3, 7), "b": (7,)}, high=90, types={**_MASK, "a": "int8", "b": "int8"}),
    ],
)


# -- TFLite import -----------------------------------------------------------------------------------------------------
@IMPORT_TFLITE.row("SELECT")
def import_select(ctx: ImportContext) -> list[Tensor]:
    """As SELECT_V2, but a condition of one axis is for whole entries of the first axis."""
    condition, x, y = (operand(ctx, index) for index in range(3))
    if len(condition.shape) == 1 and len(x.shape) > 1:
        condition = reshaped(ctx, condition, (*condition.shape, *(1,) * (len(x.shape) - 1)))
    return [ctx.emit(OP, condition, x, y)]


TFLITE_EXAMPLES.add(
    "SELECT",
    [
        TfliteCase("SELECT", {"c": shape, "x": (3, 5), "y": (3, 5)}, table="SelectOptions", types={"c": "bool"}, low=0)
        for shape in ((3, 5), (3,))
    ],
)
