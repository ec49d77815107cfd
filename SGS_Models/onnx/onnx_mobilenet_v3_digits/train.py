"""Train and export the classifier of faint digits ``onnx_mobilenet_v3_digits.onnx``, hard to quantise by construction.

The network is a small MobileNetV3: inverted residual blocks with depthwise convolutions of 3x3 and 5x5, ReLU in the
early and h-swish in the late ones, squeeze-and-excite with a hard sigmoid, strides, residual additions and two fully
connected layers. (Howard et al., Searching for MobileNetV3, 2019.) Inside the blocks the channels of an activation
differ widely in size, those of h-swish, which no exact rescaling can even out, less than those of ReLU.

Needs torch, scikit-learn, onnx, onnxruntime, opencv-python-headless and numpy. Run ``python train.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "resource"))

import render  # noqa: E402
from digit_training import FAINT_DIGITS, run, spread_channels  # noqa: E402
from onnx_mobilenet_v3_digits import image_preprocess  # noqa: E402

SPREAD = {nn.ReLU: 1.0, nn.Hardswish: 0.4}
"""Standard deviation of the logarithm of the channels' sizes before training, by activation."""
STEM_CHANNELS, LAST_CHANNELS, HIDDEN = 16, 192, 128


class Shape(NamedTuple):
    """Of one inverted residual block."""

    kernel: int
    expanded: int
    c_out: int
    squeeze: bool
    activation: type[nn.Module]
    stride: int


BLOCKS = (
    Shape(3, 16, 16, True, nn.ReLU, 1),
    Shape(3, 64, 24, False, nn.ReLU, 2),
    Shape(3, 88, 24, False, nn.ReLU, 1),
    Shape(5, 96, 40, True, nn.Hardswish, 2),
    Shape(5, 160, 40, True, nn.Hardswish, 1),
    Shape(5, 120, 48, True, nn.Hardswish, 1),
    Shape(5, 160, 64, True, nn.Hardswish, 2),
    Shape(5, 192, 64, True, nn.Hardswish, 1),
)


class ConvNorm(nn.Sequential):
    """Convolution with "same" padding, batch normalisation, activation."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, act: type[nn.Module] = nn.Identity
    ) -> None:
        """Build the three layers."""
        convolution = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(c_out), act())

    @property
    def conv(self) -> nn.Conv2d:
        """The convolution."""
        return self[0]

    @property
    def norm(self) -> nn.BatchNorm2d:
        """The normalisation."""
        return self[1]


class SqueezeExcite(nn.Module):
    """Multiply every channel by a gate that is computed from the means of all."""

    def __init__(self, channels: int) -> None:
        """Build the gate, with a quarter of the channels inside."""
        super().__init__()
        inner = max(8, channels // 4)
        self.reduce, self.expand = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] to the same shape."""
        squeezed = nn.functional.adaptive_avg_pool2d(x, 1)
        return x * nn.functional.hardsigmoid(self.expand(torch.relu(self.reduce(squeezed))))


class InvertedResidual(nn.Module):
    """Expand (1x1), depthwise, squeeze-and-excite, project (1x1, linear); adds its input when the shapes agree."""

    def __init__(self, c_in: int, shape: Shape) -> None:
        """Build the block; without expansion there is no first 1x1 convolution."""
        super().__init__()
        wide, act = shape.expanded, shape.activation
        self.spread = SPREAD[act]
        self.residual = shape.stride == 1 and c_in == shape.c_out
        self.expand = ConvNorm(c_in, wide, 1, act=act) if wide != c_in else None
        self.depthwise = ConvNorm(wide, wide, shape.kernel, shape.stride, wide, act)
        self.gate = SqueezeExcite(wide) if shape.squeeze else None
        self.project = ConvNorm(wide, shape.c_out, 1)

    def spread_channels(self, rng: np.random.Generator) -> None:
        """Make the channels inside the block differ in size."""
        if self.expand is not None:
            spread_channels([self.expand.norm], [self.depthwise.conv], self.spread, rng)
        readers = [self.project.conv, *([] if self.gate is None else [self.gate.reduce])]
        spread_channels([self.depthwise.norm], readers, self.spread, rng)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, c_in, H, W] to [B, c_out, H / stride, W / stride]."""
        y = self.depthwise(x if self.expand is None else self.expand(x))
        y = self.project(y if self.gate is None else self.gate(y))
        return x + y if self.residual else y


class MobileNetV3Digits(nn.Module):
    """MobileNetV3-style classifier of 32x32 RGB pictures into ten digit classes."""

    def __init__(self) -> None:
        """Build the network with freshly initialised weights."""
        super().__init__()
        inputs = [STEM_CHANNELS, *(shape.c_out for shape in BLOCKS)]
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, stride=2, act=nn.Hardswish)
        self.blocks = nn.Sequential(*map(InvertedResidual, inputs, BLOCKS))
        self.last = ConvNorm(inputs[-1], LAST_CHANNELS, 1, act=nn.Hardswish)
        hidden = nn.Conv2d(LAST_CHANNELS, HIDDEN, 1)
        classes = nn.Linear(HIDDEN, len(render.DIGIT_NAMES))
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), hidden, nn.Hardswish(), nn.Flatten(), nn.Dropout(0.1), classes
        )
        rng = np.random.default_rng(render.SEED)
        for block in self.blocks:
            block.spread_channels(rng)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised pictures [B, 3, 32, 32] to class logits [B, 10]."""
        return self.classifier(self.last(self.blocks(self.stem(images))))


if __name__ == "__main__":
    run(MobileNetV3Digits, FAINT_DIGITS, HERE / "onnx_mobilenet_v3_digits.onnx", image_preprocess)
