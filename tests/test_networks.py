"""Whole networks: float .sim against the source framework, fixed against reference and offline, levels in order.

The shipped networks always run; the public ones of bench/networks.py and bench/frontend_networks.py where SGS_TEST_DATA
names their folder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from frontend_networks import NETWORKS as SOURCES
from frontend_networks import SourceNetwork
from networks import NETWORKS

from conventions import ROOT
from litert_judge import litert_results
from onnx_compare import run_onnx
from sgs.cli import convert_tool
from sgs.config.chips import load_chip
from sgs.config.input_config import ConvSpec, InputConfig, read_input_config
from sgs.data.feed import fixed_inputs, float_inputs
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.engine import FixedEngine, FloatEngine, run_reference
from sgs.frontends.onnx_layout import SourceLayouts
from sgs.img import OfflineEngine, read_image, write_image
from sgs.ir import Graph
from sgs.pipelines import CalibrationOptions, calibrate, compile_fixed, convert
from sgs.quant.levels import LEVELS
from sgs.sim import read_sim, write_sim
from shipped import PICTURES, labels
from test_weight_coding import entropy

Arrays = Mapping[str, Any]
PUBLIC = pytest.mark.skipif("SGS_TEST_DATA" not in os.environ, reason="SGS_TEST_DATA is not set")
LONG = pytest.mark.long
EVERY = [*PICTURES, *(pytest.param(name, marks=PUBLIC) for name in NETWORKS)]
SLOW = ("shufflenet_v2", "palm_detection")  # to calibrate at L5 and to compute in numpy
FIXED = [*PICTURES, *(pytest.param(name, marks=[PUBLIC, *([LONG] if name in SLOW else [])]) for name in NETWORKS)]
TRANSPOSES = {"onnx_faster_rcnn_shapes": 4}  # it pairs scores by a Reshape of channels and rows, in the order NCHW
TOLERANCE = 1e-3  # of an output's range
SLACK = 0.001  # of cosine, by which a higher level may be worse on pictures that it has not seen


@dataclass(frozen=True)
class Case:
    """A network with what its user has. Nothing is computed twice in a process."""

    model: Path
    config: InputConfig
    scripts: tuple[Preprocessor, ...]
    pictures: tuple[Path, ...]

    @cached_property
    def graph(self) -> Graph:
        return convert("onnx", {"model_file": self.model}, self.config)[1]

    def samples(self, first: int, count: int) -> list[Sample]:
        return [(path,) for path in self.pictures[first : first + count]]

    def floats(self, sample: Sample) -> dict[str, Any]:
        return float_inputs(self.config, self.scripts, sample, {name: self.graph[name] for name in self.graph.inputs})

    def codes(self, sample: Sample) -> dict[str, Any]:
        return fixed_inputs(self.config, self.scripts, sample, {name: self.graph[name] for name in self.graph.inputs})

    def calibrated(self, level: str, count: int, **options: Any) -> Graph:
        chosen = CalibrationOptions(level, processes=1, **options)
        return calibrate(self.graph, self.config, self.scripts, self.samples(0, count), chosen).graph


@lru_cache(maxsize=1)
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="sgs_networks_")


@lru_cache
def case_of(name: str) -> Case:
    if name in NETWORKS:
        network, folder = NETWORKS[name], Path(_scratch().name)
        config, script = network.write_config(folder), network.write_script(folder)
        return Case(network.path(), read_input_config(config), (Preprocessor(script),), tuple(network.samples()))
    folder = ROOT / "SGS_Models/onnx" / name
    pictures = sorted((ROOT / "SGS_Models/resource" / PICTURES[name] / "calibration").glob("*.png"))
    scripts = (Preprocessor(folder / f"{name}.py"),)
    return Case(folder / f"{name}.onnx", read_input_config(folder / "input_config.ini"), scripts, tuple(pictures))


def run_source(case: Case, feeds: Arrays) -> dict[str, Any]:
    """onnxruntime on the source model, from and to our layouts."""
    layouts = SourceLayouts(onnx.load(case.model))
    turned = {
        name: value.transpose(0, 3, 1, 2) if value.ndim == 4 and layouts.of_input(name) == "NCHW" else value
        for name, value in feeds.items()
    }
    results = run_onnx(case.model, {name: np.ascontiguousarray(value) for name, value in turned.items()})
    return {
        name: value.transpose(0, 2, 3, 1) if value.ndim == 4 and layouts.of_output(name) == "NCHW" else value
        for name, value in results.items()
    }


def assert_within(found: Arrays, expected: Arrays) -> None:
    """Equal up to TOLERANCE of each output's range."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=TOLERANCE * float(np.ptp(value)), err_msg=name)


@pytest.mark.parametrize("name", EVERY)
def test_the_float_sim_computes_what_the_source_does(name: str, tmp_path: Path) -> None:
    case = case_of(name)
    write_sim(case.graph, tmp_path / "float.sim", stage="float")
    graph = read_sim(tmp_path / "float.sim").graph
    assert [node.op for node in graph.nodes].count("TRANSPOSE") == TRANSPOSES.get(name, 0)
    feeds = case.floats(case.samples(0, 1)[0])
    expected = run_source(case, feeds)
    assert_within(FloatEngine(graph).run(feeds), expected)
    assert_within(litert_results((tmp_path / "float.sim").read_bytes(), feeds), expected)


def source_case(network: SourceNetwork, folder: Path) -> Case:
    """The network of a framework with what its user has."""
    files, ini = network.files(folder), network.write_config(folder)
    target = folder / "net_float.sim"
    assert convert_tool.main(network.arguments(files, ini, target)) == 0
    pictures = tuple(path for side in network.split(folder) for path, _ in side)
    case = Case(target, read_input_config(ini), (Preprocessor(network.write_script(folder)),), pictures)
    case.__dict__["graph"] = read_sim(target).graph
    return case


@PUBLIC
@pytest.mark.parametrize("name", ["caffe_lenet", "resnet8"])
def test_fixed_networks_of_other_frameworks_are_near_float(name: str, tmp_path: Path) -> None:
    """At L2, cosine over 24 held-out samples together; and the same integers from the reference."""
    case = source_case(SOURCES[name], tmp_path)
    fixed = case.calibrated("L2", 16)
    assert cosine_over_pictures(case, fixed, case.samples(32, 24)) >= 0.99
    feeds = case.codes(case.samples(40, 1)[0])
    found, reference = FixedEngine(fixed).run(feeds), run_reference(fixed, feeds)
    assert all(np.array_equal(found[output], reference[output]) for output in fixed.outputs)


@pytest.mark.parametrize("name", FIXED)
def test_fixed_reference_and_offline_are_the_same_integers(name: str, tmp_path: Path) -> None:
    """At L5 with a strict threshold: 8 and 16 bits side by side, and corrected biases."""
    case = case_of(name)
    write_sim(case.calibrated("L5", 3, threshold=0.0), tmp_path / "fixed.sim", stage="fixed")
    graph = read_sim(tmp_path / "fixed.sim").graph
    assert {graph[node.inputs[0] or ""].dtype.bits for node in graph.nodes if node.op == "CONV_2D"} == {8, 16}
    write_image(compile_fixed(graph, load_chip("pcupid")), tmp_path / "offline.img")
    feeds = case.codes(case.samples(4, 1)[0])
    fixed, reference = FixedEngine(graph).run(feeds), run_reference(graph, feeds)
    offline = OfflineEngine(read_image(tmp_path / "offline.img")).run(feeds)
    for output in graph.outputs:
        assert np.ptp(fixed[output]) > 0, f"{output} is the same number everywhere"
        assert np.count_nonzero(fixed[output] != reference[output]) == 0, output
        assert np.count_nonzero(fixed[output] != offline[output]) == 0, output


@PUBLIC
@pytest.mark.parametrize("name", NETWORKS)
def test_weights_take_no_more_than_their_entropy(name: str) -> None:
    """Coded bytes, what describes the codes included, against the order-0 entropy of every constant's bytes."""
    image = compile_fixed(case_of(name).calibrated("L1", 2), load_chip("pcupid"))
    least = sum(entropy(image.weights[one.offset : one.offset + one.size]) for one in image.constants)
    assert len(image.constants) > 50
    assert sum(len(chunk.data) for chunk in image.chunks) <= 1.02 * least


def cosine(a: Any, b: Any) -> float:
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(x @ y / max(np.sqrt((x @ x) * (y @ y)), 1e-30))


def cosine_over_pictures(case: Case, fixed: Graph, samples: list[Sample]) -> float:
    """Fixed against float over all pictures together, mean of the outputs: where a network answers next to nothing on a
    picture, that picture's own cosine is chance."""
    engine, truth = FixedEngine(fixed), FloatEngine(case.graph)
    pairs = [(engine.run(case.codes(sample)), truth.run(case.floats(sample))) for sample in samples]
    stacks = [(np.stack([a[name] for a, _ in pairs]), np.stack([b[name] for _, b in pairs])) for name in fixed.outputs]
    return float(np.mean([cosine(codes, real) for codes, real in stacks]))


@pytest.mark.parametrize("name", ["onnx_mobilenet_v3_digits", "onnx_repvgg_digits"])
def test_networks_hard_to_quantise_are_right_in_float_and_poor_in_plain_8_bit(name: str) -> None:
    """What they are shipped for: min/max ranges with no sum of products at 16 bit leave less than 15 dB."""
    case = case_of(name)
    case = replace(case, config=replace(case.config, conv=ConvSpec(input_format="ALL_UINT8")))
    folder = ROOT / "SGS_Models/resource" / PICTURES[name] / "test"
    wanted = labels(folder / "labels.csv")
    samples = [(folder / file,) for file in wanted]
    engine = FloatEngine(case.graph)
    truth = np.concatenate([engine.run(case.floats(sample))["logits"] for sample in samples])
    right = truth.argmax(axis=1) == list(wanted.values())
    assert len(right) == 64
    assert 0.9 <= right.mean() < 1.0
    fixed = FixedEngine(case.calibrated("L1", 128))
    noise = truth - np.concatenate([fixed.run(case.codes(sample))["logits"] for sample in samples])
    assert 10 * np.log10((truth**2).sum() / (noise**2).sum()) < 15


@PUBLIC
@pytest.mark.parametrize("name", ["ultraface", pytest.param("selfie_segmentation", marks=LONG)])
def test_higher_levels_are_never_less_accurate(name: str) -> None:
    case = case_of(name)
    held_out = case.samples(24, 16)
    found = [cosine_over_pictures(case, case.calibrated(level, 24), held_out) for level in LEVELS]
    assert all(after >= before - SLACK for before, after in zip(found, found[1:], strict=False)), found


@PUBLIC
@pytest.mark.parametrize(
    "name", ["ultraface", pytest.param("fastestdet", marks=LONG), pytest.param("palm_detection", marks=LONG)]
)
def test_l5_outputs_point_where_the_float_outputs_do(name: str) -> None:
    """Cosine of every output over six held-out pictures together."""
    case = case_of(name)
    fixed, truth = FixedEngine(case.calibrated("L5", 16)), FloatEngine(case.graph)
    pairs = [(fixed.run(case.codes(s)), truth.run(case.floats(s))) for s in case.samples(16, 6)]
    for output in fixed.graph.outputs:
        assert cosine(np.stack([a[output] for a, _ in pairs]), np.stack([b[output] for _, b in pairs])) >= 0.99
