"""calibrator: float .sim → fixed .sim, by running calibration samples through the float model."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from sgs.cli.options import (
    add_calibration,
    add_category,
    add_common,
    add_quant_file,
    add_samples,
    start_log,
)
from sgs.cli.program import Parser, run
from sgs.cli.scheduler import cluster_at
from sgs.cli.statistics_files import StatisticsFiles
from sgs.config.chips import load_chip
from sgs.config.input_config import InputConfig
from sgs.config.nearest import counted
from sgs.data.files import atomic_outputs
from sgs.data.images import absolute, resolve_samples
from sgs.data.preprocess import load_preprocessors
from sgs.errors import UserError
from sgs.evaluate.categories import check_category
from sgs.ir import Graph
from sgs.pipelines import (
    Calibrated,
    CalibrationOptions,
    apply_plan,
    calibratable,
    calibrate,
    import_parameters,
    layer_record,
    load_config,
    plan_record,
    read_plan,
)
from sgs.products import check_outputs, fixed_path, quant_info_path, report_path, statistics_path
from sgs.quant.levels import Step
from sgs.quant.plan import QuantPlan
from sgs.report.calibration import table
from sgs.report.progress import progress
from sgs.sim import expect_stage, read_sim, write_sim

_log = logging.getLogger(__name__)
WITH_PLAN = {"model", "input_config", "output", "plan", "category", "soc_version", "show_log"}  # options for --plan


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def _parser() -> Parser:
    parser = Parser(prog="calibrator.py", description="Quantise a float .sim to a fixed .sim.")
    parser.add_argument(
        "-m", "--model", "--model_file", dest="model", metavar="SIM", required=True, help="the float .sim"
    )
    parser.add_argument("--input_config", metavar="INI", required=True, help="the model's input_config.ini")
    add_samples(parser, purpose="calibration samples", required=False)
    text = "the .sim to write, or a folder (default: beside the model, _float.sim becoming _fixed.sim)"
    parser.add_argument("-o", "--output", metavar="PATH", help=text)
    add_calibration(parser)
    text = (
        "write what was decided for every tensor to <output without .sim>_quant_info.json, what it did to every layer "
        "to <output without .sim>_report.json, and what was measured to <output without .sim>_statistics.npz"
    )
    parser.add_argument("--save_quant_info", action="store_true", help=text)
    text = "a quant_info.json, perhaps edited: make the fixed .sim that it describes, measuring nothing (no -i, no -n)"
    parser.add_argument("--plan", metavar="JSON", help=text)
    add_quant_file(parser)
    add_category(parser, default=None, purpose="kept in the file, for the compiler")
    add_common(parser)
    return parser


def _body(argv: list[str]) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    check_plan_options(options, parser.given(argv))
    start_log(options)
    load_chip(options.soc_version)
    target = fixed_path(Path(options.model), options.output)
    outputs, statistics = [target], StatisticsFiles.of(options, target)
    if options.save_quant_info:
        outputs += [quant_info_path(target), report_path(target)]
        statistics.written.append(statistics_path(target))
    read = (options.model, options.input_config, options.quant_file, options.plan, statistics.read)
    check_outputs([*outputs, *statistics.written], [file for file in read if file is not None])
    config = load_config(Path(options.input_config))
    graph = expect_stage(read_sim(options.model), "float", "calibrator.py")
    if options.category is not None:
        check_category(options.category, [graph[name] for name in graph.outputs], file=options.model)
    if options.plan is not None:
        plan, history = read_plan(Path(options.plan))
        fixed, records = apply_plan(graph, config, plan, history, file=options.plan), []
        told = f"by the plan {options.plan}: {precisions(plan)}"
    else:
        if options.quant_file is not None:
            import_parameters(graph, Path(options.quant_file))
        calibrated = calibrate_files(graph, config, options, statistics, all_errors=options.save_quant_info)
        fixed, told = calibrated.graph, told_of(calibrated)
        records = [plan_record(calibrated), layer_record(calibrated)] if options.save_quant_info else []
    if options.category is not None:
        fixed.metadata["category"] = options.category
    with atomic_outputs(*outputs) as (sim, *files):
        write_sim(fixed, sim, stage="fixed")
        for file, text in zip(files, records, strict=True):
            file.write_text(text, encoding="utf-8")
    statistics.finish()
    print(told)
    print(f"Fixed model at: {target}")
    return 0


def check_plan_options(options: argparse.Namespace, given: set[str]) -> None:
    """Raise UserError for --plan beside an option that would have no say, and for neither a plan nor samples."""
    if options.plan is None:
        missing = [text for text in ("-i/--image", "-n/--preprocess") if text.split("--")[1] not in given]
        if missing:
            reason = f"the following arguments are required: {', '.join(missing)}"
            raise UserError(reason, stage="calibrator.py", remedy="or --plan, which measures nothing")
    elif given - WITH_PLAN:
        names = ", ".join(f"--{name}" for name in sorted(given - WITH_PLAN))
        remedy = "leave one or the other out"
        raise UserError(f"--plan measures nothing, so {names} has no say", stage="calibrator.py", remedy=remedy)


def calibrate_files(
    graph: Graph,
    config: InputConfig,
    options: argparse.Namespace,
    statistics: StatisticsFiles,
    *,
    all_errors: bool = False,
) -> Calibrated:
    """Calibrate on the files that -i and -n name."""
    calibratable(graph, config)  # now, before samples, scripts and clusters are touched
    samples = resolve_samples(options.image, len(config.inputs))
    preprocessors = load_preprocessors(options.preprocess, len(config.inputs))
    chosen = CalibrationOptions(
        level=options.quant_level,
        threshold=options.sensitivity_threshold,
        max_int16_macs=options.max_int16_macs,
        processes=options.num_process,
        memory_saving=options.memory_saving,
        all_statistics=bool(statistics.written),
        all_errors=all_errors,
    )
    statistics.open(graph, config, preprocessors, samples)
    address = options.scheduler
    if address is not None and statistics.known is not None:
        _log.warning("--scheduler: statistics are read from %s, so the cluster has nothing to do", statistics.read)
        address = None
    with cluster_at(address, [script.path for script in preprocessors], samples) as pool:
        calibrated = calibrate(
            graph,
            config,
            preprocessors,
            samples if pool is None else absolute(samples),
            chosen,
            statistics=statistics.known,
            checkpoint=statistics.checkpoint,
            pool=pool,
            wrap=progress,
            on_step=show_step,
        )
    statistics.write(calibrated.statistics)
    return calibrated


def show_step(step: Step) -> None:
    """One judged step, printed as it ends."""
    outcome = "" if step.kept else ", not kept"
    print(f"  {step.name}: outputs at {step.sqnr:.2f} dB{outcome}", flush=True)


def told_of(calibrated: Calibrated) -> str:
    """The outcome: the worst layers, where they were measured, and one line."""
    return "\n".join(filter(None, [table(calibrated.layers, calibrated.graph.outputs), summary(calibrated)]))


def summary(calibrated: Calibrated) -> str:
    """The outcome in one line."""
    samples = counted(calibrated.statistics.samples, "sample")
    return f"{calibrated.plan.level} on {samples}: {precisions(calibrated.plan)}"


def precisions(plan: QuantPlan) -> str:
    """How many convolutions have which precision, in words."""
    bits = [mac.bits for mac in plan.macs.values()]
    narrow = f"{bits.count(4)} in 4, " if 4 in bits else ""
    return f"{bits.count(16)} of {len(bits)} convolutions in 16 bit, {narrow}the others in 8"
