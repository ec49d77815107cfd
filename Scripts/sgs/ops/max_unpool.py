"""MAX_POOL_WITH_ARGMAX and MAX_UNPOOL: the largest values of windows and where they are, and the way back.

Both know ONNX's layout only, since a place is a number: x [N, C, *S], and INT32 indices into it, flat. Attrs of the
first: kernel, strides, dilations, pads (before every axis, then behind), column_major (places count down the columns of
a channel's picture). MAX_UNPOOL puts x at the indices of zeros of attr `shape`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.types import DType
from sgs.ops._float_only import add_float_only
from sgs.ops._window import extent
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, Lowering, OnnxCase, Shape

POOL, UNPOOL = "MAX_POOL_WITH_ARGMAX", "MAX_UNPOOL"


def _infer_pool(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    x, rank = operands[0], len(node.attrs["kernel"])
    assert x is not None
    columns = [node.attrs[name] for name in ("kernel", "strides", "dilations")]
    pads = node.attrs["pads"]
    size = tuple(extent(*row) for row in zip(x.shape[2:], *columns, pads[:rank], pads[rank:], strict=True))
    if len(x.shape) != rank + 2 or min(size) <= 0:
        raise ValueError(f"a window of {node.attrs['kernel']} does not fit an input of {x.shape}")
    return [((*x.shape[:2], *size), x.dtype), ((*x.shape[:2], *size), DType.INT32)]


def _lower_pool(low: Lowering, node: Node) -> None:
    values, places = low.op(
        "MaxPool",
        [low.real(node.inputs[0] or "")],
        outputs=2,
        kernel_shape=list(node.attrs["kernel"]),
        strides=list(node.attrs["strides"]),
        dilations=list(node.attrs["dilations"]),
        pads=list(node.attrs["pads"]),
        storage_order=int(node.attrs["column_major"]),
    )
    low.put_real(node.outputs[0], values)
    low.put(node.outputs[1], low.cast(places, DType.INT32))


def _pool_example(shape: Shape, **attrs: Any) -> Graph:
    rank = len(shape) - 2
    window = {"strides": (2,) * rank, "dilations": (1,) * rank, "pads": (0,) * (2 * rank), "column_major": False}
    build = GraphBuilder()
    y, places = build.node(POOL, [build.input("x", shape)], outputs=["y", "places"], **{**window, **attrs})
    return build.output(y, places)


def _infer_unpool(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    x, places = operands[0], operands[1]
    assert x is not None and places is not None
    if x.shape != places.shape:
        raise ValueError(f"{places.shape} places for values of shape {x.shape}")
    return [(tuple(node.attrs["shape"]), x.dtype)]


def _lower_unpool(low: Lowering, node: Node) -> None:
    x, places = node.inputs[0] or "", node.inputs[1] or ""
    flat = low.const(np.array([-1], np.int64))
    zeros = low.const(np.zeros(low.graph[node.outputs[0]].elements, np.float32))
    where, values = low.op("Reshape", [low.codes(places), flat]), low.op("Reshape", [low.real(x), flat])
    filled = low.op("ScatterElements", [zeros, where, values], axis=0)
    low.put_real(node.outputs[0], low.op("Reshape", [filled, low.const(np.array(node.attrs["shape"], np.int64))]))


def _unpool_example() -> Graph:
    build = GraphBuilder()
    places = np.random.default_rng(0).permutation(2 * 3 * 6 * 8)[: 2 * 3 * 3 * 4].astype(np.int32)
    x = build.input("x", (2, 3, 3, 4))
    return build.output(build(UNPOOL, x, places.reshape(2, 3, 3, 4), output="y", shape=(2, 3, 6, 8)))


add_float_only(
    POOL,
    "largest value of a window, and its place",
    "gives places, which a compiler that works piece by piece cannot number",
    _infer_pool,
    _lower_pool,
    lambda: [
        _pool_example((1, 3, 7, 8), kernel=(3, 2), pads=(1, 0, 1, 1)),
        _pool_example((2, 3, 9), kernel=(3,), dilations=(2,)),
        _pool_example((1, 3, 7, 8), kernel=(2, 2), column_major=True),
    ],
)
add_float_only(
    UNPOOL,
    "values at computed places among zeros",
    "writes to places that the network computes, which a compiler cannot plan",
    _infer_unpool,
    _lower_unpool,
    lambda: [_unpool_example()],
)


# -- ONNX import -------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("MaxUnpool")
def import_max_unpool(ctx: ImportContext) -> list[Tensor]:
    """Places are numbers in the picture that the window says; a larger output_shape has zeros behind it."""
    x, places = ctx.inputs[0], ctx.inputs[1]
    assert x is not None and places is not None
    kernel = ctx.attrs["kernel_shape"]
    rank = len(kernel)
    strides = ctx.attrs.get("strides") or [1] * rank
    pads = ctx.attrs.get("pads") or [0] * (2 * rank)
    size = [(x.shape[i + 2] - 1) * strides[i] - pads[i] - pads[i + rank] + kernel[i] for i in range(rank)]
    shape = (*x.shape[:2], *(int(d) for d in size))
    wanted = ctx.constant(2, "output shape") if len(ctx.inputs) > 2 else None
    y = ctx.emit(UNPOOL, x, places, shape=shape)
    if wanted is None or tuple(wanted) == shape:
        return [y]
    behind = [int(w) - d for w, d in zip(wanted, shape, strict=True)]
    if min(behind) < 0:
        raise ctx.refuse(f"an output of {tuple(wanted)} is smaller than what the window covers, {shape}")
    return [ctx.emit("PAD", y, paddings=tuple((0, b) for b in behind))]


_PLACES = np.array([5, 7, 13, 15, 23, 28]).reshape(1, 1, 2, 3)
ONNX_EXAMPLES.add(
    "MaxUnpool",
    [
        OnnxCase("MaxUnpool", {"x": (1, 1, 2, 3)}, {"i": _PLACES}, {"kernel_shape": [2, 2], "strides": [3, 2]}),
        OnnxCase("MaxUnpool", {"x": (1, 1, 3)}, {"i": _PLACES[:, :, 0]}, {"kernel_shape": [4], "strides": [6]}),
    ],
)
