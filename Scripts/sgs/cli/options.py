"""Options that several programs share, and how their values are read."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sgs.cli.program import Parser
from sgs.config.formats import F32
from sgs.config.input_config import InputConfig
from sgs.config.quant_config import MODE_NAMES
from sgs.errors import UserError
from sgs.frontends.onnx_surgery import Endpoint, Surgery
from sgs.frontends.platforms import PLATFORMS, Option, Platform, platform_named
from sgs.img.image import CATEGORIES
from sgs.modes import BATCH
from sgs.quant.levels import LEVELS


# -- values ------------------------------------------------------------------------------------------------------------
def shapes(text: str) -> list[list[int]]:
    """`1,3,224,224:1,10` → [[1, 3, 224, 224], [1, 10]]."""
    try:
        result = [[int(extent) for extent in shape.split(",")] for shape in text.split(":")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not like 1,3,224,224 or 1,3,224,224:1,10") from None
    if any(extent < 1 for shape in result for extent in shape):
        raise argparse.ArgumentTypeError(f"'{text}' has an extent below 1")
    return result


def names(text: str) -> tuple[str, ...]:
    """`a,b` → ("a", "b")."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def endpoints(text: str) -> tuple[Endpoint, ...]:
    """`a[1,3,416,416],b` → the tensor a with a shape, and the tensor b."""
    found = []
    for part in re.split(r",(?![^\[]*\])", text):
        match = re.fullmatch(r"(.+?)(?:\[([\d,\s]*)\])?", part.strip())
        if match is None:
            raise argparse.ArgumentTypeError(f"'{text}' is not like name,name or name[1,3,224,224],name[1,10]")
        name, extents = match.groups()
        shape = None if extents is None else tuple(shapes(extents)[0]) if extents.strip() else ()
        found.append(Endpoint(name, shape))
    names = [end.name for end in found]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise argparse.ArgumentTypeError(f"'{twice[0]}' is named twice")
    return tuple(found)


def extent_of(text: str) -> tuple[str, int]:
    """`name:4` → ("name", 4)."""
    name, _, extent = text.rpartition(":")
    if not (name and extent.isascii() and extent.isdigit() and int(extent) > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is not like name:4, with a number above 0")
    return name, int(extent)


def layouts(text: str) -> dict[str, str]:
    """`a:NHWC,b:NCHW` → {"a": "NHWC", "b": "NCHW"}."""
    found = {}
    for part in text.split(","):
        name, _, layout = part.strip().rpartition(":")
        if not name or layout.upper() not in ("NHWC", "NCHW"):
            raise argparse.ArgumentTypeError(f"'{part}' is not like name:NHWC or name:NCHW")
        found[name] = layout.upper()
    return found


def batches(text: str) -> tuple[int, ...]:
    """`4` or `1,2,4`."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number, nor a list of numbers like 1,2,4") from None


def count(text: str) -> int:
    """A whole number above 0."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = threshold(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 1")
    return value


def threshold(text: str) -> float:
    """A number from 0 on."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 on")
    return value


def boolean(text: str) -> bool:
    """True or False, in any case."""
    return one_of(("True", "False"))(text) == "True"


def one_of(known: Sequence[str]) -> Callable[[str], str]:
    """A reader that takes one of the words in any case."""

    def read(text: str) -> str:
        for word in known:
            if word.casefold() == text.casefold():
                return word
        raise argparse.ArgumentTypeError(f"'{text}' is not one of {', '.join(known)}")

    return read


# -- groups of options -------------------------------------------------------------------------------------------------
def add_common(parser: Parser, *, chip_required: bool = True) -> None:
    """--soc_version, --show_log and -v."""
    text = "chip to work for; DumpDebug/show_sdk_info.py lists them"
    parser.add_argument("--soc_version", metavar="CHIP", required=chip_required, help=text)
    parser.add_argument("--show_log", action="store_true", help="tell on stderr what is being done")
    text = "as --show_log; twice, or beside it: every detail"
    parser.add_argument("-v", "--verbose", action="count", default=0, help=text)


def add_source(parser: Parser, platform: Platform) -> None:
    """What is converted: the options of a platform, and those of all."""
    add_model(parser, platform)
    parser.add_argument("--input_config", metavar="INI", required=True, help="the model's input_config.ini")
    if platform.onnx:
        simplify = parser.add_mutually_exclusive_group()
        text = "simplify the network with onnxsim in any case (default: where it cannot be converted otherwise)"
        simplify.add_argument("--onnxsim", action="store_true", help=text)
        simplify.add_argument("--skip_simplify", action="store_true", help="never try onnxsim")
    for side in ("input", "output"):
        text = f"names of the {side}s, which must be those of the ini; may be left out"
        parser.add_argument(f"--{side}_arrays", metavar="NAMES", help=text)
    add_quant_file(parser)
    text = "script that puts a post-processing network behind the model, or the name of one in Scripts/postprocess"
    parser.add_argument("--postprocess", metavar="PY", help=text)
    text = "the ini of the model with its post-processing: that of --input_config with the outputs of the script"
    parser.add_argument("--postprocess_input_config", metavar="INI", help=text)


def add_model(parser: Parser, platform: Platform) -> None:
    """The options of a platform, and those that say what of its model is meant, and how."""
    for option in platform.options:
        _add_option(parser, option)
    add_source_facts(parser, free_dims=platform.has_free_dims, shapes_required=platform.shapes_required)


_READERS: dict[str, Callable[[str], Any]] = {
    "file": Path,
    "folder": Path,
    "names": names,
    "number": count,
    "boolean": boolean,
    "text": str,
}
_METAVARS = {
    "file": "FILE",
    "folder": "DIR",
    "names": "A,B,...",
    "number": "N",
    "boolean": "True|False",
    "text": "TEXT",
}


def _add_option(parser: Parser, option: Option) -> None:
    """An option of a platform."""
    flags = [f"--{option.name}", *option.aliases]
    if option.kind == "flag":
        parser.add_argument(*flags, dest=option.name, action="store_true", help=option.help)
        return
    parser.add_argument(
        *flags,
        dest=option.name,
        metavar=option.metavar or _METAVARS[option.kind],
        type=_READERS[option.kind],
        required=option.required,
        help=option.help,
    )


def source_values(options: argparse.Namespace, platform: Platform) -> dict[str, Any]:
    """What the options of the platform say, for `pipelines.convert`."""
    return {option.name: getattr(options, option.name) for option in platform.options}


def add_source_facts(parser: Parser, *, free_dims: bool = True, shapes_required: bool = False) -> None:
    """--input_shapes, --source_layouts, and those of `add_surgery`: what of a source model is meant, and how."""
    text = (
        "shapes of the inputs, in the order of the ini and the model's layout, like 1,3,224,224:1,10; for dynamic ones"
    )
    parser.add_argument("--input_shapes", metavar="SHAPES", type=shapes, required=shapes_required, help=text)
    add_surgery(parser, free_dims=free_dims)
    text = "layout of rank-4 inputs and outputs of the model, like images:NHWC,y:NCHW (default: as its operators say)"
    parser.add_argument("--source_layouts", metavar="NAME:LAYOUT,...", type=layouts, default={}, help=text)


def add_surgery(parser: Parser, *, free_dims: bool = True) -> None:
    """--inputs, --outputs, and with `free_dims` -f and -F."""
    text = "where the network begins: its inputs or inner tensors, with shapes or without, like a[1,3,416,416],b[1,2]"
    parser.add_argument("--inputs", metavar="NAME[SHAPE],...", type=endpoints, default=(), help=text)
    text = "where the network ends: its outputs or inner tensors, like x,y; shapes are checked"
    parser.add_argument("--outputs", metavar="NAME[SHAPE],...", type=endpoints, default=(), help=text)
    if free_dims:
        add_free_dims(parser)


def add_free_dims(parser: Parser) -> None:
    """-f and -F."""
    for short, kind, what in (("-f", "param", "symbol"), ("-F", "denotation", "denotation")):
        text = f"extents of the inputs' dimensions that have none, by their {what}"
        parser.add_argument(
            short,
            f"--free_dim_{kind}",
            metavar="NAME:N",
            type=extent_of,
            nargs="+",
            action="extend",
            default=[],
            help=text,
        )


def surgery_of(options: argparse.Namespace) -> Surgery:
    """What the options of `add_surgery` ask for. Raises UserError for a dimension that is named twice."""
    dims: list[dict[str, int]] = []
    for kind in ("param", "denotation"):
        pairs = getattr(options, f"free_dim_{kind}", [])
        found = dict(pairs)
        for name, extent in pairs:
            if found[name] != extent:
                raise UserError(f"--free_dim_{kind} gives '{name}' both {extent} and {found[name]}", stage="arguments")
        dims.append(found)
    return Surgery(getattr(options, "inputs", ()), getattr(options, "outputs", ()), *dims)


def add_quant_file(parser: Parser) -> None:
    """--quant_file."""
    text = "quantisation parameters to follow, JSON or Pickle; what they leave open is decided as at L1"
    parser.add_argument("--quant_file", metavar="FILE", help=text)


def add_sample_files(parser: Parser, *, purpose: str, required: bool = True) -> None:
    """-i and -n."""
    text = f"{purpose}: a file, a folder, a list file with one sample a line, or PREFIX:LIST"
    parser.add_argument("-i", "--image", metavar="PATH", required=required, help=text)
    text = "Python files with image_preprocess(path, norm=True), one for each input, separated by commas"
    parser.add_argument("-n", "--preprocess", metavar="PY", required=required, help=text)


def add_samples(parser: Parser, *, purpose: str, required: bool = True) -> None:
    """-i, -n, and --num_process or --scheduler."""
    add_sample_files(parser, purpose=purpose, required=required)
    places = parser.add_mutually_exclusive_group()
    text = "processes at most; never more than processors, nor than it is worth (default: 10)"
    # argparse takes a default that is text for another value than the one given: 10 beside --scheduler is noticed
    places.add_argument("--num_process", metavar="N", type=count, default="10", help=text)
    text = "look at the samples on a Dask cluster, like tcp://192.168.1.5:8786, in place of processes of this machine"
    places.add_argument("--scheduler", metavar="ADDRESS", help=text)


LEVEL_OPTIONS = ("quant_level", "sensitivity_threshold", "max_int16_macs")  # those of add_level


def add_level(parser: Parser) -> None:
    """--quant_level, -sth and --max_int16_macs: how ranges and precisions are chosen. None where they are not given."""
    text = f"{LEVELS[0]} (quick) to {LEVELS[-1]} (accurate, the default)"
    parser.add_argument("--quant_level", metavar="LEVEL", type=one_of(LEVELS), help=text)
    text = (
        "from L4 on: loss of cosine similarity tolerated before convolutions go to 16 bit (default: 0.002; less at L5)"
    )
    parser.add_argument("-sth", "--sensitivity_threshold", metavar="X", type=threshold, help=text)
    text = (
        "from L4 on: largest share of multiply-accumulates that may go to 16 bit (default: 0.25; at L5, without -sth, "
        "as much more as a detector's boxes need)"
    )
    parser.add_argument("--max_int16_macs", metavar="SHARE", type=share, help=text)


def add_mode(parser: Parser, *, required: bool) -> None:
    """-q, --quant_config and --cal_batchsize: the modes of torch_calibrator. None where they are not given."""
    text = f"one of {', '.join(MODE_NAMES)} in any case; docs/TORCH_CALIBRATOR.md says what they do"
    if not required:
        text += "; in place of --quant_level"
    parser.add_argument("-q", "--q_mode", metavar="MODE", type=one_of(MODE_NAMES), required=required, help=text)
    text = "quant_config.yaml: the settings of the mode"
    parser.add_argument("--quant_config", metavar="YAML", required=required, help=text)
    text = f"samples that the retraining of Q20 to Q23 looks at together, which take memory (default: {BATCH})"
    parser.add_argument("--cal_batchsize", metavar="N", type=count, help=text)


def add_gathering(parser: Parser) -> None:
    """--memory_saving, --statistics and --resume: how samples are looked at."""
    text = "look at one sample at a time in one process (in each of a cluster's), and keep fewer for comparing plans"
    parser.add_argument("--memory_saving", action="store_true", help=text)
    text = "statistics of the activations: read if the file is there (nothing is measured then), else written"
    parser.add_argument("--statistics", metavar="NPZ", help=text)
    text = "go on where an interrupted run stopped, from the <output>_partial.npz that it left"
    parser.add_argument("--resume", action="store_true", help=text)


def add_batches(parser: Parser) -> None:
    """-b, --batch_mode and --inplace_input_buf."""
    text = "n_buf: the largest number of frames; one_buf: up to 10 numbers, separated by commas (default: 1)"
    parser.add_argument("-b", "--batch", metavar="N", type=batches, default=(1,), help=text)
    text = "n_buf: every frame has its own buffers; one_buf: frames are stacked in one buffer (default: n_buf)"
    parser.add_argument("--batch_mode", choices=("n_buf", "one_buf"), default="n_buf", help=text)
    text = f"one_buf with {F32} inputs: the network may overwrite them (True or False, the default)"
    parser.add_argument("--inplace_input_buf", metavar="BOOL", type=boolean, default=False, help=text)


def add_report(parser: Parser, *, page: str = "a page for the browser") -> None:
    """--report. `page` says what the page is about, where it tells more."""
    text = (
        f"also write what the image will cost per layer, as JSON, CSV, {page} and a trace for Perfetto: "
        "in a folder, or under a name (default: <image>_report.* beside the .img)"
    )
    parser.add_argument("--report", metavar="PATH", nargs="?", const="", help=text)


def add_category(parser: Parser, *, default: str | None, purpose: str) -> None:
    """-c."""
    text = f"{', '.join(CATEGORIES)}: {purpose}"
    parser.add_argument("-c", "--category", metavar="KIND", type=one_of(CATEGORIES), default=default, help=text)


# -- behaviour that goes with them -------------------------------------------------------------------------------------
def start_log(options: argparse.Namespace) -> None:
    """Log to stderr: warnings, with --show_log or -v what is being done, with both or -vv every detail of that."""
    amount = options.show_log + options.verbose
    level = logging.INFO if amount else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(message)s", force=True)
    logging.getLogger("sgs").setLevel(logging.DEBUG if amount > 1 else logging.NOTSET)
    for level in (logging.WARNING, logging.INFO, logging.DEBUG):
        logging.addLevelName(level, logging.getLevelName(level).lower())
    logging.getLogger().handlers[0].setFormatter(logging.Formatter("%(levelname)s: %(message)s"))


def check_arrays(config: InputConfig, names: Sequence[str], side: str, option: str) -> None:
    """Raise UserError where an option names other inputs or outputs (`side`) than the ini."""
    listed = [spec.name for spec in (config.inputs if side == "input" else config.outputs)]
    if names and set(names) != set(listed):
        reason = f"{option} names {','.join(names)}, [{side.upper()}_CONFIG] {side}s names {','.join(listed)}"
        remedy = f"names come from the ini: correct one of the two, or leave {option} out"
        raise UserError(reason, stage="input_config", file=config.path, remedy=remedy)


def platforms_of(parser: Parser) -> dict[str, Parser]:
    """Make a platform the first argument of a program; returns the parser of each."""
    subparsers = parser.add_subparsers(dest="platform", metavar="PLATFORM", required=True)
    rows = [platform_named(name, stage=parser.prog) for name in PLATFORMS]
    return {
        row.name: subparsers.add_parser(row.name, help=f"{row.kind}s", description=parser.description) for row in rows
    }


def platform_first(argv: Sequence[str], *, stage: str) -> tuple[Platform | None, list[str]]:
    """(the platform that the first argument names, the others), for programs that can do without one."""
    if argv and argv[0] in PLATFORMS:
        return platform_named(argv[0], stage=stage), list(argv[1:])
    return None, list(argv)


def parsed(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    """The options of a program of `platforms_of`. Raises UserError for a platform that is not available, too."""
    if argv and not argv[0].startswith("-"):
        platform_named(argv[0], stage=parser.prog)
    return parser.parse_args(argv)
