"""Where an image's program makes which piece of which tensor.

The compiler cuts results into pieces, which lie in SRAM one after the other, and moves others by transfers. A layer
says what it makes; where a piece belongs in the whole follows from the order of the pieces along the one axis that is
cut, or from where they are brought to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sgs.img.image import Command, Compute, Dma, Image, Program, Space, TensorRef

Shape = tuple[int, ...]
NOT_WHOLE = "its parts are moved into place, and it never lies in one place as a whole"
PARTIAL = "what is computed of it is not all of it: nothing reads the rest"
ALIAS = "it is bytes of another tensor, which are read where they lie"


@dataclass(frozen=True)
class Piece:
    """Bytes that are a box of a tensor once a command has run: `shape` is the box's extents, `begin` its place in the
    whole."""

    command: int
    space: Space
    buffer: int
    offset: int
    shape: Shape
    begin: Shape


@dataclass(frozen=True, eq=False)
class Made:
    """A tensor of a program. Without `pieces` its values cannot be had, and `reason` says why."""

    tensor: TensorRef
    operator: str
    pieces: tuple[Piece, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class _Result:
    """What a computation leaves in SRAM, or finds there."""

    command: int
    offset: int
    ref: TensorRef


class _Used:
    """What the computations of a program make, by layer and name, what they read, in order, and what transfers move, by
    layer."""

    def __init__(self, image: Image, program: Program) -> None:
        self.made: dict[tuple[int, str], list[_Result]] = {}
        self.read: list[_Result] = []
        self.moves: dict[int, list[tuple[int, Dma]]] = {}
        for index, command in enumerate(program.commands):
            if isinstance(command, Dma):
                self.moves.setdefault(command.layer, []).append((index, command))
                continue
            kernel = image.kernels[command.kernel]
            for number, offset in zip(kernel.outputs, command.outputs, strict=True):
                ref = image.tensors[number]
                self.made.setdefault((command.layer, ref.name), []).append(_Result(index, offset, ref))
            for position, (number, offset) in enumerate(zip(kernel.inputs, command.inputs, strict=True)):
                if number != -1 and position not in kernel.constants:
                    self.read.append(_Result(index, offset, image.tensors[number]))

    def whole(self, ref: TensorRef) -> tuple[Piece, ...]:
        """A tensor as the first computation that reads all of it at once finds it: when the command before has run."""
        for read in self.read:
            if (read.ref.name, read.ref.shape, read.ref.dtype) == (ref.name, ref.shape, ref.dtype):
                return (Piece(read.command - 1, Space.SRAM, 0, read.offset, ref.shape, (0,) * len(ref.shape)),)
        return ()


def made_tensors(image: Image) -> list[Made]:
    """Everything that the first program makes, in the order in which it is complete: results of layers, and outputs
    under the names that the caller knows. Behind them what computations read under a name that no layer makes."""
    commands = image.programs[0].commands
    used = _Used(image, image.programs[0])
    inner = {image.tensors[port.tensor].name for port in image.outputs}
    known = {port.name for port in image.outputs} | {image.tensors[port.tensor].name for port in image.inputs}
    found = []
    for index, layer in enumerate(image.layers):
        refs = [image.tensors[number] for number in layer.results]
        moved = _moved(used.moves.get(index, []), refs)
        for ref in refs:
            if ref.name in inner | known:
                continue
            known.add(ref.name)
            computed = used.made.get((index, ref.name), [])
            pieces = _computed(commands, ref, computed) if computed else moved.get(ref.name, ())
            pieces = pieces or used.whole(ref)
            reason = "" if pieces else PARTIAL if computed else NOT_WHOLE
            found.append(Made(ref, layer.opcode, pieces, reason))
    found += _outputs(image)
    found.sort(key=lambda made: made.pieces[-1].command if made.pieces else len(commands))
    aliases = {read.ref.name: read.ref for read in used.read}
    return found + [Made(ref, "", reason=ALIAS) for name, ref in aliases.items() if name not in known | inner]


def _outputs(image: Image) -> Iterator[Made]:
    makers = {number: layer.opcode for layer in image.layers for number in layer.results}
    last = len(image.programs[0].commands) - 1
    for buffer, port in enumerate(image.outputs):
        piece = Piece(last, Space.OUTPUT, buffer, 0, port.shape, (0,) * len(port.shape))
        yield Made(TensorRef(port.name, port.dtype, port.shape, port.quant), makers.get(port.tensor, ""), (piece,))


def _computed(commands: Sequence[Command], ref: TensorRef, results: Sequence[_Result]) -> tuple[Piece, ...]:
    """The pieces that computations make; none where they do not make up the whole."""
    shapes = [result.ref.shape for result in results]
    if any(len(one.ref.shape) != len(ref.shape) or one.ref.dtype is not ref.dtype for one in results):
        return ()
    cut = [axis for axis, extent in enumerate(ref.shape) if any(shape[axis] != extent for shape in shapes)]
    if len(cut) > 1:
        begins = list(_by_home(commands, ref, results))
    else:
        ends = np.cumsum([0, *(shape[cut[0]] for shape in shapes)]).tolist() if cut else [0] * len(shapes)
        begins = [tuple(end if axis in cut else 0 for axis in range(len(ref.shape))) for end in ends[: len(shapes)]]
    pieces = tuple(
        Piece(result.command, Space.SRAM, 0, result.offset, shape, begin)
        for result, shape, begin in zip(results, shapes, begins, strict=True)
    )
    return pieces if _make_up(pieces, ref.shape) else ()


def _make_up(pieces: Sequence[Piece], whole: Shape) -> bool:
    """Whether there are as many elements as in the whole, and all pieces lie in it, each at a place of its own."""
    inside = all(
        b >= 0 and b + extent <= limit
        for piece in pieces
        for b, extent, limit in zip(piece.begin, piece.shape, whole, strict=True)
    )
    apart = len({piece.begin for piece in pieces}) == len(pieces)
    return inside and apart and sum(math.prod(piece.shape) for piece in pieces) == math.prod(whole)


def _by_home(commands: Sequence[Command], ref: TensorRef, results: Sequence[_Result]) -> Iterator[Shape]:
    """Where pieces that are cut along several axes begin, by the addresses that they are brought to, or lie at."""
    homes = [_home(commands, result) for result in results]
    base = min(homes)
    for home in homes:
        elements = (home[2] - base[2]) // ref.dtype.numpy.itemsize
        inside = home[:2] == base[:2] and elements < math.prod(ref.shape)
        yield tuple(map(int, np.unravel_index(elements, ref.shape))) if inside else (-1,) * len(ref.shape)


def _home(commands: Sequence[Command], result: _Result) -> tuple[Space, int, int]:
    """(memory, buffer, offset) that a result is brought to before the next computation, or else lies at."""
    for command in commands[result.command + 1 :]:
        if isinstance(command, Compute):
            break
        if (command.source.space, command.source.offset) == (Space.SRAM, result.offset):
            return command.target.space, command.target.buffer, command.target.offset
    return Space.SRAM, 0, result.offset


def _moved(moves: Sequence[tuple[int, Dma]], refs: Sequence[TensorRef]) -> dict[str, tuple[Piece, ...]]:
    """The results of a layer of transfers as these leave them, if they bring all of one to one place: all of them do
    with a single result, else each does with one of its own."""
    if len(refs) == 1:
        return {refs[0].name: _brought(moves, refs[0])}
    if len(refs) == len(moves):
        return {ref.name: _brought([move], ref) for ref, move in zip(refs, moves, strict=True)}
    return {}


def _brought(moves: Sequence[tuple[int, Dma]], ref: TensorRef) -> tuple[Piece, ...]:
    reaches = [(c.target.space, c.target.buffer, *c.reach(c.target)) for _, c in moves]
    moved = sum(math.prod(c.extents) * c.itemsize for _, c in moves)
    if not moves or moved != ref.nbytes or len({reach[:2] for reach in reaches}) > 1:
        return ()
    begin, end = min(reach[2] for reach in reaches), max(reach[3] for reach in reaches)
    if end - begin != ref.nbytes:
        return ()
    space, buffer = reaches[0][:2]
    return (Piece(moves[-1][0], space, buffer, begin, ref.shape, (0,) * len(ref.shape)),)
