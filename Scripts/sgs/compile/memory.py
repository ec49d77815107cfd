"""The memories that steps work on: what lies in SRAM whole, what lies in DRAM, and the buffers for pieces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sgs.compile.live import Residence, Storage, rounded
from sgs.compile.program import Buffer, Spot
from sgs.ir.graph import Graph


@dataclass
class Memory:
    """`resident` maps the storages that lie in SRAM whole to their buffers; `buffers` are all that were asked for."""

    graph: Graph
    residence: Residence
    alignment: int
    resident: dict[Storage, Buffer] = field(default_factory=dict)
    buffers: list[Buffer] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        graph: Graph,
        residence: Residence,
        resident: frozenset[Storage],
        on_operands: Mapping[Storage, Storage],
        alignment: int,
    ) -> Memory:
        """The memories with a buffer for every storage that stays in SRAM: that of an operand for results that lie on
        one which stays there too."""
        memory = cls(graph, residence, alignment)
        for home in sorted((home for home in residence.spans if home in resident), key=lambda h: residence.spans[h][0]):
            under = on_operands.get(home)
            shared = memory.resident.get(under) if under is not None else None
            memory.resident[home] = shared or memory.buffer(home.name, home.size)
        return memory

    def buffer(self, name: str, size: int) -> Buffer:
        """A new buffer of so many bytes or a few more."""
        made = Buffer(name, rounded(size, self.alignment))
        self.buffers.append(made)
        return made

    def home(self, name: str) -> Buffer | Storage:
        """Where a tensor lies whole."""
        storage = self.residence.storage[name]
        return self.resident.get(storage, storage)

    def in_sram(self, name: str) -> bool:
        """Whether a tensor lies in SRAM whole."""
        return self.residence.storage[name] in self.resident

    def spot(self, name: str, offset: int = 0) -> Spot:
        """A byte of a tensor where it lies whole."""
        return Spot(self.home(name), self.residence.offset[name] + offset)
