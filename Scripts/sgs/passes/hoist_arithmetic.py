"""Arithmetic and activations behind a RESHAPE in front of it, where they can join the operator there."""

from __future__ import annotations

from sgs.ir.graph import Graph, Node
from sgs.passes.editor import Editor
from sgs.passes.fold_batch_norm import ARITHMETIC, foldable_mac, per_channel
from sgs.passes.fuse_activation import FUSED, takes_activation


def hoist_arithmetic(graph: Graph) -> int:
    """A convolution of one or three axes is one of pictures and a RESHAPE. What may be folded into the convolution, an
    operation with constants per channel or an activation, stands behind the RESHAPE; it changes places with it.

    The RESHAPE keeps the last axis, and nothing else reads its operand or its result.
    """
    with Editor(graph) as edit:
        places = {id(node): index for index, node in enumerate(graph.nodes)}
        for node in list(graph.nodes):
            reshape = _reshape_before(edit, node)
            if reshape is not None:
                _exchange(edit, reshape, node)
                first, second = places[id(reshape)], places[id(node)]
                graph.nodes[first], graph.nodes[second] = node, reshape
                places[id(node)], places[id(reshape)] = first, second
                edit.count += 1
    return edit.count


def _operand(edit: Editor, node: Node) -> int | None:
    """Which operand of the node is computed, None for a node that no other operator can take in."""
    if node.op in FUSED:
        return 0
    found = per_channel(edit.graph, node) if node.op in ARITHMETIC else None
    return None if found is None else found[0]


def _reshape_before(edit: Editor, node: Node) -> Node | None:
    """The RESHAPE that the node can pass and has a reason to pass."""
    index = _operand(edit, node)
    reshape = None if index is None else edit.sole_producer(node.inputs[index])
    if reshape is None or reshape.op != "RESHAPE":
        return None
    before, after = edit.graph[reshape.inputs[0] or ""], edit.graph[reshape.outputs[0]]
    if not before.shape or before.shape[-1:] != after.shape[-1:]:
        return None
    if node.op in FUSED:
        producer = edit.sole_producer(before.name)
        return reshape if producer is not None and takes_activation(producer) else None
    return reshape if foldable_mac(edit, before.name) is not None else None


def _exchange(edit: Editor, reshape: Node, node: Node) -> None:
    """x → reshape → a → node → b becomes x → node → b/inner → reshape → b: a name says which numbers a tensor holds."""
    index = _operand(edit, node)
    assert index is not None
    before, result = reshape.inputs[0] or "", node.outputs[0]
    between = edit.add_tensor(f"{result}/inner", edit.graph[before])
    if node.op in ARITHMETIC:
        constant = edit.constant(node.inputs[1 - index])
        assert constant is not None and constant.data is not None
        if len(constant.shape) > 1:
            edit.set_input(node, 1 - index, edit.add_constant(constant.name, constant.data.reshape(-1)))
    edit.set_input(node, index, before)
    edit.set_input(reshape, 0, between)
    node.outputs, reshape.outputs = [between], [result]
    edit.producers[between], edit.producers[result] = node, reshape
