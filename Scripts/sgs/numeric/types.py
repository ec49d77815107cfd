"""Element types of tensors, with the integer ranges that quantisation uses."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np


@dataclass(frozen=True)
class _Facts:
    numpy: type[np.generic]
    bits: int
    qmin: int | None  # smallest code used for quantised values
    qmax: int | None


class DType(Enum):
    """Element type of a tensor. `qmin`/`qmax` bound the codes that quantisation produces (NUMERICS eq. 1-3)."""

    FLOAT32 = _Facts(np.float32, 32, None, None)
    FLOAT64 = _Facts(np.float64, 64, None, None)
    INT64 = _Facts(np.int64, 64, -(2**63), 2**63 - 1)
    INT32 = _Facts(np.int32, 32, -(2**31), 2**31 - 1)
    INT16 = _Facts(np.int16, 16, -32768, 32767)
    UINT16 = _Facts(np.uint16, 16, 0, 65535)
    INT8 = _Facts(np.int8, 8, -128, 127)
    UINT8 = _Facts(np.uint8, 8, 0, 255)
    INT4 = _Facts(np.int8, 4, -8, 7)  # held unpacked, one value per int8 element
    BOOL = _Facts(np.bool_, 8, None, None)

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The numpy type that holds one element."""
        return np.dtype(self.value.numpy)

    @property
    def bits(self) -> int:
        """Bits of one element as stored in a packed file."""
        return self.value.bits

    @property
    def qmin(self) -> int:
        """Smallest code. Raises ValueError for types without codes."""
        if self.value.qmin is None:
            raise ValueError(f"{self.name} has no integer codes")
        return self.value.qmin

    @property
    def qmax(self) -> int:
        """Largest code. Raises ValueError for types without codes."""
        if self.value.qmax is None:
            raise ValueError(f"{self.name} has no integer codes")
        return self.value.qmax

    @property
    def is_float(self) -> bool:
        return self in (DType.FLOAT32, DType.FLOAT64)

    @classmethod
    def of(cls, dtype: object) -> DType:
        """The element type that holds a numpy dtype. Raises ValueError for one the toolchain does not know."""
        wanted = np.dtype(dtype)  # type: ignore[call-overload]
        for member in cls:
            if member is not cls.INT4 and member.numpy == wanted:
                return member
        raise ValueError(f"no tensor type for numpy {wanted}")
