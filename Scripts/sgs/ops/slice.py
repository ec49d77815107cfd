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
from sgs.ops._import import reshaped
from sgs.ops._layout import remap_axis
from sgs.ops._move import add_move, all_rank_4, axis_in, box_copy
from sgs.ops._tflite import SHAPES, axis_of, integer, integers, operand, option
from sgs.registry import (
    EXAMPLES,
    IMPORT_ONNX,
    IMPORT_TFLITE,
    INFER,
    LAYOUT,
    ONNX_EXAMPLES,
    SIM,
    TFLITE_EXAMPLES,
    Copy,
    ImportContext,
    Layout,
    Lowering,
    Moved,
    OnnxCase,
    Shape,
    SimRow,
    TfliteCase,
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


# -- TFLite import ---------------------------------------------------------------------------------------------------
@IMPORT_TFLITE.row("SLICE")
def import_tflite_slice(ctx: ImportContext) -> list[Tensor]:
    """A size of -1 is as far as there is."""
    x, begin, size = operand(ctx, 0), integers(ctx, 1, "begin"), integers(ctx, 2, "size")
    if not len(begin) == len(size) == len(x.shape):
        raise ctx.refuse(f"begin {begin} and size {size} do not fit shape {x.shape}", SHAPES)
    end = [b + s if s >= 0 else d for b, s, d in zip(begin, size, x.shape, strict=True)]
    return [_cut(ctx, x, [(b, e, 1) for b, e in zip(begin, end, strict=True)])]


def _cut(ctx: ImportContext, x: Tensor, triples: Sequence[tuple[int, int, int]]) -> Tensor:
    """(begin, end, stride) of every axis; an end of -1 is before index 0."""
    if list(triples) == [(0, d, 1) for d in x.shape]:
        return x
    begin, end, strides = (tuple(column) for column in zip(*triples, strict=True))
    return ctx.emit("STRIDED_SLICE", x, begin=begin, end=end, strides=strides)


_MASKS = ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
_Entry = tuple[str, slice]  # "kept", "dropped" or "new"; what is taken of an axis
_WHOLE: _Entry = ("kept", slice(None))


def _entries(ctx: ImportContext, rank: int) -> list[_Entry]:
    """What happens to every axis of an operand of that rank, and where new ones come between. Bit i of a mask speaks of
    entry i of the bounds: a begin or end that does not count, an ellipsis (all axes that no other entry is for), a new
    axis, an axis to drop. With `offset` ends count from the begin."""
    begin, end, strides = (integers(ctx, index, what) for index, what in ((1, "begin"), (2, "end"), (3, "strides")))
    if option(ctx, "offset", False):
        end = [b + e for b, e in zip(begin, end, strict=True)]
    bits = [{name for name in _MASKS if int(option(ctx, f"{name}_mask", 0)) >> i & 1} for i in range(len(begin))]
    named = sum(1 for found in bits if not found & {"new_axis", "ellipsis"})
    entries: list[_Entry] = []
    for b, e, stride, found in zip(begin, end, strides, bits, strict=True):
        if "ellipsis" in found:
            entries += [_WHOLE] * (rank - named)
        elif "new_axis" in found:
            entries.append(("new", slice(None)))
        elif "shrink_axis" in found:
            entries.append(("dropped", slice(0, 1) if "begin" in found else slice(b, b + 1 or None)))
        else:
            entries.append(("kept", slice(None if "begin" in found else b, None if "end" in found else e, stride)))
    return entries + [_WHOLE] * (rank - sum(kind != "new" for kind, _ in entries))


@IMPORT_TFLITE.row("STRIDED_SLICE")
def import_strided_slice(ctx: ImportContext) -> list[Tensor]:
    x = operand(ctx, 0)
    entries = _entries(ctx, len(x.shape))
    taken = [(kind, part) for kind, part in entries if kind != "new"]
    triples = [part.indices(d) for (_, part), d in zip(taken, x.shape, strict=True)]
    if any(not range(*triple) for triple in triples):
        raise ctx.refuse(f"a slice of shape {x.shape} is empty", SHAPES)
    extents = iter([len(range(*triple)) for triple in triples])
    shape = [(kind, 1 if kind == "new" else next(extents)) for kind, _ in entries]
    return [reshaped(ctx, _cut(ctx, x, triples), tuple(d for kind, d in shape if kind != "dropped"))]


@IMPORT_TFLITE.row("SPLIT")
def import_tflite_split(ctx: ImportContext) -> list[Tensor]:
    x = operand(ctx, 1)
    axis = axis_of(ctx, integer(ctx, 0, "axis"), len(x.shape))
    count = int(option(ctx, "num_splits", ctx.output_count))
    if count < 1 or x.shape[axis] % count:
        raise ctx.refuse(f"axis {axis} of shape {x.shape} has no {count} equal parts", SHAPES)
    return _parts(ctx, x, axis, [x.shape[axis] // count] * count)


@IMPORT_TFLITE.row("SPLIT_V")
def import_split_v(ctx: ImportContext) -> list[Tensor]:
    """One size may be -1, which is whatever is left."""
    x, sizes = operand(ctx, 0), integers(ctx, 1, "sizes")
    axis = axis_of(ctx, integer(ctx, 2, "axis"), len(x.shape))
    rest = x.shape[axis] - sum(size for size in sizes if size != -1)
    sizes = [rest if size == -1 else size for size in sizes]
    if sum(sizes) != x.shape[axis] or min(sizes, default=0) <= 0:
        raise ctx.refuse(f"parts of {sizes} do not make up axis {axis} of shape {x.shape}", SHAPES)
    return _parts(ctx, x, axis, sizes)


@IMPORT_TFLITE.row("UNPACK")
def import_unpack(ctx: ImportContext) -> list[Tensor]:
    """Every entry of an axis as a tensor without it."""
    x = operand(ctx, 0)
    axis = axis_of(ctx, int(option(ctx, "axis", 0)), len(x.shape))
    parts = _parts(ctx, x, axis, [1] * x.shape[axis])
    return [reshaped(ctx, part, (*x.shape[:axis], *x.shape[axis + 1 :])) for part in parts]


@IMPORT_TFLITE.row("REVERSE_V2")
def import_reverse(ctx: ImportContext) -> list[Tensor]:
    x = operand(ctx, 0)
    turned = {axis_of(ctx, a, len(x.shape)) for a in integers(ctx, 1, "axes")}
    return [_cut(ctx, x, [(d - 1, -1, -1) if a in turned else (0, d, 1) for a, d in enumerate(x.shape)])]


def _int32(*values: int) -> Array:
    return np.array(values, np.int32)


def _tflite_case(begin: tuple[int, ...], end: tuple[int, ...], strides: tuple[int, ...], **options: Any) -> TfliteCase:
    constants = {"b": _int32(*begin), "e": _int32(*end), "s": _int32(*strides)}
    return TfliteCase("STRIDED_SLICE", _X, constants, options, table="StridedSliceOptions")


TFLITE_EXAMPLES.add(
    "STRIDED_SLICE",
    [
        _tflite_case((0, -4, 1, 0), (1, 99, -1, 5), (1, 1, 2, 2)),
        _tflite_case((0, 2), (0, 4), (1, 1), begin_mask=1, end_mask=3),
        _tflite_case((0, 0, 4), (0, 0, 5), (1, 1, 1), ellipsis_mask=1, new_axis_mask=2, shrink_axis_mask=4),
        _tflite_case((0, -2, 0, 0), (0, 0, 0, 3), (1, -1, 1, 1), end_mask=0b0111, shrink_axis_mask=1),
        _tflite_case((0, 1, 2, 1), (1, 2, 3, 4), (1, 1, 1, 2), offset=True),
        _tflite_case((0, 3), (1, 4), (1, 1), begin_mask=2, shrink_axis_mask=2),
    ],
)
TFLITE_EXAMPLES.add(
    "SLICE",
    [TfliteCase("SLICE", _X, {"b": _int32(0, 1, 2, 0), "s": _int32(1, 3, -1, 6)}, table="SliceOptions")],
)
TFLITE_EXAMPLES.add(
    "SPLIT",
    [
        TfliteCase(
            "SPLIT",
            {"x": (1, 6, 7, 5)},
            {"a": np.array(-3, np.int32)},
            {"num_splits": 3},
            "SplitOptions",
            ("a", "x"),
            ("float32",) * 3,
        )
    ],
)
TFLITE_EXAMPLES.add(
    "SPLIT_V",
    [
        TfliteCase(
            "SPLIT_V",
            {"x": (1, 6, 7, 5)},
            {"s": _int32(1, -1, 2), "a": np.array(-2, np.int32)},
            {"num_splits": 3},
            "SplitVOptions",
            results=("float32",) * 3,
        )
    ],
)
TFLITE_EXAMPLES.add(
    "UNPACK",
    [
        TfliteCase(
            "UNPACK", {"x": (4, 3, 5)}, options={"axis": -2, "num": 3}, table="UnpackOptions", results=("float32",) * 3
        )
    ],
)
TFLITE_EXAMPLES.add(
    "REVERSE_V2", [TfliteCase("REVERSE_V2", {"x": (2, 3, 5)}, {"a": _int32(1)}, table="ReverseV2Options")]
)
