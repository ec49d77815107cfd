"""Errors of the library as ValueErrors, and arguments that several functions take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sgs.errors import UserError

AnyPath = str | os.PathLike[str]


@contextmanager
def value_errors() -> Iterator[None]:
    """Raise ValueError, with the same text, for what the library raises as UserError."""
    try:
        yield
    except UserError as error:
        raise ValueError(error.render()) from error


def path_of(value: object, what: str) -> Path:
    """The path. Raises ValueError for anything else; `what` names the argument."""
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ValueError(f"{what}: expected a path, got {told(value)}")
    return Path(value)


def positive(value: object, what: str) -> int:
    """The number. Raises ValueError unless it is a whole one above 0; `what` names the argument."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{what}: expected a whole number above 0, got {told(value)}")
    return value


def told(value: object) -> str:
    """What an error message calls an argument: its type where its value would fill the screen."""
    text = repr(value)
    return text if len(text) <= 100 and "\n" not in text else type(value).__name__
