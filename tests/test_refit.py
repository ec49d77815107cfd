"""Biases and weights refitted in order, each judged by what the finished network gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from one_node import by_channel, sum_of_products, weight_of
from sgs.builder import GraphBuilder
from sgs.config.input_config import ConvSpec
from sgs.engine import FixedEngine, FloatEngine
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import Array, dequantise
from sgs.ops._window import window_node
from sgs.quant import refit
from sgs.quant.boundary import codes_of_inputs
from sgs.quant.levels import Calibration
from sgs.quant.plan import QuantPlan
from sgs.quant.refit import refitted
from sgs.quant.statistics import measure_extrema

MACS = ["a", "d", "g", "t", "y"]


def network() -> Graph:
    """conv a → SiLU → depthwise d → grouped g (a dead channel in it) → transposed t → fully connected y."""
    rng = np.random.default_rng(0)
    build = GraphBuilder()

    def mac(op: str, x: Tensor, shape: tuple[int, ...], name: str, **attrs: Any) -> Tensor:
        channels = shape[3] if op == "DEPTHWISE_CONV_2D" else shape[0]
        weight = rng.normal(0, 1.6 / np.sqrt(np.prod(shape) / channels), shape).astype(np.float32)
        bias = rng.normal(0, 0.3, channels).astype(np.float32)
        if name == "g":
            weight[2], bias[2] = 0, -1
        return build(op, x, weight, bias, output=name, **attrs)

    same = {"pads": (1, 1, 1, 1)}
    a = mac("CONV_2D", build.input("x", (1, 7, 9, 3)), (8, 3, 3, 3), "a", **window_node(**same))
    s = build("MUL", a, build("LOGISTIC", a), activation="NONE", output="s")
    d = mac("DEPTHWISE_CONV_2D", s, (1, 3, 3, 8), "d", **window_node(**same, activation="RELU"))
    g = mac("CONV_2D", d, (6, 3, 3, 4), "g", **window_node(strides=(2, 2), activation="RELU"))
    turned = {"activation": "NONE", "strides": (2, 2), "size": (6, 8), "pads": (0, 0, 0, 0)}
    t = mac("TRANSPOSE_CONV", g, (4, 2, 2, 6), "t", **turned)
    return build.output(mac("FULLY_CONNECTED", t, (5, 4), "y", activation="NONE", keep_num_dims=True))


GRAPH = network()


def samples(count: int, seed: int = 1) -> list[dict[str, Array]]:
    """Smooth pictures with a little noise."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        smooth = rng.normal(0.3, 1, (1, 3, 3, 3)).repeat(3, axis=1).repeat(3, axis=2)[:, :7]
        found.append({"x": (smooth + rng.normal(0, 0.1, smooth.shape)).astype(np.float32)})
    return found


def start(bits: Mapping[str, int]) -> tuple[Calibration, QuantPlan]:
    """A calibration, and a plan of min/max ranges."""
    feeds = samples(6)
    work = Calibration(GRAPH, measure_extrema(GRAPH, feeds, threads=1), feeds, ConvSpec(), threads=1)
    plan = work.initial_plan()
    for name, wanted in bits.items():
        plan = plan.with_mac(name, bits=wanted)
    return work, plan


def found(bits: Mapping[str, int], feeds: list[dict[str, Array]], **options: Any) -> tuple[QuantPlan, Graph, Graph]:
    """(plan before, plan after as a fixed graph ...)."""
    work, plan = start(bits)
    core = work.fixed(plan)
    codes = [codes_of_inputs(core, feed) for feed in feeds]
    after = refitted(GRAPH, work.prepared, core, plan, feeds, codes, **options)
    assert after == replace(plan, macs=after.macs) and list(after.macs) == MACS
    assert {name: mac.bits for name, mac in after.macs.items()} == {name: mac.bits for name, mac in plan.macs.items()}
    return after, work.fixed(after), core


def lacks(core: Graph, name: str, feed: dict[str, Array], *, nearest: bool = False) -> Array:
    """[..., O]: what the float network's sum of products has more than the fixed one's, biases of both apart.

    `nearest`: the fixed one with the float weights rounded to nearest instead of those it has.
    """
    node, weight, axis = weight_of(GRAPH, name)
    fixed = next(n for n in core.nodes if n.outputs == [name])
    operand, codes = core[fixed.inputs[0] or ""], core[fixed.inputs[1] or ""]
    assert operand.quant is not None and codes.quant is not None and codes.data is not None
    values = FixedEngine(core, threads=1, extra=[operand.name]).run(codes_of_inputs(core, feed))[operand.name]
    rounded = dequantise(codes.data, codes.quant)
    if nearest:
        limit = codes.dtype.qmax
        step = by_channel(
            np.abs(np.moveaxis(weight, axis, 0)).reshape(weight.shape[axis], -1).max(1), axis, weight.ndim
        )
        step = np.where(step > 0, step / limit, 1.0)
        rounded = np.clip(np.rint(weight / step), -limit, limit) * step
    source = node.inputs[0] or ""
    real = feed[source] if source in feed else FloatEngine(GRAPH, threads=1, extra=[source]).run(feed)[source]
    difference = sum_of_products(GRAPH, name, real, weight).astype(np.float64)
    return np.asarray(difference - sum_of_products(GRAPH, name, dequantise(values, operand.quant), rounded))


def means(core: Graph, name: str, feeds: list[dict[str, Array]]) -> Array:
    """Mean of what is lacking in every sample, [S, O]."""
    return np.stack([lacks(core, name, feed).reshape(-1, GRAPH[name].shape[-1]).mean(0) for feed in feeds])


def agreed(shifts: Array) -> Array:
    """Of numbers [S, O]: their mean, times 1 - s² / S / mean² where that is above 0."""
    mean, scatter = shifts.mean(0), shifts.var(0, ddof=1) / len(shifts)
    return np.asarray(mean * np.clip(1 - scatter / np.maximum(mean**2, 1e-30), 0, 1))


@pytest.mark.parametrize("bits", [{}, {"d": 16}, {"a": 4, "t": 4}])
@pytest.mark.parametrize("weights", [False, True])
def test_one_sample_has_all_its_means_put_right(bits: Mapping[str, int], weights: bool) -> None:
    feeds = samples(2 if weights else 1)
    after, fixed, before = found(bits, feeds, weights=weights, held=int(weights))
    for name in MACS:
        shift = after.macs[name].bias_shift
        assert shift is not None and shift.shape == (GRAPH[name].shape[-1],)
        left, lacked = means(fixed, name, feeds[:1])[0] - shift, means(before, name, feeds[:1])[0]
        assert np.abs(left).max() < (
            1e-5 if name not in bits or bits[name] < 16 else 5e-4
        )  # scales of 16 bits are wider
        if name != "a" or 4 in bits.values():
            assert np.abs(lacked).max() > 1e-4


@pytest.mark.parametrize("weights", [False, True])
def test_each_bias_is_fitted_to_the_operands_that_the_network_ends_up_with(weights: bool) -> None:
    feeds = samples(7)
    after, fixed, _ = found({"g": 4}, feeds, weights=weights, held=3 if weights else 0)
    for name in MACS:
        wanted = agreed(means(fixed, name, feeds[:4] if weights else feeds))
        np.testing.assert_allclose(after.macs[name].bias_shift, wanted, rtol=1e-3, atol=2e-5)


def test_means_of_the_outputs_come_right() -> None:
    feeds, truth = samples(8), FloatEngine(GRAPH, threads=1)
    off = []
    for core in found(dict.fromkeys(MACS, 4), feeds, weights=False)[:0:-1]:  # before, after
        engine, quant = FixedEngine(core, threads=1), core["y"].quant
        assert quant is not None
        values = [dequantise(engine.run(codes_of_inputs(core, f))["y"], quant) - truth.run(f)["y"] for f in feeds]
        off.append(float(np.abs(np.mean(values, axis=(0, 1, 2, 3))).max()))
    assert off[1] < 0.3 * off[0]


def gains(
    after: QuantPlan, fixed: Graph, fit: list[dict[str, Array]], judges: list[dict[str, Array]]
) -> dict[str, float]:
    """Squared error of every sum on the judges with the float weights rounded to nearest, over that of the plan's."""
    found = {}
    for name in MACS:
        nearest = [lacks(fixed, name, feed, nearest=True) for feed in (*fit, *judges)]
        mean = agreed(np.stack([v.reshape(-1, v.shape[-1]).mean(0) for v in nearest[: len(fit)]]))
        before = sum(float(((v - mean) ** 2).sum()) for v in nearest[len(fit) :])
        shift = after.macs[name].bias_shift
        found[name] = before / sum(float(((lacks(fixed, name, feed) - shift) ** 2).sum()) for feed in judges)
        if after.macs[name].weight is None:
            assert found[name] == pytest.approx(1, rel=1e-3)
    return found


def test_weights_change_where_samples_of_their_own_gain() -> None:
    feeds = samples(12)
    after, fixed, _ = found(dict.fromkeys(MACS, 4), feeds, weights=True, held=5)
    gain = gains(after, fixed, feeds[:7], feeds[7:])
    assert min(gain.values()) > 0.999 and gain["a"] > 1.2 and gain["d"] > 1.1, gain


def test_weights_that_only_suit_what_they_were_fitted_to_are_left() -> None:
    fit, judges = samples(2), samples(5, seed=2)
    sign = np.where(np.indices((7, 9, 3)).sum(0) % 2, 1, -1)
    fit = [{"x": (feed["x"].mean() + 0.5 * np.abs(feed["x"]) * sign).astype(np.float32)} for feed in fit]
    after, fixed, _ = found(dict.fromkeys(MACS, 4), [*fit, *judges], weights=True, held=5)
    gain = gains(after, fixed, fit, judges)
    assert min(gain.values()) > 0.999, gain
    assert after.macs["a"].weight is None


def test_weights_of_the_plan_are_what_the_fixed_network_holds() -> None:
    after, fixed, _ = found({"a": 4}, samples(10), weights=True, held=4)
    changed = {name: mac.weight for name, mac in after.macs.items() if mac.weight is not None}
    assert len(changed) >= 2
    for name, weight in changed.items():
        node = next(n for n in fixed.nodes if n.outputs == [name])
        codes = fixed[node.inputs[1] or ""]
        assert codes.data is not None and codes.quant is not None and weight is not None
        np.testing.assert_allclose(dequantise(codes.data, codes.quant), weight, rtol=1e-6, atol=1e-9)
        assert not np.array_equal(weight, weight_of(GRAPH, name)[1])


def test_weights_stay_where_nothing_can_judge_them_or_sums_are_too_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({"weights": True, "held": 0}, {"weights": False}):
        after, _, _ = found({}, samples(6), **options)
        assert [mac.weight for mac in after.macs.values()] == [None] * 5
    monkeypatch.setattr(refit, "MAX_WIDTH", 9)
    after, _, _ = found(dict.fromkeys(MACS, 4), samples(10), weights=True, held=4)
    wide = [name for name, mac in after.macs.items() if name in ("a", "g") and mac.weight is not None]
    assert wide == [] and after.macs["d"].weight is not None  # 27 and 36 products, and 9


def test_neither_graph_nor_plan_is_changed() -> None:
    work, plan = start({})
    core = work.fixed(plan)
    feeds = samples(3)
    codes = [codes_of_inputs(core, feed) for feed in feeds]
    kept = {name: t.data.copy() for graph in (GRAPH, core) for name, t in graph.tensors.items() if t.data is not None}
    written = plan.to_json()
    after = refitted(GRAPH, work.prepared, core, plan, feeds, codes, weights=True, held=1)
    assert plan.to_json() == written != after.to_json()
    for graph in (GRAPH, core):
        for name, tensor in graph.tensors.items():
            assert tensor.data is None or np.array_equal(tensor.data, kept[name])
