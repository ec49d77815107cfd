"""Every tensor of every stage, each against a judge of its own."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from random_graphs import chip, random_graph, through_file
from sgs.builder import GraphBuilder
from sgs.cli import convert_tool
from sgs.compare import onnx_values, source_stage
from sgs.compare.graph_values import GraphValues
from sgs.compare.image_stage import put_together
from sgs.compare.pieces import ALIAS, NOT_WHOLE, PARTIAL, Made, made_tensors
from sgs.compare.stages import Source, Stage, open_stage
from sgs.compile import compile_graph
from sgs.config.chips import load_chip
from sgs.config.input_config import read_input_config
from sgs.data.preprocess import load_preprocessors
from sgs.engine import run_reference
from sgs.errors import UserError
from sgs.img import Image, OfflineEngine, read_image, write_image
from sgs.img.check import violations
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from shipped import EXAMPLES, INI, MODEL, SCRIPT, TEST, Example, converted
from test_compile import Fixed, chain, code_feeds

SAMPLE = (TEST / "digit_000.png",)
KINDS = {
    "Debug": "Debug_digits_float.sim",
    "Float": "digits_float.sim",
    "Fixed": "digits_fixed.sim",
    "Offline": "digits.img",
}


def digits(kind: str) -> tuple[Stage, dict[str, Array]]:
    """A stage of the digit classifier, and what it is fed for a picture."""
    stage = open_stage(converted() / KINDS[kind])
    assert stage.kind == kind
    return stage, stage.feeds(load_preprocessors(str(SCRIPT), 1), SAMPLE)


def close(found: Array, wanted: Array, bound: float = 1e-5) -> bool:
    """Whether two arrays differ by no more than so much of the largest magnitude."""
    assert found.shape == wanted.shape
    return bool(np.abs(found - wanted).max() <= bound * max(1.0, np.abs(wanted).max()))


# -- .sim --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_described_as_given(kind: str) -> None:
    stage, feeds = digits(kind)
    given = dict(stage.tensors(feeds))
    assert list(given) == stage.names()
    for name, value in given.items():
        assert (stage.described[name].shape, stage.described[name].dtype) == (value.shape, value.dtype.name)
    assert stage.names()[0] == "images" and stage.names()[-1] == "logits"


def test_fixed_values_are_the_references() -> None:
    stage, feeds = digits("Fixed")
    assert stage.graph is not None
    wanted = run_reference(stage.graph, feeds)
    found = dict(stage.tensors(feeds))
    assert set(found) == {tensor.name for tensor in stage.graph.activations()}
    for name, value in found.items():
        assert value.dtype == wanted[name].dtype and np.array_equal(value, wanted[name]), name


def test_float_values_are_litert_s() -> None:
    judge = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
    stage, feeds = digits("Float")
    interpreter = judge.Interpreter(
        model_path=str(stage.path),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=judge.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], feeds["images"])
    interpreter.invoke()
    numbers = {detail["name"]: detail["index"] for detail in interpreter.get_tensor_details()}
    found = dict(stage.tensors(feeds))
    assert len(found) > 30
    for name, value in found.items():
        assert close(value, interpreter.get_tensor(numbers[name])), name


def test_real_values_of_codes() -> None:
    stage, feeds = digits("Fixed")
    floats, float_feeds = digits("Float")
    name = "logits/codes"
    held = dict(stage.tensors(feeds, [name]))[name]
    quant = stage.described[name].quant
    assert held.dtype == np.int16 and quant is not None
    assert np.array_equal(stage.real(name, held), held.astype(np.float32) * quant.scale[0])
    logits = dict(floats.tensors(float_feeds, ["logits"]))["logits"]
    assert 0 < np.abs(stage.real(name, held) - logits).max() < 1.5
    assert floats.real("logits", logits) is logits


def test_only_what_is_asked_for_and_needed_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, feeds = digits("Float")
    run: list[str] = []
    kernel = GraphValues.kernel
    monkeypatch.setattr(GraphValues, "kernel", lambda self, node: (run.append(node.outputs[0]), kernel(self, node))[1])
    first, second = stage.names()[1:3]
    assert list(dict(stage.tensors(feeds, {second}))) == [second]
    assert run == [first, second]


def test_names_that_there_are_not() -> None:
    stage, feeds = digits("Offline")
    with pytest.raises(UserError, match="did you mean logits") as error:
        stage.tensors(feeds, ["logit", "zzzz"])
    assert "zzzz" in str(error.value)
    assert stage.chosen(["log*", "images"]) == ["images", "logits/codes", "logits"]
    with pytest.raises(UserError, match="bytes of another tensor.*look at it in the .sim"):
        stage.chosen(["/Flatten_output_0"])


def long_chain() -> Graph:
    build = GraphBuilder()
    x = build.input("x", (1, 30, 20, 7))
    for _ in range(25):
        x = build("ADD", x, x, activation="NONE")
    return build.output(x)


def test_values_are_let_go_of() -> None:
    alive: list[Any] = []
    most = 0
    feeds = {"x": np.ones((1, 30, 20, 7), np.float32)}
    values = GraphValues(long_chain(), real=True)
    wanted = {tensor.name for tensor in values.graph.activations()}
    for _, value in values.tensors(feeds, wanted):
        alive.append(weakref.ref(value))
        most = max(most, sum(one() is not None for one in alive))
        del value
    assert len(alive) == 26 and most <= 4


# -- .img --------------------------------------------------------------------------------------------------------------
def assembled(image: Image, feeds: Mapping[str, Array]) -> Iterator[tuple[Made, Array]]:
    made = made_tensors(image)
    by_name = {one.tensor.name: one for one in made}
    yield from ((by_name[name], value) for name, value in put_together(OfflineEngine(image, threads=1), made, feeds))


def cut_axes(made: Made) -> int:
    return sum(len({piece.begin[axis] for piece in made.pieces}) > 1 for axis in range(len(made.tensor.shape)))


def test_image_values_are_the_fixed_ones() -> None:
    stage, feeds = digits("Offline")
    fixed, fixed_feeds = digits("Fixed")
    wanted = dict(fixed.tensors(fixed_feeds))
    found = dict(stage.tensors(feeds))
    assert len(found) == 43 and set(wanted) - set(found) == {"/Flatten_output_0"} == set(stage.missing)
    for name, value in found.items():
        assert value.dtype == wanted[name].dtype and np.array_equal(value, wanted[name]), name
        ours, theirs = stage.described[name], fixed.described[name]
        assert (ours.quant is None) == (theirs.quant is None)
        assert np.array_equal(stage.real(name, value), fixed.real(name, value))


# seed and SRAM bytes of random graphs of which tensors are cut along several axes, in bands, or moved
CUT = ((2, 1415), (7, 1500), (11, 600), (12, 4535), (15, 1500), (31, 1500), (32, 4192), (33, 779), (6, 600))


@pytest.mark.parametrize(("seed", "sram"), CUT)
def test_pieces_of_an_image_are_put_together(seed: int, sram: int) -> None:
    graph = random_graph(seed)
    image = through_file(graph, replace(chip(), sram_bytes=sram, alignment=16))
    feeds = code_feeds(graph, 0)
    wanted = run_reference(graph, feeds)
    axes = []
    for made, value in assembled(image, feeds):
        name = made.tensor.name
        assert value.dtype == wanted[name].dtype and np.array_equal(value, wanted[name]), name
        axes.append(cut_axes(made))
    assert max(axes) > 1 and set(graph.outputs) <= set(wanted)


# of a graph: a concatenation and two changes of shape; rows that the strided window behind them leaves out
@pytest.mark.parametrize(("seed", "sram", "reasons"), [(33, 779, {NOT_WHOLE, ALIAS}), (82, 1500, {PARTIAL})])
def test_what_an_image_never_holds_is_named(seed: int, sram: int, reasons: set[str]) -> None:
    graph = random_graph(seed)
    image = through_file(graph, replace(chip(), sram_bytes=sram, alignment=16))
    missing = {made.tensor.name: made.reason for made in made_tensors(image) if not made.pieces}
    assert reasons <= set(missing.values()) <= {NOT_WHOLE, ALIAS, PARTIAL}
    assert set(missing) <= set(graph.tensors)


@pytest.mark.parametrize("options", [{"batch_mode": "one_buf", "batches": [2, 3]}, {"batches": 4}], ids=str)
def test_a_frame_of_an_image_for_several(options: dict[str, Any]) -> None:
    graph = chain()
    image = compile_graph(graph, load_chip("ibopper"), **options)
    feeds = code_feeds(graph, 0)
    wanted = run_reference(graph, feeds)
    found = {made.tensor.name: value for made, value in assembled(image, feeds)}
    assert len(found) == len(graph.nodes)
    for name, value in found.items():
        assert np.array_equal(value, wanted[name]), name


def test_watched_run_takes_one_frame() -> None:
    engine = OfflineEngine(compile_graph(chain(), load_chip("ibopper"), batches=4))
    with pytest.raises(ValueError, match="one frame"):
        next(engine.watch({"x": np.zeros((2, 7, 9, 3), np.float32)}))


def test_an_image_of_an_older_version_is_refused(tmp_path: Path) -> None:
    image = read_image(converted() / "digits.img")
    older = replace(image, layers=tuple(replace(layer, results=()) for layer in image.layers))
    write_image(older, tmp_path / "old.img")
    with pytest.raises(UserError, match="older version.*compile the fixed .sim again"):
        open_stage(tmp_path / "old.img")


def with_results(image: Image, index: int, *results: int, **ref: Any) -> Image:
    """The image with other results of a layer: of these numbers, else the first one changed."""
    layer = image.layers[index]
    tensors = image.tensors
    if not results:
        tensors, results = (*tensors, replace(tensors[layer.results[0]], **ref)), (len(tensors),)
    changed = replace(layer, results=results)
    return replace(image, tensors=tensors, layers=(*image.layers[:index], changed, *image.layers[index + 1 :]))


def test_results_that_a_damaged_image_claims() -> None:
    image = compile_graph(chain(), load_chip("ibopper"))
    assert violations(image) == []
    assert violations(with_results(image, 1, 99)) == [f"layer 1: tensor 99 of {len(image.tensors)}"]
    assert violations(with_results(image, 1, dtype=DType.INT4)) == ["layer 1: makes packed elements"]
    name = image.tensors[image.layers[1].results[0]].name
    for claimed in ({"dtype": DType.FLOAT32}, {"shape": (1, 7, 9, 7)}, {"shape": (1, 63, 6)}, {"shape": (1, 7, 9, 5)}):
        other = with_results(image, 1, **claimed)
        found = {made.tensor.name: made for made in made_tensors(other)}
        assert violations(other) == [] and not found[name].pieces and "not all of it" in found[name].reason


# -- source models -----------------------------------------------------------------------------------------------------
def of_source(path: Path, ini: Path, **options: Any) -> Stage:
    return open_stage(path, config=read_input_config(ini), source=Source("onnx", {"model_file": path}, **options))


def test_onnx_values_are_onnxruntimes(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = of_source(MODEL, INI)
    feeds = stage.feeds(load_preprocessors(str(SCRIPT), 1), SAMPLE)
    assert (stage.kind, feeds["images"].shape) == ("ONNX", (1, 3, 64, 64))
    model = onnx.load(MODEL)
    inner = [name for node in model.graph.node if node.op_type != "Constant" for name in node.output]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    wanted = dict(zip(inner, onnxruntime.InferenceSession(model.SerializeToString()).run(inner, feeds), strict=True))
    found = dict(stage.tensors(feeds))
    assert list(found) == ["images", *inner] == stage.names()
    assert all(close(found[name], wanted[name]) for name in inner)
    monkeypatch.setattr(onnx_values, "GROUP_BYTES", 100_000)  # several runs, each of a part of the tensors
    again = dict(of_source(MODEL, INI).tensors(feeds))
    assert list(again) == list(found) and all(np.array_equal(again[name], found[name]) for name in found)


def small_source(tmp_path: Path, nodes: list[onnx.NodeProto], output: str, *domains: str) -> Path:
    """x.onnx of these nodes, which make `output` [n,5] of x [n,5], and x.ini beside it."""
    side = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 5]) for name in ("x", output)]
    sets = [helper.make_opsetid("", 13), *(helper.make_opsetid(domain, 1) for domain in domains)]
    graph = helper.make_graph(nodes, "g", side[:1], side[1:])
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=8), tmp_path / "x.onnx")
    (tmp_path / "x.ini").write_text(
        "[INPUT_CONFIG]\ninputs=x;\ntraining_input_formats=RAWDATA_F32_NHWC;\ninput_formats=RAWDATA_F32_NHWC;\n"
        f"[OUTPUT_CONFIG]\noutputs='{output}';\n",
        encoding="utf-8",
    )
    return tmp_path / "x.onnx"


def test_onnx_values_where_shapes_depend_on_values(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Greater", ["x", "zero"], ["mask"]),
        helper.make_node("NonZero", ["mask"], ["places"]),
        helper.make_node("Add", ["x", "x"], ["特/y"]),
    ]
    path = small_source(tmp_path, nodes, "特/y")
    stage = of_source(path, tmp_path / "x.ini", input_shapes=[[2, 5]])
    assert stage.described["places"].shape is None and stage.described["x"].shape == (2, 5)
    value = np.array([[1, -2, 3, 0, 5], [-1, 2, 0, 0, 0]], np.float32)
    found = dict(stage.tensors({"x": value}))
    assert np.array_equal(found["places"], np.array([[0, 0, 0, 1], [0, 2, 4, 1]]))
    assert np.array_equal(found["特/y"], 2 * value) and "zero" not in found
    with pytest.raises(UserError, match="shape of input 'x'.*--input_shapes"):
        of_source(path, tmp_path / "x.ini")


def test_sequences_are_no_tensors(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["parts"], axis=1),
        helper.make_node("ConcatFromSequence", ["parts"], ["y"], axis=1),
    ]
    stage = of_source(small_source(tmp_path, nodes, "y"), tmp_path / "x.ini", input_shapes=[[2, 5]])
    value = np.arange(10, dtype=np.float32).reshape(2, 5)
    found = dict(stage.tensors({"x": value}))
    assert list(found) == stage.names() == ["x", "y"] and np.array_equal(found["y"], value)


def test_what_onnxruntime_does_not_take(tmp_path: Path) -> None:
    path = small_source(tmp_path, [helper.make_node("Whatever", ["x"], ["y"], domain="of.mine")], "y", "of.mine")
    stage = of_source(path, tmp_path / "x.ini", input_shapes=[[2, 5]])
    with pytest.raises(UserError, match="onnxruntime cannot run it"):
        dict(stage.tensors({"x": np.zeros((2, 5), np.float32)}))


def example(platform: str, tmp_path: Path) -> tuple[Stage, dict[str, Array], Stage, dict[str, Array]]:
    """A shipped model and its Debug .sim, and what each is fed for the same picture."""
    told: Example = next(one for one in EXAMPLES if one.platform == platform)
    assert convert_tool.main([*told.source, "--output_file", str(tmp_path / "x.sim")]) == 0
    config = read_input_config(told.folder / "input_config.ini")
    source = Source(platform, {option: told.folder / file for option, file in told.files})
    stage, debug = open_stage(told.folder, config=config, source=source), open_stage(tmp_path / "Debug_x.sim")
    script = load_preprocessors(str(told.folder / f"{told.name}.py"), 1)
    picture = (min((told.folder.parents[1] / "resource" / told.pictures / "test").glob("*.png")),)
    return stage, stage.feeds(script, picture), debug, debug.feeds(script, picture)


def nhwc(value: Array) -> Array:
    return value.transpose(0, 2, 3, 1) if value.ndim == 4 else value


def test_caffe_values(tmp_path: Path) -> None:
    stage, feeds, debug, debug_feeds = example("caffe", tmp_path)
    found, ours = dict(stage.tensors(feeds)), dict(debug.tensors(debug_feeds))
    assert (stage.kind, stage.inputs, feeds["data"].shape) == ("Caffe", ["data"], (1, 1, 28, 28))
    assert np.array_equal(nhwc(found["data"]), ours["data"])
    same = [name for name, value in ours.items() if name in found and value.shape == found[name].shape]
    assert len(same) > 8 and all(close(found[name], ours[name]) for name in same if name != "data")


def test_tflite_values_are_litert_s_or_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
    stage, feeds, debug, _ = example("tflite", tmp_path)
    monkeypatch.setattr(source_stage, "litert_there", lambda: False)
    other, other_feeds, _, _ = example("tflite", tmp_path)
    assert (stage.runner, other.runner) == ("LiteRT", "this toolchain's import")
    found, ours = dict(stage.tensors(feeds)), dict(other.tensors(other_feeds))
    assert list(found) == stage.names() and set(found) <= set(ours) and len(found) == 35
    assert all(close(ours[name], value) for name, value in found.items())
    debugged = dict(debug.tensors(feeds))
    assert all(np.array_equal(debugged[name], ours[name]) for name in stage.names())


def test_pytorch_values(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    stage, feeds, debug, debug_feeds = example("pytorch", tmp_path)
    found, ours = dict(stage.tensors(feeds)), dict(debug.tensors(debug_feeds))
    same = [name for name, value in ours.items() if name in found and value.shape == found[name].shape]
    assert stage.kind == "PyTorch" and len(same) > 10
    assert all(close(found[name], ours[name]) for name in same if name not in feeds)


def test_a_source_model_needs_its_ini() -> None:
    with pytest.raises(UserError, match="give its --input_config"):
        open_stage(MODEL)


def test_fixed_graph_with_a_constant_output() -> None:
    f = Fixed()
    x = f.input("x", (1, 3, 5, 2), DType.UINT8)
    held = f.build.graph.add_constant("held", np.arange(6, dtype=np.int16).reshape(1, 6))
    graph = f.done(f.conv(x, 4, 3), held)
    feeds = code_feeds(graph, 0)
    values = GraphValues(graph, real=False)
    found = dict(values.tensors(feeds, {one.name for one in values.described()}))
    assert np.array_equal(found["held"], held.data) and list(found)[-1] == "held"
