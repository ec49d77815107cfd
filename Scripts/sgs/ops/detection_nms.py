"""DETECTION_NMS: the best boxes of a detector, none of which overlaps a better one too far.

corners [1, N, 4] (ymin, xmin, ymax, xmax), scores [1, N], classes INT32 [1, N], from 0 → boxes [1, M, 4], classes INT32
[1, M], scores [1, M], their number INT32 [1]; and, with attr `index`, places among the N, INT32 [1, M]. Attrs:
max_detections (M), score_threshold, iou_threshold, class_agnostic, clip, index.

Boxes are looked at by falling score, of equal scores the one of the lower place first. One is selected if its score is
above the threshold, and no selected box (of its class, unless class_agnostic) overlaps it by more than iou_threshold,
intersection over union; the first M selected ones are the results. Corners may come in either order; what has no area
overlaps nothing. With `clip` the corners of results are brought to 0 to 1, after all this. Rows beyond their number are
0, places -1.

Fixed (NUMERICS eq. 19): corners and scores keep their INT16 codes, of which overlaps are compared exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array, dequantise, quantise
from sgs.numeric.types import DType
from sgs.ops._layout import fixed
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FLOAT,
    HOST,
    INFER,
    LAYOUT,
    OPERATOR,
    QUANTISE,
    REFERENCE,
    SIM,
    SPAN,
    TILE,
    YARDSTICK,
    Box,
    Cost,
    HostRow,
    Lowering,
    OperatorInfo,
    Part,
    QuantRule,
    Shape,
    SimRow,
    Span,
    TileRow,
    whole_box,
)

OP = "DETECTION_NMS"
_LEAST_SIDE = 1e-3  # of the largest coordinate
_LEAST_SCORE = 1e-6
PARTS = 1 << 24  # of an overlap, in the threshold of a fixed graph
OPERATOR.add(OP, OperatorInfo("both", "the best boxes, none of which overlaps a better one too far"))
LAYOUT.add(OP, fixed)
SIM.add(OP, SimRow(custom=True, code="TFLite_Detection_NMS"))
QUANTISE.add(OP, QuantRule("select", pairs=((0, 0), (1, 2))))


@YARDSTICK.row(OP)
def yardstick(operands: Sequence[Array | None]) -> list[tuple[Array, Array] | None]:
    """An error of a corner counts by the box's height or width, as in IoU, and as much as the box's score does among
    the scores."""
    corners, scores, *_ = operands
    if corners is None or scores is None:
        return [None] * len(operands)
    sides = np.abs(corners[..., 2:] - corners[..., :2]).astype(np.float64)
    sides = np.maximum(sides, _LEAST_SIDE * max(float(np.abs(corners).max()), 1e-30))
    weights = np.broadcast_to(np.maximum(scores, _LEAST_SCORE)[..., None], corners.shape).astype(np.float64)
    return [(np.concatenate([sides, sides], axis=-1) / weights, weights), None, None]


@INFER.row(OP)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    """Raises ValueError for operands that do not go together, or attrs without a meaning."""
    corners, scores, classes = operands
    assert corners is not None and scores is not None and classes is not None
    places = corners.shape[:2]
    if places[:1] != (1,) or corners.shape != (*places, 4) or scores.shape != places or classes.shape != places:
        raise ValueError(f"corners {corners.shape}, scores {scores.shape} and classes {classes.shape}")
    most = node.attrs["max_detections"]
    if classes.dtype is not DType.INT32:
        raise ValueError(f"classes of {classes.dtype.name}, not INT32")
    if most < 1 or not 0 <= node.attrs["iou_threshold"] <= 1:
        raise ValueError(f"max_detections {most} (from 1 on), iou_threshold {node.attrs['iou_threshold']} (0 to 1)")
    results = [((1, most, 4), corners.dtype), ((1, most), DType.INT32), ((1, most), scores.dtype), ((1,), DType.INT32)]
    return [*results, ((1, most), DType.INT32)] if node.attrs["index"] else results


# -- float -------------------------------------------------------------------------------------------------------------
@FLOAT.row(OP)
def lower_float(low: Lowering, node: Node) -> None:
    """onnxruntime's NonMaxSuppression selects for every class by itself, as many as there may be results. Their scores,
    put back to their places among -inf, are then ordered by TopK, which gives the lower of equal places first. One more
    place, the last, is for rows of -1."""
    attrs, lowest = node.attrs, np.full(1, -np.inf, np.float32)
    corners, scores = (low.real(name or "") for name in node.inputs[:2])
    classes = low.codes(node.inputs[2] or "")
    count, most = low.graph[node.inputs[1] or ""].shape[1], attrs["max_detections"]
    apart = low.op("Unsqueeze", [scores, _numbers(low, 1)])  # [1, 1, N]
    if not attrs["class_agnostic"]:
        own = low.op("Equal", [classes, _every_class(low, classes)])
        apart = low.op("Where", [low.op("Unsqueeze", [own, _numbers(low, 0)]), apart, low.const(lowest)])
    limits = [np.array([attrs[name]], np.float32) for name in ("iou_threshold", "score_threshold")]
    operands = [corners, apart, _numbers(low, most), *map(low.const, limits)]
    rows = low.op("NonMaxSuppression", operands, center_point_box=0)
    chosen = low.op("Gather", [rows, low.const(np.array(2))], axis=1)
    flat = low.op("Concat", [low.op("Reshape", [scores, _numbers(low, count)]), low.const(lowest)], axis=0)
    nothing = low.const(np.full(count + 1, -np.inf, np.float32))
    left = low.op("ScatterElements", [nothing, chosen, low.op("Gather", [flat, chosen], axis=0)], axis=0)
    best, order = low.op("TopK", [left, _numbers(low, min(most, count))], outputs=2, axis=0, largest=1, sorted=1)
    _put_rows(low, node, (corners, classes), best, order)


def _every_class(low: Lowering, classes: str) -> str:
    """0, 1, .. up to the largest class that there is, INT32 [classes, 1]."""
    zero, one = (low.const(np.array(number, np.int32)) for number in (0, 1))
    largest = low.op("ReduceMax", [classes, _numbers(low, 0, 1)], keepdims=0)
    return str(low.op("Unsqueeze", [low.op("Range", [zero, low.op("Add", [largest, one]), one]), _numbers(low, 1)]))


def _put_rows(low: Lowering, node: Node, operands: tuple[str, str], best: str, order: str) -> None:
    """The results: scores, -inf behind the last one, and places in order."""
    attrs, missing = node.attrs, node.attrs["max_detections"] - low.graph[node.inputs[1] or ""].shape[1]
    there = low.op("Greater", [best, low.const(np.asarray(-np.inf, np.float32))])
    zero, none = low.const(np.asarray(0, np.float32)), low.const(np.array(0, np.int32))

    def filled(value: str, kept: str, rest: str, shape: Shape) -> str:
        value = low.op("Where", [kept, value, rest])
        if missing > 0:
            row = low.op("Expand", [rest, _numbers(low, missing, *shape)])
            value = low.op("Concat", [value, row], axis=0)
        return str(low.op("Unsqueeze", [value, _numbers(low, 0)]))

    def picked(operand: str, *shape: int) -> str:
        return str(low.op("Gather", [low.op("Reshape", [operand, _numbers(low, -1, *shape)]), order], axis=0))

    boxes = picked(operands[0], 4)
    if attrs["clip"]:
        boxes = low.op("Clip", [boxes, zero, low.const(np.asarray(1, np.float32))])
    found = low.op("ReduceSum", [low.cast(there, DType.INT32), _numbers(low, 0)], keepdims=1)
    rows = [
        filled(boxes, low.op("Unsqueeze", [there, _numbers(low, 1)]), zero, (4,)),
        filled(picked(operands[1]), there, none, ()),
        filled(best, there, zero, ()),
        found,
    ]
    if attrs["index"]:
        rows.append(filled(low.cast(order, DType.INT32), there, low.const(np.array(-1, np.int32)), ()))
    for name, value in zip(node.outputs, rows, strict=True):
        low.put(name, value)


def _numbers(low: Lowering, *values: int) -> str:
    return low.const(np.array(values, np.int64))


# -- fixed -------------------------------------------------------------------------------------------------------------
def _overlap_limit(node: Node) -> int:
    """The overlap beyond which a box goes, in PARTS of the union."""
    return int(np.rint(node.attrs["iou_threshold"] * PARTS))


def _above(node: Node, scores: Tensor, codes: Array) -> Array:
    """Which scores are above the threshold."""
    assert scores.quant is not None
    return np.asarray(dequantise(codes, scores.quant) > np.float32(node.attrs["score_threshold"]))


def _results(
    node: Node, operands: Sequence[Tensor | None], values: Sequence[Array], chosen: Sequence[int]
) -> list[Array]:
    """Results of selected places, best first."""
    corners, scores = operands[:2]
    assert corners is not None and corners.quant is not None and scores is not None and scores.quant is not None
    count, most = len(chosen), node.attrs["max_detections"]
    boxes = values[0][0][list(chosen)]
    if node.attrs["clip"]:
        boxes = np.clip(boxes, *quantise(np.array([0, 1], np.float32), corners.quant, corners.dtype))
    rows = [
        (boxes, int(corners.quant.zero_point[0]), (most, 4)),
        (values[2][0][list(chosen)], 0, (most,)),
        (values[1][0][list(chosen)], int(scores.quant.zero_point[0]), (most,)),
        (np.array(chosen, np.int32), -1, (most,)),
    ]
    filled = []
    for value, rest, shape in rows:
        filled.append(np.full((1, *shape), rest, value.dtype))
        filled[-1][0, :count] = value
    filled.insert(3, np.array([count], np.int32))
    return filled if node.attrs["index"] else filled[:4]


@REFERENCE.row(OP)
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    """Every box with every better one, in Python's integers."""
    corners, codes, classes = (np.asarray(value) for value in values)
    scores = operands[1]
    assert scores is not None
    limit, above = _overlap_limit(node), _above(node, scores, codes[0])
    boxes = [[int(v) for v in (*sorted(box[0::2]), *sorted(box[1::2]))] for box in corners[0]]

    def too_near(a: int, b: int) -> bool:
        if not node.attrs["class_agnostic"] and classes[0, a] != classes[0, b]:
            return False
        (top, bottom, left, right), (high, low, first, last) = boxes[a], boxes[b]
        height, width = min(bottom, low) - max(top, high), min(right, last) - max(left, first)
        if height <= 0 or width <= 0:
            return False
        union = (bottom - top) * (right - left) + (low - high) * (last - first) - height * width
        return height * width * PARTS > union * limit

    chosen: list[int] = []
    for place in sorted(range(len(boxes)), key=lambda i: (-int(codes[0, i]), i)):
        if above[place] and not any(too_near(other, place) for other in chosen):
            chosen.append(place)
    return _results(node, operands, [corners, codes, classes], chosen[: node.attrs["max_detections"]])


def _select(corners: Array, classes: Array, limit: int, most: int) -> list[int]:
    """Rows of int64 corners [C, 4], best first, that are selected; `classes` [C], all equal where any two count."""
    top, bottom = np.sort(corners[:, 0::2]).T.copy()
    left, right = np.sort(corners[:, 1::2]).T.copy()
    area = (bottom - top) * (right - left)
    left_over, chosen = np.ones(len(area), bool), list[int]()
    place = 0
    while place < len(area) and len(chosen) < most:
        chosen.append(place)
        rest = slice(place + 1, None)
        height = np.minimum(bottom[rest], bottom[place]) - np.maximum(top[rest], top[place])
        width = np.minimum(right[rest], right[place]) - np.maximum(left[rest], left[place])
        shared = np.maximum(height, 0) * np.maximum(width, 0)
        near = shared * PARTS > (area[rest] + area[place] - shared) * limit
        left_over[rest] &= ~(near & (classes[rest] == classes[place]))
        more = np.flatnonzero(left_over[rest])
        place = len(area) if not more.size else place + 1 + int(more[0])
    return chosen


def _make(graph: Graph, node: Node) -> Callable[[list[Array], list[Array]], None]:
    operands, limit, most = graph.operands(node), _overlap_limit(node), node.attrs["max_detections"]
    scores = operands[1]
    assert scores is not None

    def run(inputs: list[Array], outputs: list[Array]) -> None:
        corners, codes, classes = inputs
        order = np.argsort(-codes[0].astype(np.int32), kind="stable")
        order = order[_above(node, scores, codes[0, order])]
        kinds = np.zeros(len(order)) if node.attrs["class_agnostic"] else classes[0, order]
        chosen = order[_select(corners[0, order].astype(np.int64), kinds, limit, most)]
        for output, value in zip(outputs, _results(node, operands, inputs, chosen.tolist()), strict=True):
            output[...] = value

    return run


HOST.add(OP, HostRow(_make))


@SPAN.row(OP)
def span(node: Node, operands: Sequence[Tensor | None], spans: Sequence[Span | None]) -> Span | None:
    """Of classes, the number of results, and places."""
    scores, kinds = operands[1], spans[2]
    assert scores is not None
    if kinds is None:
        return None
    places = (-1, scores.shape[1] - 1) if node.attrs["index"] else (0, 0)
    return min(0, kinds[0], places[0]), max(node.attrs["max_detections"], kinds[1], places[1])


# -- compiler ----------------------------------------------------------------------------------------------------------
@COST.row(OP)
def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """For each box as many operations as the number of boxes has binary digits, to bring them in order; and twelve for
    its overlap with each of the results."""
    scores = operands[1]
    assert scores is not None
    count = scores.shape[1]
    return Cost(vector_ops=count * (count.bit_length() + 12 * node.attrs["max_detections"]))


def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """None: any box may overlap any other."""
    return {}


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    return Part(tuple(whole_box(() if t is None else t.shape) for t in operands), dict(node.attrs))


TILE.add(OP, TileRow(_axes, _part))
CONSTRAINTS.add(OP, ())


# -- examples ----------------------------------------------------------------------------------------------------------
def _example(count: int, kinds: int, most: int, **attrs: Any) -> Graph:
    build = GraphBuilder()
    corners, each = build.input("corners", (1, count, 4)), build.input("each", (1, count, kinds))
    scores = build("REDUCE_MAX", each, axes=(2,), keep_dims=False)
    defaults = {"score_threshold": 0.005, "iou_threshold": 0.45, "class_agnostic": False, "clip": True, "index": False}
    operands = [corners, scores, build("ARG_MAX", each, axis=2)]
    return build.output(*build.node(OP, operands, max_detections=most, **{**defaults, **attrs}))


EXAMPLES.add(
    OP,
    lambda: [
        _example(23, 3, 7),
        _example(37, 2, 5, iou_threshold=0.1, index=True, clip=False),
        _example(5, 4, 9, class_agnostic=True, index=True, score_threshold=-4.0),
        _example(41, 1, 50, class_agnostic=True, iou_threshold=0.0, score_threshold=1.5),
    ],
)
