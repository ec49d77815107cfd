"""ONNX ScatterND, ScatterElements, Scatter and TensorScatter; see ops/scatter.py.

Constant places are written by slices or GATHER (ops/_places.py), computed ones by SCATTER_ND_UPDATE and its family.
"""

from __future__ import annotations

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
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase, Shape

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
