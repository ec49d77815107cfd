"""Network of the shapes detector: a small YOLOv8-like convolutional detector (torch)."""

from __future__ import annotations

import torch
from torch import nn

STRIDES = (8, 16, 32)
"""Pixels per cell of the three output levels."""
WIDTHS = (16, 32, 48, 64, 96)
"""Channels of the backbone at strides 2, 4, 8, 16 and 32."""
DEPTHS = (1, 2, 2, 1)
"""Bottlenecks in the backbone stages at strides 4, 8, 16 and 32."""
HEAD_WIDTH = 32
CLASS_BIAS = -4.0
"""Initial class logit: nearly every cell holds background."""
BOX_BIAS = 1.5
"""Initial side distance in cells; keeps the first boxes non-degenerate."""


class ConvSiLU(nn.Sequential):
    """Convolution, batch normalisation and SiLU; "same" padding."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1) -> None:
        """Build the three layers."""
        super().__init__(
            nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(c_out), nn.SiLU()
        )


class Bottleneck(nn.Module):
    """Two 3x3 convolutions with an optional residual addition; keeps the shape [B, C, H, W]."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        """Build the block."""
        super().__init__()
        self.layers = nn.Sequential(ConvSiLU(channels, channels, 3), ConvSiLU(channels, channels, 3))
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] to [B, C, H, W]."""
        return x + self.layers(x) if self.shortcut else self.layers(x)


class C2f(nn.Module):
    """Split in two halves, run bottlenecks on one and concatenate every intermediate result."""

    def __init__(self, c_in: int, c_out: int, depth: int, shortcut: bool) -> None:
        """Build the block with ``depth`` bottlenecks of c_out / 2 channels."""
        super().__init__()
        self.hidden = c_out // 2
        self.enter = ConvSiLU(c_in, 2 * self.hidden)
        self.blocks = nn.ModuleList(Bottleneck(self.hidden, shortcut) for _ in range(depth))
        self.leave = ConvSiLU((2 + depth) * self.hidden, c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, c_in, H, W] to [B, c_out, H, W]."""
        parts = list(self.enter(x).split((self.hidden, self.hidden), dim=1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.leave(torch.cat(parts, dim=1))


class SPPF(nn.Module):
    """Spatial pyramid pooling: three chained 5x5 max pools of stride 1, concatenated."""

    def __init__(self, channels: int) -> None:
        """Build the block."""
        super().__init__()
        self.enter = ConvSiLU(channels, channels // 2)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.leave = ConvSiLU(2 * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] to [B, C, H, W]."""
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.leave(torch.cat(parts, dim=1))


def head_branch(c_in: int, c_out: int, bias: float) -> nn.Sequential:
    """Build one head branch: two 3x3 convolutions and a plain 1x1 convolution whose bias starts at ``bias``."""
    last = nn.Conv2d(HEAD_WIDTH, c_out, 1)
    nn.init.constant_(last.bias, bias)
    return nn.Sequential(ConvSiLU(c_in, HEAD_WIDTH, 3), ConvSiLU(HEAD_WIDTH, HEAD_WIDTH, 3), last)


class YoloShapes(nn.Module):
    """Anchor-free detector with backbone, two-way feature pyramid and separate box and class branches."""

    def __init__(self, class_count: int) -> None:
        """Build the network with freshly initialised weights."""
        super().__init__()
        w2, w4, w8, w16, w32 = WIDTHS
        d4, d8, d16, d32 = DEPTHS
        self.stage4 = nn.Sequential(ConvSiLU(3, w2, 3, 2), ConvSiLU(w2, w4, 3, 2), C2f(w4, w4, d4, True))
        self.stage8 = nn.Sequential(ConvSiLU(w4, w8, 3, 2), C2f(w8, w8, d8, True))
        self.stage16 = nn.Sequential(ConvSiLU(w8, w16, 3, 2), C2f(w16, w16, d16, True))
        self.stage32 = nn.Sequential(ConvSiLU(w16, w32, 3, 2), C2f(w32, w32, d32, True), SPPF(w32))
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.top_down16 = C2f(w32 + w16, w16, 1, False)
        self.top_down8 = C2f(w16 + w8, w8, 1, False)
        self.down16 = ConvSiLU(w8, w8, 3, 2)
        self.bottom_up16 = C2f(w8 + w16, w16, 1, False)
        self.down32 = ConvSiLU(w16, w16, 3, 2)
        self.bottom_up32 = C2f(w16 + w32, w32, 1, False)
        self.box_heads = nn.ModuleList(head_branch(width, 4, BOX_BIAS) for width in (w8, w16, w32))
        self.class_heads = nn.ModuleList(head_branch(width, class_count, CLASS_BIAS) for width in (w8, w16, w32))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map pictures [B, 3, H, W] in 0..1 to raw head maps.

        Returns:
            (box, class) map pairs at strides 8, 16 and 32, flattened into six tensors. Box maps [B, 4, H / s, W / s]
            hold (left, top, right, bottom) distances in cells, class maps [B, C, H / s, W / s] hold logits.
        """
        p3 = self.stage8(self.stage4(images))
        p4 = self.stage16(p3)
        p5 = self.stage32(p4)
        mid = self.top_down16(torch.cat([self.upsample(p5), p4], dim=1))
        out3 = self.top_down8(torch.cat([self.upsample(mid), p3], dim=1))
        out4 = self.bottom_up16(torch.cat([self.down16(out3), mid], dim=1))
        out5 = self.bottom_up32(torch.cat([self.down32(out4), p5], dim=1))
        maps: list[torch.Tensor] = []
        for features, box_head, class_head in zip((out3, out4, out5), self.box_heads, self.class_heads, strict=True):
            maps += [box_head(features), class_head(features)]
        return tuple(maps)
