"""The bars of the benchmark of torch_calibrator, and what its methods stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import ours
import pytest
import torch_calibration as bench
from cases import ModeRun
from shipped_networks import SHIPPED

from sgs.builder import GraphBuilder
from sgs.config.quant_config import MODES, mode_named, read_quant_config
from sgs.ir import Graph
from sgs.numeric.quantise import symmetric_params
from sgs.numeric.types import DType


def row(top1: float, db: float = 20.0, float_top1: float = 54.0, **more: Any) -> dict[str, Any]:
    return {"top1": top1, "float_top1": float_top1, "mean_sqnr": db, "boxes": None, "seconds": 60.0, **more}


def boxes(kept: float, db: float = 20.0) -> dict[str, Any]:
    return {"top1": None, "float_top1": None, "mean_sqnr": db, "boxes": kept, "seconds": 9.0}


def told(bar: Any, rows: dict[str, Any], name: str = "net") -> list[tuple[str, str, str, bool]]:
    return list(bar(bench.Found.of(name, rows)))


def test_16_bit_is_float_but_for_a_tenth() -> None:
    rows = {"Q10": row(53.9), "Q20": row(53.89), "Q11": row(10.0)}
    assert told(bench.near_float, rows) == [
        ("Q10, points", "at least 53.90 (float - 0.1)", "53.90", True),
        ("Q20, points", "at least 53.90 (float - 0.1)", "53.89", False),
    ]
    assert (
        told(bench.near_float, {"Q10": boxes(99.95)})[0][3] and not told(bench.near_float, {"Q20": boxes(99.8)})[0][3]
    )
    assert told(bench.near_float, {"Q10": boxes(99.95) | {"boxes": None}}) == []  # no measure
    assert told(bench.near_float, {"Q10": {"error": "refuses"}}) == []


def test_modes_are_not_behind() -> None:
    """Of peers the highest value counts, whichever has it; where float has fewer points, it says so."""
    rows = {
        "L2": row(52.5, 9.38),
        "Q11": row(52.25, 9.38),
        "ort-entropy": row(50.0, 19.0),
        "nncf-full": row(53.0, 18.0),
        "nncf-fast": {"error": "crashes"},
        "Q21": row(53.0, 18.5),
        "L5": row(55.0, 27.0),
        "Q22": row(54.0, 28.0),
    }
    assert told(bench.not_behind, rows) == [
        ("Q11, dB", "at least 9.38 (L2)", "9.38", True),
        ("Q11, points", "at least 52.50 (L2)", "52.25", False),
        ("Q21, dB", "at least 19.00 (best peer)", "18.50", False),
        ("Q21, points", "at least 53.00 (best peer)", "53.00", True),
        ("Q22, dB", "at least 27.00 (L5)", "28.00", True),
        ("Q22, points", "at least 55.00 (L5; float has 54.00)", "54.00", False),
    ]
    assert told(bench.not_behind, {"Q21": row(1.0), "nncf-fast": {"error": "crashes"}}) == []


def test_retraining_gains_at_a_rate() -> None:
    (gain, near) = told(bench.mixed_precision, {"Q13@0.35": row(45.0), "Q23@0.35": row(51.0)})
    assert gain == ("Q23@0.35, points", "at least 46.00 (Q13@0.35 + 1)", "51.00", True)
    assert near == ("Q23@0.35, points", "at least 52.00 (float - 2)", "51.00", False)
    (gain, _) = told(bench.mixed_precision, {"Q13@0.35": row(53.5), "Q23@0.35": row(54.0)})
    assert gain[1:] == ("at least 54.50 (Q13@0.35 + 1; float has 54.00)", "54.00", False)
    assert [ok for *_, ok in told(bench.mixed_precision, {"Q13@0.35": boxes(80), "Q23@0.35": boxes(80.5)})] == [False]


@pytest.mark.parametrize(
    ("nearest", "retrained", "measured", "ok"),
    [
        (10.0, 45.2, "80 % of 44.00 points", True),
        (10.0, 45.0, "80 % of 44.00 points", False),  # 79.5 %
        (54.5, 54.0, "nothing is lost, +0.00 points", True),
        (54.0, 53.75, "nothing is lost, -0.25 points", False),
    ],
)
def test_what_4_bits_lose_is_recovered(nearest: float, retrained: float, measured: str, ok: bool) -> None:
    (verdict,) = told(bench.recovery, {"Q13@0.25": row(nearest), "Q23@0.25": row(retrained)})
    assert verdict[2:] == (measured, ok)


def test_times_are_those_of_the_processor() -> None:
    rows = {"Q11": row(1, seconds=121.0), "Q22": row(1, seconds=70.0), "Q22 on cpu": row(1, seconds=600.0)}
    assert told(bench.times, rows, bench.TIMED) == [
        ("Q11, seconds", "at most 120", "121.0", False),
        ("Q22 on cpu, seconds", "at most 900", "600.0", True),
        ("Q22, times as fast on the device", "at least 10", "8.6", False),
    ]
    assert told(bench.times, rows, "another") == []


def test_methods_are_modes_with_a_file(tmp_path: Path) -> None:
    """Every mode of the tool is measured; those of mixed precision at 0.35, and with all weights at 4 bit."""
    runs = bench.mode_runs("cuda:0", 20)
    assert {run.mode for run in runs.values()} == set(MODES)
    for method in bench.MODES:
        config = read_quant_config(runs[method].write(tmp_path / "q.yaml"))
        assert (config.device, config.retrain_iter_num) == ("cuda:0", 20)
        rate = {"35": 0.35, "25": 0.25}.get(method.partition("@0.")[2])
        assert (config.mp_rate, config.mixed_precisions) == (rate, (4, 8) if rate else None)
        assert (mode_named(runs[method].mode).mixed is not None) == (rate is not None)
        beside = read_quant_config(runs[method + bench.ON_PROCESSOR].write(tmp_path / "q.yaml"))
        assert (beside.device, beside.mp_rate) == ("cpu", rate)
    assert bench.mode_runs("cpu", None)["Q11"] == ModeRun("Q11", {"device": "cpu"})


def test_earlier_results_are_taken_over_but_for_errors(tmp_path: Path) -> None:
    file = tmp_path / "o.json"
    assert bench.earlier_rows(file) == {}
    file.write_text(json.dumps({"rows": {"net": {"Q10": row(1.0), "Q20": {"error": "takes more than 3600 s"}}}}))
    assert bench.earlier_rows(file) == {"net": {"Q10": row(1.0)}}


# -- what ours.py says of weights ----------------------------------------------------------------------------------
def sums(*widths: DType) -> Graph:
    """Fully connected layers of 7 × 7 weights, the last of which share theirs."""
    build = GraphBuilder()
    y = build.input("x", (1, 7))
    for width in widths:
        kinds = {"quant": symmetric_params(np.ones(7), width), "dtype": width}
        weight = build.graph.add_constant("w", np.zeros((7, 7), width.numpy), **kinds)
        y = build("FULLY_CONNECTED", y, weight, None, activation="NONE", keep_num_dims=True)
    y = build("FULLY_CONNECTED", y, weight, None, activation="NONE", keep_num_dims=True)
    return build.output(y)


@pytest.mark.parametrize(
    ("widths", "size", "rate"),
    [
        ((DType.INT4,), 25, 0.25),
        ((DType.INT8, DType.INT8), 98, 0.5),
        ((DType.INT4, DType.INT16), 25 + 98, 0.625),
    ],
)
def test_bytes_and_rate_of_weights(widths: tuple[DType, ...], size: int, rate: float) -> None:
    assert ours.weight_facts(sums(*widths)) == {"weight_bytes": size, "mp_rate": rate}


# -- shipped networks --------------------------------------------------------------------------------------------------
def test_shipped_networks_are_there() -> None:
    for network in SHIPPED.values():
        _, files = network.source()
        assert all(path.is_file() for path in files.values())
        assert network.write_script(Path()).is_file() and (network.folder / "input_config.ini").is_file()


def test_segmentation_is_measured_in_percent(tmp_path: Path) -> None:
    """The masks themselves, as answers, are right; all background is right where there is nothing."""
    import cv2

    network = SHIPPED["tflite_segmentation_shapes"]
    _, test = network.split(tmp_path)
    masks = [cv2.imread(str(path.parent.parent / "test_masks" / path.name), cv2.IMREAD_UNCHANGED) for path, _ in test]
    right = [{"Identity": np.eye(5, dtype=np.float32)[mask][np.newaxis]} for mask in masks]
    nothing = [{"Identity": np.eye(5, dtype=np.float32)[np.zeros_like(mask)][np.newaxis]} for mask in masks]
    share = np.mean([np.mean(mask == 0) for mask in masks])
    assert network.measure(right) == 100.0
    assert network.measure(nothing) == pytest.approx(100 * share / 5)
    assert network.measure(right) != network.measure([*right[1:], right[0]])  # the order counts
