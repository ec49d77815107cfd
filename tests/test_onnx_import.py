"""ONNX import: every operator row against onnxruntime, layouts, shapes, names, and what is refused."""

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

import sgs.ops  # noqa: F401  (fills the tables)
from onnx_compare import assert_same, save
from onnx_snippets import Net, conv_chain, from_tensorflow
from sgs.engine import FloatEngine
from sgs.errors import UserError
from sgs.frontends import onnx_import, onnx_model, onnx_simplify, onnx_walk
from sgs.frontends.onnx_import import import_onnx
from sgs.frontends.onnx_layout import SourceLayouts
from sgs.passes.pipeline import optimise
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, OPERATOR, OnnxCase

DATA = os.environ.get("SGS_TEST_DATA")
CASES = [(op, index) for op in ONNX_EXAMPLES for index in range(len(ONNX_EXAMPLES[op]))]


def one_node_model(case: OnnxCase) -> ModelProto:
    net = Net(opset=case.opset)
    for name, shape in case.inputs.items():
        net.input(name, *shape, dtype=helper.np_dtype_to_tensor_dtype(np.dtype(case.types.get(name, "float32"))))
    net.initializers = [onnx.numpy_helper.from_array(value, name) for name, value in case.constants.items()]
    order = case.order or (*case.inputs, *case.constants)
    domain, _, op = case.op.rpartition(".")
    results = net(op, *order, outputs=case.outputs, result="y", domain=domain, **case.attrs)
    return net.model(*([results] if isinstance(results, str) else results))


# ---- operators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("op", "index"), CASES)
def test_operator_equals_onnxruntime(op: str, index: int, tmp_path: Path) -> None:
    case = ONNX_EXAMPLES[op][index]
    model = one_node_model(case)
    graph = import_onnx(save(model, tmp_path))
    assert_same(graph, model, low=case.low, high=case.high)
    optimise(graph)
    assert_same(graph, model, low=case.low, high=case.high)


def test_every_imported_operator_has_an_example() -> None:
    assert set(IMPORT_ONNX) == set(ONNX_EXAMPLES)


# ---- layouts, names, metadata ----------------------------------------------------------------------------------------


def test_graph_ports_are_nhwc_under_the_sources_names(tmp_path: Path) -> None:
    path = save(conv_chain(), tmp_path, "net é.onnx")
    graph = import_onnx(path)
    (name,) = [value.name for value in onnx.load(path).graph.output]
    assert (graph.inputs, graph["x"].shape) == (["x"], (1, 11, 13, 3))
    assert (graph.outputs, graph[name].shape) == ([name], (1, 11, 13, 5))
    assert graph.metadata["source"] == {
        "format": "onnx",
        "file": "net é.onnx",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "opset": 17,
        "producer": "",
    }
    optimise(graph)
    assert (graph.inputs, graph.outputs, graph[name].shape) == (["x"], [name], (1, 11, 13, 5))


def test_layouts_of_the_graph_can_be_chosen(tmp_path: Path) -> None:
    path = save(conv_chain(), tmp_path)
    (name,) = [value.name for value in onnx.load(path).graph.output]
    graph = import_onnx(path, input_layouts={"x": "NCHW"}, output_layouts={name: "NCHW"})
    optimise(graph)
    assert (graph["x"].shape, graph[name].shape) == ((1, 3, 11, 13), (1, 5, 11, 13))
    assert [node.op for node in graph.nodes].count("TRANSPOSE") == 2


def test_layouts_of_the_source_can_be_stated(tmp_path: Path) -> None:
    net = Net()
    model = net.model(net("Relu", net.input("x", 1, 5, 7, 3), result="y"))
    graph = import_onnx(save(model, tmp_path), source_layouts={"x": "NHWC", "y": "NHWC"})
    assert (graph["x"].shape, graph["y"].shape) == ((1, 5, 7, 3), (1, 5, 7, 3))
    assert [node.op for node in graph.nodes] == ["RELU"]


def test_layouts_read_off_the_structure() -> None:
    layouts = SourceLayouts(from_tensorflow())
    assert layouts.of_input("x") == "NHWC"
    assert [layouts.of_output(v.name) for v in from_tensorflow().graph.output if "sigmoid" in v.name] == ["NHWC"]
    net = Net()
    y = net("Transpose", net.conv(net.input("x", 1, 3, 6, 8), 3, 5), perm=[0, 2, 3, 1])
    z = net("Sigmoid", net("Add", y, np.float32(1)))
    layouts = SourceLayouts(net.model(y, z))
    assert (layouts.of_input("x"), layouts.of_output(y), layouts.of_output(z)) == ("NCHW", "NHWC", "NHWC")


def test_the_inis_order_of_ports_wins(tmp_path: Path) -> None:
    net = Net()
    a, b = net.input("a", 1, 3), net.input("b", 2, 3)
    model = net.model(net("Relu", a, result="p"), net("Relu", b, result="q"))
    path = save(model, tmp_path)
    graph = import_onnx(path, input_names=["b", "a"], output_names=["q", "p"])
    assert (graph.inputs, graph.outputs) == (["b", "a"], ["q", "p"])
    assert import_onnx(path, output_names=["q"]).outputs == ["q"]


def test_outputs_that_are_inputs_constants_or_each_other_get_tensors_of_their_own(tmp_path: Path) -> None:
    net = Net()
    x = net.input("x", 1, 3, 5, 7)
    y = net("Relu", x, result="y")
    outputs = [y, net("Identity", y, result="z"), net("Identity", x, result="w"), net("Shape", x, result="s")]
    model = net.model(*outputs)
    graph = import_onnx(save(model, tmp_path))
    assert graph.outputs == ["y", "z", "w", "s"]
    assert_same(graph, model)
    optimise(graph)
    assert graph.outputs == ["y", "z", "w", "s"]
    assert_same(graph, model)


def test_an_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    """An input and an output of one name cannot both keep it."""
    net = Net()
    x = net.input("x", 1, 3, 5, 7)
    path = save(net.model(net("Relu", x, result="y"), x), tmp_path)
    with pytest.raises(UserError, match="output 'x' is an input: nothing computes it"):
        import_onnx(path)
    graph = import_onnx(path, output_names=["y"])
    assert (graph.inputs, graph.outputs) == (["x"], ["y"])


@pytest.mark.parametrize("order", ["yz", "zy"])
def test_one_tensor_is_two_outputs_of_different_layouts(order: str, tmp_path: Path) -> None:
    net = Net()
    y = net("Relu", net.input("x", 1, 3, 5, 7), result="y")
    net("Identity", y, result="z")
    path = save(net.model("y", "z"), tmp_path)
    graph = import_onnx(path, output_names=list(order), output_layouts={"y": "NHWC", "z": "NCHW"})
    for _ in range(2):
        assert graph.outputs == list(order)
        assert (graph["y"].shape, graph["z"].shape) == ((1, 5, 7, 3), (1, 3, 5, 7))
        x = np.random.default_rng(0).normal(0, 1, (1, 5, 7, 3)).astype(np.float32)
        found = FloatEngine(graph, threads=1).run({"x": x})
        assert np.array_equal(found["y"], np.maximum(x, 0))
        assert np.array_equal(found["z"], np.maximum(x, 0).transpose(0, 3, 1, 2))
        optimise(graph)


# ---- forms of a model ------------------------------------------------------------------------------------------------


def test_initializers_listed_as_inputs_are_constants(tmp_path: Path) -> None:
    model = conv_chain()
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    assert import_onnx(save(model, tmp_path)).inputs == ["x"]


def test_external_data_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(conv_chain(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert_same(import_onnx(path), conv_chain())
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(
        UserError, match="initializer 'c0', .* and 3 more: its external data 'weights.bin' cannot be read"
    ):
        import_onnx(path)


@pytest.mark.parametrize("opset", [17, 15, 21])
def test_local_functions_are_inlined(opset: int, tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["p"], ["t"]), helper.make_node("Add", ["t", "p"], ["q"])]
    function = helper.make_function("local", "twice", ["p"], ["q"], nodes, [helper.make_opsetid("", opset)])
    net = Net()
    x = net.input("x", 2, 3)
    net.nodes.append(helper.make_node("twice", [x], ["y"], domain="local"))
    graph_proto = helper.make_graph(net.nodes, "net", net.inputs, [helper.make_empty_tensor_value_info("y")])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    model = helper.make_model(graph_proto, functions=[function], opset_imports=opsets, ir_version=8)
    graph = import_onnx(save(model, tmp_path))
    assert [node.op for node in graph.nodes] == ["RELU", "ADD"]


def test_standard_operators_without_a_row_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    model = net.model(net("HardSwish", net.input("x", 1, 5, 7, 3)))
    rows = {op: row for op, row in IMPORT_ONNX._rows.items() if op != "HardSwish"}
    monkeypatch.setattr(IMPORT_ONNX, "_rows", rows)
    assert_same(import_onnx(save(model, tmp_path)), model)


def test_an_if_whose_condition_is_known_takes_its_branch(tmp_path: Path) -> None:
    net = Net()
    x = net.input("x", 2, 3)
    branches = {}
    for name, op in (("then_branch", "Relu"), ("else_branch", "Sigmoid")):
        body = [helper.make_node(op, ["x"], [f"{op}_out"])]
        branches[name] = helper.make_graph(body, name, [], [helper.make_empty_tensor_value_info(f"{op}_out")])
    rank = net("Size", net("Shape", x))
    y = net("If", net("Equal", rank, np.array(2)), **branches)
    graph = import_onnx(save(net.model(net("Add", y, x)), tmp_path))
    assert [node.op for node in graph.nodes] == ["RELU", "ADD"]


def test_results_that_nothing_reads_are_not_made(tmp_path: Path) -> None:
    net = Net()
    x = net.input("x", 1, 3, 6, 8)
    y, _ = net("MaxPool", x, kernel_shape=[2, 2], outputs=2)
    graph = import_onnx(save(net.model(net("Clip", y, "", np.float32(2))), tmp_path))
    assert "MAX_POOL_2D" in [node.op for node in graph.nodes]


def test_half_precision_models_become_float32(tmp_path: Path) -> None:
    net = Net()
    x = net.input("x", 2, 5, dtype=TensorProto.FLOAT16)
    model = net.model(net("Add", x, np.linspace(-1, 1, 5, dtype=np.float16)))
    graph = import_onnx(save(model, tmp_path))
    assert {tensor.dtype.name for tensor in graph.activations()} == {"FLOAT32"}
    assert_same(graph, model, tolerance=2e-3)


def test_opset_1_broadcasting(tmp_path: Path) -> None:
    net = Net(opset=6)
    x = net.input("x", 1, 3, 5, 7)
    y = net("Add", x, np.array([1, 2, 3], np.float32), axis=1, broadcast=1, result="y")
    graph = import_onnx(save(net.model(y), tmp_path))
    constants = [t for t in graph.tensors.values() if t.is_constant]
    assert [t.shape for t in constants] == [(3, 1, 1)]


# ---- shapes ----------------------------------------------------------------------------------------------------------


def dynamic_model() -> ModelProto:
    net = Net()
    x = net.input("x", "n", 3, "h", "w")
    y = net.conv(x, 3, 5)
    return net.model(net("Reshape", y, np.array([0, 5, -1]), result="y"))


@pytest.mark.parametrize("shapes", [[[1, 3, 6, 8]], {"x": (1, 3, 6, 8)}])
def test_dynamic_shapes_are_given(shapes: Any, tmp_path: Path) -> None:
    graph = import_onnx(save(dynamic_model(), tmp_path), input_shapes=shapes)
    assert (graph["x"].shape, graph["y"].shape) == ((1, 6, 8, 3), (1, 5, 48))


def test_static_shapes_can_be_overridden(tmp_path: Path) -> None:
    graph = import_onnx(save(conv_chain(), tmp_path), input_shapes=[[1, 3, 20, 30]])
    assert graph[graph.outputs[0]].shape == (1, 20, 30, 5)


# ---- refusals --------------------------------------------------------------------------------------------------------


def with_unsupported() -> ModelProto:
    net = Net()
    x = net.conv(net.input("x", 1, 3, 6, 8), 3, 5)
    a = net("Det", net("NonZero", x))
    b = net("Conv", net("Relu", x), net("Relu", net.weights(5, 5, 1, 1) if False else x))
    return net.model(net("Add", net("Relu", a), net("GridSample", x, x)), b)


def damaged() -> ModelProto:
    model = conv_chain()
    model.graph.node[1].input[0] = "nowhere"
    return model


def newer_opset() -> ModelProto:
    model = conv_chain()
    model.opset_import[0].version = 999
    return model


def wide_kernel() -> ModelProto:
    net = Net()
    return net.model(net.conv(net.input("x", 1, 3, 4, 5), 3, 5, 9, pads=[0, 0, 0, 0]))


def selection_in_the_middle() -> ModelProto:
    net = Net()
    boxes, scores = net.input("boxes", 1, 7, 4), net.input("scores", 1, 2, 7)
    return net.model(net("Squeeze", net("NonMaxSuppression", boxes, scores, np.array([3]))))


REFUSED_MODELS: list[tuple[Callable[[], ModelProto], dict[str, Any], str]] = [
    (damaged, {}, r"Relu 'node_relu1': reads 'nowhere', which nothing before it defines \(export"),
    (newer_opset, {}, "operator set 999, newer than"),
    (selection_in_the_middle, {}, "NonMaxSuppression .*: how many boxes it selects is known at run time only"),
    (wide_kernel, {}, "Conv 'node_conv0': .*does not fit"),
    (dynamic_model, {}, r"the shape of input 'x' \[n,3,h,w\] is not static \(.*--input_shapes"),
    (dynamic_model, {"input_shapes": [[1, 3, 6, 8], [1]]}, "2 input shapes for 1 inputs"),
    (dynamic_model, {"input_shapes": [[1, 3, 6]]}, r"shape 1,3,6 does not fit input 'x' \[n,3,h,w\]"),
    (dynamic_model, {"input_shapes": [[1, 3, 0, 8]]}, "shape 1,3,0,8 does not fit"),
    (dynamic_model, {"input_shapes": {"z": [1, 3, 6, 8]}}, "a shape is given for 'z', which is not an input"),
    (conv_chain, {"input_shapes": [[1, 4, 6, 8]]}, "Conv 'node_conv0'"),
    (conv_chain, {"input_names": ["image"]}, r"'image' is not an input of the model \(inputs of the model: x\)"),
    (conv_chain, {"output_names": ["conv3", "nope"]}, r"'nope' is not an output of the model \(outputs of the model: "),
]


@pytest.mark.parametrize(("make", "arguments", "message"), REFUSED_MODELS)
def test_model_is_refused(
    make: Callable[[], ModelProto], arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        import_onnx(save(make(), tmp_path), skip_simplify=True, **arguments)
    assert caught.value.exit_code == 2
    assert "model.onnx" in str(caught.value)
    assert str(caught.value).startswith("convert: ")


FILES: list[tuple[str, bytes | None, str]] = [
    ("missing.onnx", None, "no such file"),
    ("empty.onnx", b"", "is empty"),
    ("text.onnx", b"this is not a model\n" * 9, "is not an ONNX model, or is truncated"),
    ("model.tflite", b"1234TFL3", "has the extension '.tflite'"),
    ("half.onnx", b"half", "is not an ONNX model, or is truncated"),
]


@pytest.mark.parametrize(("name", "content", "message"), FILES)
def test_file_is_refused(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "half.onnx":
        whole = conv_chain().SerializeToString()
        content = whole[: len(whole) // 2]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        import_onnx(path)
    assert caught.value.stage == "convert"
    assert caught.value.file == str(path)
    assert caught.value.remedy


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        import_onnx(tmp_path)


def test_everything_unsupported_is_named_in_one_report(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        import_onnx(save(with_unsupported(), tmp_path), skip_simplify=True)
    text = str(caught.value)
    for label in ("NonZero 'node_nonzero1'", "Det 'node_det2'", "GridSample 'node_gridsample", "Conv 'node_conv"):
        assert label in text, text
    assert "4 problems" in text
    assert "Relu" not in text.replace("node_relu", "")


# ---- onnxsim ---------------------------------------------------------------------------------------------------------


def test_simplification_keeps_the_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user has a module of the name of one that it needs, too."""
    (tmp_path / "onnx.py").write_text("raise SystemExit('the folder of the user')\n")
    monkeypatch.chdir(tmp_path)
    model = from_tensorflow()
    source = onnx_model.load_model(save(model, tmp_path))
    ports = onnx_model.input_ports(source, None, ["x"])
    simpler = onnx_simplify.simplified(source, ports)
    assert simpler is not None
    assert_same(onnx_import.import_model(simpler), model)


@pytest.mark.parametrize(
    ("program", "limit", "message"),
    [
        ("import os; os.abort()", 60.0, "onnxsim ended with code -6"),
        ("import time; time.sleep(60)", 0.5, "onnxsim took longer than"),
        ("bytearray(1 << 35)", 60.0, "onnxsim ended with code 1 (MemoryError"),
        ("def simplify(model, check_n): return model.graph, True", 60.0, "onnxsim ended with code 1"),
        (
            "def simplify(model, check_n): model.graph.ClearField('output'); return model, True",
            60.0,
            "changed the inputs",
        ),
        ("import sys; open(sys.argv[2], 'w').write('x' * 99); sys.exit(0)", 60.0, "onnxsim wrote no model"),
    ],
)
def test_a_failing_simplifier_is_a_warning(
    program: str, limit: float, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    source = onnx_model.load_model(save(conv_chain(), tmp_path))
    ports = onnx_model.input_ports(source, None, ["x"])
    (tmp_path / "onnxsim.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert onnx_simplify.simplified(source, ports, time_limit=limit) is None
    assert message in caplog.text


def test_without_onnxsim_there_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(onnx_simplify.importlib.util, "find_spec", lambda name: None)
    source = onnx_model.load_model(save(conv_chain(), tmp_path))
    assert onnx_simplify.simplified(source, onnx_model.input_ports(source, None, ["x"])) is None
    assert "onnxsim is not installed; the model is imported as it is" in caplog.text


@pytest.mark.parametrize(
    ("make", "options", "tries"),
    [
        (conv_chain, {}, [False]),
        (conv_chain, {"force_simplify": True}, [True, False]),
        (with_unsupported, {}, [False, True]),
        (with_unsupported, {"skip_simplify": True}, [False]),
        (damaged, {}, [False]),
    ],
)
def test_when_onnxsim_is_tried(
    make: Callable[[], ModelProto], options: Any, tries: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[bool] = []
    plain = onnx_walk.ImportWalk.run

    def failing(source: Any, ports: Any) -> None:
        done.append(True)

    def watched(walk: Any) -> Any:
        done.append(False)
        return plain(walk)

    monkeypatch.setattr(onnx_import, "simplified", failing)
    monkeypatch.setattr(onnx_walk.ImportWalk, "run", watched)
    if make is conv_chain:
        import_onnx(save(make(), tmp_path), **options)
    else:
        with pytest.raises(UserError):
            import_onnx(save(make(), tmp_path), **options)
    assert done == tries


# ---- real networks ---------------------------------------------------------------------------------------------------

NETWORKS: dict[str, list[list[int]] | None] = {
    "yolox_nano/yolox_nano.onnx": None,
    "ultraface/version-RFB-320_simplified.onnx": None,
    "ultraface/version-slim-320_without_postprocessing.onnx": None,
    "fastestdet/FastestDet.onnx": None,
    "mediapipe/palm_detection_lite.onnx": None,
    "mediapipe/selfie_segmentation_landscape.onnx": None,
    "mediapipe/face_detection_full_range.onnx": None,
    "mobilenet_v1_0.25_224/mobilenet_v1_0.25_224.onnx": None,
    "shufflenet_v2/shufflenet-v2-12-deq.onnx": None,
    "super_resolution/super_resolution.onnx": [[1, 1, 224, 224]],
    "ppocr_v1.1_det/ch_mobile_v1.1_det.onnx": [[1, 3, 320, 320]],
}


@pytest.mark.skipif(DATA is None, reason="SGS_TEST_DATA is not set")
@pytest.mark.parametrize("name", NETWORKS)
def test_real_network(name: str) -> None:
    path = Path(DATA or "", "onnx", name)
    graph = import_onnx(path, input_shapes=NETWORKS[name])
    model = onnx.load(path)
    assert_same(graph, model, low=0, source=path, tolerance=1e-3)
    optimise(graph)
    assert_same(graph, model, low=0, source=path, tolerance=1e-3)
    if name.startswith("super_resolution") and "DEPTH_TO_SPACE" not in OPERATOR:
        pytest.skip("DEPTH_TO_SPACE is not an operator yet")
    assert "TRANSPOSE" not in [node.op for node in graph.nodes]


def test_the_example_for_a_dynamic_shape_fits_the_model(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    ports = [
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["batch", 1, "rows", 96]) for n in ("x", "y")
    ]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", ports[:1], ports[1:]))
    onnx.save(model, tmp_path / "dynamic.onnx")
    with pytest.raises(UserError, match=r"--input_shapes 1,1,224,96\)"):
        import_onnx(tmp_path / "dynamic.onnx")


def test_an_unsupported_operator_says_where_the_list_is(tmp_path: Path) -> None:
    net = Net()
    model = net.model(net("Det", net.input("x", 1, 5, 5)))
    with pytest.raises(UserError, match=r"operator Det is not supported \(docs/OPERATORS.md lists the operators"):
        import_onnx(save(model, tmp_path))


def test_integers_beyond_32_bits_are_refused_but_as_bounds(tmp_path: Path) -> None:
    net = Net()
    x = net.input("x", 2, 3, dtype=TensorProto.INT64)
    bounded = net.model(net("Clip", x, np.array(-(2**40)), np.array(2**40)))
    assert_same(import_onnx(save(bounded, tmp_path)), bounded, high=90)
    with pytest.raises(UserError, match="does not fit 32 bits"):
        import_onnx(save(net.model(net("Add", x, np.array(3_000_000_000))), tmp_path))
    net = Net()
    big = net("Mul", net("Shape", net.input("x", 2, 3)), np.array(2**40))
    with pytest.raises(UserError, match="a constant beyond 32 bits"):
        import_onnx(save(net.model(big), tmp_path))


def test_the_old_axis_aligns_computed_operands(tmp_path: Path) -> None:
    net = Net(opset=6)
    x, b = net.input("x", 2, 5, 5), net("Relu", net.input("b", 5))
    graph = import_onnx(save(net.model(net("Add", x, b, axis=1, broadcast=1)), tmp_path))
    feeds = {"x": np.arange(50, dtype=np.float32).reshape(2, 5, 5), "b": np.arange(5, dtype=np.float32)}
    (value,) = FloatEngine(graph, threads=1).run(feeds).values()
    assert np.array_equal(value, feeds["x"] + feeds["b"][:, None])


MALFORMED: dict[str, tuple[str, dict[str, Any], str]] = {
    "strides of another rank": ("Conv", {"strides": [2]}, "strides has incorrect size"),
    "channels that are not the weight's": ("Conv", {"group": 2}, "do not fit|not valid ONNX"),
    "a kernel that is not the weight's": ("Conv", {"kernel_shape": [5, 5]}, "kernel_shape"),
    "padding nobody knows": ("Conv", {"auto_pad": "SAME"}, "auto_pad SAME is not defined"),
    "an axis that there is not": ("Softmax", {"axis": 9}, "'axis' must be in"),
    "an attribute that there is not": ("Relu", {"colour": 3}, "colour"),
    "an order nobody knows": ("DepthToSpace", {"blocksize": 2, "mode": "XYZ"}, "mode XYZ is not defined"),
}


@pytest.mark.parametrize(("op", "attrs", "told"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_nodes_are_refused(op: str, attrs: dict[str, Any], told: str, tmp_path: Path) -> None:
    net = Net()
    x = net.input("x", 1, 4, 6, 8)
    operands = [x, net.weights(6, 4, 3, 3)] if op == "Conv" else [x]
    net.nodes.append(helper.make_node(op, operands, ["y"], name="odd", **attrs))
    port = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(net.nodes, "net", net.inputs, [port], net.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(UserError, match=told) as caught:
        import_onnx(save(model, tmp_path), skip_simplify=True)
    assert "'odd'" in str(caught.value)
