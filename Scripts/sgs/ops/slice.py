"""STRIDED_SLICE, SLICE, SPLIT and SPLIT_V: parts of a tensor.

STRIDED_SLICE has attrs begin, end, strides for every axis, resolved against the shape: 0 <= begin < extent, end
exclusive (-1 where a negative stride runs through index 0). SLICE has begin and size. SPLIT cuts attr `axis` into attr
`num_splits` equal parts, SPLIT_V into parts of attr `sizes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor, strides_of
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._layout import remap_axis
from sgs.ops._move import add_move, all_rank_4, axis_in, box_copy
from sgs.registry import (
    EXAMPLES,
    IMPORT_ONNX,
    INFER,
    LAYOUT,
    ONNX_EXAMPLES,
    SIM,
    Copy,
    ImportContext,
    Layout,
    Lowering,
    Moved,
    OnnxCase,
    Shape,
    SimRow,
)

Inference = list[tuple[tuple[int, ...], DType]]


def _first(node: Node) -> Sequence[int]:
    return (0,)


# -- STRIDED_SLICE and SLICE -----------------------------------------------------------------------------------------
def bounds_of(node: Node) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """(begin, end, strides) of a STRIDED_SLICE or SLICE."""
    begin = tuple(node.attrs["begin"])
    if node.op == "SLICE":
        return begin, tuple(b + s for b, s in zip(begin, node.attrs["size"], strict=True)), (1,) * len(begin)
    return begin, tuple(node.attrs["end"]), tuple(node.attrs["strides"])


def slices_of(node: Node) -> tuple[slice, ...]:
    """The node's meaning as numpy indices."""
    return tuple(slice(b, None if e < 0 else e, s) for b, e, s in zip(*bounds_of(node), strict=True))


@INFER.row("STRIDED_SLICE", "SLICE")
def infer(node: Node, operands: Sequence[Tensor | None]) -> Inference:
    x = operands[0]
    assert x is not None
    begin, end, strides = bounds_of(node)
    if not len(begin) == len(end) == len(strides) == len(x.shape):
        raise ValueError(f"begin {begin}, end {end} and strides {strides} do not fit shape {x.shape}")
    shape = tuple(len(range(b, e, s)) for b, e, s in zip(begin, end, strides, strict=True))
    inside = all(
        0 <= b < d and -1 <= e <= d and (s < 0 or e >= 0)
        for b, e, s, d in zip(begin, end, strides, x.shape, strict=True)
    )
    if 0 in shape or not inside:
        raise ValueError(f"{begin} to {end} by {strides} is empty or leaves shape {x.shape}")
    return [(shape, x.dtype)]


@LAYOUT.row("STRIDED_SLICE", "SLICE")
def layout(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved:
    """Every axis keeps its bounds."""
    where = np.argsort(perm)
    return Moved({name: tuple(values[i] for i in where) for name, values in node.attrs.items()}, (perm,))


def _lower(low: Lowering, node: Node, values: list[str], layout: Layout) -> list[str]:
    x = low.graph[node.inputs[0] or ""]
    picked = [
        (axis_in(axis, layout), b, e if e >= 0 else -(2**31), s)
        for axis, (b, e, s) in enumerate(zip(*bounds_of(node), strict=True))
        if (b, e, s) != (0, x.shape[axis], 1)
    ]
    if not picked:
        return [values[0]]
    axes, begin, end, strides = (low.const(np.array(column, np.int64)) for column in zip(*picked, strict=True))
    return [low.op("Slice", [values[0], begin, end, axes, strides])]


def _slice(node: Node, arrays: list[Array], results: Sequence[Tensor]) -> list[Array]:
    return [arrays[0][slices_of(node)]]


def _encode(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[str, Any]:
    """An end before index 0 has no number in TFLite, where -1 is the last index: the mask says "as far as it goes"."""
    return {"end_mask": sum(1 << axis for axis, end in enumerate(node.attrs["end"]) if end < 0)}


def _decode(options: dict[str, Any], operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[str, Any]:
    if any(options[name] for name in ("ellipsis_mask", "new_axis_mask", "shrink_axis_mask")):
        raise ValueError("slices that add or drop axes are not supported")
    return {}


def _copies(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> list[Copy]:
    x, y = operands[0], results[0]
    assert x is not None
    begin, _, steps = bounds_of(node)
    strides = strides_of(x.shape)
    offset = sum(b * s for b, s in zip(begin, strides, strict=True))
    source = tuple(step * s for step, s in zip(steps, strides, strict=True))
    return [Copy(0, 0, y.shape, (offset, source), (0, strides_of(y.shape)))]


add_move(
    "STRIDED_SLICE",
    "every n-th value between two bounds of each axis",
    _lower,
    _slice,
    moved=_first,
    any_layout=all_rank_4,
    copies=_copies,
)
add_move(
    "SLICE",
    "the values between two bounds of each axis",
    _lower,
    _slice,
    moved=_first,
    any_layout=all_rank_4,
    copies=_copies,
)
SIM.add(
    "STRIDED_SLICE",
    SimRow("StridedSliceOptions", constant_inputs={1: "begin", 2: "end", 3: "strides"}, encode=_encode, decode=_decode),
)
SIM.add("SLICE", SimRow("SliceOptions", constant_inputs={1: "begin", 2: "size"}))


# -- SPLIT and SPLIT_V -----------------------------------------------------------------------------------------------
def sizes_of(node: Node, extent: int) -> tuple[int, ...]:
    """Extents of the parts along the cut axis."""
    if node.op == "SPLIT_V":
        return tuple(node.attrs["sizes"])
    count = int(node.attrs["num_splits"])
    if not 0 < count <= extent:
        raise ValueError(f"an axis of {extent} cannot be cut into {count} parts")
    return (extent // count,) * count


@INFER.row("SPLIT", "SPLIT_V")
def infer_split(node: Node, operands: Sequence[Tensor | None]) -> Inference:
    x, axis = operands[0], node.attrs["axis"]
    assert x is not None
    sizes = sizes_of(node, x.shape[axis])
    if sum(sizes) != x.shape[axis] or min(sizes) <= 0:
        raise ValueError(f"axis {axis} of shape {x.shape} cannot be cut into {sizes}")
    return [((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype) for size in sizes]


@LAYOUT.row("SPLIT", "SPLIT_V")
def layout_split(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved:
    """The cut axis follows the permutation."""
    return Moved({**node.attrs, "axis": remap_axis(node.attrs["axis"], perm)}, (perm,) * len(node.outputs))


def _lower_split(low: Lowering, node: Node, values: list[str], layout: Layout) -> list[str]:
    sizes = sizes_of(node, low.graph[node.inputs[0] or ""].shape[node.attrs["axis"]])
    if len(sizes) == 1:
        return values
    where = axis_in(node.attrs["axis"], layout)
    return list(low.op("Split", [values[0], low.const(np.array(sizes, np.int64))], outputs=len(sizes), axis=where))


def _split(node: Node, arrays: list[Array], results: Sequence[Tensor]) -> list[Array]:
    axis = node.attrs["axis"]
    return list(np.split(arrays[0], np.cumsum(sizes_of(node, arrays[0].shape[axis]))[:-1], axis))


def _encode_split(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[str, Any]:
    return {"num_splits": len(results)}


def _split_copies(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> list[Copy]:
    x, axis = operands[0], node.attrs["axis"]
    assert x is not None
    copies, begin = [], 0
    for number, y in enumerate(results):
        at = [begin if a == axis else 0 for a in range(len(y.shape))]
        copies.append(box_copy(0, x.shape, at, number, y.shape, [0] * len(y.shape), y.shape))
        begin += y.shape[axis]
    return copies


for _op, _summary in (("SPLIT", "an axis in equal parts"), ("SPLIT_V", "an axis in parts")):
    add_move(_op, _summary, _lower_split, _split, any_layout=all_rank_4, copies=_split_copies)
SIM.add("SPLIT", SimRow("SplitOptions", fields={"num_splits": "num_splits"}, constant_inputs={0: "axis"}))
SIM.add("SPLIT_V", SimRow("SplitVOptions", constant_inputs={1: "sizes", 2: "axis"}, encode=_encode_split))


# -- ONNX import -----------------------------------------------------------------------------------------------------
def _ints(ctx: ImportContext, index: int, name: str) -> list[int] | None:
    """Numbers given as an attribute (before opset 10/13) or as an operand."""
    if ctx.attrs.get(name) is not None:
        return [int(v) for v in ctx.attrs[name]]
    value = ctx.constant(index, name) if len(ctx.inputs) > index else None
    return None if value is None else [int(v) for v in value.reshape(-1)]


def _resolved(start: int, end: int, step: int, extent: int) -> tuple[int, int, int]:
    """ONNX clamps what lies outside; unlike Python it starts a backward slice at 0 where the start is before that."""
    start, end = (value + extent if value < 0 else value for value in (start, end))
    least, most = (0, extent) if step > 0 else (-1, extent - 1)
    return min(max(start, 0), most), min(max(end, least), most), step


@IMPORT_ONNX.row("Slice")
def import_slice(ctx: ImportContext) -> list[Tensor]:
    x, starts, ends = ctx.inputs[0], _ints(ctx, 1, "starts"), _ints(ctx, 2, "ends")
    assert x is not None
    if starts is None or ends is None:
        raise ctx.refuse("Slice without starts and ends")
    axes = _ints(ctx, 3, "axes") or list(range(len(starts)))
    steps = _ints(ctx, 4, "steps") or [1] * len(starts)
    triples = [(0, d, 1) for d in x.shape]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        triples[axis % len(x.shape)] = _resolved(start, end, step, x.shape[axis % len(x.shape)])
    begin, end_, strides = (tuple(column) for column in zip(*triples, strict=True))
    if any(not range(*triple) for triple in triples):
        raise ctx.refuse(f"a slice of shape {x.shape} from {begin} to {end_} is empty")
    if triples == [(0, d, 1) for d in x.shape]:
        return [x]
    return [ctx.emit("STRIDED_SLICE", x, begin=begin, end=end_, strides=strides)]


@IMPORT_ONNX.row("Split")
def import_split(ctx: ImportContext) -> list[Tensor]:
    """Equal parts without `split`; from opset 18 the last one may be smaller."""
    x = ctx.inputs[0]
    assert x is not None
    axis = int(ctx.attrs.get("axis", 0)) % len(x.shape)
    sizes = _ints(ctx, 1, "split")
    if sizes is None:
        count = int(ctx.attrs.get("num_outputs", ctx.output_count))
        each = -(-x.shape[axis] // count)
        sizes = [each] * (count - 1) + [x.shape[axis] - each * (count - 1)]
    if sum(sizes) != x.shape[axis] or min(sizes) < 0:
        raise ctx.refuse(f"parts of {sizes} do not make up axis {axis} of shape {x.shape}")
    parts = iter(_parts(ctx, x, axis, [size for size in sizes if size]))
    empty = np.zeros((*x.shape[:axis], 0, *x.shape[axis + 1 :]), x.dtype.numpy)
    return [next(parts) if size else Tensor(f"{x.name}/empty", empty.shape, x.dtype, empty) for size in sizes]


def _parts(ctx: ImportContext, x: Tensor, axis: int, sizes: Sequence[int]) -> list[Tensor]:
    if len(sizes) == 1:
        return [x]
    if len(set(sizes)) == 1:
        return ctx.emit_many("SPLIT", [x], axis=axis, num_splits=len(sizes))
    return ctx.emit_many("SPLIT_V", [x], axis=axis, sizes=tuple(sizes))


_END = np.iinfo(np.int64).max
_X: dict[str, Shape] = {"x": (1, 5, 7, 6)}
ONNX_EXAMPLES.add(
    "Slice",
    [
        OnnxCase("Slice", _X, attrs={"starts": [1, -3], "ends": [_END, -1], "axes": [1, 3]}, opset=9),
        OnnxCase(
            "Slice",
            _X,
            {"b": np.array([1, 0]), "e": np.array([5, _END]), "a": np.array([-3, 2]), "s": np.array([2, 3])},
            opset=10,
        ),
        OnnxCase("Slice", _X, {"b": np.array([0, 1]), "e": np.array([1, 4])}, opset=13),
        OnnxCase(
            "Slice",
            _X,
            {"b": np.array([-1, 4]), "e": np.array([-_END, 0]), "a": np.array([3, 2]), "s": np.array([-1, -2])},
        ),
    ],
)
ONNX_EXAMPLES.add(
    "Split",
    [
        OnnxCase("Split", {"x": (1, 6, 7, 5)}, attrs={"axis": 1, "split": [1, 3, 2]}, outputs=3, opset=11),
        OnnxCase("Split", {"x": (1, 6, 7, 5)}, {"s": np.array([4, 2])}, {"axis": -3}, outputs=2, opset=13),
        OnnxCase("Split", {"x": (1, 6, 7, 5)}, attrs={"axis": 1}, outputs=3, opset=13),
        OnnxCase("Split", {"x": (1, 6, 7, 5)}, attrs={"axis": 2, "num_outputs": 3}, outputs=3, opset=18),
    ],
)


def _example(op: str, shape: tuple[int, ...], **attrs: Any) -> Graph:
    build = GraphBuilder()
    return build.output(*build.node(op, [build.input("x", shape)], outputs=["y"], **attrs))


def _strided(shape: tuple[int, ...], begin: tuple[int, ...], end: tuple[int, ...], strides: tuple[int, ...]) -> Graph:
    return _example("STRIDED_SLICE", shape, begin=begin, end=end, strides=strides)


EXAMPLES.add(
    "STRIDED_SLICE",
    lambda: [
        _strided((1, 5, 7, 6), (0, 1, 0, 2), (1, 5, 7, 5), (1, 1, 1, 1)),
        _strided((1, 5, 7, 6), (0, 1, 0, 0), (1, 5, 7, 6), (1, 2, 3, 1)),
        _strided((1, 5, 7, 6), (0, 4, 6, 0), (1, -1, 1, 6), (1, -2, -1, 1)),
        _strided((5, 7), (2, 0), (5, 7), (1, 2)),
    ],
)
EXAMPLES.add(
    "SLICE",
    lambda: [
        _example("SLICE", (1, 5, 7, 6), begin=(0, 1, 0, 2), size=(1, 3, 7, 4)),
        _example("SLICE", (5, 7), begin=(2, 1), size=(2, 4)),
    ],
)
EXAMPLES.add(
    "SPLIT",
    lambda: [
        _example("SPLIT", (1, 5, 7, 6), axis=3, num_splits=3),
        _example("SPLIT", (1, 4, 7, 6), axis=1, num_splits=2),
        _example("SPLIT", (5, 8), axis=1, num_splits=4),
    ],
)
EXAMPLES.add(
    "SPLIT_V",
    lambda: [
        _example("SPLIT_V", (1, 5, 7, 6), axis=3, sizes=(1, 3, 2)),
        _example("SPLIT_V", (1, 5, 7, 6), axis=2, sizes=(4, 3)),
        _example("SPLIT_V", (9, 4), axis=0, sizes=(2, 7)),
    ],
)
