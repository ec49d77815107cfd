"""compiler: fixed .sim → offline .img for one chip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sgs.cli.names import check_outputs, image_path
from sgs.cli.options import add_batches, add_category, add_common, check_category, start_log
from sgs.cli.program import Parser, run
from sgs.compile import summarise
from sgs.config.chips import load_chip
from sgs.img import write_image
from sgs.pipelines import compile_fixed
from sgs.sim import expect_stage, read_sim


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def _parser() -> Parser:
    parser = Parser(prog="compiler.py", description="Compile a fixed .sim to an offline .img.")
    parser.add_argument(
        "-m", "--model", "--model_file", dest="model", metavar="SIM", required=True, help="the fixed .sim"
    )
    text = "the .img to write, or a folder (default: <model>_sgsimg.img)"
    parser.add_argument("-o", "--output", metavar="PATH", help=text)
    add_batches(parser)
    add_category(parser, default=None, purpose="kept in the file (default: what calibrator was given, else Unknown)")
    add_common(parser)
    return parser


def _body(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    start_log(options.show_log)
    chip = load_chip(options.soc_version)
    target = image_path(Path(options.model), options.output)
    check_outputs([target], [options.model])
    graph = expect_stage(read_sim(options.model), "fixed", "compiler.py")
    category = options.category or str(graph.metadata.get("category", "Unknown"))
    check_category(category, graph.outputs, file=options.model)
    image = compile_fixed(
        graph,
        chip,
        batch_mode=options.batch_mode,
        batches=options.batch,
        category=category,
        inplace_inputs=options.inplace_input_buf,
    )
    write_image(image, target)
    print(summarise(image, chip).text())
    print(f"Offline model at: {target}")
    return 0
