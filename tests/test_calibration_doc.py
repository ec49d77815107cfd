"""docs/CALIBRATION.md says what the code does: steps, numbers, options, traps, and what the report holds."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import fields

import pytest

from conventions import ROOT
from sgs.quant import traps
from sgs.quant.layers import Layer
from sgs.quant.levels import LEVELS
from sgs.quant.traps import DETECTORS, Finding
from sgs.report.calibration import record
from test_calibration import calibration, network

TEXT = (ROOT / "docs/CALIBRATION.md").read_text("utf-8")


def rows(*header: str) -> list[list[str]]:
    """Cells of the table with this header."""
    start = TEXT.index(f"| {' | '.join(header)} |")
    lines = TEXT[start:].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def coded(text: str) -> list[str]:
    """What stands in `...`."""
    return re.findall(r"`([^`]+)`", text)


@pytest.mark.parametrize("level", LEVELS)
def test_steps_are_those_of_a_run(level: str) -> None:
    work = calibration(network())
    work.run(level)
    assert dict(rows("level", "steps"))[level].split(", ") == [step.name for step in work.steps]


def test_numbers_are_those_of_the_code() -> None:
    numbers = rows("number", "value", "where")
    assert len(numbers) > 5
    for _, value, where in numbers:
        module, _, name = coded(where)[0].rpartition(".")
        assert str(getattr(importlib.import_module(f"sgs.quant.{module}"), name)) == value, where


def test_traps_are_those_that_are_looked_for() -> None:
    told = [row[0] for row in rows("trap", "what is met", "what is done")]
    names = {value for name, value in vars(traps).items() if name.isupper() and isinstance(value, str)}
    assert len(set(told)) == len(DETECTORS) and set(told) <= names


def test_the_report_holds_what_is_told() -> None:
    layer = Layer("y", "CONV_2D", 8, 0.0, 1.0, "minmax", "minmax", 1.0)
    report = json.loads(record([layer], [Finding(*(["x"] * 4))], ["y"], {}))
    told = dict(rows("key", "what it holds"))
    assert [coded(key)[0] for key in told] == list(report)
    assert coded(told["`layers`"]) == [field.name for field in fields(Layer)]
    assert set(coded(told["`findings`"])) == {field.name for field in fields(Finding)}
    header = "worst 10 of 24 layers by what 16 bit would gain the outputs"
    assert header in TEXT
