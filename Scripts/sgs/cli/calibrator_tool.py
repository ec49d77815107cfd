"""calibrator: float .sim → fixed .sim, by running calibration samples through the float model."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sgs.cli.options import (
    LEVEL_OPTIONS,
    add_category,
    add_common,
    add_gathering,
    add_level,
    add_quant_file,
    add_samples,
    start_log,
)
from sgs.cli.program import Parser, run
from sgs.cli.scheduler import cluster_at
from sgs.cli.statistics_files import StatisticsFiles
from sgs.compare.overview import conversion_report
from sgs.config.chips import all_chips, load_chip
from sgs.config.input_config import InputConfig
from sgs.config.nearest import counted
from sgs.config.quant_config import mode_named
from sgs.data.files import atomic_outputs
from sgs.data.images import absolute, resolve_samples
from sgs.data.preprocess import load_preprocessors
from sgs.errors import UserError
from sgs.evaluate.categories import check_category
from sgs.ir import Graph
from sgs.modes import Mixed, ModeOptions
from sgs.pipelines import (
    Calibrated,
    CalibrationOptions,
    apply_plan,
    calibrate,
    check_calibration,
    import_parameters,
    layer_record,
    load_config,
    load_quant_config,
    plan_record,
    read_plan,
)
from sgs.products import check_outputs, fixed_path, quant_info_path, report_path, retrain_path, statistics_path
from sgs.quant.levels import Step
from sgs.quant.plan import QuantPlan
from sgs.report.calibration import table
from sgs.report.progress import progress
from sgs.report.report_page import Report, report_text
from sgs.sim import expect_stage, read_sim, write_sim

_log = logging.getLogger(__name__)
WITH_PLAN = {"model", "input_config", "output", "plan", "category", "soc_version", "show_log"}  # options for --plan


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def parser() -> Parser:
    """The options of the program."""
    parser = Parser(prog="calibrator.py", description="Quantise a float .sim to a fixed .sim.")
    add_float_model(parser)
    add_samples(parser, purpose="calibration samples", required=False)
    add_level(parser)
    add_gathering(parser)
    add_quant_info(parser)
    text = "a quant_info.json, perhaps edited: make the fixed .sim that it describes, measuring nothing (no -i, no -n)"
    parser.add_argument("--plan", metavar="JSON", help=text)
    add_quant_file(parser)
    add_category(parser, default=None, purpose="kept in the file, for the compiler")
    add_common(parser)
    return parser


def add_float_model(parser: Parser) -> None:
    """-m, --input_config and -o."""
    parser.add_argument(
        "-m", "--model", "--model_file", dest="model", metavar="SIM", required=True, help="the float .sim"
    )
    parser.add_argument("--input_config", metavar="INI", required=True, help="the model's input_config.ini")
    text = "the .sim to write, or a folder (default: beside the model, _float.sim becoming _fixed.sim)"
    parser.add_argument("-o", "--output", metavar="PATH", help=text)


def add_quant_info(parser: Parser) -> None:
    """--save_quant_info and --html."""
    text = (
        "write what was decided for every tensor to <output without .sim>_quant_info.json, what it did to every layer "
        "to <output without .sim>_report.json, and what was measured to <output without .sim>_statistics.npz"
    )
    parser.add_argument("--save_quant_info", action="store_true", help=text)
    text = "also write a page for the browser: how accurate the fixed network is, layer by layer, and why"
    parser.add_argument("--html", metavar="FILE", help=text)


def _body(argv: list[str]) -> int:
    program = parser()
    options = program.parse_args(argv)
    check_plan_options(options, program.given(argv))
    start_log(options)
    load_chip(options.soc_version)
    target = fixed_path(Path(options.model), options.output)
    outputs, statistics = fixed_files(options, target, [options.quant_file, options.plan])
    config = load_config(Path(options.input_config))
    graph = float_graph(options, "calibrator.py")
    if options.plan is not None:
        plan, history = read_plan(Path(options.plan))
        fixed, records = apply_plan(graph, config, plan, history, file=options.plan), []
        told = f"by the plan {options.plan}: {precisions(plan)}"
    else:
        if options.quant_file is not None:
            import_parameters(graph, Path(options.quant_file))
        calibrated = calibrate_files(
            graph, config, options, statistics, level_options(options), all_errors=options.save_quant_info
        )
        fixed, told = calibrated.graph, told_of(calibrated)
        records = fixed_records(calibrated, options, config, graph, target)
    write_fixed_files(fixed, options, outputs, records)
    statistics.finish()
    print(told)
    print(f"Fixed model at: {target}")
    return 0


def fixed_files(
    options: argparse.Namespace, target: Path, read: Sequence[str | None]
) -> tuple[list[Path], StatisticsFiles]:
    """(the files that go with a fixed .sim, it first; those of statistics). Raises UserError for one that cannot be
    written, or that is read: the model, the ini, or another of those named."""
    outputs, statistics = [target], StatisticsFiles.of(options, target)
    if options.save_quant_info:
        outputs += [quant_info_path(target), report_path(target)]
        statistics.written.append(statistics_path(target))
    outputs += [] if options.html is None else [Path(options.html)]
    inputs = (options.model, options.input_config, *read, statistics.read)
    check_outputs([*outputs, *statistics.written], [file for file in inputs if file is not None])
    return outputs, statistics


def float_graph(options: argparse.Namespace, program: str) -> Graph:
    """The float .sim of -m, whose outputs are as -c says."""
    graph = expect_stage(read_sim(options.model), "float", program)
    if options.category is not None:
        check_category(options.category, [graph[name] for name in graph.outputs], file=options.model)
    return graph


def fixed_records(
    calibrated: Calibrated, options: argparse.Namespace, config: InputConfig, graph: Graph, target: Path
) -> list[str]:
    """What the files of --save_quant_info and --html beside a fixed .sim say, none without them."""
    records = [plan_record(calibrated), layer_record(calibrated)] if options.save_quant_info else []
    if options.html is not None:
        model, category = Path(options.model), options.category or "Unknown"
        facts, names = {"model": model.name}, (model.name, target.name)
        report = report_of(calibrated, options, config, graph, model=model, names=names, category=category, facts=facts)
        records.append(report_text(report))
    return records


def report_of(
    calibrated: Calibrated,
    options: argparse.Namespace,
    config: InputConfig,
    graph: Graph,
    *,
    model: Path,
    names: tuple[str, str],
    category: str,
    facts: Mapping[str, str],
) -> Report:
    """The report on the accuracy of what was calibrated from `model`, on some of the files that -i and -n name; `names`
    are those of the float and the fixed .sim."""
    samples = resolve_samples(options.image, len(config.inputs))
    preprocessors = load_preprocessors(options.preprocess, len(config.inputs))
    return conversion_report(
        model, names, graph, calibrated, preprocessors, samples, category=category, facts=facts, wrap=progress
    )


def write_fixed_files(
    fixed: Graph, options: argparse.Namespace, outputs: Sequence[Path], records: Sequence[str]
) -> None:
    """Write a fixed .sim, with the category of -c, and the records beside it."""
    if options.category is not None:
        fixed.metadata["category"] = options.category
    with atomic_outputs(*outputs) as (sim, *files):
        write_sim(fixed, sim, stage="fixed")
        for file, text in zip(files, records, strict=True):
            file.write_text(text, encoding="utf-8")


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


def level_options(options: argparse.Namespace) -> CalibrationOptions:
    """What the options of `add_level` ask for."""
    fields = zip(LEVEL_OPTIONS, ("level", "threshold", "max_int16_macs"), strict=True)
    given = {field: getattr(options, name) for name, field in fields if getattr(options, name) is not None}
    return CalibrationOptions(**given)


def mode_options(options: argparse.Namespace, output: Path) -> CalibrationOptions:
    """What the options of `add_mode` ask for, in a program that writes `output`. Raises UserError for settings that
    cannot be read, and for 4-bit weights on a chip that does not take them."""
    mode, settings = mode_named(options.q_mode), load_quant_config(Path(options.quant_config))
    chip = load_chip(options.soc_version)
    if 4 in settings.widths(mode) and "int4" not in chip.number_formats:
        reason = f"asks {mode.name} for 4-bit weights, which {chip.name} does not take"
        takes = [other.name for other in all_chips() if "int4" in other.number_formats]
        remedy = f"mixed_precisions: [8, 16], or one of the chips {', '.join(takes)}"
        raise UserError(reason, stage="quant_config", file=settings.path, remedy=remedy)
    return CalibrationOptions(mode=ModeOptions(mode, settings, options.cal_batchsize, retrain_path(output)))


def calibrate_files(
    graph: Graph,
    config: InputConfig,
    options: argparse.Namespace,
    statistics: StatisticsFiles,
    chosen: CalibrationOptions,
    *,
    all_errors: bool = False,
) -> Calibrated:
    """Calibrate as is chosen on the files that -i and -n name."""
    check_calibration(graph, config, chosen)  # now, before samples, scripts and clusters are touched
    samples = resolve_samples(options.image, len(config.inputs))
    preprocessors = load_preprocessors(options.preprocess, len(config.inputs))
    chosen = replace(
        chosen,
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
            on_mixed=show_mixed,
        )
    statistics.write(calibrated.statistics)
    return calibrated


def show_step(step: Step) -> None:
    """One judged step, printed as it ends."""
    outcome = "" if step.kept else ", not kept"
    print(f"  {step.name}: outputs at {step.sqnr:.2f} dB{outcome}", flush=True)


def show_mixed(mixed: Mixed) -> None:
    """Tell what rates mixed precision has to choose from, and its choice, before what may take long."""
    print(mixed.told(), flush=True)


def told_of(calibrated: Calibrated) -> str:
    """The outcome: the worst layers, where they were measured, and one line."""
    return "\n".join(filter(None, [table(calibrated.layers, calibrated.graph.outputs), summary(calibrated)]))


def summary(calibrated: Calibrated) -> str:
    """The outcome in one line."""
    samples = counted(calibrated.statistics.samples, "sample")
    boxes = calibrated.graph.metadata["calibration"].get("boxes")
    kept = "" if boxes is None else f"; {boxes}"
    return f"{calibrated.plan.level} on {samples}: {precisions(calibrated.plan)}{kept}"


def precisions(plan: QuantPlan) -> str:
    """How many convolutions have which precision, in words."""
    bits = [mac.bits for mac in plan.macs.values()]
    narrow = f"{bits.count(4)} in 4, " if 4 in bits else ""
    return f"{bits.count(16)} of {len(bits)} convolutions in 16 bit, {narrow}the others in 8"
