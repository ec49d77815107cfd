"""NV12_TO_RGB: the planes of an NV12 picture → a picture of pixels (docs/NUMERICS.md §6, eq. 12).

Y [N,Hal,Wal,1] and U with V by turns [N,Hal/2,Wal,1], both UINT8 → [N,H,W,3] UINT8. Attr `size` (H, W): how much of
the picture is wanted, from its first row and column; the rest is alignment. Attr `order`: what the result's channels
are, as indices of R, G, B.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.nv12 import CENTRE, CHROMA, read_nv12, rounded
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    HOST,
    INFER,
    OPERATOR,
    REFERENCE,
    SIM,
    TILE,
    Box,
    Cost,
    HostRow,
    OperatorInfo,
    Part,
    Shape,
    SimRow,
    TileRow,
)

OP = "NV12_TO_RGB"
OPERATOR.add(OP, OperatorInfo("fixed", "NV12 picture (full range, BT.709) to pixels"))
SIM.add(OP, SimRow(custom=True))


@INFER.row(OP)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    """Raises ValueError for planes that do not belong together, or hold less than the size."""
    luma, chroma, size = operands[0], operands[1], tuple(node.attrs["size"])
    assert luma is not None and chroma is not None
    frames, rows, columns, _ = luma.shape
    if columns % 2 or chroma.shape[::2] != (frames, columns) or chroma.shape[1] < -(-size[0] // 2):
        raise ValueError(f"planes of shapes {luma.shape} and {chroma.shape} do not make a picture of size {size}")
    if size[0] > rows or size[1] > columns:
        raise ValueError(f"size {size} of a picture of {rows} rows and {columns} columns")
    return [((frames, *size, 3), DType.UINT8)]


@REFERENCE.row(OP)
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    """Eq. 12."""
    (height, width), (luma, chroma) = node.attrs["size"], (v.astype(np.int64) for v in values if v is not None)
    seen = luma[:, :height, :width, 0]
    u, v = (
        chroma[:, :, place::2, 0].repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width] - CENTRE for place in (0, 1)
    )
    channels = [rounded(1024 * seen + CHROMA[c][0] * u + CHROMA[c][1] * v) for c in node.attrs["order"]]
    return [np.clip(np.stack(channels, axis=3), 0, 255).astype(np.uint8)]


def _make(graph: Graph, node: Node) -> Callable[[list[Array], list[Array]], None]:
    def run(inputs: list[Array], outputs: list[Array]) -> None:
        for luma, chroma, result in zip(inputs[0], inputs[1], outputs[0], strict=True):
            read_nv12(luma[..., 0], chroma[..., 0], node.attrs["order"], result)

    return run


HOST.add(OP, HostRow(_make))


@COST.row(OP)
def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """A sum and a clamp per value, and eight operations per pair of U and V."""
    frames, rows, columns, channels = results[0].shape
    pairs = frames * -(-rows // 2) * -(-columns // 2)
    return Cost(vector_ops=2 * channels * frames * rows * columns + 8 * pairs)


def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """Pictures, and rows and columns by twos, which share their U and V."""
    return {0: 1, 1: 2, 2: 2}


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    """Rows that the result has whole are read with their alignment, so that they are one run of bytes."""
    luma = operands[0]
    assert luma is not None
    frames, (top, bottom), (left, right), _ = box
    rows = top // 2, -(-bottom // 2)
    whole = (left, right) == (0, results[0].shape[2])
    columns = (0, luma.shape[2]) if whole else (left, -(-right // 2) * 2)
    read = (frames, (top, bottom), columns, (0, 1)), (frames, rows, columns, (0, 1))
    return Part(read, {**node.attrs, "size": (bottom - top, right - left)})


TILE.add(OP, TileRow(_axes, _part))


def planes_are_bytes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """Both planes of an NV12 picture are UINT8."""
    return all(plane is not None and plane.dtype is DType.UINT8 for plane in operands)


CONSTRAINTS.add(OP, (planes_are_bytes,))


def _example(aligned: tuple[int, int], size: tuple[int, int], order: tuple[int, ...], frames: int = 1) -> Graph:
    build = GraphBuilder()
    luma = build.input("y", (frames, *aligned, 1), DType.UINT8)
    chroma = build.input("uv", (frames, aligned[0] // 2, aligned[1], 1), DType.UINT8)
    return build.output(build(OP, luma, chroma, output="picture", size=size, order=order))


EXAMPLES.add(
    OP,
    lambda: [
        _example((6, 10), (6, 10), (0, 1, 2)),
        _example((6, 10), (5, 9), (2, 1, 0), frames=2),
        _example((12, 16), (7, 11), (2, 1, 0)),
        _example((2, 2), (1, 1), (0, 1, 2)),
        _example((22, 20), (21, 19), (0, 1, 2)),
    ],
)
