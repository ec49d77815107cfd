"""COCO's figures of a detector, counted picture by picture.

What pycocotools' COCOeval says of a picture is asked as soon as its boxes are known, and a few bytes of it are kept for
each box that counts; the boxes themselves are not. Source of matching, precision and figures: COCOeval, kind "bbox".
"""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from sgs.evaluate.coco import GroundTruth, Record
from sgs.evaluate.detections import Detections
from sgs.numeric.quantise import Array

FIGURES = (  # what pycocotools' COCOeval.stats holds, in order
    ("AP", "IoU 0.50 to 0.95"),
    ("AP50", "IoU 0.50"),
    ("AP75", "IoU 0.75"),
    ("AP small", "area below 32x32"),
    ("AP medium", "area from 32x32 to 96x96"),
    ("AP large", "area above 96x96"),
    ("AR 1", "recall with 1 box a picture"),
    ("AR 10", "with 10"),
    ("AR 100", "with 100"),
    ("AR small", "with 100, area below 32x32"),
    ("AR medium", "with 100, area from 32x32 to 96x96"),
    ("AR large", "with 100, area above 96x96"),
)
AREAS, THRESHOLDS = 4, 10  # of COCOeval: sizes of objects, the first all of them, and overlaps, the first 0.50
_KEPT = np.dtype(  # of a box: 23 bytes. hit, counts: bits [AREAS, THRESHOLDS]
    [("score", "f8"), ("picture", "i4"), ("rank", "u1"), ("hit", "u1", 5), ("counts", "u1", 5)]
)


class AveragePrecision:
    """The figures over the pictures that were added, of those that will be (`images`, their ids)."""

    def __init__(self, truth: GroundTruth, images: Iterable[int]) -> None:
        from pycocotools.cocoeval import COCOeval

        self._truth = truth
        self._place = {image: place for place, image in enumerate(sorted(images))}  # COCOeval's order of equal scores
        self._judge = COCOeval(iouType="bbox")
        self._labelled: dict[int, list[Record]] = defaultdict(list)
        for item in truth.annotations:
            if item["image_id"] in self._place:
                self._labelled[item["image_id"]].append({**item, "ignore": item["iscrowd"]})
        present = {item["category_id"] for items in self._labelled.values() for item in items}
        self._objects = {category: np.zeros(AREAS, np.int64) for category in sorted(present)}  # labelled so far
        self._kept = {category: bytearray() for category in present}

    def add(self, image: int, found: Detections) -> None:
        """Count the next picture. Each is added once."""
        judge = self._judge
        judge._gts, judge._dts, judge.ious = defaultdict(list), defaultdict(list), {}  # what its evaluate() fills in
        for item in self._labelled.pop(image, ()):
            judge._gts[image, item["category_id"]].append(item)
        for item in self._records(found):
            judge._dts[image, item["category_id"]].append(item)
        for _, category in {**judge._gts, **judge._dts}:
            judge.ious[image, category] = judge.computeIoU(image, category)
            most = judge.params.maxDets[-1]
            sizes = [judge.evaluateImg(image, category, area, most) for area in judge.params.areaRng]
            self._objects[category] += [np.count_nonzero(size["gtIgnore"] == 0) for size in sizes]
            self._kept[category] += _kept(sizes, self._place[image]).tobytes()

    def _records(self, found: Detections) -> list[Record]:
        """The boxes as COCOeval reads them, of the categories that are labelled: others have no figures."""
        categories = [self._truth.category(index) for index in found.classes.tolist()]
        boxes = zip(categories, found.boxes.tolist(), found.scores.tolist(), strict=True)
        return [
            {"id": number, "category_id": category, "bbox": box, "score": score, "area": box[2] * box[3]}
            for number, (category, box, score) in enumerate(boxes, start=1)
            if category in self._objects
        ]

    def ap50(self) -> float:
        """COCO's AP50 so far; 0 before there is a labelled object."""
        present = [category for category, objects in self._objects.items() if objects[0]]
        precisions = [self._curves(category, 0, 100, thresholds=1)[0].mean() for category in present]
        return float(np.mean(precisions)) if present else 0.0

    def figures(self) -> list[float]:
        """The `FIGURES`; -1 where nothing labelled is of such a size."""
        judge = self._judge
        most, recalls = judge.params.maxDets, judge.params.recThrs
        categories = [category for category, objects in self._objects.items() if objects[0]]
        precision = np.full((THRESHOLDS, len(recalls), len(categories), AREAS, len(most)), -1.0)
        recall = np.full((THRESHOLDS, len(categories), AREAS, len(most)), -1.0)
        for k, category in enumerate(categories):
            for a in np.flatnonzero(self._objects[category]).tolist():
                for m, boxes in enumerate(most):
                    precision[:, :, k, a, m], recall[:, k, a, m] = self._curves(category, a, boxes)
        judge.eval = {"precision": precision, "recall": recall}
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it says
            judge.summarize()
        return [float(value) for value in judge.stats]

    def _curves(self, category: int, area: int, most: int, thresholds: int = THRESHOLDS) -> tuple[Array, Array]:
        """(precision [thresholds, recalls], highest recall [thresholds]) with the best `most` boxes of a picture."""
        kept = np.frombuffer(self._kept[category], _KEPT)
        kept = kept[kept["rank"] < most]
        kept = kept[np.lexsort((kept["rank"], kept["picture"], -kept["score"]))]
        hit, counts = (_bits(kept[name], area)[:thresholds] for name in ("hit", "counts"))
        right, wrong = np.cumsum(hit & counts, axis=1), np.cumsum(~hit & counts, axis=1)
        recalls = self._judge.params.recThrs
        precision, reached = np.zeros((thresholds, len(recalls))), np.zeros(thresholds)
        if not len(kept):
            return precision, reached
        recall = right / self._objects[category][area]
        best = np.maximum.accumulate((right / (wrong + right + np.spacing(1)))[:, ::-1], axis=1)[:, ::-1]
        for row in range(thresholds):
            places = np.searchsorted(recall[row], recalls, side="left")
            precision[row] = np.append(best[row], 0.0)[places]
        return precision, recall[:, -1]


def _kept(sizes: list[dict[str, Any]], picture: int) -> Array:
    """`_KEPT` of the boxes of a category in a picture, from what COCOeval says of each size of objects."""
    scores = sizes[0]["dtScores"]
    kept = np.zeros(len(scores), _KEPT)
    kept["score"], kept["picture"], kept["rank"] = scores, picture, np.arange(len(scores))
    for name, bits in (
        ("hit", [size["dtMatches"] != 0 for size in sizes]),
        ("counts", [~size["dtIgnore"] for size in sizes]),
    ):
        kept[name] = np.packbits(np.stack(bits).reshape(AREAS * THRESHOLDS, -1), axis=0).T
    return kept


def _bits(packed: Array, area: int) -> Array:
    """bool [THRESHOLDS, N] of packed [N, 5]."""
    return np.unpackbits(packed, axis=1).astype(bool)[:, area * THRESHOLDS : (area + 1) * THRESHOLDS].T
