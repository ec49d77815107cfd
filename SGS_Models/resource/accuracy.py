"""Top-1 accuracy of a float classifier on a folder of labelled pictures. Needs onnxruntime and numpy."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

Preprocess = Callable[[Path], np.ndarray]
"""Picture file to the float input of a network, NHWC."""


def top1_accuracy(model: Path, preprocess: Preprocess, folder: Path) -> float:
    """Return the fraction of the pictures in ``folder/labels.csv`` whose class the model predicts correctly.

    Args:
        model: ONNX file with input ``images`` (NCHW) and output ``logits``, [1, classes].
        preprocess: the ``image_preprocess`` shipped with the model.
        folder: pictures and ``labels.csv`` (``file,class_index,name``).
    """
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    with (folder / "labels.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    hits = 0
    for row in rows:
        picture = preprocess(folder / row["file"]).transpose(0, 3, 1, 2)
        (logits,) = session.run(["logits"], {"images": np.ascontiguousarray(picture)})
        hits += int(logits[0].argmax()) == int(row["class_index"])
    return hits / len(rows)
