"""The main job on public networks: accuracy, exactness and speed of every stage, side by side with onnxruntime.

usage: SGS_TEST_DATA=FOLDER python bench/main_job.py [NETWORK ...]

Prints, per network: largest float error against onnxruntime on the source model (relative to the output's range),
output cosines fixed-against-float per level, differing elements offline/fixed/reference, and times. Calibration
pictures are the first 32 by name, scoring pictures the next 16; both engines run with the same number of threads on
the same pictures, alternately.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
from networks import MAIN, NETWORKS, Network

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "Scripts"))

from sgs.config.chips import load_chip  # noqa: E402
from sgs.config.input_config import InputConfig, read_input_config  # noqa: E402
from sgs.data.feed import fixed_inputs, float_inputs  # noqa: E402
from sgs.data.preprocess import Preprocessor  # noqa: E402
from sgs.engine import FixedEngine, FloatEngine, run_reference  # noqa: E402
from sgs.img.simulate import OfflineEngine  # noqa: E402
from sgs.ir import Graph  # noqa: E402
from sgs.pipelines import CalibrationOptions, calibrate, compile_fixed, convert  # noqa: E402
from sgs.quant.levels import LEVELS  # noqa: E402

CALIBRATE, SCORE, CHIP = 32, 16, "pcupid"
Arrays = dict[str, np.ndarray]


@dataclass
class Case:
    """One network with its user files in a temporary folder."""

    network: Network
    folder: Path
    config: InputConfig = field(init=False)
    scripts: list[Preprocessor] = field(init=False)
    graph: Graph = field(init=False)

    def __post_init__(self) -> None:
        self.config = read_input_config(self.network.write_config(self.folder))
        self.scripts = [Preprocessor(self.network.write_script(self.folder))]
        _, self.graph = convert("onnx", {"model_file": self.network.path()}, self.config)
        self.inputs = {name: self.graph[name] for name in self.graph.inputs}
        samples = self.network.samples()
        self.calibration = [(p,) for p in samples[:CALIBRATE]]
        self.scoring = [(p,) for p in samples[CALIBRATE : CALIBRATE + SCORE]] or self.calibration[:SCORE]

    def floats(self, sample: tuple[Path]) -> Arrays:
        return float_inputs(self.config, self.scripts, sample, self.inputs)

    def fixed(self, sample: tuple[Path]) -> Arrays:
        return fixed_inputs(self.config, self.scripts, sample, self.inputs)


def source_layout(session: onnxruntime.InferenceSession, feeds: Arrays) -> Arrays:
    """Our NHWC feeds in the layout of the source model."""
    result = {}
    for port in session.get_inputs():
        value = feeds[port.name]
        nchw = value.ndim == 4 and list(port.shape)[1:] != list(value.shape)[1:]
        result[port.name] = np.ascontiguousarray(value.transpose(0, 3, 1, 2)) if nchw else value
    return result


def as_ours(values: list[np.ndarray], names: list[str], graph: Graph) -> Arrays:
    """Source outputs in the layout of the graph's outputs."""
    result = {}
    for name, value in zip(names, values, strict=True):
        ours = graph[name].shape
        result[name] = value.transpose(0, 2, 3, 1) if value.ndim == 4 and value.shape != ours else value
    return result


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-30))


def float_error(case: Case, session: onnxruntime.InferenceSession) -> float:
    """Largest |ours - source| over the output's range, over the scoring pictures and outputs."""
    engine, worst = FloatEngine(case.graph), 0.0
    names = [o.name for o in session.get_outputs()]
    for sample in case.scoring[:4]:
        feeds = case.floats(sample)
        truth = as_ours(session.run(None, source_layout(session, feeds)), names, case.graph)
        for name, value in engine.run(feeds).items():
            worst = max(worst, float(np.abs(value - truth[name]).max() / max(np.ptp(truth[name]), 1e-30)))
    return worst


def cosines(case: Case, fixed: Graph) -> dict[str, tuple[float, float]]:
    """Fixed against float per output: cosine over all scoring pictures together, and the mean of their single cosines.

    The second is harsh on networks whose output is all but zero on many pictures (a segmentation that finds nobody).
    """
    engine, reference = FixedEngine(fixed), FloatEngine(case.graph)
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in fixed.outputs}
    for sample in case.scoring:
        values, truth = engine.run(case.fixed(sample)), reference.run(case.floats(sample))
        for name in found:
            found[name].append((values[name], truth[name]))
    return {
        name: (
            cosine(np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])),
            float(np.mean([cosine(a, b) for a, b in pairs])),
        )
        for name, pairs in found.items()
    }


def differing(case: Case, fixed: Graph) -> tuple[int, int]:
    """Elements in which (offline, reference) differ from the fixed engine over scoring pictures (reference: one
    picture).
    """
    engine = FixedEngine(fixed)
    offline = OfflineEngine(compile_fixed(fixed, load_chip(CHIP)))
    differ_offline = differ_reference = 0
    for index, sample in enumerate(case.scoring[:4]):
        feeds = case.fixed(sample)
        values = engine.run(feeds)
        image = offline.run(feeds)
        differ_offline += sum(int((image[n] != values[n]).sum()) for n in fixed.outputs)
        if index == 0:
            truth = run_reference(fixed, feeds)
            differ_reference += sum(int((truth[n] != values[n]).sum()) for n in fixed.outputs)
    return differ_offline, differ_reference


def throughput(case: Case, fixed: Graph, session: onnxruntime.InferenceSession, rounds: int = 7) -> list[float]:
    """Milliseconds per picture, best of `rounds`, taking turns: onnxruntime float on the source, our fixed engine,
    our float engine, and onnxruntime as one stream per processor.

    All use every processor: onnxruntime inside its one session, as it does by default; the fixed engine by `map`.
    """
    engine, floats = FixedEngine(fixed), FloatEngine(case.graph)
    codes = [case.fixed(s) for s in case.scoring[:8]]
    reals = [case.floats(s) for s in case.scoring[:8]]
    sources = [source_layout(session, f) for f in reals]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    single = onnxruntime.InferenceSession(str(case.network.path()), options, providers=["CPUExecutionProvider"])
    with ThreadPoolExecutor(engine.threads) as pool:
        runs = (
            lambda: [session.run(None, feed) for feed in sources],
            lambda: list(engine.map(codes)),
            lambda: [floats.run(feed) for feed in reals],
            lambda: list(pool.map(lambda feed: single.run(None, feed), sources)),
        )
        best = [np.inf] * len(runs)
        for _ in range(rounds):
            for k, run in enumerate(runs):
                time.sleep(0.1)  # onnxruntime's threads go on spinning for a while after a run
                start = time.perf_counter()
                run()
                best[k] = min(best[k], (time.perf_counter() - start) / len(codes) * 1e3)
    return [float(value) for value in best]


def process_seconds(case: Case) -> tuple[float, float]:
    """Seconds of whole processes: ConvertTool, and SGS_converter one-shot with 32 pictures."""
    listing = case.folder / "list.txt"
    listing.write_text("\n".join(str(p[0]) for p in case.calibration) + "\n", encoding="utf-8")
    common = [
        "onnx",
        "--model_file",
        str(case.network.path()),
        "--input_config",
        str(case.config.path),
        "--soc_version",
        CHIP,
    ]
    convert = [
        str(ROOT / "Scripts/ConvertTool/ConvertTool.py"),
        *common,
        "--output_file",
        str(case.folder / "m_float.sim"),
    ]
    oneshot = [
        str(ROOT / "Scripts/ConvertTool/SGS_converter.py"),
        *common,
        "-i",
        str(listing),
        "-n",
        str(case.scripts[0].path),
        "--output_file",
        str(case.folder / "m.img"),
    ]
    seconds = []
    for command in (convert, oneshot):
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return seconds[0], seconds[1]


def run(network: Network) -> None:
    """Measure one network and print its block."""
    with tempfile.TemporaryDirectory() as folder:
        case = Case(network, Path(folder))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(network.path()), options, providers=["CPUExecutionProvider"])
        transposes = sum(node.op == "TRANSPOSE" for node in case.graph.nodes)
        print(
            f"\n## {network.name}: {len(case.graph.nodes)} nodes, {transposes} TRANSPOSE, "
            f"float error {float_error(case, session):.1e}"
        )
        final: Graph | None = None
        for level in LEVELS:
            start = time.perf_counter()
            result = calibrate(case.graph, case.config, case.scripts, case.calibration, CalibrationOptions(level))
            seconds = time.perf_counter() - start
            final = result.graph
            wide = sum(mac.bits == 16 for mac in result.plan.macs.values())
            shown = "  ".join(
                f"{name} {value:.5f} ({mean:.5f})" for name, (value, mean) in cosines(case, final).items()
            )
            print(f"{level}: cosine {shown}   ({wide}/{len(result.plan.macs)} at 16 bit, {seconds:.1f} s)", flush=True)
        assert final is not None
        offline, reference = differing(case, final)
        source, fixed, ours, streams = throughput(case, final, session)
        convert, oneshot = process_seconds(case)
        print(f"differing elements: offline {offline}, reference {reference}")
        print(
            f"ms/picture: onnxruntime float {source:.2f}, fixed {fixed:.2f} (ratio {source / fixed:.2f}), "
            f"float .sim {ours:.2f}, onnxruntime as one stream per processor {streams:.2f}"
        )
        print(f"processes: ConvertTool {convert:.2f} s, one-shot with {CALIBRATE} pictures {oneshot:.1f} s", flush=True)


def main(names: list[str]) -> int:
    if "SGS_TEST_DATA" not in os.environ:
        print("set SGS_TEST_DATA to the folder that holds the public networks", file=sys.stderr)
        return 2
    for network in [NETWORKS[name] for name in names] or MAIN:
        run(network)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
