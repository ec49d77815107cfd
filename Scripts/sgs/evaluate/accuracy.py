"""How right a model is on labelled samples, counted as its results come: top-1 and top-5, or COCO's figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sgs.data.images import Sample
from sgs.evaluate.average_precision import FIGURES, AveragePrecision
from sgs.evaluate.coco import GroundTruth
from sgs.evaluate.detections import Detections
from sgs.evaluate.labels import name_of, numbered_name
from sgs.evaluate.results import BEST, Ranked

_GROWN = 1.05  # after how many times as many pictures as before a figure that takes long is counted again


class Judge(Protocol):
    """Takes what was found in every sample, in order."""

    def add(self, found: Ranked | Detections | None) -> None:
        """Count the next sample. Raises UserError for what the labels cannot be compared with."""

    def running(self) -> str:
        """The figure so far, in a few words."""

    def figures(self) -> list[str]:
        """The final figures, a line each."""


class TopFive:
    """`right`: the class of every sample."""

    def __init__(self, right: Sequence[int]) -> None:
        self._right = right
        self._done = 0
        self._hits = {1: 0, BEST: 0}

    def add(self, found: Ranked | Detections | None) -> None:
        """See Judge."""
        assert isinstance(found, list)
        classes = [index for index, _ in found]
        for count in self._hits:
            self._hits[count] += self._right[self._done] in classes[:count]
        self._done += 1

    def running(self) -> str:
        """See Judge."""
        return ", ".join(f"top-{count} {hits / max(1, self._done):.2%}" for count, hits in self._hits.items())

    def figures(self) -> list[str]:
        """See Judge."""
        done = self._done
        return [f"top-{count}: {hits} of {done}, {hits / done:.2%}" for count, hits in self._hits.items()]


class MeanPrecision:
    """COCO's figures over the samples, whose ids are `images`."""

    def __init__(self, truth: GroundTruth, samples: Sequence[Sample], images: Sequence[int]) -> None:
        self._truth = truth
        self._tasks = iter([(sample[0], image) for sample, image in zip(samples, images, strict=True)])
        self._precision = AveragePrecision(truth, images)
        self._done = 0
        self._told = 0  # pictures that the running figure is of
        self._running = 0.0

    def add(self, found: Ranked | Detections | None) -> None:
        """See Judge."""
        assert isinstance(found, Detections)
        picture, image = next(self._tasks)
        self._truth.check(found, picture)
        self._precision.add(image, found)
        self._done += 1

    def running(self) -> str:
        """See Judge. It takes longer the more there is, so it is of some pictures less now and then."""
        if self._done >= _GROWN * self._told:
            self._running, self._told = self._precision.ap50(), self._done
        return f"AP50 {self._running:.4f}"

    def figures(self) -> list[str]:
        """See Judge."""
        return [
            f"{name:<10}{'-' if value < 0 else format(value, '.4f'):<6}  {meaning}"
            for (name, meaning), value in zip(FIGURES, self._precision.figures(), strict=True)
        ]


def told(found: Ranked | Detections, names: Sequence[str]) -> str:
    """What was found in a sample, in a line."""
    if isinstance(found, list):
        return ", ".join(f"{numbered_name(index, names)} ({score:.6f})" for index, score in found)
    count = len(found.scores)
    best = [
        f"{name_of(index, names)} ({score:.4f})"
        for index, score in zip(found.classes[:BEST].tolist(), found.scores[:BEST].tolist(), strict=True)
    ]
    more = ", ..." if count > BEST else ""
    return f"{count} box" + ("es" if count != 1 else "") + (": " + ", ".join(best) + more if best else "")
