"""Layers that are executed together, band by band: of the tensors between them only a window of rows exists.

A band of a result needs some rows of the tensors in front of it, these need rows of the ones before, and so on. Every
row is made once; what a later band needs again is kept in the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sgs.compile.live import Residence, Storage
from sgs.compile.tiling import ROWS
from sgs.img.image import packed_bytes
from sgs.ir.graph import Graph, Node, Tensor, strides_of
from sgs.registry import MOVE, TILE, Box, Copy, whole_box

Rows = tuple[int, int]
BANDS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)


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


class Cascade:
    """The ways to execute a group of layers band by band; storages `inside` exist in the group alone. Raises ValueError
    for layers that cannot be executed so."""

    def __init__(
        self, graph: Graph, residence: Residence, layers: Sequence[int], inside: frozenset[Storage], alignment: int
    ) -> None:
        self.graph, self._alignment = graph, alignment
        self.nodes = [residence.layers[layer] for layer in layers]
        self.made = {name for node in self.nodes for name in node.outputs}
        self.read = {name for node in self.nodes for name in node.inputs if name is not None}
        homes = {residence.storage[name] for name in self.made}
        if any(residence.storage[name] in homes for name in self.read - self.made):
            raise ValueError("a result is read under another shape")
        self.leaving = {name for name in self.made if residence.storage[name] not in inside}
        for node in self.nodes:
            self._check(node)
        self._found: dict[tuple[int, frozenset[str]], Bands] = {}

    def _check(self, node: Node) -> None:
        operands, results = self.graph.operands(node), self.graph.results(node)
        if any(len(result.shape) != 4 or result.shape[0] != 1 for result in results):
            raise ValueError(f"{node.label} makes no picture")
        if node.op in MOVE:
            for copy in MOVE[node.op].copies(node, operands, results):
                source = operands[copy.operand]
                if source is None or not by_rows(copy, source.shape, results[copy.result].shape):
                    raise ValueError(f"{node.label} does not move row by row")
        elif ROWS not in TILE[node.op].axes(node, operands, results):
            raise ValueError(f"{node.label} cannot be cut along rows")

    def in_bands(self, name: str) -> bool:
        """Whether a window of a tensor is held; others are held whole."""
        tensor = self.graph[name]
        return not tensor.is_constant and len(tensor.shape) == 4 and tensor.shape[0] == 1

    def needs(self, node: Node, rows: Rows) -> list[Box | None]:
        """Boxes of the operands that rows of the results take."""
        operands, results = self.graph.operands(node), self.graph.results(node)
        if node.op in MOVE:
            return [None if t is None else row_box(t, rows) for t in operands]
        return list(TILE[node.op].part(node, operands, results, row_box(results[0], rows)).operands)

    def bands(self, count: int, resident: frozenset[str]) -> Bands:
        """The group in so many bands, or as few as its results have rows. Raises ValueError for a layer that needs
        parts of rows."""
        key = count, resident
        if key not in self._found:
            made, windows = self._rows(count)
            self._found[key] = Bands(made, windows, self._memory(windows, resident))
        return self._found[key]

    def _rows(self, count: int) -> tuple[tuple[tuple[Rows, ...], ...], dict[str, Window]]:
        done = {name: 0 for name in self.made | self.read if self.in_bands(name)}
        ends: list[dict[str, int]] = []
        lows: list[dict[str, int]] = []
        made: list[tuple[Rows, ...]] = []
        for step in range(count):
            low: dict[str, int] = {}
            wanted = dict(done)
            rows: list[Rows] = []
            for node in reversed(self.nodes):
                rows.insert(0, self._advance(node, (step + 1, count), done, wanted))
                if rows[0][0] < rows[0][1]:
                    self._ask(node, rows[0], wanted, low)
            done = wanted
            ends.append(done)
            lows.append(low)
            made.append(tuple(rows))
        windows = {name: self._window(name, ends, lows) for name in done}
        return tuple(made), windows

    def _advance(self, node: Node, share: tuple[int, int], done: dict[str, int], wanted: dict[str, int]) -> Rows:
        """The rows that a node makes in a step: what its readers want, and of what leaves the group its share."""
        height = self.graph[node.outputs[0]].shape[ROWS]
        end = max(wanted[name] for name in node.outputs)
        if any(name in self.leaving for name in node.outputs):
            end = max(end, -(-height * share[0] // share[1]))
        grain = 1
        if node.op not in MOVE:
            grain = TILE[node.op].axes(node, self.graph.operands(node), self.graph.results(node))[ROWS]
        end = min(-(-end // grain) * grain, height)
        wanted.update(dict.fromkeys(node.outputs, end))
        return done[node.outputs[0]], end

    def _ask(self, node: Node, rows: Rows, wanted: dict[str, int], low: dict[str, int]) -> None:
        """Note what a node needs for new rows."""
        for name, box in zip(node.inputs, self.needs(node, rows), strict=True):
            if name is None or box is None:
                continue
            whole = whole_box(self.graph[name].shape)
            banded = self.in_bands(name)
            if any(box[axis] != whole[axis] for axis in range(len(box)) if axis != ROWS or not banded):
                raise ValueError(f"{node.label} needs parts of the rows of '{name}'")
            if banded:
                first, last = box[ROWS]
                wanted[name] = max(wanted[name], last)
                low[name] = min(low.get(name, first), first)

    def _window(self, name: str, ends: list[dict[str, int]], lows: list[dict[str, int]]) -> Window:
        """A row is held from the step that makes it to the last one that needs it."""
        base: list[int] = []
        held = ends[-1][name]
        for end, low in zip(reversed(ends), reversed(lows), strict=True):
            held = min(held, end[name], low.get(name, held))
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
            return [self._rounded(packed_bytes(tensor.shape, tensor.dtype))]
        window = windows[name]
        if name in self.made and name not in self.read:
            return [self._rounded(window.most_new * window.row)] * (2 if window.moves else 1)
        size = self._rounded(window.rows * window.row)
        return [size] * (2 if window.moves and name not in self.made else 1)

    def _rounded(self, size: int) -> int:
        return -(-size // self._alignment) * self._alignment


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
