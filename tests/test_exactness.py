"""Sums of products where a sloppy engine would be off by one, and the ways to run one engine on many threads.

The bias cancels the mean of the sum, so the code of the result shows the last bits of a sum far beyond 2^24: adding
up in binary32, or in pairs of 16 bits, gives other codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import sgs.ops  # noqa: F401  fills the tables
from fixed_examples import code_feeds, fixed_variants
from sgs.builder import GraphBuilder
from sgs.engine import FixedEngine, run_reference
from sgs.ir import Graph
from sgs.numeric.quantise import Array, QuantParams
from sgs.numeric.types import DType
from sgs.ops import _mac

U8, S16 = DType.UINT8, DType.INT16
SUMS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
CONV: dict[str, Any] = {"strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0), "activation": "NONE"}
ROWS: dict[str, Any] = {"activation": "NONE", "keep_num_dims": True}


def params(scale: float, zero: int, count: int = 1) -> QuantParams:
    return QuantParams(np.full(count, scale), np.full(count, zero, np.int32))


@dataclass(frozen=True)
class Case:
    """One sum of products: codes of x and magnitudes of weights within ranges; channels take turns in sign."""

    op: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    kinds: tuple[DType, DType]
    codes: tuple[int, int]
    weights: tuple[int, int]
    scale: float = 1.0  # of the result; x and weight have 1
    zero: int = 10  # of a UINT8 operand
    bias: int | None = None  # None cancels the mean
    parts: int = 0  # parts that some kernel must have been split into
    narrow: DType = DType.INT8  # weights beside UINT8
    attrs: dict[str, Any] = field(default_factory=lambda: CONV)

    def graph(self) -> Graph:
        rng = np.random.default_rng(3)
        wide, axis = self.kinds[0] is S16, 3 if self.op == "DEPTHWISE_CONV_2D" else 0
        channels, build = self.weight[axis], GraphBuilder()
        signs = np.where(np.arange(channels) % 2, -1, 1)
        signs = signs.reshape([-1 if a == axis else 1 for a in range(len(self.weight))])
        weight = rng.integers(self.weights[0], self.weights[1] + 1, self.weight) * signs
        zero = 0 if wide else self.zero
        products = weight.sum(tuple(a for a in range(weight.ndim) if a != axis))
        if self.op == "TRANSPOSE_CONV":  # a result meets one stride class
            products = products // int(np.prod(self.attrs["strides"]))
        bias = -products * sum(self.codes) // 2 + products * zero
        if self.bias is not None:
            bias = np.full(channels, self.bias) + np.arange(channels)
        x = build.input("x", self.x, self.kinds[0])
        x.quant = params(1, zero)
        kind = (S16, np.int16) if wide else (self.narrow, np.int8)
        w = build.graph.add_constant("w", weight.astype(kind[1]), quant=params(1, 0, channels), dtype=kind[0])
        b = build.graph.add_constant("b", bias.astype(np.int64 if wide else np.int32))
        y = build(self.op, x, w, b, output="y", **self.attrs)
        y.dtype, y.quant = self.kinds[1], params(self.scale, 128 if self.kinds[1] is U8 else 0)
        return build.output(y)

    def feeds(self, seed: int) -> dict[str, Array]:
        codes = np.random.default_rng(seed).integers(self.codes[0], self.codes[1] + 1, self.x)
        return {"x": codes.astype(self.kinds[0].numpy)}


UP = {"strides": (2, 2), "size": (10, 10), "pads": (1, 1, 1, 1), "activation": "NONE"}
TOP, TALL = (32700, 32767), (30000, 30100)
CASES = {
    "conv 8 bit in blocks": Case(
        "CONV_2D", (1, 6, 6, 128), (8, 3, 3, 128), (U8, S16), (112, 143), (127, 127), zero=0, parts=3
    ),
    "conv 8 bit, extreme codes": Case("CONV_2D", (1, 6, 6, 128), (8, 3, 3, 128), (U8, S16), (240, 255), (110, 127)),
    "conv 8 bit to 8 bit": Case("CONV_2D", (1, 7, 7, 64), (6, 3, 3, 64), (U8, U8), (240, 255), (120, 127), 128.0),
    "pointwise 8 bit": Case("CONV_2D", (1, 7, 7, 600), (6, 1, 1, 600), (U8, S16), (240, 255), (120, 127)),
    "pointwise 8 bit to 8 bit": Case("CONV_2D", (1, 7, 7, 600), (6, 1, 1, 600), (U8, U8), (240, 255), (120, 127), 128),
    "bias beside an exact sum": Case(
        "CONV_2D", (1, 6, 6, 16), (4, 3, 3, 16), (U8, S16), (240, 255), (100, 127), 8192, bias=1 << 24
    ),
    "bias beyond binary32": Case(
        "CONV_2D", (1, 6, 6, 16), (4, 3, 3, 16), (U8, S16), (240, 255), (100, 127), 16384, bias=(1 << 28) + 1, parts=1
    ),
    "conv 16 bit, bytes in parts": Case(
        "CONV_2D", (1, 5, 5, 600), (4, 3, 3, 600), (S16, S16), TALL, TALL, 4096, parts=5
    ),
    "conv 16 bit, extreme codes": Case("CONV_2D", (1, 5, 5, 64), (4, 3, 3, 64), (S16, S16), TOP, TOP, 2048, parts=1),
    "conv 16 bit, small weights": Case("CONV_2D", (1, 6, 6, 32), (4, 3, 3, 32), (S16, S16), TOP, (1, 60), 1, parts=1),
    "conv 16 bit in two parts": Case("CONV_2D", (1, 6, 6, 2), (4, 3, 3, 2), (S16, S16), TOP, (1000, 1600), 8),
    "conv 16 bit, huge bias": Case(
        "CONV_2D", (1, 6, 6, 2), (4, 3, 3, 2), (S16, S16), TOP, (1000, 1600), 2.0**36, bias=(1 << 50) + 1, parts=1
    ),
    "conv 16 bit of zeros": Case(
        "CONV_2D", (1, 5, 5, 8), (4, 3, 3, 8), (S16, S16), TOP, (0, 0), 2.0**26, bias=(1 << 40) + 1, parts=1
    ),
    "pointwise 16 bit": Case("CONV_2D", (1, 7, 7, 600), (6, 1, 1, 600), (S16, S16), TALL, TALL, 1024),
    "depthwise 8 bit": Case("DEPTHWISE_CONV_2D", (1, 9, 9, 6), (1, 5, 5, 6), (U8, S16), (200, 255), (100, 127)),
    "depthwise 16 bit": Case("DEPTHWISE_CONV_2D", (1, 12, 12, 6), (1, 9, 9, 6), (S16, S16), TALL, TOP, 1024, parts=1),
    # 16 and more channels: onnxruntime then holds them in blocks, and merges additions into convolutions
    "depthwise 16 bit in two parts": Case(
        "DEPTHWISE_CONV_2D", (1, 20, 20, 32), (1, 5, 5, 32), (S16, S16), TALL, (400, 590), 8
    ),
    "conv 16 bit in two parts, many channels": Case(
        "CONV_2D", (1, 20, 20, 2), (32, 3, 3, 2), (S16, S16), TALL, (1000, 1600), 8
    ),
    "bias beside an exact sum, many channels": Case(
        "DEPTHWISE_CONV_2D", (1, 20, 20, 32), (1, 3, 3, 32), (U8, S16), (240, 255), (100, 127), 512, bias=(1 << 24) - 64
    ),
    "conv 4 bit": Case(
        "CONV_2D", (1, 5, 5, 1300), (8, 3, 3, 1300), (U8, S16), (240, 255), (6, 7), 16, parts=2, narrow=DType.INT4
    ),
    "conv 4 bit to 8 bit": Case(
        "CONV_2D", (1, 7, 7, 64), (6, 3, 3, 64), (U8, U8), (200, 255), (-7, 7), 128.0, narrow=DType.INT4
    ),
    "pointwise 4 bit": Case(
        "CONV_2D", (1, 7, 7, 600), (6, 1, 1, 600), (U8, S16), (240, 255), (-7, 7), 2, narrow=DType.INT4
    ),
    "depthwise 4 bit": Case(
        "DEPTHWISE_CONV_2D", (1, 9, 9, 6), (1, 5, 5, 6), (U8, S16), (200, 255), (5, 7), narrow=DType.INT4
    ),
    "rows 4 bit": Case(
        "FULLY_CONNECTED", (20, 3000), (6, 3000), (U8, S16), (240, 255), (6, 7), 8, attrs=ROWS, narrow=DType.INT4
    ),
    "transposed 4 bit": Case(
        "TRANSPOSE_CONV", (1, 5, 5, 300), (4, 4, 4, 300), (U8, S16), (112, 143), (6, 7), attrs=UP, narrow=DType.INT4
    ),
    "rows 8 bit": Case("FULLY_CONNECTED", (20, 3000), (6, 3000), (U8, S16), (240, 255), (120, 127), attrs=ROWS),
    "rows 8 bit to 8 bit": Case(
        "FULLY_CONNECTED", (20, 3000), (6, 3000), (U8, U8), (240, 255), (120, 127), 512, attrs=ROWS
    ),
    "few rows 16 bit": Case("FULLY_CONNECTED", (3, 3000), (6, 3000), (S16, S16), TALL, TOP, 4096, attrs=ROWS),
    "few rows 16 bit, lowest codes": Case(
        "FULLY_CONNECTED", (3, 3000), (6, 3000), (S16, S16), (-32768, -32700), TOP, 4096, attrs=ROWS
    ),
    "few rows 16 bit, huge bias": Case(
        "FULLY_CONNECTED", (3, 90), (6, 90), (S16, S16), TALL, TOP, 2.0**36, bias=(1 << 50) + 1, attrs=ROWS
    ),
    "many rows 16 bit": Case("FULLY_CONNECTED", (20, 3000), (6, 3000), (S16, S16), TALL, TOP, 4096, attrs=ROWS),
    "transposed 8 bit in blocks": Case(
        "TRANSPOSE_CONV", (1, 5, 5, 300), (4, 4, 4, 300), (U8, S16), (112, 143), (120, 127), attrs=UP, parts=2
    ),
    "transposed 8 bit to 8 bit": Case(
        "TRANSPOSE_CONV", (1, 5, 5, 40), (4, 4, 4, 40), (U8, U8), (240, 255), (120, 127), 128, attrs=UP
    ),
    "transposed 16 bit": Case(
        "TRANSPOSE_CONV", (1, 5, 5, 300), (4, 4, 4, 300), (S16, S16), TALL, TALL, 1024, attrs=UP, parts=2
    ),
}


@pytest.fixture
def most_parts(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The largest number of parts that a kernel was split into, 0 when none was."""
    split, counts = _mac._split, [0]

    def counted(kernel: Array, reach: int) -> list[Array]:
        parts = split(kernel, reach)
        counts.append(len(parts))
        return parts

    monkeypatch.setattr(_mac, "_split", counted)
    return lambda: max(counts)


@pytest.fixture
def old_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgs.engine.lowering.has_exact_dot_products", lambda: False)


def assert_equal(graph: Graph, engine: FixedEngine, feeds: dict[str, Array]) -> dict[str, Array]:
    truth, values = run_reference(graph, feeds), engine.run(feeds)
    for name in graph.outputs:
        assert np.array_equal(values[name], truth[name]), f"{np.sum(values[name] != truth[name])} differ in {name}"
    return truth


@pytest.mark.parametrize("name", CASES)
def test_large_sums(name: str, most_parts: Callable[[], int]) -> None:
    case = CASES[name]
    graph = case.graph()
    engine = FixedEngine(graph, threads=1)
    assert most_parts() >= case.parts
    for seed in range(2):
        codes = assert_equal(graph, engine, case.feeds(seed))["y"]
        if case.bias is None:  # codes that are not clamped show the last bits
            inside = (codes > case.kinds[1].qmin) & (codes < case.kinds[1].qmax)
            assert inside.mean() > 0.2 and np.unique(codes[inside]).size > 10


@pytest.mark.parametrize("name", CASES)
def test_large_sums_without_exact_dot_products(name: str, old_processor: None) -> None:
    graph = CASES[name].graph()
    assert_equal(graph, FixedEngine(graph, threads=1), CASES[name].feeds(2))


@pytest.mark.parametrize("op", SUMS)
def test_examples_without_exact_dot_products(op: str, old_processor: None) -> None:
    for _, graph in fixed_variants(op):
        assert_equal(graph, FixedEngine(graph, threads=1), code_feeds(graph, 4))


@pytest.mark.parametrize("name", ["conv 8 bit to 8 bit", "conv 16 bit, bytes in parts", "few rows 16 bit"])
def test_large_sums_with_threads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgs.engine.fixed.LARGE_SESSION", -1)
    graph = CASES[name].graph()
    assert_equal(graph, FixedEngine(graph, threads=2), CASES[name].feeds(5))


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("op", ["CONV_2D", "SOFTMAX", "TABLE"])
def test_many_samples_come_back_in_order(op: str, threads: int) -> None:
    graph = next(iter(fixed_variants(op)))[1]
    feeds = [code_feeds(graph, seed) for seed in range(7)]
    one_by_one = FixedEngine(graph, threads=1)
    wanted = [one_by_one.run(sample) for sample in feeds]
    name = graph.outputs[0]
    assert len({sample[name].tobytes() for sample in wanted}) == len(feeds)
    engine = FixedEngine(graph, threads=threads)
    for _ in range(2):  # lanes are kept from one call to the next
        found = list(engine.map(iter(feeds)))
        assert [sample[name].tobytes() for sample in found] == [sample[name].tobytes() for sample in wanted]
