"""Networks of the two-stage shapes detector (torch): Faster R-CNN in small."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

WIDTHS = (16, 24, 40, 48)
"""Channels of the backbone's blocks; the first three halve the picture."""
HIDDEN = 64
"""Units of the second stage's layers."""
POOLED = 5
"""Rows and columns that a region is pooled to."""


def block(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU())


def bins(low: torch.Tensor, high: torch.Tensor, cells: int) -> torch.Tensor:
    """Which cells of a row, or column, belong to which bin of a region, [N, POOLED, cells] as 0 and 1.

    Args:
        low: where the regions begin, in cells, [N].
        high: where they end, likewise.
        cells: of the row.
    """
    first, last = torch.floor(low + 0.5), torch.floor(high + 0.5)
    size = torch.clamp(last - first + 1, min=1)[:, None] / POOLED
    steps = torch.arange(POOLED)
    begin, end = torch.floor(steps * size) + first[:, None], torch.ceil((steps + 1) * size) + first[:, None]
    cell = torch.arange(cells)
    return ((cell >= begin[..., None]) & (cell < end[..., None])).float()


class RegionMaxPool(torch.autograd.Function):
    """ONNX MaxRoiPool of features that are not negative, for the exporter; `pooled` is what training runs."""

    @staticmethod
    def forward(ctx: object, features: torch.Tensor, rois: torch.Tensor, scale: float) -> torch.Tensor:
        """As `pooled`."""
        return pooled(features, rois, scale)

    @staticmethod
    def symbolic(g: object, features: object, rois: object, scale: float) -> object:
        """The node."""
        return g.op("MaxRoiPool", features, rois, pooled_shape_i=[POOLED, POOLED], spatial_scale_f=scale)


def pooled(features: torch.Tensor, rois: torch.Tensor, scale: float) -> torch.Tensor:
    """Largest value of every bin of every region, [N, C, POOLED, POOLED]; of features >= 0 [1, C, h, w].

    Where it lies is looked for first, without gradients: these then pass through one gather.
    """
    _, channels, height, width = features.shape
    with torch.no_grad():
        _, x1, y1, x2, y2 = (rois * scale).unbind(1)
        rows = bins(y1, y2, height)[:, :, None, :, None]  # [N, P, 1, h, 1]
        columns = bins(x1, x2, width)[:, None, :, None]  # [N, 1, P, 1, w]
        by_row, row = ((features[:, None] + 1) * rows).max(3)  # [N, P, C, w]; + 1: above what is outside
        best, column = (by_row[:, :, None] * columns).max(-1)  # [N, P, P, C]
        row = row[:, :, None].expand(-1, -1, POOLED, -1, -1).gather(-1, column[..., None])[..., 0]
        place = (row * width + column).permute(3, 0, 1, 2).reshape(channels, -1)
        inside = (best > 0).permute(3, 0, 1, 2).reshape(channels, -1)  # a bin beyond the border has no cell
    values = features.reshape(channels, -1).gather(1, place) * inside
    return values.reshape(channels, len(rois), POOLED, POOLED).transpose(0, 1)


class MainStage(nn.Module):
    """Picture [B, 3, H, W] → what the Proposal layer reads, and the features that regions are cut out of."""

    def __init__(self, anchors: int) -> None:
        """`anchors`: per cell, A."""
        super().__init__()
        first, second, third, last = WIDTHS
        self.backbone = nn.Sequential(
            block(3, first, 2), block(first, second, 2), block(second, third, 2), block(third, last), block(last, last)
        )
        self.rpn = block(last, last)
        self.score = nn.Conv2d(last, 2 * anchors, 1)
        self.box = nn.Conv2d(last, 4 * anchors, 1)

    def forward(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return background and object probabilities [B, 2A, h, w], box codes [B, 4A, h, w] and features."""
        conv5_3 = self.backbone(data)
        hidden = self.rpn(conv5_3)
        score = self.score(hidden)
        _, channels, height, width = score.shape
        pairs = functional.softmax(score.reshape(-1, 2, channels // 2 * height, width), 1)
        return pairs.reshape(-1, channels, height, width), self.box(hidden), conv5_3


class SecondStage(nn.Module):
    """Features [B, C, h, w] and regions [N, 5] → what is in every region, and where exactly."""

    def __init__(self, classes: int, stride: int) -> None:
        """`classes`: K, without the background; `stride`: pixels of a cell of the features."""
        super().__init__()
        self.scale = 1 / stride
        self.hidden = nn.Sequential(
            nn.Linear(WIDTHS[-1] * POOLED**2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
        )
        self.score = nn.Linear(HIDDEN, classes + 1)
        self.box = nn.Linear(HIDDEN, 4 * (classes + 1))

    def logits(self, conv5_3: torch.Tensor, rois: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return class logits [N, K + 1], background first, and box codes [N, 4 (K + 1)]."""
        pool = RegionMaxPool.apply if torch.onnx.is_in_onnx_export() else pooled
        hidden = self.hidden(pool(conv5_3, rois, self.scale).flatten(1))
        return self.score(hidden), self.box(hidden)

    def forward(self, conv5_3: torch.Tensor, rois: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return class probabilities [N, K + 1] and box codes [N, 4 (K + 1)]."""
        logits, codes = self.logits(conv5_3, rois)
        return functional.softmax(logits, 1), codes
