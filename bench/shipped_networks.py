"""The shipped networks as benchmarks see them: with their own scripts, configurations and measures.

Pictures of digits are drawn anew, of 264 handwritten ones that training has not seen; that needs scikit-learn, which
has them. Shapes are those of SGS_Models/resource, of which there are masks and boxes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from evaluation import average_precision, loaded
from networks import Network, Picture

MODELS = Path(__file__).resolve().parent.parent / "SGS_Models"
RESOURCE = MODELS / "resource"
sys.path.insert(0, str(RESOURCE))

import render  # noqa: E402

RENDERINGS = 4  # of every held-out faint digit
Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Shipped(Network):
    """A shipped network. `model` is its file in the folder of its own, `pictures` a folder of SGS_Models/resource;
    `weights`: the second file of a Caffe network; `renderings` of every digit, of faint ones.
    """

    platform: str = "onnx"
    weights: str | None = None
    renderings: int = RENDERINGS

    @property
    def folder(self) -> Path:
        return MODELS / self.name.partition("_")[0] / self.name

    def path(self) -> Path:
        return self.folder / self.model

    def source(self) -> tuple[str, dict[str, Path]]:
        files = {"graph_def_file" if self.platform == "tensorflow_graphdef" else "model_file": self.path()}
        if self.weights is not None:
            files["weight_file"] = self.folder / self.weights
        return self.platform, files

    def split(self, scratch: Path) -> tuple[list[Picture], list[Picture]]:
        """The shipped calibration pictures, and pictures of held-out digits, drawn into `scratch`, or the shipped test
        pictures, by name."""
        calibration, test = (
            [(path, -1) for path in sorted((RESOURCE / self.pictures / part).glob("*.png"))]
            for part in ("calibration", "test")
        )
        return calibration, test if self.first_class is None else list(self._drawn(scratch))

    def _drawn(self, scratch: Path) -> Iterator[Picture]:
        for split in ("validation", "test"):  # no choice in training rests on either
            faint = self.pictures == "faint_digits"
            pictures = render.faint_digits(split, self.renderings) if faint else render.digits(split)
            for index, (image, label) in enumerate(pictures):
                path = scratch / f"{split}_{index:04d}.png"
                render.write_png(path, image)
                yield path, label

    def write_script(self, folder: Path, index: int = 0) -> Path:
        return self.folder / f"{self.name}.py"

    def write_config(self, folder: Path, conv_format: str | None = None) -> Path:
        text = (self.folder / "input_config.ini").read_text("utf-8")
        if conv_format is not None:
            text += f"[CONV_CONFIG]\ninput_format={conv_format};\n"
        path = folder / f"{self.name}_{conv_format or 'input'}_config.ini"
        path.write_text(text, encoding="utf-8")
        return path


@dataclass(frozen=True)
class Evaluated(Shipped):
    """One whose `score` in evaluate.py is `unit` times less."""

    unit: float = 1.0

    def measure(self, outputs: Sequence[Outputs]) -> float:
        """It reads the same pictures in the same order."""
        left = iter(outputs)
        sys.path.insert(0, str(self.folder))
        try:
            score = loaded(str(self.folder / "evaluate.py")).score
        finally:
            sys.path.remove(str(self.folder))
        return self.unit * float(score(lambda image: next(left)[self.outputs[0]]))


@dataclass(frozen=True)
class Detector(Shipped):
    """One whose decode.py makes boxes of its outputs."""

    def measure(self, outputs: Sequence[Outputs]) -> float:
        """Average precision in percent, mean over IoU 0.50 to 0.95 (COCO)."""
        test = RESOURCE / self.pictures / "test"
        paths = [str(path) for path in sorted(test.glob("*.png"))]
        decode = loaded(str(self.folder / "decode.py")).decode
        return 100 * average_precision(paths, [decode(found) for found in outputs], str(test / "instances.json"))


def _digits(name: str, suffix: str, result: str = "logits", faint: bool = True, **more: Any) -> Shipped:
    size, pictures = (render.FAINT_SIZE, "faint_digits") if faint else (render.DIGIT_SIZE, "digits")
    names = (more.pop("port", "images"),), (result,)
    return Shipped(name, name + suffix, *names, size, size, pictures=pictures, first_class=0, **more)


_SHAPES = (render.SHAPE_SIZE, render.SHAPE_SIZE)
_HEADS = tuple(f"{head}_p{level}" for level in (3, 4, 5) for head in ("box", "cls"))
_LENET = {"platform": "caffe", "weights": "caffe_lenet.caffemodel", "port": "data", "faint": False}
SHIPPED: dict[str, Shipped] = {
    network.name: network
    for network in (
        _digits("onnx_mobilenet_v2_digits", ".onnx", faint=False),
        _digits("onnx_mobilenet_v3_digits", ".onnx"),
        _digits("onnx_repvgg_digits", ".onnx"),
        _digits("pytorch_resnet8_digits", ".pt2", platform="pytorch"),
        _digits("caffe_lenet", ".prototxt", "prob", **_LENET),
        Detector("onnx_yolo_shapes", "onnx_yolo_shapes.onnx", ("images",), _HEADS, *_SHAPES, pictures="shapes"),
        Evaluated(
            "tflite_segmentation_shapes",
            "tflite_segmentation_shapes.tflite",
            ("images",),
            ("Identity",),
            *_SHAPES,
            pictures="shapes",
            platform="tflite",
            unit=100.0,
        ),
        Evaluated(
            "tensorflow_fsrcnn_shapes",
            "tensorflow_fsrcnn_shapes.pb",
            ("images",),
            ("enlarged",),
            64,
            64,
            pictures="shapes",
            platform="tensorflow_graphdef",
        ),
    )
}
