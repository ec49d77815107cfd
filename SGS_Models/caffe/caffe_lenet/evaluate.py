"""Measure the top-1 accuracy of ``caffe_lenet.prototxt``, or of a model made of it, on the test pictures.

Needs what this toolchain needs. Run ``python evaluate.py`` or, say,
``python evaluate.py -m caffe_lenet_fixed.sim -t Fixed``.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESOURCE = HERE.parents[1] / "resource"
sys.path.insert(0, str(RESOURCE))

from accuracy import top1_accuracy  # noqa: E402
from caffe_lenet import image_preprocess  # noqa: E402
from runners import Run, evaluate, with_caffe  # noqa: E402


def score(run: Run, norm: bool = True) -> float:
    """Top-1 accuracy of a network; ``norm``: whether it takes normalised pictures."""
    return top1_accuracy(run, image_preprocess, RESOURCE / "digits" / "test", norm)


if __name__ == "__main__":
    files = (HERE / "caffe_lenet.prototxt", HERE / "caffe_lenet.caffemodel", HERE / "input_config.ini")
    evaluate("top-1", score, lambda: with_caffe(*files))
