"""The public networks that benchmarks and tests run, each with its preprocessing as a user would write it.

The networks are not part of this project: the folder that holds them is named by the environment variable
SGS_TEST_DATA.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = '''"""Preprocess script of {name}."""
import cv2
import numpy as np


def image_preprocess(path, norm=True):
    """[1, {height}, {width}, 3] in {colour} order: float32 (x - {mean}) / {std}, or uint8."""
    image = cv2.imread(str(path))
    if image is None:
        raise FileNotFoundError(f"no such picture: {{path}}")
    if {letterbox}:
        ratio = min({height} / image.shape[0], {width} / image.shape[1])
        small = cv2.resize(image, (int(image.shape[1] * ratio), int(image.shape[0] * ratio)))
        image = np.full(({height}, {width}, 3), 114, np.uint8)
        image[: small.shape[0], : small.shape[1]] = small
    elif {crop}:
        top, left = (image.shape[0] - {height}) // 2, (image.shape[1] - {width}) // 2
        image = image[top : top + {height}, left : left + {width}]
    else:
        image = cv2.resize(image, ({width}, {height}))
    if "{colour}" == "RGB":
        image = image[:, :, ::-1]
    image = np.ascontiguousarray(image[None])
    if not norm:
        return image
    return ((image - np.array({mean})) / np.array({std})).astype(np.float32)
'''


@dataclass(frozen=True)
class Network:
    """One network: file and pictures below the data folder, and what its input_config.ini says (mean, std in R, G, B
    order).
    """

    name: str
    model: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    height: int
    width: int
    colour: str = "RGB"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    letterbox: bool = False
    crop: bool = False
    pictures: str = "images/coco64/images"

    def path(self) -> Path:
        return data_folder() / self.model

    def samples(self) -> list[Path]:
        """All pictures, sorted by name."""
        return sorted((data_folder() / self.pictures).glob("*.jpg"))

    def write_script(self, folder: Path) -> Path:
        """Write the preprocess script."""
        order = (0, 1, 2) if self.colour == "RGB" else (2, 1, 0)
        text = _SCRIPT.format(
            name=self.name,
            height=self.height,
            width=self.width,
            colour=self.colour,
            letterbox=self.letterbox,
            crop=self.crop,
            mean=[self.mean[i] for i in order],
            std=[self.std[i] for i in order],
        )
        path = folder / f"{self.name.replace('.', '_')}_preprocess.py"
        path.write_text(text, encoding="utf-8")
        return path

    def write_config(self, folder: Path) -> Path:
        """Write input_config.ini."""
        lines = [
            "[INPUT_CONFIG]",
            f"inputs={','.join(self.inputs)};",
            f"training_input_formats={self.colour};",
            f"input_formats={self.colour};",
            "quantizations=TRUE;",
            f"mean={':'.join(map(str, self.mean))};",
            f"std_value={':'.join(map(str, self.std))};",
            "[OUTPUT_CONFIG]",
            f"outputs={','.join(self.outputs)};",
            f"dequantizations={','.join(['TRUE'] * len(self.outputs))};",
        ]
        path = folder / f"{self.name}_input_config.ini"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path


def data_folder() -> Path:
    """The folder named by SGS_TEST_DATA. Raises KeyError when the variable is not set."""
    return Path(os.environ["SGS_TEST_DATA"])


_HALF = {"mean": (127.5, 127.5, 127.5), "std": (127.5, 127.5, 127.5)}
_IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}

MAIN = (  # the networks of the main benchmark
    Network(
        "yolox_nano",
        "onnx/yolox_nano/yolox_nano.onnx",
        ("images",),
        ("output",),
        416,
        416,
        "BGR",
        std=(1.0, 1.0, 1.0),
        letterbox=True,
    ),
    Network(
        "ultraface",
        "onnx/ultraface/version-RFB-320_simplified.onnx",
        ("input",),
        ("scores", "boxes"),
        240,
        320,
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
    ),
    Network("fastestdet", "onnx/fastestdet/FastestDet.onnx", ("input.1",), ("758",), 352, 352, "BGR"),
    Network(
        "palm_detection", "onnx/mediapipe/palm_detection_lite.onnx", ("input_1",), ("Identity", "Identity_1"), 192, 192
    ),
    Network(
        "selfie_segmentation",
        "onnx/mediapipe/selfie_segmentation_landscape.onnx",
        ("input_1",),
        ("segment_back",),
        144,
        256,
    ),
)
MORE = (
    Network(
        "face_detection",
        "onnx/mediapipe/face_detection_full_range.onnx",
        ("input",),
        ("reshaped_regressor_face_4", "reshaped_classifier_face_4"),
        192,
        192,
    ),
    Network(
        "mobilenet_v1_0.25",
        "onnx/mobilenet_v1_0.25_224/mobilenet_v1_0.25_224.onnx",
        ("input",),
        ("prob",),
        224,
        224,
        crop=True,
        pictures="images/imagenet_sample",
        **_HALF,
    ),
    Network(
        "shufflenet_v2",
        "onnx/shufflenet_v2/shufflenet-v2-12-deq.onnx",
        ("input",),
        ("output",),
        224,
        224,
        crop=True,
        pictures="images/imagenet_sample",
        **_IMAGENET,
    ),
)
NETWORKS = {network.name: network for network in (*MAIN, *MORE)}
