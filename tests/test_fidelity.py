"""The measure that calibration decides by, and the parts of outputs that it looks at."""

from __future__ import annotations

import numpy as np
import pytest

from sgs.builder import GraphBuilder
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._window import window_node
from sgs.quant.fidelity import Measure, Parts, decibels, energies, is_silent, output_parts, relative_error


def measured(truth: list[float], value: list[float], parts: Parts | None = None) -> float:
    return relative_error(table_of(truth, value, parts)[None])


def table_of(truth: list[float], value: list[float], parts: Parts | None = None) -> Array:
    return energies(Measure("y", parts), {"y": np.array(truth, np.float32)}, np.array(value, np.float32))


def test_the_relative_error() -> None:
    assert measured([3, -4], [3, -4]) == 0
    assert measured([3, -4], [3, -3]) == pytest.approx(1 / 25)


def test_a_silent_sample_counts_as_a_tenth_of_the_others() -> None:
    loud, quiet = np.array([[8.0, 2.0]]), np.array([[0.0, 1.0]])
    assert is_silent(np.stack([quiet])) and not is_silent(np.stack([loud, quiet]))
    assert relative_error(np.stack([loud, quiet])) == pytest.approx((2 / 8 + 1 / 0.4) / 2)
    assert decibels(np.stack([loud, quiet])) == pytest.approx(
        -5 * (np.log10(2 / 8) / 2 + np.log10(1 / 0.4) / 2 + np.log10(3 / 8))
    )


def test_parts_count_as_much_as_the_whole() -> None:
    truth, parts = [300.0, 0.5, 0.0], Parts(np.array([0, 1, 2]), 3)
    lost = measured(truth, [300.0, 0.0, 0.0], parts)  # the quiet part altogether; the silent one has no say
    assert lost == pytest.approx((0.25 / 90000.25 + (0 + 1) / 2) / 2)
    assert measured(truth, [300.0, 9.5, 0.0], parts) == pytest.approx((81 / 90000.25 + 1 / 2) / 2)  # no more than lost
    table = table_of(truth, [300.0, 9.5, 0.0], parts)[None]
    assert decibels(table) == pytest.approx((10 * np.log10(90000.25 / 81) + (120 + 0) / 2) / 2)


def test_constants_are_no_parts() -> None:
    assert table_of([3, 4, 9], [3, 3, 9], Parts(np.array([0, 1, 2]), 2)).tolist() == [[9, 0], [16, 1]]


def test_decibels_are_of_all_samples_and_of_each() -> None:
    table = np.array([[[100.0, 1.0]], [[100.0, 0.01]]])  # 20 and 40 dB, together 10·log10(200 / 1.01)
    assert decibels(table) == pytest.approx((30 + 10 * np.log10(200 / 1.01)) / 2)
    assert decibels(np.array([[[1.0, 0.0]]])) == 120


def test_decibels_of_parts() -> None:
    table = np.array([[[1000.0, 1.0], [1.0, 1.0], [0.0, 0.0]]])
    whole = 10 * np.log10(1001 / 2)
    assert decibels(table) == pytest.approx((whole + (30 + 0) / 2) / 2)


def heads() -> Graph:
    """Two heads of 2 and 3 channels, joined, turned to [1, 12, 5] and joined with those of a coarser map."""
    rng = np.random.default_rng(0)
    build = GraphBuilder()
    x = build.input("x", (1, 4, 3, 6))

    def conv(source: object, channels: int, **window: object) -> object:
        kernel = rng.normal(0, 1, (channels, 1, 1, 6)).astype(np.float32)
        return build("CONV_2D", source, kernel, None, **window_node(**window))

    both = build("CONCATENATION", conv(x, 2), conv(x, 3), axis=3, activation="NONE")
    coarse = conv(x, 5, strides=(2, 2))
    rows = build("RESHAPE", both, shape=(1, 12, 5)), build("RESHAPE", coarse, shape=(1, 4, 5))
    return build.output(build("CONCATENATION", *rows, axis=1, activation="NONE", output="y"), conv(x, 4))


def test_parts_of_an_output_are_what_moving_operators_join() -> None:
    graph = heads()
    parts, alone = (output_parts(graph)[name] for name in graph.outputs)
    assert alone is None and parts is not None and parts.count == 3
    joined = parts.labels.reshape(graph[graph.outputs[0]].shape)
    assert np.array_equal(joined[0, :12], np.tile(joined[0, 0], (12, 1)))
    first, second, coarse = joined[0, 0, 0], joined[0, 0, 4], joined[0, 12, 0]
    assert joined[0, 0].tolist() == [first] * 2 + [second] * 3
    assert (joined[0, 12:] == coarse).all()
    assert sorted((first, second, coarse)) == [0, 1, 2]


def test_constants_and_what_is_looked_up_by_computed_indices() -> None:
    """A grid that is joined to results is no part; where a look-up takes from is not known, but its result is one."""
    build = GraphBuilder()
    x, ids = build.input("x", (1, 6, 4)), build.input("ids", (3,), DType.INT32)
    found = build("GATHER", x, ids, axis=1, batch_dims=0)
    other = build("TANH", x)
    grid = np.arange(80, dtype=np.float32).reshape(1, 20, 4)
    graph = build.output(build("CONCATENATION", found, other, grid, axis=1, activation="NONE", output="y"))
    parts = output_parts(graph)["y"]
    assert parts is not None and parts.count == 2
    rows = parts.labels.reshape(29, 4)
    assert (rows == rows[:, :1]).all()
    assert sorted({*rows[:3, 0]} | {*rows[3:9, 0]}) == [0, 1] and (rows[9:] == 2).all()
