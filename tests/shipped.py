"""What is shipped, and the digit classifier converted once per test process: for tests that need a real model."""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from conventions import ROOT
from sgs.cli import sgs_converter
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.simulation import Simulated, Simulator

CHIP = "pcupid"
NAME = "onnx_mobilenet_v2_digits"
FOLDER = ROOT / "SGS_Models/onnx" / NAME
MODEL, INI, SCRIPT = FOLDER / f"{NAME}.onnx", FOLDER / "input_config.ini", FOLDER / f"{NAME}.py"
CALIBRATION = ROOT / "SGS_Models/resource/digits/calibration"
TEST = ROOT / "SGS_Models/resource/digits/test"
LABELS = TEST / "labels.csv"

PICTURES = {  # every shipped ONNX model → its pictures under SGS_Models/resource
    "onnx_faster_rcnn_shapes": "shapes",
    NAME: "digits",
    "onnx_mobilenet_v3_digits": "faint_digits",
    "onnx_repvgg_digits": "faint_digits",
    "onnx_yolo_shapes": "shapes",
}


@dataclass(frozen=True)
class Example:
    """A shipped model of another platform.

    files: (option of the platform, file or folder) pairs;
    least: score on the test pictures, of any kind of model.
    """

    platform: str
    name: str
    files: tuple[tuple[str, str], ...]
    pictures: str
    least: float

    @property
    def folder(self) -> Path:
        """Platforms that are TensorFlow have one folder in common."""
        return ROOT / "SGS_Models" / self.name.partition("_")[0] / self.name

    @property
    def source(self) -> list[str]:
        """The command line that converts it, but for the files to write."""
        files = [word for option, file in self.files for word in (f"--{option}", str(self.folder / file))]
        return [self.platform, *files, "--input_config", str(self.folder / "input_config.ini"), "--soc_version", CHIP]


_LENET, _SEGMENTATION, _RESNET = "caffe_lenet", "tflite_segmentation_shapes", "pytorch_resnet8_digits"
_FSRCNN = "tensorflow_fsrcnn_shapes"
EXAMPLES = (
    Example(
        "caffe",
        _LENET,
        (("model_file", f"{_LENET}.prototxt"), ("weight_file", f"{_LENET}.caffemodel")),
        "digits",
        0.92,
    ),
    Example("tflite", _SEGMENTATION, (("model_file", f"{_SEGMENTATION}.tflite"),), "shapes", 0.92),
    Example("tensorflow_graphdef", _FSRCNN, (("graph_def_file", f"{_FSRCNN}.pb"),), "shapes", 34.0),
    Example("tensorflow_savemodel", _FSRCNN, (("saved_model_dir", "saved_model"),), "shapes", 34.0),
    Example("keras", _FSRCNN, (("model_file", f"{_FSRCNN}.keras"),), "shapes", 34.0),
    Example("pytorch", _RESNET, (("model_file", f"{_RESNET}.pt2"),), "faint_digits", 0.88),
)

SOURCE = ["--model_file", str(MODEL), "--input_config", str(INI), "--soc_version", CHIP]


@lru_cache(maxsize=1)
def _kept() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="sgs_shipped_")


@lru_cache(maxsize=1)
def converted() -> Path:
    """A folder with Debug_digits_float.sim, digits_float.sim, digits_fixed.sim and digits.img, from a few pictures."""
    folder = Path(_kept().name)
    options = ["-i", str(sample_list(folder, CALIBRATION, 8)), "-n", str(SCRIPT), "--quant_level", "L2"]
    code = sgs_converter.main(
        ["onnx", *SOURCE, *options, "--output_file", str(folder / "digits.img"), "--export_models"]
    )
    assert code == 0
    return folder


def sample_list(folder: Path, pictures: Path, count: int) -> Path:
    """A list file of the first `count` pictures."""
    file = folder / f"{pictures.name}_{count}.txt"
    file.write_text("".join(f"{path}\n" for path in sorted(pictures.glob("*.png"))[:count]), encoding="utf-8")
    return file


def simulated(
    simulator: Simulator, preprocessors: Sequence[Preprocessor], samples: Iterable[Sample]
) -> Iterator[Simulated]:
    """(sample, feeds, outputs) of every sample, in order, as `simulator.py` goes through them."""
    return simulator.map(preprocessors, samples, lambda *found: found)


@lru_cache
def labels(table: Path = LABELS) -> dict[str, int]:
    """Test picture → class."""
    with table.open(encoding="utf-8") as file:
        return {row["file"]: int(row["class_index"]) for row in csv.DictReader(file)}


def launch(program: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a launcher of the tree as users do, from a folder that is not the tree's."""
    command = [sys.executable, str(ROOT / program), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
