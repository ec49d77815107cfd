"""The files of source models of all frameworks: whether they are there, their bytes, and what is said of them."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sgs.errors import UserError

LARGEST_MESSAGE = 2**31 - 1  # bytes of a protocol buffer


def refused(path: Path, reason: str, remedy: str) -> UserError:
    return UserError(reason, stage="convert", file=path, remedy=remedy)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def require_file(path: Path, remedy: str) -> None:
    """Raise UserError where there is no file."""
    if not path.is_file():
        raise refused(path, "is a folder" if path.is_dir() else "no such file", remedy)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What the system has against reading a file, as a UserError."""
    try:
        yield
    except OSError as error:
        raise refused(path, f"cannot be read: {error.strerror or error}", "check its permissions") from error


def mapped(path: Path, kind: str, *, again: str, smaller: str) -> mmap.mmap:
    """The bytes of a file that is there, mapped. Raises UserError for one that is empty, or larger than a protocol
    buffer may be. `kind`: such as "an ONNX file"; `again` and `smaller`: the remedies."""
    with reading(path):
        size = path.stat().st_size
        if size == 0:
            raise refused(path, "is empty", again)
        if size > LARGEST_MESSAGE:
            raise refused(path, f"is larger than the 2 GiB that {kind} may have", smaller)
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def digest_of(*paths: Path) -> str:
    """SHA-256 of files one behind the other; of a folder, those of its files behind their names. Raises UserError."""
    found = hashlib.sha256()
    for path in paths:
        inner = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in inner:
            if file is not path:
                found.update(f"{file.relative_to(path).as_posix()}\0".encode())
            with reading(file), file.open("rb") as opened:
                while block := opened.read(1 << 20):
                    found.update(block)
    return found.hexdigest()
