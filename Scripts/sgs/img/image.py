"""What an offline image holds, in Python: schema/img.fbs with types. Its comments define what the fields mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np

from sgs.img.coding import Chunk, Constant, encode
from sgs.numeric.quantise import Array, QuantParams
from sgs.numeric.types import DType

FORMAT_VERSION = 3
CATEGORIES = ("Classification", "Detection", "Unknown")


class BatchMode(IntEnum):
    """How the frames of one run are handed over."""

    N_BUF = 0  # each frame in buffers of its own, any number up to the largest
    ONE_BUF = 1  # stacked on the highest dimension in one buffer, listed numbers only


class Space(IntEnum):
    """A memory of the machine. All but SRAM are parts of DRAM."""

    ARENA = 0
    WEIGHTS = 1
    INPUT = 2
    OUTPUT = 3
    SRAM = 4


def packed_bytes(shape: tuple[int, ...], dtype: DType) -> int:
    """Bytes of a tensor as stored: INT4 has two elements a byte, the last byte filled up."""
    elements = 1
    for extent in shape:
        elements *= extent
    return (elements * dtype.bits + 7) // 8


@dataclass(frozen=True, eq=False)
class TensorRef:
    """What kernels, inputs and outputs say of a tensor, or of a piece of one: `name` is the whole tensor's."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    quant: QuantParams | None = None

    @property
    def nbytes(self) -> int:
        return packed_bytes(self.shape, self.dtype)


@dataclass(frozen=True, eq=False)
class IoTensor:
    """An input or output as the caller sees it; `tensor` is an index into `Image.tensors`, `shape` that of one frame,
    `picture_shape` that of the picture in it, without alpha and alignment. The numbers of an input pick from `entries`;
    0: they do not pick."""

    tensor: int
    name: str
    shape: tuple[int, ...]
    dtype: DType
    quant: QuantParams | None = None
    format: str = ""
    training_format: str = ""
    layout: str = ""
    width_alignment: int = 1
    height_alignment: int = 1
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    picture_shape: tuple[int, ...] = ()
    entries: int = 0


@dataclass(frozen=True)
class Kernel:
    """A computation on contiguous operands, indexes into `Image.tensors`, -1 standing for an optional one left out.

    Operands at the positions in `constants` never change: what they hold when the kernel is first run may be built
    into it.
    """

    opcode: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    constants: tuple[int, ...] = ()
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """One side of a transfer: where its first element lies, and bytes from one to the next along every axis. `buffer`
    counts the buffers of INPUT or OUTPUT, and is 0 elsewhere."""

    space: Space
    offset: int
    strides: tuple[int, ...]
    buffer: int = 0


@dataclass(frozen=True)
class Dma:
    """A transfer of elements of `itemsize` bytes for a layer, with the cycle in which it starts and how many it
    takes, as predicted."""

    layer: int
    extents: tuple[int, ...]
    itemsize: int
    source: Place
    target: Place
    start: int = 0
    cycles: int = 0

    def reach(self, place: Place) -> tuple[int, int]:
        """First byte and end of what the transfer touches on one side."""
        steps = [(extent - 1) * stride for extent, stride in zip(self.extents, place.strides, strict=True)]
        first = place.offset + sum(step for step in steps if step < 0)
        return first, place.offset + sum(step for step in steps if step > 0) + self.itemsize


@dataclass(frozen=True)
class Compute:
    """A kernel run for a layer on operands at these offsets in SRAM, -1 for one left out; start and cycles as of
    `Dma`."""

    layer: int
    kernel: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    start: int = 0
    cycles: int = 0


Command = Dma | Compute


@dataclass(frozen=True)
class Layer:
    """A node of the fixed graph and its predicted cost: work, bytes from and to DRAM, cycles of the MAC array, the
    vector unit and the DMA engine, the cycle in which its first command starts and in which its last one has ended.
    `results`: indexes into `Image.tensors` of what it makes, whole; files of older versions say none."""

    name: str
    opcode: str
    macs: int = 0
    vector_ops: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    mac_cycles: int = 0
    vector_cycles: int = 0
    dma_cycles: int = 0
    start: int = 0
    end: int = 0
    results: tuple[int, ...] = ()


@dataclass(frozen=True)
class Program:
    """Memory plan and commands for one number of frames; the commands run `passes` times, a frame each. Sizes and
    lower bounds in bytes, `cycles` of one frame."""

    batch: int
    arena_size: int
    arena_lower_bound: int
    commands: tuple[Command, ...]
    passes: int = 1
    sram_size: int = 0
    sram_lower_bound: int = 0
    cycles: int = 0


@dataclass(frozen=True, eq=False)
class Image:
    """A compiled network. `weights` is uint8 [bytes], `constants` says where the constants in it lie (if it is empty,
    they count as one); `config` is plain JSON data; `sram_bytes` is what the chip has, `compulsory_bytes` the DRAM
    traffic of a frame that no plan going layer by layer can do without; with `inplace_inputs` a run overwrites the
    inputs."""

    chip: str
    model_name: str
    batch_mode: BatchMode
    batches: tuple[int, ...]
    inputs: tuple[IoTensor, ...]
    outputs: tuple[IoTensor, ...]
    tensors: tuple[TensorRef, ...]
    kernels: tuple[Kernel, ...]
    layers: tuple[Layer, ...]
    programs: tuple[Program, ...]
    sram_bytes: int = 0
    compulsory_bytes: int = 0
    inplace_inputs: bool = False
    weights: Array = field(default_factory=lambda: np.zeros(0, np.uint8))
    category: str = "Unknown"
    config: dict[str, Any] = field(default_factory=dict)
    tool_version: str = ""
    constants: tuple[Constant, ...] = ()

    @cached_property
    def chunks(self) -> tuple[Chunk, ...]:
        """The weights as a file holds them."""
        return encode(self.weights, self.constants)
