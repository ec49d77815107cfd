"""What the simulator does with one sample after another: run it, write its files, and give the little that is told.

The files of a sample are written by the process that runs it, not by the one that was started: those of -c Unknown are
megabytes of text, which takes longer to make than many networks to run, and samples are paths, so whatever runs them
sees the same folders.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from sgs.data.files import write_result
from sgs.data.images import Sample
from sgs.data.pictures import picture_size, read_picture
from sgs.data.preprocess import Preprocessor
from sgs.errors import UserError
from sgs.evaluate.detections import Decoder, Detections, detection_text, operator_detections
from sgs.evaluate.draw import draw_boxes, draw_classes
from sgs.evaluate.results import Ranked, classification_text, ranked, result_name, unknown_text
from sgs.simulation import Arrays, Simulator

_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]

Found = Ranked | Detections | None
"""What was found in a sample: its best classes, its boxes, or nothing that is told (-c Unknown)."""


@dataclass(frozen=True)
class Task:
    """One sample, what its results are called, and what they call the picture."""

    sample: Sample
    name: str
    image: int | str


@dataclass(frozen=True)
class Drawing:
    """Where results are drawn, with the names of the classes; `threshold`: lowest score."""

    folder: Path
    names: tuple[str, ...]
    threshold: float


@dataclass
class Share:
    """What was found in the samples of a share, up to a fault."""

    found: list[Found]
    fault: UserError | None = None


@dataclass(frozen=True)
class SampleJob:
    """What a process needs to run samples; pickles, models and scripts as their paths."""

    simulator: Simulator
    preprocessors: tuple[Preprocessor, ...]
    category: str
    folder: Path
    dump: bool = False
    decoder: Decoder | None = None
    drawing: Drawing | None = None
    threads: int = 0  # of a process that runs shares

    def run(self, tasks: Sequence[Task]) -> Iterator[Found]:
        """What was found in every sample, in order, once its files are written. Raises UserError."""
        known = {task.sample: task for task in tasks}  # equal samples have equal tasks

        def finish(sample: Sample, feeds: Arrays, outputs: Arrays) -> Found:
            return self._finish(known[sample], feeds, outputs)

        return self.simulator.map(self.preprocessors, (task.sample for task in tasks), finish)

    def __call__(self, tasks: Sequence[Task]) -> Share:
        """A share of the samples, in a process that runs shares only."""
        self.simulator.threads = self.threads
        share = Share([])
        try:
            share.found.extend(self.run(tasks))
        except UserError as error:
            share.fault = error
        return share

    def seconds_beside_model(self, task: Task) -> float:
        """How long a sample takes without its model: scripts, and what is done with the results. Its files are written.

        Raises UserError as `run`.
        """
        start = time.perf_counter()
        feeds = self.simulator.feeds(self.preprocessors, task.sample)
        loaded = time.perf_counter()
        outputs = self.simulator.run(feeds)
        ran = time.perf_counter()
        self._finish(task, feeds, outputs)
        return time.perf_counter() - ran + loaded - start

    def _finish(self, task: Task, feeds: Arrays, outputs: Arrays) -> Found:
        real = {port.name: port.real(outputs[port.name]) for port in self.simulator.outputs}
        found: Found = None
        if self.category == "Classification":
            found = ranked(next(iter(real.values())))
            text = classification_text(task.name, found)
        elif self.category == "Detection":
            found = self._detections(task.sample[0], real)
            text = detection_text(found, task.image)
        else:
            text = unknown_text(real)
        if self.dump:
            for index, values in enumerate(feeds.values()):
                self._write(f"rawdata_{self.simulator.path.name}_{task.name}_{index}.bin", values.tobytes())
        if self.drawing is not None and found is not None:
            self._draw(task, found, self.drawing)
        self._write(result_name(self.category, self.simulator.path, task.name), text.encode())
        return found

    def _detections(self, picture: Path, real: Arrays) -> Detections:
        size = picture_size(picture)
        if self.decoder is not None:
            return self.decoder(real, size, picture=picture.name)
        return operator_detections(real.values(), size, picture=picture.name)

    def _draw(self, task: Task, found: Ranked | Detections, drawing: Drawing) -> None:
        picture = read_picture(task.sample[0])
        if isinstance(found, Detections):
            drawn = draw_boxes(picture, found, drawing.names, drawing.threshold)
        else:
            shown = [(index, score) for index, score in found if score >= drawing.threshold]
            drawn = draw_classes(picture, shown, drawing.names)
        coded, data = cv2.imencode(".jpg", drawn, _QUALITY)
        if not coded:
            raise UserError("cannot be drawn on", stage="draw", file=task.sample[0])
        name = result_name(self.category, self.simulator.path, task.name).removesuffix(".txt") + ".jpg"
        self._write(name, data.tobytes(), drawing.folder)

    def _write(self, name: str, data: bytes, folder: Path | None = None) -> None:
        write_result((folder or self.folder) / name, data)
