"""Evaluate single ONNX nodes on constants, so that the importer meets only nodes that compute on real activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, OperatorSetIdProto, helper, numpy_helper

from sgs.numeric.quantise import Array

LARGEST_RESULT = 512 << 20  # bytes; a larger result is folded only when it is no larger than the operands
_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_GROWING = frozenset({"ConstantOfShape", "EyeLike", "Expand", "Range", "Tile"})  # results larger than their operands


def foldable(node: NodeProto) -> bool:
    """True for a node whose results depend on nothing but its operands."""
    plain = all(a.type not in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute)
    return plain and node.op_type not in _RANDOM


def evaluate(node: NodeProto, operands: Mapping[str, Array], opset: int) -> list[Array] | None:
    """Results of a node on constants, by ONNX's reference implementation; None for results too large or not arrays.

    Errors of the reference implementation (a form it does not know, operands that do not fit) reach the caller.
    """
    plain = _literal(node, operands)
    if plain is not None:
        return [plain]
    if node.op_type in _GROWING and _is_large(node, operands):
        return None
    from onnx.reference import ReferenceEvaluator  # imports every operator: paid only where something folds

    names = list(dict.fromkeys(name for name in node.input if name))
    graph = helper.make_graph(
        [node],
        "one_node",
        [helper.make_empty_tensor_value_info(name) for name in names],
        [helper.make_empty_tensor_value_info(name) for name in node.output if name],
    )
    model = helper.make_model(graph, opset_imports=[_opset(opset), *_other_domains(node)])
    with np.errstate(all="ignore"):
        values = list(ReferenceEvaluator(model).run(None, {name: operands[name] for name in names}))
    return _arrays(node, values, sum(operands[name].nbytes for name in names))


def _arrays(node: NodeProto, values: Sequence[Any], operand_bytes: int) -> list[Array] | None:
    """The values of all results in order (an absent one gets an empty array), None for a sequence or too many bytes."""
    named = iter(values)
    results = [next(named) if name else np.zeros(0, np.float32) for name in node.output]
    if any(isinstance(value, (list, dict)) or value is None for value in results):
        return None
    arrays = [np.asarray(value) for value in results]
    return arrays if sum(a.nbytes for a in arrays) <= max(LARGEST_RESULT, operand_bytes) else None


def _literal(node: NodeProto, operands: Mapping[str, Array]) -> Array | None:
    """The value of a Constant node that holds a tensor, the common case; and of a Reshape before operator set 5, whose
    shape is an attribute: the reference implementation does not know it."""
    if node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].type == AttributeProto.TENSOR:
        return numpy_helper.to_array(node.attribute[0].t)
    if node.op_type == "Reshape" and len(node.input) == 1:
        return operands[node.input[0]].reshape(node.attribute[0].ints)
    return None


def _is_large(node: NodeProto, operands: Mapping[str, Array]) -> bool:
    """A bound on the elements of a growing node's result, from the operands that hold extents or counts."""
    counts = [np.abs(operands[n].astype(np.float64)) for n in node.input if n and operands[n].dtype.kind in "iu"]
    data = max((operands[n].size for n in node.input if n), default=1)
    if node.op_type == "Range":
        start, limit, delta = (float(operands[n].reshape(-1)[0]) for n in node.input)
        return delta != 0 and abs((limit - start) / delta) * 4 > LARGEST_RESULT
    return bool(counts) and float(np.prod(counts[-1])) * (data if node.op_type == "Tile" else 1) * 4 > LARGEST_RESULT


def _opset(version: int) -> OperatorSetIdProto:
    return helper.make_opsetid("", version)


def _other_domains(node: NodeProto) -> list[OperatorSetIdProto]:
    return [helper.make_opsetid(node.domain, 1)] if node.domain not in ("", "ai.onnx") else []
