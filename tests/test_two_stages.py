"""The detector in two stages: Scripts/examples/caffe_faster_rcnn on SGS_Models/onnx/onnx_faster_rcnn_shapes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from conventions import ROOT
from sgs.cli import compiler_tool, convert_tool
from sgs.numeric.quantise import Array
from shipped import CHIP, launch

EXAMPLE = ROOT / "Scripts/examples/caffe_faster_rcnn"
FOLDER = ROOT / "SGS_Models/onnx/onnx_faster_rcnn_shapes"
PICTURES = ROOT / "SGS_Models/resource/shapes"
LABELS = FOLDER / "labels.txt"
KINDS = ("Float", "Fixed", "Offline")


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    """The simulator's module, with those beside it on the path."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        import faster_rcnn_simulator

        yield faster_rcnn_simulator
    finally:
        sys.path.remove(str(EXAMPLE))
        for name in ("faster_rcnn_simulator", "stages", "rpn"):
            sys.modules.pop(name, None)


class Models:
    """Both stages at every step, in a folder."""

    def __init__(self, folder: Path, changes: dict[str, str]) -> None:
        self.folder = folder
        for stage, ending, ini in (("main", "", "input_config.ini"), ("stage2", "_stage2", "input_config_stage2.ini")):
            text = (FOLDER / ini).read_text(encoding="utf-8")
            for old, new in changes.items():
                text = text.replace(old, new)
            (folder / ini).write_text(text, encoding="utf-8")
            options = ["--model_file", str(FOLDER / f"{FOLDER.name}{ending}.onnx"), "--input_config", str(folder / ini)]
            target = ["--output_file", str(folder / f"{stage}_float.sim"), "--soc_version", CHIP]
            assert convert_tool.main(["onnx", *options, *target]) == 0
        pictures = folder / "pictures"
        pictures.mkdir()
        for path in sorted((PICTURES / "calibration").glob("*.png"))[:16]:
            (pictures / path.name).symlink_to(path)
        options = ["-i", str(pictures), "-m0", "main_float.sim", "-m1", "stage2_float.sim", "--quant_level", "L2"]
        options += ["--input_config0", "input_config.ini", "--input_config1", "input_config_stage2.ini"]
        done = launch("Scripts/examples/caffe_faster_rcnn/faster_rcnn_calibrator.py", *options, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "Fixed model at: main_fixed.sim\nFixed model at: stage2_fixed.sim\n"
        for stage in ("main", "stage2"):
            files = ["-m", str(folder / f"{stage}_fixed.sim"), "-o", str(folder / f"{stage}.img")]
            assert compiler_tool.main([*files, "--soc_version", CHIP]) == 0

    def of(self, kind: str) -> list[str]:
        ending = {"Float": "_float.sim", "Fixed": "_fixed.sim", "Offline": ".img"}[kind]
        return [str(self.folder / f"{stage}{ending}") for stage in ("main", "stage2")]


@pytest.fixture(scope="module")
def real_numbers(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """As shipped: conv5_3 passes as float32."""
    return Models(tmp_path_factory.mktemp("as shipped"), {})


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """conv5_3 passes as int16."""
    changes = {"TRUE,TRUE,TRUE": "TRUE,TRUE,FALSE", "=RAWDATA_F32_NHWC,": "=RAWDATA_S16_NHWC,"}
    return Models(tmp_path_factory.mktemp("编码"), changes)


@lru_cache(maxsize=1)
def test_pictures() -> list[tuple[Array, Array, Array]]:
    """(picture, corner boxes, classes from 1 on) of every labelled picture."""
    content = json.loads((PICTURES / "test/instances.json").read_text(encoding="utf-8"))
    found = []
    for entry in content["images"]:
        mine = [item for item in content["annotations"] if item["image_id"] == entry["id"]]
        boxes = np.array([item["bbox"] for item in mine])
        boxes[:, 2:] += boxes[:, :2]
        picture = cv2.imread(str(PICTURES / "test" / entry["file_name"]))
        found.append((picture, boxes, np.array([item["category_id"] for item in mine])))
    return found


test_pictures.__test__ = False  # type: ignore[attr-defined]


def found_by(example: ModuleType, models: Models, kind: str) -> list[list[Any]]:
    """Detections in every test picture."""
    net = example.Net(*models.of(kind), kind)
    results = net([picture for picture, _, _ in test_pictures()], num_process=2)
    return [example.stages.detections(result, 128, 128) for result in results]


def matched(example: ModuleType, found: list[Any], boxes: Array, classes: Array, overlap: float) -> int:
    """How many of the boxes have a detection of their class that overlaps so much, each for itself."""
    left, count = list(range(len(boxes))), 0
    for detection in found:
        fitting = example.rpn.iou_matrix(np.array([detection.box]), boxes[left].reshape(-1, 4))[0]
        fitting = np.where(classes[left] == detection.label, fitting, 0)
        if fitting.size and fitting.max() >= overlap:
            count += 1
            left.pop(int(fitting.argmax()))
    return count


@pytest.mark.parametrize("way", ["real_numbers", "codes"])
def test_integers_find_what_the_float_models_find(
    example: ModuleType, request: pytest.FixtureRequest, way: str
) -> None:
    models = request.getfixturevalue(way)
    floats, fixed, offline = (found_by(example, models, kind) for kind in KINDS)
    assert fixed == offline
    total = agreeing = 0
    for real, integer in zip(floats, fixed, strict=True):
        boxes = np.array([detection.box for detection in real]).reshape(-1, 4)
        labels = np.array([detection.label for detection in real])
        agreeing += matched(example, integer, boxes, labels, 0.9)
        total += max(len(real), len(integer))
    print(f"{agreeing} of {total} boxes agree")
    assert agreeing >= 0.95 * total > 0


@pytest.mark.parametrize("kind", ["Float", "Fixed"])
def test_quality(example: ModuleType, real_numbers: Models, kind: str) -> None:
    """On pictures that neither training nor calibration saw, at IoU 0.5."""
    found = found_by(example, real_numbers, kind)
    truth = [(boxes, classes) for _, boxes, classes in test_pictures()]
    right = sum(matched(example, mine, *theirs, 0.5) for mine, theirs in zip(found, truth, strict=True))
    precision, recall = right / sum(map(len, found)), right / sum(len(classes) for _, classes in truth)
    print(f"{kind}: precision {precision:.4f} recall {recall:.4f}")
    assert precision >= 0.9 and recall >= 0.9
