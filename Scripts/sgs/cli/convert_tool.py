"""ConvertTool: a source model → float .sim, and the untouched import beside it."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from sgs.cli.options import (
    add_common,
    add_source,
    check_arrays,
    check_platform_given,
    start_log,
    surgery_of,
)
from sgs.cli.program import Parser, run
from sgs.config.chips import load_chip
from sgs.config.input_config import InputConfig
from sgs.frontends.platforms import LATER_PLATFORMS
from sgs.ir import Graph
from sgs.ir.text import dump
from sgs.pipelines import convert_onnx, import_parameters, load_config
from sgs.products import check_outputs, debug_path, float_path, write_float_files

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def platform_parser(program: str, description: str) -> tuple[Parser, Parser]:
    """The parser of a program whose first argument is the platform, and that of the onnx platform."""
    later = f"not available in this version: {', '.join(LATER_PLATFORMS)}"
    parser = Parser(prog=program, description=description, epilog=later)
    platforms = parser.add_subparsers(dest="platform", metavar="PLATFORM", required=True)
    return parser, platforms.add_parser("onnx", help="ONNX models", description=description)


def _body(argv: list[str]) -> int:
    parser, onnx = platform_parser("ConvertTool.py", "Convert a source model to a float .sim.")
    add_source(onnx)
    text = "the .sim to write, or a folder; Debug_<name> is written beside it"
    onnx.add_argument("--output_file", metavar="PATH", required=True, help=text)
    add_common(onnx)
    check_platform_given(parser.prog, argv)
    options = parser.parse_args(argv)
    start_log(options)
    load_chip(options.soc_version)
    target = float_path(options.output_file)
    check_outputs([target, debug_path(target)], inputs(options))
    _, imported, graph = convert(options)
    write_float_files(imported, graph, target)
    print(f"Float model at: {target}")
    return 0


def inputs(options: argparse.Namespace) -> list[str]:
    """The files that converting reads."""
    return [file for file in (options.model_file, options.input_config, options.quant_file) if file is not None]


def convert(options: argparse.Namespace) -> tuple[InputConfig, Graph, Graph]:
    """(configuration, untouched import, float graph) that the source options ask for."""
    config = load_config(Path(options.input_config))
    surgery = surgery_of(options)
    for side, ends in (("input", surgery.inputs), ("output", surgery.outputs)):
        arrays = getattr(options, f"{side}_arrays")
        named = [] if arrays is None else [name.strip() for name in arrays.split(",")]
        check_arrays(config, named, side, f"--{side}_arrays")
        check_arrays(config, [end.name for end in ends], side, f"--{side}s")
    imported, graph = convert_onnx(
        Path(options.model_file),
        config,
        input_shapes=options.input_shapes,
        source_layouts=options.source_layouts,
        skip_simplify=options.skip_simplify,
        force_simplify=options.onnxsim,
        checker=options.checker,
        surgery=surgery,
    )
    if options.quant_file is not None:
        import_parameters(graph, Path(options.quant_file))
    _log.debug("imported\n%s", dump(imported))
    _log.debug("optimised\n%s", dump(graph))
    return config, imported, graph
