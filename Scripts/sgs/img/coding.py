"""The weights section as a file holds it: chunks of constants, coded without loss in the way that makes each smallest.

schema/README.md specifies chunks and codings. Nothing is decoded here before its size is known and allowed.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from sgs.numeric.quantise import Array

ALIGNMENT = 64  # of every constant, in bytes; so gaps between constants are smaller, and of zeros
LARGEST_SECTION = (1 << 31) - (1 << 20)  # bytes decoded: what a file can hold with every chunk stored
# Constants up to this size share chunks, by the size of their elements: alone, what a coder has to say or to learn of
# the distribution of so few values would cost more than the values save.
SMALL = 4096
# Adaptive coding has no tables to write down, which is worth most for few bytes; for more it is slow, and chunks of
# one size bound what decoding takes. Also the bytes that small constants in one chunk have together, at most.
LARGEST_LZMA = 1 << 16
LARGEST_RATIO = 1032  # of deflate: 258 bytes for two bits
_LZMA_FILTERS = [{"id": lzma.FILTER_LZMA1, "lc": 0, "lp": 0, "pb": 0, "dict_size": LARGEST_LZMA}]


class Coding(IntEnum):
    """How the bytes of a chunk are coded."""

    STORED = 0  # as they are
    DEFLATE = 1  # raw deflate (RFC 1951)
    LZMA = 2  # raw LZMA1 with end marker: lc, lp and pb 0, a dictionary of 64 KiB


@dataclass(frozen=True, order=True)
class Constant:
    """The place of one constant in the decoded section, in bytes; of its elements as well."""

    offset: int
    size: int
    element: int = 1


@dataclass(frozen=True)
class Chunk:
    """Constants of equal elements coded together, one after the other.

    `planes`: what is coded is byte 0 of every element, then byte 1 of every element, and so on. `crc32` is that of the
    constants' bytes in their usual order.
    """

    places: tuple[tuple[int, int], ...]  # (offset, size)
    element: int
    coding: Coding
    planes: bool
    crc32: int
    data: bytes

    @property
    def size(self) -> int:
        """Decoded bytes."""
        return sum(size for _, size in self.places)


def misplaced(places: Sequence[tuple[int, int]], size: int) -> Iterator[str]:
    """Why constants at (offset, size) do not make up a section of `size` bytes, if they do not: at the first place."""
    end = 0
    for offset, extent in sorted(places):
        if extent <= 0 or offset < 0:
            yield f"weights: a constant of {extent} bytes at {offset}"
            return
        if offset < end:
            yield f"weights: the constant at {offset} begins before byte {end}, where another one ends"
            return
        if offset - end >= ALIGNMENT:
            yield f"weights: bytes {end} to {offset} belong to no constant"
            return
        end = offset + extent
    if end != size:
        yield f"weights: constants end at byte {end} of {size}"


# -- coding ------------------------------------------------------------------------------------------------------------
def encode(weights: Array, constants: Sequence[Constant]) -> tuple[Chunk, ...]:
    """The section uint8 [bytes] in chunks, by offset of their first constants. Without constants it counts as one."""
    if not constants and weights.size:
        constants = (Constant(0, weights.size),)
    return tuple(_chunk(weights, group) for group in _groups(constants))


def _groups(constants: Sequence[Constant]) -> list[list[Constant]]:
    """Large constants alone, small ones of equal elements together."""
    groups: list[list[Constant]] = []
    growing: dict[int, list[Constant]] = {}  # element → the last group of small constants
    sizes: dict[int, int] = {}  # element → bytes in that group
    for constant in sorted(constants):
        element = constant.element
        if constant.size > SMALL:
            groups.append([constant])
            continue
        if element not in growing or sizes[element] + constant.size > LARGEST_LZMA:
            growing[element], sizes[element] = [], 0
            groups.append(growing[element])
        growing[element].append(constant)
        sizes[element] += constant.size
    return groups


def _chunk(weights: Array, constants: Sequence[Constant]) -> Chunk:
    raw = b"".join(weights[one.offset : one.offset + one.size].tobytes() for one in constants)
    element = constants[0].element
    forms = {False: raw} if element == 1 else {False: raw, True: _apart(raw, element)}
    coded = [(Coding.STORED, False, raw)]
    for planes, data in forms.items():
        coded += [(coding, planes, code(data)) for coding, code in _ENCODERS]
        if len(data) <= LARGEST_LZMA:
            coded.append((Coding.LZMA, planes, _lzma(data)))
    coding, planes, data = min(coded, key=lambda one: len(one[2]))
    places = tuple((one.offset, one.size) for one in constants)
    return Chunk(places, element, coding, planes, zlib.crc32(raw), data)


def _apart(data: bytes, element: int) -> bytes:
    return np.frombuffer(data, np.uint8).reshape(-1, element).T.tobytes()


def _deflate(strategy: int) -> Callable[[bytes], bytes]:
    def code(data: bytes) -> bytes:
        coder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, strategy)
        return coder.compress(data) + coder.flush()

    return code


def _lzma(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_RAW, filters=_LZMA_FILTERS)


# weights are mostly noise, where matches are chance and cost more than they save: Huffman codes alone; the other one
# prefers them and takes long matches
_ENCODERS = tuple((Coding.DEFLATE, _deflate(strategy)) for strategy in (zlib.Z_HUFFMAN_ONLY, zlib.Z_FILTERED))


# -- decoding ----------------------------------------------------------------------------------------------------------
def decode(chunks: Sequence[Chunk], size: int) -> Array:
    """The section, uint8 [size], read only. Raises ValueError, saying why, for chunks that do not make it up."""
    if size > LARGEST_SECTION:
        raise ValueError(f"weights of {size} bytes; an image holds up to {LARGEST_SECTION}")
    for complaint in misplaced([place for chunk in chunks for place in chunk.places], size):
        raise ValueError(complaint)
    for index, chunk in enumerate(chunks):
        for complaint in _oversized(chunk):
            raise ValueError(f"weights: chunk {index} {complaint}")
    section = np.zeros(size, np.uint8)
    for index, chunk in enumerate(chunks):
        try:
            data = _decoded(chunk)
        except (zlib.error, lzma.LZMAError, ValueError) as error:
            raise ValueError(f"weights: chunk {index} cannot be decoded: {error}") from error
        start = 0
        for offset, extent in chunk.places:
            section[offset : offset + extent] = data[start : start + extent]
            start += extent
    section.flags.writeable = False
    return section


def _oversized(chunk: Chunk) -> Iterator[str]:
    """Why a chunk cannot be what it says, seen without decoding it."""
    largest = {
        Coding.STORED: len(chunk.data),
        Coding.DEFLATE: len(chunk.data) * LARGEST_RATIO,
        Coding.LZMA: LARGEST_LZMA,
    }[chunk.coding]
    if not chunk.places:
        yield "holds no constant"
    if chunk.size > largest:
        yield f"claims {chunk.size} bytes; {len(chunk.data)} bytes of {chunk.coding.name} are {largest} at most"
    if chunk.element < 1 or any(size % chunk.element for _, size in chunk.places):
        yield f"holds constants that are not whole elements of {chunk.element} bytes"


def _decoded(chunk: Chunk) -> Array:
    """The bytes of a chunk's constants, uint8 [size]."""
    data = chunk.data if chunk.coding is Coding.STORED else _inflated(chunk)
    if len(data) != chunk.size:
        more = "more" if len(data) > chunk.size else f"{len(data)} bytes"
        raise ValueError(f"it holds {more} instead of {chunk.size}")
    array = np.frombuffer(data, np.uint8)
    if chunk.planes:
        array = np.ascontiguousarray(array.reshape(chunk.element, -1).T).reshape(-1)
    if zlib.crc32(array.tobytes()) != chunk.crc32:
        raise ValueError("its checksum is wrong")
    return array


def _inflated(chunk: Chunk) -> bytes:
    """What a chunk decodes to, but no more than one byte above what it should."""
    coder: Any = (
        zlib.decompressobj(-zlib.MAX_WBITS)
        if chunk.coding is Coding.DEFLATE
        else lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_LZMA_FILTERS)
    )
    data: bytes = coder.decompress(chunk.data, chunk.size + 1)
    if len(data) <= chunk.size and not coder.eof:
        raise ValueError("its end is missing")
    if coder.unused_data:
        raise ValueError(f"{len(coder.unused_data)} bytes follow its end")
    return data
