"""Coded weights: small, the same after decoding, and refused when they are not what they say."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sgs.compile.weights import WeightPool
from sgs.img import coding
from sgs.img.coding import Chunk, Coding, Constant, decode, encode
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType


def noise(size: int, spread: float = 30.0, dtype: Any = np.int8, seed: int = 0) -> Array:
    """Codes of a normal distribution."""
    info = np.iinfo(dtype)
    values = np.random.default_rng(seed).normal(0, spread, size)
    return np.clip(np.rint(values), info.min, info.max).astype(dtype)


def entropy(data: Array) -> float:
    """Order-0 entropy of the bytes, in bytes."""
    counts = np.bincount(data.reshape(-1).view(np.uint8), minlength=256)
    share = counts[counts > 0] / counts.sum()
    return float(-(counts[counts > 0] * np.log2(share)).sum() / 8)


def pooled(*constants: tuple[Array, DType]) -> WeightPool:
    pool = WeightPool()
    for data, dtype in constants:
        pool.add(data, dtype)
    return pool


def chunks_of(pool: WeightPool) -> tuple[Chunk, ...]:
    """The pool's section in chunks that decode to it."""
    chunks = encode(pool.bytes(), pool.constants)
    assert np.array_equal(decode(chunks, pool.size), pool.bytes())
    return chunks


def coded_size(chunks: Sequence[Chunk]) -> int:
    return sum(len(chunk.data) for chunk in chunks)


# -- size --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [20_000, 60_000, 500_000])
@pytest.mark.parametrize("spread", [8.0, 30.0, 45.0])
def test_noise_takes_its_entropy(size: int, spread: float) -> None:
    data = noise(size, spread)
    assert coded_size(chunks_of(pooled((data, DType.INT8)))) < 1.02 * entropy(data)


def test_many_small_constants_take_their_entropy() -> None:
    """What depthwise convolutions are made of, with their biases: none is large enough for tables of its own."""
    weights = [noise(64 * 9, 36.0, seed=seed) for seed in range(60)]
    biases = [noise(64, 3000.0, np.int32, seed=seed) for seed in range(60)]
    pool = WeightPool()
    for weight, bias in zip(weights, biases, strict=True):
        pool.add(weight, DType.INT8)
        pool.add(bias, DType.INT32)
    chunks = chunks_of(pool)
    assert coded_size(chunks) < 1.02 * sum(entropy(data) for data in (*weights, *biases))
    assert [(chunk.element, len(chunk.places)) for chunk in chunks] == [(1, 60), (4, 60)]


def test_wide_elements_are_coded_in_planes() -> None:
    """Between the low bytes of biases, which are noise, the high ones would cost more than in a row."""
    biases = noise(5000, 3000.0, np.int32)
    (chunk,) = chunks_of(pooled((biases, DType.INT32)))
    by_plane = sum(entropy(biases.view(np.uint8)[plane::4]) for plane in range(4))
    assert chunk.planes and chunk.element == 4
    assert len(chunk.data) < 1.02 * by_plane < 0.8 * entropy(biases)


def test_what_cannot_be_made_smaller_is_stored() -> None:
    data = np.random.default_rng(1).integers(0, 256, 100_000, np.uint8)
    (chunk,) = chunks_of(pooled((data, DType.UINT8)))
    assert (chunk.coding, chunk.data) == (Coding.STORED, data.tobytes())


def test_zeros_take_next_to_nothing() -> None:
    (chunk,) = chunks_of(pooled((np.zeros(1_000_000, np.int8), DType.INT8)))
    assert len(chunk.data) < 1500


def test_codes_of_4_bit_are_packed_first() -> None:
    data = noise(60_001, 2.0).clip(-7, 7)
    pool = pooled((data, DType.INT4))
    counts = np.bincount(data + 8, minlength=16) / data.size
    bits = -(counts[counts > 0] * np.log2(counts[counts > 0])).sum()
    assert pool.size == 30_001 and coded_size(chunks_of(pool)) < 1.02 * bits * data.size / 8


# -- chunks ------------------------------------------------------------------------------------------------------------
def test_equal_constants_are_one() -> None:
    pool = WeightPool()
    offsets = [pool.add(data, DType.INT8) for data in (noise(100), noise(70, seed=1), noise(100))]
    assert offsets == [0, 128, 0] and pool.constants == (Constant(0, 100), Constant(128, 70))


def test_chunks_of_small_constants_are_bounded() -> None:
    pool = pooled(*((noise(4000, seed=seed), DType.INT8) for seed in range(40)))
    sizes = [chunk.size for chunk in chunks_of(pool)]
    assert sum(sizes) == 160_000 and sizes == [64_000, 64_000, 32_000]
    assert max(sizes) <= coding.LARGEST_LZMA


def test_nothing_at_all() -> None:
    assert encode(np.zeros(0, np.uint8), ()) == () and decode((), 0).size == 0
    empty = pooled((np.zeros((0, 3), np.int8), DType.INT8))
    assert empty.constants == () and chunks_of(empty) == ()


def test_weights_without_constants_are_one() -> None:
    data = np.arange(70, dtype=np.uint8)
    chunks = encode(data, ())
    assert [chunk.places for chunk in chunks] == [((0, 70),)] and np.array_equal(decode(chunks, 70), data)


@pytest.mark.parametrize("seed", range(20))
def test_any_constants_come_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pool = WeightPool()
    for _ in range(rng.integers(1, 12)):
        dtype = rng.choice([DType.INT4, DType.INT8, DType.UINT8, DType.INT16, DType.INT32, DType.FLOAT32])
        data = rng.normal(0, 3, rng.integers(1, 9000)).clip(-7, 7).astype(dtype.numpy)
        pool.add(data, dtype)
    assert encode(pool.bytes(), pool.constants) == chunks_of(pool)


# -- what is refused ---------------------------------------------------------------------------------------------------
def deflated(data: bytes) -> bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    return coder.compress(data) + coder.flush()


def lzma_coded(data: bytes) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA1, "lc": 0, "lp": 0, "pb": 0, "dict_size": 65536}]
    return lzma.compress(data, lzma.FORMAT_RAW, filters=filters)


CODERS: dict[Coding, Callable[[bytes], bytes]] = {
    Coding.STORED: bytes,
    Coding.DEFLATE: deflated,
    Coding.LZMA: lzma_coded,
}


def chunk_of(size: int, kind: Coding) -> Chunk:
    """`size` bytes as the format's specification codes them."""
    data = np.random.default_rng(2).integers(0, 3, size, np.uint8)
    chunk = Chunk(((0, size),), 2, kind, False, zlib.crc32(data), CODERS[kind](data.tobytes()))
    planes = replace(chunk, planes=True, data=CODERS[kind](data[0::2].tobytes() + data[1::2].tobytes()))
    assert np.array_equal(decode([chunk], size), data) and np.array_equal(decode([planes], size), data)
    return chunk


STORED, DEFLATE, LZMA = (chunk_of(1000, kind) for kind in Coding)
BOMB = zlib.compress(bytes(1 << 24), 9)[2:-4]

BAD_CHUNKS: dict[str, tuple[list[Chunk], int, str]] = {
    "section too large": ([STORED], 1 << 40, "weights of 1099511627776 bytes"),
    "section not there": ([], 1, "end at byte 0 of 1"),
    "section longer": ([STORED], 1001, "end at byte 1000 of 1001"),
    "section shorter": ([STORED], 999, "end at byte 1000 of 999"),
    "overlap": ([STORED, replace(STORED, places=((998, 1000),))], 1998, "at 998 begins before byte 1000"),
    "same place twice": ([STORED, DEFLATE], 1000, "at 0 begins before byte 1000"),
    "gap": ([replace(STORED, places=((64, 1000),))], 1064, "bytes 0 to 64 belong to no constant"),
    "empty constant": ([replace(STORED, places=((0, 1000), (1000, 0)))], 1000, "a constant of 0 bytes at 1000"),
    "no constant": ([STORED, replace(STORED, places=())], 1000, "chunk 1 holds no constant"),
    "stored too short": ([replace(STORED, data=STORED.data[:-1])], 1000, "claims 1000 bytes; 999 bytes of STORED"),
    "stored too long": ([replace(STORED, data=STORED.data + b"\0")], 1000, "holds more instead of 1000"),
    "bomb by claim": ([replace(DEFLATE, places=((0, 1 << 30),))], 1 << 30, "of DEFLATE are"),
    "bomb": ([replace(DEFLATE, data=BOMB)], 1000, "holds more instead of 1000"),
    "lzma too large": ([replace(LZMA, places=((0, 65538),))], 65538, "of LZMA are 65536 at most"),
    "half elements": ([replace(STORED, element=3)], 1000, "not whole elements of 3 bytes"),
    "no elements": ([replace(STORED, element=0)], 1000, "not whole elements of 0 bytes"),
    "stored checksum": ([replace(STORED, crc32=1)], 1000, "checksum is wrong"),
    "planes": ([replace(STORED, planes=True)], 1000, "checksum is wrong"),
    **{
        f"{chunk.coding.name.lower()} {what}": ([replace(chunk, **changes)], 1000, reason)
        for chunk in (DEFLATE, LZMA)
        for what, changes, reason in (
            ("cut", {"data": chunk.data[:-9]}, "its end is missing"),
            ("empty", {"data": b""}, ""),
            ("longer", {"data": chunk.data + b"ab"}, "2 bytes follow its end"),
            ("inverted", {"data": bytes(255 - byte for byte in chunk.data)}, "chunk 0 cannot be decoded"),
            ("checksum", {"crc32": 1}, "chunk 0 cannot be decoded: its checksum is wrong"),
        )
    },
}


@pytest.mark.parametrize(("chunks", "size", "reason"), BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
def test_bad_chunks_are_refused(chunks: list[Chunk], size: int, reason: str) -> None:
    with pytest.raises(ValueError, match="weights") as caught:
        decode(chunks, size)
    assert reason in str(caught.value)
