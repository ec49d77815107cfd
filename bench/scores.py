"""How near the outputs of a quantised network are to those of the float network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Outputs = Mapping[str, np.ndarray]
SCORE, NMS, KEPT = 0.3, 0.45, 0.9  # least score of a box, largest IoU of two boxes, least IoU of a box that is kept
STRIDES, SIDE = (8, 16, 32), 416  # of yolox_nano


@dataclass(frozen=True)
class Score:
    """Of one quantised network. `sqnr`: dB per output, over all elements of all pictures together, `cosines` likewise;
    `mean_sqnr`: over outputs; `cosine`: mean over pictures and outputs. Shares in percent, of pictures: `top1` and
    `float_top1` right, `agrees` same answer as float; `boxes`: of float's boxes, kept. None where a network has no such
    thing.
    """

    sqnr: dict[str, float]
    mean_sqnr: float
    cosine: float
    cosines: dict[str, float]
    float_top1: float | None = None
    top1: float | None = None
    agrees: float | None = None
    boxes: float | None = None


def score(
    truth: Sequence[Outputs], outputs: Iterable[Outputs], classes: Sequence[int] | None, *, detects: bool
) -> Score:
    """`classes`: the right output index of every picture, for classifiers; `detects`: outputs are those of yolox."""
    signal: dict[str, float] = dict.fromkeys(truth[0], 0.0)
    noise, power, product = (dict.fromkeys(truth[0], 0.0) for _ in range(3))
    cosines, answers, kept, total = [], [], 0, 0
    for expected, found in zip(truth, outputs, strict=True):
        for name, value in expected.items():
            y, q = value.astype(np.float64).ravel(), found[name].astype(np.float64).ravel()
            signal[name] += float(y @ y)
            noise[name] += float((y - q) @ (y - q))
            power[name] += float(q @ q)
            product[name] += float(y @ q)
            cosines.append(float(y @ q) / max(float(np.sqrt((y @ y) * (q @ q))), 1e-30))
        first = next(iter(expected))
        answers.append((int(expected[first].argmax()), int(found[first].argmax())))
        if detects:
            here, of = boxes_kept(expected[first], found[first])
            kept, total = kept + here, total + of
    sqnr = {name: float(10 * np.log10(signal[name] / max(noise[name], 1e-30))) for name in signal}
    together = {name: product[name] / max(float(np.sqrt(signal[name] * power[name])), 1e-30) for name in signal}
    shares: dict[str, float] = {"boxes": 100 * kept / max(1, total)} if detects else {}
    if classes is not None:
        y, q = np.array(answers).T
        shares["float_top1"], shares["top1"] = (100 * float((x == np.array(classes)).mean()) for x in (y, q))
        shares["agrees"] = 100 * float((y == q).mean())
    return Score(sqnr, float(np.mean(list(sqnr.values()))), float(np.mean(cosines)), together, **shares)


# ---- yolox_nano ------------------------------------------------------------------------------------------------------


def boxes_kept(expected: np.ndarray, found: np.ndarray) -> tuple[int, int]:
    """(float's boxes that the quantised network has too, all of float's boxes) of raw outputs [1, 3549, 85]."""
    corners, classes, _ = detections(expected)
    others, other_classes, _ = detections(found)
    matches = (overlaps(corners, others) >= KEPT) & (classes[:, None] == other_classes[None])  # [boxes, others]
    return int(matches.any(axis=1).sum()), len(corners)


def detections(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners [n, 4] (x0, y0, x1, y1), classes [n], scores [n] after suppression within each class.

    A row of `raw` [1, 3549, 85] is centre, size, objectness, class scores, relative to a cell of the grid of its stride
    (YOLOX, arXiv:2107.08430: centre = (xy + cell) * stride, size = exp(wh) * stride).
    """
    rows = raw.reshape(-1, raw.shape[-1]).astype(np.float64)
    sides = [SIDE // stride for stride in STRIDES]
    cells = np.concatenate([np.stack(np.meshgrid(np.arange(s), np.arange(s)), -1).reshape(-1, 2) for s in sides])
    stride = np.concatenate([np.full((s * s, 1), k) for s, k in zip(sides, STRIDES, strict=True)])
    centre, size = (rows[:, :2] + cells) * stride, np.exp(rows[:, 2:4]) * stride
    classes = rows[:, 5:].argmax(axis=1)
    scores = rows[:, 4] * rows[:, 5:].max(axis=1)
    boxes = np.concatenate([centre - size / 2, size], axis=1)  # x, y, width, height
    chosen = cv2.dnn.NMSBoxesBatched(boxes.tolist(), scores.tolist(), classes.tolist(), SCORE, NMS)
    index = np.array(chosen, int).ravel()
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    return corners[index], classes[index], scores[index]


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union [n, m] of boxes [n, 4] and [m, 4] given by corners."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=-1)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(axis=-1) for x in (a, b))
    return inside / (area_a[:, None] + area_b[None] - inside)
