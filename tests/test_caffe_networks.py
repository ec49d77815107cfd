"""Public Caffe networks: the float .sim against onnxruntime on the translation, and against the same networks in other
formats; accuracy on labelled pictures."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from caffe_random import random_weights
from onnx_compare import run_onnx
from raw_chain import ini
from sgs.config.input_config import read_input_config
from sgs.engine import FloatEngine
from sgs.frontends.caffe.platform import load_caffe
from sgs.frontends.onnx_import import import_model
from sgs.frontends.onnx_model import SourceModel, load_model
from sgs.frontends.platforms import Asked
from sgs.ir import Graph
from sgs.pipelines import convert
from sgs.sim import read_sim, write_sim

pytestmark = pytest.mark.skipif("SGS_TEST_DATA" not in os.environ, reason="SGS_TEST_DATA is not set")
DATA = Path(os.environ.get("SGS_TEST_DATA", ""))
TOLERANCE = 1e-3  # of an output's range
NETWORKS = {
    "lenet_mnist": ("data", (1, 1, 28, 28), ("prob",)),
    "mobilenet_v1_0.25_224_rot180": ("data", (1, 3, 224, 224), ("prob",)),
    "squeezenet_v1.0": ("data", (1, 3, 227, 227), ("prob",)),
    "ultraface": ("input", (1, 3, 240, 320), ("boxes", "scores")),
    "wechat_sr": ("data", (1, 1, 224, 224), ("fc",)),
    "mobilenet_v2": ("data", (1, 3, 224, 224), ("prob",)),
    "squeezenet_v1.1": ("data", (1, 3, 227, 227), ("prob",)),
}


def files_of(name: str, folder: Path) -> dict[str, Path]:
    """Prototxt and caffemodel; random weights where there are none."""
    prototxt = DATA / "caffe/structure_only" / f"{name}_deploy.prototxt"
    if prototxt.is_file():
        (folder / "random.caffemodel").write_bytes(random_weights(prototxt))
        return {"model_file": prototxt, "weight_file": folder / "random.caffemodel"}
    home = DATA / "caffe" / name
    return {"model_file": next(home.glob("*.prototxt")), "weight_file": next(home.glob("*.caffemodel"))}


def translated(files: dict[str, Path]) -> SourceModel:
    return load_caffe(files["model_file"], files["weight_file"])


def float_sim(name: str, folder: Path) -> Graph:
    """The network as ConvertTool writes it, read again."""
    data, _, outputs = NETWORKS[name]
    key = {"training_input_formats": "RAWDATA_F32_NHWC", "input_formats": "RAWDATA_F32_NHWC", "quantizations": "TRUE"}
    text = ini({data: key}, dict.fromkeys(outputs, {"dequantizations": "TRUE"}))
    (folder / "input_config.ini").write_text(text, encoding="utf-8")
    graph = convert("caffe", files_of(name, folder), read_input_config(folder / "input_config.ini"))[1]
    write_sim(graph, folder / "float.sim", stage="float")
    return read_sim(folder / "float.sim").graph


def first(results: dict[str, Any]) -> Any:
    return next(iter(results.values()))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_float_sim_computes_what_the_translation_does(name: str, tmp_path: Path) -> None:
    data, shape, outputs = NETWORKS[name]
    source = translated(files_of(name, tmp_path))
    assert [(port.name, port.shape) for port in source.inputs] == [(data, shape)]
    assert [port.name for port in source.outputs] == list(outputs)
    graph = float_sim(name, tmp_path)
    assert "TRANSPOSE" not in {node.op for node in graph.nodes}
    x = np.random.default_rng(3).uniform(-1, 1, shape).astype(np.float32)
    expected = run_onnx(source.proto, {data: x})
    found = FloatEngine(graph).run({data: np.ascontiguousarray(x.transpose(0, 2, 3, 1))})
    for output in outputs:
        theirs = expected[output].transpose(0, 2, 3, 1) if expected[output].ndim == 4 else expected[output]
        np.testing.assert_allclose(found[output], theirs, rtol=0, atol=TOLERANCE * float(np.ptp(theirs)))


def pictures(count: int) -> list[tuple[Any, int]]:
    """(picture in BGR, its class)."""
    folder = DATA / "images/imagenet_sample"
    with (folder / "labels.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))[:: 500 // count][:count]
    return [(cv2.imread(str(next(folder.rglob(row["file"])))), int(row["class_index"])) for row in rows]


def test_mobilenet_is_that_of_the_onnx_file(tmp_path: Path) -> None:
    """The same weights, for pictures that are turned by 180 degrees."""
    engine = FloatEngine(float_sim("mobilenet_v1_0.25_224_rot180", tmp_path))
    onnx_file = DATA / "onnx/mobilenet_v1_0.25_224/mobilenet_v1_0.25_224.onnx"
    feed = load_model(onnx_file).inputs[0].name
    for picture, _ in pictures(5):
        x = ((cv2.resize(picture, (224, 224))[:, :, ::-1] - 127.5) / 127.5).astype(np.float32)[None]
        theirs = first(run_onnx(onnx_file, {feed: np.ascontiguousarray(x.transpose(0, 3, 1, 2))}))
        ours = first(engine.run({"data": np.ascontiguousarray(x[:, ::-1, ::-1])}))
        np.testing.assert_allclose(ours.ravel(), theirs.ravel(), rtol=0, atol=TOLERANCE)
        assert ours.argmax() == theirs.argmax()


def unpacked(name: str, header: int) -> Any:
    return np.frombuffer(gzip.decompress((DATA / "images/mnist" / name).read_bytes()), np.uint8, offset=header)


def test_lenet_reads_digits(tmp_path: Path) -> None:
    """1,000 at a time: shapes that are asked for may say the batch."""
    digits = unpacked("t10k-images-idx3-ubyte.gz", 16).reshape(10, 1000, 28, 28, 1).astype(np.float32) / 256
    labels = unpacked("t10k-labels-idx1-ubyte.gz", 8).reshape(10, 1000)
    source = load_caffe(*files_of("lenet_mnist", tmp_path).values(), Asked(shapes=((1000, 1, 28, 28),)))
    engine = FloatEngine(import_model(source))
    right = sum(int((first(engine.run({"data": x})).argmax(1) == y).sum()) for x, y in zip(digits, labels, strict=True))
    assert right == 9914


def test_squeezenet_knows_pictures(tmp_path: Path) -> None:
    engine = FloatEngine(float_sim("squeezenet_v1.0", tmp_path))
    right = 0
    for picture, label in pictures(50):
        x = (cv2.resize(picture, (227, 227)) - np.array([104.0, 117.0, 123.0])).astype(np.float32)[None]
        right += int(first(engine.run({"data": x})).argmax() == label)
    assert right >= 30
