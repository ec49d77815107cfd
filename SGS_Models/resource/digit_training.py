"""Training and export of the digit classifiers: AdamW, one cycle, every glyph drawn anew in every epoch.

Needs torch, scikit-learn, opencv-python-headless and numpy, and what the format that is written needs: ONNX, the
default, needs onnx and onnxruntime. The ``train.py`` of a classifier holds its network and calls ``run``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import render
import torch
from accuracy import Preprocess, top1_accuracy
from runners import Run, channels_first, with_onnxruntime
from torch import nn

RESOURCE = Path(__file__).resolve().parent
BATCH = 32


def draw_digit(split: str, epoch: int, index: int, glyph: np.ndarray) -> np.ndarray:
    """Return one 64x64 picture of a glyph, uint8 RGB."""
    return render.render_digit(render.generator(render.DIGIT_FAMILY, split, epoch, index), glyph)


def draw_faint_digit(split: str, epoch: int, index: int, glyph: np.ndarray) -> np.ndarray:
    """Return one 32x32 picture of a glyph, uint8 RGB. Training begins with plain ones and is all faint from epoch 9."""
    least = render.FAINT_CONTRAST[0]
    if split == "train":
        least = max(least, 120.0 - 12 * epoch)
    return render.render_faint_digit(render.generator(render.FAINT_FAMILY, split, epoch, index), glyph, least)


@dataclass(frozen=True)
class Task:
    """What a classifier is trained on, and how."""

    draw: Callable[[str, int, int, np.ndarray], np.ndarray]
    """(split, epoch, index and float32 coverage [8, 8] of a glyph) to a uint8 picture, [size, size, channels]."""
    size: int
    test_folder: Path
    """Labelled test pictures."""
    epochs: int = 30
    learning_rate: float = 4e-3
    weight_decay: float = 2e-2
    channels: int = 3
    mean: float = 127.5
    std: float = 127.5
    """Normalisation (pixel - mean) / std, as in the ``image_preprocess`` of the model."""

    def render_split(self, split: str, epoch: int, indices: np.ndarray, glyphs: np.ndarray) -> torch.Tensor:
        """Render glyphs and normalise them as ``image_preprocess`` does.

        Args:
            split: random stream of the pictures, ``train`` or ``validation``.
            epoch: number that changes pose, colours and noise of every glyph.
            indices: positions of the glyphs to draw, [N].
            glyphs: float32 glyph coverage of the whole split, [M, 8, 8].

        Returns:
            float32 pictures, [N, channels, size, size].
        """
        pictures = [self.draw(split, epoch, int(i), glyphs[i]) for i in indices]
        normalised = (np.stack(pictures).astype(np.float32) - np.float32(self.mean)) / np.float32(self.std)
        return torch.from_numpy(channels_first(normalised))


PLAIN_DIGITS = Task(draw_digit, render.DIGIT_SIZE, RESOURCE / "digits" / "test")
FAINT_DIGITS = Task(draw_faint_digit, render.FAINT_SIZE, RESOURCE / "faint_digits" / "test", learning_rate=3e-3)


def train(model: nn.Module, task: Task, seed: int) -> None:
    """Train ``model`` in place; the learning rate rises and falls once over the whole run."""
    glyphs, labels = render.load_glyphs("train")
    steps = len(labels) // BATCH
    optimiser = torch.optim.AdamW(model.parameters(), lr=task.learning_rate, weight_decay=task.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, task.learning_rate, total_steps=task.epochs * steps)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
    for epoch in range(task.epochs):
        model.train()
        order = np.random.default_rng([seed, epoch]).permutation(len(labels))
        total = 0.0
        for step in range(steps):
            indices = order[step * BATCH : (step + 1) * BATCH]
            pictures = task.render_split("train", epoch, indices, glyphs)
            loss = criterion(model(pictures), torch.from_numpy(labels[indices]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        score = validate(model, task)
        print(f"epoch {epoch + 1}/{task.epochs} loss {total / steps:.4f} validation {score:.4f}", flush=True)


@torch.no_grad()
def validate(model: nn.Module, task: Task) -> float:
    """Return the top-1 accuracy on the validation glyphs, rendered once each."""
    model.eval()
    glyphs, labels = render.load_glyphs("validation")
    pictures = task.render_split("validation", 0, np.arange(len(labels)), glyphs)
    return float((model(pictures).argmax(1).numpy() == labels).mean())


def write_onnx(model: nn.Module, task: Task, path: Path) -> Run:
    """Write the model as ONNX (batch 1, opset 17); the file as onnxruntime runs it."""
    example = torch.zeros(1, task.channels, task.size, task.size)
    torch.onnx.export(
        model, (example,), str(path), input_names=["images"], output_names=["logits"], opset_version=17, dynamo=False
    )
    return with_onnxruntime(path)


@torch.no_grad()
def check_written(model: nn.Module, task: Task, written: Run) -> None:
    """Check that the file that was written agrees with torch.

    Raises:
        RuntimeError: the largest difference over 16 pictures exceeds 1e-4.
    """
    pictures = task.render_split("validation", 0, np.arange(16), render.load_glyphs("validation")[0])
    worst = 0.0
    for picture in pictures.split(1):
        found = written(picture.permute(0, 2, 3, 1).numpy())
        worst = max(worst, float(np.abs(found - model(picture).numpy()).max()))
    print(f"largest difference between torch and the file {worst:.2e}")
    if worst > 1e-4:
        raise RuntimeError(f"the exported model differs from torch by {worst}")


def spread_channels(
    norms: Sequence[nn.BatchNorm2d], readers: Sequence[nn.Conv2d | nn.Linear], sigma: float, rng: np.random.Generator
) -> None:
    """Give the channels of an activation sizes that differ widely, for a network that is hard to quantise.

    A log-normal factor per channel goes into the normalisations that make the activation, and its inverse into the
    weights that read it: with ReLU between them the function stays as it is (Nagel et al., Data-Free Quantization
    Through Weight Equalization and Bias Correction, 2019, section 4.1), while tensors with one range for all channels
    lose the small ones. Done before training, which keeps the spread.

    Args:
        norms: normalisations whose sum is the activation, C channels each.
        readers: layers that read it: dense ones with C input channels, depthwise ones with C filters.
        sigma: standard deviation of the natural logarithm of the factors.
        rng: random generator.
    """
    factors = torch.from_numpy(np.exp(sigma * rng.standard_normal(norms[0].num_features)).astype(np.float32))
    with torch.no_grad():
        for norm in norms:
            norm.weight *= factors
        for reader in readers:
            depthwise = isinstance(reader, nn.Conv2d) and reader.groups > 1
            shape = [1] * reader.weight.ndim
            shape[0 if depthwise else 1] = -1
            reader.weight /= factors.reshape(shape)


def run(
    build: Callable[[], nn.Module],
    task: Task,
    model_file: Path,
    preprocess: Preprocess,
    deploy: Callable[[nn.Module], nn.Module] = lambda model: model,
    write: Callable[[nn.Module, Task, Path], Run] = write_onnx,
) -> None:
    """Be the program that trains, exports and measures a classifier.

    Args:
        build: makes the network with freshly initialised weights.
        task: what it is trained on.
        model_file: where the model goes unless ``--output`` says otherwise.
        preprocess: the ``image_preprocess`` shipped with the model.
        deploy: turns the trained network, in evaluation mode, into the one to export.
        write: writes the model file, and gives it as a framework runs it.
    """
    parser = argparse.ArgumentParser(description=f"Train and export {model_file.name}.")
    parser.add_argument("--epochs", type=int, default=task.epochs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; 1 gives repeatable weights")
    parser.add_argument("--output", type=Path, default=model_file)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(True)
    model = build()
    train(model, replace(task, epochs=options.epochs), options.seed)
    deployed = deploy(model.eval()).eval()
    written = write(deployed, task, options.output)
    check_written(deployed, task, written)
    print(f"test top-1 {top1_accuracy(written, preprocess, task.test_folder):.4f}")
