"""Tables for each channel: what is built, every way of applying them, and the equalised networks they are for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sgs.ops  # noqa: F401  fills the tables
from sgs.builder import GraphBuilder
from sgs.compile import compile_graph
from sgs.config.chips import load_chip
from sgs.config.input_config import ConvSpec
from sgs.engine import FixedEngine, FloatEngine, run_reference
from sgs.engine.fixed import stages
from sgs.errors import UserError
from sgs.img import OfflineEngine
from sgs.ir import Graph
from sgs.numeric.quantise import Array, activation_params
from sgs.numeric.table import SIZES, ChannelTables, build_table, look_up
from sgs.numeric.types import DType
from sgs.ops._window import window_node
from sgs.passes.pipeline import optimise
from sgs.quant.boundary import codes_of_inputs, real_outputs
from sgs.quant.levels import Calibration
from sgs.quant.prepare import EQUALISE, prepare
from sgs.quant.statistics import measure_extrema
from sgs.registry import EXAMPLES
from sgs.sim import read_sim, sim_bytes, write_sim

U8, S16 = DType.UINT8, DType.INT16
RESULT = {U8: activation_params(-2, 7, U8), S16: activation_params(-2, 7, S16)}


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def tables(slopes: Array, kind: DType, result: DType) -> Array:
    """Tables [C, entries] of silu(x · slope) / slope over [-6, 6]."""
    params = activation_params(-6, 6, kind)
    return build_table(lambda x: silu(x * slopes) / slopes, params, kind, RESULT[result], result, channels=slopes.size)


# -- what is built -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("slopes", "sizes"), [((0.1, 0.3, 1), (513, 513, 513)), ((0.1, 4, 1), (513, 1025, 513))])
def test_all_channels_get_as_many_entries_as_the_worst_needs(slopes: Any, sizes: Any) -> None:
    params, together = activation_params(-6, 6, S16), tables(np.array(slopes), S16, S16)
    assert together.shape == (3, max(sizes)) and together.dtype == np.int16
    every = np.arange(-32768, 32768)
    for channel, slope in enumerate(slopes):
        alone = build_table(lambda x, k=slope: silu(x * k) / k, params, S16, RESULT[S16], S16)
        assert alone.size == sizes[channel] and alone.size in SIZES
        assert np.array_equal(together[channel, :: (max(sizes) - 1) // (alone.size - 1)], alone)
        exact = silu(every * float(params.scale[0]) * slope) / slope / float(RESULT[S16].scale[0])
        found = look_up(every.astype(np.int16), together[channel], S16)
        assert (
            np.abs(found - np.clip(exact, -32768, 32767)).max() < 1.6
        )  # half a code each: entry, slope between, result


def test_tables_that_do_not_fit_the_channels_are_refused(tmp_path: Any) -> None:
    build = GraphBuilder()
    x = build.input("x", (1, 4, 6, 3), S16)
    with pytest.raises(ValueError, match=r"tables of shape \[4, 513\] do not fit an operand of shape \[1, 4, 6, 3\]"):
        build("TABLE", x, np.zeros((4, 513), np.int16), function="x")
    build = GraphBuilder()
    x = build.input("x", (1, 4, 6, 3), S16)
    graph = build.output(build("TABLE", x, np.zeros((3, 513), np.int16), output="y", function="x"))
    (table,) = (tensor for tensor in graph.tensors.values() if tensor.is_constant)
    table.data, table.shape = np.zeros((2, 513), np.int16), (2, 513)
    write_sim(graph, tmp_path / "bad.sim", stage="fixed")
    with pytest.raises(UserError, match=r"tables of shape \[2, 513\]"):
        read_sim(tmp_path / "bad.sim")


# -- how they are applied ----------------------------------------------------------------------------------------------
SHAPES = [(2, 67, 71, 5), (2, 9, 7, 5), (1, 6, 5, 130)]
LAYOUTS = [(shape, False) for shape in (*SHAPES, (3, 41, 130), (4700, 3), (11, 7))] + [
    (shape, True) for shape in SHAPES
]


@pytest.mark.parametrize(("shape", "planar"), LAYOUTS)
@pytest.mark.parametrize("kind", [S16, U8])
@pytest.mark.parametrize("result", [S16, U8])
def test_every_kernel_looks_up_the_channels_own_table(
    kind: DType, result: DType, shape: tuple[int, ...], planar: bool
) -> None:
    data = tables(np.geomspace(0.3, 20, shape[-1]), kind, result)
    codes = np.random.default_rng(len(shape)).integers(kind.qmin, kind.qmax + 1, shape).astype(kind.numpy)
    truth = np.stack([look_up(codes[..., c], data[c], result) for c in range(shape[-1])], axis=-1)
    assert len({truth[..., c].tobytes() for c in range(shape[-1])}) == shape[-1]
    zero = int(RESULT[result].zero_point[0])
    apply = ChannelTables(data, kind, result, zero)
    for dtype, wanted in ((result.numpy, truth), (np.float32, truth.astype(np.float32) - zero)):
        out = np.zeros(shape, dtype)
        if planar:
            first = np.ascontiguousarray(codes.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
            out = np.zeros((shape[0], shape[3], *shape[1:3]), dtype).transpose(0, 2, 3, 1)
            apply(first, out)
        else:
            apply(codes, out)
        assert np.array_equal(out, wanted)


def network(size: int, spread: float, wide: bool = False) -> tuple[Graph, Graph]:
    """conv → SiLU → depthwise whose channels c span ranges up to `spread`, as it is and equalised: (plain, equalised).

    Equalised, the convolution gives channels of one range, the table undoes that inside SiLU and divides the result,
    and the depthwise weights make up for it.
    """
    rng, channels = np.random.default_rng(4), 12
    kernel = 3 if wide else 1
    scale = np.geomspace(1, spread, channels)
    weight = rng.normal(0, 1, (channels, kernel, kernel, 4)) * scale[:, None, None, None]
    bias, depth = rng.normal(0, 1, channels) * scale, rng.normal(0, 1, (1, 3, 3, channels)) / scale
    graphs = []
    for s in (np.ones(channels), scale):
        build = GraphBuilder()
        convolution = window_node(pads=(kernel // 2,) * 4)
        parts = [
            (array / s.reshape(shape)).astype(np.float32) for array, shape in ((weight, (-1, 1, 1, 1)), (bias, -1))
        ]
        a = build("CONV_2D", build.input("x", (1, size, size + 2, 4)), *parts, output="a", **convolution)
        if s[-1] != 1:
            a = build("MUL", a, s.astype(np.float32), activation="NONE", output="b", equalise=True)
        y = build("MUL", a, build("LOGISTIC", a), activation="NONE", output="c")
        if s[-1] != 1:
            y = build("MUL", y, (1 / s).astype(np.float32), activation="NONE", output="d", equalise=True)
        zeros = np.zeros(channels, np.float32)
        window = window_node(pads=(1, 1, 1, 1))
        graphs.append(
            build.output(build("DEPTHWISE_CONV_2D", y, (depth * s).astype(np.float32), zeros, output="y", **window))
        )
    return graphs[0], graphs[1]


def feeds_of(graph: Graph, seed: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).normal(0, 1, graph["x"].shape).astype(np.float32)}


def calibrated(graph: Graph, conv: ConvSpec) -> Graph:
    feeds = [feeds_of(graph, seed) for seed in range(3)]
    work = Calibration(graph, measure_extrema(graph, feeds, threads=1), feeds, conv, threads=1)
    return work.fixed(work.initial_plan())


def worst_sqnr(core: Graph, values: dict[str, Array], truth: Array) -> float:
    """Signal to quantisation noise of the worst channel of y, in dB."""
    real = real_outputs(core, values, ["y"])["y"]
    power, noise = (truth**2).mean((0, 1, 2)), ((real - truth) ** 2).mean((0, 1, 2))
    return float(10 * np.log10(power / noise).min())


@pytest.mark.parametrize(("conv", "plain_db", "equal_db"), [("ALL_UINT8", 1, 25), ("ALL_INT16", 30, 50)])
@pytest.mark.parametrize("size", [9, 40, 67])  # inside a session, between two, with tables written out
def test_an_equalised_network_is_exact_and_closer_to_float(
    conv: str, plain_db: float, equal_db: float, size: int
) -> None:
    found = []
    plain, equalised = network(size, 1000.0, wide=conv == "ALL_INT16")
    sample = feeds_of(plain, 0)  # one of those that gave the ranges
    truth = FloatEngine(plain, threads=1).run(sample)["y"]
    np.testing.assert_allclose(FloatEngine(equalised, threads=1).run(sample)["y"], truth, rtol=1e-3, atol=1e-4)
    for graph in (plain, equalised):
        core = calibrated(graph, ConvSpec(input_format=conv))
        feeds = codes_of_inputs(core, sample)
        values, wanted = FixedEngine(core, threads=1).run(feeds), run_reference(core, feeds)
        offline = OfflineEngine(compile_graph(core, load_chip("ibopper")), threads=1).run(feeds)
        assert np.array_equal(values["y"], wanted["y"]) and np.array_equal(offline["y"], wanted["y"])
        found.append(worst_sqnr(core, values, truth))
    assert [len(stage.host_nodes) for stage in stages(core)] == ([0] if size == 9 else [1, 0])
    assert [core[node.inputs[1] or ""].shape[0] for node in core.nodes if node.op == "TABLE"] == [12]
    assert found[0] < plain_db and found[1] > equal_db


# -- how expressions come about ----------------------------------------------------------------------------------------
def test_equalised_expressions_are_one_function_of_the_tensor_before() -> None:
    _, graph = network(6, 1000.0)
    prepared = prepare(graph)
    assert [node.op for node in prepared.nodes] == ["CONV_2D", "FUNCTION", "DEPTHWISE_CONV_2D"]
    function = prepared.nodes[1]
    expression = function.attrs["expression"]
    assert function.inputs == ["a"] and function.outputs == ["d"]
    assert expression.channels == 12 and expression.describe() == "MUL LOGISTIC MUL MUL"
    x, s = np.random.default_rng(0).normal(0, 2, (5, 12)), np.geomspace(1, 1000, 12)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(expression(x), silu(x * s) / s, rtol=1e-5, atol=1e-9)


def test_other_constants_by_channel_stay_nodes_of_their_own() -> None:
    build = GraphBuilder()
    x, slopes = build.input("x", (1, 5, 7, 6)), np.linspace(0.5, 3, 6, dtype=np.float32)
    a = build("LOGISTIC", build("MUL", x, slopes, activation="NONE", output="a"), output="b")
    short = build("ADD", a, slopes[:1], activation="NONE", output="c")
    graph = build.output(build("ADD", short, slopes, activation="NONE", output="y"))
    assert [node.op for node in prepare(graph).nodes] == ["MUL", "FUNCTION", "ADD"]
    assert prepare(graph).nodes[1].attrs["expression"].channels is None
    rows = GraphBuilder()  # a constant [6] beside a tensor that it broadcasts to another shape is no function of it
    wide = rows("MUL", rows.input("x", (5, 1)), slopes, activation="NONE", output="y", equalise=True)
    assert [node.op for node in prepare(rows.output(wide)).nodes] == ["MUL"]


def test_the_mark_of_equalisation_harms_nothing_and_stays_in_memory() -> None:
    _, graph = network(6, 8.0)
    before = FloatEngine(graph, threads=1).run(feeds_of(graph, 1))["y"]
    changed = graph.copy()
    optimise(changed)  # takes the product behind the convolution for a batch normalisation, which it may
    assert [node.outputs[0] for node in changed.nodes if node.attrs.get(EQUALISE)] == ["d"]
    after = FloatEngine(changed, threads=1).run(feeds_of(graph, 1))["y"]
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    unmarked = graph.copy()
    for node in unmarked.nodes:
        node.attrs.pop(EQUALISE, None)
    assert sim_bytes(unmarked, "float") == sim_bytes(graph, "float")


def test_examples_hold_both_kinds_of_tables_for_every_pair_of_types() -> None:
    pairs: dict[tuple[DType, DType], set[int]] = {}
    for graph in EXAMPLES["TABLE"]():
        x, table, y = (graph[name or ""] for name in (*graph.nodes[0].inputs, *graph.nodes[0].outputs))
        pairs.setdefault((x.dtype, y.dtype), set()).add(len(table.shape))
    assert pairs == dict.fromkeys([(S16, S16), (S16, U8), (U8, U8), (U8, S16)], {1, 2})
