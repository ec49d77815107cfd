"""Quantise a network with another tool, in a process of its own, and leave the quantised ONNX file.

usage: PEERS_PYTHON bench/peers.py JOB.json

The interpreter needs onnx, onnxruntime, sympy, nncf and numpy, and nothing of ours. JOB is what bench/calibration.py
writes: model (opset 13 or later, static shapes), method, samples ({input: .npy file} each, in the model's layout), out.
Prints one line of JSON: seconds of the quantisation alone and peak MB up to its end, or the error that ended it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from memory import PeakMemory

Feeds = dict[str, np.ndarray]
METHODS = ("ort-minmax", "ort-percentile", "ort-entropy", "nncf-fast", "nncf-full")


def with_onnxruntime(model: onnx.ModelProto, how: str, samples: Sequence[Feeds], out: Path) -> None:
    """Static QDQ: uint8 activations, int8 weights per channel, after the shape inference that the tool asks for."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(samples)

        def get_next(self) -> Feeds | None:
            return next(self.left, None)

    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(model, prepared)
    quantize_static(
        prepared,
        out,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method={
            "minmax": CalibrationMethod.MinMax,
            "percentile": CalibrationMethod.Percentile,
            "entropy": CalibrationMethod.Entropy,
        }[how],
    )


def with_nncf(model: onnx.ModelProto, how: str, samples: Sequence[Feeds], out: Path) -> None:
    """Post-training quantisation, preset mixed, with fast or full bias correction on all samples."""
    import nncf

    quantised = nncf.quantize(
        model,
        nncf.Dataset(samples),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(samples),
        fast_bias_correction=how == "fast",
    )
    onnx.save(quantised, out)


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job; see the module."""
    model = onnx.load(job["model"])
    samples = [{name: np.load(path) for name, path in sample.items()} for sample in job["samples"]]
    tool, how = job["method"].split("-")
    importlib.import_module({"ort": "onnxruntime.quantization", "nncf": "nncf"}[tool])  # not timed
    quantise = {"ort": with_onnxruntime, "nncf": with_nncf}[tool]
    error = None
    with PeakMemory() as peak:
        start = time.perf_counter()
        try:
            quantise(model, how, samples, Path(job["out"]))
        except Exception as raised:  # whatever a peer raises is its result
            error = f"{type(raised).__name__}: {raised}"
        seconds = time.perf_counter() - start
    if error is not None:
        return {"error": f"crashes: {error}"}
    version = importlib.metadata.version({"ort": "onnxruntime", "nncf": "nncf"}[tool])
    return {"seconds": seconds, "peak_mb": peak.tree, "version": version}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text("utf-8")))))
