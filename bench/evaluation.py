"""Evaluation on a thousand labelled pictures: simulator.py on the fixed model beside onnxruntime on the float one.

usage: SGS_TEST_DATA=FOLDER python bench/evaluation.py [--networks A,B] [--pictures N] [--rounds N]

All sides read the same pictures through the same preprocess script, and each run is a process of its own: simulator.py
-c Classification -l, which also writes a result file a picture; a loop on one onnxruntime session with its default
threads; and the same loop in as many threads as there are processors, each picture loaded and run by one of them. They
take turns, and the best of the rounds counts. Pictures are repeated under other names where there are too few.

Printed: pictures a second of the whole program, and without what one picture takes (start and loading); processor time
a picture, which says more on a machine that is shared; processors kept busy; top-1; and the peak memory of simulator.py
by the number of pictures. Ends with 1 where a bar is missed: 0.8 of onnxruntime's pictures a second as whole programs,
memory at most 5 % more at the end than at a quarter.
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
from dataclasses import dataclass
from pathlib import Path

from networks import NETWORKS, Network

ROOT = Path(__file__).resolve().parent.parent
CHIP, CALIBRATE = "pcupid", 32
SPEED_BAR, MEMORY_BAR = 0.8, 1.05
OURS, LOOP, STREAMS = "simulator.py, fixed", "onnxruntime float, one loop", "onnxruntime float, all processors"


# -- the other side, in a process of its own ---------------------------------------------------------------------------
def onnxruntime_loop(job: dict[str, str]) -> None:
    """Run a list of pictures with an ONNX model as a user would, and print top-1."""
    from concurrent.futures import ThreadPoolExecutor
    from importlib.util import module_from_spec, spec_from_file_location

    import numpy as np
    import onnxruntime

    spec = spec_from_file_location("script", job["script"])
    assert spec is not None and spec.loader is not None
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    streams = len(os.sched_getaffinity(0)) if job["name"] == STREAMS else 1
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 0 if streams == 1 else 1
    session = onnxruntime.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])
    (port,) = session.get_inputs()
    first = port.shape[1] == 3

    def work(line: str) -> bool:
        path, _, label = line.rpartition(",")
        image = script.image_preprocess(path, norm=True)
        feed = np.ascontiguousarray(image.transpose(0, 3, 1, 2)) if first else image
        (scores, *_) = session.run(None, {port.name: feed})
        return int(scores.argmax()) == int(label)

    lines = Path(job["labels"]).read_text("utf-8").splitlines()[: int(job["pictures"])]
    with ThreadPoolExecutor(streams) as pool:
        hits = sum(pool.map(work, lines) if streams > 1 else map(work, lines))
    print(f"top-1: {hits} of {len(lines)}")


# -- measuring ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Measured:
    """Of one process and those that it waited for; `peak` is that of the largest one."""

    seconds: float
    worked: float  # seconds of processor time
    peak: float  # MB
    top1: str


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
    found = re.search(r"top-1: (\d+) of (\d+)", told)
    assert found is not None, told
    return Measured(
        seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, f"{int(found[1]) / int(found[2]):.2%}"
    )


@dataclass
class Case:
    """A network with its files in a folder."""

    network: Network
    folder: Path
    pictures: int

    def __post_init__(self) -> None:
        """Write script, ini, links to the pictures, labels, and the fixed model."""
        self.script = self.network.write_script(self.folder)
        ini = self.network.write_config(self.folder)
        calibrate, score = self.network.split(self.folder)
        assert self.network.first_class is not None
        lines = []
        for index in range(self.pictures):
            path, label = score[index % len(score)]
            link = self.folder / f"{index:05}_{path.name}"
            link.symlink_to(path)
            lines.append(f"{link},{label + self.network.first_class}")
        (self.folder / "labels.csv").write_text("\n".join(lines) + "\n", "utf-8")
        for count in self.counts():
            listed = [line.rpartition(",")[0] for line in lines[:count]]
            (self.folder / f"{count}.txt").write_text("\n".join(listed) + "\n", "utf-8")
        (self.folder / "calibrate.txt").write_text("\n".join(str(path) for path, _ in calibrate[:CALIBRATE]), "utf-8")
        (self.folder / "results").mkdir()
        converter = [sys.executable, str(ROOT / "Scripts/ConvertTool/SGS_converter.py"), "onnx", "--export_models"]
        converter += ["--model_file", str(self.network.path()), "--input_config", str(ini), "--soc_version", CHIP]
        converter += ["-i", str(self.folder / "calibrate.txt"), "-n", str(self.script), "--quant_level", "L2"]
        converter += ["--output_file", str(self.folder / "net.img")]
        subprocess.run(converter, check=True, stdout=subprocess.DEVNULL)

    def counts(self) -> list[int]:
        return [1, self.pictures // 4, self.pictures // 2, self.pictures]

    def command(self, name: str, count: int) -> list[str]:
        if name == OURS:
            program = [
                sys.executable,
                str(ROOT / "Scripts/calibrator/simulator.py"),
                "-m",
                str(self.folder / "net_fixed.sim"),
            ]
            program += ["-i", str(self.folder / f"{count}.txt"), "-n", str(self.script), "-c", "Classification"]
            return [*program, "-l", str(self.folder / "labels.csv"), "--output", str(self.folder / "results")]
        job = {"name": name, "model": str(self.network.path()), "script": str(self.script), "pictures": str(count)}
        job["labels"] = str(self.folder / "labels.csv")
        return [sys.executable, __file__, "--job", json.dumps(job)]


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
    print(f"\n## {case.network.name}, {case.pictures} pictures, best of {rounds}\n")
    print("| | pictures/s | ours is | after the start | ours is | processor ms each | busy | top-1 | peak MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in names:
        run, start = best[name, case.pictures], best[name, 1]
        each = (run.worked - start.worked) / (case.pictures - 1) * 1e3
        print(
            f"| {name} | {whole[name]:.0f} | {whole[OURS] / whole[name]:.2f} | {steady[name]:.0f} "
            f"| {steady[OURS] / steady[name]:.2f} | {each:.2f} "
            f"| {run.worked / run.seconds:.2f} of {len(os.sched_getaffinity(0))} | {run.top1} "
            f"| {run.peak:.0f} |"
        )
    peaks = {count: measure(case.command(OURS, count)).peak for count in case.counts()[1:]}
    print("\npeak memory of simulator.py: " + ", ".join(f"{mb:.0f} MB at {count}" for count, mb in peaks.items()))
    quarter, _, end = peaks.values()
    slow = [name for name in names[1:] if whole[OURS] < SPEED_BAR * whole[name]]
    for name in slow:
        print(f"missed: {whole[OURS] / whole[name]:.2f} of {name}, the bar is {SPEED_BAR}")
    if end > MEMORY_BAR * quarter:
        print(f"missed: memory grows by {end / quarter - 1:.0%} from a quarter of the pictures to all")
    return not slow and end <= MEMORY_BAR * quarter


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="mobilenet_v1_0.25,shufflenet_v2")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
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
        with tempfile.TemporaryDirectory(prefix="sgs_evaluation_") as folder:
            met.append(evaluate(Case(NETWORKS[name], Path(folder), options.pictures), options.rounds))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
