"""Parts of quantised networks in torch: sums of products with other numbers in them, what codes stand for, and what is
learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fixed_examples import float_feeds
from sgs.builder import GraphBuilder
from sgs.engine import FixedEngine, FloatEngine
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array, activation_params, dequantise, quantise
from sgs.numeric.types import DType
from sgs.ops._window import window_node
from sgs.quant.boundary import codes_of_inputs, real_outputs
from sgs.quant.edit import mac_nodes
from sgs.quant.levels import weight_bound
from sgs.quant.plan import MacChoice
from sgs.registry import QUANTISE
from test_mixed import MACS, network, samples, start

torch = pytest.importorskip("torch", reason="torch is not installed")
from sgs.retrain.blocks import Block  # noqa: E402
from sgs.retrain.learned import LearnedMac, Range, _Coded  # noqa: E402
from sgs.retrain.program import Program  # noqa: E402
from sgs.retrain.run import _Retraining  # noqa: E402
from sgs.retrain.settings import Settings  # noqa: E402

CPU = torch.device("cpu")
SAMPLES = 3


# -- other numbers in the place of a graph's ---------------------------------------------------------------------------
@dataclass(frozen=True)
class Given:
    """Weights and a bias, and what the operand is multiplied by."""

    weights: Array
    biases: Array
    factor: float

    def operand(self, value: Any) -> Any:
        return value * self.factor

    def weight(self) -> Any:
        return torch.from_numpy(self.weights)

    def bias(self) -> Any:
        return torch.from_numpy(self.biases)


def numbers(graph: Graph, seed: int) -> dict[str, Given]:
    """Other numbers for every sum of products."""
    rng = np.random.default_rng(seed)
    found = {}
    for node in mac_nodes(graph):
        rule = QUANTISE[node.op]
        shape = graph[node.inputs[rule.weight] or ""].shape
        arrays = (rng.normal(0, 1, size).astype(np.float32) for size in (shape, (shape[rule.channel_axis],)))
        found[node.outputs[0]] = Given(*arrays, float(rng.choice([0.5, 2.0, 4.0])))
    return found


def with_numbers(graph: Graph, given: Mapping[str, Given]) -> Graph:
    """The graph with those numbers, and products in front of its sums of products."""
    changed = graph.copy()
    changed.nodes = []
    for node in graph.copy().nodes:
        if node.outputs[0] in given:
            own, x = given[node.outputs[0]], changed[node.inputs[0] or ""]
            factor = changed.add_constant("factor", np.float32([own.factor]))
            scaled = changed.add_tensor(f"{x.name}*", x.shape, x.dtype)
            changed.nodes.append(Node("MUL", [x.name, factor.name], [scaled.name], {"activation": "NONE"}))
            weight, bias = (changed.add_constant("own", array).name for array in (own.weights, own.biases))
            node.inputs = [scaled.name, weight, bias]
        changed.nodes.append(node)
    return changed


def one_sum(op: str, x: tuple[int, ...], weight: tuple[int, ...], *, bias: bool = True, **attrs: Any) -> Graph:
    rng, build = np.random.default_rng(0), GraphBuilder()
    data = rng.normal(0, 1, weight).astype(np.float32)
    more = [rng.normal(0, 1, weight[QUANTISE[op].channel_axis]).astype(np.float32)] if bias else []
    return build.output(build(op, build.input("x", x), data, *more, output="y", **attrs))


def transposed(pads: tuple[int, int, int, int], size: tuple[int, int], *, bias: bool = True, **attrs: Any) -> Graph:
    """Of 4 × 5 pixels, kernel 3 × 4 at strides 2 × 3."""
    how = {"strides": (2, 3), "size": size, "pads": pads, "activation": "NONE", **attrs}
    return one_sum("TRANSPOSE_CONV", (1, 4, 5, 3), (2, 3, 4, 3), bias=bias, **how)


def equal_layers() -> Graph:
    """Two layers of the same weights, which are two constants, and biases."""
    rng, build = np.random.default_rng(1), GraphBuilder()
    weight, bias = rng.normal(0, 0.5, (4, 3, 3, 4)).astype(np.float32), rng.normal(0, 1, 4).astype(np.float32)
    same = window_node(pads=(1, 1, 1, 1), activation="RELU")
    a = build("CONV_2D", build.input("x", (1, 5, 7, 4)), weight, bias, output="a", **same)
    return build.output(build("CONV_2D", a, weight.copy(), bias.copy(), output="y", **same))


def shared_weight() -> Graph:
    """One constant that two layers read."""
    rng, build = np.random.default_rng(2), GraphBuilder()
    weight = build.constant("w", rng.normal(0, 0.5, (3, 1, 1, 3)).astype(np.float32))
    a = build("CONV_2D", build.input("x", (1, 5, 7, 3)), weight, output="a", **window_node(activation="RELU6"))
    return build.output(build("CONV_2D", a, weight, output="y", **window_node()))


def two_readers() -> Graph:
    """One tensor that two sums of products read, and an addition."""
    rng, build = np.random.default_rng(3), GraphBuilder()
    a = build("ABS", build.input("x", (1, 5, 7, 4)), output="a")
    weights = [rng.normal(0, 0.5, shape).astype(np.float32) for shape in ((4, 3, 3, 4), (1, 3, 3, 4))]
    same = window_node(pads=(1, 1, 1, 1))
    y, z = (build(op, a, w, **same) for op, w in zip(("CONV_2D", "DEPTHWISE_CONV_2D"), weights, strict=True))
    return build.output(build("ADD", y, a, activation="NONE", output="y"), z)


def number_like_a_constant() -> Graph:
    """Constants of the values 1; 1, 2 and so on, which biases are recorded as."""
    rng, build = np.random.default_rng(4), GraphBuilder()
    x = build("MUL", build.input("x", (1, 5, 7, 3)), np.float32([1]), activation="NONE")
    a = build("CONV_2D", x, rng.normal(0, 1, (1, 1, 1, 3)).astype(np.float32), output="a", **window_node())
    b = build("ADD", a, np.float32([1]), activation="NONE")
    c = build("CONV_2D", b, rng.normal(0, 1, (3, 1, 1, 1)).astype(np.float32), output="c", **window_node())
    return build.output(build("ADD", c, np.float32([2, 3, 4]), activation="NONE", output="y"))


SAME = window_node(pads=(1, 1, 1, 1))
UNEVEN = window_node(strides=(2, 1), dilations=(1, 2), pads=(0, 2, 1, 3), activation="RELU")
GRAPHS: dict[str, Callable[[], Graph]] = {
    "convolution": lambda: one_sum("CONV_2D", (1, 6, 9, 4), (5, 3, 2, 4), **UNEVEN),
    "convolution without bias": lambda: one_sum("CONV_2D", (2, 6, 9, 4), (5, 3, 3, 4), bias=False, **SAME),
    "groups": lambda: one_sum("CONV_2D", (1, 5, 7, 6), (8, 3, 3, 3), **SAME),
    "depthwise": lambda: one_sum("DEPTHWISE_CONV_2D", (1, 6, 9, 5), (1, 3, 2, 5), **UNEVEN),
    "depthwise, multiplied": lambda: one_sum("DEPTHWISE_CONV_2D", (1, 5, 7, 3), (1, 3, 3, 6), bias=False, **SAME),
    "rows": lambda: one_sum("FULLY_CONNECTED", (1, 4, 6), (5, 6), keep_num_dims=True, activation="RELU6"),
    "flat": lambda: one_sum("FULLY_CONNECTED", (3, 2, 4), (5, 8), bias=False, keep_num_dims=False, activation="NONE"),
    "transposed": lambda: transposed((0, 0, 0, 0), (9, 16), activation="RELU"),
    "transposed and cropped": lambda: transposed((1, 0, 1, 2), (7, 14)),
    "transposed and extended": lambda: transposed((1, 2, -1, 0), (9, 14), bias=False),
    "two equal layers": equal_layers,
    "a shared weight": shared_weight,
    "two readers": two_readers,
    "numbers like a constant": number_like_a_constant,
}


@pytest.mark.parametrize("name", GRAPHS)
def test_programs_with_other_numbers_are_graphs_that_have_them(name: str) -> None:
    graph = GRAPHS[name]()
    given = numbers(graph, 5)
    feeds = [float_feeds(graph, seed) for seed in range(SAMPLES)]
    engine = FloatEngine(with_numbers(graph, given), threads=1)
    program = Program(graph, graph.nodes, graph.outputs, CPU, quantised=frozenset(given))
    found = program({"x": torch.from_numpy(np.stack([feed["x"] for feed in feeds]))}, given)
    for k, feed in enumerate(feeds):
        truth, alone = engine.run(feed), program.one({"x": torch.from_numpy(feed["x"])}, given)
        for result, single, output in zip(found, alone, graph.outputs, strict=True):
            wanted = truth[output]
            for value in (result[k], single):
                np.testing.assert_allclose(value.numpy(), wanted, rtol=1e-5, atol=2e-6 * np.abs(wanted).max())


def test_only_some_sums_of_products_may_be_given_numbers() -> None:
    graph = network(0)
    given = {name: own for name, own in numbers(graph, 6).items() if name in ("d", "y")}
    nodes = [node for node in graph.nodes if node.outputs[0] not in ("a",)]
    program = Program(graph, nodes, ["e", "y"], CPU, quantised=frozenset(given))
    assert program.operands == ["a"]
    feed = samples(1)[0]
    truth = FloatEngine(with_numbers(graph, given), threads=1, extra=["a", "e"]).run(feed)
    for name, found in zip(("e", "y"), program.one({"a": torch.from_numpy(truth["a"])}, given), strict=True):
        np.testing.assert_allclose(found.numpy(), truth[name], rtol=1e-4, atol=1e-5 * np.abs(truth[name]).max())


def test_gradients_reach_weights_biases_and_operands() -> None:
    """Of a linear network: what the result changes by is what the gradient says, exactly."""
    graph = GRAPHS["transposed and cropped"]()
    given = numbers(graph, 7)["y"]
    weight, bias = (torch.from_numpy(a).requires_grad_() for a in (given.weights, given.biases))
    own = SimpleNamespace(operand=lambda value: 2 * value, weight=lambda: weight, bias=lambda: bias)
    x = torch.from_numpy(float_feeds(graph, 1)["x"]).requires_grad_()
    program = Program(graph, graph.nodes, ["y"], CPU, quantised=frozenset(["y"]))
    y = program.one({"x": x}, {"y": own})[0]
    of_weight, of_bias, of_x = torch.autograd.grad(y.sum(), [weight, bias, x])
    products = float((y - bias).sum().detach())
    assert float((of_weight * weight).sum().detach()) == pytest.approx(products, rel=1e-4)
    assert float((of_x * x).sum().detach()) == pytest.approx(products, rel=1e-4)
    assert of_bias.tolist() == [7 * 14] * 2


# -- codes -------------------------------------------------------------------------------------------------------------
ENDS = [(-1.0, 3.0), (0.0, 2.5), (-7.25, 0.0), (-0.001, 40.0), (-1e-6, 1e-6)]


@pytest.mark.parametrize(("low", "high"), ENDS)
def test_values_are_what_their_codes_stand_for(low: float, high: float) -> None:
    params = activation_params(low, high, DType.UINT8)
    rng = np.random.default_rng(0)
    values = rng.uniform(2 * low - high, 2 * high - low, (200, 90)).astype(np.float32)
    found = Range(params, CPU, learned=False)(torch.from_numpy(values)).numpy()
    truth = dequantise(quantise(values, params, DType.UINT8), params)
    step = float(params.scale[0])
    off = np.abs(found - truth) > 1e-4 * step
    ratio = values.astype(np.float64) / step
    assert np.abs(ratio - np.floor(ratio) - 0.5)[off].max(initial=0) < 1e-4, "only what lies between two codes may go"
    assert off.mean() < 1e-3
    np.testing.assert_allclose(found[~off], truth[~off], rtol=3e-7, atol=0)
    assert len(np.unique(np.rint(found / step))) == 256


def lsq_plus(x: Array, grad: Array, low: float, high: float) -> tuple[Array, float, float]:
    """Gradients of x and of the ends of its range (Bhalgat et al. 2020, eq. 3 to 5): y = s · rint(clamp((x − β) / s, 0,
    255)) + β with β = low and s = (high − low) / 255, where β is a whole number of steps."""
    scale = (high - low) / 255
    place = (x - low) / scale
    inside = (place >= 0) & (place <= 255)
    of_scale = np.where(inside, np.rint(place) - place, np.where(place < 0, 0, 255))
    of_offset = np.where(inside, 0, 1)
    by_scale, by_offset = (grad * of_scale).sum(), (grad * of_offset).sum()
    return grad * inside, by_offset - by_scale / 255, by_scale / 255


@pytest.mark.parametrize("batched", [False, True])
def test_gradients_of_ranges_are_those_of_lsq_plus(batched: bool) -> None:
    low, high = -40 * 0.03, 215 * 0.03
    rng = np.random.default_rng(1)
    x, grad = rng.uniform(-2, 8, (5, 6, 7)).astype(np.float32), rng.normal(0, 1, (5, 6, 7)).astype(np.float32)
    given = [torch.tensor(v, requires_grad=True) for v in (x, np.float32(low), np.float32(high))]
    if batched:
        coded = torch.func.vmap(lambda one: _Coded.apply(one, given[1], given[2]))(given[0])
    else:
        coded = _Coded.apply(*given)
    found = torch.autograd.grad(coded, given, torch.from_numpy(grad))
    wanted = lsq_plus(x.astype(np.float64), grad, low, high)
    assert 0 < (wanted[0] == 0).mean() < 0.9
    np.testing.assert_array_equal(found[0].numpy(), wanted[0].astype(np.float32))
    assert float(found[1]) == pytest.approx(wanted[1], rel=1e-3)
    assert float(found[2]) == pytest.approx(wanted[2], rel=1e-3)


def test_a_range_that_is_not_learned_passes_gradients() -> None:
    span = Range(activation_params(-1, 1, DType.UINT8), CPU, learned=False)
    x = torch.tensor([-3.0, 0.25, 3.0], requires_grad=True)
    span(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 0] and span.logs.grad is None


def test_ends_are_learned_as_factors() -> None:
    span = Range(activation_params(-1, 3, DType.UINT8), CPU, learned=True)
    before = span.ends().detach()
    span(torch.tensor([-5.0, 9.0])).sum().backward()
    assert span.logs.grad.tolist() == pytest.approx(before.tolist())  # d(low · e^a) = low
    with torch.no_grad():
        span.logs += torch.log(torch.tensor([2.0, 3.0]))
    assert span.ends().tolist() == pytest.approx([2 * float(before[0]), 3 * float(before[1])])


# -- sums of products --------------------------------------------------------------------------------------------------
def learned(work: Any, plan: Any, name: str, **options: Any) -> LearnedMac:
    node = next(node for node in mac_nodes(work.prepared) if node.outputs[0] == name)
    return LearnedMac(work.prepared, node, plan.macs[name], None, CPU, **options)


def prepared_for(bits: int, kind: str) -> tuple[Any, Any]:
    """A calibration, and a plan with all sums of products in that precision."""
    work, plan = start()
    nodes = {node.outputs[0]: node for node in mac_nodes(work.prepared)}
    rng = np.random.default_rng(4)
    for name, node in nodes.items():
        rule = QUANTISE[node.op]
        tensor = work.prepared[node.inputs[rule.weight] or ""]
        data, shape = np.array(tensor.data), [1] * len(tensor.shape)
        if kind == "a channel of zeros":
            np.moveaxis(data, rule.channel_axis, 0)[1] = 0
            tensor.data = data
        bound = weight_bound(work.prepared, node, bits)
        shape[rule.channel_axis] = -1
        choice = MacChoice(bits, bound)
        if kind == "other weights":
            noise = rng.normal(0, 1, data.shape) * bound.reshape(shape) / 10
            choice = replace(choice, weight=data + noise, bias=rng.normal(0, 0.3, bound.shape))
        if kind == "shifted biases":
            choice = replace(choice, bias_shift=rng.normal(0, 0.3, bound.shape))
        plan.macs[name] = choice
    return work, plan


KINDS = ["plain", "a channel of zeros", "other weights", "shifted biases"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_what_is_learned_starts_as_the_plan_has_it(bits: int, kind: str) -> None:
    work, plan = prepared_for(bits, kind)
    same = replace(plan, macs={name: learned(work, plan, name).choice() for name in MACS})
    before, after = work.fixed(plan), work.fixed(same)
    for old, new in zip(mac_nodes(before), mac_nodes(after), strict=True):
        tensors = [(before[a or ""], after[b or ""]) for a, b in zip(old.inputs, new.inputs, strict=True)]
        (x, y), (weight, other), (bias, moved) = tensors
        assert x.dtype is y.dtype and weight.dtype is other.dtype
        assert np.array_equal(weight.data, other.data)
        np.testing.assert_allclose(other.quant.scale, weight.quant.scale, rtol=1.2e-7)
        np.testing.assert_allclose(moved.data, bias.data, rtol=5e-7, atol=1)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_start_where_the_float_network_has_them(kind: str) -> None:
    """As far as they round to the codes of the plan."""
    work, plan = prepared_for(8, kind)
    for node in mac_nodes(work.prepared):
        name, rule = node.outputs[0], QUANTISE[node.op]
        mac = learned(work, plan, name)
        codes, value = mac.parameters.codes.detach().numpy(), mac.weight().detach().numpy()
        own, choice = work.prepared[node.inputs[rule.weight] or ""].data, plan.macs[name]
        shape = [-1 if axis == rule.channel_axis else 1 for axis in range(own.ndim)]
        bound = choice.weight_bound.reshape(shape)
        scale = np.where(bound > 0, bound, 127) / 127
        start = np.rint((own if choice.weight is None else choice.weight) / scale).clip(-127, 127)
        np.testing.assert_allclose(codes, np.clip(own / scale, start - 0.49, start + 0.49), atol=2e-5)
        np.testing.assert_allclose(value, start * scale, rtol=1e-5, atol=1e-9)


def test_learned_numbers_are_in_the_choice() -> None:
    work, plan = prepared_for(4, "plain")
    mac = learned(work, plan, "e")
    with torch.no_grad():
        mac.parameters.codes.add_(1.0)
        mac.parameters.growth.add_(float(np.log(1.5)))
        mac.parameters.bias.add_(2.0)
    choice, old = mac.choice(), learned(work, plan, "e")
    np.testing.assert_allclose(choice.weight_bound, 1.5 * plan.macs["e"].weight_bound, rtol=1e-6)
    scale = choice.weight_bound.reshape(-1, 1, 1, 1) / 7
    codes = choice.weight / scale
    expected = np.clip(old.parameters.codes.detach().numpy().round() + 1, -7, 7)
    np.testing.assert_allclose(codes, expected, atol=1e-5)
    assert choice.bits == 4 and choice.bias_shift is None
    own = old.bias().detach().numpy()
    np.testing.assert_allclose(choice.bias, own + 2 * np.abs(own).mean(), rtol=1e-5)


@pytest.mark.parametrize(("bits", "still"), [(16, False), (8, True), (4, True)])
def test_weights_that_stay_are_those_of_the_plan(bits: int, still: bool) -> None:
    work, plan = prepared_for(bits, "plain")
    mac = learned(work, plan, "f", still=still)
    assert not mac.parameters.codes.requires_grad and not mac.parameters.growth.requires_grad
    assert mac.parameters.bias.requires_grad
    choice = mac.choice()
    assert choice.weight is None and choice.weight_bound is plan.macs["f"].weight_bound and choice.bits == bits


# -- a whole network ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("bits", "share"), [((8,), 0.05), ((4,), 0.005), ((4, 8, 16), 0.01)])
def test_a_network_in_torch_is_the_fixed_one(bits: tuple[int, ...], share: float) -> None:
    """But for values between two codes, and for the 16-bit codes between sums of products: what torch makes is as near
    to the fixed network as a small share of that network's own error."""
    work, plan = start()
    for k, node in enumerate(mac_nodes(work.prepared)):
        name, own = node.outputs[0], bits[k % len(bits)]
        plan.macs[name] = MacChoice(own, weight_bound(work.prepared, node, own))
    graph, core, feeds = work.float_graph, work.fixed(plan), samples(6, seed=8)
    retraining = _Retraining(work, plan, Settings(), CPU)
    block = Block(graph.nodes, tuple(graph.inputs), tuple(graph.outputs), tuple(MACS))
    program = Program(graph, graph.nodes, graph.outputs, CPU, quantised=frozenset(MACS))
    stack = torch.from_numpy(np.stack([feed["x"] for feed in feeds]))
    found = program({"x": stack}, retraining._quantisers(block, plan).macs)[0].detach().numpy()
    fixed, real = FixedEngine(core, threads=1), FloatEngine(graph, threads=1)
    codes = [real_outputs(core, fixed.run(codes_of_inputs(core, feed)), ["y"])["y"] for feed in feeds]
    noise = np.stack(codes) - np.stack([real.run(feed)["y"] for feed in feeds])
    rest = found - np.stack(codes)
    assert (rest**2).mean() < share * (noise**2).mean()
