"""Trap detectors: a crafted network for each trap, its numbers, a healthy twin without findings, and the cures."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sgs.builder import GraphBuilder
from sgs.config.chips import load_chip
from sgs.config.input_config import InputConfig, parse_input_config
from sgs.data.preprocess import Preprocessor
from sgs.engine import FixedEngine, FloatEngine, run_reference
from sgs.errors import UserError
from sgs.img import OfflineEngine
from sgs.ir import Graph, Tensor, violations
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._window import window_node
from sgs.pipelines import (
    Calibrated,
    CalibrationOptions,
    apply_plan,
    calibrate,
    compile_fixed,
    plan_record,
    read_plan,
)
from sgs.quant.boundary import codes_of_inputs, real_outputs
from sgs.quant.equalise import equalised
from sgs.quant.export import exported
from sgs.quant.levels import Calibration, searched_tensors
from sgs.quant.parameters import parse_parameters, unused, with_parameters
from sgs.quant.ports import ports_of
from sgs.quant.prepare import prepare
from sgs.quant.statistics import measure_extrema, measure_histograms
from sgs.quant.traps import (
    ALIKE,
    CONSTANT,
    DEAD_CHANNELS,
    INPUTS,
    NORMALISATION,
    RANGES_APART,
    WEIGHT_OUTLIERS,
    Evidence,
    Finding,
    find_traps,
    summary,
)
from sgs.sim import sim_bytes

Feeds = Sequence[dict[str, Array]]


def ini(graph: Graph, *, kind: str = "RAWDATA_F32_NHWC", dequantize: bool = True, pictures: str = "") -> InputConfig:
    """All inputs of one kind, all outputs real numbers or codes; `pictures`: mean and std_value lines."""
    lines = ["[INPUT_CONFIG]", f"inputs={','.join(graph.inputs)};"]
    lines += [f"{key}={','.join([kind] * len(graph.inputs))};" for key in ("training_input_formats", "input_formats")]
    lines += [pictures, "[OUTPUT_CONFIG]", f"outputs={','.join(graph.outputs)};"]
    lines += [f"dequantizations={','.join([str(dequantize).upper()] * len(graph.outputs))};"]
    return parse_input_config("\n".join(lines) + "\n", Path("input_config.ini"))


def noise(graph: Graph, count: int = 12, seed: int = 1) -> Feeds:
    rng = np.random.default_rng(seed)
    return [{n: rng.normal(0, 1, graph[n].shape).astype(np.float32) for n in graph.inputs} for _ in range(count)]


def work_on(graph: Graph, feeds: Feeds, config: InputConfig) -> Calibration:
    extrema = measure_extrema(graph, feeds, threads=1)
    statistics = measure_histograms(graph, feeds, searched_tensors(prepare(graph)), extrema, threads=1)
    return Calibration(graph, statistics, feeds, config.conv, ports=ports_of(config, graph), threads=1)


def found(
    graph: Graph, feeds: Feeds | None = None, config: InputConfig | None = None, level: str = "L1"
) -> tuple[Finding, ...]:
    """All findings of a calibration."""
    feeds, config = noise(graph) if feeds is None else feeds, config or ini(graph)
    work = work_on(graph, feeds, config)
    plan = work.run(level)
    return find_traps(Evidence(work.prepared, work.statistics, plan, work.fixed(plan), feeds, config))


def conv(build: GraphBuilder, x: Tensor, channels: int, name: str, scale: float = 1.0, **window: Any) -> Tensor:
    """A 1×1 convolution without bias whose results are about `scale` times as large as x."""
    rng = np.random.default_rng([channels, len(name)])
    weight = rng.normal(0, scale * x.shape[-1] ** -0.5, (channels, 1, 1, x.shape[-1])).astype(np.float32)
    return build("CONV_2D", x, weight, np.zeros(channels, np.float32), output=name, **window_node(**window))


def decibels(real: Array, truth: Array) -> float:
    return float(10 * np.log10((truth.astype(np.float64) ** 2).sum() / ((real - truth.astype(np.float64)) ** 2).sum()))


# -- ranges far apart --------------------------------------------------------------------------------------------------
def head(boxes: float, scores: float, *, parted: bool = False) -> Graph:
    """4 channels of boxes and 6 of scores joined in one output [1, 63, 10]; `parted`: taken apart again behind it."""
    build = GraphBuilder()
    features = conv(build, build.input("x", (1, 9, 7, 5)), 16, "features", activation="RELU")
    parts = conv(build, features, 4, "boxes", boxes / 4), conv(build, features, 6, "scores", scores / 4)
    joined = build("CONCATENATION", *parts, axis=3, output="joined", name="join")
    flat = build("RESHAPE", joined, shape=(1, 63, 10), output="flat" if parted else "y")
    if not parted:
        return build.output(flat)
    ends = {"first": ((0, 0, 0), (1, 63, 4)), "last": ((0, 0, 4), (1, 63, 10))}
    first, last = (
        build("STRIDED_SLICE", flat, begin=begin, end=end, strides=(1, 1, 1), output=name)
        for name, (begin, end) in ends.items()
    )
    slopes = np.linspace(0.5, 2, 4, dtype=np.float32)
    return build.output(build("RELU", last, output="z"), build("MUL", first, slopes, activation="NONE"))


def sqnr_of_parts(graph: Graph, work: Calibration, core: Graph) -> tuple[float, float]:
    """Of the boxes and of the scores in output y, each on its own, on a sample that was not calibrated on; reference,
    engine and offline agree about the integers."""
    sample = noise(graph, 1, seed=9)[0]
    feeds = codes_of_inputs(core, sample)
    values, truth = FixedEngine(core, threads=1).run(feeds), FloatEngine(graph, threads=1).run(sample)["y"]
    assert np.array_equal(values["y"], run_reference(core, feeds)["y"])
    assert np.array_equal(values["y"], OfflineEngine(compile_fixed(core, load_chip("pcupid"))).run(feeds)["y"])
    real = real_outputs(core, values, ["y"])["y"]
    return decibels(real[..., :4], truth[..., :4]), decibels(real[..., 4:], truth[..., 4:])


@pytest.mark.parametrize("level", ["L1", "L3", "L5"])
def test_scores_beside_boxes_keep_codes_of_their_own(level: str) -> None:
    graph = head(500.0, 1e-3)
    work = work_on(graph, noise(graph), ini(graph))
    plan = work.run(level)
    core = work.fixed(plan)
    assert {core[name].dtype for name in ("joined", "y")} == {DType.FLOAT32}
    boxes, scores = sqnr_of_parts(graph, work, core)
    assert boxes > 30 and scores > 20
    (finding,) = found(graph, level=level)
    assert (finding.trap, finding.where) == (RANGES_APART, "CONCATENATION 'join'")
    reach = {name: max(map(abs, work.statistics.tensors[name].span)) for name in ("boxes", "scores")}
    times = reach["boxes"] / reach["scores"]
    assert finding.numbers.startswith(f"'boxes' reaches {reach['boxes']:.3g}, 'scores' {reach['scores']:.3g}, ")
    assert finding.numbers.endswith(f", {times:.0f} times less") and times > 1e5
    assert finding.outcome == "cured: they are joined as real numbers, each from codes of its own"


def test_codes_of_one_output_share_a_scale_whatever_they_hold() -> None:
    """What leaves as codes has one scale, so nothing can be cured; the finding says what the user may do."""
    graph = head(500.0, 1e-3)
    config = ini(graph, dequantize=False)
    work = work_on(graph, noise(graph), config)
    core = work.fixed(work.run("L1"))
    assert core["y"].dtype is DType.INT16
    assert sqnr_of_parts(graph, work, core)[1] == pytest.approx(0, abs=0.1)
    (finding,) = found(graph, config=config)
    assert finding.outcome.startswith("0 of 32767 codes are left to the smaller one; return outputs")


def test_bytes_of_one_output_share_a_scale_as_well() -> None:
    graph = head(500.0, 1e-3)
    config = ini(graph)
    config = replace(config, outputs=tuple(replace(spec, format="RAWDATA_U8_NHWC") for spec in config.outputs))
    (finding,) = found(graph, config=config)
    assert finding.outcome.startswith(
        "0 of 255 codes are left to the smaller one in output 'y'; return it as RAWDATA_F32"
    )


def test_heads_of_like_ranges_are_joined_as_codes() -> None:
    graph = head(3.0, 1.0)
    work = work_on(graph, noise(graph), ini(graph))
    core = work.fixed(work.run("L1"))
    assert core["y"].dtype is DType.INT16 and "DEQUANTIZE" not in {node.op for node in core.nodes}
    assert min(sqnr_of_parts(graph, work, core)) > 30
    assert found(graph) == ()


def test_a_moderate_distance_is_harmless_in_16_bits() -> None:
    graph = head(50.0, 1.0)
    (finding,) = found(graph)
    assert finding.outcome.startswith("harmless: ") and "of 32767 codes are left" in finding.outcome
    assert 256 < int(finding.outcome.split()[1]) < 32767 / 16
    work = work_on(graph, noise(graph), ini(graph))
    assert min(sqnr_of_parts(graph, work, work.fixed(work.run("L1")))) > 30


def test_parts_that_are_taken_out_again_have_their_own_codes() -> None:
    graph = head(500.0, 1e-3, parted=True)
    work = work_on(graph, noise(graph), ini(graph))
    core = work.fixed(work.run("L1"))
    assert [core[name].dtype for name in ("scores", "flat", "last", "last/int16")] == [
        DType.INT16,
        DType.FLOAT32,
        DType.FLOAT32,
        DType.INT16,
    ]
    sample = noise(graph, 1, seed=9)[0]
    values = FixedEngine(core, threads=1).run(codes_of_inputs(core, sample))
    assert np.array_equal(values["z"], run_reference(core, codes_of_inputs(core, sample))["z"])
    assert decibels(real_outputs(core, values, ["z"])["z"], FloatEngine(graph, threads=1).run(sample)["z"]) > 20


def test_a_graph_joined_as_real_numbers_comes_back(tmp_path: Path) -> None:
    graph = head(500.0, 1e-3)
    work = work_on(graph, noise(graph), ini(graph))
    core = work.fixed(work.run("L2"))
    parameters = parse_parameters(exported(core))
    assert {p.name for p in parameters} >= {"boxes", "scores", "features"}
    again = work.fixed(with_parameters(work.initial_plan(), graph, parameters))
    assert unused(parameters, graph, again) == []
    assert sim_bytes(again, "fixed") == sim_bytes(core, "fixed")


def joined_ahead_of_a_convolution(small: float) -> Graph:
    build = GraphBuilder()
    x = build.input("x", (1, 9, 7, 5))
    a, b = conv(build, x, 6, "a", activation="RELU"), conv(build, x, 4, "b", small)
    sums = build("ADD", b, build("MAXIMUM", b, np.float32([0.0])), activation="NONE", output="sums")
    joined = build("CONCATENATION", a, sums, axis=3, output="joined", name="join")
    return build.output(conv(build, joined, 3, "y"))


def test_operands_joined_ahead_of_a_convolution() -> None:
    graph = joined_ahead_of_a_convolution(0.01)
    (finding,) = found(graph)
    assert (finding.trap, finding.where) == (RANGES_APART, "CONCATENATION 'join'")
    codes = float(finding.outcome.split()[0])
    assert 1 <= codes < 255 / 16
    assert "of 255 codes are left to the smaller one in " in finding.outcome and "tensor_arrays" in finding.outcome
    wide = replace(ini(graph), conv=replace(ini(graph).conv, tensor_arrays=("joined",)))
    (finding,) = found(graph, config=wide)
    assert finding.outcome.startswith("harmless: ")
    assert found(joined_ahead_of_a_convolution(1.0)) == ()


def balanced(small: float) -> Graph:
    """conv + RELU, conv + SiLU and a picture joined ahead of a convolution, those of the first two `small` times as
    large as the picture; what reads them makes up for it."""
    build = GraphBuilder()
    x = build.input("x", (1, 9, 7, 5))
    a, b = conv(build, x, 6, "a", small, activation="RELU"), conv(build, x, 4, "b", small)
    s = build("MUL", b, build("TANH", b), activation="NONE", output="s")
    joined = build("CONCATENATION", a, x, s, axis=3, output="joined", name="join")
    y = conv(build, joined, 3, "y")
    weight = build.graph[build.graph.nodes[-1].inputs[1] or ""].data
    assert weight is not None
    weight[..., :6] /= small
    weight[..., 11:] /= small**2
    return build.output(y)


@pytest.mark.parametrize("names", [("a",), ("s", "b"), ("joined",), ("a", "joined"), ("a", "b", "s", "joined")])
def test_scales_that_somebody_edited_leave_the_function_alone(names: tuple[str, ...]) -> None:
    """Also where those of what is joined are not those of the whole."""
    graph = balanced(0.1)
    scales = {name: np.geomspace(0.5, 20, graph[name].shape[-1]) for name in names}
    changed = equalised(graph, scales)
    assert violations(changed) == [] and any(t.name.endswith("/scale") for t in changed.tensors.values())
    (sample,) = noise(graph, 1)
    kept = [name for name in names if name in changed.tensors]  # what nobody reads scaled is not scaled
    assert kept
    truth, real = (FloatEngine(either, threads=1, extra=kept).run(sample) for either in (graph, changed))
    np.testing.assert_allclose(real["y"], truth["y"], rtol=1e-4, atol=1e-4 * np.abs(truth["y"]).max())
    for name in kept:
        np.testing.assert_allclose(real[name], truth[name] * scales[name], rtol=1e-4, atol=1e-6)


def added(op: str, small: float, *, wide: bool = True) -> Graph:
    """conv + conv (or another operator), an output of its own (`wide`) or read by an 8-bit convolution."""
    build = GraphBuilder()
    x = build.input("x", (1, 9, 7, 5))
    y = build(op, conv(build, x, 6, "a"), conv(build, x, 6, "bb", small), activation="RELU", output="y", name="meet")
    return build.output(y if wide else conv(build, y, 3, "z"))


@pytest.mark.parametrize("op", ["ADD", "SUB"])
def test_added_operands_have_codes_of_their_own(op: str) -> None:
    graph = added(op, 0.01)
    (finding,) = found(graph)
    assert (finding.trap, finding.where) == (RANGES_APART, f"{op} 'meet'")
    assert finding.outcome.startswith("harmless: each has 16-bit codes of its own, and the smaller one moves")
    (finding,) = found(added(op, 0.01, wide=False))
    assert " of 255 codes; name 'y' in [CONV_CONFIG] tensor_arrays" in finding.outcome
    assert found(added(op, 0.5)) == ()


def test_factors_may_be_far_apart() -> None:
    assert found(added("MUL", 0.001)) == ()


def test_small_operands_of_a_sum_are_not_lost() -> None:
    """ADD of operands 100 times apart: the part that comes from the smaller one, in the 16-bit sum."""
    build = GraphBuilder()
    x, u = build.input("x", (1, 9, 7, 5)), build.input("u", (1, 9, 7, 5))
    graph = build.output(build("ADD", x, build("MUL", u, np.float32([0.01]), activation="NONE"), activation="NONE"))
    feeds = noise(graph)
    work = work_on(graph, feeds, ini(graph))
    core = work.fixed(work.run("L1"))
    (name,) = graph.outputs
    values = FixedEngine(core, threads=1).run(codes_of_inputs(core, feeds[0]))
    real = real_outputs(core, values, [name])[name]
    assert decibels(real - feeds[0]["x"], 0.01 * feeds[0]["u"]) > 35


# -- channels and weights ----------------------------------------------------------------------------------------------
def with_weights(change: Any) -> Graph:
    """conv of 40 → 12 channels, 3×3, whose weight and bias `change` edits, and one behind it."""
    rng = np.random.default_rng(3)
    weight, bias = rng.normal(0, 0.1, (12, 3, 3, 40)).astype(np.float32), rng.normal(0, 0.1, 12).astype(np.float32)
    change(weight, bias)
    build = GraphBuilder()
    x = build.input("x", (1, 9, 7, 40))
    y = build("CONV_2D", x, weight, bias, output="c", name="conv", **window_node(pads=(1, 1, 1, 1), activation="RELU"))
    return build.output(conv(build, y, 3, "y"))


def nothing(weight: Array, bias: Array) -> None:
    """Leaves the network healthy."""


def test_dead_channels() -> None:
    def kill(weight: Array, bias: Array) -> None:
        bias[[2, 7]] = -100
        weight[9], bias[9] = 0, 0.5

    (finding,) = found(with_weights(kill))
    assert (finding.trap, finding.where) == (DEAD_CHANNELS, "CONV_2D 'conv'")
    assert (finding.numbers, finding.channels) == ("3 of 12 never change", (2, 7, 9))
    assert finding.outcome.startswith("harmless")
    assert found(with_weights(nothing)) == ()


def test_a_weight_far_beyond_the_others() -> None:
    def spike(weight: Array, bias: Array) -> None:
        weight[4, 1, 1, 5] = 5.0

    for level, clipped in (("L1", "not clipped"), ("L2", "clipped at ")):
        (finding,) = found(with_weights(spike), level=level)
        assert (finding.trap, finding.where) == (WEIGHT_OUTLIERS, "CONV_2D 'conv'")
        assert "the largest weight of channel 4 is 18 times the root mean square" in finding.numbers
        assert "in 1 of 12 channels" in finding.numbers and finding.channels == (4,)
        assert finding.outcome.startswith("held in 8 bits") and (level == "L1") == (clipped in finding.outcome)


def test_a_channel_with_weights_far_beyond_the_others() -> None:
    def blow(weight: Array, bias: Array) -> None:
        weight[6] *= 100

    (finding,) = found(with_weights(blow))
    assert finding.trap == WEIGHT_OUTLIERS and finding.outcome.startswith("harmless") and finding.channels == (6,)
    assert "weights of channel 6 are " in finding.numbers
    assert 80 < float(finding.numbers.split()[5]) < 130


# -- what the network is fed -------------------------------------------------------------------------------------------
PICTURES = "mean=100:110:120;\nstd_value=50:60:70;"
MEAN, STD = np.float32([100, 110, 120]), np.float32([50, 60, 70])


def pictures(change: Any = lambda levels: levels, count: int = 12) -> tuple[Graph, Feeds, InputConfig]:
    """A network fed RGB pictures of uniform noise, after `change` of their grey levels."""
    build = GraphBuilder()
    graph = build.output(conv(build, build.input("x", (1, 20, 24, 3)), 5, "y"))
    rng = np.random.default_rng(5)
    levels = [np.asarray(change(rng.uniform(0, 255, (1, 20, 24, 3))), np.float32) for _ in range(count)]
    feeds = [{"x": ((picture - MEAN) / STD).astype(np.float32)} for picture in levels]
    return graph, feeds, ini(graph, kind="RGB", pictures=PICTURES)


def test_pictures_over_the_whole_range_are_healthy() -> None:
    assert found(*pictures()) == ()


@pytest.mark.parametrize(
    ("change", "numbers"),
    [
        (lambda levels: np.minimum(levels * 1.6, 255), "0% of the pixels are at 0, 37% at 255"),
        (lambda levels: np.where(levels < 240, 0, levels), "94% of the pixels are at 0, 0% at 255"),
        (lambda levels: levels * 0.5 + 60, "grey levels beyond 60 to 187 were never seen"),
        (lambda levels: levels * 2 - 128, "the script gives grey levels -128 to 382 by mean and std_value"),
    ],
)
def test_pictures_at_the_ends_of_their_range(change: Any, numbers: str) -> None:
    findings = found(*pictures(change))
    assert {(finding.trap, finding.where) for finding in findings} == {(INPUTS, "input 'x'")}
    assert numbers in [finding.numbers for finding in findings]


def test_raw_data_with_a_marker_among_its_values() -> None:
    build = GraphBuilder()
    graph = build.output(conv(build, build.input("x", (1, 300, 400, 3)), 5, "y"))
    feeds = noise(graph)
    assert found(graph, feeds) == ()
    feeds[0]["x"][0, 5, 6, 1] = -9999
    findings = [finding for finding in found(graph, feeds) if finding.trap == INPUTS]
    times = 9999 / np.sqrt(np.mean([np.square(f["x"].astype(np.float64)).mean() for f in feeds]))
    assert [f.numbers for f in findings] == [f"the largest magnitude 1e+04 is {times:.0f} times the root mean square"]


def test_samples_that_are_all_alike() -> None:
    graph, feeds, config = pictures()
    rng = np.random.default_rng(6)
    near = [{"x": feeds[0]["x"] + rng.normal(0, 0.02, (1, 20, 24, 3)).astype(np.float32)} for _ in range(12)]
    (finding,) = found(graph, near, config)
    assert finding.trap == ALIKE and finding.numbers.startswith("half of the pairs differ by less than ")


def test_samples_that_are_there_twice() -> None:
    graph, feeds, config = pictures()
    (finding,) = found(graph, [*feeds, feeds[3], feeds[3], feeds[7]], config)
    assert (finding.trap, finding.numbers) == (ALIKE, "3 of 15 that were compared are as good as the same as another")


@pytest.mark.parametrize(("count", "numbers"), [(1, "1 sample"), (7, "7 samples")])
def test_few_samples(count: int, numbers: str) -> None:
    (finding,) = found(*pictures(count=count))
    assert (finding.trap, finding.numbers) == (ALIKE, numbers)
    assert found(*pictures(count=8)) == ()


# -- what comes out ----------------------------------------------------------------------------------------------------
def test_an_output_that_is_always_zero() -> None:
    build = GraphBuilder()
    x = build.input("x", (1, 9, 7, 4))
    weight, bias = np.ones((3, 1, 1, 4), np.float32), np.full(3, -50, np.float32)
    dead = build("CONV_2D", x, weight, bias, output="dead", **window_node(activation="RELU"))
    graph = build.output(conv(build, x, 5, "alive"), build("MAX_POOL_2D", dead, output="y", **POOL))
    first, second = found(graph)
    assert (first.trap, first.where, first.numbers) == (CONSTANT, "output 'y'", "is 0 everywhere on all samples")
    assert first.outcome.startswith("check the network")
    assert (second.where, second.outcome[:8]) == ("tensor 'dead'", "harmless")
    assert found(GraphBuilder(only(graph, "alive")).graph) == ()


POOL = {"kernel": (3, 3), "strides": (1, 1), "pads": (0, 0, 0, 0), "activation": "NONE"}


def only(graph: Graph, output: str) -> Graph:
    copy = graph.copy()
    copy.outputs = [output]
    copy.prune()
    return copy


# -- from the pipeline -------------------------------------------------------------------------------------------------
SCRIPT = """import cv2
import numpy as np


def image_preprocess(path, norm=True):
    image = cv2.imread(str(path))[None, :, :, ::-1]
    mean, std = np.array([100, 110, 120]), np.array([50, 60, 70])
    return ((image - mean) / std).astype(np.float32) if norm else np.ascontiguousarray(image)
"""


def calibrated(folder: Path, graph: Graph, *, level: str = "L1", values: str = PICTURES) -> Calibrated:
    """On 9 pictures of noise in `folder`."""
    rng = np.random.default_rng(8)
    for index in range(9):
        picture = rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)
        picture[0, 0] = 20 * index
        cv2.imwrite(str(folder / f"{index}.png"), picture)
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    config = ini(graph, kind="RGB", pictures=values)
    samples = [(path,) for path in sorted(folder.glob("*.png"))]
    options = CalibrationOptions(level, processes=1)
    return calibrate(graph, config, [Preprocessor(folder / "script.py")], samples, options)


def detector(*, broken_by: int | None = None) -> Graph:
    """A head with boxes and scores far apart; it divides by zero on the picture of that number."""
    build = GraphBuilder()
    x = build.input("x", (1, 20, 24, 3))
    boxes, scores = conv(build, x, 4, "boxes", 300.0), conv(build, x, 6, "scores", 1e-3)
    if broken_by is not None:
        corner = build("STRIDED_SLICE", x, begin=(0, 0, 0, 0), end=(1, 1, 1, 1), strides=(1, 1, 1, 1))
        red = np.float32([(20 * broken_by - 100) / 50])
        scores = build("DIV", scores, build("SUB", corner, red, activation="NONE"), activation="NONE", name="ratio")
    return build.output(build("CONCATENATION", boxes, scores, axis=3, output="y", name="join"))


def test_findings_are_told_in_one_line_each_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        result = calibrated(tmp_path, detector())
    assert [finding.trap for finding in result.findings] == [RANGES_APART]
    assert [record.getMessage() for record in caplog.records] == summary(result.findings)
    (line,) = summary(result.findings)
    assert line.startswith("ranges far apart: CONCATENATION 'join': 'boxes' reaches ") and "; cured: " in line
    assert "\n" not in line


def test_a_plan_keeps_what_is_joined_as_real_numbers(tmp_path: Path) -> None:
    first = calibrated(tmp_path, detector(), level="L3")
    (tmp_path / "plan.json").write_text(plan_record(first), encoding="utf-8")
    plan, history = read_plan(tmp_path / "plan.json")
    config = ini(detector(), kind="RGB", pictures=PICTURES)
    assert sim_bytes(apply_plan(detector(), config, plan, history), "fixed") == sim_bytes(first.graph, "fixed")
    assert first.graph["y"].dtype is DType.FLOAT32
    assert json.loads(plan_record(first))["ranges"].keys() >= {"boxes", "y"}


def test_several_findings_of_a_trap_are_one_line() -> None:
    findings = [Finding("dead", f"node {k}", f"{k} channels", "harmless") for k in (3, 2, 1)] + [
        Finding("few", "list", "1 sample", "more")
    ]
    assert summary(findings) == ["dead: node 3: 3 channels; harmless (and 2 more)", "few: list: 1 sample; more"]


def test_a_wrong_mean_is_called_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        calibrated(tmp_path, detector(), values="mean=0:0:0;\nstd_value=50:60:70;")
    assert caught.value.reason.startswith(f"{NORMALISATION}: 'x': channel R: ")
    assert caught.value.node == "[INPUT_CONFIG] mean, line 5"


def test_values_that_are_not_finite_name_operator_and_picture(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        calibrated(tmp_path, detector(broken_by=6))
    error = caught.value
    assert (error.node, error.file) == ("DIV 'ratio'", str(tmp_path / "6.png"))
    assert error.reason == "the float network gives values that are not finite, first in tensor 'ratio'"
