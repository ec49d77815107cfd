"""histogram: how the values of tensors are distributed in a model, and in another one beside it."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sgs.cli.networks import check_stages
from sgs.cli.options import add_sample_files, count, start_log
from sgs.cli.program import Parser, run
from sgs.compare.distributions import distributions
from sgs.compare.match import counterparts
from sgs.compare.run import ordered
from sgs.compare.stages import Stage, open_stage
from sgs.config.nearest import counted
from sgs.data.files import STAGE, atomic_output, atomic_outputs, make_folder
from sgs.data.images import resolve_samples
from sgs.data.preprocess import load_preprocessors
from sgs.errors import UserError, raise_all
from sgs.pipelines import load_config, spread
from sgs.products import check_outputs
from sgs.report.histogram import Histogram
from sgs.report.histogram_page import histogram_picture, histograms_page
from sgs.report.progress import progress

SAMPLES = 4
_PROGRAM = "histogram.py"
_UNKNOWN = (".png", ".jpg", ".jpeg", ".pdf", ".htm", ".json", ".csv", ".npz")  # by which no folder is meant


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def parser() -> Parser:
    """The options of the program."""
    description = (
        "Draw how the values of a model's tensors are distributed, with the range of their codes where it has any, and "
        "those of a reference beside them."
    )
    parser = Parser(prog=_PROGRAM, description=description)
    text = "a source model, a debug, float or fixed .sim, or an .img"
    parser.add_argument("-m", "--model", "--model_file", dest="model", metavar="FILE", required=True, help=text)
    text = "another model of the same network to draw beside it; the one nearer to the source is the reference"
    parser.add_argument("-a", "--reference", metavar="FILE", help=text)
    add_sample_files(parser, purpose="samples to run")
    text = "the input_config.ini of a source model; other models bring their own"
    parser.add_argument("--input_config", metavar="INI", help=text)
    text = f"samples at most, spread evenly over those of -i (default: {SAMPLES})"
    parser.add_argument("--samples", metavar="N", type=count, default=SAMPLES, help=text)
    text = "names, or patterns like '*Conv*', with commas or spaces between them (default: all that have values)"
    parser.add_argument("--tensors", metavar="NAME", nargs="+", help=text)
    text = "an .html page of all, an .svg of a single tensor, or a folder for an .svg of each"
    parser.add_argument("-o", "--output", metavar="PATH", required=True, help=text)
    parser.add_argument("--force", action="store_true", help="replace files that are there already")
    parser.add_argument("--show_log", action="store_true", help="tell on stderr what is being done")
    text = "as --show_log; twice, or beside it: every detail"
    parser.add_argument("-v", "--verbose", action="count", default=0, help=text)
    return parser


def _body(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    start_log(options)
    target = Path(options.output)
    kind = target.suffix.lower()
    single = kind in (".html", ".svg") and not target.is_dir()
    if kind in _UNKNOWN and not target.is_dir():
        remedy = "end the name in .html or .svg, or give a folder"
        raise UserError(f"histograms are not written as {kind}", stage=STAGE, file=target, remedy=remedy)
    read = [file for file in (options.model, options.reference, options.input_config) if file is not None]
    check_outputs([target] if single else [], read)
    reference, model = _opened(options)
    names = _names(options, reference, model)
    if single and kind == ".svg" and len(names) > 1:
        remedy = "name one with --tensors, or give a folder, or an .html"
        raise UserError(f"holds one tensor, and {len(names)} are chosen", stage=STAGE, file=target, remedy=remedy)
    files = [target] if single else list(_files(make_folder(target), names))
    _check_files(files, force=options.force)
    samples = spread(resolve_samples(options.image, len(model.inputs)), options.samples)
    preprocessors = load_preprocessors(options.preprocess, len(model.inputs))
    found = distributions(reference, model, names, preprocessors, samples, wrap=progress)
    _write(files, found, (reference or model).path.name, model.path.name)
    print(f"{counted(len(found), 'tensor')} on {counted(len(samples), 'sample')}")
    print(f"Histograms at: {target}")
    return 0


def _opened(options: argparse.Namespace) -> tuple[Stage | None, Stage]:
    """(reference, model). Raises UserError for inputs that are not as many, and an ini for nothing."""
    config = None if options.input_config is None else load_config(Path(options.input_config))
    files = [options.model] if options.reference is None else [options.reference, options.model]
    stages = [open_stage(file, config=config, stage=_PROGRAM) for file in files]
    check_stages(stages, config, program=_PROGRAM)
    return (None, stages[0]) if len(stages) == 1 else ordered(*stages)


def _names(options: argparse.Namespace, reference: Stage | None, model: Stage) -> dict[str, str | None]:
    """The tensors to draw → their counterparts. Without --tensors those that have counterparts where there is a
    reference, else all."""
    pairs = {} if reference is None else counterparts(reference, model)
    every = model.names() if reference is None else list(pairs)
    chosen = every if options.tensors is None else model.chosen(options.tensors)
    if not chosen:
        reason = "has no tensor in common with the other model"
        raise UserError(reason, stage=_PROGRAM, file=model.path, remedy="name two models of one network")
    return {name: pairs.get(name) for name in chosen}


def _files(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    """A file for each tensor, of a name that file systems take; equal ones are numbered."""
    taken: set[str] = set()
    for name in names:
        stem = plain = re.sub(r"[^\w.-]+", "_", name).strip("_.")[:120] or "tensor"
        number = 1
        while stem.lower() in taken:
            number += 1
            stem = f"{plain}_{number}"
        taken.add(stem.lower())
        yield folder / f"{stem}.svg"


def _check_files(files: Sequence[Path], *, force: bool) -> None:
    """Raise UserError naming all files that are there and are not to be replaced."""
    there = [file for file in files if file.exists() and not force]
    remedy = "choose another name, or replace it with --force"
    raise_all([UserError("is there already", stage=STAGE, file=file, remedy=remedy) for file in there], stage=STAGE)


def _write(files: Sequence[Path], found: Sequence[Histogram], real: str, held: str) -> None:
    if files[0].suffix.lower() == ".html":
        with atomic_output(files[0]) as file:
            title = f"Values in {held}"
            file.write_text(histograms_page(title, found, real, held), encoding="utf-8")
        return
    with atomic_outputs(*files) as temporary:
        for path, histogram in zip(temporary, found, strict=True):
            path.write_text(histogram_picture(histogram), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
