"""Operands that are constant: every operator's examples with each of its operands, and all of them, held fixed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import sgs.ops  # noqa: F401  fills the tables
from fixed_examples import code_feeds, fixed_variants
from sgs.config.chips import load_chip
from sgs.engine import run_reference
from sgs.ir import Graph, violations
from test_compile import FIXED_OPS, check_frames, through_file


def held(graph: Graph, names: tuple[str, ...]) -> Graph:
    """The graph with activations that are what they are for some feeds."""
    values, fixed = run_reference(graph, code_feeds(graph, 11)), graph.copy()
    for name in names:
        fixed[name].data = values[name]
    fixed.nodes = [node for node in fixed.nodes if not set(node.outputs) & set(names)]
    fixed.inputs = [name for name in fixed.inputs if name not in names]
    fixed.prune()
    return fixed


def with_constants(op: str) -> Iterator[tuple[str, Graph]]:
    """(label, graph) for every operand of the operator's nodes in its fixed examples, and for all of a node."""
    for label, graph in fixed_variants(op):
        for node in (node for node in graph.nodes if node.op == op):
            reads = [name for name in dict.fromkeys(node.inputs) if name is not None and not graph[name].is_constant]
            chosen = [(name,) for name in reads] + ([tuple(reads)] if len(reads) > 1 else [])
            for names in chosen:
                fixed = held(graph, names)
                if any(node.op == op for node in fixed.nodes):
                    yield f"{label}, {', '.join(names)}", fixed


@pytest.mark.parametrize("op", FIXED_OPS)
def test_constant_operands(op: str) -> None:
    """The same integers from reference, engine and image."""
    chip = load_chip("ibopper")
    for label, graph in with_constants(op):
        assert violations(graph) == [], label
        check_frames(graph, through_file(graph, chip), 1)
