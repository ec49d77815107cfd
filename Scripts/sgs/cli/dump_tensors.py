"""dump_tensors: every tensor of a model of any stage for some samples, as .npz files."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from sgs.cli.networks import add_stage, opened_stage
from sgs.cli.options import add_sample_files, platform_first, start_log
from sgs.cli.program import Parser, run
from sgs.compare.dump import stage_facts, table, write_dump
from sgs.compare.stage import Stage
from sgs.config.nearest import counted
from sgs.data.files import STAGE, check_output, make_folder
from sgs.data.images import Sample, resolve_samples
from sgs.data.preprocess import load_preprocessors
from sgs.errors import UserError, raise_all
from sgs.evaluate.results import picture_names
from sgs.frontends.platforms import PLATFORMS, Platform
from sgs.report.progress import progress

_PROGRAM = "dump_tensors.py"
_NEEDED = {"image": "-i", "preprocess": "-n", "output": "-o"}  # unless the tensors are but listed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def parser(platform: Platform | None = None) -> Parser:
    """The options of the program, for a model of a platform that is named first or for one that is not."""
    description = (
        "Write every tensor of a model for some samples: of a source model, a Debug, float or fixed .sim, or an .img. "
        f"Source models that are more than a file: {_PROGRAM} PLATFORM ..., of {', '.join(PLATFORMS)}."
    )
    parser = Parser(prog=_PROGRAM if platform is None else f"{_PROGRAM} {platform.name}", description=description)
    add_stage(parser, platform)
    add_sample_files(parser, purpose="samples to run", required=False)
    text = "for one sample the .npz to write, else a folder, which gets tensors_<model>_<picture>.npz of each"
    parser.add_argument("-o", "--output", metavar="PATH", help=text)
    text = "only these: names, or patterns like 'conv*', with commas or spaces between them (default: all)"
    parser.add_argument("--tensors", metavar="NAME", nargs="+", help=text)
    text = "write the real numbers that codes stand for (default: as the model holds them)"
    parser.add_argument("--real", action="store_true", help=text)
    parser.add_argument("--force", action="store_true", help="overwrite files that are there")
    parser.add_argument("--list", action="store_true", help="only list the tensors; nothing is run")
    parser.add_argument("--json", action="store_true", help="with --list: machine-readable output")
    parser.add_argument("--show_log", action="store_true", help="tell on stderr what is being done")
    return parser


def _body(argv: list[str]) -> int:
    platform, rest = platform_first(argv, stage=_PROGRAM)
    program = parser(platform)
    options = program.parse_args(rest)
    start_log(argparse.Namespace(show_log=options.show_log, verbose=0))
    _check(program, options)
    stage = opened_stage(platform, options, program=_PROGRAM)
    names = stage.names() if options.tensors is None else stage.chosen(options.tensors)
    facts = stage_facts(stage, names)
    if options.tensors is not None:
        facts["left_out"] = {}
    if options.list:
        print(json.dumps(facts, indent=1, ensure_ascii=False) if options.json else "\n".join(table(facts)))
        return 0
    samples = resolve_samples(options.image, len(stage.inputs))
    preprocessors = load_preprocessors(options.preprocess, len(stage.inputs))
    files = _files(stage, samples, options)
    for sample, file in progress(list(zip(samples, files, strict=True)), "dump"):
        values = stage.tensors(stage.feeds(preprocessors, sample), names)
        if options.real:
            values = ((name, stage.real(name, held)) for name, held in values)
        record = facts | {"sample": [path.name for path in sample], "real": options.real}
        write_dump(file, values, record)
    for name, reason in facts["left_out"].items():
        print(f"left out: {name}: {reason}")
    told = f"{stage.kind} model, {counted(len(names), 'tensor')} of {counted(len(samples), 'sample')}"
    print(f"{told}, values of {facts['values_of']}, in: {options.output}")
    return 0


def _check(parser: Parser, options: argparse.Namespace) -> None:
    """Raise UserError where options do not go together."""
    given = [flag for name, flag in _NEEDED.items() if getattr(options, name) is not None]
    if options.list:
        given += [f"--{name}" for name in ("real", "force") if getattr(options, name)]
        if given:
            parser.error(f"{', '.join(given)} is not for --list, which runs nothing")
        return
    if options.json:
        parser.error("--json goes with --list")
    missing = [flag for flag in _NEEDED.values() if flag not in given]
    if missing:
        parser.error(f"{', '.join(missing)} is needed, unless --list is given")


def _files(stage: Stage, samples: Sequence[Sample], options: argparse.Namespace) -> list[Path]:
    """The file of every sample. Raises UserError for all that are there already, without --force."""
    output = Path(options.output)
    if output.suffix == ".npz" and not output.is_dir():
        if len(samples) > 1:
            reason = f"is one file, for {counted(len(samples), 'sample')}"
            raise UserError(reason, stage=STAGE, file=output, remedy="name a folder")
        files = [output]
    else:
        folder = make_folder(output)
        files = [folder / f"tensors_{stage.path.stem}_{name}.npz" for name in picture_names(samples)]
    problems = [
        UserError("is there already", stage=STAGE, file=file, remedy="name another, or add --force")
        for file in dict.fromkeys(files)
        if check_output(file).exists() and not options.force
    ]
    raise_all(problems, stage=STAGE)
    return files


if __name__ == "__main__":
    sys.exit(main())
