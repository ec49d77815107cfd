"""The measures of the calibration benchmark, on numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scores import boxes_kept, detections, overlaps, score

CELLS = 52 * 52 + 26 * 26 + 13 * 13


def raw(*boxes: tuple[int, int, float]) -> np.ndarray:
    """yolox_nano's output with a box of twice the stride in some rows: (row, class, objectness), class score 0.8."""
    rows = np.zeros((1, CELLS, 85), np.float32)
    for row, kind, objectness in boxes:
        rows[0, row, 2:4] = np.log(2)
        rows[0, row, 4] = objectness
        rows[0, row, 5 + kind] = 0.8
    return rows


def test_signal_and_noise_are_summed_over_pictures() -> None:
    truth = [{"y": np.array([3.0, 4.0])}, {"y": np.array([10.0, 0.0])}]
    found = [{"y": np.array([3.0, 3.0])}, {"y": np.array([10.0, 0.5])}]
    got = score(truth, found, [1, 1], detects=False)
    assert got.sqnr["y"] == got.mean_sqnr == pytest.approx(10 * np.log10(125 / 1.25))
    assert got.cosine == pytest.approx((21 / (5 * np.sqrt(18)) + 10 / np.sqrt(100.25)) / 2)
    assert (got.float_top1, got.top1, got.agrees) == (50, 0, 50)
    assert got.boxes is None


def test_boxes_are_decoded_by_the_grid_of_their_stride() -> None:
    rows = (53, 52 * 52 + 26 + 2, 52 * 52 + 26 * 26 + 13 * 3)  # cells (1, 1), (2, 1) and (0, 3) of strides 8, 16, 32
    corners, classes, scores = detections(raw(*((row, 7 + k, 0.9) for k, row in enumerate(rows))))
    order = np.argsort(classes)
    assert classes[order].tolist() == [7, 8, 9]
    np.testing.assert_allclose(corners[order], [[0, 0, 16, 16], [16, 0, 48, 32], [-32, 64, 32, 128]], atol=1e-4)
    np.testing.assert_allclose(scores, 0.72, atol=1e-6)


def test_boxes_that_are_unlikely_or_overlap_are_dropped() -> None:
    # 0.37 * 0.8 is below 0.3; rows 100 and 101 are 8 apart of 16, an overlap of a third, rows of one place all of it
    corners, _, _ = detections(raw((10, 1, 0.37), (100, 1, 0.9), (101, 1, 0.8)))
    assert len(corners) == 2
    twice = raw((100, 1, 0.9), (101, 1, 0.8))
    twice[0, 101, 0] = -0.9  # 0.8 pixels from the other: the likelier of the two stays
    assert len(detections(twice)[0]) == 1


def test_a_box_is_kept_by_place_and_class() -> None:
    expected = raw((100, 1, 0.9), (200, 2, 0.9), (300, 3, 0.9), (400, 4, 0.9))
    found = raw((100, 1, 0.6), (200, 3, 0.9), (300, 3, 0.9), (400, 4, 0.3))
    found[0, 300, 0] = 0.2  # 1.6 of 16 pixels aside: an overlap of 14.4 / 17.6
    assert boxes_kept(expected, found) == (1, 4)


def test_overlap_of_boxes_is_intersection_over_union() -> None:
    a = np.array([[0.0, 0, 4, 4]])
    b = np.array([[2.0, 0, 6, 2], [0, 0, 4, 4], [4, 4, 8, 9]])
    np.testing.assert_allclose(overlaps(a, b), [[4 / 20, 1, 0]])
