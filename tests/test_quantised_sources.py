"""Source networks that are quantised already: what the float network computes, and what calibration takes over."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from onnx_compare import assert_same
from onnx_snippets import Net
from sgs.engine import FloatEngine
from sgs.errors import UserError
from sgs.frontends.onnx_import import import_model
from sgs.frontends.onnx_model import normalised
from sgs.ir import Graph
from sgs.passes.pipeline import optimise
from sgs.pipelines import check_operators
from sgs.quant.export import activations_of
from sgs.quant.parameters import METADATA_KEY
from sgs.quant.unrounded import rounding_parameters, unrounded
from shipped import NAME
from test_networks import Case, case_of, run_source


class Feeds(CalibrationDataReader):  # type: ignore[misc]
    """Pictures of a case as onnxruntime's quantiser asks for them."""

    def __init__(self, case: Case) -> None:
        floats = (case.floats(sample) for sample in case.samples(0, 8))
        self._feeds: Iterator[Any] = ({n: v.transpose(0, 3, 1, 2).copy() for n, v in f.items()} for f in floats)

    def get_next(self) -> Any:
        return next(self._feeds, None)


@lru_cache
def quantised_case(form: str) -> Case:
    """The shipped classifier of digits, quantised by onnxruntime."""
    case = case_of(NAME)
    with tempfile.TemporaryDirectory() as folder:
        plain, model = Path(folder, "plain.onnx"), Path(folder, "quantised.onnx")
        quant_pre_process(str(case.model), str(plain), skip_symbolic_shape=True)
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(str(plain), str(model), Feeds(case), quant_format=QuantFormat[form], per_channel=True, **types)
        quantised = replace(case, model=model)
        quantised.__dict__["truth"] = [run_source(quantised, quantised.floats(s)) for s in quantised.samples(20, 3)]
        assert quantised.graph  # while there is the file
    return quantised


def imported(net: Net, *outputs: str) -> tuple[Graph, Any]:
    model = net.model(*outputs)
    graph = import_model(normalised(model, Path("net.onnx")), skip_simplify=True)
    return graph, model


def rounded(net: Net, x: str, scale: float, zero: int, *between: tuple[str, dict[str, Any]]) -> str:
    """x through a QuantizeLinear, operators on codes, and a DequantizeLinear."""
    parameters = net.constant(scale, np.float32), net.constant(zero, np.uint8)
    codes = net("QuantizeLinear", x, *parameters)
    for op, attrs in between:
        codes = net(op, codes, **attrs)
    return str(net("DequantizeLinear", codes, *parameters))


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_the_float_network_gives_the_sources_codes(form: str) -> None:
    case = quantised_case(form)
    engine = FloatEngine(case.graph)
    for sample, truth in zip(case.samples(20, 3), case.__dict__["truth"], strict=True):
        for name, value in engine.run(case.floats(sample)).items():
            assert np.array_equal(value, truth[name])


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_without_rounding_it_is_the_network_that_was_quantised(form: str) -> None:
    case, source = quantised_case(form), case_of(NAME)
    plain = unrounded(case.graph)
    assert Counter(node.op for node in plain.nodes) == Counter(node.op for node in source.graph.nodes)
    assert unrounded(source.graph) is source.graph


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_calibration_follows_the_sources_ranges(form: str) -> None:
    case = quantised_case(form)
    own = {p.name: p for p in rounding_parameters(case.graph)}
    assert [entry["name"] for entry in case.graph.metadata[METADATA_KEY]] == list(own)
    followed = 0
    for name, tensor in activations_of(case.calibrated("L1", 8)):
        if name in own and tensor.dtype.bits == own[name].bit:
            assert tensor.quant is not None
            found = [tensor.quant.low[0], tensor.quant.high[0]]
            np.testing.assert_allclose(found, [own[name].low[0], own[name].high[0]], rtol=1e-5, atol=1e-6)
            followed += 1
    assert followed > 20


def test_a_pair_is_one_operator_whatever_moves_codes_between() -> None:
    net = Net()
    x = rounded(net, net.input("x", 1, 6, 8, 10), 0.02, 100, ("MaxPool", {"kernel_shape": [3, 3], "pads": [1] * 4}))
    y = rounded(net, net.conv(x, 6, 5), 0.05, 0, ("Transpose", {"perm": [0, 2, 3, 1]}), ("Flatten", {}))
    graph, model = imported(net, y)
    optimise(graph)
    assert Counter(node.op for node in graph.nodes)["FAKE_QUANTIZE"] == 2
    assert not {"QUANTIZE_LINEAR", "DEQUANTIZE_LINEAR"} & {node.op for node in graph.nodes}
    assert_same(graph, model, low=-3, high=3)


def test_codes_that_begin_at_0_leave_a_relu() -> None:
    net = Net()
    x = net.input("x", 1, 6, 8, 10)
    graph, _ = imported(net, rounded(net, net.conv(x, 6, 5), 0.05, 0), rounded(net, net.conv(x, 6, 5), 0.05, 3))
    optimise(graph)
    plain = unrounded(graph)
    assert [node.attrs["activation"] for node in plain.nodes if node.op == "CONV_2D"] == ["RELU", "NONE"]


def test_codes_that_leave_the_network_have_no_fixed_form() -> None:
    net = Net()
    y = net(
        "QuantizeLinear", net("Relu", net.input("x", 3, 5)), net.constant(0.1, np.float32), net.constant(7, np.uint8)
    )
    graph, model = imported(net, y)
    assert_same(graph, model)
    with pytest.raises(UserError, match="QUANTIZE_LINEAR.*codes of the source network's own"):
        check_operators(graph)


def test_ranges_that_the_values_choose_are_measured() -> None:
    net = Net()
    x = net("Relu", net.input("x", 3, 5))
    codes, scale, zero = net("DynamicQuantizeLinear", x, outputs=3)
    graph, model = imported(net, net("DequantizeLinear", codes, scale, zero))
    optimise(graph)
    assert_same(graph, model)
    assert [node.op for node in unrounded(graph).nodes] == ["RELU"] and rounding_parameters(graph) == ()


def test_pads_of_codes_keep_their_numbers() -> None:
    """The zero point, another code, and codes that a real pad stands between."""
    for value in (100, 7):
        net = Net()
        parameters = net.constant(0.02, np.float32), net.constant(100, np.uint8)
        codes = net("QuantizeLinear", net.input("x", 3, 5), *parameters)
        padded = net("Pad", codes, np.array([0, 1, 0, 2]), np.array(value, np.uint8))
        graph, model = imported(net, net("DequantizeLinear", padded, *parameters))
        optimise(graph)
        assert_same(graph, model)
    net = Net()
    x = rounded(net, net.input("x", 3, 5), 0.5, 100)
    padded = net("Pad", x, np.array([0, 1, 0, 2]), np.array(0.7, np.float32))
    graph, model = imported(net, rounded(net, padded, 0.5, 100))
    optimise(graph)
    assert_same(graph, model, low=-9, high=9)


def test_a_negative_pad_before_codes_from_0_on_is_clamped() -> None:
    net = Net()
    padded = net("Pad", net("Relu", net.input("x", 3, 5)), np.array([0, 1, 0, 2]), np.array(-5, np.float32))
    graph, _ = imported(net, net("Tanh", rounded(net, padded, 0.05, 0)))
    optimise(graph)
    feeds = {"x": np.ones((3, 5), np.float32)}
    (truth,), (value,) = (FloatEngine(g, threads=1).run(feeds).values() for g in (graph, unrounded(graph)))
    assert truth.min() == value.min() == 0


def test_indices_beside_codes_stay_indices() -> None:
    net = Net()
    parameters = net.constant(0.02, np.float32), net.constant(100, np.uint8)
    codes = net("QuantizeLinear", net.input("x", 3, 5), *parameters)
    values, where = net("TopK", codes, np.array([2]), outputs=2)
    graph, _ = imported(net, net("DequantizeLinear", values, *parameters), where)
    optimise(graph)
    feeds = {"x": np.random.default_rng(0).uniform(-1, 1, (3, 5)).astype(np.float32)}
    found = FloatEngine(graph, threads=1).run(feeds)
    assert np.array_equal(found[graph.outputs[1]], np.argsort(-feeds["x"])[:, :2])
