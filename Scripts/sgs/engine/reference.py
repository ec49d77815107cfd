"""The integers by definition: every node by its `REFERENCE` row, in numpy, one after the other. Slow and obvious."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sgs.ir.graph import Graph
from sgs.numeric.quantise import Array
from sgs.registry import REFERENCE


def run_reference(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run a fixed graph on codes (or float32 where an input is float); returns every activation by name."""
    values: dict[str, Array] = {name: np.asarray(feeds[name]) for name in graph.inputs}
    values.update({name: data for name in graph.outputs if (data := graph[name].data) is not None})
    for node in graph.nodes:
        operands = graph.operands(node)
        arrays = [None if t is None else (t.data if t.is_constant else values[t.name]) for t in operands]
        results = graph.results(node)
        for tensor, value in zip(results, REFERENCE[node.op](node, operands, results, arrays), strict=True):
            if value.shape != tensor.shape or value.dtype != tensor.dtype.numpy:
                raise AssertionError(
                    f"reference of {node.label} gives {value.dtype}{value.shape}, "
                    f"declared {tensor.dtype.name}{tensor.shape}"
                )
            values[tensor.name] = value
    return values
