"""ARG_MAX and ARG_MIN: where along attr `axis` (non-negative) the largest or smallest value is, the first of equals.

The result is INT32 and has no such axis. Codes are in the order of the real numbers they stand for, so a fixed graph
compares codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._import import subtract
from sgs.ops._layout import perm_without, remap_axis
from sgs.ops._move import add_move, comparable
from sgs.ops._tflite import axis_of, integer, operand
from sgs.registry import (
    EXAMPLES,
    IMPORT_ONNX,
    IMPORT_TFLITE,
    INFER,
    LAYOUT,
    ONNX_EXAMPLES,
    SIM,
    SPAN,
    TFLITE_EXAMPLES,
    Box,
    Cost,
    ImportContext,
    Layout,
    Lowering,
    Moved,
    OnnxCase,
    Part,
    SimRow,
    Span,
    TfliteCase,
    TileRow,
)

MAX, MIN = OPS = ("ARG_MAX", "ARG_MIN")
_ONNX = {MAX: "ArgMax", MIN: "ArgMin"}
_INT32 = 2  # in TFLite's TensorType


@INFER.row(*OPS)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    x, axis = operands[0], node.attrs["axis"]
    assert x is not None
    if not 0 <= axis < len(x.shape):
        raise ValueError(f"shape {x.shape} has no axis {axis}")
    return [((*x.shape[:axis], *x.shape[axis + 1 :]), DType.INT32)]


@SPAN.row(*OPS)
def span(node: Node, operands: Sequence[Tensor | None], spans: Sequence[Span | None]) -> Span:
    """Places along the axis."""
    x = operands[0]
    assert x is not None
    return 0, x.shape[node.attrs["axis"]] - 1


@LAYOUT.row(*OPS)
def layout(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved:
    """The axis follows the permutation; what is left is permuted."""
    axis = node.attrs["axis"]
    return Moved({**node.attrs, "axis": remap_axis(axis, perm)}, (perm_without(perm, [axis]),))


def _lower(low: Lowering, node: Node, values: list[str], layout: Layout) -> list[str]:
    value = comparable(low, values[0], low.graph[node.inputs[0] or ""])
    found = low.op(_ONNX[node.op], [value], axis=node.attrs["axis"], keepdims=0, select_last_index=0)
    return [low.cast(found, DType.INT32)]


def _move(node: Node, arrays: list[Array], results: Sequence[Tensor]) -> list[Array]:
    find = np.argmax if node.op == MAX else np.argmin
    return [np.asarray(find(arrays[0], axis=node.attrs["axis"]), np.int32)]


def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """Every axis of the result: the one searched along is no longer there."""
    return dict.fromkeys(range(len(results[0].shape)), 1)


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    x, axis = operands[0], node.attrs["axis"]
    assert x is not None
    return Part(((*box[:axis], (0, x.shape[axis]), *box[axis:]),), dict(node.attrs))


def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """One operation per element read, and one per result."""
    x = operands[0]
    assert x is not None
    return Cost(vector_ops=x.elements + results[0].elements)


def _encode(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[str, Any]:
    return {"output_type": _INT32}


for _op in OPS:
    add_move(
        _op,
        f"where along an axis the {'largest' if _op == MAX else 'smallest'} value is",
        _lower,
        _move,
        apart=(0,),
        tile=TileRow(_axes, _part),
        cost=cost,
    )
    _options = "ArgMaxOptions" if _op == MAX else "ArgMinOptions"
    SIM.add(_op, SimRow(_options, constant_inputs={1: "axis"}, encode=_encode))


# -- ONNX import -------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row(*_ONNX.values())
def import_arg(ctx: ImportContext) -> list[Tensor]:
    """The last of equals (attribute `select_last_index`) is the first of the operand reversed."""
    x = ctx.inputs[0]
    assert x is not None
    axis = int(ctx.attrs.get("axis", 0)) % max(len(x.shape), 1)
    op = next(ours for ours, theirs in _ONNX.items() if theirs == ctx.op)
    if not x.shape:
        raise ctx.refuse("an operand without axes")
    if ctx.attrs.get("select_last_index", 0) and x.shape[axis] > 1:
        triples = [(0, d, 1) for d in x.shape]
        triples[axis] = (x.shape[axis] - 1, -1, -1)
        begin, end, strides = (tuple(column) for column in zip(*triples, strict=True))
        behind = ctx.emit(op, ctx.emit("STRIDED_SLICE", x, begin=begin, end=end, strides=strides), axis=axis)
        y = subtract(ctx, np.array(x.shape[axis] - 1, np.int32), behind)
    else:
        y = ctx.emit(op, x, axis=axis)
    if not ctx.attrs.get("keepdims", 1):
        return [y]
    return [ctx.emit("RESHAPE", y, shape=(*x.shape[:axis], 1, *x.shape[axis + 1 :]))]


for _onnx in _ONNX.values():
    ONNX_EXAMPLES.add(
        _onnx,
        [
            OnnxCase(_onnx, {"x": (1, 5, 7, 6)}, attrs={"axis": 1, "keepdims": 0}),
            OnnxCase(_onnx, {"x": (2, 5, 7, 6)}, attrs={"axis": -1}),
            OnnxCase(_onnx, {"x": (3, 11)}, attrs={"axis": 1, "keepdims": 0, "select_last_index": 1}),
            OnnxCase(_onnx, {"x": (2, 5, 7)}, opset=11),
        ],
    )


def _example(op: str, shape: tuple[int, ...], axis: int) -> Graph:
    build = GraphBuilder()
    return build.output(build(op, build.input("x", shape), output="y", axis=axis))


for _op in OPS:
    EXAMPLES.add(
        _op,
        lambda op=_op: [  # type: ignore[misc]
            _example(op, (1, 5, 7, 6), 3),
            _example(op, (2, 5, 7, 6), 1),
            _example(op, (3, 11), 0),
        ],
    )


# -- TFLite import ---------------------------------------------------------------------------------------------------
@IMPORT_TFLITE.row(*OPS)
def import_tflite(ctx: ImportContext) -> list[Tensor]:
    x = operand(ctx, 0)
    return [ctx.emit(ctx.op, x, axis=axis_of(ctx, integer(ctx, 1, "axis"), len(x.shape)))]


for _op, _table in ((MAX, "ArgMaxOptions"), (MIN, "ArgMinOptions")):
    TFLITE_EXAMPLES.add(
        _op,
        [
            TfliteCase(
                _op, {"x": (2, 5, 7)}, {"a": np.array(axis, np.int32)}, {"output_type": 2}, _table, (), ("int32",)
            )
            for axis in (1, -1)
        ],
    )
