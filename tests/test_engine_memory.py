"""Buffers of the fixed engine: those that are not needed at the same time share memory, and lanes keep to a budget."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions import ROOT
from sgs.builder import GraphBuilder
from sgs.engine import FixedEngine, run_reference
from sgs.engine.fixed import Key, share_slots
from sgs.engine.lowering import session_options, sparing
from sgs.ir import Graph
from sgs.numeric.quantise import QuantParams, activation_params
from sgs.numeric.table import build_table
from sgs.numeric.types import DType
from sgs.ops._window import window_node


def key(number: int) -> Key:
    return str(number), "native"


@given(st.lists(st.lists(st.integers(0, 12), max_size=5), max_size=15), st.lists(st.integers(1, 99), min_size=13))
def test_what_is_needed_at_the_same_time_lies_apart(touched: list[list[int]], extents: list[int]) -> None:
    steps, sizes = [[key(n) for n in numbers] for numbers in touched], {key(n): extents[n] for n in range(13)}
    places, slots = share_slots(steps, sizes)
    spans = {}
    for index, keys in enumerate(steps):
        for name in keys:
            spans.setdefault(name, [index, index])[1] = index
    assert places.keys() == spans.keys()
    assert all(slots[places[name]] >= sizes[name] for name in places)
    for index in range(len(steps)):
        alive = [places[name] for name, (first, last) in spans.items() if first <= index <= last]
        assert len(alive) == len(set(alive))
    most = max((sum(s <= i <= e for s, e in spans.values()) for i in range(len(steps))), default=0)
    assert len(slots) == most


def chain(length: int, shape: tuple[int, ...] = (1, 90, 70, 3)) -> Graph:
    """Tables one after the other, large enough to be host kernels with buffers between them."""
    params = activation_params(-3, 3, DType.INT16)
    build = GraphBuilder()
    value = build.input("x", shape, DType.INT16)
    value.quant = params
    for index in range(length):
        table = build_table(lambda x, k=index: np.sin(x + k), params, DType.INT16, params, DType.INT16)
        value = build("TABLE", value, table, output=f"t{index}", function="sin")
        value.dtype, value.quant = DType.INT16, params
    return build.output(value)


def test_a_chain_needs_two_buffers() -> None:
    graph = chain(9)
    engine = FixedEngine(graph, threads=1)
    assert sum(engine._slots) == 2 * graph["x"].nbytes
    codes = np.random.default_rng(0).integers(-30000, 30000, graph["x"].shape).astype(np.int16)
    for feed in (codes, codes[:, ::-1].copy()):  # what the first leaves behind is written over
        truth = run_reference(graph, {"x": feed})
        assert np.array_equal(engine.run({"x": feed})[graph.outputs[0]], truth[graph.outputs[0]])


def test_inner_results_that_are_asked_for_last() -> None:
    graph = chain(6)
    codes = np.random.default_rng(1).integers(-30000, 30000, graph["x"].shape).astype(np.int16)
    truth = run_reference(graph, {"x": codes})
    values = FixedEngine(graph, threads=1, extra=["t1", "t3", "x"]).run({"x": codes})
    assert all(np.array_equal(values[name], truth[name]) for name in ("t1", "t3", "t5", "x"))


def test_lanes_keep_to_their_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = chain(3)
    monkeypatch.setattr("sgs.engine.fixed.LANE_BYTES", graph["x"].nbytes * 7)
    engine = FixedEngine(graph, threads=5)
    codes = [np.full(graph["x"].shape, n, np.int16) for n in range(6)]
    found = list(engine.map({"x": feed} for feed in codes))
    assert engine.lanes() == 3 >= len(engine._free)  # of two buffers each
    assert [int(values["t2"].flat[0]) for values in found] == [
        int(run_reference(graph, {"x": feed})["t2"].flat[0]) for feed in codes
    ]


def convolutions() -> Graph:
    """conv (a session) → large TABLE (between sessions, also centred) → conv, and a constant result."""
    rng = np.random.default_rng(2)
    u8, s16 = activation_params(-3, 4, DType.UINT8), activation_params(-20, 20, DType.INT16)
    build = GraphBuilder()
    value = build.input("x", (1, 41, 37, 5), DType.UINT8)
    value.quant = u8
    for index in range(3):
        weight, bias = f"w{index}", f"b{index}"
        scale = QuantParams(np.full(5, 0.01, np.float32), np.zeros(5, np.int32), axis=0)
        codes = rng.integers(-90, 90, (5, 3, 3, 5)).astype(np.int8)
        kernel = build.graph.add_constant(weight, codes, quant=scale, dtype=DType.INT8)
        zeros = np.zeros(5, np.int32)
        units = QuantParams(u8.scale * np.float32(0.01) * np.ones(5, np.float32), zeros, axis=0)
        offset = build.graph.add_constant(bias, rng.integers(-900, 900, 5).astype(np.int32), quant=units)
        wide = build("CONV_2D", value, kernel, offset, output=f"c{index}", **window_node(pads=(1, 1, 1, 1)))
        wide.dtype, wide.quant = DType.INT16, s16
        table = build_table(np.tanh, s16, DType.INT16, u8, DType.UINT8)
        value = build("TABLE", wide, table, output=f"t{index}", function="tanh")
        value.dtype, value.quant = DType.UINT8, u8
    return build.output(value)


def test_sessions_and_tables_share_memory_over_several_runs() -> None:
    graph = convolutions()
    graph.outputs.append(graph.add_constant("fixed", np.arange(6, dtype=np.int16)).name)
    engine = FixedEngine(graph, threads=2, extra=["c1", "t0"])
    held = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in engine._forms.values())
    assert sum(engine._slots) < held
    rng = np.random.default_rng(3)
    feeds = [{"x": rng.integers(0, 256, graph["x"].shape).astype(np.uint8)} for _ in range(5)]
    for feed, values in zip(feeds, engine.map(iter(feeds)), strict=True):
        truth = run_reference(graph, feed)
        assert values.keys() == {"t2", "fixed", "c1", "t0"}
        for name in ("t2", "c1", "t0"):
            assert np.array_equal(values[name], truth[name]), name
        assert values["fixed"].tolist() == [0, 1, 2, 3, 4, 5]


def test_large_tensors_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = chain(2)
    assert sparing(session_options(1), graph).enable_cpu_mem_arena
    monkeypatch.setattr("sgs.engine.lowering.LARGE_TENSOR", graph["x"].elements)
    options = sparing(session_options(1), graph)
    assert not options.enable_cpu_mem_arena and not options.enable_mem_pattern


KEPT = """
import os
from pathlib import Path

import numpy as np

from sgs.builder import GraphBuilder
from sgs.engine.single import NodeKernel


def resident():
    return int(Path("/proc/self/statm").read_text("utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


build = GraphBuilder()
x = build.input("x", (1, 500, 500, 8))  # 8 MB
for index in range(24):
    x = build("SQRT" if index % 2 else "ABS", x, output=f"t{index}")
graph = build.output(x)
kernels = [NodeKernel(graph, node, threads=1, real=True) for node in graph.nodes]
value = np.full(graph["x"].shape, 16, np.float32)
before = resident()
for kernel in kernels:
    (value,) = kernel([value])
print(value.flat[0], (resident() - before) / value.nbytes)
"""


def test_kernels_of_single_nodes_keep_nothing_between_runs() -> None:
    """There are as many as the graph has nodes when every tensor is looked at. In a process of its own, whose C library
    gives large blocks back as they are freed: what it keeps by itself varies from run to run."""
    given = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    command = [sys.executable, "-c", KEPT]
    done = subprocess.run(command, cwd=ROOT / "Scripts", env=given, capture_output=True, text=True, check=True)
    value, kept = map(float, done.stdout.split())
    assert value == pytest.approx(16**0.5**12, abs=1e-6) and kept < 3
