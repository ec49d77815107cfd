"""Ranges of activations and bounds of weights, on values whose answer is known or found by trying everything."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgs.numeric.quantise import Array
from sgs.quant.bins import BINS, Bins
from sgs.quant.plan import TensorRange
from sgs.quant.ranges import (
    candidates,
    histogram_mse,
    kullback_leibler,
    minmax,
    percentile,
    weight_absmax,
    weight_bound,
    weight_mse,
    widened,
)
from sgs.quant.statistics import TensorStatistics

Search = Callable[[TensorStatistics], TensorRange]
SEARCHES: list[Search] = [minmax, histogram_mse, percentile, kullback_leibler]
SEARCHED = SEARCHES[1:]


def statistics(values: Array, times: Array | int = 1) -> TensorStatistics:
    """Of these values, each of which was seen so many `times`."""
    low, high = np.atleast_1d(values.min()).astype(np.float32), np.atleast_1d(values.max()).astype(np.float32)
    bins = Bins.of(float(low[0]), float(high[0]))
    index = np.rint(values / bins.step).astype(int) + bins.zero
    counts = np.zeros(BINS, np.int64)
    np.add.at(counts, index, times)
    return TensorStatistics(low, high, counts)


def step(stats: TensorStatistics) -> float:
    """Width of a bin."""
    return stats.bins.step


def error(values: Array, low: float, high: float) -> float:
    """Squared error of values as UINT8 codes of a range that holds 0."""
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    codes = np.clip(np.rint(values / scale) + zero, 0, 255)
    return float(((values - (codes - zero) * scale) ** 2).sum())


UNIFORM = np.linspace(-1, 1, 400_001)
NORMAL = np.random.default_rng(0).normal(0, 1, 300_000)
SHAPES = {
    "uniform": UNIFORM,
    "normal": NORMAL,
    "rectified": np.maximum(NORMAL, 0),
    "heavy": np.random.default_rng(1).standard_t(3, 350_000),
    "skewed": np.exp(NORMAL) - 0.05,
    "two": np.concatenate([NORMAL * 0.1 - 3, NORMAL * 0.3 + 2]),
}


# -- activations -------------------------------------------------------------------------------------------------------
def test_minmax_is_what_was_seen() -> None:
    stats = TensorStatistics(np.float32([-1, -3, 0.5]), np.float32([2, -1, 7]))  # channels
    assert minmax(stats) == TensorRange(-3.0, 7.0, "minmax")


@pytest.mark.parametrize("search", SEARCHED)
def test_of_evenly_spread_values_none_is_cut_off(search: Search) -> None:
    for values in (UNIFORM, UNIFORM + 1, UNIFORM * 3 - 3):
        stats, whole = statistics(values), minmax(statistics(values))
        found = search(stats)
        assert found.low == pytest.approx(whole.low, abs=0.01 * (whole.high - whole.low))
        assert found.high == pytest.approx(whole.high, abs=0.01 * (whole.high - whole.low))


@pytest.mark.parametrize("search", SEARCHED)
def test_a_single_far_value_is_cut_off(search: Search) -> None:
    values, times = np.append(UNIFORM, [-8, 8]), np.append(np.full(UNIFORM.size, 1000), [1, 1])
    found = search(statistics(values, times))
    assert -1.6 < found.low < -0.9 and 0.9 < found.high < 1.6
    few = search(statistics(values, np.append(np.full(UNIFORM.size, 1), [100_000, 100_000])))
    assert few.low < -7.5 and few.high > 7.5  # a third of all values: they stay


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("search", SEARCHES)
def test_ranges_scale_with_the_values(search: Search, name: str) -> None:
    base = search(statistics(SHAPES[name]))
    for factor in (2.0**-40, 0.25, 1024.0):
        found = search(statistics(SHAPES[name] * factor))
        assert (found.low, found.high) == pytest.approx((base.low * factor, base.high * factor), rel=1e-6)
    found = search(statistics(SHAPES[name] * 0.37))
    slack = 0.02 * (base.high - base.low)  # other bins
    assert (found.low / 0.37, found.high / 0.37) == pytest.approx((base.low, base.high), abs=slack)


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "heavy"])  # single values at its ends
@pytest.mark.parametrize("search", SEARCHES)
def test_ranges_turn_with_the_values(search: Search, name: str) -> None:
    base, turned = search(statistics(SHAPES[name])), search(statistics(-SHAPES[name]))
    slack = 0.03 * (base.high - base.low)
    assert (turned.low, turned.high) == pytest.approx((-base.high, -base.low), abs=slack)


def anything() -> st.SearchStrategy[Array]:
    """Values of one sign or both, narrow and wide, a few of them often."""
    number = st.floats(-1e6, 1e6, width=32).filter(lambda v: v == 0 or abs(v) > 1e-6)
    return st.lists(st.tuples(number, st.integers(1, 10_000)), min_size=1, max_size=30).map(
        lambda pairs: np.array(pairs, np.float64)
    )


@settings(max_examples=60)
@given(anything())
def test_no_range_goes_beyond_what_was_seen(pairs: Array) -> None:
    stats = statistics(pairs[:, 0], pairs[:, 1].astype(np.int64))
    low, high = minmax(stats).low, minmax(stats).high
    names = []
    for search in SEARCHES:
        found = search(stats)
        assert found.low <= found.high and np.isfinite([found.low, found.high]).all()
        assert min(low, 0) <= found.low and found.high <= max(high, 0)
        names.append(found.method)
    assert [method.split(" ")[0] for method in names[:1]] == ["minmax"]
    assert len(set(names)) == (4 if max(high, 0) > min(low, 0) else 3)  # who searched what
    tried = candidates(stats)
    assert tried[0] == minmax(stats) and len({t.method for t in tried}) == len(tried)
    if low == high:
        assert tried == [minmax(stats)]


@pytest.mark.parametrize("name", SHAPES)
def test_the_least_squared_error_is_found(name: str) -> None:
    values = SHAPES[name][::7]
    found, whole = histogram_mse(statistics(values)), minmax(statistics(values))
    low, high = min(whole.low, 0.0), max(whole.high, 0.0)
    ends = np.linspace(0.1, 1, 46)
    tried = [(low * a, high * b) for a in (ends if low < 0 else [1.0]) for b in (ends if high > 0 else [1.0])]
    centres, counts = statistics(values).bins.centres, statistics(values).counts
    assert counts is not None
    best = min(float((counts * (centres - rounded(centres, *ends)) ** 2).sum()) for ends in tried)
    ours = error(values, found.low, found.high)
    assert ours <= 1.05 * best + 1e-9 and ours <= 1.01 * error(values, low, high)


def rounded(values: Array, low: float, high: float) -> Array:
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    return np.asarray((np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_percentiles_hold_their_share_and_no_more(name: str, share: float) -> None:
    values, stats = SHAPES[name], statistics(SHAPES[name])
    found, width = percentile(stats, share), step(stats)
    part = (1 - share) / 2
    assert (values < found.low - 1e-9).mean() <= part and (values > found.high + 1e-9).mean() <= part
    assert (values <= found.low + 1.01 * width).mean() >= part and (values >= found.high - 1.01 * width).mean() >= part


def test_percentiles_of_counted_values() -> None:
    values, times = np.array([-4.0, -1, 0, 2, 3]), np.array([1, 9, 80, 6, 4])
    stats = statistics(values, times)
    width = step(stats)
    for share, low, high in [(1.0, -4, 3), (0.99, -4, 3), (0.97, -1, 3), (0.9, -1, 2), (0.79, 0, 0), (0.1, 0, 0)]:
        found = percentile(stats, share)
        assert found.low == pytest.approx(low, abs=0.51 * width) and found.high == pytest.approx(high, abs=0.51 * width)


def divergence(stats: TensorStatistics, low: float, high: float, levels: int) -> float:
    """Of the clipped histogram from the same in `levels` groups, as Migacz draws it, loop by loop."""
    assert stats.counts is not None
    half = stats.bins.step / 2
    inside = [k for k, centre in enumerate(stats.bins.centres) if low - half < centre < high + half]
    p = [float(stats.counts[k]) for k in inside]
    p[0] += float(stats.counts[: inside[0]].sum())
    p[-1] += float(stats.counts[inside[-1] + 1 :].sum())
    q = [1e-3] * len(p)
    groups: dict[int, list[int]] = {}
    for k in range(len(p)):
        groups.setdefault(k * levels // len(p), []).append(k)
    for members in groups.values():
        filled = [k for k in members if stats.counts[inside[k]] > 0]
        for k in filled:
            q[k] = sum(float(stats.counts[inside[m]]) for m in members) / len(filled)
    total_p, total_q = sum(p), sum(q)
    return sum(a / total_p * np.log(a / total_p * total_q / b) for a, b in zip(p, q, strict=True) if a > 0)


@pytest.mark.parametrize("name", SHAPES)
def test_the_clipped_histogram_tells_less_from_the_coarse_one(name: str) -> None:
    stats = statistics(SHAPES[name])
    found = kullback_leibler(stats)
    low, high = min(minmax(stats).low, 0.0), max(minmax(stats).high, 0.0)
    ends = [(f.low, f.high) for f in (kullback_leibler(stats, candidates=n) for n in (2, 3, 5, 9))]
    found_here = divergence(stats, found.low, found.high, 256)
    assert found_here <= divergence(stats, low, high, 256) + 1e-9
    shares = [end / whole for end, whole in ((found.low, low), (found.high, high)) if whole]
    assert max(shares) == pytest.approx(min(shares))  # both ends move in proportion
    assert min(divergence(stats, *tried, 256) for tried in ends) >= 0.5 * found_here - 1e-9
    assert (found.high < 0.9 * high) == (name in ("heavy", "skewed", "rectified"))


def test_groups_of_even_counts_tell_nothing() -> None:
    """256 steps of 8 bins: nothing is lost, so nothing is cut off, however the steps differ."""
    low, high = np.float32([0]), np.float32([1])
    counts = np.repeat(np.random.default_rng(0).integers(1, 10_000, BINS // 8), 8)
    bins = Bins.of(0, 1)
    counts[bins.centres < 0], counts[bins.centres > 1] = 0, 0
    stats = TensorStatistics(low, high, counts)
    assert (kullback_leibler(stats, levels=BINS).low, kullback_leibler(stats, levels=BINS).high) == (0.0, 1.0)


@pytest.mark.parametrize("value", [0.0, 5.0, -1e-20, 1e30])
def test_constants_have_the_range_that_they_are(value: float) -> None:
    stats = statistics(np.full(100, value))
    assert candidates(stats) == [minmax(stats)] and minmax(stats).high == pytest.approx(value)
    for search in SEARCHED:
        found = search(stats)
        assert min(found.low, 0) <= value * (1 - 1e-2) and value * (1 - 1e-2) <= max(found.high, 0)


def test_widened_ranges_stop_at_the_limit() -> None:
    base = TensorRange(-1.0, 3.0, "minmax")
    assert widened(base, 1.5, 100.0) == TensorRange(-1.5, 4.5, "minmax x 1.5")
    assert widened(base, 1.5, 4.0) == TensorRange(-1.5, 4.0, "minmax x 1.5")
    assert widened(base, 2.0, 2.0) == TensorRange(-2.0, 3.0, "minmax x 2")  # never narrower than it was


# -- weights -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("axis", [0, 1, 3])
def test_bounds_are_per_output_channel(axis: int) -> None:
    weight = np.random.default_rng(0).normal(0, 1, (5, 4, 3, 6)).astype(np.float32)
    expected = [np.abs(np.take(weight, k, axis)).max() for k in range(weight.shape[axis])]
    assert weight_absmax(weight, axis).tolist() == expected
    turned = np.moveaxis(weight, axis, 0)
    assert np.array_equal(weight_mse(weight, axis, steps=127), weight_mse(turned, 0, steps=127))


def weight_error(row: Array, bound: float, steps: int) -> float:
    if bound == 0:
        return float((row**2).sum())
    codes = np.clip(np.rint(row / (bound / steps)), -steps, steps)
    return float(((row - codes * (bound / steps)) ** 2).sum())


@pytest.mark.parametrize("steps", [7, 127])
def test_bounds_by_squared_error_are_never_worse_and_nearly_the_best(steps: int) -> None:
    rng = np.random.default_rng(0)
    weight = np.stack([rng.normal(0, 1, 500), rng.standard_t(3, 500), rng.uniform(-1, 1, 500), np.zeros(500)])
    bounds, widest = weight_mse(weight, 0, steps=steps), weight_absmax(weight, 0)
    assert bounds[3] == 0 and (bounds <= widest).all() and (bounds[:3] > 0).all()
    for row, bound, most in zip(weight[:3], bounds, widest, strict=False):
        lowest = max(bound * 0.9, most * 0.6)
        best = min(weight_error(row, most * share, steps) for share in np.linspace(lowest / most, 1, 200))
        assert weight_error(row, bound, steps) <= min(weight_error(row, most, steps), 1.1 * best)
    assert steps > 7 or bounds[1] < 0.9 * widest[1]  # heavy tails are cut off


def test_bounds_of_weights_that_are_codes_already_stay() -> None:
    codes = np.random.default_rng(0).integers(-127, 128, (4, 300)).astype(np.float64)
    codes[:, 0] = 127
    scales = np.array([[1.0], [0.01], [300.0], [1e-6]])
    np.testing.assert_allclose(weight_mse(codes * scales, 0, steps=127), 127 * scales[:, 0], rtol=1e-12)


def test_a_single_large_weight_is_clamped_where_many_gain() -> None:
    weight = np.random.default_rng(0).uniform(-1, 1, (2, 20_000))
    weight[0, 7] = 1.5
    bounds = weight_mse(weight, 0, steps=7)
    assert 0.9 < bounds[0] < 1.2 and bounds[1] > 0.9


def test_bounds_for_4_bits_are_searched_far_below_the_largest_weight() -> None:
    weight = np.random.default_rng(0).standard_t(3, (3, 2000))
    widest, found = weight_absmax(weight, 0), weight_bound(weight, 0, 4)
    assert (found < 0.65 * widest).all() and (found / widest).min() < 0.5
    for row, bound, most in zip(weight, found, widest, strict=True):
        best = min(weight_error(row, most * share, 7) for share in np.linspace(0.05, 1, 400))
        assert weight_error(row, bound, 7) < 1.02 * best
    assert weight_bound(weight, 0, 16).tolist() == widest.tolist()
    assert (weight_bound(weight, 0, 8) > 0.8 * widest).all()
