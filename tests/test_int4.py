"""4-bit weights in every stage: what they compute, how they lie in files and memories, what they cost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sgs.ops  # noqa: F401  fills the tables
from byte_machine import execute
from fixed_examples import code_feeds
from litert_judge import litert_results
from sgs.builder import GraphBuilder
from sgs.compile import compile_graph
from sgs.config.chips import Chip, load_chip
from sgs.engine import FixedEngine, run_reference
from sgs.img import Compute, Dma, Image, Space, image_bytes, read_image, write_image
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import QuantParams, quantise_weights, symmetric_params
from sgs.numeric.types import DType
from sgs.registry import QUANTISE
from sgs.sim import read_sim, sim_bytes, write_sim
from sgs.sim.container import read_container
from test_compile import Fixed, check_frames, through_file

U8, S16, S4 = DType.UINT8, DType.INT16, DType.INT4
WINDOW: dict[str, Any] = {"strides": (1, 1), "dilations": (1, 1), "pads": (1, 1, 1, 1), "activation": "NONE"}
POINT = WINDOW | {"pads": (0, 0, 0, 0)}
ROWS: dict[str, Any] = {"activation": "NONE", "keep_num_dims": True}
FRAMES = ROWS | {"keep_num_dims": False}
UP: dict[str, Any] = {"strides": (2, 1), "size": (10, 8), "pads": (0, 1, 1, 1), "activation": "RELU"}


@pytest.fixture(scope="module")
def chip() -> Chip:
    return load_chip("pcupid")


@dataclass(frozen=True)
class Sum:
    """A sum of products: shapes of its operand and weights."""

    op: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    attrs: dict[str, Any] = field(default_factory=lambda: WINDOW)

    def add(self, f: Fixed, x: Tensor, weights: DType, result: DType) -> Tensor:
        """This sum of x; biases are of the type that goes with x."""
        axis = QUANTISE[self.op].channel_axis
        channels = self.weight[axis]
        real = f.rng.normal(0, 0.4, self.weight)
        quant = symmetric_params(np.abs(np.moveaxis(real, axis, 0)).reshape(channels, -1).max(1), weights, axis)
        codes = quantise_weights(real, quant, weights)
        weight = f.build.graph.add_constant("w", codes, quant=quant, dtype=weights)
        kind = np.int32 if x.dtype is U8 else np.int64
        bias = f.build.constant("b", f.rng.integers(-500, 500, channels).astype(kind))
        return f(self.op, x, weight, bias, dtype=result, **self.attrs)

    def graph(self, x: DType = U8, weights: DType = S4, result: DType = S16) -> Graph:
        f = Fixed()
        return f.done(self.add(f, f.input("x", self.x, x), weights, result))


SUMS = {  # all weights but those of "even" are odd in number
    "conv": Sum("CONV_2D", (1, 7, 9, 3), (5, 3, 3, 3)),
    "conv, even": Sum("CONV_2D", (1, 7, 9, 4), (6, 3, 3, 4)),
    "pointwise": Sum("CONV_2D", (1, 7, 9, 5), (7, 1, 1, 5), POINT),
    "grouped": Sum("CONV_2D", (1, 7, 9, 9), (15, 3, 3, 3), WINDOW | {"strides": (2, 1)}),
    "grouped, a channel a group": Sum("CONV_2D", (1, 7, 9, 5), (15, 3, 1, 1), WINDOW | {"pads": (1, 0, 1, 0)}),
    "depthwise": Sum("DEPTHWISE_CONV_2D", (1, 7, 9, 5), (1, 3, 3, 5)),
    "depthwise, even": Sum("DEPTHWISE_CONV_2D", (1, 7, 9, 8), (1, 3, 3, 8)),
    "depthwise, three a channel": Sum("DEPTHWISE_CONV_2D", (1, 7, 9, 5), (1, 3, 3, 15), WINDOW | {"dilations": (1, 2)}),
    "depthwise, two a channel": Sum("DEPTHWISE_CONV_2D", (1, 7, 9, 5), (1, 3, 3, 10)),
    "rows": Sum("FULLY_CONNECTED", (3, 35), (7, 35), ROWS),
    "all of a frame": Sum("FULLY_CONNECTED", (3, 5, 7), (9, 35), FRAMES | {"activation": "RELU6"}),
    "transposed": Sum("TRANSPOSE_CONV", (1, 5, 8, 3), (5, 3, 3, 3), UP),
}


# -- equal to the bit --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "kinds", [(U8, U8), (U8, S16), (S16, S16), (S16, U8)], ids=lambda kinds: "-".join(kind.name for kind in kinds)
)
@pytest.mark.parametrize("name", SUMS)
def test_every_stage_computes_the_same(
    name: str, kinds: tuple[DType, DType], chip: Chip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reference, engine, both batch modes, and a .sim that is read back."""
    monkeypatch.setattr("sgs.engine.fixed.LARGE_SESSION", -1)
    graph = SUMS[name].graph(kinds[0], S4, kinds[1])
    write_sim(graph, tmp_path / "x.sim", stage="fixed")
    again = read_sim(tmp_path / "x.sim").graph
    feeds = code_feeds(graph, 0)
    truth = run_reference(graph, feeds)[graph.outputs[0]]
    assert np.unique(truth).size > 8
    for threads in (1, 2):
        assert np.array_equal(FixedEngine(again, threads=threads).run(feeds)[graph.outputs[0]], truth)
    check_frames(again, through_file(again, chip, batches=3), 2)
    check_frames(again, through_file(again, chip, batch_mode="one_buf", batches=(1, 3)), 3)


def mixed() -> Graph:
    """Sums of 4, 8 and 16 bits in a row, a branch of another precision added."""
    f = Fixed()
    x = f.input("x", (1, 9, 7, 3), U8)
    a = Sum("CONV_2D", x.shape, (5, 3, 3, 3)).add(f, x, S4, U8)
    b = Sum("DEPTHWISE_CONV_2D", a.shape, (1, 3, 3, 5)).add(f, a, DType.INT8, S16)
    c = Sum("CONV_2D", b.shape, (5, 1, 1, 5), POINT).add(f, b, S16, S16)
    total = f("ADD", b, c, bound=9.0, activation="RELU")
    d = Sum("TRANSPOSE_CONV", total.shape, (3, 2, 2, 5), UP | {"size": (18, 8), "pads": (0, 0, 0, 0)})
    e = f("QUANTIZE", d.add(f, total, S16, S16), dtype=U8)
    width = e.elements
    return f.done(Sum("FULLY_CONNECTED", e.shape, (3, width), FRAMES)
                  .add(f, e, S4, S16), c)  # fmt: skip


def test_a_network_of_all_precisions(chip: Chip) -> None:
    graph = mixed()
    assert {t.dtype for t in graph.tensors.values() if t.name.startswith("w")} == {S4, DType.INT8, S16}
    for size in (chip.sram_bytes, 2500):
        small = replace(chip, sram_bytes=size)
        check_frames(graph, through_file(graph, small, batches=2), 2)
        check_frames(graph, through_file(graph, small, batch_mode="one_buf", batches=(2, 4)), 4)


# -- in pieces ---------------------------------------------------------------------------------------------------------
def pieces(image: Image, name: str) -> set[tuple[int, ...]]:
    """Shapes of the pieces of a constant that kernels take."""
    refs = [image.tensors[index] for kernel in image.kernels for index in kernel.inputs if index != -1]
    return {ref.shape for ref in refs if ref.name == name}


def weights_read(image: Image) -> int:
    """Bytes that are loaded of the weights."""
    loads = [c for c in image.programs[0].commands if isinstance(c, Dma) and c.source.space is Space.WEIGHTS]
    return sum(int(np.prod(c.extents)) * c.itemsize for c in loads)


CUT = {  # sums of one pixel or row → shapes of the pieces that channels come in
    "odd number a channel": (Sum("CONV_2D", (1, 1, 1, 301), (21, 1, 1, 301), POINT), {(6, 1, 1, 301), (3, 1, 1, 301)}),
    "rows of odd length": (Sum("FULLY_CONNECTED", (1, 301), (21, 301), ROWS), {(6, 301), (3, 301)}),
    "pairs": (Sum("DEPTHWISE_CONV_2D", (1, 1, 1, 300), (1, 3, 3, 300)), {(1, 3, 3, 96), (1, 3, 3, 12)}),
}


@pytest.mark.parametrize(("one", "shapes"), CUT.values(), ids=CUT)
def test_weights_come_in_whole_bytes(one: Sum, shapes: set[tuple[int, ...]], chip: Chip) -> None:
    """Channels are cut where a byte begins, and no byte is read twice."""
    graph = one.graph()
    image = through_file(graph, replace(chip, sram_bytes=2600))
    assert pieces(image, "w") == shapes
    check_frames(graph, image, 1)
    feeds, name = code_feeds(graph, 1), graph.outputs[0]
    assert np.array_equal(execute(image, feeds)[name], run_reference(graph, feeds)[name])
    codes, biases = graph["w"].elements, graph["b"].elements
    assert weights_read(image) == (codes + 1) // 2 + 4 * biases


def test_rows_that_end_inside_a_byte_are_not_cut(chip: Chip) -> None:
    """Of an odd number of channels, what belongs to a few begins in the middle of a byte in every other row: it is
    rows and columns of the picture that come in pieces."""
    graph = Sum("DEPTHWISE_CONV_2D", (1, 9, 9, 75), (1, 3, 3, 75)).graph()
    image = through_file(graph, replace(chip, sram_bytes=6000))
    assert pieces(image, "w") == {(1, 3, 3, 75)}
    assert sum(isinstance(c, Compute) for c in image.programs[0].commands) > 1
    check_frames(graph, image, 1)


# -- bytes in files ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", SUMS)
def test_two_weights_a_byte(name: str, chip: Chip, tmp_path: Path) -> None:
    """In the .sim, in the weights of an .img and where they are loaded; one where 8 bits are a weight."""
    sizes = {}
    for dtype in (S4, DType.INT8):
        graph = SUMS[name].graph(U8, dtype)
        write_sim(graph, tmp_path / "x.sim", stage="fixed")
        file = read_container(tmp_path / "x.sim", stage="test", kind="a .sim")
        (held,) = (tensor.raw for tensor in file.tensors if tensor.name == "w")
        assert held is not None
        write_image(compile_graph(graph, chip), tmp_path / "x.img")
        image = read_image(tmp_path / "x.img")
        sizes[dtype] = held.size, image.weights.size, weights_read(image)
    count, biases = graph["w"].elements, 4 * graph["b"].elements
    half, padding = (count + 1) // 2, -(-((count + 1) // 2) // 64) * 64
    assert sizes[S4] == (half, padding + biases, half + biases)
    assert sizes[DType.INT8] == (count, -(-count // 64) * 64 + biases, count + biases)


def test_a_large_image_is_half_as_large(chip: Chip) -> None:
    """Codes that are spread over all values leave the coder of the weights nothing to gain."""
    sizes = []
    for dtype in (S4, DType.INT8):
        f = Fixed()
        x = f.input("x", (1, 1, 1, 511), U8)
        codes = f.rng.integers(dtype.qmin, dtype.qmax + 1, (201, 1, 1, 511)).astype(np.int8)
        quant = symmetric_params(np.full(201, 0.5), dtype)
        w = f.build.graph.add_constant("w", codes, quant=quant, dtype=dtype)
        b = f.build.constant("b", np.zeros(201, np.int32))
        sizes.append(len(image_bytes(compile_graph(f.done(f("CONV_2D", x, w, b, **POINT)), chip))))
    count = 201 * 511
    assert abs(sizes[1] - count) < 0.02 * count + 4000 and abs(sizes[0] - count / 2) < 0.02 * count + 4000


def test_litert_reads_the_codes(tmp_path: Path) -> None:
    """LiteRT has its own idea of how 4-bit elements lie in a file."""
    codes = np.random.default_rng(2).integers(-7, 8, (5, 7)).astype(np.int8)
    build = GraphBuilder()
    x = build.input("x", (5, 7))
    weight = build.graph.add_constant("w", codes, quant=QuantParams(np.array([0.25]), np.array([0])), dtype=S4)
    graph = build.output(build("ADD", x, build("DEQUANTIZE", weight), output="y", activation="NONE"))
    (found,) = litert_results(sim_bytes(graph, "float"), {"x": np.zeros((5, 7), np.float32)}).values()
    assert np.array_equal(found, codes * np.float32(0.25))
