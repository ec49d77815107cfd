"""calibrator: float .sim → fixed .sim, by running calibration samples through the float model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sgs.cli.names import check_outputs, fixed_path, quant_info_path
from sgs.cli.options import add_calibration, add_category, add_common, add_later, add_samples, check_category, start_log
from sgs.cli.program import Parser, run
from sgs.cli.progress import progress
from sgs.config.chips import load_chip
from sgs.config.input_config import InputConfig
from sgs.data.files import atomic_outputs
from sgs.data.images import resolve_samples
from sgs.data.preprocess import load_preprocessors
from sgs.ir import Graph
from sgs.pipelines import Calibrated, CalibrationOptions, calibrate, load_config, plan_record
from sgs.quant.levels import Step
from sgs.sim import expect_stage, read_sim, write_sim


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def _parser() -> Parser:
    parser = Parser(prog="calibrator.py", description="Quantise a float .sim to a fixed .sim.")
    parser.add_argument(
        "-m", "--model", "--model_file", dest="model", metavar="SIM", required=True, help="the float .sim"
    )
    parser.add_argument("--input_config", metavar="INI", required=True, help="the model's input_config.ini")
    add_samples(parser, purpose="calibration samples")
    text = "the .sim to write, or a folder (default: beside the model, _float.sim becoming _fixed.sim)"
    parser.add_argument("-o", "--output", metavar="PATH", help=text)
    add_calibration(parser)
    text = "write what was decided for every tensor to <output without .sim>_quant_info.json"
    parser.add_argument("--save_quant_info", action="store_true", help=text)
    add_category(parser, default=None, purpose="kept in the file, for the compiler")
    add_common(parser)
    add_later(parser, "--quant_file")
    return parser


def _body(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    start_log(options.show_log)
    load_chip(options.soc_version)
    target = fixed_path(Path(options.model), options.output)
    record = quant_info_path(target)
    outputs = [target, record] if options.save_quant_info else [target]
    check_outputs(outputs, [options.model, options.input_config])
    config = load_config(Path(options.input_config))
    graph = expect_stage(read_sim(options.model), "float", "calibrator.py")
    if options.category is not None:
        check_category(options.category, graph.outputs, file=options.model)
    calibrated = calibrate_files(graph, config, options)
    if options.category is not None:
        calibrated.graph.metadata["category"] = options.category
    with atomic_outputs(*outputs) as (sim, *records):
        write_sim(calibrated.graph, sim, stage="fixed")
        for file in records:
            file.write_text(plan_record(calibrated), encoding="utf-8")
    print(summary(calibrated))
    print(f"Fixed model at: {target}")
    return 0


def calibrate_files(graph: Graph, config: InputConfig, options: argparse.Namespace) -> Calibrated:
    """Calibrate on the files that -i and -n name."""
    samples = resolve_samples(options.image, len(config.inputs))
    preprocessors = load_preprocessors(options.preprocess, len(config.inputs))
    chosen = CalibrationOptions(
        level=options.quant_level,
        threshold=options.sensitivity_threshold,
        max_int16_macs=options.max_int16_macs,
        processes=options.num_process,
        memory_saving=options.memory_saving,
    )
    return calibrate(graph, config, preprocessors, samples, chosen, wrap=progress, on_step=show_step)


def show_step(step: Step) -> None:
    """One judged step, printed as it ends."""
    outcome = "" if step.kept else ", not kept"
    print(f"  {step.name}: outputs at {step.sqnr:.2f} dB{outcome}", flush=True)


def summary(calibrated: Calibrated) -> str:
    """The outcome in one line."""
    macs = calibrated.plan.macs.values()
    wide = sum(mac.bits == 16 for mac in macs)
    samples = calibrated.statistics.samples
    plural = "" if samples == 1 else "s"
    return (
        f"{calibrated.plan.level} on {samples} sample{plural}: "
        f"{wide} of {len(macs)} convolutions in 16 bit, the others in 8"
    )
