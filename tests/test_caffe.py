"""Reading Caffe networks: which layers run, names of blobs, inputs, weights, and what is told of what is wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from caffe_cases import weight_file
from caffe_reference import run
from conventions import ROOT
from onnx_compare import run_onnx
from sgs.cli import convert_tool
from sgs.errors import Problems, UserError
from sgs.frontends.caffe.context import CAFFE
from sgs.frontends.caffe.generated import NetWeights
from sgs.frontends.caffe.network import read_network
from sgs.frontends.caffe.platform import load_caffe
from sgs.frontends.onnx_import import import_model
from sgs.frontends.onnx_message import SOURCE_LABEL, label_of
from sgs.frontends.onnx_model import SourceModel
from sgs.frontends.platforms import Asked
from sgs.numeric.quantise import Array

INPUT = 'input: "data" input_shape { dim: 1 dim: 3 dim: 6 dim: 5 }\n'
RNG = np.random.default_rng(5)
Weights = dict[str, list[Array]]


def drawn(*shapes: Sequence[int]) -> list[Array]:
    return [RNG.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]


def layer(name: str, kind: str, bottom: str, top: str, parameters: str = "") -> str:
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top}" {parameters} }}\n'


def conv(name: str, bottom: str, outputs: int, more: str = "") -> str:
    return layer(
        name, "Convolution", bottom, name, f"convolution_param {{ num_output: {outputs} kernel_size: 3 {more}}}"
    )


CONV = conv("conv", "data", 4)
CONV_WEIGHTS = {"conv": drawn((4, 3, 3, 3), (4,))}


def write(folder: Path, text: str, weights: Weights | bytes = b"") -> tuple[Path, Path]:
    files = folder / "net.prototxt", folder / "net.caffemodel"
    files[0].write_text(text, encoding="utf-8")
    if not isinstance(weights, bytes):
        weights = weight_file(text, weights)
    files[1].write_bytes(weights or weight_file(CONV, {}))
    return files


def load(
    folder: Path, text: str, weights: Weights | bytes = b"", shapes: Sequence[tuple[int, ...]] = ()
) -> SourceModel:
    return load_caffe(*write(folder, text, weights), Asked(shapes=tuple(shapes) or None))


def refusal(folder: Path, text: str, weights: Weights | bytes = b"") -> str:
    with pytest.raises(UserError) as told:
        load(folder, text, weights)
    return str(told.value)


def types(folder: Path, text: str) -> list[str]:
    (folder / "net.prototxt").write_text(text, encoding="utf-8")
    return [found.type for found in read_network(folder / "net.prototxt").layers]


# -- which layers run --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rules", "runs"),
    [
        ("", True),
        ("include { phase: TEST }", True),
        ("include { phase: TRAIN }", False),
        ("include { phase: 0 }", False),
        ("exclude { phase: TEST }", False),
        ("exclude { phase: TRAIN }", True),
        ("include { phase: TRAIN } include { phase: TEST }", True),
        ('include { stage: "deploy" }', True),
        ('include { stage: "deploy" stage: "other" }', False),
        ('include { not_stage: "deploy" }', False),
        ('exclude { stage: "other" }', True),
        ("include { min_level: 2 max_level: 3 }", True),
        ("include { min_level: 3 }", False),
        ("include { max_level: 1 }", False),
        ('include { phase: TEST stage: "other" }', False),
    ],
)
def test_phase_stage_and_level(rules: str, runs: bool, tmp_path: Path) -> None:
    text = f'state {{ level: 2 stage: "deploy" phase: TRAIN }} {INPUT}' + layer("a", "ReLU", "data", "a", rules)
    assert types(tmp_path, text) == ["ReLU"] * runs


def test_layers_of_training_are_left_out(tmp_path: Path) -> None:
    """With whatever they have that nobody knows."""
    data = (
        'layer { name: "data" type: "Data" top: "data" include { phase: TRAIN } data_param { fork: 1 } strange: 2 }\n'
    )
    test = layer("loss", "SoftmaxWithLoss", "y", "loss", 'bottom: "label" include { phase: TRAIN }')
    source = load(tmp_path, data + INPUT + layer("a", "Sigmoid", "data", "y") + test)
    assert [node.op_type for node in source.proto.graph.node] == ["Sigmoid"]


def test_layers_of_before(tmp_path: Path) -> None:
    text = INPUT + (
        'layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1 blobs_lr: 2 weight_decay: 1 '
        "convolution_param { num_output: 4 kernel_size: 3 } }\n"
        'layers { name: "relu" type: RELU bottom: "conv" top: "conv" }\n'
        'layers { name: "ip" type: INNER_PRODUCT bottom: "conv" top: "ip" inner_product_param { num_output: 2 } }\n'
        'layers { name: "prob" type: SOFTMAX bottom: "ip" top: "prob" }\n'
    )
    assert types(tmp_path, text) == ["Convolution", "ReLU", "InnerProduct", "Softmax"]
    net, arrays = NetWeights(), {"conv": CONV_WEIGHTS["conv"], "ip": drawn((2, 48), (2,))}
    for name, values in arrays.items():
        held = net.layers.add(name=name)
        for value in values:  # always four extents
            four = (1,) * (4 - value.ndim) + value.shape
            blob = held.blobs.add(num=four[0], channels=four[1], height=four[2], width=four[3])
            blob.data.append(value.tobytes())
    source = load(tmp_path, text, net.SerializeToString())
    x = drawn((1, 3, 6, 5))[0]
    today = "".join(
        line.replace("layers", "layer").replace(old, new)
        for line, (old, new) in zip(
            text.splitlines(keepends=True)[1:],
            [
                ("CONVOLUTION", '"Convolution"'),
                ("RELU", '"ReLU"'),
                ("INNER_PRODUCT", '"InnerProduct"'),
                ("SOFTMAX", '"Softmax"'),
            ],
            strict=True,
        )
    )
    wanted = run(today, {"data": x}, arrays)["prob"]
    np.testing.assert_allclose(run_onnx(source.proto, {"data": x})["prob"], wanted, atol=1e-6)


# -- blobs -------------------------------------------------------------------------------------------------------------
def test_the_last_writer_in_place_has_the_blobs_name(tmp_path: Path) -> None:
    text = INPUT + CONV + layer("relu", "ReLU", "conv", "conv") + layer("drop", "Dropout", "conv", "conv")
    source = load(tmp_path, text + layer("up", "Power", "conv", "y", "power_param { scale: 2 }"), CONV_WEIGHTS)
    nodes = [(node.op_type, node.name, list(node.output)) for node in source.proto.graph.node]
    assert nodes == [("Conv", "conv", ["conv/Convolution"]), ("Relu", "relu", ["conv"]), ("Mul", "up", ["y"])]
    assert [port.name for port in source.outputs] == ["y"]
    assert {value.name for value in source.proto.graph.value_info} == {"conv/Convolution", "conv"}


def test_a_network_may_end_in_place(tmp_path: Path) -> None:
    source = load(tmp_path, INPUT + CONV + layer("relu", "ReLU", "conv", "conv"), CONV_WEIGHTS)
    assert [port.name for port in source.outputs] == ["conv"]
    graph = import_model(source)
    assert graph.outputs == ["conv"]


def test_in_place_on_the_input(tmp_path: Path) -> None:
    """The input keeps its name."""
    text = (
        INPUT + layer("half", "Power", "data", "data", "power_param { scale: 0.5 }") + layer("a", "ReLU", "data", "y")
    )
    source = load(tmp_path, text)
    x = drawn((1, 3, 6, 5))[0]
    np.testing.assert_array_equal(run_onnx(source.proto, {"data": x})["y"], np.maximum(x / 2, 0))


def test_a_blob_that_is_written_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who reads it before gets what was there before."""
    text = INPUT + layer("a", "ReLU", "data", "x") + layer("b", "TanH", "x", "y") + layer("c", "AbsVal", "data", "x")
    source = load(tmp_path, text + layer("d", "Sigmoid", "x", "z"))
    assert [port.name for port in source.outputs] == ["y", "z"]
    assert "AbsVal 'c': it writes 'x' anew" in caplog.text
    x = drawn((1, 3, 6, 5))[0]
    found = run_onnx(source.proto, {"data": x})
    np.testing.assert_allclose(found["y"], np.tanh(np.maximum(x, 0)), atol=1e-6)
    np.testing.assert_allclose(found["z"], 1 / (1 + np.exp(-np.abs(x))), atol=1e-6)


def test_names_of_any_characters(tmp_path: Path) -> None:
    names = ["a b", "größe/ä:1", "x.y[0]", "引"]
    text = INPUT + "".join(layer(new, "Sigmoid", old, new) for old, new in zip(["data", *names], names, strict=False))
    source = load(tmp_path, text + layer("\\303\\266", "TanH", names[-1], "out\\n"))
    assert [node.output[0] for node in source.proto.graph.node] == [*names, "out\n"]
    assert source.proto.graph.node[-1].name == "ö"


def test_copies_have_names_of_their_own(tmp_path: Path) -> None:
    text = INPUT + layer("s", "Split", "data", "a", 'top: "b"') + layer("d", "Dropout", "a", "c")
    source = load(tmp_path, text)
    assert [port.name for port in source.outputs] == ["b", "c"]
    assert import_model(source).outputs == ["b", "c"]


def test_outputs_are_in_the_order_of_the_layers(tmp_path: Path) -> None:
    text = INPUT + "".join(layer(name, "ReLU", "data", name) for name in ("z", "a", "m"))
    assert [port.name for port in load(tmp_path, text).outputs] == ["z", "a", "m"]


def test_inputs_that_nothing_reads_are_none(tmp_path: Path) -> None:
    label = 'layer { name: "l" type: "Input" top: "label" input_param { shape { dim: 1 } } }\n'
    source = load(tmp_path, INPUT + label + layer("a", "ReLU", "data", "y"))
    assert [port.name for port in source.inputs] == ["data"]


def test_softmax_with_loss_is_read_as_softmax(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = load(tmp_path, INPUT + layer("loss", "SoftmaxWithLoss", "data", "prob", 'bottom: "label"'))
    assert [node.op_type for node in source.proto.graph.node] == ["Softmax"]
    assert "SoftmaxWithLoss 'loss': it is read as Softmax" in caplog.text


# -- inputs and their batch --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        'input: "data" input_dim: 10 input_dim: 3 input_dim: 6 input_dim: 5\n',
        'input: "data"\ninput_shape { dim: 10 dim: 3 dim: 6 dim: 5 }\n',
        'input: "data" input_shape: { dim: [10, 3, 6, 5] }\n',
        'layer { name: "d" type: "Input" top: "data" input_param { shape: { dim: 10 dim: 3 dim: 6 dim: 5 } } }\n',
    ],
)
def test_the_batch_of_an_input_becomes_1(text: str, tmp_path: Path) -> None:
    text += layer("a", "ReLU", "data", "y")
    assert [(port.name, port.shape) for port in load(tmp_path, text).inputs] == [("data", (1, 3, 6, 5))]
    assert load(tmp_path, text, shapes=[(10, 3, 6, 5)]).inputs[0].shape == (10, 3, 6, 5)
    assert load(tmp_path, text, shapes=[(1, 3, 8, 7)]).outputs[0].shape == (1, 3, 8, 7)


def test_an_input_without_a_shape_gets_one(tmp_path: Path) -> None:
    text = 'layer { name: "d" type: "Input" top: "data" }\n' + layer("a", "ReLU", "data", "y")
    assert "the prototxt says no shape of input 'data' (give every input's shape with" in refusal(tmp_path, text)
    assert load(tmp_path, text, shapes=[(2, 7)]).outputs[0].shape == (2, 7)


def test_a_reshape_that_says_the_batch(tmp_path: Path) -> None:
    text = INPUT.replace("dim: 1", "dim: 5") + layer(
        "r", "Reshape", "data", "y", "reshape_param { shape { dim: 5 dim: -1 } }"
    )
    told = refusal(tmp_path, text)
    assert "Reshape 'r': its shape [5, -1] says the batch of 5, which is made 1 (write dim: 0 there" in told
    assert load(tmp_path, text, shapes=[(5, 3, 6, 5)]).outputs[0].shape == (5, 90)


# -- weights -----------------------------------------------------------------------------------------------------------
def test_every_fault_of_the_weights_in_one_go(tmp_path: Path) -> None:
    text = (
        INPUT
        + CONV
        + conv("second", "conv", 2)
        + layer("bn", "BatchNorm", "second", "bn")
        + conv("last", "bn", 2, "pad: 1 ")
    )
    weights = {"conv": drawn((4, 3, 3, 3), (5,)), "bn": drawn((2,), (2,)), "last": drawn((2, 2, 1, 3), (2,))}
    with pytest.raises(Problems) as told:
        load(tmp_path, text, weights)
    nodes = [(problem.node, problem.reason) for problem in told.value.problems]
    assert nodes == [
        ("Convolution 'conv'", "bias: the shape is [5] in the weight file, and should be [4]"),
        ("BatchNorm 'bn'", "in the weight file it has 2 blobs, and takes 3: mean, variance, factor"),
        ("Convolution 'last'", "weights: the shape is [2,2,1,3] in the weight file, and should be [2,2,3,3]"),
        ("Convolution 'second'", f"{tmp_path / 'net.caffemodel'} has no weights of it"),
    ]


def test_weights_of_another_network(tmp_path: Path) -> None:
    other = weight_file(conv("a", "x", 4), {"a": drawn((4, 3, 3, 3))})
    told = refusal(tmp_path, INPUT + CONV, other)
    assert "Convolution 'conv'" in told and "has weights of no layer of this network, but of 'a'" in told


def test_weights_under_other_names_go_by_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = INPUT + CONV + conv("second", "conv", 2)
    weights = {"conv": CONV_WEIGHTS["conv"], "second": drawn((2, 4, 3, 3), (2,))}
    named = weight_file(text.replace('"second"', '"b"'), {"conv": weights["conv"], "b": weights["second"]})
    x = {"data": drawn((1, 3, 6, 5))[0]}
    found = run_onnx(load(tmp_path, text, named).proto, x)["second"]
    assert "net.caffemodel has other names for 1 layer; they get its weights in order" in caplog.text
    np.testing.assert_array_equal(found, run_onnx(load(tmp_path, text, weights).proto, x)["second"])


def test_two_layers_of_one_name(tmp_path: Path) -> None:
    """Only those with weights need names of their own."""
    again = layer("conv", "ReLU", "conv", "y")
    assert len(load(tmp_path, INPUT + CONV + again, CONV_WEIGHTS).proto.graph.node) == 2
    twice = CONV + CONV.replace('bottom: "data" top: "conv"', 'bottom: "data" top: "y"')
    told = refusal(tmp_path, INPUT + twice, CONV_WEIGHTS)
    assert "Convolution 'conv': another layer that takes weights has the same name" in told


@pytest.mark.parametrize("how", ["legacy", "double", "loose", "chunks"])
def test_spellings_of_a_blob(how: str, tmp_path: Path) -> None:
    text = INPUT + layer("ip", "InnerProduct", "data", "y", "inner_product_param { num_output: 2 }")
    values = drawn((2, 90), (2,))
    net = NetWeights()
    held = net.layer.add(name="ip")
    loose = b""
    for value in values:
        if how == "loose":  # each value a field of its own
            shape = b"".join(_varint(extent) for extent in value.shape)
            blob = b"\x3a" + _varint(len(shape) + 2) + b"\x0a" + _varint(len(shape)) + shape
            blob += b"".join(b"\x2d" + struct.pack("<f", number) for number in value.ravel())
            loose += b"\x3a" + _varint(len(blob)) + blob
            continue
        blob = held.blobs.add()
        if how == "legacy":
            blob.num = blob.channels = 1
            blob.height, blob.width = (1,) * (2 - value.ndim) + value.shape
        else:
            blob.shape.dim.extend(value.shape)
        data = value.tobytes()
        if how == "double":
            blob.double_data.append(value.astype("<f8").tobytes())
        else:
            blob.data.extend([data[:4], data[4:]] if how == "chunks" else [data])
    content = net.SerializeToString()
    if loose:
        own = b"\x0a\x02ip" + loose
        content = b"\xa2\x06" + _varint(len(own)) + own
    source = load(tmp_path, text, content)
    found = {tensor.name: np.frombuffer(tensor.raw_data, np.float32) for tensor in source.proto.graph.initializer}
    np.testing.assert_array_equal(found["ip/weights"], values[0].ravel())
    np.testing.assert_array_equal(found["ip/bias"], values[1])


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)


def test_a_blob_that_lacks_values(tmp_path: Path) -> None:
    net = NetWeights()
    held = net.layer.add(name="conv")
    for shape in ((4, 3, 3, 3), (4,)):
        blob = held.blobs.add(data=[b"\0" * 8])
        blob.shape.dim.extend(shape)
    told = refusal(tmp_path, INPUT + CONV, net.SerializeToString())
    assert "its weights cannot be read: it holds 2 values for a shape of 4,3,3,3" in told


def test_a_variance_below_0(tmp_path: Path) -> None:
    weights = {"bn": [np.zeros(3, np.float32), np.float32([1, -1, 1]), np.ones(1, np.float32)]}
    told = refusal(tmp_path, INPUT + layer("bn", "BatchNorm", "data", "y"), weights)
    assert "BatchNorm 'bn': its variance has values below 0" in told


def test_shapes_that_the_weights_do_not_fit(tmp_path: Path) -> None:
    """Asked for in NHWC, they look like weights of another network."""
    with pytest.raises(UserError, match=r"caffemodel of this network, and can it have these --input_shapes, in NCHW\?"):
        load(tmp_path, INPUT + CONV, CONV_WEIGHTS, [(1, 6, 5, 3)])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x89HDF\r\n\x1a\n", "is in HDF5"),
        (b"\xff" * 9, "is not a caffemodel, or is truncated"),
        (b"layer { }", "is not a caffemodel, but text (give the binary file"),
        (b"\x0a\x01a", "it holds no layers"),
    ],
)
def test_files_that_are_no_weights(content: bytes, reason: str, tmp_path: Path) -> None:
    assert reason in refusal(tmp_path, INPUT + CONV, content)


# -- the text ----------------------------------------------------------------------------------------------------------
def test_the_text_form(tmp_path: Path) -> None:
    """Comments, separators, quotes, joined texts, other brackets, lists, numbers of every base."""
    text = """
    # a comment { "
    name: 'it' ' is'; input: "da" 'ta', input_shape < dim: 0x1 dim: 03 dim: [6, 5] >
    layer { name: "a" type: "LRN" bottom: ["data"] top: "y"
            lrn_param { alpha: 1e-2f, beta: .5; local_size: 3 engine: CAFFE } }
    """
    source = load(tmp_path, text)
    assert source.proto.graph.name == "it is" and source.inputs[0].shape == (1, 3, 6, 5)
    attrs = {a.name: helper.get_attribute_value(a) for a in source.proto.graph.node[0].attribute}
    assert attrs == pytest.approx({"alpha": 0.01, "beta": 0.5, "size": 3, "bias": 1.0})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("layer {\n name: 'a'\n", "line 1: what is opened here is never closed"),
        ("name: 'a'\nlayer }\n", "line 2: { should follow layer, not '}'"),
        ("layer { name 'a' }", "line 1: a ':' should follow name"),
        ("\n\nlayer { name: } }", "line 3: a value of name should stand where '}' is"),
        ("name: 'a\n'", "line 1: \"'a"),
        ("input_dim: [1, 2", "line 1: a value of input_dim should stand where the end of the file is"),
        ("name: 'a' name: 'b'", "line 1: name is given twice"),
        ("input_dim: 1.5", "input_dim: 1.5 is not a whole number"),
        ("input_dim: 4294967296", "input_dim: 4294967296 is not within"),
        ("state { phase: test }", "phase: there is no test; there are TRAIN, TEST"),
        ("debug_info: maybe", "maybe is neither true nor false"),
        ("name: '\\377'", "name: "),
        ("name: 'a'", "holds no layers"),
        (" ", "is empty"),
        ('net: "train_val.prototxt"\nbase_lr: 0.1', "give the prototxt of the network, not that of its solver"),
        (INPUT, "holds no layers"),
        (layer("a", "ReLU", "data", "y"), "has no input"),
        (INPUT + layer("a", "", "data", "y"), "layer 'a' says no type"),
        (INPUT + layer("a", "ReLU", "data", ""), "ReLU 'a': a blob of it has no name"),
        (INPUT + layer("a", "ReLU", "dota", "y"), "ReLU 'a': it reads 'dota', which no layer before it gives"),
        (INPUT + INPUT + layer("a", "ReLU", "data", "y"), "two inputs are named 'data'"),
        (INPUT.replace("6", "0") + layer("a", "ReLU", "data", "y"), "input 'data' has the shape [1,3,0,5]"),
        (INPUT.replace("6", "2000000000") + layer("a", "ReLU", "data", "y"), "input 'data' has the shape"),
        ('input: "data" input_dim: 1 input_dim: 3\n' + layer("a", "ReLU", "data", "y"), "2 values of input_dim"),
        (INPUT + layer("a", "Silence", "data", "y"), "Silence 'a': its top 'y' is not supported"),
        (INPUT + 'layer { name: "a" type: "Silence" bottom: "data" }', "the network has no output"),
        (INPUT + layer("a", "ReLU", "data", "y", "include { } exclude { }"), "both include and exclude rules"),
        (INPUT + 'layer { name: "a" type: "SoftmaxWithLoss" top: "y" }', "SoftmaxWithLoss 'a': it has no bottom"),
        (INPUT + layer("a", "Data", "data", "y"), "layer type Data reads its data itself (give the deploy prototxt"),
        (INPUT + layer("a", "Accuracy", "data", "y"), "layer type Accuracy is for training"),
    ],
)
def test_what_is_wrong_with_a_prototxt(text: str, reason: str, tmp_path: Path) -> None:
    assert reason in refusal(tmp_path, text)


def test_every_unknown_type_at_once(tmp_path: Path) -> None:
    text = INPUT + "".join(layer(n, kind, "data", n) for n, kind in (("a", "Frob"), ("b", "Conv"), ("c", "ReLU")))
    with pytest.raises(Problems) as told:
        load(tmp_path, text + layer("d", "Twist", "a", "d"))
    assert [problem.node for problem in told.value.problems] == ["Frob 'a'", "Conv 'b'", "Twist 'd'"]


def test_fields_of_forks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Refused where they may say what a layer computes, told where they stand in a message that nobody reads."""
    text = INPUT + "fork: 1\n" + layer("a", "ReLU", "data", "a", "fork_param { a { b: [1, 2] } c: 'd' 'e' }")
    assert len(load(tmp_path, text).proto.graph.node) == 1
    assert "the field fork is unknown and not read (line 2)" in caplog.text
    assert "the field fork_param of layers of type ReLU is unknown and not read (line 3)" in caplog.text
    told = refusal(tmp_path, INPUT + conv("conv", "data", 4, "twist: 2 twirl: 3 "), CONV_WEIGHTS)
    assert "Convolution 'conv': line 2: twist is not a field that Convolution is known to have" in told
    assert "twirl" in told


@pytest.mark.parametrize(
    "parameters",
    [
        "num_output: 4294967295 kernel_size: 3",
        "num_output: 4 kernel_size: 4294967295",
        "num_output: 4 kernel_size: 3 pad: 1000000000",
        "num_output: 0 kernel_size: 3",
        "num_output: 4 kernel_size: 0",
        "num_output: 4 kernel_size: 3 stride: 0",
        "num_output: 4 kernel_size: 3 group: 0",
        "num_output: 4 kernel_size: 7",
        "num_output: 4",
    ],
)
def test_absurd_extents_are_refused(parameters: str, tmp_path: Path) -> None:
    text = INPUT + layer("conv", "Convolution", "data", "y", f"convolution_param {{ {parameters} }}")
    assert "Convolution 'conv'" in refusal(tmp_path, text, CONV_WEIGHTS)


@pytest.mark.parametrize("kind", list(CAFFE))
def test_layers_take_any_input_or_refuse_it(kind: str, tmp_path: Path) -> None:
    """Whatever its rank and however many, with no parameters said."""
    for rank in range(1, 6):
        dims = " ".join(f"dim: {extent}" for extent in range(2, 2 + rank))
        for count in range(5):
            bottoms = 'bottom: "data" ' * count
            text = f'input: "data" input_shape {{ {dims} }} layer {{ name: "a" type: "{kind}" {bottoms} top: "y" }}'
            try:
                assert load(tmp_path, text, shapes=[tuple(range(2, 2 + rank))]).proto.graph.node
            except UserError as error:
                assert f"{kind} 'a'" in str(error)


# -- as a user sees it -------------------------------------------------------------------------------------------------
def test_errors_of_the_importer_name_the_layer(tmp_path: Path) -> None:
    text = 'input: "data" input_shape { dim: 1 dim: 3 dim: 4 dim: 5 dim: 6 dim: 7 }\n' + conv("deep", "data", 2)
    with pytest.raises(UserError, match="Convolution 'deep': convolution of a tensor of rank 6"):
        import_model(load(tmp_path, text, {"deep": drawn((2, 3, 3, 3, 3, 3), (2,))}))
    node = helper.make_node("Gemm", ["a"], ["b"], name="ip/Gemm")
    assert label_of(node) == "Gemm 'ip/Gemm'"
    node.metadata_props.add(key=SOURCE_LABEL, value="InnerProduct 'ip'")
    assert label_of(node) == "InnerProduct 'ip'"


def test_an_ini_names_any_blob(tmp_path: Path) -> None:
    """One that other layers read, beside the last one before a layer that has no meaning here."""
    text = INPUT + layer("a", "ReLU", "data", "a") + layer("b", "TanH", "a", "b") + layer("c", "Python", "b", "c")
    files = write(tmp_path, text, {})
    source = load_caffe(*files, Asked(outputs=("b", "a")))
    assert [port.name for port in source.outputs] == import_model(source).outputs == ["b", "a"]
    x = drawn((1, 3, 6, 5))[0]
    found = run_onnx(source.proto, {"data": x})
    np.testing.assert_array_equal(found["a"], np.maximum(x, 0))
    np.testing.assert_allclose(found["b"], np.tanh(found["a"]), atol=1e-6)
    with pytest.raises(UserError, match="Python 'c'"):
        load_caffe(*files, Asked(outputs=("b", "nowhere")))


def test_files_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "größe 1"
    folder.mkdir()
    model, weights = write(folder, INPUT + CONV, CONV_WEIGHTS)
    ini = folder / "input_config.ini"
    ini.write_text(
        "[INPUT_CONFIG]\ninputs=data;\ntraining_input_formats=RGB;\ninput_formats=RGB;\nquantizations=TRUE;\n"
        "mean=0;\nstd_value=1;\n[OUTPUT_CONFIG]\noutputs=conv;\ndequantizations=TRUE;\n",
        encoding="utf-8",
    )
    rest = [f"--input_config={ini}", f"--output_file={folder}", "--soc_version=pcupid"]
    assert convert_tool.main(["caffe", f"--model_file={model}", f"--weight_file={weights}", *rest]) == 0
    assert (folder / "Converted_Net_float.sim").is_file()
    assert convert_tool.main(["caffe", f"--model_file={weights}", f"--weight_file={model}", *rest]) == 2
    told = capsys.readouterr().err
    assert "net.caffemodel: is not text" in told and "net.prototxt: is not a caffemodel, but text" in told
    assert convert_tool.main(["caffe", f"--model_file={model}", *rest]) == 2


def test_the_documentation_lists_every_layer_type() -> None:
    told = (ROOT / "docs/FRONTENDS.md").read_text("utf-8")
    assert [kind for kind in CAFFE if f"`{kind}`" not in told] == []
