"""Is this an image that can be executed? Every index, size and offset, before any of them is used.

A check takes what it needs and yields its complaints in words; `violations` runs them from the outside in and stops
at the first part that has one, since the later checks use what the earlier ones have established.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from sgs.img.coding import misplaced
from sgs.img.image import (
    CATEGORIES,
    BatchMode,
    Compute,
    Dma,
    Image,
    IoTensor,
    Kernel,
    Place,
    Program,
    Space,
    TensorRef,
    packed_bytes,
)
from sgs.numeric.quantise import QuantParams
from sgs.numeric.types import DType

LARGEST_EXTENT = (1 << 31) - 1
LARGEST_TENSOR = 1 << 40  # bytes
LARGEST_MEMORY = 1 << 42  # bytes of arena or SRAM
LARGEST_UNUSED = 1 << 16  # bytes at the end of a memory: what an alignment may leave
LARGEST_BATCH = 1 << 16
LARGEST_RANK = 32  # of a tensor
LARGEST_AXES = 8  # of a transfer
ITEM_SIZES = (1, 2, 4, 8)


def violations(image: Image) -> list[str]:
    """Every complaint of the first part of the image that has any."""
    parts = (
        _batches(image),
        _weights(image),
        _tensors(image),
        _io(image),
        _kernels(image),
        _layers(image),
        *(_program(image, program) for program in image.programs),
        *(_memories(image, program) for program in image.programs),
    )
    for part in parts:
        found = list(part)
        if found:
            return found
    return []


# -- parts -------------------------------------------------------------------------------------------------------------
def _batches(image: Image) -> Iterator[str]:
    if not image.chip:
        yield "there is no chip that it was compiled for"
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


def _weights(image: Image) -> Iterator[str]:
    if not image.constants:
        return
    yield from misplaced([(one.offset, one.size) for one in image.constants], image.weights.size)
    end = 0
    for one in sorted(image.constants, key=lambda one: one.offset):
        if one.element < 1 or one.size % one.element:
            yield f"weights: a constant of {one.size} bytes has elements of {one.element}"
        if image.weights[end : one.offset].any():  # a file does not keep them
            yield f"weights: bytes between {end} and {one.offset} are not 0"
        end = one.offset + one.size


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
    if len(shape) > LARGEST_RANK:
        yield f"{len(shape)} axes, at most {LARGEST_RANK}"


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
    yield from _shape(tensor.picture_shape)
    if not 0 <= tensor.tensor < len(image.tensors):
        yield f"tensor {tensor.tensor} of {len(image.tensors)}"
        return
    inner = image.tensors[tensor.tensor]
    if math.prod(tensor.shape) != math.prod(inner.shape) or tensor.dtype is not inner.dtype:
        yield f"{tensor.dtype.name}{list(tensor.shape)} outside, {inner.dtype.name}{list(inner.shape)} inside"
    if inner.dtype is DType.INT4:
        yield "packed elements"
    if not _same_quant(tensor.quant, inner.quant):
        yield "scale and zero point differ from the inner tensor's"
    if tensor.entries and (tensor.dtype.is_float or tensor.quant is not None):
        yield f"{tensor.dtype.name} that picks from {tensor.entries} entries"
    if not 0 <= tensor.entries <= LARGEST_EXTENT:
        yield f"picks from {tensor.entries} entries"
    if tensor.width_alignment < 1 or tensor.height_alignment < 1:
        yield f"alignments {tensor.width_alignment}, {tensor.height_alignment}"
    if not np.isfinite([*tensor.mean, *tensor.std]).all() or 0 in tensor.std:
        yield f"mean {list(tensor.mean)} and std {list(tensor.std)}"


def _same_quant(one: QuantParams | None, other: QuantParams | None) -> bool:
    return one is other or (one is not None and one.same_codes(other))


def _kernel(image: Image, kernel: Kernel) -> Iterator[str]:
    if not kernel.opcode:
        yield "has no operator"
    if not kernel.outputs:
        yield "has no result"
    present = [index for index in kernel.inputs if index != -1]
    for index in (*present, *kernel.outputs):
        if not 0 <= index < len(image.tensors):
            yield f"tensor {index} of {len(image.tensors)}"
            return
    for position in kernel.constants:
        if not 0 <= position < len(kernel.inputs) or kernel.inputs[position] == -1:
            yield f"constant operand {position} of {len(kernel.inputs)}"
    if list(kernel.constants) != sorted(set(kernel.constants)):
        yield f"constant operands {list(kernel.constants)} are not ascending"
    constants = set(kernel.constants)
    changing = [index for position, index in enumerate(kernel.inputs) if index != -1 and position not in constants]
    if any(image.tensors[index].dtype is DType.INT4 for index in (*changing, *kernel.outputs)):
        yield "has packed elements that are no constants"


def _layers(image: Image) -> Iterator[str]:
    for index, layer in enumerate(image.layers):
        wrong = [number for number in layer.results if not 0 <= number < len(image.tensors)]
        yield from (f"layer {index}: tensor {number} of {len(image.tensors)}" for number in wrong)
        if not wrong and any(image.tensors[number].dtype is DType.INT4 for number in layer.results):
            yield f"layer {index}: makes packed elements"


def _kernels(image: Image) -> Iterator[str]:
    for index, kernel in enumerate(image.kernels):
        yield from (f"kernel {index} '{kernel.opcode}': {reason}" for reason in _kernel(image, kernel))


def _program(image: Image, program: Program) -> Iterator[str]:
    where = f"program of batch {program.batch}"
    for name, bound, size, most in (
        ("arena", program.arena_lower_bound, program.arena_size, LARGEST_MEMORY),
        ("SRAM", program.sram_lower_bound, program.sram_size, min(image.sram_bytes, LARGEST_MEMORY)),
    ):
        if not 0 <= bound <= size <= most:
            yield f"{where}: {name} of {size} bytes, lower bound {bound}, at most {most}"
    for index, command in enumerate(program.commands):
        reasons = _compute(image, program, command) if isinstance(command, Compute) else _dma(image, program, command)
        if not 0 <= command.layer < len(image.layers):
            yield f"{where}: command {index}: layer {command.layer} of {len(image.layers)}"
        yield from (f"{where}: command {index}: {reason}" for reason in reasons)


def _room(image: Image, program: Program, place: Place) -> int | None:
    """Bytes of the memory that a place lies in; None when there is no such memory."""
    if place.space in (Space.INPUT, Space.OUTPUT):
        buffers = image.inputs if place.space is Space.INPUT else image.outputs
        if not 0 <= place.buffer < len(buffers):
            return None
        return image.tensors[buffers[place.buffer].tensor].nbytes
    if place.buffer:
        return None
    sizes = {Space.ARENA: program.arena_size, Space.SRAM: program.sram_size, Space.WEIGHTS: image.weights.size}
    return int(sizes[place.space])


def _dma(image: Image, program: Program, command: Dma) -> Iterator[str]:
    if command.itemsize not in ITEM_SIZES:
        yield f"elements of {command.itemsize} bytes"
        return
    if len(command.extents) > LARGEST_AXES or any(not 0 < d <= LARGEST_EXTENT for d in command.extents):
        yield f"extents {list(command.extents)}"
        return
    if command.target.space is Space.WEIGHTS or (command.target.space is Space.INPUT and not image.inplace_inputs):
        yield f"writes into {command.target.space.name}, which is read-only"
    sides = (("source", command.source), ("target", command.target))
    complaints = [f"{what}: {reason}" for what, place in sides for reason in _side(image, program, command, place)]
    yield from complaints or _collisions(command)


def _side(image: Image, program: Program, command: Dma, place: Place) -> Iterator[str]:
    if len(place.strides) != len(command.extents):
        yield f"{len(place.strides)} strides for {len(command.extents)} extents"
        return
    if any(number % command.itemsize for number in (place.offset, *place.strides)):
        yield f"offset {place.offset} and strides {list(place.strides)} are not of whole elements"
    room = _room(image, program, place)
    first, end = command.reach(place)
    if room is None:
        yield f"buffer {place.buffer} of {place.space.name} does not exist"
    elif first < 0 or end > room:
        yield f"bytes {first} to {end} of {room} in {place.space.name}"


def _collisions(command: Dma) -> Iterator[str]:
    """A transfer writes no byte twice, so it cannot take longer than its target is large; nor what it reads, but to
    move it down in SRAM."""
    taken = command.itemsize
    for stride, extent in sorted(zip(map(abs, command.target.strides), command.extents, strict=True)):
        if extent > 1 and stride < taken:
            yield f"target: strides {list(command.target.strides)} put elements on top of each other"
            return
        taken += (extent - 1) * stride
    source, target = command.source, command.target
    (first, end), (low, high) = command.reach(source), command.reach(target)
    if (source.space, source.buffer) != (target.space, target.buffer) or high <= first or end <= low:
        return
    if source.space is not Space.SRAM or low >= first:
        yield f"moves bytes {first} to {end} of {source.space.name} to {low}, on top of each other"


def _compute(image: Image, program: Program, command: Compute) -> Iterator[str]:
    if not 0 <= command.kernel < len(image.kernels):
        yield f"kernel {command.kernel} of {len(image.kernels)}"
        return
    kernel = image.kernels[command.kernel]
    spans: list[tuple[int, int, bool]] = []  # first byte, end, whether it is written
    for what, indexes, offsets in (
        ("operand", kernel.inputs, command.inputs),
        ("result", kernel.outputs, command.outputs),
    ):
        if len(indexes) != len(offsets):
            yield f"{len(offsets)} {what}s for a kernel of {len(indexes)}"
            continue
        for index, offset in zip(indexes, offsets, strict=True):
            if (index == -1) != (offset == -1):
                yield f"{what} at {offset} for tensor {index}"
            elif index != -1:
                tensor = image.tensors[index]
                end = offset + tensor.nbytes
                spans.append((offset, end, what == "result"))
                if offset < 0 or offset % tensor.dtype.numpy.itemsize or end > program.sram_size:
                    yield f"{what} in bytes {offset} to {end} of {program.sram_size} in SRAM"
    yield from _overwritten(spans)


def _overwritten(spans: list[tuple[int, int, bool]]) -> Iterator[str]:
    """Results that lie on an operand, unless byte by byte, or on one another."""
    operands = {span[:2] for span in spans if not span[2]}
    touched = written = 0
    for first, end, result in sorted(spans):
        if result and first >= written and (first, end) in operands:
            others = [span for span in operands if span != (first, end)]
            if not any(low < end and first < high for low, high in others):
                touched, written = max(touched, end), max(written, end)
                continue
        if first < (touched if result else written):
            yield f"bytes from {first} on are a result, and an operand or another result"
            return
        touched = max(touched, end)
        written = max(written, end) if result else written


def _memories(image: Image, program: Program) -> Iterator[str]:
    """A program asks for no memory that its commands do not touch."""
    used = {Space.ARENA: 0, Space.SRAM: 0}
    for command in program.commands:
        if isinstance(command, Dma):
            for place in (command.source, command.target):
                if place.space in used:
                    used[place.space] = max(used[place.space], command.reach(place)[1])
        else:
            kernel = image.kernels[command.kernel]
            operands = zip((*kernel.inputs, *kernel.outputs), (*command.inputs, *command.outputs), strict=True)
            ends = [offset + image.tensors[index].nbytes for index, offset in operands if index != -1]
            used[Space.SRAM] = max(used[Space.SRAM], *ends)
    for space, size in ((Space.ARENA, program.arena_size), (Space.SRAM, program.sram_size)):
        if size - used[space] > LARGEST_UNUSED:
            yield f"program of batch {program.batch}: {space.name} of {size} bytes, of which {used[space]} are used"
