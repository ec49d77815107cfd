"""Rounding of a source network that is quantised already: ONNX's QuantizeLinear and DequantizeLinear.

    QUANTIZE_LINEAR(x, scale, zero)          q = clamp(rint(x / scale) + zero, low, high), as attr `codes`, a type
    DEQUANTIZE_LINEAR(q, scale, zero)        (q - zero) · scale
    FAKE_QUANTIZE(x, scale, zero, step)      both, the second with `step` as its scale

With attr `multiply` it is x · scale instead of x / scale: integer kernels multiply their sums. Scales and zero points
broadcast against the first operand. All this stands in float networks only: `passes.pair_rounding` makes pairs one
FAKE_QUANTIZE, and calibration takes those for what they say of ranges (`quant.unrounded`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._import import along, divide, number, subtract
from sgs.ops._layout import transparent
from sgs.ops._onnx_types import NAMES
from sgs.ops._tflite import operand, option
from sgs.registry import (
    EXAMPLES,
    FLOAT,
    IMPORT_ONNX,
    IMPORT_TFLITE,
    INFER,
    LAYOUT,
    ONNX_EXAMPLES,
    OPERATOR,
    QUANTISE,
    REAL,
    SIM,
    TFLITE_EXAMPLES,
    ImportContext,
    Layout,
    Lowering,
    OnnxCase,
    OperatorInfo,
    QuantRule,
    SimRow,
    TfliteCase,
)

QUANTIZE, DEQUANTIZE, FAKE = "QUANTIZE_LINEAR", "DEQUANTIZE_LINEAR", "FAKE_QUANTIZE"
_WHY = "works on codes of the source network's own, which no pair of QuantizeLinear and DequantizeLinear encloses"
# ONNX element type of codes → (type that holds it here, least code, largest code)
CODES: dict[str, tuple[DType, int, int]] = {
    "uint8": (DType.UINT8, 0, 255),
    "int8": (DType.INT8, -128, 127),
    "uint16": (DType.UINT16, 0, 65535),
    "int16": (DType.INT16, -32768, 32767),
    "uint4": (DType.UINT8, 0, 15),
    "int4": (DType.INT8, -8, 7),
    "uint2": (DType.UINT8, 0, 3),
    "int2": (DType.INT8, -2, 1),
}

OPERATOR.add(QUANTIZE, OperatorInfo("float", "real numbers to codes of the source network", no_integers=_WHY))
OPERATOR.add(DEQUANTIZE, OperatorInfo("float", "codes of the source network to real numbers", no_integers=_WHY))
OPERATOR.add(FAKE, OperatorInfo("float", "real numbers as the source network's codes keep them"))
QUANTISE.add(FAKE, QuantRule("unary"))


@INFER.row(QUANTIZE, DEQUANTIZE, FAKE)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    """The first operand's shape, which scale and zero point fit into."""
    x = operands[0]
    assert x is not None
    shapes = [t.shape for t in operands if t is not None]
    if np.broadcast_shapes(*shapes) != x.shape:
        raise ValueError(f"scale and zero point of shapes {shapes[1:]} do not fit shape {x.shape}")
    return [(x.shape, DType[node.attrs["codes"]] if node.op == QUANTIZE else DType.FLOAT32)]


# -- engine ----------------------------------------------------------------------------------------------------------
def _operands(low: Lowering, node: Node, layout: Layout) -> list[str]:
    """x, scale and zero point in binary32."""
    return [low.cast(low.codes(name or "", layout), DType.FLOAT32) for name in node.inputs]


def _rounded(low: Lowering, node: Node, x: str, scale: str, zero: str) -> str:
    limits = [low.const(np.asarray(node.attrs[name], np.float32)) for name in ("low", "high")]
    scaled = low.op("Mul" if node.attrs["multiply"] else "Div", [x, scale])
    shifted = low.op("Add", [low.op("Round", [scaled]), zero])
    return str(low.op("Clip", [shifted, *limits]))


@FLOAT.row(QUANTIZE)
def lower_quantize(low: Lowering, node: Node) -> None:
    layout = low.prefer(node.inputs[:1])
    codes = _rounded(low, node, *_operands(low, node, layout))
    low.put(node.outputs[0], low.cast(codes, DType[node.attrs["codes"]]), layout)


@FLOAT.row(DEQUANTIZE)
def lower_dequantize(low: Lowering, node: Node) -> None:
    layout = low.prefer(node.inputs[:1])
    codes, scale, zero = _operands(low, node, layout)
    low.put(node.outputs[0], low.op("Mul", [low.op("Sub", [codes, zero]), scale]), layout)


@FLOAT.row(FAKE)
def lower_fake(low: Lowering, node: Node) -> None:
    layout = low.prefer(node.inputs[:1])
    x, scale, zero, step = _operands(low, node, layout)
    centred = low.op("Sub", [_rounded(low, node, x, scale, zero), zero])
    low.put(node.outputs[0], low.op("Mul", [centred, step]), layout)


@REAL.row(FAKE)
def real(node: Node, values: Sequence[Array]) -> Array:
    x, scale, zero, step = values
    scaled = x * scale if node.attrs["multiply"] else x / scale
    return np.asarray((np.clip(np.rint(scaled) + zero, node.attrs["low"], node.attrs["high"]) - zero) * step)


for _op in (QUANTIZE, DEQUANTIZE, FAKE):
    LAYOUT.add(_op, transparent)
    SIM.add(_op, SimRow(custom=True))


# -- what codes stand for --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Grid:
    """The real numbers step · (q - zero) of codes from low to high."""

    step: float
    zero: int
    low: int
    high: int

    @property
    def span(self) -> tuple[float, float]:
        """The least and the largest of them."""
        return self.step * (self.low - self.zero), self.step * (self.high - self.zero)


def grid_of(graph: Graph, node: Node) -> Grid | None:
    """What a FAKE_QUANTIZE gives, or the codes of a QUANTIZE_LINEAR stand for (whole numbers where its scale is but a
    factor); None where that is not the same for all elements, or is computed."""
    is_factor = node.op == QUANTIZE and node.attrs["multiply"]
    step = 1.0 if is_factor else graph[node.inputs[3 if node.op == FAKE else 1] or ""].number
    zero = graph[node.inputs[2] or ""].number
    if step is None or zero is None:
        return None
    return Grid(step, int(zero), node.attrs["low"], node.attrs["high"])


# -- ONNX import -----------------------------------------------------------------------------------------------------
def _spread(ctx: ImportContext, value: Array, x: Tensor) -> Array:
    """A scale or zero point, one for all, one an entry of attr `axis`, or one a block of attr `block_size` along it, so
    that it broadcasts against x."""
    value = value.astype(np.float32)
    rank, block = len(x.shape), int(ctx.attrs.get("block_size", 0))
    if value.size == 1 and not block:
        return value.reshape(1)
    axis = int(ctx.attrs.get("axis", 1)) % rank
    if block:
        return np.take(np.repeat(value, block, axis), range(x.shape[axis]), axis)
    return along(value, axis, rank)


def _parameters(ctx: ImportContext, x: Tensor) -> list[Tensor | Array]:
    """Scale and zero point (operands 1 and 2; none: 0) that broadcast against x; computed ones are single numbers."""
    found: list[Tensor | Array] = []
    for index, what in ((1, "scale"), (2, "zero point")):
        tensor = ctx.inputs[index] if index < len(ctx.inputs) else None
        if tensor is None:
            found.append(np.zeros(1, np.float32))
        elif tensor.data is not None:
            found.append(_spread(ctx, tensor.data, x))
        elif tensor.elements == 1:
            found.append(tensor if len(tensor.shape) <= 1 else ctx.emit("RESHAPE", tensor, shape=(1,)))
        else:
            raise ctx.needs_constant(index, what)
    return found


def _code_type(ctx: ImportContext) -> str:
    """ONNX's name of the type that a QuantizeLinear gives: its zero point's, attr `output_dtype`, or uint8."""
    zero = ctx.inputs[2] if len(ctx.inputs) > 2 else None
    if zero is not None:
        if zero.data is None:  # a graph does not tell int4 from int8
            raise ctx.needs_constant(2, "zero point")
        name = ctx.source_type(2)
    else:
        wanted = int(ctx.attrs.get("output_dtype", 0)) or 2
        name = NAMES.get(wanted, f"ONNX type {wanted}")
    if name not in CODES:
        raise ctx.refuse(f"codes of {name}", f"codes are {', '.join(CODES)}")
    return name


@IMPORT_ONNX.row("QuantizeLinear")
def import_quantize(ctx: ImportContext) -> list[Tensor]:
    x = ctx.inputs[0]
    assert x is not None
    dtype, low, high = CODES[_code_type(ctx)]
    scale, zero = _parameters(ctx, x)
    if x.data is not None and isinstance(scale, np.ndarray) and isinstance(zero, np.ndarray):
        codes = np.clip(np.rint(x.data.astype(np.float32) / scale) + zero, low, high)
        return [Tensor(f"{x.name}/codes", x.shape, dtype, codes.astype(dtype.numpy))]
    return [ctx.emit(QUANTIZE, x, scale, zero, codes=dtype.name, low=low, high=high, multiply=False)]


@IMPORT_ONNX.row("DequantizeLinear")
def import_dequantize(ctx: ImportContext) -> list[Tensor]:
    x = ctx.inputs[0]
    assert x is not None
    scale, zero = _parameters(ctx, x)
    if x.data is not None and isinstance(scale, np.ndarray) and isinstance(zero, np.ndarray):
        real = (x.data.astype(np.float32) - zero) * scale
        return [Tensor(f"{x.name}/real", x.shape, DType.FLOAT32, real.astype(np.float32))]
    return [ctx.emit(DEQUANTIZE, x, scale, zero)]


def _reduced(ctx: ImportContext, x: Tensor, op: str, limit: str) -> Tensor:
    """The least or largest value of x, and no more or less than 0: shape [1]."""
    flat = ctx.emit("RESHAPE", x, shape=(x.elements,))
    found = ctx.emit(op, flat, axes=(0,), keep_dims=True)
    return ctx.emit(limit, found, np.zeros(1, np.float32))


@IMPORT_ONNX.row("DynamicQuantizeLinear")
def import_dynamic(ctx: ImportContext) -> list[Tensor]:
    """uint8 codes, and the scale and zero point that the values of x themselves ask for. A tensor of zeros has the
    smallest scale there is, not 0."""
    x = ctx.inputs[0]
    assert x is not None
    least, most = _reduced(ctx, x, "REDUCE_MIN", "MINIMUM"), _reduced(ctx, x, "REDUCE_MAX", "MAXIMUM")
    width = subtract(ctx, most, least)
    scale = divide(ctx, width, 255)
    scale = ctx.emit("MAXIMUM", scale, number(float(np.finfo(np.float32).tiny)))
    attrs: dict[str, Any] = {"codes": "UINT8", "low": 0, "high": 255, "multiply": False}
    below = subtract(ctx, 0, least)
    zero = ctx.emit(QUANTIZE, below, scale, np.zeros(1, np.float32), **attrs)
    scale, zero = (ctx.emit("RESHAPE", tensor, shape=()) for tensor in (scale, zero))
    return [ctx.emit(QUANTIZE, x, scale, zero, **attrs), scale, zero]


# -- examples --------------------------------------------------------------------------------------------------------
_SCALES = np.linspace(0.01, 0.02, 5, dtype=np.float32)


def _zero(value: int, dtype: str) -> dict[str, Array]:
    return {"s": np.array(0.0173, np.float32), "z": np.array(value, dtype)}


ONNX_EXAMPLES.add(
    "QuantizeLinear",
    [
        OnnxCase("QuantizeLinear", {"x": (1, 5, 7, 6)}, _zero(113, "uint8"), low=-3, high=3),
        OnnxCase("QuantizeLinear", {"x": (3, 11)}, _zero(-3, "int8"), low=-3, high=3, opset=10),
        OnnxCase("QuantizeLinear", {"x": (3, 11)}, _zero(-300, "int16"), low=-3, high=3, opset=21),
        OnnxCase("QuantizeLinear", {"x": (2, 5, 7)}, {"s": _SCALES, "z": np.arange(5, dtype=np.int8)}, low=-3, high=3),
        OnnxCase("QuantizeLinear", {"x": (5, 7)}, {"s": _SCALES}, {"axis": 0}),
        OnnxCase(
            "QuantizeLinear",
            {"x": (3, 5, 2)},
            {"s": np.linspace(0.01, 0.02, 18, dtype=np.float32).reshape(3, 3, 2)},
            {"axis": 1, "block_size": 2, "output_dtype": 5},
            opset=21,
        ),
    ],
)
ONNX_EXAMPLES.add(
    "DequantizeLinear",
    [
        OnnxCase("DequantizeLinear", {"x": (1, 5, 7, 6)}, _zero(7, "uint8"), low=0, high=255, types={"x": "uint8"}),
        OnnxCase(
            "DequantizeLinear",
            {"x": (2, 5, 7)},
            {"s": _SCALES, "z": np.arange(5, dtype=np.int8)},
            low=-128,
            high=127,
            types={"x": "int8"},
        ),
        OnnxCase("DequantizeLinear", {"x": (3, 5)}, {"s": _SCALES[:1]}, low=-9999, high=9999, types={"x": "int32"}),
    ],
)
ONNX_EXAMPLES.add(
    "DynamicQuantizeLinear",
    [
        OnnxCase("DynamicQuantizeLinear", {"x": (3, 11)}, outputs=3, low=-3, high=2),
        OnnxCase("DynamicQuantizeLinear", {"x": (1, 5, 7, 6)}, outputs=3, low=0.5, high=2),
    ],
)


def _example(op: str, shape: tuple[int, ...], scale: Array, zero: Array, codes: str) -> Graph:
    dtype, low, high = CODES[codes]
    build = GraphBuilder()
    x = build.input("x", shape, dtype if op == DEQUANTIZE else DType.FLOAT32)
    attrs: dict[str, Any] = {} if op == DEQUANTIZE else {"low": low, "high": high, "multiply": bool(zero < 0)}
    attrs |= {"codes": dtype.name} if op == QUANTIZE else {}
    operands = [scale, zero.astype(np.float32), *([2 * scale] if op == FAKE else [])]
    return build.output(build(op, x, *operands, output="y", **attrs))


for _op in (QUANTIZE, DEQUANTIZE, FAKE):
    EXAMPLES.add(
        _op,
        lambda op=_op: [  # type: ignore[misc]
            _example(op, (1, 5, 7, 6), np.array([0.021], np.float32), np.array([117]), "uint8"),
            _example(op, (3, 11), np.array([37.1], np.float32), np.array([-7]), "int8"),
        ],
    )


# -- TFLite import ---------------------------------------------------------------------------------------------------
@IMPORT_TFLITE.row("FAKE_QUANT")
def import_fake_quant(ctx: ImportContext) -> list[Tensor]:
    """TensorFlow moves the range so that 0 is a code."""
    low, high = float(option(ctx, "min", 0.0)), float(option(ctx, "max", 0.0))
    least, largest = int(bool(option(ctx, "narrow_range", False))), (1 << int(option(ctx, "num_bits", 0))) - 1
    if not low <= 0 <= high or low == high or largest <= least:
        raise ctx.refuse(
            f"codes from {least} to {largest} for a range from {low} to {high}", "export the network without it"
        )
    scale = (high - low) / (largest - least)
    zero = min(max(math.floor(least - low / scale + 0.5), least), largest)
    numbers = (number(scale), number(zero), number(scale))
    attrs = {"low": float(least), "high": float(largest), "multiply": False}
    return [ctx.emit(FAKE, operand(ctx, 0), *numbers, **attrs)]


TFLITE_EXAMPLES.add(
    "FAKE_QUANT",
    [
        TfliteCase(
            "FAKE_QUANT",
            {"x": (3, 11)},
            options={"min": low, "max": high, "num_bits": bits},
            table="FakeQuantOptions",
        )
        for low, high, bits in ((-0.7, 0.9, 4), (0.0, 0.5, 8))
    ],
)
