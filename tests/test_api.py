"""calibrator_custom: the manual's interface of simulators."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import calibrator_custom
import sgs.python_api.chip
from calibrator_custom import utils
from conventions import ROOT
from sgs.data.preprocess import Preprocessor
from sgs.numeric.quantise import Array
from sgs.python_api.models import ModelRunner
from shipped import CHIP, INI, MODEL, SCRIPT, TEST, converted

FLOAT_KEYS = ["index", "shape", "name", "dtype"]
INPUT_KEYS = ["name", "index", "dtype", "layouts", "shape", "training_input_formats", "input_formats"]
INPUT_KEYS += ["input_width_alignment", "input_height_alignment"]
OUTPUT_KEYS = INPUT_KEYS[:5]
BATCH_KEYS = ["batch", "batch_mode"]


@pytest.fixture(autouse=True)
def no_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a fresh process."""
    monkeypatch.setattr(sgs.python_api.chip, "_SELECTED", [])


def opened(kind: str) -> ModelRunner:
    name = {"float": "digits_float.sim", "fixed": "digits_fixed.sim", "offline": "digits.img"}[kind]
    runner: ModelRunner = getattr(calibrator_custom, f"{kind}_simulator")(str(converted() / name))
    return runner


def picture(norm: bool, name: str = "digit_000.png") -> Array:
    return Preprocessor(SCRIPT)(TEST / name, norm=norm)


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs", "dtype"),
    [
        ("float", FLOAT_KEYS, FLOAT_KEYS, np.float32),
        ("fixed", INPUT_KEYS, OUTPUT_KEYS, np.uint8),
        ("offline", INPUT_KEYS + BATCH_KEYS, OUTPUT_KEYS + BATCH_KEYS, np.uint8),
    ],
)
def test_details_and_a_run(kind: str, inputs: list[str], outputs: list[str], dtype: type) -> None:
    model = opened(kind)
    (told,), (result,) = model.get_input_details(), model.get_output_details()
    assert list(told) == inputs and list(result) == outputs
    assert (told["name"], told["index"], told["dtype"]) == ("images", 0, dtype)
    assert isinstance(told["shape"], np.ndarray) and told["shape"].dtype == np.int32
    assert told["shape"].tolist() == [1, 64, 64, 3]
    assert (result["name"], result["dtype"], result["shape"].tolist()) == ("logits", np.float32, [1, 10])
    if kind != "float":
        assert (told["layouts"], told["training_input_formats"], told["input_formats"]) == ("NHWC", "RGB", "RGB")
    model.set_input(0, picture(norm=kind == "float"))
    model.invoke()
    assert model.get_output(0).shape == (1, 10)
    assert model.get_output(0).argmax() == 7


def test_fixed_and_offline_agree() -> None:
    results = []
    for kind in ("fixed", "offline"):
        model = opened(kind)
        model.set_input(0, picture(norm=False, name="digit_009.png"))
        model.invoke()
        results.append(model.get_output(0))
    assert np.array_equal(*results)


def test_results_are_the_callers_own() -> None:
    """A result stays as it is in the next run; an input may be a view that is not contiguous, and may change later."""
    model = opened("fixed")
    pixels = picture(norm=False)
    turned = np.asfortranarray(pixels)
    model.set_input(0, turned)
    turned[:] = 0
    model.invoke()
    first = model.get_output(0)
    kept = first.copy()
    model.set_input(0, 255 - pixels)
    model.invoke()
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, model.get_output(0))
    assert first.argmax() == 7


def test_tensor_details() -> None:
    floats = {tensor["name"]: tensor for tensor in opened("float").get_tensor_details()}
    assert all(list(tensor) == ["name", "shape", "dtype", "qtype"] for tensor in floats.values())
    assert (floats["images"]["dtype"], floats["images"]["qtype"]) == ("FLOAT32", "UINT8")
    assert {tensor["qtype"] for tensor in floats.values()} == {"UINT8", "INT8", "INT16", "INT32"}
    for kind in ("fixed", "offline"):
        tensors = {tensor["name"]: tensor for tensor in opened(kind).get_tensor_details()}
        assert all(
            list(tensor) == ["name", "shape", "dtype", "min", "max", "quantization"] for tensor in tensors.values()
        )
        codes = tensors["logits/codes"]
        assert codes["dtype"] == "INT16" and len(codes["min"]) == len(codes["max"]) == len(codes["quantization"]) == 1
        (scale, zero_point), low, high = codes["quantization"][0], codes["min"][0], codes["max"][0]
        assert scale == pytest.approx(max(-low, high) / 32767, rel=1e-3) and zero_point == 0
        weights = [
            tensor for tensor in tensors.values() if tensor["dtype"] == "INT8" and len(tensor["quantization"]) > 1
        ]
        assert weights and all(len(tensor["quantization"]) in tensor["shape"] for tensor in weights)


def test_planned_types_are_what_calibration_gives() -> None:
    """Where nothing was promoted, `qtype` of the float file is `dtype` of the fixed one."""
    planned = {tensor["name"]: tensor["qtype"] for tensor in opened("float").get_tensor_details()}
    fixed = {tensor["name"]: tensor["dtype"] for tensor in opened("fixed").get_tensor_details()}
    shared = (planned.keys() & fixed.keys()) - {"images", "logits"}  # whose outer form is that of the ini
    assert len(shared) > 20
    assert {name: planned[name] for name in shared} == {name: fixed[name] for name in shared}


# -- errors ------------------------------------------------------------------------------------------------------------
MISUSES: list[tuple[str, Callable[[ModelRunner], object], str]] = [
    (
        "shape",
        lambda m: m.set_input(0, np.zeros((1, 3, 64, 64), np.uint8)),
        r"expected shape \[1, 64, 64, 3\], got \[1, 3,",
    ),
    ("frames", lambda m: m.set_input(0, np.zeros((2, 64, 64, 3), np.uint8)), r"expected shape .*got \[2, 64"),
    ("dtype", lambda m: m.set_input(0, np.zeros((1, 64, 64, 3), np.float32)), "expected dtype uint8, got float32"),
    ("list", lambda m: m.set_input(0, [1, 2]), "expected a numpy.ndarray, got list"),  # type: ignore[arg-type]
    ("index", lambda m: m.set_input(1, np.zeros((1, 64, 64, 3), np.uint8)), "input index: expected 0 to 0, got 1"),
    ("early invoke", lambda m: m.invoke(), "expected set_input for 1 inputs, got none for images"),
    ("early result", lambda m: m.get_output(0), "expected invoke()"),
    ("output index", lambda m: m.get_output(3), "output index: expected 0 to 0, got 3"),
]


@pytest.mark.parametrize(("misuse", "message"), [row[1:] for row in MISUSES], ids=[row[0] for row in MISUSES])
@pytest.mark.parametrize("kind", ["fixed", "offline"])
def test_misuse(kind: str, misuse: Callable[[ModelRunner], object], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("()", r"\(\)")):
        misuse(opened(kind))


@pytest.mark.parametrize(
    ("open_it", "name", "message"),
    [
        (calibrator_custom.float_simulator, "digits_fixed.sim", "expected a float .sim, got a fixed .sim"),
        (calibrator_custom.fixed_simulator, "digits.img", "expected a fixed .sim, got an offline .img"),
        (calibrator_custom.offline_simulator, "digits_float.sim", "expected an offline .img, got a float .sim"),
        (calibrator_custom.float_simulator, "no.sim", "No such file"),
    ],
)
def test_wrong_files(open_it: Callable[[Path], object], name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_it(converted() / name)


def compiler(**options: Any) -> object:
    return calibrator_custom.compiler(converted() / "digits_fixed.sim", **options)


def converter(platform: Any = "onnx", **options: Any) -> object:
    return calibrator_custom.converter(platform, **{"model_file": MODEL, "input_config": INI, **options})


def generator(images: Any = (TEST,), functions: Any = abs) -> object:
    return utils.image_generator(images, functions)


def formatted(detail: Any) -> object:
    return utils.convert_to_input_formats(np.zeros((1, 64, 64, 3), np.uint8), detail)


def paddle(**options: Any) -> object:
    return calibrator_custom.converter("paddle", **{"model_dir": "m", "input_config": INI, **options})


PICTURE = {"name": "x", "dtype": np.uint8, "shape": (1, 64, 64, 3), "training_input_formats": "RGB"}
NUMBERS = "a whole number or a list of them"
SHAPES = r"a list of shapes such as \[\[1, 3, 224, 224\]\]"
WRONG_ARGUMENTS: list[tuple[Callable[[], object], str]] = [
    (lambda: compiler(batch="4"), f"batch: expected {NUMBERS}, got '4'"),
    (lambda: compiler(batch=2.0), f"batch: expected {NUMBERS}, got 2.0"),
    (lambda: compiler(batch=None), f"batch: expected {NUMBERS}, got None"),
    (lambda: compiler(batch=[1, 2.0]), "batch: expected a whole number above 0, got 2.0"),
    (lambda: compiler(batch=0), "batch: expected a whole number above 0, got 0"),
    (lambda: compiler(batch_mode="one"), "batch_mode: expected one of n_buf, one_buf, got 'one'"),
    (lambda: compiler(batch_mode=None), "batch_mode: expected one of n_buf, one_buf, got None"),
    (lambda: compiler(inplace_input_buf="False"), "inplace_input_buf: expected True or False, got 'False'"),
    (lambda: compiler(category="Cats"), "category: expected one of Classification, Detection, Unknown, got 'Cats'"),
    (lambda: converter(None), "platform: expected one of onnx, .*, got None"),
    (lambda: converter("-x"), "there is no platform '-x'"),
    (lambda: converter("caffe"), "converter: weight_file is missing: caffe takes model_file, weight_file"),
    (lambda: converter(model_file=None), "model_file: expected a path, got None"),
    (lambda: converter(model=MODEL), "converter: there is no argument model: onnx takes model_file, checker"),
    (lambda: converter("paddle"), "there is no argument model_file; model_dir is missing: paddle takes model_dir, "),
    (lambda: converter("paddle", model_dir=""), "there is no argument model_file: paddle takes"),
    (lambda: converter(checker=1), "checker: expected True or False, got 1"),
    (lambda: paddle(model_dir=3), "model_dir: expected a path, got 3"),
    (lambda: paddle(opset_version="13"), "opset_version: expected a whole number above 0, got '13'"),
    (lambda: paddle(output_names=["a"]), r"output_names: expected a text, got \['a'\]"),
    (lambda: paddle(enable_onnx_checker="False"), "enable_onnx_checker: expected True or False, got 'False'"),
    (lambda: converter("tflite", skip_simplify=True), "skip_simplify: expected False: nothing of tflite is ever"),
    (lambda: converter(input_shapes="1,3,64,64"), f"input_shapes: expected {SHAPES}, got '1,3,64,64'"),
    (lambda: converter(input_shapes=[1, 3, 64, 64]), f"input_shapes: expected {SHAPES}, got 1"),
    (lambda: converter(input_shapes=[[1, 3, 64, "64"]]), r"input_shapes\[0\]: expected a whole number .*, got '64'"),
    (lambda: converter(skip_simplify="no"), "skip_simplify: expected True or False, got 'no'"),
    (lambda: generator(TEST), "images: expected a list of paths, got PosixPath"),
    (lambda: generator("x"), "images: expected a list of paths, got 'x'"),
    (lambda: generator(None), "images: expected a list of paths, got None"),
    (lambda: generator(functions="resize"), "functions: expected a function or a list of them, got 'resize'"),
    (lambda: generator(functions=None), "functions: expected a function or a list of them, got None"),
    (lambda: generator(functions=[abs, 3]), r"functions\[1\]: expected a function, got 3"),
    (lambda: formatted({}), "detail: expected an entry .*, got one without name, dtype, shape"),
    (lambda: formatted(None), r"detail: expected an entry of get_input_details\(\), got None"),
    (lambda: formatted(PICTURE), "detail: .* got one without input_formats, input_width_alignment, input_height"),
    (lambda: utils.get_out_model_name("x.sim", phase=["Fixed"]), r"phase: expected one of Float, .*, got \['Fixed'\]"),  # type: ignore[arg-type]
    (lambda: utils.image_preprocess_func(3), "image_preprocess_func: expected a path, got 3"),  # type: ignore[arg-type]
    (lambda: utils.all_path(b"x"), "all_path: expected a path, got b'x'"),  # type: ignore[arg-type]
    (lambda: utils.check_quant_param(None), "is not a list of quantisation parameters"),  # type: ignore[arg-type]
]  # fmt: skip
WRONG_ARGUMENTS += [
    (
        lambda threads=threads: calibrator_custom.fixed_simulator(converted() / "digits_fixed.sim", threads),
        f"threads: expected a whole number from 0, got {threads!r}",
    )
    for threads in ("2", 2.5, -1, None, True)
]  # fmt: skip


@pytest.mark.parametrize(("use", "message"), WRONG_ARGUMENTS, ids=[row[1][:40] for row in WRONG_ARGUMENTS])
def test_wrong_arguments_are_named(use: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"(^|: ){message}"):
        use()


def test_numbers_of_numpy_and_arrays_of_paths_will_do() -> None:
    compiler(batch=np.int64(2), inplace_input_buf=np.bool_(True))
    converter(input_shapes=np.array([[1, 3, 64, 64]]))
    assert list(utils.image_generator(np.array(["a", "b"]), lambda path, norm: path)) == [["a"], ["b"]]


def test_chip_is_chosen_once() -> None:
    calibrator_custom.set_soc_version(CHIP.upper())
    calibrator_custom.set_soc_version(CHIP)
    opened("offline")
    with pytest.raises(ValueError, match=f"expected {CHIP}, got muffin"):
        calibrator_custom.set_soc_version("muffin")


def test_image_of_another_chip() -> None:
    calibrator_custom.set_soc_version("muffin")
    with pytest.raises(ValueError, match=f"expected an image for muffin, got one for {CHIP}"):
        opened("offline")


def test_unknown_chip() -> None:
    with pytest.raises(ValueError, match="unknown chip 'nonesuch'"):
        calibrator_custom.set_soc_version("nonesuch")


def test_import_is_light() -> None:
    """Nothing that a simulator does not need."""
    heavy = "[name for name in ('torch', 'onnxsim', 'sgs.cli') if name in sys.modules]"
    code = f"import sys, calibrator_custom; print(calibrator_custom.__version__, {heavy})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "Scripts", capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split(" ", 1) == [calibrator_custom.__version__, "[]\n"]
