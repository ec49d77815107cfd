"""Shipped networks of other platforms than ONNX: converted by the command line, beside the framework that each comes
from, and what each scores on pictures that neither training nor calibration saw."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from conventions import ROOT
from sgs.cli import sgs_converter
from sgs.sim import read_sim
from shipped import EXAMPLES, Example

RESOURCE = ROOT / "SGS_Models/resource"
TOLERANCE = 1e-3  # of the output's range
KINDS = ("Float", "Fixed", "Offline")
NEEDED = {  # platform → packages of its frontend that are not ours
    "caffe": (),
    "tflite": (),
    "tensorflow_graphdef": ("tensorflow", "tf2onnx"),
    "tensorflow_savemodel": ("tensorflow", "tf2onnx"),
    "keras": ("tensorflow", "tf2onnx"),
    "pytorch": ("torch", "onnxscript"),
}


def _row(example: Example) -> Any:
    missing = [package for package in NEEDED[example.platform] if find_spec(package) is None]
    skip = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
    return pytest.param(example, id=example.platform, marks=skip)


EVERY = pytest.mark.parametrize("example", [_row(example) for example in EXAMPLES])


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    """What the scripts of the examples import: each other."""
    before = list(sys.path)
    sys.path.insert(0, str(RESOURCE))
    yield
    sys.path[:] = before


@lru_cache
def script(example: Example, name: str) -> ModuleType:
    """A Python file of the example's folder."""
    path = example.folder / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{example.name}_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(example.folder))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(example.folder))
    return module


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Example], dict[str, Path]]:
    """The float, fixed and offline model of an example, made by SGS_converter in one go."""

    @lru_cache
    def convert(example: Example) -> dict[str, Path]:
        target = tmp_path_factory.mktemp(example.platform) / f"{example.name}.img"
        pictures = ["-i", str(RESOURCE / example.pictures / "calibration")]
        options = ["-n", str(example.folder / f"{example.name}.py"), "--quant_level", "L2", "--num_process", "1"]
        arguments = [*example.source, *pictures, *options, "--output_file", str(target), "--export_models"]
        assert sgs_converter.main(arguments) == 0
        sims = (target.with_name(f"{example.name}_{kind}.sim") for kind in ("float", "fixed"))
        return dict(zip(KINDS, (*sims, target), strict=True))

    return convert


def source_of(example: Example) -> Callable[[Any], Any]:
    """The source network, run by what judges it."""
    runners = importlib.import_module("runners")
    file = example.folder / example.files[0][1]
    if example.platform == "caffe":
        return translated(example)
    if example.platform == "tflite":
        pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
        return runners.with_litert(file)
    if example.platform == "pytorch":
        return runners.with_torch(file)
    return runners.with_tensorflow(example.folder / f"{example.name}.pb", "images", "enlarged")


def translated(example: Example) -> Callable[[Any], Any]:
    """onnxruntime on what becomes of Caffe's files."""
    from onnx_compare import run_onnx
    from sgs.frontends.caffe.platform import load_caffe

    model, weights = (example.folder / file for _, file in example.files)
    proto = load_caffe(model, weights).proto
    (port,) = proto.graph.input
    return lambda image: next(iter(run_onnx(proto, {port.name: image.transpose(0, 3, 1, 2).copy()}).values()))


@EVERY
def test_the_float_sim_computes_what_the_source_does(
    example: Example, converted: Callable[[Example], dict[str, Path]]
) -> None:
    runners = importlib.import_module("runners")
    file = converted(example)["Float"]
    assert [node.op for node in read_sim(file).graph.nodes if node.op in ("TRANSPOSE", "CAST")] == []
    source, ours = source_of(example), runners.with_simulator(file, "Float")
    pictures = sorted((RESOURCE / example.pictures / "test").glob("*.png"))[:4]
    assert len(pictures) == 4
    for picture in pictures:
        image = script(example, example.name).image_preprocess(picture)
        expected = source(image)
        np.testing.assert_allclose(ours(image), expected, rtol=0, atol=TOLERANCE * float(np.ptp(expected)))


@EVERY
def test_scores_on_held_out_pictures(example: Example, converted: Callable[[Example], dict[str, Path]]) -> None:
    """Fixed and offline models give the same; the fixed one at L2 loses little."""
    runners, score = importlib.import_module("runners"), script(example, "evaluate").score
    found = [score(runners.with_simulator(converted(example)[kind], kind), kind == "Float") for kind in KINDS]
    assert found[1] == found[2]
    assert min(found) >= example.least
    assert found[0] - found[1] <= 0.03 * found[0], found
