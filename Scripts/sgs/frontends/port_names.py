"""The names of a source's inputs and outputs, in the order of whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sgs.errors import UserError, raise_all


def ordered(path: Path, what: str, present: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """The source's input or output names (`what`) in the caller's order. Every input must be named; outputs may be left
    out. Raises UserError for others than are present."""
    if wanted is None:
        return list(present)
    told = f"{what}s of the model: {', '.join(present)}"
    problems = [(f"'{name}' is not an {what} of the model", told) for name in wanted if name not in present]
    twice = [name for name in dict.fromkeys(wanted) if list(wanted).count(name) > 1]
    problems += [(f"{what} '{name}' is named twice", told) for name in twice]
    if what == "input":
        problems += [(f"input '{name}' is missing", told) for name in present if name not in wanted]
    raise_all(
        [UserError(reason, stage="convert", file=path, remedy=remedy) for reason, remedy in problems],
        stage="convert",
        file=path,
    )
    return list(wanted)
