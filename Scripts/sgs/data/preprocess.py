"""Preprocess scripts of the user: Python files with `image_preprocess(path, norm=True) -> numpy.ndarray`.

With norm=True a script returns what the float model reads; with norm=False what is fed to fixed and offline models, in
the channel order of the training format.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sgs.config.nearest import did_you_mean
from sgs.data.images import PICTURE_EXTENSIONS
from sgs.data.user_script import UserScript, kind_of
from sgs.errors import UserError
from sgs.numeric.quantise import Array

STAGE = "preprocess"
FUNCTION = "image_preprocess"
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


class Preprocessor(UserScript):
    """A loaded preprocess script."""

    stage = STAGE
    function = FUNCTION
    signature = f"def {FUNCTION}(img_path, norm=True)"
    arguments = "a path and norm="

    def bind(self, signature: inspect.Signature) -> None:
        signature.bind("picture", norm=True)

    def __call__(self, image: str | Path, norm: bool) -> Array:
        """Run the script on a file; the result is C-contiguous, numeric and finite. Raises UserError."""
        if not os.access(image, os.R_OK):
            raise UserError("no such file, or no permission to read it", stage=STAGE, file=image)
        result = self.call(_call(image, norm), str(image), remedy=lambda: _unreadable(Path(image)), norm=norm)
        if not isinstance(result, np.ndarray):
            reason = f"{_call(image, norm)} returned {kind_of(result)}, not a numpy.ndarray"
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


def _call(image: str | Path, norm: bool) -> str:
    return f"{FUNCTION}('{image}', norm={norm})"


def _unreadable(image: Path) -> str | None:
    """A remedy, if the file has the name of a picture and is none."""
    if image.suffix[1:].lower() not in PICTURE_EXTENSIONS:
        return None
    import cv2  # only on the way to an error

    return None if cv2.haveImageReader(str(image)) else f"{image} is not a picture that can be decoded"


def _shape_remedy(got: tuple[int, ...], wanted: tuple[int, ...]) -> str | None:
    if len(wanted) == len(got) == 4 and (got[0], got[2], got[3], got[1]) == wanted:
        return "it returns NCHW where NHWC is needed: transpose to (0, 2, 3, 1)"
    if len(wanted) == len(got) == 4 and (got[0], got[3], got[1], got[2]) == wanted:
        return "it returns NHWC where input_layouts says NCHW: transpose to (0, 3, 1, 2)"
    return None
