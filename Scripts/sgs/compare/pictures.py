"""The same sample through two models, drawn side by side: classes, boxes, or else what an output looks like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from sgs.compare.metrics import signal_to_noise
from sgs.data.images import Sample
from sgs.data.pictures import read_picture
from sgs.data.preprocess import Preprocessor
from sgs.errors import UserError
from sgs.evaluate.categories import are_scores
from sgs.evaluate.detections import Detections, operator_detections, shared
from sgs.evaluate.draw import draw_boxes, draw_classes
from sgs.evaluate.labels import numbered_name
from sgs.evaluate.results import Ranked, ranked
from sgs.numeric.quantise import Array
from sgs.quant.boxes import OVERLAP, SCORE
from sgs.report.report_page import PicturePair
from sgs.simulation import Arrays, Port, Simulator

LARGEST = 640  # pixels of the longer side
SMALLEST_MAP = 2  # pixels of either side of an output that is shown as a picture
_ENLARGED = 240  # pixels, of small maps
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 85]


def picture_pairs(
    real: Simulator,
    held: Simulator,
    preprocessors: Sequence[Preprocessor],
    samples: Sequence[Sample],
    category: str,
    names: Sequence[str],
) -> Iterator[PicturePair]:
    """A pair for each sample, the reference's first; none where neither the sample nor an output is a picture, or the
    two models end in different outputs."""
    ends = [[(port.name, port.shape) for port in model.outputs] for model in (real, held)]
    for sample in samples if ends[0] == ends[1] else ():
        found = [_real_outputs(model, preprocessors, sample) for model in (real, held)]
        picture = _picture(sample[0])
        if picture is not None and category == "Detection":
            drawn, words = _boxes(picture, found, names, sample[0].name)
        elif picture is not None and are_scores(real.outputs):
            drawn, words = _classes(picture, found, names)
        elif (port := next(filter(_is_map, real.outputs), None)) is not None:
            drawn, words = _maps(port, *found)
        else:
            continue
        first, second = map(_jpeg, drawn)
        yield PicturePair(sample[0].name, first, second, words)


def _real_outputs(model: Simulator, preprocessors: Sequence[Preprocessor], sample: Sample) -> Arrays:
    outputs = model.run(model.feeds(preprocessors, sample))
    return {port.name: port.real(outputs[port.name]) for port in model.outputs}


def _picture(path: Path) -> Array | None:
    """The picture, None where the sample is something else."""
    try:
        return read_picture(path)
    except UserError:
        return None


def _classes(picture: Array, found: Sequence[Arrays], names: Sequence[str]) -> tuple[list[Array], str]:
    best = [ranked(next(iter(outputs.values()))) for outputs in found]
    same = "the same class" if best[0][0][0] == best[1][0][0] else "another class"
    told = " beside ".join(_first(one, names) for one in best)
    return [draw_classes(picture, one, names) for one in best], f"{told}: {same}"


def _first(best: Ranked, names: Sequence[str]) -> str:
    index, score = best[0]
    return f"{numbered_name(index, names)} at {score:.4g}"


def _boxes(picture: Array, found: Sequence[Arrays], names: Sequence[str], name: str) -> tuple[list[Array], str]:
    size = (picture.shape[0], picture.shape[1])
    boxes: list[Detections] = [operator_detections(outputs.values(), size, picture=name) for outputs in found]
    a, b = (one.above(SCORE) for one in boxes)
    words = f"boxes of score {SCORE} or more: {len(a.scores)} beside {len(b.scores)}"
    words += f", {shared(a, b, OVERLAP)} the same (class, and IoU of {OVERLAP} or more)"
    return [draw_boxes(picture, one, names, SCORE) for one in boxes], words


# -- outputs that are maps ---------------------------------------------------------------------------------------------
def _is_map(port: Port) -> bool:
    """Whether an output has rows and columns."""
    sides = [extent for axis, extent in enumerate(port.shape) if axis not in (0, _channels(port))]
    return len(port.shape) == 4 and min(sides) >= SMALLEST_MAP


def _channels(port: Port) -> int:
    """The axis of the channels."""
    return 1 if port.layout == "NCHW" else 3


def _maps(port: Port, real: Arrays, held: Arrays) -> tuple[list[Array], str]:
    """The first frame of an output as pictures: its three channels, or the mean of them, both on one scale."""
    frames = [np.moveaxis(outputs[port.name], _channels(port), -1)[0].astype(np.float64) for outputs in (real, held)]
    coloured = frames[0].shape[-1] == 3
    shown = [frame if coloured else frame.mean(axis=-1, keepdims=True) for frame in frames]
    low, high = float(shown[0].min()), float(shown[0].max())
    grey = [np.clip((frame - low) / max(high - low, 1e-30), 0, 1) * 255 for frame in shown]
    what = "output" if coloured else "mean over the channels of output"
    told = ", ".join(f"{name} {signal_to_noise(real[name], held[name]):.1f} dB" for name in list(real)[:4])
    return [_enlarged(np.rint(frame).astype(np.uint8)) for frame in grey], f"{what} {port.name}; {told}"


def _enlarged(frame: Array) -> Array:
    """uint8 [height, width, 3] BGR, by a whole factor where it is small."""
    factor = max(1, -(-_ENLARGED // max(frame.shape[:2])))
    pixels = np.broadcast_to(frame, (*frame.shape[:2], 3))[..., ::-1]
    return np.ascontiguousarray(pixels.repeat(factor, axis=0).repeat(factor, axis=1))


def _jpeg(picture: Array) -> bytes:
    factor = LARGEST / max(picture.shape[:2])
    if factor < 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", picture, _QUALITY)
    return data.tobytes()
