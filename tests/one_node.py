"""A sum of products of a float graph on its own, for tests that follow what calibration does to one."""

from __future__ import annotations

import numpy as np

from sgs.engine import FloatEngine
from sgs.ir import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.registry import QUANTISE


def weight_of(graph: Graph, name: str) -> tuple[Node, Array, int]:
    """(node, weights, their axis of output channels) of the sum of products whose result is `name`."""
    node = graph.producers()[name]
    rule = QUANTISE[node.op]
    weight = graph[node.inputs[rule.weight] or ""].data
    assert rule.kind == "mac" and weight is not None
    return node, weight, rule.channel_axis


def by_channel(values: Array, axis: int, rank: int) -> Array:
    """[O] shaped to go with weights."""
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def sum_of_products(graph: Graph, name: str, operand: Array, weight: Array) -> Array:
    """Operand · weights where the graph computes `name`, without bias and activation."""
    node, old, _ = weight_of(graph, name)
    x, y = graph[node.inputs[0] or ""], graph[name]
    assert operand.shape == x.shape and weight.shape == old.shape
    tensors = {
        "x": Tensor("x", x.shape, DType.FLOAT32),
        "w": Tensor("w", weight.shape, DType.FLOAT32, weight.astype(np.float32)),
        "y": Tensor("y", y.shape, DType.FLOAT32),
    }
    alone = Node(node.op, ["x", "w", None], ["y"], {**node.attrs, "activation": "NONE"})
    engine = FloatEngine(Graph("", tensors, [alone], ["x"], ["y"]), threads=1)
    return engine.run({"x": operand.astype(np.float32)})["y"]
