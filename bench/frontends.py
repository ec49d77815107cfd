"""The frontends beside their frameworks, on every public Caffe, TFLite and TensorFlow network.

usage: SGS_TEST_DATA=FOLDER [TF_PYTHON=PYTHON] [CV4_PYTHON=PYTHON] python bench/frontends.py
           [--networks A,B] [--levels L5,L2] [--keep FOLDER] [--out FILE.json]

Per network: seconds of the ConvertTool process; the largest difference of the float .sim from the source framework,
over the output's range; Transposes, of which no network has its own; then, calibrated on at most 32 samples (mobilenet
on the 100 that bench/calibration.py uses) and compared with float on others: SQNR and cosine of every output; and
whether the offline image computes the same integers. Frameworks: LiteRT for tflite; onnxruntime on the translation, and
OpenCV 4, for Caffe; TensorFlow for its graphs, OpenCV 4 for one that it does not compute. TF_PYTHON has the extra
[tensorflow], CV4_PYTHON opencv-python-headless below 5; what needs one that is not given counts as missed. Networks of
which others publish an 8-bit version are compared with that, run by LiteRT on the same samples. Exits with 1 where a
bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from frontend_networks import BOTH, CHIP, NETWORKS, SourceNetwork
from judges import Arrays, LiteRt, NoJudge, elsewhere, float_twin
from networks import Picture, data_folder
from scores import score

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "Scripts"))

from sgs.config.chips import load_chip  # noqa: E402
from sgs.config.input_config import read_input_config  # noqa: E402
from sgs.data.feed import fixed_inputs, float_inputs  # noqa: E402
from sgs.data.preprocess import Preprocessor  # noqa: E402
from sgs.engine import FixedEngine, FloatEngine  # noqa: E402
from sgs.errors import UserError  # noqa: E402
from sgs.frontends.platforms import Asked, platform_named  # noqa: E402
from sgs.img import OfflineEngine  # noqa: E402
from sgs.ir import Graph  # noqa: E402
from sgs.pipelines import CalibrationOptions, calibrate, compile_fixed  # noqa: E402
from sgs.quant.levels import LEVELS  # noqa: E402
from sgs.sim import read_sim  # noqa: E402

JUDGED = 8  # samples that the frameworks get
MOST_ERROR, LEAST_COSINE, MOST_LOSS = 1e-3, 0.99, 0.5
BEYOND = 2
Record = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """One bar: what is measured, what is asked of it, what it is."""

    what: str
    asked: str
    measured: str
    ok: bool


@dataclass
class Bench:
    """One run of this program: what has been found so far."""

    levels: Sequence[str]
    records: dict[str, Record] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)

    def judge(self, what: str, asked: str, measured: str, ok: bool) -> None:
        self.verdicts.append(Verdict(what, asked, measured, ok))


# -- a network ---------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """A network prepared in `folder`: its float graph, its samples, and what float makes of those that score."""

    network: SourceNetwork
    folder: Path
    seconds: float = 0.0

    def __post_init__(self) -> None:
        network, folder = self.network, self.folder
        self.files = network.files(folder)
        self.scripts = [Preprocessor(network.write_script(folder))]
        self.ini = network.write_config(folder)
        self.config = read_input_config(self.ini)
        self.graph = self._convert()
        self.calibrating, scored = network.split(folder)
        self.inputs = {name: self.graph[name] for name in self.graph.inputs}
        self.floats = [self._reals(path) for path, _ in scored]
        self.codes = [fixed_inputs(self.config, self.scripts, (path,), self.inputs) for path, _ in scored]
        self.classes = _classes(network, scored)
        engine = FloatEngine(self.graph)
        self.truth: list[Arrays] = [engine.run(feeds) for feeds in self.floats]
        known = [engine.run(self._reals(path)) for path, _ in self.calibrating]
        self.reach = {name: max(float(np.abs(outputs[name]).max()) for outputs in known) for name in network.outputs}

    def _reals(self, path: Path) -> Arrays:
        return float_inputs(self.config, self.scripts, (path,), self.inputs)

    def _convert(self) -> Graph:
        """The float graph that ConvertTool writes, in a process of its own. Raises UserError where it refuses."""
        network, target = self.network, self.folder / "net_float.sim"
        python = os.environ.get("TF_PYTHON") if network.platform.startswith("tensorflow") else sys.executable
        if not python:
            raise UserError("TF_PYTHON names no Python", stage="convert")
        command = [python, str(ROOT / "Scripts/ConvertTool/ConvertTool.py")]
        start = time.perf_counter()
        done = subprocess.run(
            [*command, *network.arguments(self.files, self.ini, target)], capture_output=True, text=True
        )
        self.seconds = time.perf_counter() - start
        if done.returncode:
            raise UserError(done.stderr.strip()[-2000:], stage="convert", file=network.path())
        return read_sim(target).graph

    def calibrated(self, level: str) -> Graph:
        samples = [(path,) for path, _ in self.calibrating]
        return calibrate(self.graph, self.config, self.scripts, samples, CalibrationOptions(level, processes=2)).graph


def _classes(network: SourceNetwork, scored: Sequence[Picture]) -> np.ndarray | None:
    if network.first_class is None:
        return None
    return np.array([label for _, label in scored]) + network.first_class


@contextmanager
def opened(network: SourceNetwork, keep: Path | None) -> Iterator[Case]:
    with tempfile.TemporaryDirectory(prefix="frontends_") as scratch:
        folder = Path(scratch) if keep is None else keep.resolve() / network.name
        folder.mkdir(parents=True, exist_ok=True)
        yield Case(network, folder)


# -- float, beside the source framework --------------------------------------------------------------------------------


Judge = Callable[[Sequence[Arrays]], list[Arrays]]  # samples → outputs; rank 4 is NHWC


def frameworks(network: SourceNetwork, files: Mapping[str, Path]) -> dict[str, Judge]:
    """What judges a network, by name."""
    runs: dict[str, Judge]
    if network.platform == "tflite":
        runs = {"LiteRT": partial(litert, network)}
    elif network.platform == "caffe":
        runs = {
            "onnxruntime": partial(translated, network, files),
            "OpenCV 4": partial(opencv, network, files),
        }
    elif network.opencv is not None:
        paths = [network.path(), data_folder() / network.opencv]
        return {"OpenCV 4": partial(_in_nchw, BOTH, partial(elsewhere, "opencv", paths, network.outputs))}
    else:
        runs = {"TensorFlow": partial(elsewhere, "tensorflow", list(files.values()), network.outputs)}
    return {name: partial(_in_nchw, network.nchw, run) for name, run in runs.items()}


def _in_nchw(sides: Container[str], run: Judge, samples: Sequence[Arrays]) -> list[Arrays]:
    """The answers of a framework that has its pictures in NCHW among its inputs, its outputs or both."""
    found = run([_turned(sample, (0, 3, 1, 2)) for sample in samples] if "inputs" in sides else samples)
    return [_turned(outputs, (0, 2, 3, 1)) for outputs in found] if "outputs" in sides else found


def _turned(arrays: Arrays, perm: tuple[int, ...]) -> Arrays:
    return {
        name: np.ascontiguousarray(value.transpose(perm)) if value.ndim == 4 else value
        for name, value in arrays.items()
    }


def litert(network: SourceNetwork, samples: Sequence[Arrays]) -> list[Arrays]:
    """LiteRT on the file, as float32 where it holds integers."""
    data = network.path().read_bytes()
    judge = LiteRt(float_twin(data, network.inputs[0]) if network.integers else data)
    found = [judge.run(sample) for sample in samples]
    if not network.integers:
        return found
    return [dict(zip(network.outputs, outputs.values(), strict=True)) for outputs in found]  # the twin renames


def opencv(network: SourceNetwork, files: Mapping[str, Path], samples: Sequence[Arrays]) -> list[Arrays]:
    """OpenCV 4 on a Caffe network."""
    with tempfile.TemporaryDirectory(prefix="opencv_") as folder:
        return elsewhere("opencv", network.renamed(files, Path(folder)), network.outputs, samples)


def translated(network: SourceNetwork, files: Mapping[str, Path], samples: Sequence[Arrays]) -> list[Arrays]:
    """onnxruntime on the ONNX model that the Caffe frontend makes."""
    values = {option.removeprefix("--"): file for option, file in files.items()}
    row = platform_named(network.platform, stage="bench")
    source = row.load(row.complete(values), Asked(network.inputs, network.outputs, network.shapes))
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    session = onnxruntime.InferenceSession(source.proto.SerializeToString(), quiet, ["CPUExecutionProvider"])
    names = list(network.outputs)
    return [dict(zip(names, session.run(names, sample), strict=True)) for sample in samples]


def float_errors(bench: Bench, case: Case, record: Record) -> None:
    """The float .sim beside every judge: largest difference over the output's range, over all outputs."""
    network = case.network
    count = len(case.floats)
    judged = [i * count // JUDGED for i in range(JUDGED)] if count > JUDGED else list(range(count))
    record["float_error"] = {}
    for judge, run in frameworks(network, case.files).items():
        what, asked = f"{network.name}, float beside {judge}", f"at most {MOST_ERROR:g} of the range"
        try:
            found = run([case.floats[i] for i in judged])
        except NoJudge as error:
            bench.judge(what, asked, _one_line(str(error)), False)
            continue
        ours = [case.truth[i] for i in judged]
        errors = {name: largest_error(*([o[name] for o in side] for side in (ours, found))) for name in network.outputs}
        record["float_error"][judge] = errors
        bench.judge(what, asked, f"{max(errors.values()):.1e}", max(errors.values()) <= MOST_ERROR)


def largest_error(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """Largest |ours - the framework's| of an output, over the range of the framework's on all samples."""
    found, expected = np.stack(ours), np.stack(theirs)
    if found.size == expected.size:  # OpenCV keeps axes that others drop
        expected = expected.reshape(found.shape)
    return float(np.abs(found - expected).max() / max(np.ptp(expected), 1e-30))


# -- fixed, beside float -----------------------------------------------------------------------------------------------


def fixed(bench: Bench, case: Case, record: Record) -> None:
    """Every level beside float; L5 on the chip as well."""
    network = case.network
    record["levels"], answers = {}, {}
    for level in bench.levels:
        start = time.perf_counter()
        graph = case.calibrated(level)
        seconds = time.perf_counter() - start
        answers[level] = found = list(FixedEngine(graph).map(case.codes))
        record["levels"][level] = {**compared(case, found), "seconds": seconds}
        if level == LEVELS[-1]:
            judge_cosines(bench, case, found, record["levels"][level])
            offline(bench, case, graph, found[0])
    if network.reference is not None:
        beside_reference(bench, case, record, answers)


def judge_cosines(bench: Bench, case: Case, found: Sequence[Arrays], record: Record) -> None:
    """The cosine of every output over all samples together. Where it is missed, what it is without those on which float
    itself answers beyond BEYOND times all that it did in calibration, which no range can foresee."""
    cosines = record["cosines"]
    ok, shown = min(cosines.values()) >= LEAST_COSINE, _cosines(cosines)
    if not ok:
        within = [
            all(float(np.abs(truth[name]).max()) <= BEYOND * reach for name, reach in case.reach.items())
            for truth in case.truth
        ]
        kept = [[one for one, inside in zip(side, within, strict=True) if inside] for side in (case.truth, found)]
        record["cosines_within"] = score(*kept, None, detects=False).cosines
        record["beyond"] = within.count(False)
        shown += f"; {_cosines(record['cosines_within'])} without {record['beyond']} samples beyond calibration"
    bench.judge(f"{case.network.name}, {LEVELS[-1]}, cosine", f"at least {LEAST_COSINE} for every output", shown, ok)


def _cosines(values: Mapping[str, float]) -> str:
    return " / ".join(f"{value:.5f}" for value in values.values())


def compared(case: Case, found: Sequence[Arrays]) -> Record:
    """Outputs beside those of float: what `scores` says of them, and the mean over samples and outputs of the SQNR of
    each, "each_sqnr"."""
    result = asdict(score(case.truth, found, None if case.classes is None else list(case.classes), detects=False))
    pairs = [(truth[name], outputs[name]) for truth, outputs in zip(case.truth, found, strict=True) for name in truth]
    if case.classes is not None:
        float_right, right = (_right(case, outputs) for outputs in (case.truth, found))
        result["flips"] = [int((float_right & ~right).sum()), int((right & ~float_right).sum())]
    return {**result, "each_sqnr": float(np.mean([_sqnr(*pair) for pair in pairs]))}


def _sqnr(expected: np.ndarray, found: np.ndarray) -> float:
    y = expected.astype(np.float64)
    return float(10 * np.log10((y**2).sum() / max(float(((y - found) ** 2).sum()), 1e-30)))


def _right(case: Case, found: Sequence[Arrays]) -> np.ndarray:
    """Whether the first output of every sample answers its class."""
    name = case.network.outputs[0]
    return np.array([outputs[name].argmax() for outputs in found]) == case.classes


def offline(bench: Bench, case: Case, graph: Graph, expected: Arrays) -> None:
    """The image for the default chip, on one sample."""
    found = OfflineEngine(compile_fixed(graph, load_chip(CHIP))).run(case.codes[0])
    apart = sum(int(np.count_nonzero(found[name] != expected[name])) for name in graph.outputs)
    bench.judge(f"{case.network.name}, offline beside fixed", "0 elements differ", str(apart), apart == 0)


# -- an 8-bit version by other people ----------------------------------------------------------------------------------


def beside_reference(bench: Bench, case: Case, record: Record, answers: Mapping[str, Sequence[Arrays]]) -> None:
    """Our levels, and the reference in LiteRT, beside float. The reference answers in codes, classifiers in such of
    1/256, which are coarser than ours: so ours are also rounded to these, "<level> in its codes"."""
    network = case.network
    reference = LiteRt((data_folder() / str(network.reference)).read_bytes())
    name, level = network.outputs[0], LEVELS[-1]
    found = [{name: next(iter(reference.run(feeds).values()))} for feeds in case.floats]
    theirs = record["reference"] = compared(case, found)
    if network.peers_split:
        if level in answers:
            judge_top1(bench, case, record)
        return
    rounded = {f"{at} in its codes": [{name: reference.rounded(o[name])} for o in ours] for at, ours in answers.items()}
    record["rounded"] = {label: compared(case, ours) for label, ours in rounded.items()}
    for label, ours in {**record["levels"], **record["rounded"]}.items():
        for key, what in (("mean_sqnr", "SQNR over all samples"), ("each_sqnr", "mean SQNR of a sample")):
            if label.startswith(level):
                asked = f"at least {theirs[key]:.2f} dB (8-bit reference)"
                bench.judge(f"{network.name}, {label}, {what}", asked, f"{ours[key]:.2f}", ours[key] >= theirs[key])


def judge_top1(bench: Bench, case: Case, record: Record) -> None:
    """Top-1 beside LiteRT's, float's and the reference's on all labelled pictures that score."""
    name, level = case.network.name, LEVELS[-1]
    ours, theirs = record["levels"][level], record["reference"]
    answers = [
        [outputs[case.network.outputs[0]].argmax() for outputs in side]
        for side in (litert(case.network, case.floats), case.truth)
    ]
    differ = int(np.not_equal(*answers).sum())
    bench.judge(f"{name}, float, answers that are not LiteRT's", "0", str(differ), differ == 0)
    least = ours["float_top1"] - MOST_LOSS
    lost, won = ours["flips"]
    for asked, bar in ((f"float - {MOST_LOSS}", least), ("8-bit reference", theirs["top1"])):
        shown = f"{ours['top1']:.2f}, {lost} pictures lost, {won} won"
        bench.judge(f"{name}, {level}, top-1", f"at least {bar:.2f} ({asked})", shown, ours["top1"] >= bar)


# -- the run -----------------------------------------------------------------------------------------------------------


def measure(bench: Bench, network: SourceNetwork, keep: Path | None) -> None:
    record: Record = {"platform": network.platform}
    bench.records[network.name] = record
    try:
        with opened(network, keep) as case:
            record.update(seconds=case.seconds, calibrating=len(case.calibrating), scoring=len(case.codes))
            record["transposes"] = sum(node.op == "TRANSPOSE" for node in case.graph.nodes)
            stray = record["transposes"]
            bench.judge(f"{network.name}, stray Transposes", "0", str(stray), stray == 0)
            float_errors(bench, case, record)
            fixed(bench, case, record)
    except (UserError, NoJudge) as error:
        record["error"] = str(error)
        bench.judge(f"{network.name}, whole way", "no error", _one_line(str(error)), False)


def _one_line(text: str, longest: int = 300) -> str:
    flat = " ".join(text.replace("|", "/").split())
    return flat if len(flat) <= longest else flat[:longest] + " ..."


def line(name: str, record: Record) -> str:
    """A network's row of the table."""
    if "levels" not in record:
        return f"| {name} | {_one_line(record['error'])} |"
    errors = " / ".join(f"{judge} {max(by.values()):.1e}" for judge, by in record["float_error"].items())
    cells = [name, f"{record['seconds']:.1f}", errors, str(record["transposes"])]
    for found in record["levels"].values():
        cells.append(" / ".join(f"{value:.2f}" for value in found["sqnr"].values()))
        cells.append(_cosines(found["cosines"]))
    return "| " + " | ".join(cells) + " |"


def references(bench: Bench) -> None:
    """The networks that have an 8-bit version, beside it."""
    if not any("reference" in record for record in bench.records.values()):
        return
    print("\n| network | network of 8 bit or level | SQNR over all dB | mean SQNR of a sample dB | top-1 | lost, won |")
    print("|---|---|---|---|---|---|")
    for name, record in bench.records.items():
        if "reference" not in record:
            continue
        for label, found in {"reference": record["reference"], **record["levels"], **record.get("rounded", {})}.items():
            top1 = "" if found["top1"] is None else f"{found['top1']:.2f} (float {found['float_top1']:.2f})"
            flips = ", ".join(map(str, found.get("flips", [])))
            print(f"| {name} | {label} | {found['mean_sqnr']:.2f} | {found['each_sqnr']:.2f} | {top1} | {flips} |")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    several = {"type": lambda text: text.split(","), "metavar": "A,B"}
    parser.add_argument("--networks", **several, default=list(NETWORKS), help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--levels", **several, default=[LEVELS[-1], LEVELS[1]], help=f"of {', '.join(LEVELS)}")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="what is converted and prepared stays there")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    options = parser.parse_args(argv)
    for key, known in {"networks": NETWORKS, "levels": LEVELS}.items():
        if unknown := [name for name in getattr(options, key) if name not in known]:
            parser.error(f"--{key}: {', '.join(unknown)} is none of {', '.join(known)}")
    return options


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    if "SGS_TEST_DATA" not in os.environ:
        print("set SGS_TEST_DATA to the folder that holds the public networks", file=sys.stderr)
        return 2
    bench = Bench(options.levels)
    columns = [column for level in options.levels for column in (f"{level} dB", "cosine")]
    columns = ["network", "ConvertTool s", "float beside the framework", "Transposes", *columns]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns), flush=True)
    for name in options.networks:
        measure(bench, NETWORKS[name], options.keep)
        print(line(name, bench.records[name]), flush=True)
        if options.out:
            write(bench, options.out)
    references(bench)
    print("\n| what | asked | measured | |\n|---|---|---|---|")
    for verdict in bench.verdicts:
        print(f"| {verdict.what} | {verdict.asked} | {verdict.measured} | {'ok' if verdict.ok else 'MISSED'} |")
    return 0 if all(verdict.ok for verdict in bench.verdicts) else 1


def write(bench: Bench, path: Path) -> None:
    """Everything found so far."""
    data = {"networks": bench.records, "verdicts": [asdict(verdict) for verdict in bench.verdicts]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
