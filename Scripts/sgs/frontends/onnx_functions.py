"""Operators that the ONNX standard defines by others: they are replaced by their bodies where no row imports them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from onnx import FunctionProto, ModelProto, NodeProto, TypeProto, defs, helper, inliner, shape_inference

_log = logging.getLogger(__name__)
_STANDARD = ("", "ai.onnx", "ai.onnx.preview")
_HERE = "sgs.body"  # domain of functions that stand for one node each
Kind = tuple[str, str]  # domain, operator


def with_known_operators(proto: ModelProto, known: Collection[str]) -> ModelProto:
    """Replace standard operators that are not `known` by their bodies, where these have fewer such operators. Returns
    the model itself where nothing changes."""
    for domain, op in sorted(_strange(proto, known)):
        try:
            schema = defs.get_schema(op, _opset(proto, domain), domain)
        except defs.SchemaError:
            continue
        if not (schema.has_function or schema.has_context_dependent_function):  # type: ignore[attr-defined]
            continue
        try:
            expanded = _inlined(proto, schema, (domain, op))
        except RuntimeError as error:  # it needs to know the types of all operands, and does not
            _log.debug("%s is not replaced by its body: %s", op, error)
            continue
        proto = expanded if _strange(expanded, known) < _strange(proto, known) else proto
    return proto


def _strange(proto: ModelProto, known: Collection[str]) -> set[Kind]:
    """Standard operators of the graph that are not known."""
    kinds = {_kind(node) for node in proto.graph.node}
    return {(domain, op) for domain, op in kinds if domain in _STANDARD and (domain or op not in known)}


def _kind(node: NodeProto) -> Kind:
    return "" if node.domain == "ai.onnx" else str(node.domain), str(node.op_type)


def _opset(proto: ModelProto, domain: str) -> int:
    """The version of a domain's operators, 1 where the model does not say."""
    names = ("", "ai.onnx") if domain == "" else (domain,)
    return next((entry.version for entry in proto.opset_import if entry.domain in names), 1)


def _inlined(proto: ModelProto, schema: defs.OpSchema, kind: Kind) -> ModelProto:
    """The model with every node of this kind replaced. Raises RuntimeError where that cannot be done."""
    try:
        return inliner.inline_selected_functions(proto, [kind], inline_schema_functions=True)
    except RuntimeError as error:  # it asks for the types of absent operands as well
        if not schema.has_context_dependent_function:  # type: ignore[attr-defined]
            raise
        _log.debug("%s: %s", kind[1], error)
    return _inlined_one_by_one(proto, schema, kind)


def _inlined_one_by_one(proto: ModelProto, schema: defs.OpSchema, kind: Kind) -> ModelProto:
    """Bodies made for each node by itself, which may leave operands out."""
    model = ModelProto()
    model.CopyFrom(proto)
    types = _types(proto)
    for index, node in enumerate(model.graph.node):
        if _kind(node) != kind:
            continue
        body = _body(schema, node, types, _opset(proto, kind[0]))
        body.domain, body.name = _HERE, f"{node.op_type}{index}"
        node.domain, node.op_type = body.domain, body.name
        model.functions.append(body)
    model.opset_import.append(helper.make_opsetid(_HERE, 1))
    return inliner.inline_local_functions(model)


def _body(schema: defs.OpSchema, node: NodeProto, types: Mapping[str, TypeProto], opset: int) -> FunctionProto:
    """The body of one node. Raises RuntimeError where it has none for these types and this version."""
    versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]  # type: ignore[attr-defined]
    missing = [name for name in node.input if name and name not in types]
    if missing or not versions:
        raise RuntimeError(f"no types of {missing}" if missing else f"no body for operator set {opset}")
    given = [types[name].SerializeToString() if name else TypeProto().SerializeToString() for name in node.input]
    make = schema.get_context_dependent_function_with_opset_version  # type: ignore[attr-defined]
    body = FunctionProto()
    body.ParseFromString(make(max(versions), node.SerializeToString(), given))
    return body


def _types(proto: ModelProto) -> dict[str, TypeProto]:
    """Types of all values that are known."""
    graph = shape_inference.infer_shapes(proto).graph
    found = {value.name: value.type for part in (graph.input, graph.value_info, graph.output) for value in part}
    for tensor in graph.initializer:
        found.setdefault(tensor.name, helper.make_tensor_type_proto(tensor.data_type, tensor.dims))
    return found
