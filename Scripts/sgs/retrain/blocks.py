"""Cut a float graph into blocks: runs of nodes that are retrained together.

A block ends where few values are alive, so that what is wanted of it is its results alone (block-wise reconstruction:
Li et al. 2021, BRECQ): behind a residual connection, not inside it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sgs.ir import Graph, Node

LEAST, MOST = 2, 8  # sums of products in a block, where the graph has them


@dataclass(frozen=True, eq=False)
class Block:
    """Nodes in order; what they read from outside; what later nodes, or nobody but the user, read of them."""

    nodes: Sequence[Node]
    operands: tuple[str, ...]
    results: tuple[str, ...]
    macs: tuple[str, ...]  # results of its sums of products


def blocks_of(graph: Graph, macs: Collection[str]) -> list[Block]:
    """The nodes of a float graph in blocks, in order; `macs` are the results of sums of products."""
    alive = _alive(graph)
    cuts, count, best = list[int](), 0, None
    for k, node in enumerate(graph.nodes):
        count += node.outputs[0] in macs
        if count < LEAST:
            continue
        if count > MOST and best is not None:
            cuts.append(best)
            count = sum(n.outputs[0] in macs for n in graph.nodes[best + 1 : k + 1])
            best = None
        if count >= LEAST and (best is None or alive[k] <= alive[best]):
            best = k
        following = graph.nodes[k + 1].outputs[0] in macs if k + 1 < len(graph.nodes) else True
        if count >= LEAST and alive[k] == 1 and following:
            cuts.append(k)
            count, best = 0, None
    last = len(graph.nodes) - 1
    if not cuts or cuts[-1] != last:
        cuts.append(last)
    return [_block(graph, a + 1, b + 1, macs) for a, b in zip([-1, *cuts], cuts, strict=False)]


def _alive(graph: Graph) -> list[int]:
    """Behind each node, how many values are still to be read."""
    last = _last_reads(graph)
    first = dict.fromkeys(graph.inputs, -1)
    first.update((name, k) for k, node in enumerate(graph.nodes) for name in node.outputs)
    return [sum(made <= k < last.get(name, -1) for name, made in first.items()) for k in range(len(graph.nodes))]


def _last_reads(graph: Graph) -> dict[str, int]:
    last = {name: k for k, node in enumerate(graph.nodes) for name in node.inputs if name is not None}
    return {**last, **dict.fromkeys(graph.outputs, len(graph.nodes))}


def _block(graph: Graph, start: int, stop: int, macs: Collection[str]) -> Block:
    nodes, last = graph.nodes[start:stop], _last_reads(graph)
    made = dict.fromkeys(name for node in nodes for name in node.outputs)
    read = dict.fromkeys(name for node in nodes for name in node.inputs if name is not None)
    operands = tuple(name for name in read if name not in made and not graph[name].is_constant)
    results = tuple(name for name in made if last.get(name, -1) >= stop)
    return Block(nodes, operands, results, tuple(n.outputs[0] for n in nodes if n.outputs[0] in macs))
