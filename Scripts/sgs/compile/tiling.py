"""How one node is cut in pieces that the chip's SRAM holds: how many along which axes, and in which order.

An operand's piece is loaded when it differs from the one before, so the order of the loops decides what is loaded how
often. Rows are slid: what two pieces have in common is kept. Buffers come in pairs, so that the next piece is loaded
while one is computed; where that leaves room for little, operands whose pieces stay for a while have one alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sgs.compile.live import rounded
from sgs.compile.tiles import contiguous, result_box, shape_of
from sgs.img.image import packed_bytes
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.types import DType
from sgs.registry import QUANTISE, TILE, Box, whole_box

ROWS = 1  # the axis that is slid along
_FASTER = 8  # times as fast is a copy inside SRAM than one from or to DRAM
_PHASES = 4  # pieces in a row that are looked at amid many
_LOOKED_AT = 16  # pieces along an axis that are all looked at for the largest
_FURTHER = 3  # numbers of channel blocks that are looked at from the first one that fits
MOST_STEPS = 64  # of a node, where there is a choice
_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)


@dataclass(frozen=True)
class Tiling:
    """Pieces along every axis of the first result, the axes from the outermost loop to the innermost, the bytes that
    the pieces take in SRAM, and those that the DMA engine is busy with: whole bursts, and copies inside SRAM. Operands
    in `single` have one buffer: nothing is computed while it is filled."""

    sizes: tuple[int, ...]  # extent of a piece along every axis
    order: tuple[int, ...]
    memory: int
    effort: int
    steps: int
    single: frozenset[int] = frozenset()

    def boxes(self, shape: Sequence[int]) -> Iterator[Box]:
        """The pieces in order."""
        spans = {axis: _spans(shape[axis], self.sizes[axis]) for axis in self.order}
        for chosen in itertools.product(*(spans[axis] for axis in self.order)):
            by_axis = dict(zip(self.order, chosen, strict=True))
            yield tuple(by_axis.get(axis, (0, extent)) for axis, extent in enumerate(shape))


def _spans(extent: int, size: int) -> list[tuple[int, int]]:
    return [(begin, min(begin + size, extent)) for begin in range(0, extent, size)]


@dataclass(frozen=True)
class _Cut:
    """One axis in pieces of `size`: for every operand and result the extents of the largest piece, and whether it is
    another one in the next piece."""

    size: int
    count: int
    extents: tuple[tuple[int, ...] | None, ...]
    varies: tuple[bool, ...]


class Cutter:
    """The tilings of one node. `resident` names its operands and results that lie whole in SRAM: pieces of theirs that
    are contiguous are used in place. Blocks of channels are multiples of `channels` where they are larger."""

    def __init__(self, graph: Graph, node: Node, resident: frozenset[str], alignment: int, channels: int = 1) -> None:
        self._node, self._alignment, self._channels = node, alignment, channels
        self._operands, self._results = graph.operands(node), graph.results(node)
        self._tensors = [*self._operands, *self._results]
        self._resident = [tensor is not None and tensor.name in resident for tensor in self._tensors]
        self.shape = self._results[0].shape
        self.axes = self._cuttable()
        part = TILE[node.op].part(node, self._operands, self._results, whole_box(self.shape))
        read = [*part.operands, *(whole_box(result.shape) for result in self._results)]
        self._read = [None if box is None else shape_of(box) for box in read]  # windows may leave something out
        self._cuts: dict[tuple[int, int], _Cut] = {}

    def _cuttable(self) -> dict[int, int]:
        """Axes that may be cut → the number that cuts are multiples of."""
        found, last = dict(TILE[self._node.op].axes(self._node, self._operands, self._results)), len(self.shape) - 1
        if last in found and self._node.op in QUANTISE:
            channels = QUANTISE[self._node.op].channel_axis
            found[last] = math.lcm(found[last], *(_byte_grain(t, channels) for t in self._operands if t is not None))
        return {axis: grain for axis, grain in found.items() if grain < self.shape[axis]}

    # -- one axis ------------------------------------------------------------------------------------------------------
    def _cut(self, axis: int, count: int) -> _Cut:
        """The axis in about so many pieces."""
        grain, extent = self.axes[axis], self.shape[axis]
        size = math.ceil(math.ceil(extent / count) / grain) * grain
        if axis == len(self.shape) - 1 and size > self._channels and self._channels % grain == 0:
            size = min(rounded(size, self._channels), extent)
        if (axis, size) not in self._cuts:
            pieces = -(-extent // size)
            looked_at: Sequence[int] = range(pieces)
            if pieces > _LOOKED_AT:  # of those in between some in a row: it may matter where in a stride they begin
                looked_at = sorted({0, 1, *range(pieces // 2, pieces // 2 + _PHASES), pieces - 2, pieces - 1})
            begins = [piece * size for piece in looked_at]
            boxes = [self._boxes(axis, begin, min(begin + size, extent)) for begin in begins]
            extents = tuple(
                None if places[0] is None else tuple(map(max, zip(*(shape_of(b) for b in places if b), strict=True)))
                for places in zip(*boxes, strict=True)
            )
            varies = tuple(any(place != places[0] for place in places[1:]) for places in zip(*boxes, strict=True))
            self._cuts[axis, size] = _Cut(size, pieces, extents, varies)
        return self._cuts[axis, size]

    def _boxes(self, axis: int, begin: int, end: int) -> list[Box | None]:
        """Of every operand and result, where the first result is cut along one axis."""
        whole = whole_box(self.shape)
        box = (*whole[:axis], (begin, end), *whole[axis + 1 :])
        part = TILE[self._node.op].part(self._node, self._operands, self._results, box)
        return [*part.operands, *(result_box(box, self._results[0], result) for result in self._results)]

    def _counts(self, axis: int) -> list[int]:
        most = -(-self.shape[axis] // self.axes[axis])
        return [*(count for count in _COUNTS if count < most), most]

    # -- several axes --------------------------------------------------------------------------------------------------
    def tilings(self, memory: int, *, single: bool = False) -> list[Tiling]:
        """Tilings, as long as none fits `memory` bytes with ever more pieces: first of rows, then of channels as well,
        then of columns (and pictures) too. What is cut less is loaded less often. With `single`, operands whose pieces
        stay from one step to the next have one buffer."""
        last = len(self.shape) - 1
        rows = [axis for axis in self.axes if axis == (ROWS if last > 1 else 0)]
        channels = [axis for axis in self.axes if axis == last and axis not in rows]
        others = [axis for axis in self.axes if axis not in (*rows, *channels)]
        found: list[Tiling] = []
        for pieces in itertools.product(*(self._counts(axis) for axis in others)):
            outer, further = dict(zip(others, pieces, strict=True)), _FURTHER
            for blocks in itertools.product(*(self._counts(axis) for axis in channels)):
                for counts in itertools.product(*(self._counts(axis) for axis in rows)):
                    cut = dict(zip((*channels, *rows), (*blocks, *counts), strict=True))
                    found += self._orders({**outer, **cut}, single)
                    if found[0].effort == 0 and found[0].memory <= memory:
                        return found  # all at once, and nothing to move
                if any(tiling.memory <= memory for tiling in found):
                    further -= 1
                    if blocks == (1,) or not further:
                        break
            if any(tiling.memory <= memory for tiling in found):
                break
        return found

    def _orders(self, counts: dict[int, int], single: bool) -> Iterator[Tiling]:
        """Channels outside of rows and columns, and inside."""
        cuts = {axis: self._cut(axis, count) for axis, count in counts.items()}
        cuts = {axis: cut for axis, cut in cuts.items() if cut.count > 1}
        last = len(self.shape) - 1
        spatial = [axis for axis in sorted(cuts, key=lambda a: (a == ROWS, a)) if axis != last]
        blocks = [last] if last in cuts else []
        for order in dict.fromkeys([(*blocks, *spatial), (*spatial, *blocks)]):
            yield self._tiling(cuts, order, single)

    def _tiling(self, cuts: dict[int, _Cut], order: tuple[int, ...], single: bool) -> Tiling:
        memory = effort = 0
        alone: set[int] = set()
        for index, tensor in enumerate(self._tensors):
            extents, loops = self._read[index], []
            if tensor is None or extents is None:
                continue
            for axis in order:
                piece = cuts[axis].extents[index]
                if piece is not None:
                    extents = tuple(map(min, extents, piece))
                loops.append(cuts[axis].varies[index])
            if self._in_place(index, tensor, extents):
                continue
            again = 1
            if index < len(self._operands) and any(loops):
                inside = max(i for i, varies in enumerate(loops) if varies)
                again = math.prod(cuts[axis].count for i, axis in enumerate(order[:inside]) if not loops[i])
            if single and index < len(self._operands) and any(loops) and not loops[-1]:
                alone.add(index)
            pair = any(loops) and index not in alone
            memory += rounded(packed_bytes(extents, tensor.dtype), self._alignment) * (2 if pair else 1)
            run = _run(extents, tensor)
            moved = packed_bytes(tensor.shape, tensor.dtype) * rounded(run, self._alignment) // run * again
            moved = moved // _FASTER if self._resident[index] else moved
            effort += 2 * moved if index in alone else moved
        sizes = tuple(cuts[axis].size if axis in cuts else extent for axis, extent in enumerate(self.shape))
        steps = math.prod(cuts[axis].count for axis in order)
        return Tiling(sizes, order, memory, effort, steps, frozenset(alone))

    def _in_place(self, index: int, tensor: Tensor, extents: tuple[int, ...]) -> bool:
        return self._resident[index] and contiguous(whole_box(extents), tensor.shape)


def _run(extents: tuple[int, ...], tensor: Tensor) -> int:
    """Contiguous bytes of a piece of a tensor."""
    run = 1
    for extent, whole in zip(reversed(extents), reversed(tensor.shape), strict=True):
        run *= extent
        if extent != whole:
            break
    return packed_bytes((run,), tensor.dtype)


def _byte_grain(tensor: Tensor, axis: int) -> int:
    """So many channels, which lie along an axis, take whole bytes in every row: one or, of 4-bit elements, two, or all
    of them."""
    if tensor.dtype is not DType.INT4 or math.prod(tensor.shape[axis + 1 :]) % 2 == 0:
        return 1
    return 2 if math.prod(tensor.shape[:axis]) == 1 or tensor.shape[axis] % 2 == 0 else tensor.shape[axis]


def _fitting(cutter: Cutter, memory: int) -> tuple[list[Tiling], list[Tiling]]:
    """(tilings, those that fit `memory` bytes); with single buffers as well where none of few steps fits."""
    found = cutter.tilings(memory)
    if not any(tiling.memory <= memory and tiling.steps <= MOST_STEPS for tiling in found):
        found += cutter.tilings(memory, single=True)
    return found, [tiling for tiling in found if tiling.memory <= memory]


def tightest(cutter: Cutter, memory: int) -> Tiling:
    """Least effort, then least memory, with few steps where that is possible, of those that fit `memory` bytes; the
    smallest where none does."""
    found, fitting = _fitting(cutter, memory)
    if not fitting:
        return min(found, key=lambda tiling: tiling.memory)
    few = [tiling for tiling in fitting if tiling.steps <= MOST_STEPS]
    return min(few or fitting, key=lambda tiling: (tiling.effort, tiling.memory, tiling.steps))


def quickest(cutter: Cutter, memory: int, step_bytes: int) -> Tiling | None:
    """The cheapest tiling in so much memory; None if none fits. A step costs as much as `step_bytes` of traffic, and
    the first piece comes in, and the last goes out, while nothing is computed."""
    _, fitting = _fitting(cutter, memory)
    return min(fitting, key=lambda t: t.effort + t.effort / t.steps + t.steps * step_bytes, default=None)
