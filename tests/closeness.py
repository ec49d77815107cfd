"""How close two tensors are."""

from __future__ import annotations

import numpy as np

from sgs.numeric.quantise import Array


def cosine(found: Array, truth: Array) -> float:
    """Of the angle between two tensors; not a number where one of them is 0."""
    a, b = found.reshape(-1).astype(np.float64), truth.reshape(-1).astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
