"""Every output of a graph gets storage of its own."""

from __future__ import annotations

from sgs.ir.graph import Graph, Node

COPY = "RESHAPE"  # to the shape it has: what is left of it, where its result may not share storage, is a copy


def separate_outputs(graph: Graph) -> Graph:
    """A graph in which no output is an input or a constant: those become copies.

    The outputs keep their order; `Graph.outputs` of the argument says how they are called.
    """
    result = graph.copy()
    for index, name in enumerate(graph.outputs):
        source = result[name]
        if name in graph.inputs or source.is_constant:
            copy = result.add_tensor(f"{name}/output", source.shape, source.dtype, quant=source.quant)
            result.nodes.append(Node(COPY, [name], [copy.name], {"shape": source.shape}, name))
            result.outputs[index] = copy.name
    return result
