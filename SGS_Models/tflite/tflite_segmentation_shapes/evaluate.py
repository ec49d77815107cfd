"""Measure the segmentation of ``tflite_segmentation_shapes.tflite``, or of a model converted from it, on the test
pictures: intersection over union of the pixels of each class, background included, mean of the classes.

Needs ai-edge-litert, opencv-python-headless and numpy. Run ``python evaluate.py`` or, say,
``python evaluate.py -m tflite_segmentation_shapes_fixed.sim -t Fixed``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
RESOURCE = HERE.parents[1] / "resource"
sys.path.insert(0, str(RESOURCE))

from runners import Run, evaluate, with_litert  # noqa: E402
from tflite_segmentation_shapes import image_preprocess  # noqa: E402

MASKS = RESOURCE / "shapes" / "test_masks"
"""Class of every pixel, 0 for the background."""


def score(run: Run, norm: bool = True) -> float:
    """Mean intersection over union of a network; ``norm``: whether it takes normalised pictures."""
    counts = np.zeros((5, 5), np.int64)  # true class, class found
    for file in sorted(MASKS.glob("*.png")):
        logits = run(image_preprocess(RESOURCE / "shapes" / "test" / file.name, norm))
        mask = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        np.add.at(counts, (mask, logits[0].argmax(-1)), 1)
    both = counts.diagonal()
    return float((both / (counts.sum(0) + counts.sum(1) - both)).mean())


if __name__ == "__main__":
    evaluate("mean IoU", score, lambda: with_litert(HERE / "tflite_segmentation_shapes.tflite"))
