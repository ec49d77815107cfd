"""Layers band by band: the same codes, less traffic, and windows that hold what is still needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from random_graphs import EXACT, check
from sgs.compile import compile_graph
from sgs.compile.cascade import BANDS, Cascade, RowNeeds, by_rows
from sgs.compile.live import reside
from sgs.compile.program import Buffer, Spot, transfer
from sgs.config.chips import Chip, load_chip
from sgs.engine import run_reference
from sgs.img import Compute, Image, OfflineEngine, image_bytes, parse_image
from sgs.ir import Graph
from sgs.numeric.types import DType
from sgs.registry import Copy
from test_compile import Fixed, code_feeds


def pyramid() -> Graph:
    """Windows of 3, strides of 2, pixels doubled again, a skip connection and a join along channels."""
    f = Fixed()
    x = f.input("x", (1, 40, 24, 3), DType.UINT8)
    a = f.conv(x, 8, 3, DType.UINT8)
    b = f.conv(f.conv(a, 8, 3, DType.UINT8), 8, 3, DType.UINT8)
    c = f("MAX_POOL_2D", b, dtype=DType.UINT8, kernel=(2, 2), strides=(2, 2), pads=(0, 0, 0, 0), activation="NONE")
    c.quant = b.quant
    d = f.conv(c, 8, 3, DType.UINT8)
    e = f.build("RESIZE_NEAREST_NEIGHBOR", d, size=(40, 24), half_pixel_centers=False, align_corners=False)
    e.dtype, e.quant = DType.UINT8, d.quant
    b.quant = c.quant = e.quant
    joined = f.build("CONCATENATION", b, e, axis=3)
    joined.dtype, joined.quant = DType.UINT8, e.quant
    y = f.conv(joined, 6, 3)
    return f.done(f("ADD", y, f.conv(a, 6, 1), bound=9.0, activation="NONE"))


def two_ends() -> Graph:
    """Outputs of different heights, one of them read again."""
    f = Fixed()
    x = f.input("x", (1, 36, 20, 4), DType.UINT8)
    a = f.conv(f.conv(x, 8, 3, DType.UINT8), 8, 5, DType.UINT8)
    b = f.conv(a, 8, 1)
    c = f.conv(f.conv(f("QUANTIZE", b, dtype=DType.UINT8), 8, 3, DType.UINT8), 5, 3)
    d = f("AVERAGE_POOL_2D", b, kernel=(3, 3), strides=(3, 2), pads=(0, 0, 0, 0), activation="NONE")
    return f.done(b, c, d)


def skipped_rows() -> Graph:
    """A stride above the kernel between two convolutions: of every second row nothing is needed."""
    f = Fixed()
    a = f.conv(f.input("x", (1, 40, 25, 4), DType.UINT8), 8, 3, DType.UINT8)
    b = f.build("MAX_POOL_2D", a, kernel=(1, 1), strides=(2, 2), pads=(0, 0, 0, 0), activation="NONE")
    return f.done(f.conv(f.typed_as(b, a), 6, 3))


def made_smaller() -> Graph:
    """One row in four, one column in four are read."""
    f = Fixed()
    a = f.conv(f.input("x", (1, 16, 24, 4), DType.UINT8), 8, 3, DType.UINT8)
    b = f.build("RESIZE_NEAREST_NEIGHBOR", a, size=(4, 12), half_pixel_centers=False, align_corners=False)
    return f.done(f.conv(f.typed_as(b, a), 6, 5))


GRAPHS = {"pyramid": pyramid, "two ends": two_ends}


@pytest.fixture(scope="module")
def chip() -> Chip:
    return replace(load_chip("ibopper"), alignment=16)


def interleaved(image: Image) -> int:
    """How often the kernel of an earlier layer runs after one of a later layer."""
    layers = [command.layer for command in image.programs[0].commands if isinstance(command, Compute)]
    return sum(b < a for a, b in zip(layers, layers[1:], strict=False))


@pytest.mark.parametrize("size", [24_000, 12_000, 8_000, 6_000])
@pytest.mark.parametrize("make", GRAPHS.values(), ids=GRAPHS.keys())
def test_bands_give_the_same_codes(make: Callable[[], Graph], size: int, chip: Chip) -> None:
    graph = make()
    image = parse_image(image_bytes(compile_graph(graph, replace(chip, sram_bytes=size))))
    engine = OfflineEngine(image, threads=1)
    for seed in range(2):
        feeds = code_feeds(graph, seed)
        truth, results = run_reference(graph, feeds), engine.run(feeds)
        for name in graph.outputs:
            assert np.array_equal(results[name], truth[name]), name
    assert image.programs[0].sram_size <= size
    if size < 8_000:
        assert interleaved(image) > 3


@pytest.mark.parametrize(
    ("make", "sizes"),
    [(skipped_rows, range(2_500, 9_001, 500)), (made_smaller, range(2_250, 5_001, 250))],
    ids=["skipped rows", "made smaller"],
)
def test_rows_that_nobody_reads(make: Callable[[], Graph], sizes: range) -> None:
    """Kernels that make them write into their buffers all the same."""
    assert {check(make(), size) for size in sizes} == {EXACT}


def test_traffic_falls_below_that_of_layer_by_layer(chip: Chip) -> None:
    """Tensors of 7,680 bytes and more in 8,000 bytes of SRAM: layer by layer nearly all would leave the chip."""
    image = compile_graph(pyramid(), replace(chip, sram_bytes=8_000))
    traffic = sum(layer.read_bytes + layer.written_bytes for layer in image.layers)
    assert traffic < 0.6 * image.compulsory_bytes


def cascade(graph: Graph, count: int) -> Cascade:
    """The first layers of a graph as one group."""
    return Cascade(RowNeeds(graph), reside(graph), range(count), 16)


def test_windows_by_hand() -> None:
    """Two windows of 3 rows: a band of 10 rows needs 12 of the tensor between, of which 2 are kept for the next."""
    f = Fixed()
    x = f.input("x", (1, 40, 7, 3), DType.UINT8)
    graph = f.done(f.conv(f.conv(x, 5, 3, DType.UINT8), 4, 3, DType.UINT8))
    bands = cascade(graph, 2).bands(4, frozenset())
    first, second = (node.outputs[0] for node in graph.nodes)
    assert [made[1] for made in bands.made] == [(0, 10), (10, 20), (20, 30), (30, 40)]
    assert [made[0] for made in bands.made] == [(0, 11), (11, 21), (21, 31), (31, 40)]
    assert bands.windows[first].base == (0, 9, 19, 29) and bands.windows[first].rows == 12
    assert bands.windows["x"].base == (0, 10, 20, 30) and bands.windows["x"].done == (12, 22, 32, 40)
    sizes = {
        "x": 2 * 12 * 7 * 3,  # loaded into one buffer while the other is read
        first: 12 * 7 * 5,
        second: 2 * 10 * 7 * 4,
    }
    rounded = sum(-(-size // 16) * 16 * 1 for size in (12 * 21, 12 * 21, sizes[first], 280, 280))
    constants = sum(-(-graph[n].nbytes // 16) * 16 for node in graph.nodes for n in node.inputs[1:] if n)
    assert bands.memory == rounded + constants


@pytest.mark.parametrize("make", [*GRAPHS.values(), skipped_rows, made_smaller])
def test_windows_hold_the_rows_that_are_made(make: Callable[[], Graph]) -> None:
    graph = make()
    held = 0
    for first, last in combinations(range(len(graph.nodes) + 1), 2):
        try:
            group = Cascade(RowNeeds(graph), reside(graph), range(first, last), 16)
        except ValueError:  # a concatenation that is no layer, say
            continue
        for count in BANDS:
            for name, window in group.bands(count, frozenset()).windows.items():
                for step, base in enumerate(window.base):
                    begin, end = window.new(step)
                    assert base <= window.done[step] == end
                    if name in group.made and begin < end:
                        assert base <= begin, (name, step)
                        held += 1
    assert held > 0


def test_what_cannot_be_cut_is_no_cascade() -> None:
    f = Fixed()
    x = f.input("x", (1, 12, 7, 3), DType.UINT8)
    y = f.build("TRANSPOSE", f.conv(x, 5, 3, DType.UINT8), perm=(0, 2, 1, 3))
    y.dtype, y.quant = DType.UINT8, x.quant
    with pytest.raises(ValueError, match="does not move row by row"):
        cascade(f.done(y), 2)


def test_moves_by_rows() -> None:
    rows = Copy(0, 0, (1, 5, 7, 3), (0, (105, 21, 3, 1)), (2, (175, 35, 5, 1)))
    assert by_rows(rows, (1, 5, 7, 3), (1, 5, 7, 5))
    assert not by_rows(replace(rows, target=(35, rows.target[1])), (1, 5, 7, 3), (1, 5, 7, 5))  # one row lower
    assert not by_rows(replace(rows, source=(84, (105, -21, 3, 1))), (1, 5, 7, 3), (1, 5, 7, 5))  # upside down
    assert not by_rows(rows, (1, 5, 7, 3), (1, 6, 7, 5))


@pytest.mark.parametrize(
    ("source", "target", "offset", "moves"),
    [
        ((0, (15, 5, 1)), (0, (15, 5, 1)), 0, False),  # contiguous, the same bytes
        ((0, (90, 10, 2)), (0, (90, 10, 2)), 0, False),  # the same strides
        ((0, (15, 5, 1)), (0, (90, 5, 1)), 0, False),  # one picture: its stride does not matter
        ((0, (15, 5, 1)), (0, (15, 1, 3)), 0, True),  # another order
        ((0, (15, 5, 1)), (4, (15, 5, 1)), 0, True),
        ((0, (15, 5, 1)), (4, (15, 5, 1)), -8, False),  # what the copy adds, the place takes off
    ],
)
def test_a_copy_onto_itself_is_no_transfer(
    source: tuple[int, tuple[int, ...]], target: tuple[int, tuple[int, ...]], offset: int, moves: bool
) -> None:
    home = Buffer("held", 4096)
    made = transfer(3, Copy(0, 0, (1, 3, 5), source, target), 2, Spot(home, 64), Spot(home, 64 + offset))
    assert (made is not None) == moves
    if made is not None:
        assert made.target == Spot(home, 64 + offset + 2 * target[0]) and made.layer == 3
        assert made.target_strides == tuple(2 * stride for stride in target[1])
