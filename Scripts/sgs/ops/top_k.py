"""TOPK_V2 and TOPK_SMALLEST: the `k` largest or smallest values along the last axis in order, and where they are.

Results: values [.., k], in the operand's type, and indices [.., k], INT32. Of equal values the first comes first.
Codes are in the order of the real numbers they stand for, so a fixed graph compares codes. TFLite has no TOPK_SMALLEST.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._layout import keeps_last
from sgs.ops._move import add_move, comparable
from sgs.ops._tflite import integer, operand
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
    OnnxCase,
    Part,
    SimRow,
    Span,
    TfliteCase,
    TileRow,
)

LARGEST, SMALLEST = OPS = ("TOPK_V2", "TOPK_SMALLEST")
SIM.add(LARGEST, SimRow("TopKV2Options", constant_inputs={1: "k"}))
SIM.add(SMALLEST, SimRow(custom=True))
LAYOUT.add(LARGEST, keeps_last)
LAYOUT.add(SMALLEST, keeps_last)


@INFER.row(*OPS)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    x, k = operands[0], node.attrs["k"]
    assert x is not None
    if not x.shape or not 0 < k <= x.shape[-1]:
        raise ValueError(f"shape {x.shape} has no {k} values along its last axis")
    shape = (*x.shape[:-1], k)
    return [(shape, x.dtype), (shape, DType.INT32)]


@SPAN.row(*OPS)
def span(node: Node, operands: Sequence[Tensor | None], spans: Sequence[Span | None]) -> Span | None:
    """Places along the last axis; the values are plain integers only where the operand is, which says nothing of
    them."""
    x = operands[0]
    assert x is not None
    return (0, x.shape[-1] - 1) if x.quant is not None or x.dtype.is_float else None


def _lower(low: Lowering, node: Node, values: list[str], layout: Layout) -> list[str]:
    x = low.graph[node.inputs[0] or ""]
    value, k = comparable(low, values[0], x, wide=True), low.const(np.array([node.attrs["k"]], np.int64))
    best, where = low.op("TopK", [value, k], outputs=2, axis=-1, largest=int(node.op == LARGEST), sorted=1)
    return [best if value == values[0] else low.cast(best, x.dtype), low.cast(where, DType.INT32)]


def _move(node: Node, arrays: list[Array], results: Sequence[Tensor]) -> list[Array]:
    keys = arrays[0].astype(np.float64)
    order = np.argsort(-keys if node.op == LARGEST else keys, axis=-1, kind="stable")[..., : node.attrs["k"]]
    return [np.take_along_axis(arrays[0], order, -1), order.astype(np.int32)]


def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """All but the last axis: a row is one whole."""
    return dict.fromkeys(range(len(results[0].shape) - 1), 1)


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    x = operands[0]
    assert x is not None
    return Part(((*box[:-1], (0, x.shape[-1])),), dict(node.attrs))


def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """For each element read as many operations as k has binary digits: a place among the best so far."""
    x = operands[0]
    assert x is not None
    return Cost(vector_ops=x.elements * int(node.attrs["k"]).bit_length())


for _op in OPS:
    add_move(
        _op,
        f"the {'largest' if _op == LARGEST else 'smallest'} values along the last axis, and where they are",
        _lower,
        _move,
        apart=(1,),
        tile=TileRow(_axes, _part),
        cost=cost,
    )


# -- ONNX import -------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("TopK")
def import_top_k(ctx: ImportContext) -> list[Tensor]:
    """The axis is brought to the end by a TRANSPOSE. Results that need not be sorted are sorted all the same."""
    x = ctx.inputs[0]
    assert x is not None
    k = np.asarray(ctx.attrs["k"]) if "k" in ctx.attrs else ctx.constant(1, "number of values")
    assert k is not None
    axis = int(ctx.attrs.get("axis", -1)) % len(x.shape)
    op = LARGEST if ctx.attrs.get("largest", 1) else SMALLEST
    last = len(x.shape) - 1
    if axis == last:
        return ctx.emit_many(op, [x], k=int(k.reshape(-1)[0]))
    perm = (*(a for a in range(last + 1) if a != axis), axis)
    results = ctx.emit_many(op, [ctx.emit("TRANSPOSE", x, perm=perm)], k=int(k.reshape(-1)[0]))
    return [ctx.emit("TRANSPOSE", y, perm=tuple(int(a) for a in np.argsort(perm))) for y in results]


ONNX_EXAMPLES.add(
    "TopK",
    [
        OnnxCase("TopK", {"x": (3, 11)}, attrs={"k": 4}, outputs=2, opset=9),
        OnnxCase("TopK", {"x": (1, 5, 7, 6)}, {"k": np.array([2])}, {"axis": 1}, outputs=2, opset=11),
        OnnxCase("TopK", {"x": (2, 5, 7)}, {"k": np.array([3])}, {"largest": 0}, outputs=2, opset=11),
        OnnxCase("TopK", {"x": (2, 5, 7)}, {"k": np.array([5])}, {"axis": -2, "sorted": 1}, outputs=2),
    ],
)


def _example(op: str, shape: tuple[int, ...], k: int) -> Graph:
    build = GraphBuilder()
    return build.output(*build.node(op, [build.input("x", shape)], outputs=["y", "i"], k=k))


for _op in OPS:
    EXAMPLES.add(
        _op,
        lambda op=_op: [_example(op, (1, 5, 7, 6), 2), _example(op, (3, 11), 11), _example(op, (301,), 5)],  # type: ignore[misc]
    )


# -- TFLite import -----------------------------------------------------------------------------------------------------
@IMPORT_TFLITE.row(LARGEST)
def import_tflite(ctx: ImportContext) -> list[Tensor]:
    return ctx.emit_many(LARGEST, [operand(ctx, 0)], k=integer(ctx, 1, "k"))


TFLITE_EXAMPLES.add(
    LARGEST,
    [
        TfliteCase(LARGEST, {"x": (3, 11)}, {"k": np.array(k, np.int32)}, {}, "TopKV2Options", (), ("float32", "int32"))
        for k in (4, [2])
    ],
)
