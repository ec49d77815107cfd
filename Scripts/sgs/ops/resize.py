"""RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR over height and width: x [N,H,W,C] → [N,OH,OW,C].

Attrs: size (h, w), align_corners, half_pixel_centers (not both). Result position o of an axis reads input coordinate
o·(in-1)/(out-1) with align_corners (when out > 1), (o+½)·in/out - ½ with half_pixel_centers, else o·in/out.

A part of a resize cannot tell in and out from its shapes. It has attr `window`, for rows and for columns (first result
position, first input position, in, out) of the whole; no whole node and no file has it.

Nearest moves codes. Bilinear, fixed: an axis gives the tap above weight w and the tap below 2^k - w, where w is
rint(fraction · 2^k); k is the least of 0..4 for which no weight is rounded, else 14 (a weight then still fits INT16).
acc is the exact sum of the four taps times both weights; M = s_x / (s_y · 2^(k_h + k_w)) by eq. 7 where |acc| stays
below 2^24, else eq. 8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._layout import fixed
from sgs.ops._mac import EXACT_BINARY32
from sgs.ops._move import add_move, all_rank_4, axis_in, free_axes
from sgs.ops._sum import centred_codes, reach, requantised
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FIXED,
    FLOAT,
    INFER,
    LAYOUT,
    OPERATOR,
    QUANTISE,
    REFERENCE,
    SIM,
    TILE,
    Box,
    Cost,
    Layout,
    Lowering,
    OperatorInfo,
    Part,
    QuantRule,
    SimRow,
    TileRow,
    whole_box,
)

NEAREST, BILINEAR = "RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"
DYADIC_BITS, WEIGHT_BITS = 4, 14


@INFER.row(NEAREST, BILINEAR)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    x, (height, width) = operands[0], node.attrs["size"]
    assert x is not None
    if node.attrs["align_corners"] and node.attrs["half_pixel_centers"]:
        raise ValueError("align_corners and half_pixel_centers exclude each other")
    if len(x.shape) != 4 or height <= 0 or width <= 0:
        raise ValueError(f"cannot resize a tensor of shape {x.shape} to {height} x {width}")
    return [((x.shape[0], int(height), int(width), x.shape[3]), x.dtype)]


_FIELDS = {"align_corners": "align_corners", "half_pixel_centers": "half_pixel_centers"}


def _encode(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[str, Any]:
    if "window" in node.attrs:
        raise ValueError("a part of a resize has no form in .sim")
    return {}


for _op, _options in ((NEAREST, "ResizeNearestNeighborOptions"), (BILINEAR, "ResizeBilinearOptions")):
    SIM.add(_op, SimRow(_options, fields=_FIELDS, constant_inputs={1: "size"}, encode=_encode))
LAYOUT.add(NEAREST, fixed)
LAYOUT.add(BILINEAR, fixed)


def _flags(node: Node) -> dict[str, bool]:
    return {name: bool(node.attrs[name]) for name in _FIELDS}


def _windows(node: Node, shape: Sequence[int]) -> Sequence[tuple[int, int, int, int]]:
    """What attr `window` says, for a whole node as well."""
    own = tuple((0, 0, shape[i + 1], node.attrs["size"][i]) for i in range(2))
    return tuple(node.attrs.get("window", own))


def _tile(taps: Callable[[Node, Sequence[int]], Sequence[tuple[Array, Array]]]) -> TileRow:
    """`taps(node, shape)`: for rows and for columns, the lowest and the highest input position of every result."""

    def part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
        x = operands[0]
        assert x is not None
        if box[1:3] == whole_box(results[0].shape[1:3]):
            return Part(((box[0], *whole_box(x.shape[1:3]), box[3]),), dict(node.attrs))
        read, window = [], []
        for (lowest, highest), span, (first, origin, *whole) in zip(
            taps(node, x.shape), box[1:3], _windows(node, x.shape), strict=True
        ):
            begin, end = int(lowest[slice(*span)].min()), int(highest[slice(*span)].max()) + 1
            read.append((begin, end))
            window.append((first + span[0], origin + begin, *whole))
        attrs = {**node.attrs, "size": tuple(end - begin for begin, end in box[1:3]), "window": tuple(window)}
        return Part(((box[0], *read, box[3]),), attrs)

    return TileRow(free_axes, part)


# -- nearest -----------------------------------------------------------------------------------------------------------
def nearest_taps(size: int, result: int, *, align_corners: bool, half_pixel_centers: bool) -> Array:
    """[result] input positions, by TFLite's own steps in binary32."""
    align = align_corners and result > 1
    scale = np.float32(size - 1) / np.float32(result - 1) if align else np.float32(size) / np.float32(result)
    place = (np.arange(result, dtype=np.float32) + np.float32(0.5 if half_pixel_centers else 0)) * scale
    taps = np.floor(place + np.float32(0.5)) if align_corners else np.floor(place)
    return np.asarray(np.clip(taps.astype(np.int64), 0, size - 1))


def _node_taps(node: Node, shape: Sequence[int]) -> tuple[Array, Array]:
    """Rows and columns that a nearest-neighbour node reads from an input [N,H,W,C]."""
    rows, columns = (
        nearest_taps(size, result, **_flags(node))[first : first + own] - origin
        for (first, origin, size, result), own in zip(_windows(node, shape), node.attrs["size"], strict=True)
    )
    return rows, columns


def _lower_nearest(low: Lowering, node: Node, values: list[str], layout: Layout) -> list[str]:
    """Gather of columns, then of rows: 0.06-0.15 ns a result as NHWC. Channels first, whole factors are Resize's."""
    x = low.graph[node.inputs[0] or ""]
    taps = _node_taps(node, x.shape)
    factors = [node.attrs["size"][i] // x.shape[i + 1] for i in range(2)]
    repeats = all(np.array_equal(np.repeat(np.arange(x.shape[i + 1]), factors[i]), taps[i]) for i in range(2))
    if layout == "first" and repeats and x.dtype in (DType.FLOAT32, DType.UINT8):
        scales = low.const(np.array([1, 1, *factors], np.float32))
        how: dict[str, Any] = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return [low.op("Resize", [values[0], "", scales], mode="nearest", **how)]
    value = values[0]
    for i in (1, 0):
        if not np.array_equal(taps[i], np.arange(x.shape[i + 1])):
            value = low.op("Gather", [value, low.const(taps[i])], axis=axis_in(i + 1, layout))
    return [value]


def _move_nearest(node: Node, arrays: list[Array], results: Sequence[Tensor]) -> list[Array]:
    rows, columns = _node_taps(node, arrays[0].shape)
    return [arrays[0][:, rows][:, :, columns]]


add_move(
    NEAREST,
    "nearest-neighbour resize",
    _lower_nearest,
    _move_nearest,
    any_layout=all_rank_4,
    tile=_tile(lambda node, shape: [(taps, taps) for taps in _node_taps(node, shape)]),
)


# -- bilinear ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class LinearTaps:
    """Two taps for each result of an axis: the one below has weight 2^bits - weight, the one above `weight`. Where that
    is 0 both are the one below, so that nothing is read for it."""

    below: Array  # int64 [result]
    above: Array
    weight: Array
    bits: int


def coordinates(size: int, result: int, *, align_corners: bool, half_pixel_centers: bool) -> list[Fraction]:
    """Exact input coordinates of an axis, clamped to its positions."""
    if align_corners and result > 1:
        places = [Fraction(o * (size - 1), result - 1) for o in range(result)]
    elif half_pixel_centers:
        places = [Fraction((2 * o + 1) * size, 2 * result) - Fraction(1, 2) for o in range(result)]
    else:
        places = [Fraction(o * size, result) for o in range(result)]
    return [min(max(place, Fraction(0)), Fraction(size - 1)) for place in places]


@lru_cache(maxsize=64)
def linear_taps(size: int, result: int, *, align_corners: bool, half_pixel_centers: bool) -> LinearTaps:
    """Integer taps of an axis as the fixed operator uses them."""
    places = coordinates(size, result, align_corners=align_corners, half_pixel_centers=half_pixel_centers)
    below = [int(place) for place in places]
    parts = [place - floor for place, floor in zip(places, below, strict=True)]
    finest = max(part.denominator for part in parts)
    dyadic = all((1 << DYADIC_BITS) % part.denominator == 0 for part in parts)
    bits = finest.bit_length() - 1 if dyadic else WEIGHT_BITS
    weight = np.array([round(part * (1 << bits)) for part in parts], np.int64)  # ties to even
    low = np.array(below, np.int64)
    return LinearTaps(low, low + (weight > 0), weight, bits)


def _both_taps(node: Node, shape: Sequence[int]) -> tuple[LinearTaps, LinearTaps]:
    """Taps of height and width in an input [N,H,W,C]. The number of bits is the whole node's."""

    def taps(first: int, origin: int, size: int, result: int, own: int) -> LinearTaps:
        whole, chosen = linear_taps(size, result, **_flags(node)), slice(first, first + own)
        return LinearTaps(whole.below[chosen] - origin, whole.above[chosen] - origin, whole.weight[chosen], whole.bits)

    (rows, columns), (height, width) = _windows(node, shape), node.attrs["size"]
    return taps(*rows, height), taps(*columns, width)


def _coordinate_mode(node: Node) -> str:
    """onnxruntime's name for the node's coordinates."""
    if node.attrs["align_corners"]:
        return "align_corners"
    return "half_pixel" if node.attrs["half_pixel_centers"] else "asymmetric"


def _resize(low: Lowering, node: Node, value: str, layout: Layout) -> str:
    shape = low.graph[node.outputs[0]].shape
    order = (0, 3, 1, 2) if layout == "first" else (0, 1, 2, 3)
    sizes = low.const(np.array([shape[i] for i in order], np.int64))
    mode = _coordinate_mode(node)
    return str(low.op("Resize", [value, "", "", sizes], mode="linear", coordinate_transformation_mode=mode))


@FLOAT.row(BILINEAR)
def lower_float(low: Lowering, node: Node) -> None:
    x = node.inputs[0] or ""
    layout = low.prefer([x])
    low.put_real(node.outputs[0], _resize(low, node, low.real(x, layout), layout), layout)


def _multiplier(x: Tensor, y: Tensor, bits: int) -> Array:
    """M for weights that sum to 2^bits: binary32 where |acc| < 2^24."""
    assert x.quant is not None and y.quant is not None
    exact = np.float64(x.quant.scale[0]) / np.float64(y.quant.scale[0]) / (1 << bits)
    return np.asarray(exact, np.float32 if reach(x) << bits < EXACT_BINARY32 else np.float64)


def _session_weights_exact(node: Node, x: Tensor) -> bool:
    """True when onnxruntime's Resize computes a whole node's dyadic weights without rounding in binary32.

    Its coordinates are o·(in-1)/(out-1), or o and o+½ divided by the binary32 number out/in: a quotient that is dyadic
    is exact when the divisor is. Its weights are then multiples of 2^-bits, so every product and sum of them with codes
    is too, and all are below 2^24 units: exact in any order.
    """
    if "window" in node.attrs:
        return False
    if node.attrs["align_corners"]:
        return all(result > 1 for result in node.attrs["size"])
    ratios = [(node.attrs["size"][i], x.shape[i + 1]) for i in range(2)]
    return all(Fraction(float(np.float32(out) / np.float32(size))) == Fraction(out, size) for out, size in ratios)


@FIXED.row(BILINEAR)
def lower_fixed(low: Lowering, node: Node) -> None:
    """Resize in binary32 where it is exact (0.4 ns a result as NHWC), else taps gathered and weighed (3-5 ns)."""
    x, y = low.graph[node.inputs[0] or ""], low.graph[node.outputs[0]]
    layout = low.prefer([x.name])
    height, width = _both_taps(node, x.shape)
    mult = _multiplier(x, y, height.bits + width.bits)
    value = low.centred(x.name, layout)
    dyadic = max(height.bits, width.bits) <= DYADIC_BITS  # else sums of UINT8 are exact too, but not onnxruntime's
    if dyadic and mult.dtype == np.float32 and _session_weights_exact(node, x):
        # weights are fractions here, so acc comes out divided by 2^bits: scaling by powers of two changes no rounding
        mult = np.asarray(mult * np.float32(1 << (height.bits + width.bits)))
        low.put_scaled(y.name, _resize(low, node, value, layout), mult, layout)
        return
    if mult.dtype == np.float64:
        value = low.cast(value, DType.FLOAT64)
    for axis, taps in ((2, width), (1, height)):
        if taps.bits or not np.array_equal(taps.below, np.arange(x.shape[axis])):
            value = _interpolated(low, value, taps, axis, mult.dtype, layout)
    low.put_scaled(y.name, value, mult, layout)


def _interpolated(low: Lowering, value: str, taps: LinearTaps, axis: int, kind: np.dtype[Any], layout: Layout) -> str:
    """One axis of integer-valued `value` interpolated: 2^bits times the real result, exact in `kind`."""
    shape = [1] * 4
    shape[axis_in(axis, layout)] = -1
    terms = []
    for positions, weight in ((taps.below, (1 << taps.bits) - taps.weight), (taps.above, taps.weight)):
        part = low.op("Gather", [value, low.const(positions)], axis=axis_in(axis, layout))
        terms.append(low.op("Mul", [part, low.const(weight.astype(kind).reshape(shape))]))
    return str(low.op("Add", terms))


@REFERENCE.row(BILINEAR)
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    """acc = Σ over the four taps of weight_h · weight_w · (q_x - z_x), int64; then eq. 7 or 8."""
    codes, x = values[0], operands[0]
    assert codes is not None and x is not None
    height, width = _both_taps(node, x.shape)
    centred = centred_codes(x, codes)
    up, down = (w[:, None, None] for w in (height.weight, (1 << height.bits) - height.weight))
    rows = centred[:, height.below] * down + centred[:, height.above] * up
    right, left = (w[:, None] for w in (width.weight, (1 << width.bits) - width.weight))
    acc = rows[:, :, width.below] * left + rows[:, :, width.above] * right
    return [requantised(results[0], acc, _multiplier(x, results[0], height.bits + width.bits))]


def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """Seven operations per element: three interpolations of two, and the requantisation."""
    return Cost(vector_ops=results[0].elements * 7)


OPERATOR.add(BILINEAR, OperatorInfo("both", "bilinear resize"))
QUANTISE.add(BILINEAR, QuantRule("real"))
COST.add(BILINEAR, cost)
TILE.add(BILINEAR, _tile(lambda node, shape: [(taps.below, taps.above) for taps in _both_taps(node, shape)]))
CONSTRAINTS.add(BILINEAR, ())


def _example(op: str, shape: tuple[int, ...], size: tuple[int, int], align: bool = False, half: bool = False) -> Graph:
    build = GraphBuilder()
    y = build(op, build.input("x", shape), output="y", size=size, align_corners=align, half_pixel_centers=half)
    return build.output(y)


def _examples(op: str) -> list[Graph]:
    return [
        _example(op, (1, 5, 7, 6), (10, 14), half=True),
        _example(op, (1, 5, 7, 6), (10, 14)),
        _example(op, (2, 5, 7, 3), (9, 13), align=True),  # dyadic weights
        _example(op, (1, 5, 7, 3), (8, 12), align=True),
        _example(op, (1, 9, 10, 3), (3, 7), half=True),
        _example(op, (1, 6, 9, 3), (24, 3), half=True),
        _example(op, (1, 6, 10, 4), (4, 25)),
        _example(op, (1, 3, 8, 2), (1, 16)),
        _example(op, (1, 6, 4, 3), (19, 7), align=True),  # dyadic along one axis alone
    ]


EXAMPLES.add(NEAREST, lambda: _examples(NEAREST))
EXAMPLES.add(BILINEAR, lambda: _examples(BILINEAR))
