"""QUANTIZE (real or codes → codes, "Float2Fix") and DEQUANTIZE (codes → real, "Fix2Float").

Between codes, QUANTIZE dequantises by eq. 1 in binary32 and quantises by eq. 4.
"""

from __future__ import annotations

from collections.abc import Sequence

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array, activation_params
from sgs.numeric.types import DType
from sgs.ops._elementwise import in_type, numbers
from sgs.ops._move import ELEMENTWISE
from sgs.ops._tflite import operand
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FIXED,
    IMPORT_TFLITE,
    INFER,
    OPERATOR,
    REFERENCE,
    SIM,
    TILE,
    Cost,
    ImportContext,
    Lowering,
    OperatorInfo,
    SimRow,
)

OPERATOR.add("QUANTIZE", OperatorInfo("fixed", "real numbers, or codes of other parameters, to codes"))
OPERATOR.add("DEQUANTIZE", OperatorInfo("fixed", "codes to binary32 real numbers"))
SIM.add("QUANTIZE", SimRow("QuantizeOptions"))
SIM.add("DEQUANTIZE", SimRow("DequantizeOptions"))


@INFER.row("QUANTIZE", "DEQUANTIZE")
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    x = operands[0]
    assert x is not None
    return [(x.shape, DType.FLOAT32 if node.op == "DEQUANTIZE" else x.dtype)]


@FIXED.row("QUANTIZE", "DEQUANTIZE")
def lower(low: Lowering, node: Node) -> None:
    x = node.inputs[0]
    assert x is not None
    layout = low.prefer([x])
    low.put_real(node.outputs[0], low.real(x, layout), layout)


@REFERENCE.row("QUANTIZE", "DEQUANTIZE")
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    x, tensor, result = values[0], operands[0], results[0]
    assert x is not None and tensor is not None
    return [in_type(result, numbers(tensor, x))]


@COST.row("QUANTIZE", "DEQUANTIZE")
def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """One operation per element."""
    return Cost(vector_ops=results[0].elements)


for _op in ("QUANTIZE", "DEQUANTIZE"):
    TILE.add(_op, ELEMENTWISE)
    CONSTRAINTS.add(_op, ())


def _example(op: str, source: DType, target: DType) -> Graph:
    build = GraphBuilder()
    x = build.input("x", (1, 5, 7, 6), source)
    x.quant = None if source.is_float else activation_params(-3, 5, source)
    y = build(op, x, output="y")
    y.dtype, y.quant = target, None if target.is_float else activation_params(-2.5, 4, target)
    return build.output(y)


EXAMPLES.add(
    "QUANTIZE",
    lambda: [
        _example("QUANTIZE", *pair)
        for pair in (
            (DType.FLOAT32, DType.INT16),
            (DType.INT16, DType.UINT8),
            (DType.UINT8, DType.INT16),
            (DType.INT16, DType.INT16),
        )
    ],
)
EXAMPLES.add(
    "DEQUANTIZE", lambda: [_example("DEQUANTIZE", source, DType.FLOAT32) for source in (DType.INT16, DType.UINT8)]
)


# -- TFLite import -----------------------------------------------------------------------------------------------------
@IMPORT_TFLITE.row("QUANTIZE", "DEQUANTIZE", "DENSIFY")
def import_tflite(ctx: ImportContext) -> list[Tensor]:
    """The operand: codes of a source network are read as the real numbers that they stand for, sparse constants
    written out."""
    return [operand(ctx, 0)]
