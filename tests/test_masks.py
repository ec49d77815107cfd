"""Masks ahead of a softmax leave the other values their codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fixed_examples import float_feeds, quantised
from sgs.builder import GraphBuilder
from sgs.engine import FixedEngine, FloatEngine
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import Array
from sgs.quant.boundary import codes_of_inputs, real_outputs
from sgs.quant.masks import fading_tensors
from sgs.quant.prepare import range_sources
from sgs.quant.statistics import measure_extrema

SHAPE = (2, 3, 7, 7)
MARKERS = (-1e4, float(np.finfo(np.float32).min), -np.inf)


def triangle(value: float) -> Array:
    """0 where a row may look, `value` elsewhere."""
    return np.where(np.tri(7, dtype=bool), 0, value).astype(np.float32)


def masked(mask: Any, between: Any = None) -> Graph:
    """softmax(x + mask), the mask a constant or a function of the builder and x; `between` adds nodes ahead."""
    build = GraphBuilder()
    x = build.input("x", SHAPE)
    given = mask if isinstance(mask, np.ndarray) else mask(build, x)
    scores = build("ADD", x, given, activation="NONE", output="scores")
    y: Tensor = scores if between is None else between(build, scores)
    return build.output(build("SOFTMAX", y, beta=1.0, output="y"))


def error(graph: Graph) -> float:
    fixed, feeds = quantised(graph, 16), float_feeds(graph, 11)
    values = FixedEngine(fixed, threads=1).run(codes_of_inputs(fixed, feeds))
    real = real_outputs(fixed, values, fixed.outputs)["y"]
    return float(np.abs(real - FloatEngine(graph, threads=1).run(feeds)["y"]).max())


@pytest.mark.parametrize("marker", MARKERS)
def test_constant_masks(marker: float) -> None:
    assert error(masked(triangle(marker))) < 3e-4


@pytest.mark.parametrize("marker", MARKERS[:2])
def test_computed_masks(marker: float) -> None:
    """(x < 0) · marker, by a clamp."""

    def mask(build: GraphBuilder, x: Tensor) -> Tensor:
        sign = build("SIGN", build("RELU", build("SUB", x, np.float32([1.0]), activation="NONE")))
        return build("MUL", sign, np.array([marker], np.float32), activation="NONE")

    assert error(masked(mask)) < 3e-4


def flat(build: GraphBuilder, x: Tensor) -> Tensor:
    return build("RESHAPE", x, shape=(6, 7, 7))


def test_masked_tensors_are_measured_as_far_as_they_matter() -> None:
    graph = masked(triangle(-1e4), flat)
    assert set(fading_tensors(graph)) == {"scores", "reshape"}
    feeds = [float_feeds(graph, seed) for seed in range(2)]
    low, high = measure_extrema(graph, feeds, threads=1).tensors["scores"].span
    assert -15 <= low <= -9 and high == max(feed["x"].max() for feed in feeds)
    assert error(graph) < 3e-4


def test_others_are_measured_whole() -> None:
    """Rows that a reshape takes apart, tensors that something else reads, and outputs."""
    apart = masked(triangle(-1e4), lambda build, x: build("RESHAPE", x, shape=(2, 3, 49)))
    read = masked(triangle(-1e4), lambda build, x: build("ADD", x, build("TANH", x), activation="NONE", output="sum"))
    out = masked(triangle(-1e4))
    out.outputs.append("scores")
    assert [set(fading_tensors(graph)) for graph in (apart, read, out)] == [{"reshape"}, {"sum"}, set()]
    assert not range_sources(out) and not range_sources(apart)  # -1e4 may be a value where somebody reads it as one
    endless = masked(triangle(-1e38))
    endless.outputs.append("scores")
    assert range_sources(endless) == {"scores": "x"}
