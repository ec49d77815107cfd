"""Layers that are executed together, band by band: of the tensors between them only a window of rows exists.

A band of a result needs some rows of the tensors in front of it, these need rows of the ones before, and so on. Every
row is made once; what a later band needs again is kept in the window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from sgs.compile.live import Residence, rounded
from sgs.compile.residency import inner_storages
from sgs.compile.tiling import ROWS
from sgs.img.image import packed_bytes
from sgs.ir.graph import Graph, Node, Tensor, strides_of
from sgs.registry import MOVE, TILE, Box, Copy, whole_box

Rows = tuple[int, int]
BANDS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
MOST_BANDS = BANDS[-1]  # narrower ones cost more than they save


@dataclass(frozen=True)
class Window:
    """Of a tensor, in every step: rows [base, done) are held once the new ones have been made; bytes of a row."""

    base: tuple[int, ...]
    done: tuple[int, ...]
    row: int

    @property
    def rows(self) -> int:
        """The most that are held at a time."""
        return max(done - base for base, done in zip(self.base, self.done, strict=True))

    @property
    def most_new(self) -> int:
        """The most rows that are made in a step."""
        return max(self.new(step)[1] - self.new(step)[0] for step in range(len(self.done)))

    @property
    def moves(self) -> bool:
        """Whether other rows are held from step to step."""
        return len(set(zip(self.base, self.done, strict=True))) > 1

    def new(self, step: int) -> Rows:
        """Rows that are made in a step."""
        return (self.done[step - 1] if step else 0), self.done[step]


@dataclass(frozen=True)
class Bands:
    """The steps of a group: the rows that every node makes, the windows of tensors, the bytes that it all takes."""

    made: tuple[tuple[Rows, ...], ...]  # step → node → rows of its results
    windows: dict[str, Window]
    memory: int


class RowNeeds:
    """What rows of a layer's results take, remembered: many cascades ask for the same."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._found: dict[tuple[int, Rows], tuple[tuple[str, Rows], ...]] = {}

    def in_bands(self, name: str) -> bool:
        """Whether a window of a tensor can be held; others are held whole."""
        tensor = self.graph[name]
        return not tensor.is_constant and len(tensor.shape) == 4 and tensor.shape[0] == 1

    def boxes(self, node: Node, rows: Rows) -> list[Box | None]:
        """Boxes of the operands."""
        operands, results = self.graph.operands(node), self.graph.results(node)
        if node.op in MOVE:
            return [None if t is None else row_box(t, rows) for t in operands]
        return list(TILE[node.op].part(node, operands, results, row_box(results[0], rows)).operands)

    def __call__(self, node: Node, rows: Rows) -> tuple[tuple[str, Rows], ...]:
        """Operands of which a window is held, and their rows. Raises ValueError where parts of rows are needed."""
        key = id(node), rows
        if key not in self._found:
            self._found[key] = tuple(self._needed(node, rows))
        return self._found[key]

    def _needed(self, node: Node, rows: Rows) -> Iterator[tuple[str, Rows]]:
        for name, box in zip(node.inputs, self.boxes(node, rows), strict=True):
            if name is None or box is None:
                continue
            banded, whole = self.in_bands(name), whole_box(self.graph[name].shape)
            if any(box[axis] != whole[axis] for axis in range(len(box)) if axis != ROWS or not banded):
                raise ValueError(f"{node.label} needs parts of the rows of '{name}'")
            if banded:
                yield name, box[ROWS]


@dataclass(frozen=True)
class _Layer:
    """A layer of a cascade: rows of its results, the number that cuts are multiples of, whether a result leaves."""

    node: Node
    height: int
    grain: int
    leaves: bool


class Cascade:
    """The ways to execute a group of successive layers band by band; storages `inside` exist in the group alone. Raises
    ValueError for layers that cannot be executed so."""

    def __init__(self, needs: RowNeeds, residence: Residence, layers: Sequence[int], alignment: int) -> None:
        self.graph, self.needs, self._alignment = needs.graph, needs, alignment
        self.nodes = [residence.layers[layer] for layer in layers]
        self.made = {name for node in self.nodes for name in node.outputs}
        self.read = {name for node in self.nodes for name in node.inputs if name is not None}
        homes = {residence.storage[name] for name in self.made}
        if any(residence.storage[name] in homes for name in self.read - self.made):
            raise ValueError("a result is read under another shape")
        self.inside = inner_storages(residence, layers)
        self.leaving = {name for name in self.made if residence.storage[name] not in self.inside}
        self._layers = [self._checked(node) for node in self.nodes]
        self._rows: dict[int, tuple[tuple[tuple[Rows, ...], ...], dict[str, Window]]] = {}

    @cached_property
    def constants(self) -> int:
        """Bytes of the operands that are held whole for all bands."""
        whole = [self.graph[name] for name in self.read if not self.needs.in_bands(name)]
        return sum(rounded(packed_bytes(tensor.shape, tensor.dtype), self._alignment) for tensor in whole)

    def _checked(self, node: Node) -> _Layer:
        operands, results = self.graph.operands(node), self.graph.results(node)
        if any(len(result.shape) != 4 or result.shape[0] != 1 for result in results):
            raise ValueError(f"{node.label} makes no picture")
        grain = 1
        if node.op in MOVE:
            for copy in MOVE[node.op].copies(node, operands, results):
                source = operands[copy.operand]
                if source is None or not by_rows(copy, source.shape, results[copy.result].shape):
                    raise ValueError(f"{node.label} does not move row by row")
        else:
            axes = TILE[node.op].axes(node, operands, results)
            if ROWS not in axes:
                raise ValueError(f"{node.label} cannot be cut along rows")
            grain = axes[ROWS]
            self.needs(node, (0, min(grain, results[0].shape[ROWS])))  # whole rows, however narrow the bands
        return _Layer(node, results[0].shape[ROWS], grain, bool(self.leaving & set(node.outputs)))

    def bands(self, count: int, resident: frozenset[str]) -> Bands:
        """The group in so many bands, or as few as its results have rows. Raises ValueError for a layer that needs
        parts of rows."""
        if count not in self._rows:
            self._rows[count] = self._in_rows(count)
        made, windows = self._rows[count]
        return Bands(made, windows, self._memory(windows, resident))

    def _in_rows(self, count: int) -> tuple[tuple[tuple[Rows, ...], ...], dict[str, Window]]:
        done = {name: 0 for name in self.made | self.read if self.needs.in_bands(name)}
        ends: list[dict[str, int]] = []
        lows: list[dict[str, int]] = []
        made: list[tuple[Rows, ...]] = []
        for step in range(1, count + 1):
            low: dict[str, int] = {}
            wanted = dict(done)
            rows: list[Rows] = []
            for layer in reversed(self._layers):
                end = max(wanted[name] for name in layer.node.outputs)  # what its readers want
                if layer.leaves:
                    end = max(end, -(-layer.height * step // count))
                end = min(-(-end // layer.grain) * layer.grain, layer.height)
                new = done[layer.node.outputs[0]], end
                wanted.update(dict.fromkeys(layer.node.outputs, end))
                rows.append(new)
                if new[0] < new[1]:
                    for name, (first, last) in self.needs(layer.node, new):
                        wanted[name] = max(wanted[name], last)
                        low[name] = min(low.get(name, first), first)
            done = wanted
            ends.append(done)
            lows.append(low)
            made.append(tuple(reversed(rows)))
        windows = {name: self._window(name, ends, lows) for name in done}
        return tuple(made), windows

    def _window(self, name: str, ends: list[dict[str, int]], lows: list[dict[str, int]]) -> Window:
        """A row is held from the step that makes it to the last one that needs it. Rows that nobody needs (windows may
        skip some) are made all the same, but not loaded."""
        base: list[int] = []
        held = ends[-1][name]
        starts = [0, *(end[name] for end in ends[:-1])]
        for start, end, low in zip(reversed(starts), reversed(ends), reversed(lows), strict=True):
            held = min(held, end[name], low.get(name, held))
            if name in self.made and start < end[name]:
                held = min(held, start)
            base.append(held)
        tensor = self.graph[name]
        row = packed_bytes(tensor.shape[2:], tensor.dtype)
        return Window(tuple(reversed(base)), tuple(end[name] for end in ends), row)

    def _memory(self, windows: dict[str, Window], resident: frozenset[str]) -> int:
        total = 0
        for name in (self.made | self.read) - resident:
            total += sum(self.buffer_sizes(name, windows))
        return total

    def buffer_sizes(self, name: str, windows: dict[str, Window]) -> list[int]:
        """Bytes of the buffers of a tensor that does not lie in SRAM whole: two where one is filled or emptied while
        the other is in use."""
        tensor = self.graph[name]
        if name not in windows:
            return [rounded(packed_bytes(tensor.shape, tensor.dtype), self._alignment)]
        window = windows[name]
        if name in self.made and name not in self.read:
            return [rounded(window.most_new * window.row, self._alignment)] * (2 if window.moves else 1)
        size = rounded(window.rows * window.row, self._alignment)
        return [size] * (2 if window.moves and name not in self.made else 1)


def row_box(tensor: Tensor, rows: Rows) -> Box:
    """Rows of a picture."""
    whole = whole_box(tensor.shape)
    return (whole[0], rows, *whole[2:])


def by_rows(copy: Copy, source: Sequence[int], target: Sequence[int]) -> bool:
    """Whether a copy moves every row of a picture to the same row of another."""
    if len(copy.extents) != 4 or len(source) != 4 or not copy.extents[ROWS] == source[ROWS] == target[ROWS]:
        return False
    sides = ((copy.source, strides_of(source)[ROWS]), (copy.target, strides_of(target)[ROWS]))
    return all(strides[ROWS] == row and 0 <= offset < row for (offset, strides), row in sides)
