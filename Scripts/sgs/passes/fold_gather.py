"""Channel selections into the weights of the sum of products in front."""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Graph, Node
from sgs.passes.editor import Editor
from sgs.registry import QUANTISE


def fold_gather(graph: Graph) -> int:
    """GATHER of channels by a constant, right behind a float sum of products over *all* input channels (not depthwise,
    not grouped) that nothing else reads: the rows of its weights and bias are gathered instead."""
    with Editor(graph) as edit:
        for node in graph.nodes:
            indices = edit.constant(node.inputs[1]) if node.op == "GATHER" else None
            mac = None if indices is None else edit.sole_producer(node.inputs[0])
            if indices is None or indices.data is None or mac is None or not _gatherable(edit, mac):
                continue
            last = node.attrs["axis"] == len(graph[mac.outputs[0]].shape) - 1 and indices.data.ndim == 1
            old = graph[mac.outputs[0]]
            if last and edit.bypass(node, mac.outputs[0]):
                _gather_rows(edit, mac, indices.data.astype(np.int64))
                old.shape = (*old.shape[:-1], indices.data.size)
                edit.count += 1
    return edit.count


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


def _gather_rows(edit: Editor, mac: Node, rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
    rule = QUANTISE[mac.op]
    for index in (rule.weight, rule.bias):
        tensor = edit.constant(mac.inputs[index]) if index < len(mac.inputs) else None
        if tensor is not None and tensor.data is not None:
            edit.set_input(mac, index, edit.add_constant(tensor.name, tensor.data[rows]))
