"""Pictures of pixels ↔ NV12: full range, ITU-R BT.709, in 1024ths (docs/NUMERICS.md §6)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from sgs.numeric.quantise import Array

# Y, U - 128 and V - 128 of R, G, B
_FORWARD = np.array([[218, 732, 74], [-117, -395, 512], [512, -465, -47]], np.int32)
# What U - 128 and V - 128 add to Y in R, G, B: 1.5748 V, -0.1873 U - 0.4681 V, 1.8556 U
CHROMA = ((0, 1613), (-192, -479), (1900, 0))
CENTRE = 128  # U and V of grey
BITS = 10  # 2^10 = 1024


def rounded(values: Array, bits: int = BITS) -> Array:
    """Integers / 2^bits, halves up."""
    return (values + (1 << (bits - 1))) >> bits


def write_nv12(image: Array, planes: Array) -> None:
    """Fill UINT8 [Hal·3/2, Wal], all 0, with a picture [H,W,C] of R, G, B or grey: rows of Y, then rows of U and V by
    turns.

    U and V are means over 2×2 pixels; the last row and column of odd sizes count twice. Those of grey stay 0: nothing
    looks at them.
    """
    (height, width, channels), luma = image.shape, len(planes) * 2 // 3
    if channels == 1:
        planes[:height, :width] = image[..., 0]
        return
    planes[:height, :width] = rounded(image.astype(np.int32) @ _FORWARD[0])
    even = np.pad(image.astype(np.int32), ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    blocks = even.reshape(len(even) // 2, 2, -1, 2, 3).sum(axis=(1, 3))  # of 2×2 pixels
    for place in (0, 1):
        chroma = rounded(blocks @ _FORWARD[1 + place], BITS + 2) + CENTRE
        planes[luma : luma + len(chroma), place : 2 * chroma.shape[1] : 2] = np.clip(chroma, 0, 255)


def read_nv12(luma: Array, chroma: Array, order: Sequence[int], out: Array) -> None:
    """Fill `out` [H,W,3] with the pixels of the planes Y [Hal,Wal] and UV [Hal/2,Wal], all UINT8; channel c is
    order[c] of R, G, B.

    1024 Y is a multiple of 1024, so what U and V add is rounded by itself, once for four pixels.
    """
    height, width, _ = out.shape
    rows, columns = -(-height // 2), -(-width // 2)
    u, v = (chroma[:rows, place : 2 * columns : 2].astype(np.int32) - CENTRE for place in (0, 1))
    added = np.empty((rows, columns, 3), np.int16)
    for channel, colour in enumerate(order):
        added[..., channel] = rounded(CHROMA[colour][0] * u + CHROMA[colour][1] * v)
    spread = cv2.resize(added, (2 * columns, 2 * rows), interpolation=cv2.INTER_NEAREST)[:height, :width]
    grey = luma[:height, :width]
    cv2.add(cv2.merge([grey, grey, grey]), spread, out, dtype=cv2.CV_8U)  # which saturates
