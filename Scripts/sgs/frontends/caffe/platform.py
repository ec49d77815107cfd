"""Caffe networks, as a platform."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sgs.errors import Problems, UserError, raise_all
from sgs.frontends.caffe.context import Shape
from sgs.frontends.caffe.network import Network, part_of, read_network, shaped
from sgs.frontends.caffe.translate import translate
from sgs.frontends.caffe.weights import read_weights
from sgs.frontends.onnx_model import SourceModel, normalised
from sgs.frontends.platforms import Asked, Option, Platform

Read = TypeVar("Read")


def _load(values: Mapping[str, Any], asked: Asked) -> SourceModel:
    return load_caffe(values["model_file"], values["weight_file"], asked)


def load_caffe(model_file: Path, weight_file: Path, asked: Asked | None = None) -> SourceModel:
    """The ONNX model of a prototxt and its caffemodel. Raises UserError with all that is wrong with them."""
    problems: list[UserError] = []
    network = _tried(lambda: read_network(model_file), problems)
    read = _tried(lambda: read_weights(weight_file), problems)
    raise_all(problems, stage="convert")
    assert network is not None and read is not None
    weights, digest = read
    asked = asked or Asked()
    network = part_of(network, [end.name for end in asked.surgery.outputs], asked.surgery.input_shapes)
    shapes, batch = shaped(network, _given(network, asked))
    proto = translate(network, weights, weight_file, shapes, batch)
    ports = [value.name for value in (*proto.graph.input, *proto.graph.output)]
    source = normalised(proto, model_file, hashlib.sha256(network.digest + digest).hexdigest())
    return replace(source, layouts=dict.fromkeys(ports, "NCHW"))


def _given(network: Network, asked: Asked) -> dict[str, Shape]:
    """The shapes that are asked for, by name."""
    if asked.shapes is None:
        return {}
    names = asked.inputs or [found.name for found in network.inputs]
    if len(names) != len(asked.shapes):
        reason = f"{len(asked.shapes)} input shapes for {len(names)} inputs ({', '.join(names)})"
        remedy = "--input_shapes takes one shape per input, with ':' between them"
        raise UserError(reason, stage="convert", file=network.path, remedy=remedy)
    return dict(zip(names, asked.shapes, strict=True))


def _tried(read: Callable[[], Read], problems: list[UserError]) -> Read | None:
    """What a reader gives; None where it cannot, and its problems are noted."""
    try:
        return read()
    except Problems as error:
        problems += error.problems
    except UserError as error:
        problems.append(error)
    return None


CAFFE = Platform(
    "caffe",
    "Caffe networks",
    (
        Option("model_file", "the .prototxt file: what the network is", "file", required=True, metavar="FILE"),
        Option("weight_file", "the .caffemodel file: its weights", "file", required=True, metavar="FILE"),
    ),
    _load,
    takes_shapes=True,
    suffixes=(".prototxt",),
)
