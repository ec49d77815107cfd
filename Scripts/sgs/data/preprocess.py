"""Preprocess scripts of the user: Python files with `image_preprocess(path, norm=True) -> numpy.ndarray`.

With norm=True a script returns what the float model reads; with norm=False what is fed to fixed and offline models, in
the channel order of the training format.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, cast

import numpy as np

from sgs.config.nearest import did_you_mean
from sgs.data.images import PICTURE_EXTENSIONS
from sgs.errors import UserError
from sgs.numeric.quantise import Array

STAGE = "preprocess"
FUNCTION = "image_preprocess"
SIGNATURE = f"def {FUNCTION}(img_path, norm=True)"
# Scripts that come with the toolchain and are called by name alone.
METHOD_FOLDER = Path(__file__).resolve().parents[2] / "calibrator" / "preprocess_method"


def load_preprocessors(argument: str, input_count: int) -> list[Preprocessor]:
    """The scripts of `-n`, one for each input: paths of .py files, or names of shipped ones, separated by commas.

    Raises:
        UserError: wrong number, missing file, a script that cannot be loaded or has no usable `image_preprocess`.
    """
    parts = [argument] if Path(argument).is_file() else [part.strip() for part in argument.split(",")]
    if len(parts) != input_count:
        reason = f"{len(parts)} scripts for a model with {input_count} inputs"
        remedy = "one for each input, in input order, separated by commas"
        raise UserError(reason, stage=STAGE, file=argument, remedy=remedy)
    return [Preprocessor(script_path(part)) for part in parts]


def script_path(name: str) -> Path:
    """The file that an item of `-n` means. Raises UserError when there is none."""
    path = Path(name)
    if path.is_file():
        return path
    if path.name == name and (METHOD_FOLDER / name).with_suffix(".py").is_file():
        return (METHOD_FOLDER / name).with_suffix(".py")
    shipped = sorted(file.stem for file in METHOD_FOLDER.glob("[!_]*.py"))
    remedy = did_you_mean(path.stem, shipped) if shipped and path.name == name else "give the path of a .py file"
    reason = "is a folder" if path.is_dir() else "no such preprocess script"
    raise UserError(reason, stage=STAGE, file=name or "-n", remedy=remedy)


class Preprocessor:
    """A loaded script. Pickles as its path, and is loaded again where it is unpickled.

    The script's own folder can be imported from while the script is loaded and while it runs.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self._function = self._load()

    def __reduce__(self) -> tuple[type[Preprocessor], tuple[Path]]:
        return Preprocessor, (self.path,)

    def __repr__(self) -> str:
        return f"Preprocessor({str(self.path)!r})"

    def __call__(self, image: str | Path, norm: bool) -> Array:
        """Run the script on a file; the result is C-contiguous, numeric and finite. Raises UserError."""
        if not os.access(image, os.R_OK):
            raise UserError("no such file, or no permission to read it", stage=STAGE, file=image)
        with _importable(self.path.resolve().parent):
            try:
                result = self._function(str(image), norm=norm)
            except (Exception, SystemExit) as error:
                raise self._raised(error, f"{_call(image, norm)} raised", _unreadable(Path(image))) from error
        if not isinstance(result, np.ndarray):
            reason = f"{_call(image, norm)} returned {_kind(result)}, not a numpy.ndarray"
            raise UserError(reason, stage=STAGE, file=self.path, remedy=_unreadable(Path(image)))
        if result.dtype.kind not in "fiub":
            raise self.wrong(image, norm, f"returned an array of {result.dtype}, not of numbers")
        if result.dtype.kind == "f" and not np.isfinite(result).all():
            count = np.count_nonzero(~np.isfinite(result))
            raise self.wrong(image, norm, f"returned {count} values that are not finite")
        return np.asarray(result, order="C")

    def check(
        self, array: Array, shape: Sequence[int], kinds: str, *, image: str | Path, norm: bool, expected: str = ""
    ) -> Array:
        """The array with a batch axis added where it lacks one.

        Args:
            array: what the script returned for `image`.
            shape: the model's, in the layout of the ini.
            kinds: the numpy dtype kinds allowed ("f", "iu", "fiub" ...); `expected` says it in words.

        Raises:
            UserError: another shape or another kind of numbers, with both.
        """
        shape = tuple(shape)
        if array.ndim + 1 == len(shape) and shape[0] == 1:
            array = array[np.newaxis]
        if array.shape != shape:
            reason = f"returned shape {list(array.shape)}, the model needs {list(shape)}"
            raise self.wrong(image, norm, reason, _shape_remedy(array.shape, shape))
        if array.dtype.kind not in kinds:
            raise self.wrong(image, norm, f"returned {array.dtype}, needed is {expected or kinds}")
        return array

    def wrong(self, image: str | Path, norm: bool, what: str, remedy: str | None = None) -> UserError:
        """An error about what the script returned: "image_preprocess('cat.png', norm=False) <what>"."""
        return UserError(f"{_call(image, norm)} {what}", stage=STAGE, file=self.path, remedy=remedy)

    # -- loading ---------------------------------------------------------------------------------------------------
    def _load(self) -> Callable[..., Any]:
        module = self._execute()
        function = getattr(module, FUNCTION, None)
        if not callable(function):
            defined = [name for name, value in vars(module).items() if inspect.isfunction(value)]
            remedy = f"define {SIGNATURE}" + (f"; it defines {', '.join(defined)}" if defined else "")
            raise UserError(f"has no function {FUNCTION}", stage=STAGE, file=self.path, remedy=remedy)
        try:
            inspect.signature(function).bind("picture", norm=True)
        except TypeError as error:
            reason = f"{FUNCTION} cannot be called with a path and norm=: {error}"
            raise UserError(reason, stage=STAGE, file=self.path, remedy=f"define {SIGNATURE}") from error
        return cast(Callable[..., Any], function)

    def _execute(self) -> ModuleType:
        """Run the script as a module of its own; modules that it imports from its folder stay its own as well."""
        name = "sgs_preprocess_" + hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        loader = _FreshLoader(name, str(self.path))
        spec = importlib.util.spec_from_file_location(name, self.path, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        folder = self.path.resolve().parent
        with _importable(folder):
            before = set(sys.modules)
            sys.modules[name] = module
            try:
                loader.exec_module(module)
            except (Exception, SystemExit) as error:
                sys.modules.pop(name, None)
                raise self._raised(error, "cannot be loaded:", _install(error)) from error
            finally:
                _forget_neighbours(folder, set(sys.modules) - before - {name})
        return module

    def _raised(self, error: BaseException, prefix: str, remedy: str | None) -> UserError:
        """The script's exception as an error that names the innermost line of the script."""
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(self.path)]
        if isinstance(error, SyntaxError) and error.filename == str(self.path):
            lines.append(error.lineno)
        text = " ".join((str(error) if not isinstance(error, SyntaxError) else error.msg).split())
        reason = f"{prefix} {type(error).__name__}" + (f": {text}" if text else "")
        line = f"line {lines[-1]}" if lines else None
        return UserError(reason, stage=STAGE, file=self.path, node=line, remedy=remedy)


class _FreshLoader(importlib.machinery.SourceFileLoader):
    """Compiles the script each time: no __pycache__ beside the user's file, and never a stale one."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:  # the script may have tidied up itself
            sys.path.remove(entry)


def _forget_neighbours(folder: Path, names: set[str]) -> None:
    """Drop modules that came from the folder, so that two scripts may each have their own `letterbox.py`."""
    for name in names:
        module, top = sys.modules[name], folder / name.partition(".")[0]
        file = getattr(module, "__file__", None)
        places = [Path(file)] if file else [Path(place) for place in getattr(module, "__path__", ())]
        if any(place == top.with_suffix(".py") or top in (place, *place.parents) for place in places):
            del sys.modules[name]


def _call(image: str | Path, norm: bool) -> str:
    return f"{FUNCTION}('{image}', norm={norm})"


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__


def _unreadable(image: Path) -> str | None:
    """A remedy, if the file has the name of a picture and is none."""
    if image.suffix[1:].lower() not in PICTURE_EXTENSIONS:
        return None
    import cv2  # only on the way to an error

    return None if cv2.haveImageReader(str(image)) else f"{image} is not a picture that can be decoded"


def _install(error: BaseException) -> str | None:
    missing = isinstance(error, ModuleNotFoundError) and error.name
    return f"install the package that provides {missing}" if missing else None


def _shape_remedy(got: tuple[int, ...], wanted: tuple[int, ...]) -> str | None:
    if len(wanted) == len(got) == 4 and (got[0], got[2], got[3], got[1]) == wanted:
        return "it returns NCHW where NHWC is needed: transpose to (0, 2, 3, 1)"
    if len(wanted) == len(got) == 4 and (got[0], got[3], got[1], got[2]) == wanted:
        return "it returns NHWC where input_layouts says NCHW: transpose to (0, 3, 1, 2)"
    return None
