"""Layers far larger than the smallest SRAM: cut along every axis that they ask for, and still the same integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sgs.compile import compile_graph
from sgs.config.chips import Chip, all_chips
from sgs.engine import FixedEngine
from sgs.img import Compute, OfflineEngine
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import quantise_weights, symmetric_params
from sgs.numeric.types import DType
from test_compile import Fixed, code_feeds


@pytest.fixture(scope="module")
def chip() -> Chip:
    return min(all_chips(), key=lambda chip: (chip.sram_bytes, chip.name))


def product(f: Fixed, x: Tensor, outputs: int) -> Tensor:
    """A fully connected layer."""
    real = f.rng.normal(0, 0.02, (outputs, x.shape[-1]))
    quant = symmetric_params(np.abs(real).max(1), DType.INT8)
    weight = f.build.graph.add_constant("w", quantise_weights(real, quant, DType.INT8), quant=quant)
    bias = f.build.graph.add_constant("b", f.rng.integers(-500, 500, outputs).astype(np.int32))
    return f("FULLY_CONNECTED", x, weight, bias, activation="NONE", keep_num_dims=True)


def picture() -> Graph:
    """1080 rows of 1,920 pixels, at full size and halved."""
    f = Fixed()
    a = f.conv(f.input("x", (1, 1080, 1920, 3), DType.UINT8), 4, 3, DType.UINT8)
    b = f("MAX_POOL_2D", a, dtype=DType.UINT8, kernel=(2, 2), strides=(2, 2), pads=(0, 0, 0, 0), activation="NONE")
    b.quant = a.quant
    return f.done(f.conv(b, 3, 3))


def channels() -> Graph:
    """4,096 channels, read by 1 MiB of weights and by windows."""
    f = Fixed()
    x = f.input("x", (1, 7, 9, 4096), DType.UINT8)
    return f.done(
        f.conv(x, 256, 1), f("AVERAGE_POOL_2D", x, kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1), activation="NONE")
    )


def classes() -> Graph:
    """9 MiB of weights for one row."""
    f = Fixed()
    return f.done(product(f, f.input("x", (1, 9216), DType.UINT8), 1000))


def long_rows() -> Graph:
    """A row takes more than the SRAM."""
    f = Fixed()
    return f.done(f.conv(f.input("x", (1, 5, 24_000, 16), DType.UINT8), 8, 3))


GRAPHS = {
    "1080p": picture,
    "4,096 channels": channels,
    "9,216 to 1,000": classes,
    "rows of 24,000": long_rows,
}


@pytest.mark.parametrize("make", GRAPHS.values(), ids=GRAPHS.keys())
def test_large_layers(make: Callable[[], Graph], chip: Chip) -> None:
    graph = make()
    largest = max(tensor.nbytes for tensor in graph.tensors.values())
    assert largest > 1.5 * chip.sram_bytes
    image = compile_graph(graph, chip)
    program, feeds = image.programs[0], code_feeds(graph, 0)
    assert program.sram_size <= chip.sram_bytes
    pieces = [command for command in program.commands if isinstance(command, Compute)]
    assert len(pieces) > len(image.layers)
    truth, results = FixedEngine(graph, threads=1).run(feeds), OfflineEngine(image, threads=1).run(feeds)
    for name in graph.outputs:
        assert np.array_equal(results[name], truth[name]), name
