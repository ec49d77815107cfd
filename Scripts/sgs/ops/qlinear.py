"""ONNX operators on codes of a quantised network: QLinearConv, QLinearMatMul and onnxruntime's relatives of them.

Sums of products take codes less zero point, whole numbers in binary32, and multiply the sums by one binary32 factor, as
integer kernels do: the same codes come out as long as sums stay below 2^24, and beyond, where such sums lose their last
bits, codes that differ by one at the most. Other operators work on the real numbers
between the DequantizeLinear of their operands and the QuantizeLinear of their result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._import import along, multiply
from sgs.ops.quantize_linear import CODES, QUANTIZE
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase

_MICROSOFT = "com.microsoft."
_EXACT = 1 << 24  # binary32 holds all integers below


def _constant(ctx: ImportContext, name: str, data: Array) -> Tensor:
    data = np.ascontiguousarray(data)
    return Tensor(f"{ctx.name}/{name}", data.shape, DType.of(data.dtype), data)


def _real(ctx: ImportContext, at: int, axis: int = 1) -> Tensor:
    """Operand `at`, with scale and zero point behind it, as real numbers; at once where it is constant."""
    codes, scale, zero = (ctx.inputs[i] if i < len(ctx.inputs) else None for i in (at, at + 1, at + 2))
    assert codes is not None and scale is not None
    ctx.constant(at + 1, "scale"), ctx.constant(at + 2, "zero point")
    if codes.data is None:
        return ctx.call("DequantizeLinear", codes, scale, zero, axis=axis)[0]
    assert scale.data is not None
    rank, centred = codes.data.ndim, codes.data.astype(np.float32)
    if zero is not None and zero.data is not None:
        centred = centred - along(zero.data.astype(np.float32), axis, rank)
    real = (centred * along(scale.data, axis, rank)).astype(np.float32)
    return _constant(ctx, f"real{at}", real.reshape(codes.shape))


def _code_type(ctx: ImportContext, zero: int) -> str:
    """ONNX's name of the type of a result's codes, which operand `zero` has."""
    name = "uint8" if ctx.constant(zero, "zero point") is None else ctx.source_type(zero)
    if name not in ("uint8", "int8"):
        raise ctx.refuse(f"codes of {name}", "codes of 8 bits are supported")
    return name


def _codes(ctx: ImportContext, x: Tensor, at: int) -> list[Tensor]:
    """Real numbers as codes of the scale and zero point that are operands `at` and after."""
    ctx.constant(at, "scale")
    _code_type(ctx, at + 1)
    return ctx.call("QuantizeLinear", x, ctx.inputs[at], ctx.inputs[at + 1] if at + 1 < len(ctx.inputs) else None)


def _centred(ctx: ImportContext, at: int, zero: int, axis: int) -> Tensor:
    """Operand `at` less its zero point, operand `zero`: whole numbers in binary32."""
    codes, offset = ctx.inputs[at], ctx.inputs[zero] if zero < len(ctx.inputs) else None
    assert codes is not None
    ctx.constant(zero, "zero point")
    if codes.data is None:
        one = _constant(ctx, f"one{at}", np.ones(1 if offset is None else offset.shape, np.float32))
        return ctx.call("DequantizeLinear", codes, one, offset, axis=axis)[0]
    shift = np.zeros(1) if offset is None or offset.data is None else offset.data
    shift = along(shift.astype(np.float32), axis, codes.data.ndim)
    return _constant(ctx, f"centred{at}", codes.data.astype(np.float32) - shift)


def _requantised(ctx: ImportContext, total: Tensor, left: Array, right: Array, at: int) -> list[Tensor]:
    """Sums of products of operands with the scales `left` and `right`, which broadcast against them, as codes of the
    scale and zero point that are operands `at` and after."""
    scale, zero = ctx.constant(at, "scale"), ctx.constant(at + 1, "zero point")
    assert scale is not None
    dtype, low, high = CODES[_code_type(ctx, at + 1)]
    factor = (left.astype(np.float32) * right.astype(np.float32)) / scale.astype(np.float32).reshape(())
    shift = np.zeros(1, np.float32) if zero is None else zero.astype(np.float32).reshape(1)
    attrs: dict[str, Any] = {"codes": dtype.name, "low": low, "high": high, "multiply": True}
    return [ctx.emit(QUANTIZE, total, factor, shift, **attrs)]


def _scales(ctx: ImportContext, *at: int) -> list[Array]:
    found = [ctx.constant(index, "scale") for index in at]
    return [value for value in found if value is not None]


# -- sums of products ------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("QLinearConv")
def import_conv(ctx: ImportContext) -> list[Tensor]:
    """Weights and bias are constants, the bias in units of the product of the scales."""
    ctx.constant(3, "weight")
    bias = ctx.constant(8, "bias") if len(ctx.inputs) > 8 else None
    operands = [_centred(ctx, 0, 2, 1), _centred(ctx, 3, 5, 0)]
    if bias is not None:
        operands.append(_constant(ctx, "bias", bias.astype(np.float32)))
    total = ctx.call("Conv", *operands, **ctx.attrs)[0]
    left, right = _scales(ctx, 1, 4)
    return _requantised(ctx, total, left.reshape(1), along(right, 1, len(total.shape)), 6)


@IMPORT_ONNX.row("QLinearMatMul")
def import_matmul(ctx: ImportContext) -> list[Tensor]:
    """Parameters of the left operand may be one a row, those of the right one a column."""
    total = ctx.call("MatMul", _centred(ctx, 0, 2, -2), _centred(ctx, 3, 5, -1))[0]
    left, right = _scales(ctx, 1, 4)
    return _requantised(ctx, total, along(left, -2, 2), along(right, -1, 2), 6)


@IMPORT_ONNX.row(f"{_MICROSOFT}QGemm")
def import_gemm(ctx: ImportContext) -> list[Tensor]:
    """alpha · A · B + C, the bias C in units of the product of the scales; without a scale for it the result is real
    numbers."""
    left, right = _scales(ctx, 1, 4)
    left, bias = left * np.float32(ctx.attrs.get("alpha", 1.0)), ctx.constant(6, "bias")
    operands = [_centred(ctx, 0, 2, 1), _centred(ctx, 3, 5, 0 if ctx.attrs.get("transB", 0) else 1)]
    if bias is not None:
        operands.append(_constant(ctx, "bias", bias.astype(np.float32)))
    turns = {name: ctx.attrs[name] for name in ("transA", "transB") if name in ctx.attrs}
    total = ctx.call("Gemm", *operands, **turns)[0]
    if len(ctx.inputs) > 7 and ctx.inputs[7] is not None:
        return _requantised(ctx, total, left.reshape(1), right.reshape(-1), 7)
    return [multiply(ctx, total, (left.reshape(1) * right.reshape(-1)).astype(np.float32))]


def _whole(ctx: ImportContext, op: str, operands: Sequence[Tensor], terms: int, **attrs: Any) -> list[Tensor]:
    """The int32 result of an operator that adds up `terms` products of whole numbers below 256."""
    known = [
        np.abs(t.data).reshape(t.shape[0], -1).sum(1).max() for t in operands if t.data is not None and op == "Conv"
    ]
    if 255 * (min(known) if known else 255 * terms) >= _EXACT:
        raise ctx.refuse(f"sums of {terms} products may exceed 2^24", "scale them to real numbers in the network")
    return ctx.call("Cast", ctx.call(op, *operands, **attrs)[0], to=6)


@IMPORT_ONNX.row("ConvInteger")
def import_conv_integer(ctx: ImportContext) -> list[Tensor]:
    weight = ctx.constant(1, "weight")
    assert weight is not None
    operands = [_centred(ctx, 0, 2, 1), _centred(ctx, 1, 3, 0)]
    return _whole(ctx, "Conv", operands, weight[0].size, **ctx.attrs)


@IMPORT_ONNX.row("MatMulInteger")
def import_matmul_integer(ctx: ImportContext) -> list[Tensor]:
    a, b = ctx.inputs[:2]
    assert a is not None and b is not None
    operands = [_centred(ctx, 0, 2, -2 if len(a.shape) > 1 else -1), _centred(ctx, 1, 3, -1)]
    return _whole(ctx, "MatMul", operands, a.shape[-1])


# -- elementwise and pooling -----------------------------------------------------------------------------------------
def _binary(op: str) -> Any:
    return lambda ctx: _codes(ctx, ctx.call(op, _real(ctx, 0), _real(ctx, 3))[0], 6)


def _unary(op: str, *names: str) -> Any:
    """Operator `op` on operand 0 with the attrs `names`."""

    def convert(ctx: ImportContext) -> list[Tensor]:
        if ctx.attrs.get("channels_last", 0):
            raise ctx.refuse("channels_last", "pictures are channels first in ONNX networks")
        attrs = {name: ctx.attrs[name] for name in names if name in ctx.attrs}
        return _codes(ctx, ctx.call(op, _real(ctx, 0), **attrs)[0], 3)

    return convert


_POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
for _op, _row in (
    ("QLinearAdd", _binary("Add")),
    ("QLinearMul", _binary("Mul")),
    ("QLinearSigmoid", _unary("Sigmoid")),
    ("QLinearLeakyRelu", _unary("LeakyRelu", "alpha")),
    ("QLinearGlobalAveragePool", _unary("GlobalAveragePool")),
    ("QLinearAveragePool", _unary("AveragePool", *_POOL)),
):
    IMPORT_ONNX.add(f"{_MICROSOFT}{_op}", _row)


@IMPORT_ONNX.row(f"{_MICROSOFT}QLinearConcat")
def import_concat(ctx: ImportContext) -> list[Tensor]:
    """The result's parameters come first, then every operand with its own."""
    parts = [_real(ctx, at) for at in range(2, len(ctx.inputs), 3)]
    return _codes(ctx, ctx.call("Concat", *parts, **ctx.attrs)[0], 0)


# -- examples --------------------------------------------------------------------------------------------------------
def _parameters(name: str, scale: Any, zero: Any, dtype: str = "uint8") -> dict[str, Array]:
    return {f"{name}_scale": np.asarray(scale, np.float32), f"{name}_zero": np.asarray(zero, dtype)}


def _case(op: str, x: tuple[int, ...], other: dict[str, Array], result: bool = True, **attrs: Any) -> OnnxCase:
    """x uint8 with its parameters, `other` constants, the result's parameters."""
    constants = _parameters("x", 0.02137, 117) | other | (_parameters("y", 0.05291, 83) if result else {})
    order = ("x", "x_scale", "x_zero", *other, "y_scale", "y_zero")
    if "bias" in other and op == "QLinearConv":
        order = (*(name for name in order if name != "bias"), "bias")
    return OnnxCase(op, {"x": x}, constants, attrs, order, low=0, high=255, types={"x": "uint8"})


def _integers(shape: tuple[int, ...], dtype: str = "int8") -> Array:
    return np.random.default_rng(sum(shape)).integers(-90, 90, shape).astype(dtype)


_PER_CHANNEL = _parameters("w", np.linspace(0.01, 0.02, 7), np.zeros(7), "int8")
ONNX_EXAMPLES.add(
    "QLinearConv",
    [
        _case("QLinearConv", (1, 5, 9, 11), {"w": _integers((7, 5, 3, 3)), **_PER_CHANNEL}, pads=[1, 1, 1, 1]),
        _case(
            "QLinearConv",
            (1, 6, 9, 8),
            {
                "w": _integers((6, 1, 3, 3)),
                **_parameters("w", 0.013, 0, "int8"),
                "bias": np.arange(-300, 300, 100, dtype=np.int32),
            },
            group=6,
            strides=[2, 2],
        ),
    ],
)
ONNX_EXAMPLES.add(
    "QLinearMatMul",
    [
        _case("QLinearMatMul", (3, 9), {"w": _integers((9, 7)), **_PER_CHANNEL}),
        _case("QLinearMatMul", (2, 3, 9), {"w": _integers((9, 5)), **_parameters("w", 0.03, 3, "int8")}),
    ],
)
ONNX_EXAMPLES.add(
    f"{_MICROSOFT}QGemm",
    [
        _case(
            f"{_MICROSOFT}QGemm",
            (3, 9),
            {"w": _integers((7, 9)), **_PER_CHANNEL, "bias": np.arange(7, dtype=np.int32) * 50},
            transB=1,
        )
    ],
)
ONNX_EXAMPLES.add(
    "ConvInteger",
    [
        OnnxCase(
            "ConvInteger",
            {"x": (1, 5, 9, 11)},
            {"w": _integers((7, 5, 3, 3), "int8"), "z": np.array(117, np.uint8)},
            {"pads": [1, 0, 1, 0]},
            low=0,
            high=255,
            types={"x": "uint8"},
        )
    ],
)
ONNX_EXAMPLES.add(
    "MatMulInteger",
    [
        OnnxCase(
            "MatMulInteger",
            {"x": (2, 3, 9)},
            {"w": _integers((9, 5), "uint8"), "z": np.array(117, np.uint8), "v": np.array(99, np.uint8)},
            low=0,
            high=255,
            types={"x": "uint8"},
        )
    ],
)
_OTHER = {"w": _integers((1, 5, 7, 6), "uint8"), **_parameters("w", 0.03, 99)}
for _op in ("QLinearAdd", "QLinearMul"):
    ONNX_EXAMPLES.add(f"{_MICROSOFT}{_op}", [_case(f"{_MICROSOFT}{_op}", (1, 5, 7, 6), _OTHER)])
for _op, _attrs in (
    ("QLinearSigmoid", {}),
    ("QLinearLeakyRelu", {"alpha": 0.2}),
    ("QLinearGlobalAveragePool", {}),
    ("QLinearAveragePool", {"kernel_shape": [2, 3], "strides": [2, 2]}),
):
    ONNX_EXAMPLES.add(f"{_MICROSOFT}{_op}", [_case(f"{_MICROSOFT}{_op}", (1, 5, 7, 6), {}, **_attrs)])
ONNX_EXAMPLES.add(
    f"{_MICROSOFT}QLinearConcat",
    [
        OnnxCase(
            f"{_MICROSOFT}QLinearConcat",
            {"a": (1, 5, 7, 6), "b": (1, 3, 7, 6)},
            _parameters("a", 0.02, 117) | _parameters("b", 0.03, 99) | _parameters("y", 0.04, 120),
            {"axis": 1},
            ("y_scale", "y_zero", "a", "a_scale", "a_zero", "b", "b_scale", "b_zero"),
            low=0,
            high=255,
            types={"a": "uint8", "b": "uint8"},
        )
    ],
)
