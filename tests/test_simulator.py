"""simulator.py: result files of every category, labels and their figures, drawn pictures, processes, and bad input."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import json
import os
import pickle
import shutil
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, features

import shipped
from conventions import ROOT
from sgs.cli import calibrator_tool, compiler_tool, sgs_converter, simulator_tool
from sgs.data import shards
from sgs.data.files import write_result
from sgs.data.pictures import picture_size, read_picture
from sgs.data.preprocess import load_preprocessors
from sgs.errors import UserError
from sgs.evaluate.accuracy import MeanPrecision
from sgs.evaluate.average_precision import AveragePrecision
from sgs.evaluate.categories import check_category
from sgs.evaluate.coco import GroundTruth
from sgs.evaluate.detections import Decoder, Detections, detection_text, image_id, operator_detections, shared
from sgs.evaluate.draw import colour_of, draw_boxes, draw_classes
from sgs.evaluate.labels import ClassFolders, Labels, class_names, right_classes
from sgs.evaluate.sample_job import SampleJob, Task
from sgs.numeric.types import DType
from sgs.simulation import Port, Simulator
from shipped import CHIP, LABELS, SCRIPT, TEST, converted, launch, simulated

PUBLIC = pytest.mark.skipif("SGS_TEST_DATA" not in os.environ, reason="SGS_TEST_DATA is not set")
SHAPES = ROOT / "SGS_Models/onnx/onnx_yolo_shapes"
SHAPES_TEST = ROOT / "SGS_Models/resource/shapes/test"


def simulate(*arguments: object, code: int = 0) -> None:
    assert simulator_tool.main([str(argument) for argument in arguments]) == code


def digits(count: int) -> list[Path]:
    return sorted(TEST.glob("*.png"))[:count]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# -- models ------------------------------------------------------------------------------------------------------------
BOXES = 3  # of the detector below
HEIGHT, WIDTH = 6, 10


@lru_cache(maxsize=1)
def detector() -> Path:
    """A folder with detector_float.sim, _fixed.sim and .img, detector.onnx and script.py: a network that ends as a
    detection operator does. Boxes and scores depend on the mean colour of the picture."""
    folder = Path(shipped._kept().name) / "detector"
    folder.mkdir()
    random = np.random.default_rng(3)
    heads = {  # name → (weight, bias, shape)
        "boxes": (random.normal(0, 2.0, (3, BOXES * 4)), np.tile([-2.0, -1.5, 1.0, 2.0], BOXES), (1, BOXES, 4)),
        "classes": (np.zeros((3, BOXES)), np.array([0.0, 4.0, 2.0]), (1, BOXES)),
        "scores": (random.normal(0, 2.0, (3, BOXES)), np.array([0.0, 1.0, 0.5]), (1, BOXES)),
        "count": (np.zeros((3, 1)), np.array([2.0]), (1,)),
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["f"]),
    ]
    constants, outputs = [], []
    for name, (weight, bias, shape) in heads.items():
        values = {f"{name}_w": weight.astype(np.float32), f"{name}_b": bias.astype(np.float32)}
        values[f"{name}_s"] = np.array(shape, np.int64)
        constants += [numpy_helper.from_array(value, key) for key, value in values.items()]
        nodes.append(helper.make_node("Gemm", ["f", f"{name}_w", f"{name}_b"], [f"{name}_g"]))
        bounded = name in ("boxes", "scores")
        nodes += [helper.make_node("Sigmoid", [f"{name}_g"], [f"{name}_a"])] * bounded
        nodes.append(helper.make_node("Reshape", [f"{name}_a" if bounded else f"{name}_g", f"{name}_s"], [name]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])
    graph = helper.make_graph(nodes, "net", [images], outputs, constants)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "detector.onnx"
    )
    (folder / "detector.ini").write_text(
        "[INPUT_CONFIG]\ninputs=images;\ntraining_input_formats=RGB;\ninput_formats=RGB;\nquantizations=TRUE;\n"
        "mean=0:0:0;\nstd_value=255;\n[OUTPUT_CONFIG]\noutputs=boxes,classes,scores,count;\n"
        "dequantizations=TRUE,TRUE,TRUE,TRUE;\n"
    )
    script = (SHAPES / "onnx_yolo_shapes.py").read_text("utf-8")
    (folder / "script.py").write_text(script.replace("= 128, 128", f"= {HEIGHT}, {WIDTH}"))
    options = ["--model_file", folder / "detector.onnx", "--input_config", folder / "detector.ini", "-c", "Detection"]
    options += ["-i", SHAPES_TEST, "-n", folder / "script.py", "--quant_level", "L1", "--soc_version", CHIP]
    options += ["--output_file", folder / "detector.img", "--export_models"]
    assert sgs_converter.main(["onnx", *map(str, options)]) == 0
    return folder


@lru_cache(maxsize=1)
def shapes() -> Path:
    """The shapes detector as a float .sim, and its labels.txt beside it."""
    folder = Path(shipped._kept().name) / "shapes"
    folder.mkdir()
    from sgs.cli import convert_tool

    options = ["--model_file", SHAPES / "onnx_yolo_shapes.onnx", "--input_config", SHAPES / "input_config.ini"]
    options += ["--output_file", folder / "shapes_float.sim", "--soc_version", CHIP]
    assert convert_tool.main(["onnx", *map(str, options)]) == 0
    shutil.copy(SHAPES / "labels.txt", folder)
    return folder


# -- classification ----------------------------------------------------------------------------------------------------
def test_top_1_and_top_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = shipped.sample_list(tmp_path, TEST, 3)
    out = tmp_path / "out"
    out.mkdir()
    options = ["-m", converted() / "digits_fixed.sim", "-i", listed, "-n", SCRIPT, "--output", out, "-t", "fixed"]
    capsys.readouterr()
    simulate(*options, "-c", "Classification", "-l", LABELS)
    told = capsys.readouterr().out.splitlines()
    assert told[-3:-1] == ["top-1: 3 of 3, 100.00%", "top-5: 3 of 3, 100.00%"] and len(told) == 6
    files = [out / f"classification_digits_fixed.sim_{path.name}.txt" for path in digits(3)]
    best = [[int(line.split()[0]) for line in file.read_text().splitlines()[1:]] for file in files]
    assert [row[0] for row in best] == [shipped.labels()[path.name] for path in digits(3)]
    absent = next(index for index in range(10) if index not in best[2])
    labels = tmp_path / "labels.txt"
    labels.write_text(f"digit_000.png {best[0][0]}\ndigit_001.png {best[1][4]}\n# so\n\ndigit_002.png {absent}\n")
    simulate(*options, "-c", "Classification", "-l", labels)
    told = capsys.readouterr().out.splitlines()
    assert told[-3:-1] == ["top-1: 1 of 3, 33.33%", "top-5: 2 of 3, 66.67%"]


def test_class_folders(tmp_path: Path) -> None:
    for name in ("b", "a", "10", "c/deep"):
        (tmp_path / "words" / name).mkdir(parents=True)
        (tmp_path / "words" / name / "x.png").touch()
    (tmp_path / "words" / ".hidden").mkdir()
    where = tmp_path / "words"
    assert [ClassFolders(where, 4).of(where / n / "x.png") for n in ("10", "a", "b", "c", "c/deep")] == [0, 1, 2, 3, 3]
    names = ["c", "z", "10", "a", "b"]
    assert right_classes(where, [(where / n / "x.png",) for n in ("a", "10")], 5, names) == [3, 2]
    with pytest.raises(UserError, match="holds 4 class folders, and the model has 5 classes"):
        ClassFolders(where, 5)
    numbers = tmp_path / "numbers"
    for name in ("2", "10", "007"):
        (numbers / name).mkdir(parents=True)
    assert [ClassFolders(numbers, 99).of(numbers / n / "x.png") for n in ("2", "10", "007")] == [2, 10, 7]
    with pytest.raises(UserError, match="lies in none of the class folders"):
        ClassFolders(numbers, 99).of(tmp_path / "words/a/x.png")
    (tmp_path / "link").symlink_to(numbers)
    assert ClassFolders(tmp_path / "link", 99).of(numbers / "10" / "x.png") == 10
    with pytest.raises(UserError, match="holds no folders"):
        ClassFolders(numbers / "2", 99)


def test_accuracy_by_class_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for picture in digits(10):
        folder = tmp_path / "data" / str(shipped.labels()[picture.name])
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, folder)
    (tmp_path / "out").mkdir()
    options = [
        "-m",
        converted() / "digits_fixed.sim",
        "-n",
        SCRIPT,
        "--output",
        tmp_path / "out",
        "-c",
        "Classification",
    ]
    simulate(*options, "-i", tmp_path / "data", "-l", tmp_path / "data")
    assert "top-1: 10 of 10, 100.00%" in capsys.readouterr().out


def test_labels_are_found_by_path_then_by_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").touch()
    (tmp_path / "l.csv").write_text(
        "file,class_index\na/x.png,3,spare\nb/x.png,4\nelse/y 1.png,5\n", encoding="utf-8-sig"
    )
    labels = Labels(tmp_path / "l.csv")
    assert [labels.of(tmp_path / n) for n in ("a/x.png", "b/x.png", "there/y 1.png")] == [3, 4, 5]
    (tmp_path / "z.png").symlink_to(tmp_path / "b/x.png")
    assert labels.of(tmp_path / "z.png") == 4
    with pytest.raises(UserError, match="has several labels for the picture"):
        labels.of(tmp_path / "c/x.png")
    with pytest.raises(UserError, match="has no label for the picture"):
        labels.of(tmp_path / "new.png")


@pytest.mark.parametrize(
    "head",
    [
        "",
        "filename,label\n",
        "image_id,label,split\n",
        "img,class\n",
        "# made by x\n\nfile,class\n",
        "the picture class\n",
    ],
)
def test_headings_of_labels(head: str, tmp_path: Path) -> None:
    separator = " " if head.startswith("the") else ","
    path = _written(tmp_path / "l.csv", f"{head}a.png{separator}3\nb.png{separator}4\n")
    assert [Labels(path).of(Path(name)) for name in ("a.png", "b.png")] == [3, 4]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.png,1\nfile,class\n", "line 2: is not a path and a class index"),
        ("file,class\nname,label\na.png,1\n", "line 2: is not"),
        ("a.png,-1\nb.png,2\n", "line 1: is not"),
        ("a.png,1.0\nb.png,2\n", "line 1: is not"),
        ("a.png\nb.png,2\n", "line 1: is not"),
        ("file,class\n", "holds no labels"),
    ],
)
def test_what_is_no_heading(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        Labels(_written(tmp_path / "l.csv", text))
    assert words in caught.value.render()


def test_labels_that_contradict_each_other(tmp_path: Path) -> None:
    """However the path is written; the same class twice is none."""
    (tmp_path / "a").mkdir()
    labels = _written(tmp_path / "l.csv", f"a/x.png,3\n./a/x.png,4\n{tmp_path / 'a/y.png'},5\na/y.png,5\nx.png,9\n")
    with pytest.raises(UserError, match=r"x\.png': has several labels for the picture \(3, 4\)"):
        right_classes(labels, [(tmp_path / "a/x.png",), (tmp_path / "a/y.png",)], 10)
    assert right_classes(labels, [(tmp_path / "a/y.png",), (tmp_path / "x.png",)], 10) == [5, 9]


def test_all_wrong_labels_are_told_before_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    labels = tmp_path / "l.txt"
    labels.write_text("digit_000.png 7\ndigit_001.png 10\n")
    options = ["-m", converted() / "digits_fixed.sim", "-i", shipped.sample_list(tmp_path, TEST, 3), "-n", SCRIPT]
    simulate(*options, "-c", "Classification", "-l", labels, "--output", tmp_path / "out", code=2)
    error = capsys.readouterr().err
    assert "2 problems" in error and "past the model's 10" in error and "digit_001.png' (10)" in error
    assert "no label for the picture" in error and "digit_002.png" in error
    assert not contents(tmp_path / "out")


# -- detection: values -------------------------------------------------------------------------------------------------
def test_boxes_in_pixels() -> None:
    corners = np.array([[0.1, 0.2, 0.5, 0.6], [-0.5, 0.5, 0.25, 1.5], [1.2, 0, 1.5, 1], [0.5, 0.5, 0.4, 0.9]])
    found = Detections.of(corners, np.array([3, 0, 1, 1]), np.array([0.2, 0.9, 0.8, 0.7]), (100, 300))
    np.testing.assert_allclose(found.boxes, [[150, 0, 150, 25], [60, 10, 120, 40]])
    assert found.classes.tolist() == [0, 3] and found.scores.tolist() == [0.9, 0.2]
    lines = detection_text(found, 139).splitlines()
    assert json.loads(lines[0]) == {"image_id": 139, "category_id": 1, "bbox": [150.0, 0.0, 150.0, 25.0], "score": 0.9}
    assert [json.loads(line)["category_id"] for line in lines] == [1, 4]
    assert detection_text(Detections.of(corners[:0], np.zeros(0), np.zeros(0), (4, 4)), "图.png") == ""


@pytest.mark.parametrize(
    ("name", "expected"), [("000000000139.jpg", 139), ("图 1.png", "图 1.png"), ("1_2.png", "1_2.png")]
)
def test_numbers_of_pictures(name: str, expected: int | str) -> None:
    assert image_id(Path("folder") / name) == expected


def ports(*shapes: Sequence[int]) -> list[Port]:
    return [Port(f"out{index}", tuple(shape), DType.FLOAT32, "NHWC") for index, shape in enumerate(shapes)]


@pytest.mark.parametrize(
    ("shapes", "fits"),
    [
        ([(1, 7, 4), (1, 7), (1, 7), (1,)], True),
        ([(1, 7, 4), (1, 7), (1, 7), (1, 1), (1, 7)], True),
        ([(1, 7, 4), (1, 7), (1, 7), (1,), (1,)], False),
        ([(1, 7, 4), (1, 7), (1, 8), (1,)], False),
        ([(2, 7, 4), (2, 7), (2, 7), (1,)], False),
        ([(1, 4, 7), (1, 7), (1, 7), (1,)], False),
        ([(1, 7, 4), (1, 7), (1, 7), (2,)], False),
        ([(1, 7, 4), (1, 7), (1, 7)], False),
        ([(1, 10)], False),
        ([(), (1, 7), (1, 7), (1,)], False),
    ],
)
def test_outputs_of_detection(shapes: list[tuple[int, ...]], fits: bool) -> None:
    if fits:
        assert check_category("Detection", ports(*shapes), file="m.sim") == "Detection"
        return
    with pytest.raises(UserError) as caught:
        check_category("Detection", ports(*shapes), file="m.sim")
    told = caught.value.render()
    assert "expects the outputs detectionBoxes [1,N,4]" in told and "--decode" in told
    assert all(f"out{i} {str(list(s)).replace(' ', '')}" in told for i, s in enumerate(shapes))


def test_outputs_of_other_categories() -> None:
    one, two = ports((1, 10)), ports((1, 10), (1, 3))
    assert [check_category("Unknown", outputs, file="m.sim") for outputs in (one, two)] == ["Unknown"] * 2
    assert check_category("Classification", one, file="m.sim") == "Classification"
    assert check_category("Classification", ports((1, 1, 1, 10)), file="m.sim") == "Classification"
    for outputs, got in ((two, "out0 [1,10], out1 [1,3]"), (ports((1, 3549, 85)), "out0 [1,3549,85]")):
        with pytest.raises(UserError) as caught:
            check_category("Classification", outputs, file="m.sim")
        assert f"-c Classification expects one output with a score for each class; got {got}" in str(caught.value)


def test_every_tool_has_the_same_detectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four outputs of other shapes make none, whichever tool is asked."""
    onnx.save(four_outputs(), tmp_path / "n.onnx")
    (tmp_path / "n.ini").write_text(
        "[INPUT_CONFIG]\ninputs=x;\ninput_formats=RAWDATA_F32_NHWC;\nquantizations=TRUE;\n"
        "[OUTPUT_CONFIG]\noutputs=y0,y1,y2,y3;\ndequantizations=TRUE,TRUE,TRUE,TRUE;\n"
    )
    np.save(tmp_path / "a.npy", np.linspace(-1, 1, 5, dtype=np.float32)[None])
    script = _written(
        tmp_path / "s.py", "import numpy as np\n\ndef image_preprocess(path, norm=True):\n    return np.load(path)\n"
    )
    source = ["--model_file", tmp_path / "n.onnx", "--input_config", tmp_path / "n.ini", "--soc_version", CHIP]
    samples = ["-i", tmp_path / "a.npy", "-n", script]
    one_shot = ["onnx", *source, *samples, "--quant_level", "L1", "--output_file", tmp_path / "n.img"]
    assert sgs_converter.main([*map(str, one_shot), "--export_models"]) == 0
    floating, fixed = (tmp_path / f"n_{stage}.sim" for stage in ("float", "fixed"))
    chip = ["--soc_version", CHIP, "-c", "Detection"]
    capsys.readouterr()
    for main, arguments in (
        (sgs_converter.main, [*one_shot, "-c", "Detection"]),
        (calibrator_tool.main, ["-m", floating, "--input_config", tmp_path / "n.ini", *samples, *chip]),
        (compiler_tool.main, ["-m", fixed, *chip]),
        (simulator_tool.main, ["-m", tmp_path / "n.img", *samples, "-c", "Detection"]),
    ):
        assert main([str(argument) for argument in arguments]) == 2
        assert "expects the outputs detectionBoxes [1,N,4]" in capsys.readouterr().err


def four_outputs() -> onnx.ModelProto:
    """As many outputs as a detection operator has, and of other shapes."""
    nodes = [helper.make_node("Mul", ["x", "two"], [f"y{index}"]) for index in range(4)]
    x, *ys = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 5]) for name in ("x", "y0", "y1", "y2", "y3"))
    graph = helper.make_graph(nodes, "net", [x], ys, [numpy_helper.from_array(np.float32([2]), "two")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_numbers_that_no_detection_operator_gives() -> None:
    boxes, classes = np.zeros((1, 2, 4)), np.array([[1.0, -3.0]])
    for outputs, words in (
        ((boxes, classes, classes * np.nan, np.array([1.0])), "scores that are not finite"),
        ((boxes, classes, classes, np.array([2.0])), "class -3"),
        ((boxes, classes, classes, np.array([3.0])), "numDetections is 3, and there is room for 2"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            operator_detections(outputs, (8, 8), picture="a.png")
        assert "a.png" in caught.value.render()


def decode_script(folder: Path, body: str, arguments: str = "outputs") -> Path:
    path = folder / "decode it.py"
    path.write_text(f"import numpy as np\n\ndef decode({arguments}):\n    {body}\n", encoding="utf-8")
    return path


def test_decode_scripts(tmp_path: Path) -> None:
    plain = "return [[0, 0, 0.5, 1]], [2], [outputs['y'].sum()]"
    for arguments in ("outputs", "outputs, threshold=0.5", "outputs, *rest"):
        decoder = pickle.loads(pickle.dumps(Decoder(decode_script(tmp_path, plain, arguments))))
        found = decoder({"y": np.array([0.25, 0.5])}, (40, 30), picture="a.png")
        assert (found.boxes.tolist(), found.classes.tolist(), found.scores.tolist()) == ([[0, 0, 30, 20]], [2], [0.75])
    sized = "return np.array([[0, 0, size[0] / 80, size[1] / 80]]), np.array([1.0]), np.ones(1)"
    for arguments in ("outputs, size", "outputs, *, size", "outputs, size=None", "outputs, **others"):
        body = sized if "others" not in arguments else sized.replace("size", "others['size']")
        found = Decoder(decode_script(tmp_path, body, arguments))({}, (40, 30), picture="a.png")
        np.testing.assert_allclose(found.boxes, [[0, 0, 30 * 30 / 80, 40 * 40 / 80]])
    for empty in ("return [], [], []", "return np.zeros((0, 4)), np.zeros(0), np.zeros(0)"):
        assert Decoder(decode_script(tmp_path, empty))({}, (4, 4), picture="a.png").scores.shape == (0,)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return None", "returned None, not boxes, classes and scores"),
        ("return 1, 2", "returned tuple of 2, not boxes"),
        ("return 'a', 'b', 'c'", "returned tuple of 3, not boxes"),
        ("return np.ones((2, 4)), np.ones(3), np.ones(2)", "arrays of shape [2, 4], [3], [2]; needed are boxes [N, 4]"),
        ("return np.ones((4, 2)), np.ones(2), np.ones(2)", "needed are boxes [N, 4]"),
        ("return np.ones((1, 2, 4)), np.ones((1, 2)), np.ones((1, 2))", "needed are boxes [N, 4]"),
        ("return np.ones((1, 4)) * np.nan, [0], [0]", "boxes that are not finite"),
        ("return np.ones((1, 4)), [-1], [0]", "class -1, and classes count from 0"),
        ("return np.ones((1, 4)), [0.5], [0]", "classes that are not whole numbers"),
        ("return outputs['no']", "decode(outputs of a.png) raised KeyError"),
        ("return [[10, 20, 90, 300], [0, 0, 1, 1], [-40, 0, 1, 1]], [0, 1, 2], [1, 1, 1]", "reach to 40 (the median)"),
    ],
)
def test_what_decode_scripts_may_do_wrong(body: str, words: str, tmp_path: Path) -> None:
    script = decode_script(tmp_path, body)
    with pytest.raises(UserError) as caught:
        Decoder(script)({"y": np.ones(1)}, (4, 4), picture="a.png")
    assert words in caught.value.render() and "decode it.py" in caught.value.render(), caught.value.render()


def test_decode_scripts_that_cannot_be_called(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"decode cannot be called with the outputs, or the outputs and size="):
        Decoder(decode_script(tmp_path, "return 1", "outputs, anchors"))
    (tmp_path / "other.py").write_text("def decode_all(outputs):\n    return 1\n")
    with pytest.raises(UserError, match="has no function decode .*it defines decode_all"):
        Decoder(tmp_path / "other.py")


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff", "avif"])
def test_turned_pictures_have_the_size_that_scripts_see(ending: str, tmp_path: Path) -> None:
    """Every orientation that EXIF knows. OpenCV's imread fails for some TIFF that its imdecode reads."""
    if ending == "avif" and not (features.check("avif") and cv2.haveImageWriter("a.avif")):
        pytest.skip("Pillow or OpenCV was built without AVIF")
    picture = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    exif = Image.Exif()
    turned = []
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        path = tmp_path / f"图 {orientation}.{ending}"
        Image.fromarray(picture).save(path, exif=exif)
        read = cv2.imread(str(path), cv2.IMREAD_COLOR) if ending != "tiff" or orientation < 5 else read_picture(path)
        assert picture_size(path) == read.shape[:2] and np.array_equal(read_picture(path), read)
        turned += [orientation] * (read.shape[:2] == (20, 12))
    assert turned == ([] if ending == "avif" else [5, 6, 7, 8])


def test_sizes_of_pictures(tmp_path: Path) -> None:
    """Kinds that only OpenCV knows, and files that are none."""
    picture = np.zeros((12, 20, 3), np.uint8)
    for ending in ("png", "bmp", "hdr", "ras"):
        path = tmp_path / f"a.{ending}"
        assert cv2.imwrite(str(path), picture.astype(np.float32) if ending == "hdr" else picture)
        assert picture_size(path) == (12, 20), ending
    (tmp_path / "broken.png").write_text("no")
    for path, words in ((tmp_path / "broken.png", "not a picture"), (tmp_path / "none.png", "No such file")):
        with pytest.raises(UserError, match=words):
            picture_size(path)


# -- detection: runs ---------------------------------------------------------------------------------------------------
def picture_files(folder: Path, sizes: Sequence[tuple[int, int]]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    found = []
    for index, (height, width) in enumerate(sizes):
        found.append(folder / f"图 {index}.png")
        colour = random.integers(0, 256, 3)
        Image.fromarray(np.full((height, width, 3), colour, np.uint8)).save(found[-1])
    return found


def test_four_outputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every stage against onnxruntime on the source; boxes are those of the picture, not of the network's input."""
    folder = detector()
    pictures = picture_files(tmp_path / "my pictures", [(12, 20), (60, 31), (7, 200)])
    session = onnxruntime.InferenceSession(str(folder / "detector.onnx"))
    compared = []
    for model, error in (("detector_float.sim", 1e-3), ("detector_fixed.sim", 0.03), ("detector.img", 0.03)):
        out = tmp_path / model
        out.mkdir()
        simulate(
            "-m",
            folder / model,
            "-i",
            tmp_path / "my pictures",
            "-n",
            folder / "script.py",
            "-c",
            "detection",
            "--output",
            out,
        )
        for picture in pictures:
            height, width = read_picture(picture).shape[:2]
            images = np.broadcast_to(read_picture(picture)[0, 0, ::-1, None, None], (3, HEIGHT, WIDTH))
            feed = np.ascontiguousarray(images[None].astype(np.float32) / 255)
            boxes, classes, scores, _ = (value[0] for value in session.run(None, {"images": feed}))
            lines = (out / f"detection_{model}_{picture.name}.txt").read_text("utf-8").splitlines()
            told = [json.loads(line) for line in lines]
            assert {line["image_id"] for line in told} <= {picture.name}
            low, high = boxes[:2, :2], boxes[:2, 2:]  # the third is past numDetections
            whole = [i for i in np.argsort(-scores[:2]) if (high[i] - low[i] > error).all()]
            if len(whole) != ((high - low) > -error).all(axis=1).sum():
                continue  # an edge that rounding decides
            assert len(told) == 2
            compared.append((model, picture.name))
            assert [line["category_id"] for line in told] == [int(classes[i]) + 1 for i in whole]
            for line, i in zip(told, whole, strict=True):
                (y, x), (y1, x1) = low[i], high[i]
                expected = np.array([x * width, y * height, (x1 - x) * width, (y1 - y) * height])
                assert np.abs(expected - line["bbox"]).max() <= error * max(height, width) + 1e-3
                assert abs(line["score"] - scores[i]) <= error
    assert capsys.readouterr().out.count("2 boxes") >= 7
    assert len(compared) >= 7 and len({model for model, _ in compared}) == 3, "no more than two are left to rounding"


@pytest.mark.parametrize("model", ["detector.img", "digits.img"])
def test_decode_scripts_serve_files_of_any_category(model: str, tmp_path: Path) -> None:
    """Also for a network that ends in a detection operator."""
    decode = decode_script(tmp_path, "return [[0, 0, 0.5, 1]], [len(outputs)], [0.5]")
    folder, script = (detector(), detector() / "script.py") if "detector" in model else (converted(), SCRIPT)
    options = ["-m", folder / model, "-i", picture_files(tmp_path / "p", [(40, 30)])[0], "-n", script]
    (tmp_path / "out").mkdir()
    simulate(*options, "-c", "Detection", "--decode", decode, "--output", tmp_path / "out")
    (told,) = (json.loads(text) for text in contents(tmp_path / "out").values())
    assert (told["category_id"], told["bbox"]) == (2 if "digits" in model else 5, [0, 0, 30, 20])


def coco_figures(path: Path, results: list[dict[str, object]], images: list[int]) -> list[float]:
    """The figures of pycocotools on its own files, in one go."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        judge = COCOeval(truth, truth.loadRes(results), "bbox")
        judge.params.imgIds = images
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [float(value) for value in judge.stats]


def test_mean_average_precision_of_the_shapes_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against the model's own evaluation on onnxruntime, and pycocotools on the result files."""
    monkeypatch.syspath_prepend(str(SHAPES))
    names = ("evaluate", "decode", "onnx_yolo_shapes")  # other networks have modules of these names
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    evaluate = importlib.import_module("evaluate")
    for name in names:
        sys.modules.pop(name)
    found: list[tuple[object, ...]] = []
    metrics = evaluate.detection_metrics
    monkeypatch.setattr(evaluate, "detection_metrics", lambda *given: found.append(given))
    evaluate.evaluate(evaluate.MODEL, SHAPES_TEST)
    expected = np.mean([metrics(*found[0][:3], threshold)["map"] for threshold in evaluate.COCO_IOU_THRESHOLDS])
    out = tmp_path / "out put"
    out.mkdir()
    options = ["-m", shapes() / "shapes_float.sim", "-i", SHAPES_TEST, "-n", SHAPES / "onnx_yolo_shapes.py"]
    options += ["-c", "Detection", "--decode", SHAPES / "decode.py", "--output", out]
    simulate(*options, "-l", SHAPES_TEST / "instances.json")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("A")]
    figures = {line[:10].strip(): line[10:16].strip() for line in lines}
    assert len(figures) == 12 and figures["AP50"] == "1.0000" and figures["AP large"] == "-"
    results = [json.loads(line) for path in sorted(out.iterdir()) for line in path.read_text().splitlines()]
    images = sorted({int(str(line["image_id"])) for line in results})
    assert len(images) == 32
    assert abs(coco_figures(SHAPES_TEST / "instances.json", results, images)[0] - float(figures["AP"])) < 1e-3
    assert abs(expected - float(figures["AP"])) < 2e-4


def random_case(seed: int, path: Path) -> dict[int, Detections]:
    """Labelled boxes, crowds and boxes without height among them, and found ones: some near them, some not, some of a
    wrong class, many of equal scores, in one picture more than count."""
    random = np.random.default_rng(seed)
    annotations, found = [], {}
    size = (200, 300)
    for image in range(1, 9):
        boxes = []
        for _ in range(random.integers(0, 7)):
            x, y, w, h = random.uniform([0, 0, 10, 10], [200, 120, 100, 80]).tolist()
            category = int(random.choice([2, 5, 9]))
            crowd = int(random.random() < 0.2)
            label = {"image_id": image, "category_id": category, "bbox": [x, y, w, h], "iscrowd": crowd, "area": w * h}
            annotations.append({**label, "id": len(annotations) + 1})
            for _ in range(random.integers(0, 4)):
                moved = np.array([x, y, w, h]) + random.normal(0, 6, 4)
                boxes.append((moved, [2, 5, 7, 9].index(category) if random.random() < 0.9 else 0, random.random()))
        for _ in range(120 if image == 3 else random.integers(0, 4)):
            where = random.uniform([0, 0, 5, 5], [200, 120, 100, 80])
            boxes.append((where, 1 if image == 3 else int(random.integers(0, 4)), random.random()))
        values = np.array([box for box, _, _ in boxes]).reshape(-1, 4)
        corners = np.stack([values[:, 1], values[:, 0], values[:, 1] + values[:, 3], values[:, 0] + values[:, 2]], 1)
        classes, scores = (np.array([box[i] for box in boxes]) for i in (1, 2))
        found[image] = Detections.of(corners / [200, 300, 200, 300], classes, np.round(scores, 1), size)
    flat = {"image_id": 4, "category_id": 5, "bbox": [5, 6, 20, 0], "iscrowd": 0, "area": 0, "id": 1000}
    content = {
        "images": [{"id": image, "file_name": f"{image}.png"} for image in range(1, 11)],
        "categories": [{"id": number, "name": f"kind {number}"} for number in (9, 2, 5, 7)],
        "annotations": [*annotations, flat, {**flat, "image_id": 10, "id": 1001}],
    }
    path.write_text(json.dumps(content))
    return found


def counted(truth: GroundTruth, found: dict[int, Detections]) -> AveragePrecision:
    precision = AveragePrecision(truth, found)
    for image, boxes in found.items():
        precision.add(image, boxes)
    return precision


@pytest.mark.parametrize("seed", range(12))
def test_figures_are_those_of_pycocotools(seed: int, tmp_path: Path) -> None:
    """All twelve to the last bit, whatever the order of the pictures; the running one ends at the final one."""
    found = random_case(seed, tmp_path / "i.json")
    truth = GroundTruth(tmp_path / "i.json")
    results = [
        {"image_id": image, "category_id": truth.category(index), "bbox": box, "score": score}
        for image, boxes in found.items()
        for box, index, score in zip(boxes.boxes.tolist(), boxes.classes.tolist(), boxes.scores.tolist(), strict=True)
    ]
    expected = coco_figures(tmp_path / "i.json", results, sorted(found))
    backwards = {image: found[image] for image in sorted(found, reverse=True)}
    for order in (found, backwards):
        precision = counted(truth, order)
        assert precision.figures() == expected
        assert abs(precision.ap50() - expected[1]) < 1e-12
    assert 0.02 < expected[1] < 0.95


def test_the_running_figure(tmp_path: Path) -> None:
    """AP50 of the pictures so far, for few of them after each."""
    found = random_case(2, tmp_path / "i.json")
    truth = GroundTruth(tmp_path / "i.json")
    judge = MeanPrecision(truth, [(Path(f"{image}.png"),) for image in found], list(found))
    for done, boxes in enumerate(found.values(), start=1):
        judge.add(boxes)
        assert judge.running() == f"AP50 {counted(truth, dict(islice(found.items(), done))).figures()[1]:.4f}"
    assert judge.running() != "AP50 0.0000"


def test_nothing_found_scores_nothing(tmp_path: Path) -> None:
    found = random_case(1, tmp_path / "i.json")
    truth = GroundTruth(tmp_path / "i.json")
    assert AveragePrecision(truth, found).ap50() == 0.0
    nothing = Detections.of(np.zeros((0, 4)), np.zeros(0), np.zeros(0), (4, 4))
    precision = counted(truth, dict.fromkeys(found, nothing))
    assert precision.figures()[:3] == [0.0, 0.0, 0.0] and precision.ap50() == 0.0
    assert truth.names == ["kind 2", "kind 5", "kind 7", "kind 9"] and truth.category(1) == 5


def test_boxes_are_not_kept(tmp_path: Path) -> None:
    """Of 100 of a class and picture a few bytes each, of those past them nothing."""
    found = random_case(1, tmp_path / "i.json")
    truth = GroundTruth(tmp_path / "i.json")
    random = np.random.default_rng(0)
    corners = np.tile([0.1, 0.1, 0.9, 0.9], (900, 1))

    def picture(classes: Sequence[int], many: int) -> Detections:
        return Detections.of(corners[:many], random.choice(classes, many), random.random(many), (40, 30))

    precision = AveragePrecision(truth, [*found, *range(1000, 1040)])
    grown = []
    tracemalloc.start()
    for image in range(1000, 1040):
        precision.add(image, picture([0, 1, 3], 240) if image < 1020 else picture([1], 900))
        grown.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert 10 * 240 * 20 < grown[19] - grown[9] < 10 * 240 * 40
    assert 10 * 100 * 20 < grown[39] - grown[29] < 10 * 100 * 40


def coco(path: Path, **changes: object) -> Path:
    content: dict[str, object] = {
        "images": [{"id": 7, "file_name": "图 0.png", "height": 12, "width": 20}],
        "categories": [{"id": 3, "name": "thing"}],
        "annotations": [{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]}],
    }
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")
    return path


def wrong_annotations() -> list[dict[str, object]]:
    changes: list[dict[str, object]] = [
        {"bbox": [1, 2, float("nan"), 4]},
        {"bbox": [1, float("inf"), 3, 4]},
        {"bbox": [1, "2", 3, 4]},
        {"bbox": [1, 2, 3, True]},
        {"bbox": [1, 2, -3, 4]},
        {"bbox": [1, 2, 3, -4], "area": None},
        {"area": "5", "iscrowd": None},
        {"iscrowd": 2},
        {"bbox": [-1, -2, 3, 0], "area": 0, "iscrowd": True},  # as it may be
    ]
    return [{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], **change} for change in changes]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": None}, ["has no list of images"]),
        ({"categories": [], "annotations": []}, ["holds no categories"]),
        ({"annotations": [{"image_id": 7, "bbox": [1, 2, 3, 4]}]}, ["annotations[0]", "has no category_id"]),
        (
            {"annotations": [{"image_id": 8, "category_id": 4, "bbox": [1, 2, 3]}]},
            ["3 problems", "of image_id 8", "of category_id 4", "not [x, y, width, height]"],
        ),
        ({"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}, ["categories: id 3", "more than once"]),
        ({"images": [{"id": 7, "file_name": 5}]}, ["images[0]", "has no file_name"]),
        ({"categories": [{"id": True, "name": "a"}]}, ["categories[0]", "has no id"]),
        (
            {"annotations": wrong_annotations()},
            [
                "10 problems",
                *(f"annotations[{index}]: has a bbox that is not [x, y" for index in range(4)),
                *(f"annotations[{index}]: has a bbox whose width or height is below 0" for index in (4, 5)),
                *(f"annotations[{index}]: has an area that is not a number from 0 on" for index in (5, 6)),
                *(f"annotations[{index}]: has an iscrowd that is neither 0 nor 1" for index in (6, 7)),
            ],
        ),
        ({"images": [{"id": 7, "file_name": "图 0.png", "height": "12", "width": 20}]}, ["has a height that is not"]),
        (
            {"images": [{"id": 7, "file_name": "x.png"}]},
            ["图 0.png", "图 1.png", "not among the labelled images"],
        ),
        (
            {"images": [{"id": 7, "file_name": "图 0.png", "height": 20, "width": 12}]},
            ["2 problems", "12x20", "20x12", "not among"],
        ),
    ],
)
def test_wrong_detection_labels(
    changes: dict[str, object], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture_files(tmp_path / "p", [(12, 20), (12, 20)])
    (tmp_path / "out").mkdir()
    labels = coco(tmp_path / "l.json", **changes)
    options = ["-m", detector() / "detector_fixed.sim", "-i", tmp_path / "p", "-n", detector() / "script.py"]
    capsys.readouterr()
    simulate(*options, "-c", "Detection", "-l", labels, "--output", tmp_path / "out", code=2)
    told = capsys.readouterr().err
    assert [word for word in words if word not in told] == [], told
    assert told.count("error:") == 1 and not contents(tmp_path / "out")


def test_labels_of_other_kinds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture_files(tmp_path / "p", [(12, 20)])
    options = ["-m", detector() / "detector_fixed.sim", "-i", tmp_path / "p", "-n", detector() / "script.py"]
    options += ["-c", "Detection", "--output", tmp_path]
    simulate(*options, "-l", LABELS, code=2)
    assert "is not JSON" in capsys.readouterr().err
    simulate(*options, "-l", tmp_path / "none.json", code=2)
    assert "No such file" in capsys.readouterr().err
    simulate(*options, "-l", coco(tmp_path / "l.json"), code=2)
    assert "a box of class" in capsys.readouterr().err, "classes 0 and 4, and one category"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    simulate(*options, "-l", coco(tmp_path / "l.json"), code=2)
    assert "pip install pycocotools" in capsys.readouterr().err


def test_pictures_are_matched_by_name_and_folders(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": name} for n, name in enumerate(["a/x.png", "b/x.png", "y.png"], start=1)]
    truth = GroundTruth(coco(tmp_path / "l.json", images=images, annotations=[]))
    samples = [(Path("q/b/x.png"),), (Path("else/y.png"),), (Path("q/a/x.png"),)]
    assert truth.image_ids(samples) == [2, 3, 1]
    with pytest.raises(UserError, match=r"'x.png': is not among"):
        truth.image_ids([(Path("x.png"),)])
    with pytest.raises(UserError, match="2 problems"):
        truth.image_ids([(Path("1/y.png"),), (Path("2/y.png"),), (Path("q/a/x.png"),)])


@PUBLIC
def test_letterboxed_detector_on_coco(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """yolox_nano with a decode script that undoes its letterbox: AP50 about that of its float original."""
    from networks import NETWORKS, data_folder

    from sgs.cli import convert_tool

    network = NETWORKS["yolox_nano"]
    ini, script = network.write_config(tmp_path), network.write_script(tmp_path)
    model = tmp_path / "yolox_float.sim"
    options = ["--model_file", network.path(), "--input_config", ini, "--output_file", model, "--soc_version", CHIP]
    assert convert_tool.main(["onnx", *map(str, options)]) == 0
    decode = tmp_path / "decode.py"
    decode.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'bench')!r})\nimport numpy as np\nimport scores\n"
        "scores.SCORE = 0.01\n\ndef decode(outputs, size):\n"
        "    corners, classes, found = scores.detections(outputs['output'])\n"
        "    ratio = min(416 / size[0], 416 / size[1])\n"
        "    corners = corners / ratio / np.array([size[1], size[0]] * 2)\n"
        "    return corners[:, [1, 0, 3, 2]], classes, found\n"
    )
    (tmp_path / "out").mkdir()
    folder = data_folder() / "images/coco64"
    simulate(
        *("-m", model, "-i", folder / "images", "-n", script, "-c", "Detection", "--decode", decode),
        *("-l", folder / "instances.json", "--output", tmp_path / "out"),
    )
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("AP50")]
    assert 0.50 < float(line.split()[1]) < 0.56
    assert len(contents(tmp_path / "out")) == 64


# -- drawing -----------------------------------------------------------------------------------------------------------
def test_boxes_are_drawn_where_they_are() -> None:
    def found(height: int, width: int) -> Detections:
        corners = np.array([[0.5, 0.25, 0.9, 0.75], [0, 0, 0.2, 0.2]])
        return Detections.of(corners, np.array([1, 7]), np.array([0.9, 0.2]), (height, width))

    picture = np.full((30, 40, 3), 128, np.uint8)
    drawn = draw_boxes(picture, found(30, 40), ["round", "square 圆"], 0.5)
    assert drawn.shape == (360, 480, 3), "enlarged by 12"
    for y, x in ((230, 120), (230, 360), (324, 240)):
        assert tuple(drawn[y, x]) == colour_of(1)
    assert tuple(drawn[250, 240]) == (128, 128, 128), "its inside is left"
    assert not (drawn == colour_of(7)).all(axis=2).any(), "below the threshold"
    assert (draw_boxes(picture, found(30, 40), [], 0.1) == colour_of(7)).all(axis=2).any()
    assert (picture == 128).all()
    large = draw_boxes(np.full((3000, 4000, 3), 128, np.uint8), found(3000, 4000), [], 0.5)
    assert large.shape == (3000, 4000, 3)
    assert (large[1900, 980:1020] == colour_of(1)).all(axis=1).sum() >= 8, "lines grow with the picture"
    narrow = draw_boxes(picture[:, :3], found(30, 3), ["round", "a name that is long"], 0.5)
    assert narrow.shape == (480, 160, 3), "with room for text"


def test_colours_differ_between_neighbours() -> None:
    colours = np.array([colour_of(index) for index in range(80)], int)
    assert len({tuple(colour) for colour in colours.tolist()}) == 80
    assert np.abs(np.diff(colours, axis=0)).sum(axis=1).min() > 100


def test_classes_are_drawn_below_the_picture() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 50, 3), np.uint8)
    one, two = draw_classes(picture, [(3, 0.5)], []), draw_classes(picture, [(3, 0.5), (1, 0.25)], ["a", "一"])
    assert (one[:320, :500] == picture.repeat(10, 0).repeat(10, 1)).all()
    assert one.shape[0] < two.shape[0] and (two[320:] > 200).any()


def test_drawn_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of the classes come from labels.txt beside the model, or from --class_names."""
    (tmp_path / "out").mkdir()
    picture = SHAPES_TEST / "shapes_000.png"
    options = ["-m", shapes() / "shapes_float.sim", "-i", picture, "-n", SHAPES / "onnx_yolo_shapes.py", "--output"]
    options += [tmp_path / "out", "-c", "Detection", "--decode", SHAPES / "decode.py", "--draw_result"]
    simulate(*options, f"{tmp_path / '画 1'},0.4")
    assert "circle (0." in capsys.readouterr().out
    (tmp_path / "names.txt").write_text("圆\nsquare\nthird\nstar\n\n", encoding="utf-8")
    simulate(*options, tmp_path / "other", "--class_names", tmp_path / "names.txt")
    assert "third (0." in capsys.readouterr().out
    (file,) = (tmp_path / "画 1").iterdir()
    assert file.name == "detection_shapes_float.sim_shapes_000.png.jpg"
    first, second = (read_picture(tmp_path / folder / file.name) for folder in ("画 1", "other"))
    assert first.shape == second.shape == (512, 512, 3) and (first != second).any()
    simulate(*options, f"{tmp_path / 'no'}/p,0.4", code=2)
    assert "does not exist" in capsys.readouterr().err


def test_names_of_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "n.txt").write_text("a\nb\n")
    assert class_names(tmp_path / "n.txt") == ["a", "b"]
    options = ["-m", converted() / "digits_fixed.sim", "-i", digits(1)[0], "-n", SCRIPT, "--output", tmp_path]
    simulate(*options, "-c", "Classification", "--class_names", tmp_path / "n.txt", code=2)
    assert "names 2 classes, and the model has 10" in capsys.readouterr().err
    (tmp_path / "n.txt").write_text("\n".join(f"数 {index}" for index in range(10)), encoding="utf-8")
    simulate(*options, "-c", "Classification", "--class_names", tmp_path / "n.txt")
    assert capsys.readouterr().out.startswith("digit_000.png: 7 数 7 (")


# -- processes ---------------------------------------------------------------------------------------------------------
def slow(folder: Path, script: Path, signature: str, seconds: float) -> Path:
    """A script that does what another does, and takes its time."""
    shutil.copy(script, folder)
    path = folder / f"slow_{script.name}"
    body = f"    time.sleep({seconds})\n    return quick.{signature}\n"
    path.write_text(f"import time\nimport {script.stem} as quick\n\ndef {signature}:\n{body}")
    return path


@pytest.mark.parametrize(
    ("load", "run", "decode", "samples", "asked", "expected"),
    [
        (0.05, 0.5, 0, 70, 10, 1),  # 3.5 seconds
        (0.05, 0, 0, 90, 10, 2),
        (0, 0, 0.013, 400, 10, 2),
        (0.01, 0, 0.013, 400, 10, 3),
        (0, 0, 1, 400, 10, 4),
        (0, 0, 1, 400, 2, 2),
        (1, 1, 1, 400, 1, 1),
        (9, 9, 9, 1, 10, 1),
    ],
)
def test_processes_are_for_slow_scripts(
    load: float,
    run: float,
    decode: float,
    samples: int,
    asked: int,
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a clock that only what takes long moves on; the model itself has threads."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(shards, "processors", lambda: 4)
    script = slow(tmp_path, SHAPES / "onnx_yolo_shapes.py", "image_preprocess(path, norm)", load)
    decoder = Decoder(slow(tmp_path, SHAPES / "decode.py", "decode(outputs)", decode))
    simulator = Simulator(shapes() / "shapes_float.sim")
    model = simulator.run
    monkeypatch.setattr(simulator, "run", lambda feeds: [time.sleep(run), model(feeds)][1])
    job = SampleJob(simulator, tuple(load_preprocessors(str(script), 1)), "Detection", tmp_path, decoder=decoder)
    tasks = [Task((SHAPES_TEST / "shapes_000.png",), f"{index}", index) for index in range(samples)]
    assert simulator_tool._processes(job, tasks, asked) == expected
    assert (simulator._built is not None) == (expected == 1 < min(samples, asked)), "closed where others run it"


def test_processes_of_offline_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the number of samples, which have one thread."""
    monkeypatch.setattr(shards, "processors", lambda: 4)
    job = SampleJob(Simulator(converted() / "digits.img"), (), "Classification", tmp_path)
    tasks = [Task((path,), path.name, path.name) for path in digits(1)] * 200
    assert [simulator_tool._processes(job, tasks[:count], 10) for count in (1, 64, 65, 200)] == [1, 1, 2, 4]
    assert simulator_tool._processes(job, tasks, 3) == 3


def test_processes_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a model of any kind; the two processes are the same for all."""
    options = ["-i", shipped.sample_list(tmp_path, TEST, 25), "-n", SCRIPT, "--dump_rawdata"]
    options += ["-c", "Classification", "-l", LABELS]
    with shards.Workers(2) as pool:
        monkeypatch.setattr(simulator_tool, "Workers", lambda count: contextlib.nullcontext(pool))
        for model in ("digits_float.sim", "digits_fixed.sim", "digits.img"):
            source = converted() / model
            capsys.readouterr()
            told = []
            for processes in (1, 2):
                monkeypatch.setattr(simulator_tool, "_processes", lambda job, tasks, asked, n=processes: n)
                folder = tmp_path / f"{model} {processes}"
                folder.mkdir()
                simulate("-m", source, *options, "--output", folder, "--draw_result", folder)
                told.append((capsys.readouterr().out.splitlines()[:-2], contents(folder)))
            assert told[0] == told[1]
            assert len(told[0][1]) == 75 and len(told[0][0]) == 2, "and no line for each of so many"


@pytest.mark.parametrize(
    ("model", "processes"),
    [("digits_float.sim", 1), ("digits_fixed.sim", 1), ("digits.img", 1), ("digits_fixed.sim", 2)],
)
def test_a_broken_picture_in_the_middle(
    model: str, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named, and the results of all before it are there."""
    monkeypatch.setattr(simulator_tool, "_processes", lambda job, tasks, asked: processes)
    (tmp_path / "坏 了.png").write_text("no picture")
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{path}\n" for path in [*digits(7), tmp_path / "坏 了.png", *digits(12)[7:]]), "utf-8")
    (tmp_path / "out").mkdir()
    options = ["-m", converted() / model, "-i", listed, "-n", SCRIPT, "-c", "Classification"]
    simulate(*options, "--output", tmp_path / "out", code=2)
    told = capsys.readouterr()
    assert "坏 了.png" in told.err and told.err.count("error:") == 1
    assert "results of the 7 samples before the fault are in:" in told.out
    written = set(contents(tmp_path / "out"))
    assert {f"classification_{model}_{path.name}.txt" for path in digits(7)} <= written


def test_scripts_run_one_at_a_time(tmp_path: Path) -> None:
    """Samples are loaded in several threads; scripts need not know."""
    script = tmp_path / "pre.py"
    body = "    global busy\n    busy += 1\n    time.sleep(0.003)\n    assert busy == 1\n    busy -= 1\n"
    script.write_text(
        f"import time\nimport numpy as np\n\nbusy = 0\n\ndef image_preprocess(path, norm=True):\n{body}"
        f"    return np.zeros((1, 64, 64, 3), np.uint8)\n"
    )
    simulator = Simulator(converted() / "digits_fixed.sim", threads=4)
    found = list(simulated(simulator, load_preprocessors(str(script), 1), [(path,) for path in digits(12)]))
    assert len(found) == 12


def test_results_are_written_over_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a link points at is written, as elsewhere; a failure at any moment leaves the old file or the new one."""
    plain, link = tmp_path / "a.txt", tmp_path / "b.txt"
    plain.write_text("old and longer")
    link.symlink_to(tmp_path / "target.txt")
    write_result(plain, b"new")
    write_result(link, b"other")
    assert contents(tmp_path) == {"a.txt": b"new", "b.txt": b"other", "target.txt": b"other"} and link.is_symlink()
    (tmp_path / "folder.txt").mkdir()
    folders = (tmp_path / "folder.txt", "is a folder"), (tmp_path / "no" / "c.txt", "does not exist")
    for path, words in (*folders, (tmp_path / f"{'long' * 64}.txt", "File name too long")):
        with pytest.raises(UserError, match=words):
            write_result(path, b"")

    def unplugged(*_: object) -> None:
        assert plain.read_bytes() == b"new"
        raise OSError(errno.EIO, "Input/output error")

    for call in ("rename", "replace"):
        monkeypatch.setattr(os, call, unplugged)
    with pytest.raises(UserError, match="Input/output error"):
        write_result(plain, b"newer")
    assert plain.read_bytes() == b"new" and len(list(tmp_path.iterdir())) == 4


def test_the_job_is_a_value(tmp_path: Path) -> None:
    """What a cluster sends to its workers: models and scripts as paths, results small."""
    simulator = Simulator(converted() / "digits_fixed.sim")
    job = SampleJob(simulator, tuple(load_preprocessors(str(SCRIPT), 1)), "Classification", tmp_path, threads=1)
    sent = pickle.dumps(job)
    assert len(sent) < 2000
    tasks = [Task((path,), path.name, path.name) for path in [*digits(3), tmp_path / "none.png"]]
    share = pickle.loads(pickle.dumps(pickle.loads(sent)(tasks)))
    assert [best[0][0] for best in share.found] == [shipped.labels()[path.name] for path in digits(3)]
    assert "none.png" in share.fault.render() and len(contents(tmp_path)) == 3


# -- what users give ---------------------------------------------------------------------------------------------------
def test_awkward_paths(tmp_path: Path) -> None:
    """The program itself, with spaces and other letters in every path."""
    here = tmp_path / "我的 文件"
    (here / "out 出").mkdir(parents=True)
    shutil.copy(converted() / "digits_fixed.sim", here / "模 型.sim")
    shutil.copy(SCRIPT, here / "pre 处理.py")
    shutil.copy(digits(1)[0], here / "图 片.png")
    (here / "标 签.txt").write_text("图 片.png 7\n", encoding="utf-8")
    options = ["-m", "模 型.sim", "-i", "图 片.png", "-n", "pre 处理.py", "-l", "标 签.txt", "--output", "out 出"]
    done = launch(
        "Scripts/calibrator/simulator.py", *options, "-c", "Classification", "--draw_result", "画 图", cwd=here
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr and "top-1: 1 of 1, 100.00%" in done.stdout
    assert [path.name for path in (here / "out 出").iterdir()] == ["classification_模 型.sim_图 片.png.txt"]
    assert [path.name for path in (here / "画 图").iterdir()] == ["classification_模 型.sim_图 片.png.jpg"]


def test_dumped_data_is_what_the_model_is_fed(tmp_path: Path) -> None:
    options = ["-i", digits(1)[0], "-n", SCRIPT, "--output", tmp_path, "--dump_rawdata"]
    simulate("-m", converted() / "digits_fixed.sim", *options)
    raw = np.fromfile(tmp_path / "rawdata_digits_fixed.sim_digit_000.png_0.bin", np.uint8)
    (script,) = load_preprocessors(str(SCRIPT), 1)
    assert np.array_equal(raw, script(digits(1)[0], norm=False).reshape(-1))
    text = (tmp_path / "unknown_digits_fixed.sim_digit_000.png.txt").read_text()
    assert text.startswith("logits Tensor:\n{\ntensor dim:2, Original shape:[1 10]\ntensor data:\n")


Make = Callable[[Path], list[object]]
SIM: Make = lambda folder: ["-m", converted() / "digits_fixed.sim", "-i", digits(1)[0], "-n", SCRIPT]  # noqa: E731


def wrong_script(folder: Path, result: str) -> Path:
    path = folder / "wrong.py"
    path.write_text(f"import numpy as np\n\ndef image_preprocess(path, norm=True):\n    return {result}\n")
    return path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda f: [*SIM(f), "-c", "Detection"], ["expects the outputs detectionBoxes", "logits [1,10]", "--decode"]),
        (lambda f: [*SIM(f), "-c", "Classification", "--decode", "d.py"], ["--decode is for -c Detection"]),
        (
            lambda f: [*SIM(f), "-l", "l.txt", "--draw_result", "d", "--class_names", "n"],
            ["3 problems", "-l is for", "--draw_result is for", "--class_names is for"],
        ),
        (lambda f: [*SIM(f), "-c", "Detection", "--decode", "none.py"], ["none.py"]),
        (lambda f: [*SIM(f), "-c", "Classification", "--draw_result", "d,nan"], ["not a threshold"]),
        (lambda f: [*SIM(f), "-c", "Classification", "--draw_result", "d,-1"], ["'-1' is not a threshold"]),
        (
            lambda f: [*SIM(f), "-c", "Classification", "--draw_result", _written(f / "d", "")],
            ["is not a folder", "name a folder"],
        ),
        (lambda f: [*SIM(f), "-c", "Classification", "--draw_result", "/proc/drawn"], ["/proc", "cannot be"]),
        (lambda f: [*SIM(f)[:-1], wrong_script(f, "np.zeros((1, 64, 64, 3), np.float32)")], []),
        (lambda f: [*SIM(f)[:-1], wrong_script(f, "np.full((1, 64, 64, 3), 0.5)")], ["0.5", "whole numbers"]),
        (lambda f: [*SIM(f)[:-1], wrong_script(f, "np.zeros((1, 3, 64, 64), np.uint8)")], ["NCHW where NHWC"]),
        (lambda f: [*SIM(f)[:-1], wrong_script(f, "'a'")], ["returned str"]),
        (
            lambda f: [*SIM(f), "-c", "Classification", "-l", _written(f / "l.txt", "a.png 7.5\nb.png\n")],
            ["2 problems", "line 1", "line 2", "is not a path and a class index"],
        ),
        (lambda f: [*SIM(f), "-c", "Classification", "-l", _written(f / "l.txt", b"\xff")], ["not text in UTF-8"]),
    ],
)
def test_bad_input(
    arguments: Make,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    made = arguments(tmp_path)
    before = sorted(os.listdir())
    simulate(*made, code=2 if words else 0)
    told = capsys.readouterr().err
    assert [word for word in words if word not in told] == [], told
    assert told.count("error:") == bool(words) and "Traceback" not in told
    assert not words or sorted(os.listdir()) == before


def _written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_read_only_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK and access(path, mode))  # holds for root too
    simulate(*SIM(tmp_path), "--output", tmp_path, code=2)
    assert "cannot be written to" in capsys.readouterr().err


def test_boxes_and_drawings_need_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    options = ["-m", detector() / "detector_fixed.sim", "-i", tmp_path / "a.npy", "-n", detector() / "script.py"]
    simulate(*options, "-c", "Detection", "--output", tmp_path, code=2)
    assert "a.npy: is not a picture, which -c Detection needs" in capsys.readouterr().err


def test_boxes_that_two_have_in_common() -> None:
    """Of the same class, and in much the same place."""

    def found(*rows: tuple[float, float, float, float, int]) -> Detections:
        boxes, scores = np.array([row[:4] for row in rows]), np.linspace(0.9, 0.5, len(rows))
        return Detections(boxes, np.array([row[4] for row in rows]), scores, (100, 200))

    a = found((10, 10, 40, 20, 0), (25, 10, 40, 20, 0), (90, 50, 30, 30, 1))
    assert shared(a, a, 0.99) == 3
    assert shared(a, found((10, 10, 40, 20, 0)), 0.9) == shared(found((10, 10, 40, 20, 0)), a, 0.9) == 1
    assert shared(a, found((90, 50, 30, 30, 0)), 0.1) == 0, "another class"
    assert shared(a, found((90, 53, 30, 30, 1)), 27 / 33) == 1 and shared(a, found((90, 53, 30, 30, 1)), 0.82) == 0
    assert shared(a, found((150, 10, 5, 5, 1)), 0.1) == 0 and len(a.above(0.7).scores) == 2
