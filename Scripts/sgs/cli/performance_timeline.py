"""performance_timeline: the commands of an .img as a trace for chrome://tracing and Perfetto; the slowest as text."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from sgs.cli.options import add_sample_files, count
from sgs.cli.program import Parser, run
from sgs.config.chips import load_chip
from sgs.data.files import STAGE, atomic_output
from sgs.data.images import resolve_samples
from sgs.data.preprocess import load_preprocessors
from sgs.errors import UserError
from sgs.img import Image, OfflineEngine
from sgs.products import check_outputs
from sgs.report.compile_trace import trace_text
from sgs.report.timeline import busy_summary, measured_layers, slowest_commands
from sgs.simulation import Simulator

_PROGRAM = "performance_timeline.py"
_SUFFIX = ".trace.json"
_RUNS = 5  # of which the quickest of each command counts


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def parser() -> Parser:
    """The options of the program."""
    description = (
        "Write what the machine does when, as predicted for one frame of an .img: a trace that chrome://tracing and "
        "ui.perfetto.dev open. Tells the slowest commands, too; with -i and -n what takes the simulator longest."
    )
    parser = Parser(prog=_PROGRAM, description=description)
    text = "the offline .img"
    parser.add_argument("-m", "--model", "--model_file", dest="model", metavar="IMG", required=True, help=text)
    text = f"the trace to write (default: the model's name with {_SUFFIX}, in the current folder)"
    parser.add_argument("-o", "--output", metavar="FILE", help=text)
    text = "how many of the slowest are told (default: 10)"
    parser.add_argument("--slowest", metavar="N", type=count, default=10, help=text)
    add_sample_files(
        parser,
        purpose="a sample (of several the first) to run in the simulator, whose time is measured",
        required=False,
    )
    parser.add_argument("--force", action="store_true", help="overwrite a trace that is there")
    return parser


def _body(argv: list[str]) -> int:
    program = parser()
    options = program.parse_args(argv)
    if (options.image is None) != (options.preprocess is None):
        program.error("-i and -n go together")
    simulator = Simulator(options.model)
    image = simulator.image
    if image is None:
        reason, remedy = "is a .sim, which has no commands", "compile it, and name the .img"
        raise UserError(reason, stage=_PROGRAM, file=options.model, remedy=remedy)
    chip = load_chip(image.chip)
    target = Path(options.output or f"{Path(options.model).stem}{_SUFFIX}")
    check_outputs([target], [options.model])
    if target.exists() and not options.force:
        raise UserError("is there already", stage=STAGE, file=target, remedy="name another, or add --force")
    text = trace_text(image, chip)
    seconds = None if options.image is None else _measured(simulator, image, options)
    with atomic_output(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
    print("\n".join(busy_summary(image, chip)))
    print("\nslowest commands, as the machine model predicts:")
    print("\n".join(slowest_commands(image, chip, options.slowest)))
    if seconds is not None:
        print("\nslowest layers of the simulator on this computer, which is no measure for the chip:")
        print("\n".join(measured_layers(image, chip, seconds, options.slowest)))
    print(f"\nTrace at: {target}")
    return 0


def _measured(simulator: Simulator, image: Image, options: argparse.Namespace) -> list[float]:
    """Seconds of every command in the simulator with one thread: the least of several runs after a first one, in which
    kernels are made."""
    sample = resolve_samples(options.image, len(simulator.inputs))[0]
    feeds = simulator.feeds(load_preprocessors(options.preprocess, len(simulator.inputs)), sample)
    engine = OfflineEngine(image, threads=1)
    least = [float("inf")] * len(image.programs[0].commands)
    for repeat in range(_RUNS + 1):
        before = perf_counter()
        for number, _ in engine.watch(feeds):
            now = perf_counter()
            if repeat:
                least[number] = min(least[number], now - before)
            before = perf_counter()
    return least


if __name__ == "__main__":
    sys.exit(main())
