"""YOLOv5 (Ultralytics, 2020) and other networks with its heads, before their decoding.

x = (2σ(tx) - ½ + column) · stride, width = anchor · (2σ(tw))², score = σ(objectness) · σ(class).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from postprocess._heads import Anchors, anchored
from sgs.ir.graph import Tensor
from sgs.postprocess.network import Network

ANCHORS: Anchors = (  # of the authors' networks n, s, m, l and x for COCO, strides 8, 16 and 32
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)


def detections(
    network: Network, outputs: Sequence[str] | None = None, *, anchors: Anchors = ANCHORS, **nms: Any
) -> list[Tensor]:
    """Boxes, classes, scores and their number; arguments and errors as in `yolov3.detections`."""
    return anchored(network, outputs, anchors, centre="logistic2", extent="power", **nms)


def postprocess(network: Network) -> list[Tensor]:
    """All outputs are heads, with the anchors of the authors' networks for COCO."""
    return detections(network)
