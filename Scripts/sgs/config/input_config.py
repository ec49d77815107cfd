"""input_config.ini: which inputs and outputs a model has, what is fed to them, and how convolutions are quantised.

`read_input_config` reads the file strictly and reports all of its problems at once. Every key is a row of `KEYS`: the
function that reads one of its comma-separated items. What spans several keys is checked when the specs are built.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sgs.config import ini
from sgs.config.formats import (
    CHANNELS,
    CONV_FORMATS,
    F32,
    INPUT_FORMATS,
    LAYOUTS,
    OUTPUT_FORMATS,
    S16,
    TRAINING_FORMATS,
    U16,
    InputSpec,
    OutputSpec,
    colons,
)
from sgs.config.nearest import counted, did_you_mean, listing, nearest
from sgs.errors import UserError, raise_all

STAGE = "input_config"
INPUT, OUTPUT, CONV = "INPUT_CONFIG", "OUTPUT_CONFIG", "CONV_CONFIG"
NAME_LIST_LENGTH = 2048  # characters of one list of names
UNDIVIDED = "write 1 for pictures that are not divided"

# ---- the model of the file -------------------------------------------------------------------------------------------


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


# ---- items of values: text → value, Malformed says why not -----------------------------------------------------------


def _name(text: str) -> str:
    return text


def _boolean(text: str) -> bool:
    try:
        return {"TRUE": True, "FALSE": False}[text.upper()]
    except KeyError:
        raise ini.Malformed(f"'{text}' is not TRUE or FALSE", "write one of the two") from None


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ini.Malformed(f"'{text}' is not a number", "write one like 127.5; colons separate channels") from None
    if not math.isfinite(value):
        raise ini.Malformed(f"'{text}' is not a finite number", "write one like 127.5")
    return value


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(_number(part) for part in text.split(":"))


def _divisors(text: str) -> tuple[float, ...]:
    values = _numbers(text)
    if any(value <= 0 for value in values):
        raise ini.Malformed(f"'{text}' is not above 0", f"{UNDIVIDED}; 0 would divide by nothing")
    return values


def _alignment(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ini.Malformed(f"'{text}' is not a whole number above 0", "write 1 for no alignment")
    return int(text)


def _one_of(known: Sequence[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.upper() not in known:
            closest = nearest(text, known)
            remedy = f"did you mean {closest}?" if closest else "write one of them"
            raise ini.Malformed(f"'{text}' is not one of {', '.join(known)}", remedy)
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
        "output_formats": _one_of(OUTPUT_FORMATS),
    },
    CONV: {
        "input_format": _one_of(CONV_FORMATS),
        "tensor_arrays": _name,
    },
}
NAME_LISTS = ((INPUT, "inputs"), (OUTPUT, "outputs"), (CONV, "tensor_arrays"))
REQUIRED = ("inputs", "input_formats", "mean", "std_value", "outputs")  # mean and std_value where there are pictures


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
    if both := sorted({spec.name for spec in inputs} & {spec.name for spec in outputs}):
        remedy = "leave it out here: who feeds it has it"
        parser.problem(OUTPUT, "outputs", f"names what is an input: {listing(both)}", remedy)
    raise_all(parser.in_file_order(), stage=STAGE, file=path)
    return InputConfig(inputs, outputs, conv, path, text)


class _Parser:
    """The values of the file by (section, key), and its problems so far.

    A value with a problem is absent from `values` but still has a line, so that it is not reported as missing too; so
    has a key that is spelled wrong, or that no section is above of.
    """

    def __init__(self, path: Path, document: ini.Document) -> None:
        self.path = path
        self.sections = {name: line for name, line in document.sections.items() if name in KEYS}
        self.values: dict[tuple[str, str], tuple[Any, ...]] = {}
        self.lines: dict[tuple[str, str], int] = {}
        self.texts: dict[tuple[str, str], str] = {}  # the values as they were written
        self._problems: list[tuple[int, UserError]] = []
        self._read_all(document)
        for section, key in NAME_LISTS:
            self._check_names(section, key)

    def _read_all(self, document: ini.Document) -> None:
        """Every entry and fault of the file, and the sections that it must have."""
        meant = self._sections_meant(document)
        entries = [replace(entry, section=meant[entry.section]) for entry in document.entries if entry.section in meant]
        for entry in entries:
            self._read(entry)
        for fault in document.faults:
            section = meant.get(fault.section) or next((name for name in KEYS if fault.key in KEYS[name]), "")
            where = f"[{section}] {fault.key}, line {fault.line}" if section and fault.key else f"line {fault.line}"
            self._report(fault.line, where, fault.reason, fault.remedy)
            self.lines.setdefault((section, fault.key), fault.line)
        for entry in entries:  # a required key that is spelled wrong is not also missing
            closest = nearest(entry.key, KEYS[entry.section])
            if entry.key not in KEYS[entry.section] and closest in REQUIRED:
                self.lines.setdefault((entry.section, closest), entry.line)
        for section in (INPUT, OUTPUT):
            if section not in self.sections and not any(at[0] == section for at in self.lines):
                needed = [key for key in REQUIRED if key in KEYS[section]]
                self.lines |= {(section, key): 0 for key in needed}
                self._report(0, f"[{section}]", "the section is missing", f"it holds {', '.join(needed)}")

    def _sections_meant(self, document: ini.Document) -> dict[str, str]:
        """Section of the file → the one that it is read as: an unknown one as the nearest, if that is not there."""
        meant = {name: name for name in self.sections}
        for name, line in document.sections.items():
            if name in KEYS:
                continue
            self._report(line, f"[{name}], line {line}", "unknown section", did_you_mean(name, KEYS))
            closest = nearest(name, KEYS)
            if closest and closest not in self.sections:
                meant[name], self.sections[closest] = closest, line
        return meant

    def _read(self, entry: ini.Entry) -> None:
        """Turn one entry into a tuple of values."""
        at, known = (entry.section, entry.key), KEYS[entry.section]
        where = f"[{entry.section}] {entry.key}, line {entry.line}"
        if entry.key not in known:
            self._unknown_key(entry, where)
            return
        if at in self.lines:
            reason = f"appears a second time, with '{entry.value}'; the first is on line {self.lines[at]}"
            joined = entry.key == "tensor_arrays"
            remedy = "write all names in one, with commas between" if joined else "keep one of the two"
            self._report(entry.line, where, reason, remedy)
            return
        self.lines[at], self.texts[at] = entry.line, entry.value
        if "" in entry.items:
            if len(entry.items) == 1:
                self._report(entry.line, where, "has no value", "give it one, or delete the line")
            else:
                reason = f"has an empty item beside its commas: '{entry.value}'"
                self._report(entry.line, where, reason, "delete the comma that is too many")
            return
        values, count = [], len(self._problems)
        for item in entry.items:
            try:
                values.append(known[entry.key](item))
            except ini.Malformed as error:
                self._report(entry.line, where, str(error), error.remedy)
        if len(self._problems) == count:
            self.values[at] = tuple(values)

    def _unknown_key(self, entry: ini.Entry, where: str) -> None:
        """Report a key that its section does not have."""
        remedy = did_you_mean(entry.key, KEYS[entry.section])
        others = [section for section in KEYS if entry.key in KEYS[section]]
        if others:
            remedy += f"; {entry.key} is for [{others[0]}]"
        self._report(entry.line, where, "unknown key", remedy)

    def _check_names(self, section: str, key: str) -> None:
        names = self.values.get((section, key), ())
        joined = ",".join(names)
        if len(joined) > NAME_LIST_LENGTH:
            reason = f"'{ini.shortened(joined)}' takes {len(joined)} characters, at most {NAME_LIST_LENGTH} are allowed"
            self.problem(section, key, reason, "shorten the names in the network, or name fewer tensors")
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            self.problem(section, key, f"names a tensor twice: {listing(repeated)}", "name it once")

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

    def required(self, section: str, key: str, remedy: str) -> tuple[Any, ...] | None:
        """The values of a key that must be there; None when it is not, which is a problem, or is at fault itself."""
        if (section, key) not in self.lines:
            self.problem(section, key, "is missing", remedy)
        return self.values.get((section, key))

    def column(
        self, section: str, key: str, counts: Sequence[int], what: str, remedy: str = "one for each, in the same order"
    ) -> tuple[Any, ...] | None:
        """The values of a key that is there and whose count is one of `counts`; None for absent or at fault."""
        values = self.values.get((section, key))
        if values is not None and len(values) not in counts:
            reason = f"{len(values)} given for {what}: '{self.texts[section, key]}'"
            self.problem(section, key, reason, remedy)
            return None
        return values


class _Inputs:
    """Builds the InputSpecs: the columns of [INPUT_CONFIG], checked against each other."""

    def __init__(self, parser: _Parser) -> None:
        self.parser = parser
        self.names: tuple[str, ...] = parser.required(INPUT, "inputs", "name the network's inputs") or ()
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
        return self.parser.column(INPUT, key, [len(self.names)], counted(len(self.names), "input"))

    def specs(self) -> tuple[InputSpec, ...]:
        """One spec for each input. With problems recorded the result is not complete and must not be used."""
        count = len(self.names)
        quantize = self.column("quantizations", (True,) * count)
        layouts = self.column("input_layouts", ("NHWC",) * count)
        if self.training is None or self.formats is None or not self.names:
            return ()
        self.check_formats(layouts)
        self.check_quantizations(quantize)
        means, stds = self.means(), self.per_picture("std_value", UNDIVIDED)
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
            raw = [index for index in range(len(self.names)) if index not in self.pictures]
            order = ",".join(self.names[index] for index in (*self.pictures, *raw))
            reason = f"RAWDATA inputs must come last: {listing(self.names[index] for index in raw)}"
            self.parser.problem(INPUT, "inputs", reason, f"write inputs={order} and all other keys in that order")

    def check_quantizations(self, quantize: tuple[Any, ...] | None) -> None:
        """Pictures are bytes: what feeds them to the chip never makes real numbers of them. Numbers that pick from a
        table are no codes either."""
        assert self.formats is not None
        real = [self.names[index] for index in self.pictures if quantize and not quantize[index]]
        if real:
            reason = f"FALSE for a picture, which is always fed as UINT8: {listing(real)}"
            remedy = f"write TRUE, or set the input's formats to {F32} to feed real numbers"
            self.parser.problem(INPUT, "quantizations", reason, remedy)
        fed = zip(self.names, self.formats, quantize or (True,) * len(self.names), strict=True)
        if numbers := [name for name, form, made in fed if form == U16 and not made]:
            reason = f"FALSE for numbers that pick from a table, of which no codes are made: {listing(numbers)}"
            self.parser.problem(INPUT, "quantizations", reason, "write TRUE")

    def per_picture(self, key: str, remedy: str) -> tuple[Any, ...] | None:
        """One value for each picture input, RAWDATA inputs having none; None for no pictures or a fault."""
        count = len(self.pictures)
        if not count:
            if (INPUT, key) in self.parser.lines:
                reason = f"RAWDATA inputs have none, given is '{self.parser.texts.get((INPUT, key), '')}'"
                self.parser.problem(INPUT, key, reason, "delete the line")
            return None
        if self.parser.required(INPUT, key, remedy) is None:
            return None
        what = counted(count, "picture input") + (" (RAWDATA inputs have none)" if count < len(self.names) else "")
        return self.parser.column(INPUT, key, [count], what, self.separators(key))

    def separators(self, key: str) -> str:
        """A remedy for a wrong number of means or stds: how they are written, where it can be known the very text."""
        values = self.parser.values.get((INPUT, key), ())
        if len(self.pictures) == 1 and len(values) == 3 and all(isinstance(row, tuple) for row in values):
            written = ":".join(self.parser.texts[INPUT, key].split(","))
            return f"write {written}; commas separate inputs, colons channels"
        return "one for each picture, in the order of inputs; commas separate inputs, colons channels"

    def means(self) -> tuple[Any, ...] | None:
        """Means of each picture input: of `mean`, or where that is absent of mean_red, mean_green and mean_blue."""
        parser = self.parser
        coloured = [key for key in ("mean_red", "mean_green", "mean_blue") if (INPUT, key) in parser.lines]
        if not coloured:
            return self.per_picture("mean", "write 0:0:0 (GRAY: 0) for pictures that are not normalised")
        if (INPUT, "mean") in parser.lines:
            told = f"'{parser.texts.get((INPUT, coloured[0]), '')}' is given beside mean"
            parser.problem(INPUT, coloured[0], told, "keep one of the two")
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
            told = colons(values)
            has = f"{counted(len(values), 'value')} for {counted(channels, 'channel')} of {self.training[index]}"
            same = ":".join([told] * 3) if len(values) == 1 else "R:G:B"
            example = same if channels == 3 else "one value"
            remedy = f"write {example}; commas separate inputs, colons channels"
            self.parser.problem(INPUT, key, f"'{self.names[index]}' has {has}: '{told}'", remedy)
        return values

    def alignments(self, axis: int) -> tuple[int, ...]:
        """Width (axis 0) or height (axis 1) alignment of each input; RAWDATA inputs, at the end, may be left out."""
        assert self.formats is not None
        side = ("width", "height")[axis]
        key = f"input_{side}_alignment"
        defaults = tuple(INPUT_FORMATS[fed].alignment[axis] for fed in self.formats)
        counts = [len(self.names), len(self.pictures)]
        given = self.parser.column(INPUT, key, counts, counted(len(self.names), "input")) or ()
        result = (*given, *defaults[len(given) :])
        for name, fed, value, default in zip(self.names, self.formats, result, defaults, strict=True):
            if value % default:
                reason, remedy = f"needs a multiple of {default}, not {value}", f"write {value + -value % default}"
                self.parser.problem(INPUT, key, f"'{name}': {fed} {reason}", remedy)
            if value > 1 and not INPUT_FORMATS[fed].aligned[axis]:
                reason = f"{fed} has no {side} alignment, it is fed in the {side} of the model's input"
                self.parser.problem(INPUT, key, f"'{name}': {value}, but {reason}", "write 1")
        return result


def _outputs(parser: _Parser) -> tuple[OutputSpec, ...]:
    """One spec for each output; not complete where problems were recorded."""
    names = parser.required(OUTPUT, "outputs", "name the outputs to keep")
    if not names:
        return ()
    what = counted(len(names), "output")
    keys = ("dequantizations", "output_layouts", "output_formats")
    dequantize, layouts, formats = (parser.column(OUTPUT, key, [len(names)], what) for key in keys)
    specs = []
    for index, name in enumerate(names):
        real = dequantize is None or dequantize[index]
        default = F32 if real else S16
        spec = OutputSpec(name, real, layouts[index] if layouts else "NHWC", formats[index] if formats else default)
        if spec.format == F32 and not real:
            remedy = f"set dequantizations to TRUE, or the format to {S16}"
            reason = f"'{name}': {spec.format} is float32, which needs dequantizations TRUE"
            parser.problem(OUTPUT, "output_formats", reason, remedy)
        specs.append(spec)
    return tuple(specs)


def _conv(parser: _Parser) -> ConvSpec:
    formats = parser.column(CONV, "input_format", [1], "all convolutions together", "write one")
    return ConvSpec(formats[0] if formats else None, parser.values.get((CONV, "tensor_arrays"), ()))
