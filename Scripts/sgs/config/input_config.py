"""input_config.ini: which inputs and outputs a model has, what is fed to them, and how convolutions are quantised.

`read_input_config` reads the file strictly and reports all of its problems at once. Every key is a row of `KEYS`: the
function that reads one of its comma-separated items. What spans several keys is checked when the specs are built.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgs.config import ini
from sgs.config.nearest import did_you_mean, listing
from sgs.errors import UserError, raise_all

STAGE = "input_config"
INPUT, OUTPUT, CONV = "INPUT_CONFIG", "OUTPUT_CONFIG", "CONV_CONFIG"
NAME_LIST_LENGTH = 2048  # characters of one list of names

Shape = Sequence[int]


# ---- formats ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InputFormat:
    """A row of the table of input formats.

    `trained_as`: the training formats that it can stand for. `channels`: of a picture of pixels, what its first
    channels are, as indices into mean and std. `alignment`: default of width and height; `aligned`: which of them may
    have another one. `executed`: whether the toolchain runs it yet, or only reads it.
    """

    trained_as: tuple[str, ...]
    channels: tuple[int, ...] = ()
    alignment: tuple[int, int] = (1, 1)
    aligned: tuple[bool, bool] = (False, False)
    executed: bool = True
    layouts: tuple[str, ...] = ("NHWC", "NCHW")


COLOUR, PICTURE, NV12 = ("RGB", "BGR"), ("RGB", "BGR", "GRAY"), "YUV_NV12"
INPUT_FORMATS: dict[str, InputFormat] = {
    "RGB": InputFormat(COLOUR, (0, 1, 2)),
    "BGR": InputFormat(COLOUR, (2, 1, 0)),
    "RGBA": InputFormat(COLOUR, (0, 1, 2), aligned=(True, False), layouts=("NHWC",)),
    "BGRA": InputFormat(COLOUR, (2, 1, 0), aligned=(True, False), layouts=("NHWC",)),
    NV12: InputFormat(PICTURE, alignment=(2, 2), aligned=(True, True)),
    "GRAY": InputFormat(("GRAY",), (0,), aligned=(True, True)),
    "RAWDATA_U8_NHWC": InputFormat(("RAWDATA_U8_NHWC",), executed=False),
    "RAWDATA_S16_NHWC": InputFormat(("RAWDATA_S16_NHWC",)),
    "RAWDATA_U16_NHWC": InputFormat(("RAWDATA_U16_NHWC",), executed=False),
    "RAWDATA_F32_NHWC": InputFormat(("RAWDATA_F32_NHWC",)),
}
# Training format → its channels in order, as indices into mean and std, which are always in the order R, G, B.
CHANNELS: dict[str, tuple[int, ...]] = {name: INPUT_FORMATS[name].channels for name in PICTURE}
TRAINING_FORMATS = (*CHANNELS, *(name for name in INPUT_FORMATS if name.startswith("RAWDATA")))
OUTPUT_FORMATS: dict[str, bool] = {  # format → executed by the toolchain
    "RAWDATA_F32_NHWC": True,
    "RAWDATA_S16_NHWC": True,
    "RAWDATA_U8_NHWC": False,
}
LAYOUTS = ("NHWC", "NCHW")
CONV_FORMATS = ("ALL_UINT8", "ALL_INT16", "CONV2D_INT16", "DEPTHWISE_INT16")


# ---- the model of the file -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InputSpec:
    """One input. `mean` and `std` are in the order R, G, B (GRAY: one value, RAWDATA: none), in units of 0..255."""

    name: str
    training_format: str
    input_format: str
    quantize: bool = True
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    width_alignment: int = 1
    height_alignment: int = 1
    layout: str = "NHWC"

    @property
    def is_picture(self) -> bool:
        return self.training_format in CHANNELS

    @property
    def channels(self) -> int:
        """Channels of the model's input; 0 for RAWDATA, where any number is right."""
        return len(CHANNELS.get(self.training_format, ()))

    @property
    def channel_axis(self) -> int:
        """The axis of a rank-4 array that holds the channels, in this input's layout."""
        return 1 if self.layout == "NCHW" else 3

    def in_order(self, values: Sequence[float], picture_format: str) -> tuple[float, ...]:
        """`mean` or `std` in the channel order of RGB, BGR or GRAY."""
        return tuple(values[index] for index in CHANNELS[picture_format])

    def fed_shape(self, shape: Shape) -> tuple[int, ...]:
        """The shape of what fixed and offline models are fed, for an input of `shape` in this input's layout.

        Raises ValueError for a row of RGBA pixels that the alignment would end within a pixel.
        """
        if not any(INPUT_FORMATS[self.input_format].aligned):
            return tuple(shape)
        planar = self.layout == "NCHW"
        frames, height, width = shape[0], *(shape[2:] if planar else shape[1:3])
        rows, columns = _aligned(height, self.height_alignment), _aligned(width, self.width_alignment)
        if self.input_format == NV12:
            return frames, rows * 3 // 2, columns, 1
        if self.input_format == "GRAY":
            return (frames, 1, rows, columns) if planar else (frames, rows, columns, 1)
        row = _aligned(4 * width, self.width_alignment)
        if row % 4:
            reason = f"rows of {width} pixels would have {row} bytes, which is no whole number of {self.input_format}"
            raise ValueError(f"'{self.name}': {reason} pixels")
        return frames, height, row // 4, 4


def _aligned(extent: int, alignment: int) -> int:
    return -(-extent // alignment) * alignment


@dataclass(frozen=True)
class OutputSpec:
    """One output. `dequantize`: the integers become real values again. `format` is a key of OUTPUT_FORMATS."""

    name: str
    dequantize: bool = True
    layout: str = "NHWC"
    format: str = "RAWDATA_F32_NHWC"


@dataclass(frozen=True)
class ConvSpec:
    """Precision of convolutions: `input_format` is for all of them (None: the calibrator decides); `tensor_arrays`
    names the first inputs of those that are to run in 16 bits."""

    input_format: str | None = None
    tensor_arrays: tuple[str, ...] = ()


@dataclass(frozen=True)
class InputConfig:
    """A whole input_config.ini: inputs and outputs in the order of the file; `text` is the file as read."""

    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    conv: ConvSpec
    path: Path
    text: str


# ---- items of values: text → value, ValueError says why not ----------------------------------------------------------


def _name(text: str) -> str:
    return text


def _boolean(text: str) -> bool:
    try:
        return {"TRUE": True, "FALSE": False}[text.upper()]
    except KeyError:
        raise ValueError(f"'{text}' is not TRUE or FALSE") from None


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"'{text}' is not a finite number")
    return value


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(_number(part) for part in text.split(":"))


def _divisors(text: str) -> tuple[float, ...]:
    values = _numbers(text)
    if any(value <= 0 for value in values):
        raise ValueError(f"'{text}' must be greater than 0; write 1 for pictures that are not divided")
    return values


def _alignment(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"'{text}' is not a whole number above 0")
    return int(text)


def _one_of(known: Sequence[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.upper() not in known:
            raise ValueError(f"'{text}' is not one of {', '.join(known)}")
        return text.upper()

    return read


KEYS: dict[str, dict[str, Callable[[str], Any]]] = {
    INPUT: {
        "inputs": _name,
        "training_input_formats": _one_of(TRAINING_FORMATS),
        "input_formats": _one_of(tuple(INPUT_FORMATS)),
        "quantizations": _boolean,
        "mean": _numbers,
        "mean_red": _number,
        "mean_green": _number,
        "mean_blue": _number,
        "std_value": _divisors,
        "input_width_alignment": _alignment,
        "input_height_alignment": _alignment,
        "input_layouts": _one_of(LAYOUTS),
    },
    OUTPUT: {
        "outputs": _name,
        "dequantizations": _boolean,
        "output_layouts": _one_of(LAYOUTS),
        "output_formats": _one_of(tuple(OUTPUT_FORMATS)),
    },
    CONV: {
        "input_format": _one_of(CONV_FORMATS),
        "tensor_arrays": _name,
    },
}
NAME_LISTS = ((INPUT, "inputs"), (OUTPUT, "outputs"), (CONV, "tensor_arrays"))


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_input_config(path: str | Path) -> InputConfig:
    """Read an input_config.ini. Raises UserError (`Problems` if there are several) naming section, key and line."""
    path = Path(path)
    return parse_input_config(ini.read_text(path, stage=STAGE), path)


def parse_input_config(text: str, path: Path) -> InputConfig:
    """The configuration in the text of an ini; `path` is for messages. Raises UserError as `read_input_config`."""
    parser = _Parser(path, ini.parse(text))
    inputs = _Inputs(parser).specs()
    outputs = _outputs(parser)
    conv = _conv(parser)
    raise_all(parser.in_file_order(), stage=STAGE, file=path)
    return InputConfig(inputs, outputs, conv, path, text)


class _Parser:
    """The values of the file by (section, key), and its problems so far.

    A value with a problem is absent from `values` but still has a line, so that it is not reported as missing too.
    """

    def __init__(self, path: Path, document: ini.Document) -> None:
        self.path = path
        self.sections = document.sections
        self.values: dict[tuple[str, str], tuple[Any, ...]] = {}
        self.lines: dict[tuple[str, str], int] = {}
        self._problems: list[tuple[int, UserError]] = []
        for fault in document.faults:
            self._report(fault.line, f"line {fault.line}", fault.reason, fault.remedy)
        for section, line in document.sections.items():
            if section not in KEYS:
                self._report(line, f"[{section}], line {line}", "unknown section", did_you_mean(section, KEYS))
        for entry in document.entries:
            if entry.section in KEYS:
                self._read(entry)
        for section, key in NAME_LISTS:
            self._check_names(section, key)

    def _read(self, entry: ini.Entry) -> None:
        """Turn one entry into a tuple of values."""
        at, known = (entry.section, entry.key), KEYS[entry.section]
        where = f"[{entry.section}] {entry.key}, line {entry.line}"
        if entry.key not in known:
            self._report(entry.line, where, "unknown key", did_you_mean(entry.key, known))
            return
        if at in self.lines:
            self._report(entry.line, where, f"appears a second time; the first is on line {self.lines[at]}")
            return
        self.lines[at] = entry.line
        if "" in entry.items:
            reason = "has no value" if len(entry.items) == 1 else "has an empty item between its commas"
            self._report(entry.line, where, reason)
            return
        try:
            self.values[at] = tuple(known[entry.key](item) for item in entry.items)
        except ValueError as error:
            self._report(entry.line, where, str(error))

    def _check_names(self, section: str, key: str) -> None:
        names = self.values.get((section, key), ())
        length = len(",".join(names))
        if length > NAME_LIST_LENGTH:
            self.problem(section, key, f"names take {length} characters, at most {NAME_LIST_LENGTH} are allowed")
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            self.problem(section, key, f"names a tensor twice: {listing(repeated)}")

    def _report(self, line: int, where: str, reason: str, remedy: str | None = None) -> None:
        error = UserError(reason, stage=STAGE, file=self.path, node=where, remedy=remedy)
        self._problems.append((line, error))

    def problem(self, section: str, key: str, reason: str, remedy: str | None = None) -> None:
        """Record what is wrong with a key; where it is absent, its section is named."""
        line = self.lines.get((section, key), self.sections.get(section, 0))
        where = f"[{section}] {key}" + (f", line {line}" if line else "")
        self._report(line, where, reason, remedy)

    def in_file_order(self) -> list[UserError]:
        return [error for _, error in sorted(self._problems, key=lambda pair: pair[0])]

    def required(self, section: str, key: str, remedy: str | None = None) -> tuple[Any, ...] | None:
        """The values of a key that must be there; None when it is not, which is a problem, or is at fault itself."""
        if (section, key) not in self.lines:
            self.problem(section, key, "is missing", remedy)
        return self.values.get((section, key))

    def column(self, section: str, key: str, counts: Sequence[int], what: str) -> tuple[Any, ...] | None:
        """The values of a key that is there and whose count is one of `counts`; None for absent or at fault."""
        values = self.values.get((section, key))
        if values is not None and len(values) not in counts:
            self.problem(section, key, f"{len(values)} given for {what}", "one for each, in the same order")
            return None
        return values


class _Inputs:
    """Builds the InputSpecs: the columns of [INPUT_CONFIG], checked against each other."""

    def __init__(self, parser: _Parser) -> None:
        self.parser = parser
        self.names: tuple[str, ...] = parser.required(INPUT, "inputs") or ()
        formats = parser.required(INPUT, "input_formats", "one of " + ", ".join(INPUT_FORMATS))
        self.formats = self.column("input_formats", formats)
        # Without training formats, the input formats are the training formats too.
        self.training = self.column("training_input_formats", self.formats)
        known = self.training or self.formats or ()
        self.pictures = [index for index, name in enumerate(known) if not name.startswith("RAWDATA")]

    def column(self, key: str, default: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        """One value for each input; `default` where the key is absent; None where something is at fault."""
        if (INPUT, key) not in self.parser.lines:
            return default
        if not self.names:
            return None
        return self.parser.column(INPUT, key, [len(self.names)], f"{len(self.names)} inputs")

    def specs(self) -> tuple[InputSpec, ...]:
        """One spec for each input. With problems recorded the result is not complete and must not be used."""
        count = len(self.names)
        quantize = self.column("quantizations", (True,) * count)
        layouts = self.column("input_layouts", ("NHWC",) * count)
        if self.training is None or self.formats is None or not self.names:
            return ()
        self.check_formats(layouts)
        self.check_quantizations(quantize)
        means, stds = self.means(), self.per_picture("std_value", "write 1 for pictures that are not divided")
        widths, heights = (self.alignments(axis) for axis in (0, 1))
        return tuple(
            InputSpec(
                name=name,
                training_format=self.training[index],
                input_format=self.formats[index],
                quantize=quantize is None or quantize[index],
                mean=self.channel_values("mean", means, index),
                std=self.channel_values("std_value", stds, index),
                width_alignment=widths[index],
                height_alignment=heights[index],
                layout=layouts[index] if layouts else "NHWC",
            )
            for index, name in enumerate(self.names)
        )

    def check_formats(self, layouts: tuple[Any, ...] | None) -> None:
        """Each training format with its input format and layout; RAWDATA inputs behind the pictures."""
        assert self.training is not None and self.formats is not None
        for index, (name, training, fed) in enumerate(zip(self.names, self.training, self.formats, strict=True)):
            facts = INPUT_FORMATS[fed]
            if training not in TRAINING_FORMATS:
                reason = f"is missing, and no network is trained on {fed} as input '{name}' would be"
                self.parser.problem(INPUT, "training_input_formats", reason, f"one of {', '.join(facts.trained_as)}")
            elif training not in facts.trained_as:
                reason = f"'{name}': {fed} cannot be fed to a network trained on {training}"
                legal = [other for other, row in INPUT_FORMATS.items() if training in row.trained_as]
                self.parser.problem(INPUT, "input_formats", reason, f"{training} allows {', '.join(legal)}")
            if layouts and layouts[index] not in facts.layouts:
                reason = f"'{name}': {fed} has no layout {layouts[index]}"
                self.parser.problem(INPUT, "input_layouts", reason, "write NHWC")
        if self.pictures != list(range(len(self.pictures))):
            raw = [name for index, name in enumerate(self.names) if index not in self.pictures]
            self.parser.problem(INPUT, "inputs", f"RAWDATA inputs must come last: {listing(raw)}")

    def check_quantizations(self, quantize: tuple[Any, ...] | None) -> None:
        """Pictures are bytes: what feeds them to the chip never makes real numbers of them."""
        real = [self.names[index] for index in self.pictures if quantize and not quantize[index]]
        if real:
            reason = f"FALSE for a picture, which is always fed as UINT8: {listing(real)}"
            remedy = "write TRUE, or set the input's formats to RAWDATA_F32_NHWC to feed real numbers"
            self.parser.problem(INPUT, "quantizations", reason, remedy)

    def per_picture(self, key: str, remedy: str) -> tuple[Any, ...] | None:
        """One value for each picture input, RAWDATA inputs having none; None for no pictures or a fault."""
        count = len(self.pictures)
        if not count:
            if (INPUT, key) in self.parser.lines:
                self.parser.problem(INPUT, key, "RAWDATA inputs have none", "delete the line")
            return None
        if self.parser.required(INPUT, key, remedy) is None:
            return None
        what = f"{count} picture inputs" + (" (RAWDATA inputs have none)" if count < len(self.names) else "")
        return self.parser.column(INPUT, key, [count], what)

    def means(self) -> tuple[Any, ...] | None:
        """Means of each picture input: of `mean`, or where that is absent of mean_red, mean_green and mean_blue."""
        parser = self.parser
        coloured = [key for key in ("mean_red", "mean_green", "mean_blue") if (INPUT, key) in parser.lines]
        if not coloured:
            return self.per_picture("mean", "write 0:0:0 (GRAY: 0) for pictures that are not normalised")
        if (INPUT, "mean") in parser.lines:
            parser.problem(INPUT, coloured[0], "is given beside mean", "keep one of the two")
            return None
        assert self.training is not None
        grey_only = all(self.training[index] == "GRAY" for index in self.pictures)
        wanted = ("mean_red",) if grey_only and self.pictures else ("mean_red", "mean_green", "mean_blue")
        columns = [self.per_picture(key, "the three belong together") for key in dict.fromkeys((*wanted, *coloured))]
        if any(column is None for column in columns):
            return None
        rows = zip(*[column for column in columns if column is not None], strict=True)
        return tuple(row[:1] if self.training[i] == "GRAY" else row for i, row in zip(self.pictures, rows, strict=True))

    def channel_values(self, key: str, column: tuple[Any, ...] | None, index: int) -> tuple[float, ...]:
        """Mean or std of one input, one value a channel. A single std, or a single mean of 0, is for all channels."""
        assert self.training is not None
        if column is None or index not in self.pictures or self.training[index] not in CHANNELS:
            return ()
        values: tuple[float, ...] = column[self.pictures.index(index)]
        channels = len(CHANNELS[self.training[index]])
        if len(values) == 1 and (key == "std_value" or values == (0.0,)):
            return values * channels
        if len(values) != channels:
            reason = f"'{self.names[index]}' has {len(values)} values for {channels} channels of {self.training[index]}"
            example = "R:G:B" if channels == 3 else "one value"
            self.parser.problem(INPUT, key, reason, f"write {example}; commas separate inputs, colons channels")
        return values

    def alignments(self, axis: int) -> tuple[int, ...]:
        """Width (axis 0) or height (axis 1) alignment of each input; RAWDATA inputs, at the end, may be left out."""
        assert self.formats is not None
        side = ("width", "height")[axis]
        key = f"input_{side}_alignment"
        defaults = tuple(INPUT_FORMATS[fed].alignment[axis] for fed in self.formats)
        counts = [len(self.names), len(self.pictures)]
        given = self.parser.column(INPUT, key, counts, f"{len(self.names)} inputs") or ()
        result = (*given, *defaults[len(given) :])
        for name, fed, value, default in zip(self.names, self.formats, result, defaults, strict=True):
            if value % default:
                self.parser.problem(INPUT, key, f"'{name}': {fed} needs a multiple of {default}, not {value}")
            if value > 1 and not INPUT_FORMATS[fed].aligned[axis]:
                reason = f"'{name}': {fed} has no {side} alignment, it is fed in the {side} of the model's input"
                self.parser.problem(INPUT, key, reason, "write 1")
        return result


def _outputs(parser: _Parser) -> tuple[OutputSpec, ...]:
    """One spec for each output; not complete where problems were recorded."""
    names = parser.required(OUTPUT, "outputs")
    if not names:
        return ()
    what = f"{len(names)} outputs"
    keys = ("dequantizations", "output_layouts", "output_formats")
    dequantize, layouts, formats = (parser.column(OUTPUT, key, [len(names)], what) for key in keys)
    specs = []
    for index, name in enumerate(names):
        real = dequantize is None or dequantize[index]
        default = "RAWDATA_F32_NHWC" if real else "RAWDATA_S16_NHWC"
        spec = OutputSpec(name, real, layouts[index] if layouts else "NHWC", formats[index] if formats else default)
        if spec.format == "RAWDATA_F32_NHWC" and not real:
            remedy = "set dequantizations to TRUE, or the format to RAWDATA_S16_NHWC"
            parser.problem(OUTPUT, "output_formats", f"'{name}': float32 needs dequantizations TRUE", remedy)
        specs.append(spec)
    return tuple(specs)


def _conv(parser: _Parser) -> ConvSpec:
    formats = parser.column(CONV, "input_format", [1], "all convolutions together")
    return ConvSpec(formats[0] if formats else None, parser.values.get((CONV, "tensor_arrays"), ()))


# ---- checks against what the toolchain and the model can do ----------------------------------------------------------


def refuse_unsupported_formats(config: InputConfig) -> None:
    """Raise UserError for every format that the file format allows but the toolchain does not run yet."""
    inputs_run = listing(name for name, facts in INPUT_FORMATS.items() if facts.executed)
    outputs_run = listing(name for name, executed in OUTPUT_FORMATS.items() if executed)
    problems = []

    def refuse(section: str, key: str, name: str, what: str, remedy: str) -> None:
        reason = f"'{name}': {what} is not supported yet"
        problems.append(UserError(reason, stage=STAGE, file=config.path, node=f"[{section}] {key}", remedy=remedy))

    for spec in config.inputs:
        if not INPUT_FORMATS[spec.input_format].executed:
            refuse(INPUT, "input_formats", spec.name, spec.input_format, f"supported: {inputs_run}")
    for output in config.outputs:
        if not OUTPUT_FORMATS[output.format]:
            refuse(OUTPUT, "output_formats", output.name, output.format, f"supported: {outputs_run}")
    raise_all(problems, stage=STAGE, file=config.path)


def check_against_names(config: InputConfig, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> None:
    """Check names, ranks and channel counts against a model.

    Args:
        inputs, outputs: name → shape, in the layout that the ini gives it, as in the .sim files. Extents below 1 are
            unknown and match everything.

    Raises:
        UserError: with every difference found.
    """
    problems = [
        *_name_problems(config, INPUT, "inputs", [spec.name for spec in config.inputs], inputs),
        *_name_problems(config, OUTPUT, "outputs", [spec.name for spec in config.outputs], outputs),
    ]
    for spec in config.inputs:
        if spec.name not in inputs:
            continue
        if reason := _input_mismatch(spec, inputs[spec.name]):
            problems.append(_mismatch(config, INPUT, "inputs", reason))
        elif reason := _alignment_mismatch(spec, inputs[spec.name]):
            remedy = "write a multiple of 4"
            problems.append(_mismatch(config, INPUT, "input_width_alignment", reason, remedy))
    for output in config.outputs:
        if output.layout == "NCHW" and output.name in outputs and len(outputs[output.name]) != 4:
            reason = f"'{output.name}': layout NCHW needs rank 4, the model has {_dims(outputs[output.name])}"
            problems.append(_mismatch(config, OUTPUT, "output_layouts", reason))
    raise_all(problems, stage=STAGE, file=config.path)


def _mismatch(config: InputConfig, section: str, key: str, reason: str, remedy: str | None = None) -> UserError:
    return UserError(reason, stage=STAGE, file=config.path, node=f"[{section}] {key}", remedy=remedy)


def _name_problems(
    config: InputConfig, section: str, key: str, named: Sequence[str], actual: Mapping[str, Shape]
) -> list[UserError]:
    kind = key.removesuffix("s")
    problems = [
        _mismatch(config, section, key, f"'{name}' is not an {kind} of the model", f"its {key}: {listing(actual)}")
        for name in named
        if name not in actual
    ]
    if missing := [name for name in actual if name not in named]:
        reason = f"the model has {key} that are not listed: {listing(missing)}"
        problems.append(_mismatch(config, section, key, reason, f"list all of its {key}: {listing(actual)}"))
    return problems


def _input_mismatch(spec: InputSpec, shape: Shape) -> str | None:
    """What keeps an input of this shape from being what the spec says; None when nothing does."""
    if spec.is_picture and len(shape) != 4:
        return f"'{spec.name}': a {spec.training_format} picture needs rank 4, the model has {_dims(shape)}"
    if spec.is_picture and 0 < shape[spec.channel_axis] != spec.channels:
        wanted = f"{spec.training_format} needs {spec.channels} channel" + "s" * (spec.channels > 1)
        return f"'{spec.name}': {wanted}, the model has {shape[spec.channel_axis]} in {_dims(shape)} ({spec.layout})"
    if spec.layout == "NCHW" and len(shape) != 4:
        return f"'{spec.name}': layout NCHW needs rank 4, the model has {_dims(shape)}; write NHWC"
    return None


def _alignment_mismatch(spec: InputSpec, shape: Shape) -> str | None:
    """Why rows of such pictures cannot be aligned as the spec says; None where they can, or their width is unknown."""
    if min(shape, default=1) < 1:
        return None
    try:
        spec.fed_shape(shape)
    except ValueError as error:
        return str(error)
    return None


def _dims(shape: Shape) -> str:
    return "[" + ",".join(str(extent) for extent in shape) + "]"
