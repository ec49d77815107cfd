"""Accuracy of a detector against a COCO instances.json: the figures of pycocotools, and a running AP50 beside the run.

A class of the model means the category of the same place in the file's categories, sorted by id.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgs.data.images import Sample
from sgs.data.pictures import picture_size
from sgs.errors import UserError, raise_all
from sgs.numeric.quantise import Array
from sgs.report.detections import Detections
from sgs.report.labels import STAGE

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
MOST = 100  # boxes of a class in a picture that count, as in COCO
RECALLS = np.linspace(0.0, 1.0, 101)
_NEEDED = {
    "images": {"id": int, "file_name": str},
    "categories": {"id": int, "name": str},
    "annotations": {"image_id": int, "category_id": int, "bbox": list},
}

Record = dict[str, Any]


class GroundTruth:
    """An instances.json. Raises UserError for everything that is wrong with the file, and without pycocotools."""

    def __init__(self, path: Path) -> None:
        if importlib.util.find_spec("pycocotools") is None:
            remedy = "pip install pycocotools, or the toolchain with [coco]"
            raise UserError("needs the package pycocotools", stage=STAGE, file=path, remedy=remedy)
        self.path = path
        content = _content(path)
        self._images: list[Record] = content["images"]
        self._categories: list[Record] = sorted(content["categories"], key=lambda category: int(category["id"]))
        self.annotations: list[Record] = [
            {"area": item["bbox"][2] * item["bbox"][3], "iscrowd": 0, **item, "id": number}
            for number, item in enumerate(content["annotations"], start=1)
        ]
        self._by_name: dict[str, list[Record]] = {}
        for image in self._images:
            self._by_name.setdefault(Path(image["file_name"]).name, []).append(image)

    @property
    def names(self) -> list[str]:
        """Of the classes."""
        return [category["name"] for category in self._categories]

    def image_ids(self, samples: Sequence[Sample]) -> list[int]:
        """The number of every picture, by its file name. Raises UserError with all that have none or another size."""
        found: list[int] = []
        problems: list[UserError] = []
        for picture in (sample[0] for sample in samples):
            image = self._image(picture)
            fault = "is not among the labelled images" if image is None else _resized(image, picture)
            if image is None or fault:
                problems.append(UserError(fault or "", stage=STAGE, file=self.path, node=f"'{picture}'"))
            else:
                found.append(int(image["id"]))
        raise_all(problems, stage=STAGE, file=self.path)
        twice = {number for number, count in Counter(found).items() if count > 1}
        reason = "is the same labelled image as another picture, and would count twice"
        twins = [sample[0] for number, sample in zip(found, samples, strict=True) if number in twice]
        problems = [UserError(reason, stage=STAGE, file=self.path, node=f"'{picture}'") for picture in twins]
        raise_all(problems, stage=STAGE, file=self.path)
        return found

    def _image(self, picture: Path) -> Record | None:
        """The record whose file name, with its folders if it has any, ends the path of a picture."""
        named = self._by_name.get(picture.name, [])
        if len(named) == 1:
            return named[0]
        parts = picture.absolute().parts
        ending = [image for image in named if parts[-len(Path(image["file_name"]).parts) :] == _parts(image)]
        return ending[0] if len(ending) == 1 else None

    def check(self, found: Detections, picture: Path) -> None:
        """Raise UserError where a class has no category."""
        if found.classes.size and found.classes.max() >= len(self._categories):
            count = len(self._categories)
            reason = f"a box of class {found.classes.max()}, and the labels have {count} categories"
            raise UserError(reason, stage=STAGE, file=self.path, node=f"'{picture}'")

    def category(self, index: int) -> int:
        """The category id of a class."""
        return int(self._categories[index]["id"])

    def figures(self, found: Mapping[int, Detections]) -> list[float]:
        """The `FIGURES` over the pictures that `found` has, by image id; -1 where nothing labelled is of such a size.

        Source: COCOeval of pycocotools, kind "bbox".
        """
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        results = [
            {"image_id": image, "category_id": self.category(int(index)), "bbox": box.tolist(), "score": float(score)}
            for image, boxes in found.items()
            for box, index, score in zip(boxes.boxes, boxes.classes, boxes.scores, strict=True)
        ]
        for number, result in enumerate(results, start=1):
            _, _, width, height = result["bbox"]
            result.update(id=number, area=width * height, iscrowd=0)
        both = []
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
            for annotations in (self.annotations, results):
                coco = COCO()
                coco.dataset = {
                    "images": self._images,
                    "categories": self._categories,
                    "annotations": [dict(item) for item in annotations],
                }
                coco.createIndex()
                both.append(coco)
            judge = COCOeval(*both, "bbox")
            judge.params.imgIds = sorted(found)
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        return [float(value) for value in judge.stats]


def _parts(image: Record) -> tuple[str, ...]:
    return Path(image["file_name"]).parts


def _resized(image: Record, picture: Path) -> str | None:
    """How the picture's size is not that of its labels, where these have one."""
    labelled = (image.get("height"), image.get("width"))
    if None in labelled or (size := picture_size(picture)) == labelled:
        return None
    return f"has {size[0]}x{size[1]} pixels (height x width), and its labels are for {labelled[0]}x{labelled[1]}"


def _content(path: Path) -> dict[str, list[Record]]:
    """The file's lists, checked. Raises UserError."""
    remedy = "-l of -c Detection takes COCO's instances.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", stage=STAGE, file=path, remedy=remedy) from error
    except ValueError as error:
        raise UserError(f"is not JSON: {error}", stage=STAGE, file=path, remedy=remedy) from error
    lists: dict[str, Any] = {name: content.get(name) if isinstance(content, dict) else None for name in _NEEDED}
    missing = [name for name, items in lists.items() if not isinstance(items, list)]
    if missing:
        raise UserError(f"has no list of {', '.join(missing)}", stage=STAGE, file=path, remedy=remedy)
    raise_all(list(_faults(lists, path)), stage=STAGE, file=path)
    return lists


def _faults(lists: Mapping[str, list[Any]], path: Path) -> Iterator[UserError]:
    def fault(where: str, reason: str) -> UserError:
        return UserError(reason, stage=STAGE, file=path, node=where)

    whole = True
    for name in ("images", "categories"):
        if not lists[name]:
            yield UserError(f"holds no {name}", stage=STAGE, file=path)
    for name, fields in _NEEDED.items():
        for index, item in enumerate(lists[name]):
            for key, kind in fields.items():
                if not isinstance(item, dict) or not isinstance(item.get(key), kind):
                    whole = False
                    yield fault(f"{name}[{index}]", f"has no {key}, or one that is not {_KINDS[kind]}")
    if not whole:
        return
    for name in ("images", "categories"):
        for number, count in Counter(item["id"] for item in lists[name]).items():
            if count > 1:
                yield fault(f"{name}: id {number}", "is there more than once")
    for side, owner in (("image", "images"), ("category", "categories")):
        known = {item["id"] for item in lists[owner]}
        for index, item in enumerate(lists["annotations"]):
            if item[f"{side}_id"] not in known:
                yield fault(f"annotations[{index}]", f"is of {side}_id {item[f'{side}_id']}, which {owner} lacks")
    for index, item in enumerate(lists["annotations"]):
        if len(item["bbox"]) != 4 or not all(isinstance(value, (int, float)) for value in item["bbox"]):
            yield fault(f"annotations[{index}]", "has a bbox that is not [x, y, width, height]")


_KINDS = {int: "a whole number", str: "text", list: "a list"}


# -- the running figure ------------------------------------------------------------------------------------------------
class RunningAP50:
    """COCO's AP50 over the pictures so far. A picture costs one small matching; `value` sorts what there is."""

    def __init__(self, truth: GroundTruth) -> None:
        self._truth = truth
        self._labelled: dict[int, list[Record]] = {}
        for item in truth.annotations:
            self._labelled.setdefault(item["image_id"], []).append(item)
        self._count: Counter[int] = Counter()  # labelled boxes of each category
        self._scores: dict[int, list[Array]] = {}
        self._hits: dict[int, list[Array]] = {}

    def add(self, image: int, found: Detections) -> None:
        """Count a picture."""
        labelled: dict[int, list[Record]] = {}
        for item in self._labelled.get(image, ()):
            labelled.setdefault(item["category_id"], []).append(item)
            self._count[item["category_id"]] += not item["iscrowd"]
        for index in np.unique(found.classes).tolist():
            category = self._truth.category(index)
            chosen = np.flatnonzero(found.classes == index)[:MOST]
            hits, counts = _matched(found.boxes[chosen], labelled.get(category, []))
            self._hits.setdefault(category, []).append(hits[counts])
            self._scores.setdefault(category, []).append(found.scores[chosen][counts])

    def value(self) -> float:
        """Mean over the categories that have been labelled; 0 before there is one."""
        present = [category for category, count in self._count.items() if count]
        return float(np.mean([self._precision(category) for category in present])) if present else 0.0

    def _precision(self, category: int) -> float:
        """Average over 101 recalls of the highest precision at that recall or more."""
        if category not in self._hits:
            return 0.0
        scores, hits = np.concatenate(self._scores[category]), np.concatenate(self._hits[category])
        right = np.cumsum(hits[np.argsort(-scores, kind="stable")])
        if not right.size:
            return 0.0
        precision = right / np.arange(1, right.size + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        places = np.searchsorted(right / self._count[category], RECALLS, side="left")
        return float(np.append(best, 0.0)[places].mean())


def _matched(boxes: Array, labelled: Sequence[Record]) -> tuple[Array, Array]:
    """(whether each box, best score first, hits a labelled one that none before hit; whether it counts at all).

    Boxes that lie in a crowd and hit nothing else do not count. Both bool [N].
    """
    hits, counts = np.zeros(len(boxes), bool), np.ones(len(boxes), bool)
    if not labelled or not len(boxes):
        return hits, counts
    crowd = np.array([bool(item["iscrowd"]) for item in labelled])
    overlap = _overlaps(boxes, np.array([item["bbox"] for item in labelled], np.float64), crowd)
    free = ~crowd
    for index, row in enumerate(overlap):
        best = int(np.argmax(np.where(free, row, -1.0)))
        if free[best] and row[best] >= 0.5:
            hits[index], free[best] = True, False
        elif (row[crowd] >= 0.5).any():
            counts[index] = False
    return hits, counts


def _overlaps(found: Array, labelled: Array, crowd: Array) -> Array:
    """Intersection over union [N, M] of x, y, width, height; over the found box's own area for a crowd."""
    low = np.maximum(found[:, None, :2], labelled[None, :, :2])
    high = np.minimum((found[:, :2] + found[:, 2:])[:, None], (labelled[:, :2] + labelled[:, 2:])[None])
    inside = np.clip(high - low, 0.0, None).prod(axis=2)
    areas, others = found[:, 2:].prod(axis=1)[:, None], labelled[:, 2:].prod(axis=1)[None]
    overlap: Array = inside / np.where(crowd[None], areas, areas + others - inside)
    return overlap
