"""Memory plans: known optima by hand, anything else by an independent checker."""

from __future__ import annotations

import csv
import os
import random
from pathlib import Path

import pytest

from sgs.compile.allocate import ORDERS, allocate, check_plan, lower_bound
from sgs.compile.live import LiveRange

DATA = Path(os.environ.get("SGS_TEST_DATA", ""), "minimalloc")


def ranges_of(*items: tuple[int, int, int]) -> list[LiveRange]:
    """(first, last, size) each."""
    return [LiveRange(f"r{index}", *item) for index, item in enumerate(items)]


# ranges, lower bound, best peak
BY_HAND = {
    "nothing": ([], 0, 0),
    "one": ([(0, 3, 64)], 64, 64),
    "chain: every other one shares": ([(0, 1, 64), (1, 2, 128), (2, 3, 64), (3, 4, 128)], 192, 192),
    "touching at a command is overlapping": ([(0, 2, 64), (2, 3, 64)], 128, 128),
    "one after the other": ([(0, 1, 64), (2, 3, 64)], 64, 64),
    "residual": ([(0, 4, 256), (1, 2, 512), (2, 3, 512), (3, 4, 256), (4, 5, 256)], 1280, 1280),
    "concat of three": ([(0, 3, 64), (1, 3, 64), (2, 3, 64), (3, 4, 192)], 384, 384),
    "small ones above a gap": ([(0, 9, 64), (0, 3, 128), (4, 9, 64), (4, 6, 64), (7, 9, 64)], 192, 192),
}


@pytest.mark.parametrize(("items", "bound", "best"), BY_HAND.values(), ids=BY_HAND.keys())
def test_known_optimum(items: list[tuple[int, int, int]], bound: int, best: int) -> None:
    ranges = ranges_of(*items)
    plan = allocate(ranges)
    assert plan.lower_bound == lower_bound(ranges) == bound
    assert plan.peak == best
    assert check_plan(ranges, plan.offsets, plan.peak) == []


def random_ranges(seed: int) -> list[LiveRange]:
    rng = random.Random(seed)
    items = []
    for _ in range(rng.randint(1, 60)):
        first = rng.randint(0, 40)
        items.append((first, first + rng.choice([0, 1, 1, 2, 5, 20]), 64 * rng.choice([1, 1, 2, 3, 7, 50])))
    return ranges_of(*items)


@pytest.mark.parametrize("seed", range(30))
def test_random_plans_are_valid(seed: int) -> None:
    ranges = random_ranges(seed)
    plan = allocate(ranges)
    assert check_plan(ranges, plan.offsets, plan.peak, alignment=64) == []
    assert plan.lower_bound <= plan.peak == max(o + r.size for o, r in zip(plan.offsets, ranges, strict=True))
    assert plan == allocate(ranges), "the same ranges give the same plan"


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_orders_hold_every_range_once(order: object) -> None:
    for seed in range(5):
        ranges = random_ranges(seed)
        assert callable(order) and sorted(order(ranges)) == list(range(len(ranges)))


BAD_PLANS = {
    "overlap": ([0, 32], 192, "overlap"),
    "one inside the other": ([0, 0], 192, "overlap"),
    "outside": ([0, 128], 128, "lies at 128 to 192 of 128"),
    "negative": ([-64, 0], 128, "lies at -64"),
    "misaligned": ([0, 65], 192, "not aligned"),
    "one missing": ([0], 128, "1 offsets for 2 ranges"),
}


@pytest.mark.parametrize(("offsets", "peak", "complaint"), BAD_PLANS.values(), ids=BAD_PLANS.keys())
def test_the_checker_finds(offsets: list[int], peak: int, complaint: str) -> None:
    found = check_plan(ranges_of((0, 2, 64), (2, 3, 64)), offsets, peak, alignment=64)
    assert any(complaint in line for line in found), found


def test_a_large_range_hides_no_overlap() -> None:
    ranges = ranges_of((0, 9, 100), (0, 9, 10), (0, 9, 10))
    assert len(check_plan(ranges, [0, 20, 50], 100)) == 2


@pytest.mark.skipif(not DATA.is_dir(), reason="SGS_TEST_DATA is unset or has no minimalloc instances")
@pytest.mark.parametrize("letter", "AK")
def test_public_instance(letter: str) -> None:
    with (DATA / f"{letter}.1048576.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    ranges = [LiveRange(row["id"], int(row["lower"]), int(row["upper"]) - 1, int(row["size"])) for row in rows]
    plan = allocate(ranges)
    assert check_plan(ranges, plan.offsets, plan.peak) == []
    assert plan.peak < 1.35 * plan.lower_bound
