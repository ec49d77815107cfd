"""YOLOv8 (Ultralytics, 2023) and other networks with its heads, before their decoding.

The distance from the centre of a cell to each side of a box is what a softmax over bins expects of 0, 1 ... bins - 1
strides (distribution focal loss: Li et al., Generalized Focal Loss, 2020, equation 3). score = σ(class).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from postprocess._heads import finest_first, grid, heads, rows_of
from sgs.ir.graph import Tensor
from sgs.postprocess.network import Network

BINS = 16


def detections(network: Network, outputs: Sequence[str] | None = None, *, bins: int = BINS, **nms: Any) -> list[Tensor]:
    """Boxes, classes, scores and their number.

    Args:
        outputs: the heads in any order; all outputs where it is None. Of each grid one output [1, H, W, 4 · bins +
            classes], or two: [1, H, W, 4 · bins], and then [1, H, W, classes].
        bins: of a distance.
        nms: as in `Network.nms`.

    Raises:
        ValueError: the heads are none of this kind.
    """
    sides, kinds = _branches(network, finest_first(heads(network, outputs)), 4 * bins)
    shapes = [(x.shape[1], x.shape[2]) for x in sides]
    points, cells = grid(shapes, offset=0.5)
    shares = network.softmax(network.reshape(rows_of(network, sides), 1, -1, 4, bins))
    distances = network.sum(network.mul(shares, np.arange(bins)), -1)  # [1, N, 4]
    scales = np.concatenate([cells, cells], axis=1)
    corners = network.decode_boxes(distances, points, scales, order="ltrb", extent="linear")
    logits = rows_of(network, kinds)
    scores, classes = network.unpack(
        logits, box=-1, confidence=-1, first_class=0, classes=logits.shape[2], logistic=True
    )
    return network.nms(corners, scores, classes, **nms)


def _branches(network: Network, levels: Sequence[Tensor], columns: int) -> tuple[list[Tensor], list[Tensor]]:
    """(boxes, classes) of every grid."""
    sides, kinds = [], []
    for (height, width), group in groupby(levels, key=lambda x: x.shape[1:3]):
        parts = list(group)
        channels = [x.shape[3] for x in parts]
        if len(parts) == 1 and channels[0] > columns:
            parts = [
                network.slice(parts[0], 3, 0, columns),
                network.slice(parts[0], 3, columns, channels[0]),
            ]
        elif len(parts) != 2 or channels[0] != columns:
            wanted = f"one with {columns} + classes, or two with {columns} and with classes"
            raise ValueError(f"the heads of {height} x {width} cells have {channels} channels, not {wanted}")
        sides.append(parts[0])
        kinds.append(parts[1])
    return sides, kinds


def postprocess(network: Network) -> list[Tensor]:
    """All outputs are heads, with 16 bins."""
    return detections(network)
