"""compare_models: measures against numpy, names and layouts across stages, and a planted fault for each cause."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shipped
from raw_chain import SCRIPT
from report_cases import comparison
from sgs.builder import GraphBuilder
from sgs.cli import compare_models, convert_tool
from sgs.compare.inputs import explain, other_normalisation
from sgs.compare.match import Alignment, stands_for
from sgs.compare.metrics import Spread, Sums
from sgs.compare.run import compare, ordered
from sgs.compare.stages import open_stage
from sgs.config.chips import load_chip
from sgs.config.input_config import parse_input_config, read_input_config
from sgs.data.preprocess import Preprocessor
from sgs.img import write_image
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.ops._window import window_node
from sgs.pipelines import CalibrationOptions, apply_plan, calibrate, compile_fixed
from sgs.quant.blocks import BLOCK
from sgs.quant.equalise import equalised
from sgs.quant.layers import describe_layers, measured
from sgs.quant.parameters import QuantParameter, parse_parameters
from sgs.quant.plan import QuantPlan, TensorRange
from sgs.report.compared import ComparedLayer, Comparison
from sgs.report.comparison import comparison_text, worst
from sgs.report.report_page import Report, report_text
from sgs.sim import read_sim, write_sim
from shipped import CHIP, INI, MODEL
from test_detection import detector, samples
from test_tflite_codes import dynamic_range
from test_traps import conv, head, noise, work_on

RNG = np.random.default_rng(9)


# -- measures ----------------------------------------------------------------------------------------------------------
def test_sums_over_samples_are_those_of_all_values_together() -> None:
    pairs = [(RNG.normal(0, 2, shape), RNG.normal(0.1, 2, shape)) for shape in [(1, 3, 5, 7), (2, BLOCK + 3), (1,)]]
    sums = Sums()
    for a, b in pairs:
        sums.add(a.astype(np.float32), b.astype(np.float32))
    a, b = (np.concatenate([pair[side].astype(np.float32).ravel() for pair in pairs]).astype(float) for side in (0, 1))
    errors = sums.errors()
    assert errors.elements == a.size
    assert errors.mse == pytest.approx(np.mean((a - b) ** 2), rel=1e-12)
    assert errors.rmse == pytest.approx(np.sqrt(np.mean((a - b) ** 2)), rel=1e-12)
    assert errors.relative_l1 == pytest.approx(np.abs(a - b).sum() / np.abs(a).sum(), rel=1e-12)
    assert errors.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12)
    assert errors.sqnr == pytest.approx(10 * np.log10((a @ a) / ((a - b) @ (a - b))), rel=1e-12)
    assert errors.max_abs == np.abs(a - b).max()


@pytest.mark.parametrize(
    ("a", "b", "sqnr", "cosine", "relative"),
    [
        ([0, 0], [0, 0], 120, 1, 0),
        ([0, 0], [0, 1], -120, 0, np.inf),
        ([3, 4], [3, 4], 120, 1, 0),
        ([1, -np.inf, np.nan, 2], [1, -9, 7, 2], 120, 1, 0),  # where A is not finite, nothing is told
        ([1, 2], [1, np.inf], -120, np.nan, np.inf),
        ([1, 2], [1, np.nan], -120, np.nan, np.inf),  # what is no number is no less wrong
    ],
)
def test_measures_of_special_values(
    a: list[float], b: list[float], sqnr: float, cosine: float, relative: float
) -> None:
    sums = Sums()
    sums.add(np.array(a, np.float32), np.array(b, np.float32))
    errors = sums.errors()
    assert (errors.sqnr, errors.relative_l1) == (sqnr, relative)
    assert (errors.max_abs == np.inf) == any(not np.isfinite(value) for value in b)
    assert errors.cosine == pytest.approx(cosine, nan_ok=True)


def test_spread_counts_what_codes_do_not_reach() -> None:
    spread = Spread((-1.0, 3.0), 0.5)
    spread.add(np.array([-2.0, -1.2, 0.0, 3.4]), np.array([-1.0, -1.0, 0.0, 3.0]))
    spread.add(np.array([1.0, 5.0]), np.array([1.0, 3.0]))
    assert (spread.low, spread.high, spread.held_low, spread.held_high) == (-2, 5, -1, 3)
    assert (spread.outside, spread.lost) == (2 / 6, 1 + 4)
    spread = Spread((-1.0, 3.0), 0.5, np.array([1.0, 4.0], np.float32))  # energy is that of the network as it came
    values = np.array([[-2.0, 5.0], [np.inf, 3.0], [np.nan, -3.0]])
    spread.add(values, values)
    assert (spread.outside, spread.lost) == (3 / 4, 1 + (2 / 4) ** 2 + (2 / 4) ** 2)


# -- names and layouts -------------------------------------------------------------------------------------------------
def test_names_of_what_tools_put_in_between() -> None:
    known = {"x", "x/nchw", "a/uint8"}
    assert stands_for("x/nchw/nhwc", known) == "x/nchw"
    assert stands_for("x/raised/turned_2", known) == "x"
    assert [stands_for(name, known) for name in ("x/codes", "x/normalised_1", "a/uint8", "y/uint8", "x/before")] == [
        "x",
        "x",
        "a/uint8",
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("source", "turn"),
    [
        ((1, 4, 4, 4), (0, 2, 3, 1)),  # shapes leave all orders: values tell
        ((1, 4, 6, 6), (0, 2, 3, 1)),
        ((2, 3, 5, 7), (0, 3, 1, 2)),
        ((5, 5), (1, 0)),
        ((3, 4, 4, 3), (3, 1, 2, 0)),
    ],
)
def test_layouts_are_found(source: tuple[int, ...], turn: tuple[int, ...]) -> None:
    a = RNG.normal(0, 1, source)
    alignment = Alignment(a, a.transpose(turn) + RNG.normal(0, 0.3, [source[axis] for axis in turn]))
    other = RNG.normal(0, 1, source)
    assert alignment.found and np.array_equal(alignment(other), other.transpose(turn))


def test_layouts_that_values_do_not_tell_apart_are_as_they_are() -> None:
    a = RNG.normal(0, 1, (1, 6, 6, 6))
    alignment = Alignment(a, RNG.normal(0, 1, (1, 6, 6, 6)))
    assert np.array_equal(alignment(a), a)


def test_flattened_tensors_are_verified() -> None:
    a = RNG.normal(0, 1, (1, 5, 3, 2))
    assert np.array_equal(Alignment(a, a.reshape(1, 30))(a), a.reshape(1, 30))
    channels_last = a.transpose(0, 2, 3, 1).reshape(1, 30)
    assert np.array_equal(Alignment(a, channels_last)(a), channels_last)
    assert not Alignment(a, RNG.normal(0, 1, (1, 30))).found
    assert not Alignment(a, RNG.normal(0, 1, (1, 31))).found


# -- a network with a fault --------------------------------------------------------------------------------------------
@dataclass
class Built:
    """A folder with float.sim and fixed.sim of a graph whose inputs are real numbers, or what `ini` says."""

    folder: Path
    graph: Graph
    samples: Sequence[dict[str, Array]]
    dequantize: bool = True
    more: str = ""

    def __post_init__(self) -> None:
        (self.folder / "script.py").write_text(SCRIPT, encoding="utf-8")
        for number, feeds in enumerate(self.samples):
            np.save(self.folder / f"{number}.npy", feeds["x"])
        text = "[INPUT_CONFIG]\ninputs=x;\ninput_formats=RAWDATA_F32_NHWC;\n"
        text += f"[OUTPUT_CONFIG]\noutputs={','.join(self.graph.outputs)};\n"
        text += f"dequantizations={','.join([str(self.dequantize).upper()] * len(self.graph.outputs))};\n{self.more}"
        self.config = parse_input_config(text, self.folder / "input_config.ini")
        self.graph.metadata["config"] = text
        write_sim(self.graph, self.folder / "float.sim", stage="float")

    @property
    def rows(self) -> list[tuple[Path]]:
        return [(self.folder / f"{number}.npy",) for number in range(len(self.samples))]

    def calibrated(
        self, edit: Callable[[QuantPlan], QuantPlan] = lambda plan: plan, parameters: tuple[QuantParameter, ...] = ()
    ) -> None:
        """Writes the fixed .sim of a plan, edited."""
        options = CalibrationOptions("L1", processes=1, quant_parameters=parameters)
        made = calibrate(self.graph, self.config, [Preprocessor(self.folder / "script.py")], self.rows, options)
        fixed = apply_plan(self.graph, self.config, edit(made.plan), {})
        write_sim(fixed, self.folder / "fixed.sim", stage="fixed")

    def compared(self, a: str = "float.sim", b: str = "fixed.sim", script: str = "script.py") -> Comparison:
        stages = [open_stage(self.folder / name) for name in (a, b)]
        return compare(*ordered(*stages), [Preprocessor(self.folder / script)], self.rows[:3])


def chain(*, outlier: float = 1.0) -> Graph:
    """x [1,9,7,5] → first [1,9,7,8] → second [1,9,7,6] → third [1,9,7,4] → y; weights of `second` read one channel of
    `first` with `1/outlier` of the others, whose values are `outlier` times as large."""
    build = GraphBuilder()
    x = build.input("x", (1, 9, 7, 5))
    first = conv(build, x, 8, "first", activation="RELU")
    factors = np.ones(8, np.float32)
    factors[3] = outlier
    spread = build("MUL", first, factors, output="spread", activation="NONE")
    weight = np.random.default_rng(3).normal(0, 0.5, (6, 1, 1, 8)).astype(np.float32)
    second = build("CONV_2D", spread, weight / factors, np.zeros(6, np.float32), output="second", **window_node())
    third = conv(build, second, 4, "third", activation="RELU")
    return build.output(build("LOGISTIC", third, output="y"))


def layer(comparison: Comparison, name: str) -> ComparedLayer:
    return next(layer for layer in comparison.layers if layer.name == name)


def test_a_healthy_network_has_no_cause(tmp_path: Path) -> None:
    graph = chain()
    built = Built(tmp_path, graph, noise(graph))
    built.calibrated()
    found = built.compared()
    assert (found.first_bad, found.causes, found.unmatched) == (None, (), ())
    assert (found.a, found.b, found.samples) == ("float .sim float.sim", "fixed .sim fixed.sim", 3)
    assert found.outputs == ("y",) and layer(found, "y").accumulated.sqnr > 30
    assert [one.name for one in found.layers if one.weight_bits == 8] == ["first", "second", "third"]
    assert "Nothing is wrong" in comparison_text(found)
    assert found == built.compared("fixed.sim", "float.sim")  # the order on the command line says nothing


def test_an_equalised_network_is_judged_as_it_came_and_as_the_calibrator_judges_it(tmp_path: Path) -> None:
    """Both errors of every layer are those that calibration itself measures (quant.layers), and the .img agrees."""
    build = GraphBuilder()
    first = conv(build, build.input("x", (1, 9, 7, 5)), 8, "first", activation="RELU")
    graph = build.output(conv(build, conv(build, first, 6, "second", activation="RELU"), 4, "y"))
    graph = equalised(graph, {name: np.geomspace(1, 1e-2, graph[name].shape[-1]) for name in ("first", "second")})
    built = Built(tmp_path, graph, noise(graph))
    work = work_on(graph, built.samples, built.config)
    plan = work.equalise(work.initial_plan())
    assert plan.scales.keys() == {"first", "second"}
    fixed = apply_plan(graph, built.config, plan, {})
    write_sim(fixed, tmp_path / "fixed.sim", stage="fixed")
    write_image(compile_fixed(fixed, load_chip(CHIP)), tmp_path / "x.img")
    network, core = work.network(plan).graph, work.fixed(plan)
    samples = [{"x": sample["x"]} for sample in built.samples[:3]]
    expected = measured(describe_layers(network, core, plan, {}), network, core, samples, plan.scales)
    found, image = built.compared(), built.compared("float.sim", "x.img")
    assert found.first_bad is None and image.first_bad is None
    for one in expected:
        # an output has codes of its own in front of the real numbers that go by its name
        name = "y/codes" if one.name == "y" else one.name
        judged = layer(found, name)
        assert judged.isolated is not None and one.alone is not None
        assert judged.isolated.sqnr == pytest.approx(one.alone, abs=0.01)
        assert judged.accumulated.sqnr == pytest.approx(one.accumulated, abs=0.01)
        assert layer(image, name).accumulated == judged.accumulated
    assert {one.name for one in expected} == {"first", "second", "y"}
    write_sim(apply_plan(graph, built.config, clipped(plan), {}), tmp_path / "fixed.sim", stage="fixed")
    (cause,) = built.compared().causes  # its range is that of what is multiplied by `scale`
    assert cause.reason.startswith("The range is too narrow") and 'with the "scale"' in cause.remedy


def clipped(plan: QuantPlan) -> QuantPlan:
    """`second` clipped at a fifth of its range."""
    spans = [{**side} for side in (plan.ranges, plan.narrow)]
    for side in spans:
        if "second" in side:
            side["second"] = TensorRange(side["second"].low / 5, side["second"].high / 5)
    return replace(plan, ranges=spans[0], narrow={**spans[1], "second": spans[0]["second"]})


def test_a_clipped_range_is_named_with_the_entry_that_mends_it(tmp_path: Path) -> None:
    graph = chain()
    built = Built(tmp_path, graph, noise(graph))
    built.calibrated(edit=clipped)
    found = built.compared()
    assert found.first_bad == "second"
    (cause,) = found.causes
    assert cause.reason.startswith("The range is too narrow: codes hold ") and "% of them saturate" in cause.reason
    (entry,) = json.loads(cause.remedy[cause.remedy.index("[{") : cause.remedy.index("}]") + 2])
    assert (entry["name"], entry["bit"]) == ("second", 8)
    second = layer(found, "second")
    assert second.low is not None and entry["min"][0] < 3 * second.low
    y = layer(found, "y")  # alone, what comes behind is as good as ever; with all that went wrong before, it is not
    assert y.isolated is not None and y.isolated.sqnr > 30 > y.accumulated.sqnr
    built.calibrated(parameters=parse_parameters([entry], file="entry"))
    assert built.compared().first_bad is None


def test_weights_in_4_bits_are_named(tmp_path: Path) -> None:
    graph = chain(outlier=30.0)
    built = Built(tmp_path, graph, noise(graph))
    built.calibrated(edit=lambda plan: replace(plan, macs={n: replace(mac, bits=4) for n, mac in plan.macs.items()}))
    found = built.compared()
    assert layer(found, "second").weight_bits == 4 and found.first_bad == "second"
    assert found.causes[0].reason.startswith("4 bits are too few for its weights: alone it has ")
    assert "{name: second/weight, min: null, max: null, bit: 8}" in found.causes[0].remedy


def test_a_range_that_is_too_wide_is_named(tmp_path: Path) -> None:
    graph = chain()
    built = Built(tmp_path, graph, noise(graph))
    wide = TensorRange(-200.0, 300.0)
    built.calibrated(edit=lambda plan: replace(plan, narrow={**plan.narrow, "second": wide}))
    found = built.compared()
    assert found.first_bad == "second" and found.causes[0].layer == "second"
    assert (
        found.causes[0].reason.startswith("The range is too wide: codes hold -2")
        and '"second"' in found.causes[0].remedy
    )


def test_a_layer_that_needs_16_bits_gets_them_by_the_line_it_is_told(tmp_path: Path) -> None:
    graph = chain(outlier=500.0)
    built = Built(tmp_path, graph, noise(graph))
    built.calibrated()
    found = built.compared()
    assert found.first_bad is not None and "8 bits are too few" in found.causes[0].reason
    assert "Put tensor_arrays=spread; below [CONV_CONFIG] in the ini" in found.causes[0].remedy
    mended = Built(tmp_path, graph, noise(graph), more="[CONV_CONFIG]\ntensor_arrays=spread;\n")
    mended.calibrated()
    assert mended.compared().first_bad is None


def test_all_of_a_chain_that_needs_16_bits_are_told_at_once(tmp_path: Path) -> None:
    """What an operand of 8 bits costs is an operator's own, also where its operand is bad for the same reason."""
    build = GraphBuilder()
    x = build.input("x", (1, 9, 7, 5))
    for number in range(4):
        factors = np.ones(8, np.float32)
        factors[number] = 300.0
        x = build("MUL", conv(build, x, 8, f"sum{number}", activation="RELU"), factors, output=f"out{number}")
        weight = np.random.default_rng(number).normal(0, 0.5, (8, 1, 1, 8)).astype(np.float32) / factors
        x = build("CONV_2D", x, weight, np.zeros(8, np.float32), output=f"in{number}", **window_node())
    graph = build.output(x)
    built = Built(tmp_path, graph, noise(graph))
    built.calibrated()
    lines = [re.search(r"tensor_arrays=(.*);", cause.remedy) for cause in built.compared().causes]
    names = [line[1] for line in lines if line is not None]
    assert names == ["out0", "out1", "out2", "out3"] and len(lines) == 4
    mended = Built(tmp_path, graph, noise(graph), more=f"[CONV_CONFIG]\ntensor_arrays={','.join(names)};\n")
    mended.calibrated()
    assert mended.compared().first_bad is None


def test_a_line_names_the_convolution_s_operand_behind_what_moves_it(tmp_path: Path) -> None:
    build = GraphBuilder()
    x = build.input("x", (1, 9, 7, 5))
    factors = np.ones(8, np.float32)
    factors[3] = 2000.0
    wide = build("MUL", conv(build, x, 8, "first", activation="RELU"), factors, output="wide")
    both = build("CONCATENATION", wide, conv(build, x, 4, "other", activation="RELU"), axis=3, output="joined")
    weight = np.random.default_rng(3).normal(0, 0.5, (6, 1, 1, 12)).astype(np.float32)
    weight[..., 3] /= 2000.0
    graph = build.output(build("CONV_2D", both, weight, np.zeros(6, np.float32), output="y", **window_node()))
    built = Built(tmp_path, graph, noise(graph))
    built.calibrated()
    found = built.compared()
    assert found.first_bad == "other"
    assert [cause.remedy.split(";")[0] for cause in found.causes] == ["Put tensor_arrays=joined"]
    mended = Built(tmp_path, graph, noise(graph), more="[CONV_CONFIG]\ntensor_arrays=joined;\n")
    mended.calibrated()
    assert mended.compared().first_bad is None


def test_what_healthy_outputs_are_made_of_is_not_bad(tmp_path: Path) -> None:
    """`second` is clipped, and what is left of it is a hundredth of the output."""
    build = GraphBuilder()
    x = build.input("x", (1, 9, 7, 5))
    first = conv(build, x, 8, "first", activation="RELU")
    faint = build("MUL", conv(build, first, 8, "second"), np.full(8, 3e-3, np.float32), output="faint")
    graph = build.output(build("ADD", first, faint, output="y", activation="NONE"))
    built = Built(tmp_path, graph, noise(graph))
    built.calibrated(edit=clipped)
    found = built.compared()
    second = layer(found, "second").isolated
    assert second is not None and second.sqnr < 20 and layer(found, "y").accumulated.sqnr > 30
    assert (found.first_bad, found.causes) == (None, ())


@pytest.mark.parametrize("at", ["second", "rows"])
def test_what_outputs_that_jump_are_made_of_may_be_bad(at: str, tmp_path: Path) -> None:
    """Classes, or boxes in pixels: an output that is not judged makes nothing before it harmless."""
    build = GraphBuilder()
    build.graph = graph = chain() if at == "second" else selection()
    graph.outputs = []
    if at == "second":
        build.output(build("ARG_MAX", graph["second"], axis=3, output="kinds"))
    else:
        build.output(build("MUL", graph["boxes"], np.full(4, 2, np.float32), output="pixels", activation="NONE"))
    built = Built(tmp_path, graph, noise(graph))

    def narrower(plan: QuantPlan) -> QuantPlan:
        def cut(ranges: Mapping[str, TensorRange]) -> dict[str, TensorRange]:
            kept = ("x", "first", "spread")
            return {n: r if n in kept else TensorRange(r.low / 20, r.high / 20) for n, r in ranges.items()}

        return replace(plan, ranges=cut(plan.ranges), narrow=cut(plan.narrow))

    built.calibrated(edit=narrower)
    found = built.compared()
    assert all(layer(found, name).jumps for name in found.outputs) and found.stand_ins
    assert found.first_bad == at and "too narrow" in found.causes[0].reason


def test_ranges_above_l1_are_told_as_those_of_the_plan(tmp_path: Path) -> None:
    graph = chain()
    built = Built(tmp_path, graph, noise(graph))
    built.calibrated(edit=clipped)
    file = read_sim(tmp_path / "fixed.sim")
    file.graph.metadata["calibration"] = {"level": "L5"}
    write_sim(file.graph, tmp_path / "fixed.sim", stage="fixed")
    remedy = built.compared().causes[0].remedy
    entry = json.loads("{" + remedy[remedy.index('"second"') : remedy.index("}") + 1] + "}")
    assert '} under "narrow" in its plan' in remedy
    low, high = entry["second"]["low"], entry["second"]["high"]
    span = {"second": TensorRange(low, high)}
    built.calibrated(edit=lambda plan: replace(plan, narrow={**clipped(plan).narrow, **span}))
    assert built.compared().first_bad is None


def test_a_clash_in_a_concat_is_named(tmp_path: Path) -> None:
    graph = head(500.0, 1e-3)
    built = Built(tmp_path, graph, noise(graph), dequantize=False)
    built.calibrated()
    found = built.compared()
    assert found.first_bad == "scores"
    cause = found.causes[0]
    assert cause.reason.startswith("Ranges clash in CONCATENATION 'join': 'boxes' has ")
    assert "of 65534 are left to it" in cause.reason and "RAWDATA_F32" in cause.remedy
    built = Built(tmp_path, graph, noise(graph))  # as real numbers, which is the remedy
    built.calibrated()
    assert built.compared().first_bad is None


def selection() -> Graph:
    """Places of 200 boxes, whose scores have the coarse codes of the corners that they come with → the best five."""
    build = GraphBuilder()
    x = build.input("x", (1, 200, 7))
    rows = build("MUL", x, np.array([500.0] * 4 + [1.0] * 3, np.float32), output="rows", activation="NONE")
    corners, each = (
        build("SLICE", rows, begin=(0, 0, first), size=(1, 200, count)) for first, count in ((0, 4), (4, 3))
    )
    best = build("REDUCE_MAX", each, axes=(2,), keep_dims=False, output="best")
    attrs = {"score_threshold": 0.0, "iou_threshold": 0.5, "class_agnostic": False, "clip": False, "index": True}
    names = ["boxes", "classes", "scores", "number", "places"]
    kinds = build("ARG_MAX", each, axis=2)
    return build.output(*build.node("DETECTION_NMS", [corners, best, kinds], outputs=names, max_detections=5, **attrs))


def test_what_is_selected_is_shown_and_not_judged(tmp_path: Path) -> None:
    graph = selection()
    built = Built(tmp_path, graph, noise(graph))
    built.calibrated()
    write_image(compile_fixed(read_sim(tmp_path / "fixed.sim").graph, load_chip(CHIP)), tmp_path / "x.img")
    for b in ("fixed.sim", "x.img"):
        found = built.compared(b=b)
        boxes = layer(found, "boxes")
        assert boxes.accumulated.sqnr < 10 and boxes.jumps and not layer(found, "best").jumps
        assert (found.first_bad, found.causes) == (None, ())
        assert {one.name for one in found.layers if one.jumps} >= set(graph.outputs)
        text = " ".join(comparison_text(found).split())
        assert "What is selected or counted jumps" in text and "boxes" in text
        assert set(found.stand_ins) == {"slice", "best"}
        page = report_text(Report("x", comparison=found))
        assert "of what its outputs are made from" in page and "is far from" not in page
        alone = report_text(Report("x", comparison=replace(found, stand_ins=())))
        assert "selected or counted" in alone and "is far from" not in alone
    assert built.compared("fixed.sim", "x.img").layers  # that every bit is the same is judged all the same
    assert all(one.accumulated.max_abs == 0 for one in built.compared("fixed.sim", "x.img").layers)


def test_an_image_of_another_network_is_told_from_its_own(tmp_path: Path) -> None:
    graph = chain()
    built = Built(tmp_path, graph, noise(graph))
    built.calibrated()
    write_image(compile_fixed(read_sim(tmp_path / "fixed.sim").graph, load_chip(CHIP)), tmp_path / "own.img")
    found = built.compared("fixed.sim", "own.img")
    assert found.first_bad is None and all(one.accumulated.max_abs == 0 for one in found.layers)
    assert built.compared("float.sim", "own.img").first_bad is None
    built.calibrated(edit=clipped)
    found = built.compared("own.img", "fixed.sim")
    assert found.b == ".img own.img"
    (cause,) = found.causes
    assert cause.reason.startswith("The integers differ") and "another fixed .sim" in cause.remedy


def test_a_fault_of_a_conversion_is_the_layer_that_makes_it(tmp_path: Path) -> None:
    graph = chain()
    built = Built(tmp_path, graph, noise(graph))
    wrong = graph.copy()
    node = next(node for node in wrong.nodes if node.outputs == ["second"])
    data = wrong[node.inputs[1] or ""].data
    assert data is not None
    wrong[node.inputs[1] or ""].data = data * np.float32(1.001)
    write_sim(graph, tmp_path / "debug.sim", stage="debug")
    write_sim(wrong, tmp_path / "float.sim", stage="float")
    found = built.compared("debug.sim", "float.sim")
    assert found.first_bad == "second" and len(found.causes) == 1  # third differs because of it, not alone
    assert layer(found, "third").accumulated.relative_l1 > 1e-4
    assert layer(found, "second").accumulated.relative_l1 == pytest.approx(1e-3, rel=1e-2)


def test_boxes_are_judged_by_what_nms_selects_from(tmp_path: Path) -> None:
    """Rows change places where scores are nearly alike. Beside its fixed .sim, an .img has to select the same."""
    graph = detector(ends=True)
    boxes = ("detectionBoxes", "detectionClasses", "detectionScores", "numDetections", "detectionIndex")
    built = Built(tmp_path, graph, samples(12))
    built.calibrated()
    write_image(compile_fixed(read_sim(tmp_path / "fixed.sim").graph, load_chip(CHIP)), tmp_path / "x.img")
    for b in ("fixed.sim", "x.img"):
        found = built.compared("float.sim", b)
        assert found.first_bad is None and set(found.outputs) == set(boxes)
        assert set(found.stand_ins) == {"corners", "scores"}
        text = comparison_text(found)
        assert "judged in place of outputs that are selected" in text and max(map(len, text.splitlines())) <= 100
        assert "Nothing is wrong: no layer is bad, and what the outputs are made from is that of A" in " ".join(
            text.split()
        )
        assert not any(one.jumps for one in worst(found.layers))
        page = report_text(Report("x", comparison=found))
        assert (
            "is as accurate as" in page
            and "Before the outputs: corners" in page
            and "Output detectionBoxes" not in page
        )
    found = built.compared("fixed.sim", "x.img")
    assert set(found.outputs) == set(boxes) and found.stand_ins == ()
    assert "Nothing is wrong: every number of B is the one that A has." in comparison_text(found)
    assert built.compared("float.sim", "float.sim").stand_ins == ()


def test_layers_are_judged_by_stand_ins_where_what_is_selected_from_has_no_counterpart(tmp_path: Path) -> None:
    """The same results, but the float network calls all between features and results otherwise."""
    graph = detector(ends=True)
    built = Built(tmp_path, graph, samples(12))
    span = {"a": TensorRange(0.0, 0.2)}
    built.calibrated(edit=lambda plan: replace(plan, ranges={**plan.ranges, **span}, narrow={**plan.narrow, **span}))
    other = graph.copy()
    for name in ("fine", "coarse", "reshape", "reshape_1", "packed", "boxes", "scores", "classes", "corners"):
        other.rename_tensor(name, f"my_{name}")
    write_sim(other, tmp_path / "other.sim", stage="float")
    for a in ("float.sim", "other.sim"):
        found = built.compared(a)
        assert found.first_bad == "a" and found.causes[0].reason.startswith("The range is too narrow")
    assert found.stand_ins == ("a", "b")


def test_the_worst_are_those_that_lose_themselves() -> None:
    """Where layers were measured alone, what only moves values that were lost before is not among them."""
    layers = comparison(25).layers
    found = worst(layers)
    assert len(found) == 20 and all(one.isolated for one in found)
    alone = [one.isolated.sqnr for one in found if one.isolated]
    assert alone == sorted(alone)
    moved = [one for one in layers if one.isolated is None]
    assert min(one.accumulated.sqnr for one in moved) < alone[9], "they would be among the ten that are told"
    assert worst(moved) == sorted(moved, key=lambda one: one.accumulated.sqnr), "all that there are"


# -- the shipped classifier: what it is fed ----------------------------------------------------------------------------
def script_with(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = shipped.SCRIPT.read_text("utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file = tmp_path / "script.py"
    file.write_text(text, encoding="utf-8")
    return file


def shown(capsys: pytest.CaptureFixture[str], a: object, b: object, script: Path, *more: object) -> str:
    capsys.readouterr()
    arguments = ["-a", a, "-b", b, "-i", shipped.TEST, "-n", script, "--samples", 2, *more]
    assert compare_models.main([str(word) for word in arguments]) == 0, capsys.readouterr().err
    out, err = capsys.readouterr()
    assert not err
    return " ".join(str(out).split())


def stages() -> list[Path]:
    names = ("Debug_digits_float.sim", "digits_float.sim", "digits_fixed.sim", "digits.img")
    return [shipped.converted() / name for name in names]


def test_wrong_mean_is_told_with_the_right_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = script_with(tmp_path, ("[127.5, 127.5, 127.5]", "[100.0, 110.0, 120.0]"), ("(127.5)", "(64.0)"))
    out = shown(capsys, *stages()[1:3], script)
    assert "First bad layer (*): images/normalised" in out
    numbers = re.search(r"mean=([\d.:]+); std_value=([\d.:]+);", out)
    assert numbers is not None
    mean, std = ([float(number) for number in group.split(":")] for group in numbers.groups())
    assert mean == pytest.approx([100, 110, 120], abs=1) and std == pytest.approx([64, 64, 64], rel=0.01)


def test_swapped_channels_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pictures of one colour channel order with norm=True and the other with norm=False."""
    tint = "    image = (image * np.array([1.0, 0.5, 0.25])).astype(np.uint8)\n"
    script = script_with(tmp_path, ("    if norm:\n", f"{tint}    if norm:\n        image = image[..., ::-1]\n"))
    out = shown(capsys, *stages()[1:3], script)
    assert "First bad layer (*): images/normalised" in out
    found = re.search(r"with the channels of B reversed \(RGB and BGR\) it is ([\d.]+) dB", out)
    assert found is not None and float(found[1]) > 40
    assert "training_input_formats" in out


def test_swapped_channels_are_told_where_channels_have_means_of_their_own() -> None:
    """As trained on ImageNet: order and normalisation differ at once, which one of the two does not explain."""
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    picture = RNG.integers(0, 256, (1, 11, 13, 3)) * np.array([1.0, 0.7, 0.4])
    found = explain((picture - mean) / std, (picture[..., ::-1] - mean) / std)
    assert found is not None and found.order == (2, 1, 0) and found.after == 120
    assert found.factor == pytest.approx(std[::-1] / std) and other_normalisation(found, {}) is None
    found = explain((picture - mean) / std, picture / 255)
    assert found is not None and found.order == () and found.factor == pytest.approx(255 / std)
    found = explain(picture / 255, picture[..., ::-1] / 255)
    assert found is not None and found.order == (2, 1, 0) and found.factor is None, "the simplest that explains it"
    assert explain(picture, RNG.integers(0, 256, picture.shape)) is None


def test_pixels_of_nv12_are_nobody_elses(tmp_path: Path) -> None:
    """An .img takes them for codes where the normalisation changes nothing."""
    build = GraphBuilder()
    graph = build.output(conv(build, build.input("x", (1, 8, 6, 3)), 4, "y"))
    pictures = RNG.integers(0, 256, (4, 1, 4, 3, 3)).repeat(2, axis=2).repeat(2, axis=3)  # chroma as coarse as NV12's
    built = Built(tmp_path, graph, [{"x": picture.astype(np.float32)} for picture in pictures])
    more = "training_input_formats=RGB;\nquantizations=TRUE;\nmean=0:0:0;\nstd_value=255.;\n[OUTPUT"
    text = graph.metadata["config"].replace("RAWDATA_F32_NHWC", "YUV_NV12").replace("[OUTPUT", more)
    graph.metadata["config"], built.config = text, parse_input_config(text, tmp_path / "input_config.ini")
    write_sim(graph, tmp_path / "float.sim", stage="float")
    script = "    picture = np.load(path)\n    return picture / np.float32(255) if norm else picture.astype(np.uint8)\n"
    (tmp_path / "script.py").write_text(SCRIPT.replace("    return np.load(path)\n", script), encoding="utf-8")
    built.calibrated()
    image = compile_fixed(read_sim(tmp_path / "fixed.sim").graph, load_chip(CHIP))
    write_image(image, tmp_path / "x.img")
    assert open_stage(tmp_path / "x.img").described["x/pixels"].quant is not None
    for a, b in (("float.sim", "fixed.sim"), ("fixed.sim", "x.img"), ("float.sim", "x.img")):
        found = built.compared(a, b)
        assert (found.first_bad, found.unmatched) == (None, ()) and found.outputs == ("y",)
        assert all(one.accumulated.max_abs == 0 for one in found.layers) == (a == "fixed.sim")


def test_all_stages_of_a_network_agree(capsys: pytest.CaptureFixture[str]) -> None:
    for number, b in enumerate(stages()):
        out = shown(capsys, b, MODEL, shipped.SCRIPT, "--input_config", INI)
        assert f"A ONNX {MODEL.name}" in out and "Nothing is wrong" in out and "without a counterpart" not in out
        for a in stages()[:number]:
            out = shown(capsys, a, b, shipped.SCRIPT)
            assert "Nothing is wrong" in out and "without a counterpart" not in out


def test_what_litert_rounds_is_no_defect(tmp_path: Path) -> None:
    """Weights of 8 bits and activations of real numbers, which LiteRT rounds before it multiplies."""
    pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
    (tmp_path / "x.tflite").write_bytes(dynamic_range())
    text = "[INPUT_CONFIG]\ninputs=x;\ninput_formats=RAWDATA_F32_NHWC;\n[OUTPUT_CONFIG]\noutputs=y;\n"
    (tmp_path / "x.ini").write_text(text, encoding="utf-8")
    words = ["--input_config", str(tmp_path / "x.ini"), "--output_file", str(tmp_path / "x.sim"), "--soc_version", CHIP]
    assert convert_tool.main(["tflite", "--model_file", str(tmp_path / "x.tflite"), *words]) == 0
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    np.save(tmp_path / "0.npy", RNG.normal(0, 1, (1, 6, 5, 4)).astype(np.float32))
    source = open_stage(tmp_path / "x.tflite", config=read_input_config(tmp_path / "x.ini"))
    scripts, rows = [Preprocessor(tmp_path / "script.py")], [(tmp_path / "0.npy",)]
    found = compare(source, open_stage(tmp_path / "x.sim"), scripts, rows)
    assert source.rounded == {"c", "d", "y"} and 1e-4 < layer(found, "c").accumulated.relative_l1 < 0.1
    assert found.first_bad is None
    source.rounded = ()  # the same of a runner that does not round would be one
    assert compare(source, open_stage(tmp_path / "x.sim"), scripts, rows).first_bad == "c"


@pytest.mark.parametrize(("platform", "kind"), [("caffe", "Caffe"), ("tflite", "TFLite")])
def test_a_source_model_named_platform_first_agrees_with_what_is_made_of_it(
    platform: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Operators that the import makes of parts (BatchNorm, fused activations) have counterparts as a whole only."""
    example = next(one for one in shipped.EXAMPLES if one.platform == platform)
    chip = example.source.index("--soc_version")
    assert convert_tool.main([*example.source, "--output_file", str(tmp_path / "x_float.sim")]) == 0
    pictures = shipped.ROOT / "SGS_Models/resource" / example.pictures / "test"
    for name in ("Debug_x_float.sim", "x_float.sim"):
        capsys.readouterr()
        rest = ["-b", tmp_path / name, "-i", pictures, "-n", example.folder / f"{example.name}.py"]
        words = [*example.source[:chip], *rest, "--samples", 1]
        assert compare_models.main([str(word) for word in words]) == 0, capsys.readouterr().err
        out = capsys.readouterr().out
        assert out.startswith(f"A  {kind} ") and "Nothing is wrong" in out


def test_json_and_csv_hold_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = tmp_path / "x.json", tmp_path / "x.csv", tmp_path / "x.html"
    written = [word for file in files for word in (f"--{file.suffix[1:]}", file)]
    out = shown(capsys, *stages()[1:3], shipped.SCRIPT, "--all", *written)
    record = json.loads(files[0].read_text("utf-8"))
    with files[1].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [one["name"] for one in record["layers"]]
    for row, one in zip(rows, record["layers"], strict=True):
        assert float(row["sqnr"]) == one["accumulated"]["sqnr"]
        assert row["isolated_mse"] == ("" if one["isolated"] is None else str(one["isolated"]["mse"]))
    assert [row["name"] for row in rows if row["output"] == "1"] == record["outputs"] == ["logits"]
    graph = read_sim(stages()[2]).graph
    made = [name for node in graph.nodes for name in node.outputs]
    assert [row["name"] for row in rows] == made  # all that nodes make, in order; what is fed are bytes
    assert "all layers:" in out
    page = files[2].read_text("utf-8")
    assert all(html.escape(name, quote=True) in page for name in made)
    first = [file.read_bytes() for file in files]
    shown(capsys, *stages()[1:3], shipped.SCRIPT, *written)
    assert first == [file.read_bytes() for file in files]


def test_lines_fit_100_columns(tmp_path: Path) -> None:
    graph = head(500.0, 1e-3)
    built = Built(tmp_path, graph, noise(graph), dequantize=False)
    built.calibrated()
    found = built.compared()
    for text in (comparison_text(found), comparison_text(found, every=True)):
        assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (lambda s: ["-a", s[1], "-b", MODEL], "give its --input_config"),
        (lambda s: ["-a", s[1], "-b", s[2], "--input_config", INI], "leave it out"),
        (lambda s: ["-a", s[1], "-b", "none.sim"], "none.sim"),
        (lambda s: ["-a", s[1], "-b", s[2], "--json", s[1]], "float.sim"),
        (lambda s: ["-a", s[1], "-b", s[2], "--csv", shipped.SCRIPT], "is both an input and an output"),
        (lambda s: ["-a", s[1], "-b", s[2], "--html", min(shipped.TEST.iterdir())], "is both an input and an output"),
        (lambda s: ["-a", s[1], "-b", s[2], "--json", "report", "--csv", "report"], "is named for two outputs"),
        (lambda s: ["-a", s[1], "-b", s[2], "--samples", "0"], "--samples"),
    ],
)
def test_what_does_not_go_together_is_refused(
    arguments: Callable[[list[Path]], list[Any]], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*arguments(stages()), "-i", shipped.TEST, "-n", shipped.SCRIPT]
    capsys.readouterr()
    assert compare_models.main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: ") and told in err


def test_networks_without_a_common_tensor_are_refused(tmp_path: Path) -> None:
    build = GraphBuilder()
    other = build.output(conv(build, build.input("x", (1, 9, 7, 5)), 8, "elsewhere"))
    (tmp_path / "other").mkdir()
    graph = chain()
    built, second = Built(tmp_path, graph, noise(graph)), Built(tmp_path / "other", other, noise(other))
    second.calibrated()
    found = built.compared("float.sim", "other/fixed.sim")
    assert found.layers and set(found.unmatched) == {"elsewhere/codes", "elsewhere"}


def test_errors_that_add_up_are_no_layer_s(tmp_path: Path) -> None:
    """Sixty turns of peaky values, each good alone: the cause names the output and those that lose most."""
    rng, build = np.random.default_rng(5), GraphBuilder()
    x = build.input("x", (1, 6, 6, 8))
    for number in range(60):
        turn, _ = np.linalg.qr(np.eye(8) + rng.normal(0, 0.02, (8, 8)))
        weight = turn.astype(np.float32).reshape(8, 1, 1, 8)
        x = build("CONV_2D", x, weight, np.zeros(8, np.float32), output=f"y{number}", **window_node())
    samples = [{"x": rng.standard_t(3, (1, 6, 6, 8)).astype(np.float32)} for _ in range(3)]
    built = Built(tmp_path, build.output(x), samples)
    built.calibrated()
    found = built.compared()
    (cause,) = found.causes
    assert found.first_bad is None and cause.layer == "y59"
    assert cause.reason.startswith("No single layer is bad, but the errors of 6") and "y59" in cause.reason
    assert "--quant_level L5" in cause.remedy
    text = comparison_text(found)
    assert "What is wrong:\n1. y59: No single layer" in text and "First bad" not in text
