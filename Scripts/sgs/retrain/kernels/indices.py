"""Primitives that read and write at places which are operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from sgs.retrain.kernels.node import Constants, Make, plain, read


def _counted(indices: Tensor, extent: int) -> Tensor:
    """Indices from the front, as int64; negative ones count from behind."""
    indices = indices.long()
    return torch.where(indices < 0, indices + extent, indices)


def _gather(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    axis = read(attributes, axis=0).axis

    def run(x: Tensor, indices: Tensor) -> Tensor:
        places = _counted(indices, x.shape[axis])
        shape = (*x.shape[:axis], *places.shape, *x.shape[axis:][1:])
        return x.index_select(axis, places.reshape(-1)).reshape(shape)

    return run


def _gather_nd(x: Tensor, indices: Tensor) -> Tensor:
    """indices [..., K] name slices of the K leading axes."""
    return x[indices.long().unbind(-1)]


# -- scatter -----------------------------------------------------------------------------------------------------------
# (x, axis, places, updates) → x with the updates at their places
_INTO: dict[str, Callable[[Tensor, int, Tensor, Tensor], Tensor]] = {
    "none": torch.scatter,
    "add": torch.scatter_add,
    "mul": lambda x, *where: torch.scatter_reduce(x, *where, reduce="prod"),
    "max": lambda x, *where: torch.scatter_reduce(x, *where, reduce="amax"),
    "min": lambda x, *where: torch.scatter_reduce(x, *where, reduce="amin"),
}


def _scatter_nd(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    """indices [..., K] name slices of the K leading axes of x, updates [..., slice]."""
    into = _INTO[read(attributes, "reduction").reduction]

    def run(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        depth = indices.shape[-1]
        place = torch.zeros_like(indices[..., 0], dtype=torch.int64)
        for axis, part in enumerate(indices.unbind(-1)):
            place = place * x.shape[axis] + _counted(part, x.shape[axis])
        rows = x.reshape(prod(x.shape[:depth]), -1)
        place = place.reshape(-1, 1).expand(-1, rows.shape[1])
        return into(rows, 0, place, updates.reshape(place.shape)).reshape(x.shape)

    return run


def _scatter_elements(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    axis = read(attributes, "axis").axis
    return lambda x, indices, updates: torch.scatter(x, axis, _counted(indices, x.shape[axis]), updates)


def _reverse_sequence(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    """Every sequence reversed up to its length."""
    given = read(attributes, "batch_axis", "time_axis")

    def run(x: Tensor, lengths: Tensor) -> Tensor:
        times = torch.arange(x.shape[given.time_axis], device=x.device)  # [T]
        lengths = lengths.long().unsqueeze(-1)  # [B, 1]
        places = torch.where(times < lengths, lengths - 1 - times, times)  # [B, T]
        if given.time_axis < given.batch_axis:
            places = places.T
        places = places.reshape(*places.shape, *[1] * (x.dim() - 2)).expand(x.shape)
        return torch.gather(x, given.time_axis, places)

    return run


KERNELS: dict[str, Make] = {
    "Gather": _gather,
    "GatherND": plain(_gather_nd),
    "ReverseSequence": _reverse_sequence,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
}
