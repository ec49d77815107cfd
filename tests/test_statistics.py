"""Statistics of activations: extrema measured and propagated, histograms, and how they merge."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sgs.ops  # noqa: F401  fills the tables
from fixed_examples import float_feeds
from sgs.builder import GraphBuilder
from sgs.data.shards import processors
from sgs.engine import FloatEngine
from sgs.errors import UserError
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import Array
from sgs.ops._expansion import expanded
from sgs.ops._window import window_node
from sgs.quant import bins, observe
from sgs.quant.bins import BINS, Bins, count
from sgs.quant.observe import Counted, ExtremaObserver, HistogramObserver, Streams, live_bytes
from sgs.quant.prepare import FUNCTION, prepare
from sgs.quant.propagate import Propagation, Valley
from sgs.quant.statistics import (
    Statistics,
    TensorStatistics,
    measure_extrema,
    measure_histograms,
    observed_tensors,
)
from sgs.registry import EXAMPLES, OPERATOR

ONE = Streams(1, 1, large=False)


def pictures(graph: Graph, count: int) -> list[dict[str, Array]]:
    return [float_feeds(graph, seed) for seed in range(count)]


def activations(graph: Graph, feeds: Sequence[Mapping[str, Array]], names: Sequence[str]) -> dict[str, Array]:
    """All values of the named tensors, [values, C]."""
    engine = FloatEngine(graph, threads=1, extra=names)
    runs = [engine.run(feed) for feed in feeds]
    widths = {name: graph[name].shape[-1] if graph[name].shape else 1 for name in names}
    return {name: np.concatenate([run[name].reshape(-1, widths[name]) for run in runs]) for name in names}


def conv(build: GraphBuilder, x: Tensor, channels: int, name: str, activation: str = "NONE") -> Tensor:
    rng = np.random.default_rng(len(name))
    weight = rng.normal(0, 0.4, (channels, 3, 3, x.shape[3])).astype(np.float32)
    bias = rng.normal(0, 0.2, channels).astype(np.float32)
    window = window_node(pads=(1, 1, 1, 1), activation=activation)
    return build("CONV_2D", x, weight, bias, output=name, **window)


def network() -> Graph:
    """conv → SiLU → two branches of unlike size → concat → conv, which read each other across the middle."""
    build = GraphBuilder()
    a = conv(build, build.input("x", (1, 10, 9, 3)), 6, "a")
    s = build("MUL", a, build("LOGISTIC", a), activation="NONE", output="s")
    left, right = conv(build, s, 4, "left", "RELU"), conv(build, s, 5, "right")
    joined = build("CONCATENATION", left, right, s, axis=3, output="joined")
    total = build("ADD", conv(build, joined, 6, "back"), s, activation="NONE", output="total")
    return build.output(total, build("SOFTMAX", total, beta=1.0, output="odds"))


# -- extrema -----------------------------------------------------------------------------------------------------------
def float_examples() -> list[tuple[str, Graph]]:
    return [
        (f"{op}-{index}", graph)
        for op in OPERATOR
        if OPERATOR[op].stage != "fixed" and not OPERATOR[op].no_integers
        for index, graph in enumerate(map(expanded, EXAMPLES[op]()))
        if observed_tensors(graph)
    ]


@pytest.mark.parametrize(("label", "graph"), float_examples())
def test_extrema_of_every_operator(label: str, graph: Graph) -> None:
    """Ranges hold all that is there; measured ones nothing else, propagated ones a bound."""
    feeds = pictures(graph, 3)
    found = measure_extrema(graph, feeds, threads=1)
    assert (found.samples, list(found.tensors)) == (3, observed_tensors(prepare(graph)))
    measured = Propagation.of(graph).measured
    for name, values in activations(graph, feeds, list(found.tensors)).items():
        low, high = values.min(0), values.max(0)
        near = 1e-5 * max(1e-6, np.ptp(values))
        assert (found.tensors[name].low <= low + near).all() and (found.tensors[name].high >= high - near).all()
        if name in measured:
            bounded = (found.tensors[name].low == 0) & (low >= 0)
            assert (bounded | (np.abs(found.tensors[name].low - low) <= near)).all()
            assert (np.abs(found.tensors[name].high - high) <= near).all()


def test_moved_values_are_not_measured_again() -> None:
    build = GraphBuilder()
    a = conv(build, build.input("x", (1, 6, 10, 3)), 8, "a")
    first, second, third = build.node("SPLIT_V", [a], outputs=["first", "second", "third"], axis=3, sizes=(2, 5, 1))
    join = build("CONCATENATION", third, first, a, axis=3, output="join")
    turn = build(
        "TRANSPOSE",
        build("MIRROR_PAD", join, paddings=((0, 0), (1, 1), (0, 1), (0, 0)), mode="REFLECT", output="mirror"),
        perm=(0, 2, 1, 3),
        output="turn",
    )
    large = build(
        "RESIZE_NEAREST_NEIGHBOR", turn, size=(22, 24), align_corners=False, half_pixel_centers=False, output="large"
    )
    flat = build("RESHAPE", large, shape=(1, 528, 11), output="flat")
    kept = build("GATHER", flat, np.array([9, 0, 2], np.int32), axis=2, output="kept")
    crop = build("SLICE", kept, begin=(0, 3, 0), size=(1, 500, 3), output="crop")
    mixed = build("RESHAPE", crop, shape=(1, 50, 30), output="mixed")
    graph = build.output(mixed, build("RESHAPE", second, shape=(60, 5), output="rows"))
    assert Propagation.of(graph).measured == ["x", "a", "crop", "mixed"]
    found = measure_extrema(graph, pictures(graph, 2), threads=1).tensors
    order = [7, 0, 1, *range(8)]
    for name in ("join", "mirror", "turn", "large", "flat"):
        assert np.array_equal(found[name].low, found["a"].low[order])
        assert np.array_equal(found[name].high, found["a"].high[order])
    assert np.array_equal(found["kept"].high, found["a"].high[[6, 7, 1]])
    assert np.array_equal(found["rows"].low, found["a"].low[2:7])


def test_padding_is_part_of_a_range_and_is_told_from_what_it_surrounds() -> None:
    build = GraphBuilder()
    x = build.input("x", (1, 5, 7, 3))
    around = build("PAD", x, paddings=((0, 0), (1, 0), (0, 2), (0, 0)), output="around")
    beside = build("PAD", x, paddings=((0, 0), (0, 0), (0, 0), (1, 2)), output="beside")
    window = {"kernel": (2, 2), "strides": (1, 1), "pads": (0, 1, 1, 0), "activation": "NONE"}
    pooled = build("MAX_POOL_2D", around, output="pooled", **window)
    ones = build("PADV2", x, paddings=((0, 0), (1, 1), (0, 0), (0, 0)), value=1.0, output="ones")
    most = build("REDUCE_MAX", x, axes=(3,), keep_dims=True, output="most")
    graph = build.output(pooled, beside, ones, most)
    assert Propagation.of(graph).measured == ["x", "ones", "most"]
    feeds = {"x": np.random.default_rng(0).uniform([-3, 1, -2], [-1, 2, 2], (1, 5, 7, 3)).astype(np.float32)}
    found = {name: (t.low, t.high) for name, t in measure_extrema(graph, [feeds], threads=1).tensors.items()}
    low, high = found["x"]
    for name in ("around", "pooled"):  # the windows at the edge see nothing but zeros
        assert np.array_equal(found[name][0], [low[0], 0, low[2]])
        assert np.array_equal(found[name][1], [0, high[1], high[2]])
    assert np.array_equal(found["beside"][0], [0, *low, 0, 0]) and np.array_equal(found["beside"][1], [0, *high, 0, 0])
    assert np.array_equal(found["ones"][1], np.maximum(high, 1))
    assert found["most"][1] == feeds["x"].max() and found["most"][0] > 1


def function(*ops: str, size: int = 12, **attrs: float) -> Graph:
    """An expression of one tensor: unary operators, one after the other."""
    build = GraphBuilder()
    x = y = build.input("x", (1, size, size, 2))
    for op in ops:
        y = build("MUL", x, y, activation="NONE") if op == "TIMES X" else build(op, y, **attrs)
    build.graph.rename_tensor(y.name, "y")
    return build.output(build.graph["y"])


def valley(graph: Graph) -> Valley | None:
    (node,) = (node for node in prepare(graph).nodes if node.op == FUNCTION)
    return Valley.of(node.attrs["expression"])


def test_functions_that_fall_and_then_rise() -> None:
    silu = valley(function("LOGISTIC", "TIMES X"))
    assert silu is not None and silu.bottom == pytest.approx(-1.2784645, abs=1e-4)
    low, high = silu.image((np.float32([-9, -9, 0.5, -1]), np.float32([5, -3, 2, -0.5])))
    at = lambda x: x / (1 + np.exp(-x))  # noqa: E731
    assert low == pytest.approx([-0.2784645, at(-3), at(0.5), at(-1)])
    assert high == pytest.approx([at(5), at(-9), at(2), at(-0.5)])
    swish = valley(function("HARD_SWISH"))
    assert swish is not None and swish.bottom == pytest.approx(-1.5, abs=1e-3)
    assert swish.image((np.float32([-4]), np.float32([-3.5]))) == (0, 0)  # flat there
    rising = valley(function("LEAKY_RELU", alpha=0.1))
    assert rising is not None and rising.bottom is None
    assert rising.image((np.float32([-2]), np.float32([3]))) == (np.float32(-0.2), 3)
    even = valley(function("TANH", "TIMES X"))
    assert even is not None and even.bottom == pytest.approx(0, abs=1e-4)
    assert even.image((np.float32([-2]), np.float32([1])))[1] == pytest.approx(2 * np.tanh(2))
    build = GraphBuilder()
    minus = build(
        "MUL", build("LEAKY_RELU", build.input("x", (1, 9, 9, 2)), alpha=-1.0), np.float32([-1]), activation="NONE"
    )
    assert valley(build.output(build("HARD_SWISH", minus, output="y"))) is None  # of -|x|: two dips


def test_results_of_functions_are_not_measured_where_they_are_dense() -> None:
    for graph, measured in (
        (function("LOGISTIC", "TIMES X"), ["x"]),
        (function("LOGISTIC", "TIMES X", size=7), ["x", "y"]),  # 49 values need not come near the bottom
        (function("LOGISTIC", size=7), ["x"]),
    ):
        assert Propagation.of(graph).measured == measured
        feeds = pictures(graph, 2)
        found = measure_extrema(graph, feeds, threads=1).tensors["y"]
        values = activations(graph, feeds, ["y"])["y"]
        assert found.high == pytest.approx(values.max(0), rel=1e-5)
        assert (found.low <= values.min(0) + 1e-6).all() and found.low == pytest.approx(values.min(0), abs=2e-3)


def test_what_cannot_be_negative_is_taken_to_reach_zero() -> None:
    build = GraphBuilder()
    x = build.input("x", (1, 8, 9, 2))
    squares = build("ADD", build("MUL", x, x, activation="NONE"), x, activation="RELU", output="squares")
    far = build("MAXIMUM", build.input("u", (1, 8, 9, 2)), np.full(2, 4, np.float32), output="far")
    y = build("ADD", far, squares, activation="RELU", output="y")
    graph = build.output(y, conv(build, x, 3, "z"))
    found = measure_extrema(graph, pictures(graph, 1), threads=1).tensors
    assert (found["far"].low == 4).all() and (found["y"].low == 0).all() and (found["y"].high > 5).all()
    assert (found["z"].low < 0).all()


@pytest.mark.parametrize("place", [(0, 0, 0, 1), (0, 3, 2, 0), (0, 7, 8, 1)])
def test_values_that_are_not_finite_name_their_tensor(place: tuple[int, ...]) -> None:
    """Maxima alone do not see a NaN among other values."""
    build = GraphBuilder()
    x, z = build.input("x", (1, 8, 9, 2)), build.input("z", (1, 8, 9, 2))
    graph = build.output(build("RELU", build("DIV", x, z, activation="NONE", output="ratio"), output="y"))
    feeds = {name: np.ones((1, 8, 9, 2), np.float32) for name in ("x", "z")}
    assert measure_extrema(graph, [feeds], threads=1).tensors["ratio"].span == (1, 1)
    feeds["z"][place] = 0
    for numerator in (0, 1, -1):  # NaN, infinity
        feeds["x"][place] = numerator
        with pytest.raises(UserError, match="'ratio': the float network gives values that are not finite"):
            measure_extrema(graph, [feeds], threads=1)


def test_no_samples_are_an_error() -> None:
    with pytest.raises(UserError, match="there are no calibration samples"):
        measure_extrema(network(), [], threads=1)


# -- histograms --------------------------------------------------------------------------------------------------------
finite = st.floats(-(2.0**100), 2.0**100, width=32)


@given(finite, finite)
@settings(max_examples=200, deadline=None)
def test_bins_cover_their_range_and_zero(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    made = Bins.of(low, high)
    assert made.centres[made.zero] == 0 and 1 <= made.zero < BINS
    for value in (low, high, 0.0):
        number = round(value / made.step) + made.zero
        assert 1 <= number <= BINS - 2
        assert made.edges[number] <= value <= made.edges[number + 1]


def test_histograms_count_every_value() -> None:
    graph = network()
    feeds = pictures(graph, 4)
    names = ["x", "s", "left", "joined", "odds"]
    found = measure_histograms(graph, feeds, names, measure_extrema(graph, feeds, threads=1), threads=1)
    for name, values in activations(graph, feeds, names).items():
        tensor = found.tensors[name]
        numbers = np.rint(values / np.float32(tensor.bins.step)).astype(int) + tensor.bins.zero
        truth = np.bincount(numbers.reshape(-1), minlength=BINS)
        assert tensor.counts is not None and tensor.counts.sum() == values.size
        assert np.abs(np.cumsum(tensor.counts) - np.cumsum(truth)).max() <= 2  # sessions may differ in the last place
    assert found.tensors["a"].counts is None
    zeros = found.tensors["left"]
    assert zeros.counts is not None and zeros.counts[: zeros.bins.zero].sum() == 0 < zeros.counts[zeros.bins.zero]


def test_large_arrays_are_counted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.random.default_rng(0).integers(0, BINS, (3, 50, 7)).astype(np.uint16)
    monkeypatch.setattr(bins, "_COUNTED_AT_ONCE", 100)
    assert np.array_equal(count(codes), np.bincount(codes.reshape(-1), minlength=BINS))


@pytest.mark.parametrize("budget", [0, 2000, 6000])
def test_a_network_run_in_parts_has_the_same_histograms(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network()
    feeds = pictures(graph, 1)[0]
    extrema = measure_extrema(graph, [feeds], threads=1)
    wanted = [Counted(name, extrema.tensors[name].bins) for name in ("x", "s", "left", "right", "joined", "total")]
    whole = HistogramObserver(graph, wanted, ONE)
    monkeypatch.setattr(observe, "CODE_BYTES", budget)
    parts = HistogramObserver(graph, wanted, ONE)
    parts.start()
    assert len(parts._parts) == {0: 6, 2000: 4, 6000: 2}[budget]  # x 540, s 1080, left 720, right 900, joined 2700 ...
    monkeypatch.undo()
    whole.start()
    assert len(whole._parts) == 1
    assert np.abs(np.cumsum(whole(feeds), 1) - np.cumsum(parts(feeds), 1)).max() <= 1  # fused otherwise at the cuts


def test_histograms_of_scaled_channels() -> None:
    graph = network()
    feeds = pictures(graph, 2)
    factors = np.float32([2, -1, 0.5, 3, 0, 0.25])
    extrema = measure_extrema(graph, feeds, threads=1)
    found = measure_histograms(graph, feeds, ["a"], extrema, scaled={"a*": ("a", factors)}, threads=1).tensors
    values = activations(graph, feeds, ["a"])["a"] * factors
    assert found["a*"].low == pytest.approx(values.min(0), rel=1e-5, abs=1e-6)
    assert found["a*"].high == pytest.approx(values.max(0), rel=1e-5, abs=1e-6)
    numbers = np.rint(values / np.float32(found["a*"].bins.step)).astype(int) + found["a*"].bins.zero
    assert found["a*"].counts is not None
    difference = np.cumsum(found["a*"].counts) - np.cumsum(np.bincount(numbers.reshape(-1), minlength=BINS))
    assert np.abs(difference).max() <= 2 and difference[-1] == 0
    assert found["a"].counts is not None and found["a"].counts.sum() == values.size


# -- merging -----------------------------------------------------------------------------------------------------------
def same(left: Statistics, right: Statistics) -> bool:
    def arrays(statistics: Statistics) -> list[Array]:
        return [a for t in statistics.tensors.values() for a in (t.low, t.high, t.counts) if a is not None]

    pairs = zip(arrays(left), arrays(right), strict=True)
    return left.samples == right.samples and all(np.array_equal(a, b) for a, b in pairs)


@given(st.permutations(range(6)), st.integers(1, 5))
@settings(max_examples=10, deadline=None)
def test_shares_of_the_pictures_merge_to_the_same_whatever_they_are(order: list[int], cut: int) -> None:
    graph = network()
    feeds = pictures(graph, 6)
    names = ["s", "joined", "total"]
    whole = measure_histograms(graph, feeds, names, measure_extrema(graph, feeds))
    shares = [[feeds[k] for k in part] for part in (order[:cut], order[cut:])]
    first, second = (measure_extrema(graph, share, threads=1) for share in shares)
    extrema = first.merged(second)
    assert same(extrema, Statistics().merged(second).merged(first).merged(Statistics()))
    counted = [measure_histograms(graph, share, names, extrema) for share in shares]
    assert same(counted[0].with_counts_of(counted[1]), whole)
    assert same(extrema.with_counts_of(counted[1]).with_counts_of(counted[0]), whole)


def test_histograms_of_unlike_ranges_do_not_add_up() -> None:
    narrow, wide = (TensorStatistics(np.float32([0]), np.float32([h]), np.ones(BINS, np.int64)) for h in (1, 2))
    with pytest.raises(ValueError, match="histograms of 'y' have different bins: merge the extrema first"):
        Statistics(1, {"y": narrow}).with_counts_of(Statistics(1, {"y": wide}))
    merged = Statistics(1, {"y": narrow}).merged(Statistics(4, {"y": wide}))
    assert (merged.samples, merged.tensors["y"].span, merged.tensors["y"].counts) == (5, (0, 2), None)


def test_observers_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, feeds = network(), pictures(network(), 1)[0]
    here = ExtremaObserver(graph, Propagation.of(graph).measured, ONE)
    there = pickle.loads(pickle.dumps(here))
    here.start()
    assert np.array_equal(here(feeds), there(feeds))
    assert np.array_equal(here.join(here.nothing, here(feeds)), here(feeds))


# -- memory ------------------------------------------------------------------------------------------------------------
def test_pictures_in_flight_keep_to_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network()
    values = 4 * 10 * 9  # bytes of a channel
    assert live_bytes(graph) == 30 * values  # joined and its operands
    for budget, expected in (
        (10 * live_bytes(graph), Streams(8, 1, large=False)),
        (8 * live_bytes(graph), Streams(8, 1, large=False)),
        (3 * live_bytes(graph), Streams(3, 2, large=True)),
        (1, Streams(1, 8, large=True)),
    ):
        monkeypatch.setattr(observe, "LANE_BYTES", budget)
        assert Streams.of(graph, 8) == expected
    assert processors() >= 1
