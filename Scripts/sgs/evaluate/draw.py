"""Results drawn on pictures: boxes with names and scores, or the best classes in a strip below.

Small pictures are enlarged by whole factors, so that text beside their details stays readable; on large ones lines and
text grow with the picture.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from sgs.evaluate.detections import Detections
from sgs.evaluate.labels import name_of, numbered_name
from sgs.evaluate.results import Ranked
from sgs.numeric.quantise import Array

SMALLEST = 480  # pixels of the longer side of what is drawn on
TEXT = 1 / 40  # height of text, of the longer side
NARROWEST = 1 / 3  # of the longer side
_GOLDEN = (math.sqrt(5) - 1) / 2
_STRIP, _INK = (32, 32, 32), (255, 255, 255)
_CORNERS = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]])  # of x, y, width, height
Colour = tuple[int, int, int]  # B, G, R


def colour_of(index: int) -> Colour:
    """A bright colour for a class: neighbours differ, and every run and machine has the same."""
    rgb = colorsys.hsv_to_rgb((0.02 + index * _GOLDEN) % 1.0, (0.95, 0.65)[index % 2], 0.98)
    red, green, blue = (round(255 * value) for value in rgb)
    return blue, green, red


def draw_boxes(picture: Array, found: Detections, names: Sequence[str], threshold: float) -> Array:
    """A copy of a picture, uint8 [H, W, 3] BGR, perhaps enlarged, with the boxes of that score or more."""
    canvas, factor = _canvas(picture)
    pen = _Pen.of(canvas)
    shown = [place for place in range(len(found.scores)) if found.scores[place] >= threshold]
    shown.reverse()  # the best on top
    corners = [(np.rint(found.boxes[place] * factor) @ _CORNERS).astype(int).tolist() for place in shown]
    for place, (left, top, right, bottom) in zip(shown, corners, strict=True):
        colour = colour_of(int(found.classes[place]))
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, pen.width)
    for place, (left, top, _, _) in zip(shown, corners, strict=True):
        index = int(found.classes[place])
        pen.plate(canvas, left, top, colour_of(index), f"{name_of(index, names)} {found.scores[place]:.2f}")
    return canvas


def draw_classes(picture: Array, best: Ranked, names: Sequence[str]) -> Array:
    """A copy of a picture, uint8 [H, W, 3] BGR, perhaps enlarged, with the classes a line each in a strip below."""
    canvas, _ = _canvas(picture)
    pen = _Pen.of(canvas)
    line = pen.height * 3 // 2
    strip = np.full((line * len(best) + pen.height, canvas.shape[1], 3), _STRIP, np.uint8)
    for place, (index, score) in enumerate(best):
        text = f"{numbered_name(index, names)}  {score:.4f}"
        pen.text(strip, (pen.height // 2, line * (place + 1)), text, _INK if place == 0 else (176, 176, 176))
    return np.concatenate([canvas, strip])


def _canvas(picture: Array) -> tuple[Array, int]:
    """A copy to draw on, and how many times larger it is; widened where it is too narrow for text."""
    factor = math.ceil(SMALLEST / max(picture.shape[:2]))
    canvas = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    lacking = max(0, round(max(canvas.shape[:2]) * NARROWEST) - canvas.shape[1])
    return cv2.copyMakeBorder(canvas, 0, 0, 0, lacking, cv2.BORDER_CONSTANT, value=_STRIP), factor


@dataclass(frozen=True)
class _Pen:
    """`height` of text and `width` of lines, in pixels."""

    height: int
    width: int

    @classmethod
    def of(cls, canvas: Array) -> _Pen:
        height = max(14, round(max(canvas.shape[:2]) * TEXT))
        return cls(height, max(2, height // 8))

    def text(self, canvas: Array, origin: tuple[int, int], text: str, colour: Colour) -> None:
        """Text with its left end and baseline at `origin` (x, y), set smaller where the canvas is narrow."""
        font, size = cv2.FontFace("sans"), self.height
        room = canvas.shape[1] - origin[0]
        while size > 8 and _extent(text, size)[0] > room:
            size -= 1
        cv2.putText(canvas, text, origin, colour, font, size, 400)

    def plate(self, canvas: Array, left: int, top: int, colour: Colour, text: str) -> None:
        """Text on a plate above the corner (left, top) of a box, or inside it where there is no room."""
        width, margin = _extent(text, self.height)[0], self.height // 4
        height = self.height + 2 * margin
        left = max(0, min(left - self.width // 2, canvas.shape[1] - width - 2 * margin))
        top = top - height if top >= height else min(top, canvas.shape[0] - height)
        cv2.rectangle(canvas, (left, top), (left + width + 2 * margin, top + height), colour, cv2.FILLED)
        blue, green, red = colour
        ink = (0, 0, 0) if 0.114 * blue + 0.587 * green + 0.299 * red > 110 else _INK
        self.text(canvas, (left + margin, top + height - margin - self.height // 8), text, ink)


def _extent(text: str, size: int) -> tuple[int, int]:
    """(width, height) of text in pixels."""
    _, _, width, height = cv2.getTextSize((1, 1), text, (0, 0), cv2.FontFace("sans"), size, 400)
    return width, height
