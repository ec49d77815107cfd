"""ONNX models, as a platform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgs.frontends.onnx_model import SourceModel, check_file, load_model
from sgs.frontends.platforms import Asked, Option, Platform, file_option, model_path


def _load(values: Mapping[str, Any], asked: Asked) -> SourceModel:
    path = model_path(values)
    source = load_model(path)
    if values["checker"]:
        check_file(path)
    return source


ONNX = Platform(
    "onnx",
    "ONNX model",
    (file_option(".onnx"), Option("checker", "have the file checked by onnx.checker first", "flag")),
    _load,
    suffixes=(".onnx",),
)
