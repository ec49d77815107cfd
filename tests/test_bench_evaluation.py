"""The bars of the evaluation benchmark, and the labels of its detector."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from evaluation import DETECTOR, LOOP, OURS, STREAMS, Detector, Measured, average_precision, missed_bars, of_processors

WHOLE, PEAKS = {OURS: 80.0, LOOP: 60.0, STREAMS: 100.0}, {25: 100.0, 50: 120.0, 100: 105.0}


def test_bars() -> None:
    assert missed_bars(WHOLE, 0.85, PEAKS) == []
    assert missed_bars({**WHOLE, LOOP: 101.0}, 0.85, PEAKS) == [f"0.79 of {LOOP}, the bar is 0.8"]
    assert missed_bars(WHOLE, 0.84, PEAKS) == ["84% of the processors busy after the start, the bar is 85%"]
    grown = missed_bars(WHOLE, 0.9, {**PEAKS, 100: 106.0})
    assert grown == ["memory grows by 6% from a quarter of the pictures to all"]


def test_processors_are_counted_after_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 5, 7})
    start, run = Measured(2.0, 1.0, 90.0, ""), Measured(12.0, 37.0, 95.0, "")
    assert of_processors(start, run) == 0.9  # 36 of 40 seconds


def test_pictures_are_repeated_with_their_boxes(tmp_path: Path) -> None:
    """The boxes themselves, as answers, are right; moved by half a picture they are not."""
    pytest.importorskip("pycocotools")
    _, _, _, labels = Detector(DETECTOR).prepare(tmp_path, 70)
    truth = json.loads(labels.read_text("utf-8"))
    assert [image["id"] for image in truth["images"]] == list(range(1, 71))
    assert len({box["id"] for box in truth["annotations"]}) == len(truth["annotations"]) > 140
    links = sorted(tmp_path.glob("*.png"))
    assert len(links) == 70 and links[32].name == "00032_shapes_000.png"
    for moved, expected in ((0, 1.0), (0.5, 0.0)):
        found = []
        for image in truth["images"]:
            mine = [box for box in truth["annotations"] if box["image_id"] == image["id"]]
            xywh = [[v / 128 for v in box["bbox"]] for box in mine]
            boxes = [[y + moved, x + moved, y + h + moved, x + w + moved] for x, y, w, h in xywh]
            found.append((boxes, [box["category_id"] - 1 for box in mine], [0.9] * len(mine)))
        assert average_precision([str(link) for link in links], found, str(labels)) == pytest.approx(expected, abs=0.01)
