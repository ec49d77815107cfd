"""Train and export the classifier of faint digits ``onnx_repvgg_digits.onnx``, hard to quantise by construction.

The network is a small RepVGG. It is trained with three branches a layer: a 3x3 convolution, a 1x1 convolution and,
where the shapes agree, the identity, each with a batch normalisation of its own; for the export every layer becomes
one 3x3 convolution. (Ding et al., RepVGG: Making VGG-style ConvNets Great Again, 2021.) What the normalisations put
into that kernel, and the sizes that the channels start training with, leave weights and activations whose channels
differ widely.

Needs torch, scikit-learn, onnx, onnxruntime, opencv-python-headless and numpy. Run ``python train.py``.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "resource"))

import render  # noqa: E402
from digit_training import FAINT_DIGITS, run, spread_channels  # noqa: E402
from onnx_repvgg_digits import image_preprocess  # noqa: E402

SPREAD = 1.3
"""Standard deviation of the logarithm of the channels' sizes before training."""
STAGES = ((24, 1, 1), (32, 3, 2), (48, 4, 2), (80, 3, 2))
"""Output channels, layers, stride of the first layer."""


def folded(kernel: torch.Tensor, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernel [O, I, 3, 3] and bias [O] of a convolution together with the normalisation behind it."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return kernel * scale[:, None, None, None], norm.bias - norm.running_mean * scale


class RepLayer(nn.Module):
    """ReLU of the sum of a 3x3 branch, a 1x1 branch and, where the shapes agree, an identity branch."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        """Build the branches, each with its normalisation."""
        super().__init__()
        self.conv3 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.conv1 = nn.Conv2d(c_in, c_out, 1, stride, bias=False)
        self.norm3, self.norm1 = nn.BatchNorm2d(c_out), nn.BatchNorm2d(c_out)
        self.norm0 = nn.BatchNorm2d(c_out) if c_in == c_out and stride == 1 else None

    @property
    def norms(self) -> list[nn.BatchNorm2d]:
        """The normalisations, one per branch."""
        return [norm for norm in (self.norm3, self.norm1, self.norm0) if norm is not None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, c_in, H, W] to [B, c_out, H / stride, W / stride]."""
        y = self.norm3(self.conv3(x)) + self.norm1(self.conv1(x))
        return torch.relu(y if self.norm0 is None else y + self.norm0(x))

    def plain(self) -> nn.Sequential:
        """One 3x3 convolution and ReLU, the same function in evaluation mode."""
        parts = [folded(self.conv3.weight, self.norm3), folded(_widened(self.conv1.weight), self.norm1)]
        if self.norm0 is not None:
            identity = torch.eye(self.conv3.in_channels)[:, :, None, None]
            parts.append(folded(_widened(identity), self.norm0))
        kernels, biases = zip(*parts, strict=True)
        conv = nn.Conv2d(self.conv3.in_channels, self.conv3.out_channels, 3, self.conv3.stride, 1)
        with torch.no_grad():
            conv.weight.copy_(sum(kernels))
            conv.bias.copy_(sum(biases))
        return nn.Sequential(conv, nn.ReLU())


def _widened(kernel: torch.Tensor) -> torch.Tensor:
    """A 1x1 kernel [O, I, 1, 1] in the middle of a 3x3 one."""
    return nn.functional.pad(kernel, (1, 1, 1, 1))


class RepVggDigits(nn.Module):
    """RepVGG-style classifier of 32x32 RGB pictures into ten digit classes."""

    def __init__(self) -> None:
        """Build the network with freshly initialised weights."""
        super().__init__()
        layers, c_in = [], 3
        for c_out, repeats, stride in STAGES:
            for index in range(repeats):
                layers.append(RepLayer(c_in, c_out, stride if index == 0 else 1))
                c_in = c_out
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(c_in, len(render.DIGIT_NAMES))
        rng = np.random.default_rng(render.SEED)
        for layer, following in pairwise(layers):
            spread_channels(layer.norms, [following.conv3, following.conv1], SPREAD, rng)
        spread_channels(layers[-1].norms, [self.classifier], SPREAD, rng)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised pictures [B, 3, 32, 32] to class logits [B, 10]."""
        return self.classifier(self.pool(self.features(images)).flatten(1))

    def deploy(self) -> nn.Module:
        """The same function with one 3x3 convolution a layer. The network cannot be trained any more."""
        self.features = nn.Sequential(*(layer.plain() for layer in self.features))
        return self


if __name__ == "__main__":
    run(RepVggDigits, FAINT_DIGITS, HERE / "onnx_repvgg_digits.onnx", image_preprocess, deploy=RepVggDigits.deploy)
