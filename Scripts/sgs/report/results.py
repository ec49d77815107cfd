"""The simulator's result files, one a sample, and top-1 accuracy against a list of labels.

Names: `<category>_<model file>_<picture file>.txt`, the category in lower case. Contents are read by other people's
scripts: the lines below are a contract.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from sgs.data.images import Sample
from sgs.errors import UserError, raise_all
from sgs.numeric.quantise import Array

STAGE = "labels"
BEST = 5  # classes in a classification result
PER_LINE = 16  # values in a line of an unknown result
_HEADER_WORDS = ("file", "path", "image", "picture", "name")

Ranked = list[tuple[int, float]]


def ranked(scores: Array, count: int = BEST) -> Ranked:
    """The classes with the highest scores, best first; of equal ones the lower index first."""
    flat = scores.reshape(-1)
    order = np.argsort(-flat.astype(np.float64), kind="stable")[:count]
    return [(int(index), float(flat[index])) for index in order]


def classification_text(picture: str, best: Ranked) -> str:
    """The picture's name, then `<index> <score>` a line."""
    return "\n".join([picture, *(f"{index} {score:.6f}" for index, score in best)]) + "\n"


def unknown_text(outputs: Mapping[str, Array]) -> str:
    """Every value of every output; outputs of any rank, as real numbers."""
    return "".join(f"{line}\n" for name, values in outputs.items() for line in _unknown_lines(name, values))


def _unknown_lines(name: str, values: Array) -> Iterator[str]:
    shape = " ".join(map(str, values.shape))
    yield f"{name} Tensor:"
    yield "{"
    yield f"tensor dim:{values.ndim}, Original shape:[{shape}]"
    yield "tensor data:"
    flat = values.reshape(-1).tolist()
    for start in range(0, len(flat), PER_LINE):
        yield " ".join(f"{value:.6f}" for value in flat[start : start + PER_LINE])
    yield "}"


# -- names -------------------------------------------------------------------------------------------------------------
def result_name(category: str, model: Path, picture: str) -> str:
    """Name of a result file."""
    return f"{category.lower()}_{model.name}_{picture}.txt"


def picture_names(samples: Sequence[Sample]) -> list[str]:
    """What results of the samples are called: the first input's file name, where needed with its folders or a number.

    Only equal samples get equal names.
    """
    paths = [Path(os.path.abspath(sample[0])) for sample in samples]
    counts = Counter(path.name for path in dict.fromkeys(paths))
    repeated = [path for path in paths if counts[path.name] > 1]
    common = Path(os.path.commonpath([path.parent for path in repeated])) if repeated else Path()
    names: dict[Sample, str] = {}
    taken: set[str] = set()
    for sample, path in zip(samples, paths, strict=True):
        stem = "_".join(path.relative_to(common).parts) if counts[path.name] > 1 else path.name
        if sample not in names:
            names[sample] = next(name for name in _numbered(stem) if name not in taken)
            taken.add(names[sample])
    return [names[sample] for sample in samples]


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    yield from (f"{stem}_{number}" for number in count(2))


# -- labels ------------------------------------------------------------------------------------------------------------
class Labels:
    """Classes of pictures, from a text file with `<path> <index>` or `<path>,<index>[,...]` a line, header or not.

    Raises UserError for a file that cannot be read or holds no labels.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._by_path: dict[str, int] = {}
        self._by_name: dict[str, set[int]] = {}
        problems = []
        for number, line in enumerate(self._lines(), start=1):
            words = line.split(",") if "," in line else line.rsplit(maxsplit=1)
            if not line.strip() or line.startswith("#") or (number == 1 and words[0].strip().lower() in _HEADER_WORDS):
                continue
            if len(words) < 2 or not words[1].strip().isdecimal():
                problems.append(
                    UserError("is not a path and a class index", stage=STAGE, file=path, node=f"line {number}")
                )
                continue
            self._add(words[0].strip(), int(words[1]))
        raise_all(problems[:5], stage=STAGE, file=path)
        if not self._by_path:
            raise UserError("holds no labels", stage=STAGE, file=path, remedy="write `<path> <class index>` a line")

    def _lines(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror or error}", stage=STAGE, file=self.path) from error
        except UnicodeDecodeError as error:
            raise UserError("is not text in UTF-8", stage=STAGE, file=self.path) from error

    def _add(self, picture: str, index: int) -> None:
        for base in (Path(), self.path.parent):
            self._by_path[os.path.realpath(base / picture)] = index
        self._by_name.setdefault(Path(picture).name, set()).add(index)

    def of(self, picture: Path) -> int:
        """The class of a picture: by its path, else by its file name where that is unique. Raises UserError."""
        found = self._by_path.get(os.path.realpath(picture))
        if found is not None:
            return found
        named = self._by_name.get(picture.name, set())
        if len(named) != 1:
            reason = f"has {'no label' if not named else 'several labels'} for '{picture}'"
            raise UserError(reason, stage=STAGE, file=self.path)
        return next(iter(named))
