"""Image → bytes → file. The header and what a reader checks are specified in schema/README.md."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np

from sgs.data.files import atomic_output
from sgs.errors import UserError
from sgs.img import generated
from sgs.img.attributes import pack_attributes
from sgs.img.coding import LARGEST_SECTION, Chunk
from sgs.img.image import (
    FORMAT_VERSION,
    Command,
    Compute,
    Image,
    IoTensor,
    Kernel,
    Layer,
    Place,
    Program,
    TensorRef,
)
from sgs.numeric.quantise import Array, QuantParams

MAGIC = b"SGSIMG\x00\x01"
HEADER = struct.Struct("<8sIIQQ")  # magic, format version, CRC-32 of the payload, its bytes, reserved
IDENTIFIER = b"SIPU"


def _record(kind: str, **fields: Any) -> Any:
    """An object of the generated class `kind` with these fields."""
    record = getattr(generated, kind)()
    for name, value in fields.items():
        if not hasattr(record, name):
            raise AttributeError(f"{kind} has no field {name}")
        setattr(record, name, value)
    return record


def _dtype(tensor: TensorRef | IoTensor) -> int:
    return int(getattr(generated.DType, tensor.dtype.name))


def _quant(quant: QuantParams | None) -> dict[str, Array]:
    return {} if quant is None else {"scale": quant.scale, "zeroPoint": quant.zero_point}


def _tensor(tensor: TensorRef) -> Any:
    axis = -1 if tensor.quant is None or tensor.quant.per_tensor else tensor.quant.axis
    return _record(
        "TensorRefT",
        name=tensor.name,
        dtype=_dtype(tensor),
        shape=_numbers(tensor.shape),
        axis=axis,
        **_quant(tensor.quant),
    )


def _io(tensor: IoTensor) -> Any:
    return _record(
        "IoTensorT",
        tensor=tensor.tensor,
        name=tensor.name,
        format=tensor.format,
        trainingFormat=tensor.training_format,
        layout=tensor.layout,
        shape=_numbers(tensor.shape),
        dtype=_dtype(tensor),
        widthAlignment=tensor.width_alignment,
        heightAlignment=tensor.height_alignment,
        mean=np.asarray(tensor.mean, np.float32),
        std=np.asarray(tensor.std, np.float32),
        pictureShape=_numbers(tensor.picture_shape) if tensor.picture_shape else None,
        entries=tensor.entries,
        **_quant(tensor.quant),
    )


def _numbers(values: Sequence[int]) -> Array:
    return np.asarray(values, np.int64).reshape(-1)


def _kernel(kernel: Kernel) -> Any:
    return _record(
        "KernelT",
        opcode=kernel.opcode,
        inputs=_numbers(kernel.inputs),
        outputs=_numbers(kernel.outputs),
        constants=_numbers(kernel.constants),
        attributes=pack_attributes(kernel.attrs),
    )


def _layer(layer: Layer) -> Any:
    fields = vars(layer) | {"results": _numbers(layer.results)}
    return _record("LayerT", **{_spelled(name): value for name, value in fields.items()})


def _spelled(name: str) -> str:
    """The generated classes' spelling of a field."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _place(place: Place) -> Any:
    return _record(
        "PlaceT", space=int(place.space), buffer=place.buffer, offset=place.offset, strides=_numbers(place.strides)
    )


def _command(command: Command) -> Any:
    shared = {"layer": command.layer, "start": command.start, "cycles": command.cycles}
    if isinstance(command, Compute):
        operands = {"inputs": _numbers(command.inputs), "outputs": _numbers(command.outputs)}
        return _record("CommandT", kernel=command.kernel, **operands, **shared)
    return _record(
        "CommandT",
        extents=_numbers(command.extents),
        itemsize=command.itemsize,
        source=_place(command.source),
        target=_place(command.target),
        **shared,
    )


def _program(program: Program) -> Any:
    return _record(
        "ProgramT",
        batch=program.batch,
        arenaSize=program.arena_size,
        arenaLowerBound=program.arena_lower_bound,
        sramSize=program.sram_size,
        sramLowerBound=program.sram_lower_bound,
        commands=[_command(command) for command in program.commands],
        passes=program.passes,
        cycles=program.cycles,
    )


def _weight_chunk(chunk: Chunk) -> Any:
    return _record(
        "WeightChunkT",
        offsets=_numbers([offset for offset, _ in chunk.places]),
        sizes=_numbers([size for _, size in chunk.places]),
        elementSize=chunk.element,
        coding=int(chunk.coding),
        planes=chunk.planes,
        codedSize=len(chunk.data),
        crc32=chunk.crc32,
    )


def _payload(image: Image) -> bytes:
    coded = b"".join(chunk.data for chunk in image.chunks)
    record = _record(
        "ImageT",
        formatVersion=FORMAT_VERSION,
        toolVersion=image.tool_version,
        chip=image.chip,
        modelName=image.model_name,
        category=image.category,
        configJson=json.dumps(image.config, sort_keys=True, ensure_ascii=False),
        batchMode=int(image.batch_mode),
        batches=_numbers(image.batches),
        inputs=[_io(tensor) for tensor in image.inputs],
        outputs=[_io(tensor) for tensor in image.outputs],
        tensors=[_tensor(tensor) for tensor in image.tensors],
        kernels=[_kernel(kernel) for kernel in image.kernels],
        layers=[_layer(layer) for layer in image.layers],
        programs=[_program(program) for program in image.programs],
        sramBytes=image.sram_bytes,
        compulsoryBytes=image.compulsory_bytes,
        inplaceInputs=image.inplace_inputs,
        weightsSize=image.weights.size,
        weightsCrc32=zlib.crc32(image.weights.tobytes()),
        weights=coded,
        weightChunks=[_weight_chunk(chunk) for chunk in image.chunks],
    )
    builder = flatbuffers.Builder(len(coded) + (1 << 16))
    builder.Finish(record.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def image_bytes(image: Image) -> bytes:
    """The whole file as bytes: equal images give equal bytes. Raises UserError when it is too large for the format."""
    if image.weights.size > LARGEST_SECTION:
        raise UserError(
            f"the weights take {image.weights.size} bytes; an .img holds up to {LARGEST_SECTION}",
            stage="write .img",
            remedy="quantise more of the weights to 8 or 4 bits",
        )
    payload = _payload(image)
    return HEADER.pack(MAGIC, FORMAT_VERSION, zlib.crc32(payload), len(payload), 0) + payload


def write_image(image: Image, path: str | Path) -> None:
    """Write the file: complete or not at all. Raises UserError when it is too large or cannot be written."""
    data = image_bytes(image)
    with atomic_output(path) as temporary:
        temporary.write_bytes(data)
