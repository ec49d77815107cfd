"""Channel equalisation: what can be scaled, that the function stays the same, and that it is worth while."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sgs.builder import GraphBuilder
from sgs.config.input_config import ConvSpec
from sgs.engine import FixedEngine, FloatEngine, run_reference
from sgs.ir import Graph, Tensor, violations
from sgs.numeric.quantise import Array
from sgs.ops._window import window_node
from sgs.quant.boundary import codes_of_inputs, real_outputs
from sgs.quant.equalise import channel_scales, equalised, scalable_tensors, scaled
from sgs.quant.levels import Calibration
from sgs.quant.prepare import FUNCTION, prepare
from sgs.quant.statistics import measure_extrema

SAME = {"pads": (1, 1, 1, 1)}


class Net:
    """A network under construction: a picture x [1, 7, 9, 3], weights by chance. `spread`: output channels of
    sums of products differ up to so many times."""

    def __init__(self, spread: float = 1.0, seed: int = 0) -> None:
        self.build = GraphBuilder()
        self.rng = np.random.default_rng(seed)
        self.spread = spread
        self.x = self.build.input("x", (1, 7, 9, 3))

    def sum(self, op: str, x: Tensor, shape: tuple[int, ...], name: str, *, bias: bool = True, **attrs: Any) -> Tensor:
        axis = 3 if op == "DEPTHWISE_CONV_2D" else 0
        power = self.rng.permutation(np.geomspace(1, self.spread, shape[axis]))
        weight = np.moveaxis(self.rng.normal(0, 1, shape), axis, -1) * power / np.sqrt(np.prod(shape) / shape[axis])
        data = np.moveaxis(weight, -1, axis).astype(np.float32)
        offset = (self.rng.normal(0, 0.3, shape[axis]) * power).astype(np.float32) if bias else None
        return self.build(op, x, data, offset, output=name, **attrs)

    def conv(self, x: Tensor, channels: int, name: str, *, groups: int = 1, size: int = 1, **window: Any) -> Tensor:
        shape = (channels, size, size, x.shape[3] // groups)
        pads = {"pads": (size // 2,) * 4}
        bias = window.pop("bias", True)
        return self.sum("CONV_2D", x, shape, name, bias=bias, **window_node(**{**pads, **window}))

    def depthwise(self, x: Tensor, name: str, times: int = 1, **window: Any) -> Tensor:
        shape = (1, 3, 3, x.shape[3] * times)
        return self.sum("DEPTHWISE_CONV_2D", x, shape, name, **window_node(**{**SAME, **window}))

    def transposed(self, x: Tensor, channels: int, name: str, **attrs: Any) -> Tensor:
        window = {"activation": "NONE", "strides": (2, 2), "size": (14, 18), "pads": (0, 0, 0, 0), **attrs}
        return self.sum("TRANSPOSE_CONV", x, (channels, 2, 2, x.shape[3]), name, **window)

    def dense(self, x: Tensor, channels: int, name: str, *, width: int = 0, **attrs: Any) -> Tensor:
        keep = {"activation": "NONE", "keep_num_dims": not width, **attrs}
        return self.sum("FULLY_CONNECTED", x, (channels, width or x.shape[-1]), name, **keep)

    def silu(self, x: Tensor, name: str) -> Tensor:
        return self.build("MUL", x, self.build("LOGISTIC", x), activation="NONE", output=name)

    def done(self, *outputs: Tensor) -> Graph:
        return self.build.output(*outputs)


def feeds(graph: Graph, count: int = 4, seed: int = 1) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(0, 1, graph["x"].shape).astype(np.float32)} for _ in range(count)]


def values(graph: Graph, feed: dict[str, Array], names: Mapping[str, Any] | set[str] = frozenset()) -> dict[str, Array]:
    return FloatEngine(graph, threads=1, extra=list(names)).run(feed)


def assert_same_function(graph: Graph, scales: Mapping[str, Array], samples: list[dict[str, Array]]) -> Graph:
    """The equalised graph: sound, its outputs those of `graph`, and the tensors of `scales` exactly so much larger."""
    changed = equalised(graph, scales)
    assert violations(changed) == []
    assert changed.outputs == graph.outputs and changed.inputs == graph.inputs
    for sample in samples:
        before, after = values(graph, sample, scales), values(changed, sample, scales)
        for name in graph.outputs:
            size = float(np.abs(before[name]).max())
            np.testing.assert_allclose(after[name], before[name], rtol=1e-5, atol=5e-5 * size, err_msg=name)
        for name, scale in scales.items():
            size = np.abs(before[name]).reshape(-1, scale.size).max(0)  # of every channel
            noise = 1e-5 * (size + size.max())
            assert (np.abs(after[name] / scale - before[name]) <= noise).all(), name
    return changed


def some_scales(graph: Graph, seed: int = 5) -> dict[str, Array]:
    """Any scales for every tensor that can have them; where RELU6 clamps, none that would bring values there."""
    rng = np.random.default_rng(seed)
    makers, found = graph.producers(), {}
    seen = measure_extrema(graph, feeds(graph), threads=1).tensors
    for name in sorted(scalable_tensors(prepare(graph))):
        scale = rng.permutation(np.geomspace(0.02, 50, graph[name].shape[-1]))
        if makers[name].attrs.get("activation") == "RELU6":
            scale = np.clip(scale, 1, np.maximum(6 / np.maximum(seen[name].high, 1e-3), 1))
        found[name] = scale
    return found


# -- the same function -------------------------------------------------------------------------------------------------
def straight(middle: str) -> Callable[[], Graph]:
    """conv a (with an activation) → a reader."""

    def make() -> Graph:
        net = Net()
        activation = {"relu6-depthwise": "RELU6", "linear": "NONE"}.get(middle, "RELU")
        a = net.conv(net.x, 8, "a", size=3, activation=activation)
        if middle in ("conv", "linear"):
            return net.done(net.conv(a, 5, "y", size=3, bias=False))
        if middle == "relu6-depthwise":
            return net.done(net.depthwise(a, "y", times=2, strides=(2, 1)))
        if middle == "grouped":
            return net.done(net.conv(a, 6, "y", groups=2, size=3, dilations=(2, 1)))
        if middle == "transposed":
            return net.done(net.transposed(a, 5, "y"))
        if middle == "dense":
            return net.done(net.dense(a, 5, "y"))
        assert middle == "flattened"
        return net.done(net.dense(a, 4, "y", width=7 * 9 * 8))

    return make


def through(function: str) -> Callable[[], Graph]:
    """conv a → a function of its own node → depthwise, and more readers of both kinds."""

    def make() -> Graph:
        net = Net()
        a = net.conv(net.x, 6, "a")
        s = net.silu(a, "s") if function == "silu" else net.build(function, a, output="s")
        return net.done(net.depthwise(s, "y"), net.conv(s, 5, "z", size=3))

    return make


def made_by(maker: str) -> Callable[[], Graph]:
    """Other sums of products as makers."""

    def make() -> Graph:
        net = Net()
        if maker == "depthwise":
            a = net.depthwise(net.x, "a", times=2, activation="RELU")
        elif maker == "grouped":
            a = net.conv(net.x, 6, "a", groups=3, size=3, bias=False, activation="RELU")
        elif maker == "transposed":
            a = net.transposed(net.x, 6, "a", activation="RELU")
        else:
            a = net.dense(net.x, 6, "a", activation="RELU")
        return net.done(net.conv(a, 5, "y", size=3))

    return make


def chain() -> Graph:
    """Scaled tensors one after another, with and without functions between."""
    net = Net()
    a = net.conv(net.x, 8, "a", size=3, activation="RELU")
    b = net.depthwise(a, "b")
    s = net.silu(b, "s")
    c = net.conv(s, 6, "c", activation="RELU6")
    d = net.conv(c, 4, "d", groups=2)
    return net.done(net.dense(net.build("TANH", d, output="t"), 5, "y"))


CASES: dict[str, tuple[Callable[[], Graph], set[str]]] = {
    **{name: (straight(name), {"a"}) for name in ("conv", "linear", "relu6-depthwise", "grouped", "transposed")},
    **{name: (straight(name), {"a"}) for name in ("dense", "flattened")},
    **{name: (through(name), {"a", "s"}) for name in ("silu", "LOGISTIC", "HARD_SWISH", "TANH")},
    **{f"by-{name}": (made_by(name), {"a"}) for name in ("depthwise", "grouped", "transposed", "dense")},
    "chain": (chain, {"a", "b", "s", "c", "d", "t"}),
}


@pytest.mark.parametrize("name", CASES)
def test_any_scales_leave_the_function_alone(name: str) -> None:
    make, scalable = CASES[name]
    graph = make()
    assert scalable_tensors(prepare(graph)) == scalable
    changed = assert_same_function(graph, some_scales(graph), feeds(graph))
    ops = [node.op for node in prepare(graph).nodes]
    assert [node.op for node in prepare(changed).nodes] == ops  # products went into weights and functions


# -- which scales ------------------------------------------------------------------------------------------------------
def peaks(graph: Graph, samples: list[dict[str, Array]], name: str) -> Array:
    """Largest magnitude of every channel."""
    return np.max(
        [np.abs(values(graph, sample, {name})[name]).reshape(-1, graph[name].shape[-1]).max(0) for sample in samples], 0
    )


def unbalanced(graph: Graph, names: set[str]) -> Graph:
    """The same function with channels of these tensors up to a thousand times smaller."""
    return equalised(graph, {name: np.geomspace(1, 1e-3, graph[name].shape[-1]) for name in names})


@pytest.mark.parametrize("name", CASES)
def test_the_scales_that_are_chosen_bring_channels_together(name: str) -> None:
    make, scalable = CASES[name]
    graph = unbalanced(make(), scalable)
    samples = feeds(graph)
    scales = channel_scales(prepare(graph), measure_extrema(graph, samples, threads=1))
    assert set(scales) == scalable if len(scalable) < 3 else scales
    assert_same_function(graph, scales, samples)
    for tensor in scales:
        before, after = peaks(graph, samples, tensor), peaks(equalised(graph, scales), samples, tensor)
        assert 0.3 * before.max() < after.max() <= before.max() * (1 + 1e-5)  # the range does not grow
        alive = before > 1e-3 * before.max()
        assert np.ptp(np.log(after[alive])) < 0.8 * np.ptp(np.log(before[alive]))


def test_what_is_clamped_stays_clamped() -> None:
    net = Net(spread=300)
    a = net.conv(net.x, 8, "a", size=3, activation="RELU6", bias=False)
    graph = net.done(net.depthwise(a, "y"))
    samples, makers = feeds(graph), graph.producers()

    def constant(name: str) -> Array:
        data = graph[makers[name].inputs[1] or ""].data
        assert data is not None
        return data

    constant("a")[...] *= 0.1
    peak = peaks(graph, samples, "a")
    assert 2 <= (peak == 6).sum() <= 6 and peak.min() < 0.5
    constant("y")[...] /= peak  # small channels count as much as large ones
    scales = channel_scales(prepare(graph), measure_extrema(graph, samples, threads=1))
    assert (scales["a"][peak == 6] == 1).all() and scales["a"].max() > 2
    assert_same_function(graph, scales, samples)


@pytest.mark.parametrize("name", ["conv", "silu"])
def test_channels_that_are_alike_already_are_left(name: str) -> None:
    make, scalable = CASES[name]
    graph = make()
    level = {}  # every channel brought to the same peak beforehand
    for tensor in sorted(scalable):
        peak = peaks(graph, feeds(graph), tensor)
        level[tensor] = peak.max() / peak
    graph = equalised(graph, level)
    assert channel_scales(prepare(graph), measure_extrema(graph, feeds(graph), threads=1)) == {}


def worst_channel(graph: Graph, work: Calibration, scales: Mapping[str, Array] | None) -> float:
    """Signal to quantisation noise of y's worst channel in the 8-bit network, dB; engine and reference agree."""
    core, noise, power = work.fixed(work.initial_plan(scales)), 0.0, 0.0
    for sample in work.samples:
        codes = codes_of_inputs(core, sample)
        found = FixedEngine(core, threads=1).run(codes)
        reference = run_reference(core, codes)
        assert all(np.array_equal(found[name], reference[name]) for name in core.outputs)
        truth = values(graph, sample)["y"]
        noise, power = noise + (real_outputs(core, found, ["y"])["y"] - truth) ** 2, power + truth**2
    axes = tuple(range(noise.ndim - 1))
    return float(10 * np.log10(power.sum(axes) / noise.sum(axes)).min())


@pytest.mark.parametrize("name", ["relu6-depthwise", "silu", "grouped", "transposed", "flattened"])
def test_an_equalised_network_has_less_noise(name: str) -> None:
    make, scalable = CASES[name]
    graph = unbalanced(make(), scalable)
    samples = feeds(graph)
    statistics = measure_extrema(graph, samples, threads=1)
    work = Calibration(graph, statistics, samples, ConvSpec(), threads=1)
    plain = worst_channel(graph, work, None)
    assert worst_channel(graph, work, channel_scales(work.prepared, statistics)) > plain + 5


# -- what is left alone ------------------------------------------------------------------------------------------------
def other_readers(kind: str) -> Graph:
    """Networks in which a, or s = SiLU(a), is read by something else as well, or made by something else."""
    net = Net(spread=1000)
    a = net.conv(net.x, 6, "a", activation="RELU_N1_TO_1" if kind == "clamped" else "NONE")
    if kind == "sum":
        return net.done(net.build("ADD", a, net.depthwise(a, "y"), activation="NONE"))
    if kind == "output":
        return net.done(net.depthwise(a, "y"), a)
    if kind == "moved":
        return net.done(net.depthwise(a, "y"), net.build("RESHAPE", a, shape=(63, 6)))
    if kind == "mean":
        return net.done(net.depthwise(net.build("MEAN", a, axes=(1, 2), keep_dims=True), "y"))
    if kind == "clamped":
        return net.done(net.depthwise(a, "y"))
    if kind == "input":
        return net.done(net.depthwise(net.x, "y"))
    if kind == "halves":  # a row of the product is half a pixel
        return net.done(net.dense(a, 4, "y", width=3))
    if kind == "one channel":
        return net.done(net.depthwise(net.conv(net.x, 1, "b"), "y", times=3))
    if kind == "function of two readers":
        return net.done(net.depthwise(net.silu(a, "s"), "y"), net.build("TANH", a))
    if kind == "function and sum":
        return net.done(net.depthwise(net.silu(a, "s"), "y"), net.conv(a, 4, "z"))
    if kind == "function of an output":
        return net.done(net.depthwise(net.silu(a, "s"), "y"), a)
    if kind == "inner value":
        gate = net.build("LOGISTIC", a, output="gate")
        return net.done(net.depthwise(net.build("MUL", a, gate, activation="NONE", output="s"), "y"), gate)
    assert kind == "function after relu"
    b = net.conv(net.x, 6, "b", activation="RELU")
    return net.done(net.depthwise(net.silu(b, "s"), "y"))


@pytest.mark.parametrize(
    "kind",
    ["sum", "output", "moved", "mean", "clamped", "input", "halves", "one channel", "function of two readers"]
    + ["function and sum", "function of an output", "inner value", "function after relu"],
)
def test_nothing_is_scaled_that_something_else_needs(kind: str) -> None:
    graph = other_readers(kind)
    assert scalable_tensors(prepare(graph)) == set()
    assert channel_scales(prepare(graph), measure_extrema(graph, feeds(graph), threads=1)) == {}


def test_every_reader_gets_its_weights_divided() -> None:
    net = Net(spread=1000)
    a = net.conv(net.x, 6, "a", activation="RELU")
    y, z = net.depthwise(a, "y"), net.conv(a, 4, "z", groups=2, size=3)
    graph = net.done(y, z, net.dense(a, 5, "w"), net.transposed(a, 3, "v"))
    scale = np.array([1, 2, 4, 8, 16, 32.0])
    changed = assert_same_function(graph, {"a": scale}, feeds(graph))

    def weight(of: Graph, name: str) -> Array:
        data = of[of.producers()[name].inputs[1] or ""].data
        assert data is not None
        return data

    for name in "ywv":
        assert np.array_equal(weight(changed, name) * scale, weight(graph, name))
    assert np.array_equal(weight(changed, "z")[:2] * scale[:3], weight(graph, "z")[:2])
    assert np.array_equal(weight(changed, "z")[2:] * scale[3:], weight(graph, "z")[2:])
    assert np.array_equal(weight(changed, "a"), weight(graph, "a") * scale.reshape(6, 1, 1, 1))


def test_the_graph_itself_is_not_changed() -> None:
    graph = chain()
    kept = {name: tensor.data.copy() for name, tensor in graph.tensors.items() if tensor.data is not None}
    nodes = [(node.op, list(node.inputs), list(node.outputs), dict(node.attrs)) for node in graph.nodes]
    equalised(graph, some_scales(graph))
    assert nodes == [(node.op, node.inputs, node.outputs, node.attrs) for node in graph.nodes]
    assert all(np.array_equal(graph[name].data, data) for name, data in kept.items())


def test_weights_that_sums_share_are_scaled_apart() -> None:
    build, rng = GraphBuilder(), np.random.default_rng(0)
    x = build.input("x", (1, 7, 9, 3))
    first = build.constant("first", rng.normal(0, 1, (6, 1, 1, 3)).astype(np.float32))
    last = build.constant("last", rng.normal(0, 1, (4, 1, 1, 6)).astype(np.float32))
    a, b = (build("CONV_2D", x, first, None, output=n, **window_node(activation="RELU")) for n in "ab")
    graph = build.output(*(build("CONV_2D", t, last, None, output=n, **window_node()) for t, n in ((a, "y"), (b, "z"))))
    assert scalable_tensors(prepare(graph)) == {"a", "b"}
    assert_same_function(graph, {"a": np.geomspace(1, 32, 6), "b": np.geomspace(10, 1, 6)}, feeds(graph))


# -- what is known of the scaled network -------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["conv", "relu6-depthwise", "silu", "chain"])
def test_statistics_of_the_scaled_network_are_those_measured_on_it(name: str) -> None:
    graph = CASES[name][0]()
    scales, samples = some_scales(graph), feeds(graph)
    statistics = measure_extrema(graph, samples, threads=1)
    told, measured = scaled(statistics, scales), measure_extrema(equalised(graph, scales), samples, threads=1)
    assert told.samples == measured.samples == len(samples)
    for tensor in prepare(graph).activations():
        one, other = told.tensors[tensor.name], measured.tensors[tensor.name]
        size = max(np.abs(one.low).max(), np.abs(one.high).max())
        np.testing.assert_allclose(one.low, other.low, rtol=1e-5, atol=1e-5 * size)
        np.testing.assert_allclose(one.high, other.high, rtol=1e-5, atol=1e-5 * size)
        if tensor.name not in scales:
            assert one is statistics.tensors[tensor.name]
        else:
            assert one.counts is None


@pytest.mark.parametrize("name", ["conv", "relu6-depthwise", "silu"])
def test_a_dead_channel_keeps_its_scale(name: str) -> None:
    make, scalable = CASES[name]
    graph = unbalanced(make(), scalable)
    maker = graph.producers()["a"]
    for position, fill in ((1, 0.0), (2, 0.0)):
        data = graph[maker.inputs[position] or ""].data
        assert data is not None
        data = data.copy()
        data[2], data[4] = fill, data[4] * 1e-9  # dead, and as good as dead
        graph[maker.inputs[position] or ""].data = data
    samples = feeds(graph)
    scales = channel_scales(prepare(graph), measure_extrema(graph, samples, threads=1))
    assert set(scales) == scalable
    for scale in scales.values():
        assert scale[2] == 1 and scale[4] == 1 and np.isfinite(scale).all() and scale.max() > 2
    assert_same_function(graph, scales, samples)


def test_a_tensor_that_is_dead_altogether_is_left() -> None:
    net = Net()
    a = net.conv(net.x, 6, "a", activation="RELU")
    graph = net.done(net.depthwise(a, "y"))
    for name in graph.producers()["a"].inputs[1:]:
        data = graph[name or ""].data
        assert data is not None
        graph[name or ""].data = np.zeros_like(data)
    assert channel_scales(prepare(graph), measure_extrema(graph, feeds(graph), threads=1)) == {}


# -- by chance ---------------------------------------------------------------------------------------------------------
LINKS = ["conv", "grouped", "strided", "depthwise", "dense", "transposed", "silu", "skip", "branch"]


def chain_of(links: list[str], activation: str, spread: float, seed: int) -> Graph:
    """A network of these links after a first convolution, ended by one more."""
    net = Net(spread, seed)
    x = net.conv(net.x, 6, "first", activation=activation)
    ends = []
    for k, link in enumerate(links):
        if link in ("conv", "grouped", "strided"):
            more = {"grouped": {"groups": 2, "size": 3}, "strided": {"strides": (2, 1)}}.get(link, {"size": 3})
            x = net.conv(x, 6, f"t{k}", activation=activation, **more)
        elif link == "depthwise":
            x = net.depthwise(x, f"t{k}", activation=activation)
        elif link == "dense":
            x = net.dense(x, 4, f"t{k}", activation=activation)
        elif link == "transposed" and x.shape[1] < 10:
            cut = (2 * x.shape[1], 2 * x.shape[2])
            x = net.transposed(x, 6, f"t{k}", size=cut, activation=activation)
        elif link == "silu":
            x = net.silu(x, f"t{k}")
        elif link == "skip":
            x = net.build("ADD", x, net.depthwise(x, f"d{k}"), activation="NONE", output=f"t{k}")
        elif link == "branch":
            ends.append(net.conv(x, 2, f"t{k}"))
    return net.done(net.conv(x, 5, "y"), *ends)


@example(["depthwise", "conv", "conv", "conv"], "RELU6", 30.0, 0)  # binary32 keeps 2e-5 of its largest value
@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(LINKS), max_size=5),
    st.sampled_from(["NONE", "RELU", "RELU6"]),
    st.sampled_from([1.0, 30.0, 3000.0]),
    st.integers(0, 1000),
)
def test_no_network_changes_its_function(links: list[str], activation: str, spread: float, seed: int) -> None:
    graph = chain_of(links, activation, spread, seed)
    samples = feeds(graph, 2, seed)
    chosen = channel_scales(prepare(graph), measure_extrema(graph, samples, threads=1))
    assert set(chosen) <= scalable_tensors(prepare(graph))
    functions = [node.op == FUNCTION for node in prepare(graph).nodes]
    for scales in (chosen, some_scales(graph, seed) if activation != "RELU6" else {}):
        changed = assert_same_function(graph, scales, samples)
        assert [node.op == FUNCTION for node in prepare(changed).nodes] == functions
