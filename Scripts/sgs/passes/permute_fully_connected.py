"""Transposes on either side of a FULLY_CONNECTED, behind or in front of a flattening RESHAPE, into its weights."""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Graph, Node
from sgs.passes.editor import Editor
from sgs.passes.move_chain import Chain, IndexMap, chains
from sgs.registry import QUANTISE

_OP = "FULLY_CONNECTED"


def permute_fully_connected(graph: Graph) -> int:
    """Case analysis, for FULLY_CONNECTED with constant float weights [O, K]:

    * its operand is x [B, ...] moved by RESHAPEs and a TRANSPOSE within each batch entry (a flattened feature map):
      the columns of the weights are permuted, and it reads a RESHAPE of x;
    * its result [B, O], read once, is so moved (a feature map made from a vector): the rows of the weights and the bias
      are permuted, and the run becomes one RESHAPE.
    """
    with Editor(graph) as edit:
        for node in graph.nodes:
            if node.op == _OP and _constant_weight(edit, node):
                edit.count += _permute_columns(edit, node)
            elif node.op == "TRANSPOSE" and edit.alive(node):
                edit.count += _permute_rows(edit, node)
    return edit.count


def _constant_weight(edit: Editor, node: Node) -> bool:
    rule = QUANTISE[node.op]
    weight = edit.constant(node.inputs[rule.weight])
    bias = node.inputs[rule.bias] if len(node.inputs) > rule.bias else None
    free = bias is None or edit.constant(bias) is not None
    return weight is not None and weight.quant is None and free


def _within_batch(graph: Graph, chain: Chain, width: int) -> IndexMap | None:
    """p [width] such that row b of the result, of `width` values, is row b of the source permuted by p."""
    if not chain.has("TRANSPOSE") or chain.source.elements != chain.result.elements or not width:
        return None
    table = chain.index_map(graph).reshape(-1, width)
    picked = table[0]
    start = width * np.arange(table.shape[0], dtype=np.int32)[:, None]
    return picked if picked.max() < width and np.array_equal(table, picked + start) else None


def _permute_columns(edit: Editor, node: Node) -> bool:
    graph, rule = edit.graph, QUANTISE[node.op]
    weight = edit.constant(node.inputs[rule.weight])
    operand = graph[node.inputs[0] or ""]
    assert weight is not None and weight.data is not None
    for chain in chains(edit, operand.name):
        picked = _within_batch(graph, chain, weight.shape[1])
        if picked is None:
            continue
        columns = np.empty_like(weight.data)
        columns[:, picked] = weight.data
        flat = graph.add_tensor(f"{operand.name}/flat", operand.shape, operand.dtype, quant=operand.quant)
        edit.insert_before(node, Node("RESHAPE", [chain.source.name], [flat.name], {"shape": flat.shape}, node.name))
        edit.set_input(node, rule.weight, edit.add_constant(weight.name, columns))
        edit.set_input(node, 0, flat.name)
        return True
    return False


def _permute_rows(edit: Editor, node: Node) -> bool:
    graph = edit.graph
    for chain in chains(edit, node.outputs[0]):
        dense = edit.sole_producer(chain.source.name)
        alone = all(edit.only_reader(step.outputs[0]) is not None for step, _ in chain.steps[:-1])
        if dense is None or dense.op != _OP or not _constant_weight(edit, dense) or not alone:
            continue
        rule = QUANTISE[_OP]
        weight = edit.constant(dense.inputs[rule.weight])
        assert weight is not None
        picked = _within_batch(graph, chain, weight.shape[0])
        if picked is None:
            continue
        result = graph[node.outputs[0]]
        made = graph.add_tensor(f"{result.name}/shaped", result.shape, result.dtype, quant=result.quant)
        reshape = Node("RESHAPE", [chain.source.name], [made.name], {"shape": made.shape}, node.name)
        edit.insert_before(node, reshape)
        if not edit.bypass(node, made.name):
            edit.remove(reshape)
            return False
        for index in (rule.weight, rule.bias):
            tensor = edit.constant(dense.inputs[index]) if index < len(dense.inputs) else None
            if tensor is not None and tensor.data is not None:
                edit.set_input(dense, index, edit.add_constant(tensor.name, tensor.data[picked]))
        return True
    return False
