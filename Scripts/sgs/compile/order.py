"""The order of a graph's operators: of several, the one that asks for the least memory."""

from __future__ import annotations

from collections.abc import Callable

from sgs.compile.live import Residence, reside
from sgs.compile.residency import spill_bound
from sgs.img.image import packed_bytes
from sgs.ir.graph import Graph, Node


def ordered(graph: Graph, capacity: int) -> Graph:
    """The graph with its operators in the order that spills least out of `capacity` bytes, then has the lowest peak;
    in the order that it has where no other is better."""
    best, best_cost = graph, _cost(graph, capacity)
    for make in (smallest_first, depth_first):
        trial = graph.copy()
        trial.nodes = make(trial)
        cost = _cost(trial, capacity)
        if cost < best_cost:
            best, best_cost = trial, cost
    return best


def _cost(graph: Graph, capacity: int) -> tuple[int, int]:
    residence = reside(graph)
    return spill_bound(residence, capacity), peak_alive(residence)


def peak_alive(residence: Residence) -> int:
    """Bytes alive at the worst layer."""
    changes = [0] * (len(residence.layers) + 1)
    for home, (first, last) in residence.spans.items():
        changes[first] += home.size
        changes[last + 1] -= home.size
    alive = peak = 0
    for change in changes:
        alive += change
        peak = max(peak, alive)
    return peak


def smallest_first(graph: Graph) -> list[Node]:
    """Of the operators whose operands are there, always the one after which the fewest bytes are alive; of equal ones
    the first."""
    left = {name: len(nodes) for name, nodes in graph.readers().items()}
    kept = set(graph.outputs)

    def growth(node: Node) -> int:
        made = sum(packed_bytes(t.shape, t.dtype) for t in graph.results(node) if left[t.name] or t.name in kept)
        freed = 0
        for name in dict.fromkeys(node.inputs):
            if name is not None and name not in kept and not graph[name].is_constant:
                last = left[name] == node.inputs.count(name)
                freed += packed_bytes(graph[name].shape, graph[name].dtype) if last else 0
        return made - freed

    def take(node: Node) -> None:
        for name in node.inputs:
            if name is not None:
                left[name] -= 1

    return _listed(graph, lambda ready: min(ready, key=growth), take)


def depth_first(graph: Graph) -> list[Node]:
    """One branch to its end before the next: always the operator whose operands were made last."""
    born: dict[str, int] = {}

    def latest(node: Node) -> int:
        return max((born.get(name, -1) for name in node.inputs if name is not None), default=-1)

    def take(node: Node) -> None:
        born.update(dict.fromkeys(node.outputs, len(born)))

    return _listed(graph, lambda ready: max(ready, key=latest), take)


def _listed(graph: Graph, choose: Callable[[list[Node]], Node], take: Callable[[Node], None]) -> list[Node]:
    """List scheduling: `choose` picks from the operators that are ready, in the graph's order."""
    made = {name for name, tensor in graph.tensors.items() if tensor.is_constant} | set(graph.inputs)
    waiting, order = list(graph.nodes), []
    while waiting:
        ready = [node for node in waiting if all(name is None or name in made for name in node.inputs)]
        node = choose(ready)
        waiting.remove(node)
        order.append(node)
        made.update(node.outputs)
        take(node)
    return order
