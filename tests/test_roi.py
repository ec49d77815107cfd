"""Regions of feature maps in integers: the float operator's windows, and a second stage through all its forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto
from onnxruntime import InferenceSession

from closeness import cosine
from fixed_examples import quantised
from onnx_snippets import Net
from sgs.builder import GraphBuilder
from sgs.config.chips import load_chip
from sgs.config.input_config import ConvSpec
from sgs.engine import FixedEngine, FloatEngine, run_reference
from sgs.errors import UserError
from sgs.frontends.onnx_import import import_model
from sgs.frontends.onnx_model import normalised
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import Array, QuantParams, activation_params, dequantise, quantise
from sgs.numeric.types import DType
from sgs.ops.roi_align import WEIGHT_BITS, weight_bits, weights_are_fine
from sgs.passes.pipeline import optimise
from sgs.quant.boundary import codes_of_inputs, real_outputs
from sgs.quant.edit import build_fixed
from sgs.quant.levels import Calibration
from sgs.quant.ports import Ports
from sgs.quant.statistics import measure_extrema
from test_compile import check_frames, through_file

Shape = tuple[int, ...]


def pooled(shape: Shape, count: int, size: tuple[int, int], scale: float) -> Graph:
    """ROI_MAX_POOL of inputs x and regions."""
    build = GraphBuilder()
    x, regions = build.input("x", shape), build.input("regions", (count, 5))
    return build.output(build("ROI_MAX_POOL", x, regions, output="y", size=size, spatial_scale=scale))


def in_codes(graph: Graph, x: QuantParams, dtype: DType, reach: float) -> Graph:
    """Its fixed form: x and y of a type, regions up to `reach` in INT16."""
    fixed = graph.copy()
    for name in ("x", "y"):
        fixed[name].dtype, fixed[name].quant = dtype, x
    regions = activation_params(-reach, reach, DType.INT16)
    fixed["regions"].dtype, fixed["regions"].quant = DType.INT16, regions
    return fixed


def proposals(rng: np.random.Generator, pictures: int, count: int, high: float, wide: float) -> Array:
    """Regions in and around a picture `high` and `wide`, some reversed or outside, some at halves of entries."""
    corners = rng.uniform(-0.3, 1.3, (count, 4)) * [wide, high, wide, high]
    corners[::3] = np.sort(corners[::3].reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    corners[::4] = np.rint(corners[::4] / 4) * 4
    return np.concatenate([rng.integers(0, pictures, (count, 1)), corners], 1).astype(np.float32)


@pytest.mark.parametrize("dtype", [DType.INT16, DType.UINT8])
@pytest.mark.parametrize(
    ("shape", "size", "scale"),
    [
        ((1, 11, 17, 6), (7, 7), 1 / 16),
        ((3, 9, 8, 5), (3, 5), 0.125),
        ((2, 37, 40, 3), (6, 4), 0.0625),
        ((1, 5, 6, 2), (14, 13), 1.0),
        ((2, 40, 23, 1), (1, 3), 0.3),
    ],
)
def test_windows_are_those_of_the_float_operator(
    shape: Shape, size: tuple[int, int], scale: float, dtype: DType
) -> None:
    """onnxruntime on the real numbers that the codes stand for."""
    rng = np.random.default_rng(shape[1])
    high, wide = shape[1] / scale, shape[2] / scale
    graph = pooled(shape, 120, size, scale)
    params = activation_params(-3.0, 1.5, dtype)
    fixed = in_codes(graph, params, dtype, 1.5 * max(high, wide))
    regions = fixed["regions"].quant
    assert regions is not None
    feeds = {
        "x": rng.integers(dtype.qmin, dtype.qmax + 1, shape).astype(dtype.numpy),
        "regions": quantise(proposals(rng, shape[0], 120, high, wide), regions, DType.INT16),
    }
    real = {"x": dequantise(feeds["x"], params), "regions": dequantise(feeds["regions"], regions)}
    real["regions"][:, 0] = np.rint(real["regions"][:, 0])
    truth = FloatEngine(graph, threads=1).run(real)["y"]
    zero = int(params.zero_point[0])
    assert (dtype is DType.UINT8) == (zero != 0)
    for values in (FixedEngine(fixed, threads=1).run(feeds)["y"], run_reference(fixed, feeds)["y"]):
        assert np.array_equal(dequantise(values, params), truth)
        assert (values[truth == 0] == zero).all()
    assert 0.02 < (truth == 0).mean() < 0.9  # bins without entries


@pytest.mark.parametrize("dtype", [DType.INT16, DType.UINT8])
@pytest.mark.parametrize(
    ("shape", "size", "attrs"),
    [
        ((1, 11, 17, 6), (7, 7), {"sampling_ratio": 2, "half_pixel": True, "spatial_scale": 1 / 16}),
        ((3, 9, 8, 5), (3, 5), {"sampling_ratio": 0, "half_pixel": True, "spatial_scale": 0.125}),
        ((2, 37, 40, 3), (6, 4), {"sampling_ratio": 0, "half_pixel": False, "spatial_scale": 0.3}),
        ((1, 5, 6, 2), (4, 13), {"sampling_ratio": 3, "half_pixel": False, "spatial_scale": 1.0}),
    ],
)
def test_samples_are_those_of_the_float_operator(
    shape: Shape, size: tuple[int, int], attrs: dict[str, Any], dtype: DType
) -> None:
    """onnxruntime on the real numbers that the codes stand for, but for half a code and the rounding of weights."""
    rng = np.random.default_rng(shape[1])
    build = GraphBuilder()
    x, regions = build.input("x", shape), build.input("regions", (60, 4))
    pictures = rng.integers(0, shape[0], 60).astype(np.int32)
    graph = build.output(build("ROI_ALIGN", x, regions, pictures, output="y", mode="avg", size=size, **attrs))
    params = activation_params(-3.0, 1.5, dtype)
    high, wide = (extent / attrs["spatial_scale"] for extent in shape[1:3])
    fixed = in_codes(graph, params, dtype, 1.5 * max(high, wide))
    corners = proposals(rng, 1, 60, high, wide)[:, 1:]
    if attrs["half_pixel"] and not attrs["sampling_ratio"]:  # onnxruntime fails for reversed ones
        corners = np.sort(corners.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    quant = fixed["regions"].quant
    assert quant is not None
    feeds = {
        "x": rng.integers(dtype.qmin, dtype.qmax + 1, shape).astype(dtype.numpy),
        "regions": quantise(corners, quant, DType.INT16),
    }
    real = {"x": dequantise(feeds["x"], params), "regions": dequantise(feeds["regions"], quant)}
    truth = FloatEngine(graph, threads=1).run(real)["y"]
    values, slow = FixedEngine(fixed, threads=1).run(feeds)["y"], run_reference(fixed, feeds)["y"]
    assert np.array_equal(values, slow)
    step, reach = float(params.scale[0]), float(np.ptp(real["x"]))
    bits = weight_bits(fixed.nodes[0], fixed["x"])
    assert 12 <= bits <= WEIGHT_BITS
    assert np.abs(dequantise(values, params) - truth).max() <= 0.5 * step + reach * 2.0**-bits + 1e-5
    assert np.unique(values).size > 50


def test_pictures_keep_their_numbers() -> None:
    """Beside corners up to 30,000, whose step is 0.92; numbers of pictures that are not there are those of the last."""
    fixed = in_codes(pooled((9, 2, 3, 1), 9, (1, 1), 1.0), activation_params(-9, 9, DType.INT16), DType.INT16, 3e4)
    x, regions = fixed["x"].quant, fixed["regions"].quant
    assert x is not None and regions is not None
    values = np.broadcast_to(np.arange(9.0)[:, None, None, None], (9, 2, 3, 1))
    wanted = np.array([[3, 0, 0, 0, 0], [8, 0, 0, 1, 1], [0, 0, 0, 2, 1], [11, 0, 0, 0, 0], [-2, 0, 0, 0, 0]])
    feeds = {
        "x": quantise(values.astype(np.float32), x, DType.INT16),
        "regions": quantise(np.resize(wanted, (9, 5)).astype(np.float32), regions, DType.INT16),
    }
    for found in (FixedEngine(fixed, threads=1).run(feeds)["y"], run_reference(fixed, feeds)["y"]):
        assert np.rint(dequantise(found, x)).ravel().tolist() == [3, 8, 0, 8, 0, 3, 8, 0, 8]


def test_regions_are_read_in_16_bits() -> None:
    """Though an 8-bit sum of products reads them too; constant ones stay real numbers."""
    rng = np.random.default_rng(4)
    build = GraphBuilder()
    x, corners = build.input("x", (1, 8, 9, 3)), build.input("corners", (6, 4))
    regions = build("CONCATENATION", np.zeros((6, 1), np.float32), corners, axis=1)
    weight = rng.normal(0, 1, (7, 5)).astype(np.float32)
    narrow = build("FULLY_CONNECTED", regions, weight, None, output="z", keep_num_dims=False, activation="NONE")
    y = build("ROI_MAX_POOL", x, regions, output="y", size=(2, 3), spatial_scale=1.0)
    still = proposals(rng, 1, 4, 8, 9)
    more = build("ROI_MAX_POOL", x, still, output="w", size=(2, 3), spatial_scale=1.0)
    fixed = quantised(build.output(narrow, y, more), 8)
    readers = fixed.readers()
    read, kept = (fixed[fixed.producers()[name].inputs[1] or ""] for name in "yw")
    assert read.dtype is DType.INT16 and read.quant is not None
    assert [node.op for node in readers[read.name]] == ["QUANTIZE", "ROI_MAX_POOL"]
    assert kept.data is not None and np.array_equal(kept.data, still) and kept.dtype is DType.FLOAT32


def aligned(pictures: int, mode: str, *, computed: bool = True) -> Graph:
    """ROI_ALIGN of pictures whose numbers are a column of an input, `computed` with or not."""
    build = GraphBuilder()
    x, regions = build.input("x", (pictures, 8, 9, 3)), build.input("regions", (6, 5))
    numbers = build("GATHER", build("RELU", regions) if computed else regions, np.array(0, np.int32), axis=1)
    if computed:
        numbers = build("MINIMUM", numbers, np.array([pictures - 1], np.float32), activation="NONE")
    numbers = build("CAST", numbers, to="INT32")
    corners = build("STRIDED_SLICE", regions, begin=(0, 1), end=(6, 5), strides=(1, 1))
    attrs = {"sampling_ratio": 2, "half_pixel": True, "spatial_scale": 1.0, "mode": mode}
    return build.output(build("ROI_ALIGN", x, corners, numbers, output="y", size=(2, 3), **attrs))


@pytest.mark.parametrize(
    ("pictures", "mode", "message"), [(1, "max", r'"max", .* "avg" has one'), (2, "avg", "several pictures have to be")]
)
def test_forms_without_integers(pictures: int, mode: str, message: str) -> None:
    with pytest.raises(UserError, match=f"cannot be quantised: .*{message}"):
        quantised(aligned(pictures, mode), 16)
    quantised(aligned(1, "avg"), 16)


def test_numbers_of_pictures_in_a_column_of_an_input_are_exact() -> None:
    """Beside corners up to 900, whose step is 0.03: each region is of its own picture, all of which are apart."""
    rng = np.random.default_rng(8)
    graph, pictures = aligned(5, "avg", computed=False), 5
    feeds = []
    for _ in range(4):
        x = rng.uniform(-0.3, 0.3, (pictures, 8, 9, 3)) + np.arange(pictures)[:, None, None, None]
        regions = np.concatenate([rng.permutation(6)[:, None] % pictures, rng.uniform(0, 8, (6, 4))], 1)
        regions[0, 4] = 900
        feeds.append({"x": x.astype(np.float32), "regions": regions.astype(np.float32)})
    work = Calibration(graph, measure_extrema(graph, feeds, threads=1), feeds, ConvSpec(), threads=1)
    fixed = build_fixed(work.prepared, work.initial_plan())
    (pool,) = [node for node in fixed.nodes if node.op == "ROI_ALIGN"]
    read = fixed[pool.inputs[1] or ""].quant
    assert read is not None and read.scale[0] > 0.02
    real, engine = FloatEngine(graph, threads=1), FixedEngine(fixed, threads=1)
    for feed in feeds:
        codes = codes_of_inputs(fixed, feed)
        found, slow = engine.run(codes), run_reference(fixed, codes)
        assert slow[pool.inputs[2] or ""].tolist() == feed["regions"][:, 0].tolist()
        assert np.array_equal(found["y"], slow["y"])
        assert np.abs(real_outputs(fixed, found, ["y"])["y"] - real.run(feed)["y"]).max() < 0.02
    check_frames(fixed, through_file(fixed, load_chip("pcupid")), 1)


def test_weights_lose_bits_to_the_samples_of_a_bin() -> None:
    """2^53 over 2^15 for a code and the samples is what two weights may reach."""
    (node,) = [node for node in aligned(1, "avg").nodes if node.op == "ROI_ALIGN"]
    for ratio, extent, bits in ((2, 4000, 14), (32, 40, 13), (0, 40, 12), (0, 1022, 8), (0, 1023, 7), (2048, 9, 7)):
        node.attrs["sampling_ratio"] = ratio
        x = Tensor("x", (1, extent, extent, 3), DType.INT16)
        assert weight_bits(node, x) == bits
        assert weights_are_fine(node, (x,), ()) is (bits >= 8)


# -- a second stage ----------------------------------------------------------------------------------------------------
REGIONS, CHANNELS, HIGH, WIDE, STRIDE = 40, 24, 18, 25, 16


def second_stage(op: str) -> ModelProto:
    """Feature map and regions of it → probabilities and boxes of each region."""
    net = Net(seed=6)
    features = net.input("features", 1, CHANNELS, HIGH, WIDE)
    flat = net("Flatten", POOLS[op](net, features, net.input("regions", REGIONS, 5)))
    inner = net("Relu", net("Gemm", flat, net.weights(64, 20 * CHANNELS), net.weights(64), transB=1))
    scores = net("Gemm", inner, net.weights(11, 64), net.weights(11), transB=1)
    net("Softmax", scores, axis=-1, result="probabilities")
    net("Gemm", inner, net.weights(44, 64), net.weights(44), transB=1, result="boxes")
    return net.model("probabilities", "boxes")


def _align(net: Net, features: str, regions: str) -> str:
    """As torchvision's roi_align exports, pictures by number in the first column."""
    numbers = net("Cast", net("Gather", regions, np.array(0), axis=1), to=TensorProto.INT64)
    corners = net("Slice", regions, np.array([1]), np.array([5]), np.array([1]))
    size = {"output_height": 5, "output_width": 4, "sampling_ratio": 2, "spatial_scale": 1 / STRIDE}
    return str(net("RoiAlign", features, corners, numbers, coordinate_transformation_mode="half_pixel", **size))


def _pool(net: Net, features: str, regions: str) -> str:
    return str(net("MaxRoiPool", features, regions, pooled_shape=[5, 4], spatial_scale=1 / STRIDE))


POOLS = {"ROI_MAX_POOL": _pool, "ROI_ALIGN": _align}


def stage_samples(count: int, seed: int) -> list[dict[str, Array]]:
    """Feature maps [1, C, H, W] behind a RELU, and regions in them."""
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        features = np.maximum(rng.normal(0, rng.uniform(0.5, 2), (1, CHANNELS, HIGH, WIDE)), 0)
        corners = rng.uniform(0, 1, (REGIONS, 2, 2)) * [STRIDE * WIDE - 1, STRIDE * HIGH - 1]
        corners[:-3] = np.sort(corners[:-3], axis=1)
        corners[-2:] = 0  # as places without a proposal are filled
        regions = np.concatenate([np.zeros((REGIONS, 1)), corners.reshape(-1, 4)], 1)
        samples.append({"features": features.astype(np.float32), "regions": regions.astype(np.float32)})
    return samples


@pytest.mark.parametrize(
    ("op", "wide", "types"),
    [
        ("ROI_MAX_POOL", (), (DType.UINT8, DType.UINT8)),
        ("ROI_MAX_POOL", ("features", "regions"), (DType.INT16, DType.INT16)),
        ("ROI_ALIGN", (), (DType.INT16, DType.UINT8)),
    ],
)
def test_a_second_stage(op: str, wide: tuple[str, ...], types: tuple[DType, DType]) -> None:
    """Fed with real numbers, and with codes of 16 bits (`wide`)."""
    model = second_stage(op)
    source = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    graph = import_model(normalised(model, Path("second.onnx")))
    optimise(graph)
    real, truth = FloatEngine(graph, threads=1), []
    feeds = [{**s, "features": s["features"].transpose(0, 2, 3, 1)} for s in stage_samples(12, 1)]
    for sample, feed in zip(stage_samples(12, 1), feeds, strict=True):
        truth.append(dict(zip(graph.outputs, source.run(graph.outputs, sample), strict=True)))
        assert all(np.allclose(real.run(feed)[name], value, atol=1e-5) for name, value in truth[-1].items())
    work = Calibration(graph, measure_extrema(graph, feeds[:8], threads=1), feeds[:8], ConvSpec(), threads=1)
    core = build_fixed(work.prepared, work.run("L2"), Ports(codes=frozenset(wide)))
    (pool,) = [node for node in core.nodes if node.op == op]
    assert (core[pool.inputs[0] or ""].dtype, core[pool.outputs[0]].dtype) == types
    assert core[pool.inputs[1] or ""].dtype is DType.INT16
    fixed = FixedEngine(core, threads=1)
    for feed, wanted in zip(feeds[8:], truth[8:], strict=True):
        found = real_outputs(core, fixed.run(codes_of_inputs(core, feed)), core.outputs)
        assert all(cosine(found[name], wanted[name]) >= 0.999 for name in core.outputs)
    for chip in ("ifado", "pcupid"):
        check_frames(core, through_file(core, load_chip(chip), batches=3), 3)
        check_frames(core, through_file(core, load_chip(chip), batch_mode="one_buf", batches=(2, 1)), 2)
