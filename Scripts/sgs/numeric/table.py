"""Look-up tables: unary functions of quantised values (docs/NUMERICS.md eq. 9-11).

A table is INT16 whatever it produces; 8-bit inputs index 256 entries directly, 16-bit inputs interpolate between 513
to 4,097. UINT8 results are stored times `U8_FRACTION` so that interpolation does not lose their last bits.
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


def _real(codes: Array, params: QuantParams) -> Array:
    return (codes - float(params.zero_point[0])) * float(params.scale[0])


def _evaluate(function: Callable[[Array], Array], x: Array, params: QuantParams, dtype: DType) -> Array:
    """f(x) in codes of the result, float64, clamped. Raises ValueError where the function gives NaN."""
    with np.errstate(all="ignore"):
        y = np.asarray(function(x), np.float64)
    if np.isnan(y).any():
        raise ValueError("the function is not a number somewhere in the input's range")
    return np.clip(y / float(params.scale[0]) + float(params.zero_point[0]), dtype.qmin, dtype.qmax)


def build_table(
    function: Callable[[Array], Array],
    params_in: QuantParams,
    dtype_in: DType,
    params_out: QuantParams,
    dtype_out: DType,
) -> Array:
    """Sample `function` (float64 → float64, elementwise) into an INT16 table (eq. 9, 10).

    UINT8 inputs take 256 entries. 16-bit ones take the smallest of SIZES that interpolates the function within half a
    code of an INT16 result (a sixteenth of a UINT8 one) everywhere, else the largest.

    Raises ValueError when the function gives NaN somewhere in the input's range.
    """
    if dtype_in is DType.UINT8:
        return _stored(_evaluate(function, _real(np.arange(256.0), params_in), params_out, dtype_out), dtype_out)
    if dtype_in not in (DType.INT16, DType.UINT16):
        raise ValueError(f"no tables of {dtype_in.name} inputs")
    every = np.arange(65537.0)
    truth = _evaluate(function, _real(dtype_in.qmin + every, params_in), params_out, dtype_out)
    for size in SIZES:
        samples = truth[:: 65536 // (size - 1)]
        error = np.abs(np.interp(every, every[:: 65536 // (size - 1)], samples) - truth).max()
        if error <= _TOLERANCE[dtype_out] or size == SIZES[-1]:
            return _stored(samples, dtype_out)
    raise AssertionError("unreachable")


def _stored(codes: Array, dtype: DType) -> Array:
    """Codes of a result as table entries: INT16, with a fraction for UINT8 results, moved to signed for UINT16 ones."""
    entries = codes * U8_FRACTION if dtype is DType.UINT8 else codes - 32768 if dtype is DType.UINT16 else codes
    return np.asarray(np.rint(entries), np.int16)


def look_up(codes: Array, table: Array, dtype_out: DType) -> Array:
    """Eq. 11: the table's value for every code (UINT8, INT16 or UINT16), all in integers."""
    t = table.astype(np.int64)
    if table.size == 256:
        value, shift = t[codes.astype(np.int64)], 0
    else:
        shift = 16 - int(table.size - 1).bit_length() + 1
        offset = codes.astype(np.int64) - (-32768 if codes.dtype == np.int16 else 0)
        index, part = offset >> shift, offset & ((1 << shift) - 1)
        value = t[index] * ((1 << shift) - part) + t[index + 1] * part
    if dtype_out is DType.UINT8:
        shift += _FRACTION_BITS
    rounded = (value + (1 << (shift - 1))) >> shift if shift else value
    if dtype_out is DType.UINT16:
        rounded = rounded + 32768
    return np.asarray(np.clip(rounded, dtype_out.qmin, dtype_out.qmax), dtype_out.numpy)


def expand(table: Array, dtype_in: DType, dtype_out: DType) -> Array:
    """The table written out for every input code in the order of its bits seen as unsigned: [256] or [65536]."""
    bits = np.arange(1 << dtype_in.bits, dtype=np.uint16 if dtype_in.bits == 16 else np.uint8)
    return look_up(bits.view(dtype_in.numpy), table, dtype_out)


def apply_expanded(codes: Array, expanded: Array, out: Array) -> None:
    """Write `expanded[codes]` to the contiguous array `out`: cv2.LUT, 0.3-0.5 ns an element on one core."""
    unsigned: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.float32}
    source, target = codes.view(unsigned[codes.itemsize]), out.view(unsigned[out.itemsize])
    rows = source.shape[0] if source.ndim > 1 else 1
    if source.size:
        cv2.LUT(source.reshape(rows, -1), expanded.view(unsigned[expanded.itemsize]), target.reshape(rows, -1))


def apply_channel_tables(picture: Array, tables: Array, order: Sequence[int], out: Array) -> None:
    """out[..., c] = tables[picture[..., order[c]], c] for a UINT8 picture [H, W, C], tables [256, C], out [H, W, C]."""
    bits = {1: np.uint8, 2: np.uint16}[out.itemsize]
    target = out.view(bits)
    plain = tuple(order) == tuple(range(len(order)))
    if plain and (tables == tables[:, :1]).all():  # one table for all channels
        cv2.LUT(picture.reshape(len(picture), -1), tables[:, 0].copy().view(bits), target.reshape(len(target), -1))
        return
    by_source = np.empty(tables.shape, bits)
    by_source[:, list(order)] = tables.view(bits)
    if plain:
        cv2.LUT(picture, by_source[None], target)
        return
    pairs = [number for c, source in enumerate(order) for number in (source, c)]
    cv2.mixChannels([cv2.LUT(picture, by_source[None])], [target], pairs)
