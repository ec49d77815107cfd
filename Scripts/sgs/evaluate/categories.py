"""What a model's category says of its outputs.

Classification: one output, a score for each class. Detection: those of a detection operator, which are detectionBoxes
[1, N, 4] normalised [ymin, xmin, ymax, xmax], detectionClasses [1, N], detectionScores [1, N], numDetections [1], and
perhaps detectionIndex [1, N], in this order under any names. Unknown: any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from sgs.errors import UserError

_CONTRACT = "detectionBoxes [1,N,4], detectionClasses [1,N], detectionScores [1,N], numDetections [1]"
NO_OPERATOR = "use -c Unknown; simulator.py also takes -c Detection with --decode, a script that makes boxes of outputs"


class Shaped(Protocol):
    """An output of a model."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


def check_category(category: str, outputs: Sequence[Shaped], *, file: object) -> str:
    """The category. Raises UserError where the model's outputs are not of it."""
    wanted = {
        "Classification": "one output with a score for each class",
        "Detection": f"the outputs {_CONTRACT}, perhaps detectionIndex [1,N]",
    }
    fits = {"Classification": are_scores, "Detection": _are_boxes}.get(category)
    if fits is not None and not fits(outputs):
        got = ", ".join(f"{output.name} {str(list(output.shape)).replace(' ', '')}" for output in outputs)
        remedy = NO_OPERATOR if category == "Detection" else "use -c Unknown"
        reason = f"-c {category} expects {wanted[category]}; got {got}"
        raise UserError(reason, stage="category", file=file, remedy=remedy)
    return category


def are_scores(outputs: Sequence[Shaped]) -> bool:
    """One output, with at most one axis behind that of the frames that is longer than 1."""
    return len(outputs) == 1 and sum(extent > 1 for extent in outputs[0].shape[1:]) <= 1


def _are_boxes(outputs: Sequence[Shaped]) -> bool:
    shapes = [tuple(output.shape) for output in outputs]
    if len(shapes) not in (4, 5):
        return False
    per_box = (1, *shapes[0][1:2])
    expected = [(*per_box, 4), *[per_box] * (len(shapes) - 2)]
    return [*shapes[:3], *shapes[4:]] == expected and math.prod(shapes[3]) == 1
