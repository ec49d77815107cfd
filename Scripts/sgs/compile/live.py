"""Where every tensor of a fixed graph resides, and from when to when: facts for the allocators, no decisions.

A storage is the bytes that one or several tensors share: an operator that only changes the shape is no command, its
result is its operand's storage. A storage lies in the weights, an input or an output of the caller, or in the arena;
storages of the arena have a live range each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sgs.img.image import Space, packed_bytes
from sgs.ir.graph import Graph, Node
from sgs.registry import MOVE


@dataclass(frozen=True)
class LiveRange:
    """Bytes that are needed from command `first` to command `last`, both included."""

    name: str
    first: int
    last: int
    size: int


@dataclass
class Storage:
    """Bytes in `space` (of INPUT and OUTPUT: in this `buffer`), `name` being the first tensor that lies there."""

    name: str
    size: int
    space: Space = Space.ARENA
    buffer: int = 0


@dataclass(frozen=True)
class Residence:
    """The commands of a graph in order, and the storage of every tensor that it names."""

    commands: tuple[Node, ...]
    storage: dict[str, Storage] = field(default_factory=dict)


def reside(graph: Graph) -> Residence:
    """Give every tensor its storage. No output may be an input, a constant or a second time an output."""
    storage: dict[str, Storage] = {}
    outputs = {name: index for index, name in enumerate(graph.outputs)}
    for name, tensor in graph.tensors.items():
        if tensor.is_constant:
            storage[name] = Storage(name, packed_bytes(tensor.shape, tensor.dtype), Space.WEIGHTS)
    for index, name in enumerate(graph.inputs):
        storage[name] = Storage(name, graph[name].nbytes, Space.INPUT, index)
    commands: list[Node] = []
    for node in graph.nodes:
        shared = _shared(node, storage, outputs)
        if shared is None:
            commands.append(node)
        for name in node.outputs:
            storage[name] = shared or Storage(name, graph[name].nbytes)
            if name in outputs:
                storage[name].space, storage[name].buffer = Space.OUTPUT, outputs[name]
    return Residence(tuple(commands), storage)


def _shared(node: Node, storage: dict[str, Storage], outputs: dict[str, int]) -> Storage | None:
    """The storage that an operator's result shares with operand 0; None for a command.

    An output cannot share what already lies in the weights, an input or another output: there a change of shape is a
    copy.
    """
    if node.op not in MOVE or not MOVE[node.op].alias:
        return None
    source = storage[node.inputs[0] or ""]
    return source if node.outputs[0] not in outputs or source.space is Space.ARENA else None


def live_ranges(residence: Residence, alignment: int) -> list[LiveRange]:
    """One range per storage of the arena, in order of their first command; sizes are multiples of `alignment`."""
    spans: dict[str, tuple[int, int]] = {}
    sizes: dict[str, int] = {}
    for index, node in enumerate(residence.commands):
        for name in (*node.inputs, *node.outputs):
            storage = residence.storage[name] if name is not None else None
            if storage is None or storage.space is not Space.ARENA:
                continue
            first, _ = spans.get(storage.name, (index, index))
            spans[storage.name] = (first, index)
            sizes[storage.name] = -(-storage.size // alignment) * alignment
    return [LiveRange(name, first, last, sizes[name]) for name, (first, last) in spans.items()]
