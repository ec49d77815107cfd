"""The tests that the installed onnx package brings: no wrong result, and what has passed once passes.

`onnx_backend_passes.txt` lists the tests that pass; it may only grow. `python tests/test_onnx_backend.py` writes it
anew. A package of another version may lack some of them.
"""

from __future__ import annotations

import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import onnx_backend as backend
from onnx_backend import KINDS, PASSED, UNSUPPORTED, WRONG, load_cases, operator_of, run_case, summary

LIST = Path(__file__).with_name("onnx_backend_passes.txt")
PARTS = 8
GOAL = 900  # node tests


def listed() -> set[str]:
    return set(LIST.read_text("utf-8").split())


@lru_cache(maxsize=1)
def every_case() -> list[Any]:
    return [case for kind in KINDS for case in load_cases(kind)]


@pytest.mark.parametrize("part", range(PARTS))
def test_onnx_package(part: int, tmp_path: Path) -> None:
    cases = every_case()[part::PARTS]
    outcomes = {str(case.name): run_case(case, tmp_path) for case in cases}
    print(summary(outcomes, {str(case.name): operator_of(case) for case in cases}))
    wrong = {name: outcome.reason for name, outcome in outcomes.items() if outcome.kind == WRONG}
    assert wrong == {}
    lost = {n: outcome.reason for n, outcome in outcomes.items() if n in listed() and outcome.kind != PASSED}
    assert lost == {}, "these have passed before"


def test_the_goal_is_met() -> None:
    nodes = {str(case.name) for case in load_cases("node")}
    assert len(nodes & listed()) >= GOAL


def test_a_wrong_result_is_found(tmp_path: Path) -> None:
    case = next(case for case in load_cases("node") if case.name == "test_relu")
    (inputs, outputs), *_ = case.data_sets
    tolerances: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-7, "folder": tmp_path}
    assert backend.run_model(case.model, inputs, outputs, **tolerances).kind == PASSED
    other = [outputs[0] + np.float32(0.5)]
    assert backend.run_model(case.model, inputs, other, **tolerances).kind == WRONG


def test_what_must_be_constant_is_baked(tmp_path: Path) -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    ports = [helper.make_tensor_value_info("x", 1, [2, 3]), helper.make_tensor_value_info("shape", 7, [2])]
    results = [helper.make_tensor_value_info("y", 1, [3, 2])]
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(helper.make_graph([node], "g", ports, results), opset_imports=opsets, ir_version=8)
    x = np.arange(6, dtype=np.float32)
    inputs = [x.reshape(2, 3), np.array([3, 2])]
    outcome = backend.run_model(model, inputs, [x.reshape(3, 2)], rtol=0, atol=0, folder=tmp_path)
    assert (outcome.kind, outcome.baked) == (PASSED, ("shape",))
    node.op_type = "NoSuchOperator"
    model.graph.node[0].op_type = "NoSuchOperator"
    outcome = backend.run_model(model, inputs, [x.reshape(3, 2)], rtol=0, atol=0, folder=tmp_path)
    assert outcome.kind == UNSUPPORTED and "NoSuchOperator" in outcome.reason


def main() -> None:
    """Write the list of what passes; refuses to drop a test that was listed and still exists."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = {str(case.name): run_case(case, Path(folder)) for case in every_case()}
    passed = {name for name, outcome in outcomes.items() if outcome.kind == PASSED}
    lost = (listed() & set(outcomes)) - passed if LIST.exists() else set()
    if lost:
        sys.exit(f"these passed before: {' '.join(sorted(lost))}")
    LIST.write_text("\n".join(sorted(passed)) + "\n", "utf-8")
    print(summary(outcomes, {str(case.name): operator_of(case) for case in every_case()}))


if __name__ == "__main__":
    main()
