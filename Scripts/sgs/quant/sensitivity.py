"""What every sum of products in 8 bits does to the network's outputs.

The float network is built once with, for every sum of products, a twin whose operand and weights pass through the 8-bit
quantisers of the plan, and a gate that chooses between the two. With one gate open at a time the outputs show that
operation's error alone. Errors of different operations add up nearly independently, so the list also says what
promoting several of them gains. The measure is the relative error energy Σ(y_q - y)² / Σy² of the worst output; half
of it is the cosine that is lost, which `--sensitivity_threshold` is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sgs.data.shards import processors
from sgs.engine.lowering import SessionBuilder, session_options
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array, activation_params, dequantise, quantise_weights, symmetric_params
from sgs.numeric.types import DType
from sgs.quant.edit import mac_nodes
from sgs.quant.plan import QuantPlan
from sgs.registry import FLOAT, QUANTISE

GATES = "gates"


def output_errors(
    float_graph: Graph, prepared: Graph, plan: QuantPlan, feeds: Sequence[Mapping[str, Array]], *, threads: int = 0
) -> dict[str, float]:
    """Result name of every 8-bit sum of products → relative error energy at the worst output when it alone is in 8
    bits.
    """
    graph = float_graph.copy()
    names = [node.outputs[0] for node in mac_nodes(prepared) if plan.macs[node.outputs[0]].bits == 8]
    index = {name: k for k, name in enumerate(names)}
    builder = SessionBuilder(graph)
    for name in graph.inputs:
        builder.feed(name, "native")
    gates = builder.add_input(GATES, (len(names),))
    for node in list(graph.nodes):
        FLOAT[node.op](builder, node)
        if node.outputs[0] in index:
            _add_gated_twin(
                builder,
                graph,
                node,
                plan,
                builder.op("Gather", [gates, builder.const(np.array(index[node.outputs[0]]))]),
            )
    session = builder.finish(dict.fromkeys(graph.outputs, "native"), session_options(1))
    outputs = [f"out:{name}" for name in graph.outputs]
    worst = np.zeros(len(names))

    def run(feed: Mapping[str, Array], gate: Array) -> list[Array]:
        return list(session.run(outputs, {**{f"in:{n}": feed[n] for n in graph.inputs}, GATES: gate}))

    with ThreadPoolExecutor(threads or processors()) as pool:
        for feed in feeds:
            truth = run(feed, np.zeros(len(names), np.float32))
            gate_sets = list(np.eye(len(names), dtype=np.float32))
            for k, values in enumerate(pool.map(run, [feed] * len(gate_sets), gate_sets)):
                worst[k] += max(_relative(value, true) for value, true in zip(values, truth, strict=True))
    return {name: float(worst[k] / len(feeds)) for name, k in index.items()}


def _relative(value: Array, truth: Array) -> float:
    wide = truth.astype(np.float64)
    return float(((value - wide) ** 2).sum() / max(float((wide**2).sum()), 1e-30))


def _add_gated_twin(builder: SessionBuilder, graph: Graph, node: Node, plan: QuantPlan, gate: str) -> None:
    """Replace the node's result by result + gate · (twin - result)."""
    rule = QUANTISE[node.op]
    result = node.outputs[0]
    operand, weight = graph[node.inputs[0] or ""], graph[node.inputs[rule.weight] or ""]
    chosen = plan.range_of(operand.name, narrow=True)
    params = activation_params(chosen.low, chosen.high, DType.UINT8)
    layout = builder.layouts(operand.name)[0]
    scale = builder.const(np.asarray(params.scale[0], np.float32))
    zero = builder.const(np.asarray(params.zero_point[0], np.uint8))
    codes = builder.op("QuantizeLinear", [builder.codes(operand.name, layout), scale, zero])
    rounded = graph.add_tensor(f"{result}/twin_operand", operand.shape, operand.dtype)
    builder.put(rounded.name, builder.op("DequantizeLinear", [codes, scale, zero]), layout)
    assert weight.data is not None
    weight_params = symmetric_params(plan.macs[result].weight_bound, DType.INT8, rule.channel_axis)
    twin_weight = graph.add_constant(
        f"{result}/twin_weight", dequantise(quantise_weights(weight.data, weight_params, DType.INT8), weight_params)
    )
    twin = graph.add_tensor(f"{result}/twin", graph[result].shape, graph[result].dtype)
    inputs = list(node.inputs)
    inputs[0], inputs[rule.weight] = rounded.name, twin_weight.name
    FLOAT[node.op](builder, Node(node.op, inputs, [twin.name], dict(node.attrs), node.name))
    layout = builder.layouts(twin.name)[0]
    true = builder.codes(result, layout)
    difference = builder.op("Sub", [builder.codes(twin.name, layout), true])
    builder.put(result, builder.op("Add", [true, builder.op("Mul", [difference, gate])]), layout)
