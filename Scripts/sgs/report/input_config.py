"""What an input_config.ini means for a network, in lines: what each input is fed, and what each output returns."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from itertools import compress

from sgs.config.formats import NV12, RAW_TYPES, InputSpec, OutputSpec, colons
from sgs.config.input_config import InputConfig
from sgs.numeric.types import DType
from sgs.report.columns import aligned

Shape = Sequence[int]


def config_text(
    config: InputConfig,
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape],
    integers: Container[str] = (),
) -> str:
    """The lines; shapes by name, in the layout of the ini, as far as they are known, and the outputs that are integers
    of the network's own."""
    lines = ["inputs, as fixed and offline models are fed"]
    lines += _indented([_input_row(spec, inputs.get(spec.name)) for spec in config.inputs])
    normalised = [
        (spec.name, f"mean {colons(spec.mean)}", f"std_value {colons(spec.std)}")
        for spec in config.inputs
        if spec.is_picture
    ]
    if normalised:
        lines += ["", "normalised inside: (pixel - mean) / std_value, in the order R:G:B", *_indented(normalised)]
    lines += [
        "",
        "outputs",
        *_indented([_output_row(spec, outputs.get(spec.name), spec.name in integers) for spec in config.outputs]),
    ]
    if config.conv.input_format:
        lines += ["", f"convolutions: {config.conv.input_format}"]
    if config.conv.tensor_arrays:
        lines += [
            "",
            "convolutions in 16 bits, by their first inputs",
            *_indented([[n] for n in config.conv.tensor_arrays]),
        ]
    return "\n".join(lines)


def _input_row(spec: InputSpec, shape: Shape | None) -> tuple[str, ...]:
    trained = "" if spec.training_format == spec.input_format else f"trained on {spec.training_format}"
    fed = shape if shape is None or min(shape, default=0) < 1 else spec.fed_shape(shape)
    place = _place(fed, "" if spec.input_format == NV12 else spec.layout)
    return spec.name, spec.fed_type.name.lower(), *place, spec.input_format, trained


def _output_row(spec: OutputSpec, shape: Shape | None, integer: bool) -> tuple[str, ...]:
    carried = RAW_TYPES[spec.format]
    kind = DType.FLOAT32 if spec.dequantize and not integer else carried
    codes = "codes: real = code * scale" if carried is DType.INT16 else "codes: real = (code - zero point) * scale"
    meaning = "whole numbers" if integer else "real numbers" if spec.dequantize else codes
    return spec.name, kind.name.lower(), *_place(shape, spec.layout), meaning


def _place(shape: Shape | None, layout: str) -> tuple[str, str]:
    """(shape, layout) in words; the layout of rank 4, and where the rank is not known, only."""
    told = "" if shape is None else f"[{','.join(map(str, shape))}]"
    return told, layout if shape is None or len(shape) == 4 else ""


def _indented(rows: Sequence[Sequence[str]]) -> list[str]:
    told = [any(column) for column in zip(*rows, strict=True)]
    return [f"  {line}" for line in aligned([list(compress(row, told)) for row in rows])]
