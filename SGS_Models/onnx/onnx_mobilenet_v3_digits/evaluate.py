"""Measure the top-1 accuracy of ``onnx_mobilenet_v3_digits.onnx``, or of a model made of it, on the test pictures.

Needs onnxruntime, opencv-python-headless and numpy. Run ``python evaluate.py`` or, say,
``python evaluate.py -m onnx_mobilenet_v3_digits_fixed.sim -t Fixed``.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESOURCE = HERE.parents[1] / "resource"
sys.path.insert(0, str(RESOURCE))

from accuracy import top1_accuracy  # noqa: E402
from onnx_mobilenet_v3_digits import image_preprocess  # noqa: E402
from runners import Run, evaluate, with_onnxruntime  # noqa: E402


def score(run: Run, norm: bool = True) -> float:
    """Top-1 accuracy of a network; ``norm``: whether it takes normalised pictures."""
    return top1_accuracy(run, image_preprocess, RESOURCE / "faint_digits" / "test", norm)


if __name__ == "__main__":
    evaluate("top-1", score, lambda: with_onnxruntime(HERE / "onnx_mobilenet_v3_digits.onnx"))
