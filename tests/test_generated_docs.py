"""docs/OPERATORS.md, docs/MACHINE.md and docs/tools/ say what the tables, chip files, parsers and the code do."""

from __future__ import annotations

import argparse
import inspect
import re
import runpy
from dataclasses import replace
from types import SimpleNamespace

import pytest

import sgs.ops  # noqa: F401  fills the tables
from conventions import ROOT
from sgs.cli import convert_tool
from sgs.cli.manual import options_text, parsers_of
from sgs.cli.program import Parser
from sgs.compile.cost import array_cycles
from sgs.compile.legalise import CHIP_LIMITS, LIMITS, told_by
from sgs.config.chips import KEYS, all_chips, load_chip
from sgs.img import Space
from sgs.registry import CONSTRAINTS, COST, IMPORT_ONNX, OPERATOR, TILE, MacShape
from sgs.report.documents import MARKERS, between_markers, generated
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


def test_pages_of_the_programs_are_fresh() -> None:
    """All options of each, and in front of them what is written by hand: what it does, and an example that runs it."""
    generate = runpy.run_path(str(DOCS / "generate.py"))
    pages = generate["tool_pages"]()
    assert sorted(pages) == sorted(f"tools/{page.name}" for page in (DOCS / "tools").iterdir())
    stale = [page for page, text in pages.items() if (DOCS / page).read_text("utf-8") != text]
    assert stale == [], "run `make docs` (python docs/generate.py)"
    for page, program in zip(pages, generate["programs"](), strict=True):
        introduction = pages[page].partition("## Options")[0]
        assert len(introduction.split()) > 40 and f"python {program} " in introduction, page


def test_options_are_told_with_what_goes_with_them() -> None:
    parser = Parser(prog="x.py")
    parser.add_argument("-m", "--model", metavar="SIM", required=True, help="the <file>, 100 %% or *all* of `<it>`")
    parser.add_argument("--hidden", help=argparse.SUPPRESS)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--few", action="store_true", help="few")
    either.add_argument("--names", metavar="A", nargs="+", default=["q"], help="these (default: %(default)s)")
    made = options_text(SimpleNamespace(parser=lambda: parser))
    assert made.splitlines()[2:] == [
        "| `-m`, `--model` `SIM` | **required:** the \\<file>, 100 % or \\*all\\* of `<it>` |",
        "| `--few` | few; not beside `--names` |",
        "| `--names` `A [A ...]` | these (default: ['q']); not beside `--few` |",
    ]


def test_options_of_platforms_are_told_in_groups() -> None:
    """Each option once under the platforms that have it as it is."""
    text = options_text(convert_tool)
    groups = dict(re.findall(r"^### (.*)\n\n((?:\|.*\n)+)", text, re.MULTILINE))
    assert list(groups)[0] == "In any case" and "`--output_file`" in groups["In any case"]
    assert "`--weight_file`" in groups["`caffe`"] and "`--checker`" in groups["`onnx`"]
    for name, parser in parsers_of(convert_tool).items():
        told = "".join(rows for heading, rows in groups.items() if heading == "In any case" or f"`{name}`" in heading)
        flags = [flag for a in parser._actions if a.help != argparse.SUPPRESS for flag in a.option_strings]
        assert [flag for flag in flags if f"`{flag}`" not in told] == ["-h", "--help"]


def test_what_is_made_stands_between_its_markers() -> None:
    made = between_markers(f"before\n{MARKERS[0]}old\n{MARKERS[1]}after\n", "| chip |\n")
    assert made == f"before\n{MARKERS[0]}\n| chip |\n\n{MARKERS[1]}after\n"
    assert between_markers(made, "| chip |\n") == made
    with pytest.raises(ValueError, match="lacks the lines"):
        between_markers("no markers", "")


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
