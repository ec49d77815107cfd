"""Picture preprocessing of the digits classifier ``caffe_lenet``."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

INPUT_HEIGHT, INPUT_WIDTH = 28, 28
MEAN, STD = np.float32(0), np.float32(256)
"""Of the gray value in 0..255; Caffe's LeNet says ``scale: 0.00390625`` instead."""


def to_input(image: np.ndarray) -> np.ndarray:
    """Make a uint8 BGR picture [H, W, 3] a gray one of the input's size, [28, 28, 1]."""
    image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    image = cv2.resize(image, (INPUT_WIDTH, INPUT_HEIGHT), interpolation=cv2.INTER_LINEAR)
    return image[..., np.newaxis]


def image_preprocess(img_path: str | Path, norm: bool = True) -> np.ndarray:
    """Read one picture and bring it into the form the model was trained on.

    Args:
        img_path: path of a picture file that OpenCV can read.
        norm: True for the normalised float input of the float model, False for the raw 8-bit picture.

    Returns:
        [1, 28, 28, 1] NHWC, gray: float32 ``(pixel - MEAN) / STD`` if ``norm``, otherwise uint8 in 0..255.

    Raises:
        FileNotFoundError: the file is missing or is not a readable picture.
    """
    image = cv2.imread(str(img_path), cv2.IMREAD_COLOR)
    if image is None:
        raise FileNotFoundError(f"No such image: {img_path}")
    image = to_input(image)
    if norm:
        image = (image.astype(np.float32) - MEAN) / STD
    return image[np.newaxis]
