"""Picture files as people see them: upright, as OpenCV reads them by default."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from sgs.data.images import PICTURE_EXTENSIONS, Sample
from sgs.errors import UserError, raise_all
from sgs.numeric.quantise import Array

STAGE = "picture"
_BY_HEAD = ("JPEG", "PNG", "WEBP", "BMP")  # kinds that OpenCV turns upright by their EXIF, if they have any
_UNKNOWN = (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # of PIL
_ORIENTATION = 0x0112  # tag of EXIF
_TURNED = (5, 6, 7, 8)  # its values that exchange height and width


def read_picture(path: Path) -> Array:
    """uint8 [height, width, 3], BGR. Raises UserError."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", stage=STAGE, file=path) from error
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if picture is None:
        raise UserError("is not a picture that can be decoded", stage=STAGE, file=path)
    return picture


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) of what `read_picture` gives, by the head of the file where that tells. Raises UserError."""
    with suppress(*_UNKNOWN), Image.open(path) as picture:
        if picture.format in _BY_HEAD:
            width, height = picture.size
            turned = picture.getexif().get(_ORIENTATION) in _TURNED
            return (width, height) if turned else (height, width)
    whole = read_picture(path)  # of others OpenCV and PIL turn different ones, and some only OpenCV knows
    return whole.shape[0], whole.shape[1]


def check_pictures(samples: list[Sample], purpose: str) -> None:
    """Raise UserError where samples do not begin with a picture file."""
    others = [sample[0] for sample in dict.fromkeys(samples) if sample[0].suffix[1:].lower() not in PICTURE_EXTENSIONS]
    raise_all([UserError(f"is not a picture, which {purpose} needs", stage=STAGE, node=str(path)) for path in others])
