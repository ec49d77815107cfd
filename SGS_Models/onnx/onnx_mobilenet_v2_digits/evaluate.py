"""Measure the float top-1 accuracy of ``onnx_mobilenet_v2_digits.onnx`` on the labelled test pictures.

Needs onnxruntime, opencv-python-headless and numpy. Run ``python evaluate.py``.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnxruntime
from onnx_mobilenet_v2_digits import image_preprocess

HERE = Path(__file__).resolve().parent
MODEL = HERE / "onnx_mobilenet_v2_digits.onnx"
TEST_FOLDER = HERE.parents[1] / "resource" / "digits" / "test"


def top1_accuracy(model: Path, folder: Path) -> float:
    """Return the fraction of the pictures in ``folder/labels.csv`` whose class the model predicts correctly."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    with (folder / "labels.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    hits = 0
    for row in rows:
        picture = image_preprocess(folder / row["file"]).transpose(0, 3, 1, 2)
        (logits,) = session.run(["logits"], {"images": np.ascontiguousarray(picture)})
        hits += int(logits[0].argmax()) == int(row["class_index"])
    return hits / len(rows)


if __name__ == "__main__":
    print(f"top-1 {top1_accuracy(MODEL, TEST_FOLDER):.4f}")
