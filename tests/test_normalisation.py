"""Normalisations in means and elementwise operators are found before quantisation, whoever spelled them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fixed_examples import float_feeds, quantised
from sgs.builder import GraphBuilder
from sgs.engine import FixedEngine, FloatEngine, run_reference
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import Array
from sgs.passes.pipeline import optimise
from sgs.quant.boundary import codes_of_inputs, real_outputs
from sgs.quant.prepare import prepare

Spelled = Callable[[GraphBuilder, Tensor], Tensor]
AXES = (2,)


def number(value: float) -> Array:
    return np.array([value], np.float32)


def mean_square(build: GraphBuilder, x: Tensor, epsilon: float) -> Tensor:
    return plain(build, "ADD", mean(build, plain(build, "MUL", x, x)), number(epsilon))


def mean(build: GraphBuilder, x: Tensor, op: str = "MEAN") -> Tensor:
    return build(op, x, axes=AXES, keep_dims=True)


def plain(build: GraphBuilder, op: str, a: Tensor | Array, b: Tensor | Array) -> Tensor:
    return build(op, a, b, activation="NONE")


def exporter(build: GraphBuilder, x: Tensor) -> Tensor:
    """ReduceMean, Sub, Mul, ReduceMean, Add, Sqrt, Div."""
    d = plain(build, "SUB", x, mean(build, x))
    return plain(build, "DIV", d, build("SQRT", mean_square(build, d, 1e-5)))


def reciprocal(build: GraphBuilder, x: Tensor) -> Tensor:
    """Two differences, SQUARED_DIFFERENCE, epsilon first, 1 / sqrt, factor first."""
    m = mean(build, x)
    v = mean(build, build("SQUARED_DIFFERENCE", x, m))
    root = build("SQRT", plain(build, "ADD", number(1e-3), v))
    return plain(build, "MUL", plain(build, "DIV", number(1), root), plain(build, "SUB", x, m))


def rsqrt(build: GraphBuilder, x: Tensor) -> Tensor:
    """Root mean square, without a difference."""
    v = plain(build, "ADD", mean(build, build("SQUARE", x)), number(1e-6))
    return plain(build, "MUL", x, build("RSQRT", v))


def norm(build: GraphBuilder, x: Tensor) -> Tensor:
    """x over its Euclidean norm."""
    root = build("SQRT", mean(build, plain(build, "MUL", x, x), "SUM"))
    return plain(build, "DIV", x, build("MAXIMUM", root, number(1e-12)))


def unbiased(build: GraphBuilder, x: Tensor) -> Tensor:
    """The variance of a sample, epsilon on the standard deviation, a fused activation."""
    d = plain(build, "SUB", x, mean(build, x))
    v = plain(build, "DIV", mean(build, plain(build, "MUL", d, d), "SUM"), number(10))
    return build("DIV", d, plain(build, "ADD", build("SQRT", v), number(1e-3)), activation="RELU")


def network(spell: Spelled, scale: float) -> Graph:
    """x · scale, normalised."""
    build = GraphBuilder()
    x = build.input("x", (3, 5, 11))
    y = spell(build, plain(build, "MUL", x, np.geomspace(1, scale, 5, dtype=np.float32).reshape(5, 1)))
    return build.output(y)


def tensorflow(build: GraphBuilder, x: Tensor) -> Tensor:
    """Multiplied out: x · (rsqrt · factor) + (offset - mean · (rsqrt · factor))."""
    m = mean(build, x)
    v = mean(build, build("SQUARED_DIFFERENCE", x, m))
    f = plain(
        build, "MUL", build("RSQRT", plain(build, "ADD", v, number(1e-3))), np.linspace(1, 2, 11, dtype=np.float32)
    )
    rest = plain(build, "SUB", np.linspace(-1, 1, 11, dtype=np.float32), plain(build, "MUL", m, f))
    return plain(build, "ADD", plain(build, "MUL", x, f), rest)


def test_what_tensorflow_multiplies_out_is_factored() -> None:
    graph = network(tensorflow, 2)
    feeds = float_feeds(graph, 5)
    before = FloatEngine(graph, threads=1).run(feeds)
    optimise(graph)
    assert [node.op for node in prepare(graph).nodes] == ["MUL", "NORMALISE", "MUL", "ADD"]
    after = FloatEngine(graph, threads=1).run(feeds)
    assert all(np.allclose(before[name], after[name], atol=1e-5) for name in graph.outputs)


SPELLED = (exporter, reciprocal, rsqrt, norm, unbiased)


@pytest.mark.parametrize("spell", SPELLED)
def test_spellings_are_found(spell: Spelled) -> None:
    assert [node.op for node in prepare(network(spell, 2)).nodes] == ["MUL", "NORMALISE"]


@pytest.mark.parametrize("spell", SPELLED)
def test_variances_of_any_size_keep_their_precision(spell: Spelled) -> None:
    """Rows whose variances are ten thousand times apart."""
    graph = network(spell, 1e-2)
    fixed, feeds = quantised(graph, 16), float_feeds(graph, 7)
    codes = codes_of_inputs(fixed, feeds)
    values, truth = FixedEngine(fixed, threads=1).run(codes), run_reference(fixed, codes)
    expected = FloatEngine(graph, threads=1).run(feeds)
    for name, real in real_outputs(fixed, values, fixed.outputs).items():
        assert np.array_equal(values[name], truth[name])
        error = np.sqrt(np.mean((real - expected[name]) ** 2, axis=(0, 2)))
        assert (error < 0.005 * expected[name].std((0, 2))).all()


def other_mean(build: GraphBuilder, x: Tensor) -> Tensor:
    """The difference from another mean than that of what is divided by: nothing but a division by the norm."""
    d = plain(build, "SUB", x, build("MEAN", x, axes=(1,), keep_dims=True))
    return plain(build, "DIV", d, build("SQRT", mean_square(build, d, 1)))


def other_tensor(build: GraphBuilder, x: Tensor) -> Tensor:
    """x over the root mean square of something else."""
    y = build("TANH", x)
    return plain(build, "DIV", x, build("SQRT", mean_square(build, y, 1)))


def negative(build: GraphBuilder, x: Tensor) -> Tensor:
    """Less than the mean square under the root."""
    root = build("SQRT", mean_square(build, x, -1e-3))
    return plain(build, "DIV", x, root)


def squared_rectified(build: GraphBuilder, x: Tensor) -> Tensor:
    """The squares of a clamped difference."""
    d = build("SUB", x, mean(build, x), activation="RELU")
    return plain(build, "DIV", d, build("SQRT", mean_square(build, d, 1)))


@pytest.mark.parametrize(
    "spell, centre", [(other_mean, False), (other_tensor, None), (negative, None), (squared_rectified, False)]
)
def test_what_only_looks_like_one(spell: Spelled, centre: bool | None) -> None:
    found = [node.attrs["centre"] for node in prepare(network(spell, 2)).nodes if node.op == "NORMALISE"]
    assert found == ([] if centre is None else [centre])
