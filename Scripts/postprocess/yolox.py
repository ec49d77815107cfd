"""YOLOX (Ge et al.: YOLOX, exceeding YOLO series in 2021) exported as its authors do, without decoding.

x = (tx + column) · stride, width = exp(tw) · stride, score = objectness · class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from postprocess._heads import grid
from sgs.ir.graph import Tensor
from sgs.postprocess.network import Network

STRIDES = (8, 16, 32)


def detections(
    network: Network,
    output: str | None = None,
    *,
    strides: Sequence[int] = STRIDES,
    logistic: bool = False,
    **nms: Any,
) -> list[Tensor]:
    """Boxes, classes, scores and their number.

    Args:
        output: [1, N, 5 + classes], a row for each cell of each stride; may be left out of a network with one output.
        strides: in the order of the rows.
        logistic: objectness and classes are logits; as the authors export it they are not.
        nms: as in `Network.nms`.

    Raises:
        ValueError: the output is none of this kind.
    """
    rows = network.output(output)
    height, width = network.size
    shapes = [(height // stride, width // stride) for stride in strides]
    corners, cells = grid(shapes, offset=0)
    if len(rows.shape) != 3 or rows.shape[:2] != (1, len(corners)) or rows.shape[2] < 6:
        wanted = f"[1, {len(corners)}, 5 + classes] for {height} x {width} and strides {list(strides)}"
        raise ValueError(f"needed is {wanted}; '{rows.name}' is {list(rows.shape)}")
    boxes, scores, classes = network.unpack(
        rows, box=0, confidence=4, first_class=5, classes=rows.shape[2] - 5, logistic=logistic
    )
    scales = np.concatenate([cells, cells], axis=1)
    found = network.decode_boxes(boxes, corners, scales, order="xywh", centre="linear", extent="exp")
    return network.nms(found, scores, classes, **nms)


def postprocess(network: Network) -> list[Tensor]:
    """The network's only output, with the authors' strides."""
    return detections(network)
