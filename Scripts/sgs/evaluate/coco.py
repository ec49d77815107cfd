"""Labels of a detector: a COCO instances.json.

A class of the model means the category of the same place in the file's categories, sorted by id.
"""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sgs.data.images import Sample
from sgs.data.pictures import picture_size
from sgs.errors import UserError, raise_all
from sgs.evaluate.detections import Detections
from sgs.evaluate.labels import STAGE

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
        self.annotations: list[Record] = [  # without outlines and the like, which are most of such a file
            {
                "id": number,
                "image_id": item["image_id"],
                "category_id": item["category_id"],
                "bbox": item["bbox"],
                "area": item.get("area", item["bbox"][2] * item["bbox"][3]),
                "iscrowd": int(item.get("iscrowd", 0)),
            }
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
                if not isinstance(item, dict) or not _is(item.get(key), kind):
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
    for name, check in (("images", _image_faults), ("annotations", _annotation_faults)):
        for index, item in enumerate(lists[name]):
            yield from (fault(f"{name}[{index}]", reason) for reason in check(item))


def _image_faults(item: Record) -> Iterator[str]:
    for side in ("height", "width"):
        if not (item.get(side) is None or _is(item[side], int)):
            yield f"has a {side} that is not a whole number"


def _annotation_faults(item: Record) -> Iterator[str]:
    """Boxes of no width or height are let pass: COCO's own files have such, which count as objects never found."""
    if len(item["bbox"]) != 4 or not all(map(_is_length, item["bbox"])):
        yield "has a bbox that is not [x, y, width, height]"
    elif min(item["bbox"][2:]) < 0:
        yield "has a bbox whose width or height is below 0"
    if "area" in item and not (_is_length(item["area"]) and item["area"] >= 0):
        yield "has an area that is not a number from 0 on"
    if item.get("iscrowd", 0) not in (0, 1):
        yield "has an iscrowd that is neither 0 nor 1"


_KINDS = {int: "a whole number", str: "text", list: "a list"}


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_length(value: object) -> bool:
    """Not NaN, nor past what any picture has."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _FAR


_FAR = 1e12  # pixels
