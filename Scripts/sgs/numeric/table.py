"""Look-up tables: unary functions of quantised values (docs/NUMERICS.md eq. 9-11).

A table is INT16 whatever it produces; 8-bit inputs index 256 entries directly, 16-bit inputs interpolate between 513.
UINT8 results are stored times `U8_FRACTION` so that interpolation does not lose their last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from sgs.numeric.quantise import Array, QuantParams
from sgs.numeric.types import DType

U8_FRACTION = 128  # 255 * 128 = 32640 still fits INT16
SEGMENT_BITS = 7  # 65,536 codes / 512 segments


def table_inputs(params: QuantParams, dtype: DType) -> Array:
    """Real inputs at which the table is sampled: float64 [256] for UINT8, [513] for INT16/UINT16 (eq. 9)."""
    if dtype is DType.UINT8:
        codes = np.arange(256, dtype=np.float64)
    elif dtype in (DType.INT16, DType.UINT16):
        codes = dtype.qmin + np.arange(513, dtype=np.float64) * (1 << SEGMENT_BITS)
    else:
        raise ValueError(f"no tables of {dtype.name} inputs")
    return (codes - float(params.zero_point[0])) * float(params.scale[0])


def build_table(
    function: Callable[[Array], Array],
    params_in: QuantParams,
    dtype_in: DType,
    params_out: QuantParams,
    dtype_out: DType,
) -> Array:
    """Sample `function` (float64 → float64, elementwise) into an INT16 table (eq. 10).

    Raises ValueError when the function gives NaN on the table's inputs.
    """
    with np.errstate(all="ignore"):
        y = np.asarray(function(table_inputs(params_in, dtype_in)), np.float64)
    if np.isnan(y).any():
        raise ValueError("the function is not a number somewhere in the input's range")
    codes = y / float(params_out.scale[0]) + float(params_out.zero_point[0])
    if dtype_out is DType.UINT8:
        codes = np.clip(codes, 0, 255) * U8_FRACTION
    low, high = (0, 255 * U8_FRACTION) if dtype_out is DType.UINT8 else (dtype_out.qmin, dtype_out.qmax)
    if dtype_out is DType.UINT16:
        codes, low, high = codes - 32768, -32768, 32767
    return np.clip(np.rint(codes), low, high).astype(np.int16)


def look_up(codes: Array, table: Array, dtype_out: DType) -> Array:
    """Eq. 11: the table's value for every code (UINT8, INT16 or UINT16), all in integers."""
    t = table.astype(np.int64)
    if table.size == 256:
        value, shift = t[codes.astype(np.int64)], 0
    else:
        offset = codes.astype(np.int64) - (-32768 if codes.dtype == np.int16 else 0)
        index, part = offset >> SEGMENT_BITS, offset & ((1 << SEGMENT_BITS) - 1)
        value, shift = t[index] * ((1 << SEGMENT_BITS) - part) + t[index + 1] * part, SEGMENT_BITS
    if dtype_out is DType.UINT8:
        shift += SEGMENT_BITS  # U8_FRACTION = 2^7
    rounded = (value + (1 << (shift - 1))) >> shift if shift else value
    if dtype_out is DType.UINT16:
        rounded = rounded + 32768
    return np.clip(rounded, dtype_out.qmin, dtype_out.qmax).astype(dtype_out.numpy)


def expand(table: Array, dtype_in: DType, dtype_out: DType) -> Array:
    """The table written out for every input code in the order of its bits seen as unsigned: [256] or [65536]."""
    bits = np.arange(1 << dtype_in.bits, dtype=np.uint16 if dtype_in.bits == 16 else np.uint8)
    return look_up(bits.view(dtype_in.numpy), table, dtype_out)


def apply_expanded(codes: Array, expanded: Array, out: Array) -> None:
    """Write `expanded[codes]` to the contiguous array `out`: cv2.LUT, 0.3-0.5 ns an element on one core."""
    unsigned = {1: np.uint8, 2: np.uint16}
    source, target = codes.view(unsigned[codes.itemsize]), out.view(unsigned[out.itemsize])
    rows = source.shape[0] if source.ndim > 1 else 1
    if source.size:
        cv2.LUT(source.reshape(rows, -1), expanded.view(unsigned[expanded.itemsize]), target.reshape(rows, -1))


def apply_channel_tables(picture: Array, tables: Array, order: Sequence[int], out: Array) -> None:
    """out[..., c] = tables[picture[..., order[c]], c] for a UINT8 picture [H, W, C], tables [256, C], out [H, W, C]."""
    bits = {1: np.uint8, 2: np.uint16}[out.itemsize]
    target = out.view(bits)
    if len(order) == 1:
        cv2.LUT(picture, tables.reshape(-1).view(bits), target)
        return
    by_source = np.empty(tables.shape, bits)
    by_source[:, list(order)] = tables.view(bits)
    if tuple(order) == tuple(range(len(order))):
        cv2.LUT(picture, by_source[None], target)
        return
    pairs = [number for c, source in enumerate(order) for number in (source, c)]
    cv2.mixChannels([cv2.LUT(picture, by_source[None])], [target], pairs)
