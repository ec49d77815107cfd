"""The `-i` argument: a data file, a folder of them, a list file, or `prefix:list` → samples."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sgs.config.nearest import counted, listing
from sgs.errors import UserError, raise_all

STAGE = "images"
PICTURE_EXTENSIONS = frozenset(
    ("bmp", "dib", "jpeg", "jpg", "jpe", "jp2", "png", "pbm", "pgm", "ppm", "pxm", "pnm", "sr", "ras", "tiff", "tif")
    + ("hdr", "pic")
)
DATA_EXTENSIONS = PICTURE_EXTENSIONS | {"raw", "npy", "bin"}  # anything else is a list file
PROBLEMS_SHOWN = 20

Sample = tuple[Path, ...]
"""The files of one run of the model, in input order."""


def is_data(path: Path) -> bool:
    """Whether a path is data, by its extension; otherwise it is a list of paths."""
    return path.suffix[1:].lower() in DATA_EXTENSIONS


def resolve_samples(argument: str | Path, input_count: int) -> list[Sample]:
    """The samples that `-i` names, at least one; every file exists. Folders are searched recursively, in sorted order.

    Args:
        argument: a data file or a folder (models with one input only), a list file, or `prefix:list file`.
        input_count: inputs of the model, which is the number of paths in a line of a list.

    Raises:
        UserError: nothing there, an empty folder or list, a wrong number of paths in a line, a missing file.
    """
    path = Path(argument)
    if path.is_dir():
        _one_input_only(path, "a folder", input_count)
        return [(file,) for file in _folder(path)]
    if path.is_file() and is_data(path):
        _one_input_only(path, "a single file", input_count)
        return [(path,)]
    prefix, list_file = _split_prefix(str(argument))
    return _list(list_file, prefix, input_count)


def absolute(samples: Iterable[Sample]) -> list[Sample]:
    """The samples for a process whose current folder is another one."""
    return [tuple(file.absolute() for file in sample) for sample in samples]


def _one_input_only(path: Path, what: str, input_count: int) -> None:
    if input_count != 1:
        remedy = "write a list file: one sample a line, its paths in input order, separated by commas"
        reason = f"{what} is for models with one input, this one has {input_count}"
        raise UserError(reason, stage=STAGE, file=path, remedy=remedy)


def _folder(folder: Path) -> list[Path]:
    """Data files below a folder, links followed once, hidden ones left out."""
    found: list[Path] = []
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(root, name) for name in files if is_data(Path(name)) and not name.startswith(".")]
    if not found:
        remedy = f"extensions looked for: {listing(sorted(DATA_EXTENSIONS), len(DATA_EXTENSIONS))}"
        raise UserError("the folder holds no pictures or other data", stage=STAGE, file=folder, remedy=remedy)
    return sorted(found)


def _split_prefix(argument: str) -> tuple[str, Path]:
    """`prefix:list` → (prefix, list); without such a list file ("", argument). Either part may hold colons itself."""
    if Path(argument).exists():
        return "", Path(argument)
    parts = argument.split(":")
    for cut in range(len(parts) - 1, 0, -1):
        file = Path(":".join(parts[cut:]))
        if file.is_file():
            return ":".join(parts[:cut]), file
    raise UserError("no such file or folder", stage=STAGE, file=argument)


def _list(file: Path, prefix: str, input_count: int) -> list[Sample]:
    samples: list[Sample] = []
    problems: list[UserError] = []
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            samples.append(_sample(file, prefix, line.strip(), input_count))
        except ValueError as error:
            problems.append(UserError(str(error), stage=STAGE, file=file, node=f"line {number}"))
    if len(problems) > PROBLEMS_SHOWN:
        more = len(problems) - PROBLEMS_SHOWN
        problems[PROBLEMS_SHOWN:] = [UserError(f"and {more} more lines", stage=STAGE, file=file)]
    raise_all(problems, stage=STAGE, file=file)
    if not samples:
        raise UserError("the list names no files", stage=STAGE, file=file)
    return samples


def _lines(file: Path) -> list[str]:
    try:
        return file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", stage=STAGE, file=file) from error
    except UnicodeDecodeError as error:
        remedy = f"data files end in one of: {listing(sorted(DATA_EXTENSIONS), len(DATA_EXTENSIONS))}"
        reason = "is neither a known kind of data nor a list in UTF-8"
        raise UserError(reason, stage=STAGE, file=file, remedy=remedy) from error


def _sample(file: Path, prefix: str, line: str, input_count: int) -> Sample:
    """The files of one line. Raises ValueError. One path may hold commas if the model has one input."""
    paths = [line] if input_count == 1 and _locate(file, prefix, line) else [part.strip() for part in line.split(",")]
    if len(paths) != input_count:
        raise ValueError(f"{len(paths)} paths for a model with {counted(input_count, 'input')}")
    found = [(path, _locate(file, prefix, path)) for path in paths]
    missing = [f"'{path}'" for path, place in found if place is None]
    if missing:
        where = "the current folder and the list's" if not prefix else f"'{prefix}'"
        raise ValueError(f"no such file: {', '.join(missing)} (looked in {where})")
    return tuple(place for _, place in found if place is not None)


def _locate(file: Path, prefix: str, path: str) -> Path | None:
    """The file that a path of a list means: from the current folder, else from the list's own."""
    joined = Path(prefix, path)
    return next((place for place in (joined, file.parent / joined) if path and place.is_file()), None)
