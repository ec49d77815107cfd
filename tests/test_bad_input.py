"""Whatever a user may do wrong: exit code 2, one `error:` that says what and where, no output file, no traceback.

A case is a row: the program, a function that prepares files in the current folder and returns the arguments, and words
that the message must hold. Every case gets valid arguments for everything but the one fault.
"""

from __future__ import annotations

import fractions
import json
import os
import pickle
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sgs.cli import (
    calibrator_tool,
    compiler_tool,
    convert_tool,
    quant_param_tool,
    sgs_converter,
    show_sdk_info,
    simulator_tool,
)
from sgs.errors import Problems, UserError
from shipped import CHIP, INI, MODEL, SCRIPT, TEST, converted

Main = Callable[[Sequence[str]], int]
Arguments = dict[str, str]
PICTURE = TEST / "digit_000.png"


# -- valid arguments of every program ----------------------------------------------------------------------------------
def convert(**changes: object) -> Arguments:
    return _with(
        {"model_file": MODEL, "input_config": INI, "output_file": "out_float.sim", "soc_version": CHIP}, changes
    )


def calibrate(**changes: object) -> Arguments:
    model = converted() / "digits_float.sim"
    options = {"model": model, "input_config": INI, "image": PICTURE, "preprocess": SCRIPT, "soc_version": CHIP}
    return _with({**options, "quant_level": "L1", "output": "out_fixed.sim"}, changes)


def planned(**changes: object) -> Arguments:
    """The calibrator following a plan."""
    unmeasured = {"image": None, "preprocess": None, "quant_level": None}
    return calibrate(**{**unmeasured, **changes})


def saving(**changes: object) -> Arguments:
    return _with({"model": converted() / "digits_fixed.sim", "output": "out.json"}, changes)


def compiling(**changes: object) -> Arguments:
    return _with({"model": converted() / "digits_fixed.sim", "soc_version": CHIP, "output": "out.img"}, changes)


def one_shot(**changes: object) -> Arguments:
    return _with(
        {**convert(), "output_file": "out.img", "image": PICTURE, "preprocess": SCRIPT, "quant_level": "L1"}, changes
    )


def simulate(**changes: object) -> Arguments:
    return _with({"model": converted() / "digits_fixed.sim", "image": PICTURE, "preprocess": SCRIPT}, changes)


def _with(options: dict[str, object], changes: dict[str, object]) -> Arguments:
    """Options with some replaced; None takes one away."""
    return {name: str(value) for name, value in {**options, **changes}.items() if value is not None}


# -- files with a fault, in the current folder -------------------------------------------------------------------------
def text(name: str, content: str) -> str:
    Path(name).write_text(content, encoding="utf-8")
    return name


def cut(path: Path, name: str, part: float) -> str:
    """The first part of a file; 0 is an empty one."""
    data = path.read_bytes()
    Path(name).write_bytes(data[: int(len(data) * part)])
    return name


def damaged(path: Path, name: str) -> str:
    """A file with a few bytes turned over in the middle."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(255 - value for value in data[middle : middle + 64])
    Path(name).write_bytes(data)
    return name


def ini(old: str, new: str) -> str:
    """The model's ini with one text replaced."""
    content = INI.read_text(encoding="utf-8")
    assert old in content
    return text("changed.ini", content.replace(old, new))


RETURNED = "def postprocess(network):\n    y = network.sigmoid(network.output())\n    return [y]\n"


def behind(content: str = "", *, script: str = "", ini: str = "", outputs: str = "boxes", std: str = "") -> Arguments:
    """A conversion with a post-processing script, and an ini that has other outputs, perhaps another std."""
    whole = re.sub("(?m)^outputs=.*", f"outputs={outputs};", INI.read_text("utf-8"))
    if std:
        whole = re.sub("(?m)^std_value=.*", f"std_value={std};", whole)
    return convert(
        postprocess=script or text("post.py", content),
        postprocess_input_config=ini or text("whole.ini", whole),
    )


def network(nodes: list[onnx.NodeProto], shape: Sequence[int | str] = (1, 3, 64, 64)) -> str:
    """An ONNX file from "images" to "logits"."""
    ends = [helper.make_tensor_value_info("images", TensorProto.FLOAT, list(shape))]
    logits = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["a", "b"])]
    graph = helper.make_graph(nodes, "net", ends, logits)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "net.onnx")
    return "net.onnx"


def unsupported() -> str:
    """Two operators that no importer row takes, one behind the other."""
    first = helper.make_node("Bernoulli", ["images"], ["a"], name="throw")
    second = helper.make_node("Relu", ["a"], ["b"], name="fine")
    third = helper.make_node("Det", ["b"], ["logits"], name="determine")
    return network([first, second, third])


def dynamic() -> str:
    return network([helper.make_node("Relu", ["images"], ["logits"])], ("N", 3, "H", 64))


def chain(change: Callable[[onnx.ModelProto], None]) -> str:
    """Three operators in a row and a constant, with one thing wrong."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 3, 1, 1], [1.0, 2.0, 3.0])
    nodes = [
        helper.make_node("Mul", ["images", "w"], ["a"], name="scale"),
        helper.make_node("Relu", ["a"], ["b"], name="fine"),
        helper.make_node("Sigmoid", ["b"], ["logits"], name="turn"),
    ]
    model = onnx.load_model(network(nodes))
    model.graph.initializer.append(weight)
    change(model)
    Path("net.onnx").write_bytes(model.SerializeToString())
    return "net.onnx"


def rewired(node: int, **names: str) -> Callable[[onnx.ModelProto], None]:
    """A change: another first operand or result of a node."""

    def change(model: onnx.ModelProto) -> None:
        for side, name in names.items():
            getattr(model.graph.node[node], side)[0] = name

    return change


def with_weight(**fields: object) -> Callable[[onnx.ModelProto], None]:
    """A change: another shape, type or value of the constant."""

    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        for name, value in fields.items():
            if name == "dims":
                del tensor.dims[:]
                tensor.dims.extend(value)  # type: ignore[arg-type]
            else:
                setattr(tensor, name, value)

    return change


def outside(location: str) -> Callable[[onnx.ModelProto], None]:
    """A change: the constant lies in another file."""

    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return change


def grown() -> str:
    """A constant of 2⁵⁰ elements, and an activation of as many."""
    constants = {"s": [1, 1 << 20, 1 << 20, 1 << 10], "p": [0, 0, 1 << 20, 1 << 20, 0, 0, 0, 0]}
    values = [helper.make_tensor(name, TensorProto.INT64, [len(v)], v) for name, v in constants.items()]
    nodes = [helper.make_node("Constant", [], [value.name], value=value) for value in values]
    nodes += [helper.make_node("ConstantOfShape", ["s"], ["big"]), helper.make_node("Pad", ["images", "p"], ["wide"])]
    return network([*nodes, helper.make_node("Add", ["big", "wide"], ["logits"])])


def script(body: str) -> str:
    """A preprocess script."""
    return text("pre.py", f"import numpy as np\n\ndef image_preprocess(path, norm=True):\n    {body}\n")


def returning(expression: str) -> str:
    return script(f"return {expression}")


def entries(*changes: dict[str, object]) -> str:
    """A file of quantisation parameters, each for the output with something changed."""
    whole = {"name": "logits", "min": [-1.0], "max": [2.0], "bit": 16}
    return text("q.json", json.dumps([{**whole, **change} for change in changes]))


def pickled(value: object, part: float = 1.0) -> str:
    """The first part of a pickle."""
    data = pickle.dumps(value)
    Path("q.pkl").write_bytes(data[: int(len(data) * part)])
    return "q.pkl"


def not_a_picture() -> str:
    return text("broken.png", "this is no picture")


def folder(name: str) -> str:
    Path(name).mkdir()
    return name


@dataclass(frozen=True)
class Case:
    """`make` prepares the files and returns the arguments; `words` must all be in the message."""

    program: Main
    make: Callable[[], Arguments]
    words: tuple[str, ...]


def case(name: str, program: Main, make: Callable[[], Arguments], *words: str) -> object:
    return pytest.param(Case(program, make, words), id=name.replace(" ", "-"))


C, K, B, S, R = convert_tool.main, calibrator_tool.main, compiler_tool.main, simulator_tool.main, sgs_converter.main
Q = quant_param_tool.main
FLOAT, FIXED, IMAGE = "digits_float.sim", "digits_fixed.sim", "digits.img"
F32 = "np.zeros((1, 64, 64, 3), np.float32)"

CASES = [
    # source models
    case("missing model", C, lambda: convert(model_file="no.onnx"), "no.onnx: no such file"),
    case("empty model", C, lambda: convert(model_file=text("e.onnx", "")), "e.onnx: is empty"),
    case(
        "corrupt model", C, lambda: convert(model_file=text("c.onnx", "garbage " * 99)), "c.onnx", "not an ONNX model"
    ),
    case("truncated model", C, lambda: convert(model_file=cut(MODEL, "t.onnx", 0.6)), "t.onnx", "truncated"),
    case("wrong extension", C, lambda: convert(model_file=text("m.pth", "x")), "m.pth", "'.pth'", ".onnx"),
    case("folder as model", C, lambda: convert(model_file=folder("m.onnx")), "m.onnx: is a folder"),
    case("float sim as source", C, lambda: convert(model_file=converted() / FLOAT), "digits_float.sim", ".onnx"),
    case(
        "unsupported operators", C, lambda: convert(model_file=unsupported()), "Bernoulli", "throw", "Det", "determine"
    ),
    case("dynamic shape", C, lambda: convert(model_file=dynamic()), "images", "N,3,H,64", "--input_shapes"),
    case("shapes of other rank", C, lambda: convert(model_file=dynamic(), input_shapes="1,3,64"), "1,3,64", "N,3,H,64"),
    case("too many shapes", C, lambda: convert(input_shapes="1,3,64,64:1,10"), "2 input shapes for 1 input"),
    case("shapes that are none", C, lambda: convert(input_shapes="1,3,big"), "--input_shapes", "1,3,big"),
    case("other input arrays", C, lambda: convert(input_arrays="data"), "--input_arrays names data", "images"),
    case("cyclic graph", C, lambda: convert(model_file=chain(rewired(0, input="b"))), "Mul 'scale'", "'b'", "a cycle"),
    case("value defined twice", C, lambda: convert(model_file=chain(rewired(1, output="a"))), "'a' is defined 2 times"),
    case("constant defined twice", C, lambda: convert(model_file=chain(rewired(1, output="w"))), "an initializer"),
    case("constant of other size", C, lambda: convert(model_file=chain(with_weight(dims=[1, 4]))), "'w' is damaged"),
    case(
        "constant of absurd size", C, lambda: convert(model_file=chain(with_weight(dims=[1 << 50]))), "'w' is damaged"
    ),
    case("constant of negative size", C, lambda: convert(model_file=chain(with_weight(dims=[-1]))), "'w' is damaged"),
    case("constant of no type", C, lambda: convert(model_file=chain(with_weight(data_type=77))), "'w' is damaged"),
    case("missing external data", C, lambda: convert(model_file=chain(outside("w.bin"))), "initializer 'w'", "w.bin"),
    case(
        "external data elsewhere", C, lambda: convert(model_file=chain(outside("../w"))), "'w'", "outside the model's"
    ),
    case(
        "shapes without end", C, lambda: convert(model_file=grown(), skip_simplify=""), "Constant", "Pad", "too large"
    ),
    case(
        "absurd input shape", C, lambda: convert(model_file=dynamic(), input_shapes="1,3,99999,64999"), "is too large"
    ),
    case("empty graph", C, lambda: convert(model_file=network([])), "output 'logits' is computed by no node"),
    case("nothing but a header", C, lambda: convert(model_file=text("h.onnx", "\x08\x08")), "h.onnx", "no graph"),
    case(
        "what the checker finds",
        C,
        lambda: {**convert(model_file=chain(rewired(1, input="x"))), "checker": ""},
        "onnx.checker",
        "x",
    ),
    case("cut at no tensor", C, lambda: convert(outputs="logit"), "--outputs names logit", "names logits"),
    case("cut beside the ini", C, lambda: convert(inputs="image[1,3,64,64]"), "--inputs names image,", "names images"),
    case("unknown symbol", C, lambda: convert(model_file=dynamic(), free_dim_param="X:1"), "'X'", "there are: H, N"),
    case("extent that is none", C, lambda: convert(free_dim_param="N:x"), "--free_dim_param", "'N:x'"),
    case("layout of nothing", C, lambda: convert(source_layouts="image:NCHW"), "'image'", "did you mean images?"),
    case("layout that is none", C, lambda: convert(source_layouts="images:CHWN"), "images:CHWN"),
    case("both and neither", C, lambda: {**convert(skip_simplify=""), "onnxsim": ""}, "not allowed with"),
    # input_config.ini
    case("missing ini", C, lambda: convert(input_config="no.ini"), "no.ini"),
    case("empty ini", C, lambda: convert(input_config=text("e.ini", "")), "e.ini", "inputs", "is missing"),
    case("binary ini", C, lambda: convert(input_config=cut(MODEL, "b.ini", 1)), "b.ini"),
    case(
        "unknown key",
        C,
        lambda: convert(input_config=ini("std_value", "std_vlaue")),
        "std_vlaue",
        "line 7",
        "std_value?",
    ),
    case("unknown section", C, lambda: convert(input_config=ini("[OUTPUT_CONFIG]", "[OUTPUTS]")), "OUTPUTS", "unknown"),
    case(
        "wrong count", C, lambda: convert(input_config=ini("formats=RGB;\nq", "formats=RGB,BGR;\nq")), "2 given for 1"
    ),
    case(
        "mean of other count", C, lambda: convert(input_config=ini("127.5:127.5:", "127.5:")), "mean", "2 values", "3"
    ),
    case("unknown format", C, lambda: convert(input_config=ini("formats=RGB;\nq", "formats=RBG;\nq")), "RBG", "RGB"),
    case(
        "alignment within a pixel pair",
        *(C, lambda: convert(input_config=ini("formats=RGB;\nq", "formats=YUV_NV12;\ninput_width_alignment=15;\nq"))),
        "YUV_NV12 needs a multiple of 2",
    ),
    case("input not in model", C, lambda: convert(input_config=ini("images", "image")), "'image'", "images"),
    case("output not in model", C, lambda: convert(input_config=ini("logits", "prob")), "'prob'", "logits"),
    case("channels not of format", C, lambda: convert(input_config=ini("RGB", "GRAY")), "mean"),
    case("name not in sim", K, lambda: calibrate(input_config=ini("logits", "prob")), "'prob'", "logits"),
    case(
        "mean is not the script's", K, lambda: calibrate(input_config=ini("mean=127.5", "mean=0")), "mean", "channel R"
    ),
    case(
        "no such convolution",
        K,
        lambda: calibrate(input_config=ini("[OUT", "[CONV_CONFIG]\ntensor_arrays=x\n[OUT")),
        "'x'",
    ),
    # preprocess scripts
    case("missing script", K, lambda: calibrate(preprocess="no.py"), "no.py", "no such"),
    case(
        "script with a fault",
        K,
        lambda: calibrate(preprocess=text("s.py", "def f(:\n")),
        "s.py",
        "line 1",
        "SyntaxError",
    ),
    case("script without function", K, lambda: calibrate(preprocess=text("s.py", "x = 1\n")), "image_preprocess"),
    case("script needs a package", K, lambda: calibrate(preprocess=text("s.py", "import nopackage\n")), "nopackage"),
    case(
        "script raises", K, lambda: calibrate(preprocess=script("raise KeyError('oh')")), "pre.py", "line 4", "KeyError"
    ),
    case("script returns None", K, lambda: calibrate(preprocess=returning("None")), "None", "numpy.ndarray"),
    case(
        "script other shape", K, lambda: calibrate(preprocess=returning("np.zeros((1, 32, 32, 3))")), "32, 32", "64, 64"
    ),
    case("script turned shape", K, lambda: calibrate(preprocess=returning("np.zeros((1, 3, 64, 64))")), "NCHW", "NHWC"),
    case(
        "script other type", K, lambda: calibrate(preprocess=returning("np.array(['a'])")), "pre.py", "not of numbers"
    ),
    case("script not finite", K, lambda: calibrate(preprocess=returning(f"{F32} + np.nan")), "finite"),
    case("script always normalises", K, lambda: calibrate(preprocess=returning(f"{F32} + 0.5")), "norm=False", "0.5"),
    case("too many scripts", K, lambda: calibrate(preprocess=f"{SCRIPT},{SCRIPT}"), "2 scripts", "1 input"),
    case("script in simulator", S, lambda: simulate(preprocess=script("raise ValueError('oh')")), "ValueError: oh"),
    # pictures
    case("missing picture", K, lambda: calibrate(image="no.png"), "no.png"),
    case("unreadable picture", K, lambda: calibrate(image=not_a_picture()), "broken.png", "decoded"),
    case("unreadable picture to run", S, lambda: simulate(image=not_a_picture()), "broken.png", "decoded"),
    case("empty folder", K, lambda: calibrate(image=folder("none")), "none", "no pictures"),
    case("list of missing files", K, lambda: calibrate(image=text("l.txt", "a.png\n")), "l.txt", "line 1", "a.png"),
    case("list with columns", K, lambda: calibrate(image=text("l.txt", f"{PICTURE},{PICTURE}\n")), "line 1", "2 paths"),
    case("empty list", K, lambda: calibrate(image=text("l.txt", "\n")), "l.txt", "names no files"),
    # quantisation parameters
    case("missing quant file", K, lambda: calibrate(quant_file="no.json"), "no.json", "No such file"),
    case("folder as quant file", K, lambda: calibrate(quant_file=folder("q.json")), "q.json", "Is a directory"),
    case("empty quant file", C, lambda: convert(quant_file=text("q.json", " \n")), "q.json", "is empty"),
    case("quant file cut off", K, lambda: calibrate(quant_file=text("q.json", "[{")), "q.json", "no JSON", "line 1"),
    case("quant file of text", R, lambda: one_shot(quant_file=cut(INI, "q.json", 1)), "q.json", "no JSON"),
    case("quant file without a list", K, lambda: calibrate(quant_file=text("q.json", "{}")), "not a list"),
    case("pickle of a class", K, lambda: calibrate(quant_file=pickled(fractions.Fraction(1, 3))), "fractions.Fraction"),
    case("pickle cut off", K, lambda: calibrate(quant_file=pickled([{"name": "a"}], 0.6)), "q.pkl", "no Pickle"),
    case(
        "faults of a quant file",
        K,
        lambda: calibrate(quant_file=entries({"bit": 5}, {"min": [3.0]}, {"mni": [0]}, {"name": 7})),
        *("4 problems", "bit 5 is not", "min 3 is above max 2", "did you mean min?", "the name 7"),
    ),
    case(
        "parameters of another network",
        C,
        lambda: convert(quant_file=entries({"name": "logit"}, {"min": [0.0] * 3, "max": [1.0] * 3}, {"bit": 4})),
        *("3 problems", "  - 'logit'", "did you mean logits?", "3 values; expected 1 value or 10", "bit 4 is for"),
    ),
    case("plan with samples", K, lambda: calibrate(plan="p.json"), "--plan", "--image, --preprocess, --quant_level"),
    case("neither plan nor samples", K, planned, "-i/--image, -n/--preprocess", "--plan"),
    case("missing plan", K, lambda: planned(plan="no.json"), "no.json", "No such file"),
    case("corrupt plan", K, lambda: planned(plan=text("p.json", "{,}")), "p.json", "not a plan"),
    case(
        "plan of another network",
        K,
        lambda: planned(plan=text("p.json", json.dumps({"ranges": {"logit": {"low": 0, "high": 1}}, "macs": {}}))),
        *("did you mean logits?", "'logits' is missing"),
    ),
    case("parameters of a float sim", Q, lambda: saving(model=converted() / FLOAT), "is a float .sim"),
    case("parameters into no folder", Q, lambda: saving(output="no/q.json"), "does not exist"),
    # chips
    case("unknown chip for convert", C, lambda: convert(soc_version="puding"), "unknown chip 'puding'", "pudding"),
    case("unknown chip for calibrate", K, lambda: calibrate(soc_version="x"), "unknown chip 'x'", CHIP),
    case("unknown chip for compile", B, lambda: compiling(soc_version="x"), "unknown chip 'x'", CHIP),
    case("unknown chip for one shot", R, lambda: one_shot(soc_version="x"), "unknown chip 'x'", CHIP),
    case("unknown chip to simulate", S, lambda: simulate(soc_version="x"), "unknown chip 'x'", CHIP),
    case("unknown chip to show", show_sdk_info.main, lambda: {"soc_version": "x"}, "unknown chip 'x'", CHIP),
    case("image of another chip", S, lambda: simulate(model=converted() / IMAGE, soc_version="muffin"), CHIP, "muffin"),
    # stages
    case("float sim to compiler", B, lambda: compiling(model=converted() / FLOAT), "is a float .sim", "calibrator.py"),
    case("image to compiler", B, lambda: compiling(model=converted() / IMAGE), "offline .img"),
    case(
        "fixed sim to calibrator", K, lambda: calibrate(model=converted() / FIXED), "is a fixed .sim", "ConvertTool.py"
    ),
    case("debug sim to calibrator", K, lambda: calibrate(model=converted() / f"Debug_{FLOAT}"), "is a debug .sim"),
    case("image to calibrator", K, lambda: calibrate(model=converted() / IMAGE), "offline .img"),
    case("onnx to calibrator", K, lambda: calibrate(model=MODEL), "not a .sim"),
    case("onnx to simulator", S, lambda: simulate(model=MODEL), "not a .sim"),
    case("another kind than said", S, lambda: simulate(type="Float"), "-t says Float", "Fixed"),
    # damaged files of our own
    case("missing sim", K, lambda: calibrate(model="no_float.sim"), "no_float.sim", "No such file"),
    case("missing sim to simulate", S, lambda: simulate(model="no.sim"), "no.sim", "No such file"),
    case("empty sim", K, lambda: calibrate(model=text("e.sim", "")), "e.sim", "empty"),
    case("garbage sim", K, lambda: calibrate(model=text("g.sim", "x" * 999)), "g.sim", "not a .sim"),
    case("truncated sim", K, lambda: calibrate(model=cut(converted() / FLOAT, "t.sim", 0.7)), "t.sim"),
    case("truncated fixed sim", B, lambda: compiling(model=cut(converted() / FIXED, "t.sim", 0.3)), "t.sim"),
    case("truncated fixed sim to run", S, lambda: simulate(model=cut(converted() / FIXED, "t.sim", 0.5)), "t.sim"),
    case("empty image", S, lambda: simulate(model=text("e.img", "")), "e.img", "empty"),
    case("truncated image", S, lambda: simulate(model=cut(converted() / IMAGE, "t.img", 0.9)), "t.img", "bytes"),
    case("head of an image", S, lambda: simulate(model=cut(converted() / IMAGE, "t.img", 0.00005)), "t.img", "header"),
    case("damaged image", S, lambda: simulate(model=damaged(converted() / IMAGE, "d.img")), "d.img", "checksum"),
    # outputs
    case("output in no folder", C, lambda: convert(output_file="no/x_float.sim"), "no", "does not exist"),
    case("output of other kind", C, lambda: convert(output_file="x.img"), "x.img", ".sim"),
    case("fixed output in no folder", K, lambda: calibrate(output="no/x.sim"), "does not exist"),
    case("image output of other kind", B, lambda: compiling(output="x.bin"), "x.bin", ".img"),
    case("one shot into a folder", R, lambda: one_shot(output_file=folder("here")), "here", "folder"),
    case("results in no folder", S, lambda: simulate(output="no"), "no", "folder"),
    case(
        "output is the input",
        K,
        lambda: calibrate(model=cut(converted() / FLOAT, "s.sim", 1), output="s.sim"),
        "s.sim",
        "input",
    ),
    # options
    case("missing option", C, lambda: convert(input_config=None), "--input_config"),
    case("mistyped option", C, lambda: {**convert(), "input_conifg": "x"}, "--input_conifg", "--input_config?"),
    # post-processing
    case("postprocess without ini", C, lambda: convert(postprocess="yolox"), "--postprocess_input_config", "needs"),
    case("postprocess ini alone", R, lambda: one_shot(postprocess_input_config=INI), "needs --postprocess ("),
    case("missing postprocess script", C, lambda: behind(script="no.py"), "no.py", "no such post-processing script"),
    case("mistyped builder", C, lambda: behind(script="yolov4"), "yolov4", "did you mean yolo"),
    case("missing postprocess ini", C, lambda: behind(RETURNED, ini="no.ini"), "no.ini", "No such file"),
    case(
        "postprocess script with a fault", C, lambda: behind("def postprocess(x):\n    1 +\n"), "line 2", "SyntaxError"
    ),
    case(
        "postprocess without function",
        C,
        lambda: behind("def post(network): pass\n"),
        "define def postprocess(network)",
    ),
    case(
        "postprocess that raises",
        C,
        lambda: behind("def postprocess(network):\n    return network.output('nothing')\n"),
        "post.py: line 2",
        "an output 'nothing'; the network has logits",
    ),
    case("postprocess of other heads", C, lambda: behind(script="yolov3"), "yolov3.py", "needed are heads", "logits"),
    case("postprocess into nothing", C, lambda: behind("def postprocess(network): pass\n"), "returned None", "tensors"),
    case(
        "postprocess into arrays",
        C,
        lambda: behind("def postprocess(network):\n    return [1.0, *network.outputs.values()]\n"),
        "returned list of float, Tensor",
    ),
    case(
        "postprocess that does not fit its ini",
        C,
        lambda: behind(RETURNED.replace("[y]", "[y, y]")),
        "names 1 output, post.py returns 2",
        "is returned twice",
    ),
    case(
        "postprocess name that is taken",
        C,
        lambda: behind(RETURNED, outputs="logits"),
        "other tensors of the network: logits",
    ),
    case(
        "inis that disagree",
        R,
        lambda: one_shot(**{k: v for k, v in behind(RETURNED, std="1").items() if k.startswith("post")}),
        "std_value",
        "what that of the backbone says",
    ),
    case("mode without settings", R, lambda: one_shot(q_mode="Q2"), "-q needs --quant_config"),
    case("unknown level", K, lambda: calibrate(quant_level="L6"), "L6", "L5"),
    case("no processes", K, lambda: calibrate(num_process="0"), "--num_process", "'0'"),
    case("negative threshold", K, lambda: calibrate(sensitivity_threshold="-1"), "--sensitivity_threshold"),
    case("batch that is none", B, lambda: compiling(batch="two"), "--batch", "'two'"),
    case("several batches in n_buf", B, lambda: compiling(batch="1,2"), "n_buf", "one_buf"),
    case("batch beyond the chip", R, lambda: one_shot(batch="100000"), "100000", CHIP),
    case("eleven batches", B, lambda: compiling(batch="1,2,3,4,5,6,7,8,9,10,11", batch_mode="one_buf"), "11"),
    case("category of other outputs", B, lambda: compiling(category="Detection"), "Detection", "got "),
    case("labels without classes", S, lambda: simulate(label="l.txt"), "-l", "Classification"),
    case("missing labels", S, lambda: simulate(label="l.txt", category="Classification"), "l.txt", "No such file"),
    case("empty labels", S, lambda: simulate(label=text("l.txt", ""), category="Classification"), "l.txt", "no labels"),
]


@pytest.mark.parametrize("case", CASES)
def test_bad_input(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [word for name, value in case.make().items() for word in (f"--{name}", value) if word]
    platform = ["onnx"] if case.program in (C, R) else []
    before = sorted(os.listdir())
    capsys.readouterr()
    code = case.program([*platform, *arguments])
    told = capsys.readouterr()
    assert code == 2, told.err
    first = told.err.splitlines()[0]
    assert first.startswith("error: ") and told.err.count("error: ") == 1, told.err
    assert "Traceback" not in told.err and "defect" not in told.err
    assert [word for word in case.words if word not in told.err] == [], told.err
    assert "model at:" not in told.out
    assert sorted(os.listdir()) == before, "no output, no half file"


@pytest.mark.parametrize("program", [C, R], ids=["ConvertTool", "SGS_converter"])
@pytest.mark.parametrize(
    ("platform", "words"),
    [
        ("onx", "there is no platform 'onx' (did you mean onnx?)"),
    ],
)
def test_platforms(program: Main, platform: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert program([platform, "--model_file", "x", "--weight_file", "y"]) == 2
    assert words in capsys.readouterr().err


def test_a_failure_leaves_the_old_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out_fixed.sim").write_bytes(b"old")
    arguments = calibrate(image=not_a_picture())
    assert K([word for name, value in arguments.items() for word in (f"--{name}", value)]) == 2
    assert Path("out_fixed.sim").read_bytes() == b"old"


def test_pictures_are_checked_at_the_very_end_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bad picture among good ones stops a calibration."""
    monkeypatch.chdir(tmp_path)
    listed = text("l.txt", f"{PICTURE}\n{Path(not_a_picture()).resolve()}\n")
    assert K([word for name, value in calibrate(image=listed).items() for word in (f"--{name}", value)]) == 2
    assert np.all([not path.name.endswith(".sim") for path in tmp_path.iterdir()])


def test_many_problems_that_differ_in_the_node_alone_are_one_line() -> None:
    def problem(node: str, reason: str = "is not supported") -> UserError:
        return UserError(reason, stage="convert", file="net.onnx", node=node, remedy="see docs")

    few = Problems([problem("a"), problem("b", "is odd")], stage="convert", file="net.onnx")
    assert str(few).splitlines() == [
        "convert: net.onnx: 2 problems",
        "  - a: is not supported (see docs)",
        "  - b: is odd (see docs)",
    ]
    many = Problems([problem(node) for node in "abcdefa"], stage="convert", file="net.onnx")
    assert str(many).splitlines()[1:] == ["  - a, b, c, d and 2 more: is not supported (see docs)"]
