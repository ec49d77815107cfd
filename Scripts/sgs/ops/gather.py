"""GATHER: entries of attr `axis` by number. x [.., D, ..], indices int32 (any shape) → indices' shape in place of D.

Either operand may be constant: constant indices pick channels or rows, a constant x is an embedding. Constant indices
lie in [0, D); computed ones, unlike TFLite's, in [-D, D), where negative ones count from the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._import import add, reshaped
from sgs.ops._layout import remap_axis
from sgs.ops._move import axis_in, free_axes, move_cost
from sgs.ops._tflite import AGAIN, axis_of, operand, option
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
    REFERENCE,
    SIM,
    SPAN,
    TFLITE_EXAMPLES,
    TILE,
    Box,
    ImportContext,
    Layout,
    Lowering,
    Moved,
    OnnxCase,
    OperatorInfo,
    Part,
    QuantRule,
    Shape,
    SimRow,
    TfliteCase,
    TileRow,
)

OPERATOR.add("GATHER", OperatorInfo("both", "entries of an axis by number"))
SIM.add(
    "GATHER",
    SimRow("GatherOptions", fields={"axis": "axis"}, decode=lambda options, operands, results: _decode(options)),
)
COST.add("GATHER", move_cost)
CONSTRAINTS.add("GATHER", ())
QUANTISE.add("GATHER", QuantRule("move", moved=lambda node: (0,)))
SPAN.add("GATHER", lambda node, operands, spans: spans[0])


def _decode(options: dict[str, Any]) -> dict[str, Any]:
    if options["batch_dims"]:
        raise ValueError("batch dimensions are not supported")
    return {}


@INFER.row("GATHER")
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    x, indices = operands[0], operands[1]
    assert x is not None and indices is not None
    axis = node.attrs["axis"]
    if not 0 <= axis < len(x.shape):
        raise ValueError(f"shape {x.shape} has no axis {axis}")
    if (
        indices.data is not None
        and indices.elements
        and not 0 <= indices.data.min() <= indices.data.max() < x.shape[axis]
    ):
        raise ValueError(f"indices leave axis {axis} of shape {x.shape}")
    return [((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)]


@LAYOUT.row("GATHER")
def layout(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved | None:
    """Constant indices stand, after the move, where their axis stands in x."""
    x, indices = graph.operands(node)[:2]
    assert x is not None and indices is not None
    if x.is_constant or not indices.is_constant:
        return None
    axis, rank = remap_axis(node.attrs["axis"], perm), len(indices.shape)
    numbers = [("index", k) for k in range(rank)]

    def labels(axes: Sequence[int]) -> list[tuple[str, int]]:
        at = list(axes).index(axis)
        return [*(("x", a) for a in axes[:at]), *numbers, *(("x", a) for a in axes[at + 1 :])]

    new, old = labels(range(len(perm))), labels(perm)
    return Moved({**node.attrs, "axis": axis}, (tuple(new.index(label) for label in old),))


@FLOAT.row("GATHER")
@FIXED.row("GATHER")
def lower(low: Lowering, node: Node) -> None:
    """Channels of rank-4 tensors are gathered channels first, where one is a run of bytes: 0.2 ns an element with the
    turn there, 2.6 ns channels last."""
    x, indices = node.inputs[0] or "", node.inputs[1] or ""
    axis, rank = node.attrs["axis"], len(low.graph[x].shape)
    planar = rank == 4 and axis == 3 and len(low.graph[indices].shape) == 1 and not low.graph[x].is_constant
    layout: Layout = "first" if planar else "native"
    value = low.op("Gather", [low.codes(x, layout), low.codes(indices)], axis=axis_in(axis, layout))
    low.put(node.outputs[0], value, layout)


@REFERENCE.row("GATHER")
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    x, indices = values[0], values[1]
    assert x is not None and indices is not None
    return [np.take(x, indices.astype(np.int64), axis=node.attrs["axis"])]


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    """All of x along the gathered axis: an index may be any."""
    x, indices = operands[0], operands[1]
    assert x is not None and indices is not None
    begin = node.attrs["axis"]
    end = begin + len(indices.shape)
    return Part(((*box[:begin], (0, x.shape[begin]), *box[end:]), box[begin:end]), dict(node.attrs))


TILE.add("GATHER", TileRow(free_axes, _part))


def indexed_entries(graph: Graph) -> dict[str, int]:
    """Integer input → the fewest entries of what it picks from, of inputs that a GATHER reads as they are or cast."""
    found: dict[str, int] = {}
    same = _cast_inputs(graph)
    for node in graph.nodes:
        name = same.get(node.inputs[1] or "") if node.op == "GATHER" else None
        if name is not None:
            table = graph[node.inputs[0] or ""]
            entries = table.shape[node.attrs["axis"]]
            found[name] = min(found.get(name, entries), entries)
    return found


def only_picks(graph: Graph, name: str) -> bool:
    """Whether an integer input goes straight into tables: nothing but GATHER reads it, as its indices, as it is or
    cast. So does one that nothing reads."""
    same = {tensor for tensor, source in _cast_inputs(graph).items() if source == name}
    reads = [(node, index) for node in graph.nodes for index, read in enumerate(node.inputs) if read in same]
    picks = [(node.op, index) == ("GATHER", 1) or node.outputs[0] in same for node, index in reads]
    return all(picks) and same.isdisjoint(graph.outputs)


def _cast_inputs(graph: Graph) -> dict[str, str]:
    """Integer inputs, and what casts make of them → the input."""
    found = {name: name for name in graph.inputs if not graph[name].dtype.is_float and graph[name].quant is None}
    for node in graph.nodes:
        if node.op == "CAST" and node.inputs[0] in found and not graph[node.outputs[0]].dtype.is_float:
            found[node.outputs[0]] = found[node.inputs[0]]
    return found


# -- ONNX import -----------------------------------------------------------------------------------------------------
def _as_range(indices: Array) -> tuple[int, int, int] | None:
    """(begin, end, stride) of indices [K] that are evenly spaced, end -1 before index 0; else None."""
    steps = np.diff(indices.astype(np.int64))
    step = int(steps[0]) if steps.size else 1
    if step == 0 or not (steps == step).all():
        return None
    return int(indices[0]), max(int(indices[-1]) + (1 if step > 0 else -1), -1), step


def pick(ctx: ImportContext, x: Tensor, indices: Array, axis: int) -> Tensor:
    """Entries of an axis: a slice where the indices are evenly spaced."""
    spaced = _as_range(indices)
    if spaced is None:
        return ctx.emit("GATHER", x, indices.astype(np.int32), axis=axis)
    if spaced == (0, x.shape[axis], 1):
        return x
    triples = [(0, d, 1) for d in x.shape]
    triples[axis] = spaced
    begin, end, strides = (tuple(column) for column in zip(*triples, strict=True))
    return ctx.emit("STRIDED_SLICE", x, begin=begin, end=end, strides=strides)


@IMPORT_ONNX.row("Gather")
def import_gather(ctx: ImportContext) -> list[Tensor]:
    """Constant indices: a slice or GATHER, then RESHAPE where they are not a vector. Computed indices: GATHER."""
    x, numbers = ctx.inputs[0], ctx.inputs[1]
    assert x is not None and numbers is not None
    axis = int(ctx.attrs.get("axis", 0)) % len(x.shape)
    if numbers.data is None:
        if numbers.dtype not in (DType.INT32, DType.INT64):
            raise ctx.refuse(f"indices of type {numbers.dtype.name}", "indices are constant or integers from outside")
        return [ctx.emit("GATHER", x, numbers, axis=axis)]
    constant = ctx.constant(1, "indices")
    assert constant is not None
    indices = np.where(constant < 0, constant + x.shape[axis], constant).astype(np.int64)
    if not indices.size or indices.min() < 0 or indices.max() >= x.shape[axis]:
        raise ctx.refuse(f"indices leave axis {axis} of shape {x.shape}")
    y = pick(ctx, x, indices.reshape(-1), axis)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return [reshaped(ctx, y, shape)]


_X: dict[str, Shape] = {"x": (1, 5, 7, 6)}
ONNX_EXAMPLES.add(
    "Gather",
    [
        OnnxCase("Gather", _X, {"i": np.array([3, 0, 0, -1])}, {"axis": 1}),
        OnnxCase("Gather", _X, {"i": np.array(-2)}, {"axis": 1}),
        OnnxCase("Gather", _X, {"i": np.array([1, 3, 5])}, {"axis": 2}),
        OnnxCase("Gather", _X, {"i": np.array([4, 2, 0])}, {"axis": 1}),
        OnnxCase("Gather", _X, {"i": np.array([[3, 0], [2, 5]])}, {"axis": -1}),
        OnnxCase("Gather", {"x": (5, 7)}, {"i": np.array([2])}),
    ],
)


def _example(shape: tuple[int, ...], indices: Any, axis: int) -> Graph:
    build = GraphBuilder()
    return build.output(build("GATHER", build.input("x", shape), np.array(indices, np.int32), output="y", axis=axis))


def _embedding() -> Graph:
    build = GraphBuilder()
    table = np.random.default_rng(0).normal(0, 1, (5, 7)).astype(np.float32)
    return build.output(
        build("GATHER", build.constant("table", table), build.input("i", (2, 3), DType.INT32), output="y", axis=0)
    )


EXAMPLES.add(
    "GATHER",
    lambda: [
        _example((1, 5, 7, 6), [3, 0, 0, 4], 1),
        _example((1, 5, 7, 6), [5, 0, 2], 3),
        _example((5, 7), [[3, 0], [2, 2], [4, 1]], 0),
        _embedding(),
    ],
)


# -- TFLite import ---------------------------------------------------------------------------------------------------
@IMPORT_TFLITE.row("GATHER")
def import_tflite_gather(ctx: ImportContext) -> list[Tensor]:
    x, numbers = operand(ctx, 0), operand(ctx, 1)
    axis, batches = (int(option(ctx, name, 0)) for name in ("axis", "batch_dims"))
    rank = len(numbers.shape)
    axis, batches = axis_of(ctx, axis, len(x.shape)), axis_of(ctx, batches + rank * (batches < 0), rank + 1)
    if not batches:
        return ctx.call("Gather", x, numbers, axis=axis)
    return [_by_batch(ctx, x, numbers, axis, batches)]


def _by_batch(ctx: ImportContext, x: Tensor, numbers: Tensor, axis: int, batches: int) -> Tensor:
    """x [B.., M.., D, ..] and numbers [B.., K..] → [B.., M.., K.., ..]: rows of the batches, one after another."""
    lead, middle, rest = x.shape[:batches], x.shape[batches:axis], x.shape[axis + 1 :]
    count, extent, kept = math.prod(lead), x.shape[axis], numbers.shape[batches:]
    order = (0, 2, 1, 3)
    rows = reshaped(ctx, x, (count, math.prod(middle), extent, math.prod(rest)))
    rows = ctx.emit("TRANSPOSE", rows, perm=order) if middle else rows
    rows = reshaped(ctx, rows, (count * extent, math.prod(middle), math.prod(rest)))
    starts = np.arange(count, dtype=np.int32)[:, None] * extent
    if numbers.data is None:
        flat = add(ctx, reshaped(ctx, numbers, (count, math.prod(kept))), starts)
        taken = ctx.emit("GATHER", rows, ctx.emit("RESHAPE", flat, shape=(count * math.prod(kept),)), axis=0)
    elif numbers.elements and not 0 <= numbers.data.min() <= numbers.data.max() < extent:
        raise ctx.refuse(f"indices leave axis {axis} of shape {x.shape}", AGAIN)
    else:
        taken = ctx.emit("GATHER", rows, (numbers.data.reshape(count, -1) + starts).reshape(-1), axis=0)
    taken = reshaped(ctx, taken, (count, math.prod(kept), math.prod(middle), math.prod(rest)))
    taken = ctx.emit("TRANSPOSE", taken, perm=order) if middle else taken
    return reshaped(ctx, taken, (*lead, *middle, *kept, *rest))


@IMPORT_TFLITE.row("EMBEDDING_LOOKUP")
def import_embedding_lookup(ctx: ImportContext) -> list[Tensor]:
    return ctx.call("Gather", operand(ctx, 1), operand(ctx, 0), axis=0)


_TABLE = np.linspace(-2, 3, 77, dtype=np.float32).reshape(11, 7)
_PICKED = {"i": np.array([[3, 0], [1, 2]], np.int32)}
TFLITE_EXAMPLES.add(
    "GATHER",
    [
        TfliteCase("GATHER", {"x": (2, 5, 6)}, {"i": np.array([4, 0, 3], np.int32)}, {"axis": -2}, "GatherOptions"),
        TfliteCase(
            "GATHER", {"i": (2, 3)}, {"t": _TABLE}, {}, "GatherOptions", ("t", "i"), types={"i": "int32"}, low=0
        ),
        TfliteCase("GATHER", {"x": (2, 4, 6)}, _PICKED, {"axis": 1, "batch_dims": 1}, "GatherOptions"),
        TfliteCase("GATHER", {"x": (2, 3, 4, 6)}, _PICKED, {"axis": 2, "batch_dims": -1}, "GatherOptions"),
        TfliteCase(
            "GATHER",
            {"x": (2, 4, 6), "i": (2, 3)},
            options={"axis": 1, "batch_dims": 1},
            table="GatherOptions",
            types={"i": "int32"},
            low=0,
            high=3,
        ),
    ],
)
TFLITE_EXAMPLES.add(
    "EMBEDDING_LOOKUP",
    [TfliteCase("EMBEDDING_LOOKUP", {"i": (5,)}, {"t": _TABLE}, types={"i": "int32"}, low=0, high=10)],
)
