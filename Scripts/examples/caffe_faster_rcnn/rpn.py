"""The Proposal layer between the two stages of Faster R-CNN, in numpy: no part of either network.

Boxes are corners (x1, y1, x2, y2) in pixels of the network's input. A box is coded against an anchor, or a region, as
(dx, dy, dw, dh): its centre moves by dx, dy widths and heights, its sides grow by the factors exp(dw), exp(dh).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LARGEST_GROWTH = np.log(1000 / 16)  # of a side, as a logarithm: keeps exp() of an untrained network finite


def anchors_of(height: int, width: int, stride: int, sizes: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """float32 [height * width * A, 4]: at every cell's centre, every size (the root of the area) in every ratio
    (height to width); A = len(ratios) * len(sizes), the sizes of the first ratio first.
    """
    sides = [(size / ratio**0.5, size * ratio**0.5) for ratio in ratios for size in sizes]
    half = np.array(sides) / 2  # [A, 2] as (w, h)
    rows, columns = np.mgrid[0:height, 0:width]
    centres = (np.stack([columns, rows], -1).reshape(-1, 1, 2) + 0.5) * stride
    return np.concatenate([centres - half, centres + half], -1).reshape(-1, 4).astype(np.float32)


def encode_boxes(boxes: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Codes [N, 4] of boxes [N, 4] against references [N, 4]: what a network is trained to say."""
    low, high = references[:, :2], references[:, 2:]
    moved = (boxes[:, :2] + boxes[:, 2:] - low - high) / 2 / (high - low)
    return np.concatenate([moved, np.log((boxes[:, 2:] - boxes[:, :2]) / (high - low))], 1)


def decode_boxes(codes: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Boxes [N, 4] of codes [N, 4] against references [N, 4]."""
    low, high = references[:, :2], references[:, 2:]
    centres = (low + high) / 2 + codes[:, :2] * (high - low)
    half = (high - low) * np.exp(np.minimum(codes[:, 2:], LARGEST_GROWTH)) / 2
    return np.concatenate([centres - half, centres + half], 1)


def clip_boxes(boxes: np.ndarray, height: float, width: float) -> np.ndarray:
    """Boxes [N, 4] cut at the borders of a picture."""
    return np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))


def iou_matrix(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union [N, M] of boxes [N, 4] and [M, 4]."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(-1)
    areas = [(side[:, 2:] - side[:, :2]).prod(-1) for side in (boxes, others)]
    return overlap / np.maximum(areas[0][:, None] + areas[1][None] - overlap, 1e-9)


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float, most: int) -> np.ndarray:
    """Indices of at most `most` boxes, the best score first, none of which overlaps a better one by more than the
    threshold (non-maximum suppression)."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while order.size and len(kept) < most:
        kept.append(int(order[0]))
        order = order[1:][iou_matrix(boxes[order[:1]], boxes[order[1:]])[0] <= threshold]
    return np.array(kept, np.int64)


class ProposalLayer:
    """Scores and codes of anchors → the regions that the second stage looks at.

    Args:
        stride: pixels of a cell.
        sizes, ratios: of the anchors, see `anchors_of`; those that the first stage was trained with.
        regions: how many to return, always: the second stage has a fixed shape.
        candidates: how many of the best anchors go into the suppression.
        overlap: above which (intersection over union) the worse of two regions goes.
        smallest: side of a region in pixels of the original picture; smaller ones go.
    """

    def __init__(
        self,
        stride: int = 8,
        sizes: Sequence[float] = (20, 34, 54),
        ratios: Sequence[float] = (1,),
        regions: int = 32,
        candidates: int = 200,
        overlap: float = 0.7,
        smallest: float = 4,
    ) -> None:
        self.stride, self.sizes, self.ratios = stride, sizes, ratios
        self.regions, self.candidates, self.overlap, self.smallest = regions, candidates, overlap, smallest

    def anchors(self, height: int, width: int) -> np.ndarray:
        """Of a map of height x width cells."""
        return anchors_of(height, width, self.stride, self.sizes, self.ratios)

    def forward(self, bottom: Sequence[np.ndarray]) -> np.ndarray:
        """float32 regions [N, 5], each (0, x1, y1, x2, y2), the best score first.

        Args:
            bottom: probabilities [1, H, W, 2A], first that it is background for every anchor, then that it is an
                object; codes [1, H, W, 4A], the four of the first anchor first; and (height, width, scale) [1, 3] of
                the original picture and of its way into the network's input.

        Where there are too few regions the best one is repeated, which a later suppression takes out; where there is
        none, the whole picture takes its place.
        """
        probabilities, codes, info = bottom
        _, height, width, channels = probabilities.shape
        scores = probabilities[..., channels // 2 :].reshape(-1)
        best = np.argsort(-scores, kind="stable")[: self.candidates]
        boxes = decode_boxes(codes.reshape(-1, 4)[best], self.anchors(height, width)[best])
        rows, columns, scale = (float(value) for value in info[0])
        boxes = clip_boxes(boxes, rows * scale, columns * scale)
        large = ((boxes[:, 2:] - boxes[:, :2]) >= self.smallest * scale).all(1)
        boxes, scores = boxes[large], scores[best][large]
        found = boxes[suppress(boxes, scores, self.overlap, self.regions)]
        if not len(found):
            found = np.array([[0, 0, columns * scale, rows * scale]])
        filled = np.concatenate([found, np.repeat(found[:1], self.regions - len(found), 0)])
        return np.concatenate([np.zeros((self.regions, 1)), filled], 1).astype(np.float32)
