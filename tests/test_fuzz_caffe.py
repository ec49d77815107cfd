"""A short campaign of `fuzz_caffe.py`. `make fuzz` runs the long one."""

from __future__ import annotations

import pytest

import fuzz_caffe
from fuzzing import Finding
from sgs.cli import convert_tool

FILES = 120


def test_damaged_networks_are_converted_or_refused() -> None:
    results = fuzz_caffe.FUZZ.campaign(seed=2, files=FILES, jobs=1)
    assert [result for result in results if result["outcome"] == "found"] == []
    assert {result["outcome"] for result in results} == {"refused", "converted"} and len(results) == FILES


def test_a_network_is_made_by_seed_and_number() -> None:
    made = [fuzz_caffe.make_case(3, index)[1:] for index in range(20)]
    assert made == [fuzz_caffe.make_case(3, index)[1:] for index in range(20)]
    assert len(set(made)) == 20 and made[0] != fuzz_caffe.make_case(4, 0)[1:]


def test_a_defect_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise KeyError("oh")

    monkeypatch.setattr(convert_tool, "convert", fail)
    with pytest.raises(Finding, match="exit code 1: .*KeyError"):
        fuzz_caffe.try_one(0, 0)
