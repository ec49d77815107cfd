"""Quantisation parameters and plans as files: what entries mean, what is refused, and that exports reproduce."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import calibrator_custom
from conventions import ROOT
from sgs.builder import GraphBuilder
from sgs.cli import calibrator_tool, convert_tool, sgs_converter
from sgs.config.chips import load_chip
from sgs.config.input_config import ConvSpec
from sgs.data.packed_array import packed, unpacked
from sgs.engine import FixedEngine, FloatEngine, run_reference
from sgs.errors import UserError
from sgs.img import OfflineEngine
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import Array, activation_params, symmetric_params
from sgs.numeric.types import DType
from sgs.ops._window import window_node
from sgs.pipelines import (
    CalibrationOptions,
    apply_plan,
    calibrate,
    compile_fixed,
    follow_parameters,
    plan_record,
    read_plan,
)
from sgs.quant.boundary import codes_of_inputs, real_outputs
from sgs.quant.edit import build_fixed
from sgs.quant.export import exported, json_text, pickle_bytes
from sgs.quant.levels import Calibration, searched_tensors
from sgs.quant.parameters import (
    QuantParameter,
    check_parameters,
    parse_parameters,
    read_parameters,
    recorded,
    unused,
    with_parameters,
)
from sgs.quant.plan import QuantPlan, TensorRange
from sgs.quant.plan_file import network_of, parse_plan
from sgs.quant.prepare import prepare
from sgs.quant.statistics import measure_extrema, measure_histograms
from sgs.sim import read_sim, sim_bytes
from shipped import CALIBRATION, CHIP, INI, SCRIPT, SOURCE, converted, launch, sample_list
from test_networks import case_of

PUBLIC = pytest.mark.skipif("SGS_TEST_DATA" not in os.environ, reason="SGS_TEST_DATA is not set")


# -- a network with everything that entries can be about ---------------------------------------------------------------
def network() -> Graph:
    """conv a → SiLU s → depthwise d (one dead channel) → concat c of s and d → convs y and z, which share weight and
    bias."""
    rng = np.random.default_rng(4)
    build = GraphBuilder()
    x = build.input("x", (1, 9, 7, 4))
    bias = {name: rng.normal(0, 0.2, n).astype(np.float32) for name, n in (("a", 6), ("d", 6), ("head", 5))}
    kernels = {
        name: rng.normal(0, 0.4, shape).astype(np.float32)
        for name, shape in (("a", (6, 3, 3, 4)), ("d", (1, 3, 3, 6)), ("head", (5, 1, 1, 12)))
    }
    kernels["d"][..., 2] = 0

    def constant(name: str, data: Array) -> Tensor:
        return build.graph.add_constant(name, data)

    a = build("CONV_2D", x, constant("a/w", kernels["a"]), constant("a/b", bias["a"]), output="a", **window_node())
    s = build("MUL", a, build("LOGISTIC", a, output="gate"), activation="NONE", output="s")
    window = window_node(pads=(1, 1, 1, 1), activation="RELU")
    d = build("DEPTHWISE_CONV_2D", s, constant("d/w", kernels["d"]), constant("d/b", bias["d"]), output="d", **window)
    c = build("CONCATENATION", s, d, axis=3, activation="NONE", output="c")
    head = constant("head/w", kernels["head"]), constant("head/b", bias["head"])
    y = build("CONV_2D", c, *head, output="y", **window_node())
    e = build("ADD", c, np.float32([[[[0.5, *range(11)]]]]), activation="NONE", output="e")
    return build.output(y, build("CONV_2D", e, *head, output="z", **window_node()))


GRAPH = network()
ADDEND = next(t.name for t in GRAPH.tensors.values() if t.is_constant and t.shape == (1, 1, 1, 12))


def feeds(count: int, seed: int = 1) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(0, 1, (1, 9, 7, 4)).astype(np.float32)} for _ in range(count)]


def calibration(samples: int = 4, conv: ConvSpec | None = None, **options: Any) -> Calibration:
    data = feeds(samples)
    extrema = measure_extrema(GRAPH, data, threads=1)
    statistics = measure_histograms(GRAPH, data, searched_tensors(prepare(GRAPH)), extrema, threads=1)
    return Calibration(GRAPH, statistics, data, conv or ConvSpec(), threads=1, **options)


def entry(name: str, low: Any, high: Any, bit: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "min": np.atleast_1d(low).tolist(), "max": np.atleast_1d(high).tolist(), "bit": bit, **more}


def followed(*entries: dict[str, Any], conv: ConvSpec | None = None) -> tuple[QuantPlan, Graph, list[str]]:
    """(plan, integer graph, what was not followed) of entries on top of L1."""
    parameters = parse_parameters(list(entries))
    check_parameters(parameters, GRAPH)
    work = calibration(conv=conv)
    plan = with_parameters(work.initial_plan(), GRAPH, parameters)
    core = work.fixed(plan)
    return plan, core, unused(parameters, GRAPH, core)


def scale_of(core: Graph, name: str) -> list[float]:
    quant = core[name].quant
    assert quant is not None
    return [float(value) for value in quant.scale]


# -- what entries mean -------------------------------------------------------------------------------------------------
def test_limits_per_channel_are_taken_together() -> None:
    _, core, left = followed(entry("x", [-2, -1, -0.5, -3], [1, 2, 4, 0], 8), entry("c", -1, 7.5, 16))
    assert (core["x"].dtype, core["c"].dtype, left) == (DType.UINT8, DType.INT16, [])
    assert scale_of(core, "x") == [pytest.approx(7 / 255)]
    assert scale_of(core, "c") == [pytest.approx(max(7.5, core["s"].quant.high[0]) / 32767)]  # type: ignore[union-attr]


def test_two_entries_of_one_tensor() -> None:
    """Held in INT16 with one range, read in UINT8 with another; a single entry serves both."""
    _, core, left = followed(entry("s", -15, 15, 16), entry("s", -0.25, 2.0, 8), entry("c", -15, 15, 16))
    assert (core["s"].dtype, core["s/uint8"].dtype, left) == (DType.INT16, DType.UINT8, [])
    assert scale_of(core, "s") == [pytest.approx(15 / 32767)]
    assert scale_of(core, "s/uint8") == [pytest.approx(2.25 / 255)]
    plan, core, left = followed(entry("s", -0.25, 4.0, 8), entry("d/w", -3, 3, 8))
    assert plan.ranges["s"] == plan.narrow["s"] == TensorRange(-0.25, 4.0, "imported")
    assert scale_of(core, "s/uint8") == [pytest.approx(4.25 / 255)] and left == []


def test_weights_have_bounds_per_channel_and_the_precision() -> None:
    bounds = np.array([0.5, 0.25, 1.5, 2.0, 0.75, 1.0])
    plan, core, _ = followed(entry("a/w", -bounds, bounds / 2, 8), entry("d/w", -3, 2, 4), entry("head/w", -9, 1, 16))
    assert {name: mac.bits for name, mac in plan.macs.items()} == {"a": 8, "d": 4, "y": 16, "z": 16}
    kinds = {name: core[name].dtype.name for name in ("a/w/q", "d/w/q", "head/w/q", "head/w/q_1")}
    assert kinds == {"a/w/q": "INT8", "d/w/q": "INT4", "head/w/q": "INT16", "head/w/q_1": "INT16"}
    np.testing.assert_allclose(scale_of(core, "a/w/q"), bounds / 127, rtol=1e-6)
    np.testing.assert_allclose(scale_of(core, "d/w/q"), [3 / 7] * 6, rtol=1e-6)
    assert all((mac.weight_bound == 9).all() for mac in (plan.macs["y"], plan.macs["z"]))
    weight, codes = GRAPH["a/w"].data, core["a/w/q"].data
    assert weight is not None and codes is not None
    clipped = np.clip(weight.reshape(6, -1), -bounds[:, None], bounds[:, None])
    assert np.array_equal(codes.reshape(6, -1), np.rint(clipped / (bounds / 127)[:, None]))


def test_precision_of_the_first_operand_serves_where_the_weight_has_no_entry() -> None:
    plan, core, left = followed(
        entry("s", -9, 9, 16), entry("c", -9, 9, 16), entry("e", -9, 9, 8), entry("x", -4, 4, 8)
    )
    assert {name: mac.bits for name, mac in plan.macs.items()} == {"a": 8, "d": 16, "y": 16, "z": 8}
    assert core["e"].dtype is DType.UINT8 and left == []
    plan, _, left = followed(
        entry("c", -9, 9, 16), entry("y/weight", -1, 1, 8), entry("s", -1, 1, 8), entry("s", -9, 9, 16)
    )
    assert {name: mac.bits for name, mac in plan.macs.items()} == {"a": 8, "d": 8, "y": 8, "z": 8} and left == []
    plan, _, _ = followed(entry("x", -4, 4, 8), entry("head/w", -2, 2, 8), conv=ConvSpec("ALL_INT16"))
    assert {name: mac.bits for name, mac in plan.macs.items()} == {"a": 8, "d": 16, "y": 8, "z": 8}


def test_data_replaces_constants_of_all_or_of_one() -> None:
    rng = np.random.default_rng(8)
    shared, single, bias = rng.normal(0, 0.3, (5, 1, 1, 12)), rng.normal(0, 0.3, (5, 1, 1, 12)), np.arange(5) / 7
    plan, core, _ = followed(
        entry("z/weight", -1, 1, 16, data=single.astype(np.float32)),  # before and after the general one
        entry("head/w", -1, 1, 8, data=shared.tolist()),
        entry("head/b", 0, 1, 8, data=packed(bias)),
        entry("y/bias", 0, 1, 8, data=(-bias).tolist()),
    )
    assert (plan.macs["y"].bits, plan.macs["z"].bits) == (8, 16)
    for weight, name in ((shared, "head/w/q"), (single, "head/w/q_1")):
        codes = core[name].data
        assert codes is not None
        scale = np.reshape(scale_of(core, name), (5, 1, 1, 1))
        np.testing.assert_allclose(codes * scale, weight, atol=0.51 * float(scale.max()))
    for sign, name in ((-1, "y"), (1, "z")):
        codes, unit = core[f"{name}/bias"].data, scale_of(core, f"{name}/bias")
        assert codes is not None
        np.testing.assert_allclose(codes * unit, sign * bias, atol=max(unit))


def test_what_cannot_be_followed_is_named() -> None:
    _, _, left = followed(
        entry("gate", 0, 1, 16),
        entry("d/b", -1, 1, 8),
        entry("z/bias", -1, 1, 16),
        entry("d", 0, 4, 8),
        entry("s", -0.3, 3, 8),
        entry("s", -0.3, 3, 16),
        entry(ADDEND, 0, 11, 16),
    )
    assert [reason.split("'")[1] for reason in left] == ["gate", "d/b", "z/bias", "d", ADDEND]
    assert "inside a table" in left[0] and "follows from its data" in left[1] and "held in 16 bits, not in 8" in left[3]


def test_four_bit_weights_compute_and_compile_exactly() -> None:
    _, core, _ = followed(*(entry(name, -1.2, 1.2, 4) for name in ("a/w", "d/w", "head/w")))
    weights = [t for t in core.tensors.values() if t.dtype is DType.INT4]
    assert len(weights) == 4
    assert all(
        t.data is not None and t.data.dtype == np.int8 and -7 <= t.data.min() <= t.data.max() <= 7 for t in weights
    )
    assert core["x"].dtype is DType.UINT8 and core["a/bias"].dtype is DType.INT32
    sample = feeds(1, seed=9)[0]
    codes = codes_of_inputs(core, sample)
    truth, values = run_reference(core, codes), FixedEngine(core, threads=1).run(codes)
    offline = OfflineEngine(compile_fixed(core, load_chip("pcupid"))).run(codes)
    floats = FloatEngine(GRAPH, threads=1).run(sample)
    for name, real in real_outputs(core, values, core.outputs).items():
        assert np.array_equal(values[name], truth[name]) and np.array_equal(offline[name], truth[name])
        noise = float(((real - floats[name]) ** 2).mean() / floats[name].var())
        assert 1e-4 < noise < 0.1, "coarse, but the same function"
    with pytest.raises(UserError, match=r"take these number formats: uint8, int16 \(choose another chip"):
        compile_fixed(core, load_chip("mochi"))


# -- what is refused ---------------------------------------------------------------------------------------------------
GOOD = entry("x", -1, 1, 8)
FORM_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"bit": 2}, "bit 2 is not one of 4, 8, 16"),
    ({"bit": 8.0}, "bit 8.0 is not one of"),
    ({"bit": True}, "bit True is not one of"),
    ({"bit": np.array([8, 16])}, "is not one of"),
    ({"min": [1.5]}, "min 1.5 is above max 1 at position 0"),
    ({"min": [0, 2, 0], "max": [1, 1, 1]}, "min 2 is above max 1 at position 1"),
    ({"min": [0.0, 0.0]}, "min has 2 values, max 1"),
    ({"min": []}, "min is no list of numbers"),
    ({"min": 0.0}, "min is no list of numbers"),
    ({"max": ["1"]}, "max is no list of numbers"),
    ({"max": [[1.0]]}, "max is no list of numbers"),
    ({"max": [None]}, "max is no list of numbers"),
    ({"max": [float("inf")]}, "max has a value that is not finite"),
    ({"min": [float("nan")]}, "min has a value that is not finite"),
    ({"max": [1e39]}, "max has a value that is not finite"),
    ({"name": ""}, "the name '' is no text"),
    ({"name": None}, "the name None is no text"),
    ({"bits": 8}, "unknown key 'bits' (did you mean bit?)"),
    ({"data": "AAAA"}, "data is no array of numbers"),
    ({"data": [[1, 2], [3]]}, "data is no array of numbers"),
    ({"data": np.array([1, np.nan])}, "data has values that are not finite"),
    ({"data": {"shape": [2], "dtype": "float32", "base64": "AAAA"}}, "data is no array of numbers"),
]


@pytest.mark.parametrize(("change", "message"), FORM_FAULTS, ids=[message for _, message in FORM_FAULTS])
def test_faults_of_an_entry(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        calibrator_custom.utils.check_quant_param([{**GOOD, **change}])
    assert len(str(caught.value).splitlines()) == 1
    assert calibrator_custom.utils.check_quant_param([GOOD]) is None


def test_all_faults_of_a_list_in_one_report() -> None:
    entries = [GOOD, "x", {"name": "y"}, {**GOOD, "bit": 3, "min": [7]}, GOOD, {**GOOD, "bit": np.int64(16)}]
    with pytest.raises(ValueError) as caught:
        calibrator_custom.utils.check_quant_param(entries)
    lines = [line.removeprefix("  - ") for line in str(caught.value).splitlines()]
    assert lines == [
        "quant_file: 5 problems",
        "entry 1: is str, not a dictionary with the keys name, min, max, bit",
        "'y': min and max and bit missing",
        "'x': bit 3 is not one of 4, 8, 16",
        "'x': min 7 is above max 1 at position 0",
        "'x': is there 2 times with bit 8 (leave one)",
    ]
    for nothing in ([], {}, None, "x"):
        with pytest.raises(ValueError, match="not a list of quantisation parameters"):
            calibrator_custom.utils.check_quant_param(nothing)


NETWORK_FAULTS: list[tuple[list[dict[str, Any]], str]] = [
    ([entry("gat", 0, 1, 16)], "'gat': is no tensor of the float network (did you mean gate?)"),
    ([entry("y/wieght", 0, 1, 16)], "(did you mean y/weight?)"),
    ([entry("//////", 0, 1, 16)], "show_tensor_info.py -m FILE lists the names"),
    ([entry("x", [0, 0, 0], [1, 1, 1], 8)], "min and max have 3 values; expected 1 value or 4, one a channel"),
    ([entry("d/w", [0] * 9, [1] * 9, 8)], "min and max have 9 values; expected 1 value or 6"),
    ([entry("y/bias", [0] * 12, [1] * 12, 8)], "min and max have 12 values; expected 1 value or 5"),
    ([entry("x", 0, 1, 4)], "bit 4 is for weights; activations have 8 or 16"),
    ([entry("x", 0, 1, 8, data=[0.0])], "has data; only weights and biases"),
    ([entry(ADDEND, 0, 1, 16, data=[0.0])], "has data; only weights and biases"),
    ([entry("d/w", 0, 1, 8, data=[[1.0] * 6])], "data has shape [1, 6], that of the network [1, 3, 3, 6]"),
    ([entry("a/b", 0, 1, 8, data=np.zeros(5))], "data has shape [5], that of the network [6]"),
    ([entry("a/w", [-1, -1, 0, -1, -1, -1], [1, 1, 0, 1, 1, 1], 8)], "min and max are 0 for a channel whose weights"),
    ([entry("d/w", 0, 1, 8), entry("d/w", 0, 1, 16)], "'d/w': is a constant and is given with 2 precisions, bit 8 and"),
]


@pytest.mark.parametrize(("entries", "message"), NETWORK_FAULTS, ids=[message for _, message in NETWORK_FAULTS])
def test_entries_that_do_not_fit_the_network(entries: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        check_parameters(parse_parameters(entries), GRAPH, file="q.json")
    assert "quant_file: q.json: " in caught.value.render()
    fitting = [entry("d/w", [-1, -1, 0, -1, -1, -1], [1, 1, 0, 1, 1, 1], 8), entry("x", [0] * 4, [1] * 4, 8)]
    check_parameters(parse_parameters(fitting), GRAPH)  # channel 2 of d is dead: its bound may be 0


def test_a_name_for_two_things_is_refused() -> None:
    """ "y/bias" is a constant of the network that y does not read, and how the bias of y is named."""
    graph = GRAPH.copy()
    graph.rename_tensor("d/b", "y/bias")
    with pytest.raises(UserError, match="'y/bias': names a constant of the network, and is also"):
        check_parameters(parse_parameters([entry("y/bias", 0, 1, 8)]), graph)
    graph = GRAPH.copy()
    graph.rename_tensor("a/b", "a/bias")
    check_parameters(parse_parameters([entry("a/bias", 0, 1, 8)]), graph)


def test_integers_of_the_network_are_refused() -> None:
    build = GraphBuilder()
    words = build.input("words", (1, 5), DType.INT32)
    table = np.linspace(-1, 1, 28, dtype=np.float32).reshape(7, 4)
    graph = build.output(build("GATHER", build.constant("table", table), words, axis=0, batch_dims=0))
    with pytest.raises(UserError, match="'words': holds int32 of the network's own"):
        check_parameters(parse_parameters([entry("words", 0, 6, 16)]), graph)


def test_many_unknown_names_are_all_listed() -> None:
    parameters = parse_parameters([entry(f"/features/{i}/out", 0, 1, 8) for i in range(300)])
    with pytest.raises(UserError, match="300 problems"):
        check_parameters(parameters, GRAPH)


# -- files -------------------------------------------------------------------------------------------------------------
def written(data: bytes, folder: Path) -> Path:
    path = folder / "parameters"
    path.write_bytes(data)
    return path


def assert_same(one: tuple[QuantParameter, ...], other: tuple[QuantParameter, ...]) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert (a.name, a.bit, a.low.tolist(), a.high.tolist()) == (b.name, b.bit, b.low.tolist(), b.high.tolist())
        assert (a.data is None, a.scale is None) == (b.data is None, b.scale is None)
        assert a.scale is None or b.scale is None or np.array_equal(a.scale, b.scale)
        if a.data is not None and b.data is not None:
            assert a.data.shape == b.data.shape and np.array_equal(a.data, b.data)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_json_pickle_and_metadata_say_the_same(protocol: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(protocol)
    arrays: list[Array] = [
        rng.normal(0, 1, (3, 2, 5)).astype(np.float32),
        np.asfortranarray(rng.normal(0, 1, (4, 3))),
        rng.normal(0, 1, (2, 3)).astype(">f8"),
        np.arange(-3, 4, dtype=np.int8),
        rng.normal(0, 1, 9).astype(np.float16)[::2],
        np.zeros((0, 3), np.float32),
    ]
    whole = [entry(f"t{i}", -i - 0.1, i, (4, 8, 16)[i % 3], data=array) for i, array in enumerate(arrays)]
    whole.append({"name": "größe", "min": (np.float32(-1.1),), "max": np.array([2.5]), "bit": np.int16(8)})
    truth = parse_parameters(whole)
    assert_same(read_parameters(written(pickle.dumps(whole, protocol), tmp_path)), truth)
    assert_same(read_parameters(written(json_text(whole[:5]).encode(), tmp_path)), truth[:5])
    assert_same(parse_parameters(json.loads(json.dumps(recorded(truth)))), truth)
    assert json.loads(json_text(whole[:1]))[0].keys() == {"name", "min", "max", "bit", "data"}
    assert json_text(whole[:1]).startswith(
        '[\n    {\n        "name": "t0",\n        "min": [-0.1],\n        "max": [0],\n'
    )


class Runs:
    """Unpickling this would run code."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Runs(os.mkdir, "made"), r"it holds posix\.mkdir"),
        (Runs(eval, "1"), r"it holds builtins\.eval"),
        (Runs(np.load, "made"), r"it holds numpy\.load"),
        (Path("x"), "it holds pathlib"),
        (np.array([Runs(os.mkdir, "made")], object), r"it holds posix\.mkdir"),
        (np.array([None]), "an array of type 'O8'"),
        (np.zeros(2, [("a", "f4"), ("b", "O")]), "an array of type 'V12'"),
        (np.array(["a"]), "an array of type 'U1'"),
        (io.BytesIO(b"x"), r"it holds _io\.BytesIO"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_pickles_run_nothing(value: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        read_parameters(written(pickle.dumps([{**GOOD, "data": value}], 4), tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["parameters"]


def test_damaged_pickles_are_refused(tmp_path: Path) -> None:
    data = pickle.dumps([entry("a", 0, 1, 8, data=np.arange(6, dtype=np.float32).reshape(2, 3))], 3)
    length = data.index(b"C\x18") + 1  # of the array's bytes
    longer = data[:length] + b"\x14" + data[length + 1 : length + 21] + data[length + 25 :]
    for damaged in (*(data[:n] for n in range(1, len(data), 7)), longer):
        with pytest.raises(UserError, match="is no Pickle file of parameters"):
            read_parameters(written(damaged, tmp_path))
    with pytest.raises(UserError, match=r"an array of shape \(2, 3\) has 20 bytes"):
        read_parameters(written(longer, tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("[{]", "is no JSON file of parameters: .*line 1 column 3"),
        ("[" * 100_000, "is no JSON file"),
        ('[{"name": "a", "name": "b"}]', "one entry has the key 'name' twice"),
        ("7", "is not a list"),
    ],
    ids=lambda text: text[:20],
)
def test_damaged_json_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_parameters(written(text.encode(), tmp_path))
    assert str(tmp_path / "parameters") in caught.value.render()


def test_packed_arrays() -> None:
    for array in (np.float32([[0.1, -2], [3, 4]]), np.float64([0.1]), np.zeros((2, 0, 3), np.float32), np.float32(7)):
        back = unpacked(json.loads(json.dumps(packed(np.asarray(array)))))
        assert back.dtype == array.dtype and back.shape == array.shape and np.array_equal(back, array)
    good = packed(np.float32([1, 2]))
    for change, message in (
        ({"base64": "AAAA"}, "has 3 bytes; float32 of shape \\[2\\] has 8"),
        ({"base64": "?"}, "is not base64"),
        ({"base64": 5}, "is not base64"),
        ({"shape": [-2]}, "no list of whole numbers"),
        ({"shape": 2}, "no list of whole numbers"),
        ({"dtype": "object"}, "instead of float32 or float64"),
        ({"order": "F"}, "has the keys"),
    ):
        with pytest.raises(ValueError, match=message):
            unpacked({**good, **change})


# -- export and import -------------------------------------------------------------------------------------------------
@given(st.floats(-1e30, 1e30), st.floats(-1e30, 1e30), st.sampled_from([DType.UINT8, DType.INT16]))
def test_the_range_that_a_file_keeps_gives_the_parameters_again(low: float, high: float, dtype: DType) -> None:
    first = activation_params(min(low, high), max(low, high), dtype)
    again = activation_params(float(first.low[0]), float(first.high[0]), dtype)
    assert first.same_codes(again)
    assert (first.low.tolist(), first.high.tolist()) == (again.low.tolist(), again.high.tolist())
    weights = symmetric_params([abs(low), abs(high) / 3], DType.INT8)
    assert weights.same_codes(symmetric_params(weights.high, DType.INT8))


def mixed_plan(work: Calibration) -> QuantPlan:
    """L5 with something of everything: three precisions, clipped ranges, replaced and shifted constants."""
    plan = work.run("L5")
    rng = np.random.default_rng(2)
    plan = plan.with_mac("a", bits=8).with_mac("d", bits=16, bias_shift=rng.normal(0, 0.1, 6))
    plan = plan.with_mac("y", bits=4, weight=rng.normal(0, 0.3, (5, 1, 1, 12)), bias=rng.normal(0, 0.3, 5))
    return replace(plan, narrow={**plan.narrow, "c": TensorRange(-0.2, 2.0, "test"), "e": TensorRange(-0.1, 9, "test")})


@pytest.mark.parametrize("mixed", [False, True], ids=["L5", "mixed"])
@pytest.mark.parametrize("form", ["JSON", "Pickle"])
def test_an_export_makes_the_same_graph_again(mixed: bool, form: str, tmp_path: Path) -> None:
    work = calibration(threshold=0.0, max_int16_macs=0.5)
    plan = mixed_plan(work) if mixed else work.run("L5")
    core = work.fixed(plan)
    if mixed:
        assert {core[name].dtype.name for name in ("a/w/q", "d/w/q", "head/w/q")} == {"INT8", "INT16", "INT4"}
    entries = exported(core)
    assert {"head/w", "y/weight"} & {e["name"] for e in entries} == {"y/weight"}
    data = json_text(entries).encode() if form == "JSON" else pickle_bytes(entries)
    parameters = read_parameters(written(data, tmp_path))
    check_parameters(parameters, GRAPH)
    other = calibration(samples=2)  # sees less
    followed = with_parameters(other.initial_plan(), GRAPH, parameters)
    again = other.fixed(followed)
    assert unused(parameters, GRAPH, again) == []
    assert sim_bytes(again, "fixed") == sim_bytes(core, "fixed")
    read_back = parse_plan(json.loads(followed.to_json()))
    assert sim_bytes(work.fixed(read_back), "fixed") == sim_bytes(core, "fixed")


def test_sums_that_had_to_be_widened_come_back() -> None:
    """All weights at their largest: 16-bit depthwise sums do not fit two parts, and a bias of 8 bits not 2^31."""
    build = GraphBuilder()
    x = build.input("x", (1, 9, 8, 3))
    weight, small = np.ones((1, 5, 5, 3), np.float32), np.full((4, 1, 1, 3), 1e-9, np.float32)
    y = build("DEPTHWISE_CONV_2D", x, weight, np.float32([1, -2, 3]), output="y", **window_node())
    graph = build.output(build("CONV_2D", y, small, np.float32([50, -20, 0, 1]), output="z", **window_node()))
    data = [{"x": np.linspace(-2, 3, 216, dtype=np.float32).reshape(1, 9, 8, 3)}]
    work = Calibration(graph, measure_extrema(graph, data, threads=1), data, ConvSpec(), threads=1)
    plan = work.initial_plan().with_mac("y", bits=16)
    core = work.fixed(plan)
    wide, narrow = (core[core.producers()[name].inputs[1] or ""].quant for name in ("y", "z"))
    assert wide is not None and float(wide.high[0]) > 1.05, "the plan's bound is 1"
    assert narrow is not None and (narrow.high > 1e-7).tolist() == [True, True, False, True], "the plan's is 1e-9"
    parameters = parse_parameters(exported(core))
    again = work.fixed(with_parameters(work.initial_plan(), graph, parameters))
    assert sim_bytes(again, "fixed") == sim_bytes(core, "fixed")
    feeds = codes_of_inputs(core, data[0])
    assert np.array_equal(FixedEngine(core, threads=1).run(feeds)["z"], run_reference(core, feeds)["z"])


def chain() -> Graph:
    """conv p → SiLU q → conv r → conv t, where channels can be equalised, p, r and t with one bias."""
    rng = np.random.default_rng(6)
    build = GraphBuilder()
    bias = build.graph.add_constant("bias", rng.normal(0, 0.2, 5).astype(np.float32))
    p = build("CONV_2D", build.input("x", (1, 9, 7, 4)), _normal(rng, 5, 3, 3, 4), bias, output="p", **window_node())
    q = build("MUL", p, build("LOGISTIC", p), activation="NONE", output="q")
    r = build("CONV_2D", q, _normal(rng, 5, 2, 1, 5), bias, output="r", **window_node(activation="RELU"))
    return build.output(build("CONV_2D", r, _normal(rng, 5, 1, 1, 5), bias, output="t", **window_node()))


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.normal(0, 0.4, shape).astype(np.float32)


SCALES = {"p": np.array([1, 2, 0.3, 4, 1.7]), "q": np.array([3.1, 1, 1, 0.2, 5]), "r": np.array([1, 1.1, 9, 1, 2])}


def test_equalised_channels_come_back() -> None:
    """As factors of activations, which make the changed weights, biases and tables."""
    graph, data = chain(), feeds(3)
    work = Calibration(graph, measure_extrema(graph, data, threads=1), data, ConvSpec(), threads=1)
    plan = work.initial_plan(SCALES).with_mac("r", bits=16)
    core = work.fixed(plan)
    tables = [core[node.inputs[1] or ""].shape[0] for node in core.nodes if node.op == "TABLE"]
    assert tables == [5], "a table for every channel"
    core.metadata["equalised"] = {name: scale.tolist() for name, scale in SCALES.items()}
    entries = exported(core)
    assert {e["name"]: e["scale"] for e in entries if "scale" in e} == core.metadata.pop("equalised")
    assert {e["name"] for e in entries if "data" in e} == {f"{n}/{c}" for n in "pqrt" for c in ("weight", "bias")} - {
        "q/weight",
        "q/bias",
    }
    parameters = parse_parameters(json.loads(json_text(entries)))
    assert_same(parse_parameters(recorded(parameters)), parameters)
    check_parameters(parameters, graph)
    other = Calibration(graph, measure_extrema(graph, data[:1], threads=1), data[:1], ConvSpec(), threads=1)
    found: list[str] = []
    for imported in (follow_parameters(other, other.run("L1"), parameters), plan):
        read_back = parse_plan(json.loads(imported.to_json()))
        again = build_fixed(network_of(read_back, graph), read_back)
        assert sim_bytes(again, "fixed") == sim_bytes(core, "fixed")
        found.append(",".join(read_back.scales))
    assert found == ["p,q,r", "p,q,r"]


def test_scales_that_do_not_fit() -> None:
    graph = chain()
    for entries, message in (
        ([entry("t", -1, 1, 16, scale=[1.0] * 5)], "'t': is not between two sums of products"),
        ([entry("p/weight", -1, 1, 8, scale=[1.0] * 5)], "'p/weight': is not between two sums of products"),
        ([entry("r", 0, 1, 8, scale=[1.0] * 4)], "'r': has scales for 4 channels, not for 5"),
        ([entry("r", 0, 1, 8, scale=[2.0] * 5), entry("r", 0, 1, 16)], "'r': has entries of different scale"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            check_parameters(parse_parameters(entries), graph)
    for scale in ([0.0] * 5, [-1.0] * 5, [[1.0] * 5], 2.0, ["1"]):
        with pytest.raises(UserError, match="scale is no list of finite numbers above 0"):
            parse_parameters([entry("r", 0, 1, 8, scale=scale)])


def bare(graph: Graph) -> bytes:
    """The file of a fixed graph without the record of how it came about."""
    copy = graph.copy()
    copy.metadata.pop("calibration")
    return sim_bytes(copy, "fixed")


@pytest.mark.parametrize("name", ["onnx_yolo_shapes", pytest.param("palm_detection", marks=[PUBLIC, pytest.mark.long])])
def test_networks_come_back_at_l5(name: str, tmp_path: Path) -> None:
    """The digit classifier follows below; palm_detection has biases that several convolutions share."""
    case = case_of(name)
    options = CalibrationOptions("L5", threshold=0.002 if name == "onnx_yolo_shapes" else 0.0, processes=1)
    first = calibrate(case.graph, case.config, case.scripts, case.samples(0, 2), options)
    assert name == "onnx_yolo_shapes" or {mac.bits for mac in first.plan.macs.values()} == {8, 16}
    for data in (json_text(exported(first.graph)).encode(), pickle_bytes(exported(first.graph))):
        options = CalibrationOptions(processes=1, quant_parameters=read_parameters(written(data, tmp_path)))
        again = calibrate(case.graph, case.config, case.scripts, case.samples(4, 1), options)
        assert bare(again.graph) == bare(first.graph)
        assert again.graph.metadata["calibration"]["imported"] == len(options.quant_parameters)
    (tmp_path / "plan.json").write_text(plan_record(first), encoding="utf-8")
    plan, history = read_plan(tmp_path / "plan.json")
    assert sim_bytes(apply_plan(case.graph, case.config, plan, history), "fixed") == sim_bytes(first.graph, "fixed")


# -- the programs ------------------------------------------------------------------------------------------------------
COMMON = ["--input_config", str(INI), "--soc_version", CHIP]


def calibrated(*options: object) -> None:
    assert calibrator_tool.main([str(option) for option in (*options, *COMMON)]) == 0


@pytest.fixture(scope="module")
def at_l5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with digits_fixed.sim at L5, its plan, and its parameters in both forms."""
    folder = tmp_path_factory.mktemp("l5")
    samples = ["-i", sample_list(folder, CALIBRATION, 6), "-n", SCRIPT, "-sth", "0"]
    calibrated("-m", converted() / "digits_float.sim", "-o", folder / "digits_fixed.sim", "--save_quant_info", *samples)
    for mode in ("json", "Pickle"):
        done = launch(
            "Scripts/examples/save_quant_param.py", "-m", "digits_fixed.sim", "--output_mode", mode, cwd=folder
        )
        file = f"digits_fixed_quant_param.{'json' if mode == 'json' else 'pkl'}"
        assert (done.returncode, done.stdout, done.stderr) == (0, f"Quant parameters at: {file}\n", "")
        assert (folder / file).is_file()
    return folder


@pytest.mark.parametrize("file", ["digits_fixed_quant_param.json", "digits_fixed_quant_param.pkl"])
def test_parameters_through_the_programs(
    file: str, at_l5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given to the calibrator, or to ConvertTool, which leaves them in the float .sim."""
    truth = bare(read_sim(at_l5 / "digits_fixed.sim").graph)
    samples = ["-i", CALIBRATION / "digit_009.png", "-n", SCRIPT]
    calibrated("-m", converted() / "digits_float.sim", "-o", tmp_path / "a.sim", "--quant_file", at_l5 / file, *samples)
    told = capsys.readouterr()
    assert "warning: quantisation parameters: what they leave open is decided as at L1, not L5" in told.err
    assert re.search(r"^  imported parameters: outputs at \d+\.\d\d dB$", told.out, re.MULTILINE)
    assert "L1 on 1 sample: " in told.out
    assert bare(read_sim(tmp_path / "a.sim").graph) == truth
    source = ["onnx", *SOURCE, "--quant_file", str(at_l5 / file)]
    assert convert_tool.main([*source, "--output_file", str(tmp_path / "b_float.sim")]) == 0
    float_graph = read_sim(tmp_path / "b_float.sim").graph
    assert len(float_graph.metadata["quant_parameters"]) == len(read_parameters(at_l5 / file))
    assert "quant_parameters" not in read_sim(tmp_path / "Debug_b_float.sim").graph.metadata
    calibrated("-m", tmp_path / "b_float.sim", "--quant_level", "L1", *samples)
    assert "warning: quantisation parameters" not in capsys.readouterr().err
    fixed = read_sim(tmp_path / "b_fixed.sim").graph
    assert bare(fixed) == truth and "quant_parameters" not in fixed.metadata


def test_parameters_through_the_one_shot_program(
    at_l5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And those given to the calibrator replace those of the float .sim."""
    options = ["onnx", *SOURCE, "-i", CALIBRATION / "digit_009.png", "-n", SCRIPT, "--export_models"]
    options += ["--quant_file", at_l5 / "digits_fixed_quant_param.pkl", "--output_file", tmp_path / "c.img"]
    assert sgs_converter.main([str(option) for option in options]) == 0
    assert bare(read_sim(tmp_path / "c_fixed.sim").graph) == bare(read_sim(at_l5 / "digits_fixed.sim").graph)
    (tmp_path / "q.json").write_text(json_text([entry("logits", -50, 70, 16)]), encoding="utf-8")
    samples = ["-i", CALIBRATION / "digit_009.png", "-n", SCRIPT, "--quant_level", "L1"]
    calibrated("-m", tmp_path / "c_float.sim", "--quant_file", tmp_path / "q.json", "-o", tmp_path / "d.sim", *samples)
    assert "replace those in the float .sim" in capsys.readouterr().err
    graph = read_sim(tmp_path / "d.sim").graph
    assert scale_of(graph, "logits/codes") == [pytest.approx(70 / 32767)]
    assert graph.metadata["calibration"]["imported"] == 1
    assert {t.dtype.name for t in graph.tensors.values() if t.name.endswith("/q")} == {"INT8"}


def test_an_output_never_replaces_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = tmp_path / "q.sim"
    listed.write_text(json_text([entry("logits", -5, 7, 16)]), encoding="utf-8")
    source = ["onnx", *SOURCE, "--quant_file", str(listed), "--output_file", str(listed)]
    assert convert_tool.main(source) == 2
    assert "both an input and an output" in capsys.readouterr().err


# -- plans -------------------------------------------------------------------------------------------------------------
def test_a_saved_plan_makes_the_same_file(at_l5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["-m", converted() / "digits_float.sim"]
    plan = at_l5 / "digits_fixed_quant_info.json"
    calibrated(*model, "--plan", plan, "-o", tmp_path / "a.sim")
    assert (tmp_path / "a.sim").read_bytes() == (at_l5 / "digits_fixed.sim").read_bytes()
    assert f"by the plan {plan}: " in capsys.readouterr().out
    record = json.loads(plan.read_text(encoding="utf-8"))
    first = next(iter(record["macs"]))
    record["macs"][first]["bits"] = 4
    record["ranges"]["logits"].update(low=-90, high=30)
    (tmp_path / "edited.json").write_text(json.dumps(record), encoding="utf-8")
    calibrated(*model, "--plan", tmp_path / "edited.json", "-o", tmp_path / "b.sim", "-c", "Classification")
    assert "1 in 4, the others in 8" in capsys.readouterr().out
    graph = read_sim(tmp_path / "b.sim").graph
    weight = graph[graph.producers()[first].inputs[1] or ""]
    assert (weight.dtype, graph.metadata["category"]) == (DType.INT4, "Classification")
    assert scale_of(graph, "logits/codes") == [pytest.approx(90 / 32767)]
    history = graph.metadata["calibration"]
    assert (history["edited"], history["steps"], history["samples"]) == (True, [], 6)
    assert history["bits16"] == [name for name, mac in record["macs"].items() if mac["bits"] == 16] != []


def test_a_plan_goes_before_the_list_in_the_float_sim(
    at_l5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "q.json").write_text(json_text([entry("logits", -50, 70, 16)]), encoding="utf-8")
    source = ["onnx", *SOURCE, "--quant_file", str(tmp_path / "q.json"), "--output_file", str(tmp_path / "a_float.sim")]
    assert convert_tool.main(source) == 0
    calibrated("-m", tmp_path / "a_float.sim", "--plan", at_l5 / "digits_fixed_quant_info.json")
    assert "have no say beside a plan" in capsys.readouterr().err
    assert (tmp_path / "a_fixed.sim").read_bytes() == (at_l5 / "digits_fixed.sim").read_bytes()


Change = Callable[[dict[str, Any]], object]
PLAN_FAULTS: list[tuple[Change, str]] = [
    (lambda r: r.update(rangse={}), "the plan: unknown key 'rangse' (did you mean ranges?)"),
    (lambda r: r.pop("macs"), "the plan: 'macs' is missing"),
    (lambda r: r.update(ranges=[]), "ranges: is no JSON object of tensor names"),
    (lambda r: r["ranges"].pop("s"), "ranges: 's' is missing"),
    (lambda r: r["macs"].pop("d"), "macs: 'd' is missing"),
    (lambda r: r["ranges"].update(ss=r["ranges"]["s"]), "ranges, 'ss': is not in the float network (did you mean s?)"),
    (lambda r: r["narrow"].update(gates={"low": 0, "high": 1}), "narrow, 'gates': is not in the float network"),
    (lambda r: r["macs"].update(b=r["macs"]["d"]), "macs, 'b': is not in the float network"),
    (lambda r: r["ranges"]["s"].update(low=9e9), "ranges, 's': low 9000000000.0 is above high"),
    (lambda r: r["ranges"]["s"].update(low=float("nan")), "ranges, 's': low nan and high"),
    (lambda r: r["ranges"]["s"].update(high="1"), "must be finite numbers"),
    (lambda r: r["ranges"]["s"].pop("high"), "ranges, 's': 'high' is missing"),
    (lambda r: r["ranges"].update(s=7), "ranges, 's': is no JSON object with the keys low, high"),
    (lambda r: r["macs"]["d"].update(bits=12), "macs, 'd': bits 12 is not one of 4, 8, 16"),
    (lambda r: r["macs"]["d"].update(bits=True), "macs, 'd': bits True is not one of"),
    (lambda r: r["macs"]["d"].update(weight_bound=[1.0] * 5), "weight_bound: has shape [5], expected [6]"),
    (lambda r: r["macs"]["d"]["weight_bound"].append(-1), "weight_bound: is no list of finite numbers from 0 on"),
    (lambda r: r["macs"]["d"].update(bias_shift=[0.0] * 7), "bias_shift: has shape [7], expected [6]"),
    (lambda r: r["macs"]["d"].update(bias=[None] * 6), "macs, 'd', bias: is no list of finite numbers"),
    (lambda r: r["macs"]["d"].update(weight=packed(np.ones((1, 3, 6)))), "has shape [1, 3, 6], expected [1, 3, 3, 6]"),
    (lambda r: r["macs"]["d"].update(weight=[1.0]), "macs, 'd', weight: is neither null nor an array"),
    (lambda r: r["macs"]["d"].update(weight=packed(np.full((1, 3, 3, 6), np.nan))), "weight: has values that are not"),
    (lambda r: r.update(scales={"a": [1.0] * 6}), "scales, 'a': is not between two sums of products"),
    (lambda r: r.update(scales={"e": [2.0] * 5}), "scales, 'e': is not between two sums of products"),
    (lambda r: r.update(scales={"s": [1.0, 0.0]}), "scales, 's': is no list of finite numbers above 0"),
    (lambda r: r["macs"]["d"].update(weihgt=None), "macs, 'd': unknown key 'weihgt' (did you mean weight?)"),
]


@pytest.mark.parametrize(("change", "message"), PLAN_FAULTS, ids=[message for _, message in PLAN_FAULTS])
def test_faults_of_a_plan(change: Change, message: str) -> None:
    record = json.loads(calibration().initial_plan().to_json())
    assert list(network_of(parse_plan(record), GRAPH).tensors) == list(prepare(GRAPH).tensors)
    change(record)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        network_of(parse_plan(record, file="p.json"), GRAPH, file="p.json")
    assert "plan: p.json: " in caught.value.render()


def test_a_plan_comes_back_number_for_number() -> None:
    plan = mixed_plan(calibration())
    back = parse_plan(json.loads(plan.to_json()))
    assert back.to_json() == plan.to_json()
    assert (back.ranges, back.narrow, back.level) == (plan.ranges, plan.narrow, "L5")
    for name, mac in plan.macs.items():
        for key in ("weight_bound", "bias_shift", "bias", "weight"):
            one, other = getattr(mac, key), getattr(back.macs[name], key)
            assert (one is None) == (other is None)
            assert one is None or (one.dtype == other.dtype and np.array_equal(one, other)), (name, key)


# -- the manual --------------------------------------------------------------------------------------------------------
def test_the_worked_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/QUANT_PARAMETERS.md: its list, its command, and what it says of the result."""
    manual = (ROOT / "docs/QUANT_PARAMETERS.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"```json\n(.*?)```", manual, re.DOTALL)
    (tmp_path / "parameters.json").write_text(listed, encoding="utf-8")
    example = manual[manual.index("## A worked example") :]
    command = re.search(r"python (Scripts/calibrator/calibrator\.py.*?--soc_version pcupid)", example, re.DOTALL)
    assert command is not None
    words = command.group(1).replace("\\\n", " ").split()[1:]
    real = {word: str(ROOT / word) for word in words if word.startswith("SGS_Models/")}
    real["build/demo/onnx_mobilenet_v2_digits_float.sim"] = str(converted() / "digits_float.sim")
    real["SGS_Models/resource/digits/calibration"] = str(sample_list(tmp_path, CALIBRATION, 3))
    monkeypatch.chdir(tmp_path)
    assert calibrator_tool.main([real.get(word, word) for word in words]) == 0
    assert "not used as they stand" not in capsys.readouterr().err
    graph = read_sim("digits_fixed.sim").graph
    images, weight = graph["images/normalised"], graph["/features/features.0/features.0.0/Conv/const1/q"]
    assert images.quant is not None and weight.quant is not None and weight.data is not None
    assert (images.dtype, images.quant.zero_point.tolist()) == (DType.UINT8, [127])
    assert images.quant.scale[0] == np.float32(2 / 255)
    assert weight.dtype is DType.INT4 and set(weight.quant.scale) == {np.float32(0.75 / 7)}
    assert weight.data.min() >= -7 and weight.data.max() <= 7
    result = graph["/features/features.0/features.0.2/Clip_output_0"]
    assert (result.dtype, scale_of(graph, result.name)) == (DType.INT16, [np.float32(5.5 / 32767)])
    (reader,) = (node for node in graph.readers()[result.name] if node.op == "DEPTHWISE_CONV_2D")
    assert graph[reader.inputs[1] or ""].dtype is DType.INT16
    bias = graph["logits/bias"]
    assert bias.data is not None
    np.testing.assert_allclose(bias.data * scale_of(graph, bias.name), np.arange(10) / 10, atol=1e-3)
    samples = ["-i", real["SGS_Models/resource/digits/calibration"], "-n", SCRIPT, "--quant_level", "L1"]
    calibrated("-m", converted() / "digits_float.sim", *samples, "-o", "l1.sim")
    plain = read_sim("l1.sim").graph
    changed = {n for n, t in plain.tensors.items() if t.quant and not t.quant.same_codes(graph.tensors.get(n, t).quant)}
    touched = {"images/normalised", weight.name, result.name, "logits/bias", *reader.outputs}
    assert {name for name in changed if not name.endswith(("/bias", "/q"))} <= touched
