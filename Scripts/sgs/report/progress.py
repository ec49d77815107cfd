"""Progress bars: on the terminal's error stream, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import NoReturn, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def shown() -> bool:
    """Whether there is a terminal to show bars on."""
    return sys.stderr.isatty()


def progress(items: Iterable[Item], title: str) -> Iterable[Item]:
    """The items, with a bar that vanishes at the end; nothing is shown where stderr is not a terminal."""
    bar: Iterable[Item] = tqdm(items, desc=title, leave=False, disable=not shown(), dynamic_ncols=True)
    return bar


def counting(count: int, title: str) -> tqdm[NoReturn]:
    """A bar for so many items, to be counted with `update`, which tells when it has been drawn; as `progress`, it is
    disabled where stderr is not a terminal. Only `tqdm.write` may print meanwhile.
    """
    return tqdm(total=count, desc=title, leave=False, disable=not shown(), dynamic_ncols=True, mininterval=0.3)
