"""MEAN, SUM, REDUCE_MAX, REDUCE_MIN: reductions over attr `axes`; see ops/_reduce.py.

Fixed MEAN and SUM: exact integer sums, requantised once (ops/_sum.py); M = s_x / (s_y · count), count 1 for SUM. A SUM
of plain integers is that sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgs.ir.graph import Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._move import add_move, all_rank_4, axis_in, comparable
from sgs.ops._reduce import REDUCTION, add_examples, add_reduction, axes_in, cost, reduced
from sgs.ops._sum import centred_codes, requantised, sum_multiplier, terms_in_binary32
from sgs.registry import (
    COST,
    FIXED,
    FLOAT,
    OPERATOR,
    QUANTISE,
    REFERENCE,
    TILE,
    Layout,
    Lowering,
    OperatorInfo,
    QuantRule,
)

MEAN, SUM, MAX, MIN = OPS = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")
_ONNX = {MEAN: "ReduceMean", SUM: "ReduceSum", MAX: "ReduceMax", MIN: "ReduceMin"}


# -- MEAN, SUM ---------------------------------------------------------------------------------------------------------
def _count(node: Node, x: Tensor) -> int:
    """How many elements meet in one result."""
    return int(np.prod([x.shape[a] for a in node.attrs["axes"]], dtype=np.int64))


def _layouts(low: Lowering, node: Node) -> tuple[Layout, Layout]:
    """Layout to compute in and layout the result then has."""
    x = low.graph[node.inputs[0] or ""]
    if len(x.shape) != 4 or low.prefer([x.name]) == "native":
        return "native", "native"
    left = [axis_in(a, "first") for a in range(4) if a not in node.attrs["axes"]]
    if node.attrs["keep_dims"]:
        return "first", "first"
    return ("first", "native") if left == sorted(left) else ("native", "native")


@FLOAT.row(MEAN, SUM)
def lower_float(low: Lowering, node: Node) -> None:
    """The mean of each channel by GlobalAveragePool, whose result does not depend on where in memory the channel lies,
    so that equal channels have equal means."""
    inner, outer = _layouts(low, node)
    value, axes = low.real(node.inputs[0] or "", inner), axes_in(node, inner)
    if node.op == MEAN and inner == "first" and axes == [2, 3] and node.attrs["keep_dims"]:
        value = low.op("GlobalAveragePool", [value])
    else:
        value = reduced(low, _ONNX[node.op], value, axes, node.attrs["keep_dims"])
    low.put_real(node.outputs[0], value, outer)


def _multiplier(node: Node, x: Tensor, y: Tensor) -> Array:
    count = _count(node, x)
    return sum_multiplier(x, y, np.asarray(count if node.op == MEAN else 1), count)


@FIXED.row(MEAN, SUM)
def lower_fixed(low: Lowering, node: Node) -> None:
    """Sums in binary32 over as many of the axes as stay exact, then over the others in binary64."""
    x, y = low.graph[node.inputs[0] or ""], low.graph[node.outputs[0]]
    if x.quant is None:
        lower_float(low, node)
        return
    inner, outer = _layouts(low, node)
    mult, keep = _multiplier(node, x, y), node.attrs["keep_dims"]
    value, axes = low.centred(x.name, inner), axes_in(node, inner)
    if mult.dtype == np.float64:
        extents = {axis_in(a, inner): x.shape[a] for a in node.attrs["axes"]}
        room, narrow = terms_in_binary32(x), []
        for axis in reversed(axes):  # innermost first
            if extents[axis] <= room:
                narrow.append(axis)
                room //= extents[axis]
        wide = [a for a in axes if a not in narrow]
        value = low.cast(reduced(low, "ReduceSum", value, sorted(narrow), True), DType.FLOAT64)
        value = reduced(low, "ReduceSum", value, wide, True)
        if not keep:
            value = low.op("Reshape", [value, low.const(np.array(y.shape, np.int64))])
    else:
        value = reduced(low, "ReduceSum", value, axes, keep)
    low.put_scaled(y.name, value, mult, outer)


@REFERENCE.row(MEAN, SUM)
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    """acc = Σ (q_x - z_x) in int64; then eq. 7 or 8."""
    codes, x = values[0], operands[0]
    assert codes is not None and x is not None
    over = {"axis": node.attrs["axes"], "keepdims": node.attrs["keep_dims"]}
    if x.quant is None:
        return [np.asarray(codes.sum(**over, dtype=codes.dtype))]
    acc = np.asarray(centred_codes(x, codes).sum(**over))
    return [requantised(results[0], acc, _multiplier(node, x, results[0]))]


for _op in (MEAN, SUM):
    OPERATOR.add(_op, OperatorInfo("both", f"{_op.lower()} over axes"))
    QUANTISE.add(_op, QuantRule("real"))
    COST.add(_op, cost)
    TILE.add(_op, REDUCTION)


# -- REDUCE_MAX, REDUCE_MIN --------------------------------------------------------------------------------------------
def _lower(low: Lowering, node: Node, values: list[str], layout: Layout) -> list[str]:
    """onnxruntime reduces UINT8 and binary32; 16-bit codes go through binary32, which holds them exactly."""
    x = low.graph[node.inputs[0] or ""]
    value = comparable(low, values[0], x)
    found = reduced(low, _ONNX[node.op], value, axes_in(node, layout), node.attrs["keep_dims"])
    return [found if value == values[0] else low.cast(found, x.dtype)]


def _move(node: Node, arrays: list[Array], results: Sequence[Tensor]) -> list[Array]:
    select = np.max if node.op == MAX else np.min
    return [np.asarray(select(arrays[0], axis=node.attrs["axes"], keepdims=node.attrs["keep_dims"]))]


for _op in (MAX, MIN):
    add_move(_op, f"{_op[-3:].lower()}imum over axes", _lower, _move, any_layout=all_rank_4, tile=REDUCTION, cost=cost)
for _op in OPS:
    add_reduction(_op)
    add_examples(_op)
