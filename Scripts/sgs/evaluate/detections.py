"""Boxes that a detector found in a picture: from the four outputs of a detection operator, or by a script of the user.

See categories.py for what these outputs are.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sgs.data.user_script import UserScript, kind_of
from sgs.errors import UserError
from sgs.evaluate.categories import NO_OPERATOR
from sgs.numeric.quantise import Array
from sgs.quant.boxes import overlaps

STAGE = "detection"
BEYOND = 16.0
"""Boxes of which half reach as many pictures far cannot be relative to the picture."""


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes in one picture, best score first; `size` is (height, width) of the picture.

    `boxes`: float64 [N, 4] x, y, width, height in pixels, inside the picture; `classes`: int64 [N], from 0; `scores`:
    float64 [N].
    """

    boxes: Array
    classes: Array
    scores: Array
    size: tuple[int, int]

    def above(self, score: float) -> Detections:
        """Those of this score or more."""
        kept = self.scores >= score
        return Detections(self.boxes[kept], self.classes[kept], self.scores[kept], self.size)

    @property
    def corners(self) -> Array:
        """float64 [N, 4] x, y and the opposite x, y in pixels."""
        return np.concatenate([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]], axis=1)

    @classmethod
    def of(cls, corners: Array, classes: Array, scores: Array, size: tuple[int, int]) -> Detections:
        """From normalised [ymin, xmin, ymax, xmax], clipped to the picture; what is then empty is left out."""
        height, width = size
        ends = np.clip(corners.astype(np.float64), 0.0, 1.0) * (height, width, height, width)
        order = np.argsort(-scores.astype(np.float64), kind="stable")
        order = order[(ends[order, 2] > ends[order, 0]) & (ends[order, 3] > ends[order, 1])]
        low, high = ends[order, 1::-1], ends[order, :1:-1]  # x, y
        boxes = np.concatenate([low, high - low], axis=1)
        return cls(boxes, classes[order].astype(np.int64), scores[order].astype(np.float64), size)


def shared(a: Detections, b: Detections, overlap: float) -> int:
    """How many boxes of A have one of their class in B, with an intersection over union of `overlap` or more."""
    alike = a.classes[:, None] == b.classes[None]
    return int((alike & (overlaps(a.corners, b.corners) >= overlap)).any(axis=1).sum())


def detection_text(found: Detections, image: int | str) -> str:
    """A JSON object a line, as COCO's result files have them: image_id, category_id (class + 1), bbox, score."""
    return "".join(
        json.dumps(
            {
                "image_id": image,
                "category_id": int(index) + 1,
                "bbox": [round(float(value), 3) for value in box],
                "score": round(float(score), 6),
            },
            ensure_ascii=False,
        )
        + "\n"
        for box, index, score in zip(found.boxes, found.classes, found.scores, strict=True)
    )


# -- outputs of a detection operator ----------------------------------------------------------------------------------
def operator_detections(outputs: Iterable[Array], size: tuple[int, int], *, picture: str) -> Detections:
    """What the real outputs of a detection operator say. Raises UserError for numbers that no such operator gives."""
    corners, classes, scores, found, *_ = outputs
    count = round(float(found.reshape(())))
    if not 0 <= count <= scores.shape[1]:
        reason = f"numDetections is {count}, and there is room for {scores.shape[1]}"
        raise UserError(reason, stage=STAGE, file=picture, remedy=NO_OPERATOR)
    kinds = np.rint(classes[0, :count])
    fault = _fault(corners[0, :count], kinds, scores[0, :count])
    if fault:
        raise UserError(f"the model's outputs hold {fault}", stage=STAGE, file=picture, remedy=NO_OPERATOR)
    return Detections.of(corners[0, :count], kinds, scores[0, :count], size)


def _fault(corners: Array, classes: Array, scores: Array) -> str | None:
    """What of [N, 4], [N] and [N] cannot be detections."""
    for what, values in (("boxes", corners), ("classes", classes), ("scores", scores)):
        if not np.isfinite(values).all():
            return f"{what} that are not finite"
    if (classes < 0).any():
        return f"class {classes.min():g}, and classes count from 0"
    return None


# -- scripts -----------------------------------------------------------------------------------------------------------
class Decoder(UserScript):
    """A loaded decode script.

    Its function takes the outputs by name, as real numbers in the layout of the ini, and gives boxes [N, 4] normalised
    [ymin, xmin, ymax, xmax], classes [N] from 0 and scores [N]. The boxes are relative to the network's input, which is
    the whole picture; a function that also takes `size`, (height, width) of the picture, gives them relative to the
    picture itself, whatever its preprocess script padded or cut.
    """

    stage = STAGE
    function = "decode"
    signature = "def decode(outputs) or def decode(outputs, size)"
    arguments = "the outputs, or the outputs and size="

    def bind(self, signature: inspect.Signature) -> None:
        try:
            signature.bind({}, size=(1, 1))
            self._takes_size = True
        except TypeError:
            signature.bind({})
            self._takes_size = False

    def __call__(self, outputs: Mapping[str, Array], size: tuple[int, int], *, picture: str) -> Detections:
        """Run the script on what the model gave for a picture of `size`. Raises UserError."""
        said = f"decode(outputs of {picture})"
        values = dict(outputs)
        result = self.call(said, values, size=size) if self._takes_size else self.call(said, values)
        try:
            corners, classes, scores = (np.asarray(part, np.float64) for part in _three(result))
        except (TypeError, ValueError) as error:
            raise self._wrong(said, f"{_told(result)}, not boxes, classes and scores") from error
        shapes = [array.shape for array in (corners, classes, scores)]
        count = shapes[2][0] if len(shapes[2]) == 1 else -1
        if corners.size == classes.size == scores.size == 0:
            return Detections.of(np.zeros((0, 4)), np.zeros(0), np.zeros(0), size)
        if shapes != [(count, 4), (count,), (count,)]:
            told = ", ".join(str(list(shape)) for shape in shapes)
            raise self._wrong(said, f"arrays of shape {told}; needed are boxes [N, 4], classes [N] and scores [N]")
        fault = _fault(corners, classes, scores)
        if fault or (classes != np.rint(classes)).any():
            raise self._wrong(said, fault or "classes that are not whole numbers")
        reach = float(np.median(np.abs(corners).max(axis=1)))
        if reach > BEYOND:
            what = f"boxes that reach to {reach:g} (the median): pixels, it seems, and they are to be from 0 to 1"
            remedy = "divide y by height and x by width: of the input, or of the picture where decode takes size"
            raise self._wrong(said, what, remedy)
        return Detections.of(corners, classes, scores, size)

    def _wrong(self, said: str, what: str, remedy: str | None = None) -> UserError:
        return UserError(f"{said} returned {what}", stage=STAGE, file=self.path, remedy=remedy)


def _three(result: Any) -> Sequence[Any]:
    parts = list(result)
    if len(parts) != 3:
        raise ValueError(f"{len(parts)} parts")
    return parts


def _told(result: object) -> str:
    size = f" of {len(result)}" if isinstance(result, (tuple, list)) else ""
    return kind_of(result) + size


# -- pictures ----------------------------------------------------------------------------------------------------------
def image_id(picture: Path) -> int | str:
    """COCO's number of a picture, where its name is one (000000000139.jpg), else its file name."""
    return int(picture.stem) if picture.stem.isascii() and picture.stem.isdecimal() else picture.name
