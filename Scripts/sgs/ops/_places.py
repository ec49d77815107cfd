"""Reading and writing places of a tensor at import, the same for all operators that gather and scatter.

A place is a row of coordinates along the first K axes of x [lead.., inner..]; what is there has the shape `inner`.
Constant places become slices where they fill a box in row-major order, else one GATHER of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._import import reshaped
from sgs.registry import Box, ImportContext, whole_box


def from_start(ctx: ImportContext, indices: Array, extents: Sequence[int] | int) -> Array:
    """Constant indices below the extents, int64, where negative ones counted from the end."""
    given = indices.astype(np.int64)
    found = np.where(given < 0, given + np.asarray(extents), given)
    if (found < 0).any() or (found >= np.asarray(extents)).any():
        raise ctx.refuse(f"indices from {given.min()} to {given.max()} leave extents {extents}")
    return np.asarray(found)


def places_along(axis: int, indices: Array) -> Array:
    """Places [.., rank] that differ from those of the elements of `indices` in the coordinate along `axis`."""
    coordinates: list[Array] = list(np.indices(indices.shape))
    coordinates[axis] = indices
    return np.stack(coordinates, -1).astype(np.int64)


def computed_places_along(ctx: ImportContext, axis: int, indices: Tensor) -> Tensor:
    """`places_along` for indices that the network computes: INT32 [.., rank]."""
    grid = np.stack(list(np.indices(indices.shape)), -1).astype(np.int32)
    column = ctx.emit("RESHAPE", indices, shape=(*indices.shape, 1))
    parts: list[Tensor | Array] = [grid[..., :axis], column, grid[..., axis + 1 :]]
    return _joined(ctx, parts, len(indices.shape))


def with_batches(ctx: ImportContext, indices: Tensor, count: int) -> Tensor:
    """Computed indices [B.., .., K] with the coordinates along their first `count` axes in front of the K."""
    grid = np.stack(list(np.indices(indices.shape[:-1]))[:count], -1).astype(np.int32)
    return _joined(ctx, [grid, indices], len(indices.shape) - 1)


def _joined(ctx: ImportContext, parts: Sequence[Tensor | Array], axis: int) -> Tensor:
    parts = [part for part in parts if part.shape[axis]]
    only = parts[0]
    return only if len(parts) == 1 and isinstance(only, Tensor) else ctx.emit("CONCATENATION", *parts, axis=axis)


def check_computed(ctx: ImportContext, indices: Tensor) -> None:
    """Refuses computed indices of another type than INT32."""
    if indices.dtype is not DType.INT32:
        raise ctx.refuse(f"computed indices of type {indices.dtype.name}", "indices are 32- or 64-bit integers")


# -- constant places ---------------------------------------------------------------------------------------------------
def _box(places: Array) -> Box | None:
    """The box that places [n, K] fill in row-major order, else None."""
    begin, end = places[0], places[-1] + 1
    if (end <= begin).any() or prod(int(d) for d in end - begin) != len(places):
        return None
    filled = np.indices(tuple(int(d) for d in end - begin)).reshape(len(begin), -1).T + begin
    if not np.array_equal(filled, places):
        return None
    return tuple((int(first), int(last)) for first, last in zip(begin, end, strict=True))


def _cut(ctx: ImportContext, x: Tensor, box: Box) -> Tensor:
    """A box of the tensor."""
    if box == whole_box(x.shape):
        return x
    begin, end = (tuple(column) for column in zip(*box, strict=True))
    return ctx.emit("STRIDED_SLICE", x, begin=begin, end=end, strides=(1,) * len(box))


def read_places(ctx: ImportContext, x: Tensor, places: Array) -> Tensor:
    """What is at places [.., K], which lie inside: [.., inner..]."""
    count = places.shape[-1]
    flat, shape = places.reshape(-1, count), (*places.shape[:-1], *x.shape[count:])
    box = _box(flat)
    if box is not None:
        return reshaped(ctx, _cut(ctx, x, (*box, *whole_box(x.shape[count:]))), shape)
    rows = reshaped(ctx, x, (prod(x.shape[:count]), *x.shape[count:]))
    numbers = np.ravel_multi_index(tuple(flat.T), x.shape[:count]).astype(np.int32)
    return reshaped(ctx, ctx.emit("GATHER", rows, numbers, axis=0), shape)


def write_places(ctx: ImportContext, x: Tensor, places: Array, updates: Tensor) -> Tensor:
    """x with the updates [.., inner..] at places [.., K], which lie inside; of equal places the last one counts."""
    count = places.shape[-1]
    flat, inner = places.reshape(-1, count), x.shape[count:]
    box = _box(flat)
    if box is not None:
        return _write_box(ctx, x, box, reshaped(ctx, updates, (*(end - begin for begin, end in box), *inner)))
    total = prod(x.shape[:count])
    rows = [reshaped(ctx, x, (total, *inner)), reshaped(ctx, updates, (len(flat), *inner))]
    source = np.arange(total, dtype=np.int32)
    source[np.ravel_multi_index(tuple(flat.T), x.shape[:count])] = total + np.arange(len(flat))
    return reshaped(ctx, ctx.emit("GATHER", ctx.emit("CONCATENATION", *rows, axis=0), source, axis=0), x.shape)


def _write_box(ctx: ImportContext, x: Tensor, box: Box, value: Tensor) -> Tensor:
    """From the inside out: what is around the box along one axis after another."""
    whole = whole_box(x.shape)
    for axis in reversed(range(len(box))):
        begin, end = box[axis]
        behind, parts = whole[axis + 1 :], [value]
        if begin:
            parts.insert(0, _cut(ctx, x, (*box[:axis], (0, begin), *behind)))
        if end < x.shape[axis]:
            parts.append(_cut(ctx, x, (*box[:axis], (end, x.shape[axis]), *behind)))
        value = ctx.emit("CONCATENATION", *parts, axis=axis) if len(parts) > 1 else value
    return value
