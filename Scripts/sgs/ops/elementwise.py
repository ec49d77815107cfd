"""Binary elementwise operators with broadcasting: ADD SUB MUL DIV MAXIMUM MINIMUM SQUARED_DIFFERENCE, and PRELU.

Fixed: operands are dequantised (eq. 1), the operation is one IEEE binary32 step (SQUARED_DIFFERENCE: two), the result
is quantised (eq. 4). Attr `activation` (ADD SUB MUL DIV only) clamps the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array, dequantise, quantise
from sgs.numeric.types import DType
from sgs.ops._layout import transparent
from sgs.ops._mac import activation_bounds, activation_float, real_bounds
from sgs.ops._move import ELEMENTWISE
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FIXED,
    FLOAT,
    IMPORT_ONNX,
    INFER,
    LAYOUT,
    ONNX_EXAMPLES,
    OPERATOR,
    QUANTISE,
    REAL,
    REFERENCE,
    SIM,
    TILE,
    Cost,
    ImportContext,
    Lowering,
    OnnxCase,
    OperatorInfo,
    QuantRule,
    SimRow,
)


def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    """Numpy broadcasting."""
    shapes = [t.shape for t in operands if t is not None]
    dtype = next(t.dtype for t in operands if t is not None)
    return [(tuple(int(d) for d in np.broadcast_shapes(*shapes)), dtype)]


def prelu(x: Array, slope: Array) -> Array:
    return np.where(x >= 0, x, x * slope)


def squared_difference(a: Array, b: Array) -> Array:
    return np.asarray(np.square(np.subtract(a, b)))


def _square(low: Lowering, value: str) -> str:
    return str(low.op("Mul", [value, value]))


def _lower(onnx_op: str, fixed: bool) -> Callable[[Lowering, Node], None]:
    def lower(low: Lowering, node: Node) -> None:
        layout = low.prefer(node.inputs)
        operands = [low.real(name or "", layout) for name in node.inputs]
        if fixed and node.op == "DIV":
            operands[1] = _never_zero(low, operands[1], low.graph[node.inputs[1] or ""])
        y = low.op(onnx_op, operands)
        y = _square(low, y) if node.op == "SQUARED_DIFFERENCE" else y
        result = low.graph[node.outputs[0]]
        if "activation" in node.attrs and node.attrs["activation"] != "NONE":
            y = _clamp(low, node, y, result) if fixed else activation_float(low, node, y)
        low.put_real(result.name, y, layout)

    return lower


def _never_zero(low: Lowering, value: str, divisor: Tensor) -> str:
    """A divisor whose code stands for 0 counts as one step of its scale, so that every quotient is finite."""
    assert divisor.quant is not None
    zero, step = (low.const(np.asarray(v, np.float32)) for v in (0, divisor.quant.scale[0]))
    return str(low.op("Where", [low.op("Equal", [value, zero]), step, value]))


def _clamp(low: Lowering, node: Node, value: str, result: Tensor) -> str:
    """Fused activation of a fixed graph: clamping the real value between the bounds' own codes is clamping the
    codes.
    """
    floor, ceiling = clamp_values(node, result)
    return str(
        low.op("Clip", [value, low.const(np.asarray(floor, np.float32)), low.const(np.asarray(ceiling, np.float32))])
    )


def clamp_values(node: Node, result: Tensor) -> tuple[np.float32, np.float32]:
    """Real binary32 values of the codes between which the fused activation clamps."""
    assert result.quant is not None
    codes = np.array(activation_bounds(node, result), np.int64)
    low, high = dequantise(codes, result.quant)
    return low, high


def _reference(function: Callable[[Array, Array], Array]) -> Callable[..., list[Array]]:
    def reference(
        node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
    ) -> list[Array]:
        reals = [
            dequantise(v, t.quant)
            for v, t in zip(values, operands, strict=True)
            if v is not None and t is not None and t.quant
        ]
        if node.op == "DIV":
            divisor = operands[1]
            assert divisor is not None and divisor.quant is not None
            reals[1] = np.where(reals[1] == 0, divisor.quant.scale[0], reals[1])
        y = np.asarray(function(*reals), np.float32)
        result = results[0]
        assert result.quant is not None
        if real_bounds(node.attrs.get("activation", "NONE")) != (None, None):
            y = np.clip(y, *clamp_values(node, result))
        return [quantise(y, result.quant, result.dtype)]

    return reference


def _real(function: Callable[[Array, Array], Array]) -> Callable[[Node, Sequence[Array]], Array]:
    def real(node: Node, values: Sequence[Array]) -> Array:
        low, high = real_bounds(node.attrs.get("activation", "NONE"))
        with np.errstate(all="ignore"):
            y = function(*values)
        return np.asarray(y if low is None and high is None else np.clip(y, low, high))

    return real


def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """Two operations per element: the function, and the requantisation."""
    return Cost(vector_ops=results[0].elements * 2)


def _import(op: str) -> Callable[[ImportContext], list[Tensor]]:
    def convert(ctx: ImportContext) -> list[Tensor]:
        result = ctx.inputs[0]
        assert result is not None
        attrs: dict[str, Any] = {"activation": "NONE"} if op in _FUSING else {}
        if len(ctx.inputs) == 1:
            return [result]
        for operand in ctx.inputs[1:]:
            result = ctx.emit(op, result, operand, **attrs)
        return [result]

    return convert


def _cases(onnx_op: str) -> list[OnnxCase]:
    ramp = np.linspace(0.5, 2, 5, dtype=np.float32)
    return [
        OnnxCase(onnx_op, {"a": (1, 5, 7, 6), "b": (1, 5, 7, 6)}, low=0.25),
        OnnxCase(onnx_op, {"a": (1, 5, 7, 6), "b": (1, 5, 1, 1)}, low=0.25),
        OnnxCase(onnx_op, {"a": (1, 5, 7, 6)}, {"c": ramp.reshape(5, 1, 1)}),
        OnnxCase(onnx_op, {"a": (2, 3, 5)}, {"c": np.asarray(1.5, np.float32)}),
        OnnxCase(onnx_op, {"a": (1, 5, 7, 6)}, {"c": ramp.reshape(1, 5, 1, 1)}, order=("c", "a"), low=0.25),
    ]


def _example(
    op: str, a: tuple[int, ...], b: tuple[int, ...], activation: str = "NONE", constant: bool = False
) -> Graph:
    rng = np.random.default_rng(len(op) + sum(a))
    build = GraphBuilder()
    x = build.input("x", a)
    other: Any = rng.uniform(0.4, 2, b).astype(np.float32) if constant else build.input("y", b)
    attrs = {"activation": activation} if op in _FUSING else {}
    return build.output(build(op, x, other, output="z", **attrs))


_FUSING = ("ADD", "SUB", "MUL", "DIV")
_FAMILY: dict[
    str, tuple[str, str, Callable[[Array, Array], Array]]
] = {  # our name → ONNX name, options table, function
    "ADD": ("Add", "AddOptions", np.add),
    "SUB": ("Sub", "SubOptions", np.subtract),
    "MUL": ("Mul", "MulOptions", np.multiply),
    "DIV": ("Div", "DivOptions", np.divide),
    "MAXIMUM": ("Max", "MaximumMinimumOptions", np.maximum),
    "MINIMUM": ("Min", "MaximumMinimumOptions", np.minimum),
    "SQUARED_DIFFERENCE": ("Sub", "SquaredDifferenceOptions", squared_difference),
}

for _op, (_onnx, _options, _function) in _FAMILY.items():
    OPERATOR.add(_op, OperatorInfo("both", f"elementwise {_onnx} with broadcasting"))
    INFER.add(_op, infer)
    LAYOUT.add(_op, transparent)
    SIM.add(_op, SimRow(_options, activation=_op in _FUSING))
    FLOAT.add(_op, _lower(_onnx, fixed=False))
    FIXED.add(_op, _lower(_onnx, fixed=True))
    REFERENCE.add(_op, _reference(_function))
    QUANTISE.add(_op, QuantRule("real"))
    REAL.add(_op, _real(_function))
    COST.add(_op, cost)
    TILE.add(_op, ELEMENTWISE)
    CONSTRAINTS.add(_op, ())
    if _onnx not in IMPORT_ONNX:
        IMPORT_ONNX.add(_onnx, _import(_op))
        ONNX_EXAMPLES.add(_onnx, _cases(_onnx))
    EXAMPLES.add(
        _op,
        lambda op=_op: [  # type: ignore[misc]
            _example(op, (1, 5, 7, 6), (1, 5, 7, 6), constant=op == "DIV"),
            _example(op, (1, 5, 7, 6), (1, 1, 1, 6), "RELU", constant=True),
            _example(op, (1, 5, 7, 6), (6,), "RELU6", constant=True),
            _example(op, (3, 7, 2), (1,), constant=True),
        ],
    )


def lower_prelu(low: Lowering, node: Node) -> None:
    """max(x, slope · x) where no slope exceeds 1, else max(x, 0) + slope · min(x, 0): the same binary32 numbers,
    several times faster than onnxruntime's broadcasting PRelu."""
    x, slope = node.inputs[0] or "", node.inputs[1] or ""
    layout = low.prefer(node.inputs)
    value, factor, tensor = low.real(x, layout), low.real(slope, layout), low.graph[slope]
    assert tensor.data is not None and tensor.quant is not None
    if dequantise(tensor.data, tensor.quant).max(initial=0) <= 1:
        y = low.op("Max", [value, low.op("Mul", [value, factor])])
    else:
        below = low.op("Mul", [low.op("Min", [value, low.const(np.asarray(0, np.float32))]), factor])
        y = low.op("Add", [low.op("Relu", [value]), below])
    low.put_real(node.outputs[0], y, layout)


# -- PRELU: slope per channel
# ---------------------------------------------------------------------------------------------
OPERATOR.add("PRELU", OperatorInfo("both", "x where x >= 0, else slope * x; the slope broadcasts"))
INFER.add("PRELU", infer)
LAYOUT.add("PRELU", transparent)
SIM.add("PRELU", SimRow())
FLOAT.add("PRELU", _lower("PRelu", fixed=False))
FIXED.add("PRELU", lower_prelu)
REFERENCE.add("PRELU", _reference(prelu))
QUANTISE.add("PRELU", QuantRule("real"))
COST.add("PRELU", cost)
TILE.add("PRELU", ELEMENTWISE)


def slope_is_constant(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """The slope is a constant with a scale."""
    slope = operands[1]
    return slope is not None and slope.is_constant and slope.quant is not None


CONSTRAINTS.add("PRELU", (slope_is_constant,))


@IMPORT_ONNX.row("PRelu")
def import_prelu(ctx: ImportContext) -> list[Tensor]:
    x, slope = ctx.inputs[0], ctx.constant(1, "slope")
    assert x is not None and slope is not None
    return [ctx.emit("PRELU", x, slope)]


ONNX_EXAMPLES.add(
    "PRelu",
    [
        OnnxCase("PRelu", {"x": (1, 5, 7, 6)}, {"s": np.linspace(-0.5, 1.5, 5, dtype=np.float32).reshape(5, 1, 1)}),
        OnnxCase("PRelu", {"x": (3, 7)}, {"s": np.linspace(-0.5, 1.5, 7, dtype=np.float32)}),
    ],
)


def _prelu_example(largest: float) -> Graph:
    build = GraphBuilder()
    x = build.input("x", (1, 5, 7, 6))
    slope = np.linspace(-0.5, largest, 6, dtype=np.float32).reshape(1, 1, 6)
    return build.output(build("PRELU", x, slope, output="y"))


EXAMPLES.add("PRELU", lambda: [_prelu_example(0.9), _prelu_example(1.7)])
