"""torch_calibrator: float .sim → fixed .sim in one of the modes Q10 to Q23, with mixed precision and retraining."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sgs.cli.calibrator_tool import (
    add_float_model,
    add_quant_info,
    calibrate_files,
    fixed_files,
    fixed_records,
    float_graph,
    mode_options,
    told_of,
    write_fixed_files,
)
from sgs.cli.options import add_category, add_common, add_gathering, add_mode, add_samples, start_log
from sgs.cli.program import Parser, run
from sgs.pipelines import load_config
from sgs.products import fixed_path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def parser() -> Parser:
    """The options of the program."""
    description = "Quantise a float .sim to a fixed .sim, with mixed precision, or by retraining with PyTorch."
    parser = Parser(prog="torch_calibrator.py", description=description)
    add_float_model(parser)
    add_samples(parser, purpose="calibration samples, about 100")
    add_mode(parser, required=True)
    add_gathering(parser)
    add_quant_info(parser)
    add_category(parser, default=None, purpose="kept in the file, for the compiler")
    add_common(parser)
    return parser


def _body(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    start_log(options)
    target = fixed_path(Path(options.model), options.output)
    outputs, statistics = fixed_files(options, target, [options.quant_config])
    chosen = mode_options(options, target)
    config = load_config(Path(options.input_config))
    graph = float_graph(options, "torch_calibrator.py")
    calibrated = calibrate_files(graph, config, options, statistics, chosen, all_errors=options.save_quant_info)
    write_fixed_files(calibrated.graph, options, outputs, fixed_records(calibrated, options, config, graph, target))
    statistics.finish()
    if chosen.mode is not None:
        chosen.mode.finish()
    print(told_of(calibrated))
    print(f"Fixed model at: {target}")
    return 0
