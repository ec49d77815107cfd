"""Damaged images by the thousand: each is refused with a UserError, or does what it may and no more.

usage: python tests/fuzz_img.py [--files 5000] [--seed 0] [--jobs 2]

A file is made from a compiled image, by its number and the seed alone, in one of five ways:

    cut      shortened, or lengthened, at every kind of place
    flip     bits, bytes or blocks of the file changed
    sealed   the same done to the payload, and the header made to fit it, so that the checks behind the checksum are met
    objects  fields of the image changed in Python, wildly or so that they still fit each other, then written
    chunks   the coded weights changed, then written

The first two have to be refused. The others may be read, and run, but only within the memory that the machine gives
them, a kernel only within its results, and may end in nothing but a UserError; what still holds the original gives the
original's answer. Files are tried
in processes of their own with bounded memory: a crash, a hang and a large allocation are found as well as another
exception. What is found is printed with the number of the file; `--only NUMBER` tries that one here, with its
traceback. The exit code is 1 when there was anything.
"""

from __future__ import annotations

import copy
import math
import random
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "Scripts"), str(ROOT / "tests")]

import numpy as np  # noqa: E402

from fixed_examples import fixed_variants  # noqa: E402
from fuzzing import Finding, Fuzz, Unmistakable, flip  # noqa: E402
from sgs.compile import compile_graph  # noqa: E402
from sgs.config.chips import load_chip  # noqa: E402
from sgs.errors import UserError  # noqa: E402
from sgs.img import Image, OfflineEngine, image_bytes, parse_image, simulate  # noqa: E402
from sgs.img.check import violations  # noqa: E402
from sgs.img.coding import Chunk  # noqa: E402
from sgs.img.image import (  # noqa: E402
    FORMAT_VERSION,
    BatchMode,
    Command,
    Compute,
    Dma,
    Kernel,
    Place,
    Program,
    Space,
    TensorRef,
)
from sgs.img.write import HEADER, MAGIC  # noqa: E402
from sgs.numeric.quantise import Array, QuantParams  # noqa: E402
from sgs.numeric.types import DType  # noqa: E402
from sgs.registry import OPERATOR  # noqa: E402
from test_cascade import GRAPHS  # noqa: E402
from test_compile import BY_HAND, smaller  # noqa: E402

KINDS = ("cut", "flip", "sealed", "objects", "sealed", "objects", "flip", "chunks", "objects", "sealed")
DAMAGED = ("cut", "flip")  # kinds whose header does not fit them
GUARD = 4096  # bytes around every memory of the machine that have to stay as they are
LARGEST_RUN = 1 << 24, 64  # bytes of inputs and outputs, and frames, up to which an image is run
NO_MEMORY = ("allocate", "bad_alloc", "bad allocation", "MemoryError")  # an operator that needs more than its operands
FIXED_OPS = [op for op in OPERATOR if OPERATOR[op].stage != "float"]


class Overwritten(Unmistakable):
    """Raised inside the machine."""


# -- originals ---------------------------------------------------------------------------------------------------------
NETWORKS = {**BY_HAND, **GRAPHS}


@cache
def hand_made(name: str, stacked: bool, memory: int = 1 << 19) -> Image:
    """For a chip with so much SRAM; the less, the more pieces. `stacked` images may overwrite their inputs."""
    mode: dict[str, Any] = {"batch_mode": "one_buf", "batches": (2, 4)} if stacked else {"batches": 3}
    graph = NETWORKS[name]()
    inplace = stacked and all(graph[port].dtype.is_float for port in graph.inputs)
    return compile_graph(graph, smaller(load_chip("ibopper"), memory), **mode, inplace_inputs=inplace)


@cache
def of_operator(op: str, memory: int = 1 << 19) -> tuple[Image, ...]:
    """Those of its examples that fit into so much SRAM."""
    images = []
    for _, graph in fixed_variants(op):
        try:
            images.append(compile_graph(graph, smaller(load_chip("ibopper"), memory)))
        except UserError:
            continue
    return tuple(images)


def original(rng: random.Random) -> Image:
    """A small compiled image: of one operator, or of a network; in one piece, or in several."""
    if rng.random() < 0.5:
        name = rng.choice(list(NETWORKS))
        memory = rng.choice([1 << 19, 24_000, 12_000])
        return hand_made(name, rng.random() < 0.3, memory)
    op = rng.choice(FIXED_OPS)
    return rng.choice(of_operator(op, rng.choice([1 << 19, 4096])) or of_operator(op))


# -- damage to bytes ---------------------------------------------------------------------------------------------------
INTERESTING = (0, 1, 2, 3, 4, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFC)


def cut(data: bytes, rng: random.Random) -> bytes:
    """Shorter (inside the magic, the header, the tables, the last block, by one byte) or longer."""
    size = len(data)
    length = rng.choice(
        [0, rng.randrange(1, 8), rng.randrange(8, HEADER.size + 1), rng.randrange(HEADER.size, HEADER.size + 64)]
        + [rng.randrange(size), rng.randrange(size), rng.randrange(max(0, size - 64), size), size - 1]
    )
    return data + rng.randbytes(rng.choice([1, 4, 64])) if rng.random() < 0.1 else data[:length]


def reworded(payload: bytes, rng: random.Random) -> bytes:
    """Numbers that tables and vectors are full of, at their usual places: offsets, lengths, small fields."""
    found = bytearray(payload)
    for _ in range(rng.randint(1, 4)):
        width = rng.choice([1, 1, 2, 4, 4])
        start = rng.randrange(len(found) // width) * width
        value = (
            rng.choice(INTERESTING) if rng.random() < 0.6 else int.from_bytes(found[start : start + width], "little")
        )
        value += rng.choice([0, 1, -1, width, -width])
        found[start : start + width] = (value % (1 << (8 * width))).to_bytes(width, "little")
    return bytes(found)


def sealed(payload: bytes) -> bytes:
    return HEADER.pack(MAGIC, FORMAT_VERSION, zlib.crc32(payload), len(payload), 0) + payload


def sealed_damage(data: bytes, rng: random.Random) -> bytes:
    """The payload changed behind a header that fits it."""
    payload = data[HEADER.size :]
    return sealed(rng.choice((flip, reworded, reworded, reworded, cut))(payload, rng))


# -- damage to objects -------------------------------------------------------------------------------------------------
WORDS = ("", "NHWC", "NCHW", "RGB", "BGRA", "YUV_NV12", "RAWDATA_S16_NHWC", "x", "é", "a\0b", "n" * 5000, *FIXED_OPS)
REALS = (0.0, -1.0, math.nan, math.inf, -math.inf, 1e-45, 1e-30, 0.5, 1e30, 3e38)
EDGES = (-(1 << 63), -(1 << 31), -2, -1, 0, 1, 2, 3, 255, 256, 65535, 65536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
HUGE = (1 << 33, 1 << 40, 1 << 42, (1 << 63) - 1, (1 << 64) - 1)


def with_field(value: Any, name: str, new: Any) -> Any:
    """A copy of a frozen dataclass with another field, which is not asked whether it may be."""
    found = copy.copy(value)
    if isinstance(found, Image):
        found.__dict__.pop("chunks", None)
    object.__setattr__(found, name, new)
    return found


def twisted_number(value: int, rng: random.Random) -> int:
    return rng.choice([rng.choice(EDGES), rng.choice(HUGE), value + rng.choice([1, -1, 64]), -value, rng.randrange(9)])


def twisted_items(items: tuple[Any, ...], rng: random.Random) -> tuple[Any, ...]:
    """The items with one of them changed, gone, doubled or elsewhere, or none."""
    how = rng.randrange(8) if items else 7
    index = rng.randrange(len(items)) if items else 0
    if how < 4:
        return (*items[:index], twisted(items[index], rng), *items[index + 1 :])
    if how == 4:
        return tuple(rng.sample(items, len(items)))
    if how == 5:
        return (*items[:index], *items[index + 1 :])
    return (*items, items[index]) if how == 6 else () if items else (rng.randrange(5),)


def twisted_array(array: Array, rng: random.Random) -> Array:
    flat = array.reshape(-1)
    if not flat.size or rng.random() < 0.3:
        return np.resize(flat, max(0, flat.size + rng.choice([-1, 1, -flat.size, 64]))).astype(flat.dtype)
    found = flat.copy()
    index = rng.randrange(flat.size)
    if flat.dtype.kind == "f":
        found[index] = rng.choice(REALS)
    else:
        found[index] = rng.randrange(np.iinfo(flat.dtype).min, np.iinfo(flat.dtype).max + 1)
    return found


def twisted_map(entries: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    found = dict(entries)
    if not found or rng.random() < 0.15:
        return {**found, rng.choice([*found, "axis", "extra"]): rng.choice([None, (), "x", 1, (1, 2, 3), 0.5])}
    key = rng.choice(list(found))
    if rng.random() < 0.2:
        del found[key]
    else:
        found[key] = twisted(found[key], rng)
    return found


def twisted(value: Any, rng: random.Random) -> Any:
    """Something like the value that is not the value, most of the time."""
    if is_dataclass(value):
        name = rng.choice([field.name for field in fields(value)])
        return with_field(value, name, twisted(getattr(value, name), rng))
    if isinstance(value, Enum):
        return rng.choice(list(type(value)))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return twisted_number(value, rng)
    if isinstance(value, float):
        return rng.choice(REALS)
    if isinstance(value, str):
        return rng.choice(WORDS)
    if isinstance(value, bytes):
        return flip(value, rng) if value and rng.random() < 0.7 else value[: len(value) // 2]
    if isinstance(value, tuple):
        return twisted_items(value, rng)
    if isinstance(value, dict):
        return twisted_map(value, rng)
    if isinstance(value, np.ndarray):
        return twisted_array(value, rng)
    return rng.choice([None, 0, QuantParams(np.ones(1, np.float32), np.zeros(1, np.int32))])


# Changes that fit together, so that they come as far as the machine.
def _all_programs(image: Image, change: Callable[[Program], Program]) -> Image:
    return with_field(image, "programs", tuple(change(program) for program in image.programs))


def _settled(image: Image) -> Image:
    """The image with operands and results of all commands in as many places as their kernels have: where one would lie
    outside SRAM or on another, behind what SRAM held so far."""

    def settled(program: Program) -> Program:
        size, commands = program.sram_size, []
        for command in program.commands:
            if isinstance(command, Compute) and 0 <= command.kernel < len(image.kernels):
                command, size = _seated(image, command, size)
            commands.append(command)
        return with_field(with_field(program, "sram_size", size), "commands", tuple(commands))

    image = _all_programs(image, settled)
    return with_field(image, "sram_bytes", max([image.sram_bytes, *(one.sram_size for one in image.programs)]))


def _seated(image: Image, command: Compute, size: int) -> tuple[Compute, int]:
    kernel = image.kernels[command.kernel]
    taken: list[tuple[int, int]] = []
    for side in ("inputs", "outputs"):
        old, new = getattr(command, side), []
        for position, index in enumerate(getattr(kernel, side)):
            if not 0 <= index < len(image.tensors):
                new.append(-1)
                continue
            tensor = image.tensors[index]
            at = old[position] if position < len(old) else -1
            free = side == "inputs" or all(at + tensor.nbytes <= first or end <= at for first, end in taken)
            if at < 0 or at % tensor.dtype.numpy.itemsize or at + tensor.nbytes > size or not free:
                at = -(-size // 64) * 64
                size = at + tensor.nbytes
            taken.append((at, at + tensor.nbytes))
            new.append(at)
        command = with_field(command, side, tuple(new))
    return command, size


def _retensored(image: Image, index: int, tensor: TensorRef) -> Image:
    """Another tensor, and with it its places and what is said of it as input or output."""
    image = with_field(image, "tensors", (*image.tensors[:index], tensor, *image.tensors[index + 1 :]))
    for side in ("inputs", "outputs"):
        ports = []
        for port in getattr(image, side):
            if port.tensor == index:
                for name in ("shape", "dtype", "quant"):
                    port = with_field(port, name, getattr(tensor, name))
            ports.append(port)
        image = with_field(image, side, tuple(ports))
    return _settled(image)


def another_type(image: Image, rng: random.Random) -> Image:
    index = rng.randrange(len(image.tensors))
    return _retensored(image, index, with_field(image.tensors[index], "dtype", rng.choice(list(DType))))


def another_shape(image: Image, rng: random.Random) -> Image:
    index = rng.randrange(len(image.tensors))
    shape = list(image.tensors[index].shape)
    how = rng.randrange(5)
    if how == 0:
        rng.shuffle(shape)
    elif how == 1:
        shape = [math.prod(shape)]
    elif how == 2:
        shape.append(1)
    elif shape:
        place = rng.randrange(len(shape))
        shape[place] = rng.choice([1, shape[place] + 1, max(1, shape[place] - 1), 1 << 10, 1 << 20, 1 << 30])
    return _retensored(image, index, with_field(image.tensors[index], "shape", tuple(shape)))


def another_scale(image: Image, rng: random.Random) -> Image:
    index = rng.randrange(len(image.tensors))
    tensor = image.tensors[index]
    quant = twisted(tensor.quant, rng) if rng.random() < 0.8 else None
    return _retensored(image, index, with_field(tensor, "quant", quant))


def _rekernelled(image: Image, rng: random.Random, change: Callable[[Kernel], Kernel]) -> Image:
    kernels = list(image.kernels)
    if kernels:
        index = rng.randrange(len(kernels))
        kernels[index] = change(kernels[index])
    return _settled(with_field(image, "kernels", tuple(kernels)))


def another_operator(image: Image, rng: random.Random) -> Image:
    """An operator with the attributes that were there, or both from somewhere else."""
    op, whole = rng.choice(FIXED_OPS), rng.random() < 0.6
    others = rng.choice(of_operator(op)).kernels[-1:] if whole else ()

    def change(kernel: Kernel) -> Kernel:
        kernel = with_field(kernel, "opcode", op)
        return with_field(kernel, "attrs", others[0].attrs) if others else kernel

    return _rekernelled(image, rng, change)


def another_attribute(image: Image, rng: random.Random) -> Image:
    return _rekernelled(image, rng, lambda kernel: with_field(kernel, "attrs", twisted_map(kernel.attrs, rng)))


def other_operands(image: Image, rng: random.Random) -> Image:
    side = rng.choice(["inputs", "outputs"])
    indexes = [rng.choice([-1, *range(len(image.tensors))]) for _ in range(rng.randint(0, 4))]

    def change(kernel: Kernel) -> Kernel:
        found = indexes
        if rng.random() < 0.6:  # one of them only
            found = list(getattr(kernel, side)) or indexes
            if found:
                found[rng.randrange(len(found))] = rng.choice([-1, *range(len(image.tensors))])
        return with_field(kernel, side, tuple(found))

    return _rekernelled(image, rng, change)


def other_constants(image: Image, rng: random.Random) -> Image:
    """Other operands that are said to be constants: also one that changes, or none."""

    def change(kernel: Kernel) -> Kernel:
        count = len(kernel.inputs)
        return with_field(kernel, "constants", tuple(sorted(rng.sample(range(count), rng.randint(0, count)))))

    return _rekernelled(image, rng, change)


def _recommanded(image: Image, rng: random.Random, change: Callable[[Program, Command], Command]) -> Image:
    chosen = rng.random()

    def changed(program: Program) -> Program:
        if not program.commands:
            return program
        index = int(chosen * len(program.commands))
        commands = list(program.commands)
        commands[index] = change(program, commands[index])
        return with_field(program, "commands", tuple(commands))

    return _all_programs(image, changed)


def another_transfer(image: Image, rng: random.Random) -> Image:
    """Other elements between other places, in the place of any command; most of them may be moved so."""

    def room(program: Program, space: Space, buffer: int) -> int:
        if space in (Space.INPUT, Space.OUTPUT):
            ports = image.inputs if space is Space.INPUT else image.outputs
            return image.tensors[ports[buffer].tensor].nbytes if buffer < len(ports) else 0
        sizes = {Space.ARENA: program.arena_size, Space.SRAM: program.sram_size, Space.WEIGHTS: image.weights.size}
        return int(sizes[space])

    def place(program: Program, spaces: list[Space], extents: tuple[int, ...], itemsize: int, wild: bool) -> Place:
        space = rng.choice([one for one in spaces if room(program, one, 0) >= itemsize] or spaces)
        buffer = rng.randrange(2) if wild and space in (Space.INPUT, Space.OUTPUT) else 0
        step, strides = itemsize, []
        for extent in reversed(extents):
            strides.append(step * rng.choice([1, 1, -1, 0, 2] if wild else [1, 1, 1, -1]))
            step = abs(strides[-1] or step) * extent
        if rng.random() < 0.3:
            rng.shuffle(strides)
        reach = [(extent - 1) * stride for extent, stride in zip(extents, reversed(strides), strict=True)]
        low = -sum(min(step, 0) for step in reach)
        last = room(program, space, buffer) - itemsize - sum(max(step, 0) for step in reach)
        offset = rng.randrange(low, last + 1) if last >= low else low
        return Place(space, offset // itemsize * itemsize, tuple(reversed(strides)), buffer)

    def change(program: Program, command: Command) -> Command:
        wild = rng.random() < 0.3
        itemsize = rng.choice([1, 2, 4, 8, 3] if wild else [1, 1, 2, 4, 8])
        extents = tuple(
            rng.choice([1, 2, 3, 5, 16, 1 << 12] if wild else [1, 2, 3, 5]) for _ in range(rng.randint(0, 4))
        )
        if isinstance(command, Dma) and rng.random() < 0.3:
            itemsize, extents = command.itemsize, command.extents
        written = [Space.SRAM, Space.SRAM, Space.ARENA, Space.OUTPUT, *([Space.INPUT] * image.inplace_inputs)]
        source = place(program, [*Space, Space.SRAM], extents, itemsize, wild or rng.random() < 0.2)
        target = place(program, list(Space) if wild else written, extents, itemsize, wild)
        if rng.random() < 0.2:  # on top of each other, or nearly so
            shift = rng.choice([-1, -2, -5, -64, 1, 0]) * itemsize
            target = with_field(source, "offset", max(0, source.offset + shift))
        return Dma(command.layer, extents, itemsize, source, target)

    return _recommanded(image, rng, change)


def another_place(image: Image, rng: random.Random) -> Image:
    """An operand, a result or one side of a transfer elsewhere in SRAM, or a transfer the other way round."""

    def change(program: Program, command: Command) -> Command:
        offset = rng.randrange(max(1, program.sram_size)) // 16 * 16
        if isinstance(command, Compute):
            side = rng.choice(["inputs", "outputs"])
            places = list(getattr(command, side))
            if places:
                places[rng.randrange(len(places))] = offset
            return with_field(command, side, tuple(places))
        if rng.random() < 0.3:
            return with_field(with_field(command, "source", command.target), "target", command.source)
        side = rng.choice(["source", "target"])
        return with_field(command, side, with_field(getattr(command, side), "offset", offset))

    return _recommanded(image, rng, change)


def another_kernel(image: Image, rng: random.Random) -> Image:
    """A command that runs another kernel, or a transfer that becomes one."""
    index = rng.randrange(max(1, len(image.kernels)))
    return _settled(_recommanded(image, rng, lambda program, command: Compute(command.layer, index, (), ())))


def other_commands(image: Image, rng: random.Random) -> Image:
    """A command gone, doubled or elsewhere."""
    how, seed = rng.randrange(3), rng.random()

    def changed(program: Program) -> Program:
        commands, dice = list(program.commands), random.Random(seed)
        if commands:
            command = commands.pop(dice.randrange(len(commands)))
            for _ in range(how):
                commands.insert(dice.randrange(len(commands) + 1), command)
        return with_field(program, "commands", tuple(commands))

    return _all_programs(image, changed)


def other_memories(image: Image, rng: random.Random) -> Image:
    """More or less of a memory, what is claimed being used or not; inputs that may be overwritten, or not."""
    if rng.random() < 0.2:
        return with_field(image, "inplace_inputs", not image.inplace_inputs)
    name, more = rng.choice(["arena_size", "sram_size"]), rng.choice([64, 4096, 1 << 20, 1 << 35, -64])
    space = Space.ARENA if name == "arena_size" else Space.SRAM
    used = rng.random() < 0.5

    def changed(program: Program) -> Program:
        size = max(0, getattr(program, name) + more)
        program = with_field(program, name, size)
        if not used or size < 1:
            return program
        places = (Place(Space.SRAM, 0, (1,)), Place(space, size - 1, (1,)))
        return with_field(program, "commands", (Dma(0, (1,), 1, *places), *program.commands))

    image = _all_programs(image, changed)
    return with_field(image, "sram_bytes", image.sram_bytes + rng.choice([0, max(more, 0), 1 << 40]))


def other_weights(image: Image, rng: random.Random) -> Image:
    """The same constants with other values."""
    found = np.zeros_like(image.weights)
    noise = np.random.default_rng(rng.randrange(1 << 30)).integers(0, 256, found.size, np.uint8)
    for one in image.constants:
        found[one.offset : one.offset + one.size] = noise[one.offset : one.offset + one.size]
    return with_field(image, "weights", found)


def other_batches(image: Image, rng: random.Random) -> Image:
    """A larger number of frames, everywhere."""
    count = rng.choice([1, 5, 64, 1 << 16])
    if image.batch_mode is BatchMode.N_BUF:
        return with_field(image, "batches", (count,))
    program = with_field(with_field(image.programs[0], "batch", count), "passes", count)
    return with_field(with_field(image, "batches", (count,)), "programs", (program,))


FITTING = (
    *(another_type, another_shape, another_scale, another_operator, another_attribute, another_attribute),
    *(other_operands, other_constants, another_transfer, another_transfer, another_place, another_kernel),
    *(other_commands, other_memories, other_weights, other_batches),
)


def changed_objects(image: Image, rng: random.Random) -> Image:
    """The image with fields changed."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        image = twisted(image, rng) if rng.random() < 0.4 else rng.choice(FITTING)(image, rng)
    return image


def changed_chunks(image: Image, rng: random.Random) -> Image:
    """The image with one of its chunks of weights changed: its places, its coding, its bytes, its checksum."""
    changed = copy.copy(image)
    chunks = twisted_items(image.chunks, rng)
    changed.__dict__["chunks"] = tuple(chunk for chunk in chunks if isinstance(chunk, Chunk))
    return changed


def _written(change: Callable[[], Image]) -> bytes:
    """The file of the first changed image that can be written: nobody promises what the writer says to the others."""
    found = None
    while found is None:
        try:
            found = image_bytes(change())
        except Exception:
            found = None
    return found


DAMAGE: dict[str, Callable[[Image, bytes, random.Random], bytes]] = {
    "cut": lambda image, data, rng: cut(data, rng),
    "flip": lambda image, data, rng: flip(data, rng),
    "sealed": lambda image, data, rng: sealed_damage(data, rng),
    "objects": lambda image, data, rng: _written(lambda: changed_objects(image, rng)),
    "chunks": lambda image, data, rng: _written(lambda: changed_chunks(image, rng)),
}


# -- one file ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Case:
    """A damaged file and what it was made from."""

    kind: str
    image: Image
    data: bytes
    feeds: int  # seed of its inputs


def make_case(seed: int, index: int) -> Case:
    """File number `index` of a campaign."""
    rng = random.Random(f"{seed} {index}")
    kind, image = KINDS[index % len(KINDS)], original(rng)
    while kind == "chunks" and not image.chunks:
        image = original(rng)
    plain = data = image_bytes(image)
    while data == plain:
        data = DAMAGE[kind](image, plain, rng)
    return Case(kind, image, data, rng.randrange(1 << 30))


def judge(case: Case) -> str:
    """What became of a file: refused, stopped (by the machine), read (too large to be run here), executed, unchanged
    (executed as well).

    Raises Finding, or whatever else came out, where that is not allowed.
    """
    try:
        image = parse_image(case.data, file="fuzzed.img")
    except UserError:
        return "refused"
    if case.kind in DAMAGED:
        raise Finding("a damaged file was read")
    complaints = violations(image)
    if complaints:
        raise Finding(f"the image that was read is not valid: {complaints[0]}")
    same = image_bytes(image) == image_bytes(case.image)
    try:
        answer = execute(image, case.feeds)
    except UserError as error:
        if same or "cannot be executed" in error.reason and any(word in str(error) for word in NO_MEMORY):
            raise
        return "stopped"
    if same:
        truth = execute(case.image, case.feeds)
        if answer is None or truth is None or any(not np.array_equal(answer[name], truth[name]) for name in truth):
            raise Finding("an image that holds what it held gives another answer")
        return "unchanged"
    return "read" if answer is None else "executed"


def execute(image: Image, seed: int) -> dict[str, Array] | None:
    """The answer to random inputs, twice; None, the machine being built alone, where they would be large."""
    guarded = _GuardedMemory()
    simulate.aligned_bytes, simulate._Run = guarded, _WatchedRun
    try:
        engine = OfflineEngine(image, threads=1)
        if guarded.size:
            raise Finding(f"{guarded.size} bytes of memory were taken before the first frame")
        frames = 1 if image.batch_mode is BatchMode.N_BUF else image.batches[0]
        used = sum(image.tensors[port.tensor].nbytes for port in (*image.inputs, *image.outputs))
        if used * frames > LARGEST_RUN[0] or frames > LARGEST_RUN[1]:
            return None
        weights, feeds = zlib.crc32(image.weights.tobytes()), [random_feeds(image, seed)] * frames
        answers = [engine.run(feeds) for _ in range(2)]
    finally:
        simulate.aligned_bytes, simulate._Run = _MACHINE
    guarded.check()
    if zlib.crc32(image.weights.tobytes()) != weights:
        raise Finding("weights were written")
    with engine._machine(image.programs[0]) as machine:
        buffers = machine.frames(frames)
    for port, *written in zip(image.inputs, *(frame.inputs for frame in buffers), strict=True):
        if not image.inplace_inputs and any(one.tobytes() != feeds[0][port.name].tobytes() for one in written):
            raise Finding(f"input '{port.name}' was written")
    return answers[-1]


_MACHINE = simulate.aligned_bytes, simulate._Run


class _WatchedRun(simulate._Run):
    """A kernel command that must not write to SRAM outside its results."""

    def __call__(self) -> None:
        memory, before = self._memory, self._memory.copy()
        super().__call__()
        image, command = self._kernels._image, self._command
        for index, offset in zip(image.kernels[command.kernel].outputs, command.outputs, strict=True):
            span = slice(offset, offset + image.tensors[index].nbytes)
            before[span] = memory[span]
        if not np.array_equal(memory, before):
            raise Overwritten(f"kernel {command.kernel} wrote outside its results")


class _GuardedMemory:
    """What gives the machine its memory, with bytes around it that nobody may write."""

    def __init__(self) -> None:
        self._plain = _MACHINE[0]
        self._blocks: list[Array] = []
        self.size = 0

    def __call__(self, size: int) -> Array:
        self.size += size
        block = self._plain(size + 2 * GUARD)
        self._blocks.append(block)
        return block[GUARD : GUARD + size]

    def check(self) -> None:
        """Raise Finding where a byte outside was written."""
        for block in self._blocks:
            around = np.concatenate([block[:GUARD], block[-GUARD:]])
            if (around != around[0]).any():
                raise Finding("bytes outside the image's memory were written")


def random_feeds(image: Image, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    feeds = {}
    for port in image.inputs:
        dtype = port.dtype.numpy
        if dtype.kind == "f":
            feeds[port.name] = rng.uniform(-4, 4, port.shape).astype(dtype)
        elif dtype.kind == "b":
            feeds[port.name] = rng.integers(0, 2, port.shape).astype(dtype)
        else:
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
            feeds[port.name] = rng.integers(low, high, port.shape, dtype, endpoint=True)
    return feeds


# -- many files --------------------------------------------------------------------------------------------------------
def try_one(seed: int, index: int) -> str:
    """What became of file number `index`."""
    return judge(make_case(seed, index))


FUZZ = Fuzz(
    script=__file__,
    kinds=KINDS,
    outcomes=("refused", "stopped", "read", "executed", "unchanged"),
    prepare=lambda: original(random.Random(0)),
    try_one=try_one,
    memory=2 << 30,
    growth=256 << 20,
)

if __name__ == "__main__":
    sys.exit(FUZZ.main("Damaged .img files against reader and offline simulator."))
