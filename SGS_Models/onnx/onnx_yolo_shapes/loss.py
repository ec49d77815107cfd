"""Training loss of the shapes detector: task-aligned assignment, GIoU, side distance and class losses (torch).

Notation of the shapes: B pictures, N cells over all levels, C classes, M true boxes (padded with empty ones).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from model import STRIDES
from torch.nn import functional

CELLS_PER_BOX = 8
"""Number of cells made responsible for each true box."""
BOX_WEIGHT, SIDE_WEIGHT, CLASS_WEIGHT = 5.0, 0.5, 1.0


class Predictions(NamedTuple):
    """Flattened head maps and their geometry."""

    logits: torch.Tensor
    """Class logits, [B, N, C]."""
    sides: torch.Tensor
    """Raw (left, top, right, bottom) distances in cells, [B, N, 4]."""
    centres: torch.Tensor
    """Cell centres in pixels, [N, 2] as (x, y)."""
    strides: torch.Tensor
    """Pixels per cell, [N, 1]."""

    @property
    def corners(self) -> torch.Tensor:
        """Predicted boxes (x0, y0, x1, y1) in pixels, [B, N, 4]."""
        pixels = self.sides.clamp(min=0) * self.strides
        return torch.cat([self.centres - pixels[..., :2], self.centres + pixels[..., 2:]], dim=-1)


class Truth(NamedTuple):
    """Ground truth of a batch, padded to the same number of boxes."""

    corners: torch.Tensor
    """(x0, y0, x1, y1) in pixels, [B, M, 4]; zero where padded."""
    classes: torch.Tensor
    """int64 class indices, [B, M]."""
    valid: torch.Tensor
    """bool, False where padded, [B, M]."""


class Assignment(NamedTuple):
    """What each cell should predict."""

    corners: torch.Tensor
    """Box of the cell, [B, N, 4]; meaningful where ``positive``."""
    class_scores: torch.Tensor
    """Soft class targets in 0..1, [B, N, C]."""
    positive: torch.Tensor
    """bool, whether the cell is responsible for a box, [B, N]."""


def flatten(maps: tuple[torch.Tensor, ...]) -> Predictions:
    """Join the six head maps of ``YoloShapes.forward`` into one list of cells, finest level first."""
    centres, strides = [], []
    for stride, box_map in zip(STRIDES, maps[0::2], strict=True):
        height, width = box_map.shape[2:]
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centres.append((torch.stack([columns, rows], dim=-1).reshape(-1, 2) + 0.5) * stride)
        strides.append(torch.full((height * width, 1), float(stride)))
    sides, logits = (torch.cat([m.flatten(2) for m in maps[k::2]], dim=2).transpose(1, 2) for k in (0, 1))
    return Predictions(logits, sides, torch.cat(centres), torch.cat(strides))


def generalised_iou(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return IoU and GIoU of corner boxes; the leading dimensions of both arguments broadcast."""
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (first, second)]
    union = (areas[0] + areas[1] - overlap).clamp(min=1e-6)
    hull_low, hull_high = torch.minimum(first[..., :2], second[..., :2]), torch.maximum(first[..., 2:], second[..., 2:])
    hull = (hull_high - hull_low).prod(-1).clamp(min=1e-6)
    iou = overlap / union
    return iou, iou - (hull - union) / hull


@torch.no_grad()
def assign(predictions: Predictions, truth: Truth) -> Assignment:
    """Choose the responsible cells: per box the best of score ** 0.5 * IoU ** 6 among cells centred inside it."""
    scores = predictions.logits.sigmoid()
    class_count = scores.shape[2]
    iou, _ = generalised_iou(truth.corners[:, :, None], predictions.corners[:, None])
    picked = truth.classes[:, :, None].expand(-1, -1, scores.shape[1])
    class_score = scores.transpose(1, 2).gather(1, picked)
    gaps = torch.cat(
        [
            predictions.centres - truth.corners[:, :, None, :2],
            truth.corners[:, :, None, 2:] - predictions.centres,
        ],
        dim=-1,
    )
    eligible = (gaps.amin(-1) > 0) & truth.valid[:, :, None]
    metric = class_score.sqrt() * iou.pow(6) * eligible
    chosen = torch.zeros_like(eligible).scatter_(2, metric.topk(CELLS_PER_BOX, dim=2).indices, True) & eligible
    best_box = torch.where(chosen, iou, -1.0).argmax(1)
    chosen &= functional.one_hot(best_box, truth.classes.shape[1]).transpose(1, 2).bool()
    metric = metric * chosen
    ceiling = (iou * chosen).amax(2, keepdim=True)
    quality = (metric * ceiling / metric.amax(2, keepdim=True).clamp(min=1e-9)).amax(1)
    corners = truth.corners.gather(1, best_box[..., None].expand(-1, -1, 4))
    one_hot = functional.one_hot(truth.classes.gather(1, best_box), class_count)
    positive = chosen.any(1)
    return Assignment(corners, one_hot * (quality * positive)[..., None], positive)


def detection_loss(maps: tuple[torch.Tensor, ...], truth: Truth) -> torch.Tensor:
    """Return the scalar training loss of a batch.

    Args:
        maps: the six outputs of ``YoloShapes.forward``.
        truth: ground truth of the same pictures.
    """
    predictions = flatten(maps)
    target = assign(predictions, truth)
    total = target.class_scores.sum().clamp(min=1.0)
    class_loss = functional.binary_cross_entropy_with_logits(predictions.logits, target.class_scores, reduction="sum")
    weight = target.class_scores.sum(-1)[target.positive]
    _, giou = generalised_iou(predictions.corners[target.positive], target.corners[target.positive])
    wanted_sides = torch.cat(
        [predictions.centres - target.corners[..., :2], target.corners[..., 2:] - predictions.centres], dim=-1
    )
    error = (predictions.sides - wanted_sides / predictions.strides).abs().mean(-1)[target.positive]
    box_loss = BOX_WEIGHT * ((1 - giou) * weight).sum() + SIDE_WEIGHT * (error * weight).sum()
    return (CLASS_WEIGHT * class_loss + box_loss) / total
