"""Primitives that move values: shapes, slices, pads, blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sgs.retrain.kernels.node import Constants, Make, constant, integers, read


def _reshape(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    read(attributes)
    shape = integers(constants, 1)
    if 0 in shape:  # the operand's own extent there
        raise ValueError(f"Reshape to {shape}")
    return lambda x, _: x.reshape(shape)


def _transpose(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    perm = tuple(read(attributes, "perm").perm)
    return lambda x: x.permute(perm)


def _unsqueeze(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    read(attributes)
    (axis,) = integers(constants, 1)
    return lambda x, _: x.unsqueeze(axis)


def _expand(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    read(attributes)
    shape = integers(constants, 1)
    return lambda x, _: x.expand(torch.broadcast_shapes(x.shape, shape))


def _tile(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    read(attributes)
    repeats = integers(constants, 1)
    return lambda x, _: x.repeat(repeats)


def _concat(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    axis = read(attributes, "axis").axis
    return lambda *values: torch.cat(values, axis)


def _split(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., tuple[Tensor, ...]]:
    axis, sizes = read(attributes, axis=0).axis, integers(constants, 1)
    return lambda x, _: tuple(torch.split(x, sizes, axis))


def _pad(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    """A constant around every axis."""
    read(attributes)
    fill, pads = constant(constants, 2).item(), integers(constants, 1)
    rank = len(pads) // 2
    outer = [pad for axis in reversed(range(rank)) for pad in (pads[axis], pads[rank + axis])]
    return lambda x, *_: functional.pad(x, outer, value=fill)


def _slice(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    read(attributes)
    starts, ends = integers(constants, 1), integers(constants, 2)
    axes = integers(constants, 3)
    steps = integers(constants, 4) if len(constants) > 4 else [1] * len(axes)

    def run(x: Tensor, *_: Tensor) -> Tensor:
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            places = range(*slice(start, end, step).indices(x.shape[axis]))
            forward = places if step > 0 else places[::-1]
            x = x[(slice(None),) * axis + (slice(forward.start, forward.stop, forward.step),)]
            x = x if step > 0 else x.flip(axis)
        return x

    return run


def _depth_to_space(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    """[N, B·B·C, H, W] → [N, C, H·B, W·B], the block's rows and columns first among the channels (DCR)."""
    given = read(attributes, "blocksize", "mode")
    if given.mode != "DCR":
        raise ValueError(f"DepthToSpace of mode {given.mode}")
    block = given.blocksize

    def run(x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        parted = x.reshape(batch, block, block, -1, height, width).permute(0, 3, 4, 1, 5, 2)
        return parted.reshape(batch, channels // block**2, height * block, width * block)

    return run


def _space_to_depth(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    """[N, C, H·B, W·B] → [N, B·B·C, H, W]."""
    block = read(attributes, "blocksize").blocksize

    def run(x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        parted = x.reshape(batch, channels, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
        return parted.reshape(batch, channels * block**2, height // block, width // block)

    return run


KERNELS: dict[str, Make] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
