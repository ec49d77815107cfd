"""Operators that give back their operand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sgs.ir.graph import Graph, Node
from sgs.ir.permute import is_identity
from sgs.passes.editor import Editor

_NEUTRAL = {"ADD": 0.0, "SUB": 0.0, "MUL": 1.0, "DIV": 1.0}
_COMMUTES = frozenset({"ADD", "MUL"})
# Selections that, when the result has the operand's shape, selected everything, in order.
_WHOLE = frozenset({"SLICE", "PAD", "CONCATENATION", "SPLIT", "SUM", "MEAN", "REDUCE_MAX", "REDUCE_MIN"})


def _kept_operand(graph: Graph, node: Node) -> str | None:
    """The operand that an arithmetic operator with a neutral constant gives back."""
    if node.op not in _NEUTRAL or node.attrs.get("activation", "NONE") != "NONE":
        return None
    left, right = graph.operands(node)
    for kept, other, swapped in ((left, right, False), (right, left, True)):
        if kept is None or other is None or other.data is None or (swapped and node.op not in _COMMUTES):
            continue
        if np.all(other.data == _NEUTRAL[node.op]) and kept.shape == graph[node.outputs[0]].shape:
            return kept.name
    return None


def _only_operand(graph: Graph, node: Node) -> str | None:
    """The operand of a selection that selects everything."""
    if node.op not in _WHOLE or len(node.outputs) != 1:
        return None
    data = [t for t in graph.operands(node) if t is not None and not t.is_constant]
    whole = len(data) == 1 and len(node.inputs) == 1 and data[0].shape == graph[node.outputs[0]].shape
    return data[0].name if whole else None


def _untransposed(graph: Graph, node: Node) -> str | None:
    return node.inputs[0] if node.op == "TRANSPOSE" and is_identity(node.attrs["perm"]) else None


_CASES: tuple[Callable[[Graph, Node], str | None], ...] = (_kept_operand, _only_operand, _untransposed)


def fold_identity(graph: Graph) -> int:
    """Remove x + 0, 0 + x, x - 0, x * 1, 1 * x and x / 1; slices, pads, splits, joins and reductions whose one operand
    has the result's shape; and a TRANSPOSE that permutes nothing."""
    with Editor(graph) as edit:
        for node in graph.nodes:
            kept = next((name for case in _CASES if (name := case(graph, node)) is not None), None)
            if kept is not None:
                edit.count += edit.bypass(node, kept)
    return edit.count
