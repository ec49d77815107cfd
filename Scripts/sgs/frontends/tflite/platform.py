"""TFLite models, as a platform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgs.frontends.onnx_model import SourceModel
from sgs.frontends.platforms import Asked, Option, Platform, file_option, model_path
from sgs.frontends.tflite.model import load_tflite


def _load(values: Mapping[str, Any], asked: Asked) -> SourceModel:
    named = (*(asked.inputs or ()), *(asked.outputs or ()))
    return load_tflite(model_path(values), dequantize=values["dequantize"], named=named)


TFLITE = Platform(
    "tflite",
    "TFLite model",
    (
        file_option(".tflite"),
        Option("dequantize", "make a network of real numbers of one that is quantised", "flag"),
    ),
    _load,
    onnx=False,
    suffixes=(".tflite",),
)
