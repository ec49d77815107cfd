"""How much a flatbuffer describes, measured before it is read.

Tables, vectors and strings are found by offsets, and nothing keeps two offsets from being equal: a small file could
describe the same vector of the same table a million times in a million tables, and reading it would take forever.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

_LEAST_TABLE = 8  # bytes of a table without fields and of the reference to it
# How many times its own bytes a buffer may describe. A writer of ours shares nothing; others may share what is equal.
_SHARED = 4


@dataclass(frozen=True)
class _Parts:
    """Accessors of a generated class whose results have an extent, by name."""

    tables: tuple[str, ...]  # vectors of tables
    parts: tuple[str, ...]  # single tables
    scalars: tuple[str, ...]
    strings: tuple[str, ...]


@cache
def _parts(kind: type[object]) -> _Parts:
    methods = vars(kind)
    vectors = [name.removesuffix("Length") for name in methods if name.endswith("Length")]

    def calling(called: str) -> tuple[str, ...]:
        """Accessors of single values that call a method of this name."""
        code = {name: getattr(method, "__code__", None) for name, method in methods.items() if name not in vectors}
        return tuple(name for name in code if called in getattr(code[name], "co_names", ()))

    return _Parts(
        tables=tuple(name for name in vectors if f"{name}AsNumpy" not in methods),
        parts=calling("Init"),
        scalars=tuple(name for name in vectors if f"{name}AsNumpy" in methods),
        strings=calling("String"),
    )


def check_extent(root: object, size: int) -> None:
    """Raise ValueError when what the root table describes is larger than its buffer of `size` bytes can hold apart.

    Raises what reading a buffer that is none may raise as well.
    """
    left = _SHARED * size
    waiting: list[Iterator[object]] = [iter((root,))]
    while waiting:
        table = next(waiting[-1], None)
        if table is None:
            waiting.pop()
            continue
        kind: Any = type(table)  # mypy takes no class for hashable
        parts = _parts(kind)
        left -= _LEAST_TABLE
        left -= sum(getattr(table, f"{name}Length")() for name in parts.scalars)
        left -= sum(len(getattr(table, name)() or b"") for name in parts.strings)
        if left < 0:
            raise ValueError("its parts are larger than the file, so they lie on top of each other")
        single = [getattr(table, name)() for name in parts.parts]
        waiting.append(part for part in single if part is not None)
        waiting.extend(_tables(table, name) for name in parts.tables)


def _tables(table: object, name: str) -> Iterator[object]:
    """The tables of a vector, one by one: its length may be anything."""
    at = getattr(table, name)
    return (at(index) for index in range(getattr(table, f"{name}Length")()))
