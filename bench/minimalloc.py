"""Memory plans of the public MiniMalloc instances: peak over lower bound, and whether the bar is met.

    bench/minimalloc.py FOLDER [--seconds 30]

FOLDER holds instances as https://github.com/google/minimalloc publishes them (`benchmarks/challenging`): a csv file
each, with the columns id, lower, upper and size of every buffer; it lives from `lower` to before `upper`. The table
goes to stdout. Exit code 0: every plan is valid, none took more than the seconds, and the geometric mean of
peak / lower bound is at most 1.05; 1: not so; 2: the folder or a file is at fault.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "Scripts"))

from sgs.compile.allocate import Plan, allocate, check_plan, lower_bound
from sgs.compile.live import LiveRange
from sgs.errors import UserError

BAR = 1.05  # geometric mean of peak / lower bound
EFFORT = 60_000  # decisions of the exact search, counted so that a slower machine finds the same plans
COLUMNS = ("id", "lower", "upper", "size")


@dataclass(frozen=True)
class Result:
    """The plan of an instance with `buffers` buffers, found in `seconds`; `ratio` is peak over `bound`, the bytes alive
    at the worst moment."""

    name: str
    buffers: int
    plan: Plan
    bound: int
    ratio: float
    seconds: float
    complaints: list[str]


def read_instance(file: Path) -> list[LiveRange]:
    """The buffers of a csv file; UserError with file and line for one that is not as agreed."""
    ranges: list[LiveRange] = []
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise UserError(f"no column {', '.join(missing)}", file=file, node="line 1")
            for row in rows:
                ranges.append(_range(row, file, f"line {rows.line_num}"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot be read: {error}", file=file) from error
    if not ranges:
        raise UserError("no buffers", file=file, node="line 2")
    return ranges


def _range(row: dict[str, str | None], file: Path, line: str) -> LiveRange:
    try:
        lower, upper, size = (int(row[name] or "") for name in COLUMNS[1:])
    except ValueError as error:
        raise UserError("lower, upper and size must be whole numbers", file=file, node=line) from error
    if upper <= lower:
        raise UserError(f"upper {upper} must be above lower {lower}", file=file, node=line)
    if size < 0:
        raise UserError(f"size {size} is negative", file=file, node=line)
    return LiveRange(row["id"] or "", lower, upper - 1, size)


def read_folder(folder: Path) -> dict[str, list[LiveRange]]:
    """File name without its ending → buffers. The first file at fault stops it."""
    if not folder.is_dir():
        raise UserError("no such folder", file=folder)
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise UserError("no csv files in there", file=folder)
    return {file.stem: read_instance(file) for file in files}


def measure(name: str, ranges: Sequence[LiveRange]) -> Result:
    start = time.perf_counter()
    plan = allocate(ranges, effort=EFFORT)
    seconds = time.perf_counter() - start
    bound = lower_bound(ranges)
    return Result(
        name,
        len(ranges),
        plan,
        bound,
        plan.peak / bound if bound else 1.0,
        seconds,
        check_plan(ranges, plan.offsets, plan.peak),
    )


def geometric_mean(results: Sequence[Result]) -> float:
    return math.exp(sum(math.log(result.ratio) for result in results) / len(results))


def table(results: Sequence[Result]) -> str:
    lines = [
        "| instance | buffers | lower bound | peak | ratio | method | seconds | valid |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        plan, valid = result.plan, result.complaints[0] if result.complaints else "yes"
        lines.append(
            f"| {result.name} | {result.buffers} | {result.bound} | {plan.peak} | {result.ratio:.4f} "
            f"| {plan.method} | {result.seconds:.1f} | {valid} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=30, help="for one instance (default: %(default)s)")
    options = parser.parse_args(argv)
    try:
        instances = read_folder(options.folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    results = [measure(name, ranges) for name, ranges in instances.items()]
    mean, slowest = geometric_mean(results), max(result.seconds for result in results)
    valid = sum(not result.complaints for result in results)
    print(table(results))
    print(
        f"\nGeometric mean of peak / lower bound {mean:.4f} (at most {BAR}); {valid} of {len(results)} valid; "
        f"slowest {slowest:.1f} s (at most {options.seconds:g} s)"
    )
    return 0 if valid == len(results) and slowest <= options.seconds and mean <= BAR else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
