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
    parsed,
    platforms_of,
    source_values,
    start_log,
    surgery_of,
)
from sgs.cli.program import Parser, run
from sgs.config.chips import load_chip
from sgs.config.input_config import InputConfig
from sgs.frontends.platforms import platform_named
from sgs.ir import Graph
from sgs.ir.text import dump
from sgs.pipelines import convert, import_parameters, load_config
from sgs.postprocess.join import postprocess_of
from sgs.products import check_outputs, debug_path, float_path, write_float_files

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def parser() -> Parser:
    """The options of the program."""
    parser = Parser(prog="ConvertTool.py", description="Convert a source model to a float .sim.")
    for name, sub in platforms_of(parser).items():
        add_source(sub, platform_named(name, stage=parser.prog))
        text = "the .sim to write, or a folder; Debug_<name> is written beside it"
        sub.add_argument("--output_file", metavar="PATH", required=True, help=text)
        add_common(sub)
    return parser


def _body(argv: list[str]) -> int:
    options = parsed(parser(), argv)
    start_log(options)
    load_chip(options.soc_version)
    target = float_path(options.output_file)
    check_outputs([target, debug_path(target)], inputs(options))
    _, imported, graph = convert_as_asked(options)
    write_float_files(imported, graph, target)
    print(f"Float model at: {target}")
    return 0


def inputs(options: argparse.Namespace) -> list[Path]:
    """The files that converting reads."""
    platform = platform_named(options.platform, stage="arguments")
    given = (options.input_config, options.quant_file, options.postprocess, options.postprocess_input_config)
    return [*platform.files(source_values(options, platform)), *(Path(file) for file in given if file is not None)]


def convert_as_asked(options: argparse.Namespace) -> tuple[InputConfig, Graph, Graph]:
    """(configuration, untouched import, float graph) that the source options ask for; the configuration is that of the
    whole network where --postprocess puts something behind the model."""
    config = load_config(Path(options.input_config))
    surgery = surgery_of(options)
    for side, ends in (("input", surgery.inputs), ("output", surgery.outputs)):
        arrays = getattr(options, f"{side}_arrays")
        named = [] if arrays is None else [name.strip() for name in arrays.split(",")]
        check_arrays(config, named, side, f"--{side}_arrays")
        check_arrays(config, [end.name for end in ends], side, f"--{side}s")
    postprocess = postprocess_of(options.postprocess, options.postprocess_input_config, config)
    imported, graph = convert(
        options.platform,
        source_values(options, platform_named(options.platform, stage="arguments")),
        config,
        input_shapes=options.input_shapes,
        source_layouts=options.source_layouts,
        skip_simplify=getattr(options, "skip_simplify", False),
        force_simplify=getattr(options, "onnxsim", False),
        surgery=surgery,
        postprocess=postprocess,
        on_agreement=lambda found: print(found.text),
    )
    if options.quant_file is not None:
        import_parameters(graph, Path(options.quant_file))
    _log.debug("imported\n%s", dump(imported))
    _log.debug("optimised\n%s", dump(graph))
    return config if postprocess is None else postprocess.config, imported, graph
