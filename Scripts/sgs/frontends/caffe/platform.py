"""Caffe networks, as a platform."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sgs.errors import gathered, raise_all
from sgs.frontends.caffe.context import Shape
from sgs.frontends.caffe.network import Network, part_of, read_network, shaped
from sgs.frontends.caffe.translate import translate
from sgs.frontends.caffe.weights import read_weights
from sgs.frontends.onnx_model import SourceModel, normalised, shapes_in_order
from sgs.frontends.onnx_surgery import Endpoint, Surgery, operate
from sgs.frontends.platforms import Asked, Option, Platform


def _load(values: Mapping[str, Any], asked: Asked) -> SourceModel:
    return load_caffe(values["model_file"], values["weight_file"], asked)


def load_caffe(model_file: Path, weight_file: Path, asked: Asked | None = None) -> SourceModel:
    """The ONNX model of a prototxt and its caffemodel, up to the blobs that are asked for. Raises UserError with all
    that is wrong with them."""
    read: dict[str, Any] = {}
    problems = gathered(
        lambda: read.update(network=read_network(model_file)), lambda: read.update(weights=read_weights(weight_file))
    )
    raise_all(problems, stage="convert")
    weights, digest = read["weights"]
    asked = asked or Asked()
    ends = tuple(end.name for end in asked.surgery.outputs) or asked.outputs or ()
    network = part_of(read["network"], ends, asked.surgery.input_shapes)
    shapes, batch = shaped(network, _given(network, asked))
    proto = translate(network, weights, weight_file, shapes, batch)
    source = normalised(proto, model_file, hashlib.sha256(network.digest + digest).hexdigest())
    made = {name for node in source.proto.graph.node for name in node.output}
    inner = made - {port.name for port in source.outputs}
    if not asked.surgery.outputs and made.issuperset(ends) and inner.intersection(ends):
        return operate(source, Surgery(outputs=tuple(map(Endpoint, ends))))
    return source


def _given(network: Network, asked: Asked) -> dict[str, Shape]:
    """The shapes that are asked for, by name."""
    if asked.shapes is None:
        return {}
    return shapes_in_order(asked.shapes, asked.inputs or [found.name for found in network.inputs], network.path)


CAFFE = Platform(
    "caffe",
    "Caffe network",
    (
        Option("model_file", "the .prototxt file: what the network is", "file", required=True, metavar="FILE"),
        Option("weight_file", "the .caffemodel file: its weights", "file", required=True, metavar="FILE"),
    ),
    _load,
    takes_shapes=True,
    suffixes=(".prototxt",),
)
