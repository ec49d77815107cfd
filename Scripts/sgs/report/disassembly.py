"""The commands of an image in words, one a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sgs.img.image import Compute, Dma, Image, Place, Program, Space
from sgs.ir.graph import strides_of
from sgs.numeric.types import DType
from sgs.report.columns import aligned
from sgs.report.compile import engine_of
from sgs.report.memory import moved_tensors

_VERBS = {(False, True): "load", (True, False): "store", (True, True): "copy", (False, False): "move"}


@dataclass(frozen=True)
class Line:
    """A command: its number, the cycle in which it starts, how many it takes, and what it does."""

    index: int
    start: int
    cycles: int
    engine: str
    layer: str
    operation: str


def disassembly(image: Image, program: Program) -> list[Line]:
    """Every command.

    `load w weights+0x40 [3,3,16] s8 → sram+0x1000`, with the strides in bytes of a side that is not contiguous, as in
    `sram+0x0 by [256,32,1]`; `run CONV_2D x@0x40 w@0x1000 → y@0x80`, with offsets in SRAM.
    """
    types = {(tensor.name, tensor.dtype.bits): tensor.dtype for tensor in image.tensors}
    lines = []
    for index, (command, moved) in enumerate(zip(program.commands, moved_tensors(image, program), strict=True)):
        if isinstance(command, Compute):
            operation = _run(image, command)
        else:
            name = moved.name if moved else ""
            operation = _transfer(image, command, name, types.get((name, command.itemsize * 8)))
        engine, layer = engine_of(image, command), image.layers[command.layer].name
        lines.append(Line(index, command.start, command.cycles, engine, layer, operation))
    return lines


def disassembly_text(lines: Sequence[Line]) -> list[str]:
    """A heading and the lines, in columns."""
    rows = [["command", "cycle", "takes", "engine", "layer", "operation"]]
    for line in lines:
        rows.append([str(line.index), str(line.start), str(line.cycles), line.engine, line.layer, line.operation])
    return aligned(rows)


def short_type(dtype: DType) -> str:
    """UINT8 → u8."""
    letters = {"U": "u", "I": "s", "F": "f", "B": "b"}
    return f"{letters[dtype.name[0]]}{dtype.bits}"


def _run(image: Image, command: Compute) -> str:
    kernel = image.kernels[command.kernel]
    sides = []
    for tensors, offsets in ((kernel.inputs, command.inputs), (kernel.outputs, command.outputs)):
        sides.append(
            " ".join(
                "-" if tensor == -1 else f"{image.tensors[tensor].name}@{offset:#x}"
                for tensor, offset in zip(tensors, offsets, strict=True)
            )
        )
    return f"run   {kernel.opcode} {sides[0]} → {sides[1]}"


def _transfer(image: Image, command: Dma, name: str, dtype: DType | None) -> str:
    inside = command.source.space is Space.SRAM, command.target.space is Space.SRAM
    plain = "bytes" if command.itemsize == 1 else f"of {command.itemsize} bytes"  # a tensor's bytes, whatever they are
    element = short_type(dtype) if dtype else plain
    extents = f"[{','.join(map(str, command.extents))}] {element}"
    source, target = (_place(image, command, place) for place in (command.source, command.target))
    return f"{_VERBS[inside]:5} {name or '?'} {source} {extents} → {target}"


def _place(image: Image, command: Dma, place: Place) -> str:
    where = place.space.name.lower()
    if place.space in (Space.INPUT, Space.OUTPUT):
        ports = image.inputs if place.space is Space.INPUT else image.outputs
        where += f"[{ports[place.buffer].name}]"
    dense = [stride * command.itemsize for stride in strides_of(command.extents)]
    # Along an axis of one element the stride has no meaning.
    skips = any(d > 1 and a != b for d, a, b in zip(command.extents, place.strides, dense, strict=True))
    return f"{where}+{place.offset:#x}" + (f" by [{','.join(map(str, place.strides))}]" if skips else "")
