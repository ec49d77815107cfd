"""RAWDATA formats of inputs and outputs through every stage: what the ini asks for is what is fed and returned, bit for
bit the same from the reference, the engine and the image."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

from closeness import cosine
from onnx_snippets import Net
from raw_chain import Chain, ini, run, same
from sgs.cli import show_img_info
from sgs.data.preprocess import Preprocessor
from sgs.engine import FixedEngine
from sgs.errors import UserError
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array, QuantParams, activation_params, dequantise, quantise
from sgs.numeric.types import DType
from sgs.pipelines import CalibrationOptions, calibrate
from sgs.quant.export import activations_of, exported
from sgs.quant.parameters import parse_parameters
from sgs.quant.plan import QuantPlan
from sgs.sim import sim_bytes
from sgs.simulation import Simulator
from shipped import CALIBRATION, MODEL, SCRIPT, TEST, simulated

F32, S16, U16, U8 = (f"RAWDATA_{name}_NHWC" for name in ("F32", "S16", "U16", "U8"))
Combination = tuple[str, str]  # format, quantizations or dequantizations
INPUTS: list[Combination] = [(F32, "TRUE"), (F32, "FALSE"), (S16, "TRUE"), (S16, "FALSE"), (U8, "TRUE"), (U8, "FALSE")]
OUTPUTS: list[Combination] = [(F32, "TRUE"), (S16, "TRUE"), (S16, "FALSE"), (U8, "TRUE"), (U8, "FALSE")]
LAYOUTS = ("NHWC", "NCHW")
TYPES = {F32: np.float32, S16: np.int16, U8: np.uint8}
REAL = [(*outcome, layout) for outcome in OUTPUTS for layout in LAYOUTS]  # one output of the network each
Small = tuple[ModelProto, dict[str, QuantPlan]]


def network() -> ModelProto:
    """Reads bytes [1,3,6,10]; ten maps [1,5,6,10] for REAL, ReLUs and convolutions by turns, and the best class
    [1,1,6,10] and whether it is sure [1,5,6,10], for the formats of OUTPUTS each."""
    net = Net(3)
    x = net("Mul", net.input("x", 1, 3, 6, 10), np.float32(1 / 64))
    shared = net("Relu", net.conv(x, 3, 8))
    outputs = [net("Identity", net.conv(shared, 8, 5, 1), result=f"real{k}") for k in range(len(REAL))]
    outputs[1::2] = [net("Relu", name, result=f"{name}_relu") for name in outputs[1::2]]
    outputs += [net("ArgMax", shared, axis=1, result=f"best{k}") for k in range(len(OUTPUTS))]
    outputs += [net("Greater", shared, np.float32(0.5), result=f"sure{k}") for k in range(len(OUTPUTS))]
    model = net.model(*outputs)
    for value in model.graph.output:
        kind = {"b": TensorProto.INT64, "s": TensorProto.BOOL}.get(value.name[0], TensorProto.FLOAT)
        value.type.tensor_type.elem_type = kind
    return model


def text(model: ModelProto, fed: Combination, layout: str) -> str:
    names = [output.name for output in model.graph.output]
    rows = [*REAL, *((*outcome, "NHWC") for outcome in OUTPUTS * 2)]
    keys = ("output_formats", "dequantizations", "output_layouts")
    outputs = {name: dict(zip(keys, row, strict=True)) for name, row in zip(names, rows, strict=True)}
    inputs = {"x": {"input_formats": fed[0], "quantizations": fed[1], "input_layouts": layout}}
    return ini(inputs, outputs)


def pictures(layout: str, count: int, seed: int = 0) -> list[dict[str, Array]]:
    data = [np.random.default_rng(seed + k).integers(0, 256, (1, 3, 6, 10)).astype(np.uint8) for k in range(count)]
    return [{"x": d if layout == "NCHW" else d.transpose(0, 2, 3, 1).copy()} for d in data]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The network, and for each layout of its input how it is quantised, whatever the formats."""
    model = network()
    plans = {}
    for layout in LAYOUTS:
        chain = Chain(tmp_path_factory.mktemp(layout), model, text(model, (U8, "TRUE"), layout))
        plans[layout] = chain.calibrated(pictures(layout, 6), "L2")
    return model, plans


def as_fed(values: Array, told: Mapping[str, object]) -> Array:
    """Bytes as the details of an input want them."""
    if told["dtype"] is not np.int16:
        return values.astype(told["dtype"])  # type: ignore[arg-type]
    scale, zero = told["quantization"]  # type: ignore[misc]
    return quantise(values, QuantParams(np.array([scale]), np.array([zero])), DType.INT16)


def real(values: Array, told: Mapping[str, object]) -> Array:
    """What an output stands for, by its details."""
    if "quantization" not in told:
        return values
    scale, zero = told["quantization"]  # type: ignore[misc]
    return dequantise(values, QuantParams(np.array([scale]), np.array([zero])))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fed", INPUTS, ids="-".join)
def test_every_combination(small: Small, fed: Combination, layout: str, tmp_path: Path) -> None:
    model, plans = small
    chain = Chain(tmp_path / "Größe 1", model, text(model, fed, layout))
    chain.applied(plans[layout])
    chain.compiled()
    fixed, floats = chain.opened("fixed.sim"), chain.opened("float.sim")
    (told,) = fixed.get_input_details()
    outputs = {one["name"]: one for one in fixed.get_output_details()}
    wanted = {F32: np.float32 if fed[1] == "TRUE" else np.int16, S16: np.int16, U8: np.uint8}[fed[0]]
    assert (told["dtype"], told["input_formats"]) == (wanted, fed[0])
    assert ("quantization" in told) == (wanted is not np.float32)
    if fed[0] == U8:
        assert told["quantization"] == (1.0, 0)
    for frame, planar in zip(*(pictures(order, 2, seed=40) for order in (layout, "NCHW")), strict=True):
        feeds = {"x": as_fed(frame["x"], told)}
        found, truth = chain.exact(feeds), run(floats, {"x": frame["x"].astype(np.float32)})
        judge(truth, chain.source({"x": planar["x"].astype(np.float32)}), outputs)
        check(found, truth, outputs)


def judge(truth: Mapping[str, Array], source: Mapping[str, Array], told: Mapping[str, Mapping[str, object]]) -> None:
    """The float model returns what onnxruntime says of the source, planar, in the layouts of its outputs."""
    assert truth.keys() == source.keys()
    for name, details in told.items():
        value = source[name].transpose(0, 2, 3, 1) if details["layouts"] == "NHWC" else source[name]
        if name.startswith("real"):
            np.testing.assert_allclose(truth[name], value, rtol=0, atol=2e-6 * np.abs(value).max(), err_msg=name)
        else:
            np.testing.assert_array_equal(truth[name], value, err_msg=name)


def check(found: Mapping[str, Array], truth: Mapping[str, Array], told: Mapping[str, dict[str, object]]) -> None:
    """Types and values of what the network returned."""
    for (name, values), (kind, dequantised) in zip(found.items(), [row[:2] for row in REAL] + OUTPUTS * 2, strict=True):
        integer = not name.startswith("real")
        wanted = np.float32 if dequantised == "TRUE" and not integer else TYPES[kind]
        assert (values.dtype, values.shape) == (wanted, truth[name].shape), name
        assert ("quantization" in told[name]) == (not integer and dequantised == "FALSE")
        if integer:
            assert (values == truth[name]).mean() > 0.95, name
        else:
            assert cosine(real(values, told[name]), truth[name]) > 0.999, name


def stacked(frames: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Several frames of every input, or output, in one array each."""
    return {name: np.concatenate([np.atleast_1d(frame[name]) for frame in frames]) for name in frames[0]}


def test_several_frames(small: Small, tmp_path: Path) -> None:
    """What an image returns for stacked frames is what it returns for each."""
    model, plans = small
    chain = Chain(tmp_path, model, text(model, (S16, "TRUE"), "NCHW"))
    chain.applied(plans["NCHW"])
    chain.compiled()
    chain.compiled("one_buf.img", "one_buf", (2, 3))
    (told,) = chain.opened("fixed.sim").get_input_details()
    frames = [{"x": as_fed(frame["x"], told)} for frame in pictures("NCHW", 3, seed=70)]
    wanted = stacked([chain.exact(frame) for frame in frames])
    for name in ("n_buf.img", "one_buf.img"):
        same(chain.run(name, stacked(frames)), wanted)


# -- real inputs that are fed as bytes ---------------------------------------------------------------------------------
@pytest.mark.parametrize(("brightest", "conv"), [(256, ""), (40, ""), (256, "ALL_INT16")])
def test_bytes_stand_for_themselves(brightest: int, conv: str, tmp_path: Path) -> None:
    """Whatever was seen: in front of an 8-bit convolution nothing is rounded, others get codes of their own."""
    net = Net(5)
    model = net.model(net.conv(net.input("x", 1, 3, 6, 10), 3, 4, result="y"))
    extra = f"[CONV_CONFIG]\ninput_format={conv};\n" if conv else ""
    chain = Chain(tmp_path, model, ini({"x": {"input_formats": U8}}, {"y": {"dequantizations": "TRUE"}}) + extra)
    rng = np.random.default_rng(0)
    chain.calibrated([{"x": rng.integers(0, brightest, (1, 6, 10, 3)).astype(np.uint8)} for _ in range(3)])
    chain.compiled()
    graph = chain.fixed_graph
    fed, (first, *_) = graph["x"], graph.readers()["x"]
    assert fed.dtype is DType.UINT8 and fed.quant is not None
    assert (fed.quant.scale.tolist(), fed.quant.zero_point.tolist()) == ([1.0], [0])
    assert first.op == ("QUANTIZE" if conv else "CONV_2D")
    frame = rng.integers(0, brightest, (1, 6, 10, 3)).astype(np.uint8)
    found = chain.exact({"x": frame})["y"]
    truth = chain.source({"x": frame.transpose(0, 3, 1, 2).astype(np.float32)})["y"].transpose(0, 2, 3, 1)
    assert cosine(found, truth) > 0.9999


def test_bytes_that_are_joined_keep_the_others_codes(tmp_path: Path) -> None:
    """A tensor that shares a scale with bytes does not get theirs, and the bytes stay what they are."""
    net = Net(5)
    x = net.input("x", 1, 3, 6, 10)
    wide = net("Mul", net("Relu", net.conv(x, 3, 4)), np.float32(5))
    model = net.model(net.conv(net("Concat", x, wide, axis=1), 7, 4, result="y"))
    chain = Chain(tmp_path, model, ini({"x": {"input_formats": U8}}, {"y": {"dequantizations": "TRUE"}}))
    frames = [frame for seed in range(4) for frame in pictures("NHWC", 1, seed)]
    chain.calibrated(frames[:3])
    chain.compiled()
    assert chain.fixed_graph["x"].quant.scale.tolist() == [1.0]  # type: ignore[union-attr]
    truth = chain.source({"x": frames[3]["x"].transpose(0, 3, 1, 2).astype(np.float32)})["y"]
    assert cosine(chain.exact(frames[3])["y"], truth.transpose(0, 2, 3, 1)) > 0.999


@pytest.mark.parametrize("wide", [False, True])
def test_an_imported_range_of_bytes_is_told_to_have_no_say(
    wide: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first reader is 8-bit, or reads INT16. What the fixed model exports is followed, and gives it again."""
    net = Net(2)
    x = net.input("x", 1, 3, 6, 10)
    net("Relu", net("Tanh", x) if wide else net.conv(x, 3, 4), result="y")
    chain = Chain(tmp_path, net.model("y"), ini({"x": {"input_formats": U8}}, {"y": {"output_formats": F32}}))
    chain.calibrated(pictures("NHWC", 3), "L1")

    def imported(*entries: dict[str, object]) -> Graph:
        caplog.clear()
        options = CalibrationOptions("L1", processes=1, quant_parameters=parse_parameters(entries))
        rows = [(tmp_path / f"{number}_0.npy",) for number in range(3)]
        return calibrate(chain.float_graph, chain.config, [chain.script], rows, options).graph

    again = imported(*exported(chain.fixed_graph))
    assert "not used as they stand" not in caplog.text
    again.metadata["calibration"] = chain.fixed_graph.metadata["calibration"]
    assert sim_bytes(again, "fixed") == (tmp_path / "fixed.sim").read_bytes()
    imported({"name": "x", "min": [0], "max": [200], "bit": 8})
    assert "as they stand: 'x' (fed as bytes, which stand for themselves: 0 to 255)" in caplog.text


def test_exported_outputs_go_by_their_names(tmp_path: Path) -> None:
    """Those that leave as UINT8 have INT16 codes in front of them, where others read these, and convolutions 8-bit
    ones; bytes that are fed may have others behind them. All ranges come back."""
    net = Net(6)
    x = net.input("x", 1, 3, 6, 10)
    shared = net.conv(x, 3, 4, result="a")
    outputs = [shared, net.conv(shared, 4, 3, result="b"), net("Tanh", shared, result="c")]
    outputs.append(net.conv(net("Concat", x, net("Mul", shared, np.float32(5)), axis=1), 7, 5, result="d"))
    rows = dict(zip(outputs, [(U8, "TRUE"), (U8, "FALSE"), (U8, "TRUE"), (S16, "FALSE")], strict=True))
    keys = ("output_formats", "dequantizations")
    text = ini({"x": {"input_formats": U8}}, {n: dict(zip(keys, row, strict=True)) for n, row in rows.items()})
    first, again = (Chain(tmp_path / name, net.model(*outputs), text) for name in ("first", "again"))
    first.calibrated(pictures("NHWC", 4), "L2")
    entries = exported(first.fixed_graph)
    found = [(e["name"], e["bit"]) for e in entries]
    assert set(found) >= {("x", 8), ("a", 8), ("a", 16), ("c", 8), ("d", 16)} and len(set(found)) == len(found)
    codes = [tensor.name for name, tensor in activations_of(first.fixed_graph) if (name, tensor.dtype.bits) == ("x", 8)]
    assert len(codes) == 2, "bytes, and what is joined"
    again.calibrated(pictures("NHWC", 1, 9), parameters=parse_parameters(entries))
    files = []
    for chain in (first, again):
        graph = chain.fixed_graph.copy()
        graph.metadata = {}
        files.append(sim_bytes(graph, "fixed"))
    assert files[0] == files[1]


# -- the network's own integers ----------------------------------------------------------------------------------------
ROWS = (1 << 16) - 1


def words(rows: int, shape: tuple[int, ...] = (2, 3), kind: int = TensorProto.INT64, *, computes: bool = False) -> Net:
    """Rows of a table [rows, 5] picked by `i`; or, where it computes with them, by `i` + 1."""
    net = Net(1)
    i = net.input("i", *shape, dtype=kind)
    table = net.constant(np.random.default_rng(9).normal(0, 1, (rows, 5)).astype(np.float32))
    if computes:
        i = net("Add", i, net.constant(np.array(1), np.int32 if kind == TensorProto.INT32 else np.int64))
    net("Gather", table, net("Cast", i, to=TensorProto.INT64), axis=0, result="y")
    return net


def embedding(folder: Path, rows: int, form: str, **options: object) -> Chain:
    text = ini({"i": {"input_formats": form}}, {"y": {"dequantizations": "TRUE"}})
    return Chain(folder, words(rows, **options).model("y"), text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("form", "dtype", "rows", "picked"),
    [
        (U8, np.uint8, 256, [0, 128, 255]),
        (S16, np.int16, 1 << 15, [0, 300, 32767]),
        (U16, np.uint16, ROWS, [0, 32768, 65534]),
        (U16, np.uint16, 7, [0, 3, 6]),
    ],
)
def test_indices(form: str, dtype: type, rows: int, picked: list[int], tmp_path: Path) -> None:
    chain = embedding(tmp_path, rows, form)
    rng = np.random.default_rng(1)
    frames = [{"i": np.array([picked, rng.integers(0, rows, 3)]).astype(dtype)} for _ in range(4)]
    chain.calibrated(frames)
    chain.compiled()
    chain.compiled("one_buf.img", "one_buf", (1, 3))
    for name in ("fixed.sim", "n_buf.img"):
        (told,) = chain.opened(name).get_input_details()
        assert (told["dtype"], told["input_formats"]) == (dtype, form) and "quantization" not in told
    found = [chain.exact(frame) for frame in frames]
    for frame, values in zip(frames, found, strict=True):
        truth = chain.source({"i": frame["i"].astype(np.int64)})
        same(chain.run("float.sim", {"i": frame["i"].astype(np.int32)}), truth)
        np.testing.assert_allclose(values["y"], truth["y"], atol=1e-3)
    same(chain.run("n_buf.img", stacked(frames)), stacked(found))
    same(chain.run("one_buf.img", stacked(frames[:3])), stacked(found[:3]))


def test_an_index_beyond_the_table_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In the same words by every model, and before onnxruntime says something of its own."""
    chain = embedding(tmp_path, 7, U16)
    chain.calibrated([{"i": np.zeros((2, 3), np.uint16)}])
    chain.compiled()
    beyond = np.array([[0, 1, 2], [3, 4, 7]], np.uint16)
    np.save(tmp_path / "beyond.npy", beyond)
    capfd.readouterr()  # what calibration warned of
    reason = "input 'i': holds 0 to 7, and the network picks from 7 entries with it"
    for name in ("float.sim", "fixed.sim", "n_buf.img"):
        runner = chain.opened(name)
        with pytest.raises(ValueError) as caught:
            runner.set_input(0, beyond.astype(runner.get_input_details()[0]["dtype"]))
        assert str(caught.value) == reason
        with pytest.raises(UserError) as told:
            list(simulated(Simulator(tmp_path / name), [chain.script], [(tmp_path / "beyond.npy",)]))
        assert str(told.value) == f"simulate: {tmp_path / name}: {reason} (mend the preprocess script)"
    assert show_img_info.main(["-m", str(tmp_path / "n_buf.img")]) == 0
    written, errors = capfd.readouterr()
    assert re.search(r"picks from +7 entries", written) and not errors


@pytest.mark.parametrize(("form", "dtype"), [(S16, np.int16), (U8, np.uint8)])
def test_truth_values_and_rank_0(form: str, dtype: type, tmp_path: Path) -> None:
    """A scalar and a vector beside a picture's worth of numbers, in images of several frames."""
    net = Net(2)
    x, on, k = (net.input(n, *s, dtype=d) for n, s, d in (
        ("x", (4, 5), TensorProto.FLOAT), ("on", (4,), TensorProto.BOOL), ("k", (), TensorProto.INT32)
    ))  # fmt: skip
    chosen = net("Where", net("Unsqueeze", on, np.array([1])), x, net.constant(np.float32(0)))
    net("Mul", chosen, net("Cast", k, to=TensorProto.FLOAT), result="y")
    net("Add", k, net.constant(np.array(1, np.int32)), result="next")
    keys = ("input_formats", "quantizations")
    inputs = {n: dict(zip(keys, (f, "TRUE"), strict=True)) for n, f in (("x", F32), ("on", form), ("k", form))}
    outputs = {"y": {"output_formats": S16}, "next": {"output_formats": S16}}
    chain = Chain(tmp_path, net.model("y", "next"), ini(inputs, outputs))
    rng = np.random.default_rng(0)
    frames: list[dict[str, Array]] = [
        {
            "x": rng.normal(0, 1, (4, 5)).astype(np.float32),
            "on": rng.integers(0, 2, 4).astype(dtype),
            "k": np.array(k, dtype),
        }
        for k in (3, 7, 5, 2)
    ]
    chain.calibrated(frames)
    chain.compiled()
    chain.compiled("one_buf.img", "one_buf", (2,))
    found = [chain.exact(frame) for frame in frames]
    for frame, values in zip(frames, found, strict=True):
        truth = chain.source({**frame, "on": frame["on"].astype(bool), "k": frame["k"].astype(np.int32)})
        assert values["next"].shape == () and values["next"] == truth["next"]
        np.testing.assert_allclose(values["y"], truth["y"], atol=2e-3)
    same(chain.run("n_buf.img", stacked(frames)), stacked(found))
    same(chain.run("one_buf.img", stacked(frames[:2])), stacked(found[:2]))
    grouped = chain.opened("one_buf.img")._simulator
    rows = [tuple(tmp_path / f"{number}_{k}.npy" for k in range(3)) for number in range(3)]
    for wanted, (_, _, values) in zip(found, simulated(grouped, [chain.script] * 3, rows), strict=False):
        same(values, wanted)


def test_a_network_of_nothing_but_integers(tmp_path: Path) -> None:
    """No range is measured of it."""
    net = Net()
    i = net.input("i", 2, 5, dtype=TensorProto.INT64)
    net("Add", net("Gather", net.constant(np.arange(300)[::-1].copy()), i, axis=0), np.array(7), result="y")
    chain = Chain(tmp_path, net.model("y"), ini({"i": {"input_formats": S16}}, {"y": {"output_formats": S16}}))
    frame = {"i": np.random.default_rng(0).integers(0, 300, (2, 5)).astype(np.int16)}
    chain.calibrated([frame], "L3")
    chain.compiled()
    assert np.array_equal(chain.exact(frame)["y"], 306 - frame["i"])


SCRIPT_OF_CODES = """import numpy as np
def image_preprocess(path, norm=True):
    return np.load(path) if norm else np.asarray(np.load(path), np.int16)
"""


def test_codes_without_a_dimension(tmp_path: Path) -> None:
    """A real number alone, fed as its code, at a level that looks at layers one by one."""
    net = Net()
    net("Mul", net("Abs", net.input("x")), np.float32(3), result="y")
    chain = Chain(tmp_path, net.model("y"), ini({"x": {"input_formats": S16}}, {"y": {"output_formats": F32}}))
    chain.calibrated([{"x": np.array(k, np.float32)} for k in (-2, 0.5, 1.75)], "L3", [SCRIPT_OF_CODES])
    chain.compiled()
    quant = chain.fixed_graph["x"].quant
    assert quant is not None
    code = quantise(np.array(-1.25, np.float32), quant, DType.INT16)
    assert isinstance(code, np.ndarray) and code.shape == ()
    np.testing.assert_allclose(chain.exact({"x": code})["y"], 3.75, atol=1e-3)


def test_inputs_that_no_output_needs(tmp_path: Path) -> None:
    """Nothing is computed of them; they are fed all the same."""
    net = Net(3)
    p, u, v = (net.input(name, 1, 3, 6, 10) for name in "puv")
    i = net.input("i", 2, 3, dtype=TensorProto.INT64)
    for name in (u, v):
        net.conv(name, 3, 4)
    net("Gather", net.constant(np.zeros((9, 2), np.float32)), i, axis=0)
    net.conv(p, 3, 4, result="y")
    forms = {"p": "BGR", "u": F32, "v": U8, "i": U16}
    text = ini({n: {"input_formats": f} for n, f in forms.items()}, {"y": {"output_formats": F32}})
    text = text.replace("[OUTPUT_CONFIG]", "mean=0:0:0;\nstd_value=1;\n[OUTPUT_CONFIG]")
    chain = Chain(tmp_path, net.model("y"), text)
    picture = pictures("NHWC", 1)[0]["x"]
    frame = {"p": picture, "u": picture.astype(np.float32), "v": picture, "i": np.zeros((2, 3), np.uint16)}
    chain.calibrated([frame])
    chain.compiled()
    assert set(chain.fixed_graph.inputs) == set(forms)
    assert {node.inputs[0] for node in chain.fixed_graph.nodes}.isdisjoint("uvi")
    kinds = {told["name"]: told["dtype"] for told in chain.opened("n_buf.img").get_input_details()}
    assert kinds == {"p": np.uint8, "u": np.float32, "v": np.uint8, "i": np.uint16}
    planar = {n: frame[n].astype(np.float32).transpose(0, 3, 1, 2) for n in "puv"}
    truth = chain.source({**planar, "i": frame["i"].astype(np.int64)})["y"]
    found = chain.exact(frame)
    assert cosine(found["y"], truth.transpose(0, 2, 3, 1)) > 0.999
    idle = chain.fixed_graph.copy()
    codes = idle.add_tensor("codes", idle["u"].shape, DType.INT16, quant=activation_params(-1, 1, DType.INT16))
    idle.nodes.insert(0, Node("QUANTIZE", ["u"], [codes.name]))
    same(FixedEngine(idle, threads=1).run(frame), found)


# -- the network's own integers as outputs -----------------------------------------------------------------------------
def counts() -> ModelProto:
    """x [2,5] times 300 as integers, three times."""
    net = Net()
    scaled = net("Mul", net.input("x", 2, 5), np.float32(300))
    return net.model(*(net("Cast", scaled, to=TensorProto.INT32, result=f"y{k}") for k in range(3)))


def test_integers_beyond_the_format_saturate(tmp_path: Path) -> None:
    rows = zip(("y0", "y1", "y2"), (F32, S16, U8), strict=True)
    chain = Chain(tmp_path, counts(), ini({"x": {"input_formats": F32}}, {n: {"output_formats": f} for n, f in rows}))
    frame = np.array([[-200, -1, 0, 0.5, 200], [1, 0.01, 109, -109.5, 0.25]], np.float32)
    chain.calibrated([{"x": frame}])
    chain.compiled()
    found = chain.exact({"x": frame})
    whole = found["y0"]
    assert whole.dtype == np.float32 and np.abs(whole - np.trunc(frame * 300)).max() < 4
    assert np.array_equal(found["y1"], np.clip(whole, -32768, 32767).astype(np.int16))
    assert np.array_equal(found["y2"], np.clip(whole, 0, 255).astype(np.uint8))
    assert found["y2"].max() == 255 and found["y1"].min() == -32768


@pytest.mark.parametrize(("classes", "add"), [(256, 0), (255, 1)])
def test_integers_that_are_known_to_fit_are_cast_alone(classes: int, add: int, tmp_path: Path) -> None:
    net = Net()
    best = net("ArgMax", net.input("x", 3, classes), axis=1, keepdims=0)
    model = net.model(net("Add", best, np.array(add), result="y"))
    chain = Chain(tmp_path, model, ini({"x": {"input_formats": F32}}, {"y": {"output_formats": U8}}))
    x = np.zeros((3, classes), np.float32)
    x[np.arange(3), [0, classes // 2, classes - 1]] = 1
    chain.calibrated([{"x": x}])
    chain.compiled()
    assert [node.op for node in chain.fixed_graph.nodes][-1] == "CAST"
    assert not {"MAXIMUM", "MINIMUM"} & {node.op for node in chain.fixed_graph.nodes}
    assert chain.exact({"x": x})["y"].tolist() == [add, classes // 2 + add, 255]


def test_levels_judge_integers_by_what_they_are_found_from(tmp_path: Path) -> None:
    """An ArgMax map alone: its score is that of the numbers compared, not of the numbers of classes."""
    net = Net(4)
    best = net("ArgMax", net.conv(net("Relu", net.conv(net.input("x", 1, 3, 6, 10), 3, 8)), 8, 7, 1), axis=1)
    chain = Chain(tmp_path, net.model(best), ini({"x": {"input_formats": F32}}, {best: {"output_formats": U8}}))
    frames = [{"x": (frame["x"] / 64).astype(np.float32)} for frame in pictures("NHWC", 6)]
    chain.calibrated(frames, "L5")
    chain.compiled()
    (*_, last) = chain.steps
    assert 30 < last.sqnr < 70
    found, truth = chain.exact(frames[0])[best], chain.run("float.sim", frames[0])[best]
    assert (found == truth).mean() > 0.95


# -- what is refused ---------------------------------------------------------------------------------------------------
def pixels(outputs: str = "y") -> ModelProto:
    """A picture's worth of real numbers in; out those of 300 channels, the best channel or a constant."""
    net = Net()
    x = net.conv(net.input("x", 1, 3, 6, 10), 3, 300, 1, result="y")
    net("ArgMax", x, axis=1, result="best")
    net("Identity", net.constant(np.ones((2, 3), np.float32)), result="fixed")
    return net.model(*outputs.split(","))


REFUSED_INPUTS = [
    (lambda: pixels(), "x", U16, "TRUE", "3: 'x': .*reads real ones here .*write RAWDATA_F32_NHWC, or RAWDATA_S16"),
    (lambda: words(7).model("y"), "i", F32, "TRUE", "reads int32 here .*set .* to RAWDATA_S16_NHWC"),
    (lambda: words(7).model("y"), "i", S16, "FALSE", r"quantizations, line .: 'i': FALSE.*no codes are made .*TRUE"),
    (lambda: words(7).model("y"), "i", U8, "FALSE", r"quantizations, line .: 'i': FALSE.*no codes are made .*TRUE"),
    (lambda: words(7).model("y"), "i", U16, "FALSE", r"quantizations, line .*no codes are made: i .*write TRUE"),
    (lambda: words(7, computes=True).model("y"), "i", U16, "TRUE", "straight into a table .*computes .*RAWDATA_S16"),
    (lambda: words(257).model("y"), "i", U8, "TRUE", "257 entries, and RAWDATA_U8_NHWC reaches 256 .*RAWDATA_S16"),
    (lambda: words(32769).model("y"), "i", S16, "TRUE", "RAWDATA_S16_NHWC reaches 32,768 .*write RAWDATA_U16_NHWC"),
    (lambda: words(32769).model("y"), "i", F32, "TRUE", "reads int32 here .*to RAWDATA_U16_NHWC"),
    (lambda: words(ROWS + 1).model("y"), "i", U16, "TRUE", "65,536 entries, and inputs reach 65,535 .*smaller, or cut"),
    (lambda: words(7, kind=TensorProto.BOOL).model("y"), "i", F32, "TRUE", "reads bool here .*RAWDATA_S16_NHWC"),
]  # fmt: skip
REFUSED_OUTPUTS = [
    ("y", F32, "FALSE", "float32, which needs dequantizations TRUE .*or the format to RAWDATA_S16_NHWC"),
    ("best", F32, "FALSE", "float32, which needs dequantizations TRUE .*or the format to RAWDATA_S16_NHWC"),
    ("best", U8, "TRUE", "'best'.*from 0 to 299, and RAWDATA_U8_NHWC does not hold them .*write RAWDATA_S16"),
    ("best", U8, "FALSE", "'best'.*from 0 to 299, and RAWDATA_U8_NHWC does not hold them .*write RAWDATA_S16"),
    ("y", U16, "TRUE", "'RAWDATA_U16_NHWC' is not one of RAWDATA_F32_NHWC, RAWDATA_S16_NHWC, RAWDATA_U8_NHWC"),
    ("y", "RGB", "TRUE", "'RGB' is not one of RAWDATA_F32_NHWC"),
    *(("y,fixed", form, "TRUE", "outputs, line 5: 'fixed' is a constant .*leave it out") for form in (F32, S16, U8)),
]  # fmt: skip


@pytest.mark.parametrize(("make", "name", "form", "quantize", "reason"), REFUSED_INPUTS)
def test_inputs_that_mean_nothing(
    make: Callable[[], ModelProto], name: str, form: str, quantize: str, reason: str, tmp_path: Path
) -> None:
    text = ini({name: {"input_formats": form, "quantizations": quantize}}, {"y": {"dequantizations": "TRUE"}})
    with pytest.raises(UserError, match=reason):
        Chain(tmp_path, make(), text).calibrated([])


@pytest.mark.parametrize(("names", "form", "dequantize", "reason"), REFUSED_OUTPUTS)
def test_outputs_that_mean_nothing(names: str, form: str, dequantize: str, reason: str, tmp_path: Path) -> None:
    outputs = {name: {"output_formats": form, "dequantizations": dequantize} for name in names.split(",")}
    with pytest.raises(UserError, match=reason):
        Chain(tmp_path, pixels(names), ini({"x": {"input_formats": F32}}, outputs)).calibrated([])


def test_a_script_that_changes_numbers_is_refused(tmp_path: Path) -> None:
    chain = Chain(tmp_path, pixels(), ini({"x": {"input_formats": U8}}, {"y": {"output_formats": F32}}))
    (tmp_path / "script.py").write_text(
        "import numpy as np\ndef image_preprocess(path, norm=True):\n"
        "    return np.load(path) / np.float32(255) if norm else np.load(path)\n",
        encoding="utf-8",
    )
    told = "script.py: input 'x': does not return the same numbers: norm=False gives 217 where norm=True gives"
    with pytest.raises(UserError, match=told):
        chain.calibrated([{"x": np.full((1, 6, 10, 3), 217, np.uint8)}])


# -- a shipped network, and inputs of several kinds --------------------------------------------------------------------
def digits() -> ModelProto:
    """The digit classifier, fed with pixels; its logits and their softmax for all OUTPUTS, and the class."""
    model = onnx.load(MODEL)
    (fed,), (logits,) = ([value.name for value in values] for values in (model.graph.input, model.graph.output))
    for node in model.graph.node:
        node.input[:] = ["normalised" if name == fed else name for name in node.input]
    net = Net()
    net("Mul", net("Sub", fed, np.float32(127.5)), np.float32(1 / 127.5), result="normalised")
    front = len(net.nodes)
    outputs = [net("Identity", logits, result=f"logits{k}") for k in range(len(OUTPUTS))]
    share = net("Softmax", logits, axis=1)
    outputs += [net("Identity", share, result=f"share{k}") for k in range(len(OUTPUTS))]
    outputs.append(net("ArgMax", logits, axis=1, result="best"))
    nodes = [*net.nodes[:front], *model.graph.node, *net.nodes[front:]]
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(net.initializers)
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in outputs)
    return onnx.shape_inference.infer_shapes(model)


def digits_text(fed: Combination) -> str:
    rows = {f"{stem}{k}": row for stem in ("logits", "share") for k, row in enumerate(OUTPUTS)}
    keys = ("output_formats", "dequantizations")
    outputs = {name: dict(zip(keys, row, strict=True)) for name, row in {**rows, "best": (U8, "FALSE")}.items()}
    return ini({"images": dict(zip(("input_formats", "quantizations"), fed, strict=True))}, outputs)


def digit_pictures(folder: Path, count: int) -> list[dict[str, Array]]:
    script = Preprocessor(SCRIPT)
    return [{"images": script(path, False)} for path in sorted(folder.glob("*.png"))[:count]]


def test_digits(tmp_path: Path) -> None:
    """Every combination of formats on a network that is shipped: mean cosines with the float network's outputs."""
    model, frames = digits(), digit_pictures(TEST, 6)
    plan = Chain(tmp_path, model, digits_text((U8, "TRUE"))).calibrated(digit_pictures(CALIBRATION, 8), "L2")
    for number, fed in enumerate([(U8, "TRUE"), (S16, "TRUE"), (F32, "TRUE"), (F32, "FALSE")]):
        chain = Chain(tmp_path / str(number), model, digits_text(fed))
        chain.applied(plan)
        chain.compiled()
        fixed, floats, image = (chain.opened(name) for name in ("fixed.sim", "float.sim", "n_buf.img"))
        (told,), outputs = fixed.get_input_details(), {one["name"]: one for one in fixed.get_output_details()}
        seen: dict[str, list[float]] = {}
        for frame in frames:
            feeds = {"images": as_fed(frame["images"], told)}
            found, truth = run(fixed, feeds), run(floats, {"images": frame["images"].astype(np.float32)})
            same(run(image, feeds), found)
            assert found["best"] == truth["best"]
            for name in found.keys() - {"best"}:
                seen.setdefault(name, []).append(cosine(real(found[name], outputs[name]), truth[name]))
        assert min(np.mean(values) for values in seen.values()) > 0.999


def mixed() -> ModelProto:
    """A picture and raw inputs of ranks 4, 3, 2 and 1."""
    net = Net(7)
    inputs = {"p": (1, 3, 6, 10), "m": (1, 5, 6, 10), "t": (1, 4, 5), "v": (1, 7), "s": (5,)}
    p, m, t, v, s = (net.input(name, *shape) for name, shape in inputs.items())
    x = net("Add", net("Relu", net.conv(p, 3, 5)), m)
    pooled = net("Reshape", net("GlobalAveragePool", x), np.array([1, 5]))
    row = net("Reshape", net("Gemm", v, net.weights(5, 7), net.weights(5), transB=1), np.array([1, 1, 5]))
    joined = net("Add", net("Add", t, row), net("Unsqueeze", net("Mul", pooled, s), np.array([1])))
    return net.model(net("Identity", x, result="map"), net("Tanh", joined, result="y"))


def test_a_picture_beside_raw_inputs(tmp_path: Path) -> None:
    """Raw inputs come last; those that are not of rank 4 say NHWC."""
    names = ("input_formats", "quantizations", "input_layouts")
    rows = {"p": ("BGR", "TRUE", "NCHW"), "m": (U8, "TRUE", "NCHW"), "t": (F32, "TRUE", "NHWC"),
            "v": (S16, "TRUE", "NHWC"), "s": (F32, "FALSE", "NHWC")}  # fmt: skip
    text = ini(
        {name: dict(zip(names, row, strict=True)) for name, row in rows.items()},
        {"map": {"output_layouts": "NCHW"}, "y": {"output_layouts": "NHWC"}},
    )
    chain = Chain(tmp_path, mixed(), text.replace("[OUTPUT_CONFIG]", "mean=0:0:0;\nstd_value=1;\n[OUTPUT_CONFIG]"))
    rng = np.random.default_rng(0)
    frames = [
        {
            "p": rng.integers(0, 256, (1, 3, 6, 10)).astype(np.uint8),
            "m": rng.integers(0, 256, (1, 5, 6, 10)).astype(np.uint8),
            **{name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in (("t", (1, 4, 5)), ("s", (5,)))},
            "v": rng.integers(-3, 4, (1, 7)).astype(np.int16),
        }
        for _ in range(4)
    ]
    chain.calibrated(frames)
    chain.compiled()
    told = {one["name"]: one for one in chain.opened("fixed.sim").get_input_details()}
    assert [one["dtype"] for one in told.values()] == [np.uint8, np.uint8, np.float32, np.int16, np.int16]
    assert [one["layouts"] for one in told.values()] == [row[2] for row in rows.values()]
    fed = [{**f, "v": as_fed(f["v"], told["v"]), "s": as_fed(f["s"], told["s"])} for f in frames]
    found = [chain.exact(frame) for frame in fed]
    for frame, values in zip(frames, found, strict=True):
        truth = chain.source({name: value.astype(np.float32) for name, value in frame.items()})
        assert all(cosine(values[name], truth[name]) > 0.999 for name in truth)
    same(chain.run("n_buf.img", stacked(fed)), stacked(found))
