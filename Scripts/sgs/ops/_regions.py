"""What operators share that take regions of pictures: x [N, H, W, C], then operands with an entry for each region."""

from __future__ import annotations

from collections.abc import Sequence

from sgs.ir.graph import Node, Tensor
from sgs.registry import Box, Part, TileRow, whole_box


def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """Regions and channels. Of x each piece takes all rows and columns, as a region may be anywhere."""
    return {0: 1, 3: 1}


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    x, *others = (() if tensor is None else tensor.shape for tensor in operands)
    return Part(((*whole_box(x[:3]), box[3]), *((box[0], *whole_box(o[1:])) for o in others)), dict(node.attrs))


BY_REGION = TileRow(_axes, _part)
