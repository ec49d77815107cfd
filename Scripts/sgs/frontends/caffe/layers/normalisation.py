"""Normalisations with statistics of the training, and over neighbouring channels."""

from __future__ import annotations

import numpy as np

from sgs.frontends.caffe.context import CAFFE, LayerContext, Value
from sgs.frontends.caffe.layers.norms import lrn_within_channel
from sgs.numeric.quantise import Array


@CAFFE.row("BatchNorm")
def batch_norm(context: LayerContext) -> list[Value]:
    """(x - mean) / sqrt(variance + eps); the blobs hold sums that a factor, the third, divides (0: by nothing, to 0).
    In NVIDIA's fork a scale and a bias may follow."""
    param, value = context.layer.batch_norm_param, context.bottom
    if param.HasField("use_global_stats") and not param.use_global_stats:
        remedy = "set use_global_stats: true, or remove it, if the network was trained with statistics of its own"
        raise context.refuse("it has use_global_stats: false: it would normalise each batch by itself", remedy)
    channels = _channels(value)
    scaled = {"scale": (channels,), "bias": (channels,)} if param.scale_bias else {}
    mean, variance, factor, *rest = context.blobs(mean=(channels,), variance=(channels,), factor=(1,), **scaled)
    count = factor.reshape(())
    by = np.float32(0) if count == 0 else np.float32(1) / count
    return [_normalised(context, value, mean * by, variance * by, param.eps, *rest)]


@CAFFE.row("BN")
def bn(context: LayerContext) -> list[Value]:
    """Of the forks of segmentation networks: scale, shift, mean, variance; in bn_mode INFERENCE scale and shift alone,
    which hold the statistics."""
    param, value = context.layer.bn_param, context.bottom
    shape = (_channels(value),)
    if param.bn_mode == param.INFERENCE or context.blob_count == 2:
        scale, shift = context.blobs(scale=shape, shift=shape)
        mean, variance = np.zeros(shape, np.float32), np.ones(shape, np.float32)
        return [_normalised(context, value, mean, variance, 0.0, scale, shift)]
    scale, shift, mean, variance = context.blobs(scale=shape, shift=shape, mean=shape, variance=shape)
    return [_normalised(context, value, mean, variance, param.eps, scale, shift)]


def _channels(value: Value) -> int:
    return value.shape[1] if value.rank > 1 else 1


def _normalised(
    context: LayerContext,
    value: Value,
    mean: Array,
    variance: Array,
    eps: float,
    scale: Array | None = None,
    bias: Array | None = None,
) -> Value:
    if not (variance + eps >= 0).all():
        raise context.refuse("its variance has values below 0 in the weight file", "download the caffemodel again")
    scale = np.ones(mean.shape, np.float32) if scale is None else scale
    bias = np.zeros(mean.shape, np.float32) if bias is None else bias
    operands = {"scale": scale, "bias": bias, "mean": mean, "variance": variance}
    constants = [context.const(data, name) for name, data in operands.items()]
    return context.emit("BatchNormalization", [value, *constants], epsilon=eps)


@CAFFE.row("LRN")
def lrn(context: LayerContext) -> list[Value]:
    """x / (k + alpha / n · sum of x² over n neighbouring channels) ^ beta; or over a window of each channel."""
    param = context.layer.lrn_param
    if param.local_size % 2 == 0:
        raise context.refuse(f"its local_size is {param.local_size}", "an odd number is meant")
    if param.norm_region == param.WITHIN_CHANNEL:
        return [lrn_within_channel(context)]
    return [
        context.emit("LRN", [context.bottom], size=param.local_size, alpha=param.alpha, beta=param.beta, bias=param.k)
    ]
