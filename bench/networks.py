"""The public networks that benchmarks and tests run, each with its preprocessing as a user would write it.

The networks are not part of this project: the folder that holds them is named by the environment variable
SGS_TEST_DATA.
"""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

_SCRIPT = '''"""Preprocess script of {name}."""
import cv2
import numpy as np


def image_preprocess(path, norm=True):
    """[1, {height}, {width}, {channels}] in {colour} order: float32 (x - {mean}) / {std}, or uint8."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if {channels} == 1 else cv2.IMREAD_COLOR)
    if image is None:
        raise FileNotFoundError(f"no such picture: {{path}}")
    if {rotated}:
        image = cv2.rotate(image, cv2.ROTATE_180)
    if {central} < 1:  # the middle of the picture
        top, left = (int((1 - {central}) / 2 * extent) for extent in image.shape[:2])
        image = image[top : image.shape[0] - top, left : image.shape[1] - left]
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
    image = np.ascontiguousarray(image.reshape(1, {height}, {width}, {channels}))
    if not norm:
        return image
    return ((image - np.array({mean})) / np.array({std})).astype(np.float32)
'''
Picture = tuple[Path, int]  # with its class; -1 where it has none


@dataclass(frozen=True)
class Network:
    """One network: file and pictures below the data folder, and what its input_config.ini says (mean, std in R, G, B
    order; one value for GRAY). `colour`: the format, RAWDATA_… for inputs that are no pictures.

    `sizes`: height and width of every input where they differ; `central`: the share of a picture's height and width
    that each input sees; `rotated`: by half a turn; `shapes`: static shapes for a model without, in the model's layout;
    `first_class`: for classifiers, the output index of class 0; `words`: pictures get some text, which the network is
    there to find.
    """

    name: str
    model: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    height: int
    width: int
    colour: str = "RGB"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (255.0, 255.0, 255.0)
    letterbox: bool = False
    crop: bool = False
    rotated: bool = False
    pictures: str = "images/coco64/images"
    sizes: tuple[tuple[int, int], ...] = ()
    central: tuple[float, ...] = ()
    shapes: tuple[tuple[int, ...], ...] | None = None
    first_class: int | None = None
    words: bool = False

    def path(self) -> Path:
        return data_folder() / self.model

    def source(self) -> tuple[str, dict[str, Path]]:
        """Platform and files, as `sgs.pipelines.convert` takes them."""
        return "onnx", {"model_file": self.path()}

    def measure(self, outputs: Sequence[Mapping[str, np.ndarray]]) -> float | None:
        """What a measure of the network's own says of the outputs for the pictures to score on, the more the better;
        None: there is no such measure."""
        return None

    def samples(self) -> list[Path]:
        """All pictures, sorted by name."""
        return sorted((data_folder() / self.pictures).glob("*.jpg"))

    def split(self, scratch: Path) -> tuple[list[Picture], list[Picture]]:
        """Pictures to calibrate with and pictures to score on. Of pictures with classes every fifth calibrates, of
        others the first half by name. Pictures that are not files as they are needed are written into `scratch`.
        """
        source = data_folder() / self.pictures
        if source.suffix == ".gz":
            labelled = _unpack(source, scratch)
        elif (source / "labels.csv").exists():
            with (source / "labels.csv").open(encoding="utf-8", newline="") as file:
                labelled = [(source / row["file"], int(row["class_index"])) for row in csv.DictReader(file)]
        else:
            paths = self.samples()
            samples = [(path, -1) for path in (_with_words(paths, scratch) if self.words else paths)]
            return samples[: len(samples) // 2], samples[len(samples) // 2 :]
        return labelled[::5], [picture for index, picture in enumerate(labelled) if index % 5]

    def write_script(self, folder: Path, index: int = 0) -> Path:
        """Write the preprocess script of an input."""
        order = {"RGB": (0, 1, 2), "BGR": (2, 1, 0), "GRAY": (0,)}[self.colour]
        height, width = self.sizes[index] if self.sizes else (self.height, self.width)
        text = _SCRIPT.format(
            name=self.name,
            height=height,
            width=width,
            channels=len(order),
            colour=self.colour,
            central=self.central[index] if self.central else 1,
            letterbox=self.letterbox,
            crop=self.crop,
            rotated=self.rotated,
            mean=[self.mean[i] for i in order],
            std=[self.std[i] for i in order],
        )
        path = folder / f"{self.name.replace('.', '_')}_preprocess{index or ''}.py"
        path.write_text(text, encoding="utf-8")
        return path

    def write_config(self, folder: Path, conv_format: str | None = None) -> Path:
        """Write input_config.ini, with [CONV_CONFIG] input_format where one is given."""

        def every(value: str) -> str:
            return ",".join([value] * len(self.inputs)) + ";"

        lines = [
            "[INPUT_CONFIG]",
            f"inputs={','.join(self.inputs)};",
            f"training_input_formats={every(self.colour)}",
            f"input_formats={every(self.colour)}",
            f"quantizations={every('TRUE')}",
        ]
        if not self.colour.startswith("RAWDATA"):
            lines += [f"mean={every(':'.join(map(str, self.mean)))}"]
            lines += [f"std_value={every(':'.join(map(str, self.std)))}"]
        lines += [
            "[OUTPUT_CONFIG]",
            f"outputs={','.join(self.outputs)};",
            f"dequantizations={','.join(['TRUE'] * len(self.outputs))};",
        ]
        if conv_format is not None:
            lines += ["[CONV_CONFIG]", f"input_format={conv_format};"]
        path = folder / f"{self.name}_{conv_format or 'input'}_config.ini"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path


def _unpack(source: Path, folder: Path, count: int = 500) -> list[Picture]:
    """The first pictures of an idx file as PNG, with their labels (http://yann.lecun.com/exdb/mnist, file formats)."""
    labels = source.with_name(source.name.replace("images-idx3", "labels-idx1"))
    images = np.frombuffer(gzip.decompress(source.read_bytes()), np.uint8)[16:].reshape(-1, 28, 28)
    classes = np.frombuffer(gzip.decompress(labels.read_bytes()), np.uint8)[8:]
    found = []
    for index in range(count):
        path = folder / f"digit{index:03}.png"
        cv2.imwrite(str(path), images[index])
        found.append((path, int(classes[index])))
    return found


def _with_words(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Copies of pictures with eight words each, of random letters, size, colour and place."""
    found = []
    for index, path in enumerate(paths):
        random, image = np.random.default_rng(index), cv2.imread(str(path))
        for _ in range(8):
            word = "".join(random.choice(list("ABCDEFGHKLMNPRSTabdeghknprst0123456789"), random.integers(3, 10)))
            place = [int(random.uniform(0.02, 0.7) * image.shape[1]), int(random.uniform(0.1, 0.95) * image.shape[0])]
            colour, scale = random.integers(0, 256, 3).tolist(), random.uniform(0.6, 1.8)
            cv2.putText(image, word, place, cv2.FONT_HERSHEY_DUPLEX, scale, colour, 2, cv2.LINE_AA)
        found.append(folder / f"words_{path.stem}.png")
        cv2.imwrite(str(found[-1]), image)
    return found


def data_folder() -> Path:
    """The folder named by SGS_TEST_DATA. Raises KeyError when the variable is not set."""
    return Path(os.environ["SGS_TEST_DATA"])


HALF = {"mean": (127.5, 127.5, 127.5), "std": (127.5, 127.5, 127.5)}
IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}

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
        first_class=1,
        **HALF,
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
        first_class=0,
        **IMAGENET,
    ),
)
NETWORKS = {network.name: network for network in (*MAIN, *MORE)}
CALIBRATED = (  # further networks of the calibration benchmark
    Network(
        "ultraface_slim",
        "onnx/ultraface/version-slim-320_without_postprocessing.onnx",
        ("input",),
        ("scores", "boxes"),
        240,
        320,
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
    ),
    Network(
        "super_resolution",
        "onnx/super_resolution/super_resolution.onnx",
        ("input",),
        ("output",),
        224,
        224,
        "GRAY",
        mean=(0.0,),
        std=(255.0,),
        shapes=((1, 1, 224, 224),),
    ),
    Network(
        "ppocr_det",
        "onnx/ppocr_v1.1_det/ch_mobile_v1.1_det.onnx",
        ("image",),
        ("save_infer_model/scale_0.tmp_0",),
        640,
        640,
        shapes=((1, 3, 640, 640),),
        words=True,
        **IMAGENET,
    ),
    Network(
        "mnist_cntk",
        "onnx/mnist_cntk/model.onnx",
        ("Input3",),
        ("Plus214_Output_0",),
        28,
        28,
        "GRAY",
        mean=(0.0,),
        std=(255.0,),
        pictures="images/mnist/t10k-images-idx3-ubyte.gz",
        first_class=0,
    ),
    Network(
        "vittrack",
        "onnx/vittrack/vttrack_earlier.onnx",
        ("template", "search"),
        ("output1", "output2", "output3"),
        256,
        256,
        sizes=((128, 128), (256, 256)),
        central=(0.5, 1.0),
        **IMAGENET,
    ),
)
EVERY = {**NETWORKS, **{network.name: network for network in CALIBRATED}}
