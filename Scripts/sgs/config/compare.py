"""Where an input_config.ini differs from the one that a model was made with, which is in the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sgs.config.fit import mismatch
from sgs.config.formats import F32, InputSpec, OutputSpec, colons
from sgs.config.input_config import CONV, INPUT, OUTPUT, InputConfig
from sgs.config.nearest import listing
from sgs.errors import UserError

# Attribute of an InputSpec or OutputSpec → the key that says it.
_INPUT_KEYS = {
    "training_format": "training_input_formats",
    "input_format": "input_formats",
    "quantize": "quantizations",
    "mean": "mean",
    "std": "std_value",
    "width_alignment": "input_width_alignment",
    "height_alignment": "input_height_alignment",
    "layout": "input_layouts",
}
_OUTPUT_KEYS = {"dequantize": "dequantizations", "format": "output_formats", "layout": "output_layouts"}


def layout_differences(config: InputConfig, record: InputConfig) -> list[UserError]:
    """What an ini says otherwise than the one that a float .sim was converted with: layouts are in the file."""
    return _differences(config, record, ["layout"], ["layout"], _made_with("convert it again with this one"))


def in_layouts_of(record: InputConfig, config: InputConfig) -> InputConfig:
    """An ini with the layouts of another one."""
    layouts = {i.name: i.layout for i in record.inputs} | {o.name: o.layout for o in record.outputs}
    inputs = tuple(replace(spec, layout=layouts.get(spec.name, spec.layout)) for spec in config.inputs)
    outputs = tuple(replace(spec, layout=layouts.get(spec.name, spec.layout)) for spec in config.outputs)
    return replace(config, inputs=inputs, outputs=outputs)


def differences(config: InputConfig, record: InputConfig) -> list[UserError]:
    """What an ini says otherwise than the one that a fixed .sim or an .img was made with: all of it is in the file. Of
    convolutions an .img tells nothing."""
    other = _made_with("calibrate and compile it again with this one")
    problems = _differences(config, record, list(_INPUT_KEYS), list(_OUTPUT_KEYS), other)
    return problems + (_conv_differences(config, record, other) if record.text else [])


def backbone_differences(config: InputConfig, backbone: InputConfig) -> list[UserError]:
    """What the ini of a network with post-processing says otherwise than that of its backbone, but for outputs, which
    are its own."""
    other = _Other("what that of the backbone says", f"correct {backbone.path}")
    names, theirs = ([spec.name for spec in one.inputs] for one in (config, backbone))
    problems = []
    if names != theirs:
        problems.append(_difference(config, INPUT, "inputs", listing(names), listing(theirs), other))
    problems += _differences(config, backbone, list(_INPUT_KEYS), [], other)
    return problems + _conv_differences(config, backbone, other)


@dataclass(frozen=True)
class _Other:
    """What an ini is compared with, and what can be done in place of correcting it, in words."""

    name: str
    remedy: str


def _made_with(remedy: str) -> _Other:
    return _Other("what the model was made with", remedy)


def _conv_differences(config: InputConfig, record: InputConfig, other: _Other) -> list[UserError]:
    pairs = (
        ("input_format", config.conv.input_format, record.conv.input_format),
        ("tensor_arrays", ",".join(config.conv.tensor_arrays), ",".join(record.conv.tensor_arrays)),
    )
    return [
        _difference(config, CONV, key, mine or "nothing", its or "nothing", other)
        for key, mine, its in pairs
        if mine != its
    ]


def _differences(
    config: InputConfig, record: InputConfig, of_inputs: Sequence[str], of_outputs: Sequence[str], other: _Other
) -> list[UserError]:
    problems = []
    sides: tuple[tuple[str, Sequence[Any], Sequence[Any], Sequence[str], dict[str, str]], ...] = (
        (INPUT, config.inputs, record.inputs, of_inputs, _INPUT_KEYS),
        (OUTPUT, config.outputs, record.outputs, of_outputs, _OUTPUT_KEYS),
    )
    for section, specs, theirs, attributes, keys in sides:
        known = {spec.name: spec for spec in theirs}
        for spec in specs:
            for attribute in attributes if spec.name in known else ():
                mine, its = getattr(spec, attribute), getattr(known[spec.name], attribute)
                if _has_a_say(spec, attribute, its) and not _same(mine, its):
                    told = f"'{spec.name}': {_shown(mine)}"
                    problems.append(_difference(config, section, keys[attribute], told, _shown(its), other))
    return problems


def _has_a_say(spec: InputSpec | OutputSpec, attribute: str, its: Any) -> bool:
    """Whether an attribute means something: `quantize` does of real numbers only; mean and std of other
    formats differ anyway."""
    if attribute == "quantize":
        return getattr(spec, "training_format", "") == F32
    return attribute not in ("mean", "std") or len(getattr(spec, attribute)) == len(its)


def _same(mine: Any, its: Any) -> bool:
    if isinstance(mine, tuple) and len(mine) == len(its):
        return all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(mine, its, strict=True))  # an .img holds binary32
    return bool(mine == its)


def _difference(config: InputConfig, section: str, key: str, mine: str, its: str, other: _Other) -> UserError:
    reason = f"{mine} is not {other.name}, {its}"
    keys = [key, "mean_red"] if key == "mean" else [key]  # either says it
    return mismatch(config, section, keys, reason, f"write that, or {other.remedy}")


def _shown(value: Any) -> str:
    """A value as an ini says it."""
    return colons(value) if isinstance(value, tuple) else str(value).upper()
