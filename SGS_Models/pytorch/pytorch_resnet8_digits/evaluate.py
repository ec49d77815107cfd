"""Measure the top-1 accuracy of ``pytorch_resnet8_digits.pt2``, or of a model made of it, on the test pictures.

Needs torch, opencv-python-headless and numpy. Run ``python evaluate.py`` or, say,
``python evaluate.py -m pytorch_resnet8_digits_fixed.sim -t Fixed``.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESOURCE = HERE.parents[1] / "resource"
sys.path.insert(0, str(RESOURCE))

from accuracy import top1_accuracy  # noqa: E402
from pytorch_resnet8_digits import image_preprocess  # noqa: E402
from runners import Run, evaluate, with_torch  # noqa: E402


def score(run: Run, norm: bool = True) -> float:
    """Top-1 accuracy of a network; ``norm``: whether it takes normalised pictures."""
    return top1_accuracy(run, image_preprocess, RESOURCE / "faint_digits" / "test", norm)


if __name__ == "__main__":
    evaluate("top-1", score, lambda: with_torch(HERE / "pytorch_resnet8_digits.pt2"))
