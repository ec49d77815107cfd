"""Networks of the usual families with random weights, exported from PyTorch to ONNX.

usage: python bench/torch_networks.py FOLDER [NAME ...]

The interpreter needs torch, torchvision and onnxscript, and nothing of ours. Writes FOLDER/NAME.onnx for every network
named, all by default, as today's exporter writes them, and FOLDER/NAME_torchscript.onnx as the older one does.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

try:
    import torchvision
except RuntimeError:  # its compiled operators are of another build of torch; its import asks for these two of them
    for _name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for _name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[_name]
    import torchvision

SIZE = 96  # rows and columns of a picture
TOKENS, WORDS = 24, 300
Network = tuple[nn.Module, tuple[Tensor, ...]]


def picture(size: int = SIZE) -> tuple[Tensor, ...]:
    return (torch.rand(1, 3, size, size + 32),)


def block(inputs: int, outputs: int) -> nn.Module:
    """Twice convolution, batch normalisation, ReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Three levels, transposed convolutions upwards, skip connections."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([block(3, 16), block(16, 32), block(32, 64)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)])
        self.merge = nn.ModuleList([block(64, 32), block(32, 16)])
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for index, down in enumerate(self.down):
            x = down(nn.functional.max_pool2d(x, 2) if index else x)
            kept.append(x)
        for up, merge, skip in zip(self.up, self.merge, (kept[1], kept[0]), strict=True):
            x = merge(torch.cat([up(x), skip], 1))
        head: Tensor = self.head(x)
        return head


class Bottlenecks(nn.Module):
    """Convolution, split in two, residual bottlenecks on one half, everything joined: the block of YOLOv8."""

    def __init__(self, inputs: int, outputs: int, depth: int = 1) -> None:
        super().__init__()
        self.first, self.half = conv_silu(inputs, outputs, 1), outputs // 2
        self.inner = nn.ModuleList(
            nn.Sequential(conv_silu(self.half, self.half, 3), conv_silu(self.half, self.half, 3)) for _ in range(depth)
        )
        self.last = conv_silu((2 + depth) * self.half, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for inner in self.inner:
            parts.append(parts[-1] + inner(parts[-1]))
        joined: Tensor = self.last(torch.cat(parts, 1))
        return joined


def conv_silu(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.SiLU())


class YoloLike(nn.Module):
    """Backbone, pooling pyramid, two heads; box distances by softmax over 16 bins, decoded against an anchor grid."""

    def __init__(self, classes: int = 7) -> None:
        super().__init__()
        self.classes = classes
        self.stem = nn.Sequential(conv_silu(3, 16, 3, 2), conv_silu(16, 32, 3, 2), Bottlenecks(32, 32))
        self.middle = nn.Sequential(conv_silu(32, 64, 3, 2), Bottlenecks(64, 64, 2))
        self.deep = nn.Sequential(conv_silu(64, 96, 3, 2), Bottlenecks(96, 96))
        self.squeeze, self.spread = conv_silu(96, 48, 1), conv_silu(48 * 4, 96, 1)
        self.neck = Bottlenecks(96 + 64, 64)
        self.boxes = nn.ModuleList(nn.Conv2d(c, 64, 1) for c in (64, 96))
        self.scores = nn.ModuleList(nn.Conv2d(c, classes, 1) for c in (64, 96))
        self.register_buffer("bins", torch.arange(16, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        middle = self.middle(self.stem(x))
        deep = self.squeeze(self.deep(middle))
        pooled = [deep]
        for _ in range(3):
            pooled.append(nn.functional.max_pool2d(pooled[-1], 5, 1, 2))
        deep = self.spread(torch.cat(pooled, 1))
        neck = self.neck(torch.cat([nn.functional.interpolate(deep, scale_factor=2.0), middle], 1))
        heads = []
        for level, box, score, stride in zip((neck, deep), self.boxes, self.scores, (8, 16), strict=True):
            heads.append(self.decode(box(level), score(level), stride))
        return torch.cat(heads, 2)

    def decode(self, box: Tensor, score: Tensor, stride: int) -> Tensor:
        rows, columns = box.shape[2], box.shape[3]
        bins = box.view(1, 4, 16, rows * columns).softmax(2)
        distance = (bins * self.bins.view(1, 1, 16, 1)).sum(2)
        y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
        anchors = torch.stack([x.reshape(-1), y.reshape(-1)])[None]
        first, last = anchors - distance[:, :2], anchors + distance[:, 2:]
        boxes = torch.cat([(first + last) / 2, last - first], 1) * stride
        return torch.cat([boxes, score.view(1, self.classes, -1).sigmoid()], 1)


class BertLike(nn.Module):
    """Words and positions embedded, two encoder layers, first token classified; a mask of padding as second input."""

    def __init__(self, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(WORDS, width), nn.Embedding(TOKENS, width)
        self.norm = nn.LayerNorm(width)
        self.heads, self.width = heads, width
        layer = [nn.Linear(width, 3 * width), nn.Linear(width, width), nn.LayerNorm(width)]
        layer += [nn.Linear(width, 4 * width), nn.Linear(4 * width, width), nn.LayerNorm(width)]
        self.layers = nn.ModuleList([*layer, *layer])
        self.head = nn.Linear(width, 5)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(self.words(tokens) + self.positions.weight)
        bias = (1.0 - mask[:, None, None, :]) * -10000.0
        for k in range(0, len(self.layers), 6):
            project, out, norm, wide, narrow, last = self.layers[k : k + 6]
            q, key, value = (
                part.view(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in project(x).chunk(3, -1)
            )
            weights = (q @ key.transpose(-1, -2) / (self.width // self.heads) ** 0.5 + bias).softmax(-1)
            x = norm(x + out((weights @ value).transpose(1, 2).reshape(x.shape)))
            x = last(x + narrow(nn.functional.gelu(wide(x))))
        head: Tensor = self.head(torch.tanh(x[:, 0]))
        return head


class Tagger(nn.Module):
    """Words embedded, a bidirectional LSTM of two layers, a tag for each word."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 32)
        self.lstm = nn.LSTM(32, 24, 2, bidirectional=True, batch_first=True)
        self.tags = nn.Linear(48, 9)

    def forward(self, tokens: Tensor) -> Tensor:
        tags: Tensor = self.tags(self.lstm(self.words(tokens))[0])
        return tags


def _words() -> Tensor:
    return torch.randint(0, WORDS, (1, TOKENS))


def _vit() -> nn.Module:
    return torchvision.models.VisionTransformer(
        image_size=SIZE, patch_size=16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768
    )


def _swin() -> nn.Module:
    return torchvision.models.SwinTransformer(
        patch_size=[4, 4], embed_dim=48, depths=[2, 2, 4], num_heads=[2, 4, 8], window_size=[6, 6], num_classes=100
    )


def _named(name: str) -> Callable[[], Network]:
    return lambda: (torchvision.models.get_model(name, weights=None), picture())


CNNS: dict[str, Callable[[], Network]] = {
    **{
        name: _named(name)
        for name in (
            "resnet18",
            "mobilenet_v3_small",
            "efficientnet_b0",
            "regnet_y_400mf",
            "shufflenet_v2_x1_0",
            "densenet121",
        )
    },
    "unet": lambda: (UNet(), picture()),
    "yolo_like": lambda: (YoloLike(), picture()),
}
TRANSFORMERS: dict[str, Callable[[], Network]] = {
    "convnext_tiny": _named("convnext_tiny"),
    "vit_tiny": lambda: (_vit(), (torch.rand(1, 3, SIZE, SIZE),)),
    "swin_tiny_like": lambda: (_swin(), (torch.rand(1, 3, SIZE, SIZE),)),
    "bert_like": lambda: (BertLike(), (_words(), (torch.arange(TOKENS)[None] < 17).float())),
    "lstm_tagger": lambda: (Tagger(), (_words(),)),
}
NETWORKS = {**CNNS, **TRANSFORMERS}


def build(name: str) -> Network:
    """(network in inference mode, inputs), seeded; statistics of batch normalisations are not those of the start."""
    torch.manual_seed(sum(map(ord, name)))
    network, inputs = NETWORKS[name]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return network.eval(), inputs


def export(name: str, path: Path, *, dynamo: bool = True) -> None:
    """Write a network as ONNX, by today's exporter or by the older one."""
    network, inputs = build(name)
    options: dict[str, Any] = {"external_data": False, "verbose": False} if dynamo else {"opset_version": 14}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, inputs, str(path), dynamo=dynamo, **options)


def main(folder: str, *names: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in names or NETWORKS:
        for dynamo in (True, False):
            path = Path(folder, f"{name}{'' if dynamo else '_torchscript'}.onnx")
            try:
                export(name, path, dynamo=dynamo)
                print(path.name, path.stat().st_size)
            except Exception as error:
                print(path.name, type(error).__name__, str(error)[:200])


if __name__ == "__main__":
    main(*sys.argv[1:])
