"""Train and export the classifier of faint digits ``pytorch_resnet8_digits.pt2``.

The network is the small ResNet of MLPerf Tiny: a 3x3 convolution and three residual blocks. It is written by
``torch.export``, normalisations and all, as a program that needs none of this file's classes.

Needs torch, scikit-learn, opencv-python-headless and numpy. Run ``python train.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "resource"))

import render  # noqa: E402
from digit_training import FAINT_DIGITS, Task, run  # noqa: E402
from pytorch_resnet8_digits import image_preprocess  # noqa: E402
from runners import Run, with_torch  # noqa: E402

WIDTHS = (16, 32, 64)
"""Channels of the residual blocks; each but the first halves the picture."""


def conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Build a convolution with "same" padding, and its batch normalisation."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out))


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity, or beside a 1x1 convolution where the shape changes."""

    def __init__(self, c_in: int, c_out: int) -> None:
        """Build the block; its stride is 2 where the channels change."""
        super().__init__()
        stride = 1 if c_in == c_out else 2
        self.first, self.second = conv_bn(c_in, c_out, 3, stride), conv_bn(c_out, c_out, 3)
        self.beside = nn.Identity() if c_in == c_out else conv_bn(c_in, c_out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, c_in, H, W] to [B, c_out, H / stride, W / stride]."""
        return functional.relu(self.second(functional.relu(self.first(x))) + self.beside(x))


class ResNet8(nn.Module):
    """Classifier of 32x32 RGB pictures into ten digit classes."""

    def __init__(self) -> None:
        """Build the network with freshly initialised weights."""
        super().__init__()
        self.stem = conv_bn(3, WIDTHS[0], 3)
        blocks = [Residual(c_in, c_out) for c_in, c_out in zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False)]
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(WIDTHS[-1], len(render.DIGIT_NAMES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised pictures [B, 3, 32, 32] to class logits [B, 10]."""
        features = self.blocks(functional.relu(self.stem(images)))
        return self.classifier(functional.adaptive_avg_pool2d(features, 1).flatten(1))


def write_program(model: nn.Module, task: Task, path: Path) -> Run:
    """Write the model as a torch.export program of batch 1; the file as torch runs it."""
    program = torch.export.export(model, (torch.zeros(1, task.channels, task.size, task.size),))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    torch.export.save(program, path)
    return with_torch(path)


if __name__ == "__main__":
    run(ResNet8, FAINT_DIGITS, HERE / "pytorch_resnet8_digits.pt2", image_preprocess, write=write_program)
