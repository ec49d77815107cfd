"""The torch kernels: the operators' own examples give what the float engine gives, alone and many samples at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

import sgs.ops  # noqa: F401  fills the tables
from fixed_examples import float_feeds
from sgs.engine import FloatEngine
from sgs.engine.lowering import SessionBuilder
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.registry import EXAMPLES, FLOAT

torch = pytest.importorskip("torch", reason="torch is not installed")
from sgs.retrain.kernels import BY_SAMPLE, KERNELS  # noqa: E402

SAMPLES = 3


class Recorded:
    """A float graph's primitives, to be run in torch."""

    def __init__(self, graph: Graph) -> None:
        builder = SessionBuilder(graph)
        for name in graph.inputs:
            builder.feed(name, "native")
        for node in graph.nodes:
            FLOAT[node.op](builder, node)
        self.graph = graph
        self.outputs = {name: builder.codes(name) for name in graph.outputs}
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in builder._constants}
        self.constants = {name: torch.from_numpy(np.array(value)) for name, value in constants.items()}
        self.nodes = []
        self.by_sample = any(node.op_type in BY_SAMPLE for node in builder._nodes)
        for node in builder._nodes:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}
            make = KERNELS[node.op_type](attributes, [constants.get(name) for name in node.input])
            self.nodes.append((make, list(node.input), list(node.output)))

    def __call__(self, *inputs: Any) -> Any:
        values = {**self.constants, "": None}
        values |= {f"in:{name}": value for name, value in zip(self.graph.inputs, inputs, strict=True)}
        for function, operands, results in self.nodes:
            found = function(*(values[name] for name in operands))
            values.update(zip(results, found if isinstance(found, tuple) else (found,), strict=True))
        return tuple(values[value] for value in self.outputs.values())


def agrees(found: Any, truth: Array) -> None:
    assert found.shape == truth.shape
    assert str(found.dtype) == f"torch.{truth.dtype.name}"
    if truth.dtype == np.float32:
        np.testing.assert_allclose(found.detach().numpy(), truth, rtol=2e-4, atol=2e-5 * max(1, np.abs(truth).max()))
    else:
        assert np.array_equal(found.numpy(), truth)


@pytest.mark.parametrize("op", list(FLOAT))
def test_examples(op: str) -> None:
    for graph in EXAMPLES[op]():
        engine, program = FloatEngine(graph, threads=1), Recorded(graph)
        feeds = [float_feeds(graph, seed) for seed in range(SAMPLES)]
        truths = [engine.run(feed) for feed in feeds]
        inputs = [[torch.from_numpy(feed[name]) for name in graph.inputs] for feed in feeds]
        for given, truth in zip(inputs, truths, strict=True):
            for found, name in zip(program(*given), graph.outputs, strict=True):
                agrees(found, truth[name])
        if program.by_sample:
            continue
        many = torch.func.vmap(program)(*(torch.stack(tensors) for tensors in zip(*inputs, strict=True)))
        for found, name in zip(many, graph.outputs, strict=True):
            agrees(found, np.stack([truth[name] for truth in truths]))
