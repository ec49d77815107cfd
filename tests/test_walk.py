"""Graphs run node by node: the same values as whole engines give, held as long as needed, in memory or in files."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from fixed_examples import quantised
from sgs.builder import GraphBuilder
from sgs.engine import FixedEngine, FloatEngine
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._window import window_node
from sgs.quant.boundary import codes_of_inputs
from sgs.quant.walk import Walk

SAMPLES = 5
BUDGETS = [0, 3000, 1 << 30]  # everything in files, some of it, nothing


def network() -> Graph:
    """conv a → SiLU s → depthwise d; a skips ahead to the sum e; split and concatenation; two outputs, one of them in
    the middle."""
    rng = np.random.default_rng(0)
    build = GraphBuilder()
    x = build.input("x", (1, 9, 7, 4))

    def constants(*shape: int) -> tuple[Array, Array]:
        channels = shape[3] if shape[0] == 1 else shape[0]
        return rng.normal(0, 0.4, shape).astype(np.float32), rng.normal(0, 0.2, channels).astype(np.float32)

    same = {"pads": (1, 1, 1, 1)}
    a = build("CONV_2D", x, *constants(6, 3, 3, 4), output="a", **window_node(**same, activation="RELU"))
    s = build("MUL", a, build("LOGISTIC", a, output="gate"), activation="NONE", output="s")
    d = build("DEPTHWISE_CONV_2D", s, *constants(1, 3, 3, 6), output="d", **window_node(**same))
    e = build("ADD", d, a, activation="NONE", output="e")
    left, right = build.node("SPLIT_V", [e], outputs=["left", "right"], axis=3, sizes=(2, 4))
    c = build("CONCATENATION", right, left, axis=3, activation="NONE", output="c")
    return build.output(build("CONV_2D", c, *constants(5, 1, 1, 6), output="y", **window_node()), d)


def float_feeds(graph: Graph) -> list[dict[str, Array]]:
    rng = np.random.default_rng(1)
    return [{n: rng.normal(0, 1, graph[n].shape).astype(np.float32) for n in graph.inputs} for _ in range(SAMPLES)]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def case(kind: str) -> tuple[Graph, list[dict[str, Array]], bool]:
    """(graph, feeds, whether it is a float one)."""
    graph = network()
    if kind == "float":
        return graph, float_feeds(graph), True
    fixed = quantised(graph, 8 if kind == "fixed" else 16)
    return fixed, [codes_of_inputs(fixed, feed) for feed in float_feeds(graph)], False


def engine_values(graph: Graph, feeds: Iterable[dict[str, Array]], real: bool) -> list[dict[str, Array]]:
    names = [t.name for t in graph.activations() if t.name not in graph.inputs]
    engine = (FloatEngine if real else FixedEngine)(graph, threads=1, extra=names)
    return [{**feed, **engine.run(feed)} for feed in feeds]


def activations(graph: Graph, node: Node) -> list[str]:
    return [name for name in node.inputs if name is not None and not graph[name].is_constant]


def walked(walk: Walk, nodes: Iterable[Node]) -> list[Array]:
    """The operands of every sample as the walk comes to each of the nodes."""
    found = []
    for node in nodes:
        reached = walk.until(node.outputs[0])
        assert reached.outputs == node.outputs
        found += [walk.value(name, k) for name in activations(walk.graph, reached) for k in range(walk.samples)]
    return found


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("kind", ["float", "fixed", "fixed16"])
def test_a_walk_sees_what_the_engine_computes(kind: str, budget: int, scratch: Path) -> None:
    graph, feeds, real = case(kind)
    truth = engine_values(graph, feeds, real)
    walk = Walk(graph, feeds, real=real, budget=budget)
    expected = [values[n] for node in graph.nodes for n in activations(graph, node) for values in truth]
    for found, wanted in zip(walked(walk, graph.nodes), expected, strict=True):
        assert found.dtype == wanted.dtype
        if real:
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
        else:
            assert np.array_equal(found, wanted)


@pytest.mark.parametrize("kind", ["float", "fixed"])
def test_values_in_files_are_the_values(kind: str, scratch: Path) -> None:
    graph, feeds, real = case(kind)
    some = [graph.nodes[i] for i in (2, 3, len(graph.nodes) - 1)]  # others are passed by
    lists = [walked(Walk(graph, feeds, real=real, budget=budget), some) for budget in BUDGETS]
    for values in zip(*lists, strict=True):
        assert all(np.array_equal(values[0], value) for value in values[1:])


def files(scratch: Path) -> int:
    return sum(path.is_file() for path in scratch.rglob("*"))


def test_values_go_with_their_last_reader(scratch: Path) -> None:
    graph, feeds, _ = case("float")
    walk = Walk(graph, feeds, real=True, budget=0)
    held = []
    for node in graph.nodes:
        walk.until(node.outputs[0])
        rest = [n for later in graph.nodes[graph.nodes.index(node) :] for n in activations(graph, later)]
        made = [*graph.inputs, *(n for e in graph.nodes[: graph.nodes.index(node)] for n in e.outputs)]
        alive = {name for name in made if name in rest}
        assert files(scratch) == len(alive) * SAMPLES
        for name in set(made) - alive:
            with pytest.raises(KeyError):
                walk.value(name, 0)
        held.append(alive)
    assert {"x"} in held and {"a", "gate"} in held and {"a", "s"} in held and {"left", "right"} in held  # d is no more


def test_memory_holds_no_more_than_the_budget(scratch: Path) -> None:
    graph, feeds, _ = case("float")
    one = graph["a"].nbytes
    walk = Walk(graph, feeds, real=True, budget=2 * one + 4)
    walk.until("gate")  # a is there, x is not
    assert files(scratch) == SAMPLES - 2
    walk.until("d")  # a and s are: room is found again as values go
    assert files(scratch) == 2 * SAMPLES - 2
    roomy = Walk(graph, feeds, real=True, budget=2 * SAMPLES * one)
    roomy.until("d")
    assert files(scratch) == 2 * SAMPLES - 2


@pytest.mark.parametrize("kind", ["float", "fixed"])
@pytest.mark.parametrize("budget", [0, 1 << 30])
def test_constants_may_change_ahead_of_the_walk(kind: str, budget: int, scratch: Path) -> None:
    graph, feeds, real = case(kind)
    graph = graph.copy()
    walk = Walk(graph, feeds, real=real, budget=budget)
    before = engine_values(graph, feeds, real)
    depthwise = walk.until("d")
    weight = graph[depthwise.inputs[1] or ""]
    assert weight.data is not None
    weight.data = np.ascontiguousarray(weight.data[:, ::-1])
    after = engine_values(graph, feeds, real)
    node = walk.until("e")
    for k in range(SAMPLES):
        for name in activations(graph, node):
            np.testing.assert_allclose(walk.value(name, k), after[k][name], rtol=1e-5, atol=1e-5)
        assert np.abs(after[k]["d"].astype(float) - before[k]["d"]).max() > 0.1
    walk.until("y")
    first = graph[graph.nodes[0].inputs[1] or ""]
    assert first.data is not None
    first.data = np.zeros_like(first.data)  # behind it
    operand = activations(graph, graph.nodes[-1])[0]
    np.testing.assert_allclose(walk.value(operand, 0), after[0][operand], rtol=1e-5, atol=1e-5)


def test_temporary_files_go_with_the_walk(scratch: Path) -> None:
    graph, feeds, _ = case("float")
    walk = Walk(graph, feeds, real=True, budget=0)
    walk.until("e")
    assert files(scratch) > 0
    del walk
    gc.collect()
    assert list(scratch.iterdir()) == []


def test_feeds_need_not_be_contiguous_and_integers_may_be_among_them(scratch: Path) -> None:
    build = GraphBuilder()
    table, words = (
        np.random.default_rng(0).normal(0, 1, (9, 5)).astype(np.float32),
        build.input("w", (2, 3), DType.INT32),
    )
    rows = build("GATHER", table, words, axis=0, output="rows")
    weight = np.random.default_rng(1).normal(0, 1, (4, 5)).astype(np.float32)
    graph = build.output(
        build("FULLY_CONNECTED", rows, weight, None, activation="NONE", keep_num_dims=True, output="y")
    )
    feed = np.arange(12, dtype=np.int32).reshape(3, 4)[:, ::2].T % 9
    for budget in BUDGETS:
        walk = Walk(graph, [{"w": feed}], real=True, budget=budget)
        walk.until("y")
        assert np.array_equal(walk.value("rows", 0), table[feed])
