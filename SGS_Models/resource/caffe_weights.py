"""Writing the weights of Caffe networks, without Caffe. Needs protobuf and numpy."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

SCRIPTS = Path(__file__).resolve().parents[2] / "Scripts"
sys.path.insert(1, str(SCRIPTS))

from sgs.frontends.caffe.generated import NetWeights  # noqa: E402


def write_weights(path: Path, blobs: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Write a ``.caffemodel``.

    Args:
        path: the file.
        blobs: arrays of each layer that has weights, by its name, in Caffe's order.
    """
    network = NetWeights()
    for name, values in blobs.items():
        layer = network.layer.add(name=name)
        for value in values:
            layer.blobs.add(data=[value.astype("<f4").tobytes()]).shape.dim.extend(value.shape)
    path.write_bytes(network.SerializeToString(deterministic=True))
