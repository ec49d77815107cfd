"""Measure the float detection accuracy of ``onnx_yolo_shapes.onnx`` on the labelled test pictures.

Needs onnxruntime, opencv-python-headless and numpy. Run ``python evaluate.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
from decode import SCORE_THRESHOLD, Detections, detect, iou_matrix
from onnx_yolo_shapes import image_preprocess

HERE = Path(__file__).resolve().parent
MODEL = HERE / "onnx_yolo_shapes.onnx"
TEST_FOLDER = HERE.parents[1] / "resource" / "shapes" / "test"
RECALL_POINTS = np.linspace(0, 1, 101)
COCO_IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
OPERATING_SCORE = 0.4
"""Score threshold at which precision and recall are reported."""


def to_corners(boxes: np.ndarray) -> np.ndarray:
    """Convert (x, y, width, height) boxes [N, 4] to (x0, y0, x1, y1) [N, 4]."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def match(found: np.ndarray, truth: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Match detections of one class in one picture to the true boxes, each of which is taken at most once.

    Args:
        found: corner boxes, best score first, [N, 4].
        truth: corner boxes, [M, 4].
        iou_threshold: smallest intersection over union of a match.

    Returns:
        bool, [N]: whether each detection is a true positive.
    """
    hits = np.zeros(len(found), dtype=bool)
    overlap = iou_matrix(found, truth)
    for index in range(len(found) if len(truth) else 0):
        best = int(overlap[index].argmax())
        if overlap[index, best] >= iou_threshold:
            hits[index] = True
            overlap[:, best] = -1.0
    return hits


def average_precision(hits: np.ndarray, scores: np.ndarray, truth_count: int) -> float:
    """Return the 101-point interpolated average precision of one class over all pictures."""
    hits = hits[np.argsort(-scores, kind="stable")]
    true_positives = np.cumsum(hits)
    recall = true_positives / truth_count
    precision = true_positives / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    positions = np.searchsorted(recall, RECALL_POINTS, side="left")
    return float(np.append(envelope, 0.0)[positions].mean())


def detection_metrics(
    found: list[Detections], truth: list[tuple[np.ndarray, np.ndarray]], class_count: int, iou_threshold: float = 0.5
) -> dict[str, float]:
    """Compare the detections of all pictures with the ground truth.

    Args:
        found: detections per picture.
        truth: (x, y, width, height) boxes [M, 4] and class indices [M] per picture.
        class_count: number of classes; every class must occur in the truth.
        iou_threshold: smallest intersection over union of a match.

    Returns:
        ``map`` (mean of the classes' average precisions), and ``precision`` and ``recall`` at ``OPERATING_SCORE``.
    """
    precisions, confident, correct = [], 0, 0
    for class_index in range(class_count):
        hits, scores = [], []
        for detections, (boxes, classes) in zip(found, truth, strict=True):
            mine = detections.classes == class_index
            wanted = to_corners(boxes[classes == class_index])
            hits.append(match(to_corners(detections.boxes[mine]), wanted, iou_threshold))
            scores.append(detections.scores[mine])
        all_hits, all_scores = np.concatenate(hits), np.concatenate(scores)
        truth_count = sum(int((classes == class_index).sum()) for _, classes in truth)
        precisions.append(average_precision(all_hits, all_scores, truth_count))
        confident += int((all_scores >= OPERATING_SCORE).sum())
        correct += int(all_hits[all_scores >= OPERATING_SCORE].sum())
    total = sum(len(classes) for _, classes in truth)
    return {"map": float(np.mean(precisions)), "precision": correct / max(confident, 1), "recall": correct / total}


def evaluate(model: Path, folder: Path, iou_threshold: float = 0.5) -> dict[str, float]:
    """Run the model over the pictures of ``folder/instances.json`` and return ``detection_metrics``."""
    content = json.loads((folder / "instances.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found, truth = [], []
    for entry in content["images"]:
        images = np.ascontiguousarray(image_preprocess(folder / entry["file_name"]).transpose(0, 3, 1, 2))
        outputs = dict(zip(names, session.run(names, {"images": images}), strict=True))
        found.append(detect(outputs, SCORE_THRESHOLD))
        mine = [item for item in content["annotations"] if item["image_id"] == entry["id"]]
        boxes = np.array([item["bbox"] for item in mine], dtype=np.float32)
        truth.append((boxes, np.array([item["category_id"] - 1 for item in mine])))
    return detection_metrics(found, truth, len(content["categories"]), iou_threshold)


if __name__ == "__main__":
    metrics = evaluate(MODEL, TEST_FOLDER)
    overall = np.mean([evaluate(MODEL, TEST_FOLDER, threshold)["map"] for threshold in COCO_IOU_THRESHOLDS])
    print(f"mAP50 {metrics['map']:.4f} mAP50-95 {overall:.4f}")
    print(f"at score {OPERATING_SCORE}: precision {metrics['precision']:.4f} recall {metrics['recall']:.4f}")
