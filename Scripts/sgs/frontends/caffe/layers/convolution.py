"""Convolution, and the depthwise ones of forks."""

from __future__ import annotations

from sgs.frontends.caffe.context import CAFFE, LayerContext, Value
from sgs.frontends.caffe.layers._window import window_of


@CAFFE.row("Convolution")
def convolution(context: LayerContext) -> list[Value]:
    """Weights [num_output, C / group, ...], bias [num_output]; several bottoms are convolved alike."""
    return _convolved(context, context.layer.convolution_param.group)


@CAFFE.row("ConvolutionDepthwise", "DepthwiseConvolution", "DepthwiseConv")
def convolution_depthwise(context: LayerContext) -> list[Value]:
    """A group for each channel, whatever `group` says."""
    return _convolved(context, context.bottoms[0].shape[1] if context.bottoms and context.bottoms[0].rank > 1 else 1)


def _convolved(context: LayerContext, group: int) -> list[Value]:
    param = context.layer.convolution_param
    outputs = context.positive(param.num_output, "num_output")
    if not context.bottoms:
        raise context.refuse("it has no bottom", "check the prototxt")
    first = context.bottoms[0]
    if param.axis not in (1, 1 - first.rank):
        raise context.refuse(f"its axis is {param.axis}", "an axis of 1 is supported")
    window = window_of(context, param, first)
    channels = first.shape[1]
    if group < 1 or channels % group or outputs % group:
        raise context.refuse(f"{channels} channels and {outputs} outputs do not come in {group} groups")
    wanted = {"weights": (outputs, channels // group, *window.kernel)} | (
        {"bias": (outputs,)} if param.bias_term else {}
    )
    constants = [context.const(data, name) for name, data in zip(wanted, context.blobs(**wanted), strict=True)]
    return [
        context.emit(
            "Conv",
            [value, *constants],
            group=group,
            kernel_shape=window.kernel,
            strides=window.strides,
            pads=window.pads * 2,
            dilations=window.dilations,
        )
        for value in context.bottoms
    ]
