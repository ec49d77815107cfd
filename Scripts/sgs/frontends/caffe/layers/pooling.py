"""Pooling, by Caffe's rules for its extents.

An axis of H values, padded by p on both sides, has ceil((H + 2p - k) / s) + 1 windows; where either axis has pads the
last one is left out where it would start behind H + p. A mean counts the pads, but nothing behind them: H + 2p values
are the picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sgs.frontends.caffe.context import CAFFE, LayerContext, Value
from sgs.frontends.caffe.layers._window import Window, check_window


@CAFFE.row("Pooling")
def pooling(context: LayerContext) -> list[Value]:
    param, value = context.layer.pooling_param, context.bottom
    if value.rank != 4:
        raise context.refuse(f"its input has {value.rank} axes", "an input of 4 axes is supported")
    if param.pool == param.STOCHASTIC:
        raise context.refuse("its pool is STOCHASTIC", "MAX and AVE are supported")
    window = _window(context, param, value)
    padded = any(window.pads)
    counts = [_windows(context, param, padded, *axis) for axis in zip(value.shape[2:], *_rows(window), strict=True)]
    beyond = [
        max(0, (count - 1) * stride + kernel - extent - pad)
        for count, extent, kernel, stride, pad in zip(counts, value.shape[2:], *_rows(window), strict=True)
    ]
    if param.pool == param.MAX:
        return [_pooled(context, "MaxPool", value, window, [*window.pads, *beyond])]
    if all(end <= pad for end, pad in zip(beyond, window.pads, strict=True)):
        return [_pooled(context, "AveragePool", value, window, [*window.pads, *beyond], count_include_pad=1)]
    if padded:
        pads = [0, 0, *window.pads, 0, 0, *window.pads]
        value = context.emit("Pad", [value, context.const(pads, "pads"), context.const(np.float32(0), "zero")])
    ends = [max(0, end - pad) for end, pad in zip(beyond, window.pads, strict=True)]
    return [_pooled(context, "AveragePool", value, window, [0, 0, *ends], count_include_pad=0)]


def _pooled(context: LayerContext, op: str, value: Value, window: Window, pads: list[int], **attrs: Any) -> Value:
    return context.emit(op, [value], kernel_shape=window.kernel, strides=window.strides, pads=pads, **attrs)


def _rows(window: Window) -> tuple[tuple[int, ...], ...]:
    return window.kernel, window.strides, window.pads


def _window(context: LayerContext, param: Any, value: Value) -> Window:
    """One value for both axes, or `..._h` and `..._w`."""

    def both(what: str, plain: str, default: int) -> tuple[int, ...]:
        named = [f"{what}_h", f"{what}_w"]
        if any(param.HasField(name) for name in named):
            if param.HasField(plain):
                raise context.refuse(f"its {what} is said by {plain} and by {what}_h, {what}_w", "keep one of them")
            return tuple(getattr(param, name) if param.HasField(name) else default for name in named)
        return (getattr(param, plain) if param.HasField(plain) else default,) * 2

    kernel = both("kernel", "kernel_size", 0)
    if param.global_pooling:
        if any(kernel):
            raise context.refuse("it has global_pooling, and a kernel", "keep one of them")
        kernel = value.shape[2:]
    elif not all(kernel):
        raise context.refuse("it says no kernel_size", "check the prototxt")
    window = Window(kernel, both("stride", "stride", 1), both("pad", "pad", 0), (1, 1))
    check_window(context, window)
    if param.global_pooling and (any(window.pads) or window.strides != (1, 1)):
        raise context.refuse("it has global_pooling, and pads or a stride", "keep one of them")
    if any(pad >= extent for pad, extent in zip(window.pads, kernel, strict=True)):
        raise context.refuse("its pads are as large as its kernel", "check the prototxt")
    return window


def _windows(context: LayerContext, param: Any, padded: bool, extent: int, kernel: int, stride: int, pad: int) -> int:
    """How many windows an axis has; `padded`: it or the other one has pads."""
    room = extent + 2 * pad - kernel
    floor = param.round_mode == param.FLOOR or not param.ceil_mode
    count = (room // stride if floor else -(-room // stride)) + 1
    if count < 1:
        raise context.refuse(f"its kernel of {kernel} is larger than its input of {extent}", "check its input")
    if padded and (count - 1) * stride >= extent + pad:
        count -= 1
    if (count - 1) * stride >= extent + pad:
        reason = (
            f"by Caffe's rule its last window starts behind its input of {extent}, and its result there is no value"
        )
        raise context.refuse(reason, "round_mode: FLOOR leaves that window out")
    return count
