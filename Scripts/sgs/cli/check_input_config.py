"""check_input_config: whether an ini fits its network and its preprocess scripts; or a first one for a network."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

from sgs.cli.networks import OF_SOURCES, Chosen, Network, chosen_file, chosen_of, kinds, open_network
from sgs.cli.options import add_model, add_source_facts, platform_first, start_log
from sgs.cli.program import Parser, run
from sgs.cli.script_checks import Once, Seen, look, measure, seen_text
from sgs.config.draft import Draft
from sgs.config.input_config import STAGE, InputConfig, parse_input_config
from sgs.config.nearest import counted, listing
from sgs.data.files import atomic_output, check_output
from sgs.data.images import Sample, resolve_samples
from sgs.data.preprocess import load_preprocessors
from sgs.errors import Problems, UserError, raise_all
from sgs.frontends.platforms import PLATFORMS, Platform, platform_named
from sgs.pipelines import load_config
from sgs.report.input_config import config_text

_log = logging.getLogger(__name__)
_PROGRAM = "check_input_config.py"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def parser(platform: Platform | None = None) -> Parser:
    """The options of the program, for a model of a platform that is named first or for one that is not."""
    description = (
        "Check an input_config.ini: alone, against a network, and against preprocess scripts, all problems in one go. "
        "Or write a first one for a network that has none (--init). "
    )
    if platform is None:
        description += f"Models of other platforms: {_PROGRAM} PLATFORM ..., of {', '.join(PLATFORMS)}."
    parser = Parser(prog=_PROGRAM if platform is None else f"{_PROGRAM} {platform.name}", description=description)
    parser.add_argument("--input_config", metavar="INI", help="the ini to check")
    if platform is None:
        text = f"the network: {kinds()}"
        parser.add_argument("-m", "--model", "--model_file", dest="model", metavar="MODEL", help=text)
        add_source_facts(parser)
    else:
        add_model(parser, platform)
    text = "Python files with image_preprocess(path, norm=True), one for each input, separated by commas"
    parser.add_argument("-n", "--preprocess", metavar="PY", help=text)
    text = "data to run them on, as for the calibrator; of several samples the first"
    parser.add_argument("-i", "--image", metavar="PATH", help=text)
    if platform is None or platform.onnx:
        parser.add_argument("--skip_simplify", action="store_true", help="never try onnxsim")
    text = "write an ini for the network instead, mean and std measured where there are -n and -i"
    parser.add_argument("--init", action="store_true", help=text)
    parser.add_argument("-o", "--output_file", metavar="INI", help="--init: where to (default: the terminal)")
    parser.add_argument("--overwrite", action="store_true", help="--init: even where there is a file already")
    return parser


def _body(argv: list[str]) -> int:
    if argv and not argv[0].startswith("-"):
        platform_named(argv[0], stage=_PROGRAM)
    platform, rest = platform_first(argv, stage=_PROGRAM)
    program = parser(platform)
    options = program.parse_args(rest)
    _check_options(program, options, program.given(rest), platform)
    start_log(argparse.Namespace(show_log=False, verbose=0))
    chosen = None
    if platform is not None:
        chosen = chosen_of(platform, options)
    elif options.model is not None:
        chosen = chosen_file(Path(options.model), options, stage=_PROGRAM)
    if options.init:
        assert chosen is not None
        _init(chosen, options)
    else:
        _check(chosen, options)
    return 0


def _check_options(parser: Parser, options: argparse.Namespace, given: set[str], platform: Platform | None) -> None:
    """Raise UserError for options that do not go together."""
    if (options.preprocess is None) != (options.image is None):
        parser.error("-n and -i go together")
    if options.init == (options.input_config is not None):
        parser.error("either --input_config INI to check, or --init to write one")
    if platform is None and options.model is None and (options.init or options.preprocess is not None):
        parser.error(f"{'--init' if options.init else '-n'} needs the network: -m MODEL")
    if not options.init and given & {"output_file", "overwrite"}:
        parser.error("--output_file and --overwrite go with --init")
    alone = sorted(given & {*OF_SOURCES}) if platform is None and options.model is None else []
    if alone:
        parser.error(f"--{alone[0]} needs the network: -m MODEL")


# -- checking ----------------------------------------------------------------------------------------------------------
def _check(chosen: Chosen | None, options: argparse.Namespace) -> None:
    path = Path(options.input_config)
    config = load_config(path)
    if chosen is None:
        print(f"{path}: no problem found in the file itself; -m MODEL compares it with a network\n")
        print(config_text(config, {}, {}))
        return
    network = open_network(chosen, config, options)
    seen, sample = _checked(network, config, options)
    print(f"{path}: fits {network.path.name}, {network.kind}\n")
    inputs, outputs = ({one.name: one.shape for one in side} for side in (network.inputs, network.outputs))
    integers = {one.name for one in network.outputs if not one.is_float and network.graph is not None}
    print(config_text(config, inputs, outputs, integers))
    if seen:
        print(f"\n{seen_text(seen, sample)}")
    if network.agreement:
        print("", *network.agreement, sep="\n")
    _tell(chosen, network, seen)


def _checked(network: Network, config: InputConfig, options: argparse.Namespace) -> tuple[list[Seen], Sample]:
    """What the scripts returned, if there are any. Raises UserError with all in which the ini does not fit."""
    problems = network.problems(config)
    seen: list[Seen] = []
    sample: Sample = ()
    if options.preprocess is not None and {spec.name for spec in config.inputs} == {one.name for one in network.inputs}:
        scripts, sample = _scripts(options, len(config.inputs))
        seen, faults = look(network.in_its_layouts(config), network, scripts, sample)
        problems += faults
    raise_all(problems, stage=STAGE, file=config.path)
    return seen, sample


def _scripts(options: argparse.Namespace, count: int) -> tuple[list[Once], Sample]:
    scripts = [Once(script.path) for script in load_preprocessors(options.preprocess, count)]
    return scripts, resolve_samples(options.image, count)[0]


def _tell(chosen: Chosen, network: Network, seen: Sequence[Seen]) -> None:
    """Warn of what is no fault of the ini, or not surely one."""
    if network.left_out:
        _log.warning("outputs of the model that the ini leaves out: %s", listing(network.left_out))
    for name, shape in network.assumed.items():
        extents = ",".join(map(str, shape))
        _log.warning(
            "the model leaves the shape of %s open; [%s] is assumed, say another with --input_shapes", name, extents
        )
    for one in seen:
        order = one.measured and one.measured.order
        if order and order != one.spec.training_format:
            told = "the picture's colours come from the script in the order %s, training_input_formats of %s says %s"
            _log.warning(told, order, one.spec.name, one.spec.training_format)
    if network.refusal is not None:
        count = len(network.refusal.problems) if isinstance(network.refusal, Problems) else 1
        told = "the network itself cannot be used yet, for %s: show_model_info.py %s"
        row = chosen.platform
        same = network.path if row is None or row.one_file else f"{row.name} ..., with the options given here"
        _log.warning(told, counted(count, "reason"), same)


# -- drafting ----------------------------------------------------------------------------------------------------------
def _init(chosen: Chosen, options: argparse.Namespace) -> None:
    target = None if options.output_file is None else Path(options.output_file)
    if target is not None and check_output(target).exists() and not options.overwrite:
        remedy = "name another file, or add --overwrite"
        raise UserError("is there already", stage=_PROGRAM, file=target, node="--output_file", remedy=remedy)
    network = open_network(chosen, None, options)
    if network.record is not None and network.graph is None:
        reason = f"holds already what it was made with, as every {network.kind} does"
        remedy = "--init takes the network as it was before: the source model or a float .sim"
        raise UserError(reason, stage=_PROGRAM, file=network.path, remedy=remedy)
    draft = Draft(network.path.name, network.inputs, network.outputs)
    if options.preprocess is not None:
        with redirect_stdout(sys.stderr):  # what scripts print is no part of the ini
            inputs, measured = measure(draft.in_order(), *_scripts(options, len(draft.inputs)))
        draft = replace(draft, inputs=inputs, measured=measured)
    text = draft.text()
    config = parse_input_config(text, target or Path("the drafted ini"))
    if network.graph is None:
        options.skip_simplify = True  # it was tried
    network = open_network(chosen, config, options)
    with redirect_stdout(sys.stderr):
        seen, _ = _checked(network, config, options)
    if target is None:
        print(text, end="")
    else:
        with atomic_output(target) as file:
            file.write_text(text, encoding="utf-8")
        print(f"Configuration at: {target}")
    _tell(chosen, network, seen)


if __name__ == "__main__":
    sys.exit(main())
