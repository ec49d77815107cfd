"""Functions of single values."""

from __future__ import annotations

import numpy as np

from sgs.frontends.caffe.context import CAFFE, LayerContext, Value
from sgs.frontends.caffe.layers._arithmetic import affine, number, rectified


@CAFFE.row("ReLU")
def relu(context: LayerContext) -> list[Value]:
    return [rectified(context, context.bottom, context.layer.relu_param.negative_slope)]


@CAFFE.row("ReLU6")
def relu6(context: LayerContext) -> list[Value]:
    """min(max(x, 0), 6)."""
    if context.layer.relu6_param.negative_slope:
        raise context.refuse("it has a negative_slope", "a slope of 0 is supported")
    bounds = [context.const(np.float32(bound), "bound") for bound in (0, 6)]
    return [context.emit("Clip", [context.bottom, *bounds])]


@CAFFE.row("PReLU")
def prelu(context: LayerContext) -> list[Value]:
    """max(x, 0) + slope · min(x, 0), a slope for each channel, or one."""
    value = context.bottom
    channels = value.shape[1] if value.rank > 1 else 1
    (slope,) = context.blobs(slopes=(1 if context.layer.prelu_param.channel_shared else channels,))
    return [context.emit("PRelu", [value, context.const(slope.reshape(-1, *[1] * (value.rank - 2)), "slopes")])]


@CAFFE.row("Sigmoid")
def sigmoid(context: LayerContext) -> list[Value]:
    return [context.emit("Sigmoid", [context.bottom])]


@CAFFE.row("TanH")
def tanh(context: LayerContext) -> list[Value]:
    return [context.emit("Tanh", [context.bottom])]


@CAFFE.row("Softmax")
def softmax(context: LayerContext) -> list[Value]:
    value = context.bottom
    return [context.emit("Softmax", [value], axis=context.axis(context.layer.softmax_param.axis))]


@CAFFE.row("SoftmaxWithLoss")
def softmax_with_loss(context: LayerContext) -> list[Value]:
    """What the loss is computed of: networks that run have no labels."""
    context.warn("it is read as Softmax")
    value = context.bottoms[0]
    return [context.emit("Softmax", [value], axis=context.axis(context.layer.softmax_param.axis))] * len(
        context.layer.top
    )


@CAFFE.row("Dropout")
def dropout(context: LayerContext) -> list[Value]:
    """Nothing, but in forks that scale at test time instead of in training."""
    param, value = context.layer.dropout_param, context.bottom
    if param.scale_train:
        return [value]
    return [context.emit("Mul", [value, context.const(np.float32(1 - param.dropout_ratio), "keep")])]


@CAFFE.row("Power")
def power(context: LayerContext) -> list[Value]:
    """(shift + scale · x) ^ power."""
    param, value = context.layer.power_param, context.bottom
    inner = affine(context, value, param.scale, param.shift)
    return [inner if param.power == 1 else context.emit("Pow", [inner, number(context, param.power)])]
