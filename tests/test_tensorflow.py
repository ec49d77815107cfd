"""The platforms tensorflow_graphdef, tensorflow_savemodel and keras, with TensorFlow as the judge. TensorFlow runs in a
process of its own, once (tensorflow_worker.py); what needs it skips where it is not installed."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conventions import ROOT
from sgs.cli.convert_tool import main as convert_tool
from sgs.engine import FloatEngine
from sgs.errors import UserError
from sgs.frontends.onnx_import import import_model, import_onnx
from sgs.frontends.onnx_layout import SourceLayouts
from sgs.frontends.onnx_model import SourceModel
from sgs.frontends.platforms import Asked, platform_named
from sgs.frontends.tensorflow import platform
from sgs.frontends.tensorflow.child import Answer, Request, in_child, model_of, variables
from sgs.ir import Graph
from sgs.passes.pipeline import optimise

TESTS = Path(__file__).parent
DATA = os.environ.get("SGS_TEST_DATA")
CLOSE = 1e-4  # of an output's range

needs_tensorflow = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("tensorflow", "tf2onnx", "tf_keras")),
    reason="tensorflow, tf2onnx and tf_keras are not installed",
)


@dataclass(frozen=True)
class Seen:
    """What the worker made: its results by name, and the folder with the files."""

    results: dict[str, Any]
    folder: Path

    def refusal(self, name: str) -> str:
        answer = self.results[name]["answer"]
        assert isinstance(answer, UserError), name
        return str(answer)

    def model(self, name: str) -> SourceModel:
        answer = self.results[name]["answer"]
        assert isinstance(answer, Answer), f"{name}: {answer}"
        return model_of(answer, Path(name), "")

    def graph(self, name: str) -> Graph:
        graph = import_model(self.model(name), skip_simplify=True)
        optimise(graph)
        return graph


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """The worker's results; of several test processes the first one starts it."""
    shared = (
        tmp_path_factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else tmp_path_factory.mktemp("t")
    )
    folder = shared / "tensorflow_networks"
    try:
        folder.mkdir()
    except FileExistsError:
        return Seen(_awaited(folder / "results.pkl"), folder)
    command = [sys.executable, str(TESTS / "tensorflow_worker.py"), str(folder)]
    paths = [*filter(None, sys.path), str(TESTS)]
    environment = variables(str(folder)) | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        (folder / "results.pkl").write_bytes(pickle.dumps(done.stderr))
    return Seen(_awaited(folder / "results.pkl"), folder)


def _awaited(file: Path) -> dict[str, Any]:
    """What the process that was first will write, or has written: a file that appears whole."""
    for _ in range(3000):
        if file.is_file():
            found = pickle.loads(file.read_bytes())
            assert isinstance(found, dict), found
            return found
        time.sleep(0.1)
    raise AssertionError("the worker wrote nothing")


def turned(values: Any, layout: str, perm: tuple[int, ...]) -> Any:
    return np.ascontiguousarray(values.transpose(perm)) if values.ndim == 4 and layout == "NCHW" else values


def check_equal(seen: Seen, name: str) -> Graph:
    """The graph of a result, which computes what TensorFlow does."""
    model, graph, result = seen.model(name), seen.graph(name), seen.results[name]
    layouts = SourceLayouts(model.proto, model.layouts)
    feeds = {key: turned(value, layouts.of_input(key), (0, 2, 3, 1)) for key, value in result["feeds"].items()}
    got = FloatEngine(graph).run(feeds)
    assert set(got) == set(result["wanted"])
    for key, wanted in result["wanted"].items():
        wanted = turned(wanted, layouts.of_output(key), (0, 2, 3, 1))
        assert got[key].shape == wanted.shape, key
        assert np.abs(got[key] - wanted).max() <= CLOSE * (wanted.max() - wanted.min()), key
    return graph


def transposes(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes if node.op == "TRANSPOSE"]


# -- numbers -----------------------------------------------------------------------------------------------------------
@needs_tensorflow
@pytest.mark.parametrize("group", ["pictures", "sequences", "turning"])
def test_layers_of_keras(seen: Seen, group: str) -> None:
    """Equal to Keras, without a Transpose but those that are in the nature of a layer."""
    graph = check_equal(seen, group)
    assert len(transposes(graph)) == seen.results[group]["left"]
    assert group == "turning" or not transposes(graph)
    if group == "pictures":
        operators = [node.op for node in graph.nodes]
        assert operators.count("PRELU") == 2
        assert operators.count("DEPTH_TO_SPACE") == operators.count("LEAKY_RELU") == 1
        assert operators.count("DEPTHWISE_CONV_2D") == 5


SAME = (
    *("small_keras", "small_h5", "layer_out", "layer_in", "renamed", "no_names", "own_exported"),
    *("keras_2_h5", "keras_2_keras", "keras_2_layer"),
    *("exported", "endpoint", "free", "trace", "old_saved"),
    *("default", "default_fed", "default_used", "default_ignored"),
    *("one_result", "results", "both_results", "renamed_graph", "turned"),
    *("sizes", "opset", "nchw", "libraries", "extra_opset"),
)


@needs_tensorflow
@pytest.mark.parametrize("name", SAME)
def test_small_networks(seen: Seen, name: str) -> None:
    """Every kind of file, name and option: TensorFlow's numbers, under the caller's names, without a Transpose."""
    assert transposes(check_equal(seen, name)) == []


# (operators whose number is told, each with it)
NETWORKS = {
    "mobilenet": {"CONV_2D": 15, "DEPTHWISE_CONV_2D": 13},
    "super_resolution": {"CONV_2D": 8, "PRELU": 7, "DEPTH_TO_SPACE": 1},
    "kws_dnn": {"FULLY_CONNECTED": 4},
    "kws_ds_cnn": {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 4},
    "kws_lstm": {"SPLIT": 49 + 1},
    "face_detector": {"CONV_2D": 32, "MAX_POOL_2D": 1},
}


@needs_tensorflow
@pytest.mark.skipif(DATA is None, reason="SGS_TEST_DATA names no folder")
@pytest.mark.parametrize("name", NETWORKS)
def test_public_networks(seen: Seen, name: str) -> None:
    graph = check_equal(seen, name)
    operators = [node.op for node in graph.nodes]
    assert transposes(graph) == []
    assert {op: operators.count(op) for op in NETWORKS[name]} == NETWORKS[name]


@needs_tensorflow
@pytest.mark.skipif(DATA is None, reason="SGS_TEST_DATA names no folder")
def test_the_same_weights_come_to_the_same_as_from_onnx(seen: Seen) -> None:
    graph = import_onnx(next(Path(DATA or "", "onnx", "mobilenet_v1_0.25_224").glob("*.onnx")))
    optimise(graph)
    result = seen.results["mobilenet"]
    (got,) = FloatEngine(graph).run({graph.inputs[0]: result["feeds"]["input"]}).values()
    wanted = result["wanted"]["L30_softmax"]
    assert np.abs(got.reshape(wanted.shape) - wanted).max() <= CLOSE * wanted.max()


@needs_tensorflow
def test_options_reach_tf2onnx(seen: Seen) -> None:
    assert [seen.model(name).opset for name in ("sizes", "opset")] == [18, 13]
    domains = {entry.domain: entry.version for entry in seen.model("extra_opset").proto.opset_import}
    assert domains["com.microsoft"] == 1
    shapes = [[port.shape for port in (*model.inputs, *model.outputs)] for model in map(seen.model, ("sizes", "nchw"))]
    assert shapes == [[(1, 4, 6, 3), (1, 5, 7, 3)], [(1, 3, 4, 6), (1, 3, 5, 7)]]
    assert seen.model("cut_shapes").inputs[0].shape == (3, 6)
    custom = [(node.domain, node.op_type) for node in seen.model("custom").proto.graph.node if node.domain]
    default = "ai.onnx.converters.tensorflow"
    assert sorted(custom) == [(default, "Digamma"), (default, "Igamma"), ("my.domain", "Lgamma")]


@needs_tensorflow
def test_names_without_an_ini(seen: Seen) -> None:
    """The model's own: of Keras those of the layers, of a SavedModel those of the signature or of its graph."""
    names = [
        [{port.name for port in ports} for ports in (model.inputs, model.outputs)]
        for model in map(seen.model, ("no_names", "graph_names"))
    ]
    assert names == [
        [{"image", "aux"}, {"scores", "map"}],
        [{"image", "aux"}, {"Identity:0", "Identity_1:0"}],
    ]


# -- refusals ----------------------------------------------------------------------------------------------------------
REFUSALS = {
    "lambda_keras": ("Lambda 'twice'", "Python code", "model.export"),
    "unknown_activation": ("unknown.keras: Keras cannot load it: Could not interpret activation",),
    "lambda_h5": ("Lambda 'twice'", "Python code", "model.export"),
    "too_small": (
        "Keras cannot trace it: Input",
        "expected shape=(None, 5), found shape=(1, 4)",
        "(check --input_shapes)",
    ),
    "lambda_2": ("Lambda 'twice'", "Python code"),
    "own_class": ("Keras cannot load it", "Own", "tensorflow_savemodel"),
    "weights_only": ("holds weights and no model", "model.save"),
    "broken_h5": ("damaged", "truncated file"),
    "no_shape": ("'picture' [?,?,?,3] is not static", "--input_shapes 1,224,224,3"),
    "wrong_signature": ("no signature 'flatt'", "did you mean flat?"),
    "wrong_tags": ("the tags serve,gpu", "--tag_set: serve"),
    "wrong_trace": ("--concrete_function 1", "it has 1, counted from 0"),
    "two_functions": ("--signature_key and --concrete_function",),
    "default_must_be_fed": ("the outputs need input 'scale'",),
    "default_unknown": ("--use_default: 'x'", "there are: scale"),
    "wrong_names": ("3 problems", "'z' (inputs of the model: x)", "'spilt' (did you mean 'split'?", "'split:2'", "y)"),
    "missing_input": ("the outputs need input 'x', which is not named",),
    "cut_shapes_wrong": ("output 'y' has the shape 2,3, --outputs says 3,3",),
    "shape_twice": ("--input_shapes gives 'x' the shape 2,6, --inputs 3,6",),
    "shape_count": ("2 input shapes for 1 inputs (x)",),
    "rank": ("shape 2,6,1 does not fit input 'x' [2,6]",),
    "invalid_shape": ("invalid at these shapes", "split", "must be evenly divisible"),
    "renamed_wrong": ("--rename_inputs gives 2 names (in,on) to 1 inputs",),
    "variables": ("is not frozen", "weights, bias", "convert_variables_to_constants", "tensorflow_savemodel"),
    "unsupported": ("3 problems", "Digamma 'psi'", "Igamma 'low'", "Lgamma 'gamma'", "no meaning in ONNX"),
    "sizes_open": ("'x' [?,?,?,3] is not static",),
    "opset_wrong": ("--opset 25", "up to 18"),
    "extra_opset_wrong": ("--extra_opset: 'com.microsoft' is not like DOMAIN:VERSION",),
    "custom_wrong": ("--custom_ops: 'a:b:c' is not like OP:DOMAIN",),
    "libraries_missing": ("nowhere.so: no such file",),
    "libraries_none": ("is no library of operators", "invalid ELF header"),
    "nchw_wrong": ("--inputs_as_nchw: 'q' is none of the inputs (inputs: x)",),
}


@needs_tensorflow
@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(seen: Seen, name: str) -> None:
    message = seen.refusal(name)
    assert message.startswith("convert: ")
    for part in REFUSALS[name]:
        assert part in message
    assert str(pickle.loads(pickle.dumps(seen.results[name]["answer"]))) == message  # as it comes from the process
    assert "\n" not in message or "problems\n" in message


@needs_tensorflow
@pytest.mark.skipif(DATA is None, reason="SGS_TEST_DATA names no folder")
def test_inputs_that_are_no_numbers(seen: Seen) -> None:
    assert "input 'wav_data' holds string, no numbers (begin the network behind" in seen.refusal("kws_whole")


@needs_tensorflow
def test_problems_of_the_importer_name_tensorflows_operators(seen: Seen) -> None:
    with pytest.raises(UserError) as caught:
        seen.graph("custom")
    for label in ("Digamma 'psi'", "Igamma 'low'", "Lgamma 'gamma'"):
        assert label in str(caught.value)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    """Told without TensorFlow."""
    files = {
        "empty.pb": b"",
        "text.pb": b'node {\n  name: "x"\n}\n',
        "net.pbtxt": b"\x0a\x01",
        "net.tflite": b"\x1c\0\0\0TFL3\0",
        "net.h5": b"\x89HDF\r\n\x1a\n\0",
        "net.keras": b"PK\x03\x04",
        "hdf.keras": b"\x89HDF\r\n\x1a\n\0",
        "saved_model.pb": b"\x08\x01",
        "inner/saved_model.pb": b"\x08\x01",
    }
    for name, content in files.items():
        path = tmp_path / "folder é" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    folder = tmp_path / "folder é"
    (folder / "bare" / "deep").mkdir(parents=True)
    (folder / "bare" / "deep" / "saved_model.pb").write_bytes(b"\x08\x01")
    for kind, name, told in (
        ("tensorflow_graphdef", "none.pb", "no such file"),
        ("tensorflow_graphdef", "empty.pb", "is empty"),
        ("tensorflow_graphdef", "text.pb", "is a graph in text form (give the binary .pb"),
        ("tensorflow_graphdef", "net.pbtxt", "is a graph in text form"),
        ("tensorflow_graphdef", "net.tflite", "is a TFLite model (give it to the platform tflite)"),
        ("tensorflow_graphdef", "net.h5", "is a Keras model (give it to the platform keras)"),
        ("tensorflow_graphdef", "net.keras", "is a Keras model"),
        ("tensorflow_graphdef", "saved_model.pb", "is part of a SavedModel"),
        ("tensorflow_graphdef", "inner", "is the folder of a SavedModel"),
        ("tensorflow_savemodel", "none", "no such folder"),
        ("tensorflow_savemodel", "saved_model.pb", "is a file (give its folder:"),
        ("tensorflow_savemodel", "bare", "holds no saved_model.pb (there are SavedModels in: deep)"),
        ("keras", "none.keras", "no such file"),
        ("keras", "inner", "is the folder of a SavedModel"),
        ("keras", "net.tflite", "has the extension '.tflite'"),
        ("keras", "net.keras", "is no Keras model"),
        ("keras", "hdf.keras", "is an HDF5 file (name it .h5)"),
    ):
        row = platform_named(kind, stage="test")
        with pytest.raises(UserError) as caught:
            row.load(row.complete({row.options[0].name: folder / name}), Asked())
        assert told in str(caught.value), (name, str(caught.value))


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "_PACKAGES", ("tensorflow_that_nobody_has",))
    path = tmp_path / "net.pb"
    path.write_bytes(b"\x0a\x01")
    row = platform_named("tensorflow_graphdef", stage="test")
    with pytest.raises(UserError) as caught:
        row.load(row.complete({"graph_def_file": path}), Asked())
    told = "convert: the Python package tensorflow_that_nobody_has is not installed"
    assert str(caught.value) == f"{told} (pip install -e '{ROOT}[tensorflow]')"


def test_a_tensorflow_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is installed, but not for this machine: it takes the place of the real one."""
    (tmp_path / "tensorflow.py").write_text("raise ImportError('libcuda.so.9: cannot open')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError) as caught:
        in_child(Request("keras", Path("net.keras"), {}, Asked()), "")
    told = "convert: TensorFlow cannot be imported: libcuda.so.9: cannot open (install it again: pip uninstall"
    assert str(caught.value).startswith(told)


def test_modules_of_the_users_folder_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "numpy", "tensorflow", "keras"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the folder of the user')\n")
    (tmp_path / "net.keras").write_bytes(b"PK")
    monkeypatch.chdir(tmp_path)
    values = platform_named("keras", stage="test").complete({"model_file": Path("net.keras")})
    with pytest.raises(UserError) as caught:
        in_child(Request("keras", Path("net.keras"), values, Asked()), "")
    assert "the folder of the user" not in f"{caught.value} {caught.value.__cause__}"


def test_a_crash_of_tensorflow_is_the_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is one that kills itself."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nsys.stderr.write('Check failed\\n')\nsys.stderr.flush()\nos.abort()\n"
    )
    monkeypatch.setattr("sgs.frontends.tensorflow.child.variables", lambda home: {"PYTHONPATH": str(tmp_path)})
    with pytest.raises(UserError) as caught:
        in_child(Request("keras", Path("net.keras"), {}, Asked()), "")
    assert "net.keras: TensorFlow was stopped by SIGABRT: Check failed (the file is damaged" in str(caught.value)


# -- from the command line ---------------------------------------------------------------------------------------------
INI = """[INPUT_CONFIG]
inputs=image,aux;
training_input_formats=RGB,RAWDATA_F32_NHWC;
input_formats=RGB,RAWDATA_F32_NHWC;
quantizations=TRUE,TRUE;
mean=127.5:127.5:127.5;
std_value=127.5;
[OUTPUT_CONFIG]
outputs=map,scores;
dequantizations=TRUE,TRUE;
"""


@needs_tensorflow
def test_command_line(seen: Seen, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In the process of its own: nothing of TensorFlow's is printed, and a damaged file is one line."""
    folder = tmp_path / "a b é"
    folder.mkdir()
    ini, target = folder / "input_config.ini", folder / "net_float.sim"
    ini.write_text(INI, "utf-8")
    common = ["--input_config", str(ini), "--output_file", str(target), "--soc_version", "pcupid"]
    assert convert_tool(["keras", "--model_file", str(seen.folder / "small.keras"), *common]) == 0
    assert capfd.readouterr() == (f"Float model at: {target}\n", "")
    assert {path.name for path in folder.iterdir()} == {ini.name, target.name, f"Debug_{target.name}"}
    shapes = ["--input_shapes", "1,8,12,3:1,4"]
    assert convert_tool(["keras", "--model_file", str(seen.folder / "small.keras"), *shapes, *common]) == 2
    out, error = capfd.readouterr()
    assert (out, error.count("\n")) == ("", 1) and error.startswith("error: convert: ")
    damaged, content = folder / "damaged.pb", (seen.folder / "several.pb").read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    assert convert_tool(["tensorflow_graphdef", "--graph_def_file", str(damaged), *common]) == 2
    out, error = capfd.readouterr()
    told = f"error: convert: {damaged}: is not a frozen graph of TensorFlow, or is damaged"
    assert (out, error) == ("", f"{told} (save or download the model again)\n")
