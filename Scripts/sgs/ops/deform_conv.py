"""DEFORM_CONV: a convolution whose taps are moved by offsets that the network computes.

x [N, H, W, C], weight [O, KH, KW, C/groups], offset [N, OH, OW, G·KH·KW·2] (of rows, then of columns, for every tap of
each of attr `offset_group` G groups of channels), bias [O], mask [N, OH, OW, G·KH·KW] or absent → [N, OH, OW, O].
Attrs: strides, dilations, pads, groups, offset_group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.types import DType
from sgs.ops._float_only import add_float_only
from sgs.ops._window import conv_output, onnx_window, window_node
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, Lowering, OnnxCase, Shape

OP = "DEFORM_CONV"


def _infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    x, weight, offset = operands[:3]
    mask = operands[4] if len(operands) > 4 else None
    assert x is not None and weight is not None and offset is not None
    outputs, *kernel, depth = weight.shape
    size = conv_output(node, x.shape, kernel)
    taps = node.attrs["offset_group"] * kernel[0] * kernel[1]
    wanted = (x.shape[0], *size, 2 * taps)
    if offset.shape != wanted or depth * node.attrs["groups"] != x.shape[3]:
        raise ValueError(f"offsets {offset.shape} and weights {weight.shape} do not fit an input of {x.shape}")
    if mask is not None and mask.shape != (*wanted[:3], taps):
        raise ValueError(f"a mask of shape {mask.shape}, for offsets of shape {offset.shape}")
    return [((x.shape[0], *size, outputs), x.dtype)]


def _lower(low: Lowering, node: Node) -> None:
    x, weight, offset, bias, mask = (*node.inputs, None, None)[:5]
    data = low.graph[weight or ""].data
    assert data is not None and x and offset
    value = low.op(
        "DeformConv",
        [
            low.real(x, "first"),
            low.const(np.ascontiguousarray(data.transpose(0, 3, 1, 2))),
            low.real(offset, "first"),
            low.real(bias) if bias else "",
            low.real(mask, "first") if mask else "",
        ],
        kernel_shape=list(data.shape[1:3]),
        strides=list(node.attrs["strides"]),
        dilations=list(node.attrs["dilations"]),
        pads=list(node.attrs["pads"]),
        group=node.attrs["groups"],
        offset_group=node.attrs["offset_group"],
    )
    low.put_real(node.outputs[0], value, "first")


def _example(groups: int, offset_group: int, *, mask: bool, **window: Any) -> Graph:
    build, rng = GraphBuilder(), np.random.default_rng(groups)
    node = Node(OP, [], [], window_node(**window))
    size = conv_output(node, (2, 7, 9, 4), (3, 2))
    taps = 6 * offset_group
    operands: list[Any] = [
        build.input("x", (2, 7, 9, 4)),
        rng.normal(0, 0.3, (6, 3, 2, 4 // groups)).astype(np.float32),
    ]
    operands += [build.input("offset", (2, *size, 2 * taps)), rng.normal(0, 1, 6).astype(np.float32)]
    if mask:
        operands.append(build.input("mask", (2, *size, taps)))
    attrs = {name: node.attrs[name] for name in ("strides", "dilations", "pads")}
    return build.output(build(OP, *operands, output="y", **attrs, groups=groups, offset_group=offset_group))


add_float_only(
    OP,
    "convolution with taps at places that are computed",
    "reads its operand at places that the network computes, which codes do not keep",
    _infer,
    _lower,
    lambda: [
        _example(1, 1, mask=False, pads=(1, 0, 1, 1)),
        _example(2, 2, mask=True, strides=(2, 1), dilations=(1, 2)),
    ],
)


# -- ONNX import -------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("DeformConv")
def import_deform_conv(ctx: ImportContext) -> list[Tensor]:
    """Weight and bias are constant."""
    x, _, offset, _, mask = (*ctx.inputs, None, None)[:5]
    weight = ctx.constant(1, "weight")
    bias = ctx.constant(3, "bias") if len(ctx.inputs) > 3 else None
    assert x is not None and weight is not None and offset is not None
    if len(x.shape) != 4:
        raise ctx.refuse(f"a deformable convolution of a tensor of rank {len(x.shape)}", "2-D is supported")
    window = onnx_window(ctx, weight.shape[2:], x.shape[2:])
    y = ctx.emit(
        OP,
        ctx.nhwc(x),
        np.ascontiguousarray(weight.transpose(0, 2, 3, 1), np.float32),
        ctx.nhwc(offset),
        None if bias is None else bias.astype(np.float32),
        None if mask is None else ctx.nhwc(mask),
        strides=window.strides,
        dilations=window.dilations,
        pads=window.pads,
        groups=int(ctx.attrs.get("group", 1)),
        offset_group=int(ctx.attrs.get("offset_group", 1)),
    )
    return [ctx.nchw(y)]


_WEIGHTS = {
    "w": np.linspace(-1, 1, 6 * 2 * 6, dtype=np.float32).reshape(6, 2, 3, 2),
    "b": np.arange(6, dtype=np.float32),
}
_TWO = {"group": 2, "offset_group": 2, "kernel_shape": [3, 2]}
ONNX_EXAMPLES.add(
    "DeformConv",
    [
        OnnxCase(
            "DeformConv",
            {"x": (1, 4, 7, 9), "o": (1, 24, 7, 9), "m": (1, 12, 7, 9)},
            _WEIGHTS,
            {**_TWO, "pads": [1, 0, 1, 1]},
            order=("x", "w", "o", "b", "m"),
            opset=19,
        ),
        OnnxCase(
            "DeformConv",
            {"x": (2, 4, 7, 9), "o": (2, 24, 3, 8)},
            _WEIGHTS,
            {**_TWO, "strides": [2, 1]},
            order=("x", "w", "o"),
            opset=19,
        ),
    ],
)
