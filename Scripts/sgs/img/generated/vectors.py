"""What the generated classes call to write a vector and to read a string (copied beside them by generate.py).

The code that flatc writes for a vector trusts its caller: an int64 array handed to an int32 field becomes a corrupt
file, a Python list or `bytes` is written one element at a time, and `force_align` is not honoured. This function
takes any of them, checks, aligns, and copies once.
"""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike


def vector(builder: Any, values: Any, dtype: DTypeLike, alignment: int) -> int:
    """Write the values as a flatbuffer vector of this element type; return its offset.

    Integers must be representable in the element type. Floats are rounded to it. A vector of bytes takes bytes-like
    objects, lists and uint8 arrays, but no other array: whether that means its values or its memory is for the caller
    to say (`array.view(np.uint8)`).
    """
    array = _as_array(values, np.dtype(dtype))
    builder.Prep(max(alignment, array.itemsize), array.nbytes)
    builder.StartVector(array.itemsize, array.size, array.itemsize)
    # What Builder.CreateNumpyVector does, less its three copies of the array.
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    builder.head -= little.nbytes
    memoryview(builder.Bytes)[builder.head : builder.head + little.nbytes] = little.view(np.uint8).data
    return int(builder.EndVector())


def text(raw: bytes | None) -> str | None:
    """A string field as `str`. Bytes that are not UTF-8 become escapes, so that different names stay different."""
    return None if raw is None else raw.decode("utf-8", "backslashreplace")


def _as_array(values: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    if isinstance(values, (bytes, bytearray, memoryview)):
        array = np.frombuffer(values, np.uint8)
    else:
        array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"a vector has one dimension, not shape {array.shape}")
    if array.dtype == dtype:
        return array
    if dtype == np.uint8 and isinstance(values, np.ndarray):
        raise ValueError(f"a vector of bytes takes a uint8 array, not {array.dtype}: use .view(np.uint8)")
    if array.size and dtype.kind != "f" and array.dtype.kind not in "biu":
        raise ValueError(f"a vector of {dtype} takes integers, not {array.dtype}")
    cast = array.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(cast, array):
        raise ValueError(f"values from {array.min()} to {array.max()} do not fit a vector of {dtype}")
    return cast
