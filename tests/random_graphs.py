"""Random graphs through the compiler under ever less SRAM: the commands, executed by two machines, compute what the
reference does, or the graph is refused for a reason.

usage: python tests/random_graphs.py FIRST LAST [--profile cnn|moves|all|chain]

A graph is made by its seed and profile alone. What is found for the seeds from FIRST up to LAST is printed with a
smaller graph that shows it too. The exit code is 1 when there was anything.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "Scripts"), str(ROOT / "tests")]

import numpy as np  # noqa: E402

from byte_machine import execute  # noqa: E402
from fixed_examples import code_feeds  # noqa: E402
from sgs.config.chips import Chip, load_chip  # noqa: E402
from sgs.engine import run_reference  # noqa: E402
from sgs.errors import UserError  # noqa: E402
from sgs.img import Image, OfflineEngine  # noqa: E402
from sgs.ir import Graph, Tensor  # noqa: E402
from sgs.ir.text import dump  # noqa: E402
from sgs.numeric.quantise import Array, quantise_weights, symmetric_params  # noqa: E402
from sgs.numeric.types import DType  # noqa: E402
from sgs.registry import QUANTISE  # noqa: E402
from test_compile import Fixed, through_file  # noqa: E402

ACTIVATIONS = (DType.UINT8, DType.INT16)
WEIGHTS = {
    DType.UINT8: (DType.INT8, DType.INT4),
    DType.INT16: (DType.INT16, DType.INT8, DType.INT4),
}  # that go with activations
BOUND = 4.0  # of all activations, so that any two can be joined
LARGEST = 6000  # elements of a tensor
TRIES = 200  # for a graph
Choice = TypeVar("Choice")


class Unsuitable(Exception):
    """What was drawn cannot be built."""


# -- graphs ------------------------------------------------------------------------------------------------------------
class RandomGraph:
    """A fixed graph that grows by random operators on random results of those before, late ones more often."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._fixed = Fixed()
        self._build = self._fixed.build
        self._tensors: list[Tensor] = []  # what operators may read

    def grown(self, profile: str) -> Graph:
        """A graph of 3 to 15 operators."""
        operators, column = list(OPERATORS), PROFILES.index(profile)
        weights = np.array([row[column] for row in OPERATORS.values()])
        graph, wanted = self._build.graph, self._number(3, 15)
        for index in range(1 if profile == "chain" else self._number(1, 2)):
            self._input(f"x{index}", any_rank=profile in ("moves", "all"))
        for _ in range(TRIES):
            if len(graph.nodes) >= wanted:
                break
            before = list(graph.nodes), dict(graph.tensors), list(self._tensors)
            try:
                operators[self._rng.choice(len(operators), p=weights / weights.sum())](self)
            except Unsuitable:
                graph.nodes, graph.tensors, self._tensors = before
        graph.outputs = self._outputs(graph)
        return graph

    def _input(self, name: str, any_rank: bool) -> None:
        shape: tuple[int, ...] = (1, self._number(4, 27), self._number(3, 13), self._number(1, 6))
        if any_rank and self._chance(0.3):
            shape = tuple(self._number(1, 8) for _ in range(self._number(1, 4)))
        if self._chance(0.1):
            shape = (self._number(2, 3), *shape[1:])
        dtype = self._one_of(ACTIVATIONS)
        self._add(self._build.input(name, shape, dtype), dtype)

    def _outputs(self, graph: Graph) -> list[str]:
        """Most results that nobody reads, some that are read again, now and then an input."""
        readers = graph.readers()
        made = [name for node in graph.nodes for name in node.outputs]
        chosen = [name for name in made if self._chance(0.12 if readers[name] else 0.85)]
        if self._chance(0.05):
            chosen.append(graph.inputs[0])
        return self._shuffled(chosen or made[-1:])

    # -- chance --------------------------------------------------------------------------------------------------------
    def _number(self, low: int, high: int) -> int:
        """Both included."""
        return int(self._rng.integers(low, high + 1))

    def _chance(self, share: float) -> bool:
        return bool(self._rng.random() < share)

    def _one_of(self, choices: Sequence[Choice]) -> Choice:
        if not choices:
            raise Unsuitable
        return choices[self._number(0, len(choices) - 1)]

    def _shuffled(self, choices: Sequence[Choice]) -> list[Choice]:
        return [choices[index] for index in self._rng.permutation(len(choices))]

    def _tensor(self, suits: Callable[[Tensor], bool] = lambda tensor: True) -> Tensor:
        found = [tensor for tensor in self._tensors if suits(tensor)]
        if not found:
            raise Unsuitable
        weights = np.arange(1, len(found) + 1) ** 1.5
        return found[self._rng.choice(len(found), p=weights / weights.sum())]

    def _picture(self) -> Tensor:
        return self._tensor(lambda tensor: len(tensor.shape) == 4)

    def _wide(self) -> Tensor:
        return self._tensor(lambda tensor: tensor.dtype is DType.INT16)

    def _add(self, tensor: Tensor, dtype: DType) -> None:
        """Let a tensor be read."""
        if not 0 < tensor.elements <= LARGEST:
            raise Unsuitable
        self._tensors.append(self._fixed.typed(tensor, dtype, BOUND))

    # -- sums of products, and windows ---------------------------------------------------------------------------------
    def convolution(self) -> None:
        """Plain, in two groups, or depthwise."""
        x, kernel = self._picture(), self._one_of((1, 3, 3, 5))
        channels, form = x.shape[3], self._rng.random()
        if form < 0.65:
            self._sums("CONV_2D", x, (self._number(1, 8), kernel, kernel, channels))
        elif form < 0.75 and channels % 2 == 0:
            self._sums("CONV_2D", x, (2 * self._number(1, 3), kernel, kernel, channels // 2))
        else:
            self._sums("DEPTHWISE_CONV_2D", x, (1, kernel, kernel, channels * self._number(1, 2)))

    def _sums(self, op: str, x: Tensor, shape: tuple[int, ...]) -> None:
        """Sums of products over windows with weights of this shape."""
        kernel = shape[1]
        weight, bias = self._weights(x, shape, axis=QUANTISE[op].channel_axis)
        strides = (1, 1) if self._chance(0.7) else (self._number(1, 2), self._number(1, 2))
        dilations = (1, 1) if self._chance(0.8) else (2, 1)
        same = self._chance(0.7)
        pads = tuple(kernel // 2 if same else self._number(0, kernel - 1) for _ in range(4))
        self._need_room(x, (kernel, kernel), dilations, pads)
        window: dict[str, Any] = dict(strides=strides, dilations=dilations, pads=pads, activation="NONE")
        self._add(self._build(op, x, weight, bias, **window), self._one_of(ACTIVATIONS))

    def _weights(self, x: Tensor, shape: tuple[int, ...], axis: int = 0) -> tuple[Tensor, Tensor]:
        """Weights of any width that goes with x, channels along `axis`, and a bias."""
        dtype, channels = self._one_of(WEIGHTS[x.dtype]), shape[axis]
        real = self._rng.normal(0, 0.5, shape)
        quant = symmetric_params(np.abs(np.moveaxis(real, axis, 0)).reshape(channels, -1).max(1), dtype, axis)
        weight = self._build.graph.add_constant("w", quantise_weights(real, quant, dtype), quant=quant, dtype=dtype)
        accumulator = np.int32 if x.dtype is DType.UINT8 else np.int64
        return weight, self._build.constant("b", self._rng.integers(-500, 500, channels).astype(accumulator))

    def transposed(self) -> None:
        x, kernel = self._picture(), (self._number(1, 3), self._number(1, 3))
        strides = (self._number(1, 2), self._number(1, 2))
        pads = tuple(self._number(0, kernel[side % 2] - 1) for side in range(4))
        size = tuple((x.shape[1 + i] - 1) * strides[i] + kernel[i] - pads[i] - pads[i + 2] for i in range(2))
        if min(size) < 1:
            raise Unsuitable
        operands = self._weights(x, (self._number(1, 5), *kernel, x.shape[3]))
        attrs: dict[str, Any] = {"strides": strides, "size": size, "pads": pads, "activation": "NONE"}
        self._add(self._build("TRANSPOSE_CONV", x, *operands, **attrs), self._one_of(ACTIVATIONS))

    def connected(self) -> None:
        """Of the last axis, or of several of them."""
        x = self._tensor(lambda tensor: len(tensor.shape) > 1)
        keep, axis = self._chance(0.6), self._number(1, len(x.shape) - 1)
        width = x.shape[-1] if keep else int(np.prod(x.shape[axis:]))
        operands = self._weights(x, (self._number(1, 9), width))
        result = self._build("FULLY_CONNECTED", x, *operands, keep_num_dims=keep, activation="NONE")
        self._add(result, self._one_of(ACTIVATIONS))

    @staticmethod
    def _need_room(x: Tensor, kernel: Sequence[int], dilations: Sequence[int], pads: Sequence[int]) -> None:
        """Windows are no larger than padded pictures."""
        for side in range(2):
            extent = x.shape[1 + side] + pads[side] + pads[side + 2]
            if (kernel[side] - 1) * dilations[side] + 1 > extent:
                raise Unsuitable

    def pooling(self) -> None:
        x, kernel = self._picture(), (self._number(1, 3), self._number(1, 3))
        self._need_room(x, kernel, (1, 1), (0, 0, 0, 0))
        strides, padded = (self._number(1, 2), self._number(1, 2)), self._chance(0.5)
        pads = tuple(self._number(0, extent - 1) if padded else 0 for extent in (*kernel, *kernel))
        op = self._one_of(("MAX_POOL_2D", "AVERAGE_POOL_2D"))
        self._add(self._build(op, x, kernel=kernel, strides=strides, pads=pads, activation="NONE"), x.dtype)

    def resizing(self) -> None:
        x = self._picture()
        doubled, drawn = (2 * x.shape[1], 2 * x.shape[2]), (self._number(1, 19), self._number(1, 13))
        size, centers = doubled if self._chance(0.6) else drawn, self._chance(0.5)
        op = "RESIZE_BILINEAR" if x.dtype is DType.INT16 and self._chance(0.5) else "RESIZE_NEAREST_NEIGHBOR"
        self._add(self._build(op, x, size=size, half_pixel_centers=centers, align_corners=False), x.dtype)

    # -- elementwise, and reductions -----------------------------------------------------------------------------------
    def combination(self) -> None:
        """Of two tensors, one of which may be broadcast."""
        a, op = self._wide(), self._one_of(("ADD", "SUB", "MUL", "MAXIMUM"))
        b = self._fitting(a)
        if op == "MAXIMUM":
            self._add(self._build(op, a, b), a.dtype)
        else:
            result = self._build(op, a, b, activation=self._one_of(("NONE", "RELU")))
            self._add(result, self._one_of((DType.UINT8, DType.INT16, DType.INT16)))

    def _fitting(self, a: Tensor) -> Tensor:
        """A tensor that broadcasts with another one of its type."""

        def fits(b: Tensor) -> bool:
            pairs = zip(a.shape, b.shape, strict=False)
            return b.dtype is a.dtype and len(b.shape) == len(a.shape) and all(p == q or 1 in (p, q) for p, q in pairs)

        return self._one_of([tensor for tensor in self._tensors if fits(tensor)])

    def selecting(self) -> None:
        """Of two tensors by a comparison, or a tensor in whole numbers."""
        a = self._wide()
        if self._chance(0.3):
            self._add(self._build("CAST", self._build("CAST", a, to="INT32"), to="FLOAT32"), DType.INT16)
            return
        b = self._fitting(a)
        mask = self._build(self._one_of(("LESS", "GREATER_EQUAL", "NOT_EQUAL")), a, b)
        if self._chance(0.3):
            mask = self._build("LOGICAL_NOT", mask)
        self._add(self._build("SELECT_V2", mask, a, b), self._one_of(ACTIVATIONS))

    def requantising(self) -> None:
        self._add(self._build("QUANTIZE", self._tensor()), self._one_of(ACTIVATIONS))

    def table(self) -> None:
        """Of a computed tensor: look-ups of constants are folded before a graph is compiled."""
        x, dtype = self._tensor(lambda tensor: not tensor.is_constant), self._one_of(ACTIVATIONS)
        self._add(self._fixed.table(x, dtype, BOUND), dtype)

    def reduction(self) -> None:
        x = self._wide()
        axes = tuple(sorted({self._number(0, len(x.shape) - 1) for _ in range(self._number(1, 2))}))
        keep = self._chance(0.5) or len(axes) == len(x.shape)
        op = self._one_of(("MEAN", "SUM", "REDUCE_MAX"))
        self._add(self._build(op, x, axes=axes, keep_dims=keep), x.dtype)

    def product(self) -> None:
        """Of a tensor with itself, or with another that fits."""
        x = self._tensor(lambda tensor: len(tensor.shape) > 1)
        adjoint = self._chance(0.5)

        def fits(y: Tensor) -> bool:
            pairs = zip(x.shape[:-2], y.shape[:-2], strict=False)
            same = len(y.shape) == len(x.shape) and all(p == q or 1 in (p, q) for p, q in pairs)
            return same and y.shape[-1 if adjoint else -2] == x.shape[-1]

        y = self._one_of([tensor for tensor in self._tensors if fits(tensor)])
        self._add(self._build("BATCH_MATMUL", x, y, adj_x=False, adj_y=adjoint), self._one_of(ACTIVATIONS))

    def normalisation(self) -> None:
        x = self._tensor(lambda tensor: bool(tensor.shape))
        axes = tuple(sorted({self._number(0, len(x.shape) - 1) for _ in range(self._number(1, 2))}))
        count = float(np.prod([x.shape[axis] for axis in axes]))
        attrs: dict[str, Any] = {"axes": axes, "count": count, "centre": self._chance(0.7), "floor": 1e-12}
        more = {"epsilon": 1e-5, "offset": 0.0, "activation": self._one_of(("NONE", "RELU"))}
        self._add(self._build("NORMALISE", x, **attrs, **more), self._one_of(ACTIVATIONS))

    # -- moves ---------------------------------------------------------------------------------------------------------
    def _moved(self, op: str, x: Tensor, *others: Tensor | Array, **attrs: Any) -> None:
        self._add(self._build(op, x, *others, **attrs), x.dtype)

    def _axis(self, x: Tensor) -> int:
        if not x.shape:
            raise Unsuitable
        return self._number(0, len(x.shape) - 1)

    def concatenation(self) -> None:
        """Of two to four tensors, which may be the same."""
        a = self._tensor()
        axis = self._axis(a)

        def outline(tensor: Tensor) -> tuple[int, ...]:
            return (len(tensor.shape), *tensor.shape[:axis], -1, *tensor.shape[axis + 1 :])

        alike = [t for t in self._tensors if t.dtype is a.dtype and len(t.shape) == len(a.shape)]
        fitting = [t for t in alike if outline(t) == outline(a)]
        parts = self._shuffled([a, *(self._one_of(fitting) for _ in range(self._number(1, 3)))])
        self._moved("CONCATENATION", *parts, axis=axis)

    def slicing(self) -> None:
        """One axis or two, in steps, and backwards as well."""
        x = self._tensor()
        axes = {self._axis(x) for _ in range(1 if self._chance(0.6) else 2)}
        cuts = [self._cut(extent) if axis in axes else (0, extent, 1) for axis, extent in enumerate(x.shape)]
        begin, end, strides = zip(*cuts, strict=True)
        self._moved("STRIDED_SLICE", x, begin=begin, end=end, strides=strides)

    def _cut(self, extent: int) -> tuple[int, int, int]:
        begin = self._number(0, extent - 1)
        end = self._number(begin + 1, extent)
        if self._chance(0.2):
            return end - 1, begin - 1, -1
        return begin, end, 1 if self._chance(0.8) else 2

    def splitting(self) -> None:
        x = self._tensor()
        axis = self._axis(x)
        extent, counts = x.shape[axis], [count for count in (2, 3, 4) if x.shape[axis] % count == 0]
        if counts and self._chance(0.5):
            parts = self._build.node("SPLIT", [x], axis=axis, num_splits=self._one_of(counts))
        elif extent > 1:
            first = self._number(1, extent - 1)
            parts = self._build.node("SPLIT_V", [x], axis=axis, sizes=(first, extent - first))
        else:
            raise Unsuitable
        for part in parts:
            self._add(part, x.dtype)

    def reshaping(self) -> None:
        x = self._tensor()
        shape = (
            (1, *self._factors(x.elements, 3)) if self._chance(0.5) else self._factors(x.elements, self._number(1, 4))
        )
        self._moved("RESHAPE", x, shape=shape)

    def _factors(self, product: int, count: int) -> tuple[int, ...]:
        found = []
        for _ in range(count - 1):
            found.append(self._one_of([divisor for divisor in range(1, product + 1) if product % divisor == 0]))
            product //= found[-1]
        return (*found, product)

    def transposing(self) -> None:
        x = self._tensor()
        self._moved("TRANSPOSE", x, perm=tuple(int(axis) for axis in self._rng.permutation(len(x.shape))))

    def padding(self) -> None:
        x = self._tensor()
        pads = [(self._number(0, 2), self._number(0, 2)) if self._chance(0.5) else (0, 0) for _ in x.shape]
        self._moved("PAD", x, paddings=tuple(pads))

    def blocks(self) -> None:
        """Channels made pixels, or pixels channels."""
        x = self._picture()
        if x.shape[3] % 4 == 0:
            self._moved("DEPTH_TO_SPACE", x, block_size=2)
        elif x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0:
            self._moved("SPACE_TO_DEPTH", x, block_size=2)
        else:
            raise Unsuitable

    def gathering(self) -> None:
        x = self._tensor()
        axis = self._axis(x)
        indices = self._rng.integers(0, x.shape[axis], self._number(1, 4)).astype(np.int32)
        self._moved("GATHER", x, indices, axis=axis)

    def repeating(self) -> None:
        x = self._tensor()
        if self._chance(0.5):
            self._moved("TILE", x, multiples=tuple(self._number(1, 3) for _ in x.shape))
            return
        extents = tuple(self._number(1, 4) if extent == 1 else extent for extent in x.shape)
        new = tuple(self._number(1, 3) for _ in range(self._number(0, 1)))
        self._moved("BROADCAST_TO", x, shape=(*new, *extents))

    def constant(self) -> None:
        """Codes like those of another tensor."""
        x = self._tensor()
        data = self._rng.integers(x.dtype.qmin, x.dtype.qmax + 1, x.shape).astype(x.dtype.numpy)
        self._add(self._build.graph.add_constant("c", data, quant=x.quant), x.dtype)


PROFILES = ("cnn", "moves", "all", "chain")
# operator → how often it is drawn for each profile
OPERATORS: dict[Callable[[RandomGraph], None], tuple[float, ...]] = {
    RandomGraph.convolution: (6, 1, 4, 6),
    RandomGraph.transposed: (1, 0, 1, 1),
    RandomGraph.connected: (1, 1, 1, 0.5),
    RandomGraph.pooling: (2, 0, 2, 2),
    RandomGraph.combination: (3, 2, 3, 2),
    RandomGraph.requantising: (2, 2, 2, 1),
    RandomGraph.concatenation: (3, 6, 3, 1.5),
    RandomGraph.slicing: (1, 5, 2, 0.7),
    RandomGraph.splitting: (1, 4, 2, 0),
    RandomGraph.resizing: (2, 0, 2, 1.5),
    RandomGraph.reshaping: (0, 4, 2, 0),
    RandomGraph.transposing: (0, 1, 1, 0),
    RandomGraph.table: (1, 2, 2, 0),
    RandomGraph.padding: (1, 0, 1, 0),
    RandomGraph.blocks: (1, 0, 1, 1),
    RandomGraph.reduction: (0, 0, 1, 0),
    RandomGraph.product: (0, 0, 1, 0),
    RandomGraph.normalisation: (0, 0, 1, 0),
    RandomGraph.gathering: (0, 0, 1, 0),
    RandomGraph.repeating: (0.3, 1, 1, 0.2),
    RandomGraph.constant: (0, 0.4, 0.3, 0),
    RandomGraph.selecting: (0, 0, 2, 0),
}


def random_graph(seed: int, profile: str | None = None) -> Graph:
    """The graph of a seed, of the profiles in turn unless one is named."""
    return RandomGraph(seed).grown(profile or PROFILES[seed % len(PROFILES)])


# -- verdicts ----------------------------------------------------------------------------------------------------------
EXACT, REFUSED = "exact", "refused"
NEED = re.compile(r"smallest piece needs ([\d,]+) bytes of SRAM, there are ([\d,]+)")
MACHINES: dict[str, Callable[[Image, Mapping[str, Array]], dict[str, Array]]] = {
    "byte machine": execute,
    "offline simulator": lambda image, feeds: OfflineEngine(image, threads=1).run(feeds),
}


@cache
def chip() -> Chip:
    return load_chip("ibopper")


def check(graph: Graph, size: int, *, alignment: int = 16) -> str:
    """EXACT, REFUSED with the reason, or what is wrong, when a graph is compiled for so many bytes of SRAM."""
    try:
        image = through_file(graph, replace(chip(), sram_bytes=size, alignment=alignment))
    except UserError as error:
        return f"{REFUSED if NEED.search(str(error)) else 'error'}: {error}"
    except Exception as error:
        return _crash("compiler", error)
    if image.programs[0].sram_size > size:
        return f"too much SRAM: {image.programs[0].sram_size:,} bytes"
    return judge(graph, image)


def judge(graph: Graph, image: Image) -> str:
    """EXACT, or in what an image, executed by either machine, differs from the reference of its graph."""
    feeds = code_feeds(graph, 0)
    truth = run_reference(graph, feeds)
    for machine, run in MACHINES.items():
        try:
            results = run(image, feeds)
        except Exception as error:
            return _crash(machine, error)
        for name in graph.outputs:
            if not np.array_equal(results[name], truth[name]):
                return f"wrong: output '{name}' on the {machine}"
    return EXACT


def _crash(where: str, error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"crash of the {where}: {type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"


def sizes_of(graph: Graph) -> list[int]:
    """Bytes of SRAM from ones that few graphs fit to the chip's own: shares of all activations, about what a look-up
    table takes, and too little for one."""
    total = sum(tensor.nbytes for tensor in graph.activations())
    shares = [max(1000 - 50 * share, total // share) for share in (1, 2, 4, 8)]
    return sorted({1500, 9280, chip().sram_bytes, *shares})


def verdicts(graph: Graph, sizes: Sequence[int], alignment: int = 16) -> dict[int, str]:
    """What `check` says for each size."""
    return {size: check(graph, size, alignment=alignment) for size in sizes}


def complaints(found: Mapping[int, str]) -> list[str]:
    """What is wrong with verdicts by size: faults, and refusals for no reason or above a size that is enough."""
    enough = [size for size, verdict in found.items() if verdict == EXACT]
    result = []
    for size, verdict in found.items():
        need = NEED.search(verdict)
        if need is not None and verdict.startswith(REFUSED):
            needed, there = (int(number.replace(",", "")) for number in need.groups())
            if there != size or needed <= size:
                result.append(f"refused for no reason: for {size:,} bytes: {verdict}")
            if any(less < size for less in enough):
                result.append(f"refused for more: {min(enough):,} bytes are enough, for {size:,}: {verdict}")
        elif verdict != EXACT:
            result.append(f"{verdict}, for {size:,} bytes")
    return result


# -- smaller graphs ----------------------------------------------------------------------------------------------------
def minimised(graph: Graph, bad: Callable[[Graph], bool]) -> Graph:
    """A graph of which no output, node or input can be left out so that it is still bad."""
    while (found := next((smaller for smaller in _smaller(graph) if bad(smaller)), None)) is not None:
        graph = found
    return graph


def _smaller(graph: Graph) -> Iterator[Graph]:
    for output in graph.outputs if len(graph.outputs) > 1 else []:
        yield _with(graph, outputs=[name for name in graph.outputs if name != output])
    for index, node in reversed(list(enumerate(graph.nodes))):
        if set(node.outputs) & set(graph.outputs):
            continue
        readers = graph.readers()
        read = [name for name in node.outputs if readers[name]]
        without = _with(graph, inputs=[*graph.inputs, *read])  # what is still read becomes an input
        del without.nodes[index]
        yield without
    used = {*graph.outputs, *(name for node in graph.nodes for name in node.inputs)}
    read = [name for name in graph.inputs if name in used]
    if read and read != graph.inputs:
        yield _with(graph, inputs=read)


def _with(graph: Graph, *, inputs: list[str] | None = None, outputs: list[str] | None = None) -> Graph:
    made = graph.copy()
    made.inputs, made.outputs = inputs or made.inputs, outputs or made.outputs
    return made


def _kinds(found: Mapping[int, str]) -> set[str]:
    return {complaint.split(":")[0] for complaint in complaints(found)}


# -- a campaign --------------------------------------------------------------------------------------------------------
def main() -> int:
    """Check the graphs of a range of seeds; 1 when something was found."""
    parser = argparse.ArgumentParser(description="Random graphs through the compiler under ever less SRAM.")
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int, help="not included")
    parser.add_argument("--profile", choices=PROFILES)
    options = parser.parse_args()
    counts, bad, begin = Counter[str](), 0, time.perf_counter()
    for seed in range(options.first, options.last):
        graph, alignment = random_graph(seed, options.profile), (8, 16, 32, 64)[seed // len(PROFILES) % 4]
        found = verdicts(graph, sizes_of(graph), alignment)
        counts.update(verdict.split(":")[0] for verdict in found.values())
        if complaints(found):
            bad += 1
            report(seed, graph, found, alignment)
    table = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    graphs, seconds = options.last - options.first, time.perf_counter() - begin
    print(f"{graphs} graphs, {bad} with findings; of the images {table}; {seconds:.0f} s")
    return 1 if bad else 0


def report(seed: int, graph: Graph, found: Mapping[int, str], alignment: int) -> None:
    """Print what is wrong with a graph, and a smaller one that it is wrong with too."""
    print(f"seed {seed}, alignment {alignment}:", *complaints(found), sep="\n  ")
    kinds = _kinds(found)
    small = minimised(graph, lambda smaller: bool(kinds & _kinds(verdicts(smaller, list(found), alignment))))
    print(*complaints(verdicts(small, list(found), alignment)), dump(small), sep="\n  ", flush=True)


if __name__ == "__main__":
    sys.exit(main())
