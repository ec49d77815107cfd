"""The prototxt: the layers that run, and the inputs.

Caffe's rules: layers of the phase TEST, by their include and exclude rules; inputs by `input` with `input_dim` or
`input_shape`, or by layers of type Input; `layers` of before (V1) with their types in capitals.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from math import prod
from pathlib import Path
from typing import Any

from sgs.errors import UserError, raise_all
from sgs.frontends.caffe.context import LARGEST_TENSOR, Shape
from sgs.frontends.caffe.generated import TEST, NetParameter
from sgs.frontends.caffe.prototxt import LONGEST, Stray, read_text
from sgs.frontends.model_file import reading, require_file

_log = logging.getLogger(__name__)
MOST_TOLD = 8  # strange fields of one kind
_ENTRIES = ("layer", "layers")
# types of V1 whose name is not that of today in capitals, with an underscore between words
_V1_TYPES = {
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "LRN": "LRN",
    "MVN": "MVN",
    "PRELU": "PReLU",
    "RELU": "ReLU",
    "ROI_POOLING": "ROIPooling",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}
# layers whose inputs have something else than the batch in front: time, or regions
_OWN_FRONT = ("LSTM", "RNN", "ROIPooling", "PSROIPooling", "ROIAlign")


@dataclass(frozen=True)
class Input:
    """An input: its shape as the file says it, None where it says none."""

    name: str
    shape: Shape | None


@dataclass(frozen=True)
class Network:
    """What runs: inputs and layers (LayerParameter) in the file's order. `digest`: SHA-256 of the file."""

    name: str
    inputs: Sequence[Input]
    layers: Sequence[Any]
    path: Path
    digest: bytes


def read_network(path: Path) -> Network:
    """Read a prototxt. Raises UserError with all that is wrong with it; what does no harm is a warning in the log."""
    content = _content(path)
    net = NetParameter()
    strays = read_text(path, content, net, _ENTRIES)
    if not (net.layer or net.layers):
        raise _refused(path, "holds no layers", "give the prototxt of the network, not that of its solver")
    layers, entries = _running(net, path)
    _judge(strays, dict(zip(entries, layers, strict=True)), path)
    _check_texts(layers, path)
    inputs = [*_declared(net, path), *(found for layer in layers for found in _of_layer(layer, path))]
    _check_inputs(inputs, path)
    kept = [layer for layer in layers if layer.type != "Input"]
    return Network(net.name or path.stem, inputs, kept, path, hashlib.sha256(content).digest())


def _content(path: Path) -> bytes:
    require_file(path, "give the path of a .prototxt file")
    with reading(path):
        if path.stat().st_size > LONGEST:
            raise _refused(path, f"is larger than {LONGEST >> 20} MiB", "a prototxt is text without weights")
        content = path.read_bytes()
    if not content.strip():
        raise _refused(path, "is empty", "give the prototxt of the network")
    return content


def _refused(path: Path, reason: str, remedy: str, node: str | None = None) -> UserError:
    return UserError(reason, stage="convert", file=path, node=node, remedy=remedy)


def label_of(layer: Any) -> str:
    return f"{layer.type} '{layer.name}'"


# -- which layers run --------------------------------------------------------------------------------------------------
def _running(net: Any, path: Path) -> tuple[list[Any], list[int]]:
    """(the layers that run, their numbers in the file)."""
    if net.layer and net.layers:
        raise _refused(path, "holds both 'layer' and 'layers'", "upgrade it with Caffe's upgrade_net_proto_text")
    old = bool(net.layers)
    found, numbers, problems = [], [], []
    for number, layer in enumerate(net.layers if old else net.layer):
        if layer.include and layer.exclude:
            problems.append(_refused(path, "has both include and exclude rules", "keep one kind", label_of(layer)))
        if _meets_any(layer.include, net.state) if layer.include else not _meets_any(layer.exclude, net.state):
            if old:
                layer.type = _type_of_today(layer.type)
            found.append(layer)
            numbers.append(number)
    raise_all(problems, stage="convert", file=path)
    return found, numbers


def _meets_any(rules: Iterable[Any], state: Any) -> bool:
    return any(_meets(rule, state) for rule in rules)


def _meets(rule: Any, state: Any) -> bool:
    """Whether the network's state, in the phase TEST, is as a rule says."""
    stages = set(state.stage)
    return (
        (not rule.HasField("phase") or rule.phase == TEST)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and stages.issuperset(rule.stage)
        and stages.isdisjoint(rule.not_stage)
    )


def _type_of_today(old: str) -> str:
    """INNER_PRODUCT → InnerProduct."""
    plain = "".join(word.capitalize() for word in old.split("_")) if old.isupper() else old
    return _V1_TYPES.get(old, plain)


def _check_texts(layers: Sequence[Any], path: Path) -> None:
    """Raise UserError for layers that lack a type, and blobs that lack a name."""
    problems = []
    for layer in layers:
        if not layer.type:
            remedy = "files of 2013, layers { layer { ... } }, are upgraded by Caffe's upgrade_net_proto_text"
            problems.append(_refused(path, f"layer '{layer.name}' says no type", remedy))
        if "" in (*layer.bottom, *layer.top):
            problems.append(_refused(path, "a blob of it has no name", "check the prototxt", label_of(layer)))
    raise_all(problems, stage="convert", file=path)


# -- the part that is meant --------------------------------------------------------------------------------------------
def part_of(network: Network, outputs: Sequence[str], inputs: Mapping[str, Shape]) -> Network:
    """The layers that blobs need (without any: those that no layer reads) where the blobs of `inputs` are fed.

    So layers that have no meaning here do no harm beyond the cut. A name that the network does not have leaves it
    whole: who cuts the translation tells of it.
    """
    made = {blob for layer in network.layers for blob in layer.top} | {found.name for found in network.inputs}
    named = [name if name in made else name.rpartition("/")[0] for name in outputs]  # blob/type: an earlier value
    if not made.issuperset([*named, *inputs]) or not (named or inputs):
        return network
    read = {blob for layer in network.layers for blob in layer.bottom}
    needed = set(named) or made - read
    kept = []
    for layer in reversed(network.layers):
        if (needed - inputs.keys()).intersection(layer.top):
            needed.update(layer.bottom)
            kept.append(layer)
    fed = [found for found in network.inputs if found.name in needed and found.name not in inputs]
    fed += [Input(name, shape) for name, shape in inputs.items()]
    return replace(network, layers=kept[::-1], inputs=fed)


# -- fields that there is no place for ---------------------------------------------------------------------------------
def _judge(strays: Sequence[Stray], layers: dict[int, Any], path: Path) -> None:
    """Raise UserError for the fields of forks that may say what a layer computes: those inside of a message of
    parameters that we read. Others, which name parameters of no layer that we read, are a warning."""
    problems = []
    loose: dict[tuple[str, str], list[int]] = {}
    for stray in strays:
        layer = None if stray.entry is None else layers.get(stray.entry)
        if stray.entry is not None and layer is None:
            continue  # in a layer that does not run
        if layer is not None and stray.holder.endswith("Parameter") and stray.holder != "LayerParameter":
            reason = f"line {stray.line}: {stray.name} is not a field that {layer.type} is known to have"
            remedy = "remove it if it does not say what the layer computes"
            problems.append(_refused(path, reason, remedy, label_of(layer)))
        else:
            what = f"field {stray.name}" if layer is None else f"field {stray.name} of layers of type {layer.type}"
            loose.setdefault((what, stray.holder), []).append(stray.line)
    for (what, _), lines in loose.items():
        told = ", ".join(map(str, lines[:MOST_TOLD])) + (" ..." if len(lines) > MOST_TOLD else "")
        _log.warning("%s: the %s is unknown and not read (line %s)", path, what, told)
    raise_all(problems, stage="convert", file=path)


# -- inputs ------------------------------------------------------------------------------------------------------------
def _declared(net: Any, path: Path) -> list[Input]:
    """Those of `input`."""
    names = list(net.input)
    if net.input_shape:
        shapes = [tuple(shape.dim) for shape in net.input_shape]
    else:
        dims = list(net.input_dim)
        if len(dims) % 4:
            raise _refused(path, f"{len(dims)} values of input_dim, not four for each input", "check the prototxt")
        shapes = [tuple(dims[first : first + 4]) for first in range(0, len(dims), 4)]
    if not shapes:
        return [Input(name, None) for name in names]
    if len(shapes) != len(names):
        reason = f"{len(names)} inputs ({', '.join(names)}) and {len(shapes)} shapes of inputs"
        raise _refused(path, reason, "give each input its input_shape")
    return [Input(name, shape) for name, shape in zip(names, shapes, strict=True)]


def _of_layer(layer: Any, path: Path) -> list[Input]:
    """Those of a layer of type Input."""
    if layer.type != "Input":
        return []
    shapes = [tuple(shape.dim) for shape in layer.input_param.shape]
    if len(shapes) not in (0, 1, len(layer.top)):
        reason = f"it has {len(layer.top)} tops and {len(shapes)} shapes"
        raise _refused(path, reason, "give one shape for all, or one for each", label_of(layer))
    each = shapes * len(layer.top) if len(shapes) == 1 else shapes
    return [Input(name, shape) for name, shape in zip_longest(layer.top, each)]


def _check_inputs(inputs: Sequence[Input], path: Path) -> None:
    problems, seen = [], set()
    for found in inputs:
        shape = found.shape
        if shape is not None and not _holds(shape):
            told = f"input '{found.name}' has the shape {_told(shape)}"
            problems.append(_refused(path, told, "give it positive extents of a size that a machine can hold"))
        if found.name in seen:
            problems.append(_refused(path, f"two inputs are named '{found.name}'", "keep one of them"))
        seen.add(found.name)
    if not inputs:
        remedy = "data layers feed a network for training: give the deploy prototxt, which has an input"
        problems.append(_refused(path, "has no input", remedy))
    raise_all(problems, stage="convert", file=path)


def _holds(shape: Shape) -> bool:
    return bool(shape) and min(shape) > 0 and prod(shape) <= LARGEST_TENSOR


def _told(shape: Shape) -> str:
    return f"[{','.join(map(str, shape))}]"


def shaped(network: Network, given: dict[str, Shape]) -> tuple[dict[str, Shape], int]:
    """(shapes of the inputs by name, the batch of the file where it was made 1, else 1).

    `given` comes first; else the file's, of which the batch becomes 1: deploy files have whatever their author ran.
    Raises UserError for inputs without a shape, and for shapes that do not fit an input.
    """
    keep = given or any(layer.type in _OWN_FRONT for layer in network.layers)
    shapes: dict[str, Shape] = {}
    batch = 1
    open_ = [found.name for found in network.inputs if found.name not in given and found.shape is None]
    if open_:
        told = ", ".join(f"'{name}'" for name in open_)
        remedy = "give every input's shape with --input_shapes, like 1,3,224,224"
        raise _refused(network.path, f"the prototxt says no shape of input {told}", remedy)
    for found in network.inputs:
        shape = given.get(found.name, found.shape)
        assert shape is not None
        if not _holds(shape) or (found.shape is not None and len(found.shape) != len(shape)):
            reason = f"the shape {_told(shape)} does not fit input '{found.name}' {_told(found.shape or ())}"
            raise _refused(network.path, reason, "give as many positive extents as the input has")
        if not keep and len(shape) > 1 and shape[0] > 1:
            batch = max(batch, shape[0])
            _log.info("input '%s': its batch of %d is made 1 (--input_shapes says another)", found.name, shape[0])
            shape = (1, *shape[1:])
        shapes[found.name] = shape
    return shapes, batch
