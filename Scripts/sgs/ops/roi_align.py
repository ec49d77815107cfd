"""ROI_ALIGN: regions of pictures, sampled bilinearly in bins of which the means are taken.

x [N, H, W, C], regions [R, 4] (left, top, right, bottom), pictures INT32 [R] → [R, OH, OW, C]. Attrs as in ONNX: mode
"avg" or "max", size (OH, OW), sampling_ratio (samples of a bin along an axis, 0 for as many as it is entries long),
spatial_scale, half_pixel. A sample that lies more than an entry outside x is 0.

Fixed (NUMERICS eq. 15, 16), mode "avg": the weights of both axes are integers, so that sums are exact.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array, requantise
from sgs.numeric.types import DType
from sgs.ops._elementwise import numbers
from sgs.ops._layout import fixed
from sgs.ops._regions import BY_REGION
from sgs.ops._sum import centred_codes, reach, requantised
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FIXED_EXPAND,
    FLOAT,
    HOST,
    IMPORT_ONNX,
    INFER,
    LAYOUT,
    ONNX_EXAMPLES,
    OPERATOR,
    QUANTISE,
    REFERENCE,
    SIM,
    TILE,
    Cost,
    HostRow,
    ImportContext,
    Lowering,
    OnnxCase,
    OperatorInfo,
    QuantRule,
    Shape,
    SimRow,
)

OP = "ROI_ALIGN"
LEAST_BITS, WEIGHT_BITS = 8, 14  # of weights
OPERATOR.add(OP, OperatorInfo("both", "means of the bins of regions, sampled bilinearly"))
LAYOUT.add(OP, fixed)
SIM.add(OP, SimRow(custom=True))
QUANTISE.add(OP, QuantRule("real"))


@INFER.row(OP)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    x, regions, pictures = operands
    assert x is not None and regions is not None and pictures is not None
    if len(x.shape) != 4 or regions.shape[1:] != (4,) or pictures.shape != regions.shape[:1]:
        raise ValueError(f"regions of shape {regions.shape} of pictures {x.shape}")
    return [((regions.shape[0], *node.attrs["size"], x.shape[3]), x.dtype)]


@FLOAT.row(OP)
def lower_float(low: Lowering, node: Node) -> None:
    x, regions, pictures = (name or "" for name in node.inputs)
    height, width = node.attrs["size"]
    value = low.op(
        "RoiAlign",
        [low.real(x, "first"), low.real(regions), low.cast(low.codes(pictures), DType.INT64)],
        mode=node.attrs["mode"],
        output_height=height,
        output_width=width,
        sampling_ratio=node.attrs["sampling_ratio"],
        spatial_scale=node.attrs["spatial_scale"],
        coordinate_transformation_mode="half_pixel" if node.attrs["half_pixel"] else "output_half_pixel",
    )
    low.put_real(node.outputs[0], value, "first")


# -- fixed -------------------------------------------------------------------------------------------------------------
def takes_means(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """The mode is "avg": the largest of weighted values has no integer form."""
    return bool(node.attrs["mode"] == "avg")


def weight_bits(node: Node, x: Tensor) -> int:
    """k of eq. 15. As many samples as a bin is entries long are at least half an entry apart, and none lies more than
    one beside x."""
    ratio = node.attrs["sampling_ratio"]
    samples = math.prod(ratio or 2 * extent + 3 for extent in x.shape[1:3])
    room = ((1 << 53) - 1) // (reach(x) * samples)
    return min(WEIGHT_BITS, (room.bit_length() - 1) // 2)


def weights_are_fine(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """Sums stay exact with weights of 8 bits: a bin has at most 2^22 samples of INT16 codes, sampling_ratio² or, where
    that is 0, up to (2 · H + 3) · (2 · W + 3)."""
    x = operands[0]
    return x is not None and weight_bits(node, x) >= LEAST_BITS


def _only_moved(graph: Graph, name: str) -> bool:
    """Whether all numbers in a tensor are those of inputs and constants, which codes hold within a step (eq. 17)."""
    producers, waiting = graph.producers(), [name]
    while waiting:
        node = producers.get(waiting.pop())
        if node is None:
            continue
        rule = QUANTISE.get(node.op)
        if node.op == "CAST":
            waiting.append(node.inputs[0] or "")
        elif rule is not None and rule.kind == "move" and rule.moved is not None:
            waiting += [node.inputs[index] or "" for index in rule.moved(node)]
        else:
            return False
    return True


@FIXED_EXPAND.row(OP)
def check_integer_form(graph: Graph, node: Node) -> None:
    """Raises ValueError for mode "max", computed numbers of several pictures, and bins of too many samples."""
    x = graph[node.inputs[0] or ""]
    if not takes_means(node, (), ()):
        raise ValueError('mode "max", the largest of weighted values, has no integer form; "avg" has one')
    if x.shape[0] > 1 and not _only_moved(graph, node.inputs[2] or ""):
        raise ValueError(
            "numbers of several pictures have to be constant, or an input's that are only moved and cast, as computed "
            "ones may be rounded"
        )
    if not weights_are_fine(node, (x,), ()):
        raise ValueError(f"bins may have too many samples for exact sums: x is {x.shape[1]} by {x.shape[2]}")


def _multiplier(x: Tensor, y: Tensor, bits: int, samples: Array) -> Array:
    """M of eq. 16 for bins of so many samples."""
    assert x.quant is not None and y.quant is not None
    count = np.asarray(samples, np.float64) * (1 << 2 * bits)
    return np.asarray(np.float64(x.quant.scale[0]) / (np.float64(y.quant.scale[0]) * count))


def _weights(node: Node, ends: Array, count: int, extent: int, bits: int) -> tuple[Array, Array]:
    """Eq. 15 along one axis, for regions [R, 2]: integers in binary64 [R, count, extent], samples of a bin [R]."""
    half = bool(node.attrs["half_pixel"])
    first, last = (ends * np.float32(node.attrs["spatial_scale"]) - np.float32(0.5 if half else 0)).T
    size = (last - first if half else np.maximum(last - first, np.float32(1))) / np.float32(count)
    samples = np.ceil(size)
    if node.attrs["sampling_ratio"]:
        samples = np.full_like(size, node.attrs["sampling_ratio"])
    samples = np.maximum(samples, np.float32(0))
    inner = np.arange(int(samples.max(initial=0)), dtype=np.float32)
    bins = first[:, None] + np.arange(count, dtype=np.float32) * size[:, None]
    within = (inner + np.float32(0.5)) * size[:, None] / np.maximum(samples, np.float32(1))[:, None]
    place = bins[:, :, None] + within[:, None]  # [R, count, samples]
    taken = (inner < samples[:, None])[:, None] & (place >= -1) & (place <= extent)
    region, number, _ = np.nonzero(taken)
    place = np.clip(place[taken], 0, np.float32(extent - 1))
    below = np.floor(place).astype(np.int64)
    part = np.rint((place - below.astype(np.float32)) * np.float32(1 << bits))
    weights = np.zeros((len(ends), count, extent))
    np.add.at(weights, (region, number, below), (1 << bits) - part)
    np.add.at(weights, (region, number, np.minimum(below + 1, extent - 1)), part)
    return weights, np.maximum(samples, 1)


def _used(weights: Array) -> slice:
    """From the first to the last entry that has a weight."""
    entries = np.flatnonzero(weights)
    return slice(entries[0], entries[-1] + 1) if entries.size else slice(0)


def _weighed(picture: Array, rows: Array, columns: Array) -> Array:
    """Weights of rows [OH, H] and columns [OW, W] times a picture [H, W, C], where there are any: [OH, OW, C]."""
    high, broad = (_used(weights.sum(axis=0)) for weights in (rows, columns))
    region = picture[high, broad]
    lines, strips = region.reshape(len(region), math.prod(region.shape[1:])), []
    for row in rows[:, high]:
        own = _used(row)
        strips.append(row[own] @ lines[own])
    return np.asarray(columns[:, broad] @ np.stack(strips).reshape(len(rows), *region.shape[1:]))


def _make(graph: Graph, node: Node) -> Callable[[list[Array], list[Array]], None]:
    """Sums as products of matrices in binary64, which holds them exactly."""
    x, regions = (graph[name or ""] for name in node.inputs[:2])
    y, bits, (height, width) = graph[node.outputs[0]], weight_bits(node, x), node.attrs["size"]
    assert y.quant is not None
    zero = int(y.quant.zero_point[0])

    def run(inputs: list[Array], outputs: list[Array]) -> None:
        codes, corners, numbered = inputs
        corners, centred = numbers(regions, corners), centred_codes(x, codes).astype(np.float64)
        rows, tall = _weights(node, corners[:, 1::2], height, x.shape[1], bits)
        columns, wide = _weights(node, corners[:, 0::2], width, x.shape[2], bits)
        mult = _multiplier(x, y, bits, tall * wide)
        for r, picture in enumerate(np.clip(numbered, 0, x.shape[0] - 1)):
            outputs[0][r] = requantise(_weighed(centred[picture], rows[r], columns[r]), mult[r], zero, y.dtype)

    return run


HOST.add(OP, HostRow(_make))


def _samples(node: Node, first: Any, last: Any, count: int, extent: int, bits: int) -> Iterator[list[dict[int, int]]]:
    """Eq. 15 for one region along one axis: for each bin, for each of its samples, the weights of entries of x."""
    offset = np.float32(0.5 if node.attrs["half_pixel"] else 0)
    first, last = (end * np.float32(node.attrs["spatial_scale"]) - offset for end in (first, last))
    length = last - first if node.attrs["half_pixel"] else max(last - first, np.float32(1))
    size = length / np.float32(count)
    samples = node.attrs["sampling_ratio"] or max(math.ceil(size), 0)
    for k in range(count):
        found: list[dict[int, int]] = []
        for i in range(samples):
            place = first + np.float32(k) * size + np.float32(i + 0.5) * size / np.float32(samples)
            found.append({})
            if -1 <= place <= extent:
                place = min(max(place, np.float32(0)), np.float32(extent - 1))
                below = math.floor(place)
                part = int(np.rint((place - np.float32(below)) * np.float32(1 << bits)))
                found[-1] = {below: (1 << bits) - part} | ({below + 1: part} if part else {})
        yield found


@REFERENCE.row(OP)
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    (x, regions, _), (codes, corners, pictures), y = operands, values, results[0]
    assert x is not None and regions is not None
    assert codes is not None and corners is not None and pictures is not None
    centred, bits, (height, width) = centred_codes(x, codes), weight_bits(node, x), node.attrs["size"]
    found = np.zeros(y.shape, y.dtype.numpy)
    for r, (left, top, right, bottom) in enumerate(numbers(regions, corners)):
        picture = centred[min(max(int(pictures[r]), 0), len(centred) - 1)]
        for i, rows in enumerate(_samples(node, top, bottom, height, x.shape[1], bits)):
            for j, columns in enumerate(_samples(node, left, right, width, x.shape[2], bits)):
                acc = np.zeros(x.shape[3], np.int64)
                for row, column in itertools.product(rows, columns):
                    for (h, up), (w, across) in itertools.product(row.items(), column.items()):
                        acc += up * across * picture[h, w]
                samples = max(len(rows) * len(columns), 1)
                found[r, i, j] = requantised(y, acc, _multiplier(x, y, bits, np.asarray(samples)))
    return [found]


# -- compiler ----------------------------------------------------------------------------------------------------------
@COST.row(OP)
def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """For each element of the result eight operations per sample, four products and their sum, and one that
    requantises; where the number of samples depends on the region, it is taken to be all of a picture."""
    x, ratio = operands[0], node.attrs["sampling_ratio"]
    assert x is not None
    samples = math.prod(ratio or -(-x.shape[1 + axis] // node.attrs["size"][axis]) for axis in range(2))
    return Cost(vector_ops=results[0].elements * (8 * samples + 1))


TILE.add(OP, BY_REGION)
CONSTRAINTS.add(OP, (takes_means, weights_are_fine))


# -- ONNX import -------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("RoiAlign")
def import_roi_align(ctx: ImportContext) -> list[Tensor]:
    """Before operator set 16, regions were not moved by half a pixel."""
    x, regions, pictures = ctx.inputs
    assert x is not None
    coordinates = ctx.attrs.get("coordinate_transformation_mode", "half_pixel")
    y = ctx.emit(
        OP,
        ctx.nhwc(x),
        regions,
        pictures,
        mode=ctx.attrs.get("mode", "avg"),
        size=(int(ctx.attrs.get("output_height", 1)), int(ctx.attrs.get("output_width", 1))),
        sampling_ratio=int(ctx.attrs.get("sampling_ratio", 0)),
        spatial_scale=float(ctx.attrs.get("spatial_scale", 1.0)),
        half_pixel=ctx.opset >= 16 and coordinates == "half_pixel",
    )
    return [ctx.nchw(y)]


_X: dict[str, Shape] = {"x": (2, 3, 9, 7)}
_REGIONS = np.array([[1, 1, 5, 6], [0, 2, 3, 8], [2.5, 0.5, 6, 7]], np.float32)
_OPERANDS = {"r": _REGIONS, "n": np.array([1, 0, 1])}
_HELD = np.random.default_rng(2).normal(0, 2, (2, 9, 7, 3)).astype(np.float32)
_SIZE = {"output_height": 3, "output_width": 2}
ONNX_EXAMPLES.add(
    "RoiAlign",
    [
        OnnxCase("RoiAlign", _X, _OPERANDS, {**_SIZE, "sampling_ratio": 2}),
        OnnxCase("RoiAlign", _X, _OPERANDS, {**_SIZE, "coordinate_transformation_mode": "output_half_pixel"}),
        OnnxCase("RoiAlign", _X, _OPERANDS, {**_SIZE, "mode": "max", "sampling_ratio": 1}),
        OnnxCase("RoiAlign", _X, _OPERANDS, {**_SIZE, "spatial_scale": 0.5}, opset=10),
    ],
)


def _example(regions: int | Array, pictures: list[int], held: Array | None = None, **attrs: Any) -> Graph:
    """Of so many regions from outside, or constant ones; of pictures from outside, or `held` ones."""
    build = GraphBuilder()
    x = build.input("x", (2, 9, 7, 5)) if held is None else held
    corners = build.input("regions", (regions, 4)) if isinstance(regions, int) else regions
    numbered = np.array(pictures, np.int32)
    return build.output(build(OP, x, corners, numbered, output="y", mode="avg", **attrs))


EXAMPLES.add(
    OP,
    lambda: [
        _example(6, [0, 1, 1, 0, 1, 1], size=(3, 4), sampling_ratio=2, spatial_scale=2.5, half_pixel=True),
        _example(6, [0, 0, 1, 1, 0, 1], size=(7, 1), sampling_ratio=0, spatial_scale=4.0, half_pixel=False),
        _example(_REGIONS, [1, 0, 1], size=(2, 3), sampling_ratio=0, spatial_scale=1.0, half_pixel=True),
        _example(4, [1, 0, 1, 1], _HELD, size=(2, 3), sampling_ratio=2, spatial_scale=2.5, half_pixel=True),
    ],
)
