"""Runs of nodes that only move values, seen as one index map.

RESHAPE → TRANSPOSE → RESHAPE and the like say a simple thing in a roundabout way. Feeding the run with the numbers
0, 1, 2 ... instead of values shows where every value of its result comes from, whatever the run is made of.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

import numpy as np

from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.passes.editor import Editor
from sgs.registry import REFERENCE

MOVES = frozenset({"GATHER", "RESHAPE", "SLICE", "SPLIT", "SPLIT_V", "STRIDED_SLICE", "TRANSPOSE"})
_LONGEST = 12

IndexMap = np.ndarray[tuple[int, ...], np.dtype[np.int32]]


@dataclass(frozen=True)
class Chain:
    """`steps`, (node, which of its results goes on), lead from `source` to `result`."""

    source: Tensor
    result: Tensor
    steps: tuple[tuple[Node, int], ...]

    def __len__(self) -> int:
        return len(self.steps)

    def has(self, *ops: str) -> bool:
        return any(node.op in ops for node, _ in self.steps)

    def index_map(self, graph: Graph) -> IndexMap:
        """For each element of the result, in its shape, the flat index of the element of the source that it is."""
        value: Array = np.arange(self.source.elements, dtype=np.int32).reshape(self.source.shape)
        for node, output in self.steps:
            operands = graph.operands(node)
            values: list[Array | None] = [value, *(None if t is None else t.data for t in operands[1:])]
            value = REFERENCE[node.op](node, operands, graph.results(node), values)[output]
        return value.astype(np.int32)


def chains(edit: Editor, result: str, moves: Container[str] = MOVES) -> Iterator[Chain]:
    """The runs of `moves` that end in a tensor, the longest first. All but the first operand of every node are
    constants."""
    found: list[Chain] = []
    steps: tuple[tuple[Node, int], ...] = ()
    name = result
    while len(steps) < _LONGEST:
        node = edit.producers.get(name)
        if (
            node is None
            or node.op not in moves
            or any(edit.constant(n) is None for n in node.inputs[1:] if n is not None)
        ):
            break
        steps = ((node, node.outputs.index(name)), *steps)
        name = node.inputs[0] or ""
        found.append(Chain(edit.graph[name], edit.graph[result], steps))
    return reversed(found)
