"""TFLite files that others wrote: names, shapes, parts, layouts, and what is refused. LiteRT judges the values."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgs.cli import convert_tool, show_model_info
from sgs.compare.match import stands_for
from sgs.engine import FloatEngine
from sgs.errors import UserError
from sgs.frontends.onnx_import import import_model
from sgs.frontends.onnx_surgery import Endpoint, Surgery
from sgs.frontends.platforms import platform_named
from sgs.frontends.tflite.model import load_tflite
from sgs.ir.graph import Graph
from sgs.numeric.quantise import Array
from sgs.passes.pipeline import optimise
from sgs.sim import read_sim, sim_bytes
from tflite_files import TfliteFile, imported, litert_run, pack, record, unpacked

RNG = np.random.default_rng(11)


def real(*shape: int) -> Array:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def int32(*values: Any) -> Array:
    return np.array(values, np.int32)


def optimised(graph: Graph) -> Graph:
    made = graph.copy()
    optimise(made)
    return made


def assert_judged(data: bytes, graph: Graph, feeds: dict[str, Array]) -> None:
    """The graph gives what LiteRT gives for the file, untouched and optimised."""
    theirs = litert_run(data, feeds)
    for each in (graph, optimised(graph)):
        ours = FloatEngine(each).run(dict(zip(each.inputs, feeds.values(), strict=True)))
        for name, expected in zip(each.outputs, theirs, strict=True):
            np.testing.assert_allclose(ours[name], expected, atol=2e-6 * float(np.ptp(expected)), rtol=1e-5)


def relu_file(*names: str) -> TfliteFile:
    """A chain of RELU, NEG, RELU ..., one for each name but the first."""
    file = TfliteFile()
    for name in names:
        file.tensor(name, (1, 3, 5, 2))
    for i in range(len(names) - 1):
        file.operator("NEG" if i % 2 else "RELU", [names[i]], [names[i + 1]])
    return file


# -- names -------------------------------------------------------------------------------------------------------------
def renamed(data: bytes, *names: str | None) -> bytes:
    model = unpacked(data)
    for tensor, name in zip(model.subgraphs[0].tensors, names, strict=True):
        tensor.name = name
    return pack(model)


def test_every_tensor_has_a_name_of_its_own(tmp_path: Path) -> None:
    data = relu_file("a", "b", "c", "d", "e").bytes(["a"], ["e"])
    graph = imported(renamed(data, None, "x", "x", "x_1", None), tmp_path)
    assert (graph.inputs, graph.outputs) == (["tensor0"], ["tensor4"])
    assert [node.outputs[0] for node in graph.nodes] == ["x", "x_2", "x_1", "tensor4"]
    assert [node.name for node in graph.nodes] == ["x", "x_2", "x_1", "tensor4"]


def with_signature(data: bytes, fed: str, given: str) -> bytes:
    model = unpacked(data)
    last = len(model.subgraphs[0].tensors) - 1
    ends = [[record("TensorMap", name=name, tensorIndex=i)] for name, i in ((fed, 0), (given, last))]
    model.signatureDefs = [record("SignatureDef", inputs=ends[0], outputs=ends[1], signatureKey="serving_default")]
    return pack(model)


def ini(path: Path, inputs: str, outputs: str, **more: str) -> Path:
    keys = {"training_input_formats": "RAWDATA_F32_NHWC", "input_formats": "RAWDATA_F32_NHWC", **more}
    lines = "".join(f"{key}={value};\n" for key, value in keys.items())
    outs = ",".join(["TRUE"] * len(outputs.split(",")))
    path.write_text(
        f"[INPUT_CONFIG]\ninputs={inputs};\n{lines}quantizations=TRUE;\n"
        f"[OUTPUT_CONFIG]\noutputs={outputs};\ndequantizations={outs};\n",
        encoding="utf-8",
    )
    return path


def run(folder: Path, data: bytes, config: Path, *more: str) -> int:
    (folder / "großes Netz.tflite").write_bytes(data)
    named = [f"--model_file={folder / 'großes Netz.tflite'}", f"--input_config={config}"]
    return convert_tool.main(["tflite", *named, f"--output_file={folder / 'x.sim'}", "--soc_version=pcupid", *more])


def test_names_of_signatures(tmp_path: Path) -> None:
    """The ini may use them, or the file's; what the file calls by a name goes before."""
    data = with_signature(relu_file("serving_default_x:0", "mid", "StatefulPartitionedCall:0").bytes([], []), "x", "y")
    model = unpacked(data)
    model.subgraphs[0].inputs, model.subgraphs[0].outputs = int32(0), int32(2)
    data = pack(model)
    assert run(tmp_path, data, ini(tmp_path / "a.ini", "x", "y")) == 0
    assert read_sim(tmp_path / "x.sim").graph.inputs == ["x"]
    assert run(tmp_path, data, ini(tmp_path / "b.ini", "serving_default_x:0", "StatefulPartitionedCall:0")) == 0
    assert read_sim(tmp_path / "x.sim").graph.outputs == ["StatefulPartitionedCall:0"]
    assert run(tmp_path, with_signature(data, "mid", "y"), ini(tmp_path / "c.ini", "mid", "y")) == 2


def test_names_with_semicolons(tmp_path: Path) -> None:
    """Converters join the names of what they fuse."""
    data = relu_file("x", "a;b;c", "a;b").bytes(["x"], ["a;b", "a;b;c"])
    assert run(tmp_path, data, ini(tmp_path / "a.ini", "x", '"a;b;c","a;b"')) == 0
    assert read_sim(tmp_path / "x.sim").graph.outputs == ["a;b;c", "a;b"]


# -- the whole file ----------------------------------------------------------------------------------------------------
def test_a_sim_is_no_tflite_file(tmp_path: Path) -> None:
    graph = imported(relu_file("x", "y").bytes(["x"], ["y"]), tmp_path)
    with pytest.raises(UserError, match=r"this is a float .sim, not a .tflite model \(it needs no converting\)"):
        imported(sim_bytes(graph, "float"), tmp_path)


def test_metadata_of_the_source(tmp_path: Path) -> None:
    graph = imported(relu_file("x", "y").bytes(["x"], ["y"]), tmp_path)
    assert graph.metadata["source"]["format"] == "tflite"
    assert graph.metadata["source"]["producer"] == "tflite test"
    assert len(graph.metadata["source"]["sha256"]) == 64


def two_networks(op: str = "") -> bytes:
    file = relu_file("x", "m", "y")
    if op:
        file.tensor("c", (), "bool")
        table = {"IF": "IfOptions", "WHILE": "WhileOptions", "CALL_ONCE": "CallOnceOptions"}[op]
        inputs, outputs = ([], []) if op == "CALL_ONCE" else (["c", "m"], ["z"])
        file.tensor("z", (1, 3, 5, 2))
        file.operator(op, inputs, outputs, table)
    model = file.model(["x", *(["c"] if op else [])], ["z" if op and op != "CALL_ONCE" else "y"])
    model.subgraphs.append(unpacked(relu_file("a", "b").bytes(["a"], ["b"])).subgraphs[0])
    return pack(model)


def test_several_networks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"it holds 2 networks; files of one are supported \(convert to .tflite with"):
        imported(two_networks(), tmp_path)
    for op, remedy in (("IF", "cut"), ("WHILE", "Keras: export LSTM, GRU and RNN layers with unroll=True")):
        reason = rf"{op} 'z': operator {op} is not supported: it runs another network .*\({remedy}"
        with pytest.raises(UserError, match=reason):
            imported(two_networks(op), tmp_path)
        cut = Surgery(outputs=(Endpoint("m"),))  # as the remedy says
        (tmp_path / "m.tflite").write_bytes(two_networks(op))
        graph = import_model(load_tflite(tmp_path / "m.tflite"), surgery=cut)
        assert [node.op for node in graph.nodes] == ["RELU"]


def test_dimensions_have_no_names() -> None:
    assert not platform_named("tflite", stage="test").has_free_dims
    assert platform_named("onnx", stage="test").has_free_dims


def test_weights_that_are_variables(tmp_path: Path) -> None:
    """As TFLiteConverter.from_concrete_functions leaves those of a Keras model."""
    file = relu_file("x", "y")
    file.tensor("w", (1, 3, 5, 2))
    file.operator("READ_VARIABLE", ["y"], ["w"])
    with pytest.raises(
        UserError, match=r"READ_VARIABLE is not supported: .* \(Keras: convert with TFLiteConverter.from_ke"
    ):
        imported(file.bytes(["x"], ["w"]), tmp_path)


def test_all_that_is_not_supported_is_named(tmp_path: Path) -> None:
    file = relu_file("x", "y")
    for name, op in (("s", "SVDF"), ("f", "custom Flex1"), ("c", "custom Mine"), ("r", "RFFT2D"), ("r2", "RFFT2D")):
        file.tensor(name, (1, 3, 5, 2))
        file.operator(op, ["y"], [name])
    file.tensor("d", (1, 3, 5, 2))
    file.operator("custom TFLite_Detection_PostProcess", ["r", "s", "x"], ["d"])
    with pytest.raises(UserError) as caught:
        imported(file.bytes(["x"], ["s", "f", "c", "d", "r2"]), tmp_path)
    told = str(caught.value)
    for words in (
        "6 problems",
        "SVDF 's': operator SVDF is not supported: it keeps a state from run to run (cut the network in front of it",
        "custom Flex1 'f': custom operator Flex1 is not supported: it runs a kernel of TensorFlow's own",
        "custom Mine 'c': custom operator Mine is not supported (cut",
        "RFFT2D 'r': operator RFFT2D is not supported: it computes with complex numbers",
        "RFFT2D 'r2': operator RFFT2D is not supported: it computes with complex numbers",
        "custom TFLite_Detection_PostProcess 'd': custom operator TFLite_Detection_PostProcess is not supported: it "
        "chooses boxes, which is done outside of the network (cut the network in front of it with --outputs r,s)",
    ):
        assert words in told, told


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f.tensors["x"].__setattr__("externalBuffer", 3), "its values are in another file"),
        (
            lambda f: f.operators[0].__setattr__("inputs", int32(7)),
            "operands of operator 0 name tensor 7; the file has",
        ),
        (lambda f: f.operators[0].__setattr__("inputs", int32(2)), "reads 'y', which only a later node defines"),
        (lambda f: f.operators[1].__setattr__("outputs", int32(1)), "'m' is defined 2 times: by RELU 'm', NEG 'm'"),
        (lambda f: f.operators[0].__setattr__("inputs", int32(-1)), "RELU 'm'"),
        (lambda f: f.operators[0].__setattr__("inputs", int32()), "RELU 'm'"),
    ],
)
def test_contradictions(change: Any, reason: str, tmp_path: Path) -> None:
    file = relu_file("x", "m", "y")
    change(file)
    with pytest.raises(UserError, match=reason):
        imported(file.bytes(["x"], ["y"]), tmp_path)


# -- shapes ------------------------------------------------------------------------------------------------------------
def reshaping(shape: tuple[int, ...], signature: tuple[int, ...]) -> bytes:
    """x [N, H, W, 4] → a shape that is computed from its own: SHAPE, STRIDED_SLICE, PACK, RESHAPE."""
    file = TfliteFile()
    file.tensor("x", shape, shapeSignature=int32(*signature))
    for name, extents in (("s", (4,)), ("n", ()), ("p", (2,))):
        file.tensor(name, extents, "int32")
    file.tensor("y", (shape[0], int(np.prod(shape[1:]))))
    for name, value in (("b", 0), ("e", 1), ("i", 1)):
        file.constant(name, int32(value))
    file.constant("rest", np.array(-1, np.int32))
    file.operator("SHAPE", ["x"], ["s"], "ShapeOptions", {"out_type": 2})
    file.operator("STRIDED_SLICE", ["s", "b", "e", "i"], ["n"], "StridedSliceOptions", {"shrink_axis_mask": 1})
    file.operator("PACK", ["n", "rest"], ["p"], "PackOptions", {"values_count": 2})
    file.operator("RESHAPE", ["x", "p"], ["y"], "ReshapeOptions")
    return file.bytes(["x"], ["y"])


def test_shapes_that_are_computed_are_folded(tmp_path: Path) -> None:
    data = reshaping((2, 3, 5, 4), (2, 3, 5, 4))
    graph = imported(data, tmp_path)
    assert [node.op for node in graph.nodes] == ["RESHAPE"]
    assert_judged(data, graph, {"x": real(2, 3, 5, 4)})


def test_free_extents(tmp_path: Path) -> None:
    """A batch is what the file has; others are asked for where the file has 1."""
    assert imported(reshaping((1, 3, 5, 4), (-1, -1, 5, 4)), tmp_path)["y"].shape == (1, 60)
    data = reshaping((1, 1, 1, 4), (-1, -1, -1, 4))
    with pytest.raises(UserError, match=r"the shape of input 'x' \[1,\?,\?,4\] is not static \(give every"):
        imported(data, tmp_path)
    assert imported(data, tmp_path, input_shapes=[(2, 3, 5, 4)])["y"].shape == (2, 60)
    with pytest.raises(UserError, match="shape 2,3 does not fit input 'x'"):
        imported(data, tmp_path, input_shapes=[(2, 3)])


# -- parts -------------------------------------------------------------------------------------------------------------
def test_parts(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(relu_file("x", "a", "b", "y").bytes(["x"], ["y"]))
    source = load_tflite(tmp_path / "m.tflite")
    cut = Surgery((Endpoint("a"),), (Endpoint("b"),))
    graph = import_model(source, surgery=cut)
    assert (graph.inputs, graph.outputs, [node.op for node in graph.nodes]) == (["a"], ["b"], ["NEG"])
    assert graph["a"].shape == (1, 3, 5, 2)
    with pytest.raises(UserError, match=r"--inputs: the model has no tensor 'aa' \(did you mean a\?"):
        import_model(source, surgery=Surgery((Endpoint("aa"),)))


# -- layouts -----------------------------------------------------------------------------------------------------------
def channels_first() -> bytes:
    """As converters from ONNX write: every operator between TRANSPOSEs, slices of the NCHW input in front."""
    file = TfliteFile()
    file.tensor("x", (1, 2, 6, 10))
    to_last, to_first = file.constant("last", int32(0, 2, 3, 1)), file.constant("first", int32(0, 3, 1, 2))
    for name, value in (("b0", (0, 0, 0, 0)), ("b1", (0, 0, 1, 0)), ("e", (1, 2, 6, 10)), ("s", (1, 1, 2, 1))):
        file.constant(name, int32(*value))
    for k in (0, 1):
        file.tensor(f"p{k}", (1, 2, 3, 10))
        file.operator("STRIDED_SLICE", ["x", f"b{k}", "e", "s"], [f"p{k}"], "StridedSliceOptions")
    file.tensor("c", (1, 4, 3, 10))
    file.operator("CONCATENATION", ["p0", "p1"], ["c"], "ConcatenationOptions", {"axis": 1})
    file.tensor("cl", (1, 3, 10, 4))
    file.operator("TRANSPOSE", ["c", to_last], ["cl"], "TransposeOptions")
    file.constant("w", real(5, 3, 3, 4))
    file.constant("bias", real(5))
    file.tensor("yl", (1, 3, 10, 5))
    file.operator("CONV_2D", ["cl", "w", "bias"], ["yl"], "Conv2DOptions", {"stride_h": 1, "stride_w": 1})
    file.tensor("y", (1, 5, 3, 10))
    file.operator("TRANSPOSE", ["yl", to_first], ["y"], "TransposeOptions")
    return file.bytes(["x"], ["y"])


def test_inputs_and_outputs_that_the_author_holds_channels_first(tmp_path: Path) -> None:
    data = channels_first()
    (tmp_path / "m.tflite").write_bytes(data)
    assert load_tflite(tmp_path / "m.tflite").layouts == {"x": "NCHW", "y": "NCHW"}
    graph = imported(data, tmp_path)
    assert (graph["x"].shape, graph["y"].shape) == ((1, 6, 10, 2), (1, 3, 10, 5))
    made = optimised(graph)
    assert "TRANSPOSE" not in [node.op for node in made.nodes]
    x = real(1, 2, 6, 10)
    ours = FloatEngine(made).run({"x": np.ascontiguousarray(x.transpose(0, 2, 3, 1))})["y"]
    theirs = litert_run(data, {"x": x})[0]
    np.testing.assert_allclose(ours.transpose(0, 3, 1, 2), theirs, rtol=1e-5, atol=1e-5)


def test_an_ini_may_ask_for_another_layout(tmp_path: Path) -> None:
    data = relu_file("x", "y").bytes(["x"], ["y"])
    graph = imported(data, tmp_path, input_layouts={"x": "NCHW"})
    assert graph["x"].shape == (1, 2, 3, 5)
    assert [node.op for node in graph.nodes] == ["TRANSPOSE", "RELU"]


# -- patterns ----------------------------------------------------------------------------------------------------------
def dilated(crops: tuple[int, int, int, int], kernel: str = "CONV_2D") -> bytes:
    file = TfliteFile()
    file.tensor("x", (1, 7, 9, 3))
    file.constant("block", int32(2, 3))
    file.constant("pads", np.array([[2, 3], [3, 3]], np.int32))
    file.constant("crops", np.array(crops, np.int32).reshape(2, 2))
    file.tensor("s", (6, 6, 5, 3))
    file.operator("SPACE_TO_BATCH_ND", ["x", "block", "pads"], ["s"], "SpaceToBatchNDOptions")
    depthwise = kernel == "DEPTHWISE_CONV_2D"
    file.constant("w", real(1, 3, 3, 3) if depthwise else real(4, 3, 3, 3))
    file.constant("bias", real(3 if depthwise else 4))
    file.tensor("c", (6, 4, 3, 3 if depthwise else 4))
    options = {"stride_h": 1, "stride_w": 1, "padding": "VALID", "fused_activation_function": "RELU"}
    table, depth = ("DepthwiseConv2DOptions", {"depth_multiplier": 1}) if depthwise else ("Conv2DOptions", {})
    file.operator(kernel, ["s", "w", "bias"], ["c"], table, {**options, **depth})
    file.tensor("y", (1, 8 - sum(crops[:2]), 9 - sum(crops[2:]), 3 if depthwise else 4))
    file.operator("BATCH_TO_SPACE_ND", ["c", "block", "crops"], ["y"], "BatchToSpaceNDOptions")
    return file.bytes(["x"], ["y"])


@pytest.mark.parametrize("kernel", ["CONV_2D", "DEPTHWISE_CONV_2D"])
def test_dilated_convolutions(kernel: str, tmp_path: Path) -> None:
    data = dilated((0, 1, 1, 0), kernel)
    graph = imported(data, tmp_path)
    made = optimised(graph)
    assert [node.op for node in made.nodes] == [kernel]
    assert made.nodes[0].attrs["dilations"] == (2, 3)
    assert made.nodes[0].attrs["pads"] == (2, 2, 2, 3)
    assert_judged(data, graph, {"x": real(1, 7, 9, 3)})


def test_what_is_before_a_fused_activation_does_not_go_by_its_name(tmp_path: Path) -> None:
    """LiteRT gives the tensor `c` behind the activation: comparing what is before it would tell a fault."""
    graph = imported(dilated((3, 0, 0, 0)), tmp_path)
    first, second = (node for node in graph.nodes if node.op in ("CONV_2D", "RELU"))
    assert second.inputs == first.outputs
    assert [stands_for(node.outputs[0], {"c"}) for node in (first, second)] == [None, "c"]


def test_what_is_no_dilation_stays(tmp_path: Path) -> None:
    """More is cropped than there was around the picture."""
    data = dilated((3, 0, 0, 0))
    graph = imported(data, tmp_path)
    assert [node.op for node in graph.nodes][-1] == "STRIDED_SLICE"
    assert_judged(data, graph, {"x": real(1, 7, 9, 3)})


# -- the programs ------------------------------------------------------------------------------------------------------
def test_show_model_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = relu_file("x", "y")
    file.tensor("z", (1, 3, 5, 2))
    file.operator("SVDF", ["y"], ["z"])
    (tmp_path / "m.tflite").write_bytes(file.bytes(["x"], ["z"]))
    assert show_model_info.main([str(tmp_path / "m.tflite"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["operators"]) == ("TFLite model", {"RELU": 1, "SVDF": 1})
    assert [problem["node"] for problem in facts["problems"]] == ["SVDF 'z'"]
    assert "opsets" not in facts
    (tmp_path / "m.tflite").write_bytes(relu_file("x", "y").bytes(["x"], ["y"]))
    assert show_model_info.main([str(tmp_path / "m.tflite")]) == 0
    assert "ConvertTool: no problem found" in capsys.readouterr().out


def test_onnxsim_is_no_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ini(tmp_path / "a.ini", "x", "y")
    assert run(tmp_path, relu_file("x", "y").bytes(["x"], ["y"]), config, "--onnxsim") == 2
    assert "--onnxsim" in capsys.readouterr().err


def test_segments_of_no_number_are_refused(tmp_path: Path) -> None:
    """LiteRT leaves entries of a number below 0 out."""
    file = TfliteFile()
    x, y = file.tensor("x", (4, 5)), file.tensor("y", (3, 5))
    numbers = file.constant("i", np.array([2, -1, 2, 1], np.int32))
    count = file.constant("n", np.array(3, np.int32))
    file.operator("UNSORTED_SEGMENT_SUM", [x, numbers, count], [y], "UnsortedSegmentSumOptions")
    with pytest.raises(UserError, match="UNSORTED_SEGMENT_SUM 'y': a number of it is below 0"):
        imported(file.bytes([x], [y]), tmp_path)
