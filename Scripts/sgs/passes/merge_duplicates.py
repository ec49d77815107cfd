"""Equal constants become one, and so do equal computations."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from sgs.ir.graph import Graph, Node, Tensor
from sgs.passes.editor import Editor


def merge_duplicates(graph: Graph) -> int:
    """Nodes with the same operator, operands and attributes give the same results: the later one goes away, unless
    one of its results is a graph output. Constants with the same type, shape, parameters and bytes are one constant."""
    count = _merge_constants(graph)
    seen: dict[Hashable, Node] = {}
    with Editor(graph) as edit:
        for node in graph.nodes:
            key = (node.op, tuple(node.inputs), _frozen(node.attrs), _quantisation(graph, node))
            first = seen.setdefault(key, node)
            if first is not node and not any(name in graph.outputs for name in node.outputs):
                for index, source in enumerate(first.outputs):
                    edit.bypass(node, source, index)
                edit.count += 1
    return count + edit.count


def _merge_constants(graph: Graph) -> int:
    """Redirect readers of equal constants to the first of them."""
    seen: dict[Hashable, str] = {}
    renamed: dict[str, str] = {}
    for tensor in graph.tensors.values():
        if tensor.data is not None and tensor.name not in graph.outputs:
            first = seen.setdefault((tensor.dtype, tensor.shape, _content(tensor)), tensor.name)
            if first != tensor.name:
                renamed[tensor.name] = first
    for node in graph.nodes:
        node.inputs = [None if name is None else renamed.get(name, name) for name in node.inputs]
    for name in renamed:
        del graph.tensors[name]
    return len(renamed)


def _content(tensor: Tensor) -> Hashable:
    """What tells one constant from another of its type and shape. Large ones are told apart by where they lie."""
    assert tensor.data is not None
    quant = tensor.quant
    params = None if quant is None else (quant.axis, quant.scale.tobytes(), quant.zero_point.tobytes())
    small = tensor.nbytes <= 1 << 20
    return (tensor.data.tobytes() if small else id(tensor.data)), params


def _quantisation(graph: Graph, node: Node) -> Hashable:
    """Types and parameters of the results: two nodes that round differently are not the same."""
    return tuple(
        (t.dtype, None if t.quant is None else (t.quant.scale.tobytes(), t.quant.zero_point.tobytes()))
        for t in graph.results(node)
    )


def _frozen(value: Any) -> Hashable:
    """A hashable picture of attribute values."""
    if isinstance(value, dict):
        return tuple(sorted((key, _frozen(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return (type(value).__name__, value)
