"""What mixed precision costs and gains at different sizes of the weights: as text for the log, as data for files."""

from __future__ import annotations

import math
from typing import Any

from sgs.quant.front import Front, Point

STEP = 0.05  # of rates that are told
_SLACK = 1e-9
_COLUMNS = "{:>7} {:>12} {:>12} {:>14} {:>14}"


def told_rates(front: Front) -> list[float]:
    """The least rate, and multiples of 0.05 up to the highest."""
    first, last = math.ceil(front.lowest / STEP - _SLACK), math.floor(front.highest / STEP + _SLACK)
    multiples = [round(count * STEP, 2) for count in range(first, last + 1)]
    return multiples if multiples and multiples[0] <= front.lowest + _SLACK else [front.lowest, *multiples]


def table(front: Front, chosen: Point, measured: float | None = None) -> str:
    """A line for each of several rates, and one for what was chosen, with what was `measured` of it (dB)."""
    low, high = front.pair
    header = ("mp_rate", "expected dB", "measured dB", "weight bytes", f"MACs in {high} bit")
    lines = [f"weights in {low} or {high} bit: what the outputs keep at which size, of signal to noise"]
    lines += [_COLUMNS.format(*header), *(_row(rate, front.at(rate)) for rate in told_rates(front))]
    lines += ["chosen:", _row(chosen.rate, chosen, measured)]
    return "\n".join(line.rstrip() for line in lines)


def _row(rate: float, point: Point, measured: float | None = None) -> str:
    expected, found = ("" if value is None else f"{value:.2f}" for value in (_expected(point), measured))
    return _COLUMNS.format(f"{rate:.4g}", expected, found, f"{point.weight_bytes:,}", f"{point.raised_macs:.1%}")


def _expected(point: Point) -> float | None:
    """dB; None where all are in 16 bits, whose errors are not measured."""
    return point.sqnr if point.error > 0 else None


def record(front: Front, chosen: Point, measured: float | None = None) -> dict[str, Any]:
    """The same for JSON, with the bits of every sum of products of the one that was chosen;
    decibels are null where nothing is known."""
    rows = [{"mp_rate": rate, **_facts(front.at(rate))} for rate in told_rates(front)]
    taken = {"mp_rate": chosen.rate, **_facts(chosen), "measured": measured, "bits": dict(chosen.bits)}
    return {"precisions": list(front.pair), "rates": rows, "chosen": taken}


def _facts(point: Point) -> dict[str, Any]:
    return {
        "reached": point.rate,
        "expected": _expected(point),
        "weight_bytes": point.weight_bytes,
        "raised_macs": point.raised_macs,
    }
