"""BATCH_MATMUL: products of two computed matrices, x [.., M, K] · y [.., K, N] → [.., M, N]; leading axes broadcast.

Attrs adj_x, adj_y: the last two axes of that operand are exchanged, [.., K, M] and [.., N, K]. Either operand may be a
constant; a single constant matrix is FULLY_CONNECTED instead, with weights of one scale a channel.

Fixed: codes of both operands, exact sums of K products, requantised by eq. 7 with M = s_x · s_y / s_result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array, requantise
from sgs.numeric.types import DType
from sgs.ops._mac import DOUBLE_DEPTH, scale_multiplier
from sgs.ops._move import free_axes
from sgs.ops._sum import centred_codes
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FIXED,
    FLOAT,
    INFER,
    LAYOUT,
    OPERATOR,
    QUANTISE,
    REFERENCE,
    SIM,
    TILE,
    Box,
    Cost,
    Lowering,
    Moved,
    OperatorInfo,
    Part,
    QuantRule,
    Shape,
    SimRow,
    TileRow,
)

OP = "BATCH_MATMUL"
ADJOINTS = ("adj_x", "adj_y")
OPERATOR.add(OP, OperatorInfo("both", "product of two computed matrices"))
SIM.add(OP, SimRow("BatchMatMulOptions", fields={name: name for name in ADJOINTS}))
QUANTISE.add(OP, QuantRule("real"))


def _matrix_shapes(node: Node, x: Tensor, y: Tensor) -> tuple[tuple[int, int], tuple[int, int]]:
    """(M, K) and (K, N), as they are multiplied."""
    (m, k), (inner, n) = (
        tensor.shape[:-3:-1] if node.attrs[adjoint] else tensor.shape[-2:]
        for tensor, adjoint in zip((x, y), ADJOINTS, strict=True)
    )
    return (m, k), (inner, n)


def _operands(operands: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    x, y = operands[0], operands[1]
    assert x is not None and y is not None
    return x, y


@INFER.row(OP)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    """Raises ValueError for operands that are no matrices, or do not fit together."""
    x, y = _operands(operands)
    if min(len(x.shape), len(y.shape)) < 2:
        raise ValueError(f"shapes {x.shape} and {y.shape} are not both matrices")
    (rows, depth), (inner, columns) = _matrix_shapes(node, x, y)
    if depth != inner:
        raise ValueError(f"rows of {depth} values do not fit columns of {inner}")
    batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    return [((*(int(d) for d in batch), rows, columns), x.dtype)]


@LAYOUT.row(OP)
def layout(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved | None:
    """Passes what permutes the leading axes and keeps the last two the last, or exchanges them in both operands."""
    rank = len(perm)
    tail = (rank - 2, rank - 1)
    operands = graph.operands(node)
    if set(perm[-2:]) != set(tail) or any(t is None or len(t.shape) != rank for t in operands):
        return None
    attrs, inverse = dict(node.attrs), np.argsort(perm)
    if perm[-2:] != tail:
        attrs.update({name: not attrs[name] for name in ADJOINTS})
    constants = {
        index: np.ascontiguousarray(t.data.transpose(inverse))
        for index, t in enumerate(operands)
        if t is not None and t.data is not None
    }
    return Moved(attrs, ((*perm[:-2], *tail),), constants)


# -- engine ------------------------------------------------------------------------------------------------------------
def _product(low: Lowering, node: Node, values: Sequence[str]) -> str:
    """The product of two session values in the graph's layout."""
    matrices = []
    for name, value, adjoint in zip(node.inputs, values, ADJOINTS, strict=True):
        rank = len(low.graph[name or ""].shape)
        swap = (*range(rank - 2), rank - 1, rank - 2)
        matrices.append(low.op("Transpose", [value], perm=swap) if node.attrs[adjoint] else value)
    return str(low.op("MatMul", matrices))


@FLOAT.row(OP)
def lower_float(low: Lowering, node: Node) -> None:
    low.put_real(node.outputs[0], _product(low, node, [low.real(name or "") for name in node.inputs]))


@FIXED.row(OP)
def lower_fixed(low: Lowering, node: Node) -> None:
    """One binary64 product, exact below 2^22 products a sum."""
    x, y = _operands(low.graph.operands(node))
    wide = [low.cast(low.centred(name or ""), DType.FLOAT64) for name in node.inputs]
    acc = low.cast(_product(low, node, wide), DType.FLOAT32)
    result = low.graph[node.outputs[0]]
    low.put_scaled(result.name, acc, scale_multiplier(x, y, result))


@REFERENCE.row(OP)
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    """acc = Σ (q_x - z_x) (q_y - z_y) in int64; then eq. 7."""
    matrices = []
    for tensor, codes, adjoint in zip(operands, values, ADJOINTS, strict=True):
        assert tensor is not None and codes is not None
        wide = centred_codes(tensor, codes)
        matrices.append(wide.swapaxes(-1, -2) if node.attrs[adjoint] else wide)
    result = results[0]
    assert result.quant is not None
    mult = scale_multiplier(*_operands(operands), result)
    return [requantise(matrices[0] @ matrices[1], mult, int(result.quant.zero_point[0]), result.dtype)]


# -- compiler ----------------------------------------------------------------------------------------------------------
@COST.row(OP)
def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """Products of every row of x with every column of y; pairs of matrices are groups."""
    (rows, depth), (_, columns) = _matrix_shapes(node, *_operands(operands))
    return Cost.of_products(math.prod(results[0].shape[:-2]), depth, columns, rows)


def operands_are_quantised(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """Both operands are UINT8 or INT16 codes with one scale each, constants as well."""
    codes = (DType.UINT8, DType.INT16)
    return all(t is not None and t.dtype in codes and t.quant is not None and t.quant.per_tensor for t in operands)


def sums_are_exact(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """A sum has fewer than 4,194,304 products, so that it stays below 2^53."""
    (_, depth), _ = _matrix_shapes(node, *_operands(operands))
    return depth < DOUBLE_DEPTH


CONSTRAINTS.add(OP, (operands_are_quantised, sums_are_exact))


def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """Every axis: matrices, rows and columns."""
    return free_axes(node, operands, results)


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    """The rows of x and the columns of y that a box of the result takes, of the matrices that it takes."""
    x, y = _operands(operands)
    (_, depth), _ = _matrix_shapes(node, x, y)
    whole = (0, depth)
    ends = [(box[-2], whole), (whole, box[-1])]  # as they are multiplied
    reads = []
    for tensor, end, adjoint in zip((x, y), ends, ADJOINTS, strict=True):
        lead = tensor.shape[:-2]
        spans = box[len(box) - len(tensor.shape) : -2]
        batch = [(0, 1) if extent == 1 else span for extent, span in zip(lead, spans, strict=True)]
        reads.append((*batch, *(end[::-1] if node.attrs[adjoint] else end)))
    return Part(tuple(reads), dict(node.attrs))


TILE.add(OP, TileRow(_axes, _part))


# -- examples ----------------------------------------------------------------------------------------------------------
def _example(x: Shape, y: Shape | Array, adj_x: bool = False, adj_y: bool = False) -> Graph:
    build = GraphBuilder()
    a = build.input("x", x)
    b = build.input("y", y) if isinstance(y, tuple) else y
    return build.output(build(OP, a, b, output="z", adj_x=adj_x, adj_y=adj_y))


def _gram_example(shape: Shape) -> Graph:
    """The products of the rows of one tensor with each other."""
    build = GraphBuilder()
    x = build.input("x", shape)
    return build.output(build(OP, x, x, output="z", adj_x=False, adj_y=True))


def _constant_example() -> Graph:
    return _example((3, 5, 7), np.random.default_rng(0).normal(0, 1, (3, 7, 4)).astype(np.float32))


EXAMPLES.add(
    OP,
    lambda: [
        _example((5, 7), (7, 6)),
        _example((3, 7, 5), (3, 7, 6), adj_x=True),
        _example((2, 3, 5, 7), (2, 3, 6, 7), adj_y=True),
        _example((2, 1, 5, 7), (3, 7, 6)),
        _example((2, 1, 3, 5, 7), (4, 1, 6, 7), adj_y=True),
        _example((4, 7, 5), (6, 7), adj_x=True, adj_y=True),
        _gram_example((3, 5, 7)),
        _constant_example(),
    ],
)
