"""Writing the weights of Caffe networks, without Caffe. Needs protobuf and numpy."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf import text_format

SCRIPTS = Path(__file__).resolve().parents[2] / "Scripts"
sys.path.insert(1, str(SCRIPTS))

from sgs.frontends.caffe.generated import caffe_pb2  # noqa: E402


def write_weights(prototxt: Path, caffemodel: Path, blobs: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Write the layers of a prototxt with their weights, as Caffe's snapshots have them.

    Args:
        prototxt: the network.
        caffemodel: the file to write.
        blobs: float32 arrays of each layer that has weights, by its name, in Caffe's order.

    Raises:
        KeyError: the network has no layer of such a name.
    """
    network = text_format.Parse(prototxt.read_text(encoding="utf-8"), caffe_pb2.NetParameter())
    layers = {layer.name: layer for layer in network.layer}
    for name, values in blobs.items():
        for value in values:
            blob = layers[name].blobs.add()
            blob.shape.dim.extend(value.shape)
            blob.data.extend(value.ravel().tolist())
    caffemodel.write_bytes(network.SerializeToString(deterministic=True))
