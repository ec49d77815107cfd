"""ONNX control flow and sequences, solved at import: what runs how often, and what a list holds, has to be known.

An If takes the branch that its constant condition names; where the condition is computed, both branches run and the
results are selected. Loop and Scan are written out step by step. A sequence is a list of values of the graph. Each
handler returns what takes the node's place: nodes, and functions that give more when the walk has come so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from onnx import GraphProto, NodeProto, helper

from sgs.errors import UserError
from sgs.frontends.onnx_bodies import Body, constant_node, instantiated, parted, stacked, without_axis
from sgs.numeric.quantise import Array

MOST_STEPS = 1024  # of one Loop or Scan
MOST_NODES = 20_000  # of all steps together
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Later:
    """What takes the place of a part of `node`, made when the walk has come so far."""

    node: NodeProto
    make: Callable[[], Sequence[Item]]


Item = NodeProto | Later


class Walk(Protocol):
    """What handlers see of an import under way."""

    values: dict[str, Array]
    sequences: dict[str, list[str]]  # name of a sequence → names of its elements

    opset: int  # of the node at hand
    readers: dict[str, bool]  # names of all values that something reads

    def shape_of(self, name: str) -> Shape | None:
        """Shape of a value; None where it is lost."""

    def bind_body(self, body: Body) -> None:
        """File a body's constants."""

    def known(self, node: NodeProto, index: int, what: str) -> Array | None:
        """A constant operand, None when absent. Raises UserError for one that is computed."""

    def unsupported(self, node: NodeProto, reason: str, remedy: str = "") -> UserError:
        """The error to raise for a form that has no meaning here."""


def attributes(node: NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _stem(node: NodeProto) -> str:
    return next((name for name in node.output if name), node.name or node.op_type)


def _copies(sources: Sequence[str], results: Sequence[str]) -> list[NodeProto]:
    pairs = zip(sources, results, strict=False)
    return [helper.make_node("Identity", [source], [result]) for source, result in pairs if result]


# -- If --------------------------------------------------------------------------------------------------------------
def _if(walk: Walk, node: NodeProto) -> list[Item]:
    branches: dict[str, GraphProto] = attributes(node)
    if node.input[0] in walk.values:
        taken = "then_branch" if bool(walk.values[node.input[0]].reshape(-1)[0]) else "else_branch"
        body = instantiated(branches[taken], f"{_stem(node)}/{taken}", {})
        walk.bind_body(body)
        return [*body.nodes, *_copies(body.outputs, node.output)]
    both = [instantiated(branches[name], f"{_stem(node)}/{name}", {}) for name in ("then_branch", "else_branch")]
    for body in both:
        walk.bind_body(body)
    return [
        *both[0].nodes,
        *both[1].nodes,
        Later(node, lambda: _selected(walk, node, both[0].outputs, both[1].outputs)),
    ]


def _selected(walk: Walk, node: NodeProto, then: Sequence[str], other: Sequence[str]) -> list[Item]:
    """Results of the branch that a computed condition names."""
    condition = f"{_stem(node)}/condition"
    nodes = [constant_node(f"{condition}/shape", np.zeros(0, np.int64))]
    nodes.append(helper.make_node("Reshape", [node.input[0], f"{condition}/shape"], [condition]))
    for a, b, result in zip(then, other, node.output, strict=True):
        if a in walk.sequences or b in walk.sequences:
            raise walk.unsupported(node, "its condition is computed, and a result is a sequence")
        shapes = walk.shape_of(a), walk.shape_of(b)
        if None not in shapes and shapes[0] != shapes[1]:
            reason = f"its condition is computed, and its branches give shapes {shapes[0]} and {shapes[1]}"
            raise walk.unsupported(node, reason, "make the condition a constant")
        nodes.append(helper.make_node("Where", [condition, a, b], [result], name=node.name))
    return [*nodes]


# -- Loop and Scan ---------------------------------------------------------------------------------------------------
@dataclass
class _Loop:
    """A Loop under way: the values carried from step to step, and what every step adds to the scanned results."""

    walk: Walk
    node: NodeProto
    body: GraphProto
    trips: int | None
    condition: str  # "" where it always holds
    carried: list[str]
    scanned: list[list[str]]
    number: int = 0

    def advance(self) -> list[Item]:
        if self.number == self.trips or not self._goes_on():
            return self._finish()
        if self.number >= MOST_STEPS or self.number * len(self.body.node) > MOST_NODES:
            reason = f"it takes more than {self.number} steps, written out one by one"
            raise self.walk.unsupported(self.node, reason, "export the network with the loop outside of it")
        stem = f"{_stem(self.node)}/{self.number}"
        formal = [value.name for value in self.body.input]
        first = [constant_node(f"{stem}/number", np.array(self.number, np.int64))]
        first.append(constant_node(f"{stem}/condition", np.array(True)))
        arguments = dict(zip(formal, [f"{stem}/number", f"{stem}/condition", *self.carried], strict=True))
        made = instantiated(self.body, stem, arguments)
        self.walk.bind_body(made)
        count = len(self.carried)
        self.condition, self.carried = made.outputs[0], made.outputs[1 : 1 + count]
        for part, name in zip(self.scanned, made.outputs[1 + count :], strict=True):
            part.append(name)
        self.number += 1
        return [*first, *made.nodes, Later(self.node, self.advance)]

    def _goes_on(self) -> bool:
        if not self.condition:
            return True
        if self.condition not in self.walk.values:
            raise self.walk.unsupported(self.node, "how often it runs is computed", "export it with a constant count")
        return bool(self.walk.values[self.condition].reshape(-1)[0])

    def _finish(self) -> list[Item]:
        count = len(self.carried)
        nodes: list[Item] = [*_copies(self.carried, self.node.output)]
        for parts, result in zip(self.scanned, self.node.output[count:], strict=False):
            if not parts and result not in self.walk.readers:
                continue
            if not parts:
                raise self.walk.unsupported(self.node, f"it never runs, so that '{result}' is empty")
            nodes += stacked(parts, result, 0, self.walk.opset) if result else []
        return nodes


def _loop(walk: Walk, node: NodeProto) -> list[Item]:
    body = attributes(node)["body"]
    trips = walk.known(node, 0, "number of steps")
    keep = walk.known(node, 1, "condition")
    carried = list(node.input[2:])
    scanned: list[list[str]] = [[] for _ in body.output[1 + len(carried) :]]
    never = keep is not None and not bool(keep.reshape(-1)[0])
    limit = 0 if never else None if trips is None else max(0, int(trips.reshape(-1)[0]))
    return _Loop(walk, node, body, limit, "", carried, scanned).advance()


@dataclass
class _Scan:
    """How a Scan goes: bodies see one entry of every scanned operand."""

    walk: Walk
    node: NodeProto
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def _of(self, name: str, count: int) -> list[int]:
        return [int(v) for v in self.attrs.get(name, [0] * count)]

    def items(self) -> list[Item]:
        body, count = self.attrs["body"], int(self.attrs["num_scan_inputs"])
        split = len(self.node.input) - count
        state, scanned = list(self.node.input[:split]), list(self.node.input[split:])
        parts: list[list[str]] = []
        nodes: list[Item] = []
        formal = [value.name for value in body.input]
        axes, turns = self._of("scan_input_axes", count), self._of("scan_input_directions", count)
        for number, (name, axis, turn) in enumerate(zip(scanned, axes, turns, strict=True)):
            cut, entries = self._entries(name, axis, body.node, f"{_stem(self.node)}/operand{number}")
            nodes += cut
            parts.append(entries[::-1] if turn else entries)
        if len({len(part) for part in parts}) > 1:
            raise self.walk.unsupported(self.node, "its operands have different numbers of steps")
        results: list[list[str]] = [[] for _ in body.output[split:]]
        for number, step in enumerate(zip(*parts, strict=True)):
            made = instantiated(body, f"{_stem(self.node)}/{number}", dict(zip(formal, [*state, *step], strict=True)))
            self.walk.bind_body(made)
            nodes += made.nodes
            state = made.outputs[:split]
            for part, name in zip(results, made.outputs[split:], strict=True):
                part.append(name)
        behind = Later(self.node, lambda: self._results(results, self.node.output[split:]))
        return [*nodes, *_copies(state, self.node.output), behind]

    def _entries(self, name: str, axis: int, body: Sequence[NodeProto], stem: str) -> tuple[list[NodeProto], list[str]]:
        """(nodes, the entries of an operand along an axis)."""
        shape = self.walk.shape_of(name)
        if shape is None:
            raise self.walk.unsupported(self.node, f"the shape of '{name}' is not known")
        axis %= len(shape)
        steps = shape[axis]
        if not 0 < steps <= MOST_STEPS or steps * len(body) > MOST_NODES:
            reason = f"{steps} steps, written out one by one"
            raise self.walk.unsupported(self.node, reason, "export the network with the loop outside of it")
        pieces, entries = ([f"{stem}/{what}{i}" for i in range(steps)] for what in ("piece", "entry"))
        nodes = parted(name, [1] * steps, pieces, axis, self.walk.opset)
        for piece, entry in zip(pieces, entries, strict=True):
            nodes += without_axis(piece, entry, axis, self.walk.opset)
        return nodes, entries

    def _results(self, results: Sequence[list[str]], names: Sequence[str]) -> list[Item]:
        """Every step's results along an axis, once their rank is known."""
        axes, turns = (self._of(f"scan_output_{what}", len(results)) for what in ("axes", "directions"))
        nodes: list[Item] = []
        for parts, name, axis, turn in zip(results, names, axes, turns, strict=False):
            shape = self.walk.shape_of(parts[0])
            if name and shape is not None:
                ordered = parts[::-1] if turn else parts
                nodes += stacked(ordered, name, axis % (len(shape) + 1), self.walk.opset)
        return nodes


def _scan(walk: Walk, node: NodeProto) -> list[Item]:
    if walk.opset < 9:
        raise walk.unsupported(node, "Scan of operator set 8", "export with operator set 9 or newer")
    return _Scan(walk, node, attributes(node)).items()


# -- sequences and optional values -----------------------------------------------------------------------------------
def _elements(walk: Walk, node: NodeProto, index: int = 0) -> list[str]:
    name = node.input[index]
    if name not in walk.sequences:
        raise walk.unsupported(node, f"'{name}' is no sequence that the network builds itself")
    return walk.sequences[name]


def _position(walk: Walk, node: NodeProto, index: int, length: int, default: int) -> int:
    """An operand that counts from the end where it is negative."""
    value = walk.known(node, index, "position")
    position = default if value is None else int(value.reshape(-1)[0])
    position += length if position < 0 else 0
    if not 0 <= position <= length:
        raise walk.unsupported(node, f"position {position} of {length}")
    return position


def _sequence_empty(walk: Walk, node: NodeProto) -> list[Item]:
    walk.sequences[node.output[0]] = []
    return []


def _sequence_construct(walk: Walk, node: NodeProto) -> list[Item]:
    walk.sequences[node.output[0]] = list(node.input)
    return []


def _sequence_insert(walk: Walk, node: NodeProto) -> list[Item]:
    elements = list(_elements(walk, node))
    elements.insert(_position(walk, node, 2, len(elements), len(elements)), node.input[1])
    walk.sequences[node.output[0]] = elements
    return []


def _sequence_erase(walk: Walk, node: NodeProto) -> list[Item]:
    elements = list(_elements(walk, node))
    at = _position(walk, node, 1, len(elements), len(elements) - 1)
    walk.sequences[node.output[0]] = elements[:at] + elements[at + 1 :]
    return []


def _sequence_at(walk: Walk, node: NodeProto) -> list[Item]:
    elements = _elements(walk, node)
    at = _position(walk, node, 1, len(elements), 0)
    if at == len(elements):
        raise walk.unsupported(node, f"position {at} of {len(elements)}")
    return [*_copies(elements[at : at + 1], node.output)]


def _sequence_length(walk: Walk, node: NodeProto) -> list[Item]:
    return [constant_node(node.output[0], np.array(len(_elements(walk, node)), np.int64))]


def _concat_from_sequence(walk: Walk, node: NodeProto) -> list[Item]:
    elements, attrs = _elements(walk, node), attributes(node)
    shape = walk.shape_of(elements[0]) if elements else None
    if shape is None:
        raise walk.unsupported(node, "an empty sequence")
    if not attrs.get("new_axis", 0):
        return [helper.make_node("Concat", elements, list(node.output), name=node.name, axis=attrs["axis"])]
    return [*stacked(elements, node.output[0], int(attrs["axis"]) % (len(shape) + 1), walk.opset)]


def _split_to_sequence(walk: Walk, node: NodeProto) -> list[Item]:
    attrs, shape = attributes(node), walk.shape_of(node.input[0])
    if not shape:
        raise walk.unsupported(node, "an operand without axes")
    axis, split = int(attrs.get("axis", 0)) % len(shape), walk.known(node, 1, "split")
    extent = shape[axis]
    if split is None or split.ndim == 0:
        each = 1 if split is None else int(split)
        sizes = [min(each, extent - begin) for begin in range(0, extent, each)]
    else:
        sizes = [int(size) for size in split]
    names = [f"{node.output[0]}/{index}" for index in range(len(sizes))]
    walk.sequences[node.output[0]] = names
    if split is not None or attrs.get("keepdims", 1):
        return [*parted(node.input[0], sizes, names, axis, walk.opset)]
    pieces = [f"{name}/piece" for name in names]
    nodes = parted(node.input[0], sizes, pieces, axis, walk.opset)
    for piece, name in zip(pieces, names, strict=True):
        nodes += without_axis(piece, name, axis, walk.opset)
    return [*nodes]


def _sequence_map(walk: Walk, node: NodeProto) -> list[Item]:
    """The body for every element of the first sequence; operands behind it are sequences as long, or values."""
    body, elements = attributes(node)["body"], _elements(walk, node)
    results: list[list[str]] = [[] for _ in node.output]
    nodes: list[Item] = []
    for number in range(len(elements)):
        operands = [walk.sequences[n][number] if n in walk.sequences else n for n in node.input]
        arguments = dict(zip([value.name for value in body.input], operands, strict=True))
        made = instantiated(body, f"{_stem(node)}/{number}", arguments)
        walk.bind_body(made)
        nodes += made.nodes
        for part, name in zip(results, made.outputs, strict=True):
            part.append(name)
    walk.sequences.update(zip(node.output, results, strict=True))
    return nodes


def _identity(walk: Walk, node: NodeProto) -> list[Item]:
    """Of a sequence, or of what is there as an optional value."""
    if not node.input:
        raise walk.unsupported(node, "an optional value that is absent")
    walk.sequences[node.output[0]] = _elements(walk, node)
    return []


def _optional(walk: Walk, node: NodeProto) -> list[Item]:
    """What is there is the value itself."""
    if node.input and node.input[0] in walk.sequences:
        return _identity(walk, node)
    if not node.input:
        raise walk.unsupported(node, "an optional value that is absent")
    return [*_copies(node.input, node.output)]


def _optional_has(walk: Walk, node: NodeProto) -> list[Item]:
    return [constant_node(node.output[0], np.array(bool(node.input and node.input[0])))]


HANDLERS: dict[str, Callable[[Walk, NodeProto], list[Item]]] = {
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
    "SequenceEmpty": _sequence_empty,
    "SequenceConstruct": _sequence_construct,
    "SequenceInsert": _sequence_insert,
    "SequenceErase": _sequence_erase,
    "SequenceAt": _sequence_at,
    "SequenceLength": _sequence_length,
    "ConcatFromSequence": _concat_from_sequence,
    "SplitToSequence": _split_to_sequence,
    "SequenceMap": _sequence_map,
    "Optional": _optional,
    "OptionalGetElement": _optional,
    "OptionalHasElement": _optional_has,
}
IDENTITY = _identity
