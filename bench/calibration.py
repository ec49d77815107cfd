"""Calibration side by side with other tools: accuracy, time and memory of every level.

usage: SGS_TEST_DATA=FOLDER [PEERS_PYTHON=PYTHON] python bench/calibration.py
           [--networks A,B] [--levels 8bit,L1,L5] [--parts accuracy,levels,time,memory,hard] [--no-peers]
           [--peers-from FILE.json] [--repeats N] [--keep FOLDER] [--out FILE.json]

Prints Markdown tables, and writes the record of a run as JSON. Peers: onnxruntime's static quantisation (QDQ; MinMax,
Percentile, Entropy; per channel) and NNCF's post-training quantisation (preset mixed; fast and full bias correction);
PEERS_PYTHON names a Python that has both. Without it their rows are left out. All sides get the same network and the
same arrays, every run is a process of its own, and scores are of pictures that did not calibrate: of pictures with
classes every fifth calibrates, of others the first half by name.

With --networks or --levels only the accuracy is measured, unless --parts asks for more:
`--networks mobilenet_v1_0.25 --levels L5 --no-peers --keep build/calibration` is the quick look.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
from cases import ALL_8_BIT, Case, Limits, ModeRun, Result
from networks import EVERY, Network, data_folder
from onnx import TensorProto, helper, numpy_helper
from peers import METHODS as PEERS

from sgs.errors import Problems, UserError
from sgs.frontends.onnx_import import import_onnx
from sgs.quant.levels import LEVELS

PARTS = ("accuracy", "levels", "time", "memory", "hard")
OURS = (ALL_8_BIT, *LEVELS)
FIRST = ("mobilenet_v1_0.25", "shufflenet_v2", "yolox_nano")
TIMED = ("mobilenet_v1_0.25", "shufflenet_v2")
MEMORY = "mobilenet_v1_0.25"
SLACK = 0.2  # dB by which a higher level may be behind
LABELS = {
    ALL_8_BIT: "L5, all 8 bit",
    "ort-minmax": "onnxruntime MinMax",
    "ort-percentile": "onnxruntime Percentile",
    "ort-entropy": "onnxruntime Entropy",
    "nncf-fast": "NNCF, fast bias correction",
    "nncf-full": "NNCF, full bias correction",
}
COLUMNS = {  # of the accuracy table: heading → (key of a result, format)
    "SQNR dB": ("mean_sqnr", "{:.2f}"),
    "per output": ("sqnr", ""),
    "cosine": ("cosine", "{:.5f}"),
    "top-1": ("top1", "{:.2f}"),
    "agrees": ("agrees", "{:.2f} %"),
    "boxes kept": ("boxes", "{:.1f} %"),
    "MACs at 16 bit": ("int16_share", "{:.1%}"),
    "seconds": ("seconds", "{:.2f}"),
    "peak MB": ("peak_mb", "{:.0f}"),
}
BARS = {  # network → (method, key of a result, at least)
    "mobilenet_v1_0.25": (
        (ALL_8_BIT, "agrees", 88.0),
        (ALL_8_BIT, "mean_sqnr", 20.5),
        ("L5", "agrees", 95.0),
        ("L5", "mean_sqnr", 27.0),
        ("L5", "top1_gain", -0.5),
    ),
    "shufflenet_v2": (
        (ALL_8_BIT, "agrees", 98.0),
        (ALL_8_BIT, "mean_sqnr", 21.5),
        ("L5", "agrees", 99.0),
        ("L5", "mean_sqnr", 28.0),
    ),
    "yolox_nano": ((ALL_8_BIT, "mean_sqnr", 14.0), ("L5", "mean_sqnr", 25.0), ("L5", "boxes", 98.0)),
}
SIDE, LARGE = 1760, 20  # of the large pictures: extent and how many
MEMORY_COLUMNS = ("pictures", "--num_process", "main process MB", "all processes MB", "seconds")
SHAPES = {"magika": [[1, 2048]], "silero_vad": [[1, 576], [2, 1, 128], []]}  # of files with dynamic shapes, by folder
UNITS = {"mean_sqnr": "dB", "agrees": "% agree", "boxes": "% of boxes", "top1_gain": "points of top-1 above float"}


@dataclass
class Verdict:
    """One bar: what is measured, what is asked of it, what it is."""

    what: str
    asked: str
    measured: str
    ok: bool


@dataclass
class Bench:
    """One run of this program: what is asked, and what has been found so far."""

    methods: Sequence[str]
    peers_python: str | None
    limits: Limits
    repeats: int = 1
    keep: Path | None = None  # where prepared pictures stay for the next run
    known_peers: Mapping[str, dict[str, Result]] = field(default_factory=dict)
    modes: Mapping[str, ModeRun] = field(default_factory=dict)  # what methods of torch_calibrator stand for
    rows: dict[str, dict[str, Result]] = field(default_factory=dict)  # network → method → result
    refused: dict[str, str] = field(default_factory=dict)
    times: dict[str, dict[str, Result]] = field(default_factory=dict)
    memory: list[Result] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    def result(self, case: Case, method: str) -> Result:
        """The result of a method on a network, found once."""
        rows = self.rows.setdefault(case.network.name, {})
        if method not in rows:
            known = self.known_peers.get(case.network.name, {})
            if method not in PEERS:
                rows[method] = case.ours(method, self.modes.get(method))
            elif method in known:
                rows[method] = known[method]
            else:
                assert self.peers_python is not None
                rows[method] = case.peer(method, self.peers_python)
        return rows[method]

    def judge(self, what: str, asked: str, measured: str, ok: bool) -> None:
        self.verdicts.append(Verdict(what, asked, measured, ok))

    def peers_of(self, name: str) -> Sequence[str]:
        """Peers that have, or will have, a result on a network."""
        return PEERS if self.peers_python else [method for method in PEERS if method in self.known_peers.get(name, {})]


@contextmanager
def opened(network: Network, bench: Bench) -> Iterator[Case | None]:
    """A network prepared in a folder: the one that is kept, or one that lasts as long as the block. None, after a line
    that says why, where our converter refuses the network.
    """
    with tempfile.TemporaryDirectory(prefix="calibration_") as scratch:
        folder = Path(scratch) if bench.keep is None else bench.keep.resolve() / network.name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            case = Case(network, folder, bench.limits)
        except UserError as error:
            bench.refused[network.name] = _reasons(error)
            print(f"\n## {network.name}: not converted\n\n{one_line(_reasons(error), 400)}", flush=True)
            case = None
        yield case


def table(*rows: Sequence[str]) -> None:
    """Print rows of a Markdown table; the first of them heads it when there are several."""
    for index, row in enumerate(rows):
        print("| " + " | ".join(row) + " |", flush=True)
        if index == 0 and len(rows) > 1:
            print("|" + "---|" * len(row), flush=True)


def heading(columns: Sequence[str]) -> None:
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns), flush=True)


def label(method: str) -> str:
    return LABELS.get(method, method)


# ---- accuracy --------------------------------------------------------------------------------------------------------


def accuracy(bench: Bench, case: Case) -> None:
    """Every method on one network, a row each as it is found."""
    network = case.network
    float_top1 = None
    print(f"\n## {network.name}: {len(case.samples)} pictures calibrate, {len(case.scoring)} score\n")
    columns = {name: column for name, column in COLUMNS.items() if shown(name, case)}
    heading(["method", *columns])
    for method in (*bench.peers_of(network.name), *bench.methods):
        result = bench.result(case, method)
        float_top1 = result.get("float_top1", float_top1)
        table([label(method), *cells(result, columns)])
    if float_top1 is not None:
        print(f"\nfloat: top-1 {float_top1:.2f}")
    for method, key, least in BARS.get(network.name, ()):
        if method in bench.methods:
            _judge_bar(bench, network.name, method, key, least)
    _judge_memory(bench, network.name)
    if network.name in EVERY and network.name not in BARS and "L5" in bench.methods and bench.peers_of(network.name):
        _judge_against_peers(bench, network.name)


def shown(column: str, case: Case) -> bool:
    if column in ("top-1", "agrees"):
        return case.classes is not None
    if column == "per output":
        return len(case.network.outputs) > 1
    return column != "boxes kept" or case.network.name == "yolox_nano"


def cells(result: Result, columns: Mapping[str, tuple[str, str]]) -> list[str]:
    """A result's cells of columns like COLUMNS, or its error in the first of them."""
    if "error" in result:
        return [one_line(result["error"]), *[""] * (len(columns) - 1)]
    made = []
    for key, form in columns.values():
        value = result.get(key)
        if isinstance(value, dict):
            made.append(" / ".join(f"{part:.2f}" for part in value.values()))
        else:
            made.append("" if value is None else form.format(value))
    return made


def one_line(text: str, longest: int = 200) -> str:
    flat = " ".join(text.replace("|", "/").split())
    return flat if len(flat) <= longest else flat[:longest] + " ..."


def _judge_bar(bench: Bench, name: str, method: str, key: str, least: float) -> None:
    result = bench.rows[name][method]
    what = f"{name}, {label(method)}, {UNITS[key]}"
    if "error" in result:
        bench.judge(what, f"at least {least}", one_line(result["error"]), False)
        return
    value = result["top1"] - result["float_top1"] if key == "top1_gain" else result[key]
    bench.judge(what, f"at least {least}", f"{value:.2f}", value >= least)
    if method == "L5" and key == "mean_sqnr":
        share = result["int16_share"]
        bench.judge(f"{name}, L5, MACs at 16 bit", "at most 25 %", f"{share:.1%}", share <= 0.25)


def _judge_against_peers(bench: Bench, name: str) -> None:
    """L5 ahead of the best peer that can take the network, in the mean over outputs."""
    rows = bench.rows[name]
    able = [method for method in bench.peers_of(name) if "error" not in rows[method]]
    ours, what = rows["L5"], f"{name}, L5, dB against the best peer"
    if not able:
        bench.judge(what, "no peer takes it", f"{ours.get('mean_sqnr', float('nan')):.2f}", "error" not in ours)
        return
    best = max(able, key=lambda method: rows[method]["mean_sqnr"])
    asked = f"above {rows[best]['mean_sqnr']:.2f} ({label(best)})"
    if "error" in ours:
        bench.judge(what, asked, one_line(ours["error"]), False)
        return
    behind = [
        f"{output} {value:.2f} against {top:.2f}"
        for output, value in ours["sqnr"].items()
        if len(ours["sqnr"]) > 1 and value <= (top := max(rows[method]["sqnr"][output] for method in able))
    ]
    measured = f"{ours['mean_sqnr']:.2f}" + (f"; behind: {', '.join(behind)}" if behind else "")
    bench.judge(what, asked, measured, ours["mean_sqnr"] > rows[best]["mean_sqnr"])


def _judge_memory(bench: Bench, name: str) -> None:
    rows = bench.rows[name]
    theirs = [rows[m]["peak_mb"] for m in ("nncf-fast", "nncf-full") if m in rows and "peak_mb" in rows[m]]
    if theirs and "L5" in rows and "peak_mb" in rows["L5"]:
        least, ours = min(theirs) + 200, rows["L5"]["peak_mb"]
        bench.judge(f"{name}, L5, peak MB", f"below {least:.0f} (NNCF + 200)", f"{ours:.0f}", ours < least)


# ---- levels ----------------------------------------------------------------------------------------------------------


def levels(bench: Bench) -> None:
    """Mean output SQNR of the levels of every network, and whether they rise."""
    shown = [level for level in LEVELS if level in bench.methods]
    print("\n## Levels: mean output SQNR, dB\n")
    heading(["network", *shown, f"rising within {SLACK} dB"])
    for name, rows in bench.rows.items():
        values = [rows[level].get("mean_sqnr") for level in shown if level in rows]
        if len(values) < len(shown):
            continue
        known = [value for value in values if value is not None]
        fall = max([max(known[: k + 1]) - value for k, value in enumerate(known)], default=0.0)
        ok = len(known) == len(shown) and fall <= SLACK
        table([name, *("" if value is None else f"{value:.2f}" for value in values), "ok" if ok else "MISSED"])
        bench.judge(f"{name}, levels rise", f"within {SLACK} dB", f"largest fall {fall:.2f} dB", ok)


# ---- time ------------------------------------------------------------------------------------------------------------


def timing(bench: Bench, case: Case) -> None:
    """Seconds of the calibration alone, on arrays that lie ready, and for us also with decoding the pictures."""
    name = case.network.name
    found = bench.times.setdefault(name, {})
    inference = min(case.float_seconds() for _ in range(max(2, bench.repeats)))  # the first one warms up
    print(
        f"\n## {name}: seconds for {len(case.samples)} pictures; onnxruntime's float inference takes {inference:.2f}\n"
    )
    heading(["method", "arrays ready", "pictures decoded"])
    decoded = [[str(path)] * len(case.network.inputs) for path, _ in case.pictures]
    for method in (*bench.peers_of(name), *(level for level in bench.methods if level in LEVELS)):
        ready = [bench.result(case, method), *(_again(bench, case, method) for _ in range(bench.repeats - 1))]
        whole = [case.calibrate(method, samples=decoded, decode=True)[0]] if method in LEVELS else []
        whole += [case.calibrate(method, samples=decoded, decode=True)[0] for _ in whole * (bench.repeats - 1)]
        found[method] = {"ready": _least_seconds(ready), "decoded": _least_seconds(whole)}
        table([label(method), *("" if value is None else f"{value:.2f}" for value in found[method].values())])

    def compare(level: str, other: str, factor: float) -> None:
        ours, theirs = (found.get(method, {}).get("ready") for method in (level, other))
        if ours is not None and theirs is not None:
            what, asked = f"{name}, {level}, seconds", f"at most {factor * theirs:.2f} ({factor:g} x {label(other)})"
            bench.judge(what, asked, f"{ours:.2f}", ours <= factor * theirs)

    compare("L1", "ort-minmax", 1)
    compare("L3", "nncf-fast", 1.5)
    compare("L5", "ort-percentile", 3)
    if (fast := found.get("L1", {}).get("ready")) is not None:
        asked = f"below {2 * inference:.2f} (2 x float inference)"
        bench.judge(f"{name}, L1, seconds", asked, f"{fast:.2f}", fast < 2 * inference)


def _again(bench: Bench, case: Case, method: str) -> Result:
    if method in LEVELS:
        return case.calibrate(method)[0]
    return case.quantise(method, bench.peers_python)[0] if bench.peers_python else {}


def _least_seconds(results: Sequence[Result]) -> float | None:
    return min((result["seconds"] for result in results if "seconds" in result), default=None)


# ---- memory ----------------------------------------------------------------------------------------------------------


def memory(bench: Bench, case: Case) -> None:
    """Peak memory at L5 by the number of pictures, which are decoded as they are needed."""
    name = case.network.name
    pictures = sorted(path for part in case.network.split(case.folder) for path, _ in part)
    print(f"\n## {name}: peak memory at L5\n")
    heading(MEMORY_COLUMNS)
    for processes in (1, 10):
        rows = [_measured(bench, case, pictures[:count], processes) for count in (10, 100, 400)]
        peaks = [row["peak_mb"] for row in rows if "peak_mb" in row]
        shown = ", ".join(f"{peak:.0f}" for peak in peaks)
        ok = len(peaks) == len(rows) and max(peaks) <= 1.1 * min(peaks)
        bench.judge(f"{name}, MB for 10, 100, 400 pictures, --num_process {processes}", "within 10 %", shown, ok)


def large_pictures(bench: Bench) -> None:
    """A U-Net on pictures of 1760x1760."""
    print(f"\n## U-Net, {LARGE} pictures of {SIDE}x{SIDE}: peak memory at L5\n")
    with tempfile.TemporaryDirectory(prefix="calibration_") as scratch:
        model = Path(scratch, "unet.onnx")
        unet(model, SIDE)
        sources = EVERY["yolox_nano"].samples()[:LARGE]
        for source in sources:
            large = cv2.resize(cv2.imread(str(source)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(Path(scratch, source.name)), large)
        network = Network("unet", str(model), ("image",), ("mask",), SIDE, SIDE, pictures=scratch)
        folder = Path(scratch, "case")
        folder.mkdir()
        heading(MEMORY_COLUMNS)
        row = _measured(bench, Case(network, folder, bench.limits, arrays=False), network.samples(), 10)
    peak = row.get("peak_mb", float("inf"))
    bench.judge(f"U-Net, {LARGE} pictures of {SIDE}x{SIDE}, MB", "at most 4096", f"{peak:.0f}", peak <= 4096)


def _measured(bench: Bench, case: Case, pictures: Sequence[Path], processes: int) -> Result:
    samples = [[str(path)] for path in pictures]
    result, _ = case.calibrate("L5", samples=samples, decode=True, processes=processes)
    row = {"network": case.network.name, "pictures": len(pictures), "processes": processes, **result}
    bench.memory.append(row)
    if "error" in result:
        table([str(len(pictures)), str(processes), one_line(result["error"]), "", ""])
    else:
        numbers = (f"{result['own_mb']:.0f}", f"{result['peak_mb']:.0f}", f"{result['seconds']:.1f}")
        table([str(len(pictures)), str(processes), *numbers])
    return row


def unet(path: Path, side: int, channels: Sequence[int] = (16, 32, 64), seed: int = 0) -> None:
    """Write a segmentation network with random weights: encoder, decoder, and Concat of both at every size
    (Ronneberger et al., arXiv:1505.04597). [1, 3, side, side] -> mask [1, 1, side, side].
    """
    random = np.random.default_rng(seed)
    nodes, weights = [], []

    def convolution(x: str, cin: int, cout: int, kernel: int = 3, *, up: bool = False) -> str:
        y = f"conv{len(nodes)}"
        shape = (cin, cout, 2, 2) if up else (cout, cin, kernel, kernel)
        scale = np.sqrt(2 / (cin * (1 if up else kernel * kernel)))  # He et al., arXiv:1502.01852
        for name, value in (("w", random.normal(0, scale, shape)), ("b", random.normal(0, 0.1, cout))):
            weights.append(numpy_helper.from_array(value.astype(np.float32), f"{y}.{name}"))
        how = {"strides": [2, 2]} if up else {"pads": [kernel // 2] * 4}
        nodes.append(helper.make_node("ConvTranspose" if up else "Conv", [x, f"{y}.w", f"{y}.b"], [y], **how))
        return y

    def block(x: str, cin: int, cout: int) -> str:
        for count in (cin, cout):
            y = convolution(x, count, cout)
            x = f"{y}.relu"
            nodes.append(helper.make_node("Relu", [y], [x]))
        return x

    x, depth, skips = "image", 3, []
    for count in channels:
        if skips:
            nodes.append(helper.make_node("MaxPool", [x], [f"pool{count}"], kernel_shape=[2, 2], strides=[2, 2]))
            x = f"pool{count}"
        x, depth = block(x, depth, count), count
        skips.append((x, count))
    for skip, count in reversed(skips[:-1]):
        up = convolution(x, depth, count, up=True)
        nodes.append(helper.make_node("Concat", [skip, up], [f"both{count}"], axis=1))
        x, depth = block(f"both{count}", 2 * count, count), count
    nodes.append(helper.make_node("Sigmoid", [convolution(x, depth, 1, 1)], ["mask"]))
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count, side, side])
        for name, count in (("image", 3), ("mask", 1))
    ]
    graph = helper.make_graph(nodes, "unet", ports[:1], ports[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


# ---- networks hard by construction -----------------------------------------------------------------------------------


def hard_networks(bench: Bench) -> None:
    """Networks of bench/hard_networks.py: all-8-bit L5 within a point of float."""
    try:
        networks = importlib.import_module("hard_networks").NETWORKS
    except ModuleNotFoundError as error:  # it needs scikit-learn
        print(f"\nthe hard networks are left out: {error}")
        return
    for network in networks:
        with opened(network, bench) as case:
            if case is not None:
                accuracy(bench, case)
        result, what = bench.rows.get(network.name, {}).get(ALL_8_BIT), f"{network.name}, {label(ALL_8_BIT)}, top-1"
        if result is not None and "error" in result:
            bench.judge(what, "within 1 point of float", one_line(result["error"]), False)
        elif result is not None:
            measured, near = f"{result['top1']:.2f} against {result['float_top1']:.2f}", 1.0
            bench.judge(what, "within 1 point of float", measured, result["top1"] >= result["float_top1"] - near)


# ---- networks that we do not take ------------------------------------------------------------------------------------


def refusals(bench: Bench) -> None:
    """Why every ONNX file of the data folder that no row above stands for is left out."""
    measured = {network.path() for network in EVERY.values()}
    for path in sorted(data_folder().rglob("*.onnx")):
        if path not in measured:
            try:
                import_onnx(path, input_shapes=SHAPES.get(path.parent.name))
                reason = "converts, but has no entry in bench/networks.py"
            except UserError as error:
                reason = _reasons(error)
            bench.refused[str(path.relative_to(data_folder()))] = reason
    print("\n## Networks that do not become fixed\n")
    heading(["network", "reason"])
    for name, reason in bench.refused.items():
        table([name, one_line(reason, 400)])


def _reasons(error: UserError) -> str:
    """What keeps a network from being converted, every reason once."""
    problems = error.problems if isinstance(error, Problems) else (error,)
    return "; ".join(dict.fromkeys(problem.reason for problem in problems))


# ---- the run ---------------------------------------------------------------------------------------------------------


def verdicts(bench: Bench) -> None:
    """All bars of this run."""
    if bench.verdicts:
        print("\n## Bars\n")
        heading(["what", "asked", "measured", ""])
    for verdict in bench.verdicts:
        table([verdict.what, verdict.asked, verdict.measured, "ok" if verdict.ok else "MISSED"])


def record(bench: Bench, path: Path) -> None:
    """Write everything found so far."""
    data: dict[str, Any] = {
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()},
        "onnxruntime": onnxruntime.__version__,
        "command": sys.argv[1:],
        **{key: getattr(bench, key) for key in ("rows", "refused", "times", "memory")},
        "verdicts": [asdict(verdict) for verdict in bench.verdicts],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def one_network(bench: Bench, network: Network, parts: Sequence[str]) -> None:
    """The parts that are about a network of the data folder."""
    timed, weighed = "time" in parts and network.name in TIMED, "memory" in parts and network.name == MEMORY
    if not (timed or weighed or {"accuracy", "levels"} & set(parts)):
        return
    with opened(network, bench) as case:
        if case is None:
            return
        if "accuracy" in parts:
            accuracy(bench, case)
        elif "levels" in parts:
            for level in (level for level in LEVELS if level in bench.methods):
                bench.result(case, level)
        if timed:
            timing(bench, case)
        if weighed:
            memory(bench, case)


def common_options(parser: argparse.ArgumentParser) -> None:
    """What bench/torch_calibration.py has as well."""
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--peers-from", type=Path, metavar="FILE.json", help="take the peers' results of an earlier run"
    )
    parser.add_argument("--memory-limit", type=float, default=Limits.memory_gib, metavar="GIB", help="of any one run")
    parser.add_argument("--time-limit", type=float, default=Limits.seconds, metavar="SECONDS", help="of any one run")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="prepared pictures stay there for the next run")
    parser.add_argument("--out", type=Path, metavar="FILE.json")


def check_names(
    parser: argparse.ArgumentParser, option: str, given: Sequence[str] | None, known: Iterable[str]
) -> None:
    """End the program where an option names what is not known."""
    if unknown := [name for name in given or () if name not in set(known)]:
        parser.error(f"{option}: {', '.join(unknown)} is none of {', '.join(known)}")


def peers_python(options: argparse.Namespace) -> str | None:
    """The Python that has the peers, where they are to be run."""
    return os.environ.get("PEERS_PYTHON") if options.peers and not options.peers_from else None


def known_peers(options: argparse.Namespace) -> dict[str, dict[str, Result]]:
    """The peers' results of an earlier run."""
    if not options.peers_from:
        if options.peers and peers_python(options) is None:
            print("PEERS_PYTHON is not set: peers are left out")
        return {}
    print(f"peers' rows are of an earlier run, {options.peers_from}")
    known: dict[str, dict[str, Result]] = json.loads(options.peers_from.read_text("utf-8"))["rows"]
    return known


def has_data() -> bool:
    """Whether the public networks are there; a line says where they are looked for."""
    if "SGS_TEST_DATA" not in os.environ:
        print("set SGS_TEST_DATA to the folder that holds the public networks", file=sys.stderr)
    return "SGS_TEST_DATA" in os.environ


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    several = {"type": lambda text: text.split(","), "metavar": "A,B"}
    parser.add_argument("--networks", **several, help=f"of {', '.join(EVERY)}")
    parser.add_argument("--levels", **several, help=f"of {', '.join(OURS)}")
    parser.add_argument("--parts", **several, help=f"of {', '.join(PARTS)}")
    common_options(parser)
    parser.add_argument("--repeats", type=int, default=1, help="of timed runs; the shortest counts")
    options = parser.parse_args(argv)
    quick = options.networks is not None or options.levels is not None
    for key, known in {"networks": EVERY, "levels": OURS, "parts": PARTS}.items():
        check_names(parser, f"--{key}", getattr(options, key), known)
    options.parts = options.parts or (["accuracy"] if quick else list(PARTS))
    options.levels = [method for method in OURS if method in (options.levels or OURS)]
    options.whole = not quick and set(options.parts) == set(PARTS)
    options.networks = options.networks or [*FIRST, *(name for name in EVERY if name not in FIRST)]
    return options


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    if not has_data():
        return 2
    limits = Limits(options.time_limit, options.memory_limit)
    python, known = peers_python(options), known_peers(options)
    bench = Bench(options.levels, python, limits, options.repeats, options.keep, known)
    for name in options.networks:
        one_network(bench, EVERY[name], options.parts)
        if options.out:
            record(bench, options.out)
    if "levels" in options.parts:
        levels(bench)
    if "memory" in options.parts:
        large_pictures(bench)
    if "hard" in options.parts:
        hard_networks(bench)
    if options.whole:
        refusals(bench)
    verdicts(bench)
    if options.out:
        record(bench, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
