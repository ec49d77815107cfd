"""A graph as a frontend read it → the graph that an ini asks for: its inputs and outputs, in its order and layouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sgs.builder import GraphBuilder
from sgs.frontends.onnx_layout import SourceLayout
from sgs.frontends.port_names import ordered
from sgs.ir import Graph
from sgs.ir.permute import NCHW_TO_NHWC, NHWC_TO_NCHW


def import_graph(
    read: Graph,
    path: Path,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    input_layouts: Mapping[str, SourceLayout] | None = None,
    output_layouts: Mapping[str, SourceLayout] | None = None,
    source_layouts: Mapping[str, SourceLayout] | None = None,
) -> Graph:
    """The graph with the inputs and outputs that are named, in that order. `path` is for messages.

    Args:
        input_names, output_names: default: those of `read`. Every input must be named; outputs may be left out.
        input_layouts, output_layouts: layout of the graph's own rank-4 inputs and outputs, by name; default "NHWC".
        source_layouts: likewise, of those of `read`.

    Raises:
        UserError: for names that `read` does not have; Problems for several.
    """
    graph = read.copy()
    graph.inputs = ordered(path, "input", read.inputs, input_names)
    graph.outputs = ordered(path, "output", read.outputs, output_names)
    graph.prune()
    there = source_layouts or {}
    for name in graph.inputs:
        _turn_input(graph, name, there.get(name, "NHWC"), (input_layouts or {}).get(name, "NHWC"))
    for name in graph.outputs:
        _turn_output(graph, name, there.get(name, "NHWC"), (output_layouts or {}).get(name, "NHWC"))
    return graph


def _turn_input(graph: Graph, name: str, there: SourceLayout, here: SourceLayout) -> None:
    """Put a Transpose behind an input that is to be fed in another layout than the network takes."""
    if there == here or len(graph[name].shape) != 4:
        return
    inputs, nodes = graph.inputs, graph.nodes
    inner = graph.fresh(f"{name}/{there.lower()}")
    graph.rename_tensor(name, inner)
    to_there = _turning(there)
    back = _turning(here)
    old = graph.tensors.pop(inner)
    graph.inputs, graph.nodes = [], []
    builder = GraphBuilder(graph)
    fed = builder.input(name, [old.shape[axis] for axis in back], old.dtype)
    builder("TRANSPOSE", fed, name=name, output=inner, perm=to_there)
    graph.inputs = inputs
    graph.nodes += nodes


def _turn_output(graph: Graph, name: str, there: SourceLayout, here: SourceLayout) -> None:
    """Put a Transpose in front of an output that is to come in another layout than the network makes."""
    if there == here or len(graph[name].shape) != 4:
        return
    inner = graph.fresh(f"{name}/{there.lower()}")
    graph.rename_tensor(name, inner)
    turned = GraphBuilder(graph)("TRANSPOSE", graph[inner], name=name, output=name, perm=_turning(here))
    graph.outputs = [turned.name if output == inner else output for output in graph.outputs]


def _turning(layout: SourceLayout) -> tuple[int, ...]:
    """The permutation from the other layout to this one."""
    return NHWC_TO_NCHW if layout == "NCHW" else NCHW_TO_NHWC
