"""Memory plans: known optima by hand, by construction and by trying everything; anything else by an independent
checker."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import minimalloc
import numpy as np
import pytest

import sgs.ops  # noqa: F401  fills the tables
from conventions import ROOT
from sgs.compile.allocate import Plan, allocate, check_plan, lower_bound
from sgs.compile.allocate_exact import tighten
from sgs.compile.allocate_orders import ORDERS, climb, neighbours_of, peak, place
from sgs.compile.live import LiveRange, reside, rounded
from sgs.compile.outputs import separate_outputs
from sgs.config.chips import load_chip
from sgs.errors import UserError
from sgs.pipelines import convert, finished, load_config
from sgs.quant.levels import Calibration
from sgs.quant.statistics import measure_extrema
from shipped import PICTURES

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


# -- each allocator ----------------------------------------------------------------------------------------------------
def packed(seed: int, count: int, height: int = 64) -> list[LiveRange]:
    """Ranges that fill a rectangle of `height` units of 16 bytes without a gap: it is cut in two until there are
    `count` pieces, which are then shuffled."""
    rng = random.Random(seed)
    pieces = [(0, 40, 0, height)]  # first, stop, lower, upper
    while len(pieces) < count:
        first, stop, lower, upper = piece = max(pieces, key=lambda p: (p[1] - p[0]) * (p[3] - p[2]) * rng.random())
        pieces.remove(piece)
        if (rng.random() < 0.5 and stop - first > 1) or upper - lower < 2:
            middle = rng.randint(first + 1, max(first + 1, stop - 1))
            pieces += [(first, middle, lower, upper), (middle, stop, lower, upper)]
        else:
            middle = rng.randint(lower + 1, upper - 1)
            pieces += [(first, stop, lower, middle), (first, stop, middle, upper)]
    rng.shuffle(pieces)
    return ranges_of(*((first, stop - 1, 16 * (upper - lower)) for first, stop, lower, upper in pieces if stop > first))


Allocator = Callable[[list[LiveRange]], list[int]]


def in_order(name: str, fit: int) -> Allocator:
    return lambda ranges: list(place(ranges, neighbours_of(ranges), ORDERS[name](ranges)))[fit][1]


def hill_climb(ranges: list[LiveRange]) -> list[int]:
    return climb(ranges, neighbours_of(ranges), ORDERS["by size"](ranges), lower_bound(ranges))[0]


def exact(ranges: list[LiveRange]) -> list[int]:
    found, _ = tighten(ranges, 1 << 40, lower_bound(ranges), None, 500)
    assert found is not None
    return found


ALLOCATORS: dict[str, Allocator] = {
    **{f"{name}, {('best', 'lowest')[fit]} fit": in_order(name, fit) for name in ORDERS for fit in (0, 1)},
    "hill climb": hill_climb,
    "exact search": exact,
}


@pytest.mark.parametrize("allocator", ALLOCATORS.values(), ids=ALLOCATORS.keys())
def test_every_allocator_keeps_ranges_apart(allocator: Allocator) -> None:
    for ranges in [*(packed(seed, 20) for seed in range(3)), *(random_ranges(seed) for seed in range(8))]:
        offsets = allocator(ranges)
        assert check_plan(ranges, offsets, peak(ranges, offsets), alignment=16) == []
        assert offsets == allocator(ranges)


@pytest.mark.parametrize("count", [2, 10, 20, 40, 60])
def test_a_rectangle_cut_into_pieces_is_put_together(count: int) -> None:
    for seed in range(3):
        ranges = packed(seed, count)
        plan = allocate(ranges)
        assert check_plan(ranges, plan.offsets, plan.peak, alignment=16) == []
        assert plan.peak == plan.lower_bound == 1024, f"seed {seed}: {plan.method}"


# -- the exact search --------------------------------------------------------------------------------------------------
# Examples in which the bytes alive at the worst moment do not suffice.
HOLES = [
    [(3, 5, 3), (1, 3, 3), (3, 4, 2), (1, 2, 4), (6, 7, 2), (5, 6, 4), (6, 7, 2), (4, 5, 1)],
    [(5, 7, 4), (7, 7, 4), (1, 3, 2), (3, 5, 1), (0, 2, 3), (2, 3, 3), (4, 6, 3), (0, 0, 4), (3, 4, 1)],
    [(5, 5, 2), (7, 7, 4), (2, 3, 3), (7, 7, 2), (4, 6, 1), (5, 7, 2), (3, 3, 2), (3, 5, 3), (4, 4, 3), (6, 6, 4)],
]


def fits(ranges: list[LiveRange], capacity: int) -> bool:
    """By trying all offsets."""
    placed: list[tuple[LiveRange, int]] = []

    def rest_fits() -> bool:
        if len(placed) == len(ranges):
            return True
        item = ranges[len(placed)]
        for offset in range(capacity - item.size + 1):
            if all(
                other.last < item.first
                or item.last < other.first
                or start >= offset + item.size
                or offset >= start + other.size
                for other, start in placed
            ):
                placed.append((item, offset))
                if rest_fits():
                    return True
                placed.pop()
        return False

    return rest_fits()


def full_ranges(seed: int, capacity: int = 6) -> list[LiveRange]:
    """Up to 14 ranges that leave few of the bytes alone."""
    rng = random.Random(seed)
    free, items = [capacity] * 8, []
    for _ in range(200):
        first, size = rng.randint(0, 7), rng.randint(1, 3)
        last = min(7, first + rng.randint(0, 3))
        if min(free[first : last + 1]) >= size and len(items) < 14:
            items.append((first, last, size))
            free[first : last + 1] = [left - size for left in free[first : last + 1]]
    return ranges_of(*sorted(items))


@pytest.mark.parametrize("ranges", [ranges_of(*items) for items in HOLES] + [full_ranges(seed) for seed in range(40)])
def test_the_exact_search_finds_and_proves_the_optimum(ranges: list[LiveRange]) -> None:
    bound = lower_bound(ranges)
    best = next(capacity for capacity in (bound, bound + 1, bound + 2) if fits(ranges, capacity))
    found, proven = tighten(ranges, 1 << 40, bound, None, 5_000)
    assert found is not None and check_plan(ranges, found, best) == []
    assert proven == best


def test_a_proven_gap_is_none() -> None:
    plan = allocate(ranges_of(*HOLES[0]))
    assert (plan.peak, plan.lower_bound, plan.gap) == (9, 9, 0)
    assert allocate(ranges_of(*HOLES[0]), target=8).lower_bound == 9


def test_a_target_ends_the_search() -> None:
    ranges = packed(3, 40)
    assert allocate(ranges, target=4096, effort=0) == allocate(ranges, target=4096)
    assert allocate(ranges, target=1024).peak == 1024
    impossible = allocate(ranges, target=1000)
    assert impossible.peak > 1000 and impossible.lower_bound == 1024


def test_effort_is_kept() -> None:
    ranges = hard()
    fast = allocate(ranges, effort=0)
    assert fast.method != "exact search" and fast.gap > 0
    some = allocate(ranges, effort=600)
    assert fast.peak >= some.peak >= allocate(ranges).peak
    assert tighten(ranges, fast.peak, fast.lower_bound, None, 0) == (None, fast.lower_bound)


def hard() -> list[LiveRange]:
    """Fast allocators leave a gap here."""
    return packed(0, 80)


def test_ranges_of_no_bytes_and_long_pauses() -> None:
    ranges = ranges_of((0, 10**9, 0), (5, 10**6, 64), (10**6, 10**9, 64), (10**9 + 1, 10**9 + 1, 128))
    found, bound = tighten(ranges, 1 << 40, 128, None, 100)
    assert found is not None and check_plan(ranges, found, 128) == [] and bound == 128


# -- networks ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", PICTURES)
def test_no_gap_on_shipped_networks(name: str) -> None:
    folder = ROOT / "SGS_Models/onnx" / name
    config = load_config(folder / "input_config.ini")
    _, graph = convert("onnx", {"model_file": folder / f"{name}.onnx"}, config)
    feeds = [{tensor: np.full(graph[tensor].shape, 0.5, np.float32) for tensor in graph.inputs}]
    calibration = Calibration(graph, measure_extrema(graph, feeds), feeds, config.conv)
    plan = calibration.initial_plan()
    fixed = finished(calibration.fixed(plan), calibration.prepared, config, plan, {})
    chip = load_chip("ibopper")
    spans = reside(separate_outputs(fixed)).spans
    ranges = [LiveRange(home.name, *span, rounded(home.size, chip.alignment)) for home, span in spans.items()]
    planned = allocate(ranges, effort=0)
    assert len(ranges) > 10 and planned.gap == 0
    assert check_plan(ranges, planned.offsets, planned.peak, chip.alignment) == []


# -- the judge ---------------------------------------------------------------------------------------------------------
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


# -- the benchmark -----------------------------------------------------------------------------------------------------
@pytest.mark.skipif(not DATA.is_dir(), reason="SGS_TEST_DATA is unset or has no minimalloc instances")
@pytest.mark.parametrize("letter", "ACH")
def test_public_instance(letter: str) -> None:
    ranges = minimalloc.read_instance(DATA / f"{letter}.1048576.csv")
    plan = allocate(ranges)
    assert check_plan(ranges, plan.offsets, plan.peak) == []
    assert plan.peak == plan.lower_bound


HEADER = "id,lower,upper,size\n"

# text of a.csv, part of the one line that tells what is wrong
BAD_FILES = {
    "empty": ("", "a.csv: line 1: no column id, lower, upper, size"),
    "no such column": ("id,lower,size\n", "a.csv: line 1: no column upper"),
    "no buffers": (HEADER, "a.csv: line 2: no buffers"),
    "no number": (HEADER + "0,0,1,8\n1,0,x,8\n", "a.csv: line 3: lower, upper and size must be whole numbers"),
    "cut short": (HEADER + "0,0,1\n", "a.csv: line 2: lower, upper and size must be"),
    "upper at lower": (HEADER + "0,4,4,8\n", "a.csv: line 2: upper 4 must be above lower 4"),
    "negative size": (HEADER + "0,0,4,-8\n", "a.csv: line 2: size -8 is negative"),
}


@pytest.mark.parametrize(("text", "complaint"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_benchmark_refuses(text: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    assert minimalloc.main([str(tmp_path)]) == 2
    written = capsys.readouterr()
    assert written.out == "" and written.err.startswith("error: ") and written.err.count("\n") == 1
    assert complaint in written.err


def test_benchmark_refuses_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, complaint in [(tmp_path, "no csv files"), (tmp_path / "none", "no such folder")]:
        assert minimalloc.main([str(folder)]) == 2
        assert complaint in capsys.readouterr().err


def test_benchmark_refuses_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="a.csv: cannot be read"):
        minimalloc.read_folder(tmp_path)


def test_benchmark_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text(HEADER + "0,0,4,64\n1,2,6,64\n2,4,8,64\n", encoding="utf-8")
    assert minimalloc.main([str(tmp_path)]) == 0
    assert "| a | 3 | 128 | 128 | 1.0000 | by size" in capsys.readouterr().out
    assert minimalloc.main([str(tmp_path), "--seconds", "0"]) == 1
    monkeypatch.setattr(minimalloc, "allocate", lambda ranges, effort: Plan((0, 0, 0), 128, 128, "wrong"))
    assert minimalloc.main([str(tmp_path)]) == 1
    assert "overlap" in capsys.readouterr().out
    monkeypatch.setattr(minimalloc, "allocate", lambda ranges, effort: Plan((0, 72, 0), 136, 128, "loose"))
    assert minimalloc.main([str(tmp_path)]) == 1
