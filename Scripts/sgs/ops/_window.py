"""Sliding windows, shared by convolutions and pools: attributes, output extents, patches.

Window attrs: strides (h, w), dilations (h, w), pads (top, left, bottom, right).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgs.ir.graph import Node
from sgs.numeric.quantise import Array
from sgs.registry import Box, ImportContext


def window_node(
    *,
    strides: tuple[int, int] = (1, 1),
    dilations: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    activation: str = "NONE",
    **others: Any,
) -> dict[str, Any]:
    """Window attrs with their defaults."""
    return {"strides": strides, "dilations": dilations, "pads": pads, "activation": activation, **others}


def extent(size: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> int:
    """Output extent of one axis, rounding down."""
    return (size + before + after - (kernel - 1) * dilation - 1) // stride + 1


def conv_output(node: Node, shape: Sequence[int], kernel: Sequence[int]) -> tuple[int, int]:
    """(OH, OW) of a window over an NHWC shape. Raises ValueError when nothing fits."""
    top, left, bottom, right = node.attrs["pads"]
    (sh, sw), (dh, dw) = node.attrs["strides"], node.attrs.get("dilations", (1, 1))
    height = extent(shape[1], kernel[0], sh, dh, top, bottom)
    width = extent(shape[2], kernel[1], sw, dw, left, right)
    if height <= 0 or width <= 0:
        raise ValueError(
            f"a window of {tuple(kernel)} does not fit an input of {tuple(shape[1:3])} with pads {node.attrs['pads']}"
        )
    return height, width


@dataclass(frozen=True)
class OnnxWindow:
    """Strides and dilations of every spatial axis; pads before each of them, then behind each."""

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    def picture(self) -> dict[str, Any]:
        """Window attrs over the last two axes; of a single axis, those of a picture of height 1."""
        rank = len(self.strides)
        first, last = ((0, *pads)[-2:] for pads in (self.pads[:rank], self.pads[rank:]))
        strides, dilations = ((1, *values)[-2:] for values in (self.strides, self.dilations))
        return {"strides": strides, "dilations": dilations, "pads": (*first, *last)}


def same_total(size: int, kernel: int, stride: int, dilation: int) -> int:
    """What SAME adds to an axis so that a window stands at every stride-th entry: what the windows span beyond the
    axis, negative where they leave some of it out."""
    windows = -(-size // stride)
    return (windows - 1) * stride + (kernel - 1) * dilation + 1 - size


def parted(total: int, mode: str = "SAME_UPPER") -> tuple[int, int]:
    """(before, behind) that ONNX's auto_pad parts a number in: halves, the odd one behind for SAME_UPPER (which is
    TFLite's SAME), else in front."""
    small, large = total // 2, total - total // 2
    return (small, large) if mode == "SAME_UPPER" else (large, small)


def onnx_window(ctx: ImportContext, kernel: Sequence[int], size: Sequence[int]) -> OnnxWindow:
    """The window of an ONNX Conv over spatial extents `size`, auto_pad resolved. Refuses negative pads."""
    rank = len(kernel)
    strides = tuple(ctx.attrs.get("strides") or (1,) * rank)
    dilations = tuple(ctx.attrs.get("dilations") or (1,) * rank)
    pads = tuple(ctx.attrs.get("pads") or (0,) * (2 * rank))
    mode = ctx.attrs.get("auto_pad", "NOTSET") or "NOTSET"
    if mode.startswith("SAME"):
        totals = [same_total(size[i], kernel[i], strides[i], dilations[i]) for i in range(rank)]
        sides = [parted(max(total, 0), mode) for total in totals]
        pads = tuple(side[i] for i in range(2) for side in sides)
    elif mode == "VALID":
        pads = (0,) * (2 * rank)
    if min(pads) < 0:
        raise ctx.refuse(f"negative pads {pads}", "cut the operand with Slice in front")
    return OnnxWindow(strides, dilations, pads)


def same_pads(
    shape: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) that TFLite's SAME means for an NHWC shape."""
    totals = [same_total(shape[i + 1], kernel[i], strides[i], dilations[i]) for i in range(2)]
    (top, bottom), (left, right) = (parted(max(total, 0)) for total in totals)
    return top, left, bottom, right


def cut_axes(node: Node, shape: Sequence[int], kernel: Sequence[int]) -> dict[int, int]:
    """Axes of an NHWC result that a window slides along and that may be cut: where every window meets the operand."""
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, node.attrs.get("dilations", (1, 1)), strict=True)]
    pads = node.attrs["pads"]
    axes = {0: 1} if shape[0] > 1 else {}
    return axes | {a + 1: 1 for a in range(2) if max(pads[a], pads[a + 2]) < spans[a]}


def window_part(node: Node, shape: Sequence[int], kernel: Sequence[int], box: Box) -> tuple[Box, dict[str, Any]]:
    """(rows and columns of an NHWC operand that a box of the result reads, attrs of the window over them alone)."""
    read, pads = [], [0, 0, 0, 0]
    for axis in range(2):
        begin, end = box[axis + 1]
        stride, dilation = node.attrs["strides"][axis], node.attrs.get("dilations", (1, 1))[axis]
        low = begin * stride - node.attrs["pads"][axis]
        high = (end - 1) * stride - node.attrs["pads"][axis] + (kernel[axis] - 1) * dilation + 1
        first, last = max(low, 0), min(high, shape[axis + 1])
        if begin == 0 and high + stride > shape[axis + 1] + node.attrs["pads"][axis + 2]:
            last = shape[axis + 1]  # all windows: what none of them reads comes along, so that rows are whole
            high = last + node.attrs["pads"][axis + 2]
        read.append((first, last))
        pads[axis], pads[axis + 2] = first - low, high - last
    return (box[0], *read, (0, shape[3])), {**node.attrs, "pads": tuple(pads)}


def patches(x: Array, node: Node, kernel: Sequence[int], fill: int) -> Array:
    """All windows of an NHWC array as [N,OH,OW,KH,KW,C], a view of the padded copy; `fill` is the value of padding."""
    top, left, bottom, right = node.attrs["pads"]
    (sh, sw), (dh, dw) = node.attrs["strides"], node.attrs.get("dilations", (1, 1))
    height, width = conv_output(node, x.shape, kernel)
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    n, h, w, c = padded.strides
    shape = (x.shape[0], height, width, kernel[0], kernel[1], x.shape[3])
    return np.lib.stride_tricks.as_strided(padded, shape, (n, h * sh, w * sw, h * dh, w * dw, c), writeable=False)


def window_rows(x: Array, node: Node, kernel: Sequence[int], chosen: Array) -> Array:
    """The windows of an NHWC array at flat positions n·OH·OW + i·OW + j: [len(chosen), KH, KW, C], padding 0."""
    windows = patches(x, node, kernel, 0)
    samples, height, width = windows.shape[:3]
    return windows[np.unravel_index(chosen, (samples, height, width))]


def mean_window(x: Array, node: Node, kernel: Sequence[int]) -> Array:
    """The mean of all windows of an NHWC array, float64 [KH, KW, C], padding 0. Columns are added up first, so that an
    element is looked at KW times, not KH · KW times."""
    top, left, bottom, right = node.attrs["pads"]
    (sh, sw), (dh, dw) = node.attrs["strides"], node.attrs.get("dilations", (1, 1))
    height, width = conv_output(node, x.shape, kernel)
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    total = np.empty((*kernel, x.shape[3]))
    for j in range(kernel[1]):
        columns = padded[:, :, j * dw :: sw][:, :, :width].sum((0, 2), dtype=np.float64)  # [H, C]
        for i in range(kernel[0]):
            total[i, j] = columns[i * dh :: sh][:height].sum(0)
    return np.asarray(total / (x.shape[0] * height * width))
