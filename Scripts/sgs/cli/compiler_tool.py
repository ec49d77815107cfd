"""compiler: fixed .sim → offline .img for one chip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sgs.cli.image_files import told_of_report, write_image_files
from sgs.cli.options import add_batches, add_category, add_common, add_report, start_log
from sgs.cli.program import Parser, run
from sgs.compile import summarise
from sgs.config.chips import load_chip
from sgs.data.files import atomic_outputs
from sgs.products import check_outputs, compile_file, compile_report_paths, image_path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def parser() -> Parser:
    """The options of the program."""
    parser = Parser(prog="compiler.py", description="Compile a fixed .sim to an offline .img.")
    parser.add_argument(
        "-m", "--model", "--model_file", dest="model", metavar="SIM", required=True, help="the fixed .sim"
    )
    text = "the .img to write, or a folder (default: <model>_sgsimg.img)"
    parser.add_argument("-o", "--output", metavar="PATH", help=text)
    add_batches(parser)
    add_category(parser, default=None, purpose="kept in the file (default: what calibrator was given, else Unknown)")
    add_report(parser)
    add_common(parser)
    return parser


def _body(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    start_log(options)
    chip = load_chip(options.soc_version)
    target = image_path(Path(options.model), options.output)
    reports = compile_report_paths(target, options.report)
    check_outputs([target, *reports], [options.model])
    image = compile_file(
        Path(options.model), chip, options.category, options.batch_mode, options.batch, options.inplace_input_buf
    )
    with atomic_outputs(*reports, target) as (*report_files, image_file):
        write_image_files(image, chip, image_file, report_files)
    print(summarise(image, chip).text())
    print(told_of_report(reports), end="")
    print(f"Offline model at: {target}")
    return 0
