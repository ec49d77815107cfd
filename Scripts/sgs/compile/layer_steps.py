"""The steps of one layer: every piece becomes loads, a computation and stores.

What lies whole in SRAM is used where it lies if the piece is contiguous there, else copied. Two pieces of an operand
that overlap along the rows share what they have in common. Buffers whose pieces change come in pairs, so that the next
piece is loaded while this one is computed; the tiling says which operands have one that is filled before a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sgs.compile.memory import Memory
from sgs.compile.program import Buffer, Computation, Spot, Step, Transfer, transfer
from sgs.compile.tiles import box_bytes, contiguous, part_graph, part_of, result_box, shape_of
from sgs.compile.tiling import ROWS, Tiling
from sgs.ir.graph import Tensor, strides_of
from sgs.numeric.types import DType
from sgs.registry import MOVE, Box, whole_box


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


class LayerSteps:
    """Makes the steps of layer number `index`."""

    def __init__(self, memory: Memory, index: int) -> None:
        self._memory, self._graph, self._index = memory, memory.graph, index
        self._node = memory.residence.layers[index]
        self._windows: dict[int, _Window] = {}

    def move(self) -> list[Step]:
        """A layer of transfers alone, straight from operands to results."""
        operands, results = self._graph.operands(self._node), self._graph.results(self._node)
        step = Step()
        for copy in MOVE[self._node.op].copies(self._node, operands, results):
            source, target = operands[copy.operand], results[copy.result]
            assert source is not None
            spots = self._memory.spot(source.name), self._memory.spot(target.name)
            moved = transfer(self._index, copy, source.dtype.numpy.itemsize, *spots)
            if moved is not None:
                step.stores.append(moved)
        return [step]

    def compute(self, tiling: Tiling) -> list[Step]:
        """A step for every piece."""
        operands, results = self._graph.operands(self._node), self._graph.results(self._node)
        boxes = list(tiling.boxes(results[0].shape))
        parts = [part_of(self._graph, self._node, box) for box in boxes]
        for slot, tensor in enumerate(operands):
            if tensor is not None:
                boxes_read = [part.operands[slot] for part in parts]
                self._open(slot, tensor, boxes_read, 1 if slot in tiling.single else 2)
        made = [[result_box(box, results[0], result) for box in boxes] for result in results]
        for number, result in enumerate(results):
            self._open(len(operands) + number, result, made[number], 2)
        steps = []
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
            steps.append(step)
        return steps

    def _open(self, slot: int, tensor: Tensor, boxes: Sequence[Box | None], buffers: int) -> None:
        """Buffers, so many where there are several, for the pieces of a tensor that are not used where they lie."""
        held = [box for box in boxes if box is not None and not self._in_place(tensor, box)]
        if not held:
            return
        size = max(box_bytes(tensor, box) for box in held)
        several = any(box != held[0] for box in held)
        names = [f"{tensor.name}/{self._index}.{turn}" for turn in range(buffers if several else 1)]
        self._windows[slot] = _Window([self._memory.buffer(name, size) for name in names])

    def _in_place(self, tensor: Tensor, box: Box) -> bool:
        return self._memory.in_sram(tensor.name) and contiguous(box, tensor.shape)

    def _read(self, step: Step, slot: int, tensor: Tensor, box: Box) -> Spot:
        if self._in_place(tensor, box):
            return self._memory.spot(tensor.name, _offset(tensor, box))
        window = self._windows[slot]
        if window.box != box:
            held, source = window.box, window.buffer
            target = window.advance()
            loads = step.late if held is not None and target is source else step.early  # a single one is in use before
            if held is not None and target is not source and _slides(held, box):
                kept = _rows(box, box[ROWS][0], held[ROWS][1])
                step.early.append(self._within(tensor, kept, (source, held), (target, box)))
                step.early.append(self._loaded(tensor, _rows(box, held[ROWS][1], box[ROWS][1]), target, box))
            else:
                loads.append(self._loaded(tensor, box, target, box))
            window.box = box
        return Spot(window.buffer)

    def _write(self, step: Step, slot: int, tensor: Tensor, box: Box) -> Spot:
        if self._in_place(tensor, box):
            return self._memory.spot(tensor.name, _offset(tensor, box))
        target = self._windows[slot].advance()
        whole = _strides(tensor, whole_box(tensor.shape))
        place = self._memory.spot(tensor.name, _offset(tensor, box)), whole
        step.stores.append(_transfer(self._index, tensor, box, (Spot(target), _strides(tensor, box)), place))
        return Spot(target)

    def _loaded(self, tensor: Tensor, box: Box, target: Buffer, held: Box) -> Transfer:
        """A box of a tensor into a buffer that is to hold the box `held`."""
        source = self._memory.spot(tensor.name, _offset(tensor, box)), _strides(tensor, whole_box(tensor.shape))
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
    """Bytes from entry to entry along every axis of a tensor of which a box is held contiguously."""
    extents, itemsize = _units(tensor, held)
    return tuple(stride * itemsize for stride in strides_of(extents))


def _units(tensor: Tensor, box: Box) -> tuple[tuple[int, ...], int]:
    """A box as extents of what is moved, and its bytes: elements, or pairs of 4-bit ones."""
    shape, itemsize = shape_of(box), tensor.dtype.numpy.itemsize
    return ((*shape[:-1], shape[-1] // 2) if tensor.dtype is DType.INT4 else shape), itemsize


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
    if tensor.dtype is DType.INT4 and contiguous(box, tensor.shape):  # rows may end inside a byte
        return Transfer(layer, (box_bytes(tensor, box),), 1, source[0], (1,), target[0], (1,))
    return Transfer(layer, *_units(tensor, box), *source, *target)
