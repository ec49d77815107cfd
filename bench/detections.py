"""Are the boxes of a fixed network with its post-processing those of the float network?

usage: SGS_TEST_DATA=FOLDER python bench/detections.py [--networks A,B] [--settings A,B]

Each network is converted with --postprocess, calibrated, and run float and fixed by simulator.py -c Detection on
pictures that it was not calibrated on, all as users do. Compared are the result files. Of float's boxes with a score of
0.3 or more those are the same that the fixed network has with the same class, an IoU of 0.9 or more and a score within
0.1; the share is counted the other way round as well, and beside it that of boxes that have 0.3 on both sides,
whatever the score. The others are told one by one: the best box of the class that overlaps, with both scores and the
IoU. Ends with 1 where less than 99 % of float's boxes are the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from networks import NETWORKS, Network, data_folder
from scores import overlaps

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "Scripts"))

from sgs.cli import calibrator_tool, convert_tool, simulator_tool  # noqa: E402

CHIP, SCORE, NEAR, IOU, BAR = "pcupid", 0.3, 0.1, 0.9, 0.99
OUTPUTS = "detectionBoxes,detectionClasses,detectionScores,numDetections"
SETTINGS: dict[str, list[str]] = {
    "L5": [],
    "L5, half in 16 bit": ["-sth", "0", "--max_int16_macs", "0.5"],
    "L5, all in 16 bit": ["-sth", "0", "--max_int16_macs", "1"],
}
FACES = '''"""Faces: priors of 3 or 2 sizes, whose sides are cut to the picture's."""
import numpy as np

from postprocess import ssd

SIZES = {8: (10, 16, 24), 16: (32, 48), 32: (64, 96), 64: (128, 192, 256)}


def postprocess(network):
    height, width = network.size
    maps = [ssd.FeatureMap(-(-height // s), -(-width // s), sizes, step=(s, s)) for s, sizes in SIZES.items()]
    return ssd.detections(network, "boxes", "scores", np.clip(ssd.priors(network.size, maps), 0, 1))
'''
Box = dict[str, Any]  # a line of a result file


@dataclass(frozen=True)
class Detector:
    """A network with its post-processing: files of its own in `folder`, samples as simulator.py's -i takes them."""

    name: str
    source: list[str]
    script: Path
    calibration: Path
    test: Path
    folder: Path

    def run(self, settings: dict[str, list[str]]) -> bool:
        """Measure it at every setting; whether the bar is met at the first."""
        _tool(convert_tool, *self.source, "--output_file", self.folder / "n_float.sim", "--soc_version", CHIP)
        expected = self._boxes("n_float.sim")
        met = []
        for setting, options in settings.items():
            words = ["-m", self.folder / "n_float.sim", "--input_config", self.folder / "whole.ini", *options]
            words += ["-i", self.calibration, "-n", self.script, "--num_process", "1", "--soc_version", CHIP]
            told = _tool(calibrator_tool, *words)
            print("\n".join(line for line in told.splitlines() if "boxes kept" in line or "convolutions" in line))
            met.append(_told(f"{self.name}, {setting}", expected, self._boxes("n_fixed.sim")))
        return met[0]

    def _boxes(self, model: str) -> dict[str, list[Box]]:
        results = self.folder / model.removesuffix(".sim")
        results.mkdir(exist_ok=True)
        words = ["-m", self.folder / model, "-i", self.test, "-n", self.script, "--output", results]
        _tool(simulator_tool, *words, "-c", "Detection", "--num_process", "1")
        lines = {path.name.split(".sim_")[1]: path.read_text("utf-8").splitlines() for path in results.glob("*.txt")}
        return {name: [json.loads(line) for line in found] for name, found in sorted(lines.items())}


def _tool(tool: Any, *words: object) -> str:
    """Run a program; what it printed."""
    with redirect_stdout(StringIO()) as told:
        code = tool.main([str(word) for word in words])
    if code:
        raise SystemExit(f"{tool.__name__} ends with {code}\n{told.getvalue()}")
    return told.getvalue()


# -- comparing ---------------------------------------------------------------------------------------------------------
def likely(boxes: Sequence[Box]) -> list[Box]:
    return [box for box in boxes if box["score"] >= SCORE]


def nearest(box: Box, others: Sequence[Box]) -> tuple[float, float]:
    """(IoU, score) of the box of the same class that overlaps most; (0, 0) for none."""
    same = [other for other in others if other["category_id"] == box["category_id"]]
    if not same:
        return 0.0, 0.0
    shared = overlaps(_corners([box]), _corners(same))[0]
    best = int(shared.argmax())
    return float(shared[best]), float(same[best]["score"])


def _corners(boxes: Sequence[Box]) -> np.ndarray:
    found = np.array([box["bbox"] for box in boxes])
    return np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)


def lost(expected: dict[str, list[Box]], found: dict[str, list[Box]]) -> tuple[int, list[str], list[Box]]:
    """How many likely boxes `expected` has, a line for each that `found` lacks, and those without a likely one."""
    count, lines, without = 0, list[str](), list[Box]()
    for picture, boxes in expected.items():
        for box in likely(boxes):
            count += 1
            if nearest(box, likely(found[picture]))[0] < IOU:
                without.append(box)
            shared, score = nearest(box, found[picture])
            if shared >= IOU and abs(score - box["score"]) <= NEAR:
                continue
            what = "moved" if shared < IOU else "another score"
            pair = f"score {box['score']:.3f}, there {score:.3f}, IoU {shared:.3f}"
            lines.append(f"  {picture} class {box['category_id'] - 1}: {what}: {pair}")
    return count, lines, without


def _told(name: str, expected: dict[str, list[Box]], found: dict[str, list[Box]]) -> bool:
    """Print the shares and what is missing."""
    (mine, missing, without), (other, added, _) = lost(expected, found), lost(found, expected)
    kept, kept_likely = (1 - len(lines) / max(1, mine) for lines in (missing, without))
    back = 1 - len(added) / max(1, other)
    print(
        f"{name}: {kept:.2%} of float's {mine} boxes; {back:.2%} of its own {other} are float's; "
        f"with a score of {SCORE} on both sides {kept_likely:.2%}"
    )
    print("\n".join([*missing, *(line.replace(":", ", in fixed only:", 1) for line in added)]), flush=True)
    return kept >= BAR


# -- networks ----------------------------------------------------------------------------------------------------------
def shapes(folder: Path) -> Detector:
    """The shipped detector."""
    model, pictures = ROOT / "SGS_Models/onnx/onnx_yolo_shapes", ROOT / "SGS_Models/resource/shapes"
    (folder / "whole.ini").write_bytes((model / "postprocess_input_config.ini").read_bytes())
    source = _source(model / "onnx_yolo_shapes.onnx", model / "input_config.ini", model / "postprocess.py", folder)
    script = model / "onnx_yolo_shapes.py"
    return Detector("onnx_yolo_shapes", source, script, pictures / "calibration", pictures / "test", folder)


def public(network: Network, script: str, folder: Path, more: Sequence[Path] = ()) -> Detector:
    """A public one: the first half of its pictures calibrates, the others and `more` are for the measure."""
    ini = network.write_config(folder)
    changed = ini.read_text("utf-8").replace(f"outputs={','.join(network.outputs)};", f"outputs={OUTPUTS};")
    kept = [line for line in changed.splitlines() if not line.startswith("dequantizations")]
    (folder / "whole.ini").write_text("\n".join(kept) + "\n", "utf-8")
    calibration, test = ([path for path, _ in half] for half in network.split(folder))
    lists = []
    for name, paths in (("calibration.txt", calibration), ("test.txt", [*test, *more])):
        lists.append(folder / name)
        lists[-1].write_text("".join(f"{path}\n" for path in paths), "utf-8")
    source = _source(network.path(), ini, script, folder)
    return Detector(network.name, source, network.write_script(folder), *lists, folder)


def _source(model: Path, ini: Path, script: object, folder: Path) -> list[str]:
    words = ["onnx", "--model_file", model, "--input_config", ini]
    words += ["--postprocess", script, "--postprocess_input_config", folder / "whole.ini"]
    return [str(word) for word in words]


def faces(folder: Path) -> Detector:
    (folder / "faces.py").write_text(FACES, "utf-8")
    more = sorted((data_folder() / "images/ultraface").glob("*.jpg"))
    return public(NETWORKS["ultraface"], str(folder / "faces.py"), folder, more)


DETECTORS = {
    "onnx_yolo_shapes": shapes,
    "yolox_nano": lambda folder: public(NETWORKS["yolox_nano"], "yolox", folder),
    "ultraface": faces,
}


def main() -> int:
    """Measure; the exit code says whether the bar is met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default=",".join(DETECTORS), help="comma list (default: all)")
    parser.add_argument("--settings", default="L5", help=f"list separated by semicolons of {'; '.join(SETTINGS)}")
    options = parser.parse_args()
    settings = {name.strip(): SETTINGS[name.strip()] for name in options.settings.split(";")}
    met = []
    for name in options.networks.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            met.append(DETECTORS[name](Path(scratch)).run(settings))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
