"""Put what makes boxes of the head maps behind ``onnx_yolo_shapes``: ConvertTool's ``--postprocess postprocess.py``.

The same as ``decode.py``, which describes the maps, does outside of the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from postprocess import grid, rows_of

if TYPE_CHECKING:
    from postprocess import Network
    from sgs.ir import Tensor

LEVELS = (("box_p3", "cls_p3"), ("box_p4", "cls_p4"), ("box_p5", "cls_p5"))
"""Output names per pyramid level."""


def postprocess(network: Network) -> list[Tensor]:
    """Return boxes, classes, scores and their number."""
    maps = [[network.output(name) for name in level] for level in zip(*LEVELS, strict=True)]
    boxes, logits = (rows_of(network, levels) for levels in maps)  # [1, N, 4] and [1, N, classes]
    points, cells = grid([(x.shape[1], x.shape[2]) for x in maps[0]], offset=0.5)
    distances = network.relu(boxes)  # left, top, right, bottom, in cells
    scales = np.concatenate([cells, cells], axis=1)
    corners = network.decode_boxes(distances, points, scales, order="ltrb", extent="linear")
    scores, classes = network.unpack(
        logits, box=-1, confidence=-1, first_class=0, classes=logits.shape[2], logistic=True
    )
    return network.nms(corners, scores, classes, score_threshold=0.01, iou_threshold=0.5)
