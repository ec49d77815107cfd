"""A sample of random ONNX networks against onnxruntime. `make fuzz` checks many more."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from random_onnx import EXACT, JUMPING, OPSETS, build, cases, check
from sgs.registry import ONNX_EXAMPLES


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_networks(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    model, feeds = build(lambda sequence: data.draw(st.sampled_from(list(sequence))), largest=6)
    check(model, feeds, tmp_path_factory.getbasetemp())


def test_nearly_every_operator_can_be_drawn() -> None:
    """Those that cannot have examples of other operator sets, or of integers, only."""
    drawn = {op for opset in OPSETS for op in cases(opset)}
    assert len(drawn) >= 0.75 * len(list(ONNX_EXAMPLES))


def test_what_jumps_is_not_called_exact() -> None:
    assert not JUMPING & EXACT


def test_a_wrong_result_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import random

    import random_onnx

    model, feeds = build(random.Random(3).choice)
    assert check(model, feeds, tmp_path) == ""
    truth = random_onnx.run_onnx
    monkeypatch.setattr(random_onnx, "run_onnx", lambda *args: {k: v + 0.5 for k, v in truth(*args).items()})
    with pytest.raises(AssertionError, match="differ"):
        check(model, feeds, tmp_path)
