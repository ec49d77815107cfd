"""The .img file: what is written is read, and nothing else is."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgs.errors import UserError
from sgs.img import (
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
    image_bytes,
    parse_image,
    read_image,
    write_image,
)
from sgs.img.attributes import pack_attributes, unpack_attributes
from sgs.img.check import violations
from sgs.img.coding import Constant
from sgs.img.image import FORMAT_VERSION
from sgs.numeric.nibbles import pack_nibbles, unpack_nibbles
from sgs.numeric.quantise import QuantParams
from sgs.numeric.types import DType

FUZZED = 300


def params(*scales: float, axis: int = 0) -> QuantParams:
    return QuantParams(np.array(scales, np.float32), np.arange(len(scales), dtype=np.int32), axis)


def weights() -> np.ndarray:
    """Two constants of 32 and 6 bytes, and the gap between them."""
    data = np.arange(70, dtype=np.uint8)
    data[32:64] = 0
    return data


def example() -> Image:
    """An image with something in every field: x → DOUBLE(x, w) → y, and a dropped optional operand."""
    tensors = (
        TensorRef("x é", DType.UINT8, (1, 2, 3), params(0.5)),
        TensorRef("w", DType.INT4, (3, 3), params(0.25, 0.5, 0.75, axis=1)),
        TensorRef("inner", DType.INT16, (1, 2, 3), params(0.1)),
        TensorRef("y", DType.FLOAT32, (6,)),
        TensorRef("i", DType.UINT16, (5,)),
    )
    kernels = (
        Kernel("DOUBLE", (0, -1, 1), (2,), (2,), {"pads": (1, 2), "alpha": 0.1, "mode": "x"}),
        Kernel("SHOW", (2,), (3,)),
    )
    commands: tuple[Command, ...] = (
        Dma(0, (6,), 1, Place(Space.INPUT, 0, (1,)), Place(Space.SRAM, 0, (1,)), 0, 7),
        Dma(0, (5,), 1, Place(Space.WEIGHTS, 64, (1,)), Place(Space.SRAM, 64, (1,)), 7, 3),
        Compute(0, 0, (0, -1, 64), (128,), 10, 90),
        Dma(0, (2, 3), 2, Place(Space.SRAM, 128, (6, 2)), Place(Space.ARENA, 10, (-6, 2)), 100, 5),
        Compute(1, 1, (128,), (192,), 100, 1 << 40),
        Dma(1, (6,), 4, Place(Space.SRAM, 192, (4,)), Place(Space.OUTPUT, 0, (4,)), 1 << 41, 2),
    )
    layers = (Layer("first", "DOUBLE", *range(1, 10)), Layer("second é", "SHOW"))
    inputs = (
        IoTensor(
            0, "x é", (1, 2, 3), DType.UINT8, params(0.5), "RGB", "BGR", "NHWC", 2, 4, (1.5, 2.0, 3.0), (0.5, 1.0, 2.0)
        ),
        IoTensor(4, "i", (5,), DType.UINT16, format="RAWDATA_U16_NHWC", layout="NHWC", entries=65535),
    )
    return Image(
        chip="pcupid",
        model_name="network",
        batch_mode=BatchMode.ONE_BUF,
        batches=(1, 3),
        inputs=inputs,
        outputs=(IoTensor(3, "y", (6,), DType.FLOAT32, layout="NHWC"),),
        tensors=tensors,
        kernels=kernels,
        layers=layers,
        programs=tuple(Program(n, 128, 64, commands, n, 256, 200, 1 << 42) for n in (1, 3)),
        sram_bytes=300,
        compulsory_bytes=99,
        inplace_inputs=False,
        weights=weights(),
        constants=(Constant(0, 32, 2), Constant(64, 6)),
        category="Detection",
        config={"level": "L5", "n": [1, 2]},
        tool_version="1.2",
    )


def plain(value: Any) -> Any:
    """A value in a form that `==` compares: arrays and quantisation parameters by what they hold."""
    if isinstance(value, QuantParams):
        return value.scale.tolist(), value.zero_point.tolist(), value.axis
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.tolist()
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def test_round_trip(tmp_path: Path) -> None:
    write_image(example(), tmp_path / "image é.img")
    assert plain(read_image(tmp_path / "image é.img")) == plain(example())
    assert [path.name for path in tmp_path.iterdir()] == ["image é.img"]


def test_equal_images_give_equal_bytes() -> None:
    assert image_bytes(example()) == image_bytes(example()) == image_bytes(parse_image(image_bytes(example())))


def test_the_example_is_valid() -> None:
    assert violations(example()) == []


def damaged(seed: int) -> bytes:
    """The example's file cut short, with one bit flipped, or with eight bytes inverted."""
    rng = random.Random(seed)
    data = bytearray(image_bytes(example()))
    if seed % 3 == 0:
        del data[rng.randrange(len(data)) :]
    elif seed % 3 == 1:
        position = rng.randrange(32 if seed % 2 else len(data))
        data[position] ^= 1 << rng.randrange(8)
    else:
        start = rng.randrange(len(data) - 8)
        data[start : start + 8] = bytes(255 - byte for byte in data[start : start + 8])
    return bytes(data)


def test_every_damaged_file_is_refused() -> None:
    for seed in range(FUZZED):
        with pytest.raises(UserError, match=r"^read \.img: damaged\.img: .* \(.*\)$"):
            parse_image(damaged(seed), file="damaged.img")


def test_a_damaged_payload_with_the_right_checksum_ends_in_a_valid_image_or_an_error() -> None:
    refused = 0
    for seed in range(FUZZED):
        rng = random.Random(seed)
        data = bytearray(payload())
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        try:
            image = parse_image(sealed(bytes(data)))
        except UserError:
            refused += 1
            continue
        assert violations(image) == []
    assert refused > FUZZED // 3


def sealed(payload: bytes, *, version: int = FORMAT_VERSION, reserved: int = 0) -> bytes:
    """A payload behind a header that fits it."""
    return struct.pack("<8sIIQQ", b"SGSIMG\0\x01", version, zlib.crc32(payload), len(payload), reserved) + payload


def payload() -> bytes:
    return image_bytes(example())[32:]


BAD_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "the file is empty"),
    "other file": (lambda: b"PK\x03\x04" + bytes(100), "not an offline image"),
    "a .sim": (lambda: b"\x1c\0\0\0TFL3" + bytes(100), "this is a .sim file"),
    "half a header": (lambda: image_bytes(example())[:20], "ends inside its header, after 20 bytes"),
    "newer": (
        lambda: sealed(payload(), version=7),
        "version 7; this tool reads version 3 (use the tool",
    ),
    "older": (
        lambda: sealed(payload(), version=2),
        "version 2; this tool reads version 3 (compile the",
    ),
    "reserved": (lambda: sealed(payload(), reserved=1), "reserved field"),
    "longer": (lambda: image_bytes(example()) + b"\0", "its header announces"),
    "other flatbuffer": (lambda: sealed(payload()[:4] + b"ABCD" + payload()[8:]), "payload is not an offline image"),
    "empty payload": (lambda: sealed(b""), "payload is not an offline image"),
    "zeros": (lambda: sealed(b"\0\0\0\0SIPU" + bytes(64)), ""),
    "root out of file": (lambda: sealed(b"\xff\xff\xff\x7fSIPU" + bytes(64)), "malformed"),
}


@pytest.mark.parametrize(("make", "reason"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_file(make: Callable[[], bytes], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.img"
    path.write_bytes(make())
    with pytest.raises(UserError) as caught:
        read_image(path)
    assert reason in str(caught.value) and "bad.img" in str(caught.value) and caught.value.remedy


def with_program(**changes: Any) -> Image:
    image = example()
    return replace(image, programs=(replace(image.programs[0], **changes), *image.programs[1:]))


def with_tensor(index: int, **changes: Any) -> Image:
    tensors = list(example().tensors)
    tensors[index] = replace(tensors[index], **changes)
    return replace(example(), tensors=tuple(tensors))


def with_constants(*places: tuple[int, int]) -> Image:
    return replace(example(), constants=tuple(Constant(*place) for place in places))


def with_kernel(**changes: Any) -> Image:
    kernels = example().kernels
    return replace(example(), kernels=(replace(kernels[0], **changes), *kernels[1:]))


def with_command(index: int, image: Image | None = None, **changes: Any) -> Image:
    image = image or example()
    commands = list(image.programs[0].commands)
    commands[index] = replace(commands[index], **changes)
    return replace(image, programs=(replace(image.programs[0], commands=tuple(commands)), *image.programs[1:]))


def with_side(index: int, side: str, **changes: Any) -> Image:
    command = example().programs[0].commands[index]
    return with_command(index, **{side: replace(getattr(command, side), **changes)})


def as_input(tensor: int) -> Image:
    image = example()
    ref = image.tensors[tensor]
    port = replace(image.inputs[0], tensor=tensor, shape=ref.shape, dtype=ref.dtype, quant=ref.quant)
    return replace(image, inputs=(port,))


def picking(tensor: int, entries: int) -> Image:
    image = as_input(tensor)
    return replace(image, inputs=(replace(image.inputs[0], entries=entries),))


def moved(source: int, target: int, space: Space = Space.SRAM) -> Image:
    """Six bytes moved inside a memory."""
    return with_command(0, source=Place(space, source, (1,)), target=Place(space, target, (1,)))


BAD_IMAGES: dict[str, tuple[Callable[[], Image], str]] = {
    "category": (lambda: replace(example(), category="Dogs"), "category 'Dogs'"),
    "no batch": (lambda: replace(example(), batches=(), programs=()), "batches []"),
    "descending": (lambda: replace(example(), batches=(3, 1)), "not ascending"),
    "no program for a batch": (lambda: replace(example(), batches=(1, 2)), "expected [1, 2]"),
    "two n_buf batches": (lambda: replace(example(), batch_mode=BatchMode.N_BUF), "one largest batch"),
    "passes": (lambda: with_program(passes=2), "passes differ"),
    "huge tensor": (lambda: with_tensor(2, shape=(1 << 30, 1 << 30)), "exceeds"),
    "empty extent": (lambda: with_tensor(2, shape=(1, 0)), "extent out of range"),
    "scales": (lambda: with_tensor(1, quant=params(1, 2, axis=1)), "2 scales on axis 1"),
    "scale axis": (lambda: with_tensor(1, quant=params(1, 2, 3, axis=5)), "3 scales on axis 5"),
    "overlapping constants": (lambda: with_constants((0, 65), (64, 6)), "begins before byte 65"),
    "stray weights": (lambda: with_constants((0, 1), (65, 5)), "bytes 1 to 65 belong to no constant"),
    "constants too short": (lambda: with_constants((0, 69)), "end at byte 69 of 70"),
    "no output": (lambda: replace(example(), outputs=()), "there is no output"),
    "input index": (lambda: replace(example(), inputs=(replace(example().inputs[0], tensor=9),)), "tensor 9 of 5"),
    "input type": (lambda: replace(example(), inputs=(replace(example().inputs[0], dtype=DType.INT8),)), "outside"),
    "std": (lambda: replace(example(), inputs=(replace(example().inputs[0], std=(0.0,)),)), "std [0.0]"),
    "codes that pick": (lambda: picking(0, 3), "UINT8 that picks from 3 entries"),
    "reals that pick": (lambda: picking(3, 3), "FLOAT32 that picks from 3 entries"),
    "entries": (lambda: picking(4, 1 << 31), "picks from 2147483648 entries"),
    "arena bound": (lambda: with_program(arena_lower_bound=129), "arena of 128 bytes"),
    "huge arena": (lambda: with_program(arena_size=1 << 60), "arena of"),
    "more SRAM than the chip has": (lambda: with_program(sram_size=301), "SRAM of 301 bytes"),
    "kernel's tensor": (lambda: with_kernel(inputs=(0, -1, 7)), "tensor 7 of 5"),
    "absent result": (lambda: with_kernel(outputs=(-1,)), "tensor -1 of 5"),
    "no result": (lambda: with_kernel(outputs=()), "has no result"),
    "no operator": (lambda: with_kernel(opcode=""), "has no operator"),
    "constant that is left out": (lambda: with_kernel(constants=(1,)), "constant operand 1"),
    "constant without operand": (lambda: with_kernel(constants=(3,)), "constant operand 3 of 3"),
    "layer": (lambda: with_command(2, layer=2), "layer 2 of 2"),
    "kernel": (lambda: with_command(2, kernel=2), "kernel 2 of 2"),
    "too few operands": (lambda: with_command(2, inputs=(0, -1)), "2 operands for a kernel of 3"),
    "operand that is not": (lambda: with_command(2, inputs=(0, 0, 64)), "operand at 0 for tensor -1"),
    "operand left out": (lambda: with_command(2, inputs=(-1, -1, 64)), "operand at -1 for tensor 0"),
    "result beside its operand": (lambda: with_command(4, inputs=(128,), outputs=(132,)), "a result, and an operand"),
    "outside SRAM": (lambda: with_command(2, outputs=(246,)), "bytes 246 to 258 of 256 in SRAM"),
    "far outside": (lambda: with_command(2, outputs=(1 << 62,)), "of 256 in SRAM"),
    "misaligned": (lambda: with_command(2, outputs=(65,)), "bytes 65 to 77"),
    "outside the arena": (lambda: with_side(3, "target", offset=126), "bytes 120 to 132 of 128 in ARENA"),
    "before the arena": (lambda: with_side(3, "target", offset=4), "bytes -2 to 10 of 128 in ARENA"),
    "outside the weights": (lambda: with_side(1, "source", offset=66), "bytes 66 to 71 of 70 in WEIGHTS"),
    "half an element": (lambda: with_side(3, "target", offset=11), "not of whole elements"),
    "half an element a step": (lambda: with_side(3, "source", strides=(6, 1)), "not of whole elements"),
    "strides": (lambda: with_side(3, "source", strides=(6,)), "1 strides for 2 extents"),
    "no such buffer": (lambda: with_side(0, "source", buffer=2), "buffer 2 of INPUT does not exist"),
    "no such SRAM": (lambda: with_side(0, "target", buffer=1), "buffer 1 of SRAM does not exist"),
    "element size": (lambda: with_command(0, itemsize=3), "elements of 3 bytes"),
    "no extent": (lambda: with_command(0, extents=(0,)), "extents [0]"),
    "rank": (lambda: with_command(0, extents=(1,) * 9), "extents [1, 1"),
    "writes weights": (lambda: with_side(3, "target", space=Space.WEIGHTS, offset=6), "read-only"),
    "writes input": (lambda: with_side(0, "target", space=Space.INPUT), "read-only"),
    "no chip": (lambda: replace(example(), chip=""), "no chip"),
    "idle arena": (lambda: with_program(arena_size=1 << 20), "ARENA of 1048576 bytes, of which 16 are used"),
    "idle SRAM": (
        lambda: replace(with_program(sram_size=1 << 20), sram_bytes=1 << 20),
        "SRAM of 1048576 bytes, of which 216 are used",
    ),
    "too many axes": (lambda: with_tensor(2, shape=(1,) * 33), "33 axes"),
    "packed activation": (lambda: with_tensor(2, dtype=DType.INT4), "packed elements that are no constants"),
    "packed input": (lambda: as_input(1), "packed elements"),
    "constants in disorder": (lambda: with_kernel(constants=(2, 0)), "not ascending"),
    "constants twice": (lambda: with_kernel(constants=(2, 2)), "not ascending"),
    "result on an operand": (lambda: with_command(2, outputs=(64,)), "bytes from 64 on are a result, and an operand"),
    "result inside an operand": (lambda: with_command(4, outputs=(136,)), "bytes from 136 on are a result"),
    "result around an operand": (lambda: with_command(4, outputs=(120,)), "bytes from 128 on are a result"),
    "two results in one place": (
        lambda: with_command(2, with_kernel(outputs=(2, 2)), outputs=(128, 128)),
        "and an operand or another result",
    ),
    "writes one place twice": (lambda: with_side(3, "target", strides=(0, 2)), "on top of each other"),
    "writes bytes twice": (lambda: with_side(3, "target", strides=(2, 2)), "on top of each other"),
    "a move up": (lambda: moved(0, 4), "moves bytes 0 to 6 of SRAM to 4"),
    "a move to itself": (lambda: moved(8, 8), "moves bytes 8 to 14 of SRAM to 8"),
    "a move in the arena": (lambda: moved(8, 4, Space.ARENA), "moves bytes 8 to 14 of ARENA to 4"),
}


@pytest.mark.parametrize(("make", "reason"), BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_bad_content_behind_a_right_checksum(make: Callable[[], Image], reason: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_image(image_bytes(make()))
    assert reason in str(caught.value)


def test_transfers_that_may_touch_what_they_read() -> None:
    """Down in SRAM; beside it; and each element from another place of the same memory."""
    assert violations(moved(8, 4)) == []
    assert violations(moved(8, 2)) == violations(moved(2, 8)) == violations(moved(8, 2, Space.ARENA)) == []
    assert violations(with_side(3, "target", strides=(2, 4), offset=10)) == []
    assert violations(with_side(3, "source", strides=(0, -2), offset=132)) == []


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_image(tmp_path / "none.img")
    with pytest.raises(UserError):
        write_image(example(), tmp_path / "none" / "x.img")
    assert list(tmp_path.iterdir()) == []


ATTRIBUTES: list[dict[str, Any]] = [
    {},
    {"strides": (1, 2), "pads": ((0, 0), (1, 2)), "empty": ()},
    {"alpha": 0.1, "beta": 1.5, "big": 1 << 40, "negative": (-1, -(1 << 40))},
    {"flag": True, "off": False, "none": None, "text": "größer", "texts": ("a", "bc")},
    {"mixed": (1, 0.5, "x"), "floats": (0.1, 0.2, 0.3, 0.4, 0.5)},
]


@pytest.mark.parametrize("attrs", ATTRIBUTES)
def test_attributes_come_back(attrs: dict[str, Any]) -> None:
    back = unpack_attributes(pack_attributes(attrs))
    assert back == attrs and all(type(back[key]) is type(attrs[key]) for key in attrs)


def test_attributes_that_cannot_be_stored() -> None:
    assert unpack_attributes(pack_attributes({"n": np.int64(3), "a": np.arange(2)})) == {"n": 3, "a": (0, 1)}
    with pytest.raises(TypeError, match="attribute of type object"):
        pack_attributes({"x": object()})


def test_nibbles() -> None:
    values = np.array([[-8, 7, -1], [0, 1, -7], [5, -3, 2]], np.int8)
    packed = pack_nibbles(values)
    assert packed.dtype == np.uint8 and packed.size == 5 and packed[0] == 0x78
    assert np.array_equal(unpack_nibbles(packed, 9).reshape(3, 3), values)
