"""What lies where in memory while a program runs: followed from its commands, since a transfer names no tensor."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Generic, TypeVar

from sgs.img.image import Compute, Dma, Image, Program, Space

T = TypeVar("T")
Span = tuple[int, int]  # bytes, end exclusive


class ByteMap(Generic[T]):
    """A value for every byte of a memory, None at first; kept as runs of equal value."""

    def __init__(self) -> None:
        self._starts = [0]
        self._values: list[T | None] = [None]

    def put(self, span: Span, value: T | None) -> None:
        """Give the bytes of a span a value."""
        low, high = self._cut(span[0]), self._cut(span[1])
        self._starts[low:high] = [span[0]]
        self._values[low:high] = [value]

    def runs(self, span: Span) -> Iterator[tuple[Span, T]]:
        """The parts of a span that have a value, in order."""
        index = bisect_right(self._starts, span[0]) - 1
        while index < len(self._starts) and self._starts[index] < span[1]:
            value = self._values[index]
            end = self._starts[index + 1] if index + 1 < len(self._starts) else span[1]
            if value is not None:
                yield (max(self._starts[index], span[0]), min(end, span[1])), value
            index += 1

    def first(self, span: Span) -> T | None:
        """The value of the lowest byte of the span that has one."""
        return next((value for _, value in self.runs(span)), None)

    def _cut(self, at: int) -> int:
        """Index of the run that begins at a byte; it is made where there is none."""
        index = bisect_right(self._starts, at) - 1
        if self._starts[index] == at:
            return index
        self._starts.insert(index + 1, at)
        self._values.insert(index + 1, self._values[index])
        return index + 1


def moved_bytes(command: Dma) -> int:
    """Bytes that a transfer moves."""
    return math.prod(command.extents) * command.itemsize


def operand_spans(image: Image, command: Compute) -> tuple[list[tuple[int, Span]], list[tuple[int, Span]]]:
    """(operands, results) of a computation as (number of the tensor, its bytes in SRAM), absent ones left out."""
    kernel = image.kernels[command.kernel]
    sides = []
    for tensors, offsets in ((kernel.inputs, command.inputs), (kernel.outputs, command.outputs)):
        pairs = [(tensor, offset) for tensor, offset in zip(tensors, offsets, strict=True) if tensor != -1]
        sides.append([(tensor, (offset, offset + image.tensors[tensor].nbytes)) for tensor, offset in pairs])
    return sides[0], sides[1]


# -- what a transfer moves ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Moved:
    """Tensors that a transfer moves bytes of: what lay at its source, and what they are at its target; "" where nothing
    tells. The two differ where an operator is done by transfers alone, or only changes the shape."""

    source: str
    target: str

    @property
    def name(self) -> str:
        return self.target or self.source


def moved_tensors(image: Image, program: Program) -> list[Moved | None]:
    """For every command, what it moves, None for a computation.

    At its target it is what the next computation to read those bytes, or the output that they lie in, takes them for;
    at its source what was written there last.
    """
    targets = _taken_for(image, program)
    held: dict[Space, ByteMap[str]] = {Space.SRAM: ByteMap(), Space.ARENA: ByteMap()}
    moved: list[Moved | None] = []
    for command, target in zip(program.commands, targets, strict=True):
        if isinstance(command, Compute):
            moved.append(None)
            for tensor, span in operand_spans(image, command)[1]:
                held[Space.SRAM].put(span, image.tensors[tensor].name)
            continue
        source, place = target, command.source
        if place.space is Space.INPUT:
            source = image.tensors[image.inputs[place.buffer].tensor].name
        elif place.space in held:
            source = held[place.space].first(command.reach(place)) or ""
        moved.append(Moved(source, target))
        if command.target.space in held:
            held[command.target.space].put(command.reach(command.target), target or source)
    return moved


def _taken_for(image: Image, program: Program) -> list[str]:
    """What is at the target of every transfer, by who reads it; commands are gone through backwards."""
    names = [""] * len(program.commands)
    wanted: dict[Space, ByteMap[str]] = {Space.SRAM: ByteMap(), Space.ARENA: ByteMap()}
    keeps = _keeps_the_tensor(image, program)
    for index in reversed(range(len(program.commands))):
        command = program.commands[index]
        if isinstance(command, Compute):
            for tensor, span in operand_spans(image, command)[0]:
                wanted[Space.SRAM].put(span, image.tensors[tensor].name)
            continue
        source, target = command.source, command.target
        if target.space is Space.OUTPUT:
            name = image.tensors[image.outputs[target.buffer].tensor].name
        else:
            name = wanted[target.space].first(command.reach(target)) or ""
        names[index] = name
        if name and source.space in wanted:
            wanted[source.space].put(command.reach(source), name if keeps[index] else None)
    return names


def _keeps_the_tensor(image: Image, program: Program) -> list[bool]:
    """For every command, False for a transfer that makes another tensor of what it reads: one of a layer of transfers
    alone, and not of bytes that this layer itself has put there."""
    computing = {command.layer for command in program.commands if isinstance(command, Compute)}
    writers: dict[Space, ByteMap[int]] = {Space.SRAM: ByteMap(), Space.ARENA: ByteMap()}
    keeps = []
    for command in program.commands:
        if isinstance(command, Compute):
            keeps.append(True)
            for _, span in operand_spans(image, command)[1]:
                writers[Space.SRAM].put(span, command.layer)
            continue
        keep = command.layer in computing
        if not keep and command.source.space in writers:
            keep = writers[command.source.space].first(command.reach(command.source)) == command.layer
        keeps.append(keep)
        if command.target.space in writers:
            writers[command.target.space].put(command.reach(command.target), command.layer)
    return keeps


# -- how long it lies there --------------------------------------------------------------------------------------------
@dataclass(eq=False)
class Stay:
    """Bytes of SRAM that hold a tensor, or pieces of one in turn, from the cycle in which the first is written to the
    one in which the last has been read; what other bytes take the place of stays until then. `source`: where it came
    from, SRAM for what was computed."""

    name: str
    source: Space
    low: int
    high: int
    start: int
    end: int
    layers: set[int] = field(default_factory=set)
    broken: bool = False  # other bytes have taken some of its place

    @property
    def size(self) -> int:
        return self.high - self.low


def stays(image: Image, program: Program) -> list[Stay]:
    """Everything that lies in SRAM, in order of its first cycle. Pieces of one tensor that a layer writes over, into or
    beside one another are one stay."""
    found: list[Stay] = []
    held: ByteMap[Stay] = ByteMap()
    for command, moved in zip(program.commands, moved_tensors(image, program), strict=True):
        end = command.start + command.cycles
        if isinstance(command, Compute):
            reads, writes = operand_spans(image, command)
            for _, span in reads:
                _read(held, found, span, command.layer, end)
            taken = {span for _, span in reads}  # a result on an operand is there once that has been read
            made = [
                (image.tensors[tensor].name, Space.SRAM, span, end if span in taken else command.start)
                for tensor, span in writes
            ]
        else:
            if command.source.space is Space.SRAM:
                _read(held, found, command.reach(command.source), command.layer, end)
            onto = command.target.space is Space.SRAM
            name = moved.name if moved else ""
            made = [(name, command.source.space, command.reach(command.target), command.start)] if onto else []
        for written, source, span, start in made:
            _write(held, found, Stay(written, source, *span, start, end, {command.layer}))
    return sorted(found, key=lambda stay: (stay.start, stay.low))


def _read(held: ByteMap[Stay], found: list[Stay], span: Span, layer: int, end: int) -> None:
    for run, stay in list(held.runs(span)):
        if stay.broken:  # what is left of it is a rectangle of its own
            stay = Stay(stay.name, stay.source, *run, stay.end, end, set(stay.layers))
            found.append(stay)
            held.put(run, stay)
        stay.end = max(stay.end, end)
        stay.layers.add(layer)


def _write(held: ByteMap[Stay], found: list[Stay], new: Stay) -> None:
    """Note a write, as more of what is there already or as something new."""
    span = new.low, new.high
    others = [stay for _, stay in held.runs(span)]
    stay = new
    for _, near in held.runs((max(0, new.low - 1), new.high + 1)):
        alike = near.name == new.name and not near.broken and near.layers & new.layers
        # Grown over these bytes, its rectangle would cover them from its start on.
        if alike and all(other is near or other.end <= near.start for other in others):
            near.low, near.high, near.end = min(near.low, new.low), max(near.high, new.high), max(near.end, new.end)
            stay = near
            break
    if stay is new:
        found.append(new)
    for run, _ in list(held.runs(span)):
        other = held.first(run)
        if other is not None and other is not stay:
            _break(held, found, other, new)
    held.put(span, stay)


def _break(held: ByteMap[Stay], found: list[Stay], old: Stay, new: Stay) -> None:
    """Something new takes bytes of a stay. Where others of its bytes are in use longer, it falls in several."""
    old.broken = True
    if old.end <= new.start:
        return
    parts = [(old.low, new.low), (max(old.low, new.low), min(old.high, new.high)), (new.high, old.high)]
    for place, (low, high) in enumerate(parts):
        if low < high:
            part = replace(old, low=low, high=high, end=new.start if place == 1 else old.end, layers=set(old.layers))
            found.append(part)
            for run in [run for run, stay in held.runs((low, high)) if stay is old]:
                held.put(run, part)
    found.remove(old)


def used_bytes(found: Sequence[Stay]) -> list[tuple[int, int]]:
    """(cycle, bytes held from then on), for every cycle in which that changes."""
    changes: dict[int, int] = {}
    for stay in found:
        changes[stay.start] = changes.get(stay.start, 0) + stay.size
        changes[stay.end] = changes.get(stay.end, 0) - stay.size
    total, steps = 0, []
    for cycle in sorted(changes):
        total += changes[cycle]
        steps.append((cycle, total))
    return [steps[0], *(b for a, b in pairwise(steps) if a[1] != b[1])] if steps else []
