"""Convolution, the depthwise ones of forks, and Deconvolution, with which bilinear upsampling is mostly written."""

from __future__ import annotations

from sgs.frontends.caffe.context import CAFFE, LayerContext, Value
from sgs.frontends.caffe.layers._window import window_of


@CAFFE.row("Convolution")
def convolution(context: LayerContext) -> list[Value]:
    """Weights [num_output, C / group, ...], bias [num_output]; several bottoms are convolved alike."""
    return _convolved(context, "Conv", context.layer.convolution_param.group)


@CAFFE.row("ConvolutionDepthwise", "DepthwiseConvolution", "DepthwiseConv")
def convolution_depthwise(context: LayerContext) -> list[Value]:
    """A group for each channel, whatever `group` says."""
    return _convolved(context, "Conv", None)


@CAFFE.row("Deconvolution")
def deconvolution(context: LayerContext) -> list[Value]:
    """Every input adds its kernel to the result, from which `pad` is cut; weights [C, num_output / group, ...]."""
    return _convolved(context, "ConvTranspose", context.layer.convolution_param.group)


def _convolved(context: LayerContext, op_type: str, group: int | None) -> list[Value]:
    param = context.layer.convolution_param
    outputs = context.positive(param.num_output, "num_output")
    first = context.bottoms[0]
    if len({value.shape for value in context.bottoms}) > 1:
        raise context.refuse("its bottoms have other shapes than each other", "check the prototxt")
    if param.axis not in (1, 1 - first.rank):
        raise context.refuse(f"its axis is {param.axis}", "an axis of 1 is supported")
    window = window_of(context, param, first)
    channels = first.shape[1]
    group = channels if group is None else group
    if group < 1 or channels % group or outputs % group:
        raise context.refuse(f"{channels} channels and {outputs} outputs do not come in {group} groups")
    front = (outputs, channels // group) if op_type == "Conv" else (channels, outputs // group)
    wanted = {"weights": (*front, *window.kernel)} | ({"bias": (outputs,)} if param.bias_term else {})
    constants = [context.const(data, name) for name, data in zip(wanted, context.blobs(**wanted), strict=True)]
    return [
        context.emit(
            op_type,
            [value, *constants],
            group=group,
            kernel_shape=window.kernel,
            strides=window.strides,
            pads=window.pads * 2,
            dilations=window.dilations,
        )
        for value in context.bottoms
    ]
