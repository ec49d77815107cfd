"""Why Transposes are left in an optimised graph: where each stems from, and what stops it above and below.

A Transpose can move up or down as long as the operators it meets can do their work on the other order of axes (`LAYOUT`
rows). From each one that is left, the walk goes both ways over operators that it could pass, to the first that it
cannot: those say why it is there, and the Transposes of the import between them where it stems from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from sgs.config.nearest import listing
from sgs.ir.graph import Graph, Node, Tensor
from sgs.ir.permute import Perm, inverse
from sgs.registry import LAYOUT

_TRANSPOSE = "TRANSPOSE"
_SHOWN = 3  # names in one list


@dataclass(frozen=True)
class Stop:
    """What a Transpose cannot pass: a node, or an input or output of the graph (`node` None). `passed` is how many
    nodes it could pass on the way there."""

    tensor: str
    node: Node | None
    reason: str
    passed: int


def explain_layout(imported: Graph, graph: Graph, written: Collection[str]) -> list[str]:
    """A line on how many Transposes there were and are left, and one on each that is left.

    Args:
        imported: the graph before, and `graph` after, optimisation.
        written: names of the Transposes that the network's author wrote; all others in `imported` stand where the
            layout of the source and that of our operators meet.
    """
    before = [node for node in imported.nodes if node.op == _TRANSPOSE]
    left = [node for node in graph.nodes if node.op == _TRANSPOSE]
    authors = sum(node.name in written for node in before)
    head = f"Transposes: {authors} in the model, {len(before) - authors} added where layouts meet; {len(left)} left"
    return [head, *(explain(imported, graph, node, written) for node in left)]


def explain(imported: Graph, graph: Graph, node: Node, written: Collection[str]) -> str:
    """Why one Transpose of `graph` is left, as a line."""
    operand, result = graph[node.inputs[0] or ""], graph[node.outputs[0]]
    above, below = stop_above(graph, node), stops_below(graph, node)
    extents, perm = ("x".join(map(str, operand.shape)), ",".join(map(str, node.attrs["perm"])))
    readers = [reader.label for reader in graph.nodes if result.name in reader.inputs]
    readers += [f"output '{result.name}'"] * (result.name in graph.outputs)
    where = f"between {_source(graph, operand.name)} and {listing(readers, _SHOWN)}"
    stems = _origin(imported, above, below, written)
    reasons = "; ".join([f"above, {_told(above)}", *(f"below, {_told(stop)}" for stop in below[:_SHOWN])])
    return f"Transpose [{perm}] of {extents}, {where}: {stems}; {reasons}"


def stop_above(graph: Graph, node: Node) -> Stop:
    """The first thing above a Transpose that it cannot pass, on the way of first computed operands."""
    producers = graph.producers()
    name, perm, passed = node.inputs[0] or "", tuple(node.attrs["perm"]), 0
    while True:
        maker = producers.get(name)
        if maker is None:
            return Stop(name, None, f"the input '{name}' is in this order", passed)
        computed = _computed(graph, maker)
        if len(computed) > 1:
            more = f"has {len(computed)} operands that would have to be transposed in its stead"
            return Stop(name, maker, more, passed)
        reason = _refusal(graph, maker, inverse(perm))
        if reason or not computed:
            return Stop(name, maker, reason or "computes it from constants", passed)
        name, passed = computed[0].name, passed + 1


def stops_below(graph: Graph, node: Node) -> list[Stop]:
    """The first things below a Transpose that it cannot pass, one for each reader."""
    readers = graph.readers()
    found: list[Stop] = []
    pending: list[tuple[str, Perm, int]] = [(node.outputs[0], tuple(node.attrs["perm"]), 0)]
    seen = set()
    while pending:
        name, perm, passed = pending.pop()
        if name in graph.outputs:
            found.append(Stop(name, None, f"the output '{name}' is in this order", passed))
        for reader in readers[name]:
            if reader.outputs[0] in seen:
                continue
            seen.add(reader.outputs[0])
            reason = _refusal(graph, reader, perm) or _others(graph, reader, name)
            if reason:
                found.append(Stop(name, reader, reason, passed))
                continue
            moved = LAYOUT[reader.op](graph, reader, perm)
            assert moved is not None  # else there was a refusal
            pending.extend((out, p, passed + 1) for out, p in zip(reader.outputs, moved.perms, strict=True))
    return found


def _refusal(graph: Graph, node: Node, perm: Perm) -> str:
    """Why a Transpose cannot pass through a node; "" where it can."""
    if node.op == _TRANSPOSE:
        return "is another Transpose, which does not undo it"
    row = LAYOUT.get(node.op)
    if row is None:
        return "needs its axes in this order"
    if any(len(tensor.shape) != len(perm) for tensor in _computed(graph, node)):
        return "has operands of another rank"
    return "" if row(graph, node, perm) is not None else "cannot do its work on the other order of axes"


def _others(graph: Graph, node: Node, name: str) -> str:
    """Which operand besides `name` would have to be transposed if a Transpose passed through."""
    others = [tensor for tensor in _computed(graph, node) if tensor.name != name]
    if not others:
        return ""
    told = listing([f"'{tensor.name}'" for tensor in others], _SHOWN)
    elements = sum(tensor.elements for tensor in others)
    return f"also reads {told}, of which {elements:,} elements would have to be transposed instead"


def _computed(graph: Graph, node: Node) -> list[Tensor]:
    """The operands that are not constants, each once."""
    found = {tensor.name: tensor for tensor in graph.operands(node) if tensor is not None and not tensor.is_constant}
    return list(found.values())


# -- origin ------------------------------------------------------------------------------------------------------------
def _origin(imported: Graph, above: Stop, below: list[Stop], written: Collection[str]) -> str:
    """Which Transposes of the import lie between the stops."""
    between = [node for stop in below for node in _between(imported, above.tensor, stop)]
    authors = list(dict.fromkeys(node.name for node in between if node.name in written))
    if authors:
        return f"it is the model's own {listing([repr(name) for name in authors], _SHOWN)}"
    added = list(dict.fromkeys(node.name for node in between))
    if added:
        return f"it was added where the layouts of {listing([repr(name) for name in added], _SHOWN)} meet"
    return "it came with a rewrite"


def _between(imported: Graph, top: str, stop: Stop) -> Iterator[Node]:
    """Transposes of the import on the ways from a tensor down to a stop. Both may have other names there: then none."""
    if top not in imported.tensors:
        return
    ends = {stop.tensor} if stop.node is None else {stop.node.outputs[0], stop.tensor}
    readers, producers = imported.readers(), imported.producers()
    down = _closure([top], lambda name: [out for reader in readers[name] for out in reader.outputs])
    starts = [name for name in ends if name in imported.tensors]
    up = _closure(starts, lambda name: [n for n in producers[name].inputs if n] if name in producers else [])
    yield from (node for node in imported.nodes if node.op == _TRANSPOSE and {*node.outputs} <= down & up)


def _closure(starts: Iterable[str], follow: Callable[[str], Iterable[str]]) -> set[str]:
    """All that can be reached from some names, these included."""
    found, pending = set(starts), list(starts)
    while pending:
        fresh = set(follow(pending.pop())) - found
        found |= fresh
        pending.extend(fresh)
    return found


# -- words -------------------------------------------------------------------------------------------------------------
def _told(stop: Stop) -> str:
    reason = stop.reason if stop.node is None else f"{stop.node.label} {stop.reason}"
    passed = "1 node" if stop.passed == 1 else f"{stop.passed} nodes"
    return f"behind {passed} that it could pass, {reason}" if stop.passed else reason


def _source(graph: Graph, name: str) -> str:
    maker = graph.producers().get(name)
    return f"input '{name}'" if maker is None else maker.label
