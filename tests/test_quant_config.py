"""quant_config.yaml: what is read, what is refused and how that is told, and what a mode makes of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conventions import ROOT
from sgs.config.quant_config import (
    ALIASES,
    KEYS,
    MODE_NAMES,
    MODES,
    PAIRS,
    Preset,
    QuantConfig,
    mode_named,
    parse_quant_config,
    read_quant_config,
)
from sgs.errors import UserError
from sgs.quant.levels import LEVELS
from shipped import FOLDER

FILE = Path("q.yaml")


def read(text: str) -> QuantConfig:
    return parse_quant_config(text, FILE)


def refused(text: str) -> list[str]:
    """The lines of the error."""
    with pytest.raises(UserError) as caught:
        read(text)
    assert caught.value.exit_code == 2
    return caught.value.render().splitlines()


def settings(*lines: str) -> str:
    return "\n  ".join(["QUANT_CONFIG:", *lines]) + "\n"


def test_everything_that_a_file_may_say() -> None:
    text = settings("retrain_iter_num: 7", "device: CUDA:1", "mixed_precisions: [8, 16]", "mp_rate: 0.75")
    text += "  use_preset_min_max_bit: 1\nPRESET_MIN_MAX_BIT: [\n  {name: '126', min: -1, max: 2.5, bit: 8},\n"
    text += "  {name: a/weight, min: null, max: null, bit: 4}, {name: b, min: 0, max: 0}]\n"
    presets = Preset("126", -1.0, 2.5, 8), Preset("a/weight", bit=4), Preset("b", 0.0, 0.0)
    assert read(text) == QuantConfig(FILE, 7, "cuda:1", (8, 16), 0.75, presets, True)
    inside = text.replace("\nPRESET", "\n  PRESET")
    assert read(inside) == read(text)


@pytest.mark.parametrize("text", ["QUANT_CONFIG:", "QUANT_CONFIG: {}", settings("mp_rate:", "device: ~")])
def test_what_is_left_out_is_as_the_manual_says(text: str) -> None:
    assert read(text) == QuantConfig(FILE, 40, "", None, None, (), False)


def test_the_shipped_file() -> None:
    config = read_quant_config(FOLDER / "quant_config.yaml")
    assert (config.retrain_iter_num, config.device, config.mixed_precisions) == (40, "", None)
    assert config.presets == (Preset("images", -1.0, 1.0, 8), Preset("logits/weight", bit=16))
    assert config.settings()["PRESET_MIN_MAX_BIT"] == [], "which it does not use"
    used = replace(config, use_presets=True).settings()["PRESET_MIN_MAX_BIT"]
    assert used[0] == {"name": "images", "min": -1.0, "max": 1.0, "bit": 8}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("retrain_iter_num: 0", "'0' is not a whole number above 0"),
        ("retrain_iter_num: 4.0", "'4.0' is not a whole number above 0"),
        ("retrain_iter_num: true", "'true' is not a whole number above 0"),
        ("device: gpu", "'gpu' is not a device"),
        ("device: 'cuda:'", "is not a device"),
        ("device: 0", "'0' is not a device"),
        ("mixed_precisions: [8, 4]", "'[8, 4]' is not a pair of precisions (write [4, 8] or [8, 16])"),
        ("mixed_precisions: 4", "'4' is not a pair"),
        ("mp_rate: 0.2499", "'0.2499' is out of range"),
        ("mp_rate: 1.01", "'1.01' is out of range"),
        ("mp_rate: .nan", "'.nan' is not a finite number"),
        ("mp_rate: 0x" + "f" * 300, "is not a finite number"),
        ("mp_rate: '0.5'", "'0.5' is text"),
        ("mp_rate: true", "'true' is not a finite number"),
        ("use_preset_min_max_bit: 2", "'2' is neither 0 nor 1"),
        ("use_preset_min_max_bit: 1.0", "'1.0' is neither 0 nor 1"),
        ("use_preset_min_max_bit: 1", "there is no PRESET_MIN_MAX_BIT"),
        ("retrain_iter: 3", "unknown key (did you mean retrain_iter_num?)"),
        ("PRESET_MIN_MAX_BIT: {}", "is no list"),
        ("PRESET_MIN_MAX_BIT: [3]", "holds no key: value pairs"),
        ("PRESET_MIN_MAX_BIT: [{name: 126, bit: 8}]", "'126' is not text (put the name in quotes: \"126\")"),
        ("PRESET_MIN_MAX_BIT: [{bit: 8}]", "has no name"),
        ("PRESET_MIN_MAX_BIT: [{name: a}]", "says nothing"),
        ("PRESET_MIN_MAX_BIT: [{name: a, bit: 5}]", "'5' is not one of 4, 8, 16"),
        ("PRESET_MIN_MAX_BIT: [{name: a, min: 1}]", "has only one of min and max"),
        ("PRESET_MIN_MAX_BIT: [{name: a, min: 2, max: 1}]", "min 2 is above max 1"),
        ("PRESET_MIN_MAX_BIT: [{name: a, min: 0, max: 1.0e+39}]", "beyond what float32 holds"),
        ("PRESET_MIN_MAX_BIT: [{name: a, bit: 8}, {name: a, bit: 8}]", "'a' is there 2 times"),
        ("PRESET_MIN_MAX_BIT: [{name: a, bt: 8}]", "unknown key (did you mean bit?)"),
    ],
)
def test_a_value_that_cannot_be(line: str, told: str) -> None:
    lines = refused(settings(line))
    assert lines[0].startswith("quant_config: q.yaml: ")
    assert any(told in text and "line 2" in text for text in lines), lines


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty (write QUANT_CONFIG: and below it, indented, keys such as retrain_iter_num: 40)"),
        ("# nothing\n", "is empty"),
        ("- a", "the file, line 1: holds no key: value pairs"),
        ("retrain_iter_num: 3", "retrain_iter_num, line 1: unknown key (it belongs under QUANT_CONFIG:, indented)"),
        ("PRESET_MIN_MAX_BIT: []", "QUANT_CONFIG: is missing"),
        (settings("mp_rate: 0.3", "mp_rate: 0.4"), "mp_rate, line 3: appears a second time; the first is on line 2"),
        ("QUANT_CONFIG:\nQUANT_CONFIG:", "QUANT_CONFIG, line 2: appears a second time"),
        (settings("PRESET_MIN_MAX_BIT:") + "PRESET_MIN_MAX_BIT:", "is there inside and outside of QUANT_CONFIG"),
        ("QUANT_CONFIG:\n\tmp_rate: 1", "line 2: is not YAML"),
        ("a: 1\n---\nb: 1", "is not YAML"),
        ("QUANT_CONFIG: {device: 2000-99-99}", "is not YAML: month must be"),
        ("QUANT_CONFIG: {device: !!python/name:os.system x}", "is not YAML"),
        ("[" * 2000, "is not YAML"),
        ("QUANT_CONFIG: {? [a] : 3}", "unknown key"),
        (settings("mixed_precisions: [4, 8]", "mp_rate: 0.5"), "0.5 is out of range for mixed_precisions [4, 8]"),
        (settings("mixed_precisions: [8, 16]", "mp_rate: 0.49"), "it takes from 0.5 to 1"),
    ],
)
def test_a_file_that_cannot_be(text: str, told: str) -> None:
    assert any(told in line for line in refused(text)), refused(text)


def test_all_problems_are_told_in_order() -> None:
    lines = refused(settings("mp_rate: 3", "PRESET_MIN_MAX_BIT: [{name: 1, bit: 3}]", "device: x", "devise: x"))
    assert lines[0] == "quant_config: q.yaml: 5 problems"
    order = ["mp_rate, line 2", "PRESET_MIN_MAX_BIT name, line 3", "PRESET_MIN_MAX_BIT bit, line 3", "device, line 4"]
    assert [line.strip(" -").split(":")[0] for line in lines[1:]] == [*order, "devise, line 5"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: cannot be read: No such file"):
        read_quant_config(tmp_path / "none.yaml")
    (tmp_path / "q.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        read_quant_config(tmp_path / "q.yaml")


# -- modes -------------------------------------------------------------------------------------------------------------
def test_modes_are_those_of_the_manual() -> None:
    assert set(MODE_NAMES) == {"Q1", "Q10", "Q11", "Q12", "Q13", "Q2", "Q20", "Q21", "Q22", "Q23"}
    assert mode_named("q1") is MODES["Q11"] and mode_named("q2") is MODES["Q22"] and mode_named("q13") is MODES["Q13"]
    assert {mode.name for mode in MODES.values() if mode.retrains} == {"Q20", "Q21", "Q22", "Q23"}
    assert {mode.name for mode in MODES.values() if mode.mixed} == {"Q13", "Q23"}
    assert {mode.level for mode in MODES.values()} <= set(LEVELS) and not ALIASES.keys() & MODES.keys()


@pytest.mark.parametrize(
    ("mode", "more", "pair"),
    [
        ("Q13", {}, (4, 8)),
        ("Q23", {}, (8, 16)),
        ("Q23", {"mp_rate": 0.3}, (4, 8)),
        ("Q13", {"mp_rate": 0.5}, (8, 16)),
        ("Q13", {"mixed_precisions": (8, 16)}, (8, 16)),
        ("Q23", {"mixed_precisions": (4, 8), "mp_rate": 0.4}, (4, 8)),
    ],
)
def test_the_pair_of_a_mode(mode: str, more: dict[str, Any], pair: tuple[int, int]) -> None:
    assert QuantConfig(FILE, **more).pair(MODES[mode]) == pair in PAIRS


# -- the page for users ------------------------------------------------------------------------------------------------
PAGE = (ROOT / "docs/TORCH_CALIBRATOR.md").read_text("utf-8")


def rows(header: str) -> list[list[str]]:
    """Cells of the table whose first heading this is."""
    lines = PAGE[PAGE.index(f"| {header} |") :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_modes_are_told_as_they_are() -> None:
    for names, precision, level, then in rows("`-q`"):
        name, *others = re.findall(r"Q\d+", names)
        mode = MODES[name]
        assert others == [alias for alias, meant in ALIASES.items() if meant == name]
        told = {"all 16 bit": "ALL_INT16", "all 8 bit": "ALL_UINT8"}.get(precision)
        assert (told, level, "retraining" in then) == (mode.input_format, mode.level, mode.retrains)
        assert (str(list(mode.mixed)) in then) if mode.mixed else "mixed" not in then
    assert len(rows("`-q`")) == len(MODES)


def test_keys_are_told_as_they_are() -> None:
    assert {row[0].strip("`") for row in rows("key")} == {*KEYS, "PRESET_MIN_MAX_BIT"}
    example = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    config = read(example[1])
    assert (config.device, config.mixed_precisions, config.mp_rate, len(config.presets)) == ("cuda:0", (4, 8), 0.35, 2)
