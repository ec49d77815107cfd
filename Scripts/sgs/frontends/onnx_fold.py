"""Evaluate single ONNX nodes on constants, so that the importer meets only nodes that compute on real activations."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TypeProto,
    ValueInfoProto,
    helper,
    numpy_helper,
    shape_inference,
)

from sgs.frontends.tflite.rows import DOMAIN as TFLITE
from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array

_log = logging.getLogger(__name__)
LARGEST_RESULT = 512 << 20  # bytes; a larger result is folded only when it is no larger than the operands
_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
# fmt: off
_PLAIN = frozenset((
    "Add", "And", "Cast", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand", "Flatten", "Gather",
    "Greater", "Identity", "Less", "Max", "Min", "Mul", "Neg", "Not", "Or", "Range", "ReduceProd", "Reshape", "Shape",
    "Size", "Slice", "Split", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where",
))
# fmt: on
_OF_ANY_SIZE = frozenset({"MaxUnpool", "Col2Im", "CenterCropPad"})  # as an operand says
_OLD_IR = 8  # every onnxruntime knows it
_TOLD = 1024  # elements up to which an operand may say extents: shapes, pads, repeats ...


def foldable(node: NodeProto) -> bool:
    """True for a node of ONNX's whose results depend on nothing but its operands."""
    plain = all(a.type not in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute)
    return plain and node.op_type not in _RANDOM and node.domain != TFLITE


def evaluate(node: NodeProto, operands: Mapping[str, Array], opset: int) -> list[Array] | None:
    """Results of a node on constants; None for results too large or not arrays.

    By onnxruntime where it has the operator and the types, else by ONNX's reference implementation, whose errors (a
    form it does not know, operands that do not fit) reach the caller. What shapes are computed with goes to the
    reference at once: it is several times faster there.
    """
    plain = _literal(node, operands)
    if plain is not None:
        return [plain]
    names = list(dict.fromkeys(name for name in node.input if name))
    operand_bytes = sum(operands[name].nbytes for name in names)
    sizes = result_sizes(node, operands, opset)
    if sum(size for _, size in sizes) > max(LARGEST_RESULT, operand_bytes):
        return None
    if node.op_type in _OF_ANY_SIZE and not all(size for _, size in sizes):
        return None
    inputs = {name: operands[name] for name in names}
    values = None if node.op_type in _PLAIN else _by_onnxruntime(node, inputs, opset)
    return _arrays(node, _by_reference(node, inputs, opset) if values is None else values, operand_bytes)


def _by_reference(node: NodeProto, inputs: Mapping[str, Array], opset: int) -> list[Any]:
    from onnx.reference import ReferenceEvaluator  # imports every operator: paid only where something folds

    model = _one_node(node, [helper.make_empty_tensor_value_info(name) for name in inputs], opset)
    with np.errstate(all="ignore"):
        return list(ReferenceEvaluator(model).run(None, dict(inputs)))


def _by_onnxruntime(node: NodeProto, inputs: Mapping[str, Array], opset: int) -> list[Any] | None:
    """None where onnxruntime refuses the node."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        infos = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in inputs.items()
        ]
        model = _one_node(node, infos, opset)
        model.ir_version = _OLD_IR
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return list(session.run(None, dict(inputs)))
    except Exception as error:  # onnxruntime's own classes have no common root
        _log.debug("%s '%s' is not for onnxruntime: %s", node.op_type, node.name, error)
        return None


def _one_node(node: NodeProto, inputs: Sequence[ValueInfoProto], opset: int) -> ModelProto:
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "one_node", inputs, outputs)
    return helper.make_model(graph, opset_imports=[_opset(opset), *_other_domains(node)])


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


def result_sizes(
    node: NodeProto, operands: Mapping[str, Array | Tensor | None], opset: int, *, strict: bool = False
) -> list[tuple[int, int]]:
    """(elements, bytes) of the results whose shape ONNX's shape inference finds, without computing anything.

    Errors of shape inference (operands that do not fit the operator) reach the caller.
    """
    graph = GraphProto(name="one_node", node=[node])
    graph.output.extend(helper.make_empty_tensor_value_info(name) for name in node.output if name)
    for name in dict.fromkeys(name for name in node.input if name):
        operand = operands[name]
        if operand is None:
            raise LookupError(f"nothing is known of '{name}'")
        data = operand.data if isinstance(operand, Tensor) else operand
        if data is not None and data.size <= _TOLD and data.dtype.kind in "iuf":
            graph.initializer.append(numpy_helper.from_array(data, name))
        else:
            dtype = operand.dtype.numpy if isinstance(operand, Tensor) else operand.dtype
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            graph.input.append(helper.make_tensor_value_info(name, kind, operand.shape))
    model = helper.make_model(graph, opset_imports=[_opset(opset), *_other_domains(node)])
    inferred = shape_inference.infer_shapes(model, data_prop=True, strict_mode=strict)
    return [_size(value.type.tensor_type) for value in inferred.graph.output]


def _size(kind: TypeProto.Tensor) -> tuple[int, int]:
    """(elements, bytes) of a tensor whose extents are all known, else zeros."""
    extents = [dim.dim_value for dim in kind.shape.dim if dim.HasField("dim_value")]
    if not kind.elem_type or len(extents) < len(kind.shape.dim):
        return 0, 0
    elements = int(prod(extents))
    return elements, elements * int(helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize)


def _opset(version: int) -> OperatorSetIdProto:
    return helper.make_opsetid("", version)


def _other_domains(node: NodeProto) -> list[OperatorSetIdProto]:
    return [helper.make_opsetid(node.domain, 1)] if node.domain not in ("", "ai.onnx") else []
