"""Random weights for a prototxt without any: what its layers take is asked of the translation itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from sgs.frontends.caffe.context import LayerContext, Shape
from sgs.frontends.caffe.generated import NetWeights
from sgs.frontends.caffe.network import read_network, shaped
from sgs.frontends.caffe.translate import translate
from sgs.numeric.quantise import Array

POSITIVE = {"variance": (1.0, 3.0), "factor": (1.0, 1.0), "scale": (0.5, 1.5)}  # blob → least and most


def wanted_blobs(prototxt: Path) -> dict[str, dict[str, Shape]]:
    """Layer → blob → its shape."""
    network, wanted = read_network(prototxt), {}

    def asked(context: LayerContext, **shapes: Shape) -> list[Array]:
        wanted[context.name] = shapes
        return [np.ones(shape, np.float32) for shape in shapes.values()]

    with patch.object(LayerContext, "blobs", asked):
        translate(network, {}, prototxt, *shaped(network, {}))
    return wanted


def random_weights(prototxt: Path, seed: int = 0) -> bytes:
    """A caffemodel: weights that keep the deviation of what they are applied to, everything else near 0 or 1."""
    rng = np.random.default_rng(seed)
    net = NetWeights(name="random")
    for name, shapes in wanted_blobs(prototxt).items():
        layer = net.layer.add(name=name)
        for kind, shape in shapes.items():
            blob = layer.blobs.add()
            blob.shape.dim.extend(shape)
            blob.data.append(_drawn(kind, shape, rng).astype("<f4").tobytes())
    return bytes(net.SerializeToString())


def _drawn(kind: str, shape: Shape, rng: Any) -> Array:
    if kind in POSITIVE:
        return np.asarray(rng.uniform(*POSITIVE[kind], shape))
    return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1, shape)
