"""Picture preprocessing of the super-resolution network ``tensorflow_fsrcnn_shapes``."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

INPUT_HEIGHT, INPUT_WIDTH = 64, 64
MEAN = np.array([0.0, 0.0, 0.0], dtype=np.float32)
"""Per-channel mean in 0..255, in training channel order (R, G, B)."""
STD = np.float32(255.0)


def shrink(image: np.ndarray) -> np.ndarray:
    """Shrink a picture [H, W, 3] to the input's size; each pixel is the mean of those that it stands for."""
    return cv2.resize(image, (INPUT_WIDTH, INPUT_HEIGHT), interpolation=cv2.INTER_AREA)


def image_preprocess(img_path: str | Path, norm: bool = True) -> np.ndarray:
    """Read one picture and bring it into the form the model was trained on.

    Args:
        img_path: path of a picture file that OpenCV can read.
        norm: True for the normalised float input of the float model, False for the raw 8-bit picture.

    Returns:
        [1, 64, 64, 3] NHWC in RGB order: float32 ``(pixel - MEAN) / STD`` if ``norm``, otherwise uint8 in 0..255.

    Raises:
        FileNotFoundError: the file is missing or is not a readable picture.
    """
    image = cv2.imread(str(img_path), cv2.IMREAD_COLOR)
    if image is None:
        raise FileNotFoundError(f"No such image: {img_path}")
    image = shrink(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    if norm:
        image = (image.astype(np.float32) - MEAN) / STD
    return image[np.newaxis]
