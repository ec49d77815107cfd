"""Everything that there is in an ONNX message, the bodies of control flow and of functions included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

NAMED = "initializer"  # what `tensors_of` calls those of the main graph
SOURCE_LABEL = "sgs.source_label"  # key in the metadata of nodes that a frontend made of something that it calls so


def label_of(node: NodeProto) -> str:
    """How messages name a node: its operator and name, or what it is in the framework that the model comes from."""
    own = f"{node.op_type} '{node.name or next(filter(None, node.output), '?')}'"
    return next((entry.value for entry in node.metadata_props if entry.key == SOURCE_LABEL), own)


def bodies_of(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs that a node holds itself."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def reads_of(node: NodeProto) -> Iterator[str]:
    """Names of the values that a node reads, those that its bodies read from outside included."""
    pending: list[NodeProto | GraphProto] = [node]
    while pending:
        item = pending.pop()
        if isinstance(item, GraphProto):
            yield from (value.name for value in item.output)
            pending.extend(item.node)
            continue
        yield from (name for name in item.input if name)
        pending.extend(bodies_of(item))


def inner_graphs(proto: ModelProto) -> Iterator[GraphProto]:
    """The bodies of control flow, however deep."""
    pending: list[NodeProto] = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    while pending:
        for graph in bodies_of(pending.pop()):
            yield graph
            pending.extend(graph.node)


def nodes_of(proto: ModelProto) -> Iterator[NodeProto]:
    """Every node of the graph, of functions and of bodies."""
    yield from proto.graph.node
    for function in proto.functions:
        yield from function.node
    for graph in inner_graphs(proto):
        yield from graph.node


def inlined_nodes(proto: ModelProto, limit: int) -> int:
    """How many nodes the graph has once local functions are inlined, as far as `limit`; a function that calls itself
    has more than any limit. Functions inside bodies of control flow count as well."""
    functions = {(f.domain, f.name, f.overload): list(f.node) for f in proto.functions}
    known: dict[tuple[str, str, str], int] = {}

    def nodes_below(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
        for node in nodes:
            yield node
            for body in bodies_of(node):
                yield from nodes_below(body.node)

    def count(nodes: Iterable[NodeProto], open_: frozenset[tuple[str, str, str]]) -> int:
        total = 0
        for node in nodes_below(nodes):
            key = (node.domain, node.op_type, node.overload)
            if key in open_:
                return limit + 1
            if key in functions and key not in known:
                known[key] = count(functions[key], open_ | {key})
            total += known.get(key, 1)
            if total > limit:
                return limit + 1
        return total

    return count(proto.graph.node, frozenset())


def tensors_of(proto: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """(what it is, tensor) of every tensor."""
    yield from ((NAMED, tensor) for tensor in proto.graph.initializer)
    yield from (("constant", tensor) for graph in inner_graphs(proto) for tensor in graph.initializer)
    for node in nodes_of(proto):
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield "constant", attribute.t
            yield from (("constant", tensor) for tensor in attribute.tensors)


def texts_of(proto: ModelProto) -> Iterator[str | bytes]:
    """Every name; bytes are one that is not UTF-8."""
    yield from (proto.producer_name, proto.producer_version, proto.domain)
    yield from (entry.domain for entry in proto.opset_import)
    for function in proto.functions:
        yield from (function.name, function.domain, *function.input, *function.output, *function.attribute)
    for graph in (proto.graph, *inner_graphs(proto)):
        yield graph.name
        yield from (tensor.name for tensor in graph.initializer)
        yield from _texts_of_values((*graph.input, *graph.output, *graph.value_info))
    for node in nodes_of(proto):
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for _, tensor in tensors_of(proto):
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))


def _texts_of_values(values: Iterable[ValueInfoProto]) -> Iterator[str | bytes]:
    for value in values:
        yield value.name
        yield from (text for dim in value.type.tensor_type.shape.dim for text in (dim.dim_param, dim.denotation))
