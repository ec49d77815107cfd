"""A small transformer as exporters write it: from ONNX to integers, and to the offline simulator."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from closeness import cosine
from onnx_snippets import Net
from random_graphs import EXACT, judge
from sgs.compile import compile_graph
from sgs.config.chips import load_chip
from sgs.config.input_config import ConvSpec
from sgs.engine import FixedEngine, FloatEngine
from sgs.frontends.onnx_import import import_model
from sgs.frontends.onnx_model import normalised
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.passes.pipeline import optimise
from sgs.quant.boundary import codes_of_inputs, real_outputs
from sgs.quant.levels import Calibration
from sgs.quant.statistics import measure_extrema

TOKENS, WIDTH, HEADS, CLASSES = 17, 48, 3, 10


def number(value: float) -> Array:
    return np.array(value, np.float32)


def linear(net: Net, x: str, inputs: int, outputs: int) -> str:
    weight = net.rng.normal(0, inputs**-0.5, (inputs, outputs)).astype(np.float32)
    return str(net("Add", net("MatMul", x, weight), net.rng.normal(0, 0.1, outputs).astype(np.float32)))


def layer_norm(net: Net, x: str) -> str:
    """As operator set 13 has it, in parts."""
    factor, offset = (net.rng.normal(mean, 0.2, WIDTH).astype(np.float32) for mean in (1, 0))
    d = net("Sub", x, net("ReduceMean", x, axes=[-1]))
    v = net("ReduceMean", net("Pow", d, number(2)), axes=[-1])
    y = net("Div", d, net("Sqrt", net("Add", v, number(1e-6))))
    return str(net("Add", net("Mul", y, factor), offset))


def gelu(net: Net, x: str) -> str:
    erf = net("Erf", net("Div", x, number(2**0.5)))
    return str(net("Mul", net("Mul", x, net("Add", erf, number(1))), number(0.5)))


def attention(net: Net, x: str, mask: Array | None) -> str:
    shape, depth = np.array([1, TOKENS, HEADS, WIDTH // HEADS]), WIDTH // HEADS
    parts = [net("Reshape", linear(net, x, WIDTH, WIDTH), shape) for _ in range(3)]
    q, k, v = (net("Transpose", part, perm=perm) for part, perm in zip(parts, TURNS, strict=True))
    scores = net("Div", net("MatMul", q, k), number(depth**0.5))
    weights = net("Softmax", scores if mask is None else net("Add", scores, mask), axis=-1)
    joined = net("Transpose", net("MatMul", weights, v), perm=[0, 2, 1, 3])
    return linear(net, net("Reshape", joined, np.array([1, TOKENS, WIDTH])), WIDTH, WIDTH)


TURNS = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
CAUSAL = np.where(np.tri(TOKENS, dtype=bool), 0, -1e4).astype(np.float32)


def encoder(mask: Array | None) -> Graph:
    """Two layers, [1, TOKENS, WIDTH] → [1, CLASSES]."""
    net = Net(seed=3)
    x = net("Add", net.input("x", 1, TOKENS, WIDTH), net.rng.normal(0, 0.5, (TOKENS, WIDTH)).astype(np.float32))
    for _ in range(2):
        x = net("Add", x, attention(net, layer_norm(net, x), mask))
        inner = gelu(net, linear(net, layer_norm(net, x), WIDTH, 4 * WIDTH))
        x = net("Add", x, linear(net, inner, 4 * WIDTH, WIDTH))
    pooled = net("ReduceMean", layer_norm(net, x), axes=[1], keepdims=0)
    graph = import_model(normalised(net.model(linear(net, pooled, WIDTH, CLASSES)), Path("encoder.onnx")))
    optimise(graph)
    return graph


def samples(graph: Graph, count: int, seed: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(0.3, 2, count)
    return [{name: rng.normal(0, s, graph[name].shape).astype(np.float32) for name in graph.inputs} for s in sizes]


@pytest.mark.parametrize("mask", [None, CAUSAL], ids=["plain", "causal"])
@pytest.mark.parametrize("bits, least", [(None, 0.999), ("ALL_INT16", 0.99998)], ids=["8bit", "16bit"])
def test_a_transformer_in_integers(mask: Array | None, bits: str | None, least: float) -> None:
    graph = encoder(mask)
    feeds, others = samples(graph, 12, 1), samples(graph, 6, 2)
    work = Calibration(graph, measure_extrema(graph, feeds, threads=1), feeds, ConvSpec(input_format=bits), threads=1)
    core = work.fixed(work.run("L1"))
    kinds = Counter(node.op for node in core.nodes)
    assert (kinds["NORMALISE"], kinds["BATCH_MATMUL"], kinds["SOFTMAX_NORM"], kinds["DIV"]) == (5, 4, 2, 0)
    fixed, real = FixedEngine(core, threads=1), FloatEngine(graph, threads=1)
    for sample in others:
        values = real_outputs(core, fixed.run(codes_of_inputs(core, sample)), core.outputs)
        truth = real.run(sample)
        assert all(cosine(values[name], truth[name]) > least for name in core.outputs)
    if mask is None:
        assert judge(core, compile_graph(core, load_chip("ibopper"))) == EXACT
