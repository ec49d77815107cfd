"""Division by a norm: Normalize, MVN, LRN within a channel."""

from __future__ import annotations

from sgs.frontends.caffe.context import CAFFE, LayerContext, Value
from sgs.frontends.caffe.layers._arithmetic import affine, number, reduced
from sgs.numeric.quantise import Array

SMALL = 1e-6  # beside a deviation, no part that float32 has


def _by_channel(context: LayerContext, values: Array, x: Value) -> Value:
    return context.const(values.reshape(1, -1, *[1] * (x.rank - 2)))


def _of_rank(context: LayerContext, least: int) -> Value:
    """The bottom. Raises UserError for one of fewer axes."""
    if context.bottom.rank < least:
        raise context.refuse(f"its input has {context.bottom.rank} axes, and it works on {least}", "check its input")
    return context.bottom


@CAFFE.row("Normalize")
def normalize(context: LayerContext) -> list[Value]:
    """x · scale / sqrt(sum of x² + eps), the sum being over channels, and over places where `across_spatial`."""
    p, x = context.layer.norm_param, _of_rank(context, 2)
    axes = list(range(1, x.rank)) if p.across_spatial else [1]
    (scale,) = context.blobs(scale=() if p.channel_shared else (x.shape[1],))
    total = reduced(context, "ReduceSum", context.emit("Mul", [x, x]), axes)
    y = context.emit("Div", [x, context.emit("Sqrt", [affine(context, total, 1, p.eps)])])
    return [context.emit("Mul", [y, context.const(scale) if p.channel_shared else _by_channel(context, scale, x)])]


@CAFFE.row("MVN")
def mvn(context: LayerContext) -> list[Value]:
    """(x - mean) / (deviation + eps). A small eps stands under the root, squared, where it keeps from dividing by 0 as
    well, and the form is one that calibration knows."""
    p = context.layer.mvn_param
    x = _of_rank(context, 2 if p.across_channels else 3)
    axes = list(range(1 if p.across_channels else 2, x.rank))
    centred = context.emit("Sub", [x, reduced(context, "ReduceMean", x, axes)])
    if not p.normalize_variance:
        return [centred]
    variance = reduced(context, "ReduceMean", context.emit("Mul", [centred, centred]), axes)
    if p.eps <= SMALL:
        return [context.emit("Div", [centred, context.emit("Sqrt", [affine(context, variance, 1, p.eps**2)])])]
    return [context.emit("Div", [centred, affine(context, context.emit("Sqrt", [variance]), 1, p.eps)])]


def lrn_within_channel(context: LayerContext) -> Value:
    """x · (1 + alpha · mean of x² in a window)^-beta. Caffe takes no other k here, and counts the padding."""
    p, x = context.layer.lrn_param, _of_rank(context, 4)
    size, pad = p.local_size, (p.local_size - 1) // 2
    told = {"kernel_shape": [size] * 2, "pads": [pad] * 4, "count_include_pad": 1}
    mean = context.emit("AveragePool", [context.emit("Mul", [x, x])], **told)
    factor = context.emit("Pow", [affine(context, mean, p.alpha, 1), number(context, -p.beta)])
    return context.emit("Mul", [x, factor])
