"""The operators that end a detector: by independent judges, and in calibration, retraining and compilation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgs.builder import GraphBuilder
from sgs.compile import compile_graph
from sgs.config.chips import load_chip
from sgs.config.input_config import ConvSpec
from sgs.engine import FixedEngine, FloatEngine, run_reference
from sgs.img import OfflineEngine
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import Array, activation_params, dequantise
from sgs.numeric.types import DType
from sgs.ops._expansion import expanded
from sgs.ops._window import window_node
from sgs.quant.boundary import codes_of_inputs, real_outputs
from sgs.quant.boxes import Boxes, boxes_kept, overlaps, run_for_boxes, same_boxes
from sgs.quant.edit import build_fixed
from sgs.quant.fidelity import energies, judged, measures
from sgs.quant.layers import describe_layers, measured
from sgs.quant.levels import Calibration
from sgs.quant.plan import QuantPlan
from sgs.quant.statistics import measure_extrema
from sgs.quant.unrounded import unrounded
from sgs.sim import read_sim, write_sim

NMS = {
    "max_detections": 6,
    "score_threshold": 0.25,
    "iou_threshold": 0.5,
    "class_agnostic": False,
    "clip": True,
    "index": True,
}
RESULTS = ("detectionBoxes", "detectionClasses", "detectionScores", "numDetections", "detectionIndex")


# -- what NMS means, once more -----------------------------------------------------------------------------------------
def overlap(a: Sequence[Any], b: Sequence[Any]) -> Any:
    """Intersection over union of boxes of any numbers, 0 where one has no area."""
    (top, left, bottom, right), (high, first, low, last) = (
        (min(y, v), min(x, u), max(y, v), max(x, u)) for y, x, v, u in (a, b)
    )
    height, width = min(bottom, low) - max(top, high), min(right, last) - max(left, first)
    if height <= 0 or width <= 0:
        return 0
    shared = height * width
    return shared / ((bottom - top) * (right - left) + (low - high) * (last - first) - shared)


def selected(corners: Any, scores: Any, classes: Any, least: Any, most_shared: Any, attrs: dict[str, Any]) -> list[int]:
    """Places selected, best first."""
    chosen: list[int] = []
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    for place in (place for place in order if scores[place] > least):
        rivals = [c for c in chosen if attrs["class_agnostic"] or classes[c] == classes[place]]
        if all(overlap(corners[c], corners[place]) <= most_shared for c in rivals):
            chosen.append(place)
    return chosen[: attrs["max_detections"]]


def filled(chosen: list[int], corners: Array, scores: Array, classes: Array, attrs: dict[str, Any]) -> list[Array]:
    most, count = attrs["max_detections"], len(chosen)
    boxes, kinds, best = np.zeros((1, most, 4), np.float32), np.zeros((1, most), int), np.zeros((1, most), np.float32)
    index = np.full((1, most), -1)
    boxes[0, :count] = np.clip(corners[chosen], 0, 1) if attrs["clip"] else corners[chosen]
    kinds[0, :count], best[0, :count], index[0, :count] = classes[chosen], scores[chosen], chosen
    return [boxes, kinds, best, np.array([count]), index]


def nms_graph(count: int, attrs: dict[str, Any]) -> Graph:
    build = GraphBuilder()
    operands = build.input("corners", (1, count, 4)), build.input("scores", (1, count))
    kinds = build.input("classes", (1, count), DType.INT32)
    return build.output(*build.node("DETECTION_NMS", [*operands, kinds], outputs=RESULTS, **attrs))


def fed(*operands: Array) -> dict[str, Array]:
    return {name: operand[None] for name, operand in zip(("corners", "scores", "classes"), operands, strict=True)}


def boxes_about(rng: np.random.Generator, count: int, spots: int) -> Array:
    """Boxes around a few spots, [count, 4], which share much."""
    middle = rng.uniform(0, 1, (spots, 2))[rng.integers(0, spots, count)] + rng.normal(0, 0.03, (count, 2))
    half = rng.uniform(0.05, 0.25, (count, 2))
    return np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)


def ordinary(count: int = 40) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(count)
    scores = rng.uniform(0, 1, count).astype(np.float32)
    return boxes_about(rng, count, 5), scores, rng.integers(0, 3, count).astype(np.int32)


def with_ties() -> tuple[Array, Array, Array]:
    """Scores of three values, one of them the threshold, which is not above itself."""
    corners, scores, classes = ordinary(31)
    return corners, np.float32([0.25, 0.5, 0.75])[np.arange(31) % 3], classes


def one_spot() -> tuple[Array, Array, Array]:
    corners, scores, classes = ordinary(12)
    return np.tile(corners[:1], (12, 1)), scores, classes


def degenerate() -> tuple[Array, Array, Array]:
    """Without width, turned round, far outside, and as large as the picture."""
    corners, scores, classes = ordinary(24)
    corners[::4, 3] = corners[::4, 1]
    corners[1::4] = corners[1::4][:, [2, 3, 0, 1]]
    corners[2::8] += 3
    corners[3::8] = [0, 0, 1, 1]
    return corners, scores, classes


def none_good() -> tuple[Array, Array, Array]:
    corners, scores, classes = ordinary(9)
    return corners, scores * np.float32(0.25), classes


CASES = {
    "ordinary": ordinary,
    "ties": with_ties,
    "one spot": one_spot,
    "degenerate": degenerate,
    "none good": none_good,
    "fewer than rows": lambda: ordinary(4),
    "one": lambda: ordinary(1),
}
VARIANTS = [
    {},
    {"class_agnostic": True},
    {"clip": False, "iou_threshold": 0.0},
    {"class_agnostic": True, "iou_threshold": 0.3, "max_detections": 50},
    {"iou_threshold": 1.0, "score_threshold": -1.0, "max_detections": 1},
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("variant", VARIANTS, ids=repr)
def test_float_boxes_are_those_of_the_rule(case: str, variant: dict[str, Any]) -> None:
    attrs = {**NMS, **variant}
    corners, scores, classes = CASES[case]()
    graph = nms_graph(len(scores), attrs)
    found = FloatEngine(graph, threads=1).run(fed(corners, scores, classes))
    limits = np.float32(attrs["score_threshold"]), np.float32(attrs["iou_threshold"])
    chosen = selected(corners, scores, classes, *limits, attrs)
    for name, truth in zip(RESULTS, filled(chosen, corners, scores, classes, attrs), strict=True):
        assert np.array_equal(found[name], truth), name
        assert found[name].dtype == graph[name].dtype.numpy


def test_the_cases_are_what_they_are_called() -> None:
    counts = {}
    for name, case in CASES.items():
        counts[name] = len(selected(*case(), np.float32(0.25), np.float32(0.5), {**NMS, "max_detections": 99}))
    _, scores, kinds = one_spot()
    assert counts["one spot"] == len(set(kinds[scores > 0.25].tolist())) > 1
    assert counts["none good"] == 0 < counts["fewer than rows"] <= 4 and counts["one"] in (0, 1)
    assert counts["ordinary"] > 6 and counts["degenerate"] > 6


# -- integers ----------------------------------------------------------------------------------------------------------
def as_fixed(graph: Graph, reach: float) -> Graph:
    """The NMS alone on codes: corners from -reach to 2 · reach, scores from 0 to 1."""
    fixed = graph.copy()
    kinds = activation_params(-reach, 2 * reach, DType.INT16), activation_params(0, 1, DType.INT16)
    for names, quant in zip((("corners", RESULTS[0]), ("scores", RESULTS[2])), kinds, strict=True):
        for name in names:
            fixed[name].dtype, fixed[name].quant = DType.INT16, quant
    return fixed


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("variant", VARIANTS, ids=repr)
@pytest.mark.parametrize("reach", [1.0, 0.3])  # with which 1 has no code
def test_integer_boxes_are_those_of_the_rule(case: str, variant: dict[str, Any], reach: float) -> None:
    attrs = {**NMS, **variant}
    corners, scores, classes = CASES[case]()
    fixed = as_fixed(nms_graph(len(scores), attrs), reach)
    codes = codes_of_inputs(fixed, fed(corners, scores, classes))
    exact = [[Fraction(int(value)) for value in box] for box in codes["corners"][0]]
    kinds = fixed["corners"].quant, fixed["scores"].quant
    assert kinds[0] is not None and kinds[1] is not None
    real, held = dequantise(codes["corners"][0], kinds[0]), dequantise(codes["scores"][0], kinds[1])
    limits = np.float32(attrs["score_threshold"]), Fraction(round(attrs["iou_threshold"] * 2**24), 2**24)
    truth = filled(selected(exact, held, classes, *limits, attrs), real, held, classes, attrs)
    found, slow = FixedEngine(fixed, threads=1).run(codes), run_reference(fixed, codes)
    assert all(np.array_equal(found[name], slow[name]) for name in RESULTS)
    values = real_outputs(fixed, found, list(RESULTS))
    step, top = float(kinds[0].scale[0]), float(kinds[0].high[0])  # 1 is clipped to the nearest code
    np.testing.assert_allclose(values[RESULTS[0]], np.minimum(truth[0], top), atol=step)
    for name, expected in zip(RESULTS[1:], truth[1:], strict=True):
        assert np.array_equal(values[name], expected), name


def test_many_boxes_at_once() -> None:
    """8,400 boxes about 120 spots, of which a hundred are wanted, as the reference finds them among the best 900."""
    rng = np.random.default_rng(3)
    corners, scores = boxes_about(rng, 8400, 120), rng.uniform(0, 0.9, 8400).astype(np.float32)
    scores[rng.permutation(8400)[:900]] += np.float32(0.1)
    classes = rng.integers(0, 80, 8400).astype(np.int32)
    attrs = {**NMS, "max_detections": 100, "iou_threshold": 0.45, "score_threshold": 0.9}
    fixed = as_fixed(nms_graph(8400, attrs), 1.0)
    codes = codes_of_inputs(fixed, fed(corners, scores, classes))
    found, slow = FixedEngine(fixed, threads=1).run(codes), run_reference(fixed, codes)
    assert all(np.array_equal(found[name], slow[name]) for name in RESULTS)
    assert 60 < int(found["numDetections"][0]) <= 100


def test_codes_are_kept() -> None:
    """Of corners and scores in the results, whose own ranges would be others."""
    core, _, _ = fixed_detector()
    (nms,) = (node for node in core.nodes if node.op == "DETECTION_NMS")
    assert core[nms.inputs[0] or ""].quant is core[nms.outputs[0]].quant is not None
    assert core[nms.inputs[1] or ""].quant is core[nms.outputs[2]].quant is not None
    assert [core[name].dtype for name in nms.inputs if name] == [DType.INT16, DType.INT16, DType.INT32]


# -- what detectors say ------------------------------------------------------------------------------------------------
def logistic(x: Array) -> Array:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


@pytest.mark.parametrize(("confidence", "box", "apart"), [(4, 0, True), (-1, 5, True), (0, -1, False), (-1, -1, False)])
def test_unpacking(confidence: int, box: int, apart: bool) -> None:
    """Classes 9 to 11 of 12 columns; `apart`: logits."""
    attrs = {"box": box, "confidence": confidence, "first_class": 9, "classes": 3, "logistic": apart}
    build = GraphBuilder()
    graph = build.output(*build.node("DETECTION_UNPACK", [build.input("x", (1, 13, 12))], **attrs))
    x = np.random.default_rng(0).normal(0, 2, (1, 13, 12)).astype(np.float32)
    x[0, 5, 9:] = 1.5  # the first of equals
    *boxes, scores, classes = FloatEngine(graph, threads=1).run({"x": x}).values()
    value = logistic(x) if apart else x
    expected = value[..., 9:].max(2) * (1 if confidence == -1 else value[..., confidence])
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert np.array_equal(classes, x[..., 9:].argmax(2)) and classes[0, 5] == 0
    assert [array.tolist() for array in boxes] == ([] if box == -1 else [x[..., box : box + 4].tolist()])


def decoded(t: Array, centres: Array, scales: Array, order: str, centre: str, extent: str) -> Array:
    """Corners in float64, column by column."""
    t = t.astype(np.float64)
    if order == "ltrb":
        left, top, right, bottom = t.T
        ends = (centres[:, 0] - top * scales[:, 0], centres[:, 1] - left * scales[:, 1])
        return np.stack([*ends, centres[:, 0] + bottom * scales[:, 0], centres[:, 1] + right * scales[:, 1]], axis=1)
    x, y, w, h = (t[:, order.index(letter)] for letter in "xywh")
    f = {"linear": lambda v: v, "logistic": logistic, "logistic2": lambda v: 2 * logistic(v) - 0.5}[centre]
    g = {"linear": lambda v: v, "exp": np.exp, "power": lambda v: (2 * logistic(v)) ** 2}[extent]
    cy, cx = centres[:, 0] + f(y) * scales[:, 0], centres[:, 1] + f(x) * scales[:, 1]
    height, width = g(h) * scales[:, 2], g(w) * scales[:, 3]
    return np.stack([cy - height / 2, cx - width / 2, cy + height / 2, cx + width / 2], axis=1)


@pytest.mark.parametrize(
    ("order", "centre", "extent"),
    [
        ("xywh", "logistic", "exp"),
        ("xywh", "logistic2", "power"),
        ("yxhw", "linear", "exp"),
        ("yxhw", "linear", "linear"),
        ("ltrb", "linear", "linear"),
    ],
)
def test_decoding(order: str, centre: str, extent: str) -> None:
    """To 1e-5 of the formula in float, to 1e-3 of float in integers."""
    rng = np.random.default_rng(1)
    centres, scales = rng.uniform(0, 1, (300, 2)), rng.uniform(0.02, 0.2, (300, 4))
    build = GraphBuilder()
    operands = [build.input("x", (1, 300, 4)), centres.astype(np.float32), scales.astype(np.float32)]
    attrs = {"order": order, "centre": centre, "extent": extent}
    graph = build.output(*build.node("BOX_DECODER", operands, outputs=["y"], **attrs))
    feeds = [{"x": rng.normal(0, 1, (1, 300, 4)).astype(np.float32)} for _ in range(8)]
    truth = FloatEngine(graph, threads=1).run(feeds[0])["y"]
    np.testing.assert_allclose(truth[0], decoded(feeds[0]["x"][0], centres, scales, **attrs), atol=1e-5)
    core = fixed_form(graph, feeds)
    value = real_outputs(core, FixedEngine(core, threads=1).run(codes_of_inputs(core, feeds[0])), ["y"])["y"]
    assert 0 < np.abs(value - truth).max() < 1e-3


def fixed_form(graph: Graph, feeds: list[dict[str, Array]]) -> Graph:
    plain = unrounded(graph)
    calibration = Calibration(plain, measure_extrema(plain, feeds, threads=1), feeds, ConvSpec(), threads=1)
    return calibration.fixed(calibration.initial_plan())


def test_boxes_in_pixels_do_not_drown_the_scores_beside_them() -> None:
    """Boxes up to 640 and probabilities joined: one scale for both would leave the scores 26 codes."""
    build = GraphBuilder()
    x = build.input("x", (1, 200, 9))
    parts = [build("SLICE", x, begin=(0, 0, first), size=(1, 200, count)) for first, count in ((0, 4), (4, 5))]
    pixels = build("MUL", build("LOGISTIC", parts[0]), np.float32([640]), activation="NONE")
    packed = build("CONCATENATION", pixels, build("LOGISTIC", parts[1]), axis=2, activation="NONE", output="packed")
    attrs = {**columns(box=0, confidence=4, first_class=5, classes=4), "logistic": False}
    graph = build.output(*build.node("DETECTION_UNPACK", [packed], outputs=["b", "s", "c"], **attrs))
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.normal(0, 2, (1, 200, 9)).astype(np.float32)} for _ in range(4)]
    core, truth = fixed_form(graph, feeds), FloatEngine(graph, threads=1).run(feeds[0])
    found = real_outputs(core, FixedEngine(core, threads=1).run(codes_of_inputs(core, feeds[0])), ["b", "s", "c"])
    assert np.abs(found["s"] - truth["s"]).max() < 1e-3 and np.abs(found["b"] - truth["b"]).max() < 0.2
    assert np.mean(found["c"] != truth["c"]) < 0.02


def test_expansions_keep_names_and_meaning() -> None:
    graph = detector(ends=True)
    plain = expanded(graph)
    assert plain.outputs == graph.outputs and {"corners", "scores", "classes"} <= plain.tensors.keys()
    assert {"DETECTION_UNPACK", "BOX_DECODER"}.isdisjoint(node.op for node in plain.nodes)
    assert all(t in graph.tensors for t in ("corners", "scores")) and "corners/half" not in graph.tensors
    feeds = samples(1)[0]
    one, other = (FloatEngine(g, threads=1).run(feeds) for g in (graph, plain))
    assert all(np.array_equal(one[name], other[name]) for name in graph.outputs)
    assert expanded(plain) is plain


def columns(**attrs: int) -> dict[str, Any]:
    return {**attrs, "logistic": True}


@pytest.mark.parametrize(
    ("op", "shapes", "attrs", "reason"),
    [
        ("DETECTION_UNPACK", [(1, 5, 7)], columns(box=4, confidence=0, first_class=1, classes=2), "4 columns from 4"),
        ("DETECTION_UNPACK", [(1, 5, 7)], columns(box=-1, confidence=-1, first_class=5, classes=3), "3 columns from 5"),
        ("BOX_DECODER", [(1, 5, 4), (4, 2), (5, 4)], {"order": "xywh", "centre": "linear", "extent": "exp"}, "centres"),
        ("BOX_DECODER", [(1, 5, 4), (5, 2), (5, 4)], {"order": "ltrb", "centre": "linear", "extent": "exp"}, "linear"),
        ("BOX_DECODER", [(1, 5, 4), (5, 2), (5, 4)], {"order": "xywh", "centre": "tanh", "extent": "exp"}, "knows no"),
        ("DETECTION_NMS", [(1, 5, 4), (1, 6), (1, 5)], NMS, "scores"),
        ("DETECTION_NMS", [(1, 5, 4), (1, 5), (1, 5)], NMS, "classes of FLOAT32"),
    ],
)
def test_nonsense_is_refused(op: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any], reason: str) -> None:
    build = GraphBuilder()
    operands: list[Any] = [build.input("x", shapes[0])]
    operands += [np.zeros(shape, np.float32) for shape in shapes[1:]]
    with pytest.raises(ValueError, match=reason):
        build.node(op, operands, **attrs)


# -- a whole detector --------------------------------------------------------------------------------------------------
def detector(*, ends: bool) -> Graph:
    """Two heads on maps of 8 × 8 and 4 × 4 places, (x, y, w, h, confidence, three classes), joined; with NMS at its end
    or without."""
    rng, build = np.random.default_rng(0), GraphBuilder()

    def conv(x: Tensor, name: str, channels: int, kernel: int, **window: Any) -> Tensor:
        shape = (channels, kernel, kernel, x.shape[3])
        weight = rng.normal(0, 1.5 * np.sqrt(channels / np.prod(shape)), shape).astype(np.float32)
        bias = rng.normal(0, 0.2, channels).astype(np.float32)
        return build("CONV_2D", x, weight, bias, output=name, **window_node(pads=(kernel // 2,) * 4, **window))

    a = conv(build.input("x", (1, 16, 16, 3)), "a", 8, 3, strides=(2, 2), activation="RELU")
    b = conv(a, "b", 12, 3, strides=(2, 2), activation="RELU")
    heads = [conv(x, name, 8, 1) for x, name in ((a, "fine"), (b, "coarse"))]
    rows = [build("RESHAPE", head, shape=(1, head.shape[1] ** 2, 8)) for head in heads]
    packed = build("CONCATENATION", *rows, axis=1, activation="NONE", output="packed")
    places = columns(box=0, confidence=4, first_class=5, classes=3)
    boxes, scores, classes = build.node("DETECTION_UNPACK", [packed], outputs=["boxes", "scores", "classes"], **places)
    grids = [np.stack(np.divmod(np.arange(n * n), n), axis=1) / n for n in (8, 4)]
    units = np.repeat([1 / 8, 1 / 4], [64, 16])[:, None] * np.ones((1, 4))
    how = {"order": "xywh", "centre": "logistic", "extent": "exp"}
    constants = [np.concatenate(grids).astype(np.float32), units.astype(np.float32)]
    (corners,) = build.node("BOX_DECODER", [boxes, *constants], outputs=["corners"], **how)
    if not ends:
        return build.output(corners, scores)
    return build.output(*build.node("DETECTION_NMS", [corners, scores, classes], outputs=RESULTS, **NMS))


def samples(count: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(1)
    coarse = rng.normal(0, 1, (count, 1, 4, 4, 3)).repeat(4, 2).repeat(4, 3)
    return [{"x": (picture + rng.normal(0, 0.2, picture.shape)).astype(np.float32)} for picture in coarse]


@cache
def calibration(ends: bool) -> Calibration:
    graph, feeds = unrounded(detector(ends=ends)), samples(12)
    return Calibration(graph, measure_extrema(graph, feeds, threads=1), feeds, ConvSpec(), threads=1)


@cache
def fixed_detector() -> tuple[Graph, Calibration, QuantPlan]:
    work = calibration(True)
    plan = work.initial_plan()
    return build_fixed(work.prepared, plan), work, plan


def test_what_is_judged_lies_before_the_choice() -> None:
    """And has no class scores, which the best one stands for."""
    work = calibration(True)
    assert judged(work.float_graph, work.prepared).outputs == ["corners", "scores"]


def test_ranges_do_not_depend_on_the_choice() -> None:
    """Those that were measured are the same with NMS behind as without, and there are those of results beside."""
    plan, other = calibration(True).run("L1"), calibration(False).run("L1")
    assert plan.ranges.keys() - other.ranges.keys() == {RESULTS[0], RESULTS[2]}
    assert {name: plan.ranges[name] for name in other.ranges} == other.ranges
    assert {name: plan.narrow[name] for name in other.narrow} == other.narrow
    assert plan.macs.keys() == other.macs.keys()
    for name, mac in other.macs.items():
        assert plan.macs[name].bits == mac.bits and np.array_equal(plan.macs[name].weight_bound, mac.weight_bound)


def test_errors_of_boxes_count_by_their_sides_and_scores() -> None:
    """Of [ymin, xmin, ymax, xmax] by height and width, and as much as the scores do, which count as they stand."""
    joined = measures(calibration(True).network(QuantPlan()).graph)
    assert list(joined) == ["corners", "scores"]
    found = {name: replace(measure, parts=None) for name, measure in joined.items()}
    truths = {
        "corners": np.array([[[0.25, 0.5, 0.75, 0.6], [0.0, 0.0, 0.5, 1.0]]], np.float32),
        "scores": np.array([[0.8, 0.1]], np.float32),
    }
    moved = truths["corners"] + np.array([[[0.05, 0.02, 0, 0], [0, 0, 0.1, 0]]], np.float32)
    table = energies(found["corners"], truths, moved)
    assert table.sum(0) == pytest.approx([4 * 0.8**2 + 4 * 0.1**2, 0.8**2 * (0.1**2 + 0.2**2) + (0.1 * 0.2) ** 2], 1e-5)
    scores = energies(found["scores"], truths, truths["scores"] + np.float32(0.1))
    assert scores.sum(0) == pytest.approx([0.65, 0.02], 1e-5)


def test_heads_are_held_in_16_bits() -> None:
    core, _, _ = fixed_detector()
    assert core["packed"].dtype is core["boxes"].dtype is DType.INT16


def test_layers_behind_the_choice_have_no_errors() -> None:
    core, work, plan = fixed_detector()
    graph = work.network(plan).graph
    layers = measured(describe_layers(graph, core, plan, {}), graph, core, samples(2), {})
    errors = {layer.name: (layer.alone, layer.accumulated) for layer in layers}
    assert errors[RESULTS[0]] == (None, None) and (errors["corners"][1] or 0) > 20


def test_a_fixed_detector_finds_what_the_float_one_finds() -> None:
    core, work, _ = fixed_detector()
    float_engine, fixed_engine = FloatEngine(work.float_graph, threads=1), FixedEngine(core, threads=1)
    near = total = 0
    for feed in samples(12):
        truth = float_engine.run(feed)
        found = real_outputs(core, fixed_engine.run(codes_of_inputs(core, feed)), list(RESULTS))
        places = {int(place): box for place, box in zip(found[RESULTS[4]][0], found[RESULTS[0]][0], strict=True)}
        for place, box in zip(truth[RESULTS[4]][0], truth[RESULTS[0]][0], strict=True):
            total += place >= 0
            near += place >= 0 and place in places and overlap(box, places[place]) > 0.9
    assert total > 24 and near >= 0.9 * total


def test_an_image_selects_the_same_boxes(tmp_path: Path) -> None:
    core, _, _ = fixed_detector()
    write_sim(core, tmp_path / "a_fixed.sim", stage="fixed")
    again = read_sim(tmp_path / "a_fixed.sim").graph
    assert b"TFLite_Detection_NMS" in (tmp_path / "a_fixed.sim").read_bytes()
    assert [node.op for node in again.nodes] == [node.op for node in core.nodes]
    (nms,) = (node for node in again.nodes if node.op == "DETECTION_NMS")
    assert nms.attrs == NMS
    engine, offline = FixedEngine(again, threads=1), OfflineEngine(compile_graph(again, load_chip("pcupid")))
    for feed in samples(3):
        codes = codes_of_inputs(core, feed)
        truth, found = engine.run(codes), offline.run(codes)
        assert int(truth["numDetections"][0]) > 0
        assert all(np.array_equal(found[name], truth[name]) for name in RESULTS)


def test_retraining_ends_before_the_choice() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from sgs.retrain.run import retrained
    from sgs.retrain.settings import Settings

    settings = Settings(iterations=3, scales=True, device="cpu")
    plans = [retrained(work, work.initial_plan(), settings) for work in map(calibration, (True, False))]
    assert any(mac.weight is not None for mac in plans[1].macs.values())
    for name, mac in plans[1].macs.items():
        assert np.array_equal(plans[0].macs[name].weight, mac.weight), name  # type: ignore[arg-type]


# -- boxes decide how much goes to 16 bits -----------------------------------------------------------------------------
def test_overlaps() -> None:
    a = np.array([[0.0, 0.0, 2.0, 4.0], [1.0, 1.0, 1.0, 3.0]])
    b = np.array([[0.0, 0.0, 2.0, 4.0], [1.0, 2.0, 3.0, 6.0], [5.0, 5.0, 6.0, 6.0]])
    assert overlaps(a, b) == pytest.approx(np.array([[1, 2 / 14, 0], [0, 0, 0]]))
    assert all(overlap(a[0], other) == pytest.approx(float(overlaps(a[:1], other[None])[0, 0])) for other in b)


@pytest.mark.parametrize(
    ("change", "kept"),
    [({}, 2), ({"score": -0.09}, 2), ({"score": -0.11}, 1), ({"class": 1}, 1), ({"move": 0.05}, 2), ({"move": 0.2}, 1)],
)
def test_which_boxes_are_the_same(change: dict[str, float], kept: int) -> None:
    """By class, place and score, of float's with 0.3 or more, among all that the fixed network counts."""
    names = RESULTS[:4]
    corners = np.array([[[0.1, 0.1, 1.1, 1.1], [0.2, 0.1, 0.6, 0.9], [0, 0, 1, 1], [0, 0, 1, 1]]], np.float32)
    scores = np.array([[0.9, 0.31, 0.29, 0.8]], np.float32)
    truth = dict(zip(names, (corners, np.zeros((1, 4), np.int32), scores, np.array([3], np.int32)), strict=True))
    found = {name: value.copy() for name, value in truth.items()}
    found[names[0]][0, 1, 3] += change.get("move", 0) * 0.8
    found[names[1]][0, 1] += int(change.get("class", 0))
    found[names[2]][0, 1] += change.get("score", 0)
    boxes = same_boxes(truth, found, names)
    assert (boxes.kept, boxes.boxes) == (kept, 2)
    assert boxes.share == kept / 2 and str(boxes) == f"{kept} of float's 2 boxes kept"


def test_boxes_decide_how_much_goes_to_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round after round until enough are kept; the best round counts, and the steps are those of all."""
    told = iter([Boxes(90, 100), Boxes(97, 100), Boxes(95, 100)])
    monkeypatch.setattr("sgs.quant.boxes.boxes_kept", lambda calibration, plan: next(told))
    work = calibration(True)
    plan, found = run_for_boxes(work, "L4")
    assert found == Boxes(97, 100) and next(told, None) is None
    assert (work.max_int16_macs, work.threshold) == (0.5, pytest.approx(0.0002))
    names = [step.name for step in work.steps]
    assert [name for name in names if "boxes" in name] == [
        "90 of float's 100 boxes kept, at most 25% in 16 bit",
        "97 of float's 100 boxes kept, at most 50% in 16 bit",
        "95 of float's 100 boxes kept, at most 100% in 16 bit",
    ]
    assert names.count("16 bit") == 3
    again = calibration(True)
    again.max_int16_macs, again.threshold = 0.5, 0.0002
    same = again.run("L4")
    assert {name: mac.bits for name, mac in same.macs.items()} == {name: mac.bits for name, mac in plan.macs.items()}


def test_enough_boxes_end_the_rounds() -> None:
    work = calibration(True)
    _, found = run_for_boxes(work, "L4")
    assert found is not None and found.boxes > 20 and found.share >= 0.99
    cut = calibration(False)
    plan, none = run_for_boxes(cut, "L4")
    assert none is None and cut.max_int16_macs == 0.25
    assert {n: m.bits for n, m in plan.macs.items()} == {
        n: m.bits for n, m in calibration(False).run("L4").macs.items()
    }


def behind(*, two: bool = False, least: float | None = None) -> Graph:
    """The detector with its boxes in pixels and its scores flat; perhaps with a second NMS that keeps fewer of them,
    or with nothing above the threshold."""
    graph, build = detector(ends=True), GraphBuilder()
    build.graph = graph
    if least is not None:
        next(node for node in graph.nodes if node.op == "DETECTION_NMS").attrs["score_threshold"] = least
    pixels = build("MUL", graph["detectionBoxes"], np.float32([16]), output="pixels", activation="NONE")
    flat = build("RESHAPE", graph["detectionScores"], shape=(NMS["max_detections"],), output="flat")
    outputs = [pixels, graph["detectionClasses"], flat, graph["numDetections"]]
    if two:
        operands, fewer = [graph[name] for name in ("corners", "scores", "classes")], NMS | {"max_detections": 3}
        outputs += build.node("DETECTION_NMS", operands, outputs=[f"{name}/2" for name in RESULTS], **fewer)
    graph.outputs = []
    return build.output(*outputs)


def calibration_of(graph: Graph, conv: ConvSpec | None = None) -> Calibration:
    plain, feeds = unrounded(graph), samples(12)
    return Calibration(plain, measure_extrema(plain, feeds, threads=1), feeds, conv or ConvSpec(), threads=1)


@pytest.mark.parametrize("two", [False, True])
def test_what_is_made_of_boxes_is_not_judged(two: bool) -> None:
    """Neither by calibration nor by layer: it jumps as they do. What NMS selects from is, and the boxes are counted."""
    work = calibration_of(behind(two=two))
    assert judged(work.float_graph, work.prepared).outputs == ["corners", "scores"]
    assert work.output_sqnr(plan := work.initial_plan()) == calibration(True).output_sqnr(plan)
    core, graph = work.fixed(plan), work.network(plan).graph
    layers = measured(describe_layers(graph, core, plan, {}), graph, core, samples(2), {})
    errors = {layer.name: (layer.alone, layer.accumulated) for layer in layers}
    assert errors["pixels"] == errors["flat"] == (None, None) and (errors["corners"][1] or 0) > 20
    alone, found = boxes_kept(calibration(True), plan), boxes_kept(work, plan)
    assert alone is not None and found is not None and alone.boxes > 20
    assert (found.boxes > alone.boxes) if two else (found == alone)


def test_without_boxes_there_is_nothing_to_spend_16_bits_on() -> None:
    work = calibration_of(behind(least=2.0))
    _, found = run_for_boxes(work, "L4")
    assert found == Boxes(0, 0) and work.max_int16_macs == 0.25
    assert str(found) == "float has no boxes of score 0.3 or more that could be kept"


def test_forced_bits_are_not_called_a_budget() -> None:
    work = calibration_of(detector(ends=True), ConvSpec(input_format="ALL_INT16"))
    plan, found = run_for_boxes(work, "L4")
    assert found is not None and found.share == 1 and {mac.bits for mac in plan.macs.values()} == {16}
    assert not any("boxes" in step.name for step in work.steps)
