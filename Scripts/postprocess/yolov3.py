"""YOLOv3 (Redmon, Farhadi: YOLOv3, an incremental improvement, 2018): heads before their decoding.

x = (σ(tx) + column) · stride, width = anchor · exp(tw), score = σ(objectness) · σ(class).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from postprocess._heads import Anchors, anchored
from sgs.ir.graph import Tensor
from sgs.postprocess.network import Network

ANCHORS: Anchors = (  # of the authors' network for COCO, strides 8, 16 and 32
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)


def detections(
    network: Network, outputs: Sequence[str] | None = None, *, anchors: Anchors = ANCHORS, **nms: Any
) -> list[Tensor]:
    """Boxes, classes, scores and their number.

    Args:
        outputs: the heads [1, H, W, anchors · (5 + classes)] in any order; all outputs where it is None.
        anchors: of each head, the finest first: (width, height) in pixels of the network's picture.
        nms: as in `Network.nms`.

    Raises:
        ValueError: the heads are none of this kind.
    """
    return anchored(network, outputs, anchors, centre="logistic", extent="exp", **nms)


def postprocess(network: Network) -> list[Tensor]:
    """All outputs are heads, with the anchors of the authors' network for COCO."""
    return detections(network)
