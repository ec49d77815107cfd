"""Dilated convolutions that a TFLite file spells as convolutions of interleaved pictures.

SPACE_TO_BATCH_ND (block d, paddings p) → convolution, VALID, stride 1 → BATCH_TO_SPACE_ND (block d, crops c) is that
convolution dilated by d over the picture with p - c around it: cropping the first rows of the result is beginning as
many rows later.
"""

from __future__ import annotations

import numpy as np

from sgs.numeric.quantise import Array
from sgs.sim.container import Container, FileOperator, FileTensor, values_of

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def fold_dilations(file: Container) -> None:
    """Rewrite the file's records where the pattern is complete and nothing else reads the tensors inside."""
    readers: dict[int, list[FileOperator]] = {}
    makers = {index: operator for operator in file.operators for index in operator.outputs}
    for operator in file.operators:
        for index in operator.inputs:
            readers.setdefault(index, []).append(operator)
    inner = {index for index, found in readers.items() if len(found) == 1} - set(file.outputs)
    gone: set[int] = set()
    for operator in file.operators:
        ends = operator.inputs[:1] + operator.outputs[:1]
        if operator.op not in _CONVOLUTIONS or len(ends) < 2 or not inner.issuperset(ends):
            continue
        before, behind = makers.get(ends[0]), readers[ends[1]][0]
        pads = _dilated_pads(file, operator, before, behind)
        if before is not None and pads is not None:
            _rewrite(file, operator, before, behind, pads)
            gone.add(id(behind))
    file.operators = [operator for operator in file.operators if id(operator) not in gone]


def _dilated_pads(
    file: Container, convolution: FileOperator, before: FileOperator | None, behind: FileOperator
) -> Array | None:
    """What is around the picture, [2, 2] of (before, after) along height and width; None where this is no dilation."""
    if before is None or (before.op, behind.op) != ("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"):
        return None
    options = convolution.options
    plain = {"padding": "VALID", "stride_h": 1, "stride_w": 1, "dilation_h_factor": 1, "dilation_w_factor": 1}
    if any(options.get(name) != value for name, value in plain.items()):
        return None
    block, pads, other, crops = (_constant(file, operator, place) for operator in (before, behind) for place in (1, 2))
    of_pictures = len(file.tensors[before.inputs[0]].shape) == 4 and block.shape == (2,)
    if not of_pictures or not np.array_equal(block, other) or pads.shape != (2, 2) or crops.shape != (2, 2):
        return None
    around = pads - crops
    return around if (around >= 0).all() and (block > 0).all() else None


def _constant(file: Container, operator: FileOperator, place: int) -> Array:
    """Whole numbers that a file has as operand; none where it has others, or computes them."""
    index = operator.inputs[place] if place < len(operator.inputs) else -1
    tensor = file.tensors[index] if index >= 0 else None
    if tensor is None or tensor.raw is None or tensor.kind not in ("INT32", "INT64") or tensor.special:
        return np.zeros(0, np.int64)
    try:
        return values_of(tensor).astype(np.int64)
    except ValueError:  # told where all constants are read
        return np.zeros(0, np.int64)


def _rewrite(
    file: Container, convolution: FileOperator, before: FileOperator, behind: FileOperator, pads: Array
) -> None:
    """SPACE_TO_BATCH_ND becomes a PAD, the convolution a dilated one with the result of BATCH_TO_SPACE_ND."""
    block = _constant(file, before, 1)
    x, padded = file.tensors[before.inputs[0]], file.tensors[before.outputs[0]]
    widths = np.zeros((4, 2), np.int32)
    widths[1:3] = pads
    padded.shape = padded.signature = tuple(int(d + sum(w)) for d, w in zip(x.shape, widths.tolist(), strict=True))
    file.tensors.append(FileTensor("", (4, 2), (4, 2), "INT32", widths.reshape(-1).view(np.uint8)))
    before.op, before.table, before.options = "PAD", "PadOptions", {}
    before.inputs = [before.inputs[0], len(file.tensors) - 1]
    convolution.options |= {"dilation_h_factor": int(block[0]), "dilation_w_factor": int(block[1])}
    convolution.outputs = behind.outputs
