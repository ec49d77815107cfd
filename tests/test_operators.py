"""Every operator of the tables: complete rows, and the same integers from engine and reference."""

from __future__ import annotations

import numpy as np
import pytest

import sgs.ops  # noqa: F401  fills the tables
from fixed_examples import code_feeds, fixed_variants, float_feeds
from sgs import registry
from sgs.engine import FixedEngine, FloatEngine, run_reference
from sgs.ir import violations
from sgs.registry import EXAMPLES, EXPAND, OPERATOR, QUANTISE

ALL_STAGES = ("INFER", "SIM", "EXAMPLES")
FLOAT_STAGE = ("FLOAT", "LAYOUT", "QUANTISE")
FIXED_STAGE = ("REFERENCE", "COST", "CONSTRAINTS")


def missing_rows(op: str) -> list[str]:
    """Tables in which the operator should have a row and has none."""
    stage = OPERATOR[op].stage
    wanted = list(ALL_STAGES)
    wanted += FLOAT_STAGE if stage in ("float", "both") else ()
    if OPERATOR[op].no_integers or op in EXPAND:
        wanted.remove("QUANTISE")
    wanted += FIXED_STAGE if stage in ("fixed", "both") else ()
    missing = [table for table in wanted if op not in getattr(registry, table)]
    if stage in ("fixed", "both") and op not in registry.FIXED and op not in registry.HOST:
        missing.append("FIXED or HOST")
    if stage in ("fixed", "both") and (op in registry.TILE) == (op in registry.MOVE):
        missing.append("either TILE or MOVE")
    if stage == "float" and op in QUANTISE and QUANTISE[op].kind not in ("unary", "real"):
        missing.append("a fixed form")
    return missing


@pytest.mark.parametrize("op", list(OPERATOR))
def test_rows_are_complete(op: str) -> None:
    assert missing_rows(op) == []


def test_every_onnx_import_has_examples() -> None:
    assert sorted(registry.IMPORT_ONNX) == sorted(registry.ONNX_EXAMPLES)


def test_incomplete_rows_are_noticed() -> None:
    registry.OPERATOR.add("HALF_DONE", registry.OperatorInfo("both", "for this test"))
    try:
        assert "FIXED or HOST" in missing_rows("HALF_DONE") and "SIM" in missing_rows("HALF_DONE")
    finally:
        del registry.OPERATOR._rows["HALF_DONE"]


@pytest.mark.parametrize("op", [op for op in OPERATOR if OPERATOR[op].stage != "fixed"])
def test_float_examples_run_with_declared_shapes(op: str) -> None:
    for graph in EXAMPLES[op]():
        assert violations(graph) == []
        values = FloatEngine(graph, threads=1).run(float_feeds(graph, 1))
        for name, value in values.items():
            assert value.shape == graph[name].shape and np.isfinite(value).all()


@pytest.mark.parametrize("op", list(OPERATOR))
def test_engine_equals_reference(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgs.engine.fixed.LARGE_SESSION", -1)  # every session gets its threads
    for label, graph in fixed_variants(op):
        assert violations(graph) == [], label
        for threads in (1, 2):
            engine = FixedEngine(graph, threads=threads)
            for seed in range(3):
                feeds = code_feeds(graph, seed)
                truth, values = run_reference(graph, feeds), engine.run(feeds)
                for name in graph.outputs:
                    assert np.array_equal(values[name], truth[name]), (
                        f"{label}: {np.sum(values[name] != truth[name])} differ in {name}"
                    )
