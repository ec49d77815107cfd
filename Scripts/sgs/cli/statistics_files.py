"""The files of statistics that a calibrating program reads, writes, and resumes from."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sgs.config.input_config import InputConfig
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.ir import Graph
from sgs.pipelines import read_statistics
from sgs.products import partial_path
from sgs.quant.statistics import Statistics
from sgs.quant.statistics_file import Checkpoint, Origin, save_statistics

_log = logging.getLogger(__name__)


@dataclass
class StatisticsFiles:
    """`read` is the file of --statistics where it is there, `written` are the files to write, `left` is what an
    interrupted run leaves behind. Once they are open, `known` are the statistics read, or `checkpoint` is the run's.
    """

    read: Path | None
    written: list[Path]
    left: Path
    resume: bool
    known: Statistics | None = None
    checkpoint: Checkpoint | None = None

    @staticmethod
    def of(options: argparse.Namespace, output: Path) -> StatisticsFiles:
        """What --statistics and --resume ask for, in a program that writes `output`."""
        named = None if options.statistics is None else Path(options.statistics)
        there = named is not None and named.exists()
        written = [] if named is None or there else [named]
        return StatisticsFiles(named if there else None, written, partial_path(output), options.resume)

    def open(
        self, graph: Graph, config: InputConfig, preprocessors: Sequence[Preprocessor], samples: Sequence[Sample]
    ) -> None:
        """Read what there is. Raises UserError for a file that is damaged, or does not fit these."""
        self._origin: Callable[[], Origin] = cache(lambda: Origin.of(graph, config, preprocessors, samples))
        if self.read is None:
            self.checkpoint = Checkpoint(self.left, self._origin, resume=self.resume)
            return
        self.known, origin = read_statistics(self.read, graph, self._origin())
        self._origin = lambda: origin
        if self.resume:
            _log.warning("--resume: statistics are read from %s, so there is nothing to resume", self.read)

    def write(self, statistics: Statistics) -> None:
        """Write the statistics of a calibration."""
        for path in self.written:
            save_statistics(path, statistics, self._origin())

    def finish(self) -> None:
        """The program has written its output: what an interrupted run left is of no more use."""
        if self.checkpoint is not None:
            self.left.unlink(missing_ok=True)
