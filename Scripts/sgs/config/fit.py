"""Does an input_config.ini fit a model? Names, ranks, channels, layouts and alignments beside the model's shapes."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from sgs.config import ini
from sgs.config.formats import F32, InputSpec, Shape
from sgs.config.input_config import INPUT, OUTPUT, STAGE, InputConfig
from sgs.config.nearest import counted, listing, nearest
from sgs.errors import UserError, raise_all


def check_against_names(config: InputConfig, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> None:
    """Check names, ranks and channel counts against a model: `name_problems` and `shape_problems`.

    Raises:
        UserError: with every difference found.
    """
    problems = [*name_problems(config, inputs, outputs), *shape_problems(config, inputs, outputs)]
    raise_all(problems, stage=STAGE, file=config.path)


def name_problems(
    config: InputConfig,
    inputs: Iterable[str],
    outputs: Iterable[str],
    *,
    inner: Container[str] = (),
    all_outputs: bool = True,
) -> list[UserError]:
    """Every name of an ini that a model does not have, and every one of the model that the ini leaves out, which it may
    do of outputs without `all_outputs`. A source model can be cut at `inner` tensors."""
    ins, outs = ([spec.name for spec in specs] for specs in (config.inputs, config.outputs))
    return [
        *_name_problems(config, INPUT, "inputs", ins, list(inputs), inner=inner, complete=True),
        *_name_problems(config, OUTPUT, "outputs", outs, list(outputs), inner=inner, complete=all_outputs),
    ]


def shape_problems(config: InputConfig, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> list[UserError]:
    """Every rank, channel count, layout and alignment that does not go with a model's shapes; unknown names have none.

    Args:
        inputs, outputs: name → shape, in the layout that the ini gives it, as in the .sim files. Extents below 1 are
            unknown and match everything.
    """
    problems = []
    for spec in config.inputs:
        if spec.name in inputs:
            problems += _input_problems(config, spec, inputs[spec.name])
    for output in config.outputs:
        if output.layout == "NCHW" and output.name in outputs and len(outputs[output.name]) != 4:
            reason = f"'{output.name}': layout NCHW needs rank 4, the model has {_dims(outputs[output.name])}"
            problems.append(mismatch(config, OUTPUT, ["output_layouts"], reason, "write NHWC"))
    return problems


def mismatch(config: InputConfig, section: str, keys: Sequence[str], reason: str, remedy: str) -> UserError:
    """An error that names the first of the keys that the file has, and its line; the first one where it has none."""
    lines = {entry.key: entry.line for entry in ini.parse(config.text).entries[::-1] if entry.section == section}
    key = next((key for key in keys if key in lines), keys[0])
    place = f"[{section}] {key}" + (f", line {lines[key]}" if key in lines else "")
    return UserError(reason, stage=STAGE, file=config.path, node=place, remedy=remedy)


def _name_problems(
    config: InputConfig,
    section: str,
    key: str,
    named: Sequence[str],
    actual: Sequence[str],
    *,
    inner: Container[str],
    complete: bool,
) -> list[UserError]:
    kind, told = key.removesuffix("s"), f"its {key}: {listing(actual)}"
    missing = [name for name in actual if name not in named]
    problems = []
    for name in named:
        if name not in actual:
            closest = nearest(name, missing)
            if closest:
                missing.remove(closest)
            remedy = f"did you mean {closest}? {told}" if closest else told
            if name in inner:
                remedy += f"; --{key} {','.join(named)} cuts the model at its inner tensors"
            problems.append(mismatch(config, section, [key], f"'{name}' is not an {kind} of the model", remedy))
    if missing and complete:
        reason = f"the model has {key} that are not listed: {listing(missing)}"
        problems.append(mismatch(config, section, [key], reason, f"list all of {told}"))
    return problems


def _input_problems(config: InputConfig, spec: InputSpec, shape: Shape) -> list[UserError]:
    """What keeps an input of this shape from being what the spec says."""
    formats, raw = ["training_input_formats", "input_formats"], f"write {F32}, and no mean and std_value"
    if spec.layout == "NCHW" and len(shape) != 4:
        reason = f"'{spec.name}': layout NCHW needs rank 4, the model has {_dims(shape)}"
        return [mismatch(config, INPUT, ["input_layouts"], reason, "write NHWC")]
    if spec.is_picture and len(shape) != 4:
        reason = f"'{spec.name}': a {spec.training_format} picture needs rank 4, the model has {_dims(shape)}"
        return [mismatch(config, INPUT, formats, reason, raw)]
    if spec.is_picture and 0 < shape[spec.channel_axis] != spec.channels:
        found = shape[spec.channel_axis]
        wanted = f"{spec.training_format} needs {counted(spec.channels, 'channel')}"
        reason = f"'{spec.name}': {wanted}, the model has {found} in {_dims(shape)} ({spec.layout})"
        return [mismatch(config, INPUT, formats, reason, {1: "write GRAY", 3: "write RGB or BGR"}.get(found, raw))]
    if unaligned := _alignment_mismatch(spec, shape):
        return [mismatch(config, INPUT, ["input_width_alignment"], unaligned, "write a multiple of 4")]
    return []


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
