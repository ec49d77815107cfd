"""What heads on grids of cells have in common. Rows are ordered by level, then y, x and anchor of the cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.postprocess.network import Network

Anchors = Sequence[Sequence[tuple[float, float]]]
"""Of each level, the finest first: (width, height) in pixels of the network's picture."""


def heads(network: Network, names: Sequence[str] | None) -> list[Tensor]:
    """The named outputs, or all of them: [1, H, W, channels] each. Raises ValueError."""
    tensors = [network.output(name) for name in (network.outputs if names is None else names)]
    for tensor in tensors:
        if len(tensor.shape) != 4 or tensor.shape[0] != 1:
            raise ValueError(f"needed are heads [1, H, W, channels]; '{tensor.name}' is {list(tensor.shape)}")
    return tensors


def finest_first(tensors: Sequence[Tensor]) -> list[Tensor]:
    """By the number of cells."""
    return sorted(tensors, key=lambda tensor: -tensor.shape[1] * tensor.shape[2])


def rows_of(network: Network, levels: Sequence[Tensor], per_cell: int = 1) -> Tensor:
    """[1, H, W, A · K] each → [1, N, K]."""
    return network.concat([network.reshape(x, 1, -1, x.shape[3] // per_cell) for x in levels], 1)


def grid(shapes: Sequence[tuple[int, int]], *, offset: float, per_cell: int = 1) -> tuple[Array, Array]:
    """(points [N, 2], extents of the cells [N, 2]) of grids (rows, columns), in (y, x) as shares of the picture; a
    point is `offset` cells from the corner of its own."""
    points, extents = [], []
    for rows, columns in shapes:
        places = np.indices((rows, columns)).reshape(2, -1).T.repeat(per_cell, axis=0)
        points.append((places + offset) / (rows, columns))
        extents.append(np.tile((1 / rows, 1 / columns), (len(places), 1)))
    return np.concatenate(points), np.concatenate(extents)


def anchored(
    network: Network, outputs: Sequence[str] | None, anchors: Anchors, *, centre: str, extent: str, **nms: Any
) -> list[Tensor]:
    """Detections of heads [1, H, W, A · (5 + classes)]: for each anchor x, y, width, height, objectness and classes,
    logits all of them. Raises ValueError."""
    levels = finest_first(heads(network, outputs))
    if len(levels) != len(anchors):
        raise ValueError(f"there are {len(levels)} heads, and anchors of {len(anchors)}")
    per_cell = len(anchors[0])
    channels = levels[0].shape[3]
    for tensor, of_level in zip(levels, anchors, strict=True):
        if len(of_level) != per_cell or tensor.shape[3] != channels or channels % per_cell or channels // per_cell < 6:
            reason = f"'{tensor.name}' has {tensor.shape[3]} channels, not {len(of_level)} anchors of 5 + classes"
            raise ValueError(f"{reason}, as many in every head")
    height, width = network.size
    shapes = [(x.shape[1], x.shape[2]) for x in levels]
    corners, cells = grid(shapes, offset=0, per_cell=per_cell)
    sizes = [
        np.tile(np.asarray(of_level)[:, ::-1] / (height, width), (rows * columns, 1))
        for of_level, (rows, columns) in zip(anchors, shapes, strict=True)
    ]
    rows = rows_of(network, levels, per_cell)
    boxes, scores, classes = network.unpack(
        rows, box=0, confidence=4, first_class=5, classes=channels // per_cell - 5, logistic=True
    )
    scales = np.concatenate([cells, np.concatenate(sizes)], axis=1)
    found = network.decode_boxes(boxes, corners, scales, order="xywh", centre=centre, extent=extent)
    return network.nms(found, scores, classes, **nms)
