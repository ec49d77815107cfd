"""compare_models: two models of one network layer by layer, the first bad layer, why it is bad and what helps."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from sgs.cli.networks import add_stage, check_stages, opened_stage
from sgs.cli.options import add_sample_files, count, platform_first, start_log
from sgs.cli.program import Parser, run
from sgs.compare.overview import comparison_report
from sgs.compare.run import compare, ordered
from sgs.compare.stages import Stage, open_stage
from sgs.data.files import atomic_outputs
from sgs.data.images import resolve_samples
from sgs.data.preprocess import load_preprocessors
from sgs.frontends.platforms import PLATFORMS, Platform
from sgs.pipelines import load_config, spread
from sgs.products import check_outputs
from sgs.report.comparison import comparison_csv, comparison_record, comparison_text
from sgs.report.progress import progress
from sgs.report.report_page import report_text

SAMPLES = 4
_PROGRAM = "compare_models.py"
_WRITERS = {"json": comparison_record, "csv": comparison_csv}
_FILES = (*_WRITERS, "html")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def parser(platform: Platform | None = None) -> Parser:
    """The options of the program, for a model of a platform that is named first or for one that is not."""
    description = (
        "Compare two models of one network layer by layer: a source model, a debug, float or fixed .sim, an .img. The "
        "one nearer to the source is the reference, whichever is named first. Source models that are more than a file "
        f"in place of -a: {_PROGRAM} PLATFORM ..., of {', '.join(PLATFORMS)}."
    )
    parser = Parser(prog=_PROGRAM if platform is None else f"{_PROGRAM} {platform.name}", description=description)
    if platform is None:
        parser.add_argument("-a", metavar="MODEL", required=True, help="a model")
        text = "the input_config.ini of a source model; other models bring their own"
        parser.add_argument("--input_config", metavar="INI", help=text)
    else:
        add_stage(parser, platform)
    parser.add_argument("-b", metavar="MODEL", required=True, help="another model of the same network")
    add_sample_files(parser, purpose="samples to compare them on")
    text = f"samples at most, spread evenly over those of -i (default: {SAMPLES})"
    parser.add_argument("--samples", metavar="N", type=count, default=SAMPLES, help=text)
    parser.add_argument("--all", action="store_true", help="print every layer in order, not the worst and the outputs")
    parser.add_argument("--json", metavar="FILE", help="also write everything as JSON")
    parser.add_argument("--csv", metavar="FILE", help="also write a row for each layer as CSV")
    text = "also write a page for the browser, with the distributions of the worst layers"
    parser.add_argument("--html", metavar="FILE", help=text)
    parser.add_argument("--show_log", action="store_true", help="tell on stderr what is being done")
    text = "as --show_log; twice, or beside it: every detail"
    parser.add_argument("-v", "--verbose", action="count", default=0, help=text)
    return parser


def _body(argv: list[str]) -> int:
    platform, rest = platform_first(argv, stage=_PROGRAM)
    options = parser(platform).parse_args(rest)
    start_log(options)
    written = {kind: path for kind in _FILES if (path := getattr(options, kind)) is not None}
    a, b = _opened(platform, options)
    samples = resolve_samples(options.image, len(b.inputs))
    preprocessors = tuple(load_preprocessors(options.preprocess, len(b.inputs)))
    read = [a.path, b.path, *(script.path for script in preprocessors), *chain.from_iterable(samples)]
    check_outputs(written.values(), [*read, *filter(None, [options.input_config])])
    chosen = spread(samples, options.samples)
    comparison = compare(a, b, preprocessors, progress(chosen, "compare"))
    texts = {kind: _WRITERS[kind](comparison) for kind in written if kind in _WRITERS}
    if "html" in written:
        texts["html"] = report_text(comparison_report(a, b, comparison, preprocessors, chosen, wrap=progress))
    with atomic_outputs(*written.values()) as files:
        for kind, file in zip(written, files, strict=True):
            file.write_text(texts[kind], encoding="utf-8")
    print(comparison_text(comparison, every=options.all))
    for path in written.values():
        print(f"written: {path}")
    return 0


def _opened(platform: Platform | None, options: argparse.Namespace) -> tuple[Stage, Stage]:
    """The two stages, the reference first. Raises UserError for inputs that are not as many, and an ini for nothing."""
    config = None if options.input_config is None else load_config(Path(options.input_config))
    if platform is None:
        a = open_stage(options.a, config=config, stage=_PROGRAM)
    else:
        a = opened_stage(platform, options, program=_PROGRAM)
    b = open_stage(options.b, config=config, stage=_PROGRAM)
    check_stages([a, b], config, program=_PROGRAM)
    return ordered(a, b)


if __name__ == "__main__":
    sys.exit(main())
