"""The paddle platform. In place of paddle2onnx there is a stub, which writes down what it was given and does as a test
says; what the real program makes of real networks is judged by bench/paddle_import.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

import calibrator_custom
from onnx_compare import assert_same
from onnx_snippets import Net
from sgs.cli import check_input_config, convert_tool, show_model_info
from sgs.config.input_config import read_input_config
from sgs.errors import UserError
from sgs.frontends.paddle import PADDLE
from sgs.frontends.paddle_json import readable
from sgs.frontends.paddle_tool import VARIABLE, find_tool
from sgs.frontends.platforms import Asked
from sgs.ir import Graph
from sgs.sim import read_sim
from shipped import CHIP

ROOT = Path(__file__).resolve().parents[1]
Values = dict[str, Any]


def paddle_net(shape: tuple[int | str, ...] = (1, 3, 12, 20)) -> ModelProto:
    """A network in the words of paddle2onnx: weights are Constants, biases are added after a Reshape, what is fused in
    Paddle is not, Identities stand everywhere, shapes are computed."""
    net = Net(3)
    x = net.input("image", *shape)
    y = net("Conv", x, net("Identity", net.weights(5, 3, 3, 3)), pads=[1, 1, 1, 1], result="p2o.pd_op.conv2d.0.0")
    bias = net("Reshape", net.weights(5), net("Identity", net.constant([1, 5, 1, 1], np.int64)))
    y = net("Identity", net("Add", y, bias))
    statistics = [net.weights(5), net.weights(5), net.weights(5), net.constant(np.linspace(0.5, 2, 5), np.float32)]
    y = net("BatchNormalization", y, *statistics, result="p2o.pd_op.batch_norm_.0.0")
    low, three, six = (net.constant(value, np.float32) for value in (0, 3, 6))
    y = net("Mul", y, net("Clip", net("Add", y, three), low, six))
    y = net("Div", y, six, result="p2o.pd_op.hardswish.0.0")
    y = net("ConvTranspose", y, net.weights(5, 7, 2, 2), strides=[2, 2], result="p2o.pd_op.conv2d_transpose.0.0")
    scores = net("Softmax", y, axis=1, result="fetch_name_1")
    y = net("GlobalAveragePool", y, result="p2o.pd_op.pool2d.0.0")
    batch = net("Slice", net("Shape", y), *(net.constant([v], np.int64) for v in (0, 1, 0)))
    flat = net("Reshape", y, net("Concat", batch, net.constant([-1], np.int64), axis=0))
    return net.model(net("MatMul", flat, net.weights(7, 4), result="fetch_name_0"), scores)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder in the format of today. Its temporary files come to tmp_path/tmp, too."""
    folder = tmp_path / "mödel 模型"
    folder.mkdir()
    (folder / "inference.json").write_text(program(operator("leaky_relu")))
    (folder / "inference.pdiparams").write_bytes(b"weights")
    return folder


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    stub = Stub(tmp_path)
    monkeypatch.setenv(VARIABLE, str(stub.path))
    stub.writes(paddle_net())
    return stub


class Stub:
    """A program in place of paddle2onnx that copies its inputs to given.* and then does what it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "paddle 2 önnx"

    def does(self, *lines: str) -> None:
        given = self.folder / "given"
        text = [
            f"#!{sys.executable}",
            "import json, os, pathlib, shutil, signal, sys, time",
            "options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))",
            f"given = pathlib.Path({str(given)!r})",
            "given.mkdir(exist_ok=True)",
            "(given / 'options.json').write_text(json.dumps(options))",
            "for option in ('--model_filename', '--params_filename'):",
            "    if option in options:",
            "        shutil.copy(os.path.join(options['--model_dir'], options[option]), given)",
            "pathlib.Path(os.environ['TMPDIR'], 'left behind').write_text('')",
            *lines,
        ]
        self.path.write_text("\n".join(text), "utf-8")
        self.path.chmod(0o755)

    def writes(self, model: ModelProto) -> None:
        file = self.folder / "made.onnx"
        onnx.save(model, file)
        self.does(f"shutil.copy({str(file)!r}, options['--save_file'])", "print('[Paddle2ONNX] Start parsing')")

    def options(self) -> Values:
        found: Values = json.loads((self.folder / "given/options.json").read_text())
        return found

    def given(self, name: str) -> bytes:
        return (self.folder / "given" / name).read_bytes()


def load(folder: Path, asked: Asked | None = None, **values: Any) -> Any:
    source = PADDLE.load(PADDLE.complete({"model_dir": folder, **values}), asked or Asked())
    assert not isinstance(source, Graph)
    return source


def arguments(folder: Path, *more: str, outputs: str = "fetch_name_0,fetch_name_1") -> list[str]:
    kinds = "training_input_formats=RAWDATA_F32_NHWC\ninput_formats=RAWDATA_F32_NHWC\n"
    ini = folder.parent / "input_config.ini"
    ini.write_text(f"[INPUT_CONFIG]\ninputs=image\n{kinds}[OUTPUT_CONFIG]\noutputs={outputs}\n", "utf-8")
    common = ["--input_config", str(ini), "--output_file", str(folder.parent / "out.sim"), "--soc_version", CHIP]
    return ["paddle", "--model_dir", str(folder), *common, *more]


# -- conversion --------------------------------------------------------------------------------------------------------
def test_a_model_becomes_a_sim_that_computes_the_same_without_transposes(folder: Path, tool: Stub) -> None:
    assert convert_tool.main(arguments(folder)) == 0
    graph = read_sim(folder.parent / "out.sim").graph
    assert [node.op for node in graph.nodes].count("TRANSPOSE") == 0
    assert graph.outputs == ["fetch_name_0", "fetch_name_1"] and graph["fetch_name_1"].shape == (1, 24, 40, 7)
    assert_same(graph, paddle_net())


def test_the_program_is_given_plain_names_and_nothing_stays(folder: Path, tool: Stub, tmp_path: Path) -> None:
    source = load(folder)
    assert tool.given("model.json") == (folder / "inference.json").read_bytes()
    assert tool.given("model.pdiparams") == b"weights"
    assert tool.options()["--model_dir"] == "."
    assert tool.options()["--opset_version"] == "17" and tool.options()["--optimize_tool"] == "None"
    assert list((tmp_path / "tmp").glob("sgs_*")) == []
    assert sorted(path.name for path in folder.iterdir()) == ["inference.json", "inference.pdiparams"]
    assert source.path == folder / "inference.json" and len(source.digest) == 64
    (folder / "inference.pdiparams").write_bytes(b"other weights")
    assert load(folder).digest != source.digest


@pytest.mark.parametrize(
    ("model", "params", "values"),
    [
        ("inference.pdmodel", "inference.pdiparams", {}),
        ("__model__", "__params__", {}),
        ("net.pdmodel", "net.weights", {"params_filename": "net.weights"}),
        ("net v1.json", "other.pdiparams", {"model_filename": "net v1.json", "params_filename": "other.pdiparams"}),
    ],
)
def test_files_of_all_usual_names(model: str, params: str, values: Values, tmp_path: Path, tool: Stub) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / model).write_bytes(b"model")
    (tmp_path / "m" / params).write_bytes(b"params")
    load(tmp_path / "m", **values)
    suffix = ".json" if model.endswith(".json") else ".pdmodel"
    assert tool.given(f"model{suffix}") == b"model" and tool.given("model.pdiparams") == b"params"


def test_a_json_may_have_no_parameters(folder: Path, tool: Stub) -> None:
    (folder / "inference.pdiparams").unlink()
    (folder / "config.json").write_text("{}")
    load(folder)
    assert "--params_filename" not in tool.options()


# -- what paddle2onnx misreads -----------------------------------------------------------------------------------------
def attribute(name: str, kind: str, value: Any) -> Values:
    return {"N": name, "AT": {"#": kind, "D": value}}


def operator(kind: str, *attributes: Values, reads: int = 1, makes: int = 2, shape: Sequence[int] = ()) -> Values:
    results = [{"%": makes, "TT": {"#": "0.t_dtensor", "D": [{"#": "0.t_f32"}, list(shape), "NCHW", [], 0]}}]
    return {"#": f"1.{kind}", "A": list(attributes), "I": [{"%": reads}], "O": results}


def program(*operators: Values) -> str:
    """A model as Paddle 3 writes it."""
    weight = {"#": "p", "A": [0, 1, 0, "w"], "O": {"%": 9, "TT": {"#": "0.t_dtensor", "D": [{}, [4], "NCHW", [], 0]}}}
    block = {"#": "block_0", "args": [], "ops": [weight, *operators]}
    model = {"base_code": {"magic": "pir"}, "program": {"regions": [{"#": "region_0", "blocks": [block]}]}}
    return json.dumps(model, separators=(",", ":"))


DOUBLE = attribute("x", "0.a_f64", 0.1)
SCALES = attribute("scale", "0.a_array", [{"#": "0.a_f64", "D": 2.0}, {"#": "0.a_f64", "D": 1.5}])


def test_doubles_are_given_as_floats_but_for_constants() -> None:
    inner = {"blocks": [{"ops": [operator("elu", DOUBLE)]}]}
    text = program(
        operator("full", DOUBLE), operator("interp", DOUBLE, SCALES), {**operator("while"), "regions": [inner]}
    )
    made = readable(text.encode(), Path("m.json"))
    assert made is not None
    expected = text.replace("0.a_f64", "0.a_f32").replace("0.a_f32", "0.a_f64", 1)
    assert json.loads(made) == json.loads(expected)
    assert readable(made, Path("m.json")) is None


def test_the_bounds_of_a_hardtanh_are_given_by_both_names() -> None:
    low, high = attribute("t_min", "0.a_f32", -0.4), attribute("t_max", "0.a_f32", 0.6)
    made = readable(program(operator("hardtanh", low, high)).encode(), Path("m.json"))
    assert made is not None
    (_, found) = json.loads(made)["program"]["regions"][0]["blocks"][0]["ops"]
    assert found["A"] == [low, high, {**low, "N": "min"}, {**high, "N": "max"}]


@pytest.mark.parametrize("size", [[3, 4], [5, 4], [12, 16], [1, 1], [4, 5]])
def test_adaptive_poolings_with_windows_of_several_sizes_are_refused(size: list[int]) -> None:
    pool = partial(operator, "pool2d", reads=3, makes=4)
    adaptive, plain = (attribute("adaptive", "0.a_bool", word) for word in (True, False))
    given = operator("data", makes=3, shape=[1, 4, 12, 16])
    assert readable(program(given, pool(plain, shape=[1, 4, 5, 7])).encode(), Path("m.json")) is None
    text = program(given, pool(plain, shape=[1, 4, 5, 7]), pool(adaptive, shape=[1, 4, *size])).encode()
    if 5 not in size:
        assert readable(text, Path("m.json")) is None
        return
    with pytest.raises(
        UserError, match=rf"m.json: pd_op.pool2d.1: an adaptive pooling of 12x16 to {size[0]}x{size[1]}"
    ):
        readable(text, Path("m.json"))


def test_models_of_another_form(folder: Path, tool: Stub) -> None:
    for text in ("", "{", "[]", '{"a":1}', "\xff"):
        assert readable(text.encode(), Path("m.json")) is None
    (folder / "inference.json").write_text('{"base_code":{"magic":"pir"},"program":[]}')
    with pytest.raises(UserError, match="inference.json: has not the form that is known .save it again with Paddle"):
        load(folder)


def test_what_paddle2onnx_reads_a_model_as(folder: Path, tool: Stub) -> None:
    (folder / "inference.json").write_text(program(operator("leaky_relu", DOUBLE)))
    load(folder)
    assert b"a_f64" not in tool.given("model.json") and b"a_f32" in tool.given("model.json")


@pytest.mark.parametrize("fails", [True, False])
def test_an_old_model_is_read_anew_where_its_translation_would_be_misread(
    fails: bool, folder: Path, tool: Stub
) -> None:
    """paddle2onnx translates it to a .json first, and keeps that if it is told to."""
    (folder / "inference.json").unlink()
    (folder / "inference.pdmodel").write_bytes(b"old")
    text = program(operator("leaky_relu", DOUBLE))
    tool.does(
        "if options['--model_filename'] == 'model.pdmodel':",
        "    assert os.environ['P2O_KEEP_TEMP_MODEL'] == '1'",
        "    made = pathlib.Path(os.environ['TMPDIR'], 'tmp1')",
        "    made.mkdir()",
        f"    (made / 'model_pt.json').write_text({text!r})",
        "    (made / 'model_pt.pdiparams').write_text('new weights')",
        f"    sys.exit({int(fails)} if shutil.copy({str(tool.folder / 'other.onnx')!r}, 'model.onnx') else 0)",
        f"shutil.copy({str(tool.folder / 'made.onnx')!r}, options['--save_file'])",
    )
    (tool.folder / "other.onnx").write_bytes(b"wrong")
    assert [port.name for port in load(folder).outputs] == ["fetch_name_0", "fetch_name_1"]
    assert tool.given("model_pt.pdiparams") == b"new weights" and b"a_f64" not in tool.given("model_pt.json")


def test_nodes_have_the_names_of_paddle(folder: Path, tool: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    model = paddle_net()
    node = next(node for node in model.graph.node if node.op_type == "Clip")
    node.op_type, node.domain, node.name = "Unheard", "of", "Unheard.0"
    tool.writes(model)
    assert convert_tool.main(arguments(folder, "--skip_simplify")) == 2
    assert "Unheard 'pd_op.hardswish.0/Unheard.0'" in capsys.readouterr().err


# -- options -----------------------------------------------------------------------------------------------------------
def test_options_go_on_to_the_program(folder: Path, tool: Stub) -> None:
    told = ["-ov", "13", "--enable_auto_update_opset", "false", "--enable_onnx_checker", "False"]
    told += ["--enable_dist_prim_all", "True", "--enable_dev_version", "True", "--enable_paddle_fallback", "False"]
    assert convert_tool.main(arguments(folder, *told, "-mf", "inference.json", "-pf", "inference.pdiparams")) == 0
    assert tool.options()["--opset_version"] == "13"
    assert tool.options()["--enable_auto_update_opset"] == "False"
    assert tool.options()["--enable_onnx_checker"] == "False"
    assert tool.options()["--enable_dist_prim_all"] == "True"


def test_open_shapes_are_a_question_with_two_answers(
    folder: Path, tool: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    tool.writes(paddle_net(("DynamicDimension.0", 3, "DynamicDimension.1", "DynamicDimension.2")))
    assert convert_tool.main(arguments(folder)) == 2
    assert "for example --input_shapes 1,3,224,224" in capsys.readouterr().err
    for answer in (["--input_shapes", "1,3,8,12"], ["-isd", "{'image': [1, 3, 8, 12]}"]):
        assert convert_tool.main(arguments(folder, *answer)) == 0
        assert read_sim(folder.parent / "out.sim").graph["fetch_name_1"].shape == (1, 16, 24, 7)


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("['logits', 'mask']", ["logits", "mask"]),
        ("{'fetch_name_1': 'mask'}", ["fetch_name_0", "mask"]),
        ("['fetch_name_1', 'fetch_name_0']", ["fetch_name_1", "fetch_name_0"]),
    ],
)
def test_outputs_get_other_names(asked: str, names: list[str], folder: Path, tool: Stub) -> None:
    source = load(folder, output_names=asked)
    assert [port.name for port in source.outputs] == names
    onnx.checker.check_model(source.proto)
    made = next(node for node in source.proto.graph.node if names[1] in node.output)
    assert made.op_type == "Softmax"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--save_file", "x.onnx"], ["--save_file", "--output_file names the .sim"]),
        (["--external_filename", "x"], ["--external_filename", "is not taken"]),
        (["--enable_dev_version", "False"], ["--enable_dev_version", "is not taken"]),
        (["--enable_paddle_fallback", "True"], ["--enable_paddle_fallback", "only Paddle can run"]),
        (["-isd", "{'image':[1,3]}", "--input_shapes", "1,3,8,8"], ["--input_shape_dict", "give one of the two"]),
        (["-isd", "{'image':[1,3,-1,8]}"], ["--input_shape_dict", "no dictionary of shapes", "write it like"]),
        (["-isd", "{image:[1,3,8,8]}"], ["no dictionary of shapes"]),
        (["-isd", "{'picture':[1,3,8,8]}"], ["'picture'", "is not an input", "inputs: image"]),
        (["-on", "['a']"], ["names 1 outputs, the model has 2", "fetch_name_0, fetch_name_1"]),
        (["-on", "['a','a']"], ["'a' is the name of something else"]),
        (["-on", "['image','b']"], ["'image' is the name of something else"]),
        (["-on", "{'fetch':'b'}"], ["'fetch' is no output", "did you mean fetch_name_"]),
        (["-on", "a,b"], ["'a,b' is no list or dictionary of names"]),
        (["--enable_onnx_checker", "maybe"], ["'maybe' is not one of True, False"]),
        (["-ov", "0"], ["'0' is not a whole number above 0"]),
        (["-mf", "inference.jsn"], ["inference.jsn: --model_filename: no such file", "the folder has inference.json"]),
        (["-pf", "weights"], ["--params_filename: no such file", "the folder has inference.pdiparams"]),
    ],
)
def test_options_that_are_refused(
    options: list[str], words: list[str], folder: Path, tool: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert_tool.main(arguments(folder, *options)) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and [word for word in words if word not in told] == []
    assert not (folder.parent / "out.sim").exists()


# -- folders -----------------------------------------------------------------------------------------------------------
def test_folders_that_do_not_say_which_model(folder: Path, tool: Stub, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is a file .name the model's folder"):
        load(folder / "inference.json")
    (folder / "model.pdmodel").write_bytes(b"")
    with pytest.raises(UserError, match="holds 2 models .*--model_filename: inference.json, model.pdmodel"):
        load(folder)
    with pytest.raises(UserError, match=r"pdmodel: has no file of parameters .*--params_filename.*inference.json"):
        load(folder, model_filename="model.pdmodel")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no model of a usual name .*inference.pdiparams"):
        load(tmp_path / "empty")


# -- the program -------------------------------------------------------------------------------------------------------
def test_the_program_is_looked_for_by_the_variable_beside_python_and_on_the_path(
    tool: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_tool() == tool.path
    for folder in ("beside", "on path"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "paddle2onnx").symlink_to(tool.path)
    monkeypatch.setenv("PATH", str(tmp_path / "on path"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "beside/python"))
    monkeypatch.setenv(VARIABLE, "paddle2onnx")
    assert find_tool() == tmp_path / "on path/paddle2onnx"
    monkeypatch.delenv(VARIABLE)
    assert find_tool() == tmp_path / "beside/paddle2onnx"
    (tmp_path / "beside/paddle2onnx").unlink()
    assert find_tool() == tmp_path / "on path/paddle2onnx"
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"the program paddle2onnx is not installed \(.*pip install paddle2onnx"):
        find_tool()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"\$SGS_PADDLE2ONNX: is not a program \(.*pip install paddle2onnx"):
        find_tool()


_ABORT = "os.kill(os.getpid(), signal.SIGABRT)"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            ["print('[ERROR][Paddle2ONNX] Due to the unsupported operators, the conversion is aborted.')"]
            + ["sys.stdout.flush()", _ABORT],
            [
                "unsupported operators",
                "signal 6 (Aborted) ended it",
                "it does not say which; the network has leaky_relu",
            ],
        ),
        (
            ["print('2026-11-26 18:43:01 [ERROR]\\tFailed to convert PaddlePaddle model: In user code:')"]
            + ["print('  File x')", "print('  InvalidArgumentError: Cannot parse tensor desc')", "sys.exit(255)"],
            ["Failed to convert PaddlePaddle model: In user code: InvalidArgumentError: Cannot parse tensor desc ("],
        ),
        (
            ["print('[Paddle2ONNX] Start parsing the Paddle model file...')"]
            + ["print('[Paddle2ONNX] [OP: pd_op.pad] Only support constants')", "print('[Paddle2ONNX] [ERROR] Stop.')"]
            + ["sys.exit(134)"],
            ["failed: [OP: pd_op.pad] Only support constants; Stop; signal 6"],
        ),
        (
            ["print('[Paddle2ONNX] [ERROR] Model checker error log: Nodes must be sorted, input of node: ')"]
            + ["print('name: Conv.1 OpType: Conv')", "open(options['--save_file'], 'w').write('')"],
            ["input of node: name: Conv.1 OpType: Conv", "is the parameter file that of this model, and whole?"],
        ),
        (
            ["print('[Paddle2ONNX] [ERROR] The Opset Version must be between 7 and 21.')", "sys.exit(134)"],
            ["must be between 7 and 21", "--opset_version"],
        ),
        (["import packagingg"], ["No module named 'packagingg'", "pip install paddle2onnx paddlepaddle packaging"]),
        (
            ["print('usage: ...', file=sys.stderr)"]
            + ["print('paddle2onnx: error: unrecognized arguments: --optimize_tool', file=sys.stderr)", "sys.exit(2)"],
            ["unrecognized arguments: --optimize_tool", "it is older than 2.0"],
        ),
        (["os.kill(os.getpid(), signal.SIGSEGV)"], ["paddle2onnx failed: signal 11 (Segmentation fault) ended it"]),
        (["sys.exit(3)"], ["paddle2onnx failed: without a word"]),
        (["print('done')"], ["paddle2onnx failed: done"]),
        (["open(options['--save_file'], 'w').write('no')"], ["what it wrote is not an ONNX model"]),
        (["sys.stdout.buffer.write(b'caf\\xe9: bad')", "sys.exit(1)"], ["caf\N{REPLACEMENT CHARACTER}: bad"]),
    ],
)
def test_failures_are_one_error_with_their_cause(
    lines: list[str],
    words: list[str],
    folder: Path,
    tool: Stub,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tool.does(*lines)
    assert convert_tool.main(arguments(folder)) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: convert: ") and told.count("\n") == 1 and "inference.json: " in told
    assert [word for word in words if word not in told] == []
    assert list((tmp_path / "tmp").glob("sgs_*")) == []


def test_a_program_of_no_machine(folder: Path, tool: Stub) -> None:
    tool.path.write_text("#!/nowhere/python\n")
    with pytest.raises(UserError, match="cannot be run: No such file or directory .*pip install"):
        load(folder)


def test_an_interrupt_ends_the_program_too(folder: Path, tool: Stub, tmp_path: Path) -> None:
    tool.does(
        "(given / 'pid').write_text(str(os.getpid()))",
        "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "os.kill(os.getppid(), signal.SIGINT)",
        "time.sleep(600)",
    )
    launcher = str(ROOT / "Scripts/ConvertTool/ConvertTool.py")
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run([sys.executable, launcher, *arguments(folder)], env=environment, capture_output=True)
    assert done.returncode == 128 + signal.SIGINT and done.stderr == b"interrupted\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(tool.given("pid")), 0)
    assert list((tmp_path / "tmp").glob("sgs_*")) == []


# -- the other tools ---------------------------------------------------------------------------------------------------
def test_an_ini_is_drafted_and_checked(folder: Path, tool: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    ini = str(folder.parent / "drafted.ini")
    model = ["paddle", "--model_dir", str(folder)]
    assert check_input_config.main([*model, "--init", "-o", ini]) == 0
    config = read_input_config(Path(ini))
    assert [spec.name for spec in config.inputs] == ["image"] and config.inputs[0].input_format == "RGB"
    assert [spec.name for spec in config.outputs] == ["fetch_name_0", "fetch_name_1"]
    assert check_input_config.main([*model, "--input_config", ini, "-on", "['logits','mask']"]) == 2
    assert "logits, mask" in capsys.readouterr().err
    assert check_input_config.main([*model, "--input_config", ini]) == 0
    told = capsys.readouterr().out
    assert "fits inference.json, Paddle model" in told and "fetch_name_1  float32  [1,24,40,7]" in told


def test_what_a_model_is_and_what_would_be_refused_of_it(
    folder: Path, tool: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    model = paddle_net(("DynamicDimension.0", 3, "DynamicDimension.1", "DynamicDimension.2"))
    node = next(node for node in model.graph.node if node.op_type == "Clip")
    node.op_type, node.domain = "Unheard", "of"
    tool.writes(model)
    command = ["paddle", "-m", str(folder), "--skip_simplify", "--json"]
    assert show_model_info.main(command) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "Paddle model" and facts["file"] == str(folder / "inference.json")
    assert facts["file_bytes"] == (folder / "inference.json").stat().st_size
    assert facts["operators"]["BatchNormalization"] == 1 and "opsets" not in facts
    assert facts["assumed_shapes"] == {"image": [1, 3, 224, 224]}
    assert [problem["node"][:7] for problem in facts["problems"]] == ["Unheard"]
    tool.does("sys.exit(9)")
    assert show_model_info.main(command) == 2
    assert "paddle2onnx failed" in capsys.readouterr().err


def test_a_file_of_a_platform_that_takes_more_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "inference.pdmodel").write_bytes(b"model")
    for main in (check_input_config.main, show_model_info.main):
        more = ["--init", "-m"] if main is check_input_config.main else []
        assert main([*more, str(tmp_path / "inference.pdmodel")]) == 2
        assert "is of the platform paddle (name the platform first: " in capsys.readouterr().err


def test_python_converts_as_the_program_does(folder: Path, tool: Stub) -> None:
    assert convert_tool.main(arguments(folder, "-on", "['a','b']", outputs="a,b")) == 0
    ini, expected = folder.parent / "input_config.ini", (folder.parent / "out.sim").read_bytes()
    (folder.parent / "out.sim").unlink()
    options: Values = {"output_names": "['a','b']", "enable_onnx_checker": False, "opset_version": 11}
    converter = calibrator_custom.converter("paddle", model_dir=folder, input_config=ini, **options)
    assert converter.convert(folder.parent / "out.sim") == str(folder.parent / "out.sim")
    assert (folder.parent / "out.sim").read_bytes() == expected
    assert tool.options()["--opset_version"] == "11" and tool.options()["--enable_onnx_checker"] == "False"
