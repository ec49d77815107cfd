"""Rank-4 inputs and outputs of a TFLite network that its author holds channels first.

TFLite's operators are NHWC, and so are inputs and outputs, unless the network turns each of them at once: an input is
NCHW when all that reads it, behind operators that know no layout, is a TRANSPOSE [0,2,3,1]; an output is when it comes
from a TRANSPOSE [0,3,1,2]. Converters from ONNX leave such networks. Sizes are never looked at.
"""

from __future__ import annotations

from collections.abc import Mapping

from sgs.frontends.onnx_layout import SourceLayout
from sgs.ir.permute import NCHW_TO_NHWC, NHWC_TO_NCHW
from sgs.numeric.quantise import Array
from sgs.sim.container import Container, FileOperator

_NEUTRAL = frozenset(
    {"ADD", "CAST", "CONCATENATION", "DEQUANTIZE", "DIV", "MUL", "PAD", "PADV2", "QUANTIZE", "STRIDED_SLICE", "SUB"}
    | {"LOGISTIC", "MAXIMUM", "MINIMUM", "RELU", "RELU6", "SLICE", "TANH"}
)


def layouts_of(file: Container, values: Mapping[int, Array]) -> dict[str, SourceLayout]:
    """Name → "NCHW" of the inputs and outputs that are; constants have `values`."""
    found: dict[str, SourceLayout] = {}
    for sides, above, turned in ((file.inputs, False, NCHW_TO_NHWC), (file.outputs, True, NHWC_TO_NCHW)):
        for index in sides:
            anchors = _anchors(file, values, index, above=above)
            if len(file.tensors[index].shape) == 4 and anchors and all(_perm(a, values) == turned for a in anchors):
                found[file.tensors[index].name] = "NCHW"
    return found


def _anchors(file: Container, values: Mapping[int, Array], start: int, *, above: bool) -> list[FileOperator]:
    """The first operators below a tensor, or `above` it, that are not neutral."""
    found, pending, seen = [], [start], {start}
    while pending:
        index = pending.pop()
        for operator in file.operators:
            near, far = (operator.outputs, operator.inputs) if above else (operator.inputs, operator.outputs)
            if index not in near:
                continue
            if operator.op not in _NEUTRAL:
                found.append(operator)
                continue
            fresh = [i for i in far if i >= 0 and i not in values and i not in seen]
            pending += fresh
            seen.update(fresh)
    return found


def _perm(operator: FileOperator, values: Mapping[int, Array]) -> tuple[int, ...]:
    if operator.op != "TRANSPOSE" or len(operator.inputs) < 2 or operator.inputs[1] not in values:
        return ()
    return tuple(values[operator.inputs[1]].reshape(-1).tolist())
