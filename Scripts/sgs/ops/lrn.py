"""LOCAL_RESPONSE_NORMALIZATION: x / (bias + alpha · Σ x²)^beta, the sum over attr `radius` channels on either side.

x [N, H, W, C], attrs radius, bias, alpha, beta. Fixed (NUMERICS eq. 14): the sum of squares is exact, the power is made
of square roots and products in binary64, which takes a beta that is a multiple of a quarter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array, quantise
from sgs.numeric.types import DType
from sgs.ops._move import broadcast_part
from sgs.ops._sum import centred_codes
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FIXED,
    FIXED_EXPAND,
    FLOAT,
    IMPORT_ONNX,
    INFER,
    LAYOUT,
    ONNX_EXAMPLES,
    OPERATOR,
    QUANTISE,
    REFERENCE,
    SIM,
    TILE,
    Cost,
    ImportContext,
    Lowering,
    Moved,
    OnnxCase,
    OperatorInfo,
    QuantRule,
    Shape,
    SimRow,
    TileRow,
)

OP = "LOCAL_RESPONSE_NORMALIZATION"
ATTRS = ("radius", "bias", "alpha", "beta")
OPERATOR.add(OP, OperatorInfo("both", "a value over a power of the squares of the channels around it"))
SIM.add(OP, SimRow("LocalResponseNormalizationOptions", fields={name: name for name in ATTRS}))
QUANTISE.add(OP, QuantRule("real"))


@INFER.row(OP)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    x = operands[0]
    assert x is not None
    if len(x.shape) != 4 or node.attrs["radius"] < 0:
        raise ValueError(f"channels within {node.attrs['radius']} of shape {x.shape}")
    return [(x.shape, x.dtype)]


@LAYOUT.row(OP)
def layout(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved | None:
    """Passes what leaves the channels last."""
    return Moved(dict(node.attrs), (tuple(perm),)) if perm[-1] == len(perm) - 1 else None


@FLOAT.row(OP)
def lower_float(low: Lowering, node: Node) -> None:
    attrs = node.attrs
    size = 2 * attrs["radius"] + 1
    numbers = {"alpha": attrs["alpha"] * size, "beta": attrs["beta"], "bias": attrs["bias"]}
    y = low.op("LRN", [low.real(node.inputs[0] or "", "first")], size=size, **numbers)
    low.put_real(node.outputs[0], y, "first")


# -- fixed -------------------------------------------------------------------------------------------------------------
def _divides_by_roots(node: Node) -> bool:
    bias, alpha, beta = (float(node.attrs[name]) for name in ATTRS[1:])
    return bias > 0 and alpha >= 0 and beta >= 0 and (4 * beta).is_integer()


@FIXED_EXPAND.row(OP)
def check_power(graph: Graph, node: Node) -> None:
    """Raises ValueError for a power that is not made of square roots."""
    if not _divides_by_roots(node):
        told = ", ".join(f"{name} {node.attrs[name]:g}" for name in ATTRS[1:])
        raise ValueError(f"{told}: bias has to be positive, alpha not negative, beta a multiple of 0.25")


def _band(node: Node, channels: int) -> Array:
    """1 where an output channel counts an input channel, float64 [C, C]."""
    number = np.arange(channels)
    return np.asarray(np.abs(number - number[:, None]) <= node.attrs["radius"], np.float64)


@FIXED.row(OP)
def lower_fixed(low: Lowering, node: Node) -> None:
    x, y = low.graph[node.inputs[0] or ""], low.graph[node.outputs[0]]
    assert x.quant is not None
    scale = np.float64(x.quant.scale[0])
    bias, alpha, beta = (float(node.attrs[name]) for name in ATTRS[1:])

    def number(value: float) -> str:
        return low.const(np.asarray(value, np.float64))

    codes = low.cast(low.centred(x.name), DType.FLOAT64)
    total = low.op("MatMul", [low.op("Mul", [codes, codes]), low.const(_band(node, x.shape[3]))])
    base = low.op("Add", [low.op("Mul", [total, number(alpha * (scale * scale))]), number(bias)])
    factors = [base] * int(beta)
    if beta % 1:
        root = low.op("Sqrt", [base])
        factors += [root] if beta % 1 >= 0.5 else []
        factors += [low.op("Sqrt", [root])] if beta % 0.5 else []
    divisor = reduce(lambda a, b: low.op("Mul", [a, b]), factors, number(1))
    low.put_real(y.name, low.cast(low.op("Mul", [codes, low.op("Div", [number(scale), divisor])]), DType.FLOAT32))


@REFERENCE.row(OP)
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    """Eq. 14."""
    x, codes, y, radius = operands[0], values[0], results[0], node.attrs["radius"]
    assert x is not None and x.quant is not None and codes is not None and y.quant is not None
    centred, scale, beta = centred_codes(x, codes), np.float64(x.quant.scale[0]), float(node.attrs["beta"])
    padded = np.pad(centred * centred, [(0, 0)] * 3 + [(radius, radius)])
    total = sum(padded[..., k : k + x.shape[3]] for k in range(2 * radius + 1))
    base = np.asarray(total, np.float64) * (node.attrs["alpha"] * (scale * scale)) + node.attrs["bias"]
    quarters = [np.sqrt(base)] * (beta % 1 >= 0.5) + [np.sqrt(np.sqrt(base))] * (beta % 0.5 > 0)
    divisor = reduce(np.multiply, [base] * int(beta) + quarters, np.ones_like(base))
    return [quantise((centred * (scale / divisor)).astype(np.float32), y.quant, y.dtype)]


@COST.row(OP)
def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """Ten operations per element: its square, a running sum, the power, a quotient and the requantisation."""
    return Cost(vector_ops=10 * results[0].elements)


def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """All but the channels."""
    return dict.fromkeys(range(3), 1)


TILE.add(OP, TileRow(_axes, broadcast_part))


def power_is_of_roots(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """beta is a multiple of 0.25, bias is positive and alpha not negative."""
    return _divides_by_roots(node)


CONSTRAINTS.add(OP, (power_is_of_roots,))


# -- ONNX import -------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("LRN")
def import_lrn(ctx: ImportContext) -> list[Tensor]:
    """Channels are axis 1. ONNX divides alpha by the number of channels."""
    x, size = ctx.inputs[0], int(ctx.attrs["size"])
    assert x is not None
    if size % 2 == 0 or len(x.shape) < 2:
        raise ctx.refuse(f"a window of {size} channels of shape {x.shape}", "windows of an odd number are supported")
    attrs = {name: float(ctx.attrs.get(name, value)) for name, value in (("bias", 1), ("beta", 0.75))}
    alpha = float(np.float32(ctx.attrs.get("alpha", 1e-4) / size))
    flat = (*x.shape[:2], math.prod(x.shape[2:]), 1)
    picture = x if len(x.shape) == 4 else ctx.emit("RESHAPE", x, shape=flat)
    y = ctx.nchw(ctx.emit(OP, ctx.nhwc(picture), radius=size // 2, alpha=alpha, **attrs))
    return [y if len(x.shape) == 4 else ctx.emit("RESHAPE", y, shape=x.shape)]


ONNX_EXAMPLES.add(
    "LRN",
    [
        OnnxCase("LRN", {"x": (1, 7, 5, 6)}, attrs={"size": 5, "alpha": 0.5}, low=-3, high=3),
        OnnxCase("LRN", {"x": (2, 7, 5, 6)}, attrs={"size": 3, "beta": 0.6, "bias": 2.0}, opset=9),
    ],
)


def _example(radius: int, beta: float) -> Graph:
    build = GraphBuilder()
    x = build.input("x", (2, 5, 7, 6))
    return build.output(build(OP, x, output="y", radius=radius, bias=0.5, alpha=0.25, beta=beta))


EXAMPLES.add(OP, lambda: [_example(2, 0.75), _example(1, 0.5), _example(7, 1.25), _example(0, 1.0)])
