"""Reshapes of reshapes, and those that change nothing."""

from __future__ import annotations

from sgs.ir.graph import Graph
from sgs.passes.editor import Editor


def fold_reshape(graph: Graph) -> int:
    """Case analysis of a RESHAPE:

    * it reads another RESHAPE: it reads that one's operand instead (the first goes away once nothing reads it);
    * its result has its operand's shape: it goes away, unless it ties a graph output to an input, a constant or another
      output, which need names of their own.
    """
    with Editor(graph) as edit:
        for node in graph.nodes:
            if node.op != "RESHAPE":
                continue
            producer = edit.producers.get(node.inputs[0] or "")
            if producer is not None and producer.op == "RESHAPE":
                edit.set_input(node, 0, producer.inputs[0] or "")
                edit.count += 1
            operand = graph[node.inputs[0] or ""]
            if operand.shape == graph[node.outputs[0]].shape:
                edit.count += edit.bypass(node, operand.name)
    return edit.count
