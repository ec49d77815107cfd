"""Codes in TFLite files: weights of float networks, and quantised networks as those of real numbers.

LiteRT's kernels for weights of codes round activations on the fly, so the judge of such a file is LiteRT on a copy
whose weights are written out as real numbers.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgs.engine import FloatEngine
from sgs.errors import UserError
from sgs.ir.graph import Graph
from sgs.numeric.nibbles import pack_nibbles
from sgs.numeric.quantise import Array
from sgs.passes.pipeline import optimise
from sgs.registry import TFLITE_EXAMPLES
from sgs.sim import generated as schema
from tflite_files import TfliteFile, case_file, codes, imported, litert_run, pack, record, unpacked, written_out

RNG = np.random.default_rng(3)


def real(*shape: int) -> Array:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def int8(*shape: int) -> Array:
    return RNG.integers(-127, 128, shape).astype(np.int8)


def constant(file: TfliteFile, name: str, coded: tuple[Array, Any], kind: str = "") -> str:
    data, quant = coded
    file.constant(name, data, quantization=quant)
    if kind:
        file.tensors[name].type = getattr(schema.TensorType, kind)
    return name


def ours(graph: Graph, *values: Array) -> Array:
    made = graph.copy()
    optimise(made)
    return FloatEngine(made).run(dict(zip(made.inputs, values, strict=True)))[made.outputs[0]]


# -- weights of float networks -----------------------------------------------------------------------------------------
def dynamic_range() -> bytes:
    """CONV_2D and DEPTHWISE_CONV_2D with a scale for each channel, FULLY_CONNECTED with one."""
    file = TfliteFile()
    file.tensor("x", (1, 6, 5, 4))
    constant(file, "w1", codes(int8(7, 3, 3, 4), np.linspace(0.001, 0.01, 7)))
    file.constant("b1", real(7))
    file.tensor("c", (1, 6, 5, 7))
    file.operator("CONV_2D", ["x", "w1", "b1"], ["c"], "Conv2DOptions", {"stride_h": 1, "stride_w": 1})
    constant(file, "w2", codes(int8(1, 3, 3, 7), np.linspace(0.002, 0.02, 7), axis=3))
    file.constant("b2", real(7))
    file.tensor("d", (1, 6, 5, 7))
    steps = {"stride_h": 1, "stride_w": 1, "depth_multiplier": 1}
    file.operator("DEPTHWISE_CONV_2D", ["c", "w2", "b2"], ["d"], "DepthwiseConv2DOptions", steps)
    constant(file, "w3", codes(int8(3, 210), 0.004))
    file.constant("b3", real(3))
    file.tensor("y", (1, 3))
    file.operator("FULLY_CONNECTED", ["d", "w3", "b3"], ["y"], "FullyConnectedOptions")
    return file.bytes(["x"], ["y"])


def test_dynamic_range_weights(tmp_path: Path) -> None:
    data, x = dynamic_range(), real(1, 6, 5, 4)
    y = ours(imported(data, tmp_path), x)
    exact, hybrid = litert_run(written_out(data), {"x": x})[0], litert_run(data, {"x": x})[0]
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=2e-6 * float(np.ptp(exact)))
    assert 1e-4 < np.abs(y - hybrid).max() / np.ptp(exact) < 0.03  # what rounding activations costs LiteRT


@pytest.mark.parametrize("zero", [0, 117])
def test_uint8_weights_of_a_float_operator(zero: int, tmp_path: Path) -> None:
    """Of zero point 0 they are INT8 under an old name, as LiteRT takes them."""
    weight = int8(5, 8)
    file = TfliteFile()
    file.tensor("x", (2, 8))
    constant(file, "w", codes(weight.view(np.uint8), 0.01, zero))
    file.constant("b", real(5))
    file.tensor("y", (2, 5))
    file.operator("FULLY_CONNECTED", ["x", "w", "b"], ["y"], "FullyConnectedOptions")
    data, x = file.bytes(["x"], ["y"]), real(2, 8)
    y = ours(imported(data, tmp_path), x)
    if zero:
        np.testing.assert_allclose(y, litert_run(written_out(data), {"x": x})[0], rtol=1e-5, atol=1e-5)
    else:
        hybrid = litert_run(data, {"x": x})[0]
        assert np.abs(y - hybrid).max() / np.ptp(y) < 0.02


def test_int4_weights(tmp_path: Path) -> None:
    weight = RNG.integers(-7, 8, (5, 8)).astype(np.int8)
    file = TfliteFile()
    file.tensor("x", (2, 8))
    constant(file, "w", codes(weight, np.linspace(0.05, 0.2, 5)), "INT4")
    file.buffers[file.tensors["w"].buffer].data = pack_nibbles(weight)
    file.tensor("y", (2, 5))
    file.operator("FULLY_CONNECTED", ["x", "w", ""], ["y"], "FullyConnectedOptions")
    x = real(2, 8)
    expected = x.astype(np.float64) @ (weight * np.linspace(0.05, 0.2, 5, dtype=np.float32)[:, None]).T
    np.testing.assert_allclose(ours(imported(file.bytes(["x"], ["y"]), tmp_path), x), expected, rtol=1e-5, atol=1e-5)


def embedding(op: str) -> bytes:
    file = TfliteFile()
    file.tensor("i", (3,), "int32")
    constant(file, "t", codes(int8(11, 6), 0.02))
    order = ["i", "t"] if op == "EMBEDDING_LOOKUP" else ["t", "i"]
    if op == "EMBEDDING_LOOKUP":
        file.tensor("y", (3, 6))
        file.operator(op, order, ["y"])
    else:  # codes are moved, and only then real numbers made of them
        _, quant = codes(int8(1), 0.02)
        file.tensor("g", (3, 6), "int8", quantization=quant)
        file.operator(op, order, ["g"], "GatherOptions")
        file.tensor("y", (3, 6))
        file.operator("DEQUANTIZE", ["g"], ["y"], "DequantizeOptions")
    return file.bytes(["i"], ["y"])


@pytest.mark.parametrize("op", ["EMBEDDING_LOOKUP", "GATHER"])
def test_tables_of_codes(op: str, tmp_path: Path) -> None:
    data, numbers = embedding(op), np.array([7, 0, 10], np.int32)
    graph = imported(data, tmp_path)
    np.testing.assert_allclose(ours(graph, numbers), litert_run(data, {"i": numbers})[0], rtol=1e-6)


@pytest.mark.parametrize("direct", [False, True])
def test_float16_weights(direct: bool, tmp_path: Path) -> None:
    """Behind a DEQUANTIZE, or as they are."""
    file = TfliteFile()
    file.tensor("x", (2, 8))
    weight = real(5, 8).astype(np.float16)
    file.constant("h", weight)
    if not direct:
        file.tensor("w", (5, 8))
        file.operator("DEQUANTIZE", ["h"], ["w"], "DequantizeOptions")
    file.tensor("y", (2, 5))
    file.operator("FULLY_CONNECTED", ["x", "h" if direct else "w", ""], ["y"], "FullyConnectedOptions")
    data, x = file.bytes(["x"], ["y"]), real(2, 8)
    graph = imported(data, tmp_path)
    assert [node.op for node in graph.nodes] == ["FULLY_CONNECTED"]
    expected = x @ weight.astype(np.float32).T if direct else litert_run(data, {"x": x})[0]
    np.testing.assert_allclose(ours(graph, x), expected, rtol=1e-5, atol=1e-6)


# -- sparse weights ----------------------------------------------------------------------------------------------------
def sparse(blocks: bool) -> tuple[bytes, Array]:
    """A matrix [4, 6] with few values: rows compressed, or columns of 2 × 1 blocks. The values of it."""
    dense = np.zeros((4, 6), np.float32)
    dense[0, 1], dense[0, 4], dense[2, 0], dense[3, 5] = 1.5, -2, 3, 0.25
    dimension = lambda **fields: record("DimensionMetadata", **fields)  # noqa: E731
    if blocks:  # blocks of 2 rows: (0, 1), (0, 4), (1, 0), (1, 5)
        stored = np.array([1.5, 0, -2, 0, 3, 0, 0, 0.25], np.float32)
        order, block_map, extents = [0, 1, 2], [0], [2]
        segments, indices = [0, 2, 4], [1, 4, 0, 5]
    else:
        stored, order, block_map, extents = dense[dense != 0], [0, 1], None, []
        segments, indices = [0, 2, 2, 3, 4], [1, 4, 0, 5]
    vectors = [record("Int32Vector", values=np.array(values, np.int32)) for values in (segments, indices)]
    levels = [
        dimension(format=0, denseSize=2 if blocks else 4),
        dimension(
            format=1,
            arraySegmentsType=1,
            arraySegments=vectors[0],
            arrayIndicesType=1,
            arrayIndices=vectors[1],
        ),
        *(dimension(format=0, denseSize=extent) for extent in extents),
    ]
    sparsity = record("SparsityParameters", traversalOrder=order, blockMap=block_map, dimMetadata=levels)
    file = TfliteFile()
    file.tensor("x", (2, 6))
    file.constant("s", stored)
    file.tensors["s"].shape, file.tensors["s"].sparsity = np.array([4, 6], np.int32), sparsity
    file.tensor("w", (4, 6))
    file.operator("DENSIFY", ["s"], ["w"], "DensifyOptions")
    file.tensor("y", (2, 4))
    file.operator("FULLY_CONNECTED", ["x", "w", ""], ["y"], "FullyConnectedOptions")
    return file.bytes(["x"], ["y"]), dense


@pytest.mark.parametrize("blocks", [False, True])
def test_sparse_weights(blocks: bool, tmp_path: Path) -> None:
    data, dense = sparse(blocks)
    x = real(2, 6)
    y = ours(imported(data, tmp_path), x)
    np.testing.assert_allclose(y, x @ dense.T, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(y, litert_run(data, {"x": x})[0], rtol=1e-6, atol=1e-6)


# -- quantised networks ------------------------------------------------------------------------------------------------
def activation(file: TfliteFile, name: str, shape: Any, kind: str, scale: float, zero: int) -> str:
    _, quant = codes(np.zeros(1), scale, zero)
    return file.tensor(name, shape, kind, quantization=quant)


def quantised(kind: str, *, ends: bool = True, bias_scale: bool = True) -> bytes:
    """x → CONV_2D, whose RELU6 only its range says → CONV_2D, whose RELU only its range says → y; QUANTIZE and
    DEQUANTIZE around it, or codes as input and output."""
    rng, least = np.random.default_rng(7), {"int8": -128, "uint8": 0}[kind]
    file = TfliteFile()
    if ends:
        file.tensor("x", (1, 6, 5, 4))
    activation(file, "q", (1, 6, 5, 4), kind, 4 / 255, least + 128)
    if ends:
        file.operator("QUANTIZE", ["x"], ["q"], "QuantizeOptions")
    source, scale = "q", 4 / 255
    for k, (shape, top) in enumerate((((1, 6, 5, 7), 6), ((1, 6, 5, 3), 3.1))):
        weight = rng.integers(-127, 128, (shape[3], 3, 3, 4 if k == 0 else 7)).astype(np.int8)
        step = 0.004
        given = weight if kind == "int8" else (weight.astype(np.int16) + 128).astype(np.uint8)
        constant(file, f"w{k}", codes(given, step, 0 if kind == "int8" else 128))
        bias, quant = codes(rng.integers(-9000, 9000, shape[3]).astype(np.int32), scale * step)
        file.constant(f"b{k}", bias, quantization=quant if bias_scale else None)
        activation(file, f"c{k}", shape, kind, top / 255, least)
        options = {"stride_h": 1, "stride_w": 1}
        file.operator("CONV_2D", [source, f"w{k}", f"b{k}"], [f"c{k}"], "Conv2DOptions", options)
        source, scale = f"c{k}", top / 255
    if ends:
        file.tensor("y", (1, 6, 5, 3))
        file.operator("DEQUANTIZE", [source], ["y"], "DequantizeOptions")
    return file.bytes(["x" if ends else "q"], ["y" if ends else source])


@pytest.mark.parametrize("kind", ["int8", "uint8"])
@pytest.mark.parametrize("bias_scale", [True, False])
def test_a_quantised_network_as_one_of_real_numbers(kind: str, bias_scale: bool, tmp_path: Path) -> None:
    data, x = quantised(kind, bias_scale=bias_scale), 2 * real(1, 6, 5, 4)
    with pytest.raises(UserError) as caught:
        imported(data, tmp_path)
    for words in ("the network is quantised: 4 operators compute in", "QUANTIZE 'q' first", "with --dequantize)"):
        assert words in str(caught.value)
    graph = imported(data, tmp_path, dequantize=True)
    assert [node.op for node in graph.nodes] == ["CONV_2D", "RELU6", "CONV_2D", "RELU"]
    theirs = litert_run(quantised(kind), {"x": x})[0]
    step = 3.1 / 255
    at_most = np.clip(ours(graph, x), 0, 3.1)  # the upper end of a range is no activation
    assert np.abs(at_most - theirs).max() < 8 * step
    assert (theirs == 0).mean() > 0.1 and 0 < (theirs > 3).mean() < 0.9


def test_codes_as_inputs_and_outputs_become_real_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = quantised("int8", ends=False)
    with caplog.at_level("INFO"):
        graph = imported(data, tmp_path, dequantize=True)
    assert "input 'q' takes (code - 0) * 0.0156863 in place of INT8 codes" in caplog.text
    assert [graph[name].dtype.name for name in (*graph.inputs, *graph.outputs)] == ["FLOAT32", "FLOAT32"]
    x = RNG.integers(-128, 128, (1, 6, 5, 4)).astype(np.int8)
    theirs = litert_run(data, {"q": x})[0].astype(np.float64) + 128
    y = np.clip(ours(graph, x.astype(np.float32) * np.float32(4 / 255)), 0, 3.1)
    assert np.abs(y - theirs * 3.1 / 255).max() < 8 * 3.1 / 255


def test_16_bit_activations(tmp_path: Path) -> None:
    """INT16 activations have biases of 64 bits."""
    file = TfliteFile()
    activation(file, "x", (2, 8), "int16", 1 / 32768, 0)
    constant(file, "w", codes(int8(5, 8), 0.01))
    bias, quant = codes(RNG.integers(-(2**20), 2**20, 5).astype(np.int64), 0.01 / 32768)
    file.constant("b", bias, quantization=quant)
    activation(file, "y", (2, 5), "int16", 8 / 32768, 0)
    file.operator("FULLY_CONNECTED", ["x", "w", "b"], ["y"], "FullyConnectedOptions")
    data = file.bytes(["x"], ["y"])
    graph = imported(data, tmp_path, dequantize=True)
    assert [node.op for node in graph.nodes] == ["FULLY_CONNECTED"]
    x = RNG.integers(-30000, 30000, (2, 8)).astype(np.int16)
    theirs = litert_run(data, {"x": x})[0] * (8 / 32768)
    np.testing.assert_allclose(ours(graph, x.astype(np.float32) / 32768), theirs, atol=8 / 32768)


def test_a_quantised_lstm(tmp_path: Path) -> None:
    """Biases are 32-bit codes with scales of their own, the state begins with zeros, whatever their code is."""
    model = unpacked(case_file(TFLITE_EXAMPLES["UNIDIRECTIONAL_SEQUENCE_LSTM"][0]))
    for tensor in model.subgraphs[0].tensors:
        kind, step = (np.int32, 1e-4) if len(tensor.shape) == 1 else (np.int8, 0.01)
        tensor.type = schema.TensorType.INT32 if kind is np.int32 else schema.TensorType.INT8
        tensor.quantization = record("QuantizationParameters", scale=[step], zeroPoint=[0 if tensor.buffer else 5])
        if tensor.buffer:
            value = np.asarray(model.buffers[tensor.buffer].data).view(np.float32)
            rounded = np.rint(value / step).astype(kind)
            model.buffers[tensor.buffer].data = rounded.view(np.uint8)
    data, x = pack(model), RNG.integers(-100, 100, (2, 3, 5)).astype(np.float32) / 100
    with pytest.raises(UserError, match="1 operators compute in INT8 codes, UNIDIRECTIONAL_SEQUENCE_LSTM 'y0' first"):
        imported(data, tmp_path)
    graph = imported(data, tmp_path, dequantize=True)
    theirs = litert_run(case_file(TFLITE_EXAMPLES["UNIDIRECTIONAL_SEQUENCE_LSTM"][0]), {"x": x})[0]
    np.testing.assert_allclose(ours(graph, x), theirs, atol=0.02)


def test_codes_that_are_taken_for_numbers(tmp_path: Path) -> None:
    file = TfliteFile()
    activation(file, "x", (2, 8), "int8", 0.5, 3)
    file.tensor("y", (2, 8))
    file.operator("CAST", ["x"], ["y"], "CastOptions", {"in_data_type": "INT8", "out_data_type": "FLOAT32"})
    with pytest.raises(UserError, match="operator CAST of codes is not supported"):
        imported(file.bytes(["x"], ["y"]), tmp_path, dequantize=True)


def test_plain_integers_stay(tmp_path: Path) -> None:
    """A picture of bytes without scale is of numbers."""
    file = TfliteFile()
    file.tensor("x", (1, 4, 3, 2), "uint8")
    file.tensor("y", (1, 4, 3, 2))
    file.operator("CAST", ["x"], ["y"], "CastOptions", {"in_data_type": "UINT8", "out_data_type": "FLOAT32"})
    graph = imported(file.bytes(["x"], ["y"]), tmp_path)
    assert graph["x"].dtype.name == "UINT8"
    x = RNG.integers(0, 256, (1, 4, 3, 2)).astype(np.uint8)
    assert np.array_equal(ours(graph, x), x)
