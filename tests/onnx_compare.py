"""Compare an imported graph with onnxruntime on its source, layouts respected."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto

from sgs.engine import FloatEngine
from sgs.frontends.onnx_layout import SourceLayouts
from sgs.ir import Graph
from sgs.numeric.types import DType


def save(model: ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    onnx.save_model(model, path)
    return path


def run_onnx(model: ModelProto | Path, feeds: dict[str, Any]) -> dict[str, Any]:
    """What onnxruntime, without any optimisation, makes of the model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def feeds_of(
    graph: Graph, model: ModelProto, low: float = -1.0, high: float = 1.0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(random arrays for the graph, the same ones in the source's layout and types)."""
    rng = np.random.default_rng(7)
    layouts = SourceLayouts(model)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    ours, theirs = {}, {}
    for name in graph.inputs:
        tensor = graph[name]
        value = rng.uniform(low, high, tensor.shape)
        value = value > (low + high) / 2 if tensor.dtype is DType.BOOL else value.astype(tensor.dtype.numpy)
        ours[name] = value
        turned = value.ndim == 4 and layouts.of_input(name) == "NCHW"
        source = np.ascontiguousarray(value.transpose(0, 3, 1, 2)) if turned else value
        theirs[name] = source.astype(onnx.helper.tensor_dtype_to_np_dtype(types[name]))
    return ours, theirs


def assert_same(
    graph: Graph,
    model: ModelProto,
    *,
    low: float = -1.0,
    high: float = 1.0,
    tolerance: float = 1e-4,
    source: Any = None,
) -> None:
    """The graph computes what onnxruntime computes from the source; outputs of rank 4 are NHWC.

    `tolerance` is relative to the output's largest magnitude, or to 0.01 if that is more.
    """
    ours, theirs = feeds_of(graph, model, low, high)
    expected = run_onnx(model if source is None else source, theirs)
    found = FloatEngine(graph).run(ours)
    layouts = SourceLayouts(model)
    for name in graph.outputs:
        value = expected[name]
        if value.ndim == 4 and layouts.of_output(name) == "NCHW":
            value = value.transpose(0, 2, 3, 1)
        assert found[name].shape == value.shape == graph[name].shape
        atol = tolerance * max(1e-2, float(np.abs(value.astype(np.float64)).max(initial=0)))
        np.testing.assert_allclose(found[name], value, rtol=0, atol=atol)
