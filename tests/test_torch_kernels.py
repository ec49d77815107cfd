"""The torch kernels: float graphs give what the float engine gives, alone and many samples at a time, and gradients
that are the engine's differences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import sgs.ops  # noqa: F401  fills the tables
from fixed_examples import float_feeds
from onnx_snippets import SNIPPETS
from sgs.builder import GraphBuilder
from sgs.engine import FloatEngine
from sgs.engine.lowering import SessionBuilder
from sgs.frontends.onnx_import import import_model
from sgs.frontends.onnx_model import normalised
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.passes.pipeline import optimise
from sgs.registry import EXAMPLES, FLOAT, ONNX_EXAMPLES
from test_onnx_examples import samples
from test_onnx_import import one_node_model

torch = pytest.importorskip("torch", reason="torch is not installed")
from sgs.retrain.kernels import KERNELS  # noqa: E402
from sgs.retrain.program import Program  # noqa: E402

SAMPLES = 3
# examples of these jump, so that differences say nothing of the gradient
JUMPING = {"CAST", "CEIL", "FAKE_QUANTIZE", "FLOOR", "FLOOR_DIV", "FLOOR_MOD", "ONE_HOT", "ROUND"}
STEPS = (1e-3, 2e-4)  # of differences: one of them meets no kink


def lowered(graph: Graph) -> SessionBuilder:
    builder = SessionBuilder(graph)
    for name in graph.inputs:
        builder.feed(name, "native")
    for node in graph.nodes:
        FLOAT[node.op](builder, node)
    return builder


def program_of(graph: Graph, device: str = "cpu") -> Program:
    return Program(graph, graph.nodes, graph.outputs, torch.device(device))


def tensors(feed: Mapping[str, Array]) -> dict[str, Any]:
    return {name: torch.from_numpy(value) for name, value in feed.items()}


def assert_agrees(found: Any, truth: Array) -> None:
    assert found.shape == truth.shape
    assert str(found.dtype) == f"torch.{truth.dtype.name}"
    if truth.dtype == np.float32:
        np.testing.assert_allclose(found.numpy(), truth, rtol=2e-4, atol=2e-5 * max(1, np.abs(truth).max()))
    else:
        assert np.array_equal(found.numpy(), truth)


def check(graph: Graph, feeds: list[dict[str, Array]]) -> None:
    engine, program = FloatEngine(graph, threads=1), program_of(graph)
    truths = [engine.run(feed) for feed in feeds]
    for feed, truth in zip(feeds, truths, strict=True):
        for found, name in zip(program.one(tensors(feed)), graph.outputs, strict=True):
            assert_agrees(found, truth[name])
    if feeds[0]:
        stacks = {name: np.stack([feed[name] for feed in feeds]) for name in graph.inputs}
        for found, name in zip(program(tensors(stacks)), graph.outputs, strict=True):
            assert_agrees(found, np.stack([truth[name] for truth in truths]))


def random_feeds(graph: Graph) -> list[dict[str, Array]]:
    return [float_feeds(graph, seed) for seed in range(SAMPLES)]


def imported(model: ModelProto) -> Graph:
    graph = import_model(normalised(model, Path("model.onnx")))
    optimise(graph)
    return graph


@pytest.mark.parametrize("op", list(FLOAT))
@pytest.mark.filterwarnings("error:There is a performance drop")  # vmap that calls a kernel sample by sample
def test_operators_compute_what_the_engine_does(op: str) -> None:
    for graph in EXAMPLES[op]():
        check(graph, random_feeds(graph))


@pytest.mark.parametrize("op", list(ONNX_EXAMPLES))
def test_onnx_operators_compute_what_the_engine_does(op: str) -> None:
    for case in ONNX_EXAMPLES[op][::3]:  # neighbours differ little
        graph = imported(one_node_model(case))
        check(graph, samples(graph, case, SAMPLES, 1))


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("SUM", {"axes": (1,), "keep_dims": True}),
        ("MEAN", {"axes": (0, 2), "keep_dims": False}),
        ("REDUCE_PROD", {"axes": (1, 2), "keep_dims": False}),
        ("CUMSUM", {"axis": 1, "exclusive": True, "reverse": False}),
    ],
)
def test_integers_stay_what_they_are(op: str, attrs: dict[str, Any]) -> None:
    build = GraphBuilder()
    graph = build.output(build(op, build.input("x", (3, 4, 5), DType.INT32), output="y", **attrs))
    rng = np.random.default_rng(2)
    check(graph, [{"x": rng.integers(-2, 3, (3, 4, 5)).astype(np.int32)} for _ in range(SAMPLES)])


def test_deformed_convolution_of_one_row() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 2)).astype(np.float32)
    build = GraphBuilder()
    operands = build.input("x", (1, 1, 7, 2)), weight, build.input("offset", (1, 1, 7, 18))
    how = {"strides": (1, 1), "dilations": (1, 1), "pads": (1, 1, 1, 1), "groups": 1, "offset_group": 1}
    graph = build.output(build("DEFORM_CONV", *operands, output="y", **how))
    check(graph, random_feeds(graph))


@pytest.mark.parametrize("name", SNIPPETS)
def test_parts_of_networks_compute_what_the_engine_does(name: str) -> None:
    graph = imported(SNIPPETS[name]())
    check(graph, random_feeds(graph))


def test_there_is_a_kernel_of_every_primitive_and_no_other() -> None:
    graphs = [graph for op in FLOAT for graph in EXAMPLES[op]()] + [imported(make()) for make in SNIPPETS.values()]
    assert {node.op_type for graph in graphs for node in lowered(graph)._nodes} == set(KERNELS)


# -- gradients ---------------------------------------------------------------------------------------------------------
def slopes(graph: Graph) -> tuple[float, list[float], float]:
    """(slope of a random sum of the real results along a random direction of the real inputs, by gradients; the same by
    differences of the engine, one for each of STEPS; what the slope could be at most)."""
    rng, feed = np.random.default_rng(0), float_feeds(graph, 5)
    moved = {name: rng.normal(size=graph[name].shape) for name in graph.inputs if graph[name].dtype.is_float}
    summed = {name: rng.normal(size=graph[name].shape) for name in graph.outputs if graph[name].dtype.is_float}
    engine = FloatEngine(graph, threads=1)

    def total(step: float) -> float:
        steps = {name: (feed[name] + step * direction).astype(np.float32) for name, direction in moved.items()}
        values = engine.run({**feed, **steps})
        return sum(float(np.vdot(values[name], weights)) for name, weights in summed.items())

    inputs = {name: torch.from_numpy(value[None]).requires_grad_(name in moved) for name, value in feed.items()}
    results = dict(zip(graph.outputs, program_of(graph)(inputs), strict=True))
    loss = sum((results[name][0] * torch.from_numpy(weights)).sum() for name, weights in summed.items())
    gradients = torch.autograd.grad(loss, [inputs[name] for name in moved], materialize_grads=True)
    terms = [g[0].numpy() * direction for g, direction in zip(gradients, moved.values(), strict=True)]
    differences = [(total(step) - total(-step)) / (2 * step) for step in STEPS]
    return sum(float(t.sum()) for t in terms), differences, sum(float(np.abs(t).sum()) for t in terms)


def has_gradient(graph: Graph) -> bool:
    real = [any(graph[name].dtype.is_float for name in names) for names in (graph.inputs, graph.outputs)]
    return all(real) and not program_of(graph).by_sample


@pytest.mark.parametrize("op", [op for op in FLOAT if op not in JUMPING])
def test_gradients_are_differences(op: str) -> None:
    for graph in filter(has_gradient, EXAMPLES[op]()):
        slope, differences, most = slopes(graph)
        assert min(abs(slope - difference) for difference in differences) <= 0.02 * most


# -- what a kernel is given --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("op", list(FLOAT))
def test_values_stay_on_their_device(op: str) -> None:
    """The device "meta" refuses tensors of another one, as a GPU does."""
    for graph in EXAMPLES[op]():
        program = program_of(graph, "meta")
        if not program.by_sample:
            inputs = {name: value.to("meta") for name, value in tensors(float_feeds(graph, 0)).items()}
            assert all(result.is_meta for result in program.one(inputs))


WINDOW = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0, 0, 0, 0]}


@pytest.mark.parametrize(
    ("primitive", "attributes", "constants", "reason"),
    [
        ("Conv", {**WINDOW, "dilations": [1, 1], "auto_pad": "SAME_UPPER"}, [None, None], "not supported.*auto_pad"),
        ("Conv", WINDOW, [None, None], r"missing: \['dilations'\]"),
        ("AveragePool", {**WINDOW, "count_include_pad": 1}, [None], "not supported.*count_include_pad"),
        ("Reshape", {}, [None, None], "operand 1 is not a constant"),
        ("Reshape", {}, [None, np.array([0, -1])], r"Reshape to \[0, -1\]"),
        ("Clip", {}, [None, np.float32(0), None], "operand 2 is not a constant"),
        ("ReduceSum", {"keepdims": 1}, [None, np.zeros(0, np.int64)], "without axes"),
        ("Gemm", {"transB": 0}, [None, None, None], "transB"),
        ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, [None], "CRD"),
        ("LRN", {"size": 4, "alpha": 1.0, "beta": 1.0, "bias": 1.0}, [None], "4 channels"),
    ],
)
def test_what_no_row_emits_is_refused(
    primitive: str, attributes: Mapping[str, Any], constants: list[Array | None], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        KERNELS[primitive](attributes, constants)


@pytest.mark.parametrize(
    ("mode", "how", "scales"),
    [("cubic", "half_pixel", [1, 1, 2, 2]), ("nearest", "half_pixel", [1, 1, 2, 2]), ("nearest", "asymmetric", [1.5])],
)
def test_other_forms_of_resize_are_refused(mode: str, how: str, scales: list[float]) -> None:
    with pytest.raises(ValueError, match="Resize"):
        KERNELS["Resize"]({"mode": mode, "coordinate_transformation_mode": how}, [None, None, np.array(scales)])
