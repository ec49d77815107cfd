"""What all sums of products share: fused activations, exact accumulation in onnxruntime, requantisation.

Exactness: binary32 holds every integer below 2^24, binary64 below 2^53, and a sum whose partial sums all stay below
that is exact in any order. 8-bit sums run on integer kernels, or in binary32 where Σ|w|·255 + |bias| allows it, else
in blocks summed in binary64. 16-bit sums run in binary64 (matrices), as two binary32 sums of weight parts (few taps),
or as four binary32 sums of bytes recombined in binary64 (docs/NUMERICS.md §4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sgs.ir.graph import Node, Tensor
from sgs.numeric.quantise import Array, multiplier, requantise
from sgs.numeric.types import DType
from sgs.registry import QUANTISE, Constraint, Layout, Lowering

EXACT_BINARY32 = 1 << 24
INT16_REACH = 32768
DOUBLE_DEPTH = 1 << 22  # products of two INT16 whose sum stays below 2^53
_REAL_BOUNDS = {
    "NONE": (None, None),
    "RELU": (0.0, None),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU_0_TO_1": (0.0, 1.0),
}
ACTIVATIONS = tuple(_REAL_BOUNDS)


# -- limits ----------------------------------------------------------------------------------------------------------
def operands_are_constant(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """The weight and the bias are constants."""
    return all(tensor is None or tensor.is_constant for tensor in operands[1:3])


def formats_are_known(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """UINT8 activations take INT8 or INT4 weights, INT16 activations INT16, INT8 or INT4 weights."""
    x, weight = operands[0], operands[1]
    narrow = (DType.INT8, DType.INT4)
    taken = {DType.UINT8: narrow, DType.INT16: (*narrow, DType.INT16)}
    return x is not None and weight is not None and weight.dtype in taken.get(x.dtype, ())


def sums_are_exact(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """No sum can leave the accumulator: of every output channel, the sum of all |weight| times 255 plus |bias| is below
    2^31 for UINT8 activations, times 32,768 below 2^53 for INT16 ones."""
    x, weight, bias = (*operands, None)[:3]
    if x is None or weight is None or weight.data is None:
        return True  # other limits speak of that
    most, reach = (1 << 31, 255) if x.dtype.bits == 8 else (1 << 53, INT16_REACH)
    axis = QUANTISE[node.op].channel_axis
    others = tuple(a for a in range(weight.data.ndim) if a != axis)
    largest = np.abs(weight.data.astype(np.int32)).sum(others, dtype=np.int64) * reach
    if bias is not None and bias.data is not None:
        largest = largest + np.abs(bias.data.astype(np.int64))
    return bool(largest.max(initial=0) < most)


MAC_LIMITS: tuple[Constraint, ...] = (operands_are_constant, formats_are_known, sums_are_exact)


def real_bounds(activation: str) -> tuple[float | None, float | None]:
    """(low, high) of a fused activation in real numbers, None for no bound."""
    return _REAL_BOUNDS[activation]


def activation_float(low: Lowering, node: Node, value: str) -> str:
    """Apply the node's fused activation to a float value."""
    floor, ceiling = real_bounds(node.attrs.get("activation", "NONE"))
    if floor == 0.0 and ceiling is None:
        return str(low.op("Relu", [value]))
    if floor is None and ceiling is None:
        return value
    return str(
        low.op("Clip", [value, *(low.const(np.asarray(b, np.float32)) for b in (floor, ceiling) if b is not None)])
    )


def activation_bounds(node: Node, result: Tensor) -> tuple[int, int]:
    """Codes between which the node's fused activation clamps its result (NUMERICS §3)."""
    floor, ceiling = real_bounds(node.attrs.get("activation", "NONE"))
    low, high = result.dtype.qmin, result.dtype.qmax
    assert result.quant is not None
    scale, zero = float(result.quant.scale[0]), int(result.quant.zero_point[0])
    if floor is not None:
        low = int(np.clip(np.rint(floor / scale) + zero, low, high))
    if ceiling is not None:
        high = int(np.clip(np.rint(ceiling / scale) + zero, low, high))
    return low, high


def bias_of(low: Lowering, node: Node, channels: int) -> Array:
    """The bias in its own element type, zeros where it is absent."""
    name = node.inputs[2] if len(node.inputs) > 2 else None
    data = None if name is None else low.graph[name].data
    return np.zeros(channels, np.int64) if data is None else data


def scale_multiplier(x: Tensor, weight: Tensor, y: Tensor) -> Array:
    """M of eq. 7: float32 [O], rounded once from binary64."""
    assert x.quant is not None and weight.quant is not None and y.quant is not None
    return multiplier(x.quant.scale, weight.quant.scale, y.quant.scale).astype(np.float32)


def finish(node: Node, acc: Array, operands: Sequence[Tensor | None], result: Tensor) -> Array:
    """Reference: requantise exact sums [..., O] with the fused activation (eq. 7)."""
    x, weight = operands[0], operands[1]
    assert x is not None and weight is not None and result.quant is not None
    bounds = activation_bounds(node, result)
    return requantise(acc, scale_multiplier(x, weight, result), int(result.quant.zero_point[0]), result.dtype, *bounds)


Product = Callable[[str, Array, Array | None], str]


def accumulate(
    low: Lowering, x: Tensor, kernel: Array, bias: Array, product: Product, layout: Layout, *, repeats: int = 1
) -> str:
    """Accumulator of a MAC as a session value: the exact sum, rounded once to binary32 (most often it is below 2^24
    and exact).

    `kernel` integer weights [O, ...]; `bias` integer [O]; `product(value, weights, bias)` emits the sum of products
    of an integer-valued binary32 value with binary32 weights of the kernel's shape, plus a binary32 bias or None.
    Where products of one channel fall into sets that never meet in one sum, `kernel` and `bias` have [repeats · O]
    rows, one per set.
    """
    shape = (1, -1, 1, 1) if layout == "first" else (-1,)
    wide_bias = bias[: bias.size // repeats].astype(np.float64).reshape(shape)
    if x.dtype is not DType.UINT8:
        parts = two_parts(kernel, bias)
        if parts is None:
            return _accumulate_bytes(low, x, kernel, wide_bias, product, layout)
        value = low.centred(x.name, layout)
        high, rest = (product(value, weights, offset) for weights, offset in parts)
        return low.add_apart(high, rest, layout)
    assert x.quant is not None
    zero = int(x.quant.zero_point[0])
    reach = max(zero, 255 - zero)
    worst = np.abs(kernel.astype(np.int64)).reshape(kernel.shape[0], -1).sum(1) * reach
    value, offset = low.centred(x.name, layout), bias.astype(np.float32)
    if (worst + np.abs(bias.astype(np.int64))).max() < EXACT_BINARY32:
        return product(value, kernel.astype(np.float32), offset)
    if worst.max() < EXACT_BINARY32 and repeats == 1 and np.array_equal(offset.astype(np.int64), bias):
        # both terms are exact, so their binary32 sum is the exact sum rounded once
        return low.add_apart(product(value, kernel.astype(np.float32), None), low.const(offset.reshape(shape)), layout)
    values = [product(value, part, None) for part in _split(kernel, reach)]
    return _sum_wide(low, values, [1.0] * len(values), wide_bias)


def two_parts(kernel: Array, bias: Array) -> list[tuple[Array, Array]] | None:
    """INT16 weights [O, ...] and bias [O] as (high, low) float32 parts, w = high + low with high a multiple of 2^k,
    such that both sums are exact in binary32 against INT16 activations; None where no k does it.

    A sum of multiples of 2^k that is below 2^(24+k) is exact, so one binary32 addition of the two sums rounds the
    whole once.
    """
    flat = kernel.reshape(kernel.shape[0], -1).astype(np.int64)
    for k in (6, 5, 4, 3):
        step = 1 << k
        high, bias_high = (flat + step // 2) >> k, (bias.astype(np.int64) + step // 2) >> k
        pairs = [(high, bias_high), (flat - high * step, bias.astype(np.int64) - bias_high * step)]
        if all((np.abs(w).sum(1) * INT16_REACH + np.abs(b)).max(initial=0) < EXACT_BINARY32 for w, b in pairs):
            factors = (step, 1)
            return [
                ((w * f).astype(np.float32).reshape(kernel.shape), (b * f).astype(np.float32))
                for (w, b), f in zip(pairs, factors, strict=True)
            ]
    return None


def two_part_limit(taps: int) -> int | None:
    """The largest Σ|w| of an output channel of `taps` INT16 weights for which `two_parts` certainly works; None for
    many taps.

    The low parts need taps · 2^k / 2 ≤ 480 (of the 511 that binary32 can hold), the high ones Σ|w| / 2^k + taps / 2 ≤
    480.
    """
    for k in (6, 5, 4):
        if taps << k <= 960:
            return (480 - (taps + 1) // 2) << k
    return None


def _split(kernel: Array, reach: int) -> list[Array]:
    """The kernel as a sum of float32 kernels, each of which stays exact against inputs of magnitude ≤ reach."""
    flat = kernel.reshape(kernel.shape[0], -1)
    parts: list[Array] = []
    start, columns = 0, flat.shape[1]
    cumulative = np.concatenate([np.zeros((flat.shape[0], 1), np.int64), np.abs(flat.astype(np.int64)).cumsum(1)], 1)
    while start < columns:
        room = (EXACT_BINARY32 - 1) // reach
        fits = (cumulative - cumulative[:, start : start + 1]).max(0) <= room
        end = int(np.flatnonzero(fits)[-1])
        if end <= start:
            raise ValueError("one product alone does not fit binary32")
        part = np.zeros(flat.shape, np.float32)
        part[:, start:end] = flat[:, start:end]
        parts.append(part.reshape(kernel.shape))
        start = end
    return parts


def _sum_wide(low: Lowering, values: Sequence[str], factors: Sequence[float], bias: Array) -> str:
    """Σ factor·value + bias: exact in binary64, then rounded once to binary32."""
    total = low.const(bias)
    for value, factor in zip(values, factors, strict=True):
        term = low.cast(value, DType.FLOAT64)
        if factor != 1.0:
            term = low.op("Mul", [term, low.const(np.asarray(factor, np.float64))])
        total = low.op("Add", [total, term])
    return low.cast(total, DType.FLOAT32)


def _accumulate_bytes(low: Lowering, x: Tensor, kernel: Array, bias: Array, product: Product, layout: Layout) -> str:
    """INT16 × INT16: x = 256·xh + xl and w = 256·wh + wl with bytes in [-128, 128), so that every product is 14
    bits.
    """
    value = low.centred(x.name, layout)
    half, fraction, byte = (low.const(np.asarray(v, np.float32)) for v in (128, 1 / 256, 256))
    high = low.op("Floor", [low.op("Mul", [low.op("Add", [value, half]), fraction])])
    lower = low.op("Sub", [value, low.op("Mul", [high, byte])])
    wide = kernel.astype(np.int64)
    kernel_high = (wide + 128) >> 8
    kernel_low = wide - (kernel_high << 8)
    planes = [(kernel_high, 256.0), (kernel_low, 1.0)]
    planes = [(weights, factor) for weights, factor in planes if weights.any()] or planes[1:]  # one has the shape
    values, factors = [], []
    for plane, x_factor in ((high, 256.0), (lower, 1.0)):
        for weights, w_factor in planes:
            for part in _split(weights, 128):
                values.append(product(plane, part, None))
                factors.append(x_factor * w_factor)
    return _sum_wide(low, values, factors, bias)


def publish(low: Lowering, node: Node, acc: str, layout: Layout) -> None:
    """Requantise a binary32 accumulator and publish the node's result (eq. 7)."""
    x, weight = low.graph[node.inputs[0] or ""], low.graph[node.inputs[1] or ""]
    y = low.graph[node.outputs[0]]
    low.put_scaled(y.name, acc, scale_multiplier(x, weight, y), layout, activation_bounds(node, y))


def publish_product(low: Lowering, node: Node, rows: str, matrix: Array, bias: Array) -> None:
    """UINT8 codes [rows, I] × INT8 `matrix` [I, O] + `bias` [O], requantised and published as the node's result (eq.
    7).

    QGemm adds the bias in int32 and scales the exact sum in binary32, on the processor's 8-bit dot products: 4-7
    times faster than a binary32 product.
    """
    x, weight = low.graph[node.inputs[0] or ""], low.graph[node.inputs[1] or ""]
    y = low.graph[node.outputs[0]]
    assert x.quant is not None
    worst = np.abs(matrix.astype(np.int64)).sum(0) * 255 + np.abs(bias.astype(np.int64))
    if worst.max(initial=0) >= 1 << 31:
        raise ValueError(f"sums of {matrix.shape[0]} products do not fit 32 bits")
    operands = [
        rows,
        low.const(np.asarray(1, np.float32)),
        low.const(np.asarray(x.quant.zero_point[0], np.uint8)),
        low.const(np.ascontiguousarray(matrix.astype(np.int8))),
        low.const(scale_multiplier(x, weight, y)),
        low.const(np.zeros(matrix.shape[1], np.int8), shared=False),  # onnxruntime may rewrite it
        low.const(bias.astype(np.int32)),
    ]
    scaled = low.op("QGemm", operands, domain="com.microsoft")
    scaled = low.op("Reshape", [scaled, low.const(np.array(y.shape, np.int64))])
    low.put_scaled(y.name, scaled, np.asarray(1, np.float32), "native", activation_bounds(node, y))


def publish_wide_product(low: Lowering, node: Node, rows: str, matrix: Array, bias: Array) -> None:
    """INT16 codes [rows, I] × INT16 `matrix` [I, O] + `bias` [O] in one binary64 product, which is exact; then eq.
    7.
    """
    if matrix.shape[0] >= DOUBLE_DEPTH:
        raise ValueError(f"sums of {matrix.shape[0]} products do not fit binary64")
    y = low.graph[node.outputs[0]]
    weights, offset = low.const(np.ascontiguousarray(matrix.astype(np.float64))), low.const(bias.astype(np.float64))
    acc = low.cast(low.op("Gemm", [low.cast(rows, DType.FLOAT64), weights, offset]), DType.FLOAT32)
    publish(low, node, low.op("Reshape", [acc, low.const(np.array(y.shape, np.int64))]), "native")


def qlinear_conv(low: Lowering, node: Node, codes: str, kernel: Array, bias: Array, **attrs: Any) -> str:
    """UINT8 codes [N,H,W,C] to UINT8 codes [N,OH,OW,R] by onnxruntime's channels-last QLinearConv, which computes eq.
    7.

    `kernel` int8 [R, C/groups, KH, KW] and `bias` [R] belong to the node's channels repeated: R is a multiple of their
    number. The fused activation clamps the codes.
    """
    x, weight = low.graph[node.inputs[0] or ""], low.graph[node.inputs[1] or ""]
    y = low.graph[node.outputs[0]]
    assert x.quant is not None and y.quant is not None
    mult = scale_multiplier(x, weight, y)
    rows = kernel.shape[0]
    one = low.const(np.asarray(1, np.float32))
    shift = 0 if low.exact_dot_products else 128
    if shift:  # UINT8 × INT8 kernels of old processors saturate; UINT8 × UINT8 with zero point 128 is the same sum
        kernel = (kernel.astype(np.int16) + shift).astype(np.uint8)
    zero_x, zero_y = (low.const(np.asarray(t.quant.zero_point[0], np.uint8)) for t in (x, y) if t.quant is not None)
    factors, zeros = (
        low.const(np.tile(mult, rows // mult.size)),
        low.const(np.full(rows, shift, kernel.dtype), shared=False),
    )
    operands = [codes, one, zero_x, low.const(kernel), factors, zeros, one, zero_y, low.const(bias.astype(np.int32))]
    value = low.op("QLinearConv", operands, domain="com.microsoft", channels_last=1, **attrs)
    bounds = activation_bounds(node, y)
    if bounds != (y.dtype.qmin, y.dtype.qmax):
        value = low.op("Clip", [value, *(low.const(np.asarray(b, np.uint8)) for b in bounds)])
    return str(value)
