"""MEAN, SUM, REDUCE_MAX, REDUCE_MIN: reductions over attr `axes` (tuple, ascending, non-negative).

Attr `keep_dims` keeps the reduced axes with extent 1.

Fixed MEAN and SUM: exact integer sums, requantised once (ops/_sum.py); M = s_x / (s_y · count), count 1 for SUM.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._layout import perm_without, remap_axis
from sgs.ops._move import add_move, all_rank_4, axis_in
from sgs.ops._sum import centred_codes, requantised, sum_multiplier, terms_in_binary32
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FIXED,
    FLOAT,
    IMPORT_ONNX,
    INFER,
    LAYOUT,
    ONNX_EXAMPLES,
    OPERATOR,
    QUANTISE,
    REFERENCE,
    SIM,
    TILE,
    Box,
    Cost,
    ImportContext,
    Layout,
    Lowering,
    Moved,
    OnnxCase,
    OperatorInfo,
    Part,
    QuantRule,
    SimRow,
    TileRow,
)

MEAN, SUM, MAX, MIN = OPS = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")
_ONNX = {MEAN: "ReduceMean", SUM: "ReduceSum", MAX: "ReduceMax", MIN: "ReduceMin"}


@INFER.row(*OPS)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    x = operands[0]
    assert x is not None
    axes = node.attrs["axes"]
    if any(not 0 <= a < len(x.shape) for a in axes) or list(axes) != sorted(set(axes)):
        raise ValueError(f"axes {tuple(axes)} of a tensor of shape {x.shape} are not ascending axes of it")
    if node.attrs["keep_dims"]:
        return [(tuple(1 if i in axes else d for i, d in enumerate(x.shape)), x.dtype)]
    return [(tuple(d for i, d in enumerate(x.shape) if i not in axes), x.dtype)]


@LAYOUT.row(*OPS)
def layout(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved:
    """The axes follow the permutation; without keep_dims the result is permuted as the axes that are left."""
    axes = node.attrs["axes"]
    attrs = {**node.attrs, "axes": tuple(sorted(remap_axis(a, perm) for a in axes))}
    if node.attrs["keep_dims"]:
        return Moved(attrs, (tuple(perm),))
    return Moved(attrs, (perm_without(perm, axes),))


for _op in OPS:
    SIM.add(_op, SimRow("ReducerOptions", fields={"keep_dims": "keep_dims"}, constant_inputs={1: "axes"}))


def _count(node: Node, x: Tensor) -> int:
    """How many elements meet in one result."""
    return int(np.prod([x.shape[a] for a in node.attrs["axes"]], dtype=np.int64))


def _kept(node: Node, results: Sequence[Tensor]) -> list[int]:
    """Axes of the result that are axes of the operand, in order."""
    gone = node.attrs["axes"] if node.attrs["keep_dims"] else ()
    return [a for a in range(len(results[0].shape)) if a not in gone]


def _tile_axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """Axes that are not reduced."""
    return dict.fromkeys(_kept(node, results), 1)


def _tile_part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    """All of the operand along the reduced axes."""
    x, spans = operands[0], iter([box[a] for a in _kept(node, results)])
    assert x is not None
    read = tuple((0, d) if a in node.attrs["axes"] else next(spans) for a, d in enumerate(x.shape))
    return Part((read,), dict(node.attrs))


_TILE = TileRow(_tile_axes, _tile_part)


# -- MEAN, SUM ---------------------------------------------------------------------------------------------------------
def _layouts(low: Lowering, node: Node) -> tuple[Layout, Layout]:
    """Layout to compute in and layout the result then has."""
    x = low.graph[node.inputs[0] or ""]
    if len(x.shape) != 4 or low.prefer([x.name]) == "native":
        return "native", "native"
    left = [axis_in(a, "first") for a in range(4) if a not in node.attrs["axes"]]
    if node.attrs["keep_dims"]:
        return "first", "first"
    return ("first", "native") if left == sorted(left) else ("native", "native")


def _axes(node: Node, layout: Layout) -> list[int]:
    return sorted(axis_in(a, layout) for a in node.attrs["axes"])


def _reduce(low: Lowering, onnx_op: str, value: str, axes: Sequence[int], keep: bool) -> str:
    if not axes:
        return value
    return str(low.op(onnx_op, [value, low.const(np.array(axes, np.int64))], keepdims=int(keep)))


@FLOAT.row(MEAN, SUM)
def lower_float(low: Lowering, node: Node) -> None:
    inner, outer = _layouts(low, node)
    value = low.real(node.inputs[0] or "", inner)
    value = _reduce(low, _ONNX[node.op], value, _axes(node, inner), node.attrs["keep_dims"])
    low.put_real(node.outputs[0], value, outer)


def _multiplier(node: Node, x: Tensor, y: Tensor) -> Array:
    count = _count(node, x)
    return sum_multiplier(x, y, np.asarray(count if node.op == MEAN else 1), count)


@FIXED.row(MEAN, SUM)
def lower_fixed(low: Lowering, node: Node) -> None:
    """Sums in binary32 over as many of the axes as stay exact, then over the others in binary64."""
    x, y = low.graph[node.inputs[0] or ""], low.graph[node.outputs[0]]
    inner, outer = _layouts(low, node)
    mult, keep = _multiplier(node, x, y), node.attrs["keep_dims"]
    value, axes = low.centred(x.name, inner), _axes(node, inner)
    if mult.dtype == np.float64:
        extents = {axis_in(a, inner): x.shape[a] for a in node.attrs["axes"]}
        room, narrow = terms_in_binary32(x), []
        for axis in reversed(axes):  # innermost first
            if extents[axis] <= room:
                narrow.append(axis)
                room //= extents[axis]
        wide = [a for a in axes if a not in narrow]
        value = low.cast(_reduce(low, "ReduceSum", value, sorted(narrow), True), DType.FLOAT64)
        value = _reduce(low, "ReduceSum", value, wide, True)
        if not keep:
            value = low.op("Reshape", [value, low.const(np.array(y.shape, np.int64))])
    else:
        value = _reduce(low, "ReduceSum", value, axes, keep)
    low.put_scaled(y.name, value, mult, outer)


@REFERENCE.row(MEAN, SUM)
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    """acc = Σ (q_x - z_x) in int64; then eq. 7 or 8."""
    codes, x = values[0], operands[0]
    assert codes is not None and x is not None
    acc = np.asarray(centred_codes(x, codes).sum(axis=node.attrs["axes"], keepdims=node.attrs["keep_dims"]))
    return [requantised(results[0], acc, _multiplier(node, x, results[0]))]


def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """One operation per element read, and one per result."""
    read = sum(t.elements for t in operands if t is not None and not t.is_constant)
    return Cost(vector_ops=read + results[0].elements)


for _op in (MEAN, SUM):
    OPERATOR.add(_op, OperatorInfo("both", f"{_op.lower()} over axes"))
    QUANTISE.add(_op, QuantRule("real"))
    COST.add(_op, cost)
    TILE.add(_op, _TILE)
    CONSTRAINTS.add(_op, ())


# -- REDUCE_MAX, REDUCE_MIN --------------------------------------------------------------------------------------------
def _lower(low: Lowering, node: Node, values: list[str], layout: Layout) -> list[str]:
    """onnxruntime reduces UINT8 and binary32; INT16 codes go through binary32, which holds them exactly."""
    value, wide = values[0], low.graph[node.inputs[0] or ""].dtype is DType.INT16
    if wide:
        value = low.cast(value, DType.FLOAT32)
    value = _reduce(low, _ONNX[node.op], value, _axes(node, layout), node.attrs["keep_dims"])
    return [low.cast(value, DType.INT16) if wide else value]


def _move(node: Node, arrays: list[Array], results: Sequence[Tensor]) -> list[Array]:
    select = np.max if node.op == MAX else np.min
    return [np.asarray(select(arrays[0], axis=node.attrs["axes"], keepdims=node.attrs["keep_dims"]))]


for _op in (MAX, MIN):
    add_move(_op, f"{_op[-3:].lower()}imum over axes", _lower, _move, any_layout=all_rank_4, tile=_TILE, cost=cost)


# -- ONNX import -------------------------------------------------------------------------------------------------------
def _onnx_axes(ctx: ImportContext) -> list[int] | None:
    """Ascending non-negative axes, from attribute or operand; None for an identity."""
    x = ctx.inputs[0]
    assert x is not None
    given = ctx.attrs.get("axes")
    if given is None and len(ctx.inputs) > 1:
        given = ctx.constant(1, "axes")
    axes = [] if given is None else [int(a) for a in np.asarray(given).reshape(-1)]
    if not axes:
        return None if ctx.attrs.get("noop_with_empty_axes", 0) else list(range(len(x.shape)))
    return sorted({a % len(x.shape) for a in axes})


@IMPORT_ONNX.row(*_ONNX.values())
def import_reduce(ctx: ImportContext) -> list[Tensor]:
    x, axes = ctx.inputs[0], _onnx_axes(ctx)
    assert x is not None
    if axes is None:
        return [x]
    op = next(ours for ours, theirs in _ONNX.items() if theirs == ctx.op)
    return [ctx.emit(op, x, axes=tuple(axes), keep_dims=bool(ctx.attrs.get("keepdims", 1)))]


@IMPORT_ONNX.row("GlobalAveragePool", "GlobalMaxPool")
def import_global_pool(ctx: ImportContext) -> list[Tensor]:
    """All axes after batch and channels."""
    x = ctx.inputs[0]
    assert x is not None
    op = MEAN if ctx.op == "GlobalAveragePool" else MAX
    return [ctx.emit(op, x, axes=tuple(range(2, len(x.shape))), keep_dims=True)]


def _cases(onnx_op: str) -> list[OnnxCase]:
    """Axes as attribute up to operator set 17 (12 for ReduceSum), as operand from then on."""
    x: dict[str, tuple[int, ...]] = {"x": (1, 5, 7, 6)}
    old = 11
    return [
        OnnxCase(onnx_op, x, attrs={"axes": [2, 3]}, opset=old),
        OnnxCase(onnx_op, x, attrs={"axes": [-3], "keepdims": 0}, opset=old),
        OnnxCase(onnx_op, x, attrs={"keepdims": 0}, opset=old),
        OnnxCase(onnx_op, x, {"a": np.array([1, -1])}, opset=18),
        OnnxCase(onnx_op, {"x": (2, 3, 5)}, {"a": np.array([1])}, {"keepdims": 0}, opset=18),
        OnnxCase(onnx_op, {"x": (2, 3, 5)}, attrs={"noop_with_empty_axes": 1}, opset=18),
    ]


for _onnx_op in _ONNX.values():
    ONNX_EXAMPLES.add(_onnx_op, _cases(_onnx_op))
for _onnx_op in ("GlobalAveragePool", "GlobalMaxPool"):
    ONNX_EXAMPLES.add(_onnx_op, [OnnxCase(_onnx_op, {"x": (1, 5, 7, 6)}), OnnxCase(_onnx_op, {"x": (2, 5, 9)})])


def _example(op: str, shape: tuple[int, ...], axes: tuple[int, ...], keep_dims: bool) -> Graph:
    build = GraphBuilder()
    return build.output(build(op, build.input("x", shape), output="y", axes=axes, keep_dims=keep_dims))


def _examples(op: str) -> list[Graph]:
    return [
        _example(op, (1, 5, 7, 6), (1, 2), True),
        _example(op, (1, 5, 7, 6), (1, 2), False),
        _example(op, (2, 5, 7, 6), (3,), True),
        _example(op, (2, 5, 7, 6), (1,), False),
        _example(op, (1, 37, 29, 3), (1, 2), True),  # too many terms for binary32
        _example(op, (3, 601), (1,), False),
        _example(op, (3, 7, 2), (0, 2), False),
    ]


for _op in OPS:
    EXAMPLES.add(_op, lambda op=_op: _examples(op))  # type: ignore[misc]
