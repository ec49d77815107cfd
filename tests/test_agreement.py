"""A float graph beside the framework that its source comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnx_compare import run_onnx
from sgs.errors import UserError
from sgs.evaluate.agreement import compare
from sgs.frontends.onnx_import import import_model
from sgs.frontends.onnx_model import Judge, SourceModel, normalised
from sgs.frontends.onnx_surgery import Endpoint, Surgery
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.passes.pipeline import optimise


def source_of(bound: float = 1e-3, offset: float = 0.0, last: float | None = None) -> SourceModel:
    """A picture and words; onnxruntime as the framework, which adds `offset`, and makes one value `last`."""
    rng = np.random.default_rng(1)
    table = rng.standard_normal((30, 5)).astype(np.float32)
    weights = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["conv"], pads=[1, 1, 1, 1]),
            helper.make_node("Gather", ["table", "tokens"], ["words"]),
        ],
        "two",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 8]),
            helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, 40]),
        ],
        [
            helper.make_tensor_value_info("conv", TensorProto.FLOAT, [1, 4, 6, 8]),
            helper.make_tensor_value_info("words", TensorProto.FLOAT, [1, 40, 5]),
        ],
        [helper.make_tensor(n, TensorProto.FLOAT, v.shape, v) for n, v in (("w", weights), ("table", table))],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    source = normalised(proto, Path("two.onnx"))

    def run(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        assert feeds["tokens"].min() >= 0 and feeds["tokens"].max() > 20, "indices of the whole table"
        found = run_onnx(proto, {"x": feeds["x"], "tokens": feeds["tokens"].astype(np.int64)})
        found["conv"] = found["conv"] + offset
        if last is not None:
            found["words"][..., -1, -1] = last
        return found

    return replace(source, judge=Judge("Other", run, bound))


def graph_of(source: SourceModel) -> Graph:
    graph = import_model(source, input_layouts={"x": "NCHW"})
    optimise(graph)
    return graph


def test_what_agrees_is_told() -> None:
    source = source_of()
    found = compare(graph_of(source), source, {"x": "NCHW"}, {})
    assert [agreement.output for agreement in found] == ["conv", "words"]
    assert found[0].difference < 1e-6 and found[1].difference == 0.0
    assert found[1].text == "verify: output 'words' is 0.0e+00 of its range from Other's"


def test_what_differs_is_refused() -> None:
    source = source_of(offset=1.0)
    message = r"^verify: two.onnx: output 'conv' is \d.\de-02 of its range from Other's, more than 1e-03 \("
    with pytest.raises(UserError, match=message):
        compare(graph_of(source), source, {"x": "NCHW"}, {})
    source = source_of(offset=1.0, bound=0.5)
    assert 0.01 < compare(graph_of(source), source, {"x": "NCHW"}, {})[0].difference < 0.2


@pytest.mark.parametrize("last", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_must_be_the_same(last: float) -> None:
    source = source_of(last=last)
    with pytest.raises(UserError, match="output 'words' is inf of its range"):
        compare(graph_of(source), source, {"x": "NCHW"}, {})


def test_a_part_has_no_judge() -> None:
    source = source_of()
    graph = import_model(source, surgery=Surgery(outputs=(Endpoint("words"),)))
    with pytest.raises(UserError, match="Other's run of the whole network, of which a part is meant"):
        compare(graph, source, {}, {})
