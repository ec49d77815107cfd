"""A graph as text, one line a node: for logs and for tests."""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Graph, Tensor


def describe(tensor: Tensor) -> str:
    """`name: UINT8[1,8,8,3]`."""
    return f"{tensor.name}: {tensor.dtype.name}[{','.join(map(str, tensor.shape))}]"


def _value(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"array{list(value.shape)}"
    return str(value)


def dump(graph: Graph) -> str:
    """The whole graph as text: inputs, a line per node with its attributes, outputs."""
    lines = [f"graph {graph.name}", "in   " + "; ".join(describe(graph[n]) for n in graph.inputs)]
    for node in graph.nodes:
        operands = ", ".join(
            "-" if t is None else (f"#{describe(t)}" if t.is_constant else t.name) for t in graph.operands(node)
        )
        attrs = " ".join(f"{k}={_value(v)}" for k, v in sorted(node.attrs.items()))
        lines.append(f"{'; '.join(describe(t) for t in graph.results(node))} = {node.op}({operands}) {attrs}".rstrip())
    lines.append("out  " + "; ".join(describe(graph[n]) for n in graph.outputs))
    return "\n".join(lines) + "\n"
