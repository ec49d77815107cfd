"""What elementwise operators with broadcasting share: a computation each of real numbers, integers and booleans.

Fixed graphs: codes are dequantised (eq. 1), the computation is done in binary32, a real result is quantised (eq. 4);
integers and booleans of the network's own are computed as themselves. Integers are INT32 and wrap; import rows bring
others there and back (`ops/_integers.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array, dequantise, quantise
from sgs.numeric.types import DType
from sgs.ops._layout import transparent
from sgs.ops._mac import activation_bounds, activation_float, real_bounds
from sgs.ops._move import ELEMENTWISE
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FIXED,
    FLOAT,
    INFER,
    LAYOUT,
    OPERATOR,
    QUANTISE,
    REAL,
    REFERENCE,
    SIM,
    TILE,
    Cost,
    Lowering,
    OperatorInfo,
    QuantRule,
    SimRow,
)

Carrier = Literal["real", "integer", "boolean"]


@dataclass(frozen=True)
class Meaning:
    """A computation, in two spellings that give the same bits: `emit(low, *values)` in a session, `function(*arrays)`
    in numpy, on float32 (in tables float64), int64 that wraps to INT32 afterwards, or bool."""

    emit: Callable[..., str]
    function: Callable[..., Array]


Meanings = Mapping[Carrier, Meaning]


def onnx(op_type: str, function: Callable[..., Array]) -> Meaning:
    """The meaning of one ONNX operator."""
    return Meaning(lambda low, *values: str(low.op(op_type, values)), function)


def carrier_of(tensor: Tensor) -> Carrier:
    """What the tensor's elements are to elementwise operators. Raises ValueError for integers that are not INT32."""
    if tensor.quant is not None or tensor.dtype.is_float:
        return "real"
    if tensor.dtype is DType.BOOL:
        return "boolean"
    if tensor.dtype is not DType.INT32:
        raise ValueError(f"elementwise operators take INT32, not {tensor.dtype.name}")
    return "integer"


def is_coded(tensor: Tensor | None) -> bool:
    """Whether the elements are codes of an activation, with their scale or before they have one."""
    return tensor is not None and (tensor.quant is not None or tensor.dtype in (DType.UINT8, DType.INT16))


def common_carrier(op: str, operands: Sequence[Tensor | None], meanings: Meanings) -> Carrier:
    """The carrier of all operands. Raises ValueError where they differ, or the operator has no meaning for it."""
    found = {carrier_of(tensor) for tensor in operands if tensor is not None}
    if len(found) != 1:
        raise ValueError(f"{op} has operands of different types")
    (carrier,) = found
    if carrier not in meanings:
        raise ValueError(f"{op} does not take {carrier} numbers")
    return carrier


def infer_broadcast(
    node: Node, operands: Sequence[Tensor | None], count: int = 2
) -> list[tuple[tuple[int, ...], DType]]:
    """Numpy broadcasting; the type of operand 0. Raises ValueError for another number of operands."""
    if len(operands) != count or any(t is None for t in operands):
        raise ValueError(f"{node.op} takes {count} operands")
    shapes = [t.shape for t in operands if t is not None]
    dtype = next(t.dtype for t in operands if t is not None)
    return [(tuple(int(d) for d in np.broadcast_shapes(*shapes)), dtype)]


def numbers(tensor: Tensor, value: Array) -> Array:
    """An operand as its meaning computes with it: codes dequantised, integers as int64."""
    if tensor.quant is not None:
        return dequantise(value, tensor.quant)
    return value if tensor.dtype.is_float or tensor.dtype is DType.BOOL else value.astype(np.int64)


def in_type(result: Tensor, value: Array) -> Array:
    """A computed value in the result's own type: quantised (eq. 4), or wrapped."""
    if result.quant is not None:
        return quantise(np.asarray(value, np.float32), result.quant, result.dtype)
    return np.asarray(value).astype(result.dtype.numpy)


def clamp_values(node: Node, result: Tensor) -> tuple[np.float32, np.float32]:
    """Real binary32 values of the codes between which the fused activation clamps: clamping between them is clamping
    the codes."""
    assert result.quant is not None
    codes = np.array(activation_bounds(node, result), np.int64)
    low, high = dequantise(codes, result.quant)
    return low, high


def _bounded(node: Node) -> bool:
    return real_bounds(node.attrs.get("activation", "NONE")) != (None, None)


def _activated(low: Lowering, node: Node, value: str) -> str:
    result = low.graph[node.outputs[0]]
    if not _bounded(node):
        return value
    if result.quant is None:
        return activation_float(low, node, value)
    return str(low.op("Clip", [value, *(low.const(np.asarray(v, np.float32)) for v in clamp_values(node, result))]))


# -- divisors ----------------------------------------------------------------------------------------------------------
def _least(tensor: Tensor) -> Array | None:
    """What a divisor of 0 counts as: one step of its scale, or 1; None where quotients may be infinite."""
    if tensor.quant is not None:
        return np.asarray(tensor.quant.scale[0], np.float32)
    return None if tensor.dtype.is_float else np.asarray(1, tensor.dtype.numpy)


def _never_zero(low: Lowering, value: str, divisor: Tensor) -> str:
    least = _least(divisor)
    if least is None:
        return value
    zero = low.const(np.zeros_like(least))
    return str(low.op("Where", [low.op("Equal", [value, zero]), low.const(least), value]))


# -- rows --------------------------------------------------------------------------------------------------------------
def add_elementwise(
    op: str,
    summary: str,
    meanings: Meanings,
    *,
    examples: Callable[[], list[Graph]],
    sim: SimRow,
    result: DType | None = None,
    divides: bool = False,
    operations: int = 2,
    table: bool = True,
    operands: int = 2,
) -> None:
    """All rows of an elementwise operator with broadcasting, but for ONNX's.

    Operands are all of one of the carriers in `meanings`; `result` is its element type where it is not theirs.
    `divides`: operand 1 is a divisor, and never 0 in fixed graphs or in integers. `operations` of the vector unit are
    done on every element. `table`: it may become part of a table, which is interpolated, so not where it jumps at every
    turn. `operands` is how many there are. Attr `activation`, where there is one, clamps a real result.
    """
    count = operands

    def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
        ((shape, dtype),) = infer_broadcast(node, operands, count)
        if not any(is_coded(tensor) for tensor in operands):
            common_carrier(op, operands, meanings)
        return [(shape, result or dtype)]

    def lower(low: Lowering, node: Node) -> None:
        operands, layout = [low.graph[name or ""] for name in node.inputs], low.prefer(node.inputs)
        values = [low.real(tensor.name, layout) for tensor in operands]
        if divides:
            values[1] = _never_zero(low, values[1], operands[1])
        y = meanings[common_carrier(op, operands, meanings)].emit(low, *values)
        low.put_real(node.outputs[0], _activated(low, node, y), layout)

    def reference(
        node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
    ) -> list[Array]:
        tensors = [tensor for tensor in operands if tensor is not None]
        arrays = [numbers(t, v) for t, v in zip(tensors, values, strict=True) if v is not None]
        if divides and (least := _least(tensors[1])) is not None:
            arrays[1] = np.where(arrays[1] == 0, least, arrays[1])
        y = meanings[common_carrier(op, operands, meanings)].function(*arrays)
        if _bounded(node) and results[0].quant is not None:
            y = np.clip(y, *clamp_values(node, results[0]))
        return [in_type(results[0], y)]

    def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
        return Cost(vector_ops=results[0].elements * operations)

    cost.__doc__ = _COSTS[operations]
    OPERATOR.add(op, OperatorInfo("both", summary))
    INFER.add(op, infer)
    LAYOUT.add(op, transparent)
    SIM.add(op, sim)
    FLOAT.add(op, lower)
    FIXED.add(op, lower)
    REFERENCE.add(op, reference)
    QUANTISE.add(op, QuantRule("real"))
    if table:
        REAL.add(op, _real(meanings, divides))
    COST.add(op, cost)
    TILE.add(op, ELEMENTWISE)
    CONSTRAINTS.add(op, ())
    EXAMPLES.add(op, examples)


_COSTS = {
    1: "One operation per element.",
    2: "Two operations per element: the function, and the requantisation.",
    3: "Three operations per element: two of the function, and the requantisation.",
}


def _real(meanings: Meanings, divides: bool) -> Callable[[Node, Sequence[Array]], Array]:
    """The operator as a step of an expression of one tensor; integers in it are int64 that stays within INT32."""

    def real(node: Node, values: Sequence[Array]) -> Array:
        kind = {"f": "real", "b": "boolean"}.get(np.asarray(values[0]).dtype.kind, "integer")
        low, high = real_bounds(node.attrs.get("activation", "NONE"))
        arrays = [np.asarray(v, np.int64) if kind == "integer" else np.asarray(v) for v in values]
        if divides and kind == "integer":
            arrays[1] = np.where(arrays[1] == 0, 1, arrays[1])
        with np.errstate(all="ignore"):
            y = np.asarray(meanings[kind].function(*arrays))  # type: ignore[index]
        if kind == "integer" and y.dtype.kind == "i":
            y = y.astype(np.int32).astype(np.int64)
        return y if low is None and high is None else np.clip(y, low, high)

    return real
