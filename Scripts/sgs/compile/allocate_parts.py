"""Independent parts of an allocation, as arrays for the exact search.

A section is a stretch of commands with the same live ranges; ranges that live at the same time share a section.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgs.compile.live import LiveRange

Ints = NDArray[np.int64]

NONE = 1 << 60  # bytes, above all offsets


@dataclass(frozen=True)
class Block:
    """Ranges that depend on each other, and their sections, both numbered from 0; facts that the search does not alter.

    The (range, section) pairs are held in both orders: `sections_of` has the sections of range r from
    `range_starts[r]`, `ranges_of` the ranges of section s from `section_starts[s]`.
    """

    ids: Ints  # numbers of the ranges outside
    first: Ints  # first section
    stop: Ints  # after the last section
    size: Ints  # bytes
    sections_of: Ints
    range_starts: Ints
    ranges_of: Ints
    section_starts: Ints
    section_of_pair: Ints  # sections in the order of `ranges_of`


@dataclass
class Part:
    """A block, some of whose ranges are placed.

    `floor` and `rest` are bytes per section: what is unplaced there lies at `floor` or above, and sums up to `rest`.
    `lowest` is the lowest offset that a range could still have, NONE for one that is placed; `crossing` counts the
    unplaced ranges over the boundary after each section but the last. `parent` is the depth of the decision that left
    this part, -1 for none: when the part has no plan, another branch must be taken there.
    """

    block: Block
    floor: Ints
    rest: Ints
    lowest: Ints
    crossing: Ints
    parent: int = -1


def whole(ranges: Sequence[LiveRange]) -> list[Part]:
    """The independent parts of a problem in which nothing is placed. Ranges of no bytes are left out."""
    ids = np.array([i for i, item in enumerate(ranges) if item.size], np.int64)
    if not len(ids):
        return []
    first = np.array([ranges[i].first for i in ids], np.int64)
    stop = np.array([ranges[i].last + 1 for i in ids], np.int64)
    size = np.array([ranges[i].size for i in ids], np.int64)
    # Between a begin and the next end ranges only add up, so the moment before that end stands for all of them.
    events = np.unique(np.concatenate([first, stop]))
    begins, ends = np.isin(events, first), np.isin(events, stop)
    ended, heads = True, list[int]()
    for event, begin, end in zip(events, begins, ends, strict=True):
        ended = ended or bool(end)
        if begin and ended:
            heads.append(int(event))
            ended = False
    section_heads = np.array(heads)
    first = np.searchsorted(section_heads, first, "right") - 1
    stop = np.searchsorted(section_heads, stop, "left")
    return cut(ids, first, stop, size, np.zeros(len(heads), np.int64))


def cut(ids: Ints, first: Ints, stop: Ints, size: Ints, floor: Ints, parent: int = -1) -> list[Part]:
    """The parts that no range connects, `floor` being given per section of them all. Sections without a range are
    left out."""
    edges = np.zeros(len(floor) + 1, np.int64)
    np.add.at(edges, first, 1)
    np.add.at(edges, stop, -1)
    alive = np.cumsum(edges)[:-1]
    inner = np.zeros(len(floor) + 1, np.int64)
    np.add.at(inner, first + 1, 1)
    np.add.at(inner, stop, -1)
    crossing = np.cumsum(inner)[:-1]  # over the boundary before each section
    heads = np.flatnonzero((alive > 0) & (crossing == 0))
    owner = np.searchsorted(heads, first, "right") - 1
    found = []
    for number in range(len(heads)):
        own = owner == number
        found.append(_part(ids[own], first[own], stop[own], size[own], floor, parent))
    return found


def _part(ids: Ints, first: Ints, stop: Ints, size: Ints, floor: Ints, parent: int) -> Part:
    """A part of its own, in which neighbouring sections with the same ranges are one."""
    heads = np.unique(np.concatenate([first, stop]))
    floor = np.maximum.reduceat(floor[: heads[-1]], heads[:-1])
    first, stop = np.searchsorted(heads, first), np.searchsorted(heads, stop)
    lengths = stop - first
    range_starts = np.cumsum(lengths) - lengths
    owner = np.repeat(np.arange(len(ids)), lengths)
    sections_of = np.arange(len(owner)) - np.repeat(range_starts - first, lengths)
    by_section = np.argsort(sections_of, kind="stable")
    ranges_of, section_of_pair = owner[by_section], sections_of[by_section]
    section_starts = np.searchsorted(section_of_pair, np.arange(len(floor)))
    inner = np.zeros(len(floor) + 1, np.int64)
    np.add.at(inner, first, 1)
    np.add.at(inner, stop - 1, -1)
    return Part(
        Block(ids, first, stop, size, sections_of, range_starts, ranges_of, section_starts, section_of_pair),
        floor=floor,
        rest=np.add.reduceat(size[ranges_of], section_starts),
        lowest=np.maximum.reduceat(floor[sections_of], range_starts),
        crossing=np.cumsum(inner)[: len(floor) - 1],
        parent=parent,
    )
