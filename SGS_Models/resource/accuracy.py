"""Top-1 accuracy of a classifier on a folder of labelled pictures. Needs numpy."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from runners import Run

Preprocess = Callable[[Path, bool], np.ndarray]
"""Picture file and ``norm`` to the input of a network, NHWC."""


def top1_accuracy(run: Run, preprocess: Preprocess, folder: Path, norm: bool = True) -> float:
    """Return the fraction of the pictures in ``folder/labels.csv`` whose class the network predicts correctly.

    Args:
        run: the network; its output is [1, classes].
        preprocess: the ``image_preprocess`` shipped with the model.
        folder: pictures and ``labels.csv`` (``file,class_index,name``).
        norm: whether the network takes the normalised input.
    """
    with (folder / "labels.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    hits = sum(int(run(preprocess(folder / row["file"], norm)).argmax()) == int(row["class_index"]) for row in rows)
    return hits / len(rows)
