"""Numbers, texts, plain containers and numpy arrays out of a pickle, and nothing else: loading runs nobody's code.

Even numpy's own objects are not rebuilt from the file, as a crafted type description can make numpy read memory that is
not its own. Stand-ins take what the pickle says of an array, and numpy gets to see plain bytes, a plain type and a
shape that have been checked against each other.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from sgs.numeric.quantise import Array

# What pickle and the stand-ins raise on bytes that are no pickle, a cut one, or one put together by hand.
_MALFORMED = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


def load_plain(data: bytes) -> Any:
    """The one object of a pickle. Raises ValueError, saying why, for damaged pickles and for classes of any kind."""
    try:
        return _finished(_Unpickler(io.BytesIO(data)).load())
    except _MALFORMED as error:
        raise ValueError(str(error) or type(error).__name__) from error


class _DType:
    """numpy.dtype: its code ("f4") and byte order."""

    def __init__(self, code: str, align: object = False, copy: object = True) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        if not re.fullmatch(r"[fiub][1248]", self.code) or self.order not in "<>|=":
            raise ValueError(f"it holds an array of type {self.code!r}, not one of numbers")
        return np.dtype(self.order + self.code)


class _Array:
    """numpy.ndarray: what its __setstate__ is given."""

    state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def numpy(self) -> Array:
        _, shape, dtype, fortran, raw = self.state
        return _array(raw, dtype, shape, "F" if fortran else "C")


def _array(raw: Any, dtype: _DType, shape: Any, order: Any) -> Array:
    kind = dtype.numpy()
    if math.prod(shape) * kind.itemsize != len(raw):
        raise ValueError(f"an array of shape {tuple(shape)} has {len(raw)} bytes")
    return np.frombuffer(bytes(raw), kind).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: _DType, raw: bytes) -> Any:
    return _array(raw, dtype, (), "C")[()]


# The classes and functions that pickles of arrays name: numpy 1 and 2, all protocols but those of Python 2.
_NUMPY: dict[str, Callable[..., Any]] = {
    "ndarray": _Array,
    "dtype": _DType,
    "_reconstruct": lambda kind, shape, code: _Array(),
    "_frombuffer": _array,
    "scalar": _scalar,
}
_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _MODULES and name in _NUMPY:
            return _NUMPY[name]
        raise pickle.UnpicklingError(f"it holds {module}.{name}; numpy arrays and plain containers are taken")


def _finished(value: Any) -> Any:
    """The value with its stand-ins as what they stand for."""
    if isinstance(value, _Array):
        return value.numpy()
    if isinstance(value, dict):
        return {key: _finished(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_finished, value))
    return value
