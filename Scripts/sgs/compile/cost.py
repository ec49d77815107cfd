"""What the machine model predicts of a command: work, traffic, cycles.

The MAC array, the vector unit and the DMA engine work side by side, so a command takes as long as the busiest of
them. Operands and results cross between DRAM and the chip once each.
"""

from __future__ import annotations

from dataclasses import dataclass

from sgs.config.chips import Chip
from sgs.img.image import packed_bytes
from sgs.ir.graph import Graph, Node
from sgs.numeric.types import DType
from sgs.registry import COST


@dataclass(frozen=True)
class CommandCost:
    """Multiply-accumulates, vector operations, bytes to and from DRAM, and cycles of one command."""

    macs: int
    vector_ops: int
    dma_bytes: int
    cycles: int


def command_cost(graph: Graph, node: Node, chip: Chip) -> CommandCost:
    """Cost of one node that runs as one command. Raises UnsupportedOperator for an operator without a cost rule."""
    operands, results = graph.operands(node), graph.results(node)
    work = COST[node.op](node, operands, results)
    names = dict.fromkeys(name for name in (*node.inputs, *node.outputs) if name is not None)
    traffic = sum(packed_bytes(graph[name].shape, graph[name].dtype) for name in names)
    wide = operands[0] is not None and operands[0].dtype.bits > DType.UINT8.bits
    cycles = max(
        mac_cycles(work.macs, chip, wide=wide), _ceil(work.vector_ops, chip.vector_lanes), dma_cycles(traffic, chip)
    )
    return CommandCost(work.macs, work.vector_ops, traffic, cycles)


def mac_cycles(macs: int, chip: Chip, *, wide: bool) -> int:
    """Cycles of the MAC array; `wide`: on 16-bit activations."""
    return _ceil(macs * (chip.int16_divisor if wide else 1), chip.macs_per_cycle)


def dma_cycles(size: int, chip: Chip) -> int:
    """Cycles from the start of a transfer to its last byte."""
    return chip.dram_latency_cycles + _ceil(size * chip.clock_hz, chip.dram_bytes_per_second) if size else 0


def _ceil(work: int, rate: int) -> int:
    return -(-work // rate)
