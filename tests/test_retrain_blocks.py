"""Blocks of a float graph, which one after another are the graph, and the values between them."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path

import numpy as np
import pytest

from fixed_examples import float_feeds
from sgs.builder import GraphBuilder
from sgs.engine import FloatEngine
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import Array
from sgs.ops._window import window_node
from sgs.quant.edit import mac_nodes
from sgs.quant.prepare import prepare

torch = pytest.importorskip("torch", reason="torch is not installed")
from sgs.retrain.blocks import LEAST, MOST, Block, blocks_of  # noqa: E402
from sgs.retrain.program import Program  # noqa: E402
from sgs.retrain.values import Values  # noqa: E402

CPU = torch.device("cpu")
SAMPLES = 2


class Grown:
    """A float graph that grows by convolutions and what is between them, all of one shape but for the channels."""

    def __init__(self, seed: int) -> None:
        self.rng, self.build = np.random.default_rng(seed), GraphBuilder()
        self.tensors = [self.build.input("x", (1, 5, 4, 3))]

    def conv(self, x: Tensor, channels: int, activation: str = "NONE") -> Tensor:
        weight = self.rng.normal(0, 0.6 / np.sqrt(x.shape[3]), (channels, 3, 3, x.shape[3])).astype(np.float32)
        return self.build("CONV_2D", x, weight, **window_node(pads=(1, 1, 1, 1), activation=activation))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return self.build("ADD", x, y, activation="NONE")

    def residual(self, x: Tensor) -> Tensor:
        return self.add(self.conv(self.conv(x, 5, "RELU"), x.shape[3]), x)

    def step(self) -> None:
        """Something new of what there is, of the late ones more often."""
        places = np.arange(1, len(self.tensors) + 1) ** 2.0
        x, y = (self.tensors[self.rng.choice(len(self.tensors), p=places / places.sum())] for _ in range(2))
        match self.rng.integers(5):
            case 0 | 1:
                self.tensors.append(self.conv(x, int(self.rng.integers(2, 5))))
            case 2:
                self.tensors.append(self.build("MUL", x, self.build("LOGISTIC", x), activation="NONE"))
            case 3 if x.shape[3] + y.shape[3] < 9:
                self.tensors.append(self.build("CONCATENATION", x, y, axis=3, activation="NONE"))
            case 4 if x.shape == y.shape:
                self.tensors.append(self.add(x, y))
            case _ if x.shape[3] > 1:
                self.tensors += self.build.node("SPLIT_V", [x], axis=3, sizes=(1, x.shape[3] - 1))


def random_graph(seed: int) -> Graph:
    grown = Grown(seed)
    for _ in range(int(grown.rng.integers(10, 90))):
        grown.step()
    graph = grown.build.graph
    readers = graph.readers()
    made = [name for node in graph.nodes for name in node.outputs]
    graph.outputs = [name for name in made if not readers[name] or grown.rng.random() < 0.05]
    return graph


def macs_of(graph: Graph) -> list[str]:
    return [node.outputs[0] for node in mac_nodes(prepare(graph))]


def sizes(blocks: list[Block]) -> list[int]:
    return [len(block.macs) for block in blocks]


@pytest.mark.parametrize("seed", range(12))
def test_blocks_one_after_another_are_the_network(seed: int) -> None:
    graph = random_graph(seed)
    macs, engine = macs_of(graph), FloatEngine(graph, threads=1)
    blocks = blocks_of(graph, macs)
    assert [node for block in blocks for node in block.nodes] == graph.nodes
    assert [name for block in blocks for name in block.macs] == macs
    assert max(sizes(blocks)) <= MOST and all(size >= LEAST for size in sizes(blocks)[:-1])
    feeds = [float_feeds(graph, k) for k in range(SAMPLES)]
    known = {name: torch.from_numpy(np.stack([feed[name] for feed in feeds])) for name in graph.inputs}
    for block in blocks:
        program = Program(graph, block.nodes, block.results, CPU)
        assert program.operands == list(block.operands) and known.keys() >= set(block.operands)
        known.update(zip(block.results, program(known), strict=True))
    for name in graph.outputs:
        truth = np.stack([engine.run(feed)[name] for feed in feeds])
        np.testing.assert_allclose(known[name].numpy(), truth, rtol=1e-4, atol=1e-5 * np.abs(truth).max())


def test_random_graphs_have_many_blocks_and_many_values_between_them() -> None:
    """Which the test above is worth something by."""
    found = [blocks_of(graph, macs_of(graph)) for graph in map(random_graph, range(12))]
    assert max(map(len, found)) >= 4
    assert max(len(block.results) for blocks in found for block in blocks) >= 3


def test_blocks_are_as_small_as_residual_connections_allow() -> None:
    grown = Grown(0)
    x = grown.conv(grown.tensors[0], 4, "RELU")
    for _ in range(3):
        x = grown.build("RELU", grown.residual(x))
    graph = grown.build.output(grown.conv(grown.conv(x, 3), 2))
    blocks = blocks_of(graph, macs_of(graph))
    assert sizes(blocks) == [3, 2, 2, 2]
    assert [block.nodes[-1].op for block in blocks] == ["RELU", "RELU", "RELU", "CONV_2D"]
    assert all(len(block.results) == 1 for block in blocks)


def test_what_follows_a_sum_of_products_is_in_its_block() -> None:
    grown = Grown(1)
    x = grown.tensors[0]
    for _ in range(4):
        x = grown.build("TANH", grown.build("ABS", grown.conv(x, 3)))
    graph = grown.build.output(x)
    assert [[node.op for node in block.nodes] for block in blocks_of(graph, macs_of(graph))] == [
        ["CONV_2D", "ABS", "TANH"] * 2
    ] * 2


def test_long_connections_are_cut_where_the_fewest_values_are_alive() -> None:
    """A connection over all, with residual ones below it."""
    grown = Grown(2)
    first = x = grown.conv(grown.tensors[0], 4)
    for _ in range(9):
        x = grown.residual(x)
    graph = grown.build.output(grown.add(x, first))
    blocks = blocks_of(graph, macs_of(graph))
    assert sizes(blocks) == [7, 8, 4]
    assert all(block.nodes[-1].op == "ADD" for block in blocks)
    assert [len(block.operands) for block in blocks] == [1, 1, 2]
    assert [len(block.results) for block in blocks] == [2, 1, 1]


def test_a_network_without_sums_of_products_is_one_block() -> None:
    build = GraphBuilder()
    x = build.input("x", (1, 3, 4))
    graph = build.output(build("ABS", x), build("TANH", x))
    (block,) = blocks_of(graph, [])
    assert block.operands == ("x",) and list(block.results) == graph.outputs and block.macs == ()


# -- values ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def files(scratch: Path) -> list[int]:
    """Their sizes."""
    return sorted(path.stat().st_size for path in scratch.rglob("*") if path.is_file())


ARRAYS: dict[str, Array] = {
    "a": np.random.default_rng(0).normal(size=(5, 3, 7)).astype(np.float32),  # 420 bytes
    "b": np.arange(10, dtype=np.int64).reshape(5, 2),  # 80
    "c": np.array([True, False, True, True, False]),  # 5
    "d": np.zeros((5, 0, 2), np.float32),
}
IN_FILES = {0: [5, 80, 420], 100: [420], 425: [80], 1 << 20: []}  # by bytes of memory


def filled(memory: int) -> Values:
    """In two parts, the latter of them first."""
    values = Values(memory)
    for key, array in ARRAYS.items():
        for rows in (slice(2, 5), slice(0, 2)):
            values.put(key, rows.start, torch.from_numpy(array[rows]), len(array))
    return values


@pytest.mark.parametrize("memory", IN_FILES)
def test_rows_are_those_that_were_put(memory: int, scratch: Path) -> None:
    values = filled(memory)
    assert files(scratch) == IN_FILES[memory]
    for key, array in ARRAYS.items():
        assert key in values
        for index in ([4, 0, 3, 0], [2], slice(1, 4), slice(None)):
            found = values.rows(key, index, CPU).numpy()
            assert found.dtype == array.dtype and np.array_equal(found, array[index])


@pytest.mark.parametrize("memory", IN_FILES)
def test_memory_and_files_are_free_again(memory: int, scratch: Path) -> None:
    values = filled(memory)
    for _ in range(3):
        for key in ARRAYS:
            values.drop(key)
            assert key not in values
        assert files(scratch) == []
        for key, array in ARRAYS.items():
            values.put(key, 0, torch.from_numpy(array), len(array))
        assert files(scratch) == IN_FILES[memory]


def test_files_go_with_the_values(scratch: Path) -> None:
    values = filled(0)
    (folder,) = scratch.iterdir()
    del values
    gc.collect()
    assert not folder.exists()
