"""Run Caffe networks through OpenCV 4's importer; for the interpreter that has it, which needs nothing else but numpy.

    python opencv_worker.py FOLDER NAME ...

FOLDER/NAME.prototxt and .caffemodel (which may be missing), NAME.feeds.npz and NAME.json, {layer: its tops}, give
NAME.results.npz, blob → value, or NAME.error.txt.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def results(stem: Path) -> dict[str, Any]:
    weights = stem.with_name(f"{stem.name}.caffemodel")
    files = [stem.with_name(f"{stem.name}.prototxt"), *([weights] if weights.exists() else [])]
    net = cv2.dnn.readNetFromCaffe(*map(str, files))
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    for name, value in np.load(stem.with_name(f"{stem.name}.feeds.npz")).items():
        net.setInput(value, name)
    tops: dict[str, list[str]] = json.loads(stem.with_name(f"{stem.name}.json").read_text())
    known = net.getLayerNames()  # a Convolution has its top's
    values = net.forwardAndRetrieve([name if name in known else found[0] for name, found in tops.items()])
    pairs = zip(tops.values(), values, strict=True)
    return {name: value for names, found in pairs for name, value in zip(names, found, strict=False)}


def main() -> None:
    folder, *names = sys.argv[1:]
    for name in names:
        stem = Path(folder, name)
        try:
            np.savez(stem.with_name(f"{name}.results.npz"), **results(stem))
        except cv2.error as error:
            stem.with_name(f"{name}.error.txt").write_text(" ".join(str(error).split()))


main()
