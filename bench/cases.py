"""One network of the calibration benchmark: its pictures as arrays, what float makes of them, runs of either side.

Both sides get the arrays that the network's preprocess script makes, ours in NHWC, peers in the model's layout. Every
quantisation is a process of its own. What it leaves is scored here, by one measure for all.
"""

from __future__ import annotations

import json
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime
from networks import Network
from ours import weight_facts
from scores import score

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "Scripts"))

from sgs.config.input_config import read_input_config  # noqa: E402
from sgs.data.feed import fixed_inputs, float_inputs  # noqa: E402
from sgs.data.images import Sample  # noqa: E402
from sgs.data.preprocess import Preprocessor  # noqa: E402
from sgs.engine import FixedEngine, FloatEngine  # noqa: E402
from sgs.frontends.onnx_layout import SourceLayouts  # noqa: E402
from sgs.pipelines import convert  # noqa: E402
from sgs.sim import read_sim  # noqa: E402

Arrays = dict[str, np.ndarray]
Result = dict[str, Any]
ALL_8_BIT = "8bit"  # the method that keeps every sum of products at 8 bit, at L5
PEER_OPSET = 13  # the first with per-channel QuantizeLinear
HOURS = 3600
_OUT_OF_MEMORY = ("MemoryError", "bad_alloc")
_LOADER = '''"""Gives the arrays that the network's preprocess script has made."""
import numpy as np


def image_preprocess(path, norm=True):
    return np.load(path if norm else path.replace(".float.npy", ".codes.npy"))
'''


@dataclass
class Limits:
    """What a quantisation may take. A run that needs more counts as a crash. Without `memory_gib` it may take all."""

    seconds: float = 1 * HOURS
    memory_gib: float | None = 16


@dataclass(frozen=True)
class ModeRun:
    """A mode of torch_calibrator with the QUANT_CONFIG of its quant_config.yaml."""

    mode: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        """The file; JSON is YAML."""
        path.write_text(json.dumps({"QUANT_CONFIG": dict(self.settings)}), encoding="utf-8")
        return path


@dataclass
class Case:
    """A network prepared in `folder`. Raises UserError where our converter refuses it.

    `truth` and `scoring` hold, per scoring picture, float's outputs (NHWC) and (codes for us, reals for peers). Without
    `arrays` neither they nor the samples are made, and only `calibrate` with samples of its own can be asked for.
    """

    network: Network
    folder: Path
    limits: Limits
    arrays: bool = True
    truth: list[Arrays] = field(default_factory=list)
    scoring: list[tuple[Arrays, Arrays]] = field(default_factory=list)
    no_peers: str = ""  # why no peer can take the network

    def __post_init__(self) -> None:
        network, folder = self.network, self.folder
        self.scripts = [network.write_script(folder, index) for index in range(len(network.inputs))]
        self.configs = {ALL_8_BIT: network.write_config(folder, "ALL_UINT8"), "": network.write_config(folder)}
        config = read_input_config(self.configs[""])
        self.platform, self.files = network.source()
        _, graph = convert(self.platform, self.files, config, input_shapes=network.shapes)
        self.config, self.graph = config, graph
        self.pictures, scored = network.split(folder)
        first = network.first_class
        self.classes = None if first is None else [label + first for _, label in scored]
        loader = folder / "loader.py"
        loader.write_text(_LOADER, encoding="utf-8")
        self.loaders = [loader] * len(network.inputs)
        if self.arrays:
            self._prepare_model()
            self._recall_arrays([path for path, _ in self.pictures], [path for path, _ in scored])

    # -- preparing -----------------------------------------------------------------------------------------------------
    def _prepare_model(self) -> None:
        """The model for peers, with static shapes and a young enough opset; and the float network."""
        self._turned: set[str] = set()
        if self.platform != "onnx":
            self.no_peers = f"peers take no networks of {self.platform}"
            self._reals = FloatEngine(self.graph)
            return
        model = onnx.load(self.network.path())
        layouts = SourceLayouts(model)
        self._turned |= {name for name in self.network.inputs if layouts.of_input(name) == "NCHW"}
        self._turned |= {name for name in self.network.outputs if layouts.of_output(name) == "NCHW"}
        for name, shape in zip(self.network.inputs, self.network.shapes or (), strict=False):
            port = next(port for port in model.graph.input if port.name == name)
            for dimension, extent in zip(port.type.tensor_type.shape.dim, shape, strict=True):
                dimension.dim_value = extent
        self.peer_model = self.folder / "peer.onnx"
        try:
            self._float = _session(self.network.path())
            if model.opset_import[0].version < PEER_OPSET:
                model = onnx.version_converter.convert_version(model, PEER_OPSET)
            onnx.save(model, self.peer_model)
        except Exception as error:  # onnxruntime raises many kinds for a model that it does not take
            self.no_peers = f"onnxruntime refuses the model: {_first_line(error)}"
            self._reals = FloatEngine(self.graph)

    def _recall_arrays(self, calibration: Sequence[Path], scored: Sequence[Path]) -> None:
        """Arrays as an earlier run with the same folder and scripts has left them, else prepared, and left."""
        file = self.folder / "prepared.pickle"
        key = (repr(self.network), str(self.folder), [path.read_text("utf-8") for path in self.scripts])
        if file.exists():
            found, *parts = pickle.loads(file.read_bytes())
            if found == key:
                self.samples, self.peer_samples, self.scoring, self.truth = parts
                return
        self._prepare_arrays(calibration, scored)
        file.write_bytes(pickle.dumps((key, self.samples, self.peer_samples, self.scoring, self.truth)))

    def _prepare_arrays(self, calibration: Sequence[Path], scored: Sequence[Path]) -> None:
        scripts = [Preprocessor(path) for path in self.scripts]
        inputs = {name: self.graph[name] for name in self.graph.inputs}
        self.samples: list[list[str]] = []
        self.peer_samples: list[dict[str, str]] = []
        for index, path in enumerate([*calibration, *scored]):
            sample: Sample = (path,) * len(inputs)
            floats = float_inputs(self.config, scripts, sample, inputs)
            codes = fixed_inputs(self.config, scripts, sample, inputs)
            if index < len(calibration):
                self._keep(index, floats, codes)
            else:
                self.scoring.append((codes, self._to_source(floats)))
                self.truth.append(self._float_outputs(floats))

    def _keep(self, index: int, floats: Arrays, codes: Arrays) -> None:
        """Write one calibration picture for both sides."""
        stems = {name: str(self.folder / f"{index:03}_{place}") for place, name in enumerate(floats)}
        for name, stem in stems.items():
            np.save(f"{stem}.float.npy", floats[name])
            np.save(f"{stem}.codes.npy", codes[name])
            np.save(f"{stem}.source.npy", self._to_source(floats)[name])
        self.samples.append([f"{stem}.float.npy" for stem in stems.values()])
        self.peer_samples.append({name: f"{stem}.source.npy" for name, stem in stems.items()})

    def _to_source(self, arrays: Arrays) -> Arrays:
        """NHWC arrays in the model's layout."""
        return {
            name: np.ascontiguousarray(value.transpose(0, 3, 1, 2) if self._turns(name, value) else value)
            for name, value in arrays.items()
        }

    def _to_ours(self, arrays: Arrays) -> Arrays:
        return {
            name: value.transpose(0, 2, 3, 1) if self._turns(name, value) else value for name, value in arrays.items()
        }

    def _turns(self, name: str, value: np.ndarray) -> bool:
        return value.ndim == 4 and name in self._turned

    def _float_outputs(self, floats: Arrays) -> Arrays:
        if self.no_peers:
            return self._reals.run(floats)
        return self._outputs_of(self._float, self._to_source(floats))

    def _outputs_of(self, session: onnxruntime.InferenceSession, feeds: Arrays) -> Arrays:
        names = list(self.network.outputs)
        return self._to_ours(dict(zip(names, session.run(names, feeds), strict=True)))

    # -- running -------------------------------------------------------------------------------------------------------
    def float_seconds(self) -> float:
        """onnxruntime on the float model, over the calibration pictures."""
        feeds = [{name: np.load(path) for name, path in sample.items()} for sample in self.peer_samples]
        start = time.perf_counter()
        for feed in feeds:
            self._float.run(None, feed)
        return time.perf_counter() - start

    def calibrate(
        self,
        method: str,
        mode: ModeRun | None = None,
        *,
        samples: Sequence[Sequence[str]] | None = None,
        decode: bool = False,
        processes: int = 10,
    ) -> tuple[Result, Path]:
        """Our toolchain: a level or ALL_8_BIT, or the `mode` that the method stands for, on the prepared arrays, or on
        `samples`. With `decode` these are pictures, which the network's own script reads.
        """
        settings = None if mode is None else mode.write(self.folder / f"{method}.yaml")
        job = {
            "platform": self.platform,
            "files": {option: str(path) for option, path in self.files.items()},
            "shapes": self.network.shapes,
            "config": str(self.configs.get(method, self.configs[""])),
            "scripts": list(map(str, self.scripts if decode else self.loaders)),
            "samples": self.samples if samples is None else samples,
            "level": "L5" if method == ALL_8_BIT else method,
            "processes": processes,
            **({} if mode is None else {"mode": mode.mode, "quant_config": str(settings)}),
        }
        return self._run([sys.executable, str(ROOT / "bench/ours.py")], method, job, ".sim")

    def ours(self, method: str, mode: ModeRun | None = None) -> Result:
        """One of our methods, calibrated and scored."""
        result, file = self.calibrate(method, mode)
        return result if "error" in result else result | self._score(self._fixed_outputs(file))

    def quantise(self, method: str, python: str) -> tuple[Result, Path]:
        """One method of a peer, on the same arrays."""
        job = {"model": str(self.peer_model), "method": method, "samples": self.peer_samples}
        return self._run([python, str(ROOT / "bench/peers.py")], method, job, ".onnx")

    def peer(self, method: str, python: str) -> Result:
        """One method of a peer, quantised and scored."""
        if self.no_peers:
            return {"error": self.no_peers}
        result, file = self.quantise(method, python)
        if "error" in result:
            return result
        try:
            session = _session(file)
        except Exception as error:  # a quantised network that does not load is a peer's result as well
            return {"error": f"gives a network that onnxruntime refuses: {_first_line(error)}"}
        return result | self._score(self._outputs_of(session, feeds) for _, feeds in self.scoring)

    @property
    def has_own_measure(self) -> bool:
        """Whether results have `own` beside what all networks have."""
        return self.network.measure(self.truth) is not None

    def float_result(self) -> Result:
        """What of a result there is to say of the float network."""
        found = self._score(self.truth)
        size = weight_facts(self.graph)["weight_bytes"]
        return {key: found.get(key) for key in ("top1", "own", "boxes")} | {"weight_bytes": size}

    def _fixed_outputs(self, file: Path) -> Iterator[Arrays]:
        return FixedEngine(read_sim(file).graph).map(codes for codes, _ in self.scoring)

    def _score(self, outputs: Iterable[Arrays]) -> Result:
        found = list(outputs)
        result = asdict(score(self.truth, found, self.classes, detects=self.network.name == "yolox_nano"))
        own = self.network.measure(found)
        return result if own is None else result | {"own": own, "float_own": self.network.measure(self.truth)}

    def _run(self, command: list[str], name: str, job: Result, suffix: str) -> tuple[Result, Path]:
        out = self.folder / f"{name}{suffix}"
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps({**job, "out": str(out)}), encoding="utf-8")
        return run_json([*command, str(path)], self.limits), out


def run_json(command: Sequence[str], limits: Limits) -> Result:
    """The JSON in the last line of a command's output, or how it ended otherwise."""
    size = resource.RLIM_INFINITY if limits.memory_gib is None else int(limits.memory_gib * 2**30)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=limits.seconds,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size)),
        )
    except subprocess.TimeoutExpired:
        return {"error": f"takes more than {limits.seconds:.0f} s"}
    if done.returncode == 0:
        result: Result = json.loads(done.stdout.splitlines()[-1])
    else:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        result = {"error": f"crashes: ends with code {done.returncode}: {last}"}
    if limits.memory_gib is not None and any(sign in result.get("error", "") for sign in _OUT_OF_MEMORY):
        result["error"] += f" (limit {limits.memory_gib:g} GiB)"
    return result


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
