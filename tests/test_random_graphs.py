"""A sample of random graphs, and proof that wrong images would be found. `make fuzz` checks many more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

import random_graphs
from random_graphs import (
    EXACT,
    OPERATORS,
    PROFILES,
    REFUSED,
    check,
    chip,
    complaints,
    judge,
    minimised,
    random_graph,
    sizes_of,
    verdicts,
)
from sgs.compile import compile_graph
from sgs.engine import run_reference
from sgs.errors import UserError
from sgs.img import Compute, Dma, Image, Space, image_bytes
from sgs.ir import Graph
from sgs.numeric.types import DType
from sgs.registry import QUANTISE
from test_compile import chain, through_file

CHUNK = 10  # graphs of one test
SUMS = [op for op in QUANTISE if QUANTISE[op].kind == "mac"]


@pytest.mark.parametrize("first", range(0, 6 * CHUNK, CHUNK))
def test_random_graphs(first: int) -> None:
    """Exact, or refused for what is needed; at least half are compiled, all of them for the whole chip."""
    counts = Counter[str]()
    for seed in range(first, first + CHUNK):
        graph = random_graph(seed)
        found = verdicts(graph, sizes_of(graph)[::2])
        assert complaints(found) == [], f"seed {seed}"
        assert found[chip().sram_bytes] == EXACT, f"seed {seed}"
        counts.update(verdict.split(":")[0] for verdict in found.values())
    assert 2 * counts[EXACT] >= counts.total() >= 3 * CHUNK, counts


def test_a_graph_is_made_by_its_seed() -> None:
    images = []
    for _ in range(2):
        images.append([image_bytes(compile_graph(random_graph(seed), chip())) for seed in range(10)])
    assert images[0] == images[1]
    assert len(set(images[0])) == 10


def test_the_sample_has_every_operator() -> None:
    graphs = [random_graph(seed) for seed in range(6 * CHUNK)]
    assert len({node.op for graph in graphs for node in graph.nodes}) > len(OPERATORS)
    assert all(len(row) == len(PROFILES) for row in OPERATORS.values())


def test_the_sample_has_sums_of_every_width() -> None:
    """INT4, INT8 and INT16 weights in one graph; 4-bit ones in every kind of sum, with operands of either type."""
    found = []
    for graph in map(random_graph, range(6 * CHUNK)):
        sums = [(node.op, graph.operands(node)) for node in graph.nodes if node.op in SUMS]
        found.append({(op, x.dtype, weight.dtype) for op, (x, weight, *_) in sums if x and weight})
    assert any({DType.INT4, DType.INT8, DType.INT16} <= {weight for _, _, weight in sums} for sums in found)
    packed = {(op, x) for sums in found for op, x, weight in sums if weight is DType.INT4}
    assert packed == {(op, x) for op in SUMS for x in random_graphs.ACTIVATIONS}


# -- what it would find ------------------------------------------------------------------------------------------------
def shifted(image: Image, number: int) -> Image:
    """An image in which the result of one computation is 16 bytes off."""
    program = image.programs[0]
    commands = list(program.commands)
    command = commands[number]
    assert isinstance(command, Compute)
    commands[number] = replace(command, outputs=tuple(offset ^ 16 for offset in command.outputs))
    return replace(image, programs=(replace(program, commands=tuple(commands)),))


@pytest.mark.parametrize("machine", random_graphs.MACHINES)
def test_a_result_in_another_place_is_found(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = chain()
    image = through_file(graph, chip())
    monkeypatch.setattr(random_graphs, "MACHINES", {machine: random_graphs.MACHINES[machine]})
    assert judge(graph, image) == EXACT
    places = [number for number, command in enumerate(image.programs[0].commands) if isinstance(command, Compute)]
    for number in places:
        assert judge(graph, shifted(image, number)).startswith("wrong: output 'dequantize'")
    assert len(places) == len(graph.nodes)


def test_bytes_outside_a_memory_are_found() -> None:
    graph = chain()
    image = through_file(graph, chip())
    program = image.programs[0]
    commands = [
        replace(command, source=replace(command.source, offset=command.source.offset + 4096))
        if isinstance(command, Dma) and command.source.space is Space.INPUT
        else command
        for command in program.commands
    ]
    broken = replace(image, programs=(replace(program, commands=tuple(commands)),))
    assert judge(graph, broken).startswith("crash of the byte machine: IndexError")


def failing(error: Exception) -> Callable[..., Image]:
    def compiler(*_: object, **__: object) -> Image:
        raise error

    return compiler


def test_how_the_compiler_stops_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = random_graph(0)
    assert check(graph, 64).startswith(REFUSED)
    for error, verdict in (
        (UserError("no layout of the buffers fits"), "error: no layout"),
        (KeyError("x"), "crash of the compiler: KeyError: 'x' (test_random_graphs.py:"),
    ):
        monkeypatch.setattr(random_graphs, "through_file", failing(error))
        assert check(graph, 64).startswith(verdict)


def test_refusals_have_to_have_a_reason() -> None:
    def refused(needed: str, there: str) -> str:
        return f"{REFUSED}: its smallest piece needs {needed} bytes of SRAM, there are {there}"

    assert complaints({600: refused("1,200", "600"), 1500: EXACT, 9280: EXACT}) == []
    assert "no reason" in complaints({600: refused("600", "600"), 1500: EXACT})[0]
    assert "no reason" in complaints({1500: refused("1,600", "1,200"), 9280: EXACT})[0]
    (complaint,) = complaints({600: EXACT, 1500: refused("1,600", "1,500"), 9280: EXACT})
    assert complaint.startswith("refused for more: 600 bytes are enough, for 1,500")
    assert complaints({600: "wrong: output 'y'"}) == ["wrong: output 'y', for 600 bytes"]


def test_a_graph_is_minimised() -> None:
    """To the one operator that is looked for, of one that has many."""
    graph = next(graph for graph in map(random_graph, range(0, 400, 4)) if len(graph.nodes) > 12)
    wanted = graph.nodes[6].op
    small = minimised(graph, lambda smaller: any(node.op == wanted for node in smaller.nodes))
    assert [node.op for node in small.nodes].count(wanted) == 1 and len(small.nodes) <= 2 < len(graph.nodes)
    assert len(small.outputs) == 1
    run_reference(small, random_graphs.code_feeds(small, 0))


def test_findings_are_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def half_broken(graph: Graph, size: int, *, alignment: int = 16) -> str:
        return "wrong: output" if any(node.op == "CONV_2D" for node in graph.nodes) else EXACT

    monkeypatch.setattr(random_graphs, "check", half_broken)
    monkeypatch.setattr("sys.argv", ["random_graphs.py", "0", "2", "--profile", "cnn"])
    assert random_graphs.main() == 1
    told = capsys.readouterr().out
    assert "seed 0, alignment 8:\n  wrong: output, for " in told
    assert "= CONV_2D(" in told and "2 graphs, 2 with findings" in told
