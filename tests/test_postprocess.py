"""Post-processing networks: what the builders make is what numpy decoders, written from the publications, make of the
same heads; and what --postprocess refuses."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from evaluation import loaded
from networks import NETWORKS, data_folder
from scores import detections

import calibrator_custom
from conventions import ROOT
from postprocess import ssd, yolov3, yolov5, yolov8, yolox
from sgs.builder import GraphBuilder
from sgs.cli import check_input_config, convert_tool, sgs_converter, simulator_tool
from sgs.config.compare import backbone_differences
from sgs.config.input_config import parse_input_config
from sgs.data.preprocess import Preprocessor
from sgs.engine import FloatEngine
from sgs.ir import Tensor
from sgs.postprocess.join import PostprocessScript
from sgs.postprocess.network import Network
from sgs.sim import read_sim
from sgs.simulation import Simulator
from shipped import CHIP, sample_list

HEIGHT, WIDTH = 96, 160  # distinct: the heads have 12 x 20, 6 x 10 and 3 x 5 cells
GRIDS = {8: (12, 20), 16: (6, 10), 32: (3, 5)}
Arrays = Mapping[str, np.ndarray]
Boxes = tuple[np.ndarray, np.ndarray, np.ndarray]  # corners [N, 4] in pixels (x0, y0, x1, y1), scores [N], classes [N]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


# -- decoders, a cell at a time ----------------------------------------------------------------------------------------
def best(rows: list[tuple[Any, ...]]) -> Boxes:
    """Of rows (x, y, width, height in pixels, scores of the classes)."""
    x, y, width, height = (np.array([row[i] for row in rows]) for i in range(4))
    scores = np.array([row[4] for row in rows])
    corners = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
    return corners, scores.max(axis=1), scores.argmax(axis=1)


def anchors_of(heads: Arrays, place: Callable[..., tuple[float, float, float, float]]) -> Boxes:
    """Heads named by their stride; three anchors a cell."""
    rows = []
    for level, (stride, (h, w)) in enumerate(GRIDS.items()):
        head = heads[f"s{stride}"].reshape(h, w, 3, -1)
        for row, column, anchor in np.ndindex(h, w, 3):
            t = head[row, column, anchor]
            box = place(t[:4], column, row, stride, yolov3.ANCHORS[level][anchor])
            rows.append((*box, sigmoid(t[4]) * sigmoid(t[5:])))
    return best(rows)


def place_v3(t: np.ndarray, column: int, row: int, stride: int, anchor: tuple[float, float]) -> Any:
    x, y = sigmoid(t[:2])
    return (x + column) * stride, (y + row) * stride, anchor[0] * np.exp(t[2]), anchor[1] * np.exp(t[3])


def place_v5(t: np.ndarray, column: int, row: int, stride: int, anchor: tuple[float, float]) -> Any:
    x, y, width, height = sigmoid(t)
    centre = (x * 2 - 0.5 + column) * stride, (y * 2 - 0.5 + row) * stride
    return *centre, (width * 2) ** 2 * anchor[0], (height * 2) ** 2 * anchor[1]


def decode_v8(heads: Arrays) -> Boxes:
    rows = []
    for stride, (h, w) in GRIDS.items():
        for row, column in np.ndindex(h, w):
            values = heads[f"s{stride}"][0, row, column] if f"s{stride}" in heads else None
            if values is None:
                values = np.concatenate([heads[f"{kind}{stride}"][0, row, column] for kind in ("box", "class")])
            left, top, right, bottom = softmax(values[:64].reshape(4, 16)) @ np.arange(16) * stride
            x, y = (column + 0.5) * stride, (row + 0.5) * stride
            middle = x + (right - left) / 2, y + (bottom - top) / 2
            rows.append((*middle, left + right, top + bottom, sigmoid(values[64:])))
    return best(rows)


def decode_x(heads: Arrays) -> Boxes:
    rows, values = [], iter(heads["y"][0])
    for stride, (h, w) in GRIDS.items():
        for row, column in np.ndindex(h, w):
            t = next(values)
            size = np.exp(t[2:4]) * stride
            rows.append(((t[0] + column) * stride, (t[1] + row) * stride, *size, t[4] * t[5:]))
    return best(rows)


MAPS = (
    ssd.FeatureMap(6, 10, (24,), (40,), (2, 3), step=(16, 16)),
    ssd.FeatureMap(3, 5, (40, 56), (), (2,), flip=False),
)


def priors_by_hand() -> list[tuple[float, float, float, float]]:
    """(x, y, width, height) in pixels."""
    found = []
    root2, root3 = 2**0.5, 3**0.5
    for row, column in np.ndindex(6, 10):
        sides = [(24, 24), (960**0.5, 960**0.5)]
        sides += [
            (24 * root2, 24 / root2),
            (24 / root2, 24 * root2),
            (24 * root3, 24 / root3),
            (24 / root3, 24 * root3),
        ]
        found += [((column + 0.5) * 16, (row + 0.5) * 16, w, h) for w, h in sides]
    for row, column in np.ndindex(3, 5):
        sides = [(40, 40), (40 * root2, 40 / root2), (56, 56), (56 * root2, 56 / root2)]
        found += [((column + 0.5) * 32, (row + 0.5) * 32, w, h) for w, h in sides]
    return found


def decode_ssd(heads: Arrays, activation: Callable[[np.ndarray], np.ndarray], swapped: bool = False) -> Boxes:
    rows = []
    offsets, scores = heads["loc"].reshape(-1, 4), heads["conf"].reshape(-1, 5)
    for (x, y, width, height), t, logits in zip(priors_by_hand(), offsets, scores, strict=True):
        tx, ty, tw, th = t[[1, 0, 3, 2]] if swapped else t
        size = width * np.exp(0.2 * tw), height * np.exp(0.2 * th)
        rows.append((x + 0.1 * tx * width, y + 0.1 * ty * height, *size, activation(logits)[1:]))
    return best(rows)


def suppressed(boxes: Boxes, threshold: float, overlap: float, most: int) -> list[int]:
    """Places of the boxes that greedy non-maximum suppression within classes leaves."""
    corners, scores, classes = boxes
    left = [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] > threshold]
    kept: list[int] = []
    while left and len(kept) < most:
        one = left.pop(0)
        kept.append(one)
        left = [i for i in left if classes[i] != classes[one] or shared(corners[i], corners[one]) <= overlap]
    return kept


def shared(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = max(0.0, sides[0]) * max(0.0, sides[1])
    return common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common)


# -- builders beside them ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Family:
    """`build` and `judge` make boxes of outputs of the shapes `heads`; with `probabilities` its scores are such."""

    build: Callable[[Network], list[Tensor]]
    judge: Callable[[Arrays], Boxes]
    heads: dict[str, tuple[int, ...]]
    probabilities: bool = False


LEVELS = {f"s{stride}": (1, *GRIDS[stride], 3 * 12) for stride in (32, 8, 16)}  # 7 classes; in no order
SPLIT = {
    f"{kind}{stride}": (1, *GRIDS[stride], channels)
    for stride in (16, 8, 32)
    for kind, channels in (("box", 64), ("class", 3))
}
ALL = 12 * 20 + 6 * 10 + 3 * 5
PRIORS = 60 * 6 + 15 * 4
SSD_HEADS = {"conf": (1, PRIORS * 5), "loc": (1, PRIORS, 4)}


def build_ssd(**options: Any) -> Callable[[Network], list[Tensor]]:
    return lambda net: ssd.detections(net, "loc", "conf", ssd.priors(net.size, MAPS), **options)


FAMILIES = {
    "yolov3": Family(yolov3.postprocess, lambda heads: anchors_of(heads, place_v3), LEVELS),
    "yolov5": Family(yolov5.postprocess, lambda heads: anchors_of(heads, place_v5), LEVELS),
    "yolov8": Family(yolov8.postprocess, decode_v8, {f"s{s}": (1, *GRIDS[s], 64 + 3) for s in (16, 32, 8)}),
    "yolov8 in branches": Family(yolov8.postprocess, decode_v8, SPLIT),
    "yolox": Family(yolox.postprocess, decode_x, {"y": (1, ALL, 5 + 6)}, probabilities=True),
    "ssd softmax": Family(build_ssd(activation="softmax"), lambda heads: decode_ssd(heads, softmax), SSD_HEADS),
    "ssd sigmoid": Family(
        build_ssd(activation="sigmoid", order="yxhw"), lambda heads: decode_ssd(heads, sigmoid, True), SSD_HEADS
    ),
}


def network_of(heads: Mapping[str, tuple[int, ...]]) -> tuple[GraphBuilder, Network]:
    """A network that gives its inputs, but for the picture, to post-processing."""
    build = GraphBuilder()
    build.input("picture", (1, HEIGHT, WIDTH, 3))
    for name, shape in heads.items():
        build.input(name, shape)
    inputs = "[INPUT_CONFIG]\ninputs=picture\ninput_formats=RGB\nmean=0\nstd_value=1\n"
    config = parse_input_config(f"{inputs}[OUTPUT_CONFIG]\noutputs={','.join(heads)}\n", Path("x.ini"))
    return build, Network(build.graph, config)


@pytest.mark.parametrize("name", FAMILIES)
def test_builders_are_the_publications_decoders(name: str) -> None:
    family, rng = FAMILIES[name], np.random.default_rng(len(name))
    build, network = network_of(family.heads)
    results = family.build(network)
    assert [x.name for x in results] == ["detectionBoxes", "detectionClasses", "detectionScores", "numDetections"]
    nms = build.graph.nodes[-1]
    graph = build.output(*results, *(build.graph[n] for n in nms.inputs if n is not None))
    feeds = {name: rng.normal(0, 1.5, shape).astype(np.float32) for name, shape in family.heads.items()}
    if family.probabilities:
        feeds["y"][..., 4:] = rng.uniform(0, 1, feeds["y"][..., 4:].shape)
    found = FloatEngine(graph).run({**feeds, "picture": np.zeros((1, HEIGHT, WIDTH, 3), np.float32)})

    expected = family.judge(feeds)
    corners, scores, classes = (found[n or ""][0] for n in nms.inputs)
    relative = expected[0][:, [1, 0, 3, 2]] / (HEIGHT, WIDTH, HEIGHT, WIDTH)
    np.testing.assert_allclose(corners, relative, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scores, expected[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(classes, expected[2])

    kept = suppressed((expected[0], scores, classes), 0.005, 0.45, 100)
    assert 20 < len(kept) <= 100
    assert found["numDetections"].item() == len(kept)
    np.testing.assert_allclose(found["detectionBoxes"][0, : len(kept)], np.clip(relative[kept], 0, 1), atol=1e-5)
    np.testing.assert_array_equal(found["detectionClasses"][0, : len(kept)], classes[kept])
    np.testing.assert_array_equal(found["detectionScores"][0, : len(kept)], scores[kept])
    assert not found["detectionScores"][0, len(kept) :].any()


def test_scripts_of_the_page_make_detections(tmp_path: Path) -> None:
    page = (ROOT / "docs/POSTPROCESS.md").read_text("utf-8")
    scripts = [block for block in re.findall(r"```py\n(.*?)```", page, re.DOTALL) if "def postprocess" in block]
    faces = 12 * 20 * 3 + 6 * 10 * 2 + 3 * 5 * 2 + 2 * 3 * 3
    heads = [LEVELS, {"boxes": (1, faces, 4), "scores": (1, faces, 2)}, {"y": (1, ALL, 11)}]
    for script, shapes in zip(scripts, heads, strict=True):
        (tmp_path / "postprocess.py").write_text(script, "utf-8")
        results = PostprocessScript(tmp_path / "postprocess.py")(network_of(shapes)[1])
        assert [x.shape for x in results] == [(1, 100, 4), (1, 100), (1, 100), (1,)]


def test_plain_methods_are_numpys() -> None:
    build, network = network_of({"x": (1, 3, 4, 5)})
    x = network.output()
    assert (network.size, x.shape) == ((HEIGHT, WIDTH), (1, 3, 4, 5))
    turned = network.transpose(network.slice(x, -1, 1, 4), 0, 3, 1, 2)  # [1, 3, 3, 4]
    scaled = network.sub(network.mul(turned, np.arange(4)), 0.5)
    summed = network.sum(network.add(scaled, network.exp(turned)), 2)  # [1, 3, 4]
    joined = network.concat([network.reshape(summed, 1, -1), network.reshape(network.relu(turned), 1, -1)], 1)
    picked = network.operator("GATHER", joined, np.array([5, 0, 47], np.int32), axis=1, batch_dims=0)
    graph = build.output(picked, network.softmax(summed), network.sigmoid(summed))
    value = np.random.default_rng(3).normal(size=(1, 3, 4, 5)).astype(np.float32)
    found = FloatEngine(graph).run({"x": value, "picture": np.zeros((1, HEIGHT, WIDTH, 3), np.float32)})
    t = value[..., 1:4].transpose(0, 3, 1, 2)
    total = (t * np.arange(4) - 0.5 + np.exp(t)).sum(axis=2)
    both = np.concatenate([total.reshape(1, -1), np.maximum(t, 0).reshape(1, -1)], axis=1)
    for name, wanted in zip(graph.outputs, (both[:, [5, 0, 47]], softmax(total), sigmoid(total)), strict=True):
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-6)


def unpacked(network: Network) -> list[Tensor]:
    """Corners, scores and classes of rows of five."""
    rows = network.reshape(network.output(), 1, -1, 5)
    return network.unpack(rows, box=0, confidence=-1, first_class=4, classes=1, logistic=False)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda net: net.reshape(net.output(), 1, -1, 7), "60 elements, not as many as [1, -1, 7]"),
        (lambda net: net.slice(net.output(), 3, 2, 6), "5 places on axis 3, not 2 to 6"),
        (lambda net: net.sum(net.output(), 4), "no axis 4"),
        (lambda net: net.concat([], 1), "nothing to join"),
        (lambda net: net.output("y"), "an output 'y'; the network has x"),
        (
            lambda net: net.operator("SPLIT", net.output(), axis=2, num_splits=2),
            "SPLIT has 2 results here, and operator() is for those that have one",
        ),
        (
            lambda net: net.nms(*unpacked(net), iou_threshold=1.5),
            "max_detections 100 (from 1 on), iou_threshold 1.5 (0 to 1)",
        ),
        (lambda net: net.nms(*unpacked(net)[:2], unpacked(net)[1]), "classes of FLOAT32, not INT32"),
        (yolov3.postprocess, "1 heads, and anchors of 3"),
        (lambda net: yolov5.detections(net, anchors=[[(1, 2)] * 2]), "5 channels, not 2 anchors of 5 + classes"),
        (yolov8.postprocess, "heads of 3 x 4 cells have [5] channels, not one with 64 + classes"),
        (yolox.postprocess, "[1, 315, 5 + classes] for 96 x 160 and strides [8, 16, 32]; 'x' is [1, 3, 4, 5]"),
        (ssd.postprocess, "SSD300, with two outputs"),
        (lambda net: ssd.detections(net, "x", "x", np.zeros((14, 4))), "for each of 14 priors"),
        (lambda net: ssd.priors((9, 9), [ssd.FeatureMap(1, 1, (2, 3), (4,))]), "2 min_sizes and 1 max_sizes"),
    ],
)
def test_what_does_not_go_together_is_told(call: Callable[[Network], Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        call(network_of({"x": (1, 3, 4, 5)})[1])


@pytest.mark.parametrize("lines", ["mean=3:0:0\n", "mean_red=3\nmean_green=0\nmean_blue=0\n"])
def test_another_mean_than_the_backbones_is_told_with_its_line(lines: str) -> None:
    whole, backbone = (
        parse_input_config(
            f"[INPUT_CONFIG]\ninputs=x\ninput_formats=RGB\n{means}std_value=1\n[OUTPUT_CONFIG]\noutputs=y\n", Path(file)
        )
        for means, file in ((lines, "whole.ini"), ("mean=0\n", "input_config.ini"))
    )
    (found,) = backbone_differences(whole, backbone)
    assert found.node == f"[INPUT_CONFIG] {lines.split('=')[0]}, line 4" and "3:0:0 is not what" in found.reason


def test_ssd300_has_the_priors_of_its_publication() -> None:
    found = ssd.priors((300, 300), ssd.SSD300)
    assert len(found) == 8732
    root = np.sqrt(30 * 60)
    sides = [(30, 30), (root, root), (30 / 2**0.5, 30 * 2**0.5), (30 * 2**0.5, 30 / 2**0.5)]  # height, width
    np.testing.assert_allclose(found[:4] * 300, [(4, 4, *side) for side in sides])
    np.testing.assert_allclose(found[-4] * 300, (150, 150, 264, 264))
    cut = ssd.priors((300, 300), ssd.SSD300, clip=True)[0] * 300  # from -11 to 19: to 0 to 19
    np.testing.assert_allclose(cut, (9.5, 9.5, 19, 19))


# -- from a source model to boxes --------------------------------------------------------------------------------------
SHAPES = ROOT / "SGS_Models/onnx/onnx_yolo_shapes"
PICTURES = sorted((ROOT / "SGS_Models/resource/shapes/test").glob("*.png"))
CALIBRATION = ROOT / "SGS_Models/resource/shapes/calibration"
WHOLE = SHAPES / "postprocess_input_config.ini"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the shipped detector and its post-processing at every stage, from a few pictures."""
    folder = tmp_path_factory.mktemp("shapes")
    samples = ["-i", sample_list(folder, CALIBRATION, 4), "-n", SHAPES / "onnx_yolo_shapes.py", "--quant_level", "L1"]
    code = call(sgs_converter, *source(SHAPES / "postprocess.py", WHOLE), *samples, "--category", "Detection",
                "--output_file", folder / "n.img", "--export_models")  # fmt: skip
    assert code == 0
    return folder


def source(script: object, whole: object) -> list[object]:
    model = ["onnx", "--model_file", SHAPES / "onnx_yolo_shapes.onnx", "--input_config", SHAPES / "input_config.ini"]
    return [*model, "--postprocess", script, "--postprocess_input_config", whole, "--soc_version", CHIP]


def call(program: Any, *words: object) -> int:
    return int(program.main([str(word) for word in words]))


def test_the_shipped_detector_ends_in_the_boxes_of_its_decode_script(made: Path) -> None:
    decode = loaded(SHAPES / "decode.py").decode
    session = onnxruntime.InferenceSession(SHAPES / "onnx_yolo_shapes.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    simulator, script = Simulator(made / "n_float.sim"), Preprocessor(SHAPES / "onnx_yolo_shapes.py")
    for picture in PICTURES[:8]:
        feeds = simulator.feeds([script], (picture,))
        maps = session.run(names, {"images": np.ascontiguousarray(feeds["images"].transpose(0, 3, 1, 2))})
        outputs = {name: x.transpose(0, 2, 3, 1) for name, x in zip(names, maps, strict=True)}
        corners, classes, scores = decode(outputs)
        found = {name: values[0] for name, values in simulator.run(feeds).items()}
        count = int(found["numDetections"])
        assert count == len(corners) > 0
        np.testing.assert_allclose(found["detectionBoxes"][:count], corners, atol=1e-5)
        np.testing.assert_allclose(found["detectionScores"][:count], scores, atol=1e-5)
        np.testing.assert_array_equal(found["detectionClasses"][:count], classes)


def test_fixed_and_offline_boxes_are_equal_and_near_those_of_float(made: Path, tmp_path: Path) -> None:
    listed = sample_list(tmp_path, PICTURES[0].parent, 6)
    texts: dict[str, list[str]] = {}
    for model in ("n_float.sim", "n_fixed.sim", "n.img"):
        samples = ["-m", made / model, "-i", listed, "-n", SHAPES / "onnx_yolo_shapes.py", "--output", tmp_path]
        drawn = tmp_path / f"drawn_{model}"
        assert call(simulator_tool, *samples, "-c", "Detection", "--draw_result", drawn) == 0
        assert len(list(drawn.glob("*.jpg"))) == 6
        files = sorted(tmp_path.glob(f"detection_{model}_*.txt"))
        texts[model] = [file.read_text("utf-8") for file in files]
    assert texts["n_fixed.sim"] == texts["n.img"]
    real, fixed = ([[json.loads(line) for line in text.splitlines()] for text in texts[m]] for m in list(texts)[:2])
    for expected, found in zip(real, fixed, strict=True):
        likely = [box for box in expected if box["score"] >= 0.3]
        assert likely
        for box in likely:
            same = [np.array(x["bbox"]) for x in found if x["category_id"] == box["category_id"]]
            (left, top, width, height), ends = box["bbox"], [np.concatenate([b[:2], b[:2] + b[2:]]) for b in same]
            assert max(shared(b, np.array([left, top, left + width, top + height])) for b in ends) > 0.85


def test_the_ini_of_the_whole_goes_with_the_float_model(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(check_input_config, "--input_config", WHOLE, "-m", made / "n_float.sim") == 0
    assert call(check_input_config, "--input_config", SHAPES / "input_config.ini", "-m", made / "n_float.sim") == 2
    assert "detectionBoxes" in capsys.readouterr().err
    debug = read_sim(made / "Debug_n_float.sim").graph
    assert debug.outputs == ["detectionBoxes", "detectionClasses", "detectionScores", "numDetections"]
    assert debug.metadata["config"] == WHOLE.read_text("utf-8")


def test_python_converts_the_same(made: Path, tmp_path: Path) -> None:
    converter = calibrator_custom.converter(
        "onnx",
        input_config=SHAPES / "input_config.ini",
        postprocess=SHAPES / "postprocess.py",
        postprocess_input_config=WHOLE,
        model_file=SHAPES / "onnx_yolo_shapes.onnx",
    )
    written = converter.convert(tmp_path / "n_float.sim")
    assert Path(written).read_bytes() == (made / "n_float.sim").read_bytes()


# -- public networks ---------------------------------------------------------------------------------------------------
PUBLIC = pytest.mark.skipif("SGS_TEST_DATA" not in os.environ, reason="SGS_TEST_DATA is not set")
DETECTION = "detectionBoxes,detectionClasses,detectionScores,numDetections"


def whole_of(ini: Path) -> Path:
    """An ini with a detector's outputs beside that of a backbone."""
    kept = [line for line in ini.read_text("utf-8").splitlines() if not line.startswith(("outputs", "dequant"))]
    target = ini.with_name("whole.ini")
    target.write_text("\n".join([*kept, f"outputs={DETECTION}"]) + "\n", "utf-8")
    return target


def converted_with(network: Any, script: object, folder: Path, pictures: list[Path]) -> Iterator[tuple[Any, Any]]:
    """(what onnxruntime gives of the backbone, what the float network finds) for each picture."""
    ini = network.write_config(folder)
    words = ["onnx", "--model_file", network.path(), "--input_config", ini, "--soc_version", CHIP]
    words += ["--postprocess", script, "--postprocess_input_config", whole_of(ini)]
    assert call(convert_tool, *words, "--output_file", folder / "n_float.sim") == 0
    simulator, preprocess = Simulator(folder / "n_float.sim"), Preprocessor(network.write_script(folder))
    session = onnxruntime.InferenceSession(network.path(), providers=["CPUExecutionProvider"])
    for picture in pictures:
        feeds = simulator.feeds([preprocess], (picture,))
        (fed,) = feeds.values()
        raw = session.run(network.outputs, {network.inputs[0]: np.ascontiguousarray(fed.transpose(0, 3, 1, 2))})
        yield raw, [values[0] for values in simulator.run(feeds).values()]


@PUBLIC
def test_yolox_nano_ends_in_boxes(tmp_path: Path) -> None:
    network = NETWORKS["yolox_nano"]
    total = 0
    for (raw,), (corners, classes, rated, _) in converted_with(network, "yolox", tmp_path, network.samples()[:3]):
        expected, kinds, scores = detections(raw)  # from 0.3 on, in pixels
        order = np.argsort(-scores, kind="stable")
        count = int((rated >= 0.3).sum())
        assert count == len(scores)
        np.testing.assert_allclose(rated[:count], scores[order], atol=1e-5)
        np.testing.assert_array_equal(classes[:count], kinds[order])
        relative = np.clip(expected[order][:, [1, 0, 3, 2]] / 416, 0, 1)
        np.testing.assert_allclose(corners[:count], relative, atol=2e-5)
        total += count
    assert total > 5


FACES = """import numpy as np
from postprocess import ssd
SIZES = {8: (10, 16, 24), 16: (32, 48), 32: (64, 96), 64: (128, 192, 256)}
def postprocess(network):
    height, width = network.size
    maps = [ssd.FeatureMap(-(-height // s), -(-width // s), sizes, step=(s, s)) for s, sizes in SIZES.items()]
    priors = np.clip(ssd.priors(network.size, maps), 0, 1)
    return ssd.detections(network, "boxes", "scores", priors, score_threshold=0.3)
"""


@PUBLIC
def test_ultraface_ends_in_boxes(tmp_path: Path) -> None:
    network, script = NETWORKS["ultraface"], tmp_path / "faces.py"
    script.write_text(FACES, "utf-8")
    pictures = sorted((data_folder() / "images/ultraface").glob("*.jpg"))[:3]
    priors = []
    for stride, sizes in {8: (10, 16, 24), 16: (32, 48), 32: (64, 96), 64: (128, 192, 256)}.items():
        for row, column in np.ndindex(-(-240 // stride), -(-320 // stride)):
            centre = (column + 0.5) * stride / 320, (row + 0.5) * stride / 240
            priors += [(*centre, min(1, size / 320), min(1, size / 240)) for size in sizes]
    x, y, width, height = np.array(priors).T
    total = 0
    for (scores, offsets), (corners, classes, rated, count) in converted_with(network, script, tmp_path, pictures):
        tx, ty, tw, th = offsets[0].astype(np.float64).T
        cx, cy, w, h = x + tx * 0.1 * width, y + ty * 0.1 * height, width * np.exp(tw * 0.2), height * np.exp(th * 0.2)
        boxes = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)
        kept = suppressed((boxes, scores[0, :, 1], np.zeros(len(boxes))), 0.3, 0.45, 100)
        assert count == len(kept)
        np.testing.assert_allclose(corners[: len(kept)], np.clip(boxes[kept][:, [1, 0, 3, 2]], 0, 1), atol=1e-4)
        np.testing.assert_allclose(rated[: len(kept)], scores[0, kept, 1], atol=1e-4)
        assert not classes.any()
        total += len(kept)
    assert total > 5
