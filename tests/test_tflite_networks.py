"""Public TFLite networks: the float graph gives what LiteRT gives for the file."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sgs.engine import FloatEngine
from sgs.errors import UserError
from sgs.frontends.onnx_import import import_model
from sgs.frontends.onnx_surgery import NO_SURGERY, Endpoint, Surgery
from sgs.frontends.tflite.model import load_tflite
from sgs.ir.graph import Graph
from sgs.numeric.quantise import Array
from sgs.passes.pipeline import optimise
from sgs.sim import generated as schema
from tflite_files import litert_run, pack, record, unpacked, written_out

DATA = Path(os.environ.get("SGS_TEST_DATA", ""), "tflite")
QUANTISED = DATA.parent / "quantized_refs"
pytestmark = pytest.mark.skipif("SGS_TEST_DATA" not in os.environ, reason="SGS_TEST_DATA is not set")


def with_builtins(data: bytes) -> bytes:
    """The file with MediaPipe's Convolution2DTransposeBias, of stride 2, as TRANSPOSE_CONV, whose result is the output
    (behind it nearly everything is 0 or 1)."""
    model = unpacked(data)
    graph = model.subgraphs[0]
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        if code.customCode == "Convolution2DTransposeBias":
            model.buffers.append(record("Buffer", data=graph.tensors[operator.outputs[0]].shape.view(np.uint8)))
            shape = np.array([4], np.int32)
            graph.tensors.append(record("Tensor", name="size", shape=shape, type=2, buffer=len(model.buffers) - 1))
            x, weight, bias = operator.inputs
            operator.inputs = np.array([len(graph.tensors) - 1, weight, x, bias], np.int32)
            operator.builtinOptionsType = schema.BuiltinOptions.TransposeConvOptions
            operator.builtinOptions = record("TransposeConvOptions", strideH=2, strideW=2)
            operator.customOptions = code.customCode = None
            code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.TRANSPOSE_CONV
            code.version, graph.outputs = 3, operator.outputs
    return pack(model)


# file → (bounds of random inputs, what LiteRT is given instead)
NETWORKS: dict[str, tuple[float, float, Any]] = {
    "deeplabv3/deeplabv3.tflite": (-1, 1, None),
    "mediapipe/face_detection_front_f32.tflite": (-1, 1, None),
    "mediapipe/face_detection_short_range_f16.tflite": (-1, 1, None),
    "mediapipe/palm_detection_f32.tflite": (0, 1, None),
    "mediapipe/selfie_segmentation_f16.tflite": (0, 1, with_builtins),
    "mlperf_tiny/ad01_fp32.tflite": (-20, 20, None),
    "mlperf_tiny/kws_ref_model_float32.tflite": (-100, 100, written_out),
    "mlperf_tiny/pretrainedResnet.tflite": (0, 255, None),
    "mlperf_tiny/vww_96_float.tflite": (0, 1, None),
    "mobilenet_v1_0.25_224/mobilenet_v1_0.25_224_1_default_1.tflite": (-1, 1, None),
    "movie_review_nl/movie_review.tflite": (0, 99, None),
    "yolox_nano/yolox_nano_float16_quantize.tflite": (0, 255, None),
}


def converted(path: Path, *, dequantize: bool = False, surgery: Surgery = NO_SURGERY) -> Graph:
    """The optimised graph, inputs and outputs in the file's own layout."""
    model = load_tflite(path, dequantize=dequantize)
    graph = import_model(model, source_layouts=dict.fromkeys(model.layouts, "NHWC"), surgery=surgery)
    optimise(graph)
    return graph


def smooth(shape: tuple[int, ...], low: float, high: float) -> Array:
    """Values that change slowly along rows and columns, as those of pictures do."""
    rng = np.random.default_rng(1)
    waves = [np.sin(np.linspace(0, rng.uniform(4, 9), d) + rng.uniform(0, 6)) for d in shape]
    value = waves[0]
    for wave in waves[1:]:
        value = value[..., None] + wave
    value = value + rng.normal(0, 0.1, shape)
    return (low + (value - value.min()) / np.ptp(value) * (high - low)).astype(np.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_float_graph_equals_litert(name: str) -> None:
    low, high, other = NETWORKS[name]
    data = (DATA / name).read_bytes()
    judged = other(data) if other else data
    network = unpacked(judged).subgraphs[0]
    ends = tuple(Endpoint(network.tensors[index].name) for index in network.outputs)
    graph = converted(DATA / name, surgery=Surgery(outputs=ends))
    feeds = {n: smooth(graph[n].shape, low, high).astype(graph[n].dtype.numpy) for n in graph.inputs}
    ours = FloatEngine(graph).run(feeds)
    for result, expected in zip(graph.outputs, litert_run(judged, feeds), strict=True):
        span = float(np.ptp(expected))
        assert span > 1e-3, result
        assert np.abs(ours[result] - expected).max() <= 1e-4 * span, result
    assert "TRANSPOSE" not in [node.op for node in graph.nodes] or name.startswith("yolox")


def test_transposes_of_a_network_that_was_channels_first() -> None:
    """218 are in the file; with an input in the order of pictures none is left."""
    graph = import_model(load_tflite(DATA / "yolox_nano/yolox_nano_float16_quantize.tflite"))
    assert sum(node.op == "TRANSPOSE" for node in graph.nodes) > 200
    optimise(graph)
    assert "TRANSPOSE" not in [node.op for node in graph.nodes]


def test_an_audio_network_behind_its_spectrogram() -> None:
    path = DATA / "yamnet/yamnet.tflite"
    with pytest.raises(UserError) as caught:
        converted(path)
    assert [p in str(caught.value) for p in ("3 problems", "the network is quantised: 34", "RFFT2D", "COMPLEX_ABS")]
    graph = converted(path, dequantize=True, surgery=Surgery((Endpoint("magnitude_spectrogram"),)))
    assert graph["magnitude_spectrogram"].shape == (96, 257)
    assert graph[graph.outputs[0]].shape == (1, 521)


def test_a_quantised_classifier_as_one_of_real_numbers() -> None:
    """The RELU6 of its convolutions, and of the pooling behind them, are in the ranges alone."""
    path = QUANTISED / "mobilenet_v1_0.25_224/mobilenet_v1_0.25_224_quant.tflite"
    graph = converted(path, dequantize=True)
    assert sum("RELU6" in (node.op, node.attrs.get("activation")) for node in graph.nodes) == 28
    engine, agreeing, cosines = FloatEngine(graph), 0, []
    for picture in sorted((DATA.parent / "images/imagenet_sample").glob("*.jpg"))[:8]:
        x = cv2.resize(cv2.imread(str(picture)), (224, 224))[None, ..., ::-1].copy()
        ours = engine.run({"input": (x.astype(np.float32) - 128) / 128})[graph.outputs[0]][0]
        theirs = litert_run(path.read_bytes(), {"input": x})[0][0] / 256
        agreeing += int(ours.argmax() == theirs.argmax())
        cosines.append(np.dot(ours, theirs) / np.linalg.norm(ours) / np.linalg.norm(theirs))
    assert agreeing >= 6 and np.mean(cosines) > 0.97
