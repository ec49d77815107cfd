"""One sample → the arrays that float models, and fixed and offline models, are fed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sgs.config.formats import CHANNELS, F32, RAW_TYPES, S16, InputSpec
from sgs.config.input_config import InputConfig
from sgs.data.board import to_board
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.errors import UserError
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType

MEAN_TOLERANCE = 1.0  # grey levels of 0..255, mean over a channel
TAIL_TOLERANCE = 0.02 * 255  # grey levels, 99th percentile of a channel

Shape = Sequence[int]


class Fed(Protocol):
    """An input of a model, such as a Tensor: `shape` is in the layout that the ini asks for."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> DType: ...


def beyond_table(values: Array, entries: int) -> str | None:
    """What is wrong with numbers that pick from so many entries and are not all among them; negative ones count from
    the end."""
    if not values.size or -entries <= values.min() <= values.max() < entries:
        return None
    return f"holds {values.min():g} to {values.max():g}, and the network picks from {entries} entries with it"


def check_indices(name: str, values: Array, entries: int, *, stage: str, file: object) -> None:
    """Raise UserError for numbers beyond the table that they pick from."""
    if reason := beyond_table(values, entries):
        raise UserError(reason, stage=stage, file=file, node=f"input '{name}'", remedy="mend the preprocess script")


def float_inputs(
    config: InputConfig, preprocessors: Sequence[Preprocessor], sample: Sample, inputs: Mapping[str, Fed]
) -> dict[str, Array]:
    """What the float model reads: input name → array in the order of the ini (norm=True), in the shape and type of the
    model's input.

    Scripts return the layout that the ini asks for. Raises UserError, also for values that the type cannot hold.
    """
    result: dict[str, Array] = {}
    for spec, script, image in zip(config.inputs, preprocessors, sample, strict=True):
        fed = inputs[spec.name]
        array = script.check(script(image, True), fed.shape, "fiub", image=image, norm=True)
        if fed.dtype.is_float:
            result[spec.name] = _as_float32(array, script, image)
        else:
            needed = f"whole numbers of {fed.dtype.name.lower()}, which the model reads"
            result[spec.name] = _exactly(array, fed.dtype.numpy, script, image, needed, norm=True)
    return result


def _as_float32(array: Array, script: Preprocessor, image: Path) -> Array:
    with np.errstate(over="ignore"):
        result = np.asarray(array, np.float32, order="C")
    if not np.isfinite(result).all():  # float64 beyond float32
        raise script.wrong(image, True, "returned values that float32 cannot hold")
    return result


def fixed_inputs(
    config: InputConfig, preprocessors: Sequence[Preprocessor], sample: Sample, inputs: Mapping[str, Fed]
) -> dict[str, Array]:
    """What fixed and offline models are fed: input name → array in the order of the ini.

    Pictures are the bytes of `input_formats` (see `board.to_board`), other inputs what `plain_inputs` gives; so are
    the arguments and errors.
    """
    arrays = plain_inputs(config, preprocessors, sample, inputs)
    return {
        spec.name: to_board(spec, arrays[spec.name]) if spec.is_picture else arrays[spec.name] for spec in config.inputs
    }


def plain_inputs(
    config: InputConfig, preprocessors: Sequence[Preprocessor], sample: Sample, inputs: Mapping[str, Fed]
) -> dict[str, Array]:
    """What the scripts give without normalisation: input name → array in the order of the ini (norm=False).

    Pictures are uint8 with the channels of the training format; RAWDATA has the type that its format names.
    Scripts return the layout that the ini asks for.

    Raises:
        UserError: what the script returns is not what the format needs.
    """
    result: dict[str, Array] = {}
    for spec, script, image in zip(config.inputs, preprocessors, sample, strict=True):
        read = _picture if spec.is_picture else _raw
        result[spec.name] = read(spec, script, image, inputs[spec.name].shape)
    return result


def _picture(spec: InputSpec, script: Preprocessor, image: Path, shape: Shape) -> Array:
    """uint8; floats are taken where they hold exact integers 0..255."""
    array = script.check(script(image, False), shape, "fiu", image=image, norm=False, expected="uint8")
    return _exactly(array, np.dtype(np.uint8), script, image, "whole numbers 0..255 for pictures")


def _raw(spec: InputSpec, script: Preprocessor, image: Path, shape: Shape) -> Array:
    dtype = RAW_TYPES[spec.input_format].numpy
    if dtype.kind == "f":
        array = script.check(script(image, False), shape, "f", image=image, norm=False, expected=dtype.name)
        return np.asarray(array, dtype, order="C")
    array = script.check(script(image, False), shape, "iub", image=image, norm=False, expected=dtype.name)
    return _exactly(array, dtype, script, image, f"values of {dtype.name} for {spec.input_format}")


def _exactly(
    array: Array, dtype: np.dtype[Any], script: Preprocessor, image: Path, needed: str, *, norm: bool = False
) -> Array:
    """The array as `dtype`, integer or bool, when that changes no value. Raises UserError."""
    if array.dtype == dtype:
        return np.asarray(array, order="C")
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    # Compared as int64 or float64: where the array's type is narrower, numpy would refuse the limits.
    wide = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
    outside = (wide < low) | (wide > high)
    if outside.any():
        reason = f"returned values {wide.min():g}..{wide.max():g}, needed are {needed}"
        raise script.wrong(image, norm, reason, None if norm else "with norm=False the script must not normalise")
    result = np.asarray(wide.astype(dtype), order="C")
    if (result != wide).any():
        odd = wide[result != wide].flat[0]
        raise script.wrong(image, norm, f"returned {odd:g}, needed are {needed}", "round them and use astype")
    return result


# ---- does the ini say what the script does? --------------------------------------------------------------------------


def normalisation_mismatch(spec: InputSpec, plain: Array, floats: Array) -> str | None:
    """How mean and std of the ini disagree with the script; None where they agree, and for RAWDATA.

    (plain - mean) / std must be `floats`. The difference is measured in grey levels, that is times std. Scripts may
    resize in float for one and in uint8 for the other, which rounds (half a level) and clips (a few pixels, by more);
    so up to 1 level in the mean over a channel and 5.1 levels (2 % of the range) at the 99th percentile are let pass.

    Args:
        plain: uint8 as `plain_inputs` gives it, rank 4 in the spec's layout.
        floats: the same picture as `float_inputs` gives it.

    Returns:
        A sentence for each channel at fault, with the numbers, and the mean and std that the script seems to use.
    """
    if not spec.is_picture:
        return None
    if plain.shape != floats.shape:
        return f"norm=False gives shape {list(plain.shape)}, norm=True {list(floats.shape)}"
    order = CHANNELS[spec.training_format]
    pixels = np.moveaxis(plain, spec.channel_axis, -1).reshape(-1, len(order)).astype(np.float64)
    values = np.moveaxis(floats, spec.channel_axis, -1).reshape(-1, len(order)).astype(np.float64)
    mean, std = (spec.in_order(numbers, spec.training_format) for numbers in (spec.mean, spec.std))
    faults = [
        _channel_fault(_channel_name(spec, index), pixels[:, i], values[:, i], mean[i], std[i])
        for i, index in enumerate(order)
        if not _agrees(pixels[:, i], values[:, i], mean[i], std[i])
    ]
    if not faults:
        return None
    hint = ""
    reverse = range(len(order) - 1, -1, -1)
    if len(order) == 3 and all(_agrees(pixels[:, i], values[:, i], mean[j], std[j]) for i, j in enumerate(reverse)):
        hint = "; they agree with R and B exchanged: mean and std_value are in the order R:G:B"
    elif len(order) == 3 and all(_agrees(pixels[:, j], values[:, i], mean[i], std[i]) for i, j in enumerate(reverse)):
        hint = f"; they agree with one turned round: with norm=True and norm=False the order is {spec.training_format}"
    return "; ".join(faults) + hint


def number_mismatch(spec: InputSpec, fixed: Array, floats: Array) -> str | None:
    """How what a script returns for the two kinds of models differs, of inputs where it has to be the same numbers:
    RAWDATA_U8, and integers that the network itself reads; None where it is, and for all others.

    `fixed` and `floats` are as `fixed_inputs` and `float_inputs` give them.
    """
    if spec.is_picture or spec.input_format == F32:
        return None
    if spec.input_format == S16 and floats.dtype.kind == "f":  # codes
        return None
    if fixed.shape != floats.shape:
        return f"norm=False gives shape {list(fixed.shape)}, norm=True {list(floats.shape)}"
    apart = fixed.astype(np.float64) != floats.astype(np.float64)
    if not apart.any():
        return None
    return f"norm=False gives {fixed[apart].flat[0]:g} where norm=True gives {floats[apart].flat[0]:g}"


def _agrees(pixels: Array, values: Array, mean: float, std: float) -> bool:
    """Whether one channel's values are (pixels - mean) / std, within the tolerances. All are float64 [pixels]."""
    levels = np.abs((pixels - mean) / std - values) * std
    return bool(levels.mean() <= MEAN_TOLERANCE and np.percentile(levels, 99) <= TAIL_TOLERANCE)


def _channel_name(spec: InputSpec, index: int) -> str:
    return "gray" if spec.channels == 1 else "RGB"[index]


def _channel_fault(name: str, pixels: Array, values: Array, mean: float, std: float) -> str:
    expected = (pixels - mean) / std
    worst = int(np.abs(expected - values).argmax())
    text = (
        f"channel {name}: (pixel - mean {mean:g}) / std {std:g} is {expected[worst]:.4g} for pixel {pixels[worst]:g}, "
        f"the script gives {values[worst]:.4g}"
    )
    # Least squares of values = slope * pixel + offset, where mean = -offset / slope and std = 1 / slope.
    centred = pixels - pixels.mean()
    slope = float(centred @ values / (centred @ centred)) if centred.any() else 0.0
    if slope > 0:
        offset = float(values.mean() - slope * pixels.mean())
        text += f" and seems to use mean {-offset / slope:.4g}, std {1 / slope:.4g}"
    return text
