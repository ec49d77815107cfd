"""docs/OPERATORS.md and docs/MACHINE.md say what the tables, the chip files and the code do."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace

import pytest

import sgs.ops  # noqa: F401  fills the tables
from conventions import ROOT
from sgs.compile.cost import array_cycles
from sgs.compile.legalise import CHIP_LIMITS, LIMITS, told_by
from sgs.config.chips import KEYS, all_chips, load_chip
from sgs.img import Space
from sgs.registry import CONSTRAINTS, COST, IMPORT_ONNX, OPERATOR, TILE, MacShape
from sgs.report.documents import MARKERS, generated, with_chips
from sgs.report.markdown import table
from test_calibration_doc import coded

DOCS = ROOT / "docs"
MACHINE, OPERATORS = ((DOCS / name).read_text("utf-8") for name in ("MACHINE.md", "OPERATORS.md"))


def rows(text: str, *header: str) -> list[list[str]]:
    """Cells of the table with this header."""
    start = text.index(f"| {' | '.join(header)} |")
    lines = text[start:].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@pytest.mark.parametrize("name", ["OPERATORS.md", "MACHINE.md"])
def test_generated_documents_are_fresh(name: str) -> None:
    text = (DOCS / name).read_text("utf-8")
    assert generated(DOCS)[name] == text, f"docs/{name} is stale: run `make docs` (python docs/generate.py)"


def test_the_table_of_chips_stands_between_its_markers() -> None:
    page = f"before\n{MARKERS[0]}old\n{MARKERS[1]}after\n"
    made = with_chips(page)
    assert made.startswith(f"before\n{MARKERS[0]}\n| chip |") and made.endswith(f"|\n\n{MARKERS[1]}after\n")
    assert "old" not in made and with_chips(made) == made
    with pytest.raises(ValueError, match="lacks the lines"):
        with_chips("no markers")


def test_tables_in_markdown() -> None:
    assert table(("a", "b"), [("1|2", "")]) == "| a | b |\n|---|---|\n| 1\\|2 |  |\n"


# ---- OPERATORS.md ----------------------------------------------------------------------------------------------------


def test_every_operator_is_listed() -> None:
    listed = rows(OPERATORS, "operator", "what it does", "networks", "formats", "executed")
    assert [coded(row[0])[0] for row in listed] == list(OPERATOR)
    assert all(all(row) for row in listed)
    assert [coded(row[0])[0] for row in rows(OPERATORS, "ONNX operator", "becomes")] == list(IMPORT_ONNX)


def test_every_rule_that_users_read_is_told() -> None:
    told = OPERATORS.replace("\\|", "|")
    limits = [*LIMITS, *(limit for op in CONSTRAINTS for limit in CONSTRAINTS[op])]
    others = [*(TILE[op].axes for op in TILE), *(COST[op] for op in TILE)]
    for rule in (*limits, *others, *CHIP_LIMITS):
        assert inspect.getdoc(rule), f"{rule.__module__}.{rule.__qualname__} has no docstring, which is what users read"
    assert [told_by(rule) for rule in (*limits, *others) if told_by(rule) not in told] == []
    for chip in all_chips():
        assert all(told_by(limit, chip) in told for limit in CHIP_LIMITS)


def test_what_onnx_operators_become() -> None:
    becomes = {coded(op)[0]: coded(ours) for op, ours in rows(OPERATORS, "ONNX operator", "becomes")}
    assert {"CONV_2D", "DEPTHWISE_CONV_2D"} <= set(becomes["Conv"])
    assert becomes["Gelu"] == ["GELU"]
    assert becomes["Identity"] == []
    assert {op for ours in becomes.values() for op in ours} <= set(OPERATOR)


# ---- MACHINE.md ------------------------------------------------------------------------------------------------------


def test_utilisation_is_that_of_the_model() -> None:
    header = ("layer", "groups", "inputs", "outputs", "taps", "cycles a position", "utilisation")
    chip = replace(load_chip("ibopper"), mac_inputs=16, mac_outputs=16, macs_per_cycle=256)
    for _, *figures, cycles, utilisation in rows(MACHINE, *header):
        shape = MacShape(*map(int, figures))
        assert array_cycles(shape, chip) == int(cycles)
        assert f"{100 * shape.macs / (int(cycles) * 256):.3g} %" == utilisation


def test_spaces_and_keys_are_those_of_the_code() -> None:
    assert {row[0] for row in rows(MACHINE, "space", "where", "what it holds", "access")} == {s.name for s in Space}
    described = set(KEYS) - {"family", "aliases", "public_figure", "cores"}
    assert [key for key in described if f"`{key}`" not in MACHINE] == []


def test_operators_of_the_array_are_those_that_have_a_shape() -> None:
    (row,) = [row for row in rows(MACHINE, "engine", "does", "cycles that it is busy", "latency") if "MAC" in row[0]]
    work = rows(OPERATORS, "operators", "operations")
    assert set(coded(row[1])) == {op for ops, text in work if text.startswith("Products") for op in coded(ops)}
