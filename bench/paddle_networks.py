"""Networks of the usual families with random weights, saved by Paddle, and what Paddle makes of random inputs.

usage: python bench/paddle_networks.py FOLDER [NAME ...]

The interpreter needs paddlepaddle, and nothing of ours. Writes for every network named, all by default, FOLDER/NAME:
inference.json and inference.pdiparams (inference.pdmodel for those that end in _old), and reference.npz with the arrays
"in NAME" and "out 0", "out 1" and so on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

OLD = "_old"  # networks in the format of Paddle before 3.0, which is chosen once for a process
if sys.argv[1:2] == [OLD]:
    os.environ["FLAGS_enable_pir_api"] = "0"  # noqa: SIM112 (that is how it is spelt)

import numpy as np  # noqa: E402
import paddle  # noqa: E402
from paddle import Tensor, nn  # noqa: E402
from paddle.nn import functional as F  # noqa: E402
from paddle.static import InputSpec  # noqa: E402
from paddle.vision import models  # noqa: E402

Network = tuple[nn.Layer, dict[str, tuple[int, ...]], tuple[int, ...]]  # network, shapes of its inputs, open axes
BATCH, ALL = (0,), (0, 2, 3)


class Named(nn.Layer):
    """A network of one input that is called image."""

    def __init__(self, inner: nn.Layer) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: Tensor) -> Tensor:
        return self.inner(image)


def vision(make: Callable[..., nn.Layer], size: int = 96, open_axes: tuple[int, ...] = ()) -> Network:
    return Named(make(pretrained=False)), {"image": (1, 3, size, size + 32)}, open_axes


def block(inputs: int, outputs: int) -> nn.Layer:
    """Twice convolution, batch normalisation, ReLU."""
    layers: list[nn.Layer] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2D(channels, outputs, 3, padding=1), nn.BatchNorm2D(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Layer):
    """Transposed convolutions upwards, skip connections, a mask of classes as a second output."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.LayerList([block(3, 8), block(8, 16), block(16, 24)])
        self.up = nn.LayerList([nn.Conv2DTranspose(24, 16, 2, stride=2), nn.Conv2DTranspose(16, 8, 4, 2, padding=1)])
        self.merge = nn.LayerList([block(32, 16), block(16, 8)])
        self.head = nn.Conv2D(8, 5, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        first = self.down[0](image)
        second = self.down[1](F.max_pool2d(first, 2))
        x = self.down[2](F.avg_pool2d(second, 2))
        x = self.merge[0](paddle.concat([self.up[0](x), second], axis=1))
        x = self.merge[1](paddle.concat([self.up[1](x), first], axis=1))
        scores = self.head(x)
        return scores, F.softmax(scores, axis=1)


class Detector(nn.Layer):
    """Hard-swish, squeeze and excitation, resized and joined scales, boxes and scores of a flat list of places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2D(3, 12, 3, 2, 1, bias_attr=False), nn.BatchNorm2D(12), nn.Hardswish())
        self.wise = nn.Sequential(nn.Conv2D(12, 12, 5, 1, 2, groups=12), nn.BatchNorm2D(12), nn.Hardswish())
        self.squeeze, self.excite = nn.Conv2D(12, 4, 1), nn.Conv2D(4, 12, 1)
        self.deep = nn.Sequential(nn.Conv2D(12, 20, 3, 2, 1), nn.BatchNorm2D(20), nn.Swish())
        self.side = nn.Conv2D(20, 12, 1)
        self.boxes, self.scores = nn.Conv2D(24, 4, 1), nn.Conv2D(24, 6, 3, padding=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.wise(self.stem(image))
        scale = F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        x = x * scale
        up = F.interpolate(self.side(self.deep(x)), scale_factor=2, mode="nearest")
        x = paddle.concat([x, up], axis=1)
        boxes = paddle.transpose(paddle.flatten(self.boxes(x), 2), [0, 2, 1])
        scores = paddle.flatten(F.sigmoid(self.scores(x)), 2)
        return paddle.exp(paddle.clip(boxes, -4, 4)), scores


class Upsampler(nn.Layer):
    """What super-resolution and segmentation end in: bilinear resizing, shuffled pixels, padding, PReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act = nn.Conv2D(3, 16, 3), nn.PReLU(16)
        self.norm, self.last = nn.GroupNorm(4, 16), nn.Conv2D(16, 12, 3, padding=2, dilation=2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.act(self.first(F.pad(image, [1, 1, 1, 1], mode="reflect")))
        x = self.norm(x) + F.leaky_relu(x, 0.1)
        x = self.last(x)
        big = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return F.pixel_shuffle(x, 2), F.instance_norm(big[:, :5])


class Recogniser(nn.Layer):
    """Convolutions, then a recurrent net along the columns: text recognition."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(block(1, 8), nn.MaxPool2D(2), block(8, 12), nn.MaxPool2D((2, 1)))
        self.encode = nn.LSTM(12 * 8, 20, num_layers=2, direction="bidirectional")
        self.head = nn.Linear(40, 11)

    def forward(self, image: Tensor) -> Tensor:
        x = self.features(image)
        x = paddle.transpose(paddle.flatten(x, 1, 2), [0, 2, 1])
        x, _ = self.encode(x)
        return F.softmax(self.head(x), axis=-1)


class Encoder(nn.Layer):
    """A vision transformer: patches, positions, layers of attention, layer normalisation, GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2D(3, 32, 8, 8)
        self.place = self.create_parameter([1, 24, 32])
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, activation="gelu", normalize_before=True)
        self.layers, self.norm, self.head = nn.TransformerEncoder(layer, 2), nn.LayerNorm(32), nn.Linear(32, 7)

    def forward(self, image: Tensor) -> Tensor:
        x = paddle.transpose(paddle.flatten(self.patch(image), 2), [0, 2, 1]) + self.place
        return self.head(paddle.mean(self.norm(self.layers(x)), axis=1))


class Words(nn.Layer):
    """Numbers of words, an embedding, a GRU: an input of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.encode, self.head = nn.Embedding(50, 16), nn.GRU(16, 12), nn.Linear(12, 3)

    def forward(self, words: Tensor) -> Tensor:
        x, _ = self.encode(self.table(words))
        return self.head(paddle.max(x, axis=1))


class TwoInputs(nn.Layer):
    """Two inputs, arithmetic with Paddle's own quirks, split and stacked parts, reductions over pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2D(3, 8, 3, padding=1), nn.Conv2D(1, 8, 3, padding=1)

    def forward(self, image: Tensor, depth: Tensor) -> Tensor:
        x = F.relu6(self.left(image)) * 0.5 + 1.0
        y = F.elu(self.right(depth)) - paddle.mean(x, axis=[2, 3], keepdim=True)
        first, second = paddle.split(paddle.concat([x, y], axis=1), 2, axis=1)
        joined = paddle.stack([first, second], axis=2)
        joined = paddle.reshape(joined, [0, -1, *image.shape[2:]])
        return F.softplus(joined) / (paddle.max(paddle.abs(joined), axis=1, keepdim=True) + 1.0)


SMALL = (1, 3, 32, 48)
NETWORKS: dict[str, Callable[[], Network]] = {
    "lenet": lambda: (Named(models.LeNet()), {"image": (1, 1, 28, 28)}, ()),
    "resnet18": lambda: vision(models.resnet18),
    "resnext50": lambda: vision(models.resnext50_32x4d),
    "mobilenet_v1": lambda: vision(models.mobilenet_v1),
    "mobilenet_v2": lambda: vision(models.mobilenet_v2),
    "mobilenet_v3_small": lambda: vision(models.mobilenet_v3_small),
    "mobilenet_v3_large": lambda: vision(models.mobilenet_v3_large),
    "shufflenet_v2": lambda: vision(models.shufflenet_v2_x1_0),
    "shufflenet_v2_swish": lambda: vision(models.shufflenet_v2_swish),
    "squeezenet": lambda: vision(models.squeezenet1_1),
    "densenet121": lambda: vision(models.densenet121),
    "googlenet": lambda: (Named(models.googlenet()), {"image": (1, 3, 224, 224)}, ()),
    "inception_v3": lambda: vision(models.inception_v3, 160),
    "resnet18_open": lambda: vision(models.resnet18, open_axes=ALL),
    "mobilenet_v3_small_open": lambda: vision(models.mobilenet_v3_small, open_axes=ALL),
    "shufflenet_v2_open": lambda: vision(models.shufflenet_v2_x1_0, open_axes=BATCH),
    "unet": lambda: (UNet(), {"image": SMALL}, ()),
    "unet_open": lambda: (UNet(), {"image": SMALL}, ALL),
    "detector": lambda: (Detector(), {"image": SMALL}, ()),
    "detector_open": lambda: (Detector(), {"image": SMALL}, ALL),
    "upsampler": lambda: (Upsampler(), {"image": SMALL}, ()),
    "upsampler_open": lambda: (Upsampler(), {"image": SMALL}, ALL),
    "recogniser": lambda: (Recogniser(), {"image": (1, 1, 32, 40)}, ()),
    "encoder": lambda: (Encoder(), {"image": SMALL}, ()),
    "words": lambda: (Words(), {"words": (1, 9)}, ()),
    "two_inputs": lambda: (TwoInputs(), {"image": (1, 3, 20, 28), "depth": (1, 1, 20, 28)}, ()),
    "resnet18_old": lambda: vision(models.resnet18),
    "mobilenet_v3_small_old": lambda: vision(models.mobilenet_v3_small),
    "shufflenet_v2_open_old": lambda: vision(models.shufflenet_v2_x1_0, open_axes=BATCH),
    "unet_old": lambda: (UNet(), {"image": SMALL}, ()),
}


def settle(network: nn.Layer) -> None:
    """Give the normalisations statistics that are not those of the start, and stop training."""
    generator = np.random.default_rng(3)
    for layer in network.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            layer._mean.set_value(generator.normal(0, 0.2, layer._mean.shape).astype(np.float32))
            layer._variance.set_value(generator.uniform(0.6, 1.4, layer._variance.shape).astype(np.float32))
    network.eval()


def write(folder: Path, name: str) -> None:
    paddle.seed(7)
    network, shapes, open_axes = NETWORKS[name]()
    settle(network)
    generator = np.random.default_rng(11)
    feeds = {
        key: generator.integers(0, 50, shape) if key == "words" else generator.uniform(-1, 1, shape).astype(np.float32)
        for key, shape in shapes.items()
    }
    specs = [
        InputSpec([None if axis in open_axes else extent for axis, extent in enumerate(shape)], str(feed.dtype), key)
        for (key, shape), feed in zip(shapes.items(), feeds.values(), strict=True)
    ]
    paddle.jit.save(network, str(folder / name / "inference"), input_spec=specs)
    given = network(*(paddle.to_tensor(feed) for feed in feeds.values()))
    outputs = given if isinstance(given, (list, tuple)) else [given]
    arrays = {f"in {key}": feed for key, feed in feeds.items()}
    arrays |= {f"out {index}": output.numpy() for index, output in enumerate(outputs)}
    np.savez(folder / name / "reference.npz", **arrays)


def main() -> None:
    old = sys.argv[1] == OLD
    folder, names = Path(sys.argv[2 if old else 1]), sys.argv[3 if old else 2 :]
    for name in NETWORKS:
        if (not names or name in names) and name.endswith(OLD) == old:
            write(folder, name)
    if not old and (not names or any(name.endswith(OLD) for name in names)):
        subprocess.run([sys.executable, __file__, OLD, str(folder), *names], check=True)


if __name__ == "__main__":
    main()
