"""Layers → steps: every layer is cut in pieces, and every piece becomes loads, a computation and stores.

What lies whole in SRAM is used where it lies if the piece is contiguous there, else copied. Two pieces of an operand
that overlap along the rows share what they have in common. Buffers whose pieces change come in pairs, so that the next
piece is loaded while this one is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sgs.compile.cascade import Bands, Cascade, Rows, row_box
from sgs.compile.live import Residence, Storage
from sgs.compile.program import Buffer, Computation, Spot, Step, Transfer
from sgs.compile.tiles import box_bytes, contiguous, part_graph, part_of, result_box, shape_of
from sgs.compile.tiling import ROWS, Tiling
from sgs.img.image import packed_bytes
from sgs.ir.graph import Graph, Node, Tensor, strides_of
from sgs.numeric.types import DType
from sgs.registry import MOVE, Box, Copy, whole_box


@dataclass
class Schedule:
    """Steps and the buffers in SRAM that they use; `resident` maps storages that lie there whole to theirs."""

    steps: list[Step] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    resident: dict[Storage, Buffer] = field(default_factory=dict)


Way = Tiling | tuple[Cascade, Bands] | None  # how a group is executed: a layer in pieces, several in bands, or a move


def schedule(
    graph: Graph,
    residence: Residence,
    resident: frozenset[Storage],
    members: Sequence[tuple[int, ...]],
    ways: Sequence[Way],
    ahead: frozenset[int],
    alignment: int,
) -> Schedule:
    """The steps of all groups of layers. Groups in `ahead` may begin to load while the one before still computes."""
    result = Schedule()
    for home in residence.spans:
        if home in resident:
            result.resident[home] = Buffer(home.name, rounded(home.size, alignment))
            result.buffers.append(result.resident[home])
    for number, (group, way) in enumerate(zip(members, ways, strict=True)):
        before = len(result.steps)
        if isinstance(way, tuple):
            _CascadeSteps(graph, residence, result, group, *way).add()
        else:
            layer = _Layer(graph, residence, result, group[0], residence.layers[group[0]], alignment)
            if way is None:
                layer.move()
            else:
                layer.compute(way)
        if number not in ahead:
            _all_late(result.steps[before])
    _place_early_loads(result.steps)
    _note_use(result.steps)
    result.buffers = [buffer for buffer in result.buffers if buffer.last >= 0]
    return result


def rounded(size: int, alignment: int) -> int:
    """The next multiple of the alignment."""
    return -(-size // alignment) * alignment


# -- one layer ---------------------------------------------------------------------------------------------------------
@dataclass
class _Window:
    """What a tensor's buffers hold: `box` of the tensor, in the last one filled."""

    buffers: list[Buffer]
    box: Box | None = None
    turn: int = 0

    @property
    def buffer(self) -> Buffer:
        return self.buffers[self.turn]

    def advance(self) -> Buffer:
        self.turn = (self.turn + 1) % len(self.buffers)
        return self.buffer


class _Layer:
    """Makes the steps of one layer."""

    def __init__(
        self, graph: Graph, residence: Residence, into: Schedule, index: int, node: Node, alignment: int
    ) -> None:
        self._graph, self._residence, self._into = graph, residence, into
        self._index, self._node, self._alignment = index, node, alignment
        self._windows: dict[int, _Window] = {}

    def _home(self, tensor: Tensor) -> Buffer | Storage:
        storage = self._residence.storage[tensor.name]
        return self._into.resident.get(storage, storage)

    def _spot(self, tensor: Tensor, offset: int) -> Spot:
        """A byte of a tensor where it lies whole."""
        return Spot(self._home(tensor), self._residence.offset[tensor.name] + offset)

    def move(self) -> None:
        """A layer of transfers alone, straight from operands to results."""
        operands, results = self._graph.operands(self._node), self._graph.results(self._node)
        step = Step()
        for copy in MOVE[self._node.op].copies(self._node, operands, results):
            made = self._copied(copy, operands[copy.operand], results[copy.result])
            if (made.source, made.source_strides) != (made.target, made.target_strides):
                step.stores.append(made)
        self._into.steps.append(step)

    def _copied(self, copy: Copy, source: Tensor | None, target: Tensor) -> Transfer:
        assert source is not None
        size = source.dtype.numpy.itemsize
        (begin, strides), (into, places) = copy.source, copy.target
        return Transfer(
            self._index,
            copy.extents,
            size,
            self._spot(source, begin * size),
            tuple(stride * size for stride in strides),
            self._spot(target, into * size),
            tuple(stride * size for stride in places),
        )

    def compute(self, tiling: Tiling) -> None:
        """A step for every piece."""
        operands, results = self._graph.operands(self._node), self._graph.results(self._node)
        boxes = list(tiling.boxes(results[0].shape))
        parts = [part_of(self._graph, self._node, box) for box in boxes]
        for slot, tensor in enumerate(operands):
            if tensor is not None:
                self._open(slot, tensor, [part.operands[slot] for part in parts])
        made = [[result_box(box, results[0], result) for box in boxes] for result in results]
        for number, result in enumerate(results):
            self._open(len(operands) + number, result, made[number])
        for count, (box, part) in enumerate(zip(boxes, parts, strict=True)):
            step = Step()
            reads = tuple(
                None if tensor is None or span is None else self._read(step, slot, tensor, span)
                for slot, (tensor, span) in enumerate(zip(operands, part.operands, strict=True))
            )
            writes = tuple(
                self._write(step, len(operands) + number, result, made[number][count])
                for number, result in enumerate(results)
            )
            step.work.append(Computation(self._index, *part_graph(self._graph, self._node, box), reads, writes))
            self._into.steps.append(step)

    def _open(self, slot: int, tensor: Tensor, boxes: Sequence[Box | None]) -> None:
        """Buffers for the pieces of a tensor that are not used where they lie."""
        held = [box for box in boxes if box is not None and not self._in_place(tensor, box)]
        if not held:
            return
        size = rounded(max(box_bytes(tensor, box) for box in held), self._alignment)
        several = any(box != held[0] for box in held)
        buffers = [Buffer(f"{tensor.name}/{self._index}.{turn}", size) for turn in range(2 if several else 1)]
        self._windows[slot] = _Window(buffers)
        self._into.buffers += buffers

    def _in_place(self, tensor: Tensor, box: Box) -> bool:
        return isinstance(self._home(tensor), Buffer) and contiguous(box, tensor.shape)

    def _read(self, step: Step, slot: int, tensor: Tensor, box: Box) -> Spot:
        if self._in_place(tensor, box):
            return self._spot(tensor, _offset(tensor, box))
        window = self._windows[slot]
        if window.box != box:
            held, source = window.box, window.buffer
            target = window.advance()
            if held is not None and target is not source and _slides(held, box):
                kept = _rows(box, box[ROWS][0], held[ROWS][1])
                step.early.append(self._within(tensor, kept, (source, held), (target, box)))
                step.early.append(self._loaded(tensor, _rows(box, held[ROWS][1], box[ROWS][1]), target, box))
            else:
                step.early.append(self._loaded(tensor, box, target, box))
            window.box = box
        return Spot(window.buffer)

    def _write(self, step: Step, slot: int, tensor: Tensor, box: Box) -> Spot:
        if self._in_place(tensor, box):
            return self._spot(tensor, _offset(tensor, box))
        target = self._windows[slot].advance()
        whole = _strides(tensor, whole_box(tensor.shape))
        place = self._spot(tensor, _offset(tensor, box)), whole
        step.stores.append(_transfer(self._index, tensor, box, (Spot(target), _strides(tensor, box)), place))
        return Spot(target)

    def _loaded(self, tensor: Tensor, box: Box, target: Buffer, held: Box) -> Transfer:
        """A box of a tensor into a buffer that is to hold the box `held`."""
        source = self._spot(tensor, _offset(tensor, box)), _strides(tensor, whole_box(tensor.shape))
        return _transfer(
            self._index, tensor, box, source, (_spot_in(tensor, target, held, box), _strides(tensor, held))
        )

    def _within(self, tensor: Tensor, box: Box, source: tuple[Buffer, Box], target: tuple[Buffer, Box]) -> Transfer:
        """A box of a tensor from one buffer to another, which hold the boxes beside them."""
        places = [(_spot_in(tensor, buffer, held, box), _strides(tensor, held)) for buffer, held in (source, target)]
        return _transfer(self._index, tensor, box, places[0], places[1])


def _slides(held: Box, box: Box) -> bool:
    """Whether the next box continues the one held along the rows, and the two overlap."""
    if len(box) <= ROWS or any(a != b for axis, (a, b) in enumerate(zip(held, box, strict=True)) if axis != ROWS):
        return False
    return held[ROWS][0] < box[ROWS][0] < held[ROWS][1] < box[ROWS][1]


def _rows(box: Box, begin: int, end: int) -> Box:
    return (*box[:ROWS], (begin, end), *box[ROWS + 1 :])


def _strides(tensor: Tensor, held: Box) -> tuple[int, ...]:
    """Bytes from entry to entry along every axis of a tensor of which a box is held contiguously; of 4-bit elements,
    which are only taken in whole bytes along the first axis, half as many."""
    strides = strides_of(shape_of(held))
    if tensor.dtype is DType.INT4:
        return tuple(stride // 2 for stride in strides)
    return tuple(stride * tensor.dtype.numpy.itemsize for stride in strides)


def _offset(tensor: Tensor, box: Box) -> int:
    strides = strides_of(tensor.shape)
    elements = sum(begin * stride for (begin, _), stride in zip(box, strides, strict=True))
    return elements * tensor.dtype.bits // 8


def _spot_in(tensor: Tensor, buffer: Buffer, held: Box, box: Box) -> Spot:
    strides = strides_of(shape_of(held))
    begins = [inner[0] - outer[0] for inner, outer in zip(box, held, strict=True)]
    return Spot(buffer, sum(b * s for b, s in zip(begins, strides, strict=True)) * tensor.dtype.bits // 8)


Side = tuple[Spot, tuple[int, ...]]


def _transfer(layer: int, tensor: Tensor, box: Box, source: Side, target: Side) -> Transfer:
    if tensor.dtype is DType.INT4:
        return Transfer(layer, (box_bytes(tensor, box),), 1, source[0], (1,), target[0], (1,))
    return Transfer(layer, shape_of(box), tensor.dtype.numpy.itemsize, *source, *target)


# -- several layers ----------------------------------------------------------------------------------------------------
class _CascadeSteps:
    """Makes the steps of a group of layers that is executed band by band."""

    def __init__(
        self,
        graph: Graph,
        residence: Residence,
        into: Schedule,
        layers: Sequence[int],
        cascade: Cascade,
        bands: Bands,
    ) -> None:
        self._graph, self._residence, self._into = graph, residence, into
        self._layers, self._cascade, self._bands = layers, cascade, bands
        self._turn: dict[str, int] = {}
        self._buffers: dict[str, list[Buffer]] = {}
        for name in sorted(cascade.made | cascade.read):
            if not isinstance(self._home(name), Buffer):
                sizes = cascade.buffer_sizes(name, bands.windows)
                self._buffers[name] = [Buffer(f"{name}/{layers[0]}.{n}", size) for n, size in enumerate(sizes)]
                into.buffers += self._buffers[name]

    def _home(self, name: str) -> Buffer | Storage:
        storage = self._residence.storage[name]
        return self._into.resident.get(storage, storage)

    def _lies(self, name: str, offset: int = 0) -> Spot:
        """A byte of a tensor where it lies whole."""
        return Spot(self._home(name), self._residence.offset[name] + offset)

    def _buffer(self, name: str) -> Buffer:
        return self._buffers[name][self._turn.get(name, 0)]

    def add(self) -> None:
        """Append the steps."""
        for number, made in enumerate(self._bands.made):
            step = Step()
            for name in sorted(self._cascade.read - self._cascade.made):
                self._load(step, name, number)
            for name in sorted(self._cascade.read & self._cascade.made):
                self._keep(step, name, number)
            for node, layer, rows in zip(self._cascade.nodes, self._layers, made, strict=True):
                if rows[0] < rows[1]:
                    self._advance(step, node, layer, rows, number)
            self._into.steps.append(step)

    def _load(self, step: Step, name: str, number: int) -> None:
        """New rows of what comes from outside; rows that are needed again move along."""
        if name not in self._buffers:
            return
        window = self._bands.windows.get(name)
        if window is None:
            if not number:
                tensor = self._graph[name]
                size = packed_bytes(tensor.shape, tensor.dtype)
                step.early.append(self._bytes(name, self._lies(name), Spot(self._buffer(name)), size))
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
        if first < last:
            new = Spot(target, (first - base) * row)
            step.early.append(self._bytes(name, self._lies(name, first * row), new, (last - first) * row))

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
        tensor, home = self._graph[name], self._home(name)
        size = packed_bytes(tensor.shape[2:], tensor.dtype)
        if isinstance(home, Buffer):
            return self._lies(name, row * size)
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
                target = self._lies(name, rows[0] * size)
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
            size = source.dtype.numpy.itemsize
            spots = [
                Spot(spot.home, spot.offset + offset * size)
                for spot, offset in (
                    (self._spot(source.name, rows[0], number), copy.source[0]),
                    (self._spot(target.name, rows[0], number), copy.target[0]),
                )
            ]
            sides = [tuple(stride * size for stride in strides) for _, strides in (copy.source, copy.target)]
            extents = (copy.extents[0], rows[1] - rows[0], *copy.extents[2:])
            made.append(Transfer(layer, extents, size, spots[0], sides[0], spots[1], sides[1]))
        return made


# -- when --------------------------------------------------------------------------------------------------------------
def _all_late(step: Step) -> None:
    step.late, step.early = step.early, []


def _place_early_loads(steps: list[Step]) -> None:
    """Loads of what the step before makes are late, and so are all loads into the same buffer."""
    for unit, step in enumerate(steps):
        if unit == 0:
            continue
        made = _written(steps[unit - 1])
        targets = {load.target.home for load in step.early if load.source.home in made}
        step.late += [load for load in step.early if load.target.home in targets]
        step.early = [load for load in step.early if load.target.home not in targets]


def _written(step: Step) -> set[Buffer | Storage]:
    found: set[Buffer | Storage] = {store.target.home for store in step.stores}
    for command in step.work:
        if isinstance(command, Transfer):
            found.add(command.target.home)
        else:
            found.update(spot.home for spot in command.writes)
    return found


def _note_use(steps: list[Step]) -> None:
    """In which units every buffer is in use."""

    def note(unit: int, *spots: Spot | None) -> None:
        for spot in spots:
            if spot is not None and isinstance(spot.home, Buffer):
                spot.home.use(unit)

    for unit, step in enumerate(steps):
        for load in step.early:
            note(max(unit - 1, 0), load.source, load.target)
        for command in (*step.late, *step.work, *step.stores):
            if isinstance(command, Transfer):
                note(unit, command.source, command.target)
            else:
                note(unit, *command.reads, *command.writes)
