"""Codes of a TFLite file as the real numbers that they stand for: real = (code - zero point) · scale.

Weights of codes in a network of real numbers (dynamic range) and codes of constants are simply such numbers. Where
activations are codes, the network is quantised: as one of real numbers it has no rounding and, but for one case, no
saturation. The case: old converters leave RELU and RELU6 to the range of the result, which begins at 0 and ends at 6.
"""

from __future__ import annotations

import numpy as np

from sgs.numeric.quantise import Array, QuantParams
from sgs.sim.container import Container, FileOperator

# element type of codes → least and largest
_NARROW = {"INT4": (-8, 7), "INT8": (-128, 127), "UINT8": (0, 255), "INT16": (-32768, 32767)}
_WIDE = ("INT32", "INT64")
# operator → which operand is its bias, which may be codes of the product of the other two's scales
_BIAS = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "CONV_3D": 2}
_BIAS |= {"TRANSPOSE_CONV": 3, "CONV_3D_TRANSPOSE": 3}
# operator → operands that are multiplied, where they are not the first two
_DATA = {"TRANSPOSE_CONV": (2, 1), "CONV_3D_TRANSPOSE": (2, 1)}
# operators all of whose codes have scales of their own
_RECURRENT = ("UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM")
# operators that move codes as they are
_MOVES = frozenset({"CONCATENATION", "EXPAND_DIMS", "GATHER", "GATHER_ND", "RESHAPE", "SLICE", "SPLIT", "SQUEEZE"})
_ACTIVATION = "fused_activation_function"


def become_real(file: Container, values: dict[int, Array]) -> dict[int, str]:
    """Make codes in the file's records, and in its constants' `values`, real numbers.

    Returns the operators that computed in codes, by position: the type of the codes.
    """
    coded = {index for index, tensor in enumerate(file.tensors) if tensor.quant is not None and tensor.kind in _NARROW}
    still = coded & values.keys()  # constants, and what only moves their codes
    found: dict[int, str] = {}
    for position, operator in enumerate(file.operators):
        if operator.op == "CAST" and coded.intersection(operator.inputs):
            operator.op = "CAST of codes"  # as they are: there will be none
        if operator.op in _MOVES and coded.intersection(operator.inputs) <= still:
            still |= coded.intersection(operator.outputs)
        computed = [index for index in (*operator.outputs, *operator.inputs) if index in coded - still]
        kinds = [file.tensors[index].kind for index in computed]
        if kinds:
            found[position] = kinds[0]
            _restore_clamp(file, operator)
        elif (weight := _old_weight(file, operator)) in coded & values.keys():
            values[weight] = values[weight].view(np.int8)
        _make_biases_real(file, operator, values)
    for index in coded:
        tensor = file.tensors[index]
        if index in values and tensor.special != "a variable":  # which is real zeros
            values[index] = _real(values[index], tensor.quant)
        tensor.kind, tensor.quant = "FLOAT32", None
    return found


def describe_inputs(file: Container) -> list[str]:
    """What the numbers are that the inputs of a quantised network take instead of codes, a line for each."""
    lines = []
    for tensor in (file.tensors[index] for index in file.inputs):
        if tensor.quant is not None and tensor.kind in _NARROW:
            scale, zero = float(tensor.quant.scale[0]), int(tensor.quant.zero_point[0])
            lines.append(f"input '{tensor.name}' takes (code - {zero}) * {scale:g} in place of {tensor.kind} codes")
    return lines


def _real(codes: Array, quant: QuantParams | None) -> Array:
    """float32, the product rounded once."""
    assert quant is not None
    scale, zero = quant.shaped(codes.ndim)
    return np.asarray((codes.astype(np.float64) - zero) * scale.astype(np.float64)).astype(np.float32)


def _old_weight(file: Container, operator: FileOperator) -> int:
    """A UINT8 weight of zero point 0 in an operator of real numbers, -1 where there is none: it is INT8, which the
    first converters had no name for."""
    place = _DATA.get(operator.op, (0, 1))[1]
    if operator.op not in _BIAS or len(operator.inputs) <= place or operator.inputs[place] < 0:
        return -1
    tensor = file.tensors[operator.inputs[place]]
    signed = tensor.kind == "UINT8" and tensor.quant is not None and not tensor.quant.zero_point.any()
    return operator.inputs[place] if signed else -1


def _make_biases_real(file: Container, operator: FileOperator, values: dict[int, Array]) -> None:
    """Biases of 32- or 64-bit codes; where the file does not say the scale of one it is that of the products."""
    place = _BIAS.get(operator.op, len(operator.inputs))
    for index in operator.inputs if operator.op in _RECURRENT else operator.inputs[place : place + 1]:
        tensor = file.tensors[index]
        if index not in values or tensor.kind not in _WIDE:
            continue
        quant = tensor.quant or (_scale_of_products(file, operator) if operator.op in _BIAS else None)
        if quant is not None:
            values[index] = _real(values[index], quant)
            tensor.kind, tensor.quant = "FLOAT32", None


def _scale_of_products(file: Container, operator: FileOperator) -> QuantParams | None:
    x, weight = (file.tensors[operator.inputs[k]].quant for k in _DATA.get(operator.op, (0, 1)))
    if x is None or weight is None:
        return None
    scale = x.scale[0] * weight.scale
    return QuantParams(scale, np.zeros(scale.shape), 0)


def _restore_clamp(file: Container, operator: FileOperator) -> None:
    """Write down the activation that only the range of the result says."""
    if operator.options.get(_ACTIVATION) != "NONE" or operator.op == "CONCATENATION" or not operator.outputs:
        return
    result = file.tensors[operator.outputs[0]]
    if result.quant is None or result.kind not in _NARROW or not result.quant.per_tensor:
        return
    (least, largest), zero, scale = _NARROW[result.kind], int(result.quant.zero_point[0]), float(result.quant.scale[0])
    if zero == least:
        operator.options[_ACTIVATION] = "RELU6" if abs((largest - zero) * scale - 6) <= scale / 2 else "RELU"
