"""A second machine for images, slow and obvious: transfers by the index of every byte, kernels by the integer
references, on memory that holds random bytes at first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import sgs.ops  # noqa: F401  fills the tables
from sgs.img import Compute, Dma, Image, Place, Space, TensorRef
from sgs.ir import Node, Tensor
from sgs.numeric.nibbles import unpack_nibbles
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.registry import REFERENCE

Memories = dict[tuple[Space, int], Array]


def execute(image: Image, feeds: Mapping[str, Array], seed: int = 0) -> dict[str, Array]:
    """The outputs of the first program for one frame. Raises IndexError for bytes outside a memory."""
    rng, program = np.random.default_rng(seed), image.programs[0]

    def garbage(size: int) -> Array:
        return rng.integers(0, 256, size, dtype=np.uint8)

    outputs = [garbage(image.tensors[output.tensor].nbytes) for output in image.outputs]
    memories: Memories = {
        (Space.ARENA, 0): garbage(program.arena_size),
        (Space.SRAM, 0): garbage(program.sram_size),
        (Space.WEIGHTS, 0): image.weights,
        **{(Space.INPUT, index): _bytes(feeds[tensor.name]).copy() for index, tensor in enumerate(image.inputs)},
        **{(Space.OUTPUT, index): held for index, held in enumerate(outputs)},
    }
    for command in program.commands:
        if isinstance(command, Dma):
            _transfer(command, memories)
        else:
            _compute(image, command, memories[Space.SRAM, 0])
    return {
        tensor.name: held.view(tensor.dtype.numpy).reshape(tensor.shape)
        for tensor, held in zip(image.outputs, outputs, strict=True)
    }


def _bytes(values: Array) -> Array:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def _transfer(command: Dma, memories: Memories) -> None:
    """All is read before anything is written."""
    source, target = (memories[place.space, place.buffer] for place in (command.source, command.target))
    target[_indices(command, command.target)] = source[_indices(command, command.source)]


def _indices(command: Dma, place: Place) -> Array:
    """[*extents, itemsize]: the bytes that one side of a transfer touches."""
    found = np.asarray(place.offset)
    for extent, stride in zip(command.extents, place.strides, strict=True):
        found = found[..., None] + np.arange(extent) * stride
    found = found[..., None] + np.arange(command.itemsize)
    if found.min() < 0:
        raise IndexError(f"a transfer touches byte {found.min()}")
    return found


def _compute(image: Image, command: Compute, sram: Array) -> None:
    kernel = image.kernels[command.kernel]
    operands: list[Tensor | None] = []
    for position, (index, offset) in enumerate(zip(kernel.inputs, command.inputs, strict=True)):
        operands.append(None if index == -1 else _held(image.tensors[index], f"t{position}", sram, offset))
    refs = [image.tensors[index] for index in kernel.outputs]
    results = [Tensor(f"r{position}", ref.shape, ref.dtype, None, ref.quant) for position, ref in enumerate(refs)]
    values = [None if operand is None else operand.data for operand in operands]
    for position, operand in enumerate(operands):
        if operand is not None and position not in kernel.constants:
            operand.data = None
    names = [None if operand is None else operand.name for operand in operands]
    node = Node(kernel.opcode, names, [result.name for result in results], dict(kernel.attrs))
    computed = REFERENCE[kernel.opcode](node, operands, results, values)
    for ref, offset, value in zip(refs, command.outputs, computed, strict=True):
        if value.size * ref.dtype.numpy.itemsize != ref.nbytes or offset + ref.nbytes > sram.size:
            raise IndexError(f"{kernel.opcode} writes outside of its result or of SRAM")
        sram[offset : offset + ref.nbytes] = _bytes(value.astype(ref.dtype.numpy))


def _held(ref: TensorRef, name: str, sram: Array, offset: int) -> Tensor:
    """An operand with the values that memory holds."""
    held = sram[offset : offset + ref.nbytes].copy()
    values = unpack_nibbles(held, int(np.prod(ref.shape))) if ref.dtype is DType.INT4 else held.view(ref.dtype.numpy)
    return Tensor(name, ref.shape, ref.dtype, values.reshape(ref.shape), ref.quant)
