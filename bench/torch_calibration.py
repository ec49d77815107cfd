"""torch_calibrator side by side with float, with the calibrator's levels and with other tools: every mode.

usage: SGS_TEST_DATA=FOLDER [PEERS_PYTHON=PYTHON] python bench/torch_calibration.py
           [--networks A,B] [--methods L2,Q11,Q23@0.35] [--device cuda:0] [--iterations 40] [--no-peers]
           [--peers-from FILE.json] [--keep FOLDER] [--out FILE.json [--continue]]

Prints a Markdown table for every network and then what is asked of the modes, with what was measured. Methods are the
levels L2 and L5, L5 with all sums of products at 8 bit, and modes, of mixed precision at [4, 8] with their mp_rate; at
0.25 all weights have 4 bits. Peers (see bench/calibration.py) quantise to 8 bit all over; --peers-from reads what a run
of that program wrote. Every run is a process of its own, and starts from nothing.

Points are those of a network's own measure: top-1 of classifiers, average precision, mean intersection over union, or
decibels of what is enlarged, and of yolox_nano the share of float's boxes that are kept. All are of pictures that did
not calibrate. With --device, what retrains does so there; on the network whose times have bars it is also run on the
processor, for the ratio. --continue takes over what FILE.json holds already, errors excepted, so that a long run can be
made in parts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration import (
    COLUMNS,
    LABELS,
    Bench,
    cells,
    check_names,
    common_options,
    has_data,
    heading,
    known_peers,
    label,
    one_line,
    opened,
    peers_python,
    record,
    shown,
    table,
    verdicts,
)
from cases import ALL_8_BIT, Case, Limits, ModeRun, Result
from networks import NETWORKS, Network
from peers import METHODS as PEERS
from shipped_networks import SHIPPED

PUBLIC = ("mobilenet_v1_0.25", "shufflenet_v2", "yolox_nano")
KNOWN: dict[str, Network] = {**{name: NETWORKS[name] for name in PUBLIC}, **SHIPPED}
TIMED = "mobilenet_v1_0.25"
LEVELS = ("L2", "L5", ALL_8_BIT)
MIXED = ("Q13@0.35", "Q23@0.35", "Q13@0.25", "Q23@0.25")
BEST_PEER = "best peer"
NEAREST, RETRAINED = "Q13@0.25", "Q23@0.25"
MODES = ("Q10", "Q11", "Q12", "Q20", "Q21", "Q22", *MIXED)
METHODS = (*LEVELS, *MODES)
LABELS.update({NEAREST: "Q13@0.25: all 4 bit, to nearest", RETRAINED: "Q23@0.25: all 4 bit, retrained"})
COLUMNS_HERE = {
    **{name: COLUMNS[name] for name in ("top-1", "agrees")},
    "own measure": ("own", "{:.2f}"),
    **{name: COLUMNS[name] for name in ("SQNR dB", "boxes kept")},
    "weight bytes": ("weight_bytes", "{:,}"),
    "mp_rate": ("mp_rate", "{:.3f}"),
    **{name: COLUMNS[name] for name in ("MACs at 16 bit", "seconds", "peak MB")},
}
Rows = Mapping[str, Result]
ON_PROCESSOR = " on cpu"  # behind a method that is run there, too


def mode_runs(device: str, iterations: int | None) -> dict[str, ModeRun]:
    """Method → what it stands for."""
    given = {"device": device} | ({} if iterations is None else {"retrain_iter_num": iterations})
    runs = {}
    for method in MODES:
        mode, _, rate = method.partition("@")
        mixed = {"mixed_precisions": [4, 8], "mp_rate": float(rate)} if rate else {}
        runs[method] = ModeRun(mode, {**given, **mixed})
        runs[method + ON_PROCESSOR] = ModeRun(mode, {**given, **mixed, "device": "cpu"})
    return runs


# ---- tables ----------------------------------------------------------------------------------------------------------


def one_network(bench: Bench, case: Case, device: str) -> None:
    """A row for float, and one for every method as it is found."""
    name = case.network.name
    print(f"\n## {name}: {len(case.samples)} pictures calibrate, {len(case.scoring)} score\n")
    columns = {head: column for head, column in COLUMNS_HERE.items() if _is_shown(head, case)}
    heading(["method", *columns])
    table(["float", *cells(case.float_result(), columns)])
    also = [method + ON_PROCESSOR for method in bench.methods if method.startswith("Q2")]
    for method in (*bench.peers_of(name), *bench.methods, *(also if device != "cpu" and name == TIMED else ())):
        table([label(method), *cells(bench.result(case, method), columns)])


def _is_shown(column: str, case: Case) -> bool:
    return case.has_own_measure if column == "own measure" else shown(column, case)


# ---- what is asked ---------------------------------------------------------------------------------------------------
Verdict = tuple[str, str, str, bool]  # what, asked, measured, ok


@dataclass(frozen=True)
class Found:
    """What was found on one network: `rows` by method, BEST_PEER among them, of all that ended well, with `points` and
    `float_points`, None where the network has no measure of its own."""

    name: str
    rows: Rows

    @classmethod
    def of(cls, name: str, rows: Rows) -> Found:
        """Of results as cases give them."""
        able = {
            method: {**row, "points": _points(row, row.get("boxes")), "float_points": _points(row, 100.0, "float_")}
            for method, row in rows.items()
            if "error" not in row
        }
        peers = [able[method] for method in PEERS if method in able]
        if peers:  # the highest values, whichever tool has them
            best = {key: [peer[key] for peer in peers if peer[key] is not None] for key in ("mean_sqnr", "points")}
            able[BEST_PEER] = {key: max(values, default=None) for key, values in best.items()}
        return cls(name, able)

    def have(self, *methods: str) -> bool:
        return self.rows.keys() >= set(methods)

    def points(self, *methods: str) -> tuple[float, ...] | None:
        """Float's, and those of methods; None where one is missing, or the network has no measure."""
        if not self.have(*methods) or self.rows[methods[0]]["points"] is None:
            return None
        return (self.rows[methods[0]]["float_points"], *(self.rows[method]["points"] for method in methods))


def _points(row: Result, boxes: float | None, prefix: str = "") -> float | None:
    """The network's own measure; `boxes` where it is by these."""
    for key in ("own", "top1"):
        if row.get(key) is not None:
            value: float = row[prefix + key]
            return value
    return None if row.get("boxes") is None else boxes


def near_float(found: Found) -> Iterator[Verdict]:
    """All at 16 bit is float but for 0.1 point."""
    for method in ("Q10", "Q20"):
        if points := found.points(method):
            real, value = points
            yield _at_least(f"{method}, points", value, real - 0.1, "float - 0.1")


def not_behind(found: Found) -> Iterator[Verdict]:
    """A mode has at least what the calibrator has, or the best of the tools that quantise to 8 bit all over."""
    for method, other in (("Q11", "L2"), ("Q21", BEST_PEER), ("Q22", "L5")):
        if found.have(method, other):
            value, least = (found.rows[one]["mean_sqnr"] for one in (method, other))
            yield _at_least(f"{method}, dB", value, least, other)
        if points := found.points(method, other):
            real, value, least = points
            yield _at_least(f"{method}, points", value, least, _beside_float(other, least, real))


def mixed_precision(found: Found) -> Iterator[Verdict]:
    """At mp_rate 0.35 retraining gains a point and leaves classifiers within two points of float."""
    if points := found.points("Q23@0.35", "Q13@0.35"):
        real, value, plain = points
        yield _at_least("Q23@0.35, points", value, plain + 1, _beside_float("Q13@0.35 + 1", plain + 1, real))
    if (points := found.points("Q23@0.35")) and found.rows["Q23@0.35"].get("top1") is not None:
        real, value = points
        yield _at_least("Q23@0.35, points", value, real - 2, "float - 2")


def recovery(found: Found) -> Iterator[Verdict]:
    """With all weights at 4 bit, retraining recovers 80 % of what rounding to nearest loses."""
    if points := found.points(NEAREST, RETRAINED):
        real, nearest, retrained = points
        lost, what = real - nearest, f"{RETRAINED}, share of what {NEAREST} loses"
        if lost <= 0:
            yield what, "at least 80 %", f"nothing is lost, {retrained - real:+.2f} points", retrained >= real
        else:
            share = 100 * (retrained - nearest) / lost
            yield what, "at least 80 %", f"{share:.0f} % of {lost:.2f} points", share >= 80


def times(found: Found) -> Iterator[Verdict]:
    """On two cores, and on a device beside them."""
    if found.name != TIMED:
        return
    for method, most in (("Q11", 120), ("Q22", 900)):
        here = method + ON_PROCESSOR if method + ON_PROCESSOR in found.rows else method
        if found.have(here):
            seconds = found.rows[here]["seconds"]
            yield f"{here}, seconds", f"at most {most}", f"{seconds:.1f}", seconds <= most
    for method in (method for method in MODES if found.have(method, method + ON_PROCESSOR)):
        ratio = found.rows[method + ON_PROCESSOR]["seconds"] / found.rows[method]["seconds"]
        yield f"{method}, times as fast on the device", "at least 10", f"{ratio:.1f}", ratio >= 10


def _beside_float(whose: str, least: float, real: float) -> str:
    """Whose points are asked for, and float's where these are fewer: more than that takes luck."""
    return f"{whose}; float has {real:.2f}" if least > real else whose


def _at_least(what: str, value: float, least: float, whose: str) -> Verdict:
    return what, f"at least {least:.2f} ({whose})", f"{value:.2f}", value >= least


BARS: tuple[Callable[[Found], Iterator[Verdict]], ...] = (near_float, not_behind, mixed_precision, recovery, times)


def judge(bench: Bench) -> None:
    """All that is asked, of every network and method that was run; a run that ended in an error is a bar missed."""
    for name, rows in bench.rows.items():
        for method, row in rows.items():
            if method not in PEERS and "error" in row:
                bench.judge(f"{name}, {label(method)}", "no error", one_line(row["error"]), False)
        for bar in BARS:
            for what, asked, measured, ok in bar(Found.of(name, rows)):
                bench.judge(f"{name}, {what}", asked, measured, ok)


# ---- the run ---------------------------------------------------------------------------------------------------------


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    several = {"type": lambda text: text.split(","), "metavar": "A,B"}
    parser.add_argument("--networks", **several, default=list(KNOWN), help=f"of {', '.join(KNOWN)}")
    parser.add_argument("--methods", **several, default=list(METHODS), help=f"of {', '.join(METHODS)}")
    parser.add_argument("--device", default="cpu", help="of the retraining: cpu, cuda or cuda:N")
    parser.add_argument("--iterations", type=int, metavar="N", help="retrain_iter_num (default: the tool's)")
    parser.add_argument("--continue", dest="resume", action="store_true", help="take over what the file of --out holds")
    common_options(parser)
    options = parser.parse_args(argv)
    check_names(parser, "--networks", options.networks, KNOWN)
    check_names(parser, "--methods", options.methods, METHODS)
    if options.resume and options.out is None:
        parser.error("--continue: --out names no file")
    options.methods = [method for method in METHODS if method in options.methods]
    return options


def earlier_rows(path: Path) -> dict[str, dict[str, Result]]:
    """Results of an earlier run but for those that are errors; none where there is no file."""
    if not path.exists():
        return {}
    rows = json.loads(path.read_text("utf-8"))["rows"]
    return {name: {method: row for method, row in of.items() if "error" not in row} for name, of in rows.items()}


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    if not has_data():
        return 2
    # a device's driver takes addresses far beyond the memory that it uses
    limits = Limits(options.time_limit, options.memory_limit if options.device == "cpu" else None)
    python, known = peers_python(options), known_peers(options)
    runs = mode_runs(options.device, options.iterations)
    bench = Bench(options.methods, python, limits, keep=options.keep, known_peers=known, modes=runs)
    if options.resume:
        bench.rows = earlier_rows(options.out)
    for name in options.networks:
        with opened(KNOWN[name], bench) as case:
            if case is not None:
                one_network(bench, case, options.device)
        if options.out:
            record(bench, options.out)
    judge(bench)
    verdicts(bench)
    if options.out:
        record(bench, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
