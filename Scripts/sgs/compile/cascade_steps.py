"""The steps of a group of layers that is executed band by band (see `cascade`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sgs.compile.cascade import Bands, Cascade, Rows, row_box
from sgs.compile.memory import Memory
from sgs.compile.program import Buffer, Computation, Spot, Step, Transfer, transfer
from sgs.compile.tiles import part_graph
from sgs.compile.tiling import ROWS
from sgs.img.image import packed_bytes
from sgs.ir.graph import Node
from sgs.registry import MOVE, Box


class CascadeSteps:
    """Makes the steps of a group of layers that is executed band by band."""

    def __init__(self, memory: Memory, layers: Sequence[int], cascade: Cascade, bands: Bands) -> None:
        self._memory, self._graph = memory, memory.graph
        self._layers, self._cascade, self._bands = layers, cascade, bands
        self._turn: dict[str, int] = {}
        self._buffers = {
            name: [
                memory.buffer(f"{name}/{layers[0]}.{turn}", size)
                for turn, size in enumerate(cascade.buffer_sizes(name, bands.windows))
            ]
            for name in sorted(cascade.made | cascade.read)
            if not memory.in_sram(name)
        }

    def _buffer(self, name: str) -> Buffer:
        return self._buffers[name][self._turn.get(name, 0)]

    def steps(self) -> list[Step]:
        """A step for every band."""
        steps = []
        for number, made in enumerate(self._bands.made):
            step = Step()
            for name in sorted(self._cascade.read - self._cascade.made):
                self._load(step, name, number)
            for name in sorted(self._cascade.read & self._cascade.made):
                self._keep(step, name, number)
            for node, layer, rows in zip(self._cascade.nodes, self._layers, made, strict=True):
                if rows[0] < rows[1]:
                    self._advance(step, node, layer, rows, number)
            steps.append(step)
        return steps

    def _load(self, step: Step, name: str, number: int) -> None:
        """New rows of what comes from outside; rows that are needed again move along."""
        if name not in self._buffers:
            return
        window = self._bands.windows.get(name)
        if window is None:
            if not number:
                tensor = self._graph[name]
                size = packed_bytes(tensor.shape, tensor.dtype)
                step.early.append(self._bytes(name, self._memory.spot(name), Spot(self._buffer(name)), size))
            return
        first, last = window.new(number)
        base, held = window.base[number], window.base[number - 1] if number else 0
        if first == last and base == held:
            return
        source = self._buffer(name)
        self._turn[name] = (self._turn.get(name, -1) + 1) % len(self._buffers[name])
        target, row = self._buffer(name), window.row
        if base < first and target is not source:
            step.early.append(self._bytes(name, Spot(source, (base - held) * row), Spot(target), (first - base) * row))
        first = max(first, base)  # windows may skip rows
        if first < last:
            new = Spot(target, (first - base) * row)
            step.early.append(self._bytes(name, self._memory.spot(name, first * row), new, (last - first) * row))

    def _bytes(self, name: str, source: Spot, target: Spot, size: int) -> Transfer:
        """So many bytes of a tensor from here to there, for the layer that makes or else first reads it."""
        makers = [i for i, node in enumerate(self._cascade.nodes) if name in node.outputs]
        readers = [i for i, node in enumerate(self._cascade.nodes) if name in node.inputs]
        return Transfer(self._layers[(makers or readers)[0]], (size,), 1, source, (1,), target, (1,))

    def _keep(self, step: Step, name: str, number: int) -> None:
        """Rows of an inner tensor that are needed again move to the start of its buffer."""
        if name not in self._buffers or not number:
            return
        window = self._bands.windows[name]
        base, before, held = window.base[number], window.base[number - 1], window.done[number - 1]
        if before < base < held:
            kept = Spot(self._buffer(name), (base - before) * window.row)
            step.work.append(self._bytes(name, kept, Spot(self._buffer(name)), (held - base) * window.row))

    def _spot(self, name: str, row: int, number: int) -> Spot:
        """Where a row of a tensor is in a step."""
        tensor = self._graph[name]
        size = packed_bytes(tensor.shape[2:], tensor.dtype)
        if self._memory.in_sram(name):
            return self._memory.spot(name, row * size)
        if name not in self._bands.windows:
            return Spot(self._buffer(name))
        return Spot(self._buffer(name), (row - self._first_held(name, number)) * size)

    def _first_held(self, name: str, number: int) -> int:
        """The row at the start of a buffer: a result that nobody reads in the group has its new rows only."""
        window = self._bands.windows[name]
        return window.base[number] if name in self._cascade.read else window.new(number)[0]

    def _advance(self, step: Step, node: Node, layer: int, rows: Rows, number: int) -> None:
        for name in node.outputs:
            if name in self._buffers and name not in self._cascade.read:
                self._turn[name] = (self._turn.get(name, -1) + 1) % len(self._buffers[name])
        if node.op in MOVE:
            step.work += self._copies(node, layer, rows, number)
        else:
            boxes = self._cascade.needs.boxes(node, rows)
            reads = tuple(
                None if name is None or box is None else self._spot(name, self._row(name, box), number)
                for name, box in zip(node.inputs, boxes, strict=True)
            )
            writes = tuple(self._spot(name, rows[0], number) for name in node.outputs)
            box = row_box(self._graph[node.outputs[0]], rows)
            step.work.append(Computation(layer, *part_graph(self._graph, node, box), reads, writes))
        for name in node.outputs:
            if name in self._buffers and name in self._cascade.leaving:
                size = self._bands.windows[name].row
                target = self._memory.spot(name, rows[0] * size)
                made = self._spot(name, rows[0], number)
                step.stores.append(self._bytes(name, made, target, (rows[1] - rows[0]) * size))

    def _row(self, name: str, box: Box) -> int:
        return box[ROWS][0] if self._cascade.needs.in_bands(name) else 0

    def _copies(self, node: Node, layer: int, rows: Rows, number: int) -> list[Transfer]:
        """The rows of a move."""
        operands, results = self._graph.operands(node), self._graph.results(node)
        made = []
        for copy in MOVE[node.op].copies(node, operands, results):
            source, target = operands[copy.operand], results[copy.result]
            assert source is not None
            part = replace(copy, extents=(copy.extents[0], rows[1] - rows[0], *copy.extents[2:]))
            spots = self._spot(source.name, rows[0], number), self._spot(target.name, rows[0], number)
            moved = transfer(layer, part, source.dtype.numpy.itemsize, *spots)
            if moved is not None:
                made.append(moved)
        return made
