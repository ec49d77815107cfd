"""Sequential bias correction: make the mean of every sum of products what it is in the float network.

Rounding shifts the mean of each output channel; the shift is known on pictures and can be taken out of the bias at no
cost at run time. (Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, section
4.2: the empirical form.) Nodes are corrected in order, each seeing the corrected ones before it, on the same pictures
for both means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sgs.engine.lowering import SessionBuilder, session_options
from sgs.engine.single import NodeKernel
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array, dequantise
from sgs.numeric.types import DType
from sgs.quant.plan import QuantPlan
from sgs.quant.statistics import LINEAR, Statistics
from sgs.registry import FLOAT, QUANTISE


def corrected(
    core: Graph, plan: QuantPlan, floats: Statistics, feeds: Sequence[Mapping[str, Array]], *, threads: int = 0
) -> QuantPlan:
    """The plan with `bias_shift` of every sum of products set. `core` is the fixed graph that the plan makes.

    `floats` are statistics of the float network on exactly the pictures of `feeds`, which hold codes (see
    `quant.boundary.codes_of_inputs`) keyed by input name.
    """
    graph = core.copy()
    values: dict[str, list[Array]] = {name: [feed[name] for feed in feeds] for name in graph.inputs}
    last_use = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs if name is not None}
    for index, node in enumerate(graph.nodes):
        if node.outputs[0] in plan.macs:
            name = node.outputs[0]
            wanted = floats.mean(f"{name}{LINEAR}" if f"{name}{LINEAR}" in floats.tensors else name)
            shift = wanted - _linear_mean(graph, node, values[node.inputs[0] or ""], threads)
            before = plan.macs[name].bias_shift
            plan = plan.with_mac(name, bias_shift=shift if before is None else before + shift)
            _shift_bias(graph, node, shift)
        kernel = NodeKernel(graph, node, threads=threads)
        for name in node.outputs:
            values[name] = []
        for sample in range(len(feeds)):
            for name, result in zip(node.outputs, kernel([values[n][sample] for n in kernel.operands]), strict=True):
                values[name].append(result)
        for read in {n for n in node.inputs if n is not None}:
            if last_use[read] == index and read in values:
                del values[read]
    return plan


def _shift_bias(graph: Graph, node: Node, shift: Array) -> None:
    bias = graph[node.inputs[QUANTISE[node.op].bias] or ""]
    assert bias.data is not None and bias.quant is not None
    bias.data = bias.data + np.rint(shift / bias.quant.scale.astype(np.float64)).astype(bias.data.dtype)


def _linear_mean(graph: Graph, node: Node, codes: Sequence[Array], threads: int) -> Array:
    """Mean per channel of the sum of products, before its activation, over all samples and positions: float64 [O]."""
    rule = QUANTISE[node.op]
    x, result = graph[node.inputs[0] or ""], graph[node.outputs[0]]
    twin = Graph("linear")
    real_x = twin.add_tensor("x", x.shape, DType.FLOAT32)
    inputs: list[str | None] = [real_x.name]
    for index in (rule.weight, rule.bias):
        constant = graph[node.inputs[index] or ""]
        assert constant.data is not None and constant.quant is not None
        inputs.append(twin.add_constant(f"c{index}", dequantise(constant.data, constant.quant)).name)
    order: list[str | None] = [None] * len(node.inputs)
    order[0], order[rule.weight], order[rule.bias] = inputs
    twin.add_tensor("y", result.shape, DType.FLOAT32)
    x_float = graph[x.name]
    assert x_float.quant is not None
    builder = SessionBuilder(twin)
    builder.feed("x", "native")
    FLOAT[node.op](builder, Node(node.op, order, ["y"], {**node.attrs, "activation": "NONE"}, node.name))
    layout = builder.layouts("y")[0]
    axes = [a for a in range(len(result.shape)) if a != (1 if layout == "first" else len(result.shape) - 1)]
    mean = builder.op("ReduceMean", [builder.codes("y", layout), builder.const(np.array(axes, np.int64))], keepdims=0)
    builder.add_output("mean", mean, (result.shape[-1],))
    session = builder.finish({}, session_options(threads))
    total = np.zeros(result.shape[-1])
    for value in codes:
        total += session.run(["mean"], {"in:x": dequantise(value, x_float.quant)})[0]
    return total / len(codes)
