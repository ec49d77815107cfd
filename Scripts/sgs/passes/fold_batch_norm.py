"""Scales and offsets per channel, as BatchNormalization leaves them, into the weights in front."""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Graph, Node
from sgs.passes.editor import Editor
from sgs.passes.fuse_activation import takes_activation
from sgs.registry import QUANTISE

Vector = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


ARITHMETIC = ("ADD", "SUB", "MUL", "DIV")  # with a constant per channel, part of a sum of products


def _affine(op: str, constant: Vector, swapped: bool) -> tuple[Vector, Vector] | None:
    """(scale, offset) [C] such that an operator with one constant operand is x * scale + offset; None if none are."""
    one, zero = np.ones_like(constant), np.zeros_like(constant)
    forms = {
        ("ADD", False): (one, constant),
        ("ADD", True): (one, constant),
        ("SUB", False): (one, -constant),
        ("SUB", True): (-one, constant),
        ("MUL", False): (constant, zero),
        ("MUL", True): (constant, zero),
    }
    if op == "DIV" and not swapped and np.all(constant != 0):
        return 1 / constant, zero
    return forms.get((op, swapped))


def per_channel(graph: Graph, node: Node) -> tuple[int, Vector] | None:
    """(which operand is computed, the other one as a vector [C]); None unless the other varies on the last axis
    alone."""
    result = graph[node.outputs[0]]
    for index, other in ((0, 1), (1, 0)) if result.shape else ():
        x, constant = graph.operands(node)[index], graph.operands(node)[other]
        if x is None or constant is None or constant.data is None or x.is_constant or x.shape != result.shape:
            continue
        if len(constant.shape) > len(result.shape) or any(extent != 1 for extent in constant.shape[:-1]):
            continue
        return index, np.broadcast_to(constant.data.astype(np.float64).reshape(-1), result.shape[-1:])
    return None


def foldable_mac(edit: Editor, name: str | None) -> Node | None:
    """The operator that makes `name` when it is a sum of products with float constants, no activation, one reader."""
    node = edit.sole_producer(name)
    rule = None if node is None else QUANTISE.get(node.op)
    if node is None or rule is None or rule.kind != "mac" or node.attrs.get("activation", "NONE") != "NONE":
        return None
    weight = edit.constant(node.inputs[rule.weight])
    if weight is None or not weight.dtype.is_float:
        return None
    if (
        len(node.inputs) > rule.bias
        and node.inputs[rule.bias] is not None
        and edit.constant(node.inputs[rule.bias]) is None
    ):
        return None
    channels = edit.graph[node.outputs[0]].shape[-1]
    return node if weight.shape[rule.channel_axis] == channels else None


def fold_batch_norm(graph: Graph) -> int:
    """Fold ADD, SUB, MUL, DIV by constants per output channel into the weights and bias of the CONV_2D,
    DEPTHWISE_CONV_2D, TRANSPOSE_CONV or FULLY_CONNECTED in front: any operator that the quantisation table calls
    "mac".

    The sum's result must have no other reader and no activation yet; an activation on the folded operator moves to
    the sum. Scaling happens after padding, so padding is no obstacle.
    """
    with Editor(graph) as edit:
        for node in graph.nodes:
            if node.op not in ARITHMETIC:
                continue
            found = per_channel(graph, node)
            mac = None if found is None else foldable_mac(edit, node.inputs[found[0]])
            if found is None or mac is None:
                continue
            affine = _affine(node.op, found[1], swapped=found[0] == 1)
            activation = node.attrs.get("activation", "NONE")
            if affine is None or (activation != "NONE" and not takes_activation(mac)):
                continue
            if edit.bypass(node, mac.outputs[0]):
                _scale(edit, mac, *affine)
                if activation != "NONE":
                    mac.attrs["activation"] = activation
                edit.count += 1
    return edit.count


def _scale(edit: Editor, mac: Node, scale: Vector, offset: Vector) -> None:
    """weight *= scale along the output channels; bias = bias * scale + offset, all in binary64."""
    rule = QUANTISE[mac.op]
    weight = edit.constant(mac.inputs[rule.weight])
    assert weight is not None and weight.data is not None
    along = [1] * len(weight.shape)
    along[rule.channel_axis] = scale.size
    if not np.all(scale == 1):
        scaled = (weight.data.astype(np.float64) * scale.reshape(along)).astype(np.float32)
        edit.set_input(mac, rule.weight, edit.add_constant(weight.name, scaled))
    mac.inputs.extend([None] * (rule.bias + 1 - len(mac.inputs)))
    present = edit.constant(mac.inputs[rule.bias])
    bias = np.zeros_like(scale) if present is None or present.data is None else present.data.astype(np.float64)
    stem = f"{mac.outputs[0]}/bias" if present is None else present.name
    edit.set_input(mac, rule.bias, edit.add_constant(stem, (bias * scale + offset).astype(np.float32)))
