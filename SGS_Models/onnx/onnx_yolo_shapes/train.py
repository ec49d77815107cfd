"""Train and export the shapes detector ``onnx_yolo_shapes.onnx``.

Every training picture is rendered once by ``resource/render.py`` and never seen again. The exported weights are an
exponential moving average over the training steps. The network is in ``model.py``, the loss in ``loss.py``.

Needs torch, onnx, onnxruntime, opencv-python-headless and numpy. Run ``python train.py``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "resource"))

import render  # noqa: E402
from decode import LEVELS, decode  # noqa: E402
from evaluate import TEST_FOLDER, detection_metrics, evaluate  # noqa: E402
from loss import Truth, detection_loss  # noqa: E402
from model import YoloShapes  # noqa: E402
from onnx_yolo_shapes import INPUT_HEIGHT, INPUT_WIDTH, MEAN, STD  # noqa: E402

BATCH = 32
PICTURES_PER_EPOCH = 1024
VALIDATION_PICTURES = 64
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2
AVERAGE_DECAY = 0.99
OUTPUT_NAMES = [name for level in LEVELS for name in level]


def render_batch(split: str, epoch: int, first: int, count: int) -> tuple[torch.Tensor, list[render.ShapeScene]]:
    """Render consecutive pictures of a split and normalise them as ``image_preprocess`` does.

    Args:
        split: random stream of the pictures, ``train`` or ``validation``.
        epoch: number that makes the pictures of every epoch different.
        first: index of the first picture.
        count: number of pictures.

    Returns:
        float32 pictures [count, 3, 128, 128] and the scenes they were drawn from.
    """
    scenes = [
        render.render_shapes(render.generator(render.SHAPE_FAMILY, split, epoch, first + i)) for i in range(count)
    ]
    normalised = (np.stack([scene.image for scene in scenes]).astype(np.float32) - MEAN) / STD
    return torch.from_numpy(normalised.transpose(0, 3, 1, 2).copy()), scenes


def collect_truth(scenes: list[render.ShapeScene]) -> Truth:
    """Pad the boxes of the scenes to a common count and convert them to corners."""
    longest = max(len(scene.classes) for scene in scenes)
    corners = torch.zeros(len(scenes), longest, 4)
    classes = torch.zeros(len(scenes), longest, dtype=torch.int64)
    valid = torch.zeros(len(scenes), longest, dtype=torch.bool)
    for index, scene in enumerate(scenes):
        count = len(scene.classes)
        low, size = torch.from_numpy(scene.boxes).split(2, dim=1)
        corners[index, :count] = torch.cat([low, low + size], dim=1)
        classes[index, :count] = torch.from_numpy(scene.classes)
        valid[index, :count] = True
    return Truth(corners, classes, valid)


def train(model: nn.Module, epochs: int) -> nn.Module:
    """Train ``model`` in place and return the moving average of its weights and statistics."""
    steps = PICTURES_PER_EPOCH // BATCH
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=epochs * steps, pct_start=0.1)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE_DECAY), use_buffers=True)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for step in range(steps):
            pictures, scenes = render_batch("train", epoch, step * BATCH, BATCH)
            loss = detection_loss(model(pictures), collect_truth(scenes))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimiser.step()
            schedule.step()
            averaged.update_parameters(model)
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs} loss {total / steps:.4f} mAP50 {validate(averaged.module):.4f}", flush=True)
    return averaged.module


@torch.no_grad()
def validate(model: nn.Module) -> float:
    """Return the mAP50 on the validation pictures."""
    model.eval()
    pictures, scenes = render_batch("validation", 0, 0, VALIDATION_PICTURES)
    maps = [output.numpy() for output in model(pictures)]
    found = [
        decode({name: output[i : i + 1] for name, output in zip(OUTPUT_NAMES, maps, strict=True)}, 0.01)
        for i in range(len(scenes))
    ]
    truth = [(scene.boxes, scene.classes) for scene in scenes]
    return detection_metrics(found, truth, len(render.SHAPE_NAMES))["map"]


@torch.no_grad()
def export(model: nn.Module, path: Path) -> None:
    """Write the model as ONNX (batch 1, opset 17) and check that onnxruntime agrees with torch.

    Raises:
        RuntimeError: the largest output difference over 16 pictures exceeds 1e-3.
    """
    model.eval()
    example = torch.zeros(1, 3, INPUT_HEIGHT, INPUT_WIDTH)
    torch.onnx.export(
        model, (example,), str(path), input_names=["images"], output_names=OUTPUT_NAMES, opset_version=17, dynamo=False
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for picture in render_batch("validation", 0, 0, 16)[0].split(1):
        for mine, theirs in zip(model(picture), session.run(OUTPUT_NAMES, {"images": picture.numpy()}), strict=True):
            worst = max(worst, float(np.abs(mine.numpy() - theirs).max()))
    print(f"largest difference between torch and onnxruntime {worst:.2e}")
    if worst > 1e-3:
        raise RuntimeError(f"the exported model differs from torch by {worst}")


def main() -> None:
    """Train, export and measure the detector."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; 1 gives repeatable weights")
    parser.add_argument("--output", type=Path, default=HERE / "onnx_yolo_shapes.onnx")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(True)
    model = train(YoloShapes(len(render.SHAPE_NAMES)), options.epochs)
    export(model, options.output)
    metrics = evaluate(options.output, TEST_FOLDER)
    print("test " + " ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


if __name__ == "__main__":
    main()
