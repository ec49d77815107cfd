"""A network with an ini of its own through every stage, for tests of what is fed and returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

import calibrator_custom
from sgs.config.chips import load_chip
from sgs.config.input_config import InputConfig, read_input_config
from sgs.data.preprocess import Preprocessor
from sgs.engine import run_reference
from sgs.frontends.onnx_walk import Layouts
from sgs.img import write_image
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.pipelines import CalibrationOptions, apply_plan, calibrate, compile_fixed, convert
from sgs.python_api.models import ModelRunner
from sgs.quant.parameters import QuantParameter
from sgs.quant.plan import QuantPlan
from sgs.sim import read_sim, write_sim

CHIP = load_chip("pcupid")
SCRIPT = "import numpy as np\ndef image_preprocess(path, norm=True):\n    return np.load(path)\n"
Feeds = Mapping[str, Array]


def ini(inputs: Mapping[str, Mapping[str, str]], outputs: Mapping[str, Mapping[str, str]]) -> str:
    """An input_config.ini; of every input and output its name and the values of keys, the same for all."""

    def lines(section: str, names: str, columns: Mapping[str, Mapping[str, str]]) -> list[str]:
        keys = next(iter(columns.values()))
        values = [f"{key}={','.join(column[key] for column in columns.values())};" for key in keys]
        return [f"[{section}]", f"{names}={','.join(columns)};", *values]

    return "\n".join([*lines("INPUT_CONFIG", "inputs", inputs), *lines("OUTPUT_CONFIG", "outputs", outputs), ""])


@dataclass
class Chain:
    """A folder in which an ONNX model becomes a float .sim, a fixed .sim and images."""

    folder: Path
    model: onnx.ModelProto
    text: str
    source_layouts: Layouts = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        onnx.save(self.model, self.folder / "model.onnx")
        (self.folder / "script.py").write_text(SCRIPT, encoding="utf-8")
        (self.folder / "input_config.ini").write_text(self.text, encoding="utf-8")

    @cached_property
    def config(self) -> InputConfig:
        return read_input_config(self.folder / "input_config.ini")

    @property
    def script(self) -> Preprocessor:
        return Preprocessor(self.folder / "script.py")

    @cached_property
    def float_graph(self) -> Graph:
        graph = convert(
            "onnx", {"model_file": self.folder / "model.onnx"}, self.config, source_layouts=self.source_layouts
        )[1]
        write_sim(graph, self.folder / "float.sim", stage="float")
        return graph

    def calibrated(
        self,
        samples: Sequence[Feeds],
        level: str = "L2",
        scripts: Sequence[str] = (),
        parameters: tuple[QuantParameter, ...] = (),
    ) -> QuantPlan:
        """Writes the fixed .sim; `samples` are what `scripts`, one for each input, find in files. Without scripts they
        are returned with norm=True and norm=False alike."""
        rows = []
        for number, feeds in enumerate(samples):
            row = tuple(self.folder / f"{number}_{k}.npy" for k in range(len(self.config.inputs)))
            for path, spec in zip(row, self.config.inputs, strict=True):
                np.save(path, feeds[spec.name])
            rows.append(row)
        loaded = self._written(scripts) or [self.script] * len(self.config.inputs)
        options = CalibrationOptions(level, processes=1, quant_parameters=parameters)
        made = calibrate(self.float_graph, self.config, loaded, rows, options)
        write_sim(made.graph, self.folder / "fixed.sim", stage="fixed")
        self.steps = made.steps
        return made.plan

    def _written(self, scripts: Sequence[str]) -> list[Preprocessor]:
        files = [self.folder / f"script_{index}.py" for index in range(len(scripts))]
        for file, text in zip(files, scripts, strict=True):
            file.write_text(text, encoding="utf-8")
        return [Preprocessor(file) for file in files]

    def applied(self, plan: QuantPlan) -> None:
        """Writes the fixed .sim of a plan."""
        write_sim(apply_plan(self.float_graph, self.config, plan, {}), self.folder / "fixed.sim", stage="fixed")

    @cached_property
    def fixed_graph(self) -> Graph:
        return read_sim(self.folder / "fixed.sim").graph

    def compiled(self, name: str = "n_buf.img", mode: str = "n_buf", batches: tuple[int, ...] = (4,)) -> None:
        write_image(compile_fixed(self.fixed_graph, CHIP, batch_mode=mode, batches=batches), self.folder / name)

    def opened(self, name: str) -> ModelRunner:
        kinds = {"float.sim": "float", "fixed.sim": "fixed"}
        runner: ModelRunner = getattr(calibrator_custom, f"{kinds.get(name, 'offline')}_simulator")(
            str(self.folder / name)
        )
        return runner

    def run(self, name: str, feeds: Feeds) -> dict[str, Array]:
        """By the Python API, from what its details say."""
        return run(self.opened(name), feeds)

    def source(self, feeds: Feeds) -> dict[str, Array]:
        """What onnxruntime says."""
        session = onnxruntime.InferenceSession(self.model.SerializeToString(), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    def exact(self, feeds: Feeds) -> dict[str, Array]:
        """What the fixed model returns for one frame, after the reference and the image have returned the same bits."""
        found = self.run("fixed.sim", feeds)
        for values in (run_reference(self.fixed_graph, feeds), self.run("n_buf.img", feeds)):
            same(found, {name: values[name] for name in found})
        return found


def run(runner: ModelRunner, feeds: Feeds) -> dict[str, Array]:
    """One run of an opened model."""
    for told in runner.get_input_details():
        runner.set_input(told["index"], feeds[told["name"]])
    runner.invoke()
    results = {told["name"]: (told, runner.get_output(told["index"])) for told in runner.get_output_details()}
    for name, (told, values) in results.items():
        assert values.dtype == told["dtype"], name
    return {name: values for name, (_, values) in results.items()}


def same(found: Feeds, wanted: Feeds) -> None:
    """Raise AssertionError naming the first output that differs in type, shape or a bit."""
    assert list(found) == list(wanted)
    for name, values in found.items():
        assert (values.dtype, values.shape) == (wanted[name].dtype, wanted[name].shape), name
        assert np.array_equal(values, wanted[name]), name
