"""DEPTH_TO_SPACE and SPACE_TO_DEPTH: channels against pixels. Attr `block_size` b; channels in TFLite's order.

    SPACE_TO_DEPTH: y[n, h, w, (i·b + j)·C + c] = x[n, h·b + i, w·b + j, c]     x [N, H·b, W·b, C] → y [N, H, W, b²·C]
    DEPTH_TO_SPACE: the inverse

A fixed graph does both on the host: seen as [N·H, b, W, b·C] both exchange the middle axes, so b strided copies of b·C
values at a time do it. UINT8 and INT16 of 416×416×3, b = 2: 0.09 ms; onnxruntime's Reshape-Transpose-Reshape takes
0.73 ms, its own kernels know no INT16 and read channels first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._layout import fixed
from sgs.ops._move import move_cost
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FLOAT,
    HOST,
    IMPORT_ONNX,
    INFER,
    LAYOUT,
    ONNX_EXAMPLES,
    OPERATOR,
    QUANTISE,
    REFERENCE,
    SIM,
    TILE,
    Box,
    HostRow,
    ImportContext,
    Lowering,
    OnnxCase,
    OperatorInfo,
    Part,
    QuantRule,
    Shape,
    SimRow,
    TileRow,
)

SPREAD, STACK = "DEPTH_TO_SPACE", "SPACE_TO_DEPTH"
Inference = list[tuple[tuple[int, ...], DType]]

OPERATOR.add(SPREAD, OperatorInfo("both", "channels become blocks of pixels"))
OPERATOR.add(STACK, OperatorInfo("both", "blocks of pixels become channels"))
SIM.add(SPREAD, SimRow("DepthToSpaceOptions", fields={"block_size": "block_size"}))
SIM.add(STACK, SimRow("SpaceToDepthOptions", fields={"block_size": "block_size"}))
for _op in (SPREAD, STACK):
    LAYOUT.add(_op, fixed)
    QUANTISE.add(_op, QuantRule("move", moved=lambda node: (0,)))
    COST.add(_op, move_cost)
    CONSTRAINTS.add(_op, ())


@INFER.row(SPREAD)
def infer_spread(node: Node, operands: Sequence[Tensor | None]) -> Inference:
    x, block = operands[0], node.attrs["block_size"]
    assert x is not None
    n, h, w, c = x.shape
    if block < 1 or c % (block * block):
        raise ValueError(f"{c} channels do not make blocks of {block}×{block} pixels")
    return [((n, h * block, w * block, c // (block * block)), x.dtype)]


@INFER.row(STACK)
def infer_stack(node: Node, operands: Sequence[Tensor | None]) -> Inference:
    x, block = operands[0], node.attrs["block_size"]
    assert x is not None
    n, h, w, c = x.shape
    if block < 1 or h % block or w % block:
        raise ValueError(f"{h}×{w} pixels do not divide into blocks of {block}×{block}")
    return [((n, h // block, w // block, c * block * block), x.dtype)]


def _parted(op: str, shape: Sequence[int], block: int) -> tuple[int, int, int, int]:
    """The operand as [A, B, C, D], whose axes B and C change places."""
    n, h, w, c = shape
    return (n * h, w, block, c // block) if op == SPREAD else (n * h // block, block, w // block, block * c)


def _lower_integers(low: Lowering, node: Node) -> bool:
    """Other types than binary32, which onnxruntime's kernels do not take, by exchanging axes; False for binary32."""
    x, y = low.graph[node.inputs[0] or ""], low.graph[node.outputs[0]]
    if x.dtype is DType.FLOAT32:
        return False
    parted = low.const(np.array(_parted(node.op, x.shape, node.attrs["block_size"]), np.int64))
    turned = low.op("Transpose", [low.op("Reshape", [low.codes(x.name), parted])], perm=(0, 2, 1, 3))
    low.put(y.name, low.op("Reshape", [turned, low.const(np.array(y.shape, np.int64))]))
    return True


@FLOAT.row(SPREAD)
def lower_spread(low: Lowering, node: Node) -> None:
    """By onnxruntime's kernel, in the layout of the convolutions before and after it."""
    if _lower_integers(low, node):
        return
    x = low.codes(node.inputs[0] or "", "first")
    y = low.op("DepthToSpace", [x], blocksize=node.attrs["block_size"], mode="DCR")
    low.put(node.outputs[0], y, "first")


@FLOAT.row(STACK)
def lower_stack(low: Lowering, node: Node) -> None:
    """By onnxruntime's kernel, in the layout of the convolution behind it."""
    if _lower_integers(low, node):
        return
    x = low.codes(node.inputs[0] or "", "first")
    low.put(node.outputs[0], low.op("SpaceToDepth", [x], blocksize=node.attrs["block_size"]), "first")


def _make(graph: Graph, node: Node) -> Callable[[list[Array], list[Array]], None]:
    """Copies pieces of D values, a plane of [A, B or C] of them at a time: as few planes as the block has rows."""
    x = graph[node.inputs[0] or ""]
    a, b, c, d = _parted(node.op, x.shape, node.attrs["block_size"])
    piece = np.dtype((np.void, d * x.dtype.numpy.itemsize))

    def run(inputs: list[Array], outputs: list[Array]) -> None:
        source = inputs[0].reshape(a, b, c, d).view(piece)[..., 0]  # [A, B, C] of pieces
        target = outputs[0].reshape(a, c, b, d).view(piece)[..., 0]  # [A, C, B]
        if b < c:
            for k in range(b):
                target[:, :, k] = source[:, k]
        else:
            for k in range(c):
                target[:, k] = source[:, :, k]

    return run


HOST.add(SPREAD, HostRow(_make))
HOST.add(STACK, HostRow(_make))


@REFERENCE.row(SPREAD)
def reference_spread(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    x, b = values[0], node.attrs["block_size"]
    assert x is not None
    n, h, w, c = x.shape
    return [x.reshape(n, h, w, b, b, c // b**2).transpose(0, 1, 3, 2, 4, 5).reshape(n, h * b, w * b, c // b**2)]


@REFERENCE.row(STACK)
def reference_stack(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    x, b = values[0], node.attrs["block_size"]
    assert x is not None
    n, h, w, c = x.shape
    return [x.reshape(n, h // b, b, w // b, b, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, h // b, w // b, c * b**2)]


# -- tiles -----------------------------------------------------------------------------------------------------------
def _spread_part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    x, block = operands[0], node.attrs["block_size"]
    assert x is not None
    pixels = [(begin // block, end // block) for begin, end in box[1:3]]
    return Part(((box[0], *pixels, (0, x.shape[3])),), dict(node.attrs))


def _stack_part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    x, block = operands[0], node.attrs["block_size"]
    assert x is not None
    pixels = [(begin * block, end * block) for begin, end in box[1:3]]
    return Part(((box[0], *pixels, (0, x.shape[3])),), dict(node.attrs))


def _spread_axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """Pictures, rows and columns, between blocks. Channels of one pixel come from all channels."""
    return {0: 1, 1: node.attrs["block_size"], 2: node.attrs["block_size"]}


def _stack_axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """Pictures, rows and columns. Channels of one pixel come from a whole block."""
    return {0: 1, 1: 1, 2: 1}


TILE.add(SPREAD, TileRow(_spread_axes, _spread_part))
TILE.add(STACK, TileRow(_stack_axes, _stack_part))


# -- ONNX import -----------------------------------------------------------------------------------------------------
def _check_mode(ctx: ImportContext) -> None:
    if ctx.attrs.get("mode", "DCR") not in ("DCR", "CRD"):
        raise ctx.refuse(f"mode {ctx.attrs['mode']} is not defined", "use DCR or CRD")


@IMPORT_ONNX.row("DepthToSpace")
def import_depth_to_space(ctx: ImportContext) -> list[Tensor]:
    """Mode DCR has our order of channels; CRD counts the pixels of a block fastest, so its channels are turned."""
    x, block = ctx.inputs[0], int(ctx.attrs["blocksize"])
    assert x is not None
    channels = x.shape[1]
    _check_mode(ctx)
    if block < 1 or channels % block**2:
        raise ctx.refuse(f"{channels} channels do not make blocks of {block}×{block} pixels")
    y = ctx.nhwc(x)
    if ctx.attrs.get("mode", "DCR") == "CRD" and channels > block**2 > 1:
        order = np.arange(channels, dtype=np.int32).reshape(-1, block**2).T.reshape(-1)
        y = ctx.emit("GATHER", y, order, axis=3)
    return [ctx.nchw(ctx.emit(SPREAD, y, block_size=block))]


@IMPORT_ONNX.row("SpaceToDepth")
def import_space_to_depth(ctx: ImportContext) -> list[Tensor]:
    """Mode CRD (operator set 28) counts the pixels of a block fastest."""
    x, block = ctx.inputs[0], int(ctx.attrs["blocksize"])
    assert x is not None
    _check_mode(ctx)
    if block < 1 or x.shape[2] % block or x.shape[3] % block:
        raise ctx.refuse(f"{x.shape[2]}×{x.shape[3]} pixels do not divide into blocks of {block}×{block}")
    y, channels = ctx.emit(STACK, ctx.nhwc(x), block_size=block), x.shape[1]
    if ctx.attrs.get("mode", "DCR") == "CRD" and channels > 1 < block:
        order = np.arange(channels * block**2, dtype=np.int32).reshape(block**2, channels).T.reshape(-1)
        y = ctx.emit("GATHER", y, order, axis=3)
    return [ctx.nchw(y)]


_DEEP: dict[str, Shape] = {"x": (2, 12, 5, 7)}
ONNX_EXAMPLES.add(
    "DepthToSpace",
    [
        OnnxCase("DepthToSpace", _DEEP, attrs={"blocksize": 2}, opset=9),
        OnnxCase("DepthToSpace", _DEEP, attrs={"blocksize": 2, "mode": "DCR"}),
        OnnxCase("DepthToSpace", _DEEP, attrs={"blocksize": 2, "mode": "CRD"}),
        OnnxCase("DepthToSpace", {"x": (1, 9, 5, 7)}, attrs={"blocksize": 3, "mode": "CRD"}),
    ],
)
ONNX_EXAMPLES.add(
    "SpaceToDepth",
    [
        OnnxCase("SpaceToDepth", {"x": (2, 3, 10, 14)}, attrs={"blocksize": 2}),
        OnnxCase("SpaceToDepth", {"x": (1, 5, 9, 6)}, attrs={"blocksize": 3}),
    ],
)


def _example(op: str, shape: tuple[int, ...], block: int) -> Graph:
    build = GraphBuilder()
    return build.output(build(op, build.input("x", shape), output="y", block_size=block))


EXAMPLES.add(SPREAD, lambda: [_example(SPREAD, (1, 5, 7, 12), 2), _example(SPREAD, (2, 2, 5, 9), 3)])
EXAMPLES.add(STACK, lambda: [_example(STACK, (1, 10, 14, 3), 2), _example(STACK, (2, 9, 6, 5), 3)])
