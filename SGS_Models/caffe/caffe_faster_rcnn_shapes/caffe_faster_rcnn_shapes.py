"""Picture preprocessing of the two-stage shapes detector's first stage."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

INPUT_HEIGHT, INPUT_WIDTH = 128, 128
MEAN = np.array([102.9801, 115.9465, 122.7717], dtype=np.float32)
"""Per-channel mean in 0..255, in training channel order (B, G, R)."""


def image_preprocess(img_path: str | Path, norm: bool = True) -> np.ndarray:
    """Read one picture and bring it into the form the model was trained on.

    Args:
        img_path: path of a picture file that OpenCV can read.
        norm: True for the float input of the float model, False for the raw 8-bit picture.

    Returns:
        [1, 128, 128, 3] NHWC in BGR order: float32 ``pixel - MEAN`` if ``norm``, otherwise uint8 in 0..255.

    Raises:
        FileNotFoundError: the file is missing or is not a readable picture.
    """
    image = cv2.imread(str(img_path), cv2.IMREAD_COLOR)
    if image is None:
        raise FileNotFoundError(f"No such image: {img_path}")
    if image.shape[:2] != (INPUT_HEIGHT, INPUT_WIDTH):
        image = cv2.resize(image, (INPUT_WIDTH, INPUT_HEIGHT), interpolation=cv2.INTER_LINEAR)
    if norm:
        image = image.astype(np.float32) - MEAN
    return image[np.newaxis]
