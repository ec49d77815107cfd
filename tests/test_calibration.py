"""Plans and what becomes of them: storage, ranges, promotion, bias correction, and what cannot be quantised."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sgs.builder import GraphBuilder
from sgs.config.input_config import ConvSpec
from sgs.engine import FixedEngine, FloatEngine, run_reference
from sgs.errors import UserError
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._window import window_node
from sgs.pipelines import CalibrationOptions, warn_of_promotion
from sgs.quant.boundary import codes_of_inputs, real_outputs
from sgs.quant.levels import LEVELS, Calibration, searched_tensors
from sgs.quant.plan import TensorRange
from sgs.quant.ports import Ports
from sgs.quant.prepare import prepare
from sgs.quant.statistics import measure_extrema, measure_histograms


def network(seed: int = 0) -> Graph:
    """conv → SiLU → depthwise → add → conv, and a second output."""
    rng = np.random.default_rng(seed)
    build = GraphBuilder()
    x = build.input("x", (1, 13, 11, 4))

    def conv(op: str, tensor: Tensor, shape: tuple[int, ...], name: str, **window: Any) -> Tensor:
        channels = shape[3] if op == "DEPTHWISE_CONV_2D" else shape[0]
        weight = rng.normal(0, 0.4, shape).astype(np.float32)
        bias = rng.normal(0, 0.2, channels).astype(np.float32)
        return build(op, tensor, weight, bias, output=name, **window_node(**window))

    a = conv("CONV_2D", x, (8, 3, 3, 4), "a", pads=(1, 1, 1, 1))
    s = build("MUL", a, build("LOGISTIC", a), activation="NONE", output="s")
    d = conv("DEPTHWISE_CONV_2D", s, (1, 3, 3, 8), "d", pads=(1, 1, 1, 1), activation="RELU")
    e = build("ADD", s, d, activation="NONE", output="e")
    return build.output(conv("CONV_2D", e, (5, 1, 1, 8), "y"), build("MAXIMUM", e, np.float32([0.1]), output="z"))


def samples(graph: Graph, count: int, seed: int = 1) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    return [{n: rng.normal(0, 1, graph[n].shape).astype(np.float32) for n in graph.inputs} for _ in range(count)]


def calibration(graph: Graph, conv: ConvSpec | None = None, **options: Any) -> Calibration:
    feeds = samples(graph, 6)
    extrema = measure_extrema(graph, feeds, threads=1)
    statistics = measure_histograms(graph, feeds, searched_tensors(prepare(graph)), extrema, threads=1)
    return Calibration(graph, statistics, feeds, conv or ConvSpec(), threads=1, **options)


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_is_exact_and_close_to_float(level: str) -> None:
    graph = network()
    work = calibration(graph)
    core = work.fixed(work.run(level))
    for sample in samples(graph, 2, seed=9):
        feeds = codes_of_inputs(core, sample)
        values, truth = FixedEngine(core, threads=1).run(feeds), run_reference(core, feeds)
        floats = FloatEngine(graph, threads=1).run(sample)
        for name, real in real_outputs(core, values, core.outputs).items():
            assert np.array_equal(values[name], truth[name])
            assert np.sqrt(np.mean((real - floats[name]) ** 2)) < 0.02 * floats[name].std()


def test_levels_never_get_worse_on_their_own_samples() -> None:
    work = calibration(network())
    found = [work.output_sqnr(work.run(level)) for level in LEVELS]
    assert found == sorted(found)
    assert work.output_sqnr(work.run("L1")) == found[0]  # a run leaves nothing behind


def judged_apart() -> Calibration:
    """24 samples, every third of which judges; the largest values are those of a judge."""
    graph = network()
    feeds = samples(graph, 24)
    feeds[6] = {name: 2 * value for name, value in feeds[6].items()}
    extrema = measure_extrema(graph, feeds, threads=1)
    statistics = measure_histograms(graph, feeds, searched_tensors(prepare(graph)), extrema, threads=1)
    return Calibration(graph, statistics, feeds, ConvSpec(), threads=1)


def test_judges_meet_values_beyond_the_ranges() -> None:
    work = judged_apart()
    others = measure_extrema(work.float_graph, [s for i, s in enumerate(work.samples) if i % 3], threads=1).tensors
    plan = work.initial_plan()
    clipped = {"e": TensorRange(-1e-3, others["e"].span[1] * 1.01, "clipped"), "y": TensorRange(-1, 9, "known")}
    plan = replace(plan, narrow={**plan.narrow, **clipped})
    judged = work.without_judges(plan)
    low, high = others["s"].span
    assert (judged.narrow["s"].low, judged.narrow["s"].high) == pytest.approx((low, high))
    assert (judged.ranges["s"].low, judged.ranges["s"].high) == pytest.approx((1.5 * low, 1.5 * high))
    assert judged.narrow["e"].low == -1e-3 and judged.narrow["e"].high == pytest.approx(others["e"].span[1])
    assert judged.narrow["y"] == clipped["y"]
    assert plan.narrow["s"].high > 1.2 * high  # which a judge alone has
    assert work.output_sqnr(plan, unseen=True) < work.output_sqnr(plan) - 1


def test_a_run_leaves_nothing_behind() -> None:
    work = judged_apart()
    plan = work.initial_plan()
    before = work.output_sqnr(plan), work.output_sqnr(plan, unseen=True)
    first = work.run("L4")
    work.run("L5"), work.run("L1")
    assert (work.output_sqnr(plan), work.output_sqnr(plan, unseen=True)) == before
    assert work.run("L4").to_json() == first.to_json()


def test_few_samples_all_judge_and_are_fitted_to() -> None:
    work = calibration(network())
    plan = work.initial_plan()
    assert [id(sample) for sample in work.judges] == [id(sample) for sample in work.samples]
    assert work.without_judges(plan) is plan
    one = Calibration(work.float_graph, work.statistics, work.samples[:1], ConvSpec(), threads=1)
    assert one.without_judges(plan) is plan and np.isfinite(one.output_sqnr(one.run("L5")))


def test_promotion_keeps_the_best_of_its_trials() -> None:
    """What goes to 16 bit at the threshold is tried beside what the budget allows."""
    scores = []
    for strictness in (1.0, 0.1):
        work = calibration(network(), threshold=1e-4, max_int16_macs=1.0)
        work._strictness = strictness
        scores.append(work.output_sqnr(work.promote(work.initial_plan())))
    assert scores[1] >= scores[0] > calibration(network()).output_sqnr(work.initial_plan())


def test_headroom_stays_finite() -> None:
    """A mask adds the most negative number there is."""
    build = GraphBuilder()
    x, mask = build.input("x", (1, 5)), build.input("mask", (1, 5))
    least = np.full((1, 5), -3e38, np.float32)
    y = build("ADD", x, build("MUL", mask, least, activation="NONE"), activation="NONE", output="y")
    graph = build.output(build("SOFTMAX", y, beta=1.0, output="p"))
    feeds = samples(graph, 4)
    for feed in feeds:
        feed["mask"] = np.float32([[0, 0, 1, 0, 1]])
    work = Calibration(graph, measure_extrema(graph, feeds, threads=1), feeds, ConvSpec(), threads=1)
    assert np.isfinite(work.output_sqnr(work.run("L1")))


def test_no_threshold_promotes_and_a_large_one_does_not() -> None:
    strict, lax = calibration(network(), threshold=0.0), calibration(network(), threshold=1.0)
    plans = strict.run("L4"), lax.run("L4")
    bits = [[mac.bits for mac in plan.macs.values()] for plan in plans]
    assert 16 in bits[0] and bits[1] == [8, 8, 8]


def test_clipped_ranges_are_for_8_bit_codes_only() -> None:
    work = calibration(network())
    plan = work.initial_plan()
    plan = replace(plan, narrow={"s": TensorRange(-0.1, 0.5, "test"), "e": TensorRange(-0.2, 0.4, "test")})
    core = work.fixed(plan)
    assert core["s"].dtype is DType.INT16 and core["s"].quant is not None  # read by ADD as well
    assert float(core["s"].quant.high[0]) == pytest.approx(plan.ranges["s"].high)
    narrow = core["s/uint8"].quant
    assert narrow is not None and float(narrow.high[0]) == pytest.approx(0.5)


def test_an_input_fed_as_codes_is_int16_whoever_reads_it() -> None:
    build = GraphBuilder()
    weight = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 1, 1, 3)
    y = build("CONV_2D", build.input("x", (1, 5, 6, 3)), weight, np.zeros(4, np.float32), **window_node(), output="y")
    graph = build.output(y)
    assert calibration(graph).fixed(calibration(graph).initial_plan())["x"].dtype is DType.UINT8
    wide = calibration(graph, ports=Ports(frozenset({"x"})))
    assert wide.fixed(wide.initial_plan())["x"].dtype is DType.INT16


def test_bias_correction_makes_means_equal() -> None:
    graph = network()
    work = calibration(graph)
    plan = work.initial_plan()
    errors = []
    for candidate in (plan, work.with_biases(plan, len(work.samples))):
        core = work.fixed(candidate)
        total = np.zeros(5)
        for sample in work.samples:
            values = FixedEngine(core, threads=1).run(codes_of_inputs(core, sample))
            real = real_outputs(core, values, ["y"])["y"]
            total += (real - FloatEngine(graph, threads=1).run(sample)["y"]).mean(axis=(0, 1, 2))
        errors.append(np.abs(total / len(work.samples)).max())
    assert errors[1] < 0.6 * errors[0]  # on two samples more than it was fitted to


@pytest.mark.parametrize("width", [3, 4000])
def test_sums_of_wide_fully_connected_layers_do_not_overflow(width: int) -> None:
    build = GraphBuilder()
    weight = np.where(np.arange(4 * width * 49).reshape(4, -1) % 2, 1.0, -1.0).astype(np.float32)
    x = build.input("x", (1, width * 49))
    graph = build.output(
        build("FULLY_CONNECTED", x, weight, np.ones(4, np.float32), activation="NONE", keep_num_dims=True, output="y")
    )
    work = calibration(graph)
    core = work.fixed(work.initial_plan())
    feeds = {"x": np.full(core["x"].shape, 255, np.uint8)}
    assert np.array_equal(FixedEngine(core, threads=1).run(feeds)["y"], run_reference(core, feeds)["y"])


def test_what_integers_cannot_stand_for_names_the_node() -> None:
    build = GraphBuilder()
    x = build.input("x", (1, 5))
    graph = build.output(build("MINIMUM", x, np.float32([np.inf, 1, 2, 3, 4]), name="cap", output="y"))
    work = calibration(graph)
    with pytest.raises(UserError, match="MINIMUM 'cap'.*cannot be quantised"):
        work.fixed(work.initial_plan())


@pytest.mark.parametrize(("level", "told"), [("L1", True), ("L3", True), ("L4", False)])
def test_settings_of_promotion_have_no_say_below_l4(level: str, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_promotion(level, CalibrationOptions(level, max_int16_macs=0.5))
    assert ("--max_int16_macs: no say" in caplog.text) is told
    warn_of_promotion(level, CalibrationOptions(level))
    assert "--sensitivity_threshold" not in caplog.text
