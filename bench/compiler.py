"""The compiler on whole networks: exactness, memory, DRAM traffic, weights, and the time of compiler and simulator.

usage: SGS_TEST_DATA=FOLDER python bench/compiler.py [--networks A,B] [--chips A,B] [--level L1] [--pictures 8]
           [--out FILE.json]

Every network (those of the data folder, if SGS_TEST_DATA names it, and those of SGS_Models) is calibrated at one level
and compiled for every chip. Prints Markdown tables, then each bar with what was measured, and ends with code 1 if one
is missed. Speeds are pictures a second of both simulators with one thread each, in alternation, on the chip with the
smallest SRAM.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from cases import Case, Limits
from networks import EVERY

from sgs.compile import compile_graph, summarise
from sgs.config.chips import Chip, all_chips, load_chip
from sgs.config.input_config import read_input_config
from sgs.data.preprocess import Preprocessor
from sgs.engine import FixedEngine
from sgs.errors import UserError
from sgs.img import Image, OfflineEngine, image_bytes, parse_image
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.pipelines import CalibrationOptions, calibrate, convert
from sgs.quant.levels import LEVELS

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "SGS_Models"
PICTURES = {  # of shipped networks
    "onnx_mobilenet_v2_digits": "digits",
    "onnx_mobilenet_v3_digits": "faint_digits",
    "onnx_repvgg_digits": "faint_digits",
    "onnx_yolo_shapes": "shapes",
}
SECONDS, SECONDS_LARGEST, TRAFFIC, SPEED, ENTROPY = 5.0, 20.0, 1.3, 0.2, 1.02
FAST = "yolox_nano"


@dataclass(frozen=True)
class Row:
    """One network on one chip. Bytes; `differ` counts elements in which the offline simulator is not the fixed one."""

    network: str
    chip: str
    layers: int
    commands: int
    seconds: float
    differ: int
    sram: int
    sram_bound: int
    arena: int
    arena_bound: int
    traffic: int
    compulsory: int
    milliseconds: float
    weights: int
    coded: int
    entropy: float

    @property
    def ratio(self) -> float:
        return self.traffic / self.compulsory


def fixed_networks(names: Sequence[str], level: str, pictures: int, folder: Path) -> Iterator[tuple[str, Graph]]:
    """Networks, calibrated; those that cannot be converted are told and left out."""
    options = CalibrationOptions(level, processes=1)
    for name in names:
        place = folder / name
        place.mkdir()
        try:
            if name in PICTURES:
                yield name, shipped(name, options, pictures)
            else:
                case = Case(EVERY[name], place, Limits(), arrays=False)
                samples = [(path,) * len(EVERY[name].inputs) for path, _ in case.pictures[:pictures]]
                scripts = [Preprocessor(path) for path in case.scripts]
                yield name, calibrate(case.graph, case.config, scripts, samples, options).graph
        except UserError as error:
            print(f"{name}: left out, {str(error).splitlines()[0]}", file=sys.stderr)


def shipped(name: str, options: CalibrationOptions, pictures: int) -> Graph:
    """A network of SGS_Models, calibrated."""
    folder = SHIPPED / "onnx" / name
    config = read_input_config(folder / "input_config.ini")
    _, graph = convert("onnx", {"model_file": folder / f"{name}.onnx"}, config)
    samples = sorted((SHIPPED / "resource" / PICTURES[name] / "calibration").glob("*.png"))[:pictures]
    return calibrate(graph, config, [Preprocessor(folder / f"{name}.py")], [(s,) for s in samples], options).graph


def feeds_of(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Random inputs: every code is as likely, so saturation and every table entry are met."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for name in graph.inputs:
        tensor = graph[name]
        if tensor.dtype.is_float:
            feeds[name] = rng.normal(0, 1, tensor.shape).astype(np.float32)
        else:
            feeds[name] = rng.integers(0, 256, tensor.shape).astype(tensor.dtype.numpy)
    return feeds


def entropy_bytes(image: Image) -> float:
    """Order-0 entropy of the constants' bytes, each constant by itself."""
    total = 0.0
    for place in image.constants:
        held = image.weights[place.offset : place.offset + place.size]
        share = np.bincount(held, minlength=256) / held.size
        total -= held.size * float((share[share > 0] * np.log2(share[share > 0])).sum()) / 8
    return total


def measure(name: str, graph: Graph, chip: Chip, feeds: dict[str, Array], truth: dict[str, Array]) -> Row:
    """Compile, write, read, run once, compare."""
    start = time.perf_counter()
    image = compile_graph(graph, chip)
    seconds = time.perf_counter() - start
    image = parse_image(image_bytes(image))
    results = OfflineEngine(image, threads=1).run(feeds)
    summary, program = summarise(image, chip), image.programs[0]
    return Row(
        network=name,
        chip=chip.name,
        layers=summary.layers,
        commands=summary.commands,
        seconds=seconds,
        differ=sum(int((results[output] != truth[output]).sum()) for output in truth),
        sram=program.sram_size,
        sram_bound=program.sram_lower_bound,
        arena=program.arena_size,
        arena_bound=program.arena_lower_bound,
        traffic=summary.dram_bytes,
        compulsory=summary.compulsory_bytes,
        milliseconds=summary.latency * 1e3,
        weights=summary.weights,
        coded=summary.coded_weights,
        entropy=entropy_bytes(image),
    )


def speed(graph: Graph, chip: Chip, feeds: dict[str, Array], repeats: int = 5) -> tuple[float, float]:
    """Milliseconds of a picture in the fixed and in the offline simulator: the shortest of some runs, in turns."""
    fixed, offline = FixedEngine(graph, threads=1), OfflineEngine(compile_graph(graph, chip), threads=1)
    best = [math.inf, math.inf]
    for _ in range(repeats + 1):
        for index, engine in enumerate((fixed, offline)):
            start = time.perf_counter()
            engine.run(feeds)
            best[index] = min(best[index], time.perf_counter() - start)
    return best[0] * 1e3, best[1] * 1e3


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print("| " + " | ".join(headings) + " |\n|" + "---|" * len(headings))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def gap(size: int, bound: int) -> float:
    return size / bound - 1 if bound else 0.0


def show(name: str, rows: Sequence[Row], times: tuple[float, float], smallest: str) -> None:
    """One line for every chip of a network."""
    first = rows[0]
    print(f"## {name}: {first.layers} layers\n")
    table(
        ["chip", "commands", "compiled in s", "differ", "SRAM", "gap", "arena", "gap", "DRAM MB", "÷ compulsory", "ms"],
        [
            [
                row.chip,
                f"{row.commands:,}",
                f"{row.seconds:.2f}",
                str(row.differ),
                f"{row.sram:,}",
                f"{gap(row.sram, row.sram_bound):.2%}",
                f"{row.arena:,}",
                f"{gap(row.arena, row.arena_bound):.2%}",
                f"{row.traffic / 1e6:.2f}",
                f"{row.ratio:.2f}",
                f"{row.milliseconds:.3f}",
            ]
            for row in rows
        ],
    )
    print(
        f"weights {first.weights:,} bytes, coded {first.coded:,}, {first.coded / first.entropy:.3f} of their order-0 "
        f"entropy; a picture takes {times[0]:.1f} ms fixed, {times[1]:.1f} ms offline on {smallest}: "
        f"{times[0] / times[1]:.2f}\n",
        flush=True,
    )


def bars(rows: Sequence[Row], times: dict[str, tuple[float, float]]) -> list[tuple[str, str, str, bool]]:
    """(what, asked, measured, reached)."""
    worst_time = max(rows, key=lambda row: row.seconds)
    fast = max((row.seconds for row in rows if row.network == FAST), default=0.0)
    worst_gap = max(rows, key=lambda row: max(gap(row.sram, row.sram_bound), gap(row.arena, row.arena_bound)))
    gaps = gap(worst_gap.sram, worst_gap.sram_bound), gap(worst_gap.arena, worst_gap.arena_bound)
    ratio = max(rows, key=lambda row: row.ratio)
    coded = max(rows, key=lambda row: row.coded / row.entropy)
    slow = min(times, key=lambda name: times[name][0] / times[name][1])
    share = times[slow][0] / times[slow][1]
    differ = sum(row.differ for row in rows)
    return [
        ("elements that differ, offline against fixed", "0", f"{differ} on {len(rows)} images", differ == 0),
        (
            "gap of the memory plans, worst",
            "0",
            f"SRAM {gaps[0]:.2%}, arena {gaps[1]:.2%} ({worst_gap.network}, {worst_gap.chip})",
            max(gaps) == 0,
        ),
        (
            "DRAM traffic ÷ compulsory, worst",
            f"≤ {TRAFFIC}",
            f"{ratio.ratio:.2f} ({ratio.network}, {ratio.chip})",
            ratio.ratio <= TRAFFIC,
        ),
        (
            "coded weights ÷ order-0 entropy, worst",
            f"≤ {ENTROPY}",
            f"{coded.coded / coded.entropy:.3f} ({coded.network})",
            coded.coded <= ENTROPY * coded.entropy,
        ),
        (f"seconds to compile {FAST}, worst chip", f"≤ {SECONDS:g}", f"{fast:.2f}", fast <= SECONDS),
        (
            "seconds to compile any network, worst",
            f"≤ {SECONDS_LARGEST:g}",
            f"{worst_time.seconds:.2f} ({worst_time.network}, {worst_time.chip})",
            worst_time.seconds <= SECONDS_LARGEST,
        ),
        ("offline ÷ fixed simulator's speed, worst", f"≥ {SPEED}", f"{share:.2f} ({slow})", share >= SPEED),
    ]


def main() -> int:
    """Run; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    several = {"type": lambda text: text.split(","), "metavar": "A,B"}
    public = list(EVERY) if "SGS_TEST_DATA" in os.environ else []
    parser.add_argument("--networks", **several, default=[*public, *PICTURES], help="default: all")
    parser.add_argument("--chips", **several, default=[chip.name for chip in all_chips()], help="default: all")
    parser.add_argument("--level", choices=LEVELS, default="L1")
    parser.add_argument("--pictures", type=int, default=8, help="to calibrate on")
    parser.add_argument("--out", metavar="FILE.json", type=Path)
    options = parser.parse_args()
    chips = [load_chip(name) for name in options.chips]
    smallest = min(chips, key=lambda chip: (chip.sram_bytes, chip.name))
    rows: list[Row] = []
    times: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory(prefix="compiler_") as scratch:
        for name, graph in fixed_networks(options.networks, options.level, options.pictures, Path(scratch)):
            feeds = feeds_of(graph)
            truth = FixedEngine(graph, threads=1).run(feeds)
            found = [measure(name, graph, chip, feeds, truth) for chip in chips]
            times[name] = speed(graph, smallest, feeds)
            show(name, found, times[name], smallest.name)
            rows += found
    print("## Bars\n")
    judged = bars(rows, times)
    table(
        ["what", "asked", "measured", ""],
        [[*words, "ok" if reached else "MISSED"] for *words, reached in judged],
    )
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"rows": [asdict(row) for row in rows], "milliseconds": times}
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if all(reached for *_, reached in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
