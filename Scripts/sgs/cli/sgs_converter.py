"""SGS_converter: a source model → offline .img in one process, by the functions that the three programs call."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sgs.cli.calibrator_tool import calibrate_files, level_options, mode_options, report_of, told_of
from sgs.cli.convert_tool import convert_as_asked, inputs
from sgs.cli.image_files import told_of_report, write_image_files
from sgs.cli.options import (
    LEVEL_OPTIONS,
    add_batches,
    add_category,
    add_common,
    add_gathering,
    add_level,
    add_mode,
    add_report,
    add_samples,
    add_source,
    parsed,
    platforms_of,
    start_log,
)
from sgs.cli.program import Parser, run
from sgs.cli.statistics_files import StatisticsFiles
from sgs.compile import summarise
from sgs.compile.batches import checked_batches, not_in_place
from sgs.config.chips import load_chip
from sgs.config.input_config import InputConfig
from sgs.data.files import atomic_outputs
from sgs.errors import UserError
from sgs.evaluate.categories import check_category
from sgs.frontends.platforms import platform_named
from sgs.img import BatchMode, Image
from sgs.ir import Graph
from sgs.pipelines import Calibrated, compile_fixed
from sgs.products import check_outputs, compile_report_paths, exported_paths, single_image_path
from sgs.report.compile import CompileReport
from sgs.report.compile_page import page_text
from sgs.report.report_page import report_text
from sgs.sim import write_sim
from sgs.sim.write import Stage


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def parser() -> Parser:
    """The options of the program."""
    description = "Convert, calibrate and compile a source model to an offline .img."
    parser = Parser(prog="SGS_converter.py", description=description)
    for name, sub in platforms_of(parser).items():
        add_source(sub, platform_named(name, stage=parser.prog))
        add_samples(sub, purpose="calibration samples")
        sub.add_argument("--output_file", metavar="IMG", required=True, help="the .img to write")
        text = "also keep Debug_<name>_float.sim, <name>_float.sim and <name>_fixed.sim beside it"
        sub.add_argument("--export_models", action="store_true", help=text)
        add_level(sub)
        add_mode(sub, required=False)
        add_gathering(sub)
        add_batches(sub)
        add_category(sub, default="Unknown", purpose="kept in the file (default: Unknown)")
        add_report(sub, page="a page for the browser, which also tells how accurate it is and why,")
        add_common(sub)
    return parser


def _body(argv: list[str]) -> int:
    options = parsed(parser(), argv)
    check_mode_options(options)
    start_log(options)
    chip = load_chip(options.soc_version)
    target = single_image_path(options.output_file)
    exported = exported_paths(target) if options.export_models else ()
    reports = compile_report_paths(target, options.report)
    statistics = StatisticsFiles.of(options, target)
    read = [*inputs(options), *([options.quant_config] if options.quant_config is not None else [])]
    check_outputs([*exported, target, *reports, *statistics.written], read)
    chosen = level_options(options) if options.q_mode is None else mode_options(options, target)
    mode, _ = checked_batches(options.batch_mode, options.batch, chip)  # now, not after the calibration
    if options.inplace_input_buf and mode is not BatchMode.ONE_BUF:
        raise not_in_place("is for batch mode one_buf")
    config, imported, graph = convert_as_asked(options)
    check_category(options.category, [graph[name] for name in graph.outputs], file=inputs(options)[0])
    calibrated = calibrate_files(graph, config, options, statistics, chosen)
    if options.category != "Unknown":
        calibrated.graph.metadata["category"] = options.category
    image = compile_fixed(
        calibrated.graph,
        chip,
        batch_mode=options.batch_mode,
        batches=options.batch,
        category=options.category,
        inplace_inputs=options.inplace_input_buf,
    )
    page = conversion_page(options, config, graph, calibrated, target) if reports else page_text
    stages: tuple[tuple[Graph, Stage], ...] = ((imported, "debug"), (graph, "float"), (calibrated.graph, "fixed"))
    with atomic_outputs(*exported, *reports, target) as (*files, image_file):
        sims, report_files = files[: len(exported)], files[len(exported) :]
        for (step, stage), file in zip(stages, sims, strict=False):  # no files without --export_models
            write_sim(step, file, stage=stage)
        write_image_files(image, chip, image_file, report_files, page)
    statistics.finish()
    if chosen.mode is not None:
        chosen.mode.finish()
    print(told_of(calibrated))
    print(summarise(image, chip).text())
    if exported:
        print(f"Float model at: {exported[1]}\nFixed model at: {exported[2]}")
    print(told_of_report(reports), end="")
    print(f"Offline model at: {target}")
    return 0


def conversion_page(
    options: argparse.Namespace, config: InputConfig, graph: Graph, calibrated: Calibrated, target: Path
) -> Callable[[Image, CompileReport], str]:
    """What makes the page on the whole conversion to the .img `target`, once its cost is known."""
    model = inputs(options)[0]
    facts = {"model": model.name, "platform": options.platform, "chip": options.soc_version}
    _, real, fixed = exported_paths(target)
    category, names = options.category, (real.name, fixed.name)
    report = report_of(calibrated, options, config, graph, model=model, names=names, category=category, facts=facts)
    return lambda image, cost: report_text(replace(report, cost=(image, cost)))


def check_mode_options(options: argparse.Namespace) -> None:
    """Raise UserError for -q without --quant_config or the other way round, and for options without a say beside it."""
    stage = "SGS_converter.py"
    if options.q_mode is None:
        alone = [f"--{name}" for name in ("quant_config", "cal_batchsize") if getattr(options, name) is not None]
        if alone:
            raise UserError(
                f"{' and '.join(alone)}: only with -q", stage=stage, remedy="say which mode, such as -q Q22"
            )
        return
    if options.quant_config is None:
        remedy = "name a quant_config.yaml; docs/TORCH_CALIBRATOR.md says what it holds"
        raise UserError("-q needs --quant_config", stage=stage, remedy=remedy)
    idle = [f"--{name}" for name in (*LEVEL_OPTIONS, "quant_file") if getattr(options, name) is not None]
    if idle:
        reason = f"-q decides instead, so {', '.join(idle)} has no say"
        raise UserError(reason, stage=stage, remedy="leave one or the other out")
