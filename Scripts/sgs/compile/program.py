"""What the machine is to do, before anything has an address: transfers and computations on buffers, in steps.

A step is what is done for one piece of a layer. The machine works through units, one a step: in unit u it does the
late loads of step u, the early loads of step u + 1, the computations of step u and its stores. Early loads overlap the
computations of the step before; a buffer that they fill is in use one unit longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sgs.compile.live import Storage, is_run
from sgs.ir.graph import Graph, Node
from sgs.registry import Copy

Shape = tuple[int, ...]


@dataclass(eq=False)
class Buffer:
    """Bytes in SRAM, in use from unit `first` to unit `last`, both included."""

    name: str
    size: int
    first: int = 1 << 60
    last: int = -1

    def use(self, unit: int) -> None:
        """Note that the buffer is in use in a unit."""
        self.first, self.last = min(self.first, unit), max(self.last, unit)


@dataclass(frozen=True)
class Spot:
    """Bytes from `offset` on in a buffer or a storage."""

    home: Buffer | Storage
    offset: int = 0


@dataclass(frozen=True)
class Transfer:
    """Elements of `itemsize` bytes from one place to another for layer number `layer`, with strides in bytes on either
    side."""

    layer: int
    extents: Shape
    itemsize: int
    source: Spot
    source_strides: Shape
    target: Spot
    target_strides: Shape


def transfer(layer: int, copy: Copy, itemsize: int, source: Spot, target: Spot) -> Transfer | None:
    """A copy between tensors that begin at `source` and `target`; None if it would copy bytes onto themselves."""
    (begin, read), (into, written) = copy.source, copy.target
    source = Spot(source.home, source.offset + begin * itemsize)
    target = Spot(target.home, target.offset + into * itemsize)
    if source == target and (read == written or (is_run(copy.extents, read) and is_run(copy.extents, written))):
        return None
    strides = [tuple(stride * itemsize for stride in side) for side in (read, written)]
    return Transfer(layer, copy.extents, itemsize, source, strides[0], target, strides[1])


@dataclass(frozen=True)
class Computation:
    """A node of layer number `layer` alone on contiguous operands: `graph` is of that node, `reads` are its operands in
    order."""

    layer: int
    graph: Graph
    node: Node
    reads: tuple[Spot | None, ...]
    writes: tuple[Spot, ...]


@dataclass
class Step:
    """What is done for one piece of a layer, or one band of a group."""

    late: list[Transfer] = field(default_factory=list)
    early: list[Transfer] = field(default_factory=list)
    work: list[Computation | Transfer] = field(default_factory=list)
    stores: list[Transfer] = field(default_factory=list)


Planned = Transfer | Computation


def in_order(steps: list[Step]) -> Iterator[Planned]:
    """Commands in the order of execution."""
    if steps:
        yield from steps[0].early
    for unit, step in enumerate(steps):
        yield from step.late
        if unit + 1 < len(steps):
            yield from steps[unit + 1].early
        yield from (*step.work, *step.stores)
