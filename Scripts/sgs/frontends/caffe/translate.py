"""Caffe's layers → ONNX nodes, once, in order.

Blobs become values that are written once: a layer that works in place makes a new value, and the last writer of a blob
has its name. Problems are collected: tops of a layer that was refused are lost, layers that read lost blobs are passed
over, and everything wrong with the network and its weights is reported together.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping, Sequence
from itertools import chain, count
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper
from onnx.shape_inference import InferenceError, infer_node_outputs

import sgs.frontends.caffe.layers  # noqa: F401  (fills the table)
from sgs.config.nearest import counted, listing
from sgs.errors import UnsupportedOperator, UserError, raise_all
from sgs.frontends.caffe.context import CAFFE, LARGEST_TENSOR, LayerContext, Shape, Value
from sgs.frontends.caffe.network import Network, label_of
from sgs.frontends.caffe.reasons import reason_of
from sgs.frontends.onnx_message import SOURCE_LABEL
from sgs.numeric.quantise import Array

OPSET = 17
_IR_VERSION = 10  # the first in which nodes have metadata
_TOLD = 1024  # elements up to which shape inference is told the values of a constant
_TOLD_PAIRS = 3
_SOURCES = frozenset({"Parameter"})  # layers that read nothing
_LABELLED = frozenset({"SoftmaxWithLoss"})  # layers whose bottoms behind the first one nothing gives where they run
_MOVING = frozenset({"Flatten", "Identity", "Pad", "Reshape", "Transpose"})
_log = logging.getLogger(__name__)


def translate(
    network: Network, weights: Mapping[str, Sequence[Any]], weight_file: Path, shapes: Mapping[str, Shape], batch: int
) -> ModelProto:
    """The ONNX model of a network with these input shapes; `batch`: that of the file, where it was made 1. Every value
    of the model has its static shape in it. Raises UserError with all that is wrong.

    Weights are those of the layer of the same name. Where layers lack them and as many others of the weight file are of
    no layer, those are taken in the files' order, with a warning, if then every shape agrees.
    """
    first = Translation(network, weights, weight_file, batch)
    first.walk(shapes)
    pairs = first.unnamed()
    if pairs:
        second = Translation(network, {**weights, **{to: weights[by] for to, by in pairs}}, weight_file, batch)
        second.walk(shapes)
        if not second.problems:
            told = listing([f"'{to}' those of '{by}'" for to, by in pairs], _TOLD_PAIRS)
            reason = f"{weight_file} has other names for {counted(len(pairs), 'layer')}"
            second.warn(f"{reason}; they get its weights in order, as all shapes agree: {told}")
            return second.model(shapes)
    return first.model(shapes)


class Translation:
    """One translation: what each blob is, and the graph that grows."""

    def __init__(
        self, network: Network, weights: Mapping[str, Sequence[Any]], weight_file: Path, batch_was: int
    ) -> None:
        self.network = network
        self.path = network.path
        self.batch_was = batch_was
        self._weights = weights
        self._weight_file = weight_file
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, Array] = {}
        self._constant: set[str] = set()  # values that depend on no input
        self._kinds: dict[str, Value] = {}  # every value that a node makes
        # blob → its values in order, with the type of the layer that makes each, None for inputs
        self._versions: dict[str, list[tuple[Value, str | None]]] = {}
        self._bound: set[str] = set()  # values that blobs have
        self._consumed: set[str] = set()
        self._lost: set[str] = set()
        self._names = {name for layer in network.layers for name in layer.top} | {i.name for i in network.inputs}
        self._node_names: set[str] = set()
        self._taken: set[str] = set()  # names of layers that take weights
        self._weighted: list[LayerContext] = []  # layers that the weight file has weights of
        self._missing: list[LayerContext] = []  # layers that the weight file lacks
        self.reshaped = False  # whether an input's shape, but for its batch, is another than the file's
        self.problems: list[UserError] = []
        self._warnings: list[str] = []
        self._schemas: dict[str, Any] = {}

    def walk(self, shapes: Mapping[str, Shape]) -> None:
        """Take every layer, from inputs of these shapes on."""
        for name, shape in shapes.items():
            self._versions[name] = [(Value(name, shape), None)]
        files = {found.name: found.shape for found in self.network.inputs}
        self.reshaped = any((files[name] or shape)[1:] != shape[1:] for name, shape in shapes.items())
        for layer in self.network.layers:
            self._layer(layer)
        self._tell_missing()
        self.problems += [context.refuse_blobs() for context in self._weighted if context.layer.name not in self._taken]
        if not self.problems and not self._outputs():
            self.report(self._refused("the network has no output: every blob is read by a layer"))

    def unnamed(self) -> list[tuple[str, str]]:
        """(layer without weights, weights of no layer), in order; nothing where these are not as many."""
        names = {layer.name for layer in self.network.layers}
        free = [name for name in self._weights if name not in names]
        lacking = [layer.name for layer in self._missing]
        return list(zip(lacking, free, strict=True)) if len(lacking) == len(free) else []

    # -- layers --------------------------------------------------------------------------------------------------------
    def _layer(self, layer: Any) -> None:
        row = CAFFE.get(layer.type)
        if row is None:
            self.report(self._unknown(layer))
            return self._lose(layer)
        bottoms = self._bottoms(layer)
        if bottoms is None:
            return self._lose(layer)
        context = LayerContext(self, layer, bottoms, self._weights.get(layer.name, ()))
        first = len(self._nodes)
        try:
            tops = list(row(context))
            if context.blob_count:
                self._weighted.append(context)
            self._bind(context, tops)
            self._name_nodes(context.name, self._nodes[first:])
        except UserError as error:
            self.report(error)
            self._lose(layer)
        return None

    def _bottoms(self, layer: Any) -> list[Value] | None:
        """What a layer reads; None where something of it is lost, or is not there, which is reported."""
        names = list(layer.bottom[:1] if layer.type in _LABELLED else layer.bottom)
        if not names and layer.type not in _SOURCES:
            self.report(self._refused("it has no bottom", label_of(layer)))
            return None
        missing = [name for name in names if name not in self._versions and name not in self._lost]
        for name in missing:
            reason = f"it reads '{name}', which no layer before it gives"
            self.report(self._refused(reason, label_of(layer)))
        if missing or any(name in self._lost for name in names):
            return None
        found = [self._versions[name][-1][0] for name in names]
        self._consumed.update(value.name for value in found)
        return found

    def _bind(self, context: LayerContext, tops: Sequence[Value]) -> None:
        """Let a layer's tops be what its row made of them."""
        names = list(context.layer.top)
        if len(names) > len(tops):
            raise context.refuse(f"its top '{names[len(tops)]}' is not supported", "remove it if nothing reads it")
        for name, value in zip(names, tops, strict=False):
            self._lost.discard(name)
            versions = self._versions.setdefault(name, [])
            if versions and versions[-1][0] is value:  # in place, and nothing happens to it
                self._consumed.discard(value.name)
                continue
            if versions and name not in context.layer.bottom:
                context.warn(f"it writes '{name}' anew")
            if value.name not in self._kinds or value.name in self._bound:
                value = context.emit("Identity", [value])  # an input, a constant, or the value of another blob
            versions.append((value, context.type))
            self._bound.add(value.name)

    def _name_nodes(self, layer: str, nodes: Sequence[NodeProto]) -> None:
        """Give a layer's nodes its name: the one that computes, and names below it to the others."""
        main = next((node for node in nodes if node.op_type not in _MOVING), nodes[-1] if nodes else None)
        for node in nodes:
            wanted = layer if node is main else f"{layer}/{node.op_type}"
            node.name = _free(wanted, self._node_names)
            self._node_names.add(node.name)

    def _lose(self, layer: Any) -> None:
        self._lost.update(layer.top)

    # -- problems ------------------------------------------------------------------------------------------------------
    def report(self, problem: UserError) -> None:
        self.problems.append(problem)

    def warn(self, what: str) -> None:
        """Something that the log is to say of the network if this is what becomes of it."""
        self._warnings.append(what)

    def _unknown(self, layer: Any) -> UserError:
        constant = {name for name, versions in self._versions.items() if versions[-1][0].name in self._constant}
        reason, remedy = reason_of(layer.type, [name for name in layer.bottom if name not in constant])
        return UnsupportedOperator(reason, stage="convert", file=self.path, node=label_of(layer), remedy=remedy)

    def take(self, context: LayerContext) -> None:
        """Take note that a layer takes weights. Raises UserError where another one of its name does, too."""
        if context.layer.name in self._taken:
            raise context.refuse(
                "another layer that takes weights has the same name",
                "weights are found by the layer's name: give each its own, in both files",
            )
        self._taken.add(context.layer.name)

    def report_missing(self, context: LayerContext) -> None:
        """Take note of a layer that the weight file lacks."""
        self._missing.append(context)

    def _tell_missing(self) -> None:
        if not self._missing:
            return
        if not any(layer.name in self._weights for layer in self.network.layers):
            known = listing([f"'{name}'" for name in self._weights], _TOLD_PAIRS)
            reason = f"{self._weight_file} has weights of no layer of this network, but of {known}"
            self.report(self._refused(reason, self._missing[0].label, "give the caffemodel of this network"))
            return
        for context in self._missing:
            remedy = "weights are found by the layer's name: give the caffemodel of this network"
            self.report(self._refused(f"{self._weight_file} has no weights of it", context.label, remedy))

    def _refused(self, reason: str, node: str | None = None, remedy: str = "check the prototxt") -> UserError:
        return UserError(reason, stage="convert", file=self.path, node=node, remedy=remedy)

    # -- the graph -----------------------------------------------------------------------------------------------------
    def constant(self, wanted: str, data: Array) -> Value:
        name = self._fresh(wanted)
        self._constants[name] = data
        self._constant.add(name)
        return Value(name, data.shape, data.dtype, data)

    def node(
        self, context: LayerContext, op_type: str, inputs: Sequence[Value | None], outputs: int, attrs: dict[str, Any]
    ) -> list[Value]:
        """Append a node; its results, of the shapes that ONNX infers."""
        names = ["" if value is None else value.name for value in inputs]
        results = [self._fresh(f"{context.name}/{op_type}") for _ in range(outputs)]
        given = {key: value for key, value in attrs.items() if value not in (None, [], ())}
        node = helper.make_node(op_type, names, results, **given)
        node.metadata_props.add(key=SOURCE_LABEL, value=context.label)
        values = self._inferred(context, node, [value for value in inputs if value is not None])
        self._nodes.append(node)
        if self._constant.issuperset(filter(None, names)):
            self._constant.update(results)
        self._kinds.update((value.name, value) for value in values)
        return values

    def _inferred(self, context: LayerContext, node: NodeProto, inputs: Sequence[Value]) -> list[Value]:
        kinds = {
            v.name: helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for v in inputs
        }
        known = {
            v.name: numpy_helper.from_array(np.ascontiguousarray(v.data), v.name)
            for v in inputs
            if v.data is not None and v.data.size <= _TOLD
        }
        schema = self._schemas.setdefault(node.op_type, onnx.defs.get_schema(node.op_type, OPSET, ""))
        try:
            found = infer_node_outputs(schema, node, kinds, known, opset_imports=[helper.make_opsetid("", OPSET)])
        except InferenceError as error:
            told = str(error).rpartition("ShapeInferenceError]")[2].strip()
            raise context.refuse(f"its inputs do not fit it: {told}", "check the prototxt") from error
        values = []
        for name in node.output:
            kind = found[name].tensor_type
            shape = tuple(dim.dim_value for dim in kind.shape.dim)
            if any(extent <= 0 for extent in shape):
                raise context.refuse(
                    f"its result would have the shape [{','.join(map(str, shape))}]", "check its input"
                )
            if prod(shape) > LARGEST_TENSOR:
                raise context.refuse(f"its result of shape {shape} is too large", "check the prototxt")
            values.append(Value(name, shape, np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))))
        return values

    def _fresh(self, wanted: str) -> str:
        name = _free(wanted, self._names)
        self._names.add(name)
        return name

    # -- the model -----------------------------------------------------------------------------------------------------
    def _outputs(self) -> list[str]:
        """Values of blobs that no layer reads, in the order of the layers that write them last."""
        made: dict[str, None] = {}
        for layer in self.network.layers:
            for name in layer.top:
                made.pop(name, None)
                made[name] = None
        last = {name: self._versions[name][-1][0].name for name in made if name in self._versions}
        return [value for value in last.values() if value in self._kinds and value not in self._consumed]

    def _renamed(self) -> dict[str, str]:
        """value → its name: the blob's for the last one of a blob, `blob/type` for those before it. An input keeps its
        name, whatever works on it in place."""
        found = {}
        for blob, versions in self._versions.items():
            for value, kind in versions:
                if kind is None:
                    continue
                last = value is versions[-1][0] and versions[0][1] is not None
                found[value.name] = blob if last else self._fresh(f"{blob}/{kind}")
        return found

    def model(self, shapes: Mapping[str, Shape]) -> ModelProto:
        """What the walk has made. Raises UserError with all that it met."""
        raise_all(self.problems, stage="convert", file=self.path)
        for what in self._warnings:
            _log.warning("%s: %s", self.path, what)
        outputs = self._outputs()
        names = self._renamed()
        for node in self._nodes:
            for list_ in (node.input, node.output):
                list_[:] = [names.get(name, name) for name in list_]
        read = {name for node in self._nodes for name in node.input}
        fed = [_info(Value(name, shape)) for name, shape in shapes.items() if name in read]
        inner = [value for value in self._kinds.values() if value.name not in outputs]
        graph = helper.make_graph(
            self._nodes,
            self.network.name,
            fed,
            [_info(self._kinds[name], names[name]) for name in outputs],
            value_info=[_info(value, names.get(value.name)) for value in inner],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION, producer_name="caffe"
        )
        for name, data in self._constants.items():  # into the model at once: a message is copied with what it holds
            kind = helper.np_dtype_to_tensor_dtype(data.dtype)
            model.graph.initializer.add(name=name, dims=data.shape, data_type=kind, raw_data=data.tobytes())
        return model


def _free(wanted: str, taken: Container[str]) -> str:
    """A name like the wanted one that is not taken."""
    return next(name for name in chain([wanted], (f"{wanted}_{n}" for n in count(2))) if name not in taken)


def _info(value: Value, name: str | None = None) -> ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(name or value.name, kind, value.shape)
