"""Train the digits classifier ``caffe_lenet``: ``caffe_lenet.caffemodel``, the weights of ``caffe_lenet.prototxt``.

PyTorch trains the network that the prototxt describes; the weights are written as Caffe would. Caffe need not be
installed: the messages of its files, and what reads them to compare, are those of this toolchain.

Needs torch, scikit-learn, opencv-python-headless and numpy, and what this toolchain needs. Run ``python train.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "resource"))

from caffe_lenet import MEAN, STD, image_preprocess, to_input  # noqa: E402
from caffe_weights import write_weights  # noqa: E402
from digit_training import RESOURCE, Task, draw_digit, run  # noqa: E402
from runners import Run, with_caffe  # noqa: E402

PROTOTXT = HERE / "caffe_lenet.prototxt"


def draw_gray_digit(split: str, epoch: int, index: int, glyph: np.ndarray) -> np.ndarray:
    """Return one picture of a glyph as the network sees it, uint8 [28, 28, 1]."""
    return to_input(cv2.cvtColor(draw_digit(split, epoch, index, glyph), cv2.COLOR_RGB2BGR))


class LeNet(nn.Module):
    """What the prototxt describes, up to ``ip2``; layers have its names."""

    def __init__(self) -> None:
        """Build the network with freshly initialised weights."""
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 5, bias=False), nn.Conv2d(16, 32, 5, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(16), nn.BatchNorm2d(32)
        self.ip1, self.ip2 = nn.Linear(32 * 4 * 4, 96), nn.Linear(96, 10)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)  # Caffe rounds up: 24 rows give 12, 8 give 4

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Map gray pictures [B, 1, 28, 28] to class logits [B, 10]."""
        pool1 = self.pool(torch.relu(self.bn1(self.conv1(data))))
        pool2 = self.pool(torch.relu(self.bn2(self.conv2(pool1))))
        return self.ip2(torch.relu(self.ip1(pool2.flatten(1))))


def blobs(layer: nn.Module) -> list[np.ndarray]:
    """Weights of a layer in Caffe's order."""
    tensors = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    return [tensor.detach().numpy() for tensor in tensors]


def write_caffemodel(model: nn.Module, task: Task, path: Path) -> Run:
    """Write the weights; the two files as this toolchain reads them."""
    net = model.get_submodule("0")
    found = {name: blobs(net.get_submodule(name)) for name in ("conv1", "conv2", "ip1", "ip2")}
    for k in (1, 2):
        norm = net.get_submodule(f"bn{k}")
        found[f"bn{k}"] = [norm.running_mean.numpy(), norm.running_var.numpy(), np.ones(1, np.float32)]
        found[f"scale{k}"] = blobs(norm)
    write_weights(path, found)
    return with_caffe(PROTOTXT, path, HERE / "input_config.ini")


if __name__ == "__main__":
    run(
        LeNet,
        Task(draw_gray_digit, 28, RESOURCE / "digits" / "test", 30, 3e-3, channels=1, mean=float(MEAN), std=float(STD)),
        HERE / "caffe_lenet.caffemodel",
        image_preprocess,
        deploy=lambda model: nn.Sequential(model, nn.Softmax(1)),
        write=write_caffemodel,
    )
