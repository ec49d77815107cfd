"""quant_config.yaml: what torch_calibrator is told beside input_config.ini, and the modes that it has.

`read_quant_config` reads the file strictly and reports all of its problems at once. Every key is a row of `KEYS`: the
function that makes a setting of its value; a key without a value is as good as none.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from sgs.config import ini
from sgs.config.nearest import did_you_mean
from sgs.errors import UserError, raise_all

STAGE = "quant_config"
QUANT, PRESETS = "QUANT_CONFIG", "PRESET_MIN_MAX_BIT"
PRESET_KEYS = ("name", "min", "max", "bit")
EXAMPLE = "write QUANT_CONFIG: and below it, indented, keys such as retrain_iter_num: 40"
PAIRS = ((4, 8), (8, 16))  # of mixed precision
RATES = {(4, 8): "from 0.25 to below 0.5", (8, 16): "from 0.5 to 1"}
BITS = (4, 8, 16)
LARGEST = 3.4e38  # of binary32
Pair = tuple[int, int]


# -- the modes ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Mode:
    """A recipe: `level` of the calibrator, with the precision that `input_format` asks of all sums of products as in
    [CONV_CONFIG] (None: 8 or 16 bit as the calibrator decides); then mixed precision, of the two widths `mixed` where
    nothing else is said; then retraining, where it `retrains`."""

    name: str
    level: str
    input_format: str | None
    mixed: Pair | None = None
    retrains: bool = False


MODES = {
    mode.name: mode
    for mode in (
        Mode("Q10", "L3", "ALL_INT16"),
        Mode("Q11", "L3", "ALL_UINT8"),
        Mode("Q12", "L5", None),
        Mode("Q13", "L3", "ALL_UINT8", mixed=(4, 8)),
        Mode("Q20", "L5", "ALL_INT16", retrains=True),
        Mode("Q21", "L5", "ALL_UINT8", retrains=True),
        Mode("Q22", "L5", None, retrains=True),
        Mode("Q23", "L5", "ALL_UINT8", mixed=(8, 16), retrains=True),
    )
}
ALIASES = {"Q1": "Q11", "Q2": "Q22"}
MODE_NAMES = tuple(sorted([*MODES, *ALIASES]))


def mode_named(name: str) -> Mode:
    """The mode of a name or alias in any case. Raises KeyError for others."""
    return MODES[ALIASES.get(name.upper(), name.upper())]


# -- the model of the file ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Preset:
    """What one entry says of a tensor of the float network: its range, its precision, or both."""

    name: str
    low: float | None = None
    high: float | None = None
    bit: int | None = None


@dataclass(frozen=True)
class QuantConfig:
    """A whole quant_config.yaml. `device` is "" (one that is idle), "cpu", "cuda" or "cuda:N"; `mixed_precisions` and
    `mp_rate` are None where they are left to the tool; `presets` count where `use_presets`."""

    path: Path
    retrain_iter_num: int = 40
    device: str = ""
    mixed_precisions: Pair | None = None
    mp_rate: float | None = None
    presets: tuple[Preset, ...] = ()
    use_presets: bool = False

    def pair(self, mode: Mode) -> Pair:
        """The two widths of a mode of mixed precision: as the file says, or its rate, or the mode."""
        assert mode.mixed is not None
        if self.mixed_precisions is None and self.mp_rate is not None:
            return PAIRS[self.mp_rate >= 0.5]
        return self.mixed_precisions or mode.mixed

    def widths(self, mode: Mode) -> set[int]:
        """Precisions of sums of products that the file and the mode ask for, those of a level left out."""
        preset = {entry.bit for entry in self.presets if self.use_presets and entry.bit is not None}
        return preset | (set() if mode.mixed is None else set(self.pair(mode)))

    def settings(self) -> dict[str, Any]:
        """What counts of it, by key, for the record of a calibration."""
        used = [{"name": p.name, "min": p.low, "max": p.high, "bit": p.bit} for p in self.presets if self.use_presets]
        return {
            "retrain_iter_num": self.retrain_iter_num,
            "device": self.device,
            "mixed_precisions": None if self.mixed_precisions is None else list(self.mixed_precisions),
            "mp_rate": self.mp_rate,
            PRESETS: used,
        }


# -- values ------------------------------------------------------------------------------------------------------------
def _iterations(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ini.Malformed(f"{_shown(value)} is not a whole number above 0", "write 40, or more for small networks")
    return value


def _device(value: object) -> str:
    text = value.strip().lower() if isinstance(value, str) else None
    if text is None or not re.fullmatch(r"|cpu|cuda(:\d{1,3})?", text, re.ASCII):
        remedy = "write 'cpu', 'cuda' or 'cuda:0', or leave the key out"
        raise ini.Malformed(f"{_shown(value)} is not a device", remedy)
    return text


def _pair(value: object) -> Pair:
    for pair in PAIRS:
        if value == list(pair) and all(type(number) is int for number in value):
            return pair
    raise ini.Malformed(f"{_shown(value)} is not a pair of precisions", "write [4, 8] or [8, 16]")


def _rate(value: object) -> float:
    number = _number(value)
    if not 0.25 <= number <= 1:
        remedy = f"[4, 8] takes {RATES[4, 8]}, [8, 16] {RATES[8, 16]}"
        raise ini.Malformed(f"{_shown(value)} is out of range", remedy)
    return number


def _switch(value: object) -> bool:
    if value not in (0, 1) or not isinstance(value, int):
        raise ini.Malformed(f"{_shown(value)} is neither 0 nor 1", "write 1 to use PRESET_MIN_MAX_BIT")
    return bool(value)


def _number(value: object) -> float:
    if isinstance(value, str):
        raise ini.Malformed(f"{_shown(value)} is text", "write a number like 0.5 or 1.0e-3")
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise ini.Malformed(f"{_shown(value)} is not a finite number", "write one like 0.5")
    return float(value)


def _shown(value: object) -> str:
    """A value for a message, as YAML has it."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).removesuffix("...\n").strip()
    return f"'{ini.shortened(text)}'" if not text.startswith("'") else ini.shortened(text)


KEYS: dict[str, Callable[[object], Any]] = {
    "retrain_iter_num": _iterations,
    "device": _device,
    "use_preset_min_max_bit": _switch,
    "mixed_precisions": _pair,
    "mp_rate": _rate,
}


# -- reading -----------------------------------------------------------------------------------------------------------
def read_quant_config(path: str | Path) -> QuantConfig:
    """Read a quant_config.yaml. Raises UserError (`Problems` if there are several) naming key and line."""
    path = Path(path)
    return parse_quant_config(ini.read_text(path, stage=STAGE), path)


def parse_quant_config(text: str, path: Path) -> QuantConfig:
    """The settings in the text of a file; `path` is for messages. Raises UserError as `read_quant_config`."""
    reader = _Reader(path)
    try:
        loader = yaml.SafeLoader(text)
        try:
            config = reader.config(loader, loader.get_single_node())
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: dates such as 2000-99-99
        raise UserError(_told(error), stage=STAGE, file=path, node=_place(error), remedy=EXAMPLE) from error
    raise_all(reader.in_file_order(), stage=STAGE, file=path)
    return config


def _told(error: Exception) -> str:
    words = [getattr(error, "context", None), getattr(error, "problem", None) or getattr(error, "reason", None)]
    return f"is not YAML: {', '.join(filter(None, words)) or error or type(error).__name__}"


def _place(error: Exception) -> str | None:
    mark = getattr(error, "problem_mark", None)
    return None if mark is None else f"line {mark.line + 1}"


class _Reader:
    """Makes settings of YAML nodes; what is wrong with them is collected with its line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._problems: list[tuple[int, UserError]] = []

    def in_file_order(self) -> list[UserError]:
        return [error for _, error in sorted(self._problems, key=lambda pair: pair[0])]

    def problem(self, node: yaml.Node | None, where: str, reason: str, remedy: str | None = None) -> None:
        line = 0 if node is None else node.start_mark.line + 1
        place = f"{where}, line {line}" if line else where
        self._problems.append((line, UserError(reason, stage=STAGE, file=self.path, node=place, remedy=remedy)))

    def config(self, loader: yaml.SafeLoader, root: yaml.Node | None) -> QuantConfig:
        """With problems recorded the result is not complete and must not be used."""
        if root is None:
            raise UserError("is empty", stage=STAGE, file=self.path, remedy=EXAMPLE)
        self.loader = loader
        top = dict(self.entries(root, "the file", (QUANT, PRESETS)))
        if QUANT not in top:
            self.problem(None, QUANT, "is missing", EXAMPLE)
        inner = dict(self.entries(top[QUANT], QUANT, (*KEYS, PRESETS))) if QUANT in top else {}
        if PRESETS in inner and PRESETS in top:
            self.problem(inner[PRESETS], PRESETS, "is there inside and outside of QUANT_CONFIG", "keep one of the two")
        values = {key: self.value(key, inner[key], read) for key, read in KEYS.items() if key in inner}
        listed = top.get(PRESETS, inner.get(PRESETS))
        presets = () if listed is None else tuple(self.presets(listed))
        known = {key: value for key, value in values.items() if value is not None}
        use = known.pop("use_preset_min_max_bit", False)
        config = replace(QuantConfig(self.path, presets=presets, use_presets=use), **known)
        self.check_together(config, inner, listed)
        return config

    def check_together(self, config: QuantConfig, inner: Mapping[str, yaml.Node], listed: yaml.Node | None) -> None:
        """What spans several keys."""
        pair, rate = config.mixed_precisions, config.mp_rate
        if pair is not None and rate is not None and PAIRS[rate >= 0.5] != pair:
            reason = f"{rate:g} is out of range for mixed_precisions {list(pair)}"
            self.problem(inner["mp_rate"], "mp_rate", reason, f"it takes {RATES[pair]}")
        if config.use_presets and (listed is None or self.is_null(listed)):
            remedy = f'write {PRESETS}: [{{name: "x", min: -1.0, max: 1.0, bit: 8}}], or 0 here'
            node = inner["use_preset_min_max_bit"]
            self.problem(node, "use_preset_min_max_bit", f"is 1, and there is no {PRESETS}", remedy)

    @staticmethod
    def is_null(node: yaml.Node) -> bool:
        return bool(node.tag == "tag:yaml.org,2002:null")

    def entries(self, node: yaml.Node, where: str, known: tuple[str, ...]) -> Iterator[tuple[str, yaml.Node]]:
        """(key, value) of a mapping, no key twice and none that is not known; nothing of a null."""
        if self.is_null(node):
            return
        if not isinstance(node, yaml.MappingNode):
            self.problem(node, where, "holds no key: value pairs", f"known: {', '.join(known)}")
            return
        lines: dict[str, int] = {}
        for key_node, value in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            if key in lines:
                reason = f"appears a second time; the first is on line {lines[key]}"
                self.problem(key_node, key, reason, "keep one of the two")
                continue
            lines[key] = key_node.start_mark.line + 1
            if key in known:
                yield key, value
                continue
            remedy = f"it belongs under {QUANT}:, indented" if key in KEYS else did_you_mean(key, known)
            self.problem(key_node, key, "unknown key", remedy)

    def value(self, where: str, node: yaml.Node, read: Callable[[object], Any]) -> Any:
        """The setting, None for a null and for what is at fault."""
        value = self.loader.construct_object(node, deep=True)
        try:
            return None if value is None else read(value)
        except ini.Malformed as error:
            self.problem(node, where, str(error), error.remedy)
            return None

    def presets(self, node: yaml.Node) -> Iterator[Preset]:
        if self.is_null(node):
            return
        if not isinstance(node, yaml.SequenceNode):
            self.problem(node, PRESETS, "is no list", 'write [{name: "x", min: -1.0, max: 1.0, bit: 8}]')
            return
        found = [preset for entry in node.value if (preset := self.preset(entry)) is not None]
        for name, count in Counter(preset.name for preset in found).items():
            if count > 1:
                self.problem(node, PRESETS, f"'{name}' is there {count} times", "keep one of them")
        yield from found

    def preset(self, node: yaml.Node) -> Preset | None:
        """None for what is at fault."""
        count = len(self._problems)
        given = dict(self.entries(node, PRESETS, PRESET_KEYS))
        readers: dict[str, Callable[[object], Any]] = {"name": _name, "min": _number, "max": _number, "bit": _bit}
        values = {key: self.value(f"{PRESETS} {key}", given[key], readers[key]) for key in PRESET_KEYS if key in given}
        if len(self._problems) > count:
            return None
        preset = Preset(values.get("name") or "", values.get("min"), values.get("max"), values.get("bit"))
        for reason, remedy in _preset_faults(preset):
            self.problem(node, f"{PRESETS} '{preset.name}'" if preset.name else PRESETS, reason, remedy)
        return preset if len(self._problems) == count else None


def _name(value: object) -> str:
    if not isinstance(value, str) or not value:
        shown = _shown(value)
        raise ini.Malformed(f"{shown} is not text", f'put the name in quotes: "{shown.strip(chr(39))}"')
    return value


def _bit(value: object) -> int:
    if type(value) is not int or value not in BITS:
        raise ini.Malformed(f"{_shown(value)} is not one of {', '.join(map(str, BITS))}", "or null: as is decided")
    return value


def _preset_faults(preset: Preset) -> Iterator[tuple[str, str | None]]:
    """(what is wrong, remedy) of values that are right each for itself."""
    low, high = preset.low, preset.high
    if not preset.name:
        yield "has no name", "name a tensor of the float .sim"
    if (low is None) != (high is None):
        yield "has only one of min and max", "give both, or null for both"
    elif low is not None and high is not None:
        if low > high:
            yield f"min {low:g} is above max {high:g}", None
        if max(abs(low), abs(high)) > LARGEST:
            yield f"min {low:g} and max {high:g} are beyond what float32 holds", None
    elif preset.bit is None:
        yield "says nothing: min, max and bit are null", "give min and max, bit, or all of them"
