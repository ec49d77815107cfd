"""Measure how well ``tensorflow_fsrcnn_shapes.pb``, or a model converted from it, enlarges the test pictures, shrunk to
half their size, beside bicubic interpolation: peak signal-to-noise ratio in dB.

Needs tensorflow, opencv-python-headless and numpy. Run ``python evaluate.py`` or, say,
``python evaluate.py -m tensorflow_fsrcnn_shapes_fixed.sim -t Fixed``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
RESOURCE = HERE.parents[1] / "resource"
sys.path.insert(0, str(RESOURCE))

from runners import Run, evaluate, with_tensorflow  # noqa: E402
from tensorflow_fsrcnn_shapes import image_preprocess  # noqa: E402


def bicubic(image: np.ndarray) -> np.ndarray:
    """What OpenCV makes of a normalised picture [1, h, w, 3], [1, 2 h, 2 w, 3]."""
    return cv2.resize(image[0], None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)[np.newaxis]


def score(run: Run, norm: bool = True) -> float:
    """Peak signal-to-noise ratio over all pictures; ``norm``: whether the network takes normalised pictures."""
    errors = []
    for file in sorted((RESOURCE / "shapes" / "test").glob("*.png")):
        whole = cv2.cvtColor(cv2.imread(str(file), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        found = np.clip(run(image_preprocess(file, norm))[0], 0, 1)
        errors.append(np.square(found - whole / np.float32(255)).mean())
    return float(-10 * np.log10(np.mean(errors)))


if __name__ == "__main__":
    print(f"bicubic {score(bicubic):.4f}")
    evaluate("PSNR", score, lambda: with_tensorflow(HERE / "tensorflow_fsrcnn_shapes.pb", "images", "enlarged"))
