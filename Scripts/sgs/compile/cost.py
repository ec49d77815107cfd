"""What the machine model (docs/MACHINE.md) predicts of a command, and when every command runs.

Three engines work side by side, each on its commands in order: the MAC array, the vector unit and the DMA engine. A
command starts when its engine is free and the bytes of SRAM that it touches are: what it reads has been written, what
it writes is no longer read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sgs.config.chips import Chip
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.types import DType
from sgs.registry import COST, QUANTISE, MacShape

Engine = Literal["mac", "vector", "dma"]
ENGINES: tuple[Engine, ...] = ("mac", "vector", "dma")
_MOVED = 2  # bytes of a vector lane


@dataclass(frozen=True)
class Cycles:
    """Of one command: how long it keeps its engine busy, and how much later its last byte arrives."""

    engine: Engine
    busy: int
    latency: int = 0

    @property
    def total(self) -> int:
        return self.busy + self.latency


def computation_cycles(graph: Graph, node: Node, chip: Chip) -> Cycles:
    """Cycles of one node. Raises UnsupportedOperator for an operator without a cost rule."""
    operands = graph.operands(node)
    work = COST[node.op](node, operands, graph.results(node))
    vector = max(1, _ceil(work.vector_ops, chip.vector_lanes))
    if work.array is None:
        return Cycles("vector", vector)
    return Cycles("mac", max(mac_cycles(work.array, chip, *_formats(node, operands)), vector))


def _formats(node: Node, operands: Sequence[Tensor | None]) -> tuple[DType, DType]:
    """Types of activations and weights of a sum of products, 8-bit ones where it does not say."""
    rule = QUANTISE.get(node.op)
    weight = operands[rule.weight] if rule is not None and len(operands) > rule.weight else None
    x = operands[0] if operands else None
    return DType.UINT8 if x is None else x.dtype, DType.INT8 if weight is None else weight.dtype


def array_cycles(shape: MacShape, chip: Chip) -> int:
    """Cycles of the MAC array on 8-bit operands: in each it multiplies `chip.mac_inputs` channels with the weights of
    `chip.mac_outputs` channels. Groups that are smaller than the array lie on its diagonal, as many as fit."""
    blocks = _ceil(shape.inputs, chip.mac_inputs) * _ceil(shape.outputs, chip.mac_outputs)
    together = min(chip.mac_inputs // shape.inputs, chip.mac_outputs // shape.outputs) if blocks == 1 else 1
    return _ceil(shape.groups, together) * blocks * shape.steps


def mac_cycles(shape: MacShape, chip: Chip, activations: DType, weights: DType) -> int:
    """Cycles of the MAC array on operands of these types."""
    slower, faster = _rates(chip, activations, weights)
    return _ceil(array_cycles(shape, chip) * slower, faster)


def ideal_mac_cycles(macs: int, chip: Chip, activations: DType, weights: DType) -> int:
    """Cycles of a MAC array that is always full."""
    slower, faster = _rates(chip, activations, weights)
    return _ceil(macs * slower, faster * chip.macs_per_cycle)


def _rates(chip: Chip, activations: DType, weights: DType) -> tuple[int, int]:
    """How many times the cycles of 8-bit operands, as a fraction."""
    return (
        chip.int16_divisor if activations.bits > 8 else 1,
        chip.int4_multiplier if weights is DType.INT4 else 1,
    )


def transfer_cycles(
    extents: Sequence[int], strides: Sequence[Sequence[int]], itemsize: int, dram: int, chip: Chip
) -> Cycles:
    """Cycles of a transfer of `extents` elements, of which `dram` sides (0 to 2) are in DRAM.

    The engine moves whole bursts of `chip.alignment` bytes: a run of contiguous bytes that is shorter takes one.
    """
    run = itemsize
    runs = 1
    joined = True
    for axis in reversed(range(len(extents))):
        if extents[axis] == 1:
            continue
        joined = joined and all(side[axis] == run for side in strides)
        if joined:
            run *= extents[axis]
        else:
            runs *= extents[axis]
    size = runs * _ceil(run, chip.alignment) * chip.alignment
    if not dram:
        return Cycles("dma", _ceil(size, chip.vector_lanes * _MOVED))
    return Cycles("dma", dram * _ceil(size * chip.clock_hz, chip.dram_bytes_per_second), chip.dram_latency_cycles)


def _ceil(work: int, rate: int) -> int:
    return -(-work // rate)


# -- when --------------------------------------------------------------------------------------------------------------
Span = tuple[int, int]  # bytes of SRAM, end exclusive


class Timeline:
    """Start and end of commands that are given in order. Transfers between DRAM and DRAM need no care here: one engine
    does them all in order."""

    def __init__(self, sram_size: int, block: int) -> None:
        self._block = block
        blocks = -(-sram_size // block)
        self._written = np.zeros(blocks, np.int64)  # cycle in which the last write of a block is done
        self._read = np.zeros(blocks, np.int64)
        self._free = dict.fromkeys(ENGINES, 0)

    def add(self, cycles: Cycles, reads: Iterable[Span], writes: Iterable[Span]) -> int:
        """The cycle in which the next command starts."""
        places = [self._blocks(span) for span in reads], [self._blocks(span) for span in writes]
        start = self._free[cycles.engine]
        for blocks in places[0]:
            start = max(start, int(self._written[blocks].max(initial=0)))
        for blocks in places[1]:
            start = max(start, int(self._written[blocks].max(initial=0)), int(self._read[blocks].max(initial=0)))
        end = start + cycles.total
        self._free[cycles.engine] = start + cycles.busy
        for blocks in places[0]:
            np.maximum(self._read[blocks], end, out=self._read[blocks])
        for blocks in places[1]:
            self._written[blocks] = end
        return start

    def _blocks(self, span: Span) -> slice:
        return slice(span[0] // self._block, -(-span[1] // self._block))
