"""Layers that make less of their input: Reduction, ArgMax; and Embed, which looks rows up."""

from __future__ import annotations

from math import prod

from sgs.frontends.caffe.context import CAFFE, LayerContext, Value
from sgs.frontends.caffe.layers._arithmetic import affine, reduced

FLOAT, INT64 = 1, 7  # ONNX's numbers of types
_OPERATIONS = {1: "ReduceSum", 2: "ReduceL1", 3: "ReduceSumSquare", 4: "ReduceMean"}


@CAFFE.row("Reduction")
def reduction(context: LayerContext) -> list[Value]:
    """Over all axes from `axis` on, which the result does not have."""
    p, x = context.layer.reduction_param, context.bottom
    axes = range(context.axis(p.axis), x.rank)
    return [affine(context, reduced(context, _OPERATIONS[p.operation], x, axes, keep=False), p.coeff, 0)]


def _largest(context: LayerContext, x: Value, axis: int, count: int) -> tuple[Value, Value]:
    """The `count` largest values along an axis, and where they are, as numbers. Of equal values Caffe gives the last
    one first; TopK does not."""
    if not 0 < count <= x.shape[axis]:
        raise context.refuse(f"it asks for the {count} largest of {x.shape[axis]} values", "check its top_k")
    if count == 1:
        values = reduced(context, "ReduceMax", x, [axis])
        places = context.emit("ArgMax", [x], axis=axis, keepdims=1, select_last_index=1)
    else:
        values, places = context.emit_many("TopK", [x, context.const([count])], 2, axis=axis)
    return values, context.emit("Cast", [places], to=FLOAT)


@CAFFE.row("ArgMax")
def arg_max(context: LayerContext) -> list[Value]:
    """Along an axis: places, or with out_max_val values instead. Without one, of all values of a sample: places
    [N, 1, top_k], with out_max_val [N, 2, top_k] with values behind them; ones follow up to the input's rank."""
    p, x = context.layer.argmax_param, context.bottom
    if p.HasField("axis"):
        values, places = _largest(context, x, context.axis(p.axis), p.top_k)
        return [values if p.out_max_val else places]
    rows = context.reshape(x, (x.shape[0], prod(x.shape[1:])) if x.shape else (1, 1))
    values, places = (context.reshape(v, (v.shape[0], 1, p.top_k)) for v in _largest(context, rows, 1, p.top_k))
    both = context.emit("Concat", [places, values], axis=1) if p.out_max_val else places
    return [context.reshape(both, (*both.shape, *[1] * (x.rank - 3)))]


@CAFFE.row("Embed")
def embed(context: LayerContext) -> list[Value]:
    """Rows of a table, whose numbers Caffe has as floats."""
    p, x = context.layer.embed_param, context.bottom
    width = context.positive(p.num_output, "num_output")
    shapes = {"table": (context.positive(p.input_dim, "input_dim"), width), "bias": (width,)}
    table, *bias = context.blobs(**{name: shapes[name] for name in list(shapes)[: 1 + p.bias_term]})
    rows = context.emit("Gather", [context.const(table), context.emit("Cast", [x], to=INT64)], axis=0)
    return [context.emit("Add", [rows, context.const(bias[0])]) if bias else rows]
