"""The platforms that source models come from, and what each of them has to be told.

A platform says in data which options it has; the command line and the Python API are both made from that. Its `load`
gives a model in memory: an ONNX model, or one whose nodes are the operators of a TFLite file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import sgs
from sgs.config.nearest import did_you_mean
from sgs.errors import UserError
from sgs.frontends.onnx_model import Shape, SourceModel
from sgs.frontends.onnx_surgery import NO_SURGERY, Surgery

OptionKind = Literal["file", "folder", "text", "names", "number", "boolean", "flag"]


@dataclass(frozen=True)
class Option:
    """An option of a platform: `name` as in the API, --name on the command line, of which `aliases` are other spellings
    ("-m", "--graphdef").

    kind: "file" or "folder", a path that is read (a Path); "text" (str); "names", a list separated by commas (tuple of
    str); "number", a whole number above 0 (int); "boolean", True or False (bool); "flag", without a value (bool).
    Options that are not given are None, flags False.
    """

    name: str
    help: str
    kind: OptionKind = "text"
    required: bool = False
    metavar: str | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What a frontend is told beside its own options: the names of the ini in its order, which are those of the part of
    the network that is meant, and the shapes of the inputs in that order, in the framework's layout; None: those of the
    model. Without an ini, to look at a model, the names are None, too. `surgery`: the part of the network that is
    meant, where it is not all of it."""

    inputs: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None
    shapes: tuple[Shape, ...] | None = None
    surgery: Surgery = NO_SURGERY


Load = Callable[[Mapping[str, Any], Asked], SourceModel]


@dataclass(frozen=True)
class Platform:
    """One platform; `kind` is what a model of it is called, such as "ONNX model".

    `load(values, asked)` reads the model, which is then imported. `values` has every option by its name. `onnx`: its
    nodes are operators of ONNX, so that onnxsim can take it. `takes_shapes`: `load` gives a model of the shapes that
    are asked for, in whatever layout; else the importer gives the model those shapes. `takes_surgery`: likewise, of the
    part of the network that is asked for. `shapes_required`: `load` cannot do without shapes. `suffixes`: of files that
    are told to be of this platform by them, like ".tflite".
    """

    name: str
    kind: str
    options: tuple[Option, ...]
    load: Load
    onnx: bool = True
    takes_shapes: bool = False
    takes_surgery: bool = False
    shapes_required: bool = False
    suffixes: tuple[str, ...] = ()

    @property
    def one_file(self) -> bool:
        """Whether --model_file is all that it has to be told."""
        return [option.name for option in self.options if option.required] == ["model_file"]

    @property
    def has_free_dims(self) -> bool:
        """Whether dimensions of what `load` gives may still be free, and have names, by which extents are given: those
        of TFLite have none."""
        return self.onnx and not (self.takes_shapes or self.takes_surgery)

    def complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values with those of the options that are not given."""
        return {option.name: False if option.kind == "flag" else None for option in self.options} | dict(values)

    def files(self, values: Mapping[str, Any]) -> list[Path]:
        """The files and folders that `load` reads."""
        paths = [values.get(option.name) for option in self.options if option.kind in ("file", "folder")]
        return [path for path in paths if isinstance(path, Path)]


# platform → module of sgs.frontends that has it as a Platform of the same name in capitals
_HOMES: Mapping[str, str] = {
    "onnx": "onnx_platform",
    "caffe": "caffe.platform",
    "tflite": "tflite.platform",
    "tensorflow_graphdef": "tensorflow.platform",
    "tensorflow_savemodel": "tensorflow.platform",
    "keras": "tensorflow.platform",
    "paddle": "paddle",
    "pytorch": "pytorch.platform",
}
PLATFORMS: Sequence[str] = tuple(_HOMES)


def platform_named(name: str, *, stage: str) -> Platform:
    """The platform of a name. Raises UserError for one that there is not."""
    if name not in PLATFORMS:
        guess = did_you_mean(name, PLATFORMS)
        raise UserError(f"there is no platform '{name}'", stage=stage, remedy=guess)
    found = getattr(import_module(f"sgs.frontends.{_HOMES[name]}"), name.upper())
    assert isinstance(found, Platform)
    return found


def platform_of(path: Path, *, stage: str) -> Platform | None:
    """The platform that files with the suffix of `path` are of, None where there is none.

    Raises UserError for one that has to be told more than the file. `stage`: the program.
    """
    for name in PLATFORMS:
        row = platform_named(name, stage=stage)
        if path.suffix.lower() in row.suffixes:
            if not row.one_file:
                needed = " ... ".join(f"--{option.name}" for option in row.options if option.required)
                remedy = f"name the platform first: {stage} {name} {needed} ..."
                raise UserError(f"is of the platform {name}", stage=stage, file=path, remedy=remedy)
            return row
    return None


def file_suffixes() -> list[str]:
    """Of the files that are a whole model, of whatever platform."""
    rows = [platform_named(name, stage="platforms") for name in PLATFORMS]
    return [suffix for row in rows if row.one_file for suffix in row.suffixes]


def file_option(suffix: str) -> Option:
    """--model_file, the one file of most platforms."""
    return Option("model_file", f"the {suffix} file", "file", required=True, metavar="FILE")


def require_packages(names: Iterable[str], extra: str, more: str = "", *, stage: str = "convert") -> None:
    """Raise UserError for a package that not all need and that is not installed; `more`: of the remedy."""
    for name in names:
        if find_spec(name) is None:
            raise missing_extra(name, extra, more, stage=stage)


def missing_extra(name: str, extra: str, more: str = "", *, stage: str = "convert") -> UserError:
    """The error for a package that is not installed."""
    reason = f"the Python package {name} is not installed"
    return UserError(reason, stage=stage, remedy=f"{extra_install(extra)}{more}")


def extra_install(extra: str) -> str:
    """The command that installs an extra: of the source tree that runs, if it is one."""
    root = Path(sgs.__file__).resolve().parents[2]
    if (root / "pyproject.toml").is_file():
        return f"pip install -e '{root}[{extra}]'"
    return f"pip install 'open-ipu-toolchain[{extra}]'"


def model_path(values: Mapping[str, Any]) -> Path:
    """The model file among the values of the options."""
    path = values["model_file"]
    assert isinstance(path, Path)
    return path
