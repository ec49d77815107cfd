"""Permutations of axes.

`perm` means what numpy's transpose means by it: y = x.transpose(perm) has y.shape[i] = x.shape[perm[i]].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Perm = tuple[int, ...]
Shape = tuple[int, ...]

NCHW_TO_NHWC: Perm = (0, 2, 3, 1)
NHWC_TO_NCHW: Perm = (0, 3, 1, 2)


def identity(rank: int) -> Perm:
    return tuple(range(rank))


def is_identity(perm: Sequence[int]) -> bool:
    return all(axis == index for index, axis in enumerate(perm))


def compose(first: Sequence[int], second: Sequence[int]) -> Perm:
    """The permutation of transpose(transpose(x, first), second)."""
    return tuple(first[axis] for axis in second)


def inverse(perm: Sequence[int]) -> Perm:
    """The permutation that undoes `perm`."""
    result = [0] * len(perm)
    for index, axis in enumerate(perm):
        result[axis] = index
    return tuple(result)


def permuted(shape: Sequence[int], perm: Sequence[int]) -> Shape:
    """The shape of transpose(x, perm) for an x of `shape`."""
    return tuple(shape[axis] for axis in perm)


def moves_only_units(shape: Sequence[int], perm: Sequence[int]) -> bool:
    """True when transpose(x, perm) of an x of `shape` leaves the values in place: it is a reshape."""
    solid = [axis for axis in perm if shape[axis] != 1]
    return all(a < b for a, b in zip(solid, solid[1:], strict=False))


# -- reshapes --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Run:
    """Neighbouring axes of a reshape's operand and of its result that hold the same values: the axes of extent > 1."""

    source: tuple[int, ...]
    target: tuple[int, ...]


def runs(source: Sequence[int], target: Sequence[int]) -> list[Run]:
    """Split a reshape into its finest runs with equal products. Axes of extent 1 belong to no run.

    Raises ValueError for shapes with different numbers of elements or without any.
    """
    left = [axis for axis, extent in enumerate(source) if extent != 1]
    right = [axis for axis, extent in enumerate(target) if extent != 1]
    if 0 in source or 0 in target:
        raise ValueError(f"an empty reshape, {tuple(source)} to {tuple(target)}, has no runs")
    result: list[Run] = []
    i = j = 0
    while i < len(left) and j < len(right):
        first_i, first_j, a, b = i, j, source[left[i]], target[right[j]]
        i, j = i + 1, j + 1
        while a != b:
            if (a < b and i == len(left)) or (b < a and j == len(right)):
                raise ValueError(f"cannot reshape {tuple(source)} to {tuple(target)}")
            if a < b:
                a, i = a * source[left[i]], i + 1
            else:
                b, j = b * target[right[j]], j + 1
        result.append(Run(tuple(left[first_i:i]), tuple(right[first_j:j])))
    if i < len(left) or j < len(right):
        raise ValueError(f"cannot reshape {tuple(source)} to {tuple(target)}")
    return result


def _places(shape: Sequence[int], perm: Sequence[int]) -> list[int]:
    """For each axis of transpose(x, perm), given its shape: its place among the axes of x of extent > 1 (units: -1)."""
    solid = sorted(perm[axis] for axis, extent in enumerate(shape) if extent != 1)
    rank = {axis: place for place, axis in enumerate(solid)}
    return [rank.get(axis, -1) for axis in perm]


def reshape_first(source: Sequence[int], perm: Sequence[int], target: Sequence[int]) -> tuple[Shape, Perm] | None:
    """Move a Transpose behind a Reshape: reshape(transpose(x, perm), target) == transpose(reshape(x, shape), perm').

    `source` is the shape of transpose(x, perm). Returns (shape, perm'), or None unless every run of axes that is split
    or merged stands together and in order in x. Leading units of the target stay in front, every other unit follows the
    axis before it.
    """
    if 0 in source:
        return None
    place = _places(source, perm)
    found = runs(source, target)
    for run in found:
        if any(place[b] - place[a] != 1 for a, b in zip(run.source, run.source[1:], strict=False)):
            return None
    order = [axis for run in sorted(found, key=lambda run: place[run.source[0]]) for axis in run.target]
    for axis, extent in enumerate(target):
        if extent == 1:
            order.insert(order.index(axis - 1) + 1 if axis else 0, axis)
    return permuted(target, order), inverse(order)


def gather_runs(source: Sequence[int], perm: Sequence[int], target: Sequence[int]) -> Perm:
    """The permutation q of x after which `reshape_first` applies to reshape(transpose(x, perm), target).

    Axes of a run are brought together, in order, at the place of the run's last axis in x; all others keep their order.
    With x' = transpose(x, q), transpose(x, perm) is transpose(x', compose(inverse(q), perm)).
    """
    order = list(range(len(perm)))
    for run in runs(source, target):
        axes = [perm[axis] for axis in run.source]
        anchor = max(axes, key=order.index)
        keep = [axis for axis in order if axis not in axes or axis == anchor]
        at = keep.index(anchor)
        order = [*keep[:at], *axes, *keep[at + 1 :]]
    return tuple(order)
