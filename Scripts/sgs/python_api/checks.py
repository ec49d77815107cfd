"""Errors of the library as ValueErrors, and arguments that several functions take."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import index
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from sgs.errors import UserError

AnyPath = str | os.PathLike[str]


@contextmanager
def value_errors() -> Iterator[None]:
    """Raise ValueError, with the same text, for what the library raises as UserError."""
    try:
        yield
    except UserError as error:
        raise ValueError(error.render()) from error


def expected(what: str, wanted: str, got: object) -> ValueError:
    """The error of an argument `what` that is something else than wanted."""
    return ValueError(f"{what}: expected {wanted}, got {told(got)}")


def path_of(value: object, what: str) -> Path:
    """The path. Raises ValueError for anything else; `what` names the argument, here and below."""
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text:
        raise expected(what, "a path", value)
    return Path(text)


def text_of(value: object, what: str) -> str:
    """The text. Raises ValueError for anything else."""
    if not isinstance(value, str):
        raise expected(what, "a text", value)
    return value


def texts_of(value: object, what: str) -> tuple[str, ...]:
    """The texts. Raises ValueError for anything else."""
    return tuple(text_of(item, f"{what}[{n}]") for n, item in enumerate(several(value, what, "a list of texts")))


def whole(value: object, what: str, *, least: int = 0) -> int:
    """The number. Raises ValueError unless it is a whole one, at least as given."""
    wanted = f"a whole number {f'above {least - 1}' if least else 'from 0'}"
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise expected(what, wanted, value)
    try:
        number = index(value)
    except TypeError:  # an array
        raise expected(what, wanted, value) from None
    if number < least:
        raise expected(what, wanted, value)
    return number


def positive(value: object, what: str) -> int:
    """The number. Raises ValueError unless it is a whole one above 0."""
    return whole(value, what, least=1)


def several(value: object, what: str, wanted: str) -> list[Any]:
    """The items of what is no text. Raises ValueError for what has none, saying what was `wanted`."""
    if isinstance(value, (str, bytes, os.PathLike, Mapping)) or not isinstance(value, Iterable):
        raise expected(what, wanted, value)
    return list(value)


def shapes_of(value: object, what: str) -> list[list[int]]:
    """Shapes. Raises ValueError for anything else."""
    wanted = "a list of shapes such as [[1, 3, 224, 224]]"
    return [
        [positive(extent, f"{what}[{number}]") for extent in several(shape, what, wanted)]
        for number, shape in enumerate(several(value, what, wanted))
    ]


def flag(value: object, what: str) -> bool:
    """The truth value. Raises ValueError for anything else."""
    if not isinstance(value, (bool, np.bool_)):
        raise expected(what, "True or False", value)
    return bool(value)


def one_of(value: object, what: str, known: Sequence[str]) -> str:
    """The word. Raises ValueError for one that is not known."""
    if not isinstance(value, str) or value not in known:
        raise expected(what, f"one of {', '.join(known)}", value)
    return value


def function_of(value: object, what: str) -> Callable[..., Any]:
    """The function. Raises ValueError for what cannot be called."""
    if not callable(value):
        raise expected(what, "a function", value)
    return value


def entries_of(value: object, what: str, keys: Iterable[str]) -> Mapping[str, Any]:
    """The dictionary. Raises ValueError where it lacks any of the keys."""
    missing = [key for key in keys if not isinstance(value, Mapping) or key not in value]
    if not isinstance(value, Mapping) or missing:
        got = f"one without {', '.join(missing)}" if isinstance(value, Mapping) else told(value)
        raise ValueError(f"{what}: expected an entry of get_input_details(), got {got}")
    return value


def told(value: object) -> str:
    """What an error message calls an argument: its type where its value would fill the screen."""
    text = repr(value)
    return text if len(text) <= 100 and "\n" not in text else type(value).__name__
