"""The platforms that source models come from."""

from __future__ import annotations

from sgs.config.nearest import did_you_mean
from sgs.errors import UserError

PLATFORMS = ("onnx",)
LATER_PLATFORMS = ("caffe", "tflite", "tensorflow_graphdef", "tensorflow_savemodel", "keras", "paddle", "pytorch")


def check_platform(name: str, *, stage: str) -> None:
    """Raise UserError for a source platform that this version does not convert from, or that nobody knows."""
    remedy = f"available: {', '.join(PLATFORMS)}"
    if name in LATER_PLATFORMS:
        raise UserError(f"platform {name} is not available in this version", stage=stage, remedy=remedy)
    if name not in PLATFORMS:
        guess = did_you_mean(name, (*PLATFORMS, *LATER_PLATFORMS))
        raise UserError(f"there is no platform '{name}'", stage=stage, remedy=guess)
