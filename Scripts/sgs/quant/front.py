"""Which sums of products get the higher of two precisions: size of the weights against error at the outputs.

Errors of different sums of products add up nearly independently (`quant.sensitivity`), so what raising one of them
gains has nothing to do with the others: a multiple-choice knapsack of two classes each. Raised in order of what they
gain per bit of weights, they give the lower convex hull of all choices (Sinha and Zoltners 1979, The multiple-choice
knapsack problem); between its points smaller ones are raised as far as they fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from sgs.errors import UserError
from sgs.ir import Graph
from sgs.quant.edit import mac_nodes
from sgs.registry import COST, QUANTISE

STAGE = "mixed precision"
WIDEST = 16  # bits; rates are shares of what weights of so many would take
STEP = 0.01  # of rates that are recommended
TOLERANCE = 10**-2.5  # relative error energy at the outputs with which little is lost: 25 dB
AS_GOOD = 2.0  # times the error of all in the higher precision: 3 dB
_SLACK = 1e-9  # of rates, which are sums of binary64


@dataclass(frozen=True)
class Size:
    """Of a sum of products: how many weights it has, and multiply-accumulates."""

    weights: int
    macs: int


@dataclass(frozen=True)
class Point:
    """A precision for every sum of products, `bits` by result.

    `rate`: Σ bits·weights / (16·Σ weights); `error`: expected relative error energy at the outputs; `weight_bytes`: of
    packed weights; `raised_macs`: the share of multiply-accumulates in at least the higher precision.
    """

    rate: float
    error: float
    bits: Mapping[str, int]
    weight_bytes: int
    raised_macs: float

    @property
    def sqnr(self) -> float:
        """The expected signal to noise at the outputs, dB."""
        return -10 * math.log10(max(self.error, 1e-12))


@dataclass(frozen=True)
class Front:
    """Choices between the two precisions of a `pair`, of which none with weights as small has less expected error.

    `errors`: result of every sum of products → bits → relative error energy at the outputs when it alone has so many
    (none in 16); `pinned`: those that are no matter of choice, with their bits.
    """

    pair: tuple[int, int]
    sizes: Mapping[str, Size]
    errors: Mapping[str, Mapping[int, float]]
    pinned: Mapping[str, int]

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """The convex hull, by rate: from all in the lower precision to all that gain by it in the higher."""
        return tuple(self._point(self._order[:count]) for count in range(len(self._order) + 1))

    @property
    def lowest(self) -> float:
        """The least rate there is."""
        return self.points[0].rate

    @cached_property
    def highest(self) -> float:
        """The rate of all in the higher precision."""
        return self._point(self._free).rate

    def at(self, rate: float) -> Point:
        """The choice with the least expected error whose rate does not exceed this one: of those that raise sums of
        products in order, as far as they fit, leaving out one of them or none, the best; of equals the smallest.

        Raises UserError for a rate below the least, which depends on what is pinned.
        """
        if rate < self.lowest - _SLACK:
            why = f": the bits of {len(self.pinned)} sums of products are given" if self.pinned else ""
            raise UserError(
                f"the weights take at least {self.lowest:.4f} of what they would in {WIDEST} bits{why}",
                stage=STAGE,
                node=f"mp_rate {rate:g}",
                remedy=f"ask for {math.ceil(self.lowest * 1e4 - _SLACK) / 1e4:g} to {self.highest:.4g}",
            )
        room = (rate - self.lowest + _SLACK) * WIDEST * self._weights
        costs = [0, *accumulate(map(self._cost, self._order))]
        fitting = [count for count, cost in enumerate(costs) if cost <= room]
        points = [self._point(self._filled(count, room)) for count in fitting]
        return min(points, key=lambda point: (point.error, point.rate))

    def recommended_rate(self, tolerance: float = TOLERANCE) -> float:
        """The least multiple of 0.01 at which the expected error is at most `tolerance`, or twice that of all in the
        higher precision if this is more."""
        limit = max(tolerance, AS_GOOD * self.points[-1].error)
        met = next(index for index, point in enumerate(self.points) if point.error <= limit)
        first, last = (steps_to(self.points[index].rate) for index in (max(met - 1, 0), met))
        return next(count * STEP for count in range(first, last + 1) if self._tolerable(count * STEP, limit))

    def recommended(self, tolerance: float = TOLERANCE) -> Point:
        """What there is at the recommended rate."""
        return self.at(self.recommended_rate(tolerance))

    def _tolerable(self, rate: float, limit: float) -> bool:
        return rate >= self.lowest - _SLACK and self.at(rate).error <= limit

    @cached_property
    def _weights(self) -> int:
        return sum(size.weights for size in self.sizes.values())

    @cached_property
    def _free(self) -> list[str]:
        return [name for name in self.sizes if name not in self.pinned]

    @cached_property
    def _order(self) -> list[str]:
        """What gains by the higher precision, by how much per bit of weights."""
        worth = {name: self._gain(name) / self._cost(name) for name in self._free}
        return sorted((name for name in self._free if worth[name] > 0), key=lambda name: -worth[name])

    def _gain(self, name: str) -> float:
        low, high = self.pair
        return self.errors[name][low] - self.errors[name][high]

    def _cost(self, name: str) -> int:
        """Bits that raising takes."""
        return self.sizes[name].weights * (self.pair[1] - self.pair[0])

    def _filled(self, count: int, room: float) -> list[str]:
        """The first `count` that there are in order and, but for the one behind them, all that then still fit."""
        chosen = self._order[:count]
        room -= sum(map(self._cost, chosen))
        for name in self._order[count + 1 :]:
            if self._cost(name) <= room:
                room -= self._cost(name)
                chosen.append(name)
        return chosen

    def _point(self, raised: Iterable[str]) -> Point:
        (low, high), raised = self.pair, set(raised)
        bits = {name: self.pinned.get(name, high if name in raised else low) for name in self.sizes}
        work = {name: size.macs for name, size in self.sizes.items()}
        return Point(
            rate=sum(bits[name] * size.weights for name, size in self.sizes.items()) / (WIDEST * self._weights),
            error=math.fsum(self.errors[name][width] for name, width in bits.items()),
            bits=bits,
            weight_bytes=sum(-(-bits[name] * size.weights // 8) for name, size in self.sizes.items()),
            raised_macs=sum(work[name] for name in bits if bits[name] >= high) / max(sum(work.values()), 1),
        )


def steps_to(rate: float) -> int:
    """How many STEPs there are to a rate, rounded up."""
    return math.ceil(rate / STEP - _SLACK)


def sizes_of(prepared: Graph) -> dict[str, Size]:
    """Result of every sum of products of a prepared graph → its size."""
    found = {}
    for node in mac_nodes(prepared):
        weight = prepared[node.inputs[QUANTISE[node.op].weight] or ""]
        work = COST[node.op](node, prepared.operands(node), prepared.results(node)).macs
        found[node.outputs[0]] = Size(weight.elements, work)
    return found
