"""Shipped networks fed every picture format that is legal for them, beside onnxruntime on the float network, on
pictures that calibration has not seen: mean cosine of every output."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from closeness import cosine
from conventions import ROOT
from sgs.config.formats import INPUT_FORMATS
from sgs.config.input_config import InputConfig, parse_input_config
from sgs.data.board import to_board
from sgs.data.preprocess import Preprocessor
from sgs.engine import FixedEngine
from sgs.errors import UserError
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.pipelines import CalibrationOptions, apply_plan, calibrate, convert
from sgs.quant.plan import QuantPlan
from shipped import PICTURES

CALIBRATE, LOOK_AT = 24, 16  # pictures
LEAST = {"YUV_NV12": 0.98}  # colours at half the resolution; 0.999 for all others
CASES = {"RGB": (0, 0), "BGR": (0, 0), "RGBA": (0, 0), "BGRA": (48, 0), "YUV_NV12": (96, 10)}  # fed → alignments


@dataclass(frozen=True)
class Shipped:
    """A shipped network: converted and calibrated once, whatever it is fed."""

    name: str

    @property
    def folder(self) -> Path:
        return ROOT / "SGS_Models/onnx" / self.name

    def pictures(self, part: str, count: int) -> list[Path]:
        """Spread over a folder."""
        found = sorted((ROOT / "SGS_Models/resource" / PICTURES[self.name] / part).glob("*.png"))
        return found[:: len(found) // count][:count]

    def fed(self, fed: str, width: int = 0, height: int = 0) -> InputConfig:
        """Its ini with another input format and alignments."""
        file = self.folder / "input_config.ini"
        text = re.sub(r"(?m)^input_formats=\w+", f"input_formats={fed}", file.read_text("utf-8"))
        lines = [f"input_{side}_alignment={n};\n" for side, n in (("width", width), ("height", height)) if n]
        return parse_input_config(text.replace("[OUTPUT_CONFIG]", "".join(lines) + "[OUTPUT_CONFIG]"), file)

    @cached_property
    def script(self) -> Preprocessor:
        return Preprocessor(self.folder / f"{self.name}.py")

    @cached_property
    def float_graph(self) -> Graph:
        return convert("onnx", {"model_file": self.folder / f"{self.name}.onnx"}, self.fed("RGB"))[1]

    @cached_property
    def plan(self) -> QuantPlan:
        options = CalibrationOptions("L2", processes=1)
        samples = [(path,) for path in self.pictures("calibration", CALIBRATE)]
        return calibrate(self.float_graph, self.fed("RGB"), [self.script], samples, options).plan

    @cached_property
    def truth(self) -> dict[str, list[Array]]:
        """Outputs of the source network for each picture that is looked at, channels last."""
        session = onnxruntime.InferenceSession(str(self.folder / f"{self.name}.onnx"))
        (port,), names = session.get_inputs(), [output.name for output in session.get_outputs()]
        found: dict[str, list[Array]] = {name: [] for name in names}
        for path in self.pictures("test", LOOK_AT):
            planar = np.ascontiguousarray(self.script(path, True).transpose(0, 3, 1, 2))
            for name, value in zip(names, session.run(None, {port.name: planar}), strict=True):
                found[name].append(value.transpose(0, 2, 3, 1) if value.ndim == 4 else value)
        return found


@lru_cache
def shipped(name: str) -> Shipped:
    return Shipped(name)


NETWORKS = ["onnx_mobilenet_v2_digits", "onnx_faster_rcnn_shapes"]


@pytest.mark.parametrize("network", NETWORKS)
def test_these_are_all_formats(network: str) -> None:
    legal = []
    for fed in INPUT_FORMATS:
        try:
            shipped(network).fed(fed)
        except UserError:
            continue
        legal.append(fed)
    assert sorted(legal) == sorted(CASES)


@pytest.mark.parametrize("fed", list(CASES))
@pytest.mark.parametrize("network", NETWORKS)
def test_outputs_are_those_of_the_float_network(network: str, fed: str) -> None:
    model = shipped(network)
    config = model.fed(fed, *CASES[fed])
    (spec,) = config.inputs
    engine = FixedEngine(apply_plan(model.float_graph, config, model.plan, {}), threads=1)
    pictures = model.pictures("test", LOOK_AT)
    assert len(pictures) == LOOK_AT
    runs = [engine.run({spec.name: to_board(spec, model.script(path, False))}) for path in pictures]
    for name, truth in model.truth.items():
        mean = np.mean([cosine(value, run[name]) for value, run in zip(truth, runs, strict=True)])
        assert mean >= LEAST.get(fed, 0.999), name
