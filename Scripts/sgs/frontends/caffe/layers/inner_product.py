"""InnerProduct: a fully connected layer."""

from __future__ import annotations

from math import prod

from sgs.frontends.caffe.context import CAFFE, LayerContext, Shape, Value


@CAFFE.row("InnerProduct")
def inner_product(context: LayerContext) -> list[Value]:
    """Axes from `axis` on are one vector of K values; weights [num_output, K], with `transpose` [K, num_output]."""
    param, value = context.layer.inner_product_param, context.bottom
    outputs = context.positive(param.num_output, "num_output")
    axis = context.axis(param.axis)
    kept, inputs = value.shape[:axis], prod(value.shape[axis:])
    wanted: dict[str, Shape] = {"weights": (inputs, outputs) if param.transpose else (outputs, inputs)}
    wanted |= {"bias": (outputs,)} if param.bias_term else {}
    constants = [context.const(data, name) for name, data in zip(wanted, context.blobs(**wanted), strict=True)]
    rows = context.reshape(value, (prod(kept), inputs))
    result = context.emit("Gemm", [rows, *constants], transB=int(not param.transpose))
    return [context.reshape(result, (*kept, outputs))]
