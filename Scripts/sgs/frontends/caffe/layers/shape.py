"""Layers that leave the values as they are: Concat, Flatten, Reshape, Split."""

from __future__ import annotations

from math import prod

from sgs.frontends.caffe.context import CAFFE, LayerContext, Value


@CAFFE.row("Concat")
def concat(context: LayerContext) -> list[Value]:
    param, values = context.layer.concat_param, context.bottoms
    if param.HasField("axis") and param.HasField("concat_dim"):
        raise context.refuse("it has both axis and concat_dim", "keep one of them")
    axis = context.axis(param.concat_dim if param.HasField("concat_dim") else param.axis)
    return [context.emit("Concat", values, axis=axis) if len(values) > 1 else values[0]]


@CAFFE.row("Flatten")
def flatten(context: LayerContext) -> list[Value]:
    """Axes from `axis` to `end_axis` become one."""
    param, value = context.layer.flatten_param, context.bottom
    first, last = context.axis(param.axis), context.axis(param.end_axis)
    if last < first:
        raise context.refuse(f"its axes go from {first} to {last}", "the last one is not to stand before the first")
    shape = value.shape
    return [context.reshape(value, (*shape[:first], prod(shape[first : last + 1]), *shape[last + 1 :]))]


@CAFFE.row("Reshape")
def reshape(context: LayerContext) -> list[Value]:
    """`num_axes` axes from `axis` on (-1: all of them) become `shape`, in which 0 is the extent that stands there, and
    -1, once, what is left."""
    param, value = context.layer.reshape_param, context.bottom
    first = context.axis(param.axis, end=True)
    last = value.rank if param.num_axes == -1 else first + param.num_axes
    if not first <= last <= value.rank:
        raise context.refuse(f"its num_axes is {param.num_axes} from axis {first} on, of {value.rank} axes")
    dims = list(param.shape.dim)
    if any(dim < -1 for dim in dims) or dims.count(-1) > 1:
        raise context.refuse(f"its shape is {dims}", "extents, 0 and at most one -1 are meant")
    _check_batch(context, first, dims)
    if any(dim == 0 and first + index >= value.rank for index, dim in enumerate(dims)):
        raise context.refuse(f"its shape {dims} copies an extent that its input {list(value.shape)} does not have")
    dims = [dim or value.shape[first + index] for index, dim in enumerate(dims)]
    kept = prod(value.shape[:first]) * prod(value.shape[last:])
    if -1 in dims:
        known = kept * prod(dim for dim in dims if dim > 0)
        if prod(value.shape) % known:
            raise context.refuse(f"its input {list(value.shape)} cannot have the shape {dims}", "check the prototxt")
        dims[dims.index(-1)] = prod(value.shape) // known
    return [context.reshape(value, (*value.shape[:first], *dims, *value.shape[last:]))]


def _check_batch(context: LayerContext, first: int, dims: list[int]) -> None:
    """Raise UserError for a shape that says the batch that the file has and that is 1 here."""
    if context.batch_was > 1 and first == 0 and dims and dims[0] == context.batch_was:
        reason = f"its shape {dims} says the batch of {context.batch_was}, which is made 1"
        raise context.refuse(reason, "write dim: 0 there, or give --input_shapes, which then say the batch")


@CAFFE.row("Split")
def split(context: LayerContext) -> list[Value]:
    """Copies of its bottom."""
    return [context.bottom] * len(context.layer.top)
