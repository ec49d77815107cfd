"""The report of a calibration: layers measured against independent arithmetic, the table and the JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import shipped
from sgs import products
from sgs.builder import GraphBuilder
from sgs.cli import calibrator_tool
from sgs.config.input_config import ConvSpec
from sgs.engine import FixedEngine, FloatEngine
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import Array, dequantise, quantise
from sgs.ops._window import window_node
from sgs.quant import layers as module
from sgs.quant.boundary import codes_of_inputs, real_outputs
from sgs.quant.layers import Layer, describe_layers, gains_of, measured
from sgs.quant.levels import Calibration, searched_tensors
from sgs.quant.plan import QuantPlan
from sgs.quant.prepare import prepare
from sgs.quant.statistics import measure_extrema, measure_histograms
from sgs.quant.traps import Finding
from sgs.registry import REFERENCE
from sgs.report.calibration import record, short, table
from shipped import CHIP, INI, SCRIPT, converted


def network() -> Graph:
    """conv a → SiLU s → conv b (ReLU) → joined with a pool of s → conv y; softmax p of y; channels of a far apart."""
    rng = np.random.default_rng(0)
    build = GraphBuilder()

    def conv(x: Tensor, channels: int, name: str, spread: float = 1.0, activation: str = "NONE") -> Tensor:
        weight = rng.normal(0, x.shape[-1] ** -0.5, (channels, 1, 1, x.shape[-1]))
        weight *= np.geomspace(1, spread, channels)[:, None, None, None]
        bias = rng.normal(0, 0.2, channels).astype(np.float32)
        window = window_node(activation=activation)
        return build("CONV_2D", x, weight.astype(np.float32), bias, output=name, **window)

    a = conv(build.input("x", (1, 13, 11, 4)), 8, "a")
    s = build("MUL", a, build("LOGISTIC", a), activation="NONE", output="s")
    b = conv(s, 9, "b", spread=50.0, activation="RELU")
    c = conv(b, 6, "c")
    joined = build("CONCATENATION", s, c, axis=3, output="joined")
    y = conv(joined, 5, "y")
    return build.output(y, build("SOFTMAX", y, beta=1.0, output="p"))


GRAPH = network()


def feeds(count: int, seed: int = 1) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(0, 1, (1, 13, 11, 4)).astype(np.float32)} for _ in range(count)]


def calibration() -> Calibration:
    data = feeds(8)
    extrema = measure_extrema(GRAPH, data, threads=1)
    statistics = measure_histograms(GRAPH, data, searched_tensors(prepare(GRAPH)), extrema, threads=1)
    return Calibration(GRAPH, statistics, data, ConvSpec(), threads=1)


def reported(work: Calibration, plan: QuantPlan, samples: list[dict[str, Array]]) -> dict[str, Layer]:
    core, graph = work.fixed(plan), work.network(plan).graph
    found = measured(describe_layers(graph, core, plan, {}), graph, core, samples, plan.scales)
    return {layer.name: layer for layer in found}


def decibels(real: list[Array], truth: list[Array]) -> float:
    y, q = (np.stack(part).astype(np.float64) for part in (truth, real))
    return float(10 * np.log10((y**2).sum() / ((q - y) ** 2).sum()))


# -- measuring ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("level", ["L1", "L5"])
def test_accumulated_errors_are_those_of_the_whole_network(level: str) -> None:
    """At every tensor, in the units of the network as it came, whatever was equalised."""
    work, data = calibration(), feeds(3, seed=7)
    plan = work.run(level)
    core, found = work.fixed(plan), reported(work, plan, data)
    inner = ["a", "s", "b", "c", "joined"]
    copy = core.copy()
    copy.outputs = [*core.outputs, *inner]
    fixed, truth = FixedEngine(copy, threads=1), FloatEngine(GRAPH, threads=1, extra=inner)
    results = [real_outputs(copy, fixed.run(codes_of_inputs(core, sample)), copy.outputs) for sample in data]
    expected = [truth.run(sample) for sample in data]
    assert found.keys() == {*inner, "y", "p"}
    for name, layer in found.items():
        scale = plan.scales.get(name, np.ones(1)).astype(np.float32)
        whole = decibels([values[name] / scale for values in results], [values[name] for values in expected])
        assert layer.accumulated == pytest.approx(whole, abs=0.01), name


def test_errors_alone_start_from_what_the_float_network_feeds() -> None:
    work, data = calibration(), feeds(2, seed=7)
    plan = work.run("L1")
    core, found = work.fixed(plan), reported(work, plan, data)
    truth = FloatEngine(GRAPH, threads=1, extra=["s", "b", "c"])
    makers = core.producers()
    for name, source in (("b", "s"), ("c", "b")):
        node, real, wanted = makers[name], [], []
        operand = core[node.inputs[0] or ""]
        assert operand.quant is not None
        for sample in data:
            values = truth.run(sample)
            codes = quantise(values[source], operand.quant, operand.dtype)
            constants = [None if n is None else core[n].data for n in node.inputs[1:]]
            (result,) = REFERENCE[node.op](node, core.operands(node), core.results(node), [codes, *constants])
            quant = core[name].quant
            assert quant is not None
            real.append(dequantise(result, quant))
            wanted.append(values[name])
        alone = found[name].alone
        assert alone == pytest.approx(decibels(real, wanted), abs=0.01)
        assert alone is not None and alone > (found[name].accumulated or 0) + 0.5
    assert found["a"].alone == pytest.approx(found["a"].accumulated)
    assert found["joined"].alone is None  # it only moves codes
    assert (found["p"].alone or 0) > 55 > (found["p"].accumulated or 0)  # through all that a softmax becomes


def test_parts_of_a_network_measure_what_the_whole_does(monkeypatch: pytest.MonkeyPatch) -> None:
    work, data = calibration(), feeds(2, seed=7)
    plan = work.run("L3")
    whole = reported(work, plan, data)
    sizes = []
    split = module._split
    monkeypatch.setattr(module, "_split", lambda graph: sizes.append(len(split(graph))) or split(graph))
    monkeypatch.setattr(module, "SEGMENT_BYTES", 5000)
    parts = reported(work, plan, data)
    assert sizes[0] > 4
    for name, layer in whole.items():
        assert parts[name].accumulated == pytest.approx(layer.accumulated, abs=1e-3), name
        assert parts[name].alone == pytest.approx(layer.alone, abs=1e-3), name


def test_layers_say_how_they_are_held() -> None:
    work = calibration()
    plan = work.run("L1").with_mac("c", bits=16)
    found = {layer.name: layer for layer in describe_layers(GRAPH, work.fixed(plan), plan, {"b": 1.5})}
    assert [found[name].operator for name in ("a", "s", "joined", "p")] == [
        "CONV_2D",
        "LOGISTIC MUL",
        "CONCATENATION",
        "SOFTMAX",
    ]
    assert [found[name].bits for name in ("a", "b", "c", "y", "p")] == [8, 8, 16, 8, 16]
    shares = {name: found[name].macs for name in "abcy"}
    total = 4 * 8 + 8 * 9 + 9 * 6 + 14 * 5
    assert shares == pytest.approx({"a": 32 / total, "b": 72 / total, "c": 54 / total, "y": 70 / total})
    assert (found["b"].gain, found["a"].gain) == (1.5, None)
    assert (found["a"].method, found["p"].method, found["p"].operand_method) == ("minmax x 1.5", "known", None)
    assert [found[name].method for name in "sc"] == ["shared", "minmax x 1.5"]  # c, which s is joined with, is wider
    assert found["y"].operand_method == "minmax"
    low, high = work.statistics.tensors["b"].span
    assert (found["b"].low, found["b"].high) == pytest.approx((-1.5 * high, 1.5 * high))  # in 16 bits
    assert low >= 0


def test_gains_are_shares_of_the_error_energy() -> None:
    gains = gains_of({"a": 0.9, "b": 0.1, "c": 0.0})
    assert gains == pytest.approx({"a": 10.0, "b": -10 * np.log10(0.9), "c": 0.0})
    assert gains_of({"a": 2.0}) == {"a": pytest.approx(60.0)}


def test_promotion_leaves_its_measurements() -> None:
    work = calibration()
    assert work.run("L3") and work.sensitivities == {}
    work.run("L4")
    assert work.sensitivities.keys() == {"a", "b", "c", "y"} and min(work.sensitivities.values()) > 0


# -- showing -----------------------------------------------------------------------------------------------------------
def layer(name: str, **changes: object) -> Layer:
    plain = Layer(name, "CONV_2D", 8, -1.0, 2.0, "minmax", "histogram-mse", 0.01, 30.0, 20.0)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_the_table_shows_the_worst_layers_first() -> None:
    many = [layer(f"conv{k}", alone=40.0 - k, gain=(k % 7) / 10) for k in range(30)]
    many.append(layer("y", operator="SOFTMAX", bits=16, operand_method=None, macs=0.0, alone=55.04, accumulated=19.96))
    lines = table(many, ["y"]).splitlines()
    assert lines[0] == "worst 10 of 31 layers by what 16 bit would gain the outputs, in dB on at most 2 samples:"
    assert lines[1].split() == ["layer", "operator", "bits", "range", "by", "alone", "so", "far", "16", "bit", "MACs"]
    assert [line.split()[0] for line in lines[2:7]] == ["conv6", "conv13", "conv20", "conv27", "conv5"]
    assert lines[2].split() == ["conv6", "CONV_2D", "8", "histogram-mse", "34.0", "20.0", "+0.60", "1.0%"]
    assert lines[12:] == ["outputs: y 20.0; 0.0% of the multiply-accumulates in 16 bit"]
    lines = table([replace(one, gain=None) for one in many], ["y"]).splitlines()
    assert lines[0].startswith("worst 10 of 31 layers by signal to noise alone")
    assert [line.split()[0] for line in lines[2:5]] == ["conv29", "conv28", "conv27"]


def test_the_table_fits_the_terminal_and_is_empty_without_measurements() -> None:
    long = [layer(f"/part{k}/{'inner/' * 20}Conv_output_0", operator="LOGISTIC " * 6, gain=59.99) for k in range(20)]
    lines = table(long, [one.name for one in long]).splitlines()
    assert len(lines) == 13 and max(map(len, lines[:-1])) <= 100 and len(lines[-1]) < 190
    assert lines[-1].count(" 20.0") == 3 and "and 17 more" in lines[-1]
    assert table([layer("a", alone=None, accumulated=None)], ["a"]) == ""


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/features/features.3/layers/layers.0/layers.0.2/Clip_output_0", "features.3/layers.0.2/Clip"),
        ("onnx::Sigmoid_1177", "onnx::Sigmoid_1177"),
        ("t33", "t33"),
        ("model/act_26/Relu;model/bn_26/FusedBatchNormV3;model/conv2d_13/Conv2D1", "model/act_26/Relu"),
        ("a_very_long_name_without_any_slashes_at_all", "…name_without_any_slashes_at_all"),
    ],
)
def test_names_are_shortened_to_what_tells_them_apart(name: str, shown: str) -> None:
    assert short(name) == shown and len(shown) <= 32


def test_the_record_holds_everything() -> None:
    found = [layer("a", macs=0.25, bits=16), layer("y", alone=None)]
    finding = Finding("dead output channels", "CONV_2D 'a'", "1 of 4", "harmless", (3,))
    data = json.loads(record(found, [finding], ["y"], {"level": "L3"}))
    assert data["calibration"] == {"level": "L3"} and data["outputs"] == {"y": 20.0} and data["int16_macs"] == 0.25
    words = {"trap": "dead output channels", "where": "CONV_2D 'a'", "numbers": "1 of 4", "outcome": "harmless"}
    assert data["findings"] == [{**words, "channels": [3]}]
    assert [one["name"] for one in data["layers"]] == ["a", "y"] and data["layers"][1]["alone"] is None
    assert data["layers"][0].keys() == set(Layer.__dataclass_fields__)


# -- the program -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("level", "saves", "shows"), [("L1", False, False), ("L1", True, True), ("L3", False, True), ("L4", True, True)]
)
def test_the_program_reports(
    level: str, saves: bool, shows: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "digits_fixed.sim"
    options = ["-i", shipped.sample_list(tmp_path, shipped.CALIBRATION, 8), "-n", SCRIPT, "--quant_level", level]
    options += ["-m", converted() / "digits_float.sim", "-o", target, "--input_config", INI, "--soc_version", CHIP]
    assert calibrator_tool.main([str(option) for option in [*options, *(["--save_quant_info"] if saves else [])]]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert shows == any(line.startswith("worst 10 of ") for line in printed)
    assert max(map(len, printed[:-1])) <= 100
    file = products.report_path(target)
    assert file.name == "digits_fixed_report.json" and file.exists() == saves
    if saves:
        data = json.loads(file.read_text(encoding="utf-8"))
        assert data["outputs"]["logits"] > 15 and len(data["layers"]) > 30
        measures = [(one["alone"], one["gain"]) for one in data["layers"] if one["macs"] and one["bits"] == 8]
        assert all(alone > 15 and gain >= 0 for alone, gain in measures)
        assert sum(one["macs"] for one in data["layers"]) == pytest.approx(1)
