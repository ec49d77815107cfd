"""NORMALISE: x over the spread of its values along attr `axes`, less their mean with attr `centre` (NUMERICS eq. 13).

    (x - mean) / (max(sqrt(Σ (x - mean)² / count + epsilon), floor) + offset)

The fixed form of layer, group, instance and root-mean-square normalisation and of division by the Euclidean norm
(count 1), which float networks spell in elementwise operators and means: `quant/normalisation.py` finds them. Sums are
exact integers, and what follows from them is computed in binary64 once a row, so that variances of any size keep their
precision. Factors and addends of channels stay MUL and ADD behind it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array, activation_params, quantise
from sgs.numeric.types import DType
from sgs.ops._elementwise import clamp_values
from sgs.ops._mac import DOUBLE_DEPTH, activation_bounds
from sgs.ops._move import axis_in, broadcast_part
from sgs.ops._sum import centred_codes
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FIXED,
    INFER,
    OPERATOR,
    QUANTISE,
    REFERENCE,
    SIM,
    TILE,
    Cost,
    Lowering,
    OperatorInfo,
    QuantRule,
    Shape,
    SimRow,
    TileRow,
)

OP = "NORMALISE"
FLOOR = float(np.sqrt(np.finfo(np.float32).tiny))  # the least root of a sum of squares that binary32 holds
OPERATOR.add(OP, OperatorInfo("fixed", "difference from the mean over some axes, over the standard deviation"))
SIM.add(OP, SimRow(custom=True))
QUANTISE.add(OP, QuantRule("real"))


@INFER.row(OP)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    """Raises ValueError for axes that the operand does not have."""
    x, axes = operands[0], list(node.attrs["axes"])
    assert x is not None
    if any(not 0 <= a < len(x.shape) for a in axes) or axes != sorted(set(axes)):
        raise ValueError(f"axes {tuple(axes)} of a tensor of shape {x.shape} are not ascending axes of it")
    return [(x.shape, DType.INT16)]


def _terms(node: Node, x: Tensor) -> int:
    """How many values are normalised together."""
    return math.prod(x.shape[a] for a in node.attrs["axes"])


@FIXED.row(OP)
def lower(low: Lowering, node: Node) -> None:
    x, y = low.graph[node.inputs[0] or ""], low.graph[node.outputs[0]]
    assert x.quant is not None
    layout = low.prefer([x.name])
    scale, attrs = np.float64(x.quant.scale[0]), node.attrs

    def number(value: float) -> str:
        return low.const(np.asarray(value, np.float64))

    def total(value: str) -> str:
        axes = low.const(np.array(sorted(axis_in(a, layout) for a in attrs["axes"]), np.int64))
        return str(low.op("ReduceSum", [value, axes], keepdims=1))

    codes = low.cast(low.centred(x.name, layout), DType.FLOAT64)
    spread = total(low.op("Mul", [codes, codes]))
    if attrs["centre"]:
        values = total(codes)
        mean = low.op("Div", [values, number(_terms(node, x))])
        spread = low.op("Max", [low.op("Sub", [spread, low.op("Mul", [values, mean])]), number(0)])
        codes = low.op("Sub", [codes, mean])
    spread = low.op("Mul", [low.op("Div", [spread, number(attrs["count"])]), number(scale * scale)])
    root = low.op("Sqrt", [low.op("Add", [spread, number(attrs["epsilon"])])])
    divisor = low.op("Add", [low.op("Max", [root, number(attrs["floor"])]), number(attrs["offset"])])
    real = low.cast(low.op("Mul", [codes, low.op("Div", [number(scale), divisor])]), DType.FLOAT32)
    if activation_bounds(node, y) != (y.dtype.qmin, y.dtype.qmax):
        real = low.op("Clip", [real, *(low.const(np.asarray(v, np.float32)) for v in clamp_values(node, y))])
    low.put_real(y.name, real, layout)


@REFERENCE.row(OP)
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    """Eq. 13."""
    x, codes, y, attrs = operands[0], values[0], results[0], node.attrs
    assert x is not None and x.quant is not None and codes is not None and y.quant is not None
    centred, axes, scale = centred_codes(x, codes), tuple(attrs["axes"]), np.float64(x.quant.scale[0])
    first, second = (np.asarray(v.sum(axis=axes, keepdims=True), np.float64) for v in (centred, centred * centred))
    mean = first / _terms(node, x) if attrs["centre"] else np.zeros_like(first)
    spread = np.maximum(second - first * mean, 0) / np.float64(attrs["count"])
    divisor = np.maximum(np.sqrt(spread * (scale * scale) + attrs["epsilon"]), attrs["floor"]) + attrs["offset"]
    real = ((centred - mean) * (scale / divisor)).astype(np.float32)
    if activation_bounds(node, y) != (y.dtype.qmin, y.dtype.qmax):
        real = np.clip(real, *clamp_values(node, y))
    return [quantise(real, y.quant, y.dtype)]


@COST.row(OP)
def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """Six operations per element: two sums, a difference, a product and the requantisation; and ten per row."""
    elements, x = results[0].elements, operands[0]
    assert x is not None
    return Cost(vector_ops=6 * elements + 10 * (elements // max(1, _terms(node, x))))


def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """All axes but those that are normalised over."""
    return {axis: 1 for axis in range(len(results[0].shape)) if axis not in node.attrs["axes"]}


TILE.add(OP, TileRow(_axes, broadcast_part, elementwise=True))


def sums_are_exact(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """Fewer than 4,194,304 values are normalised together, so that the sum of their squares stays below 2^53."""
    x = operands[0]
    return x is not None and _terms(node, x) < DOUBLE_DEPTH


def divisor_is_positive(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """Nothing is divided by zero: count is positive, epsilon and offset are not negative, and floor is positive."""
    attrs = node.attrs
    return bool(attrs["count"] > 0 and attrs["floor"] > 0 and min(attrs["epsilon"], attrs["offset"]) >= 0)


CONSTRAINTS.add(OP, (sums_are_exact, divisor_is_positive))


# -- examples ----------------------------------------------------------------------------------------------------------
def _example(shape: Shape, axes: tuple[int, ...], reach: float = 3.0, **attrs: Any) -> Graph:
    build = GraphBuilder()
    x = build.input("x", shape, DType.INT16)
    x.quant = activation_params(-reach, reach, DType.INT16)
    count = float(math.prod(shape[a] for a in axes))
    defaults: dict[str, Any] = {"centre": True, "count": count, "epsilon": 1e-5, "floor": FLOOR, "offset": 0.0}
    y = build(OP, x, output="y", axes=axes, **{**defaults, "activation": "NONE", **attrs})
    y.quant = activation_params(-2.5, 2.5, DType.INT16)
    return build.output(y)


EXAMPLES.add(
    OP,
    lambda: [
        _example((2, 5, 7, 6), (3,)),
        _example((2, 5, 7, 6), (1, 2), 1e-3),
        _example((2, 5, 3, 7, 6), (2, 3), activation="RELU6"),
        _example((3, 11), (1,), centre=False),
        _example((3, 4, 11), (1,), centre=False, count=1.0, epsilon=0.0, floor=0.25),
        _example((3, 5, 601), (2,), count=600.0, epsilon=0.0, offset=1e-3, activation="RELU"),
        _example((3, 5, 1), (2,), epsilon=0.0),
    ],
)
