"""Measure the float detection quality of the two-stage shapes detector on the labelled test pictures.

Needs onnxruntime, opencv-python-headless and numpy. Run ``python evaluate.py``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parents[2] / "Scripts"
sys.path[1:1] = [str(SCRIPTS), str(SCRIPTS / "examples" / "caffe_faster_rcnn")]

import rpn  # noqa: E402
import stages  # noqa: E402

TEST_FOLDER = HERE.parents[1] / "resource" / "shapes" / "test"
MODELS = (HERE / f"{HERE.name}.onnx", HERE / f"{HERE.name}_stage2.onnx")
Truth = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Picture, uint8 BGR [H, W, 3]; corner boxes in pixels, [M, 4]; classes from 1 on, [M]."""


class OnnxStage:
    """A stage as onnxruntime runs it, with the methods of a float simulator and its order of axes (NHWC)."""

    def __init__(self, path: Path) -> None:
        """Open the file."""
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.feeds: dict[str, np.ndarray] = {}
        self.results: list[np.ndarray] = []

    def get_input_details(self) -> list[dict[str, Any]]:
        """As a simulator's."""
        return [self._details(port) for port in self.session.get_inputs()]

    def get_output_details(self) -> list[dict[str, Any]]:
        """As a simulator's."""
        return [self._details(port) for port in self.session.get_outputs()]

    @staticmethod
    def _details(port: Any) -> dict[str, Any]:
        n, *rest = port.shape
        return {
            "name": port.name,
            "shape": [n, *rest[1:], rest[0]] if len(rest) == 3 else port.shape,
            "dtype": np.float32,
        }

    def set_input(self, index: int, data: np.ndarray) -> None:
        """As a simulator's."""
        turned = data.transpose(0, 3, 1, 2) if data.ndim == 4 else data
        self.feeds[self.session.get_inputs()[index].name] = np.ascontiguousarray(turned)

    def invoke(self) -> None:
        """As a simulator's."""
        self.results = self.session.run(None, self.feeds)

    def get_output(self, index: int) -> np.ndarray:
        """As a simulator's."""
        data = self.results[index]
        return data.transpose(0, 2, 3, 1) if data.ndim == 4 else data


def read_truth(folder: Path = TEST_FOLDER) -> list[Truth]:
    """The pictures that ``instances.json`` lists, with their objects."""
    content = json.loads((folder / "instances.json").read_text(encoding="utf-8"))
    found = []
    for entry in content["images"]:
        mine = [item for item in content["annotations"] if item["image_id"] == entry["id"]]
        boxes = np.array([item["bbox"] for item in mine])
        boxes[:, 2:] += boxes[:, :2]
        picture = stages.read_picture(str(folder / entry["file_name"]))
        found.append((picture, boxes, np.array([item["category_id"] for item in mine])))
    return found


def matched(found: Sequence[stages.Detection], boxes: np.ndarray, classes: np.ndarray, overlap: float) -> int:
    """How many of the boxes have a detection of their class that overlaps so much, each one of its own."""
    left, count = np.ones(len(boxes), bool), 0
    for detection in found:
        fitting = rpn.iou_matrix(np.array([detection.box]), boxes)[0] * (classes == detection.label) * left
        if fitting.size and fitting.max() >= overlap:
            count += 1
            left[fitting.argmax()] = False
    return count


def quality(found: Sequence[Sequence[stages.Detection]], truth: Sequence[Truth]) -> tuple[float, float]:
    """Precision and recall over all pictures at an intersection over union of 0.5."""
    right = sum(matched(mine, *objects, 0.5) for mine, (_, *objects) in zip(found, truth, strict=True))
    return right / max(1, sum(map(len, found))), right / sum(len(classes) for _, _, classes in truth)


def detect(models: Sequence[Path], truth: Sequence[Truth]) -> list[list[stages.Detection]]:
    """What the two ONNX files find in every picture."""
    main, second = (OnnxStage(path) for path in models)
    proposals = rpn.ProposalLayer()
    results = [stages.forward(main, second, proposals, picture, norm=True) for picture, _, _ in truth]
    return [
        stages.detections(result, *picture.shape[:2]) for result, (picture, _, _) in zip(results, truth, strict=True)
    ]


def main(models: Sequence[Path] = MODELS) -> None:
    """Print the quality of two ONNX files."""
    truth = read_truth()
    precision, recall = quality(detect(models, truth), truth)
    print(f"{len(truth)} pictures, scores from 0.5 on: precision {precision:.4f}, recall {recall:.4f}")


if __name__ == "__main__":
    main()
