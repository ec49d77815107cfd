"""Sparse constants of a TFLite file, written out.

The format: the tensor's axes, and inside them those of blocks, are traversed in some order as a tree. An axis is dense,
or in compressed rows: `array_segments` say where the entries of each row begin, `array_indices` which they are.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from sgs.numeric.quantise import Array
from sgs.sim.container import FileTensor, values_of

_DENSE, _SPARSE_CSR = 0, 1
_LARGEST = 1 << 28  # elements


def dense_values(tensor: FileTensor) -> Array:
    """The values of a sparse constant, of its shape. Raises one of `MALFORMED` for one that contradicts itself."""
    facts = tensor.sparsity
    rank, order = len(tensor.shape), _numbers(facts.traversalOrder)
    blocks, levels = _numbers(facts.blockMap), list(facts.dimMetadata or [])
    if sorted(order) != list(range(rank + len(blocks))) or len(levels) != len(order):
        raise ValueError("its sparsity does not fit its shape")
    if prod(tensor.shape) > _LARGEST:
        raise ValueError("it is too large to be written out")
    paths = np.zeros((1, 0), np.int64)  # coordinates so far of every entry, in the order of traversal
    extents: list[int] = []
    for level in levels:
        paths, extent = _below(paths, level, prod(tensor.shape))
        extents.append(extent)
    stored = values_of(replace(tensor, shape=(len(paths),), special=""))
    return _placed(tensor, stored, paths, extents, order, blocks)


def _numbers(vector: Any) -> list[int]:
    return [] if vector is None else [int(number) for number in vector]


def _below(paths: Array, level: Any, most: int) -> tuple[Array, int]:
    """(coordinates with those along one more axis, extent of the axis, for a sparse one as far as is known)."""
    if level.format == _DENSE:
        extent = int(level.denseSize)
        if not 0 < extent * max(len(paths), 1) <= most:
            raise ValueError("its sparsity does not fit its shape")
        steps = np.tile(np.arange(extent), len(paths))
        return np.column_stack([np.repeat(paths, extent, axis=0), steps]), extent
    if level.format != _SPARSE_CSR or level.arraySegments is None or level.arrayIndices is None:
        raise ValueError("its sparsity is of no format that there is")
    segments = np.asarray(level.arraySegments.values, np.int64)
    entries = np.asarray(level.arrayIndices.values, np.int64)
    counts = np.diff(segments)
    if len(counts) != len(paths) or (counts < 0).any() or counts.sum() != len(entries) or (entries < 0).any():
        raise ValueError("its sparsity contradicts itself")
    return np.column_stack([np.repeat(paths, counts, axis=0), entries]), int(entries.max(initial=0)) + 1


def _placed(
    tensor: FileTensor, stored: Array, paths: Array, extents: list[int], order: list[int], blocks: list[int]
) -> Array:
    """The stored values at their coordinates; an axis with blocks has them inside."""
    rank = len(tensor.shape)
    along = np.zeros((rank, len(paths)), np.int64)
    inner = {blocks[axis - rank]: position for position, axis in enumerate(order) if axis >= rank}
    for position, axis in enumerate(order):
        if axis < rank:
            width = extents[inner[axis]] if axis in inner else 1
            along[axis] += paths[:, position] * width
        else:
            along[blocks[axis - rank]] += paths[:, position]
    if any((along[axis] >= extent).any() for axis, extent in enumerate(tensor.shape)):
        raise ValueError("its sparsity leaves its shape")
    found = np.zeros(tensor.shape, stored.dtype)
    found[tuple(along)] = stored
    return found
