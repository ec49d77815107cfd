"""Layers that compute nothing: Silence, Parameter."""

from __future__ import annotations

from sgs.frontends.caffe.context import CAFFE, LayerContext, Value


@CAFFE.row("Silence")
def silence(context: LayerContext) -> list[Value]:
    """Reads what nobody else wants."""
    return []


@CAFFE.row("Parameter")
def parameter(context: LayerContext) -> list[Value]:
    """A blob that was learned."""
    context.check_bottoms(0)
    shape = tuple(context.positive(extent, "extent") for extent in context.layer.parameter_param.shape.dim)
    (values,) = context.blobs(values=shape)
    return [context.const(values, "values")]
