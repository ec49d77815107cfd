"""Look-up tables: unary functions of quantised values (docs/NUMERICS.md eq. 9-11).

A table is INT16 whatever it produces; 8-bit inputs index 256 entries directly, 16-bit inputs interpolate between 513
to 4,097. A tensor has one table [entries], or one for each channel [C, entries]. UINT8 results are stored times
`U8_FRACTION` so that interpolation does not lose their last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from sgs.numeric.quantise import Array, QuantParams
from sgs.numeric.types import DType

U8_FRACTION = 128  # 255 * 128 = 32640 still fits INT16
_FRACTION_BITS = 7
SIZES = (513, 1025, 2049, 4097)  # of tables over 16-bit codes: 2^k + 1
# largest interpolation error, in codes of the result
_TOLERANCE = {DType.INT16: 0.5, DType.UINT16: 0.5, DType.UINT8: 0.0625}
_MEASURED = 8  # that error is measured at every so many codes of the input
_BITS: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.float32}  # what cv2.LUT takes, by bytes
_LUT_CHANNELS = 128  # most that cv2.LUT takes
_BLOCK = 1 << 14  # elements that numpy looks up at a time, so that what it holds in between stays in the cache


def _real(codes: Array, params: QuantParams) -> Array:
    return (codes - float(params.zero_point[0])) * float(params.scale[0])


def _evaluate(function: Callable[[Array], Array], x: Array, params: QuantParams, dtype: DType) -> Array:
    """f(x) in codes of the result, float64, clamped (eq. 10). Raises ValueError where a column is NaN throughout."""
    with np.errstate(all="ignore"):
        y = _extended(np.asarray(function(x), np.float64))
        return np.clip(y / float(params.scale[0]) + float(params.zero_point[0]), dtype.qmin, dtype.qmax)


def _extended(y: Array) -> Array:
    """Values [n] or [n, channels] with the nearest number of the column, the later one of two, in place of NaN."""
    missing = np.isnan(y)
    if not missing.any():
        return y
    if missing.all(axis=0).any():
        raise ValueError("the function is nowhere a number in the input's range")
    columns, rows = y.copy().reshape(len(y), -1), np.arange(len(y))
    for column, holes in zip(columns.T, missing.reshape(len(y), -1).T, strict=True):
        there = np.flatnonzero(~holes)
        after = there[np.searchsorted(there, rows[holes]).clip(max=there.size - 1)]
        before = there[(np.searchsorted(there, rows[holes]) - 1).clip(min=0)]
        nearer = np.abs(after - rows[holes]) <= np.abs(before - rows[holes])
        column[holes] = column[np.where(nearer, after, before)]
    return columns.reshape(y.shape)


def build_table(
    function: Callable[[Array], Array],
    params_in: QuantParams,
    dtype_in: DType,
    params_out: QuantParams,
    dtype_out: DType,
    *,
    channels: int | None = None,
) -> Array:
    """Sample `function` (float64 → float64, elementwise) into an INT16 table [entries] (eq. 9, 10).

    UINT8 inputs take 256 entries. 16-bit ones take the smallest of SIZES that interpolates the function within half a
    code of an INT16 result (a sixteenth of a UINT8 one) at every eighth code, else the largest.

    With `channels` the function is another one in every column of its argument [n, channels], and the table is
    [channels, entries]: as many entries for all as the channel needs that needs most.

    Codes at which the function is no number (those below 0 of a square root) get what the nearest has at which it is.
    Raises ValueError where there is none.
    """
    if dtype_in not in (DType.UINT8, DType.INT16, DType.UINT16):
        raise ValueError(f"no tables of {dtype_in.name} inputs")
    codes = np.arange(256.0) if dtype_in is DType.UINT8 else dtype_in.qmin + np.arange(0.0, 65537.0, _MEASURED)
    x = _real(codes, params_in)
    if channels is not None:
        x = np.broadcast_to(x[:, None], (codes.size, channels))
    truth = _evaluate(function, x, params_out, dtype_out)
    if dtype_in is not DType.UINT8:
        truth = _fewest(truth, _TOLERANCE[dtype_out])
    return np.ascontiguousarray(_stored(truth, dtype_out).T)


def _fewest(truth: Array, tolerance: float) -> Array:
    """Every so many rows of `truth` ([65536 / _MEASURED + 1] or that by channels): the smallest of SIZES from which
    the others can be interpolated within `tolerance`, else the largest."""
    for size in SIZES:
        step = (len(truth) - 1) // (size - 1)
        samples = truth[::step]
        errors = [
            np.abs(samples[:-1] + (samples[1:] - samples[:-1]) * (i / step) - truth[i::step]).max()
            for i in range(1, step)
        ]
        if max(errors) <= tolerance:
            return samples
    return samples


def _stored(codes: Array, dtype: DType) -> Array:
    """Codes of a result as table entries: INT16, with a fraction for UINT8 results, moved to signed for UINT16 ones."""
    entries = codes * U8_FRACTION if dtype is DType.UINT8 else codes - 32768 if dtype is DType.UINT16 else codes
    return np.asarray(np.rint(entries), np.int16)


def shifts(entries: int, dtype_out: DType) -> tuple[int, int]:
    """(h, bits that the result loses) of eq. 11 for a table of so many entries."""
    part = 0 if entries == 256 else 17 - (entries - 1).bit_length()
    return part, part + (_FRACTION_BITS if dtype_out is DType.UINT8 else 0)


def look_up(codes: Array, table: Array, dtype_out: DType) -> Array:
    """Eq. 11: the table's value for every code (UINT8, INT16 or UINT16), all in integers.

    `table` is [entries], or [C, entries] for codes [..., C].
    """
    flat, entries = table.reshape(-1), table.shape[-1]
    part_bits, shift = shifts(entries, dtype_out)
    index = codes.astype(np.intp)
    index -= -32768 if codes.dtype == np.int16 else 0
    part = (index & ((1 << part_bits) - 1)).astype(np.int32)
    index >>= part_bits
    if table.ndim == 2:
        index += np.arange(len(table)) * entries
    value = flat.take(index).astype(np.int32)
    if part_bits:
        value = (value << part_bits) + (flat.take(index + 1) - value) * part
    if shift:
        value = (value + (1 << (shift - 1))) >> shift
    if dtype_out is DType.UINT16:
        value += 32768
    return np.asarray(np.clip(value, dtype_out.qmin, dtype_out.qmax), dtype_out.numpy)


def expand(table: Array, dtype_in: DType, dtype_out: DType) -> Array:
    """A table [entries] written out for every input code in the order of its bits seen as unsigned: [256] or
    [65536]. Raises ValueError for a type that has more codes."""
    if dtype_in.bits > 16:
        raise ValueError(f"no tables of {dtype_in.name} inputs")
    bits = np.arange(1 << dtype_in.bits, dtype=np.uint16 if dtype_in.bits == 16 else np.uint8)
    return look_up(bits.view(dtype_in.numpy), table, dtype_out)


def apply_expanded(codes: Array, expanded: Array, out: Array) -> None:
    """Write `expanded[codes]` to the contiguous array `out`: cv2.LUT, 0.3-0.5 ns an element on one core."""
    source, target = codes.view(_BITS[codes.itemsize]), out.view(_BITS[out.itemsize])
    rows = source.shape[0] if source.ndim > 1 else 1
    if source.size:
        cv2.LUT(source.reshape(rows, -1), expanded.view(_BITS[expanded.itemsize]), target.reshape(rows, -1))


class ChannelTables:
    """Applies a table [C, entries] to codes whose last axis is channels.

    Channels of many elements go through their tables written out for every code (cv2.LUT: 0.3 to 0.8 ns an element on
    one core), others through `look_up` (4 ns), because tables larger than the tensor only fill memory and caches.
    Tables are written out when first needed, in the one form that is.
    """

    def __init__(self, table: Array, dtype_in: DType, dtype_out: DType, zero_point: int) -> None:
        self._table, self._types, self._zero_point = table, (dtype_in, dtype_out), zero_point
        self._written: dict[tuple[bool, Any], Array] = {}

    def __call__(self, codes: Array, out: Array) -> None:
        """Fill `out` with results, as codes minus zero point where it is float32. Both are [..., C], and contiguous or
        views of contiguous arrays [N, C, H, W]."""
        channels, planar = len(self._table), not codes.flags.c_contiguous
        if channels <= _LUT_CHANNELS and codes.size >> (self._types[0].bits - 4) >= channels:
            self._apply_written(codes, out, planar)
            return
        samples = zip(codes, out, strict=True) if planar else [(codes, out)]
        for source, target in ((a.reshape(-1, channels), b.reshape(-1, channels)) for a, b in samples):
            rows = max(_BLOCK // channels, 1)
            for start in range(0, len(source), rows):
                block = look_up(source[start : start + rows], self._table, self._types[1])
                target[start : start + rows] = self._as(block, out.dtype)

    def _as(self, results: Array, dtype: Any) -> Array:
        return results.astype(np.float32) - np.float32(self._zero_point) if dtype == np.float32 else results

    def _apply_written(self, codes: Array, out: Array, planar: bool) -> None:
        key = planar, out.dtype
        if key not in self._written:
            tables = [self._as(expand(table, *self._types), out.dtype) for table in self._table]
            self._written[key] = np.stack(tables, axis=0 if planar else 1)
        written = self._written[key]
        if planar:
            for source, target in zip(codes.transpose(0, 3, 1, 2), out.transpose(0, 3, 1, 2), strict=True):
                for plane, table, result in zip(source, written, target, strict=True):
                    apply_expanded(plane, table, result)
            return
        shape = (codes.shape[0] if codes.ndim > 2 else 1, -1, len(self._table))
        target = out.view(_BITS[out.itemsize]).reshape(shape)
        cv2.LUT(codes.view(_BITS[codes.itemsize]).reshape(shape), written.view(_BITS[out.itemsize])[None], target)


def apply_channel_tables(picture: Array, tables: Array, order: Sequence[int], out: Array) -> None:
    """out[..., c] = tables[picture[..., order[c]], c] for a UINT8 picture [H, W, C'], perhaps columns of wider rows,
    tables [256, C] and out [H, W, C] with C no more than C'."""
    bits = {1: np.uint8, 2: np.uint16}[out.itemsize]
    target = out.view(bits)
    plain = tuple(order) == tuple(range(picture.shape[-1]))
    if plain and (tables == tables[:, :1]).all():  # one table for all channels
        cv2.LUT(picture.reshape(len(picture), -1), tables[:, 0].copy().view(bits), target.reshape(len(target), -1))
        return
    by_source = np.zeros((len(tables), picture.shape[-1]), bits)
    by_source[:, list(order)] = tables.view(bits)
    if plain:
        cv2.LUT(picture, by_source[None], target)
        return
    pairs = [number for c, source in enumerate(order) for number in (source, c)]
    cv2.mixChannels([cv2.LUT(picture, by_source[None])], [target], pairs)
