"""Fast allocators: ranges are placed one after the other, each where it fits best among those already placed that live
at the same time. They differ in the order.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from sgs.compile.live import LiveRange

CLIMB_PLACEMENTS = 20_000  # ranges placed by the hill climb before it gives up, 5-10 µs each

Order = list[int]


def lower_bound(ranges: Sequence[LiveRange]) -> int:
    """Bytes alive at the worst moment: no plan has a lower peak."""
    return max((alive for _, alive in _alive(ranges)), default=0)


def _alive(ranges: Sequence[LiveRange]) -> Iterator[tuple[int, int]]:
    """(command, bytes alive from there on), at every command where that changes."""
    changes: dict[int, int] = {}
    for item in ranges:
        changes[item.first] = changes.get(item.first, 0) + item.size
        changes[item.last + 1] = changes.get(item.last + 1, 0) - item.size
    alive = 0
    for command in sorted(changes):
        alive += changes[command]
        yield command, alive


def neighbours_of(ranges: Sequence[LiveRange]) -> list[list[int]]:
    """Per range, the others that live at the same time."""
    order = sorted(range(len(ranges)), key=lambda i: ranges[i].first)
    result: list[list[int]] = [[] for _ in ranges]
    for position, i in enumerate(order):
        for j in order[position + 1 :]:
            if ranges[j].first > ranges[i].last:
                break
            result[i].append(j)
            result[j].append(i)
    return result


# -- placing ranges in a given order -----------------------------------------------------------------------------------
Gaps = Iterator[tuple[int, int]]  # (offset, bytes) of free space between neighbours, ascending


def _gaps(taken: Sequence[tuple[int, int]], size: int) -> Gaps:
    """Gaps of at least `size` bytes below and between the `taken` (start, end); the space above them comes last."""
    end = 0
    for start, stop in taken:
        if start - end >= size:
            yield end, start - end
        end = max(end, stop)
    yield end, 1 << 62


def _best_fit(gaps: Gaps) -> int:
    return min(gaps, key=lambda gap: gap[1])[0]


def _lowest_fit(gaps: Gaps) -> int:
    return next(gaps)[0]


def _place(
    ranges: Sequence[LiveRange], neighbours: list[list[int]], order: Order, fit: Callable[[Gaps], int], limit: int
) -> list[int] | None:
    """Offsets by placing in this order; None as soon as the peak passes `limit`."""
    offsets = [-1] * len(ranges)
    for i in order:
        size = ranges[i].size
        taken = sorted((offsets[j], offsets[j] + ranges[j].size) for j in neighbours[i] if offsets[j] >= 0)
        offsets[i] = fit(_gaps(taken, size))
        if offsets[i] + size > limit:
            return None
    return offsets


def place(ranges: Sequence[LiveRange], neighbours: list[list[int]], order: Order) -> Iterator[tuple[str, list[int]]]:
    """(how it fits, offsets) of each way to place in this order."""
    for fit in (_best_fit, _lowest_fit):
        offsets = _place(ranges, neighbours, order, fit, 1 << 62)
        assert offsets is not None
        yield fit.__name__.strip("_").replace("_", " "), offsets


def peak(ranges: Sequence[LiveRange], offsets: Sequence[int]) -> int:
    return max((offset + item.size for item, offset in zip(ranges, offsets, strict=True)), default=0)


# -- orders ------------------------------------------------------------------------------------------------------------
def by_size(ranges: Sequence[LiveRange]) -> Order:
    """Large before small."""
    return sorted(range(len(ranges)), key=lambda i: (-ranges[i].size, ranges[i].first))


def by_area(ranges: Sequence[LiveRange]) -> Order:
    """Large and long-lived before small and short-lived."""
    return sorted(range(len(ranges)), key=lambda i: (-ranges[i].size * (ranges[i].last - ranges[i].first + 1), i))


def by_breadth(ranges: Sequence[LiveRange]) -> Order:
    """What lives at the most crowded moment first, large before small, then the next most crowded moment."""
    order: dict[int, None] = {}
    for command, _ in sorted(_alive(ranges), key=lambda moment: (-moment[1], moment[0])):
        there = [i for i, item in enumerate(ranges) if item.first <= command <= item.last]
        order.update(dict.fromkeys(sorted(there, key=lambda i: (-ranges[i].size, ranges[i].first))))
    return list(order)


def by_time(ranges: Sequence[LiveRange]) -> Order:
    """As they are needed, the longest-lived first."""
    return sorted(range(len(ranges)), key=lambda i: (ranges[i].first, -ranges[i].last, -ranges[i].size))


ORDERS: dict[str, Callable[[Sequence[LiveRange]], Order]] = {
    "by size": by_size,
    "by breadth": by_breadth,
    "by area": by_area,
    "by time": by_time,
}


# -- hill climb --------------------------------------------------------------------------------------------------------
def climb(ranges: Sequence[LiveRange], neighbours: list[list[int]], order: Order, target: int) -> tuple[list[int], int]:
    """(offsets, peak) of the best order near `order`, the lowest fit in all of them; `target` ends the climb.

    Move a range that reaches the peak, or one that it rests on, forward in the order; keep what is not worse. The same
    ranges give the same plan: the random numbers are seeded, and the effort is counted, not timed.
    """
    rng = random.Random(0)
    order = list(order)
    current = _place(ranges, neighbours, order, _lowest_fit, 1 << 62) or []
    height = peak(ranges, current)
    for _ in range(CLIMB_PLACEMENTS // max(len(ranges), 1)):
        if height <= target:
            break
        culprits = [i for i, item in enumerate(ranges) if current[i] + item.size == height]
        culprit = rng.choice(culprits)
        moved = rng.choice([culprit, culprit, *neighbours[culprit]])
        position = order.index(moved)
        trial = [*order[:position], *order[position + 1 :]]
        trial.insert(rng.randint(0, position), moved)
        offsets = _place(ranges, neighbours, trial, _lowest_fit, height)
        if offsets is not None:
            order, current, height = trial, offsets, peak(ranges, offsets)
    return current, height
