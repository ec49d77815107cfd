"""The measure that calibration decides by, and the parts of outputs that it looks at."""

from __future__ import annotations

import numpy as np
import pytest

from sgs.builder import GraphBuilder
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.ops._window import window_node
from sgs.quant.fidelity import decibels, energies, output_parts, relative_error

WHOLE = np.zeros(2, np.int64)


def measured(truth: list[float], value: list[float], part: Array = WHOLE) -> float:
    return relative_error(energies(np.array(truth, np.float32), np.array(value, np.float32), part))


def test_the_relative_error() -> None:
    assert measured([3, -4], [3, -4]) == 0
    assert measured([3, -4], [3, -3]) == pytest.approx(1 / 25)
    assert measured([0, 0], [1e-3, 1e-3]) > 1  # silence disturbed
    assert measured([0, 0], [0, 0]) == 0


def test_parts_count_as_much_as_the_whole() -> None:
    truth, part = [300.0, 0.5, 0.0], np.array([0, 1, 2])
    lost = measured(truth, [300.0, 0.0, 0.0], part)  # the quiet part altogether; the silent one has no say
    assert lost == pytest.approx((0.25 / 90000.25 + (0 + 1) / 2) / 2)
    assert measured(truth, [300.0, 9.5, 0.0], part) == pytest.approx((81 / 90000.25 + 1 / 2) / 2)  # no more than lost


def test_decibels_are_of_all_samples_and_of_each() -> None:
    table = np.array([[[100.0, 1.0]], [[100.0, 0.01]]])  # 20 and 40 dB, together 10·log10(200 / 1.01)
    assert decibels(table) == pytest.approx((30 + 10 * np.log10(200 / 1.01)) / 2)
    quiet = np.array([[[100.0, 1.0]], [[0.0, 1.0]]])  # the silent one counts as a tenth of 50
    assert decibels(quiet) == pytest.approx(((20 + 10 * np.log10(5)) / 2 + 10 * np.log10(100 / 2)) / 2)
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
    joined, alone = (output_parts(graph)[name].reshape(graph[name].shape) for name in graph.outputs)
    assert not alone.any()
    assert np.array_equal(joined[0, :12], np.tile(joined[0, 0], (12, 1)))
    first, second, coarse = joined[0, 0, 0], joined[0, 0, 4], joined[0, 12, 0]
    assert joined[0, 0].tolist() == [first] * 2 + [second] * 3
    assert (joined[0, 12:] == coarse).all()
    assert sorted((first, second, coarse)) == [0, 1, 2]
