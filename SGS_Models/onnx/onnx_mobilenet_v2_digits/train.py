"""Train and export the digits classifier ``onnx_mobilenet_v2_digits.onnx``.

The network is a small MobileNetV2: inverted residual blocks with depthwise separable convolutions, ReLU6 and
residual additions, then global average pooling and one fully connected layer. Pictures are rendered on the fly by
``resource/render.py``, a different rendering of each handwritten glyph in every epoch.

Needs torch, scikit-learn, onnx, onnxruntime, opencv-python-headless and numpy. Run ``python train.py``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "resource"))

import render  # noqa: E402
from evaluate import TEST_FOLDER, top1_accuracy  # noqa: E402
from onnx_mobilenet_v2_digits import INPUT_HEIGHT, INPUT_WIDTH, MEAN, STD  # noqa: E402

BLOCKS = ((1, 16, 1, 1), (4, 24, 2, 2), (4, 40, 2, 2), (4, 64, 2, 1), (4, 80, 2, 2))
"""Inverted residual stages: (expansion factor, output channels, repeats, stride of the first repeat)."""
STEM_CHANNELS, LAST_CHANNELS = 16, 256
BATCH = 32
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 2e-2


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


def render_split(split: str, epoch: int, indices: np.ndarray, glyphs: np.ndarray) -> torch.Tensor:
    """Render glyphs and normalise them as ``image_preprocess`` does.

    Args:
        split: random stream of the pictures, ``train`` or ``validation``.
        epoch: number that changes pose, colours and noise of every glyph.
        indices: positions of the glyphs to draw, [N].
        glyphs: float32 glyph coverage of the whole split, [M, 8, 8].

    Returns:
        float32 pictures, [N, 3, 64, 64].
    """
    pictures = [
        render.render_digit(render.generator(render.DIGIT_FAMILY, split, epoch, int(i)), glyphs[i]) for i in indices
    ]
    normalised = (np.stack(pictures).astype(np.float32) - MEAN) / STD
    return torch.from_numpy(normalised.transpose(0, 3, 1, 2).copy())


def train(model: nn.Module, epochs: int, seed: int) -> None:
    """Train ``model`` in place; the learning rate rises and falls once over the whole run."""
    glyphs, labels = render.load_glyphs("train")
    steps = len(labels) // BATCH
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=epochs * steps)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
    for epoch in range(epochs):
        model.train()
        order = np.random.default_rng([seed, epoch]).permutation(len(labels))
        total = 0.0
        for step in range(steps):
            indices = order[step * BATCH : (step + 1) * BATCH]
            pictures = render_split("train", epoch, indices, glyphs)
            loss = criterion(model(pictures), torch.from_numpy(labels[indices]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs} loss {total / steps:.4f} validation {validate(model):.4f}", flush=True)


@torch.no_grad()
def validate(model: nn.Module) -> float:
    """Return the top-1 accuracy on the validation glyphs, rendered once each."""
    model.eval()
    glyphs, labels = render.load_glyphs("validation")
    pictures = render_split("validation", 0, np.arange(len(labels)), glyphs)
    return float((model(pictures).argmax(1).numpy() == labels).mean())


def export(model: nn.Module, path: Path) -> None:
    """Write the model as ONNX (batch 1, opset 17) and check that onnxruntime agrees with torch.

    Raises:
        RuntimeError: the largest logit difference over 16 pictures exceeds 1e-4.
    """
    model.eval()
    example = torch.zeros(1, 3, INPUT_HEIGHT, INPUT_WIDTH)
    torch.onnx.export(
        model, (example,), str(path), input_names=["images"], output_names=["logits"], opset_version=17, dynamo=False
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    pictures = render_split("validation", 0, np.arange(16), render.load_glyphs("validation")[0])
    worst = 0.0
    for picture in pictures.split(1):
        (logits,) = session.run(["logits"], {"images": picture.numpy()})
        worst = max(worst, float(np.abs(logits - model(picture).detach().numpy()).max()))
    print(f"largest difference between torch and onnxruntime {worst:.2e}")
    if worst > 1e-4:
        raise RuntimeError(f"the exported model differs from torch by {worst}")


def main() -> None:
    """Train, export and measure the classifier."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; 1 gives repeatable weights")
    parser.add_argument("--output", type=Path, default=HERE / "onnx_mobilenet_v2_digits.onnx")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(True)
    model = MobileNetV2Digits()
    train(model, options.epochs, options.seed)
    export(model, options.output)
    print(f"test top-1 {top1_accuracy(options.output, TEST_FOLDER):.4f}")


if __name__ == "__main__":
    main()
