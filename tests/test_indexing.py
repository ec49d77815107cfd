"""Operators that gather, scatter, search and repeat: computed indices, constant ones as slices, and in integers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from fixed_examples import quantised
from onnx_compare import assert_same, save
from onnx_snippets import Net
from sgs.config.chips import load_chip
from sgs.errors import NeedsConstant, UserError
from sgs.frontends.onnx_import import import_onnx
from sgs.ir import Graph
from sgs.passes.pipeline import optimise
from test_compile import check_frames, through_file

RNG = np.random.default_rng(3)


def imported(model: ModelProto, folder: Path) -> Graph:
    return import_onnx(save(model, folder), skip_simplify=True)


def best(net: Net, x: str, axis: int, count: int) -> tuple[str, str]:
    """The largest values along an axis and where they are, different places for each of the rest."""
    values, where = net("TopK", x, np.array([count]), axis=axis, outputs=2)
    return values, where


# -- computed indices --------------------------------------------------------------------------------------------------
def gather_elements(net: Net, x: str) -> str:
    return str(net("GatherElements", x, best(net, x, 2, 4)[1], axis=2))


def gather_nd(net: Net, x: str) -> str:
    """Negative indices, counted from the end."""
    where = net("Unsqueeze", net("ArgMax", x, axis=3, keepdims=0), np.array([-1]))  # [1, 5, 7, 1]
    return str(net("GatherND", x, net("Sub", where, np.array(6)), batch_dims=3))


def gather(net: Net, x: str) -> str:
    table = RNG.normal(size=(7, 4)).astype(np.float32)
    return str(net("Gather", table, net("ArgMax", x, axis=2, keepdims=0)))


def scatter_elements(reduction: str) -> Callable[[Net, str], str]:
    def make(net: Net, x: str) -> str:
        values, where = best(net, x, 3, 3)
        return str(net("ScatterElements", x, where, net("Relu", values), axis=3, reduction=reduction))

    return make


def scatter_nd(net: Net, x: str) -> str:
    """Rows of channels, some of them twice."""
    where = net("ArgMax", net("Reshape", x, np.array([6, 35])), axis=1, keepdims=1)  # [6, 1] below 35
    rows = net("Reshape", x, np.array([35, 6]))
    return str(net("ScatterND", rows, where, net("Slice", rows, np.array([0]), np.array([6])), reduction="add"))


def one_hot(net: Net, x: str) -> str:
    where = net("Sub", net("ArgMax", x, axis=3, keepdims=0), np.array(2))
    return str(net("OneHot", where, np.array(3), np.array([0.5, -1.5], np.float32), axis=1))


def reverse_sequence(net: Net, x: str) -> str:
    rows = net("Reshape", x, np.array([6, 5, 7]))
    lengths = net("Reshape", net("ArgMax", net("Reshape", x, np.array([6, 35])), axis=1), np.array([-1]))
    return str(net("ReverseSequence", rows, net("Mod", lengths, np.array(6)), time_axis=1, batch_axis=0))


COMPUTED: dict[str, Callable[[Net, str], str]] = {
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Gather": gather,
    **{f"ScatterElements {kind}": scatter_elements(kind) for kind in ("none", "add", "mul", "max", "min")},
    "ScatterND": scatter_nd,
    "OneHot": one_hot,
    "ReverseSequence": reverse_sequence,
}


@pytest.mark.parametrize("make", COMPUTED.values(), ids=COMPUTED.keys())
def test_computed_indices(make: Callable[[Net, str], str], tmp_path: Path) -> None:
    """As onnxruntime has it, and the same integers from reference, engine and compiled network."""
    net = Net(opset=18)
    model = net.model(make(net, net.input("x", 1, 5, 7, 6)))
    graph = imported(model, tmp_path)
    optimise(graph)
    assert_same(graph, model)
    fixed = quantised(graph, 16)
    check_frames(fixed, through_file(fixed, load_chip("ibopper")), 1)


# -- constant places ---------------------------------------------------------------------------------------------------
def placed(op: str, indices: Any, updates: tuple[int, ...] = (), **attrs: Any) -> ModelProto:
    net = Net(opset=18)
    operands = [net.input("x", 2, 5, 7), np.array(indices)]
    if updates:
        operands.append(net.input("u", *updates))
    return net.model(net(op, *operands, **attrs))


BOX = np.stack(np.meshgrid([1], [1, 2, 3], [4, 5], indexing="ij"), -1)  # [1, 3, 2, 3]
PLACED: list[tuple[ModelProto, list[str]]] = [
    (placed("GatherND", BOX), ["STRIDED_SLICE"]),
    (placed("GatherND", [[1, 0], [1, 3], [0, 2]]), ["GATHER"]),
    (placed("GatherElements", np.full((2, 5, 1), 3), axis=2), ["STRIDED_SLICE"]),
    (placed("ScatterND", [[1]], (1, 5, 7)), ["STRIDED_SLICE", "CONCATENATION"]),
    (placed("ScatterND", [[0], [1]], (2, 5, 7)), []),
    (placed("ScatterND", [[1], [0]], (2, 5, 7)), ["CONCATENATION", "GATHER"]),
    (placed("ScatterND", [[1], [0]], (2, 5, 7), reduction="mul"), ["GATHER", "MUL", "CONCATENATION", "GATHER"]),
    (placed("ScatterND", [[1], [1]], (2, 5, 7), reduction="max"), ["SCATTER_ND_MAX"]),
]


@pytest.mark.parametrize(("model", "operators"), PLACED)
def test_constant_places(model: ModelProto, operators: list[str], tmp_path: Path) -> None:
    graph = imported(model, tmp_path)
    assert_same(graph, model)
    optimise(graph)
    assert_same(graph, model)
    assert [node.op for node in graph.nodes if node.op != "RESHAPE"] == operators


def test_a_box_is_written_by_slices(tmp_path: Path) -> None:
    model = placed("ScatterND", BOX, (1, 3, 2))
    graph = imported(model, tmp_path)
    assert_same(graph, model)
    assert {node.op for node in graph.nodes} == {"STRIDED_SLICE", "CONCATENATION"}


# -- refusals ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("op", ["NonZero", "Unique"])
def test_shapes_that_depend_on_values_are_refused(op: str, tmp_path: Path) -> None:
    net = Net()
    with pytest.raises(NeedsConstant, match="which gives the result its shape"):
        imported(net.model(net(op, net.input("x", 3, 5))), tmp_path)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (placed("GatherND", [[1, 5]]), "indices from 1 to 5 leave extents"),
        (placed("GatherElements", np.full((2, 5, 1), -8), axis=2), "indices from -8 to -8 leave extents 7"),
        (placed("ScatterND", [[1], [0]], (2, 5)), "cannot reshape|updates of shape"),
        (placed("Tile", [1, 0, 1]), "leave nothing"),
        (placed("Compress", [False] * 3), "chooses 0"),
    ],
)
def test_forms_without_meaning_are_refused(model: ModelProto, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        imported(model, tmp_path)
