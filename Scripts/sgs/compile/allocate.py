"""Offsets for live ranges: which bytes of the arena each of them gets.

Allocators are policy and see nothing but live ranges: the fast ones first (`allocate_orders`), an exact search where
these leave a gap (`allocate_exact`). `check_plan` judges the result without sharing a line with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sgs.compile.allocate_check import check_plan
from sgs.compile.allocate_exact import tighten
from sgs.compile.allocate_orders import ORDERS, climb, lower_bound, neighbours_of, peak, place
from sgs.compile.live import LiveRange

__all__ = ["EFFORT", "Plan", "allocate", "check_plan", "lower_bound"]

EFFORT = 5_000  # decisions of the exact search before it gives up, 0.1-0.2 ms each


@dataclass(frozen=True)
class Plan:
    """Offset of every range in bytes, in the ranges' order; `peak` bytes suffice for all, `lower_bound` is what any
    plan needs."""

    offsets: tuple[int, ...]
    peak: int
    lower_bound: int
    method: str

    @property
    def gap(self) -> int:
        """Bytes that a better plan could save at most; 0 for a plan that is known to be the best."""
        return self.peak - self.lower_bound


def allocate(ranges: Sequence[LiveRange], target: int | None = None, effort: int = EFFORT) -> Plan:
    """The best plan of all allocators; a peak of `target` bytes or less ends the search. Same arguments, same plan.

    Sizes and offsets are multiples of whatever all sizes are multiples of.

    Args:
        target: bytes; None for the lower bound. "Do they fit into so many bytes?" is `allocate(...).peak <= target`;
            a `lower_bound` above it proves that they do not.
        effort: decisions of the exact search at most; it starts only when the fast allocators miss the target.
    """
    bound = lower_bound(ranges)
    goal = bound if target is None else target
    neighbours = neighbours_of(ranges)
    best, best_order = Plan((), 1 << 62, bound, ""), list[int]()
    for name, make_order in ORDERS.items():
        order = make_order(ranges)
        for fit, offsets in place(ranges, neighbours, order):
            if (height := peak(ranges, offsets)) < best.peak:
                best, best_order = Plan(tuple(offsets), height, bound, f"{name}, {fit}"), order
            if best.peak <= goal or best.gap == 0:
                return best
    if bound > goal:
        return best
    climbed, height = climb(ranges, neighbours, best_order, goal)
    if height < best.peak:
        best = Plan(tuple(climbed), height, bound, "hill climb")
    if best.peak <= goal:
        return best
    found, bound = tighten(ranges, best.peak, bound, target, effort)
    if found is None:
        return replace(best, lower_bound=bound)
    return Plan(tuple(found), peak(ranges, found), bound, "exact search")
