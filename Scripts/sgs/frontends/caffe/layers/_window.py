"""What layers that move a window over pictures share: its extents, per axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sgs.frontends.caffe.context import LayerContext, Value

LARGEST = 1 << 20  # of a kernel, stride or pad; more is a damaged file


@dataclass(frozen=True)
class Window:
    """Per axis, outermost first. `pads` are those in front and behind alike."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]


def window_of(context: LayerContext, param: Any, value: Value) -> Window:
    """The window of a ConvolutionParameter over the axes of a value behind its channels. Raises UserError."""
    axes = value.rank - 2
    if axes < 1:
        raise context.refuse(f"its input has {value.rank} axes, none of them of a picture", "check its input")
    found = Window(
        kernel=_per_axis(context, param, "kernel", param.kernel_size, axes, None),
        strides=_per_axis(context, param, "stride", param.stride, axes, 1),
        pads=_per_axis(context, param, "pad", param.pad, axes, 0),
        dilations=_spread(context, "dilation", param.dilation, axes, 1),
    )
    check_window(context, found)
    return found


def check_window(context: LayerContext, window: Window) -> None:
    """Raise UserError for extents that no window has."""
    for what, values, low in (
        ("kernel", window.kernel, 1),
        ("stride", window.strides, 1),
        ("pad", window.pads, 0),
        ("dilation", window.dilations, 1),
    ):
        if any(not low <= value <= LARGEST for value in values):
            raise context.refuse(f"its {what} is {', '.join(map(str, values))}", f"a {what} of {low} or more is meant")


def _per_axis(
    context: LayerContext, param: Any, what: str, values: Sequence[int], axes: int, default: int | None
) -> tuple[int, ...]:
    """An extent that is said once for all axes, once for each, or by `what`_h and `what`_w."""
    high, wide = (f"{what}_{axis}" for axis in "hw")
    if param.HasField(high) or param.HasField(wide):
        if values:
            raise context.refuse(f"its {what} is said by {what}_h, {what}_w and without them", "keep one of them")
        if axes != 2:
            raise context.refuse(f"{what}_h and {what}_w are for pictures, its input has {axes + 2} axes")
        if default is None and not (param.HasField(high) and param.HasField(wide)):
            raise context.refuse(f"of {what}_h and {what}_w one is missing", "give both")
        return tuple(getattr(param, name) if param.HasField(name) else default or 0 for name in (high, wide))
    return _spread(context, what, values, axes, default)


def _spread(context: LayerContext, what: str, values: Sequence[int], axes: int, default: int | None) -> tuple[int, ...]:
    if not values and default is None:
        raise context.refuse(f"it says no {what}", "check the prototxt")
    found = tuple(values) or (default or 0,)
    if len(found) not in (1, axes):
        raise context.refuse(f"it has {len(found)} values of its {what} for {axes} axes", "give one, or one for each")
    return found * axes if len(found) == 1 else found
