"""calibrator_custom: networks of several models, and what ConvertTool and the compiler do, from Python."""

from __future__ import annotations

import inspect
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import calibrator_custom
import sgs.python_api.chip
from calibrator_custom import SIM_Calibrator, SIM_Simulator, utils
from conventions import ROOT
from sgs.builder import GraphBuilder
from sgs.cli import calibrator_tool, compiler_tool, convert_tool
from sgs.numeric.quantise import Array
from sgs.ops._window import window_node
from sgs.sim import write_sim
from shipped import CALIBRATION, CHIP, INI, MODEL, SCRIPT, TEST, converted, labels, launch, sample_list

RAW = "RAWDATA_F32_NHWC"


@pytest.fixture(autouse=True)
def no_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a fresh process."""
    monkeypatch.setattr(sgs.python_api.chip, "_SELECTED", [])


class Stages:
    """Two tiny models in a folder: `first` x [1, 3, 5, 2] → y [1, 3, 5, 4], and `second` (y, one row of y [1, 1, 5, 4])
    → z [1, 5], the scores of the row beside the mean of all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(5)
        build = GraphBuilder()
        weight = rng.normal(0, 1, (4, 1, 1, 2)).astype(np.float32)
        x, bias = build.input("x", (1, 3, 5, 2)), np.zeros(4, np.float32)
        y = build("CONV_2D", x, weight, bias, output="y", **window_node(activation="RELU"))
        self.write("first", build.output(y), {"x": "x"}, "y")
        build = GraphBuilder()
        whole, row = build.input("y", (1, 3, 5, 4)), build.input("row", (1, 1, 5, 4))
        mean = build("MEAN", whole, axes=[1], keep_dims=True)
        z = build("ADD", row, mean, activation="NONE", output="z")
        self.write("second", build.output(z), {"y": "y", "row": "row"}, "z")

    def write(self, name: str, graph: Any, inputs: dict[str, str], output: str) -> None:
        formats = ",".join(RAW for _ in inputs)
        text = (
            f"[INPUT_CONFIG]\ninputs={','.join(inputs)};\ntraining_input_formats={formats};\ninput_formats={formats};\n"
            f"[OUTPUT_CONFIG]\noutputs={output};\n"
        )
        self.ini(name).write_text(text, encoding="utf-8")
        graph.metadata["config"] = text
        write_sim(graph, self.float(name), stage="float")

    def float(self, name: str) -> Path:
        return self.folder / f"{name}_float.sim"

    def fixed(self, name: str) -> Path:
        return self.folder / f"{name}_fixed.sim"

    def ini(self, name: str) -> Path:
        return self.folder / f"{name}.ini"


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    folder = tmp_path / "模型 two stages"
    folder.mkdir()
    return Stages(folder)


class TwoStages:
    """The forward of both classes: runs `second` on every row of what `first` makes."""

    first: Any
    second: Any

    def forward(self, x: Array) -> Array:
        self.first.set_input(0, x)
        self.first.invoke()
        y = self.first.get_output(0)
        rows = []
        for row in range(y.shape[1]):
            self.second.set_input(0, y)
            self.second.set_input(1, y[:, row : row + 1])
            self.second.invoke()
            rows.append(self.second.get_output(0))
        return np.concatenate(rows)


class Calibrated(TwoStages, SIM_Calibrator):
    def __init__(self, stages: Stages) -> None:
        super().__init__()
        self.name = "anything"
        self.first = calibrator_custom.calibrator(str(stages.float("first")), str(stages.ini("first")))
        self.second = calibrator_custom.calibrator(stages.float("second"), stages.ini("second"))
        self.again = self.first


class Simulated(TwoStages, SIM_Simulator):
    def __init__(self, stages: Stages, kind: str = "float") -> None:
        super().__init__()
        open_it = getattr(calibrator_custom, f"{kind}_simulator")
        self.first, self.second = (open_it(getattr(stages, kind)(name)) for name in ("first", "second"))


def samples(count: int = 6, seed: int = 2) -> Iterator[Array]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.normal(0, 1, (1, 3, 5, 2)).astype(np.float32)


def test_calibrates_as_calibrator_does_on_what_every_model_is_fed(stages: Stages) -> None:
    """The second model is invoked three times a sample. The judge gets the same arrays as files."""
    targets = [stages.fixed("first"), str(stages.fixed("second"))]
    Calibrated(stages).convert(samples(), fix_model=targets, num_process=3)
    folder, net, lists = stages.folder, Simulated(stages), {"first": "", "second": ""}
    for number, x in enumerate(samples()):
        net.first.set_input(0, x)
        net.first.invoke()
        y = net.first.get_output(0)
        np.save(folder / f"x{number}.npy", x)
        np.save(folder / f"y{number}.npy", y)
        lists["first"] += f"x{number}.npy\n"
        for row in range(3):
            np.save(folder / f"row{number}{row}.npy", y[:, row : row + 1])
            lists["second"] += f"y{number}.npy,row{number}{row}.npy\n"
    script = folder / "load.py"
    script.write_text("import numpy as np\ndef image_preprocess(path, norm=True):\n    return np.load(path)\n")
    for name, scripts in (("first", f"{script}"), ("second", f"{script},{script}")):
        (folder / f"{name}.txt").write_text(lists[name], encoding="utf-8")
        arguments = ["-i", folder / f"{name}.txt", "-m", stages.float(name), "--input_config", stages.ini(name)]
        arguments += ["-n", scripts, "-o", folder / f"judge_{name}.sim", "--soc_version", CHIP]
        assert calibrator_tool.main([str(argument) for argument in arguments]) == 0
        assert stages.fixed(name).read_bytes() == (folder / f"judge_{name}.sim").read_bytes()


def test_calibrates_a_shipped_model_as_the_converter_does(tmp_path: Path) -> None:
    """By a generator of lists, from pictures; the text of the samples of the manual is below."""

    class Net(SIM_Calibrator):
        def __init__(self) -> None:
            self.model = calibrator_custom.calibrator(converted() / "digits_float.sim", INI)

        def forward(self, x: Array) -> None:
            self.model.set_input(0, x)
            self.model.invoke()

    pictures = sample_list(tmp_path, CALIBRATION, 8).read_text().split("\n")[:-1]
    generator = utils.image_generator(pictures, [utils.image_preprocess_func(SCRIPT)])
    Net().convert(generator, [tmp_path / "digits.sim"], quant_level="L2")
    assert (tmp_path / "digits.sim").read_bytes() == (converted() / "digits_fixed.sim").read_bytes()


@pytest.mark.parametrize("form", [list, tuple, iter])
def test_samples_are_arrays_lists_or_tuples(stages: Stages, form: Any) -> None:
    plain = list(samples(3))
    wrapped = form([x] if form is not tuple else (x,) for x in plain)
    judge = Simulated(stages)
    expected = [judge(x) for x in plain]
    assert all(result.shape == (3, 1, 5, 4) for result in expected)
    results = judge(wrapped, num_process=2)
    assert isinstance(results, list) and np.array_equal(results, expected)
    targets = [[stages.folder / f"{k}{name}.sim" for name in "ab"] for k in range(2)]
    Calibrated(stages).convert(iter(plain), targets[0], quant_level="L1")
    Calibrated(stages).convert(form([x] if form is not tuple else (x,) for x in plain), targets[1], quant_level="L1")
    assert [path.read_bytes() for path in targets[0]] == [path.read_bytes() for path in targets[1]]


def test_results_do_not_depend_on_threads(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    """Integers included; several calls are under way at a time, on the same sessions, and results stay in order."""
    monkeypatch.setattr("sgs.python_api.networks.processors", lambda: 6)
    Calibrated(stages).convert(samples(24), [stages.fixed("first"), stages.fixed("second")], quant_level="L1")
    calibrator_custom.set_soc_version(CHIP)
    for name in ("first", "second"):
        calibrator_custom.compiler(stages.fixed(name)).compile(stages.folder / f"{name}.img")
    stages.offline = lambda name: stages.folder / f"{name}.img"  # type: ignore[attr-defined]
    found: dict[str, list[Array]] = {}
    for kind in ("float", "fixed", "offline"):
        net, busy = Simulated(stages, kind), threading.Barrier(4, timeout=60)
        found[kind] = net(samples(24), num_process=1)
        inner = net.first.invoke

        def together(inner: Any = inner, busy: threading.Barrier = busy) -> None:
            busy.wait()  # proves that four calls are inside forward
            inner()

        net.first.invoke = together
        assert np.array_equal(net(samples(24), num_process=4), found[kind])
    assert np.array_equal(found["fixed"], found["offline"])
    assert not np.array_equal(found["fixed"], found["float"])
    assert np.allclose(found["fixed"], found["float"], atol=0.05)


def test_state_is_private_to_a_call(stages: Stages) -> None:
    """Inputs set outside are seen inside; what is set inside is seen nowhere else, nor in the next call."""

    class Net(SIM_Simulator):
        def __init__(self) -> None:
            self.model = calibrator_custom.float_simulator(stages.float("second"))
            self.model.set_input(1, np.ones((1, 1, 5, 4), np.float32))

        def forward(self, y: Array | None) -> Array:
            assert not hasattr(self, "kept")
            self.kept = y
            if y is not None:
                self.model.set_input(0, y)
            self.model.invoke()
            return self.model.get_output(0)

    net = Net()
    assert np.array_equal(net(np.zeros((1, 3, 5, 4), np.float32)), np.ones((1, 1, 5, 4)))
    with pytest.raises(ValueError, match="expected set_input for 2 inputs, got none for y"):
        net([np.zeros((1, 3, 5, 4), np.float32), None], num_process=1)
    with pytest.raises(ValueError, match="got get_output before it"):
        net.model.get_output(0)


# -- quantisation parameters -------------------------------------------------------------------------------------------
def range_of(file: Path, tensor: str) -> tuple[float, float]:
    details = {each["name"]: each for each in calibrator_custom.fixed_simulator(file).get_tensor_details()}
    return details[tensor]["min"][0], details[tensor]["max"][0]


@pytest.mark.parametrize("form", ["list", "file", "lists", "files", "mixed"])
def test_parameters_go_where_their_names_are(stages: Stages, form: str) -> None:
    """y is in both models, z in the second one only."""
    y, z = ({"name": name, "min": [-9.0], "max": [9.0], "bit": 16} for name in ("y", "z"))
    file = stages.folder / "parameters.json"
    file.write_text(json.dumps([y, z] if form == "file" else [z]))
    given: Any = {
        "list": [y, z],
        "file": str(file),
        "lists": [[y], [y, z]],
        "files": [None, file],
        "mixed": [[y], file],
    }
    targets = [stages.fixed("first"), stages.fixed("second")]
    Calibrated(stages).convert(samples(), targets, quant_param=given[form])
    names = {each["name"] for each in calibrator_custom.fixed_simulator(targets[0]).get_tensor_details()}
    inner = "y/codes" if "y/codes" in names else "y"
    first, second = range_of(targets[0], inner), range_of(targets[1], "z/codes")
    assert second == pytest.approx((-9, 9), rel=1e-3)
    assert (first[1] == pytest.approx(9, rel=1e-3)) == (form != "files")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"name": "q", "min": [0], "max": [1], "bit": 16}], "no network has q"),
        ([{"name": "z", "min": [0], "max": [1], "bit": 5}], "bit 5 is not one of"),
        ([[{"name": "z", "min": [0], "max": [1], "bit": 16}], []], "'z': is no tensor of the float network"),
        ([None], "expected a list of entries, a file, or 2 of them, got 1 items"),
        (7, "got int"),
        ("no.json", "No such file"),
    ],
)
def test_parameters_that_cannot_be_used(stages: Stages, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Calibrated(stages).convert(samples(), [stages.fixed("first"), stages.fixed("second")], quant_param=given)
    assert not list(stages.folder.glob("*fixed*"))


# -- errors ------------------------------------------------------------------------------------------------------------
def test_a_model_that_is_not_invoked_is_named(stages: Stages) -> None:
    class Net(Calibrated):
        def forward(self, x: Array) -> None:
            self.first.set_input(0, x)
            self.first.invoke()

    with pytest.raises(ValueError, match=r"got no invoke of second \(.*second_float.sim\)"):
        Net(stages).convert(samples(), [stages.fixed("first"), stages.fixed("second")])
    assert not list(stages.folder.glob("*fixed*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fix_model": ["a.sim"]}, "expected 2 paths, for first, second, got 1"),
        ({"fix_model": "a.sim"}, "expected a list of paths, got 'a.sim'"),
        ({"fix_model": ["a.sim", "./a.sim"]}, "is named for two outputs"),
        ({"fix_model": ["a.sim", "none/b.sim"]}, "none does not exist"),
        ({"fix_model": ["a.sim", None]}, "expected a path, got None"),
        ({"fix_model": ["a.sim", "b.img"]}, "fix_model: expected a file that ends in .sim, got 'b.img'"),
        ({"fix_model": ["a.sim", "first_float.sim"]}, "both an input and an output"),
        ({"quant_level": "L6"}, "expected one of L1, L2, L3, L4, L5, got 'L6'"),
        ({"num_process": 0}, "expected a whole number above 0, got 0"),
        ({"img_gen": []}, "expected at least one sample, got none"),
        ({"img_gen": samples}, "expected an array, or a generator or list of samples, got function"),
        ({"img_gen": [np.zeros((1, 3, 5, 2))]}, "input 'x': expected dtype float32, got float64"),
        ({"img_gen": [np.zeros((3, 5, 2), np.float32)]}, r"expected shape \[1, 3, 5, 2\], got \[3, 5, 2\]"),
        ({"img_gen": [np.full((1, 3, 5, 2), np.nan, np.float32)]}, "sample 0, invoke 0"),
    ],
)
def test_what_convert_refuses(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(stages.folder)
    arguments = {"img_gen": samples(), "fix_model": ["a.sim", "b.sim"], "quant_level": "L1", **change}
    before = sorted(stages.folder.iterdir())
    with pytest.raises(ValueError, match=message):
        Calibrated(stages).convert(**arguments)
    assert sorted(stages.folder.iterdir()) == before


def test_networks_without_models_or_forward(stages: Stages) -> None:
    with pytest.raises(ValueError, match="SIM_Calibrator|expected calibrator objects as attributes, got none"):
        SIM_Calibrator().convert(samples(), [])
    with pytest.raises(NotImplementedError, match="expected a method forward"):
        SIM_Simulator()(next(samples()))
    with pytest.raises(ValueError, match="got str"):
        Simulated(stages)("picture.png")
    with pytest.raises(ValueError, match="num_process: expected a whole number above 0, got ndarray"):
        Simulated(stages)(next(samples()), np.zeros((3, 3)))


def test_errors_of_forward_come_through(stages: Stages) -> None:
    class Net(Simulated):
        def forward(self, x: Array) -> Array:
            return {}[round(float(x[0, 0, 0, 0]))]

    with pytest.raises(KeyError) as caught:
        Net(stages)([np.full((1, 3, 5, 2), value, np.float32) for value in (5, 6, 7)], num_process=4)
    assert caught.value.args == (5,)


def test_a_calibrator_is_a_float_sim_with_its_ini(stages: Stages) -> None:
    open_it = calibrator_custom.calibrator
    with pytest.raises(ValueError, match="expected a float .sim, got a debug one"):
        open_it(converted() / "Debug_digits_float.sim", INI)
    with pytest.raises(ValueError, match="expected a float .sim, got a fixed .sim"):
        open_it(converted() / "digits_fixed.sim", INI)
    with pytest.raises(ValueError, match="images"):
        open_it(stages.float("first"), INI)
    with pytest.raises(ValueError, match="No such file"):
        open_it(stages.float("first"), stages.folder / "no.ini")
    with pytest.raises(ValueError, match="path: expected a path, got None"):
        open_it(None, INI)


def test_folders_that_cannot_be_written_to(stages: Stages, tmp_path: Path) -> None:
    """Models there can be used; nothing is written beside them."""
    outside = [tmp_path / "a.sim", tmp_path / "b.sim"]
    before = sorted(stages.folder.iterdir())
    stages.folder.chmod(0o555)
    try:
        Calibrated(stages).convert(samples(3), outside, quant_level="L1")
        assert Simulated(stages)(next(samples())).shape == (3, 1, 5, 4)
        if os.geteuid() != 0:  # root may write everywhere
            with pytest.raises(ValueError, match="cannot be written to"):
                Calibrated(stages).convert(samples(3), [outside[0], stages.fixed("second")])
    finally:
        stages.folder.chmod(0o755)
    assert sorted(stages.folder.iterdir()) == before


# -- ConvertTool and compiler ------------------------------------------------------------------------------------------
def test_converter_and_compiler_write_what_the_programs_write(tmp_path: Path) -> None:
    folder, judge = tmp_path / "模 型", tmp_path / "judge"
    folder.mkdir()
    judge.mkdir()
    source = ["--model_file", str(MODEL), "--input_config", str(INI), "--soc_version", CHIP]
    assert convert_tool.main(["onnx", *source, "--output_file", str(judge)]) == 0
    made = calibrator_custom.converter("onnx", model_file=MODEL, input_config=INI).convert(folder)
    assert made == utils.get_out_model_name(str(MODEL), str(folder), "Float")
    for name in ("Converted_Net_float.sim", "Debug_Converted_Net_float.sim"):
        assert (folder / name).read_bytes() == (judge / name).read_bytes()
    fixed = str(converted() / "digits_fixed.sim")
    with pytest.raises(ValueError, match="expected set_soc_version before compile"):
        calibrator_custom.compiler(fixed).compile(folder)
    calibrator_custom.set_soc_version(CHIP)
    options = ["-b", "1,3", "--batch_mode", "one_buf", "-c", "Classification", "--soc_version", CHIP]
    assert compiler_tool.main(["-m", fixed, "-o", str(judge), *options]) == 0
    compiler = calibrator_custom.compiler(fixed, batch=[1, 3], batch_mode="one_buf", category="Classification")
    made = compiler.compile(folder)
    assert made == utils.get_out_model_name(fixed, folder, "Offline") == str(folder / "digits_fixed.sim_sgsimg.img")
    assert Path(made).read_bytes() == (judge / "digits_fixed.sim_sgsimg.img").read_bytes()


def test_what_converter_and_compiler_refuse(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weight_file is missing"):
        calibrator_custom.converter("caffe", model_file=MODEL, input_config=INI)
    with pytest.raises(ValueError, match="no.onnx"):
        calibrator_custom.converter("onnx", model_file=tmp_path / "no.onnx", input_config=INI).convert(tmp_path)
    calibrator_custom.set_soc_version(CHIP)
    with pytest.raises(ValueError, match="float"):
        calibrator_custom.compiler(converted() / "digits_float.sim").compile(tmp_path)
    with pytest.raises(ValueError, match="batch"):
        calibrator_custom.compiler(converted() / "digits_fixed.sim", batch=0).compile(tmp_path)
    for batch in ("3", [1, "2"], None):
        with pytest.raises(ValueError, match="batch: expected a whole number (above 0|or a list of them)"):
            calibrator_custom.compiler(converted() / "digits_fixed.sim", batch=batch)
    assert not list(tmp_path.iterdir())


def test_frames_that_an_image_takes_only_stacked(tmp_path: Path) -> None:
    calibrator_custom.set_soc_version(CHIP)
    batches = np.array([2, 3])
    several = calibrator_custom.compiler(converted() / "digits_fixed.sim", batch=batches, batch_mode="one_buf")
    model = calibrator_custom.offline_simulator(several.compile(tmp_path / "several.img"))
    with pytest.raises(ValueError, match=r"2 or 3 frames of shape \[1, 64, 64, 3\] stacked, got \[1, 64, 64, 3\]"):
        model.set_input(0, np.zeros((1, 64, 64, 3), np.uint8))


# -- files -------------------------------------------------------------------------------------------------------------
def test_utils(tmp_path: Path) -> None:
    assert utils.get_out_model_name("a/b_float.sim") == "a/b_fixed.sim"
    assert utils.get_out_model_name("a/b.sim", tmp_path, "Fixed") == str(tmp_path / "b_fixed.sim")
    assert utils.get_out_model_name("a/b_fixed.sim", None, "Offline") == "a/b_fixed.sim_sgsimg.img"
    assert utils.get_out_model_name("a/b_fixed.sim", "c.img", "Offline") == "c.img"
    assert utils.get_out_model_name("a/b.onnx", None, "Float") == "a/Converted_Net_float.sim"
    with pytest.raises(ValueError, match="expected one of Float, Fixed, Offline, got 'fixed'"):
        utils.get_out_model_name("a.sim", None, "fixed")
    with pytest.raises(ValueError, match="ends in .img"):
        utils.get_out_model_name("a.sim", "b.sim", "Offline")
    pictures = utils.all_path(CALIBRATION)
    assert len(pictures) == 32 and pictures == sorted(pictures) and pictures[0].endswith("digit_000.png")
    with pytest.raises(ValueError, match="expected a folder"):
        utils.all_path(SCRIPT)
    with pytest.raises(ValueError, match="holds no pictures"):
        utils.all_path(tmp_path)


def test_image_generator() -> None:
    function = utils.image_preprocess_func(str(SCRIPT))
    pictures = utils.all_path(str(CALIBRATION))[:2]
    (first,), (second,) = utils.image_generator(pictures, function)
    assert first.shape == second.shape == (1, 64, 64, 3) and first.dtype == np.float32
    pairs = list(utils.image_generator([pictures, tuple(pictures[::-1])], [function, function], norm=False))
    assert np.array_equal(pairs[0][0], function(pictures[0], norm=False)) and pairs[0][0].dtype == np.uint8
    assert np.array_equal(pairs[0], pairs[1][::-1])
    with pytest.raises(ValueError, match="sample 0: expected 1 paths, got 2"):
        next(utils.image_generator([pictures], [function]))
    with pytest.raises(ValueError, match="expected a list of paths, got 'a.png'"):
        utils.image_generator("a.png", [function])
    for functions in ([], ["script.py"], "script.py"):
        with pytest.raises(ValueError, match=r"^functions(\[0\])?: expected a function"):
            utils.image_generator(pictures, functions)
    with pytest.raises(ValueError, match="no such preprocess script"):
        utils.image_preprocess_func("onnx_nothing")
    with pytest.raises(ValueError, match="no such file"):
        function("no.png")


# -- what is promised --------------------------------------------------------------------------------------------------
PUBLIC = {
    "SIM_Calibrator": "()",
    "SIM_Calibrator.convert": "(self, img_gen, fix_model, num_process=10, quant_level='L5', quant_param=None)",
    "SIM_Calibrator.forward": "(self, *inputs)",
    "SIM_Simulator": "()",
    "SIM_Simulator.__call__": "(self, inputs, num_process=10)",
    "SIM_Simulator.forward": "(self, *inputs)",
    "calibrator": "(model_path, input_config_path)",
    "compiler": "(model_path, *, batch=1, batch_mode='n_buf', inplace_input_buf=False, category=None)",
    "compiler.compile": "(self, output=None)",
    "converter": "(platform, *, input_config, input_shapes=None, skip_simplify=False, quant_file=None, "
    "postprocess=None, postprocess_input_config=None, **options)",
    "converter.convert": "(self, output_file)",
    "fixed_simulator": "(path, threads=0)",
    "float_simulator": "(path, threads=0)",
    "offline_simulator": "(path, threads=0)",
    "set_soc_version": "(name)",
    "utils.all_path": "(folder)",
    "utils.check_quant_param": "(parameters)",
    "utils.convert_to_input_formats": "(img, detail)",
    "utils.get_out_model_name": "(model_path, output=None, phase='Fixed')",
    "utils.image_generator": "(images, functions, norm=True)",
    "utils.image_preprocess_func": "(script)",
}
METHODS = {
    "get_input_details": "(self)",
    "get_output": "(self, index)",
    "get_output_details": "(self)",
    "get_tensor_details": "(self)",
    "invoke": "(self)",
    "set_input": "(self, index, data)",
}
for _model in ("calibrator", "fixed_simulator", "float_simulator", "offline_simulator"):
    PUBLIC |= {f"{_model}.{method}": signature for method, signature in METHODS.items()}


def signatures() -> dict[str, str]:
    """Every public name and method of calibrator_custom with its parameters."""
    found: dict[str, Any] = {}
    for module, prefix in ((calibrator_custom, ""), (utils, "utils.")):
        for name in set(module.__all__) - {"utils", "__version__"}:
            thing = found[f"{prefix}{name}"] = getattr(module, name)
            for method in dir(thing) if inspect.isclass(thing) else ():
                value = getattr(thing, method)
                if inspect.isfunction(value) and (method[0] != "_" or method == "__call__"):
                    found[f"{name}.{method}"] = value
    plain = inspect.Parameter.empty
    return {
        name: str(signature.replace(parameters=parameters, return_annotation=plain))
        for name, thing in found.items()
        for signature in [inspect.signature(thing)]
        for parameters in [[p.replace(annotation=plain) for p in signature.parameters.values()]]
    }


def test_public_names_and_signatures() -> None:
    assert signatures() == PUBLIC
    every = ["SIM_Calibrator", "SIM_Simulator", "__version__", "calibrator", "compiler", "converter"]
    every += ["fixed_simulator", "float_simulator", "offline_simulator", "set_soc_version", "utils"]
    assert sorted(calibrator_custom.__all__) == every
    for name in PUBLIC:
        thing: Any = calibrator_custom
        for part in name.split("."):
            thing = getattr(thing, part)
        assert inspect.getdoc(thing), f"{name} is not documented"


def test_details_of_a_calibrator(stages: Stages) -> None:
    model = calibrator_custom.calibrator(str(stages.float("first")), str(stages.ini("first")))
    for (details,), name, shape in (
        (model.get_input_details(), "x", [1, 3, 5, 2]),
        (model.get_output_details(), "y", [1, 3, 5, 4]),
    ):
        assert list(details) == ["index", "shape", "name", "dtype"]
        assert (details["index"], details["name"], details["dtype"]) == (0, name, np.float32)
        assert details["shape"].dtype == np.int32 and details["shape"].tolist() == shape
    tensors = model.get_tensor_details()
    assert all(list(tensor) == ["dtype", "name", "qtype", "shape"] for tensor in tensors)
    assert {tensor["name"]: (tensor["dtype"], tensor["qtype"]) for tensor in tensors}["x"] == ("FLOAT32", "UINT8")


MANUAL = (  # the samples of the manual, 4.2.2, as they are printed
    """
import calibrator_custom
calibrator_custom.set_soc_version('CHIP')
calibrator = calibrator_custom.calibrator(model_path, input_config_path)
""",
    """
input_details = model.get_input_details()
output_details = model.get_output_details()
model.set_input(0, img_data)
model.invoke()
result = model.get_output(0)
tensor_details = model.get_tensor_details()
""",
    """
import calibrator_custom
class Net(calibrator_custom.SIM_Calibrator):
    def __init__(self):
        super().__init__()
        self.model = calibrator_custom.calibrator(model_path, input_config)
    def forward(self, x):
        out_details = self.model.get_output_details()
        self.model.set_input(0, x)
        self.model.invoke()
        result_list = []
        for idx in range(len(out_details)):
            result = self.model.get_output(idx)
            result_list.append(result)
        return result_list
net = Net()
preprocess_func = calibrator_custom.utils.image_preprocess_func(model_name)
def image_generator(folder_path, preprocess_func):
    images = [os.path.join(folder_path, img) for img in os.listdir(folder_path)]
    for image in images:
        img = preprocess_func(image)
        yield [img]
img_gen = image_generator('./images', preprocess_func)
net.convert(img_gen, fix_model=[out_model_path])
""",
)


def test_the_samples_of_the_manual(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stages.folder)
    Path("images").mkdir()
    for number, x in enumerate(samples()):
        np.save(f"images/{number}.npy", x)
    Path("load.py").write_text("import numpy as np\ndef image_preprocess(path, norm=True):\n    return np.load(path)\n")
    scope: dict[str, Any] = {
        "os": os,
        "model_path": str(stages.float("first")),
        "input_config_path": str(stages.ini("first")),
        "input_config": str(stages.ini("first")),
        "model_name": "load.py",
        "out_model_path": "out_fixed.sim",
        "img_data": next(samples()),
    }
    exec(MANUAL[0].replace("CHIP", CHIP), scope)
    scope["model"] = scope["calibrator"]
    exec(MANUAL[1], scope)
    assert scope["result"].shape == (1, 3, 5, 4)
    exec(MANUAL[2], scope)
    fixed = calibrator_custom.fixed_simulator("out_fixed.sim")
    fixed.set_input(0, scope["img_data"])
    fixed.invoke()
    assert np.allclose(fixed.get_output(0), scope["result"], atol=0.1)


def test_the_samples_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/PYTHON_API.md: its samples, one after the other, and the names and keys that it lists."""
    page = (ROOT / "docs/PYTHON_API.md").read_text(encoding="utf-8")
    (tmp_path / "build/demo").mkdir(parents=True)
    (tmp_path / "SGS_Models").symlink_to(ROOT / "SGS_Models")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(block, scope)
    assert scope["classes"][:4] == [labels()[Path(path).name] for path in scope["tests"][:4]]
    for name in (*calibrator_custom.__all__, *utils.__all__):
        assert f"`{name}" in page, name
    fixed = " ".join(calibrator_custom.fixed_simulator(scope["fixed_model"]).get_input_details()[0])
    assert f"`{fixed}`" in page


# -- examples ----------------------------------------------------------------------------------------------------------
def test_sim_calibrator_example(tmp_path: Path) -> None:
    pictures = sample_list(tmp_path, CALIBRATION, 8)
    options = ["-m", converted() / "digits_float.sim", "--input_config", INI, "-n", SCRIPT, "--soc_version", CHIP]
    program = "Scripts/examples/sim_calibrator.py"
    done = launch(program, "-i", pictures, *options, "-o", tmp_path / "我 的.sim", "--quant_level", "L2", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"Fixed model at: {tmp_path / '我 的.sim'}\n"), done.stderr
    assert (tmp_path / "我 的.sim").read_bytes() == (converted() / "digits_fixed.sim").read_bytes()
    done = launch(program, "-i", tmp_path / "none", *options, "-o", tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and done.stderr.startswith("error: ")


@pytest.mark.parametrize(("mode", "batch", "runs"), [("n_buf", 3, 3), ("one_buf", [2, 3], 3)])
def test_multi_batch_example(tmp_path: Path, mode: str, batch: Any, runs: int) -> None:
    calibrator_custom.set_soc_version(CHIP)
    model = calibrator_custom.compiler(converted() / "digits_fixed.sim", batch=batch, batch_mode=mode).compile(tmp_path)
    pictures = tmp_path / "some pictures"
    pictures.mkdir()
    for path in sorted(TEST.glob("*.png"))[:7]:
        (pictures / path.name).symlink_to(path)
    options = ["-i", pictures, "-m", model, "-n", SCRIPT, "--soc_version", CHIP]
    done = launch("Scripts/examples/multi_batch_simulator.py", *options, cwd=tmp_path)
    told = f"7 pictures, {mode}, 3 frames a run: {runs} runs\nlogits: equal to one frame at a time\n"
    assert (done.returncode, done.stdout) == (0, told), done.stderr
    done = launch("Scripts/examples/multi_batch_simulator.py", *options, "-b", "4", cwd=tmp_path)
    assert done.returncode == 2 and "got 4" in done.stderr


def test_multi_batch_example_feeds_the_bytes_of_input_formats(tmp_path: Path) -> None:
    """Of a list file, to a model that reads NV12."""
    ini = tmp_path / "nv12.ini"
    ini.write_text(INI.read_text(encoding="utf-8").replace("\ninput_formats=RGB", "\ninput_formats=YUV_NV12"))
    pictures = sample_list(tmp_path, CALIBRATION, 3)
    options = ["-m", converted() / "digits_float.sim", "--input_config", ini, "-i", pictures, "-n", SCRIPT]
    options += ["--quant_level", "L1", "--soc_version", CHIP, "-o", tmp_path / "nv12.sim"]
    assert calibrator_tool.main(list(map(str, options))) == 0
    calibrator_custom.set_soc_version(CHIP)
    model = calibrator_custom.compiler(tmp_path / "nv12.sim", batch=2).compile(tmp_path / "nv12.img")
    done = launch("Scripts/examples/multi_batch_simulator.py", "-i", pictures, "-m", model, "-n", SCRIPT, cwd=tmp_path)
    told = "3 pictures, n_buf, 2 frames a run: 2 runs\nlogits: equal to one frame at a time\n"
    assert (done.returncode, done.stdout) == (0, told), done.stderr
