"""Every row of the TFLite import, and every builtin that is an operator of ours: LiteRT computes the same."""

import re
from pathlib import Path

import numpy as np
import pytest

import sgs.ops  # noqa: F401 - fills the tables
from conventions import ROOT
from sgs.engine import FloatEngine
from sgs.frontends.tflite.rows import is_spelled
from sgs.numeric.quantise import Array
from sgs.passes.pipeline import optimise
from sgs.registry import EXAMPLES, IMPORT_TFLITE, SIM, TFLITE_EXAMPLES
from tflite_files import case_feeds, case_file, imported, litert_run

# rows whose operators need more than one of them in a file: tests/test_tflite_codes.py
ELSEWHERE = {"DENSIFY", "DEQUANTIZE", "QUANTIZE"}
CASES = [(op, index) for op in TFLITE_EXAMPLES for index in range(len(TFLITE_EXAMPLES[op]))]


def test_every_row_has_an_example() -> None:
    assert set(TFLITE_EXAMPLES) == set(IMPORT_TFLITE) - ELSEWHERE
    spelled = {op for op in SIM if is_spelled(op)}
    assert spelled <= set(EXAMPLES)


def test_the_page_names_what_can_be_imported() -> None:
    page = (ROOT / "docs/FRONTENDS.md").read_text("utf-8").partition("## TFLite")[2].partition("\n## ")[0]
    tables = "".join(line for line in page.partition("### Operators")[2].splitlines() if line.startswith("|"))
    named = set(re.findall(r"\b[A-Z][A-Z0-9_]+\b\*?", tables)) - {"UNSORTED_SEGMENT_*"}
    named |= {f"UNSORTED_SEGMENT_{kind}" for kind in ("SUM", "PROD", "MAX", "MIN")}
    builtins = {op for op in IMPORT_TFLITE if not op.startswith("custom ")}
    assert named == builtins | {op for op in SIM if is_spelled(op)}


def assert_close(ours: Array, theirs: Array) -> None:
    assert ours.shape == theirs.shape
    if theirs.dtype.kind != "f":
        assert np.array_equal(ours, theirs)
        return
    span = float(np.ptp(theirs)) if theirs.size else 1.0
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6 * max(span, 1e-3))


@pytest.mark.parametrize(("op", "index"), CASES)
def test_litert_agrees(op: str, index: int, tmp_path: Path) -> None:
    case = TFLITE_EXAMPLES[op][index]
    data, feeds = case_file(case), case_feeds(case)
    if case.judge is None:
        theirs = litert_run(data, feeds)
    else:
        operands = {**feeds, **case.constants}
        order = case.order or (*case.inputs, *case.constants)
        theirs = [np.asarray(y) for y in case.judge(*(operands[name] for name in order))]
    graph = imported(data, tmp_path)
    optimised = graph.copy()
    optimise(optimised)
    for each in (graph, optimised):
        results = FloatEngine(each).run({name: _held(feeds[name]) for name in each.inputs})
        for name, expected in zip(graph.outputs, theirs, strict=True):
            assert_close(results[name], expected)


def _held(value: Array) -> Array:
    return value.astype(np.int32) if value.dtype == np.int64 else value
