"""Pictures of two models side by side: what is drawn, and what is said."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from sgs.compare.pictures import LARGEST, picture_pairs
from sgs.data.images import Sample
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.simulation import Arrays, Port


@dataclass(frozen=True)
class Fake:
    """A simulator that gives the same outputs whatever it is fed."""

    values: Arrays
    layout: str = "NHWC"
    outputs: tuple[Port, ...] = field(init=False)

    def __post_init__(self) -> None:
        ports = (Port(name, value.shape, DType.FLOAT32, self.layout) for name, value in self.values.items())
        object.__setattr__(self, "outputs", tuple(ports))

    def feeds(self, scripts: object, sample: Sample) -> Arrays:
        return {}

    def run(self, feeds: Arrays) -> Arrays:
        return self.values


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    file = tmp_path / "grey.png"
    cv2.imwrite(str(file), np.full((40, 60, 3), 120, np.uint8))
    return (file,)


def drawn(real: Fake, held: Fake, sample: Sample, category: str = "Unknown") -> tuple[Array, Array, str]:
    """The two pictures, uint8 [H, W, 3] BGR, and the words."""
    (pair,) = picture_pairs(real, held, (), [sample], category, ["cat", "dog"])  # type: ignore[arg-type]
    assert pair.title == sample[0].name
    first, second = (
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in (pair.float_jpeg, pair.fixed_jpeg)
    )
    return first, second, pair.words


def scores(*values: float) -> Fake:
    return Fake({"y": np.array([values], np.float32)})


def test_classes(sample: Sample) -> None:
    first, second, words = drawn(scores(0.2, 0.7), scores(0.6, 0.5), sample)
    assert words == "1 dog at 0.7 beside 0 cat at 0.6: another class"
    assert first.shape == second.shape and first.shape[0] > first.shape[1] * 40 // 60, "a strip with the classes"
    assert np.abs(first[:100].astype(int) - 120).max() < 4, "the picture is there"
    assert drawn(scores(0.2, 0.7), scores(0.1, 0.5), sample)[2].endswith(": the same class")


def detections(found: int) -> Fake:
    boxes = np.array([[[0.1, 0.1, 0.5, 0.5], [0.4, 0.6, 0.9, 0.9]]], np.float32)
    of_box = (np.array([[0, 1]], np.float32), np.array([[0.9, 0.5]], np.float32))
    return Fake({"b": boxes, "c": of_box[0], "s": of_box[1], "n": np.array([found], np.float32)})


def test_boxes(sample: Sample) -> None:
    first, second, words = drawn(detections(2), detections(1), sample, "Detection")
    assert words == "boxes of score 0.3 or more: 2 beside 1, 1 the same (class, and IoU of 0.9 or more)"
    apart = np.abs(first.astype(int) - second).max(axis=(0, 2)) > 60  # [W]
    assert apart.any() and apart.argmax() > 0.5 * apart.size, "the second box lies on the right"


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_maps(layout: str, sample: Sample) -> None:
    """One scale for both, that of the reference; the mean over the channels, wherever these are."""
    values = np.zeros((1, 4, 6, 5), np.float32)
    values[0, :2] = 5.0  # the upper half
    halved = values / 2
    turned = [np.moveaxis(one, -1, 1) if layout == "NCHW" else one for one in (values, halved)]
    first, second, words = drawn(*(Fake({"y": one}, layout) for one in turned), sample)
    assert first.shape == second.shape == (160, 240, 3)
    assert (
        first[40, 120].min() > 250 and first[120, 120].max() < 5 and np.abs(second[40, 120].astype(int) - 128).max() < 5
    )
    assert words == "mean over the channels of output y; y 6.0 dB"


def test_colours_and_sizes(sample: Sample) -> None:
    red = np.zeros((1, 1000, 3, 3), np.float32)
    red[..., 0] = 1
    first, _, words = drawn(Fake({"y": red}), Fake({"y": red}), sample)
    assert max(first.shape) == LARGEST and words == "output y; y 120.0 dB"
    assert first[300, 1, 2] > 240 and first[300, 1, 0] < 15, "the first channel is red"


def test_samples_without_a_picture(tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    np.save(file, np.zeros(3))
    assert list(picture_pairs(scores(1, 2), scores(1, 2), (), [(file,)], "Unknown", [])) == []  # type: ignore[arg-type]
    flat = Fake({"y": np.zeros((1, 7, 9), np.float32)})
    assert list(picture_pairs(flat, replace(flat), (), [(file,)], "Unknown", [])) == []  # type: ignore[arg-type]
