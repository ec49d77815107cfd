"""Pictures, preprocess scripts and names of files, for scripts around the models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from sgs.cli.names import DEFAULT_FLOAT, fixed_path, float_path, image_path
from sgs.config.formats import CHANNELS, InputSpec
from sgs.data.board import to_board
from sgs.data.images import resolve_samples
from sgs.data.preprocess import Preprocessor, script_path
from sgs.numeric.quantise import Array
from sgs.python_api.checks import AnyPath, path_of, told, value_errors
from sgs.quant.parameters import parse_parameters


class PreprocessFunction(Protocol):
    """File → array: with `norm` what a float model reads, without it what is fed to fixed and offline models."""

    def __call__(self, image: AnyPath, norm: bool = True) -> Array: ...


def image_preprocess_func(script: AnyPath) -> PreprocessFunction:
    """The `image_preprocess` of a Python file, or of a shipped script that is named without a folder.

    Raises ValueError for a script that is missing or cannot be used, and, when called, for a picture that cannot be
    read or an array that no model takes.
    """
    with value_errors():
        preprocessor = Preprocessor(script_path(str(path_of(script, "image_preprocess_func"))))

    def preprocess(image: AnyPath, norm: bool = True) -> Array:
        with value_errors():
            return preprocessor(path_of(image, "image"), norm)

    return preprocess


def image_generator(
    images: Iterable[AnyPath | Sequence[AnyPath]],
    functions: PreprocessFunction | Sequence[PreprocessFunction],
    norm: bool = True,
) -> Iterator[list[Array]]:
    """Samples for `SIM_Calibrator.convert` and `SIM_Simulator`: a list of arrays each, in the order of the functions.

    Args:
        images: per sample a path, or as many paths as there are functions.
        functions: one an input.
        norm: as for the functions.

    Raises:
        ValueError: no list of paths, no functions, or a sample with another number of paths.
    """
    every = [functions] if callable(functions) else functions
    if not isinstance(every, (list, tuple)) or not every or not all(map(callable, every)):
        expected = "a function of image_preprocess_func, or a list with one for each input"
        raise ValueError(f"image_generator: expected {expected}, got {told(functions)}")
    if isinstance(images, (str, bytes)) or not isinstance(images, Iterable):
        raise ValueError(f"image_generator: expected a list of paths, got {told(images)}")

    def generate() -> Iterator[list[Array]]:
        for number, sample in enumerate(images):
            paths: list[Any] = list(sample) if isinstance(sample, (list, tuple)) else [sample]
            if len(paths) != len(every):
                raise ValueError(f"sample {number}: expected {len(every)} paths, got {len(paths)}")
            yield [function(path, norm=norm) for function, path in zip(every, paths, strict=True)]

    return generate()


def all_path(folder: AnyPath) -> list[str]:
    """The pictures and other data below a folder, sorted. Raises ValueError for an empty one, or none."""
    path = path_of(folder, "all_path")
    if not path.is_dir():
        raise ValueError(f"all_path: expected a folder, got {str(path)!r}")
    with value_errors():
        return [str(file) for (file,) in resolve_samples(path, 1)]


def convert_to_input_formats(img: Array, detail: dict[str, Any]) -> Array:
    """What `set_input` takes for what a preprocess script returns with norm=False.

    Args:
        img: of a picture: its pixels, uint8, channels as in training, in the layout of the detail, with or without the
            axis of frames. Of RAWDATA, and for a float model: the data itself.
        detail: an entry of `get_input_details()`, which says under `picture_shape`, else `shape`, how large it must be.

    Returns:
        A contiguous array: for a picture the bytes of `input_formats`, aligned.

    Raises:
        ValueError: another shape or dtype than the detail asks for, with both; `detail` is no such entry.
    """
    if not isinstance(detail, dict) or not {"name", "dtype", "shape"} <= detail.keys():
        raise ValueError(f"detail: expected an entry of get_input_details(), got {told(detail)}")
    name, wanted = detail["name"], np.dtype(detail["dtype"])
    shape = tuple(int(extent) for extent in detail["picture_shape" if "picture_shape" in detail else "shape"])
    if not isinstance(img, np.ndarray) or img.dtype != wanted:
        got = img.dtype if isinstance(img, np.ndarray) else type(img).__name__
        raise ValueError(f"input '{name}': expected a numpy.ndarray of {wanted}, got {got}")
    if img.ndim + 1 == len(shape) and shape[0] == 1:
        img = img[np.newaxis]
    trained, picture = detail.get("training_input_formats"), ""
    if trained in CHANNELS:
        picture = f"a {trained} picture [{detail['layouts']}] of "
    if img.shape != shape:
        raise ValueError(f"input '{name}': expected {picture}shape {list(shape)}, got {list(img.shape)}")
    if not picture:
        return np.asarray(img, order="C")
    spec = InputSpec(
        name,
        detail["training_input_formats"],
        detail["input_formats"],
        width_alignment=detail["input_width_alignment"],
        height_alignment=detail["input_height_alignment"],
        layout=detail["layouts"],
    )
    return to_board(spec, img)


_NAMES: dict[str, Callable[[Any, Any], Any]] = {
    "Float": lambda model, output: model.with_name(DEFAULT_FLOAT) if output is None else float_path(output),
    "Fixed": fixed_path,
    "Offline": image_path,
}


def get_out_model_name(model_path: AnyPath, output: AnyPath | None = None, phase: str = "Fixed") -> str:
    """The file that a tool writes for a model file: the name that its phase (Float, Fixed, Offline) gives it, beside
    the model or in the folder `output`, or the file `output`.

    Raises ValueError for an unknown phase and a name with another ending.
    """
    if phase not in _NAMES:
        raise ValueError(f"phase: expected {', '.join(_NAMES)}, got {phase!r}")
    target = None if output is None else str(path_of(output, "output"))
    with value_errors():
        return str(_NAMES[phase](path_of(model_path, "model_path"), target))


def check_quant_param(parameters: list[dict[str, Any]]) -> None:
    """Check quantisation parameters, a list of {"name", "min", "max", "bit"[, "data"]}, before they are imported.

    What can be wrong whatever the network is: keys, types, lengths that differ, min above max, bits, entries that are
    there twice. Raises ValueError listing it all.
    """
    with value_errors():
        parse_parameters(parameters)
