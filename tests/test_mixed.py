"""Mixed precision: sensitivities add up, the front is the convex hull of all choices, and plans are what was chosen."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgs.builder import GraphBuilder
from sgs.config.input_config import ConvSpec
from sgs.data.packed_array import packed
from sgs.engine import FixedEngine, FloatEngine, run_reference
from sgs.errors import UserError
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._window import window_node
from sgs.quant import mixed, sensitivity
from sgs.quant.boundary import codes_of_inputs, real_outputs
from sgs.quant.fidelity import Measure, energies, relative_error
from sgs.quant.front import TOLERANCE, Front, Size, sizes_of
from sgs.quant.levels import Calibration
from sgs.quant.mixed import Sensitivities, front, measure, pinned_bits, with_bits
from sgs.quant.plan import QuantPlan
from sgs.quant.statistics import measure_extrema
from sgs.registry import QUANTISE
from sgs.report.mixed import record, table, told_rates

PAIRS = [(4, 8), (8, 16)]
RATES = {(4, 8): (0.25, 0.3, 0.35, 0.4, 0.45), (8, 16): (0.5, 0.6, 0.75, 1.0)}


# -- networks ----------------------------------------------------------------------------------------------------------
def network(seed: int) -> Graph:
    """conv a → SiLU s → depthwise d; s + d → convolutions e (grouped) and f; joined → fully connected y."""
    rng = np.random.default_rng(seed)
    build = GraphBuilder()

    def mac(op: str, x: Tensor, shape: tuple[int, ...], name: str, **attrs: Any) -> Tensor:
        channels = shape[3] if op == "DEPTHWISE_CONV_2D" else shape[0]
        weight = rng.normal(0, 1.5 / np.sqrt(np.prod(shape) / channels), shape).astype(np.float32)
        return build(op, x, weight, rng.normal(0.1, 0.2, channels).astype(np.float32), output=name, **attrs)

    same = {"pads": (1, 1, 1, 1)}
    a = mac("CONV_2D", build.input("x", (1, 7, 9, 3)), (8, 3, 3, 3), "a", **window_node(**same))
    s = build("MUL", a, build("LOGISTIC", a), activation="NONE", output="s")
    d = mac("DEPTHWISE_CONV_2D", s, (1, 3, 3, 8), "d", **window_node(**same, activation="RELU6"))
    t = build("ADD", s, d, activation="NONE", output="t")
    e = mac("CONV_2D", t, (6, 3, 3, 4), "e", **window_node(**same, activation="RELU"))
    f = mac("CONV_2D", t, (5, 1, 1, 8), "f", **window_node())
    joined = build("CONCATENATION", e, f, axis=3, activation="NONE", output="j")
    return build.output(mac("FULLY_CONNECTED", joined, (10, 11), "y", activation="NONE", keep_num_dims=True))


MACS = ["a", "d", "e", "f", "y"]


def samples(count: int, seed: int = 1) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(0.2, 1, (1, 7, 9, 3)).astype(np.float32)} for _ in range(count)]


def start(seed: int = 0, **conv: Any) -> tuple[Calibration, QuantPlan]:
    """A calibration, and its plan with everything in 8 bits that is not forced."""
    graph, feeds = network(seed), samples(8)
    work = Calibration(graph, measure_extrema(graph, feeds, threads=1), feeds, ConvSpec(**conv), threads=1)
    return work, work.search_weights(work.initial_plan())


def choices(work: Calibration, plan: QuantPlan, pair: tuple[int, int]) -> Front:
    return front(measure(work, plan, pair), sizes_of(work.prepared), pair, pinned_bits(work))


def weights_of(work: Calibration) -> dict[str, Array]:
    nodes = {n.outputs[0]: n for n in work.prepared.nodes if n.outputs[0] in MACS}
    return {name: np.asarray(work.prepared[nodes[name].inputs[1] or ""].data) for name in MACS}


# -- sensitivities -----------------------------------------------------------------------------------------------------
def joint_error(work: Calibration, plan: QuantPlan, feeds: list[dict[str, Array]]) -> float:
    """Of the fixed network."""
    core = work.fixed(plan)
    fixed, real = FixedEngine(core, threads=1), FloatEngine(work.float_graph, threads=1)
    tables = []
    for feed in feeds:
        found = real_outputs(core, fixed.run(codes_of_inputs(core, feed)), ["y"])["y"]
        tables.append(energies(Measure("y", None), real.run(feed), found))
    return relative_error(np.stack(tables))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("pair", PAIRS)
def test_errors_add_up_to_those_of_joint_plans(seed: int, pair: tuple[int, int]) -> None:
    """To 1.5 dB, over errors from 16-bit ones to those of 4 bits, 20 dB and more apart."""
    work, plan = start(seed)
    found = choices(work, plan, pair)
    expected, measured = [], []
    for rate in RATES[pair]:
        point = found.at(rate)
        if max(point.error, 1e-12) > 1e-7:  # beyond which the 16-bit operators in between count
            expected.append(point.sqnr)
            measured.append(-10 * np.log10(joint_error(work, with_bits(work, plan, point.bits), work.samples)))
    assert len(expected) >= 3 and expected == sorted(expected)
    np.testing.assert_allclose(expected, measured, atol=1.5)


def test_each_error_is_that_of_a_plan_with_all_else_in_16_bit() -> None:
    work, plan = start()
    found = measure(work, plan, (4, 8)).errors
    assert list(found) == MACS and all(list(found[name]) == [16, 4, 8] for name in MACS)
    for name in MACS:
        assert found[name][16] == 0 < 20 * found[name][8] < found[name][4]
        for bits in (4, 8):
            alone = with_bits(work, plan, {**dict.fromkeys(MACS, 16), name: bits})
            assert joint_error(work, alone, work.samples) == pytest.approx(found[name][bits], rel=0.4)


def test_a_plan_with_bits_of_its_own_is_measured_in_them_too() -> None:
    work, plan = start()
    plan = plan.with_mac("f", bits=4)
    assert set(measure(work, plan, (8, 16)).errors["d"]) == {4, 8, 16}
    assert measure(work, plan, (8, 16)).errors["a"][8] == measure(work, start()[1], (8, 16)).errors["a"][8]


def test_refitted_weights_say_nothing_alone() -> None:
    work, plan = start()
    refitted = plan.with_mac("e", weight=np.zeros((6, 3, 3, 4)), weight_bound=np.full(6, 0.01), bias_shift=np.ones(6))
    assert measure(work, refitted, (4, 8)).errors == measure(work, plan, (4, 8)).errors


def test_large_networks_are_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    work, plan = start()
    whole = work.measure_sensitivities(plan)
    sizes = [array.nbytes for array in weights_of(work).values()]
    monkeypatch.setattr(sensitivity, "ROUNDED_BYTES", sizes[0] + sizes[1])
    parts = sensitivity._parts(work.prepared, MACS)
    assert sizes == [864, 288, 864, 160, 440] and parts == [["a", "d"], ["e", "f"], ["y"]]
    assert work.measure_sensitivities(plan) == whole
    monkeypatch.setattr(sensitivity, "ROUNDED_BYTES", 1)
    assert sensitivity._parts(work.prepared, MACS) == [[name] for name in MACS]


def test_progress_counts_sums_of_products() -> None:
    work, plan = start()
    told: list[tuple[str, int]] = []

    def wrap(items: Any, title: str) -> Any:
        told.append((title, len(items)))
        return items

    measure(work, plan, (8, 16), wrap=wrap)
    assert told == [("sensitivities, 8 bit", 5)]


# -- the file ----------------------------------------------------------------------------------------------------------
def test_a_file_is_read_in_place_of_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, plan = start()
    file = tmp_path / "sensitivities.json"
    found = measure(work, plan, (4, 8), file=file)
    assert Sensitivities.from_json(file.read_bytes()) == found
    monkeypatch.setattr(mixed, "_measured", lambda *args: pytest.fail("measured again"))
    assert measure(*start(), (4, 8), file=file) == found


@pytest.mark.parametrize("change", ["network", "samples", "plan", "pair"])
def test_a_file_of_something_else_is_measured_again(change: str, tmp_path: Path) -> None:
    work, plan = start()
    file = tmp_path / "sensitivities.json"
    first = measure(work, plan, (4, 8), file=file)
    pair = (4, 8)
    if change == "network":
        work, plan = start(seed=1)
    elif change == "samples":
        work.samples = samples(8, seed=2)
    elif change == "plan":
        plan = plan.with_mac("a", weight_bound=plan.macs["a"].weight_bound * 0.9)
    else:
        pair = (8, 16)
    again = measure(work, plan, pair, file=file)
    assert again.key != first.key and json.loads(file.read_text())["key"] == again.key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "\xff",
        '{"format": "sensitivities 0", "key": "", "errors": {}}',
        '{"format": "sensitivities 1", "errors": {}}',
        '{"format": "sensitivities 1", "key": "K", "errors": {"a": {"5": 0.1}}}',
        '{"format": "sensitivities 1", "key": "K", "errors": {"a": 0.1}}',
        '{"format": "sensitivities 1", "key": "K", "errors": {"a": {"4": NaN}}}',
        '{"format": "sensitivities 1", "key": "K", "errors": {"a": {"4": -1}}}',
    ],
)
def test_a_damaged_file_is_no_file(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work, plan = start()
    file = tmp_path / "sensitivities.json"
    file.write_text(text, encoding="latin-1")
    with caplog.at_level(logging.WARNING, "sgs.quant.mixed"):
        found = measure(work, plan, (8, 16), file=file)
    assert Sensitivities.from_json(file.read_bytes()) == found
    (told,) = caplog.messages
    assert str(file) in told and told.endswith("sensitivities are measured again")


@pytest.mark.parametrize("edit", ["name", "bits"])
def test_a_file_that_lacks_something_is_measured_again(
    edit: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work, plan = start()
    file = tmp_path / "sensitivities.json"
    found = measure(work, plan, (4, 8), file=file)
    told = json.loads(file.read_text())
    told["errors"].pop("d") if edit == "name" else told["errors"]["d"].pop("4")
    file.write_text(json.dumps(told))
    assert measure(work, plan, (4, 8), file=file) == found == Sensitivities.from_json(file.read_bytes())
    assert "has been edited" in caplog.text


# -- the front ---------------------------------------------------------------------------------------------------------
def random_front(seed: int, pair: tuple[int, int], pinned: int = 0) -> Front:
    """Of 4 to 8 sums of products of sizes and errors that are decades apart, some of them alike."""
    rng = np.random.default_rng(seed)
    names = [f"n{k}" for k in range(rng.integers(4, 9))]
    sizes = {n: Size(int(10 ** rng.uniform(1, 4)), int(10 ** rng.uniform(2, 5))) for n in names}
    errors = {}
    for name in names:
        low = float(10 ** rng.uniform(-5, -1))
        errors[name] = {pair[0]: low, pair[1]: low * float(rng.choice([0.0, 0.01, 0.5, 1.0, 1.2])), 16: 0.0}
    fixed = dict.fromkeys(rng.permutation(names)[:pinned], 16)
    return Front(pair, sizes, errors, fixed)


def every_choice(found: Front) -> list[tuple[float, float, dict[str, int]]]:
    """(rate, error, bits) of all choices there are, each computed from its definition."""
    free = [name for name in found.sizes if name not in found.pinned]
    total = 16 * sum(size.weights for size in found.sizes.values())
    choices = []
    for widths in product(found.pair, repeat=len(free)):
        bits = {**found.pinned, **dict(zip(free, widths, strict=True))}
        rate = sum(bits[name] * found.sizes[name].weights for name in bits) / total
        choices.append((rate, sum(found.errors[name][bits[name]] for name in bits), bits))
    return choices


CASES = [(seed, PAIRS[seed % 2], seed % 3) for seed in range(24)]


def chord(points: list[tuple[float, float]], rate: float) -> float:
    """What lies on the line through points, at this rate."""
    rates, errors = zip(*points, strict=True)
    return float(np.interp(rate, rates, errors))


@pytest.mark.parametrize(("seed", "pair", "pinned"), CASES)
def test_points_are_the_convex_hull_of_all_choices(seed: int, pair: tuple[int, int], pinned: int) -> None:
    found = random_front(seed, pair, pinned)
    points = [(point.rate, point.error) for point in found.points]
    assert points == sorted(points) and len(set(points)) == len(points)
    slopes = np.diff([error for _, error in points]) / np.diff([rate for rate, _ in points])
    assert (slopes < 0).all() and (np.diff(slopes) >= -1e-9).all()
    known = {tuple(sorted(bits.items())): (rate, error) for rate, error, bits in every_choice(found)}
    for point in found.points:
        assert known[tuple(sorted(point.bits.items()))] == pytest.approx((point.rate, point.error))
    for rate, error, _ in every_choice(found):
        assert error >= chord(points, rate) * (1 - 1e-9)
    assert found.lowest == min(rate for rate, _, _ in every_choice(found))
    assert found.highest == pytest.approx(max(rate for rate, _, _ in every_choice(found)))


def test_no_rate_is_exceeded_and_nearly_all_give_the_best_choice() -> None:
    """Of all choices there are; never better than that, and never worse than the point of the hull below."""
    met, worst = [], 1.0
    for seed, pair, pinned in CASES:
        found = random_front(seed, pair, pinned)
        every = every_choice(found)
        for rate in np.linspace(found.lowest, found.highest, 21).tolist():
            point = found.at(rate)
            best = min(error for reached, error, _ in every if reached <= rate + 1e-9)
            below = max((p for p in found.points if p.rate <= rate + 1e-9), key=lambda p: p.rate)
            assert point.rate <= rate + 1e-8 and best * (1 - 1e-9) <= point.error <= below.error * (1 + 1e-9)
            met.append(point.error < best * (1 + 1e-6))
            worst = max(worst, point.error / max(best, 1e-30))
        assert found.at(2.0) == found.at(found.highest)
    assert np.mean(met) > 0.9 and worst < 3


def test_what_gains_nothing_is_not_raised() -> None:
    sizes = {"same": Size(10, 1), "worse": Size(20, 1), "better": Size(30, 2)}
    errors = {"same": {4: 0.1, 8: 0.1}, "worse": {4: 0.1, 8: 0.2}, "better": {4: 0.2, 8: 0.1}}
    found = Front((4, 8), sizes, errors, {})
    assert [dict(point.bits) for point in found.points] == [
        {"same": 4, "worse": 4, "better": 4},
        {"same": 4, "worse": 4, "better": 8},
    ]
    assert found.at(0.5) == found.at(0.25 + 30 / 240) == found.points[1]
    assert found.highest == 0.5


def test_points_say_what_they_take() -> None:
    sizes = {"a": Size(7, 100), "b": Size(9, 300), "c": Size(16, 600)}
    errors = dict.fromkeys(sizes, {4: 0.3, 8: 0.1, 16: 0.0})
    point = Front((4, 8), sizes, errors, {"c": 16}).at(0.7)
    assert point.bits == {"a": 8, "b": 4, "c": 16} and point.weight_bytes == 7 + 5 + 32
    assert (point.rate, point.error) == (pytest.approx((4 * 9 + 8 * 7 + 16 * 16) / (16 * 32)), pytest.approx(0.4))
    assert point.raised_macs == pytest.approx(0.7)
    assert point.sqnr == pytest.approx(3.979, abs=1e-3)


def test_a_rate_that_pinned_ones_forbid_is_refused_with_what_is_possible() -> None:
    sizes = {"a": Size(100, 1), "b": Size(300, 1)}
    errors = dict.fromkeys(sizes, {4: 0.2, 8: 0.1, 16: 0.0})
    found = Front((4, 8), sizes, errors, {"b": 16})
    with pytest.raises(UserError) as refused:
        found.at(0.35)
    assert "mp_rate 0.35" in str(refused.value) and "1 sums of products" in str(refused.value)
    assert "0.8125 to 0.875" in str(refused.value)
    assert found.at(0.8125).bits == {"a": 4, "b": 16}
    with pytest.raises(UserError, match=r"ask for 0\.25 to 0\.5"):
        Front((4, 8), sizes, errors, {}).at(0.2)


@pytest.mark.parametrize(("seed", "pair", "pinned"), CASES)
@pytest.mark.parametrize("tolerance", [TOLERANCE, 1e-4, 1.0])
def test_the_least_rate_that_is_good_enough_is_recommended(
    seed: int, pair: tuple[int, int], pinned: int, tolerance: float
) -> None:
    found = random_front(seed, pair, pinned)
    limit = max(tolerance, 2 * found.points[-1].error)
    rate = found.recommended_rate(tolerance)
    assert rate == pytest.approx(round(rate, 2)) and found.recommended(tolerance) == found.at(rate)
    assert found.at(rate).error <= limit
    lower = np.arange(np.ceil(found.lowest * 100 - 1e-9), round(rate * 100)) / 100
    assert all(found.at(float(less)).error > limit for less in lower)


# -- plans -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("pair", PAIRS)
def test_the_fixed_graph_has_the_bits_chosen_and_computes_them_exactly(pair: tuple[int, int]) -> None:
    work, plan = start()
    found = choices(work, plan, pair)
    point = found.at(RATES[pair][2])
    assert len(set(point.bits.values())) == 2
    mixed_plan = with_bits(work, plan, point.bits)
    core = work.fixed(mixed_plan)
    types = {n.outputs[0]: core[n.inputs[1] or ""].dtype for n in core.nodes if n.outputs[0] in MACS}
    assert types == {name: {4: DType.INT4, 8: DType.INT8, 16: DType.INT16}[bits] for name, bits in point.bits.items()}
    weights = weights_of(work)
    total = sum(weights[name].size * bits for name, bits in point.bits.items())
    assert point.rate == pytest.approx(total / (16 * sum(w.size for w in weights.values())))
    codes = codes_of_inputs(core, samples(1, seed=7)[0])
    engine, reference = FixedEngine(core, threads=1).run(codes), run_reference(core, codes)
    assert all(np.array_equal(engine[name], reference[name]) for name in core.outputs)


def test_bounds_are_those_of_least_squared_error_in_4_bits() -> None:
    """Within a fifth of what a finer search finds, and below the largest weight in most channels; in 8 bits those
    of the levels, in 16 the largest weight."""
    work, plan = start()
    coarse = with_bits(work, plan, dict.fromkeys(MACS, 4))
    shares = []
    for name, weight in weights_of(work).items():
        axis = QUANTISE[work.prepared.producers()[name].op].channel_axis
        rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(float)
        for row, bound in zip(rows, coarse.macs[name].weight_bound, strict=True):
            tried = np.append(np.linspace(0.3, 1, 300), bound / np.abs(row).max())
            step = tried[:, None] * np.abs(row).max() / 7
            errors = ((row - np.clip(np.rint(row / step), -7, 7) * step) ** 2).sum(1)
            assert errors[-1] <= errors[-2] * (1 + 1e-9) and errors[-1] <= errors.min() * 1.2
            shares.append(tried[-1])
    assert min(shares) < 0.9 and np.median(shares) < 1
    again = with_bits(work, coarse, dict.fromkeys(MACS, 8))
    assert all(again.macs[n].weight_bound.tolist() == plan.macs[n].weight_bound.tolist() for n in MACS)
    wide = with_bits(work, plan, {"e": 16}).macs["e"]
    assert wide.weight_bound.tolist() == np.abs(weights_of(work)["e"]).reshape(6, -1).max(1).tolist()


def test_refitted_weights_stay_where_the_precision_does() -> None:
    work, plan = start()
    weight = weights_of(work)["e"] * np.float32(0.97)
    plan = plan.with_mac("e", weight=weight, bias=np.zeros(6)).with_mac("f", weight=weights_of(work)["f"] * 0)
    after = with_bits(work, plan, {**dict.fromkeys(MACS, 8), "f": 4, "y": 16})
    assert after.macs["e"].weight is not None and packed(after.macs["e"].weight) == packed(weight)
    assert after.macs["f"].weight is None and after.macs["f"].bias is None and after.macs["f"].bits == 4
    assert after.macs["e"].weight_bound.tolist() == plan.macs["e"].weight_bound.tolist()
    assert (after.ranges, after.narrow) == (plan.ranges, plan.narrow)


def test_biases_are_corrected_where_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    work, plan = start()
    bits = dict.fromkeys(MACS, 4)
    after = with_bits(work, plan, bits)
    plain = replace(after, macs={name: replace(mac, bias_shift=None) for name, mac in after.macs.items()})
    assert work.output_sqnr(after) > work.output_sqnr(plain) + 0.3
    assert all(mac.bias_shift is not None for mac in after.macs.values())
    shifted = {name: replace(mac, bias_shift=mac.weight_bound * 9) for name, mac in after.macs.items()}
    monkeypatch.setattr(work, "with_biases", lambda plan, samples: replace(plan, macs=shifted))
    kept = with_bits(work, plan, bits)
    assert all(mac.bias_shift is None for mac in kept.macs.values())


def test_tensor_arrays_stay_in_16_bit() -> None:
    work, plan = start(tensor_arrays=("t",), input_format="ALL_UINT8")
    assert pinned_bits(work) == {"e": 16, "f": 16}
    found = choices(work, plan, (4, 8))
    assert all(point.bits["e"] == point.bits["f"] == 16 for point in found.points)
    assert with_bits(work, plan, found.at(found.lowest).bits).macs["e"].bits == 16
    with pytest.raises(UserError, match="2 sums of products"):
        found.at(0.3)


# -- the report --------------------------------------------------------------------------------------------------------
def test_the_table_has_rates_in_steps_and_what_was_chosen() -> None:
    sizes = {"a": Size(1000, 10), "b": Size(3000, 30)}
    errors = {"a": {4: 0.1, 8: 0.001}, "b": {4: 0.01, 8: 0.001}}
    found = Front((4, 8), sizes, errors, {})
    lines = table(found, found.at(0.4), 23.456).splitlines()
    assert told_rates(found) == [0.25, 0.3, 0.35, 0.4, 0.45, 0.5]
    assert [line.split()[0] for line in lines[2:8]] == ["0.25", "0.3", "0.35", "0.4", "0.45", "0.5"]
    assert lines[2].split() == ["0.25", "9.59", "2,000", "0.0%"]
    assert lines[5].split() == ["0.4", "19.59", "2,500", "25.0%"]
    assert lines[-1].split() == ["0.3125", "19.59", "23.46", "2,500", "25.0%"]
    assert max(map(len, lines)) <= 80
    told = json.loads(json.dumps(record(found, found.at(0.4), 23.456)))
    assert told["precisions"] == [4, 8] and [row["mp_rate"] for row in told["rates"]] == told_rates(found)
    assert told["chosen"]["bits"] == {"a": 8, "b": 4} and told["chosen"]["measured"] == 23.456
    assert told["chosen"]["mp_rate"] == told["rates"][3]["reached"] == 0.3125


def test_the_table_starts_at_the_least_rate_there_is() -> None:
    sizes = {"a": Size(1000, 10), "b": Size(300, 30)}
    errors = dict.fromkeys(sizes, {8: 0.001, 16: 0.0})
    assert told_rates(Front((8, 16), sizes, errors, {"b": 16})) == [
        pytest.approx((8 * 1000 + 16 * 300) / (16 * 1300)),
        *[0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0],
    ]


def test_nothing_is_expected_of_16_bits_alone() -> None:
    found = Front((8, 16), {"a": Size(1000, 10)}, {"a": {8: 0.01, 16: 0.0}}, {})
    lines = table(found, found.at(0.5)).splitlines()
    assert lines[2].split() == ["0.5", "20.00", "1,000", "0.0%"] and lines[-3].split() == ["1", "2,000", "100.0%"]
    assert [row["expected"] for row in record(found, found.at(1.0))["rates"]][::10] == [20.0, None]
