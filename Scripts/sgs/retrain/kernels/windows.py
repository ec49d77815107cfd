"""Primitives that move a window over pictures, channels first: convolutions, pools, resampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sgs.numeric.quantise import Array
from sgs.retrain.kernels.node import Constants, Make, constant, integers, read

_WINDOW = ("kernel_shape", "strides", "pads")
_MAX_POOL: dict[int, Callable[..., Any]] = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}


def _halves(pads: Sequence[int]) -> tuple[list[int], list[int]]:
    """ONNX's pads: all at the front, then all at the back."""
    return list(pads[: len(pads) // 2]), list(pads[len(pads) // 2 :])


def _padded(x: Tensor, front: Sequence[int], back: Sequence[int], fill: float = 0.0) -> Tensor:
    """x with the last axes padded; less than 0 cuts off."""
    pads = [pad for pair in zip(reversed(front), reversed(back), strict=True) for pad in pair]
    return functional.pad(x, pads, value=fill) if any(pads) else x


# -- convolutions ------------------------------------------------------------------------------------------------------
def _conv(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    given = read(attributes, *_WINDOW, "dilations", group=1)
    front, back = _halves(given.pads)
    none = [0] * len(front)
    inner = front if front == back else none  # what the convolution itself pads

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        x = x if front == back else _padded(x, front, back)
        return torch.convolution(x, weight, bias, given.strides, inner, given.dilations, False, none, given.group)

    return run


def _conv_transpose(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    given = read(attributes, *_WINDOW, "output_padding")
    front, back = _halves(given.pads)
    more = [extra - pad for extra, pad in zip(given.output_padding, back, strict=True)]
    less, ones = [-pad for pad in front], [1] * len(front)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        none = [0] * len(front)
        whole = torch.convolution(x, weight, None, given.strides, none, ones, True, none, 1)
        y = _padded(whole, less, more)
        return y if bias is None else y + bias.reshape(-1, *ones)

    return run


def _deform_conv(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    """x [N, C, H, W], offset [N, G·KH·KW·2, OH, OW], mask [N, G·KH·KW, OH, OW], with G groups of offsets."""
    given = read(attributes, *_WINDOW, "dilations", "group", "offset_group")
    (top, left), _ = _halves(given.pads)
    groups, taps = given.offset_group, prod(given.kernel_shape)

    def samples(x: Tensor, offset: Tensor) -> Tensor:
        """x under every tap: [N, C, KH·KW, OH, OW]; 0 outside of it."""
        (batch, channels, *extents), size = x.shape, offset.shape[2:]
        rows, columns = (
            (torch.arange(kernel) * dilation - pad).reshape(-1, 1) + torch.arange(count) * stride
            for kernel, dilation, pad, count, stride in zip(
                given.kernel_shape, given.dilations, (top, left), size, given.strides, strict=True
            )
        )  # [KH, OH], [KW, OW]
        still = torch.stack(torch.broadcast_tensors(rows[:, None, :, None], columns[None, :, None, :]))
        still = still.reshape(2, taps, *size).transpose(0, 1).to(x)  # [KH·KW, 2, OH, OW]
        moved = still + offset.reshape(batch * groups, taps, 2, *size)
        whole = torch.tensor(extents).to(x).reshape(2, 1, 1)
        grid = ((2 * moved + 1) / whole - 1).flip(2).permute(0, 1, 3, 4, 2)  # x before y, -1 to 1 between the edges
        return functional.grid_sample(
            x.reshape(batch * groups, channels // groups, *extents),
            grid.reshape(batch * groups, taps * size[0], size[1], 2),
            align_corners=False,
        ).reshape(batch, channels, taps, *size)

    def run(
        x: Tensor, weight: Tensor, offset: Tensor, bias: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        found, (batch, channels), size = samples(x, offset), x.shape[:2], offset.shape[2:]
        if mask is not None:
            parted = found.reshape(batch, groups, channels // groups, taps, *size)
            found = (parted * mask.reshape(batch, groups, 1, taps, *size)).reshape(found.shape)
        rows = found.reshape(batch, channels * taps, *size)
        return functional.conv2d(rows, weight.reshape(weight.shape[0], -1, 1, 1), bias, groups=given.group)

    return run


# -- pools -------------------------------------------------------------------------------------------------------------
def _max_pool(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Any]:
    """Where `storage_order` says how places are counted, they are a second result: over the whole operand, row by row
    or (1) column by column in each of its planes."""
    given = read(attributes, *_WINDOW, dilations=None, storage_order=None)
    front, back = _halves(given.pads)
    pool = _MAX_POOL[len(front)]
    dilations = given.dilations or [1] * len(front)

    def run(x: Tensor) -> Any:
        wide = _padded(x, front, back, -torch.inf)
        flags = {"dilation": dilations, "return_indices": given.storage_order is not None}
        found = pool(wide, given.kernel_shape, given.strides, **flags)
        if given.storage_order is None:
            return found
        values, places = found
        return values, _places(places, x.shape, wide.shape, front, columns=bool(given.storage_order))

    return run


def _places(
    places: Tensor, shape: Sequence[int], padded: Sequence[int], front: Sequence[int], *, columns: bool
) -> Tensor:
    """Places in the planes of a padded tensor as places in the whole of the tensor itself."""
    parts = []
    for axis in reversed(range(len(front))):
        parts.append(places % padded[axis + 2] - front[axis])
        places = torch.div(places, padded[axis + 2], rounding_mode="floor")
    coordinates = parts[::-1]
    total, step = torch.zeros_like(places), 1
    for axis in range(len(front)) if columns else reversed(range(len(front))):
        total, step = total + coordinates[axis] * step, step * shape[axis + 2]
    planes = torch.arange(shape[0] * shape[1], device=places.device) * step
    return total + planes.reshape(shape[0], shape[1], *[1] * len(front))


def _average_pool(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    """The padding does not count."""
    given = read(attributes, *_WINDOW)
    front, back = _halves(given.pads)

    def counts(axis: int, extent: int) -> Array:
        """How many elements of an axis lie in each window."""
        kernel, stride, wide = given.kernel_shape[axis], given.strides[axis], extent + front[axis] + back[axis]
        starts = np.arange(0, wide - kernel + 1, stride) - front[axis]
        return np.asarray(np.minimum(starts + kernel, extent) - np.maximum(starts, 0))

    def run(x: Tensor) -> Tensor:
        sums = functional.avg_pool2d(_padded(x, front, back), given.kernel_shape, given.strides, divisor_override=1)
        return sums / torch.from_numpy(np.outer(counts(0, x.shape[2]), counts(1, x.shape[3]))).to(x)

    return run


def _lrn(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    """x / (bias + alpha/size · Σ x²)^beta, over `size` neighbouring channels, an odd number."""
    given = read(attributes, "size", "alpha", "beta", "bias")
    reach, rest = divmod(given.size - 1, 2)
    if rest:
        raise ValueError(f"LRN over {given.size} channels")

    def run(x: Tensor) -> Tensor:
        squares = (x * x).flatten(2).unsqueeze(1)  # [N, 1, C, H·W]
        means = functional.avg_pool2d(squares, (given.size, 1), 1, (reach, 0))
        return x / (given.bias + given.alpha * means.reshape(x.shape)) ** given.beta

    return run


# -- resampling --------------------------------------------------------------------------------------------------------
def _coordinates(mode: str, extent: int, result: int) -> Array:
    """Where the results of an axis lie in the operand."""
    places = np.arange(result, dtype=np.float64)
    if mode == "align_corners":
        return places * (extent - 1) / max(result - 1, 1)
    if mode == "half_pixel":
        places = (places + 0.5) * extent / result - 0.5
    elif mode == "asymmetric":
        places = places * extent / result
    else:
        raise ValueError(f"Resize with coordinates {mode}")
    return np.clip(places, 0, extent - 1)


def _resize(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    given = read(attributes, "mode", "coordinate_transformation_mode", nearest_mode="floor")
    how = given.coordinate_transformation_mode
    if given.mode == "linear":
        return _interpolation(how, integers(constants, 3))
    scales = constant(constants, 2)
    if (given.mode, how, given.nearest_mode) != ("nearest", "asymmetric", "floor") or (scales % 1).any():
        raise ValueError(f"Resize with {dict(attributes)} by {scales}")
    return _repetition([int(scale) for scale in scales])


def _interpolation(how: str, sizes: Sequence[int]) -> Callable[..., Tensor]:
    """Between two neighbours of each axis, one axis after the other."""

    def run(x: Tensor, *_: Tensor | None) -> Tensor:
        for axis, size in enumerate(sizes):
            extent = x.shape[axis]
            if size == extent:
                continue
            places = _coordinates(how, extent, size)
            below = np.floor(places).astype(np.int64)
            above = np.minimum(below + 1, extent - 1)
            parts = torch.from_numpy(places - below).to(x).reshape(-1, *[1] * (len(sizes) - 1 - axis))
            low, high = (x.index_select(axis, torch.from_numpy(i).to(x.device)) for i in (below, above))
            x = low + (high - low) * parts
        return x

    return run


def _repetition(factors: Sequence[int]) -> Callable[..., Tensor]:
    """Every element so many times along each axis."""

    def run(x: Tensor, *_: Tensor | None) -> Tensor:
        pairs = list(zip(x.shape, factors, strict=True))
        apart = x.reshape([part for extent in x.shape for part in (extent, 1)])
        wide = apart.expand([part for pair in pairs for part in pair])
        return wide.reshape([extent * factor for extent, factor in pairs])

    return run


def _grid_sample(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    given = read(attributes, "mode", "padding_mode", "align_corners")
    mode = {"linear": "bilinear", "cubic": "bicubic", "nearest": "nearest"}[given.mode]
    return lambda x, grid: functional.grid_sample(x, grid, mode, given.padding_mode, bool(given.align_corners))


KERNELS: dict[str, Make] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DeformConv": _deform_conv,
    "GridSample": _grid_sample,
    "LRN": _lrn,
    "MaxPool": _max_pool,
    "Resize": _resize,
}
