"""Measure the float top-1 accuracy of ``onnx_mobilenet_v2_digits.onnx`` on the labelled test pictures.

Needs onnxruntime, opencv-python-headless and numpy. Run ``python evaluate.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESOURCE = HERE.parents[1] / "resource"
sys.path.insert(0, str(RESOURCE))

from accuracy import top1_accuracy  # noqa: E402
from onnx_mobilenet_v2_digits import image_preprocess  # noqa: E402

if __name__ == "__main__":
    model = HERE / "onnx_mobilenet_v2_digits.onnx"
    print(f"top-1 {top1_accuracy(model, image_preprocess, RESOURCE / 'digits' / 'test'):.4f}")
