"""What tells how near outputs are that cannot be compared themselves: those that jump, or have no counterpart."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sgs.compare.stage import Stage
from sgs.ir import Graph
from sgs.quant.selection import told_by
from sgs.report.compared import ComparedLayer


def stand_ins(a: Stage, b: Stage, pairs: Mapping[str, str], layers: Sequence[ComparedLayer]) -> tuple[str, ...]:
    """The nearest layers of B before such outputs whose decibels tell something. An .img, which has no graph, goes by
    that of A; `pairs`: tensor of B → its counterpart."""
    graph = b.graph or a.graph
    if graph is None:
        return ()
    known = pairs if b.graph is None else {name: name for name in b.described}
    same = {layer.name for layer in layers if not layer.jumps or layer.accumulated.max_abs == 0}
    telling = {known[layer.name]: layer.name for layer in layers if not layer.jumps}
    unknown = [known.get(name, name) for name in b.outputs if name not in same]
    found = {telling[name] for name in _before(unknown, graph, telling)}
    return tuple(layer.name for layer in layers if layer.name in found and layer.name not in b.outputs)


def _before(names: Collection[str], graph: Graph, known: Collection[str]) -> set[str]:
    """The nearest of the known tensors before others, of those that tell how near these are."""
    makers = graph.producers()
    found: set[str] = set()
    seen, waiting = set(names), list(names)
    while waiting:
        node = makers.get(waiting.pop())
        read = [] if node is None else [name for name in told_by(graph, node) if name not in seen]
        seen.update(read)
        found.update(name for name in read if name in known)
        waiting += [name for name in read if name not in known]
    return found
