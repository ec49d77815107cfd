"""Move Transposes through operators until they meet their inverses.

One walk over the nodes in order. Every tensor t of the old graph is *held* as a tensor n of the new one and a
permutation p with t = transpose(n, p); nothing is transposed until somebody needs it:

* TRANSPOSE (perm q): t is held as (n, compose(p, q)). No node. Inverse pairs and chains vanish here.
* RESHAPE to its operand's own shape: held as its operand is.
* an operator with operands held under p ≠ identity: its `LAYOUT` row may say what it becomes when it reads the n
  themselves. The candidates are every p among its operands, and the identity, which always works. Each costs the
  elements that must be transposed now, so that all operands agree, plus those that a reader is known to transpose
  (`_demands`); the cheapest wins, then the one with fewer nodes to insert. Moving only axes of extent 1 is a RESHAPE:
  no elements, one node.
* a RESHAPE through which p cannot pass has one more candidate: transpose only as far as brings the axes that it merges
  together, and let the rest of p move on.
* constants are permuted by the `LAYOUT` row; operands of lower rank than the others are reshaped to the same rank.
* graph inputs are held as themselves; graph outputs are made real.

Of what costs the same now and later, one walk takes the earlier transpose and a second walk the later one; the better
of the two graphs is taken, and only when it transposes fewer elements than the old one, or as many with fewer nodes, so
repeating the pass ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from sgs.ir.graph import Graph, Node, Tensor
from sgs.ir.permute import (
    Perm,
    compose,
    gather_runs,
    identity,
    inverse,
    is_identity,
    moves_only_units,
    permuted,
    reshape_first,
)
from sgs.registry import INFER, LAYOUT, Moved

_TRANSPOSE, _RESHAPE = "TRANSPOSE", "RESHAPE"


def move_transposes(graph: Graph) -> int:
    """Rewrite the graph with as few transposed elements as the walk finds. Returns the number of TRANSPOSE nodes saved,
    at least 1 when anything changed."""
    rebuilt = min((_Walk(graph, late).run() for late in (False, True)), key=_size)
    if _size(rebuilt) >= _size(graph):
        return 0
    saved = _count(graph) - _count(rebuilt)
    graph.tensors, graph.nodes, graph.outputs = rebuilt.tensors, rebuilt.nodes, rebuilt.outputs
    return max(1, saved)


def _count(graph: Graph) -> int:
    return sum(node.op == _TRANSPOSE for node in graph.nodes)


def _size(graph: Graph) -> tuple[int, int, int]:
    """(elements transposed, TRANSPOSE nodes, nodes): what the pass makes smaller."""
    moved = [graph[n.outputs[0]].elements for n in graph.nodes if n.op == _TRANSPOSE and not _is_free(graph, n)]
    return sum(moved), _count(graph), len(graph.nodes)


def _is_free(graph: Graph, node: Node) -> bool:
    return moves_only_units(graph[node.inputs[0] or ""].shape, node.attrs["perm"])


@dataclass(frozen=True)
class _Held:
    """An old tensor t: transpose(`name`, `perm`), where `name` is a tensor of the new graph of `shape`."""

    name: str
    shape: tuple[int, ...]
    perm: Perm

    def towards(self, perm: Perm) -> Perm:
        """How to transpose `name` so that t is then held under `perm`."""
        return compose(self.perm, inverse(perm))


_Price = tuple[int, int]


def _total(prices: Iterable[_Price]) -> _Price:
    listed = list(prices)
    return sum(p[0] for p in listed), sum(p[1] for p in listed)


def _price(shape: tuple[int, ...], turn: Perm) -> _Price:
    """Of transpose(x, turn) for an x of `shape`."""
    if is_identity(turn):
        return 0, 0
    return (0 if moves_only_units(shape, turn) else prod(shape)), 1


@dataclass(frozen=True)
class _Choice:
    """One way to carry a node over: its operands are brought under `perm`, then it becomes `moved` (None: unchanged).

    `price` is what decides: (elements to transpose, nodes to insert), now and by readers.
    """

    price: _Price
    perm: Perm
    moved: Moved | None

    def rank(self, late: bool) -> tuple[_Price, bool]:
        """The least is the best. Where elements have to be transposed anyway, now is better than later, when there
        may be several readers, unless `late`; where only units move, later is better: a RESHAPE may come that takes
        the move in."""
        return self.price, is_identity(self.perm) == (late or self.price[0] == 0)


class _Walk:
    """One walk. `late`: of transposes that cost the same now and later, it takes the later one, where those of several
    operands may have become one."""

    def __init__(self, graph: Graph, late: bool) -> None:
        self.late = late
        self.old = graph
        self.new = Graph(graph.name, inputs=list(graph.inputs), metadata=graph.metadata)
        self.held: dict[str, _Held] = {}
        self.real: dict[tuple[str, Perm], str] = {}  # transposes that exist in the new graph
        self.raised: dict[tuple[str, int], _Held] = {}  # reshapes to a higher rank that exist
        self.constants: dict[tuple[str, Perm], str] = {}
        self.demand = _demands(graph)

    def run(self) -> Graph:
        for name in self.old.inputs:
            self._file(self.old[name])
            self._hold(name, name, identity(len(self.old[name].shape)))
        for node in self.old.nodes:
            self._carry(node)
        self._finish_outputs()
        self.new.prune()
        return self.new

    # -- one node --------------------------------------------------------------------------------------------
    def _carry(self, node: Node) -> None:
        first = node.inputs[0] if node.inputs else None
        if node.op == _TRANSPOSE and first in self.held:
            held = self.held[first]
            self._hold(node.outputs[0], held.name, compose(held.perm, node.attrs["perm"]))
            return
        if node.op == _RESHAPE and first in self.held and self.old[first].shape == self.old[node.outputs[0]].shape:
            self.held[node.outputs[0]] = self.held[first]
            return
        choice = min(self._choices(node), key=lambda choice: choice.rank(self.late))
        if choice.moved is None and node.op == _RESHAPE and not is_identity(choice.perm):
            self._carry_gathered(node)
        elif choice.moved is None:
            self._emit(node, [self._original(name) for name in node.inputs], None)
        else:
            self._emit(node, self._operands(node, choice), choice.moved)

    def _choices(self, node: Node) -> list[_Choice]:
        """Every way to carry the node over; the first is to leave it as it is."""
        operands = [name for name in dict.fromkeys(node.inputs) if name in self.held]
        choices = [self._unmoved(node, operands)]
        for perm in dict.fromkeys(self.held[name].perm for name in operands if name is not None):
            if is_identity(perm):
                continue
            moved = self._moved(node, perm)
            if moved is not None:
                prices = [self._price_of(name, perm) for name in operands if name is not None]
                choices.append(_Choice(_total([*prices, *self._prices_after(node, moved.perms)]), perm, moved))
            elif node.op == _RESHAPE and self.old[node.outputs[0]].elements:
                choices.append(self._gathered(node, perm))
        return choices

    def _unmoved(self, node: Node, operands: Iterable[str | None]) -> _Choice:
        prices = [self._price_of(n, identity(len(self.old[n].shape))) for n in operands if n is not None]
        perms = [identity(len(t.shape)) for t in self.old.results(node)]
        rank = len(perms[0]) if perms else 0
        return _Choice(_total([*prices, *self._prices_after(node, perms)]), identity(rank), None)

    def _moved(self, node: Node, perm: Perm) -> Moved | None:
        """The row's answer where its premise holds: every operand that is computed has perm's rank, or can be raised to
        it, and no constant has a higher one."""
        row = LAYOUT.get(node.op)
        if row is None:
            return None
        tensors = [tensor for tensor in self.old.operands(node) if tensor is not None]
        if any(len(tensor.shape) > len(perm) for tensor in tensors):
            return None
        lower = [t for t in tensors if not t.is_constant and len(t.shape) < len(perm)]
        if lower and not (
            self._broadcasts(node, len(perm)) and all(is_identity(self.held[t.name].perm) for t in lower)
        ):
            return None
        return row(self.old, node, perm)

    def _broadcasts(self, node: Node, rank: int) -> bool:
        """True when the operator's results stay as they are after its operands get leading axes of extent 1."""
        operands = [
            t if t is None or t.is_constant else replace(t, shape=(1,) * (rank - len(t.shape)) + t.shape)
            for t in self.old.operands(node)
        ]
        try:
            shapes = [shape for shape, _ in INFER[node.op](node, operands)]
        except ValueError:
            return False
        return shapes == [t.shape for t in self.old.results(node)]

    def _price_of(self, name: str, perm: Perm) -> _Price:
        """Of bringing `name` to be held under `perm`."""
        held = self.held[name]
        if len(held.shape) < len(perm):
            shape = (1,) * (len(perm) - len(held.shape)) + held.shape
            return _price(shape, inverse(perm))
        turn = held.towards(perm)
        return (0, 0) if (held.name, turn) in self.real else _price(held.shape, turn)

    def _prices_after(self, node: Node, perms: Iterable[Perm]) -> Iterator[_Price]:
        """What readers of the results will pay, as far as that is known, when these are held under `perms`."""
        for name, perm in zip(node.outputs, perms, strict=True):
            wanted = self.demand.get(name)
            if wanted is not None:
                yield _price(permuted(self.old[name].shape, inverse(perm)), compose(perm, inverse(wanted)))

    # -- reshapes that p cannot pass -------------------------------------------------------------------------
    def _gathered(self, node: Node, perm: Perm) -> _Choice:
        _, _, after = self._gathering(node)
        gathered = (self.old[node.outputs[0]].elements, 1)
        return _Choice(_total([gathered, *self._prices_after(node, [after])]), perm, None)

    def _gathering(self, node: Node) -> tuple[Perm, tuple[int, ...], Perm]:
        """(transpose of the held tensor, shape of the reshape behind it, permutation behind that)."""
        operand, result = self.old[node.inputs[0] or ""], self.old[node.outputs[0]]
        held = self.held[operand.name]
        turn = gather_runs(operand.shape, held.perm, result.shape)
        passed = reshape_first(operand.shape, compose(inverse(turn), held.perm), result.shape)
        assert passed is not None
        return turn, *passed

    def _carry_gathered(self, node: Node) -> None:
        turn, shape, after = self._gathering(node)
        gathered = self._realise(self.held[node.inputs[0] or ""], turn)
        self._emit(node, [gathered], Moved({**node.attrs, "shape": shape}, (after,)))

    # -- building the new graph ------------------------------------------------------------------------------
    def _hold(self, old: str, name: str, perm: Perm) -> None:
        self.held[old] = _Held(name, self.new[name].shape, perm)

    def _file(self, tensor: Tensor) -> str:
        """Carry a tensor over under its own name."""
        self.new.tensors.setdefault(tensor.name, replace(tensor))
        return tensor.name

    def _fresh(self, stem: str) -> str:
        """A name in neither graph."""
        name, count = stem, 0
        while name in self.new.tensors or name in self.old.tensors:
            count += 1
            name = f"{stem}_{count}"
        return name

    def _original(self, name: str | None, hint: str = "") -> str | None:
        """The operand as the old graph has it, made real where needed."""
        if name is None or name not in self.held:
            return None if name is None else self._file(self.old[name])
        return self._realise(self.held[name], self.held[name].perm, hint or name)

    def _operands(self, node: Node, choice: _Choice) -> list[str | None]:
        assert choice.moved is not None
        names: list[str | None] = []
        for index, name in enumerate(node.inputs):
            if name is None:
                names.append(None)
            elif index in choice.moved.constants:
                names.append(self._constant(name, choice.perm, choice.moved.constants[index]))
            elif name in self.held:
                held = self._raise(name, len(choice.perm))
                names.append(self._realise(held, held.towards(choice.perm)))
            else:
                names.append(self._file(self.old[name]))
        return names

    def _constant(self, name: str, perm: Perm, data: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
        """A constant that a LAYOUT row permuted; one that other nodes need under the same permutation is shared."""
        present = self.constants.get((name, perm))
        shared = None if present is None else self.new[present].data
        if present is not None and shared is not None and np.array_equal(shared, data):
            return present
        old = self.old[name]
        stem = self._fresh(f"{name}/turned")
        self.new.tensors[stem] = Tensor(stem, tuple(data.shape), old.dtype, data, old.quant)
        self.constants[(name, perm)] = stem
        return stem

    def _raise(self, name: str, rank: int) -> _Held:
        """The tensor with leading axes of extent 1."""
        held = self.held[name]
        if len(held.shape) == rank:
            return held
        if (name, rank) not in self.raised:
            shape = (1,) * (rank - len(held.shape)) + held.shape
            result = self._append(_RESHAPE, held.name, f"{held.name}/raised", shape, {"shape": shape})
            self.raised[(name, rank)] = _Held(result, shape, identity(rank))
        return self.raised[(name, rank)]

    def _realise(self, held: _Held, turn: Perm, hint: str = "") -> str:
        """The name of transpose(held.name, turn) in the new graph; `hint` is the name to give it if that is free."""
        if is_identity(turn):
            return held.name
        key = (held.name, turn)
        if key not in self.real:
            shape = permuted(held.shape, turn)
            free = moves_only_units(held.shape, turn)
            stem = hint if hint and hint not in self.new.tensors else f"{held.name}/turned"
            attrs: dict[str, object] = {"shape": shape} if free else {"perm": turn}
            name = self._append(_RESHAPE if free else _TRANSPOSE, held.name, stem, shape, attrs)
            self.real[key] = name
            self.real[(name, inverse(turn))] = held.name
        return self.real[key]

    def _append(self, op: str, operand: str, stem: str, shape: tuple[int, ...], attrs: dict[str, object]) -> str:
        source = self.new[operand]
        name = stem if stem not in self.new.tensors and stem in self.old.tensors else self._fresh(stem)
        self.new.tensors[name] = Tensor(name, shape, source.dtype, None, source.quant)
        self.new.nodes.append(Node(op, [operand], [name], dict(attrs), operand))
        return name

    def _emit(self, node: Node, operands: list[str | None], moved: Moved | None) -> None:
        """Append the node, changed as `moved` says, and hold its results."""
        attrs = dict(node.attrs) if moved is None else moved.attrs
        made = Node(node.op, operands, [], dict(attrs), node.name)
        for index, result in enumerate(self.old.results(node)):
            perm = identity(len(result.shape)) if moved is None else moved.perms[index]
            shape = permuted(result.shape, inverse(perm))
            name = result.name if result.name not in self.new.tensors else self._fresh(result.name)
            self.new.tensors[name] = replace(result, name=name, shape=shape)
            made.outputs.append(name)
            self._hold(result.name, name, perm)
        self.new.nodes.append(made)
        if moved is not None:
            inferred = [shape for shape, _ in INFER[node.op](made, self.new.operands(made))]
            declared = [t.shape for t in self.new.results(made)]
            if inferred != declared:
                raise AssertionError(f"LAYOUT row of {node.label} promises {declared}, the node has {inferred}")

    def _finish_outputs(self) -> None:
        """Make the outputs real, under their names. An output that is an input or another output gets a copy."""
        for name in self.old.outputs:
            final = self._original(name, name)
            assert final is not None
            if final == name:
                self.new.outputs.append(name)
                continue
            if name in self.new.tensors:
                self._rename(name, self._fresh(f"{name}/inner"))
            if final in self.new.inputs or final in self.old.outputs or self.new[final].is_constant:
                shape = self.new[final].shape
                final = self._append(_RESHAPE, final, name, shape, {"shape": shape})
            if final != name:
                self._rename(final, name)
            self.new.outputs.append(name)

    def _rename(self, old: str, new: str) -> None:
        """Rename in the new graph and in what is held of it."""
        self.new.rename_tensor(old, new)
        self.held = {t: replace(h, name=new) if h.name == old else h for t, h in self.held.items()}
        self.real = {(new if n == old else n, p): (new if r == old else r) for (n, p), r in self.real.items()}


# -- what readers would like ---------------------------------------------------------------------------------
def _demands(graph: Graph) -> dict[str, Perm]:
    """For each tensor the permutation p under which most of its readers need no transpose, where that is known.

    Backwards: an output, and an operand of an operator that no Transpose passes, should be held under the identity; an
    operator that passes p on from operand to result likes what its result's readers like.
    """
    votes: dict[str, dict[Perm, int]] = {name: {identity(len(graph[name].shape)): 1} for name in graph.outputs}
    demand: dict[str, Perm] = {}
    for node in reversed(graph.nodes):
        for name in node.outputs:
            if name in votes:
                demand[name] = max(votes[name], key=lambda perm: votes[name][perm])
        for tensor in graph.operands(node):
            if tensor is None or tensor.is_constant:
                continue
            wanted = _wanted(graph, node, tensor, demand)
            if wanted is not None:
                count = votes.setdefault(tensor.name, {})
                count[wanted] = count.get(wanted, 0) + 1
    return demand


def _wanted(graph: Graph, node: Node, operand: Tensor, demand: dict[str, Perm]) -> Perm | None:
    """The permutation that `node` would like its operand to be held under."""
    rank = len(operand.shape)
    wanted = _of_results(graph, node, demand)
    if node.op == _TRANSPOSE:
        return None if wanted is None else compose(wanted, inverse(node.attrs["perm"]))
    if node.op == _RESHAPE:
        return None if wanted is None else _before_reshape(graph[node.outputs[0]], wanted, operand)
    row = LAYOUT.get(node.op)
    if row is None or (rank > 1 and row(graph, node, tuple(reversed(range(rank)))) is None):
        return identity(rank)
    if wanted is None or len(wanted) != rank:
        return None
    moved = row(graph, node, wanted)
    return wanted if moved is not None and all(perm == wanted for perm in moved.perms) else None


def _of_results(graph: Graph, node: Node, demand: dict[str, Perm]) -> Perm | None:
    """What the readers of a node's results want, by elements. A result with fewer than two axes of extent > 1 suits
    everybody as it comes."""
    votes: dict[Perm, int] = {}
    for result in graph.results(node):
        if result.name in demand and sum(extent != 1 for extent in result.shape) > 1:
            votes[demand[result.name]] = votes.get(demand[result.name], 0) + result.elements
    return max(votes, key=lambda perm: votes[perm]) if votes else None


def _before_reshape(result: Tensor, wanted: Perm, operand: Tensor) -> Perm | None:
    """How the operand of a RESHAPE should be held for its result to be held under `wanted`, or nearly: where axes would
    have to be brought together, somebody transposes anyway, and this says what leaves the rest of the axes alone."""
    if not result.elements:
        return None
    turn = gather_runs(result.shape, wanted, operand.shape)
    passed = reshape_first(result.shape, compose(inverse(turn), wanted), operand.shape)
    return None if passed is None else passed[1]
