"""Where every tensor of a fixed graph resides, and from when to when: facts for the allocators, no decisions.

A storage is the bytes that one or several tensors share. An operator that only moves values is no layer where an
address can do its work: a change of shape; a slice whose values lie one after the other in its operand; operands of a
concatenation that do so in the result. A storage lies in the weights, an input or an output of the caller, or in memory
of the program's own; storages of the last kind have a live range each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from sgs.img.image import Space, packed_bytes
from sgs.ir.graph import Graph, Node
from sgs.numeric.types import DType
from sgs.registry import MOVE, Copy


@dataclass(frozen=True)
class LiveRange:
    """Bytes that are needed from time `first` to time `last`, both included."""

    name: str
    first: int
    last: int
    size: int


def rounded(size: int, alignment: int) -> int:
    """The next multiple of the alignment."""
    return -(-size // alignment) * alignment


@dataclass(eq=False)
class Storage:
    """Bytes in `space` (of INPUT and OUTPUT: in this `buffer`), `name` being the first tensor that lies there."""

    name: str
    size: int
    space: Space = Space.ARENA
    buffer: int = 0


@dataclass(frozen=True)
class Residence:
    """The layers of a graph in order; the storage of every tensor, and the byte of it at which the tensor begins; per
    storage of the program's own the first and the last layer that needs it."""

    layers: tuple[Node, ...]
    storage: dict[str, Storage] = field(default_factory=dict)
    offset: dict[str, int] = field(default_factory=dict)
    spans: dict[Storage, tuple[int, int]] = field(default_factory=dict)


def reside(graph: Graph) -> Residence:
    """Give every tensor its storage. No output may be an input, a constant or a second time an output."""
    homes = _Homes(graph)
    layers: list[Node] = []
    for node in graph.nodes:
        if homes.is_address(node):
            continue
        for index, name in enumerate(node.outputs):
            homes.make(name)
            if node.op in MOVE:
                homes.take_in(node, index)
        if node.op not in MOVE or any(not homes.in_place(node, copy) for copy in _copies(graph, node)):
            layers.append(node)
    return Residence(tuple(layers), homes.storage, homes.offset, _spans(layers, homes.storage))


def _copies(graph: Graph, node: Node) -> Sequence[Copy]:
    return MOVE[node.op].copies(node, graph.operands(node), graph.results(node))


class _Homes:
    """Storages under construction."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.storage: dict[str, Storage] = {}
        self.offset: dict[str, int] = {}
        self._outputs = {name: index for index, name in enumerate(graph.outputs)}
        self._computed = read_by_layers(graph)
        self._readers = graph.readers()
        for name, tensor in graph.tensors.items():
            if tensor.is_constant:
                self._put(name, Storage(name, packed_bytes(tensor.shape, tensor.dtype), Space.WEIGHTS))
        for index, name in enumerate(graph.inputs):
            self._put(name, Storage(name, graph[name].nbytes, Space.INPUT, index))

    def _put(self, name: str, home: Storage, offset: int = 0) -> None:
        self.storage[name], self.offset[name] = home, offset

    def make(self, name: str) -> None:
        """A storage of its own for a result."""
        home = Storage(name, self._graph[name].nbytes)
        if name in self._outputs:
            home.space, home.buffer = Space.OUTPUT, self._outputs[name]
        self._put(name, home)

    def is_address(self, node: Node) -> bool:
        """Let the results of an operator lie in its operand, where they are runs of its bytes. An output cannot lie in
        the weights, an input or another output, and does not lie in what layers read, which may stay on the chip."""
        if node.op not in MOVE or any(name in self._outputs for name in node.outputs):
            return node.op in MOVE and MOVE[node.op].alias and self._becomes_output(node)
        places = {}
        for copy in _copies(self._graph, node):
            source, result = node.inputs[copy.operand] or "", node.outputs[copy.result]
            if result in places or not is_run(copy.extents, copy.source[1]) or copy.target[0]:
                return False
            if not is_run(copy.extents, copy.target[1]) or self._graph[source].dtype is DType.INT4:
                return False
            size = self._graph[source].dtype.numpy.itemsize
            places[result] = self.storage[source], self.offset[source] + copy.source[0] * size
        if len(places) != len(node.outputs):
            return False
        for name, (home, offset) in places.items():
            self._put(name, home, offset)
        return True

    def _becomes_output(self, node: Node) -> bool:
        """Let a change of shape make an output of the storage of its operand."""
        source, result = node.inputs[0] or "", node.outputs[0]
        home = self.storage[source]
        if home.space is not Space.ARENA or source in self._computed or self.offset[source]:
            return False
        if home.size != self._graph[result].nbytes:
            return False
        home.space, home.buffer = Space.OUTPUT, self._outputs[result]
        self._put(result, home)
        return True

    def take_in(self, node: Node, index: int) -> None:
        """Let operands of a move lie in result number `index`, where they are runs of its bytes; operands that have a
        storage for themselves, and, if the result is an output, no other reader."""
        result = node.outputs[index]
        for copy in _copies(self._graph, node):
            source = node.inputs[copy.operand] or ""
            home, whole = self.storage[source], self._graph[source].elements
            if copy.result != index or home.space is not Space.ARENA or home is self.storage[result]:
                continue
            alone = self.offset[source] == 0 and home.size == self._graph[source].nbytes
            runs = is_run(copy.extents, copy.source[1]) and is_run(copy.extents, copy.target[1])
            if not (alone and runs and copy.source[0] == 0 and math.prod(copy.extents) == whole):
                continue
            if result in self._outputs and self._read_elsewhere(home, node):
                continue
            start = copy.target[0] * self._graph[source].dtype.numpy.itemsize
            for name in [name for name, held in self.storage.items() if held is home]:
                self._put(name, self.storage[result], self.offset[result] + self.offset[name] + start)

    def _read_elsewhere(self, home: Storage, node: Node) -> bool:
        names = [name for name, held in self.storage.items() if held is home]
        readers = [reader for name in names for reader in self._readers[name]]
        return any(reader is not node and not (set(reader.outputs) & set(names)) for reader in readers)

    def in_place(self, node: Node, copy: Copy) -> bool:
        """Whether a copy would copy bytes onto themselves."""
        source, result = node.inputs[copy.operand] or "", node.outputs[copy.result]
        size = self._graph[source].dtype.numpy.itemsize
        ends = [
            (self.storage[name], self.offset[name] + place[0] * size, place[1])
            for name, place in ((source, copy.source), (result, copy.target))
        ]
        return ends[0] == ends[1] or (
            ends[0][:2] == ends[1][:2] and all(is_run(copy.extents, place[1]) for place in (copy.source, copy.target))
        )


def is_run(extents: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether elements lie one after the other."""
    step = 1
    for extent, stride in zip(reversed(extents), reversed(strides), strict=True):
        if extent > 1 and stride != step:
            return False
        step *= extent
    return True


def read_by_layers(graph: Graph) -> set[str]:
    """Tensors whose bytes, perhaps under another shape, are read by an operator that is no change of shape."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op not in MOVE or not MOVE[node.op].alias or node.outputs[0] in found:
            found.update(name for name in node.inputs if name is not None)
    return found


def _spans(layers: list[Node], storage: dict[str, Storage]) -> dict[Storage, tuple[int, int]]:
    spans: dict[Storage, tuple[int, int]] = {}
    for index, node in enumerate(layers):
        for name in (*node.inputs, *node.outputs):
            home = storage[name] if name is not None else None
            if home is not None and home.space is Space.ARENA:
                first, _ = spans.get(home, (index, index))
                spans[home] = (first, index)
    return spans
