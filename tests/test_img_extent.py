"""Small files that describe more than any memory holds: refused before they are read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import flatbuffers
import pytest

from fuzz_img import sealed
from sgs.errors import UserError
from sgs.img import generated, parse_image
from sgs.img.attributes import pack_attributes, unpack_attributes
from sgs.img.extent import check_extent
from test_img_format import example, payload

SECONDS = 2.0


@contextmanager
def quickly() -> Iterator[None]:
    start = time.perf_counter()
    yield
    assert time.perf_counter() - start < SECONDS


# -- tables ------------------------------------------------------------------------------------------------------------
def references(builder: flatbuffers.Builder, target: int, count: int) -> int:
    """A vector of `count` references to one table."""
    builder.StartVector(4, count, 4)
    for _ in range(count):
        builder.PrependUOffsetTRelative(target)
    return int(builder.EndVector())


def layered(programs: int, commands: int, inputs: int) -> bytes:
    """A payload in which all programs are one, and all its commands are one."""
    builder = flatbuffers.Builder(0)
    operands = longs(builder, inputs)
    generated.CommandStart(builder)
    generated.CommandAddInputs(builder, operands)
    listed = references(builder, generated.CommandEnd(builder), commands)
    return finished(builder, references(builder, program_of(builder, listed), programs))


def longs(builder: flatbuffers.Builder, count: int) -> int:
    """A vector of zeros."""
    builder.StartVector(8, count, 8)
    for _ in range(count):
        builder.PrependInt64(0)
    return int(builder.EndVector())


def program_of(builder: flatbuffers.Builder, commands: int) -> int:
    generated.ProgramStart(builder)
    generated.ProgramAddCommands(builder, commands)
    return int(generated.ProgramEnd(builder))


def finished(builder: flatbuffers.Builder, programs: int) -> bytes:
    generated.ImageStart(builder)
    generated.ImageAddPrograms(builder, programs)
    builder.Finish(generated.ImageEnd(builder), b"SIPU")
    return bytes(builder.Output())


@pytest.mark.parametrize("counts", [(1000, 1000, 1000), (1, 3000, 3000), (3000, 3000, 0), (5000, 1, 5000)])
def test_tables_on_top_of_each_other_are_refused(counts: tuple[int, int, int]) -> None:
    data = layered(*counts)
    assert len(data) < 70_000
    with quickly(), pytest.raises(UserError, match="lie on top of each other"):
        parse_image(sealed(data))


def test_one_place_of_a_thousand_transfers_is_refused() -> None:
    """A table inside a table counts wherever it is found."""
    builder = flatbuffers.Builder(0)
    strides = longs(builder, 3000)
    generated.PlaceStart(builder)
    generated.PlaceAddStrides(builder, strides)
    place = generated.PlaceEnd(builder)
    commands = []
    for _ in range(1000):
        generated.CommandStart(builder)
        generated.CommandAddSource(builder, place)
        generated.CommandAddTarget(builder, place)
        commands.append(generated.CommandEnd(builder))
    builder.StartVector(4, len(commands), 4)
    for command in reversed(commands):
        builder.PrependUOffsetTRelative(command)
    program = program_of(builder, builder.EndVector())
    data = finished(builder, references(builder, program, 1))
    assert len(data) < 60_000
    with quickly(), pytest.raises(UserError, match="lie on top of each other"):
        parse_image(sealed(data))


def test_a_string_in_a_thousand_places_is_refused() -> None:
    builder = flatbuffers.Builder(0)
    name = builder.CreateString("n" * 10_000)
    generated.TensorRefStart(builder)
    generated.TensorRefAddName(builder, name)
    listed = references(builder, generated.TensorRefEnd(builder), 1000)
    generated.ImageStart(builder)
    generated.ImageAddTensors(builder, listed)
    builder.Finish(generated.ImageEnd(builder), b"SIPU")
    with quickly(), pytest.raises(UserError, match="lie on top of each other"):
        parse_image(sealed(bytes(builder.Output())))


def test_a_vector_longer_than_the_file_is_refused() -> None:
    data = bytearray(layered(3, 3, 3))
    root = generated.Image.GetRootAs(data)
    at = root._tab.Vector(root._tab.Offset(30)) - 4  # where the number of programs stands
    assert int.from_bytes(data[at : at + 4], "little") == 3
    data[at : at + 4] = b"\xff\xff\xff\x7f"
    with quickly(), pytest.raises(UserError, match="malformed"):
        parse_image(sealed(bytes(data)))


def test_an_honest_image_is_below_a_quarter_of_the_limit() -> None:
    data = payload()
    root = generated.Image.GetRootAs(data)
    check_extent(root, -(-len(data) // 4))
    with pytest.raises(ValueError, match="on top"):
        check_extent(root, len(data) // 40)
    assert example().programs[0].commands


# -- attributes --------------------------------------------------------------------------------------------------------
INT, VECTOR, MAP, KEYS = 1 << 2, 10 << 2, 9 << 2, 14 << 2  # types of flexbuffers, of one byte


def nested(depth: int, kind: int = VECTOR) -> bytes:
    """Attribute "a": pairs of pairs of pairs ..., both halves of each being the same bytes."""
    data = bytearray([2, 1, 2, INT, INT])
    inner = 1  # where the last pair begins
    for _ in range(depth):
        start = len(data) + 1
        data += bytes([2, start - inner, start + 1 - inner, VECTOR, VECTOR])
        inner = start
    data += b"a\0"
    keys = len(data) + 1
    data += bytes([1, 3])  # one key, three bytes before here
    start = len(data) + 3
    data += bytes([start - 3 - keys, 1, 1, start - inner, kind])
    return bytes(data + bytes([len(data) - start, MAP, 1]))


def test_nested_attributes_are_what_they_seem() -> None:
    assert unpack_attributes(nested(0)) == {"a": (1, 2)}
    assert unpack_attributes(nested(1)) == {"a": ((1, 2), (1, 2))}


@pytest.mark.parametrize("depth", [4, 7, 8, 20, 45])
def test_attributes_on_top_of_each_other_are_refused(depth: int) -> None:
    with quickly(), pytest.raises(ValueError, match="larger than their bytes|neither a plain value"):
        unpack_attributes(nested(depth))


def test_attributes_of_other_kinds_are_refused() -> None:
    for kind in (MAP, 25 << 2, KEYS):  # a map in the map, a blob, a sequence of keys
        with pytest.raises((ValueError, IndexError, KeyError, TypeError)):
            unpack_attributes(nested(0, kind))


def test_attributes_of_an_operator_are_far_below_the_limits() -> None:
    deep = {"paddings": ((0, 0), (1, 2), (3, 4), (0, 0)), "indices": tuple(range(5000)), "texts": ("a", "bc") * 500}
    assert unpack_attributes(pack_attributes(deep)) == deep
    many = {f"key {index}": index for index in range(1000)}
    assert unpack_attributes(pack_attributes(many)) == many
    with pytest.raises(ValueError, match="too many"):
        unpack_attributes(pack_attributes({**many, "one more": 0}))
