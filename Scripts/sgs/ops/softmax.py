"""SOFTMAX over the last axis: exp(beta·x) / Σ exp(beta·x), attr `beta`.

Fixed, three micro-operators (docs/NUMERICS.md §5):

  SOFTMAX_SHIFT  INT16 → UINT16   d = clamp(rint(f32(max(q) - q) · M)), M = s_x · beta / s_d in binary32; attr `beta`
  TABLE          UINT16 → UINT16  e = 65535 · exp(-d · s_d) by interpolation (eq. 9-11)
  SOFTMAX_NORM   UINT16 → codes   q = clamp(rint(f32(e) · M) + z_y), M = f32(1 / (max(Σ e, 1) · s_y)) by binary64

where max and Σ are exact and go over the last axis. s_d = min(s_x · beta, 12/65535): beyond 12, e is 0 as a 16-bit
number, so the table spends its entries on what counts; d is exact while 65535 codes of x span no more than that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array, QuantParams, activation_params
from sgs.numeric.table import build_table
from sgs.numeric.types import DType
from sgs.ops._mac import EXACT_BINARY32
from sgs.ops._move import broadcast_part
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FADES,
    FIXED,
    FIXED_EXPAND,
    FLOAT,
    IMPORT_ONNX,
    INFER,
    LAYOUT,
    ONNX_EXAMPLES,
    OPERATOR,
    QUANTISE,
    RANGE,
    REFERENCE,
    SIM,
    TILE,
    Cost,
    ImportContext,
    Layout,
    Lowering,
    Moved,
    OnnxCase,
    OperatorInfo,
    QuantRule,
    SimRow,
    TileRow,
)

OP, SHIFT, NORM = "SOFTMAX", "SOFTMAX_SHIFT", "SOFTMAX_NORM"
REACH = 12.0  # 65535 · exp(-12) rounds to 0

OPERATOR.add(OP, OperatorInfo("float", "softmax over the last axis"))
OPERATOR.add(SHIFT, OperatorInfo("fixed", "first step of softmax: how far a value is below its row's largest"))
OPERATOR.add(NORM, OperatorInfo("fixed", "last step of softmax: a value's share in its row"))
SIM.add(OP, SimRow("SoftmaxOptions", fields={"beta": "beta"}))
SIM.add(SHIFT, SimRow(custom=True))
SIM.add(NORM, SimRow(custom=True))


@INFER.row(OP, SHIFT, NORM)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    x = operands[0]
    assert x is not None
    if not x.shape:
        raise ValueError("softmax of a scalar")
    kind = {OP: x.dtype, SHIFT: DType.UINT16, NORM: DType.INT16}
    return [(x.shape, kind[node.op])]


@LAYOUT.row(OP)
def layout(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved | None:
    """Passes what leaves the last axis last."""
    return Moved(dict(node.attrs), (tuple(perm),)) if perm[-1] == len(perm) - 1 else None


def _place(low: Lowering, name: str) -> tuple[Layout, int]:
    """The layout to work in, and where it holds the last axis."""
    layout = low.prefer([name])
    return layout, 1 if layout == "first" else -1


@FLOAT.row(OP)
def lower_float(low: Lowering, node: Node) -> None:
    x = node.inputs[0] or ""
    layout, axis = _place(low, x)
    value = low.real(x, layout)
    if node.attrs["beta"] != 1:
        value = low.op("Mul", [value, low.const(np.asarray(node.attrs["beta"], np.float32))])
    low.put_real(node.outputs[0], low.op("Softmax", [value], axis=axis), layout)


# -- quantisation ------------------------------------------------------------------------------------------------------
QUANTISE.add(OP, QuantRule("real"))
RANGE.add(OP, (0.0, 1.0))


@FADES.row(OP, SHIFT)
def fades(node: Node) -> float:
    beta = float(node.attrs["beta"])
    return REACH / beta if beta > 0 else 0.0


@FIXED_EXPAND.row(OP)
def expand_softmax(graph: Graph, node: Node) -> None:
    """Replace a SOFTMAX of codes by its three micro-operators. Raises ValueError for a beta that is not positive."""
    x, y, beta = graph[node.inputs[0] or ""], graph[node.outputs[0]], float(node.attrs["beta"])
    assert x.quant is not None
    if beta <= 0:
        raise ValueError(f"{node.label} has beta {beta}")
    zero = np.zeros(1, np.int32)
    below_params = QuantParams(np.array([min(float(x.quant.scale[0]) * beta, REACH / 65535)]), zero)
    power_params = QuantParams(np.array([1 / 65535]), zero)
    table = build_table(lambda d: np.exp(-d), below_params, DType.UINT16, power_params, DType.UINT16)
    below = graph.add_tensor(f"{y.name}/below", x.shape, DType.UINT16, quant=below_params)
    power = graph.add_tensor(f"{y.name}/exp", x.shape, DType.UINT16, quant=power_params)
    entries = graph.add_constant(f"{y.name}/table", table)
    position = next(i for i, other in enumerate(graph.nodes) if other is node)
    graph.nodes[position : position + 1] = [
        Node(SHIFT, [x.name], [below.name], {"beta": beta}, node.name),
        Node("TABLE", [below.name, entries.name], [power.name], {"function": "exp(-d)"}, node.name),
        Node(NORM, [power.name], [y.name], {}, node.name),
    ]


# -- SOFTMAX_SHIFT -----------------------------------------------------------------------------------------------------
def _shift_multiplier(node: Node, x: Tensor, y: Tensor) -> Array:
    assert x.quant is not None and y.quant is not None
    return np.asarray(np.float64(x.quant.scale[0]) * node.attrs["beta"] / np.float64(y.quant.scale[0]), np.float32)


@FIXED.row(SHIFT)
def lower_shift(low: Lowering, node: Node) -> None:
    x, y = low.graph[node.inputs[0] or ""], low.graph[node.outputs[0]]
    layout, axis = _place(low, x.name)
    value = low.centred(x.name, layout)
    largest = low.op("ReduceMax", [value, low.const(np.array([axis], np.int64))], keepdims=1)
    scaled = low.op("Mul", [low.op("Sub", [largest, value]), low.const(_shift_multiplier(node, x, y))])
    limits = [low.const(np.asarray(v, np.float32)) for v in (0, 65535)]
    low.put(y.name, low.cast(low.op("Clip", [low.op("Round", [scaled]), *limits]), DType.UINT16), layout)


@REFERENCE.row(SHIFT)
def reference_shift(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    codes, x = values[0], operands[0]
    assert codes is not None and x is not None
    wide = codes.astype(np.int64)
    scaled = (wide.max(-1, keepdims=True) - wide).astype(np.float32) * _shift_multiplier(node, x, results[0])
    return [np.clip(np.rint(scaled), 0, 65535).astype(np.uint16)]


# -- SOFTMAX_NORM ------------------------------------------------------------------------------------------------------
@FIXED.row(NORM)
def lower_norm(low: Lowering, node: Node) -> None:
    x, y = low.graph[node.inputs[0] or ""], low.graph[node.outputs[0]]
    assert y.quant is not None
    layout, axis = _place(low, x.name)
    value = low.cast(low.codes(x.name, layout), DType.FLOAT32)
    terms = value if x.shape[-1] * 65535 < EXACT_BINARY32 else low.cast(value, DType.FLOAT64)
    total = low.op("ReduceSum", [terms, low.const(np.array([axis], np.int64))], keepdims=1)
    if terms == value:
        total = low.cast(total, DType.FLOAT64)
    one = low.const(np.asarray(1, np.float64))
    total = low.op("Mul", [low.op("Max", [total, one]), low.const(np.asarray(y.quant.scale[0], np.float64))])
    mult = low.op("Div", [one, total])
    scaled = low.op("Mul", [value, low.cast(mult, DType.FLOAT32)])
    low.put_scaled(y.name, scaled, np.asarray(1, np.float32), layout)


@REFERENCE.row(NORM)
def reference_norm(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    codes, y = values[0], results[0]
    assert codes is not None and y.quant is not None
    total = np.maximum(codes.astype(np.int64).sum(-1, keepdims=True), 1)
    mult = (1 / (total.astype(np.float64) * np.float64(y.quant.scale[0]))).astype(np.float32)
    shares = np.rint(codes.astype(np.float32) * mult).astype(np.float64) + int(y.quant.zero_point[0])
    return [np.clip(shares, y.dtype.qmin, y.dtype.qmax).astype(y.dtype.numpy)]


# -- compiler ----------------------------------------------------------------------------------------------------------
@COST.row(SHIFT, NORM)
def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """Three operations per element: its share in a reduction over the row, and two steps."""
    return Cost(vector_ops=results[0].elements * 3)


def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """All but the last axis: a row is one whole."""
    return dict.fromkeys(range(len(results[0].shape) - 1), 1)


for _op in (SHIFT, NORM):
    TILE.add(_op, TileRow(_axes, broadcast_part))
    CONSTRAINTS.add(_op, ())


# -- ONNX import -------------------------------------------------------------------------------------------------------
def softmax_axes(ctx: ImportContext) -> tuple[Tensor, tuple[int, ...]]:
    """(operand, the axes that one softmax goes over): before operator set 13 all from attribute `axis` on but those of
    extent 1, which make no difference."""
    x = ctx.inputs[0]
    assert x is not None
    if not x.shape or not x.dtype.is_float:
        raise ctx.refuse(f"a softmax of {x.dtype.name} numbers of shape {x.shape}")
    rank = len(x.shape)
    axis = int(ctx.attrs.get("axis", -1 if ctx.opset >= 13 else 1)) % rank
    if ctx.opset >= 13:
        return x, (axis,)
    return x, tuple(a for a in range(axis, rank) if x.shape[a] != 1) or (rank - 1,)


@IMPORT_ONNX.row("Softmax")
def import_softmax(ctx: ImportContext) -> list[Tensor]:
    """The axis is brought to the end by a TRANSPOSE. Before operator set 13 all axes from `axis` on are one."""
    x, axes = softmax_axes(ctx)
    rank, axis = len(x.shape), axes[0]
    if len(axes) > 1:
        flat = (int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:])))
        y = ctx.emit(OP, ctx.emit("RESHAPE", x, shape=flat), beta=1.0)
        return [ctx.emit("RESHAPE", y, shape=x.shape)]
    if axis == rank - 1:
        return [ctx.emit(OP, x, beta=1.0)]
    perm = (*(a for a in range(rank) if a != axis), axis)
    y = ctx.emit(OP, ctx.emit("TRANSPOSE", x, perm=perm), beta=1.0)
    return [ctx.emit("TRANSPOSE", y, perm=tuple(int(a) for a in np.argsort(perm)))]


ONNX_EXAMPLES.add(
    "Softmax",
    [
        OnnxCase("Softmax", {"x": (3, 11)}, low=-8, high=8),
        OnnxCase("Softmax", {"x": (1, 5, 7, 6)}, attrs={"axis": 1}, low=-8, high=8),
        OnnxCase("Softmax", {"x": (1, 5, 7, 6)}, attrs={"axis": -2}, low=-8, high=8),
        OnnxCase("Softmax", {"x": (2, 5, 7)}, low=-8, high=8, opset=11),
        OnnxCase("Softmax", {"x": (2, 5, 1, 1)}, low=-8, high=8, opset=11),
        OnnxCase("Softmax", {"x": (2, 5, 7)}, attrs={"axis": 2}, low=-8, high=8, opset=9),
    ],
)


def _example(shape: tuple[int, ...], beta: float = 1.0) -> Graph:
    build = GraphBuilder()
    return build.output(build(OP, build.input("x", shape), output="y", beta=beta))


EXAMPLES.add(OP, lambda: [_example((3, 11)), _example((1, 5, 7, 6), 0.5), _example((2, 301))])


def _shift_example(shape: tuple[int, ...], reach: float) -> Graph:
    build = GraphBuilder()
    x = build.input("x", shape, DType.INT16)
    x.quant = activation_params(-reach, reach, DType.INT16)
    y = build(SHIFT, x, output="y", beta=1.0)
    y.quant = QuantParams(np.array([min(float(x.quant.scale[0]), REACH / 65535)]), np.zeros(1, np.int32))
    return build.output(y)


def _norm_example(shape: tuple[int, ...], kind: DType) -> Graph:
    build = GraphBuilder()
    x = build.input("x", shape, DType.UINT16)
    x.quant = QuantParams(np.array([1 / 65535]), np.zeros(1, np.int32))
    y = build(NORM, x, output="y")
    y.dtype, y.quant = kind, activation_params(0, 1, kind)
    return build.output(y)


EXAMPLES.add(SHIFT, lambda: [_shift_example((1, 5, 7, 6), 3.0), _shift_example((3, 11), 40.0)])
EXAMPLES.add(NORM, lambda: [_norm_example((1, 5, 7, 6), DType.INT16), _norm_example((2, 301), DType.UINT8)])
