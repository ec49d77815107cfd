"""Train and export the digits classifier ``onnx_mobilenet_v2_digits.onnx``.

The network is a small MobileNetV2: inverted residual blocks with depthwise separable convolutions, ReLU6 and
residual additions, then global average pooling and one fully connected layer. Pictures are rendered on the fly by
``resource/render.py``, a different rendering of each handwritten glyph in every epoch.

Needs torch, scikit-learn, onnx, onnxruntime, opencv-python-headless and numpy. Run ``python train.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "resource"))

import render  # noqa: E402
from digit_training import PLAIN_DIGITS, run  # noqa: E402
from onnx_mobilenet_v2_digits import image_preprocess  # noqa: E402

BLOCKS = ((1, 16, 1, 1), (4, 24, 2, 2), (4, 40, 2, 2), (4, 64, 2, 1), (4, 80, 2, 2))
"""Inverted residual stages: (expansion factor, output channels, repeats, stride of the first repeat)."""
STEM_CHANNELS, LAST_CHANNELS = 16, 256


def conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Sequential:
    """Build convolution, batch normalisation and, if ``act``, ReLU6; "same" padding."""
    layers: list[nn.Module] = [
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out),
    ]
    if act:
        layers.append(nn.ReLU6())
    return nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Expand (1x1), depthwise (3x3), project (1x1, linear); adds its input when the shapes agree."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int) -> None:
        """Build the block; an ``expansion`` of 1 leaves out the first 1x1 convolution."""
        super().__init__()
        hidden = c_in * expansion
        self.residual = stride == 1 and c_in == c_out
        layers = [] if expansion == 1 else [conv_bn(c_in, hidden, 1)]
        layers += [conv_bn(hidden, hidden, 3, stride, groups=hidden), conv_bn(hidden, c_out, 1, act=False)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, c_in, H, W] to [B, c_out, H / stride, W / stride]."""
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetV2Digits(nn.Module):
    """MobileNetV2-style classifier of 64x64 RGB pictures into ten digit classes."""

    def __init__(self) -> None:
        """Build the network with freshly initialised weights."""
        super().__init__()
        layers: list[nn.Module] = [conv_bn(3, STEM_CHANNELS, 3, stride=2)]
        channels = STEM_CHANNELS
        for expansion, c_out, repeats, stride in BLOCKS:
            for index in range(repeats):
                layers.append(InvertedResidual(channels, c_out, stride if index == 0 else 1, expansion))
                channels = c_out
        layers.append(conv_bn(channels, LAST_CHANNELS, 1))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(LAST_CHANNELS, len(render.DIGIT_NAMES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised pictures [B, 3, 64, 64] to class logits [B, 10]."""
        return self.classifier(self.dropout(self.pool(self.features(images)).flatten(1)))


if __name__ == "__main__":
    run(MobileNetV2Digits, PLAIN_DIGITS, HERE / "onnx_mobilenet_v2_digits.onnx", image_preprocess)
