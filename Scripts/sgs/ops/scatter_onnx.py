"""ONNX ScatterND, ScatterElements, Scatter and TensorScatter; see ops/scatter.py.

Constant places are written by slices or GATHER (ops/_places.py), computed ones by SCATTER_ND_UPDATE and its family.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._import import add, reshaped
from sgs.ops._places import (
    check_computed,
    computed_places_along,
    from_start,
    places_along,
    read_places,
    write_places,
)
from sgs.ops._tflite import SHAPES, integer, integers, operand
from sgs.registry import (
    IMPORT_ONNX,
    IMPORT_TFLITE,
    ONNX_EXAMPLES,
    TFLITE_EXAMPLES,
    ImportContext,
    OnnxCase,
    Shape,
    TfliteCase,
)

_ELEMENTWISE = {"add": "ADD", "mul": "MUL", "max": "MAXIMUM", "min": "MINIMUM"}


def _reduction(ctx: ImportContext, x: Tensor) -> str:
    kind = str(ctx.attrs.get("reduction", "none") or "none")
    if kind != "none" and (kind not in _ELEMENTWISE or x.dtype is DType.BOOL):
        raise ctx.refuse(f"reduction {kind} of {x.dtype.name}", "reductions are none, add, mul, max and min of numbers")
    return kind


def _scattered(ctx: ImportContext, x: Tensor, places: Tensor | Array, updates: Tensor) -> Tensor:
    """x with updates at places [.., K]."""
    kind = _reduction(ctx, x)
    if not isinstance(places, Tensor):
        apart = len(np.unique(places.reshape(-1, places.shape[-1]), axis=0)) == places[..., 0].size
        if kind == "none":
            return write_places(ctx, x, places, updates)
        if apart:
            activation = {"activation": "NONE"} if kind in ("add", "mul") else {}
            changed = ctx.emit(_ELEMENTWISE[kind], read_places(ctx, x, places), updates, **activation)
            return write_places(ctx, x, places, changed)
        places = places.astype(np.int32)
    return ctx.emit("SCATTER_ND_" + ("UPDATE" if kind == "none" else kind.upper()), x, places, updates)


@IMPORT_ONNX.row("ScatterND")
def import_scatter_nd(ctx: ImportContext) -> list[Tensor]:
    x, numbers, updates = ctx.inputs[0], ctx.inputs[1], ctx.inputs[2]
    assert x is not None and numbers is not None and updates is not None
    if numbers.data is None:
        check_computed(ctx, numbers)
        return [_scattered(ctx, x, numbers, updates)]
    indices = ctx.constant(1, "indices")
    assert indices is not None
    return [_scattered(ctx, x, from_start(ctx, indices, x.shape[: indices.shape[-1]]), updates)]


@IMPORT_ONNX.row("ScatterElements", "Scatter")
def import_scatter_elements(ctx: ImportContext) -> list[Tensor]:
    """Element by element one index along an axis: places along all axes."""
    x, numbers, updates = ctx.inputs[0], ctx.inputs[1], ctx.inputs[2]
    assert x is not None and numbers is not None and updates is not None
    axis = int(ctx.attrs.get("axis", 0)) % len(x.shape)
    if numbers.data is None:
        check_computed(ctx, numbers)
        return [_scattered(ctx, x, computed_places_along(ctx, axis, numbers), updates)]
    indices = ctx.constant(1, "indices")
    assert indices is not None
    return [_scattered(ctx, x, places_along(axis, from_start(ctx, indices, x.shape[axis])), updates)]


@IMPORT_ONNX.row("TensorScatter")
def import_tensor_scatter(ctx: ImportContext) -> list[Tensor]:
    """Into a cache [B, .., D, ..] updates [B, .., L, ..], for each of the batch from an index of its own on; mode
    circular goes on at 0 behind the end."""
    x, updates = ctx.inputs[0], ctx.inputs[1]
    first = ctx.inputs[2] if len(ctx.inputs) > 2 else None
    assert x is not None and updates is not None
    axis, circular = int(ctx.attrs.get("axis", -2)) % len(x.shape), ctx.attrs.get("mode", "linear") == "circular"
    shape, batch = updates.shape[: axis + 1], (-1, *(1,) * axis)
    steps = np.broadcast_to(np.arange(shape[-1]), shape)
    if first is not None and first.data is None:
        check_computed(ctx, first)
        start = reshaped(ctx, first, (*first.shape, *batch[1:]))
        index = add(ctx, start, steps.astype(np.int32))
        if circular:
            index = ctx.emit("FLOOR_MOD", index, np.array(x.shape[axis], np.int32))
        return [_scattered(ctx, x, computed_places_along(ctx, axis, index), updates)]
    start_at = ctx.constant(2, "write indices") if first is not None else None
    numbers = steps + (0 if start_at is None else start_at.astype(np.int64).reshape(batch))
    numbers = numbers % x.shape[axis] if circular else from_start(ctx, numbers, x.shape[axis])
    return [_scattered(ctx, x, places_along(axis, numbers), updates)]


_ORDER = ("x", "i", "u")
_PLACES = np.array([[[1, 2], [1, 3], [1, 4]], [[2, 2], [2, 3], [2, 4]]])  # a box
_ELEMENTS = {"i": np.array([[0, 2, 4], [3, -1, 1]])}


def _rows(indices: list[list[int]], kind: str = "none") -> OnnxCase:
    shapes: dict[str, Shape] = {"x": (4, 5, 7, 6), "u": (len(indices), *(4, 5, 7, 6)[len(indices[0]) :])}
    return OnnxCase("ScatterND", shapes, {"i": np.array(indices)}, {"reduction": kind}, _ORDER, opset=18)


def _box_case(kind: str) -> OnnxCase:
    shapes: dict[str, Shape] = {"x": (5, 7, 6), "u": (2, 3, 6)}
    return OnnxCase("ScatterND", shapes, {"i": _PLACES}, {"reduction": kind}, _ORDER, opset=18)


def _elements_case(op: str, opset: int, **attrs: Any) -> OnnxCase:
    return OnnxCase(op, {"x": (3, 5), "u": (2, 3)}, _ELEMENTS, {"axis": 1, **attrs}, _ORDER, opset=opset)


ONNX_EXAMPLES.add(
    "ScatterND",
    [
        _rows([[0, 3], [0, -1], [2, 0]]),
        _rows([[3], [1], [3]], "add"),
        *(_box_case(kind) for kind in ("none", "add", "mul", "max", "min")),
    ],
)
ONNX_EXAMPLES.add(
    "ScatterElements",
    [_elements_case("ScatterElements", 18, reduction=kind) for kind in ("none", "add", "max")],
)
ONNX_EXAMPLES.add("Scatter", [_elements_case("Scatter", 9)])
ONNX_EXAMPLES.add("TensorScatter", [])  # newer than the operators of onnxruntime; the onnx package's tests judge it


# -- TFLite import -----------------------------------------------------------------------------------------------------
_LARGEST = 1 << 28  # elements of what is scattered into


def _filled(ctx: ImportContext, shape: Sequence[int], value: Any, like: Tensor) -> Tensor:
    if math.prod(shape) > _LARGEST or min(shape, default=0) < 0:
        raise ctx.refuse(f"a result of shape {tuple(shape)} is too large")
    data = np.full(tuple(shape), value, like.dtype.numpy)
    return Tensor("base", data.shape, like.dtype, data)


@IMPORT_TFLITE.row("SCATTER_ND")
def import_tflite(ctx: ImportContext) -> list[Tensor]:
    """Into zeros; what is for the same place is added up."""
    indices, updates = operand(ctx, 0), operand(ctx, 1)
    zeros = _filled(ctx, integers(ctx, 2, "shape of the result"), 0, updates)
    return ctx.call("ScatterND", zeros, indices, updates, reduction="add")


_SEGMENTS = {
    "SUM": ("add", 0),
    "PROD": ("mul", 1),
    "MAX": ("max", np.finfo(np.float32).min),
    "MIN": ("min", np.finfo(np.float32).max),
}


@IMPORT_TFLITE.row("SEGMENT_SUM", *(f"UNSORTED_SEGMENT_{kind}" for kind in _SEGMENTS))
def import_segments(ctx: ImportContext) -> list[Tensor]:
    """Entries of the first axis go together by number. How many numbers there are is an operand; of sorted ones the
    last one says it."""
    x, numbers = operand(ctx, 0), operand(ctx, 1)
    kind, start = _SEGMENTS[ctx.op.rpartition("_")[2]]
    count = integers(ctx, 1, "numbers")[-1] + 1 if ctx.op == "SEGMENT_SUM" else integer(ctx, 2, "number of segments")
    base = _filled(ctx, (count, *x.shape[1:]), start, x)
    if not x.dtype.is_float or len(numbers.shape) != 1:
        raise ctx.refuse(
            f"segments {numbers.shape} of {x.dtype.name}", "a vector of numbers, for real values, is supported"
        )
    if numbers.data is not None and (numbers.data < 0).any():  # ScatterND counts those from the end
        raise ctx.refuse("a number of it is below 0", "leave the entries out that go to no segment")
    return ctx.call("ScatterND", base, reshaped(ctx, numbers, (*numbers.shape, 1)), x, reduction=kind)


@IMPORT_TFLITE.row("SPARSE_TO_DENSE")
def import_sparse_to_dense(ctx: ImportContext) -> list[Tensor]:
    """Values at places of a tensor of another value."""
    indices, shape, values, default = operand(ctx, 0), integers(ctx, 1, "shape"), operand(ctx, 2), operand(ctx, 3)
    if default.number is None:
        raise ctx.refuse("its default value is computed", "a constant is supported")
    count = indices.shape[0] if indices.shape else 1
    base = _filled(ctx, shape, default.number, values)
    places = reshaped(ctx, indices, (count, indices.elements // max(count, 1)))
    if values.shape != (count,):
        values = ctx.emit("BROADCAST_TO", values, shape=(count,))
    return ctx.call("ScatterND", base, places, values)


@IMPORT_TFLITE.row("DYNAMIC_UPDATE_SLICE")
def import_update_slice(ctx: ImportContext) -> list[Tensor]:
    """A box of the tensor replaced, moved inside where it would stick out."""
    x, update, start = operand(ctx, 0), operand(ctx, 1), integers(ctx, 2, "start")
    if not len(x.shape) == len(update.shape) == len(start) or any(
        u > d for u, d in zip(update.shape, x.shape, strict=True)
    ):
        raise ctx.refuse(f"a box of {update.shape} does not fit {x.shape}", SHAPES)
    begin = [min(max(b, 0), d - u) for b, d, u in zip(start, x.shape, update.shape, strict=True)]
    return [write_places(ctx, x, np.moveaxis(np.indices(update.shape), 0, -1) + np.array(begin), update)]


def _int32(values: Any) -> Array:
    return np.array(values, np.int32)


_ROWS = {"i": _int32([[3], [0], [3]]), "s": _int32([5, 4])}
TFLITE_EXAMPLES.add(
    "SCATTER_ND",
    [
        TfliteCase("SCATTER_ND", {"u": (3, 4)}, _ROWS, {}, "ScatterNdOptions", ("i", "u", "s")),
        TfliteCase(
            "SCATTER_ND",
            {"i": (3, 1), "u": (3, 4)},
            {"s": _ROWS["s"]},
            {},
            "ScatterNdOptions",
            types={"i": "int32"},
            low=0,
            high=4,
        ),
    ],
)
TFLITE_EXAMPLES.add(
    "SEGMENT_SUM",
    [TfliteCase("SEGMENT_SUM", {"x": (4, 5)}, {"i": _int32([0, 0, 1, 2])}, table="SegmentSumOptions")],
)
for _kind in _SEGMENTS:
    TFLITE_EXAMPLES.add(
        f"UNSORTED_SEGMENT_{_kind}",
        [
            TfliteCase(
                f"UNSORTED_SEGMENT_{_kind}",
                {"x": (4, 5)},
                {"i": _int32([2, 0, 2, 1]), "n": np.array(3, np.int32)},
                table=f"UnsortedSegment{_kind.title()}Options",
            )
        ],
    )
TFLITE_EXAMPLES.add(
    "SPARSE_TO_DENSE",
    [
        TfliteCase(
            "SPARSE_TO_DENSE",
            {"v": (3,)},
            {"i": _int32([[0, 1], [2, 3], [3, 0]]), "s": _int32([4, 5]), "d": np.array(-1.5, np.float32)},
            {},
            "SparseToDenseOptions",
            ("i", "s", "v", "d"),
        )
    ],
)
TFLITE_EXAMPLES.add(
    "DYNAMIC_UPDATE_SLICE",
    [
        TfliteCase(
            "DYNAMIC_UPDATE_SLICE",
            {"x": (5, 7, 3), "u": (2, 3, 3)},
            {"s": _int32([1, 9, 0])},
            {},
            "DynamicUpdateSliceOptions",
        )
    ],
)
