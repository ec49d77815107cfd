"""Turn the raw head maps of ``onnx_yolo_shapes`` into boxes (numpy only; OpenCV to draw them).

The model ends with its last convolutions, per pyramid level of stride s in (8, 16, 32):

* ``box_pK`` [1, 4, 128 / s, 128 / s]: distances (left, top, right, bottom) from the cell centre to the box sides,
  in units of s; negative values count as zero.
* ``cls_pK`` [1, 4, 128 / s, 128 / s]: class logits; the class score is their sigmoid.

The centre of the cell in row i, column j lies at pixel ((j + 0.5) * s, (i + 0.5) * s).

``simulator.py -c Detection --decode decode.py`` calls `decode`; `detect` is the same for the maps of the ONNX model.
Run ``python decode.py PICTURE RESULT.png`` to detect with the ONNX model and draw the boxes (needs onnxruntime).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent
LEVELS = (("box_p3", "cls_p3"), ("box_p4", "cls_p4"), ("box_p5", "cls_p5"))
"""Output names per pyramid level, finest first."""
INPUT_SIZE = 128
DRAW_THRESHOLD = 0.4
SCORE_THRESHOLD = 0.01
"""Lowest score of a box that counts for the average precision."""


class Detections(NamedTuple):
    """Boxes found in one picture, best score first."""

    boxes: np.ndarray
    """float32 (x, y, width, height) in input pixels, [N, 4]."""
    scores: np.ndarray
    """float32 in 0..1, [N]."""
    classes: np.ndarray
    """int64 class indices, [N]."""


def decode_level(box_map: np.ndarray, class_map: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decode one pyramid level.

    Args:
        box_map: raw side distances, [1, 4, H, W].
        class_map: raw class logits, [1, C, H, W].

    Returns:
        Corner boxes (x0, y0, x1, y1) in input pixels, [H * W, 4], and class scores, [H * W, C].
    """
    _, class_count, height, width = class_map.shape
    stride = INPUT_SIZE / height
    rows, columns = np.mgrid[0:height, 0:width]
    centres = (np.stack([columns, rows], axis=-1).reshape(-1, 2) + 0.5) * stride
    sides = np.maximum(box_map.reshape(4, -1).T, 0.0) * stride
    corners = np.concatenate([centres - sides[:, :2], centres + sides[:, 2:]], axis=1)
    scores = 1.0 / (1.0 + np.exp(-class_map.reshape(class_count, -1).T))
    return corners, scores


def iou_matrix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the intersection over union of corner boxes [N, 4] and [M, 4] as [N, M]."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    return overlap / np.maximum(areas[0][:, None] + areas[1][None, :] - overlap, 1e-9)


def suppress(corners: np.ndarray, scores: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Return the indices that survive greedy non-maximum suppression, best score first."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while order.size:
        best = int(order[0])
        kept.append(best)
        overlap = iou_matrix(corners[best : best + 1], corners[order[1:]])[0]
        order = order[1:][overlap <= iou_threshold]
    return np.array(kept, dtype=np.int64)


def detect(outputs: Mapping[str, np.ndarray], score_threshold: float = 0.25, iou_threshold: float = 0.5) -> Detections:
    """Decode all head maps of one picture and suppress duplicates within each class.

    Args:
        outputs: the six raw outputs by name, each [1, 4, H, W] NCHW.
        score_threshold: boxes with a lower score are dropped.
        iou_threshold: of two boxes of one class that overlap more than this, the better one stays.

    Returns:
        The detections, with boxes clipped to the 128x128 input.
    """
    levels = [decode_level(outputs[box_name], outputs[class_name]) for box_name, class_name in LEVELS]
    corners = np.concatenate([level[0] for level in levels])
    class_scores = np.concatenate([level[1] for level in levels])
    classes, scores = class_scores.argmax(axis=1), class_scores.max(axis=1)
    confident = scores >= score_threshold
    corners, scores, classes = np.clip(corners[confident], 0, INPUT_SIZE), scores[confident], classes[confident]
    kept = suppress(corners + classes[:, None] * 2.0 * INPUT_SIZE, scores, iou_threshold)
    boxes = np.concatenate([corners[kept, :2], corners[kept, 2:] - corners[kept, :2]], axis=1)
    return Detections(boxes.astype(np.float32), scores[kept].astype(np.float32), classes[kept].astype(np.int64))


def decode(outputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decode what the simulator gives for one picture, keeping all but hopeless boxes.

    Args:
        outputs: the six outputs by name, real numbers, each [1, H, W, 4] NHWC as in the converted models.

    Returns:
        Boxes (ymin, xmin, ymax, xmax) from 0 to 1 of the input [N, 4], class indices [N] and scores [N].
    """
    found = detect({name: values.transpose(0, 3, 1, 2) for name, values in outputs.items()}, SCORE_THRESHOLD)
    low, sides = found.boxes[:, 1::-1], found.boxes[:, :1:-1]
    return np.concatenate([low, low + sides], axis=1) / INPUT_SIZE, found.classes, found.scores


def main(picture: str, result: str) -> None:
    """Detect shapes in ``picture`` with the float model and write it with boxes, enlarged, as ``result``."""
    import cv2
    import onnxruntime
    from onnx_yolo_shapes import image_preprocess

    labels = (HERE / "labels.txt").read_text(encoding="utf-8").split()
    session = onnxruntime.InferenceSession(str(HERE / "onnx_yolo_shapes.onnx"), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    images = np.ascontiguousarray(image_preprocess(picture).transpose(0, 3, 1, 2))
    found = detect(dict(zip(names, session.run(names, {"images": images}), strict=True)), DRAW_THRESHOLD)
    enlarged = 4
    canvas = cv2.cvtColor(image_preprocess(picture, norm=False)[0], cv2.COLOR_RGB2BGR)
    canvas = cv2.resize(canvas, None, fx=enlarged, fy=enlarged, interpolation=cv2.INTER_NEAREST)
    for box, score, class_index in zip(*found, strict=True):
        x, y, width, height = (int(round(float(value) * enlarged)) for value in box)
        text = f"{labels[class_index]} {score:.2f}"
        print(text, [round(float(value), 1) for value in box])
        cv2.rectangle(canvas, (x, y), (x + width, y + height), (0, 255, 0), 2)
        cv2.putText(canvas, text, (x, max(y - 4, 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 255, 0), 1, cv2.LINE_AA)
    if not cv2.imwrite(result, canvas):
        raise OSError(f"cannot write {result}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python decode.py PICTURE RESULT.png")
    main(sys.argv[1], sys.argv[2])
