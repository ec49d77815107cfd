"""The chip that a process works for."""

from __future__ import annotations

from sgs.config.chips import Chip, load_chip
from sgs.python_api.checks import value_errors

_SELECTED: list[Chip] = []  # the chip of this process, once chosen


def set_soc_version(name: str) -> None:
    """Choose the chip, once for the whole process. Raises ValueError for an unknown chip, or another than before."""
    if not isinstance(name, str):
        raise ValueError(f"set_soc_version: expected the name of a chip, got {name!r}")
    with value_errors():
        chip = load_chip(name)
    if _SELECTED and chip != _SELECTED[0]:
        raise ValueError(f"set_soc_version can be called once: expected {_SELECTED[0].name}, got {chip.name}")
    _SELECTED[:] = [chip]


def selected_chip() -> Chip | None:
    """The chip that was chosen, if any was."""
    return _SELECTED[0] if _SELECTED else None
