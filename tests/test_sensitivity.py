"""What 8 bits do to one sum of products, and through it to the outputs: measures against plain simulations.

The simulations cut the network at the sum of products: its operand and weights are rounded in numpy, what follows runs
from its result on as a network of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from one_node import by_channel, sum_of_products, weight_of
from sgs.builder import GraphBuilder
from sgs.config.input_config import ConvSpec
from sgs.engine import FloatEngine
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import Array
from sgs.ops._window import window_node
from sgs.quant import sensitivity
from sgs.quant.levels import Calibration
from sgs.quant.plan import QuantPlan, TensorRange
from sgs.quant.sensitivity import OutputErrors, Trial, operand_trials, rounded_weight
from sgs.quant.statistics import measure_extrema

MACS = ["a", "d", "g", "t", "y"]
CLAMPS = {"NONE": (-np.inf, np.inf), "RELU": (0, np.inf), "RELU6": (0, 6)}


def network() -> Graph:
    """conv a → SiLU s → depthwise d; a + d → grouped g → transposed t, an output; d → mean → fully connected y."""
    rng = np.random.default_rng(0)
    build = GraphBuilder()

    def mac(op: str, x: Tensor, shape: tuple[int, ...], name: str, *, bias: bool = True, **attrs: Any) -> Tensor:
        channels = shape[3] if op == "DEPTHWISE_CONV_2D" else shape[0]
        weight = rng.normal(0, 1.5 / np.sqrt(np.prod(shape) / channels), shape).astype(np.float32)
        offset = rng.normal(0.4, 0.3, channels).astype(np.float32) if bias else None
        return build(op, x, weight, offset, output=name, **attrs)

    same = {"pads": (1, 1, 1, 1)}
    a = mac("CONV_2D", build.input("x", (1, 5, 7, 3)), (8, 3, 3, 3), "a", **window_node(**same))
    s = build("MUL", a, build("LOGISTIC", a), activation="NONE", output="s")
    d = mac("DEPTHWISE_CONV_2D", s, (1, 3, 3, 8), "d", **window_node(**same, activation="RELU6"))
    e = build("ADD", a, d, activation="NONE", output="e")
    g = mac("CONV_2D", e, (6, 3, 3, 4), "g", bias=False, **window_node(strides=(2, 2), activation="RELU"))
    turned = {"activation": "NONE", "strides": (2, 2), "size": (4, 6), "pads": (0, 0, 0, 0)}
    t = mac("TRANSPOSE_CONV", g, (4, 2, 2, 6), "t", **turned)
    m = build("MEAN", d, axes=(1, 2), keep_dims=False, output="m")
    return build.output(t, mac("FULLY_CONNECTED", m, (5, 8), "y", activation="NONE", keep_num_dims=True))


GRAPH = network()


def samples(count: int, seed: int = 1) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(0.2, 1 + 0.3 * k, (1, 5, 7, 3)).astype(np.float32)} for k in range(count)]


def calibration(count: int = 3) -> Calibration:
    feeds = samples(count)
    return Calibration(GRAPH, measure_extrema(GRAPH, feeds, threads=1), feeds, ConvSpec(), threads=1)


def as_codes(values: Array, low: float, high: float) -> Array:
    """Real values after rounding to UINT8 codes of a range that holds 0."""
    scale = np.float32((high - low) / 255)
    zero = np.rint(-low / scale)
    return np.asarray((np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale, np.float32)


def as_weights(plan: QuantPlan, name: str) -> Array:
    """Weights after rounding to INT8."""
    _, weight, axis = weight_of(GRAPH, name)
    step = by_channel(plan.macs[name].weight_bound / 127, axis, weight.ndim)
    step = np.where(step > 0, step, 1.0)
    return np.asarray(np.clip(np.rint(weight / step), -127, 127) * step)


def operand_of(name: str, feed: dict[str, Array]) -> Array:
    source = weight_of(GRAPH, name)[0].inputs[0] or ""
    return feed[source] if source in feed else FloatEngine(GRAPH, threads=1, extra=[source]).run(feed)[source]


def disturbed(name: str, feed: dict[str, Array], plan: QuantPlan, span: TensorRange, shift: Array) -> dict[str, Array]:
    """The outputs with this sum of products in 8 bits, less `shift`."""
    node, _, _ = weight_of(GRAPH, name)
    rounded = sum_of_products(
        GRAPH, name, as_codes(operand_of(name, feed), span.low, span.high), as_weights(plan, name)
    )
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    result = rounded - shift.astype(np.float32) + (0 if bias is None else GRAPH[bias].data)
    result = np.clip(result, *CLAMPS[node.attrs["activation"]]).astype(np.float32)
    if name in GRAPH.outputs:
        return {**FloatEngine(GRAPH, threads=1).run(feed), name: result}
    rest = GRAPH.copy()
    rest.nodes = [other for other in rest.nodes if other.outputs != [name]]
    rest.inputs.append(name)
    return FloatEngine(rest, threads=1).run({**feed, name: result})


def energy(found: dict[str, Array], truth: dict[str, Array]) -> float:
    """Mean over the outputs of Σ(y_q - y)² / Σy²."""
    parts = [((found[n].astype(float) - y) ** 2).sum() / (y.astype(float) ** 2).sum() for n, y in truth.items()]
    return float(np.mean(parts))


# -- one sum of products -----------------------------------------------------------------------------------------------
RANGES = [TensorRange(-1.5, 2.5, "clipped"), TensorRange(-8.0, 8.0, "wide"), TensorRange(0.0, 3.0, "positive")]


@pytest.mark.parametrize("name", MACS)
def test_trials_are_what_all_positions_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "ROWS", 10_000)  # all of them
    work, feeds = calibration(), samples(3)
    plan = work.search_weights(work.initial_plan())
    source = weight_of(GRAPH, name)[0].inputs[0] or ""
    trials = operand_trials(GRAPH, work.prepared, plan, feeds, {source: RANGES})[name]
    assert [trial.range for trial in trials] == RANGES
    weight, channels = weight_of(GRAPH, name)[1], GRAPH[name].shape[-1]
    operands = [operand_of(name, feed) for feed in feeds]
    truth = np.concatenate([sum_of_products(GRAPH, name, x, weight).reshape(-1, channels) for x in operands]).astype(
        float
    )
    for trial in trials:
        rounded = [as_codes(x, trial.range.low, trial.range.high) for x in operands]
        found = [sum_of_products(GRAPH, name, x, as_weights(plan, name)).reshape(-1, channels) for x in rounded]
        off = np.concatenate(found) - truth
        np.testing.assert_allclose(trial.shift, off.mean(0), rtol=1e-3, atol=1e-5)
        assert trial.error == pytest.approx(off.var(0).sum() / truth.var(0).sum(), rel=1e-3)
    errors = [trial.error for trial in trials]
    assert len(set(errors)) == 3 and min(errors) > 1e-7


def test_trials_are_of_the_plans_range_where_no_others_are_given() -> None:
    work = calibration()
    plan = work.initial_plan()
    plan.narrow["s"] = TensorRange(-0.2, 1.0, "clipped")
    trials = operand_trials(GRAPH, work.prepared, plan, samples(3), {"e": RANGES[:2]})
    assert list(trials) == MACS
    assert [len(trials[name]) for name in MACS] == [1, 1, 2, 1, 1]
    assert trials["d"][0].range == plan.narrow["s"] and trials["a"][0].range == plan.narrow["x"]
    assert trials["a"][0].shift.shape == (8,) and trials["y"][0].shift.shape == (5,)


def test_some_positions_say_nearly_the_same_as_all(monkeypatch: pytest.MonkeyPatch) -> None:
    work, feeds = calibration(), samples(12)
    errors = []
    for rows in (1, 10_000):  # as few as there may be, and all
        monkeypatch.setattr(sensitivity, "ROWS", rows)
        trials = operand_trials(GRAPH, work.prepared, work.initial_plan(), feeds, {})
        errors.append([trials[name][0].error for name in ("a", "d", "g")])
    np.testing.assert_allclose(errors[0], errors[1], rtol=0.3)
    assert errors[0] != errors[1]


@pytest.mark.parametrize("name", MACS)
def test_weights_are_those_of_the_plans_bounds(name: str) -> None:
    plan = calibration().initial_plan()
    plan = plan.with_mac(name, weight_bound=plan.macs[name].weight_bound * 0.8)  # some are clamped
    _, weight, axis = weight_of(GRAPH, name)
    rounded = rounded_weight(plan, name, weight, axis)
    np.testing.assert_allclose(rounded, as_weights(plan, name), rtol=1e-6, atol=1e-9)
    largest = np.abs(np.moveaxis(rounded, axis, 0)).reshape(rounded.shape[axis], -1).max(1)
    np.testing.assert_allclose(largest, plan.macs[name].weight_bound, rtol=1e-6)


# -- at the outputs ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shifted", [False, True])
def test_errors_at_the_outputs_are_those_of_a_simulation(shifted: bool) -> None:
    work, feeds = calibration(), samples(3, seed=4)
    plan = work.search_weights(work.initial_plan())
    operands = dict.fromkeys(("x", "s", "e", "g", "m"), RANGES)
    trials = operand_trials(GRAPH, work.prepared, plan, feeds, operands)
    tried = [(name, trial) for name in MACS for trial in trials[name]]
    if not shifted:
        tried = [(name, Trial(trial.range, trial.error, np.zeros(trial.shift.shape))) for name, trial in tried]
    found = list(OutputErrors(GRAPH, work.prepared, plan, feeds).measure(tried))
    for (name, trial), error in zip(tried, found, strict=True):
        wanted = []
        for feed in feeds:
            truth = FloatEngine(GRAPH, threads=1).run(feed)
            wanted.append(energy(disturbed(name, feed, plan, trial.range, trial.shift), truth))
        assert error == pytest.approx(np.mean(wanted), rel=2e-3), (name, trial.range)
    assert len(set(found)) == 15 and min(found) > 1e-6


def test_taking_out_the_shift_helps() -> None:
    work, feeds = calibration(), samples(3)
    plan = work.initial_plan()
    (trial,) = operand_trials(GRAPH, work.prepared, plan, feeds, {"m": [TensorRange(0.0, 1.0)]})["y"]
    kept = Trial(trial.range, trial.error, np.zeros(5))
    corrected, plain = OutputErrors(GRAPH, work.prepared, plan, feeds).measure([("y", trial), ("y", kept)])
    assert corrected < 0.7 * plain


def test_with_all_switches_off_the_network_is_the_float_one() -> None:
    work, feeds = calibration(), samples(2)
    errors = OutputErrors(GRAPH, work.prepared, work.initial_plan(), feeds)
    engine = FloatEngine(GRAPH, threads=1)
    for feed, values in zip(feeds, errors._truths, strict=True):
        for name, value in engine.run(feed).items():
            assert np.array_equal(values[GRAPH.outputs.index(name)], value)


def test_what_8_bits_hold_exactly_costs_nothing() -> None:
    """Whole numbers in, whole weights; one switch on after the other, many at a time."""
    rng = np.random.default_rng(0)
    build = GraphBuilder()
    x = build.input("x", (1, 4, 5, 3))
    first, last = (rng.integers(-1, 2, shape).astype(np.float32) for shape in ((6, 1, 1, 3), (2, 3, 3, 6)))
    first[:, 0, 0, 0] = last[:, 0, 0, 0] = 127
    first[:, 0, 0, 1:] *= 3
    a = build("CONV_2D", x, first, None, output="a", **window_node(activation="RELU"))
    graph = build.output(build("CONV_2D", a, last, None, output="y", **window_node(pads=(1, 1, 1, 1))))
    feeds = [{"x": rng.integers(-2, 2, (1, 4, 5, 3)).astype(np.float32)} for _ in range(3)]
    work = Calibration(graph, measure_extrema(graph, feeds, threads=1), feeds, ConvSpec(), threads=1)
    exact = Trial(TensorRange(-127.0, 128.0), 0.0, np.zeros(6)), Trial(TensorRange(0.0, 510.0), 0.0, np.zeros(2))
    pairs = [("a", exact[0]), ("y", exact[1])] * 20
    found = np.array(list(OutputErrors(graph, work.prepared, work.initial_plan(), feeds).measure(pairs))).reshape(20, 2)
    assert (found[:, 0] == 0).all() and (found[:, 1] == found[0, 1]).all() and 0 < found[0, 1] < 1e-4
