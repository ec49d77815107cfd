"""Activations into the operators in front of them."""

from __future__ import annotations

from sgs.ir.graph import Graph, Node
from sgs.passes.editor import Editor
from sgs.registry import SIM

# Operator → what a .sim calls it as a fused activation.
FUSED = {"RELU": "RELU", "RELU6": "RELU6", "RELU_N1_TO_1": "RELU_N1_TO_1"}


def takes_activation(node: Node) -> bool:
    """True for an operator that can carry an activation and carries none yet."""
    row = SIM.get(node.op)
    return row is not None and row.activation and node.attrs.get("activation", "NONE") == "NONE"


def fuse_activation(graph: Graph) -> int:
    """RELU, RELU6 or RELU_N1_TO_1 becomes the attr `activation` of the operator that makes its operand, when that
    operator has such an attr, still unused, and nothing else reads the operand. The result keeps its name."""
    with Editor(graph) as edit:
        for node in graph.nodes:
            if node.op not in FUSED:
                continue
            producer = edit.sole_producer(node.inputs[0])
            if producer is None or not takes_activation(producer):
                continue
            if edit.bypass(node, producer.outputs[0]):
                producer.attrs["activation"] = FUSED[node.op]
                edit.count += 1
    return edit.count
