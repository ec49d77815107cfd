"""REVERSE_SEQUENCE: the first entries along axis `seq_dim` in reverse, for each of axis `batch_dim` as many as its
entry of operand 1, INT32 [B], says. The others stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._layout import fixed
from sgs.ops._move import add_move
from sgs.ops._places import check_computed, read_places
from sgs.registry import (
    EXAMPLES,
    IMPORT_ONNX,
    INFER,
    LAYOUT,
    ONNX_EXAMPLES,
    SIM,
    Box,
    ImportContext,
    Layout,
    Lowering,
    OnnxCase,
    Part,
    Shape,
    SimRow,
    TileRow,
)

OP = "REVERSE_SEQUENCE"
_AXES = {"seq_dim": "seq_dim", "batch_dim": "batch_dim"}
LAYOUT.add(OP, fixed)
SIM.add(OP, SimRow("ReverseSequenceOptions", fields=_AXES))


@INFER.row(OP)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    x, lengths, axes = operands[0], operands[1], {node.attrs[name] for name in _AXES}
    assert x is not None and lengths is not None
    if axes != {0, 1} or len(x.shape) < 2 or lengths.shape != (x.shape[node.attrs["batch_dim"]],):
        raise ValueError(f"{lengths.shape} lengths along axes {axes} of shape {x.shape}, which are to be 0 and 1")
    return [(x.shape, x.dtype)]


def _lower(low: Lowering, node: Node, values: list[str], layout: Layout) -> list[str]:
    axes = {"time_axis": node.attrs["seq_dim"], "batch_axis": node.attrs["batch_dim"]}
    x = low.graph[node.inputs[0] or ""]
    value = values[0] if x.dtype is not DType.BOOL else low.cast(values[0], DType.UINT8)
    turned = low.op("ReverseSequence", [value, low.cast(values[1], DType.INT64)], **axes)
    return [turned if value == values[0] else low.cast(turned, DType.BOOL)]


def _move(node: Node, arrays: list[Array], results: Sequence[Tensor]) -> list[Array]:
    axes = (node.attrs["batch_dim"], node.attrs["seq_dim"])
    y = np.moveaxis(arrays[0].copy(), axes, (0, 1))
    for row, length in zip(y, arrays[1], strict=True):
        row[:length] = row[:length][::-1].copy()
    return [np.ascontiguousarray(np.moveaxis(y, (0, 1), axes))]


def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """All axes but the one along which entries are reversed."""
    return {axis: 1 for axis in range(len(results[0].shape)) if axis != node.attrs["seq_dim"]}


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    return Part((box, (box[node.attrs["batch_dim"]],)), dict(node.attrs))


add_move(
    OP,
    "the first entries along an axis in reverse, as many as an operand says",
    _lower,
    _move,
    moved=lambda node: (0,),
    tile=TileRow(_axes, _part),
)


# -- ONNX import -------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("ReverseSequence")
def import_reverse_sequence(ctx: ImportContext) -> list[Tensor]:
    """Constant lengths: a GATHER of rows."""
    x, lengths = ctx.inputs[0], ctx.inputs[1]
    assert x is not None and lengths is not None
    time, batch = int(ctx.attrs.get("time_axis", 0)), int(ctx.attrs.get("batch_axis", 1))
    if lengths.data is None:
        check_computed(ctx, lengths)
        return [ctx.emit(OP, x, lengths, seq_dim=time, batch_dim=batch)]
    counts = ctx.constant(1, "lengths")
    assert counts is not None
    places = np.stack(list(np.indices(x.shape[:2])), -1)  # [.., (batch, time)] in the order of the axes
    reach = counts.astype(np.int64).reshape((-1, 1) if batch == 0 else (1, -1))
    places[..., time] = np.where(places[..., time] < reach, reach - 1 - places[..., time], places[..., time])
    return [read_places(ctx, x, places)]


ONNX_EXAMPLES.add(
    "ReverseSequence",
    [
        OnnxCase("ReverseSequence", {"x": (5, 3, 2)}, {"n": np.array([5, 1, 3])}),
        OnnxCase("ReverseSequence", {"x": (3, 5)}, {"n": np.array([4, 2, 5])}, {"time_axis": 1, "batch_axis": 0}),
    ],
)


def _example(shape: Shape, time: int) -> Graph:
    """As many entries as another tensor says."""
    build = GraphBuilder()
    lengths = build("ARG_MAX", build.input("n", (shape[1 - time], shape[time] + 1)), axis=1)
    return build.output(build(OP, build.input("x", shape), lengths, output="y", seq_dim=time, batch_dim=1 - time))


EXAMPLES.add(OP, lambda: [_example((3, 5, 7, 6), 1), _example((5, 3), 0)])
