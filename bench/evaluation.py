"""Evaluation on a thousand labelled pictures: simulator.py on the fixed model beside onnxruntime on the float one.

usage: SGS_TEST_DATA=FOLDER python bench/evaluation.py [--networks A,B] [--pictures N] [--rounds N]

Classifiers (-c Classification, top-1) are public networks; the detector (-c Detection with --decode, COCO labels for
average precision) is the shipped one. All sides read the same pictures through the same preprocess script, and boxes
through the same decode script, and each run is a process of its own: simulator.py -l, which also writes a result file a
picture; a loop on one onnxruntime session with its default threads; and the same loop in as many threads as there are
processors, each picture loaded and run by one of them. They take turns, and the best of the rounds counts. Pictures are
repeated under other names where there are too few.

Printed: pictures a second of the whole program, and without what one picture takes (start and loading); processor time
a picture, which says more on a machine that is shared; processors kept busy after the start; accuracy; and the peak
memory of simulator.py by the number of pictures. Ends with 1 where a bar is missed: 0.8 of onnxruntime's pictures a
second as whole programs, 85 % of the processors busy, memory at most 5 % more at the end than at a quarter.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from networks import NETWORKS, Network

ROOT = Path(__file__).resolve().parent.parent
CHIP, CALIBRATE = "pcupid", 32
SPEED_BAR, BUSY_BAR, MEMORY_BAR = 0.8, 0.85, 1.05
OURS, LOOP, STREAMS = "simulator.py, fixed", "onnxruntime float, one loop", "onnxruntime float, all processors"
DETECTOR = "onnx_yolo_shapes"


# -- the other side, in a process of its own ---------------------------------------------------------------------------
def onnxruntime_loop(job: dict[str, str]) -> None:
    """Run a list of pictures with an ONNX model as a user would, and print top-1 or AP."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import onnxruntime

    script = loaded(job["script"])
    decode = loaded(job["decode"]).decode if job["decode"] else None
    streams = len(os.sched_getaffinity(0)) if job["name"] == STREAMS else 1
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 0 if streams == 1 else 1
    session = onnxruntime.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])
    (port,), names = session.get_inputs(), [output.name for output in session.get_outputs()]
    first = port.shape[1] == 3

    def work(path: str) -> Any:
        image = script.image_preprocess(path, norm=True)
        feed = np.ascontiguousarray(image.transpose(0, 3, 1, 2)) if first else image
        outputs = session.run(names, {port.name: feed})
        if decode is None:
            return int(outputs[0].argmax())
        return decode({n: v.transpose(0, 2, 3, 1) for n, v in zip(names, outputs, strict=True)})

    paths = Path(job["listed"]).read_text("utf-8").splitlines()
    with ThreadPoolExecutor(streams) as pool:
        found = list(pool.map(work, paths) if streams > 1 else map(work, paths))
    if decode is not None:
        print(f"AP: {average_precision(paths, found, job['labels']):.4f}")
        return
    labels = dict(line.rsplit(",", 1) for line in Path(job["labels"]).read_text("utf-8").splitlines())
    hits = sum(index == int(labels[path]) for path, index in zip(paths, found, strict=True))
    print(f"top-1: {hits} of {len(paths)}")


def loaded(path: str) -> Any:
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def average_precision(paths: list[str], found: list[Any], labels: str) -> float:
    """AP over IoU 0.50 to 0.95 of boxes [ymin, xmin, ymax, xmax] from 0 to 1."""
    from contextlib import redirect_stdout

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with redirect_stdout(None):
        truth = COCO(labels)
        by_name = {image["file_name"]: image for image in truth.dataset["images"]}
        records, pictures = [], []
        for path, (boxes, classes, scores) in zip(paths, found, strict=True):
            image = by_name[Path(path).name]
            pictures.append(image["id"])
            for (top, left, bottom, right), index, score in zip(boxes, classes, scores, strict=True):
                w, h = image["width"], image["height"]
                box = [float(v) for v in (left * w, top * h, (right - left) * w, (bottom - top) * h)]
                record = {"image_id": image["id"], "category_id": int(index) + 1, "bbox": box, "score": float(score)}
                records.append(record)
        judge = COCOeval(truth, truth.loadRes(records), "bbox")
        judge.params.imgIds = pictures
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[0])


# -- measuring ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Measured:
    """Of one process and those that it waited for; `peak` is that of the largest one."""

    seconds: float
    worked: float  # seconds of processor time
    peak: float  # MB
    accuracy: str


def measure(command: list[str]) -> Measured:
    """Run a program. Raises RuntimeError when it fails."""
    # as users have it: modules are compiled once
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        told = out.read().decode()
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    top1, precision = re.search(r"top-1: (\d+) of (\d+)", told), re.search(r"^AP:?\s+([\d.]+)", told, re.MULTILINE)
    assert top1 or precision, told
    accuracy = f"{int(top1[1]) / int(top1[2]):.2%}" if top1 else f"AP {float(precision[1]):.3f}" if precision else ""
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, accuracy)


@dataclass(frozen=True)
class Classifier:
    """A public network."""

    network: Network
    category = "Classification"
    decode = ""

    @property
    def model(self) -> Path:
        return self.network.path()

    def prepare(self, folder: Path, pictures: int) -> tuple[Path, Path, list[Path], Path]:
        """Script, ini, pictures to calibrate with, and labels; links to the pictures lie in `folder`."""
        calibrate, score = self.network.split(folder)
        assert self.network.first_class is not None
        links = linked([path for path, _ in score], folder, pictures)
        lines = [f"{link},{score[k % len(score)][1] + self.network.first_class}" for k, link in enumerate(links)]
        (folder / "labels.csv").write_text("\n".join(lines) + "\n", "utf-8")
        script, ini = self.network.write_script(folder), self.network.write_config(folder)
        return script, ini, [path for path, _ in calibrate], folder / "labels.csv"


@dataclass(frozen=True)
class Detector:
    """A shipped network with raw heads, which its decode.py makes boxes of."""

    name: str
    category = "Detection"

    @property
    def home(self) -> Path:
        return ROOT / "SGS_Models/onnx" / self.name

    @property
    def model(self) -> Path:
        return self.home / f"{self.name}.onnx"

    @property
    def decode(self) -> str:
        return str(self.home / "decode.py")

    def prepare(self, folder: Path, pictures: int) -> tuple[Path, Path, list[Path], Path]:
        """See `Classifier`."""
        source = ROOT / "SGS_Models/resource/shapes"
        links = linked(sorted((source / "test").glob("*.png")), folder, pictures)
        truth = json.loads((source / "test/instances.json").read_text("utf-8"))
        by_name = {image["file_name"]: image for image in truth["images"]}
        images, annotations = [], []
        for number, link in enumerate(links, 1):
            image = by_name[link.name.partition("_")[2]]
            images.append({**image, "id": number, "file_name": link.name})
            boxes = [box for box in truth["annotations"] if box["image_id"] == image["id"]]
            annotations += [{**box, "id": len(annotations) + k + 1, "image_id": number} for k, box in enumerate(boxes)]
        labels = folder / "instances.json"
        labels.write_text(json.dumps({**truth, "images": images, "annotations": annotations}), "utf-8")
        ini = self.home / "input_config.ini"
        return self.home / f"{self.name}.py", ini, sorted((source / "calibration").glob("*.png")), labels


def linked(pictures: list[Path], folder: Path, count: int) -> list[Path]:
    """So many links to pictures, in the folder."""
    links = []
    for index in range(count):
        path = pictures[index % len(pictures)]
        links.append(folder / f"{index:05}_{path.name}")
        links[-1].symlink_to(path)
    return links


@dataclass
class Case:
    """A network with its files in a folder: script, labels, lists of pictures, and the fixed model."""

    name: str
    kind: Classifier | Detector
    folder: Path
    pictures: int

    def __post_init__(self) -> None:
        self.script, ini, calibrate, self.labels = self.kind.prepare(self.folder, self.pictures)
        links = sorted(path for path in self.folder.iterdir() if path.is_symlink())
        for count in self.counts:
            (self.folder / f"{count}.txt").write_text("\n".join(map(str, links[:count])) + "\n", "utf-8")
        (self.folder / "calibrate.txt").write_text("\n".join(map(str, calibrate[:CALIBRATE])), "utf-8")
        (self.folder / "results").mkdir()
        converter = [sys.executable, str(ROOT / "Scripts/ConvertTool/SGS_converter.py"), "onnx", "--export_models"]
        converter += ["--model_file", str(self.kind.model), "--input_config", str(ini), "--soc_version", CHIP]
        converter += ["-i", str(self.folder / "calibrate.txt"), "-n", str(self.script), "--quant_level", "L2"]
        converter += ["--output_file", str(self.folder / "net.img")]
        subprocess.run(converter, check=True, stdout=subprocess.DEVNULL)

    @cached_property
    def counts(self) -> list[int]:
        return [1, self.pictures // 4, self.pictures // 2, self.pictures]

    def command(self, name: str, count: int) -> list[str]:
        listed = str(self.folder / f"{count}.txt")
        if name == OURS:
            program = [sys.executable, str(ROOT / "Scripts/calibrator/simulator.py"), "-c", self.kind.category]
            program += ["-m", str(self.folder / "net_fixed.sim"), "-i", listed, "-n", str(self.script)]
            program += ["--decode", self.kind.decode] if self.kind.decode else []
            return [*program, "-l", str(self.labels), "--output", str(self.folder / "results")]
        job = {"name": name, "model": str(self.kind.model), "script": str(self.script), "decode": self.kind.decode}
        return [sys.executable, __file__, "--job", json.dumps({**job, "listed": listed, "labels": str(self.labels)})]


def evaluate(case: Case, rounds: int) -> bool:
    """Measure one network and print what was found; whether the bars are met."""
    names = (OURS, LOOP, STREAMS)
    runs: dict[tuple[str, int], list[Measured]] = {}
    for _ in range(rounds):
        for name in names:
            for count in (1, case.pictures):
                runs.setdefault((name, count), []).append(measure(case.command(name, count)))
    best = {key: min(found, key=lambda run: run.seconds) for key, found in runs.items()}
    whole = {name: case.pictures / best[name, case.pictures].seconds for name in names}
    steady = {name: (case.pictures - 1) / (best[name, case.pictures].seconds - best[name, 1].seconds) for name in names}
    busy = {name: of_processors(best[name, 1], best[name, case.pictures]) for name in names}
    print(f"\n## {case.name}, {case.pictures} pictures, best of {rounds}\n")
    print("| | pictures/s | ours is | after the start | ours is | processor ms each | busy | accuracy | peak MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in names:
        run, start = best[name, case.pictures], best[name, 1]
        each = (run.worked - start.worked) / (case.pictures - 1) * 1e3
        print(
            f"| {name} | {whole[name]:.0f} | {whole[OURS] / whole[name]:.2f} | {steady[name]:.0f} "
            f"| {steady[OURS] / steady[name]:.2f} | {each:.2f} | {busy[name]:.0%} | {run.accuracy} | {run.peak:.0f} |"
        )
    peaks = {count: measure(case.command(OURS, count)).peak for count in case.counts[1:]}
    print("\npeak memory of simulator.py: " + ", ".join(f"{mb:.0f} MB at {count}" for count, mb in peaks.items()))
    missed = missed_bars(whole, busy[OURS], peaks)
    print("".join(f"missed: {bar}\n" for bar in missed), end="", flush=True)
    return not missed


def of_processors(start: Measured, run: Measured) -> float:
    """Share of the processors that were kept busy after the start."""
    return (run.worked - start.worked) / (run.seconds - start.seconds) / len(os.sched_getaffinity(0))


def missed_bars(whole: Mapping[str, float], busy: float, peaks: Mapping[int, float]) -> list[str]:
    """In words: `whole`, pictures a second of each side; `busy`, a share; `peaks`, MB by number of pictures."""
    missed = [
        f"{whole[OURS] / speed:.2f} of {name}, the bar is {SPEED_BAR}"
        for name, speed in whole.items()
        if whole[OURS] < SPEED_BAR * speed
    ]
    if busy < BUSY_BAR:
        missed.append(f"{busy:.0%} of the processors busy after the start, the bar is {BUSY_BAR:.0%}")
    quarter, *_, end = peaks.values()
    if end > MEMORY_BAR * quarter:
        missed.append(f"memory grows by {end / quarter - 1:.0%} from a quarter of the pictures to all")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=f"mobilenet_v1_0.25,shufflenet_v2,{DETECTOR}")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job is not None:
        onnxruntime_loop(options.job)
        return 0
    if "SGS_TEST_DATA" not in os.environ:
        print("set SGS_TEST_DATA to the folder that holds the public networks", file=sys.stderr)
        return 2
    met = []
    for name in options.networks.split(","):
        kind = Detector(name) if name == DETECTOR else Classifier(NETWORKS[name])
        with tempfile.TemporaryDirectory(prefix="sgs_evaluation_") as folder:
            met.append(evaluate(Case(name, kind, Path(folder), options.pictures), options.rounds))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
