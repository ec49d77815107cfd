"""POW: operand 0 to the power of operand 1, with broadcasting. An exponent or a base that is one constant number makes
a function of one tensor, which is a table in fixed graphs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._elementwise import common_carrier, infer_broadcast, onnx
from sgs.ops._float_only import add_float_only
from sgs.ops._import import number
from sgs.ops._integers import in_integers, present, retyped
from sgs.ops._layout import transparent
from sgs.registry import (
    IMPORT_ONNX,
    ONNX_EXAMPLES,
    QUANTISE,
    REAL,
    ImportContext,
    Lowering,
    OnnxCase,
    QuantRule,
    Shape,
    SimRow,
)

_MEANINGS = dict.fromkeys(("real", "integer"), onnx("Pow", np.power))


def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    common_carrier("POW", operands, _MEANINGS)  # type: ignore[arg-type]
    return infer_broadcast(node, operands)


def lower(low: Lowering, node: Node) -> None:
    layout = low.prefer(node.inputs)
    low.put_real(node.outputs[0], low.op("Pow", [low.real(name or "", layout) for name in node.inputs]), layout)


def _example(x: Shape, y: Shape | float) -> Graph:
    build = GraphBuilder()
    base = build("ADD", build("ABS", build.input("x", x)), np.array([0.1], np.float32), activation="NONE")
    exponent = np.array([y], np.float32) if isinstance(y, float) else build.input("y", y)
    return build.output(build("POW", base, exponent, output="z"))


add_float_only(
    "POW",
    "powers, with broadcasting",
    "has integers only where its exponent or its base is one constant number",
    infer,
    lower,
    lambda: [_example((1, 5, 7, 6), (1, 5, 7, 6)), _example((3, 7), (7,)), _example((3, 7), 1.7)],
    SimRow("PowOptions"),
    layout=transparent,
)


QUANTISE.add("POW", QuantRule("unary"))  # where it is a function of one tensor


@REAL.row("POW")
def real(node: Node, values: Sequence[Array]) -> Array:
    return np.asarray(np.power(*(np.asarray(value, np.float64) for value in values)))


# -- ONNX import -------------------------------------------------------------------------------------------------------
_NAMED = {2.0: "SQUARE", 0.5: "SQRT", -0.5: "RSQRT"}


@IMPORT_ONNX.row("Pow")
def import_pow(ctx: ImportContext) -> list[Tensor]:
    """Operands of other types are cast to the base's, as exponents may be. Raises the refusal of integers to powers
    that are none."""
    base, exponent = present(ctx)
    if not base.dtype.is_float:
        if exponent.dtype.is_float:
            raise ctx.refuse("integers to powers of real numbers", "cast the base to FLOAT")
        powers = retyped(ctx, exponent, DType.INT32)
        return [in_integers(ctx, lambda x: ctx.emit("POW", x, powers), [base])]
    exponent = retyped(ctx, exponent, DType.FLOAT32)
    one = _common_value(exponent)
    if one is None or np.broadcast_shapes(base.shape, exponent.shape) != base.shape:
        return [ctx.emit("POW", base, exponent)]
    if one == 1:
        return [base]
    return [ctx.emit(_NAMED[one], base) if one in _NAMED else ctx.emit("POW", base, number(one))]


def _common_value(tensor: Tensor) -> float | None:
    """The number that all elements of a constant are; None for any other tensor."""
    if tensor.data is None or not tensor.elements or (tensor.data != tensor.data.flat[0]).any():
        return None
    return float(tensor.data.flat[0])


ONNX_EXAMPLES.add(
    "Pow",
    [
        *(
            OnnxCase("Pow", {"x": (1, 5, 7, 6)}, {"c": np.asarray(power, np.float32)}, low=0.2, high=3)
            for power in (2, 0.5, -0.5, 1, 3, 1.7)
        ),
        OnnxCase("Pow", {"x": (3, 7)}, {"c": np.array([2])}, low=-3, high=3),
        OnnxCase("Pow", {"x": (1, 5, 7, 6), "e": (1, 5, 1, 6)}, low=0.2, high=3),
        OnnxCase("Pow", {"x": (3, 7), "e": (7,)}, low=0, high=6, types={"x": "int32", "e": "int32"}),
    ],
)
