"""Right classes of pictures, from a list or from the folders that they lie in, and names of classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sgs.data.images import Sample
from sgs.errors import UserError, raise_all

STAGE = "labels"
NAMES_FILE = "labels.txt"  # names of the classes, where it lies beside a model


def read_lines(path: Path) -> list[str]:
    """Lines of a text file. Raises UserError."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", stage=STAGE, file=path) from error
    except UnicodeDecodeError as error:
        raise UserError("is not text in UTF-8", stage=STAGE, file=path) from error


# -- names of classes --------------------------------------------------------------------------------------------------
def class_names(path: Path) -> list[str]:
    """Names of the classes from 0 on, one a line. Raises UserError."""
    names = [line.strip() for line in read_lines(path)]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise UserError("holds no names", stage=STAGE, file=path, remedy="write the name of a class a line, 0 first")
    return names


def names_beside(model: Path, classes: int) -> tuple[str, ...]:
    """Those of NAMES_FILE beside a model, none where there is none, or where it is of something else: of another number
    of classes than the model has, unless that is 0, not known. Raises UserError."""
    beside = model.parent / NAMES_FILE
    names = class_names(beside) if beside.is_file() else []
    return tuple(names) if classes in (0, len(names)) else ()


def check_names(names: Sequence[str], classes: int, *, file: Path) -> None:
    """Raise UserError where there are not as many names as classes."""
    if len(names) != classes:
        reason = f"names {len(names)} classes, and the model has {classes}"
        raise UserError(reason, stage=STAGE, file=file, remedy="write the name of a class a line, 0 first")


def name_of(index: int, names: Sequence[str]) -> str:
    """The name of a class, its number where it has none."""
    return names[index] if index < len(names) else str(index)


def numbered_name(index: int, names: Sequence[str]) -> str:
    """A class's number, and its name where it has one."""
    return f"{index} {names[index]}" if index < len(names) else str(index)


# -- classes of pictures -----------------------------------------------------------------------------------------------
def right_classes(path: Path, samples: Sequence[Sample], classes: int, names: Sequence[str] = ()) -> list[int]:
    """The class of every sample. Raises UserError with everything that is wrong with the labels.

    Args:
        path: a list of pictures, or a folder that has a folder for every class.
        samples: of which the first files count.
        classes: of the model.
        names: of the classes, where they are known.
    """
    labels: Labels | ClassFolders = ClassFolders(path, classes, names) if path.is_dir() else Labels(path)
    found: list[int] = []
    problems: list[UserError] = []
    for picture in (sample[0] for sample in samples):
        try:
            found.append(labels.of(picture))
        except UserError as error:
            problems.append(error)
            continue
        if found[-1] >= classes:
            reason = f"its class is past the model's {classes}, which count from 0"
            problems.append(UserError(reason, stage=STAGE, file=path, node=f"'{picture}' ({found[-1]})"))
    raise_all(problems, stage=STAGE, file=path)
    return found


class ClassFolders:
    """Classes of pictures by the folder, directly below `path`, that they lie in.

    Folders that are all called by numbers are classes of that index; such that are all called as classes are (`names`)
    are those; else they are the classes in sorted order. Raises UserError where this does not give every class one.
    """

    def __init__(self, path: Path, classes: int, names: Sequence[str] = ()) -> None:
        self.path = path
        folders = sorted(item.name for item in path.iterdir() if item.is_dir() and not item.name.startswith("."))
        if not folders:
            raise UserError("holds no folders, one for each class", stage=STAGE, file=path)
        if all(name.isascii() and name.isdecimal() for name in folders):
            self._index = {name: int(name) for name in folders}
        elif set(folders) <= set(names):
            self._index = {name: names.index(name) for name in folders}
        elif len(folders) == classes:
            self._index = {name: index for index, name in enumerate(folders)}
        else:
            reason = f"holds {len(folders)} class folders, and the model has {classes} classes"
            remedy = "call them by class index, or as the classes of --class_names are called"
            raise UserError(reason, stage=STAGE, file=path, remedy=remedy)

    def of(self, picture: Path) -> int:
        """The class of a picture. Raises UserError."""
        root = Path(os.path.abspath(self.path))
        for place, base in ((Path(os.path.abspath(picture)), root), (picture.resolve(), root.resolve())):
            if base in place.parents and (name := place.relative_to(base).parts[0]) in self._index:
                return self._index[name]
        raise UserError("lies in none of the class folders", stage=STAGE, file=self.path, node=f"'{picture}'")


class Labels:
    """Classes of pictures, from a text file with `<path> <index>` or `<path>,<index>[,...]` a line.

    Lines that begin with `#` are let pass, and a heading: a first line whose second column is no number.
    Raises UserError for a file that cannot be read or holds no labels.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._by_name: dict[str, list[tuple[str, int]]] = {}  # path and class index, by file name
        lines = [(number, line) for number, line in enumerate(read_lines(self.path), start=1) if _says_something(line)]
        rows = [(number, line.split(",") if "," in line else line.rsplit(maxsplit=1)) for number, line in lines]
        if rows and _is_heading(rows[0][1]):
            del rows[0]
        problems = []
        for number, words in rows:
            if len(words) < 2 or not words[1].strip().isdecimal():
                reason = "is not a path and a class index"
                problems.append(UserError(reason, stage=STAGE, file=path, node=f"line {number}"))
                continue
            picture = words[0].strip()
            self._by_name.setdefault(Path(picture).name, []).append((picture, int(words[1])))
        raise_all(problems, stage=STAGE, file=path)
        if not self._by_name:
            raise UserError("holds no labels", stage=STAGE, file=path, remedy="write `<path> <class index>` a line")

    def of(self, picture: Path) -> int:
        """The class of a picture: by its path, else by its file name; where that says one. Raises UserError."""
        real = Path(os.path.realpath(picture))
        named = [*self._by_name.get(picture.name, ()), *self._by_name.get(real.name, ())]
        bases = Path(), self.path.parent
        here = {index for path, index in named if any(os.path.realpath(base / path) == str(real) for base in bases)}
        indices: set[int] = here or {index for _, index in named}
        if len(indices) == 1:
            return indices.pop()
        told = f" ({', '.join(map(str, sorted(indices)))})" if indices else ""
        reason = f"has {'several labels' if named else 'no label'} for the picture{told}"
        raise UserError(reason, stage=STAGE, file=self.path, node=f"'{picture}'")


def _says_something(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _is_heading(words: Sequence[str]) -> bool:
    if len(words) < 2:
        return False
    try:
        float(words[1])
    except ValueError:
        return True
    return False
