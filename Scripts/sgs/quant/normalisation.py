"""Find normalisations that a float graph spells in means and elementwise operators, for one NORMALISE each.

In INT16 steps they would lose what they are made for: a variance spans twice as many orders of magnitude as what it is
the variance of. Recognised are quotients d / D and products d · 1/D, where 1/D is RSQRT or a quotient, with

    d  x, or x - MEAN(x)
    D  SQRT(V), SQRT(V + epsilon), max(SQRT(..), floor), SQRT(..) + offset
    V  MEAN(d²), SUM(d²), or one of them over or times a constant

all over the same axes, whatever operators make the squares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sgs.ir import Graph, Node
from sgs.ops.normalise import FLOOR, OP


def with_normalisations(graph: Graph) -> None:
    """Replace in place the last node of every normalisation by a NORMALISE that reads x; what nobody reads any more
    stays to be pruned."""
    search = _Search(graph)
    graph.nodes = [search.normalisation(node) or node for node in graph.nodes]


@dataclass(frozen=True)
class _Deviation:
    """A tensor `x`, less its mean over `axes` where these are given."""

    x: str
    axes: tuple[int, ...] | None


@dataclass(frozen=True)
class _Divisor:
    """max(sqrt(Σ of squares / count + epsilon), floor) + offset; the squares are `of` a deviation, summed over
    `axes`."""

    of: _Deviation
    axes: tuple[int, ...]
    count: float
    epsilon: float = 0.0
    floor: float = FLOOR
    offset: float = 0.0


class _Search:
    """Reads a graph backwards from a node."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._makers: Mapping[str, Node] = graph.producers()

    def normalisation(self, node: Node) -> Node | None:
        """The NORMALISE that computes the node's result, or None."""
        for numerator, divisor in self._quotients(node):
            deviation = self._deviation(numerator)
            if divisor is None or deviation != divisor.of or self._graph[deviation.x].is_constant:
                continue
            if deviation.axes not in (None, divisor.axes):  # the mean is over other axes: another operator's
                deviation = _Deviation(numerator, None)
            numbers = {name: getattr(divisor, name) for name in ("count", "epsilon", "floor", "offset")}
            activation = node.attrs.get("activation", "NONE")
            attrs: dict[str, Any] = {"axes": divisor.axes, "centre": deviation.axes is not None, **numbers}
            return Node(OP, [deviation.x], list(node.outputs), {**attrs, "activation": activation}, node.name)
        return None

    def _quotients(self, node: Node) -> Iterator[tuple[str, _Divisor | None]]:
        """Ways to see a node as a quotient of a tensor and a divisor."""
        if node.op == "DIV":
            numerator, divisor = _names(node)
            yield numerator, self._root(divisor)
        elif node.op == "MUL":
            for numerator, factor in self._orders(node):
                yield numerator, self._reciprocal(factor)

    def _reciprocal(self, name: str) -> _Divisor | None:
        """1 / divisor."""
        node = self._made(name, "RSQRT", "DIV", "POW")
        if node is None:
            return None
        if node.op == "RSQRT":
            return self._sum(_names(node)[0])
        first, second = _names(node)
        if node.op == "DIV":
            return self._root(second) if self._graph[first].number == 1 else None
        return self._sum(first) if self._graph[second].number == -0.5 else None

    def _root(self, name: str) -> _Divisor | None:
        """A square root, with what is done to it."""
        node = self._made(name, "SQRT", "POW", "ADD", "MAXIMUM")
        if node is None:
            return None
        if node.op == "SQRT":
            return self._sum(_names(node)[0])
        if node.op == "POW":
            base, power = _names(node)
            return self._sum(base) if self._graph[power].number == 0.5 else None
        for inner, constant in self._orders(node):
            number, root = self._graph[constant].number, self._root(inner)
            if number is None or root is None or number < 0 or root.offset:
                continue
            return replace(root, offset=number) if node.op == "ADD" else replace(root, floor=max(root.floor, number))
        return None

    def _sum(self, name: str) -> _Divisor | None:
        """What a root is taken of: a sum of squares, with what is added to it."""
        node = self._made(name, "ADD", "MAXIMUM")
        if node is None:
            return self._moment(name)
        for inner, constant in self._orders(node):
            number, moment = self._graph[constant].number, self._moment(inner)
            if number is None or moment is None or number < 0:
                continue
            if node.op == "ADD":
                return replace(moment, epsilon=number)
            return replace(moment, floor=max(moment.floor, math.sqrt(number)))
        return None

    def _moment(self, name: str) -> _Divisor | None:
        """MEAN or SUM of squares, over or times a positive constant."""
        node = self._made(name, "MEAN", "SUM", "MUL", "DIV")
        if node is None:
            return None
        if node.op in ("MUL", "DIV"):
            for inner, constant in [_names(node)] if node.op == "DIV" else self._orders(node):
                number, moment = self._graph[constant].number, self._moment(inner)
                if number is not None and moment is not None and number > 0:
                    return replace(moment, count=moment.count * (number if node.op == "DIV" else 1 / number))
            return None
        squared = self._squared(_names(node)[0])
        if squared is None or not node.attrs["keep_dims"]:
            return None
        axes, shape = tuple(node.attrs["axes"]), self._graph[node.inputs[0] or ""].shape
        return _Divisor(squared, axes, float(math.prod(shape[a] for a in axes)) if node.op == "MEAN" else 1.0)

    def _squared(self, name: str) -> _Deviation | None:
        """What a tensor holds the squares of."""
        node = self._made(name, "MUL", "POW", "SQUARE", "SQUARED_DIFFERENCE")
        if node is None:
            return None
        if node.op == "SQUARE":
            return self._deviation(_names(node)[0])
        first, second = _names(node)
        if node.op == "SQUARED_DIFFERENCE":
            return self._difference(first, second) or self._difference(second, first)
        if node.op == "POW":
            return self._deviation(first) if self._graph[second].number == 2 else None
        return self._deviation(first) if self._deviation(first) == self._deviation(second) else None

    def _deviation(self, name: str) -> _Deviation:
        """A tensor as the difference that makes it, or as itself."""
        node = self._made(name, "SUB")
        difference = None if node is None else self._difference(*_names(node))
        return difference or _Deviation(name, None)

    def _difference(self, x: str, mean: str) -> _Deviation | None:
        """x less its own mean."""
        node = self._made(mean, "MEAN")
        if node is None or not node.attrs["keep_dims"] or node.inputs[0] != x:
            return None
        return _Deviation(x, tuple(node.attrs["axes"]))

    # -- looking ---------------------------------------------------------------------------------------------------
    def _made(self, name: str, *ops: str) -> Node | None:
        """The node that makes a tensor, where it is one of these and clamps nothing."""
        node = self._makers.get(name)
        wanted = node is not None and node.op in ops and node.attrs.get("activation", "NONE") == "NONE"
        return node if wanted else None

    @staticmethod
    def _orders(node: Node) -> list[tuple[str, str]]:
        first, second = _names(node)
        return [(first, second), (second, first)]


def _names(node: Node) -> tuple[str, ...]:
    return tuple(name for name in node.inputs if name is not None)
