"""Lists of samples, preprocess scripts, what models are fed, and output files."""

from __future__ import annotations

import ast
import errno
import multiprocessing
import os
import pickle
import stat
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sgs.config.formats import InputSpec
from sgs.config.input_config import ConvSpec, InputConfig, read_input_config
from sgs.data import preprocess
from sgs.data.feed import fixed_inputs, float_inputs, normalisation_mismatch, plain_inputs
from sgs.data.files import atomic_output, atomic_outputs, check_output
from sgs.data.images import DATA_EXTENSIONS, PROBLEMS_SHOWN, resolve_samples
from sgs.data.preprocess import Preprocessor, load_preprocessors
from sgs.data.stored import stored
from sgs.errors import Problems, UserError
from sgs.ir import Tensor
from sgs.numeric.types import DType
from shipped import EXAMPLES, PICTURES

NO_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a space and other characters in its name, and some pictures below it."""
    place = tmp_path / "数据 set"
    for name in ("b.png", "a.JPG", "sub dir/图.bmp", ".hidden.png", "notes.txt", ".git/x.png"):
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    monkeypatch.chdir(place)
    return place


def write_list(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# ---- -i --------------------------------------------------------------------------------------------------------------


def test_a_single_file(folder: Path) -> None:
    assert resolve_samples("a.JPG", 1) == [(Path("a.JPG"),)]


def test_a_folder_is_searched_in_sorted_order(folder: Path) -> None:
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    found = resolve_samples(folder, 1)
    assert [sample[0].relative_to(folder).as_posix() for sample in found] == ["a.JPG", "b.png", "sub dir/图.bmp"]


def test_extensions_of_data() -> None:
    listed = "bmp dib jpeg jpg jpe jp2 png pbm pgm ppm pxm pnm sr ras tiff tif hdr pic raw npy bin"
    assert set(listed.split()) == DATA_EXTENSIONS


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"], ids=["plain", "bom"])
def test_a_list(folder: Path, newline: str, bom: str) -> None:
    lines = [bom + "b.png , sub dir/图.bmp", "", "# a comment", "a.JPG,b.png", ""]
    write_list(folder / "list 1.txt", newline.join(lines))
    expected = [(Path("b.png"), Path("sub dir/图.bmp")), (Path("a.JPG"), Path("b.png"))]
    assert resolve_samples("list 1.txt", 2) == expected


def test_paths_of_a_list_are_sought_here_and_then_beside_the_list(folder: Path) -> None:
    write_list(folder / "sub dir/b.png", b"another")
    file = write_list(folder / "sub dir/list.txt", "b.png\n图.bmp\n")
    assert resolve_samples(file, 1) == [(Path("b.png"),), (folder / "sub dir/图.bmp",)]


def test_a_prefix_is_joined_to_every_path(folder: Path) -> None:
    write_list(folder / "list.txt", "图.bmp,图.bmp\n")
    assert resolve_samples("sub dir:list.txt", 2) == [(Path("sub dir/图.bmp"),) * 2]
    assert resolve_samples(f"{folder}/sub dir/:list.txt", 2) == [(folder / "sub dir/图.bmp",) * 2]


def test_colons_and_commas_in_names(folder: Path) -> None:
    write_list(folder / "a,b.png", "x")
    write_list(folder / "12:30.txt", "a,b.png\n")
    assert resolve_samples("12:30.txt", 1) == [(Path("a,b.png"),)]
    assert resolve_samples(".:12:30.txt", 1) == [(Path("a,b.png"),)]


# (argument, text of list.txt, inputs, parts of the message)
BAD_IMAGES: list[tuple[str, str | bytes, int, list[str]]] = [
    ("none.png", "", 1, ["none.png", "no such file or folder"]),
    ("none.txt", "", 1, ["none.txt", "no such file or folder"]),
    ("x:none.txt", "", 1, ["x:none.txt", "no such file or folder"]),
    ("a.JPG", "", 2, ["a single file is for models with one input, this one has 2", "list file"]),
    (".", "", 2, ["a folder is for models with one input"]),
    ("empty", "", 1, ["holds no pictures", "bmp"]),
    ("list.txt", "", 1, ["the list names no files"]),
    ("list.txt", "# nothing\n\n", 1, ["the list names no files"]),
    ("list.txt", "a.JPG,b.png\n", 1, ["line 1", "2 paths for a model with 1 input"]),
    ("list.txt", "\na.JPG\n", 2, ["line 2", "1 paths for a model with 2 inputs"]),
    ("list.txt", "a.JPG\n\nc.png\nd.png\n", 1, ["2 problems", "line 3: no such file: 'c.png'", "line 4"]),
    ("list.txt", "a.JPG,\n", 2, ["line 1", "no such file: ''"]),
    ("list.txt", b"\xff\xd8\xff\xe0 not text", 1, ["neither a known kind of data nor a list"]),
    ("other:list.txt", "a.JPG\n", 1, ["no such file: 'a.JPG' (looked in 'other')"]),
]


@pytest.mark.parametrize(
    ("argument", "text", "inputs", "parts"), BAD_IMAGES, ids=[str(i) for i in range(len(BAD_IMAGES))]
)
def test_bad_images(folder: Path, argument: str, text: str | bytes, inputs: int, parts: list[str]) -> None:
    (folder / "empty").mkdir()
    write_list(folder / "list.txt", text)
    with pytest.raises(UserError) as caught:
        resolve_samples(argument, inputs)
    assert [part for part in parts if part not in caught.value.render()] == [], caught.value.render()


def test_a_list_full_of_mistakes_is_not_printed_in_full(folder: Path) -> None:
    write_list(folder / "list.txt", "none.png\n" * 500)
    with pytest.raises(Problems) as caught:
        resolve_samples("list.txt", 1)
    assert len(caught.value.problems) == PROBLEMS_SHOWN + 1
    assert "and 480 more lines" in caught.value.render()


# ---- preprocess scripts ----------------------------------------------------------------------------------------------

SCRIPT = """import numpy as np
def image_preprocess(img_path, norm=True):
    return {result}
"""


def script(folder: Path, text: str, name: str = "pre 处理.py") -> Path:
    return write_list(folder / name, text)


def returning(folder: Path, result: str, name: str = "pre 处理.py") -> Preprocessor:
    return Preprocessor(script(folder, SCRIPT.format(result=result), name))


def test_a_script_is_run_and_its_array_made_contiguous(folder: Path) -> None:
    pre = returning(folder, "np.arange(6.).reshape(2, 3).T * (1 if norm else 10)")
    array = pre("b.png", True)
    assert array.flags.c_contiguous
    assert array.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert pre("b.png", False)[2, 1] == 50


def test_the_image_is_passed_as_a_string(folder: Path) -> None:
    pre = returning(folder, "np.frombuffer(img_path.encode(), np.uint8)")
    assert bytes(pre(folder / "sub dir/图.bmp", False)).decode() == f"{folder}/sub dir/图.bmp"


def test_neighbours_can_be_imported_while_loading_and_running(folder: Path) -> None:
    lazily = "import numpy as np\nfrom letterbox import VALUE\ndef image_preprocess(p, norm=True):\n"
    lazily += "    import later\n    return np.array([VALUE, later.VALUE])\n"
    for name, value in (("one", 1), ("two", 2)):
        write_list(folder / name / "letterbox.py", f"VALUE = {value}")
        write_list(folder / name / f"later_{name}.py", "VALUE = 7")
        text = lazily.replace("later", f"later_{name}")
        script(folder / name, text, "pre.py")
    before = list(sys.path)
    results = [Preprocessor(folder / name / "pre.py")("b.png", True).tolist() for name in ("one", "two")]
    assert results == [[1, 7], [2, 7]]
    assert sys.path == before
    assert not list(folder.glob("one/__pycache__/pre.*"))


def test_a_changed_script_is_read_afresh(folder: Path) -> None:
    assert returning(folder, "np.array([1])")("b.png", True) == [1]
    assert returning(folder, "np.array([2])")("b.png", True) == [2]


def test_a_script_travels_to_other_processes(folder: Path) -> None:
    pre = returning(folder, "np.ones(2)")
    assert pickle.loads(pickle.dumps(pre))("b.png", True).tolist() == [1, 1]
    assert pre.__reduce__() == (Preprocessor, (pre.path,))


@pytest.mark.skipif("spawn" not in multiprocessing.get_all_start_methods(), reason="no spawn here")
def test_a_script_survives_spawn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{root / 'Scripts'}{os.pathsep}{root / 'tests'}")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        result = pool.apply(returning(folder, "np.ones(2)"), ("b.png", True))
    assert result.tolist() == [1, 1]


def test_load_preprocessors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one.py", "two.py", "methods/shipped.py"):
        script(folder, SCRIPT.format(result="np.ones(1)"), name)
    monkeypatch.setattr(preprocess, "METHOD_FOLDER", folder / "methods")
    names = [pre.path.name for pre in load_preprocessors("one.py, two.py,shipped", 3)]
    assert names == ["one.py", "two.py", "shipped.py"]


# (text of pre.py, argument, inputs, parts of the message)
BAD_SCRIPTS: list[tuple[str, str, int, list[str]]] = [
    ("", "none.py", 1, ["none.py", "no such preprocess script"]),
    ("", ".", 1, ["is a folder"]),
    ("", "pre.py", 2, ["1 scripts for a model with 2 inputs"]),
    ("", "pre.py", 1, ["has no function image_preprocess", "def image_preprocess(img_path, norm=True)"]),
    ("def preprocess(p): pass", "pre.py", 1, ["has no function", "it defines preprocess"]),
    ("image_preprocess = 3", "pre.py", 1, ["has no function image_preprocess"]),
    ("def image_preprocess(path): pass", "pre.py", 1, ["cannot be called with a path and norm="]),
    ("x = 1\n\ndef f(:\n", "pre.py", 1, ["line 3", "SyntaxError"]),
    ("\nimport no_such_package_1", "pre.py", 1, ["line 2", "ModuleNotFoundError", "no_such_package_1", "install"]),
    ("\n\n1 / 0", "pre.py", 1, ["line 3", "cannot be loaded: ZeroDivisionError: division by zero"]),
    ("import sys\nsys.exit(0)", "pre.py", 1, ["line 2", "SystemExit"]),
]


@pytest.mark.parametrize(
    ("text", "argument", "inputs", "parts"), BAD_SCRIPTS, ids=[str(i) for i in range(len(BAD_SCRIPTS))]
)
def test_bad_scripts(folder: Path, text: str, argument: str, inputs: int, parts: list[str]) -> None:
    script(folder, text, "pre.py")
    with pytest.raises(UserError) as caught:
        load_preprocessors(argument, inputs)
    assert [part for part in parts if part not in caught.value.render()] == [], caught.value.render()


# (what the script returns, parts of the message)
BAD_RESULTS: list[tuple[str, list[str]]] = [
    ("None", ["returned None, not a numpy.ndarray"]),
    ("[1, 2]", ["returned list, not a numpy.ndarray"]),
    ("1 / 0", ["line 3", "raised ZeroDivisionError: division by zero"]),
    ("exit(3)", ["raised SystemExit: 3"]),
    ("np.array(['a'])", ["returned an array of <U1"]),
    ("np.array([1, None])", ["returned an array of object"]),
    ("np.array([1, np.nan, np.inf])", ["2 values that are not finite"]),
]


@pytest.mark.parametrize(("result", "parts"), BAD_RESULTS)
def test_bad_results(folder: Path, result: str, parts: list[str]) -> None:
    pre = returning(folder, result)
    with pytest.raises(UserError) as caught:
        pre("b.png", False)
    message = caught.value.render()
    parts = [*parts, "image_preprocess('b.png', norm=False)", str(pre.path)]
    assert [part for part in parts if part not in message] == [], message
    if "raised" in message:
        assert caught.value.__cause__ is not None


def test_an_unreadable_picture_is_named(folder: Path) -> None:
    pre = Preprocessor(script(folder, "import cv2\ndef image_preprocess(p, norm=True):\n    return cv2.imread(p)[0]\n"))
    with pytest.raises(UserError, match="b.png is not a picture that can be decoded"):
        pre("b.png", True)
    with pytest.raises(UserError, match="none.png: no such file"):
        pre("none.png", True)


# ---- feeding ---------------------------------------------------------------------------------------------------------


def config_of(*specs: InputSpec) -> InputConfig:
    return InputConfig(specs, (), ConvSpec(), Path("input_config.ini"), "")


def picture(
    training: str = "RGB", fed: str = "RGB", layout: str = "NHWC", mean: float = 0.0, std: float = 255.0
) -> InputSpec:
    count = 1 if training == "GRAY" else 3
    return InputSpec("x", training, fed, True, (mean,) * count, (std,) * count, layout=layout)


RAW_F32 = InputSpec("x", "RAWDATA_F32_NHWC", "RAWDATA_F32_NHWC")
RAW_S16 = InputSpec("x", "RAWDATA_S16_NHWC", "RAWDATA_S16_NHWC")
RAW_U8 = InputSpec("x", "RAWDATA_U8_NHWC", "RAWDATA_U8_NHWC")
PIXELS = "np.arange(1 * 2 * 4 * 3, dtype=np.uint8).reshape(1, 2, 4, 3)"
GREY = "np.arange(1 * 2 * 4, dtype=np.uint8).reshape(1, 2, 4, 1)"


def feed(
    folder: Path,
    spec: InputSpec,
    result: str,
    shape: tuple[int, ...],
    norm: bool = False,
    dtype: DType = DType.FLOAT32,
) -> np.ndarray[Any, Any]:
    call = float_inputs if norm else fixed_inputs
    arrays = call(config_of(spec), [returning(folder, result)], (folder / "b.png",), {"x": Tensor("x", shape, dtype)})
    assert list(arrays) == ["x"]
    assert arrays["x"].flags.c_contiguous
    assert arrays["x"].shape == shape
    return arrays["x"]


def test_float_inputs(folder: Path) -> None:
    array = feed(folder, picture(), PIXELS + " / 255", (1, 2, 4, 3), norm=True)
    assert array.dtype == np.float32
    assert array[0, 1, 3, 2] == np.float32(23 / 255)
    assert feed(folder, RAW_S16, "np.array([[True, False]])", (1, 2), norm=True).tolist() == [[1, 0]]


def test_float_models_may_read_integers(folder: Path) -> None:
    array = feed(folder, RAW_S16, "np.array([[3.0, -2.0]])", (1, 2), norm=True, dtype=DType.INT32)
    assert array.dtype == np.int32 and array.tolist() == [[3, -2]]
    assert feed(folder, RAW_S16, "np.array([[0, 1]])", (1, 2), norm=True, dtype=DType.BOOL).tolist() == [[False, True]]
    with pytest.raises(UserError, match=r"norm=True\) returned 0.5, needed are whole numbers of int32"):
        feed(folder, RAW_S16, "np.array([[0.5, 1]])", (1, 2), norm=True, dtype=DType.INT32)
    with pytest.raises(UserError, match="returned values -1..300, needed are whole numbers of uint8"):
        feed(folder, RAW_S16, "np.array([[-1, 300]])", (1, 2), norm=True, dtype=DType.UINT8)


def test_a_missing_batch_axis_is_added(folder: Path) -> None:
    assert feed(folder, picture(), PIXELS + "[0]", (1, 2, 4, 3)).dtype == np.uint8
    assert feed(folder, RAW_F32, "np.ones(5)", (1, 5)).dtype == np.float32


@pytest.mark.parametrize(("training", "fed"), [("RGB", "RGB"), ("RGB", "BGR"), ("BGR", "RGB"), ("BGR", "BGR")])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_channels_are_swapped_between_training_and_input_format(
    folder: Path, training: str, fed: str, layout: str
) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    nchw = layout == "NCHW"
    shape = (1, 3, 2, 4) if nchw else (1, 2, 4, 3)
    text = PIXELS + (".transpose(0, 3, 1, 2)" if nchw else "")
    array = feed(folder, picture(training, fed, layout), text, shape)
    expected = pixels if training == fed else pixels[..., ::-1]
    assert np.array_equal(array, expected.transpose(0, 3, 1, 2) if nchw else expected)


# (spec, what the script returns, shape, dtype, first and last value)
GOOD_FIXED: list[tuple[InputSpec, str, tuple[int, ...], str, float, float]] = [
    (picture("GRAY", "GRAY"), GREY, (1, 2, 4, 1), "uint8", 0, 7),
    (picture(), PIXELS + ".astype(np.float64)", (1, 2, 4, 3), "uint8", 0, 23),
    (picture(), PIXELS + ".astype(np.int32) + 232", (1, 2, 4, 3), "uint8", 232, 255),
    (RAW_F32, "np.array([[-1.5, 2.5]])", (1, 2), "float32", -1.5, 2.5),
    (RAW_S16, "np.array([[-32768, 32767]], np.int16)", (1, 2), "int16", -32768, 32767),
    (RAW_S16, "np.array([[-32768, 32767]], np.int64)", (1, 2), "int16", -32768, 32767),
]


@pytest.mark.parametrize(("spec", "result", "shape", "dtype", "first", "last"), GOOD_FIXED)
def test_fixed_inputs(
    folder: Path, spec: InputSpec, result: str, shape: tuple[int, ...], dtype: str, first: float, last: float
) -> None:
    array = feed(folder, spec, result, shape)
    assert (array.dtype.name, array.flat[0], array.flat[-1]) == (dtype, first, last)


# (spec, what the script returns, shape, norm, part of the message)
BAD_FEEDS: list[tuple[InputSpec, str, tuple[int, ...], bool, str]] = [
    (picture(), PIXELS, (1, 4, 2, 3), False, "returned shape [1, 2, 4, 3], the model needs [1, 4, 2, 3]"),
    (picture(), PIXELS + "[0]", (2, 2, 4, 3), False, "returned shape [2, 4, 3]"),
    (picture(), PIXELS + ".transpose(0, 3, 1, 2)", (1, 2, 4, 3), False, "transpose to (0, 2, 3, 1)"),
    (picture(layout="NCHW"), PIXELS, (1, 3, 2, 4), True, "transpose to (0, 3, 1, 2)"),
    (picture(), PIXELS + " / 255", (1, 2, 4, 3), False, "needed are whole numbers 0..255"),
    (picture(), PIXELS + " - 1.0", (1, 2, 4, 3), False, "values -1..22"),
    (picture(), PIXELS + ".astype(int) * 100", (1, 2, 4, 3), False, "values 0..2300"),
    (picture(), PIXELS + " > 0", (1, 2, 4, 3), False, "returned bool, needed is uint8"),
    (RAW_F32, "np.ones((1, 5), int)", (1, 5), False, "returned int64, needed is float32"),
    (RAW_S16, "np.ones((1, 5))", (1, 5), False, "returned float64, needed is int16"),
    (RAW_S16, "np.full((1, 5), 40000)", (1, 5), False, "needed are values of int16"),
    (RAW_F32, "np.full((1, 5), 1e300)", (1, 5), True, "float32 cannot hold"),
    (RAW_U8, "np.full((1, 5), 256, np.int16)", (1, 5), False, "needed are values of uint8"),
]


@pytest.mark.parametrize(
    ("spec", "result", "shape", "norm", "part"), BAD_FEEDS, ids=[str(i) for i in range(len(BAD_FEEDS))]
)
def test_bad_feeds(folder: Path, spec: InputSpec, result: str, shape: tuple[int, ...], norm: bool, part: str) -> None:
    with pytest.raises(UserError) as caught:
        feed(folder, spec, result, shape, norm)
    assert part in caught.value.render()


# ---- mean and std ----------------------------------------------------------------------------------------------------

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def normalised(pixels: np.ndarray[Any, Any], mean: Any, std: Any) -> np.ndarray[Any, Any]:
    return ((pixels - np.array(mean)) / np.array(std)).astype(np.float32)


@pytest.fixture
def pixels() -> np.ndarray[Any, Any]:
    return np.random.default_rng(7).integers(0, 256, (1, 15, 17, 3)).astype(np.uint8)


def test_agreement_in_every_order_and_layout(pixels: np.ndarray[Any, Any]) -> None:
    for training in ("RGB", "BGR"):
        for fed in ("RGB", "BGR", "YUV_NV12"):
            spec = InputSpec("x", training, fed, True, MEAN, STD)
            floats = normalised(pixels, spec.in_order(MEAN, training), spec.in_order(STD, training))
            assert normalisation_mismatch(spec, pixels, floats) is None
            planar = InputSpec("x", training, fed, True, MEAN, STD, layout="NCHW")
            assert normalisation_mismatch(planar, pixels.transpose(0, 3, 1, 2), floats.transpose(0, 3, 1, 2)) is None


def test_rounding_and_overshoot_of_a_resize_are_let_pass(pixels: np.ndarray[Any, Any]) -> None:
    spec = InputSpec("x", "RGB", "RGB", True, MEAN, STD)
    floats = normalised(pixels + np.random.default_rng(1).uniform(-0.5, 0.5, pixels.shape), MEAN, STD)
    floats[0, 0, 0] += 0.5  # one pixel of 255, by 29 grey levels
    assert normalisation_mismatch(spec, pixels, floats) is None


def test_raw_data_has_nothing_to_compare() -> None:
    assert normalisation_mismatch(RAW_S16, np.ones((1, 5), np.int16), np.ones((1, 5), np.float32)) is None


# (mean and std of the ini, parts of the message); the script uses MEAN and STD
DISAGREEMENTS: list[tuple[Any, Any, list[str]]] = [
    ((0, 0, 0), (1, 1, 1), ["channel R", "channel G", "channel B", "mean 123.7, std 58.4"]),
    ((127.5,) * 3, (127.5,) * 3, ["seems to use mean 116.3, std 57.12"]),
    (MEAN, (58.395, 1.0, 57.375), ["channel G", "mean 116.28) / std 1 "]),
    (MEAN[::-1], STD[::-1], ["channel R", "channel B", "agree with R and B exchanged"]),
    ((MEAN[0] + 2, *MEAN[1:]), STD, ["channel R"]),
]


@pytest.mark.parametrize(("mean", "std", "parts"), DISAGREEMENTS, ids=[str(i) for i in range(len(DISAGREEMENTS))])
def test_disagreement_is_reported_with_its_numbers(
    pixels: np.ndarray[Any, Any], mean: Any, std: Any, parts: list[str]
) -> None:
    spec = InputSpec("x", "RGB", "RGB", True, mean, std)
    message = normalisation_mismatch(spec, pixels, normalised(pixels, MEAN, STD))
    assert message is not None
    assert [part for part in parts if part not in message] == [], message
    sound = [name for name in "RGB" if f"channel {name}" not in " ".join(parts)]
    if len(parts) == 1 and parts[0].startswith("channel"):
        assert not any(f"channel {name}" in message for name in sound)


@pytest.mark.parametrize("training", ["RGB", "BGR"])
def test_a_script_that_turns_one_of_the_two_round_is_told(training: str, pixels: np.ndarray[Any, Any]) -> None:
    spec = InputSpec("x", training, "BGR", True, MEAN, STD)
    floats = normalised(pixels, spec.in_order(MEAN, training), spec.in_order(STD, training))
    message = normalisation_mismatch(spec, pixels[..., ::-1], floats)
    assert message is not None and "channel R" in message and "channel G" not in message
    assert message.endswith(
        f"; they agree with one turned round: with norm=True and norm=False the order is {training}"
    )


def test_disagreement_on_a_dark_grey_picture() -> None:
    fixed = np.zeros((1, 20, 20, 1), np.uint8)
    fixed[0, 3:9, 3:9] = 200
    message = normalisation_mismatch(picture("GRAY", "GRAY", std=255), fixed, (fixed / 128).astype(np.float32))
    assert message is not None
    assert message.startswith(
        "channel gray: (pixel - mean 0) / std 255 is 0.7843 for pixel 200, the script gives 1.562"
    )
    assert "std 128" in message


def test_shipped_scripts_agree_with_their_configurations() -> None:
    models = sorted((Path(__file__).parents[1] / "SGS_Models").glob("*/*/input_config.ini"))
    shown = PICTURES | {example.name: example.pictures for example in EXAMPLES} | {"caffe_faster_rcnn_shapes": "shapes"}
    assert [ini.parent.name for ini in models] == sorted(shown)
    resources = Path(__file__).parents[1] / "SGS_Models/resource"
    for ini in models:
        sample = resolve_samples(resources / shown[ini.parent.name] / "calibration", 1)[0]
        (pre,) = load_preprocessors(str(ini.parent / f"{ini.parent.name}.py"), 1)
        config = read_input_config(ini)
        inputs = {config.inputs[0].name: Tensor("x", pre(sample[0], True).shape, DType.FLOAT32)}
        plain, floats = (call(config, [pre], sample, inputs) for call in (plain_inputs, float_inputs))
        (name,) = plain
        assert normalisation_mismatch(config.inputs[0], plain[name], floats[name]) is None


def test_a_real_picture_with_a_non_ascii_name(folder: Path) -> None:
    image = np.random.default_rng(3).integers(0, 256, (8, 6, 3)).astype(np.uint8)
    assert cv2.imwrite("图 1.png", image)
    pre = Preprocessor(
        script(folder, "import cv2\ndef image_preprocess(p, norm=True):\n    return cv2.imread(p)[None]\n")
    )
    inputs = {"x": Tensor("x", (1, 8, 6, 3), DType.FLOAT32)}
    fed = fixed_inputs(config_of(picture("BGR", "RGB")), [pre], (Path("图 1.png"),), inputs)["x"]
    assert np.array_equal(fed[0], image[..., ::-1])


# ---- output files ----------------------------------------------------------------------------------------------------


def test_a_file_is_written_whole(folder: Path) -> None:
    with atomic_output("出 put.sim") as temporary:
        assert temporary.parent == folder
        assert temporary.suffix == ".sim"
        temporary.write_bytes(b"new")
        assert not Path("出 put.sim").exists()
    assert Path("出 put.sim").read_bytes() == b"new"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(Path("出 put.sim").stat().st_mode) == 0o666 & ~umask
    assert not list(folder.glob(".sgs-*"))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(folder: Path, error: type[BaseException]) -> None:
    Path("x.img").write_bytes(b"old")
    with pytest.raises(error), atomic_output("x.img") as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert Path("x.img").read_bytes() == b"old"
    assert not list(folder.glob(".sgs-*"))


def test_files_that_belong_together_appear_together(folder: Path) -> None:
    Path("b.img").write_bytes(b"old")
    with pytest.raises(ValueError, match="last"), atomic_outputs("a.sim", "b.img", "c.img") as (first, second, _):
        first.write_bytes(b"new")
        second.write_bytes(b"new")
        raise ValueError("the last one fails")
    assert (Path("a.sim").exists(), Path("b.img").read_bytes()) == (False, b"old")
    assert not list(folder.glob(".sgs-*"))
    with atomic_outputs("a.sim", "b.img") as files:
        for file in files:
            file.write_bytes(file.suffix.encode())
            assert (Path("a.sim").exists(), Path("b.img").read_bytes()) == (False, b"old")
    assert (Path("a.sim").read_bytes(), Path("b.img").read_bytes()) == (b".sim", b".img")
    assert not list(folder.glob(".sgs-*"))


def test_a_full_disk_is_told_of_the_file_that_was_asked_for(folder: Path) -> None:
    with pytest.raises(UserError) as caught, atomic_outputs("a.sim", "b.img") as (_, last), atomic_output(last):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.file == "b.img"
    assert not list(folder.glob(".sgs-*"))


def test_a_link_stays_a_link(folder: Path) -> None:
    Path("real.img").write_bytes(b"old")
    Path("link.img").symlink_to("real.img")
    with atomic_output("link.img") as temporary:
        temporary.write_bytes(b"new")
    assert Path("link.img").is_symlink()
    assert Path("real.img").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("none/x.img", "does not exist"),
        ("b.png/x.img", "does not exist"),
        ("sub dir", "a folder"),
        ("/dev/null", "regular"),
    ],
)
def test_bad_outputs(folder: Path, path: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        check_output(path)
    with pytest.raises(UserError, match=reason), atomic_output(path):
        pass


def test_a_folder_without_permission(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # also holds for root, who may write everywhere
    with pytest.raises(UserError, match="cannot be written to"), atomic_output("x.img"):
        pass
    assert not list(folder.glob(".sgs-*"))


@NO_ROOT
def test_a_read_only_folder(folder: Path) -> None:
    Path("locked").mkdir(mode=0o555)
    with pytest.raises(UserError, match="cannot be written to"), atomic_output("locked/x.img"):
        pass


def test_a_full_disk_is_a_user_error(folder: Path) -> None:
    with pytest.raises(UserError, match="No space left"), atomic_output("x.img"):
        raise OSError(28, "No space left on device")
    assert not Path("x.img").exists()


# ---- samples in files ------------------------------------------------------------------------------------------------


def test_stored_samples_are_read_without_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several threads read them at a time, and CPython 3.11 cannot be trusted to parse Python in several."""
    rng = np.random.default_rng(3)
    arrays = {
        "pictures": rng.standard_normal((2, 3, 5)).astype(np.float32).transpose(2, 0, 1),
        "rank 0": np.array(7, np.int64),
        "empty": np.zeros((0, 4), np.uint8),
        "flags": rng.random(9) < 0.5,
    }
    monkeypatch.setattr(ast, "parse", lambda *args, **kwargs: pytest.fail("parses"))
    first, second = stored([arrays, {"codes": np.arange(-3, 4, dtype=np.int16)}])
    for name, array in arrays.items():
        read = first[name]
        assert (read.dtype, read.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(read, array)
    np.testing.assert_array_equal(second["codes"], np.arange(-3, 4, dtype=np.int16))
