"""What an offline image holds, in Python: schema/img.fbs with types. Its comments define what the fields mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from sgs.numeric.quantise import Array, QuantParams
from sgs.numeric.types import DType

FORMAT_VERSION = 1
CATEGORIES = ("Classification", "Detection", "Unknown")


class BatchMode(IntEnum):
    """How the frames of one run are handed over."""

    N_BUF = 0  # each frame in buffers of its own, any number up to the largest
    ONE_BUF = 1  # stacked on the highest dimension in one buffer, listed numbers only


class Space(IntEnum):
    """Which memory a tensor lies in."""

    ARENA = 0
    WEIGHTS = 1
    INPUT = 2
    OUTPUT = 3


def packed_bytes(shape: tuple[int, ...], dtype: DType) -> int:
    """Bytes of a tensor as stored: INT4 has two elements a byte, the last byte filled up."""
    elements = 1
    for extent in shape:
        elements *= extent
    return (elements * dtype.bits + 7) // 8


@dataclass(frozen=True, eq=False)
class TensorRef:
    """A tensor of one frame, wherever it lies."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    quant: QuantParams | None = None

    @property
    def nbytes(self) -> int:
        return packed_bytes(self.shape, self.dtype)


@dataclass(frozen=True, eq=False)
class IoTensor:
    """An input or output as the caller sees it; `tensor` is an index into `Image.tensors`, `shape` that of one
    frame."""

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


@dataclass(frozen=True)
class Placement:
    """Where a tensor lies while a program runs. `buffer` counts the buffers of INPUT or OUTPUT, and is 0 elsewhere."""

    tensor: int
    space: Space
    offset: int
    size: int
    shape: tuple[int, ...]
    buffer: int = 0


@dataclass(frozen=True)
class Command:
    """One step: an operator on whole tensors, -1 standing for an optional input left out; then its predicted cost."""

    opcode: str
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    macs: int = 0
    vector_ops: int = 0
    dma_bytes: int = 0
    cycles: int = 0


@dataclass(frozen=True)
class Program:
    """Memory plan and commands for one number of frames; the commands run `passes` times, a frame each."""

    batch: int
    arena_size: int
    arena_lower_bound: int
    commands: tuple[Command, ...]
    placements: tuple[Placement, ...]
    passes: int = 1


@dataclass(frozen=True, eq=False)
class Image:
    """A compiled network. `weights` is uint8 [bytes]; `config` is plain JSON data."""

    chip: str
    model_name: str
    batch_mode: BatchMode
    batches: tuple[int, ...]
    inputs: tuple[IoTensor, ...]
    outputs: tuple[IoTensor, ...]
    tensors: tuple[TensorRef, ...]
    programs: tuple[Program, ...]
    weights: Array = field(default_factory=lambda: np.zeros(0, np.uint8))
    category: str = "Unknown"
    config: dict[str, Any] = field(default_factory=dict)
    tool_version: str = ""
