"""Exact search: does a given capacity suffice? A plan is built from the bottom of the arena up.

After Moffitt, "MiniMalloc: A Lightweight Memory Allocator for Hardware-Accelerated Machine Learning", ASPLOS 2023: only
canonical plans are looked at (no range could lie lower, all others left where they are), bounds are inferred per
section, and what is independent is searched independently. Unlike there, ranges are not placed in the order of their
offsets. A decision is about a valley, a run of sections of one floor between higher ones: which range lies on the floor
of one of its sections? It lies within the valley, for outside it would rest on a wall. Or none does, and the floor of
that section rises to the lowest support that a range could have there. Valleys do not depend on each other, so that the
most constrained section can be decided first, wherever it is.

Such a search is lucky or endless, hence it starts anew, with other orders, after a few more decisions than there are
ranges (Gomes, Selman, Kautz, "Boosting combinatorial search through randomization", AAAI 1998).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, product
from typing import TypeAlias

import numpy as np

from sgs.compile.allocate_parts import NONE, Block, Ints, Part, cut, whole
from sgs.compile.live import LiveRange

DETOURS = 300  # decisions of one search besides one for each range
PAIRS = 4096  # (range, section) pairs that cost as much as a decision itself
NOISE = 0.6  # of the order of ranges, as a share of their number
RAISE = -1  # the branch in which no range lies on the floor

Pending: TypeAlias = "tuple[Part, Pending] | None"


def tighten(
    ranges: Sequence[LiveRange], peak: int, bound: int, target: int | None, effort: int
) -> tuple[list[int] | None, int]:
    """(offsets with a lower peak than `peak`, or None; the lower bound, maybe proven to be higher than `bound`).

    Ends at the target (None: at the lower bound), when it is proven to be out of reach, or when the effort is spent.
    The effort is counted in decisions, 0.1-0.2 ms each, so that equal arguments give equal plans.
    """
    unit = math.gcd(*(item.size for item in ranges))
    best: list[int] | None = None
    strict, relaxed, share = _attempts(ranges, 0), _attempts(ranges, 1), 0.5
    for number in count():
        goal = bound if target is None else target
        if peak <= goal or goal < bound or effort <= 0:
            break
        easier = number % 2 == 1  # a share of the gap is left, and less of it where that succeeds
        capacity = min(goal + (int((peak - goal) * share) // unit * unit if easier else 0), peak - unit)
        search = _Search(capacity, *next(relaxed if easier else strict), effort)
        offsets, ended = search.run(whole(ranges))
        effort = search.effort - 1
        if offsets is not None:
            best, peak = offsets, max(o + item.size for o, item in zip(offsets, ranges, strict=True))
        elif ended:
            bound = capacity + unit
        if easier:
            share = share * 0.6 if offsets is not None else min(share * 1.15, 0.75)
    return best, bound


def _attempts(ranges: Sequence[LiveRange], seed: int) -> Iterator[tuple[Ints, bool]]:
    """(rank of every range, whether slack counts for the next section): without end; large or early ones first, and
    from the second round on in some disorder."""
    rng = random.Random(seed)
    by_size = sorted(range(len(ranges)), key=lambda i: (-ranges[i].size, ranges[i].first - ranges[i].last))
    by_time = sorted(range(len(ranges)), key=lambda i: (ranges[i].first, -ranges[i].size))
    noise = 0.0
    while True:
        for order, by_slack in product((by_size, by_time), (True, False)):
            place = [position + noise * rng.random() for position in range(len(order))]
            rank = np.empty(len(order), np.int64)
            rank[np.array(order)[np.argsort(place, kind="stable")]] = np.arange(len(order))
            yield rank, by_slack
        noise = NOISE * len(ranges)


@dataclass
class Decision:
    """What lies on the floor of a section of a part: branches that are left to try, the next one last. Ranges, or
    RAISE: nothing, and the floor rises to `raised`. `pending` are the parts that wait for this one."""

    part: Part
    section: int
    raised: int
    branches: list[int]
    pending: Pending


class _Search:
    """Depth first over decisions. A part without a plan goes back to the decision that separated it from others: what
    was decided since then, about those others, is of no help to it."""

    def __init__(self, capacity: int, rank: Ints, by_slack: bool, effort: int) -> None:
        self.capacity = capacity
        self.rank = rank
        self.by_slack = by_slack
        self.effort = effort
        self.decisions = len(rank) + DETOURS
        self.offsets = [0] * len(rank)

    def run(self, parts: list[Part]) -> tuple[list[int] | None, bool]:
        """(offsets, or None; whether the search came to its end)."""
        opened = self._inferred(parts)
        pending: Pending = None
        stack: list[Decision] = []
        while True:
            while opened is None:  # no plan there: the next branch of the decision that is to blame
                if not stack:
                    return None, True
                if not stack[-1].branches:
                    del stack[stack[-1].part.parent + 1 :]
                    continue
                pending = stack[-1].pending
                opened = self._follow(stack[-1], len(stack) - 1)
            for part in opened:
                pending = (part, pending)
            if pending is None:
                return self.offsets, True
            if self.effort <= 0 or self.decisions <= 0:
                return None, False
            part, pending = pending
            stack.append(self._decide(part, pending))
            opened = None

    def _inferred(self, parts: list[Part]) -> list[Part] | None:
        """The parts, the tightest last; None when one of them has no plan."""
        if not all(self._infer(part) for part in parts):
            return None
        return sorted(parts, key=lambda part: int((part.floor + part.rest).max()))

    def _infer(self, part: Part) -> bool:
        """Raise floors to the lowest range above them, and ranges to their highest floor; False when that leaves too
        little room."""
        block = part.block
        while True:
            lowest = np.minimum.reduceat(part.lowest[block.ranges_of], block.section_starts)
            if (lowest + part.rest > self.capacity).any():
                return False
            if (lowest <= part.floor).all():
                return True
            part.floor = lowest
            placed = part.lowest == NONE
            part.lowest = np.maximum.reduceat(lowest[block.sections_of], block.range_starts)
            part.lowest[placed] = NONE

    def _decide(self, part: Part, pending: Pending) -> Decision:
        """About the most constrained section of all valleys."""
        block, floor = part.block, part.floor
        self.effort -= 1 + len(block.ranges_of) // PAIRS
        self.decisions -= 1
        heads = np.flatnonzero(np.diff(floor, prepend=-1))  # of runs of sections with one floor
        ends = np.append(heads[1:], len(floor))
        heights = np.full(len(heads) + 2, NONE)
        heights[1:-1] = floor[heads]
        walls = np.minimum(heights[:-2], heights[2:])
        valley = np.repeat(walls > heights[1:-1], ends - heads)
        section = int(np.where(valley, self._freedom(part), NONE).argmin())
        run = int(np.searchsorted(heads, section, "right")) - 1
        inside = (part.lowest == floor[section]) & (block.first >= heads[run]) & (block.stop <= ends[run])
        over = inside & (block.first <= section) & (block.stop > section)
        branches = self._distinct(block, np.flatnonzero(over))
        # A range that lies higher rests on a wall or on another range within the valley.
        raised = min(int(walls[run]), int(floor[section] + block.size[inside & ~over].min(initial=NONE)))
        alone = over & (block.stop - block.first == 1)
        wasteful = (block.size[alone] <= raised - floor[section]).any()  # this one would fit below all that lie higher
        if not wasteful and raised + part.rest[section] <= self.capacity:
            branches.insert(0, RAISE)
        return Decision(part, section, raised, branches, pending)

    def _freedom(self, part: Part) -> Ints:
        """Per section, how little constrained it is: by the bytes that may be wasted, and the number of branches."""
        block = part.block
        on_floor = part.lowest[block.ranges_of] == part.floor[block.section_of_pair]
        branches: Ints = np.add.reduceat(on_floor, block.section_starts, dtype=np.int64)
        slack: Ints = self.capacity - part.floor - part.rest
        options = branches + (slack > 0)
        if self.by_slack:
            return (slack + self.capacity // 200) * options
        return options * (self.capacity + 1) + slack

    def _distinct(self, block: Block, found: Ints) -> list[int]:
        """Best rank last; of ranges with the same sections and size only one."""
        ordered = found[np.argsort(-self.rank[block.ids[found]], kind="stable")].tolist()
        return list({(int(block.first[r]), int(block.stop[r]), int(block.size[r])): r for r in ordered}.values())

    def _follow(self, decision: Decision, depth: int) -> list[Part] | None:
        """Take the next branch: the parts that it leaves, or None when it is seen to lead nowhere."""
        old, branch = decision.part, decision.branches.pop()
        part = replace(old, floor=old.floor.copy(), lowest=old.lowest.copy(), parent=depth)
        block = part.block
        if branch == RAISE:
            first, stop, height = decision.section, decision.section + 1, decision.raised
        else:
            first, stop = int(block.first[branch]), int(block.stop[branch])
            self.offsets[int(block.ids[branch])] = int(old.floor[decision.section])
            height = int(old.floor[decision.section] + block.size[branch])
        part.floor[first:stop] = height
        if branch != RAISE:
            part.rest, part.crossing = old.rest.copy(), old.crossing.copy()
            part.rest[first:stop] -= block.size[branch]
            part.crossing[first : stop - 1] -= 1
            part.lowest[branch] = NONE
            if not part.rest[first:stop].all() or not part.crossing[first : stop - 1].all():
                left = part.lowest != NONE
                arrays = (block.ids[left], block.first[left], block.stop[left], block.size[left])
                return self._inferred(cut(*arrays, part.floor, depth))
        touched = (block.first < stop) & (block.stop > first) & (part.lowest < height)
        part.lowest[touched] = height
        return [part] if self._infer(part) else None
