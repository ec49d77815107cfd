"""Every Caffe layer: its translation in onnxruntime and the float graph in the engine compute what Caffe's documentation
says, as `caffe_reference` has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe_cases import CASES, Case, weight_file
from caffe_reference import run
from onnx_compare import run_onnx
from sgs.engine import FloatEngine
from sgs.frontends.onnx_import import import_model
from sgs.frontends.onnx_model import SourceModel
from sgs.frontends.platforms import Asked, platform_named
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.passes.pipeline import optimise


def load(case: Case, folder: Path) -> SourceModel:
    """The case as files, translated."""
    model, weights = folder / "net.prototxt", folder / "net.caffemodel"
    model.write_text(case.text)
    weights.write_bytes(weight_file(case.text, case.weights))
    platform = platform_named("caffe", stage="test")
    asked = Asked(tuple(case.inputs), shapes=tuple(case.inputs.values()))  # the batch as it is
    source = platform.load(platform.complete({"model_file": model, "weight_file": weights}), asked)
    assert isinstance(source, SourceModel)
    return source


def imported(source: SourceModel) -> Graph:
    graph = import_model(source)
    optimise(graph)
    return graph


def turned(value: Array, *order: int) -> Array:
    return np.ascontiguousarray(value.transpose(order)) if value.ndim == 4 else value


def run_graph(graph: Graph, feeds: dict[str, Array]) -> dict[str, Array]:
    """Feeds and results in Caffe's layout."""
    results = FloatEngine(graph, threads=1).run({name: turned(feeds[name], 0, 2, 3, 1) for name in graph.inputs})
    return {name: turned(value, 0, 3, 1, 2) for name, value in results.items()}


def assert_near(found: Array, wanted: Array, tolerance: float = 2e-5) -> None:
    """`tolerance`: share of the largest magnitude, or of 0.01 if that is more."""
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(0.01, np.abs(wanted).max(initial=0)))


@pytest.mark.parametrize(("kind", "index"), [(kind, i) for kind, rows in CASES.items() for i in range(len(rows))])
def test_layer(kind: str, index: int, tmp_path: Path) -> None:
    case = CASES[kind][index]
    source, feeds = load(case, tmp_path), case.feeds()
    wanted = run(case.text, feeds, case.weights)
    asked = [port.name for port in source.outputs]
    assert asked == sorted(name for name in wanted if name.startswith("y"))
    theirs = run_onnx(source.proto, {port.name: feeds[port.name] for port in source.inputs})
    graph = imported(source)
    ours = run_graph(graph, feeds)
    for name in asked:
        assert_near(theirs[name], wanted[name])
        assert_near(ours[name], wanted[name])
    if case.transposes is not None:
        assert sum(node.op == "TRANSPOSE" for node in graph.nodes) == case.transposes
