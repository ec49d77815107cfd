"""A picture as a preprocess script gives it → the bytes that fixed and offline models are fed."""

from __future__ import annotations

import numpy as np

from sgs.config.formats import CHANNELS, INPUT_FORMATS, NV12, InputSpec
from sgs.numeric.nv12 import write_nv12
from sgs.numeric.quantise import Array

OPAQUE = 255  # alpha, which the network does not see: whoever looks at the bytes sees the picture


def to_board(spec: InputSpec, picture: Array) -> Array:
    """The bytes of `spec.input_format` for a picture of the training format.

    Args:
        picture: uint8 [N,H,W,C], or [N,C,H,W] where the spec's layout is NCHW, channels as in training; any strides.

    Returns:
        uint8, contiguous, of `spec.fed_shape(picture.shape)`; what alignment adds is 0.
    """
    if spec.input_format == spec.training_format and spec.fed_shape(picture.shape) == picture.shape:
        return np.ascontiguousarray(picture)
    board = np.zeros(spec.fed_shape(picture.shape), np.uint8)
    pixels, trained = np.moveaxis(picture, spec.channel_axis, -1), CHANNELS[spec.training_format]
    if spec.input_format == NV12:
        for image, planes in zip(pixels, board[..., 0], strict=True):
            write_nv12(image[..., np.argsort(trained)], planes)
        return board
    inner = np.moveaxis(board, spec.channel_axis, -1)[:, : pixels.shape[1], : pixels.shape[2]]
    for place, colour in enumerate(INPUT_FORMATS[spec.input_format].channels):
        inner[..., place] = pixels[..., trained.index(colour)]
    if inner.shape[-1] > len(trained):
        inner[..., -1] = OPAQUE
    return board
