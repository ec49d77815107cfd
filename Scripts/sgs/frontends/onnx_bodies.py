"""Nodes that stand for other nodes: bodies of control flow, and operators that the ONNX standard defines by others.

A body is copied node by node under names of its own, its formal inputs replaced by the values that are passed in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    NodeProto,
    TensorProto,
    TypeProto,
    defs,
    helper,
    numpy_helper,
)

from sgs.frontends.onnx_message import bodies_of
from sgs.numeric.quantise import Array

_STANDARD = ("", "ai.onnx", "ai.onnx.preview")
_DEEPEST = 8  # bodies inside bodies


@dataclass
class Body:
    """A copy of a body: its nodes in order, constants by name, and the names of its results. `opset` is the version of
    the operators that the nodes are written in, None for that around."""

    nodes: list[NodeProto]
    outputs: list[str]
    constants: dict[str, TensorProto] = field(default_factory=dict)
    opset: int | None = None


# -- copies ----------------------------------------------------------------------------------------------------------
def instantiated(graph: GraphProto, stem: str, arguments: Mapping[str, str]) -> Body:
    """A copy of a body of control flow, its formal inputs replaced by `arguments`; what it defines is named
    `stem/<name>`, all other names are those of values around it."""
    defined = [tensor.name for tensor in graph.initializer]
    defined += [name for node in graph.node for name in node.output if name]
    names = {name: f"{stem}/{name}" for name in defined} | dict(arguments)
    constants = {names[tensor.name]: tensor for tensor in graph.initializer}
    outputs = [names.get(value.name, value.name) for value in graph.output]
    return Body([_renamed(node, names) for node in graph.node], outputs, constants)


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """A copy of a node whose operands and results have other names, in its own bodies as well."""
    made = NodeProto()
    made.CopyFrom(node)
    made.input[:] = [names.get(name, name) for name in node.input]
    made.output[:] = [names.get(name, name) for name in node.output]
    for graph in bodies_of(made):
        _rename_captured(graph, names)
    return made


def _rename_captured(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Give other names to what a body reads from around it."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own.update(name for node in graph.node for name in node.output)
    outer = {name: new for name, new in names.items() if name not in own}
    for node in graph.node:
        node.input[:] = [outer.get(name, name) for name in node.input]
        for inner in bodies_of(node):
            _rename_captured(inner, outer)
    for value in graph.output:
        value.name = outer.get(value.name, value.name)


# -- operators that are defined by others ----------------------------------------------------------------------------
def function_body(node: NodeProto, opset: int, types: Sequence[TypeProto | None], stem: str) -> Body | None:
    """A copy of what the ONNX standard defines an operator by, for operands of these types; None where there is no
    such definition. `types` has None for an absent operand."""
    function = _function(node, opset, types)
    if function is None:
        return None
    defaults = {name: a.default_value for name, a in _schema(node, opset).attributes.items() if a.default_value.name}
    return called(node, function, stem, defaults)


def called(node: NodeProto, function: FunctionProto, stem: str, defaults: Mapping[str, AttributeProto] = {}) -> Body:
    """A copy of a function's body in place of a node that calls it; `defaults` of attributes that the node may lack."""
    names = dict(zip(function.input, node.input, strict=False))
    names |= dict.fromkeys(function.input[len(node.input) :], "")
    results = dict(zip(function.output, node.output, strict=False))
    inner = {name for made in function.node for name in made.output if name}
    names |= {name: results.get(name) or f"{stem}/{name}" for name in inner}
    attrs = {**defaults, **{a.name: a for a in function.attribute_proto}, **{a.name: a for a in node.attribute}}
    nodes = [_specialised(_renamed(made, names), attrs, node.name) for made in function.node]
    passed = [(names[name], new) for name, new in results.items() if new and name not in inner and name in names]
    nodes += [helper.make_node("Identity", [old], [new], name=node.name) for old, new in passed]
    return Body(nodes, list(node.output), {}, _version(function))


def _version(function: FunctionProto) -> int | None:
    """The version of the standard operators in a function."""
    return next((entry.version for entry in function.opset_import if entry.domain in ("", "ai.onnx")), None)


def _function(node: NodeProto, opset: int, types: Sequence[TypeProto | None]) -> FunctionProto | None:
    """The standard's definition of one node. Raises RuntimeError where it has none for these types."""
    schema = _schema(node, opset)
    versions = [] if schema is None else [v for v in schema.context_dependent_function_opset_versions if v <= opset]
    content = None
    if versions:
        given = [(kind or TypeProto()).SerializeToString() for kind in types]
        make = schema.get_context_dependent_function_with_opset_version
        content = make(max(versions), node.SerializeToString(), given)
    elif schema is not None and schema.has_function:
        fitting = [v for v in schema.function_opset_versions if v <= opset]
        content = schema.get_function_with_opset_version(max(fitting)) if fitting else None
    function = None if content is None else FunctionProto.FromString(content)
    return function if function is not None and function.node else None


def _schema(node: NodeProto, opset: int) -> Any:
    domain = "" if node.domain == "ai.onnx" else node.domain
    if node.domain not in _STANDARD:
        return None
    try:
        return defs.get_schema(node.op_type, opset if domain == "" else 1, domain)
    except defs.SchemaError:
        return None


def _specialised(made: NodeProto, attrs: Mapping[str, AttributeProto], name: str) -> NodeProto:
    """References to attributes replaced by what they refer to; those to absent ones are left out."""
    made.name = name
    for graph in bodies_of(made):
        for node in graph.node:
            _specialised(node, attrs, node.name)
    kept = []
    for attribute in made.attribute:
        if not attribute.ref_attr_name:
            kept.append(attribute)
        elif attribute.ref_attr_name in attrs:
            value = AttributeProto()
            value.CopyFrom(attrs[attribute.ref_attr_name])
            value.name = attribute.name
            kept.append(value)
    kept = [AttributeProto.FromString(a.SerializeToString()) for a in kept]
    del made.attribute[:]
    made.attribute.extend(kept)
    return made


def is_expandable(node: NodeProto, opset: int, known: Collection[str], depth: int = 0) -> bool:
    """Whether a body of operators that are `known`, or have such bodies, defines an operator. One that depends on the
    types of its operands counts as such."""
    schema = _schema(node, opset)
    if schema is None or depth > _DEEPEST:
        return False
    if schema.has_context_dependent_function:
        return True
    if not schema.has_function:
        return False
    body = _function(node, opset, [])
    if body is None:
        return False
    version = _version(body) or opset
    return all(made.op_type in known or is_expandable(made, version, known, depth + 1) for made in body.node)


# -- pieces that expansions are made of ------------------------------------------------------------------------------
def constant_node(name: str, value: Array) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value)))


def with_axis(x: str, result: str, axis: int, opset: int) -> list[NodeProto]:
    """x with one more axis, of extent 1."""
    return _axis_node("Unsqueeze", x, result, axis, opset)


def without_axis(x: str, result: str, axis: int, opset: int) -> list[NodeProto]:
    """x without an axis of extent 1."""
    return _axis_node("Squeeze", x, result, axis, opset)


def _axis_node(op: str, x: str, result: str, axis: int, opset: int) -> list[NodeProto]:
    if opset < 13:
        return [helper.make_node(op, [x], [result], axes=[axis])]
    axes = f"{result}/axes"
    return [constant_node(axes, np.array([axis], np.int64)), helper.make_node(op, [x, axes], [result])]


def stacked(parts: Sequence[str], result: str, axis: int, opset: int) -> list[NodeProto]:
    """Parts of one shape along a new axis."""
    nodes = []
    names = [f"{result}/part{index}" for index in range(len(parts))]
    for part, name in zip(parts, names, strict=True):
        nodes += with_axis(part, name, axis, opset)
    return [*nodes, helper.make_node("Concat", names, [result], axis=axis)]


def parted(x: str, sizes: Sequence[int], names: Sequence[str], axis: int, opset: int) -> list[NodeProto]:
    """x cut along an axis."""
    if len(sizes) == 1:
        return [helper.make_node("Identity", [x], [names[0]])]
    if opset < 13:
        return [helper.make_node("Split", [x], list(names), axis=axis, split=list(sizes))]
    split = f"{names[0]}/sizes"
    sizes_node = constant_node(split, np.array(sizes, np.int64))
    return [sizes_node, helper.make_node("Split", [x, split], list(names), axis=axis)]
