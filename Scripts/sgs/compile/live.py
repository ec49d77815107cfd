"""Where every tensor of a fixed graph resides, and from when to when: facts for the allocators, no decisions.

A storage is the bytes that one or several tensors share: an operator that only changes the shape is no layer, its
result is its operand's storage. A storage lies in the weights, an input or an output of the caller, or in memory of the
program's own; storages of the last kind have a live range each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sgs.img.image import Space, packed_bytes
from sgs.ir.graph import Graph, Node
from sgs.registry import MOVE


@dataclass(frozen=True)
class LiveRange:
    """Bytes that are needed from time `first` to time `last`, both included."""

    name: str
    first: int
    last: int
    size: int


@dataclass(eq=False)
class Storage:
    """Bytes in `space` (of INPUT and OUTPUT: in this `buffer`), `name` being the first tensor that lies there."""

    name: str
    size: int
    space: Space = Space.ARENA
    buffer: int = 0


@dataclass(frozen=True)
class Residence:
    """The layers of a graph in order, the storage of every tensor that they name, and per storage of the program's own
    the first and the last layer that needs it."""

    layers: tuple[Node, ...]
    storage: dict[str, Storage] = field(default_factory=dict)
    spans: dict[Storage, tuple[int, int]] = field(default_factory=dict)


def reside(graph: Graph) -> Residence:
    """Give every tensor its storage. No output may be an input, a constant or a second time an output."""
    storage: dict[str, Storage] = {}
    outputs = {name: index for index, name in enumerate(graph.outputs)}
    computed = _read_by_layers(graph)
    for name, tensor in graph.tensors.items():
        if tensor.is_constant:
            storage[name] = Storage(name, packed_bytes(tensor.shape, tensor.dtype), Space.WEIGHTS)
    for index, name in enumerate(graph.inputs):
        storage[name] = Storage(name, graph[name].nbytes, Space.INPUT, index)
    layers: list[Node] = []
    for node in graph.nodes:
        shared = _shared(node, storage, outputs, computed)
        if shared is None:
            layers.append(node)
        for name in node.outputs:
            storage[name] = shared or Storage(name, graph[name].nbytes)
            if name in outputs:
                storage[name].space, storage[name].buffer = Space.OUTPUT, outputs[name]
    return Residence(tuple(layers), storage, _spans(layers, storage))


def _read_by_layers(graph: Graph) -> set[str]:
    """Tensors whose bytes, perhaps under another shape, are read by an operator that is no change of shape."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        if not _changes_shape(node) or node.outputs[0] in found:
            found.update(name for name in node.inputs if name is not None)
    return found


def _changes_shape(node: Node) -> bool:
    return node.op in MOVE and MOVE[node.op].alias


def _shared(node: Node, storage: dict[str, Storage], outputs: dict[str, int], computed: set[str]) -> Storage | None:
    """The storage that an operator's result shares with operand 0; None for a layer.

    An output cannot share what already lies in the weights, an input or another output, and does not share what layers
    read, which may stay on the chip then: there a change of shape is a copy.
    """
    if not _changes_shape(node):
        return None
    source = storage[node.inputs[0] or ""]
    copied = node.outputs[0] in outputs and (source.space is not Space.ARENA or node.inputs[0] in computed)
    return None if copied else source


def _spans(layers: list[Node], storage: dict[str, Storage]) -> dict[Storage, tuple[int, int]]:
    spans: dict[Storage, tuple[int, int]] = {}
    for index, node in enumerate(layers):
        for name in (*node.inputs, *node.outputs):
            home = storage[name] if name is not None else None
            if home is not None and home.space is Space.ARENA:
                first, _ = spans.get(home, (index, index))
                spans[home] = (first, index)
    return spans
