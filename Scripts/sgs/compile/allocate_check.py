"""The judge of memory plans. It shares no line with the allocators, so that no mistake of theirs can hide here."""

from __future__ import annotations

from collections.abc import Sequence

from sgs.compile.live import LiveRange


def check_plan(ranges: Sequence[LiveRange], offsets: Sequence[int], peak: int, alignment: int = 1) -> list[str]:
    """Everything wrong with a plan: two ranges in one byte at one time, a misaligned one, one that leaves the arena."""
    if len(offsets) != len(ranges):
        return [f"{len(offsets)} offsets for {len(ranges)} ranges"]
    found = []
    for item, offset in zip(ranges, offsets, strict=True):
        if offset < 0 or offset + item.size > peak:
            found.append(f"{item.name} lies at {offset} to {offset + item.size} of {peak}")
        if offset % alignment:
            found.append(f"{item.name} at {offset} is not aligned to {alignment}")
    events = sorted({item.first for item in ranges})  # a clash exists, if at all, when the later of two is born
    for command in events:
        spans = [(o, o + r.size, r.name) for r, o in zip(ranges, offsets, strict=True) if r.first <= command <= r.last]
        spans.sort()
        end, owner = 0, ""
        for start, stop, name in spans:
            if start < end and stop > start:
                found.append(f"{name} and {owner} overlap at command {command}")
            if stop > end:
                end, owner = stop, name
    return found
