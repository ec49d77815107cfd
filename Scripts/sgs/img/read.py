"""File → bytes → image, every number checked before it is used. schema/README.md lists the checks of the header."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sgs.errors import UserError
from sgs.img import generated
from sgs.img.attributes import unpack_attributes
from sgs.img.check import violations
from sgs.img.coding import Chunk, Coding, Constant, decode
from sgs.img.extent import check_extent
from sgs.img.image import (
    FORMAT_VERSION,
    BatchMode,
    Command,
    Compute,
    Dma,
    Image,
    IoTensor,
    Kernel,
    Layer,
    Place,
    Program,
    Space,
    TensorRef,
)
from sgs.img.write import HEADER, MAGIC
from sgs.numeric.quantise import QuantParams
from sgs.numeric.types import DType

STAGE = "read .img"
_REMEDY = "compile the fixed .sim again"
_DTYPES = {int(getattr(generated.DType, dtype.name)): dtype for dtype in DType if hasattr(generated.DType, dtype.name)}
# what parsing a flatbuffer or flexbuffer that is not one may raise
_PARSE_ERRORS = (
    struct.error,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
)

T = TypeVar("T")


def read_image(path: str | Path) -> Image:
    """Read an .img file and check all of it. Raises UserError when it cannot be read or is not a valid image."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror or error}", stage=STAGE, file=path) from error
    return parse_image(data, file=path)


def parse_image(data: bytes, *, file: object | None = None) -> Image:
    """The image in `data`, a whole .img file. Raises UserError naming `file` when it is damaged or not an image."""

    def refuse(reason: str, remedy: str = _REMEDY) -> UserError:
        return UserError(reason, stage=STAGE, file=file, remedy=remedy)

    payload = _checked_payload(data, refuse)
    try:
        image, declared = _image(payload)
    except _PARSE_ERRORS as error:
        raise refuse(f"the payload is malformed: {error or type(error).__name__}") from error
    if declared != (FORMAT_VERSION, image.weights.size, zlib.crc32(image.weights.tobytes())):
        raise refuse("format version, size or checksum of the weights is wrong")
    problems = violations(image)
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise refuse(f"{problems[0]}{more}")
    return image


def _checked_payload(data: bytes, refuse: Callable[..., UserError]) -> memoryview:
    """The payload, after the checks of the header in the order that schema/README.md gives."""
    if not data:
        raise refuse("the file is empty")
    if data[:8] != MAGIC[: len(data)]:
        what = "a .sim file" if data[4:8] == b"TFL3" else "not an offline image"
        raise refuse(f"this is {what}", "give the .img file that the compiler wrote")
    if len(data) < HEADER.size:
        raise refuse(f"the file ends inside its header, after {len(data)} bytes")
    _, version, crc, size, reserved = HEADER.unpack_from(data)
    if version != FORMAT_VERSION:
        raise refuse(
            f"format version {version}; this tool reads version {FORMAT_VERSION}",
            _REMEDY if version < FORMAT_VERSION else "use the tool version that wrote the file",
        )
    if reserved:
        raise refuse(f"the reserved field of the header is {reserved}")
    if len(data) != HEADER.size + size:
        raise refuse(f"the file has {len(data)} bytes, its header announces {HEADER.size + size}")
    payload = memoryview(data)[HEADER.size :]
    if zlib.crc32(payload) != crc:
        raise refuse("the checksum is wrong: the file is damaged")
    if bytes(payload[4:8]) != b"SIPU":
        raise refuse("the payload is not an offline image")
    return payload


# -- generated objects → ours ------------------------------------------------------------------------------------------
def _integers(values: Any) -> tuple[int, ...]:
    return () if values is None else tuple(int(value) for value in values)


def _reals(values: Any) -> tuple[float, ...]:
    return () if values is None else tuple(float(value) for value in values)


def _each(convert: Callable[[Any], T], records: Sequence[Any] | None) -> tuple[T, ...]:
    return tuple(convert(record) for record in records or ())


def _quant(scale: Any, zero_point: Any, axis: int) -> QuantParams | None:
    if scale is None or not len(scale):
        return None
    return QuantParams(np.array(scale, np.float32), np.array(zero_point, np.int32), axis)


def _tensor(record: Any) -> TensorRef:
    quant = _quant(record.scale, record.zeroPoint, max(record.axis, 0))
    return TensorRef(record.name or "", _DTYPES[record.dtype], _integers(record.shape), quant)


def _io(record: Any) -> IoTensor:
    return IoTensor(
        tensor=record.tensor,
        name=record.name or "",
        shape=_integers(record.shape),
        dtype=_DTYPES[record.dtype],
        quant=_quant(record.scale, record.zeroPoint, 0),
        format=record.format or "",
        training_format=record.trainingFormat or "",
        layout=record.layout or "",
        width_alignment=record.widthAlignment,
        height_alignment=record.heightAlignment,
        mean=_reals(record.mean),
        std=_reals(record.std),
        picture_shape=_integers(record.pictureShape),
        entries=record.entries,
    )


def _kernel(record: Any) -> Kernel:
    attributes = b"" if record.attributes is None else bytes(record.attributes)
    return Kernel(
        opcode=record.opcode or "",
        inputs=_integers(record.inputs),
        outputs=_integers(record.outputs),
        constants=_integers(record.constants),
        attrs=unpack_attributes(attributes) if attributes else {},
    )


def _layer(record: Any) -> Layer:
    return Layer(
        name=record.name or "",
        opcode=record.opcode or "",
        macs=record.macs,
        vector_ops=record.vectorOps,
        read_bytes=record.readBytes,
        written_bytes=record.writtenBytes,
        mac_cycles=record.macCycles,
        vector_cycles=record.vectorCycles,
        dma_cycles=record.dmaCycles,
        start=record.start,
        end=record.end,
        results=_integers(record.results),
    )


def _place(record: Any) -> Place:
    if record is None:
        raise ValueError("a transfer has one side only")
    return Place(Space(record.space), record.offset, _integers(record.strides), record.buffer)


def _command(record: Any) -> Command:
    if record.kernel != -1:
        reads, writes = _integers(record.inputs), _integers(record.outputs)
        return Compute(record.layer, record.kernel, reads, writes, record.start, record.cycles)
    return Dma(
        layer=record.layer,
        extents=_integers(record.extents),
        itemsize=record.itemsize,
        source=_place(record.source),
        target=_place(record.target),
        start=record.start,
        cycles=record.cycles,
    )


def _program(record: Any) -> Program:
    return Program(
        batch=record.batch,
        arena_size=record.arenaSize,
        arena_lower_bound=record.arenaLowerBound,
        commands=_each(_command, record.commands),
        passes=record.passes,
        sram_size=record.sramSize,
        sram_lower_bound=record.sramLowerBound,
        cycles=record.cycles,
    )


def _chunks(records: Sequence[Any] | None, coded: bytes) -> tuple[Chunk, ...]:
    """The chunks, whose coded bytes follow each other from the first of `coded` to the last."""
    chunks, start = [], 0
    for record in records or ():
        places = tuple(zip(_integers(record.offsets), _integers(record.sizes), strict=True))
        data = coded[start : start + record.codedSize]
        chunks.append(Chunk(places, record.elementSize, Coding(record.coding), record.planes, record.crc32, data))
        start += record.codedSize
    if start != len(coded):
        raise ValueError(f"chunks of weights have {start} bytes, the file has {len(coded)}")
    return tuple(chunks)


def _image(payload: memoryview) -> tuple[Image, tuple[int, int, int]]:
    """The image, and what it says of itself: (format version, bytes of weights, their CRC-32)."""
    root = generated.Image.GetRootAs(payload, 0)
    check_extent(root, len(payload))
    record = generated.ImageT.InitFromObj(root)
    chunks = _chunks(record.weightChunks, b"" if record.weights is None else bytes(record.weights))
    image = Image(
        chip=record.chip or "",
        model_name=record.modelName or "",
        batch_mode=BatchMode(record.batchMode),
        batches=_integers(record.batches),
        inputs=_each(_io, record.inputs),
        outputs=_each(_io, record.outputs),
        tensors=_each(_tensor, record.tensors),
        kernels=_each(_kernel, record.kernels),
        layers=_each(_layer, record.layers),
        programs=_each(_program, record.programs),
        sram_bytes=record.sramBytes,
        compulsory_bytes=record.compulsoryBytes,
        inplace_inputs=bool(record.inplaceInputs),
        weights=decode(chunks, record.weightsSize),
        category=record.category or "",
        config=_config(record.configJson),
        tool_version=record.toolVersion or "",
        constants=_constants(chunks),
    )
    return image, (record.formatVersion, record.weightsSize, record.weightsCrc32)


def _constants(chunks: Sequence[Chunk]) -> tuple[Constant, ...]:
    return tuple(sorted(Constant(*place, chunk.element) for chunk in chunks for place in chunk.places))


def _config(text: str | None) -> dict[str, Any]:
    config = json.loads(text or "{}")
    if not isinstance(config, dict):
        raise ValueError("the configuration is not a JSON object")
    return config
