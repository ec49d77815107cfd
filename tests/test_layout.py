"""Transposes disappear from convolutional networks, whatever style they are written in, and no number changes."""

from pathlib import Path

import pytest

from onnx_compare import assert_same, save
from onnx_snippets import SNIPPETS
from sgs.frontends.onnx_import import import_onnx
from sgs.ir import Graph
from sgs.passes.layout import move_transposes
from sgs.passes.pipeline import optimise

# Operators that the optimised network must and must not hold: the point of the pattern.
EXPECTED = {
    "channel_shuffle": ({"GATHER": 2}, {"SPLIT"}),
    "channel_shuffle_behind_conv": ({}, {"GATHER", "RESHAPE"}),
    "channel_shuffle_by_gather": ({"GATHER": 2}, {"RESHAPE"}),
    "pixel_shuffle": ({"DEPTH_TO_SPACE": 1}, {"RESHAPE", "GATHER"}),
    "pixel_shuffle_gray": ({"DEPTH_TO_SPACE": 1}, {"RESHAPE", "GATHER"}),
    "pixel_unshuffle": ({"SPACE_TO_DEPTH": 1}, {"RESHAPE", "GATHER"}),
    "focus": ({"SPACE_TO_DEPTH": 1}, {"STRIDED_SLICE", "CONCATENATION", "GATHER"}),
    "batch_norm_unfolded": ({"CONV_2D": 1}, {"MUL", "ADD", "RELU"}),
    "padded": ({"CONV_2D": 1, "MAX_POOL_2D": 1}, {"PAD", "PADV2"}),
    "residual": ({"ADD": 1}, {"RELU", "RESHAPE"}),
    "conv_chain": ({"CONV_2D": 2, "DEPTHWISE_CONV_2D": 1}, {"RELU", "RELU6", "RESHAPE"}),
    "squeeze_excite_by_conv": ({}, {"RESHAPE"}),
}


def histogram(graph: Graph) -> dict[str, int]:
    ops = [node.op for node in graph.nodes]
    return {op: ops.count(op) for op in sorted(set(ops))}


@pytest.mark.parametrize("name", SNIPPETS)
def test_no_transpose_survives(name: str, tmp_path: Path) -> None:
    model = SNIPPETS[name]()
    graph = import_onnx(save(model, tmp_path))
    assert_same(graph, model)
    optimise(graph)
    found = histogram(graph)
    assert "TRANSPOSE" not in found, found
    wanted, unwanted = EXPECTED.get(name, ({}, set()))
    assert {op: found.get(op) for op in wanted} == wanted
    assert not unwanted & set(found), found
    assert_same(graph, model)


@pytest.mark.parametrize("name", SNIPPETS)
def test_optimising_twice_changes_nothing(name: str, tmp_path: Path) -> None:
    graph = import_onnx(save(SNIPPETS[name](), tmp_path))
    optimise(graph)
    assert sum(optimise(graph).values()) == 0


@pytest.mark.parametrize("name", SNIPPETS)
def test_moving_transposes_alone_keeps_every_number(name: str, tmp_path: Path) -> None:
    model = SNIPPETS[name]()
    graph = import_onnx(save(model, tmp_path))
    names = list(graph.inputs), list(graph.outputs)
    move_transposes(graph)
    assert (graph.inputs, graph.outputs) == names
    assert_same(graph, model)
