"""Train and export the two stages of the shapes detector, ``onnx_faster_rcnn_shapes.onnx`` and
``onnx_faster_rcnn_shapes_stage2.onnx``.

Both stages are trained together: the second one on the regions that the first one proposes at the time, and on the
true boxes. Every training picture is rendered once by ``resource/render.py`` and never seen again.

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
from torch.nn import functional

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE.parents[1] / "resource"), str(ROOT / "Scripts" / "examples" / "caffe_faster_rcnn")]

import render  # noqa: E402
from model import MainStage, SecondStage  # noqa: E402
from onnx_faster_rcnn_shapes import MEAN  # noqa: E402
from rpn import ProposalLayer, encode_boxes, iou_matrix  # noqa: E402

BATCH = 16
PICTURES_PER_EPOCH = 512
LEARNING_RATES = (3e-3, 5e-4)
"""Of the two stages; the second one has no batch normalisation, and its units die of larger steps."""
WEIGHT_DECAY = 1e-3
ANCHORS_PER_PICTURE, POSITIVES_PER_PICTURE = 96, 48
OBJECTS_PER_PICTURE, OTHERS_PER_PICTURE = 12, 8
POSITIVE_ANCHOR, NEGATIVE_ANCHOR, POSITIVE_REGION = 0.6, 0.35, 0.5
"""Intersection over union with a true box: anchors in between train nothing."""
BOX_WEIGHT = 10.0
MAIN_OUTPUTS = ["rpn_cls_prob_reshape", "rpn_bbox_pred", "conv5_3"]
SECOND_OUTPUTS = ["cls_prob", "bbox_pred"]


def render_batch(split: str, epoch: int, first: int) -> tuple[torch.Tensor, list[np.ndarray], list[np.ndarray]]:
    """Render a batch: float32 pictures [B, 3, 128, 128] in BGR less MEAN, corner boxes and classes (from 1 on)."""
    scenes = [
        render.render_shapes(render.generator(render.SHAPE_FAMILY, split, epoch, first + i)) for i in range(BATCH)
    ]
    pictures = np.stack([scene.image[..., ::-1] for scene in scenes]).astype(np.float32) - MEAN
    boxes = [np.concatenate([s.boxes[:, :2], s.boxes[:, :2] + s.boxes[:, 2:]], 1) for s in scenes]
    return torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()), boxes, [s.classes + 1 for s in scenes]


def anchor_loss(
    scores: torch.Tensor, codes: torch.Tensor, anchors: np.ndarray, truth: np.ndarray, rng: np.random.Generator
) -> torch.Tensor:
    """Loss of one picture's first stage: class of a sample of the anchors, boxes of the positive ones.

    Args:
        scores: probabilities that an anchor is an object, [K].
        codes: of the anchors, [K, 4].
        anchors: [K, 4].
        truth: corner boxes, [M, 4].
        rng: that draws the sample.
    """
    overlap = iou_matrix(anchors, truth)
    best = overlap.max(1)
    positive = best >= POSITIVE_ANCHOR
    positive |= (overlap >= overlap.max(0) - 1e-6).any(1)
    chosen = rng.permutation(np.flatnonzero(positive))[:POSITIVES_PER_PICTURE]
    others = rng.permutation(np.flatnonzero(~positive & (best < NEGATIVE_ANCHOR)))
    others = others[: ANCHORS_PER_PICTURE - len(chosen)]
    sample = np.concatenate([chosen, others])
    labels = torch.from_numpy((np.arange(len(sample)) < len(chosen)).astype(np.float32))
    wanted = torch.from_numpy(encode_boxes(truth[overlap[chosen].argmax(1)], anchors[chosen]).astype(np.float32))
    objects = functional.binary_cross_entropy(scores[sample].clamp(1e-6, 1 - 1e-6), labels)
    return objects + BOX_WEIGHT * functional.smooth_l1_loss(codes[chosen], wanted, beta=0.1)


def region_loss(
    second: SecondStage, conv5_3: torch.Tensor, rois: np.ndarray, truth: np.ndarray, classes: np.ndarray
) -> torch.Tensor:
    """Loss of one picture's second stage on regions [N, 5], a sample of them: their classes, and boxes of those with an
    object.
    """
    best = iou_matrix(rois[:, 1:], truth).max(1)
    objects, others = np.flatnonzero(best >= POSITIVE_REGION), np.flatnonzero(best < POSITIVE_REGION)
    rois = rois[np.concatenate([objects[:OBJECTS_PER_PICTURE], others[:OTHERS_PER_PICTURE]])]
    overlap = iou_matrix(rois[:, 1:], truth)
    mine = overlap.argmax(1)
    labels = np.where(overlap.max(1) >= POSITIVE_REGION, classes[mine], 0)
    logits, codes = second.logits(conv5_3, torch.from_numpy(rois))
    found = np.flatnonzero(labels)
    wanted = encode_boxes(truth[mine[found]], rois[found, 1:]).astype(np.float32)
    own = codes.reshape(len(rois), -1, 4)[found, labels[found]]
    return functional.cross_entropy(logits, torch.from_numpy(labels)) + BOX_WEIGHT * functional.smooth_l1_loss(
        own, torch.from_numpy(wanted), beta=0.1
    )


def train(main: MainStage, second: SecondStage, proposals: ProposalLayer, epochs: int) -> None:
    """Train both stages in place."""
    steps = PICTURES_PER_EPOCH // BATCH
    parameters = [*main.parameters(), *second.parameters()]
    groups = [{"params": list(stage.parameters())} for stage in (main, second)]
    optimiser = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
    rates = list(LEARNING_RATES)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=epochs * steps, pct_start=0.1)
    rng = np.random.default_rng(0)
    for epoch in range(epochs):
        total = 0.0
        for step in range(steps):
            pictures, boxes, classes = render_batch("train", epoch, step * BATCH)
            outputs = [tensor.permute(0, 2, 3, 1) for tensor in main(pictures)]
            loss = picture_losses(outputs, second, proposals, boxes, classes, rng)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 10.0)
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs} loss {total / steps:.4f}", flush=True)


def picture_losses(
    outputs: list[torch.Tensor],
    second: SecondStage,
    proposals: ProposalLayer,
    boxes: list[np.ndarray],
    classes: list[np.ndarray],
    rng: np.random.Generator,
) -> torch.Tensor:
    """Mean loss of both stages over a batch; `outputs` are those of the main stage, NHWC."""
    probabilities, codes, features = outputs
    _, height, width, channels = probabilities.shape
    anchors = proposals.anchors(height, width)
    info = np.array([[height * proposals.stride, width * proposals.stride, 1]])
    losses = []
    for index, (truth, kinds) in enumerate(zip(boxes, classes, strict=True)):
        scores = probabilities[index, :, :, channels // 2 :].reshape(-1)
        losses.append(anchor_loss(scores, codes[index].reshape(-1, 4), anchors, truth, rng))
        one = slice(index, index + 1)
        rois = proposals.forward([probabilities[one].detach().numpy(), codes[one].detach().numpy(), info])
        true = np.concatenate([np.zeros((len(truth), 1)), truth], 1).astype(np.float32)
        conv5_3 = features[one].permute(0, 3, 1, 2)
        losses.append(region_loss(second, conv5_3, np.concatenate([true, rois]), truth, kinds))
    return torch.stack(losses).sum() / len(boxes)


@torch.no_grad()
def export(model: nn.Module, inputs: dict[str, torch.Tensor], outputs: list[str], path: Path) -> None:
    """Write a stage as ONNX (opset 17) and check that onnxruntime agrees with torch.

    Raises:
        RuntimeError: an output differs by more than 1e-3.
    """
    model.eval()
    names = list(inputs)
    torch.onnx.export(
        model,
        tuple(inputs.values()),
        str(path),
        input_names=names,
        output_names=outputs,
        opset_version=17,
        dynamo=False,
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    theirs = session.run(outputs, {name: tensor.numpy() for name, tensor in inputs.items()})
    pairs = zip(model(*inputs.values()), theirs, strict=True)
    worst = max(float(np.abs(mine.numpy() - their).max()) for mine, their in pairs)
    print(f"{path.name}: largest difference between torch and onnxruntime {worst:.2e}")
    if worst > 1e-3:
        raise RuntimeError(f"the exported model differs from torch by {worst}")


def main() -> None:
    """Train, export and measure the detector."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; 1 gives repeatable weights")
    parser.add_argument("--output", type=Path, default=HERE, help="folder")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    proposals = ProposalLayer()
    first = MainStage(len(proposals.sizes) * len(proposals.ratios))
    second = SecondStage(len(render.SHAPE_NAMES), proposals.stride)
    train(first, second, proposals, options.epochs)
    first.eval()
    pictures = render_batch("validation", 0, 0)[0][:1]
    with torch.no_grad():
        outputs = first(pictures)
    info = np.array([[*pictures.shape[2:], 1]])
    rois = proposals.forward([*(tensor.permute(0, 2, 3, 1).numpy() for tensor in outputs[:2]), info])
    export(first, {"data": pictures}, MAIN_OUTPUTS, options.output / f"{HERE.name}.onnx")
    second_inputs = {"conv5_3": outputs[2], "rois": torch.from_numpy(rois)}
    export(second, second_inputs, SECOND_OUTPUTS, options.output / f"{HERE.name}_stage2.onnx")


if __name__ == "__main__":
    main()
