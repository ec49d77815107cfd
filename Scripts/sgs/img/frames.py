"""Frames of one tensor stacked on its highest dimension; those without any dimension become a vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgs.numeric.quantise import Array


def frames_of(frame: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """How many frames of a shape an array of another shape holds; 0 where it is no stack of such."""
    if shape == frame:
        return 1
    count = shape[0] // (frame[0] if frame else 1) if shape else 0
    stacked = (count * frame[0], *frame[1:]) if frame else (count,)
    return count if count > 1 and shape == stacked else 0


def stack(frames: Sequence[Array]) -> Array:
    """One array of several frames; a single one is that frame itself."""
    return frames[0] if len(frames) == 1 else np.concatenate([np.atleast_1d(frame) for frame in frames])


def split(stacked: Array, frame: tuple[int, ...], count: int) -> list[Array]:
    """The frames, of shape `frame`, of an array of `count` of them."""
    return [part.reshape(frame) for part in np.split(np.atleast_1d(stacked), count)]
