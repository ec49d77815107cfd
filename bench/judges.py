"""What the source frameworks make of their own networks: LiteRT here, TensorFlow and OpenCV 4 in a Python of theirs.

TF_PYTHON has tensorflow; CV4_PYTHON has opencv-python-headless below 5, whose Caffe importer is the last one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "Scripts"))

from sgs.sim import generated as schema  # noqa: E402

Arrays = dict[str, np.ndarray]
PYTHONS = {"tensorflow": "TF_PYTHON", "opencv": "CV4_PYTHON"}


class NoJudge(Exception):
    """A judge that this machine does not have, or that cannot run the network; the message says which."""


class LiteRt:
    """A .tflite file in LiteRT. Tensors have their names of the file; integers of quantised inputs and outputs stand
    for reals, rounded to the nearest."""

    def __init__(self, data: bytes, *, inner: bool = False) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with warnings.catch_warnings():  # that inner tensors take memory
            warnings.simplefilter("ignore", UserWarning)
            self._interpreter = Interpreter(model_content=data, num_threads=2, experimental_preserve_all_tensors=inner)
        self._interpreter.allocate_tensors()
        details = self._interpreter.get_tensor_details() if inner else self._interpreter.get_output_details()
        self._found = {detail["name"]: detail for detail in details}

    def run(self, feeds: Mapping[str, np.ndarray], wanted: Sequence[str] | None = None) -> Arrays:
        """Reals of outputs, or of `wanted` tensors, from reals by name; where the file has one input, by any name."""
        inputs = self._interpreter.get_input_details()
        for detail in inputs:
            value = feeds[detail["name"]] if len(inputs) > 1 else next(iter(feeds.values()))
            self._interpreter.set_tensor(detail["index"], _codes(value, detail))
        self._interpreter.invoke()
        outputs = wanted or [detail["name"] for detail in self._interpreter.get_output_details()]
        return {name: self._reals(self._found[name]) for name in outputs}

    def rounded(self, value: np.ndarray) -> np.ndarray:
        """Reals as the codes of the first output say them."""
        (detail, *_) = self._interpreter.get_output_details()
        return _decoded(_codes(value, detail), detail)

    def _reals(self, detail: Any) -> np.ndarray:
        return _decoded(self._interpreter.get_tensor(detail["index"]), detail)


def _codes(value: np.ndarray, detail: Any) -> np.ndarray:
    scale, zero = detail["quantization"]
    if not scale:
        return value.astype(detail["dtype"])
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.rint(value / np.float32(scale)) + zero, limits.min, limits.max).astype(detail["dtype"])


def _decoded(codes: np.ndarray, detail: Any) -> np.ndarray:
    scale, zero = detail["quantization"]
    return (codes.astype(np.float32) - zero) * np.float32(scale) if scale else codes


def float_twin(data: bytes, begin: str | None = None) -> bytes:
    """A .tflite file whose quantised tensors are made float32, constants by their scales, so that every operator
    computes in float32; beginning at an inner tensor where one is given.

    Of files with weights of 8 bits LiteRT itself rounds the activations, too, so it is no judge of what the weights
    mean.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    graph = model.subgraphs[0]
    for tensor in graph.tensors:
        _make_float(tensor, model.buffers)
    if begin is not None:
        graph.inputs = [next(i for i, tensor in enumerate(graph.tensors) if tensor.name == begin)]
    graph.operators = _needed(graph)
    _remove_conversions(graph, model.operatorCodes)
    model.signatureDefs, model.metadata = None, None
    builder = flatbuffers.Builder(len(data) * 4)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _make_float(tensor: Any, buffers: list[Any]) -> None:
    kinds = {schema.TensorType.INT8: np.int8, schema.TensorType.UINT8: np.uint8, schema.TensorType.INT32: np.int32}
    quant = tensor.quantization
    if tensor.type not in kinds or quant is None or quant.scale is None or not len(quant.scale):
        return
    held = buffers[tensor.buffer].data
    if held is not None and len(held):
        axis = [1] * len(tensor.shape)
        if len(quant.scale) > 1:
            axis[quant.quantizedDimension] = -1
        scale = np.array(quant.scale, np.float32).reshape(axis)
        zero = np.zeros(1) if quant.zeroPoint is None else np.array(quant.zeroPoint).reshape(axis)
        codes = np.array(held, np.uint8).view(kinds[tensor.type]).reshape(tensor.shape)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(((codes - zero) * scale).astype(np.float32).tobytes(), np.uint8)
        buffers.append(buffer)
        tensor.buffer = len(buffers) - 1
    tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None


def _needed(graph: Any) -> list[Any]:
    """The operators between inputs and outputs."""
    wanted, kept = set(graph.outputs), []
    for operator in reversed(graph.operators):
        if wanted & set(operator.outputs) - set(graph.inputs):
            kept.append(operator)
            wanted |= set(operator.inputs)
    return kept[::-1]


def _remove_conversions(graph: Any, codes: list[Any]) -> None:
    """Take out QUANTIZE and DEQUANTIZE, which now have float32 on both sides."""
    operators = schema.BuiltinOperator
    same: dict[int, int] = {}
    kept = []
    for operator in graph.operators:
        operator.inputs = [same.get(index, index) for index in operator.inputs]
        code = codes[operator.opcodeIndex]
        if max(code.builtinCode, code.deprecatedBuiltinCode) in (operators.QUANTIZE, operators.DEQUANTIZE):
            same[operator.outputs[0]] = operator.inputs[0]
        else:
            kept.append(operator)
    graph.operators = kept
    graph.outputs = [same.get(index, index) for index in graph.outputs]


def elsewhere(framework: str, model: Sequence[Path], outputs: Sequence[str], samples: Sequence[Arrays]) -> list[Arrays]:
    """Outputs of a network, sample by sample, of a framework in its own Python (bench/framework_judge.py). Raises
    NoJudge."""
    python = os.environ.get(PYTHONS[framework])
    if not python:
        raise NoJudge(f"{PYTHONS[framework]} names no Python")
    with tempfile.TemporaryDirectory(prefix="judge_") as name:
        folder = Path(name)
        names = list(samples[0])
        np.savez(
            folder / "feeds.npz",
            **{f"{i}/{k}": sample[n] for i, sample in enumerate(samples) for k, n in enumerate(names)},
        )
        job = {
            "framework": framework,
            "model": list(map(str, model)),
            "feeds": str(folder / "feeds.npz"),
            "inputs": names,
            "outputs": list(outputs),
            "samples": len(samples),
            "out": str(folder / "found.npz"),
        }
        (folder / "job.json").write_text(json.dumps(job), "utf-8")
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        command = [python, str(ROOT / "bench/framework_judge.py"), str(folder / "job.json")]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise NoJudge(f"{framework}: {done.stderr.strip()[-2000:]}")
        with np.load(folder / "found.npz") as found:
            return [{n: found[f"{i}/{k}"] for k, n in enumerate(outputs)} for i in range(len(samples))]


def mfcc_of_waves(model: Path, waves: np.ndarray) -> np.ndarray:
    """[n, frames, coefficients] that TensorFlow's Mfcc makes in a network of the kws_mcu kind, of waves [n, samples] at
    16 kHz."""
    decoded = "decoded_sample_data"
    feeds = [{f"{decoded}:0": one[:, None], f"{decoded}:1": np.array(16000, np.int32)} for one in waves]
    return np.concatenate([found["Mfcc"] for found in elsewhere("tensorflow", [model], ["Mfcc"], feeds)])
