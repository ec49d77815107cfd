"""LSTM, GRU and RNN beyond their examples: what is refused, and integers that follow the real numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixed_examples import float_feeds, quantised
from onnx_snippets import Net
from sgs.engine import FixedEngine, FloatEngine, run_reference
from sgs.errors import UserError
from sgs.frontends.onnx_import import import_model
from sgs.frontends.onnx_model import normalised
from sgs.ir import Graph
from sgs.passes.pipeline import optimise
from sgs.quant.boundary import codes_of_inputs, real_outputs

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(op: str, steps: int, *, lengths: Any = "", **attrs: Any) -> Graph:
    """The graph of one operator: batch 2, 6 values a step, 8 hidden ones."""
    net, rows = Net(), GATES[op] * 8
    weights = [net.weights(1, rows, 6), net.weights(1, rows, 8), net.weights(1, 2 * rows)]
    result = net(op, net.input("x", steps, 2, 6), *weights, lengths, outputs=2, result="y", hidden_size=8, **attrs)
    return import_model(normalised(net.model(*result), Path("net.onnx")), skip_simplify=True)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize(("bits", "least"), [(8, 30), (16, 55)])
def test_integers_follow_the_real_numbers(op: str, bits: int, least: float) -> None:
    graph = recurrent(op, 20)
    optimise(graph)
    fixed, feeds = quantised(graph, bits), float_feeds(graph, 9)
    codes, truth = codes_of_inputs(fixed, feeds), FloatEngine(graph).run(feeds)
    values, reference = FixedEngine(fixed).run(codes), run_reference(fixed, codes)
    for name, value in real_outputs(fixed, values, fixed.outputs).items():
        assert np.array_equal(values[name], reference[name])
        error = np.sum((value - truth[name]) ** 2) / np.sum(truth[name] ** 2)
        assert -10 * np.log10(error) > least


def test_sequences_of_full_length_and_no_others() -> None:
    assert recurrent("GRU", 3, lengths=np.array([3, 3], np.int32)).outputs == ["y_0", "y_1"]
    with pytest.raises(UserError, match="sequences of full length are supported"):
        recurrent("GRU", 3, lengths=np.array([3, 2], np.int32))


@pytest.mark.parametrize(
    ("steps", "attrs", "told"),
    [
        (600, {}, "at most 512 are supported"),
        (3, {"activations": ["Cosine"]}, "the activation Cosine"),
        (3, {"activations": ["Affine"]}, "without alpha and beta"),
        (3, {"direction": "bidirectional"}, "with weights of 1"),
        (3, {"activations": ["Tanh", "Tanh"]}, "2 activations where 1 directions have 1 each"),
    ],
)
def test_what_is_refused(steps: int, attrs: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        recurrent("RNN", steps, **attrs)
