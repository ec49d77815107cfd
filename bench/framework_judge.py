"""Run a network in TensorFlow or OpenCV 4 and leave its outputs.

usage: TF_PYTHON|CV4_PYTHON bench/framework_judge.py JOB.json

Needs numpy and the framework, nothing of ours. JOB is what bench/judges.py writes: framework, model (its files),
inputs and outputs (names), samples (how many), feeds (.npz with "<sample>/<place of the input>"), out (.npz to write,
likewise).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Feeds = dict[str, np.ndarray]
Run = Callable[[Feeds, list[str]], list[np.ndarray]]


def tensorflow(files: list[str]) -> Run:
    """A frozen GraphDef. Tensors are named like "Mfcc" or "decoded_sample_data:1"."""
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(Path(files[0]).read_bytes())
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    session = tf.compat.v1.Session(graph=graph)

    def full(name: str) -> str:
        return name if ":" in name else f"{name}:0"

    return lambda feeds, outputs: session.run(
        [full(name) for name in outputs], {full(name): value for name, value in feeds.items()}
    )


def opencv(files: list[str]) -> Run:
    """A Caffe network: prototxt, caffemodel; or one of TensorFlow: pb, pbtxt."""
    import cv2

    network = (cv2.dnn.readNetFromTensorflow if files[0].endswith(".pb") else cv2.dnn.readNetFromCaffe)(*files)

    def run(feeds: Feeds, outputs: list[str]) -> list[np.ndarray]:
        for name, value in feeds.items():
            network.setInput(value, name)
        return [np.array(found) for found in network.forward(outputs)]

    return run


def main(job: dict[str, Any]) -> None:
    run = {"tensorflow": tensorflow, "opencv": opencv}[job["framework"]](job["model"])
    found = {}
    with np.load(job["feeds"]) as held:
        for index in range(job["samples"]):
            feeds = {name: held[f"{index}/{place}"] for place, name in enumerate(job["inputs"])}
            for place, value in enumerate(run(feeds, job["outputs"])):
                found[f"{index}/{place}"] = value
    np.savez(job["out"], **found)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text("utf-8")))
