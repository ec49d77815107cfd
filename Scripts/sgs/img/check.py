"""Is this an image that can be executed? Every index, size and offset, before any of them is used.

A check takes what it needs and yields its complaints in words; `violations` runs them from the outside in and stops
at the first part that has one, since the later checks use what the earlier ones have established.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from sgs.img.image import (
    CATEGORIES,
    BatchMode,
    Command,
    Image,
    IoTensor,
    Placement,
    Program,
    Space,
    TensorRef,
    packed_bytes,
)
from sgs.numeric.quantise import QuantParams

LARGEST_EXTENT = (1 << 31) - 1
LARGEST_TENSOR = 1 << 40  # bytes
LARGEST_ARENA = 1 << 42
LARGEST_BATCH = 1 << 16


def violations(image: Image) -> list[str]:
    """Every complaint of the first part of the image that has any."""
    parts = (_batches(image), _tensors(image), _io(image), *(_program(image, program) for program in image.programs))
    for part in parts:
        found = list(part)
        if found:
            return found
    return []


# -- parts -------------------------------------------------------------------------------------------------------------
def _batches(image: Image) -> Iterator[str]:
    if image.category not in CATEGORIES:
        yield f"category '{image.category}' is not one of {', '.join(CATEGORIES)}"
    if not image.batches or any(not 0 < n <= LARGEST_BATCH for n in image.batches):
        yield f"batches {list(image.batches)} are not positive numbers up to {LARGEST_BATCH}"
    if list(image.batches) != sorted(set(image.batches)):
        yield f"batches {list(image.batches)} are not ascending"
    if image.batch_mode is BatchMode.N_BUF:
        if len(image.batches) != 1:
            yield f"a run of separate buffers has one largest batch, not {len(image.batches)}"
        expected: tuple[int, ...] = (1,)
    else:
        expected = image.batches
    if tuple(program.batch for program in image.programs) != expected:
        yield f"programs are for batches {[program.batch for program in image.programs]}, expected {list(expected)}"
    if any(program.passes != program.batch for program in image.programs):
        yield "a program's passes differ from its batch"


def _tensors(image: Image) -> Iterator[str]:
    for index, tensor in enumerate(image.tensors):
        yield from (f"tensor {index} '{tensor.name}': {reason}" for reason in _tensor(tensor))


def _tensor(tensor: TensorRef) -> Iterator[str]:
    yield from _shape(tensor.shape)
    if packed_bytes(tensor.shape, tensor.dtype) > LARGEST_TENSOR:
        yield f"shape {list(tensor.shape)} exceeds {LARGEST_TENSOR} bytes"
    quant = tensor.quant
    if quant is None or quant.per_tensor:
        return
    if not 0 <= quant.axis < len(tensor.shape) or tensor.shape[quant.axis] != quant.scale.size:
        yield f"{quant.scale.size} scales on axis {quant.axis} of shape {list(tensor.shape)}"


def _shape(shape: tuple[int, ...]) -> Iterator[str]:
    if any(not 0 < extent <= LARGEST_EXTENT for extent in shape):
        yield f"shape {list(shape)} has an extent out of range"


def _io(image: Image) -> Iterator[str]:
    if not image.outputs:
        yield "there is no output"
    for what, tensors in (("input", image.inputs), ("output", image.outputs)):
        names = [tensor.name for tensor in tensors]
        if len(set(names)) < len(names) or not all(names):
            yield f"{what} names {names} are empty or repeated"
        for tensor in tensors:
            yield from (f"{what} '{tensor.name}': {reason}" for reason in _io_tensor(image, tensor))


def _io_tensor(image: Image, tensor: IoTensor) -> Iterator[str]:
    yield from _shape(tensor.shape)
    if not 0 <= tensor.tensor < len(image.tensors):
        yield f"tensor {tensor.tensor} of {len(image.tensors)}"
        return
    inner = image.tensors[tensor.tensor]
    if math.prod(tensor.shape) != math.prod(inner.shape) or tensor.dtype is not inner.dtype:
        yield f"{tensor.dtype.name}{list(tensor.shape)} outside, {inner.dtype.name}{list(inner.shape)} inside"
    if not _same_quant(tensor.quant, inner.quant):
        yield "scale and zero point differ from the inner tensor's"
    if tensor.width_alignment < 1 or tensor.height_alignment < 1:
        yield f"alignments {tensor.width_alignment}, {tensor.height_alignment}"
    if not np.isfinite([*tensor.mean, *tensor.std]).all() or 0 in tensor.std:
        yield f"mean {list(tensor.mean)} and std {list(tensor.std)}"


def _same_quant(one: QuantParams | None, other: QuantParams | None) -> bool:
    return one is other or (one is not None and one.same_codes(other))


def _program(image: Image, program: Program) -> Iterator[str]:
    where = f"program of batch {program.batch}"
    if not 0 <= program.arena_lower_bound <= program.arena_size <= LARGEST_ARENA:
        yield f"{where}: arena of {program.arena_size} bytes, lower bound {program.arena_lower_bound}"
    for placement in program.placements:
        yield from (
            f"{where}: placement of tensor {placement.tensor}: {reason}"
            for reason in _placement(image, program, placement)
        )
    placed = {placement.tensor: placement for placement in program.placements}
    if len(placed) < len(program.placements):
        yield f"{where}: a tensor is placed twice"
    for space, tensors in ((Space.INPUT, image.inputs), (Space.OUTPUT, image.outputs)):
        for buffer, tensor in enumerate(tensors):
            spot = placed.get(tensor.tensor)
            if spot is None or (spot.space, spot.buffer, spot.offset) != (space, buffer, 0):
                yield f"{where}: '{tensor.name}' does not lie at the start of its buffer"
    for index, command in enumerate(program.commands):
        yield from (f"{where}: command {index} '{command.name}': {reason}" for reason in _command(command, placed))


def _placement(image: Image, program: Program, placement: Placement) -> Iterator[str]:
    if not 0 <= placement.tensor < len(image.tensors):
        yield f"there are {len(image.tensors)} tensors"
        return
    tensor = image.tensors[placement.tensor]
    if placement.shape != tensor.shape:  # holds as long as frames are taken one by one
        yield f"shape {list(placement.shape)}, not {list(tensor.shape)}"
    if placement.size != packed_bytes(placement.shape, tensor.dtype):
        yield f"{placement.size} bytes for {tensor.dtype.name}{list(placement.shape)}"
    if placement.offset < 0 or placement.offset % tensor.dtype.numpy.itemsize:
        yield f"offset {placement.offset} is not aligned to its elements"
    room = _room(image, program, placement)
    if room is None:
        yield f"buffer {placement.buffer} of {placement.space.name} does not exist"
    elif placement.offset + placement.size > room:
        yield f"bytes {placement.offset} to {placement.offset + placement.size} of {room} in {placement.space.name}"


def _room(image: Image, program: Program, placement: Placement) -> int | None:
    """Bytes of the memory that a placement lies in; None when there is no such memory."""
    if placement.space in (Space.INPUT, Space.OUTPUT):
        buffers = image.inputs if placement.space is Space.INPUT else image.outputs
        if not 0 <= placement.buffer < len(buffers):
            return None
        return image.tensors[buffers[placement.buffer].tensor].nbytes
    if placement.buffer:
        return None
    return program.arena_size if placement.space is Space.ARENA else image.weights.size


def _command(command: Command, placed: dict[int, Placement]) -> Iterator[str]:
    if not command.opcode:
        yield "has no operator"
    if not command.outputs:
        yield "has no result"
    for index in (*(i for i in command.inputs if i != -1), *command.outputs):
        if index not in placed:
            yield f"tensor {index} has no place"
    for index in command.outputs:
        if index in placed and placed[index].space in (Space.WEIGHTS, Space.INPUT):
            yield f"writes tensor {index} into read-only memory"
