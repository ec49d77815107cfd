"""GRID_SAMPLE: values of pictures or volumes at places given as numbers from -1 to 1 along every axis.

x [N, *S, C], grid [N, *O, A] of A = 2 or 3 axes, the last axis of S first → [N, *O, C]. Attrs: mode "linear", "nearest"
or "cubic"; padding "zeros", "border" or "reflection"; align_corners.

A constant grid says which entries are read with what weight: the import gathers them, weighs them and adds them up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._float_only import add_float_only
from sgs.ops._resize_taps import cubic, triangle
from sgs.ops._spatial import from_volume, to_volume
from sgs.ops._weighed import weighed_sum
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, Lowering, OnnxCase, Shape

OP = "GRID_SAMPLE"
_MODES = {"bilinear": "linear", "bicubic": "cubic"}  # before operator set 20


def _infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    x, grid = operands[0], operands[1]
    assert x is not None and grid is not None
    axes = len(x.shape) - 2
    fit = axes in (2, 3) and len(grid.shape) == axes + 2 and grid.shape[-1] == axes and grid.shape[0] == x.shape[0]
    if not fit or (node.attrs["mode"] == "cubic" and axes == 3):
        raise ValueError(f"a grid of shape {grid.shape} on a tensor of shape {x.shape}, mode {node.attrs['mode']}")
    return [((*grid.shape[:-1], x.shape[-1]), x.dtype)]


def _lower(low: Lowering, node: Node) -> None:
    x, grid = node.inputs[0] or "", node.inputs[1] or ""
    flat = len(low.graph[x].shape) == 4
    value = low.real(x, "first") if flat else low.op("Transpose", [low.real(x)], perm=[0, 4, 1, 2, 3])
    how = {"mode": node.attrs["mode"], "padding_mode": node.attrs["padding"]}
    value = low.op("GridSample", [value, low.real(grid)], **how, align_corners=int(node.attrs["align_corners"]))
    if not flat:
        value = low.op("Transpose", [value], perm=[0, 2, 3, 4, 1])
    low.put_real(node.outputs[0], value, "first" if flat else "native")


def _example(x: Shape, grid: Shape, **attrs: Any) -> Graph:
    build = GraphBuilder()
    how = {"mode": "linear", "padding": "zeros", "align_corners": False, **attrs}
    return build.output(build(OP, build.input("x", x), build.input("grid", grid), output="y", **how))


add_float_only(
    OP,
    "values at places that are computed",
    "reads its operand at places that the network computes, which codes do not keep",
    _infer,
    _lower,
    lambda: [
        _example((2, 5, 7, 3), (2, 4, 6, 2)),
        _example((1, 5, 7, 3), (1, 4, 6, 2), mode="cubic", padding="border", align_corners=True),
        _example((1, 4, 5, 7, 3), (1, 2, 3, 6, 3), mode="nearest", padding="reflection"),
    ],
)


# -- ONNX import -------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("GridSample")
def import_grid_sample(ctx: ImportContext) -> list[Tensor]:
    x, grid = ctx.inputs[0], ctx.inputs[1]
    assert x is not None and grid is not None
    if len(x.shape) not in (4, 5):
        raise ctx.refuse(f"a grid on a tensor of rank {len(x.shape)}", "pictures and volumes are supported")
    mode = str(ctx.attrs.get("mode", "linear"))
    mode, padding = _MODES.get(mode, mode), str(ctx.attrs.get("padding_mode", "zeros"))
    align = bool(ctx.attrs.get("align_corners", 0))
    last = ctx.nhwc(x) if len(x.shape) == 4 else to_volume(ctx, x)
    if grid.data is not None:
        y = _gathered(ctx, last, grid.data.astype(np.float32), mode, padding, align)
    else:
        y = ctx.emit(OP, last, grid, mode=mode, padding=padding, align_corners=align)
    return [ctx.nchw(y) if len(x.shape) == 4 else from_volume(ctx, y)]


def _gathered(ctx: ImportContext, x: Tensor, grid: Array, mode: str, padding: str, align: bool) -> Tensor:
    """x [N, *S, C] at a constant grid [N, *O, A]: the taps of all axes multiply."""
    samples, *sizes, channels = x.shape
    if len(grid) != samples:
        raise ctx.refuse(f"a grid of shape {grid.shape} on a tensor of shape {x.shape}")
    axes = [
        _axis_taps(grid[..., -1 - i].reshape(samples, -1), size, mode, padding, align) for i, size in enumerate(sizes)
    ]
    taps, weights = [], []
    for chosen in product(*(range(axis[0].shape[-1]) for axis in axes)):
        parts = [(axis[0][..., k], axis[1][..., k]) for axis, k in zip(axes, chosen, strict=True)]
        taps.append(np.ravel_multi_index([part[0] for part in parts], sizes))
        weights.append(np.prod([part[1] for part in parts], axis=0))
    offsets = np.arange(samples)[:, None, None] * int(np.prod(sizes))
    flat = ctx.emit("RESHAPE", x, shape=(samples * int(np.prod(sizes)), channels))
    positions = (np.stack(taps, -1) + offsets).reshape(-1, len(taps))
    y = weighed_sum(ctx, flat, 0, positions, np.stack(weights, -1).reshape(-1, len(taps)))
    return ctx.emit("RESHAPE", y, shape=(*grid.shape[:-1], channels))


_WEIGH: dict[str, tuple[int, Callable[[Array], Array]]] = {"linear": (1, triangle), "cubic": (2, cubic(-0.75))}


def _axis_taps(places: Array, size: int, mode: str, padding: str, align: bool) -> tuple[Array, Array]:
    """(entries of an axis, their weights), both [*places.shape, T], for places from -1 to 1 in binary32."""
    one = np.float32(1)
    at = (places + one) / 2 * np.float32(size - 1) if align else ((places + one) * np.float32(size) - one) / 2
    at = np.rint(at) if mode == "nearest" else at
    low, high = (0.0, size - 1.0) if align else (-0.5, size - 0.5)
    beyond = (at < low) | (at > high)
    if padding == "border" and mode != "cubic":  # whose taps alone are moved, as PyTorch and onnxruntime do
        at = np.where(beyond, np.clip(at, 0, size - 1), at)
    elif padding == "reflection":
        at = _reflected(at, low, high)
    if mode == "nearest":
        taps, weights = np.floor(at)[..., None], np.ones((*at.shape, 1))
    else:
        reach, weigh = _WEIGH[mode]
        taps = np.floor(at)[..., None] + np.arange(1 - reach, reach + 1)
        weights = weigh(np.abs(taps - at[..., None]))
    if padding == "zeros":
        weights = np.where((taps < 0) | (taps >= size), 0, weights)
    if padding == "reflection":
        taps = np.trunc(_reflected(taps, low, high))
    return np.clip(taps, 0, size - 1).astype(np.int64), weights


def _reflected(at: Array, low: float, high: float) -> Array:
    """Places beyond [low, high] mirrored at its ends, as often as it takes."""
    span = high - low
    if span == 0:
        return np.full_like(at, low)
    turn = np.mod(at - low, 2 * span)
    mirrored = low + np.where(turn > span, 2 * span - turn, turn)
    return np.where((at < low) | (at > high), mirrored, at)


def _cases() -> list[OnnxCase]:
    rng = np.random.default_rng(5)
    flat = {"g": rng.uniform(-1.4, 1.4, (2, 4, 6, 2)).astype(np.float32)}
    deep = {"g": rng.uniform(-1.4, 1.4, (1, 2, 4, 3, 3)).astype(np.float32)}
    cases = []
    for mode in ("linear", "nearest", "cubic"):
        for padding in ("zeros", "border", "reflection"):
            for align in (0, 1):
                attrs = {"mode": mode, "padding_mode": padding, "align_corners": align}
                cases.append(OnnxCase("GridSample", {"x": (2, 3, 5, 7)}, flat, attrs, opset=20))
                if mode != "cubic":
                    cases.append(OnnxCase("GridSample", {"x": (1, 3, 4, 5, 7)}, deep, attrs, opset=20))
    old = {"mode": "bilinear"}
    return [*cases, OnnxCase("GridSample", {"x": (1, 3, 5, 7), "g": (1, 4, 6, 2)}, attrs=old, low=-1.4, high=1.4)]


ONNX_EXAMPLES.add("GridSample", _cases())
