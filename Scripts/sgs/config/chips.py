"""The chips: one ini file each under `chips/`, found by looking there. A new chip is a new file.

Every figure carries where it comes from, `public` or `modelled`; the machine model needs more than anybody published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from sgs.config import ini
from sgs.config.nearest import did_you_mean, listing
from sgs.errors import UserError, raise_all

STAGE = "chip"
FOLDER = Path(__file__).resolve().parent / "chips"
PROVENANCES = ("public", "modelled")


@dataclass(frozen=True)
class Chip:
    """A chip as the machine model sees it. Figures are of the whole IPU: all of its cores together."""

    name: str  # what --soc_version says, in lower case
    family: str  # "" where none is known
    aliases: tuple[str, ...]  # other names that --soc_version accepts
    public_figure: str  # what was published about its speed, in words
    cores: int
    macs_per_cycle: int  # 8-bit multiply-accumulates
    mac_inputs: int  # channels that the MAC array takes in a cycle, each of which meets the weights of
    mac_outputs: int  # so many result channels: the product of the two is macs_per_cycle
    int16_divisor: int  # a multiply-accumulate of 16-bit activations takes the place of so many 8-bit ones
    int4_multiplier: int  # so many multiply-accumulates with 4-bit weights take the place of one with wider ones
    vector_lanes: int  # 16-bit elements a cycle of everything that is not a multiply-accumulate
    clock_hz: int
    sram_bytes: int
    dram_bytes_per_second: int
    dram_latency_cycles: int  # of the IPU's clock, from a DMA command to its first byte
    alignment: int  # bytes, of every buffer in DRAM and SRAM
    number_formats: tuple[str, ...]  # of multiply-accumulate operands
    max_kernel: int  # height and width, each
    max_stride: int
    max_dilation: int
    max_batch: int
    provenance: Mapping[str, str] = field(default_factory=dict, compare=False)  # field name → "public" | "modelled"

    @property
    def tops(self) -> float:
        """8-bit operations a second, in units of 1e12; a multiply-accumulate counts as two."""
        return 2 * self.macs_per_cycle * self.clock_hz / 1e12

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the fields that carry a provenance, in order."""
        return tuple(f.name for f in fields(self) if f.name in self.provenance)


def _text(items: list[str]) -> str:
    return ", ".join(items)


def _words(items: list[str]) -> tuple[str, ...]:
    return tuple(item.lower() for item in items if item)


def _count(items: list[str]) -> int:
    if len(items) != 1 or not items[0].isascii() or not items[0].isdigit() or int(items[0]) < 1:
        raise ValueError(f"'{','.join(items)}' is not one whole number above 0")
    return int(items[0])


# Key of the ini = field of Chip → how its items are read. All are required but `aliases`.
KEYS: dict[str, Callable[[list[str]], Any]] = {
    "family": _text,
    "aliases": _words,
    "public_figure": _text,
    "cores": _count,
    "macs_per_cycle": _count,
    "mac_inputs": _count,
    "mac_outputs": _count,
    "int16_divisor": _count,
    "int4_multiplier": _count,
    "vector_lanes": _count,
    "clock_hz": _count,
    "sram_bytes": _count,
    "dram_bytes_per_second": _count,
    "dram_latency_cycles": _count,
    "alignment": _count,
    "number_formats": _words,
    "max_kernel": _count,
    "max_stride": _count,
    "max_dilation": _count,
    "max_batch": _count,
}


def read_chip(path: Path) -> Chip:
    """Read one chip file; the chip is called as the file is. Raises UserError with all problems of the file."""
    document = ini.parse(ini.read_text(path, stage=STAGE))
    problems = [_problem(path, f"line {fault.line}", fault.reason, fault.remedy) for fault in document.faults]
    values: dict[str, Any] = {"aliases": ()}
    provenance: dict[str, str] = {}
    for entry in document.entries:
        where = f"[{entry.section}] {entry.key}, line {entry.line}"
        origin = entry.comment.split(",")[0].strip().lower()
        if entry.section != "chip" or entry.key not in KEYS:
            problems.append(_problem(path, where, "unknown key", did_you_mean(entry.key, KEYS)))
        elif entry.key in provenance:
            problems.append(_problem(path, where, "appears a second time"))
        elif origin not in PROVENANCES:
            problems.append(_problem(path, where, "has no provenance", "end the line with `; public` or `; modelled`"))
        else:
            provenance[entry.key] = origin
            try:
                values[entry.key] = KEYS[entry.key](entry.items)
            except ValueError as error:
                problems.append(_problem(path, where, str(error)))
    reported = {entry.key for entry in document.entries}
    missing = [key for key in KEYS if key not in values and key not in reported]
    if missing:
        problems.append(_problem(path, "[chip]", f"lacks {listing(missing)}"))
    raise_all(problems, stage=STAGE, file=path)
    chip = Chip(name=path.stem.lower(), provenance=provenance, **values)
    raise_all([_problem(path, "[chip]", reason) for reason in _contradictions(chip)], stage=STAGE, file=path)
    return chip


def _contradictions(chip: Chip) -> Iterator[str]:
    """Figures that do not fit each other."""
    if chip.mac_inputs * chip.mac_outputs != chip.macs_per_cycle:
        array = f"mac_inputs {chip.mac_inputs} times mac_outputs {chip.mac_outputs}"
        yield f"{array} is not macs_per_cycle {chip.macs_per_cycle}"
    if chip.alignment < 8 or chip.alignment & (chip.alignment - 1):
        yield f"alignment {chip.alignment} is no power of two from 8 on"
    if chip.int4_multiplier != 1 and "int4" not in chip.number_formats:
        yield f"int4_multiplier {chip.int4_multiplier} is for chips with int4 among their number_formats; else it is 1"


def _problem(path: Path, where: str, reason: str, remedy: str | None = None) -> UserError:
    return UserError(reason, stage=STAGE, file=path, node=where, remedy=remedy)


def chip_facts(chip: Chip) -> dict[str, Any]:
    """A chip as JSON-like values; each figure with its provenance."""
    figures = {name: {"value": getattr(chip, name), "provenance": chip.provenance[name]} for name in chip.figures}
    return {"name": chip.name, "tops": round(chip.tops, 3), **figures}


@lru_cache(maxsize=1)
def all_chips() -> tuple[Chip, ...]:
    """Every chip, by name. Raises UserError for a chip file that is wrong, or two that answer to one name."""
    chips = tuple(read_chip(path) for path in sorted(FOLDER.glob("*.ini")))
    owners: dict[str, str] = {}
    for chip in chips:
        for word in {chip.name, *chip.aliases}:
            other = owners.setdefault(word, chip.name)
            if other != chip.name:
                reason = f"{chip.name} and {other} both answer to '{word}'"
                raise UserError(reason, stage=STAGE, file=FOLDER, remedy="leave `aliases` of one of them empty")
    return chips


def load_chip(name: str) -> Chip:
    """The chip of this name or alias, in any case. Raises UserError that lists the chips."""
    wanted = name.strip().lower()
    by_word = {word: chip for chip in all_chips() for word in (chip.name, *chip.aliases)}
    if wanted in by_word:
        return by_word[wanted]
    known = [chip.name for chip in all_chips()]
    guess = did_you_mean(wanted, by_word)
    remedy = f"known: {listing(known, len(known))}" + ("" if guess.startswith("known") else f"; {guess}")
    raise UserError(f"unknown chip '{name}'", stage="soc_version", remedy=remedy)
