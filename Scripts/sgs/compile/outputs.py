"""Every output of a graph gets storage of its own."""

from __future__ import annotations

from sgs.compile.live import read_by_layers
from sgs.ir.graph import Graph, Node

COPY = "RESHAPE"  # to the shape it has: what is left of it, where its result may not share storage, is a copy


def separate_outputs(graph: Graph) -> Graph:
    """A graph in which no output is an input, a constant or read by an operator that computes: those become copies, so
    that what is read again may stay on the chip.

    The outputs keep their order; `Graph.outputs` of the argument says how they are called.
    """
    result = graph.copy()
    read_again = read_by_layers(graph)
    for index, name in enumerate(graph.outputs):
        source = result[name]
        if name in graph.inputs or source.is_constant or name in read_again:
            copy = result.add_tensor(f"{name}/output", source.shape, source.dtype, quant=source.quant)
            places = [place for place, node in enumerate(result.nodes) if name in node.outputs]
            node = Node(COPY, [name], [copy.name], {"shape": source.shape}, name)
            result.nodes.insert(places[0] + 1 if places else len(result.nodes), node)
            result.outputs[index] = copy.name
    return result
