"""Deconvolution: every input adds its kernel to the result. Bilinear upsampling is mostly written with it."""

from __future__ import annotations

from sgs.frontends.caffe.context import CAFFE, LayerContext, Value
from sgs.frontends.caffe.layers._window import window_of


@CAFFE.row("Deconvolution")
def deconvolution(context: LayerContext) -> list[Value]:
    """Weights [C, num_output / group, ...], bias [num_output]; `pad` is cut off the result."""
    param, value = context.layer.convolution_param, context.bottom
    outputs = context.positive(param.num_output, "num_output")
    window = window_of(context, param, value)
    channels, group = value.shape[1], param.group
    if param.axis not in (1, 1 - value.rank):
        raise context.refuse(f"its axis is {param.axis}", "an axis of 1 is supported")
    if group < 1 or channels % group or outputs % group:
        raise context.refuse(f"{channels} channels and {outputs} outputs do not come in {group} groups")
    wanted = {"weights": (channels, outputs // group, *window.kernel)}
    wanted |= {"bias": (outputs,)} if param.bias_term else {}
    constants = [context.const(data, name) for name, data in zip(wanted, context.blobs(**wanted), strict=True)]
    return [
        context.emit(
            "ConvTranspose",
            [value, *constants],
            group=group,
            kernel_shape=window.kernel,
            strides=window.strides,
            pads=window.pads * 2,
            dilations=window.dilations,
        )
    ]
