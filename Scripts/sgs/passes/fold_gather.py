"""Channel selections into the weights of the sums of products in front or behind."""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Graph, Node
from sgs.passes.editor import Editor
from sgs.registry import QUANTISE

Indices = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


def fold_gather(graph: Graph) -> int:
    """GATHER of channels by a constant, next to float sums of products over *all* input channels (not depthwise, not
    grouped):

    * right behind one that nothing else reads: the rows of its weights and bias are gathered instead;
    * a permutation that only such sums read, as their operand 0: the input channels of their weights are permuted
      instead.
    """
    with Editor(graph) as edit:
        for node in graph.nodes:
            indices = edit.constant(node.inputs[1]) if node.op == "GATHER" else None
            if indices is None or indices.data is None or indices.data.ndim != 1 or not _on_channels(graph, node):
                continue
            picked = indices.data.astype(np.int64)
            edit.count += _into_producer(edit, node, picked) or _into_readers(edit, node, picked)
    return edit.count


def _on_channels(graph: Graph, node: Node) -> bool:
    return bool(node.attrs["axis"] == len(graph[node.inputs[0] or ""].shape) - 1)


def _into_producer(edit: Editor, node: Node, picked: Indices) -> bool:
    mac = edit.sole_producer(node.inputs[0])
    if mac is None or not _gatherable(edit, mac) or not edit.bypass(node, mac.outputs[0]):
        return False
    _gather_rows(edit, mac, picked)
    old = edit.graph[mac.outputs[0]]
    old.shape = (*old.shape[:-1], picked.size)
    return True


def _into_readers(edit: Editor, node: Node, picked: Indices) -> bool:
    x, y = edit.graph[node.inputs[0] or ""], node.outputs[0]
    macs = list(edit.readers[y])
    if not macs or y in edit.graph.outputs or not np.array_equal(np.sort(picked), np.arange(x.shape[-1])):
        return False
    if not all(mac.inputs.count(y) == 1 and mac.inputs[0] == y and _gatherable(edit, mac) for mac in macs):
        return False
    for mac in macs:
        rule = QUANTISE[mac.op]
        weight = edit.constant(mac.inputs[rule.weight])
        assert weight is not None and weight.data is not None
        edit.set_input(mac, rule.weight, edit.add_constant(weight.name, weight.data[..., np.argsort(picked)]))
        edit.set_input(mac, 0, x.name)  # under its own name: its channels are not in the order of the selection
    edit.remove(node)
    return True


def _gatherable(edit: Editor, mac: Node) -> bool:
    rule = QUANTISE.get(mac.op)
    if rule is None or rule.kind != "mac":
        return False
    weight, x = edit.constant(mac.inputs[rule.weight]), edit.graph[mac.inputs[0] or ""]
    bias = mac.inputs[rule.bias] if len(mac.inputs) > rule.bias else None
    if weight is None or weight.quant is not None or (bias is not None and edit.constant(bias) is None):
        return False
    dense = rule.channel_axis == 0 and weight.shape[-1] == x.shape[-1]
    return dense and weight.shape[0] == edit.graph[mac.outputs[0]].shape[-1]


def _gather_rows(edit: Editor, mac: Node, rows: Indices) -> None:
    rule = QUANTISE[mac.op]
    for index in (rule.weight, rule.bias):
        tensor = edit.constant(mac.inputs[index]) if index < len(mac.inputs) else None
        if tensor is not None and tensor.data is not None:
            edit.set_input(mac, index, edit.add_constant(tensor.name, tensor.data[rows]))
