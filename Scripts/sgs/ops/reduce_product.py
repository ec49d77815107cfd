"""REDUCE_PROD: product over attr `axes`; see ops/_reduce.py.

Fixed: the operand by eq. 1, one binary32 product after another in row-major order of what is reduced, the result by
eq. 4, where ∞ · 0 counts as 0. A product of plain integers wraps around.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.ops._elementwise import in_type, numbers
from sgs.ops._reduce import REDUCTION, add_examples, add_reduction, axes_in, cost, reduced
from sgs.registry import (
    COST,
    FLOAT,
    HOST,
    OPERATOR,
    QUANTISE,
    REFERENCE,
    TILE,
    HostRow,
    Lowering,
    OperatorInfo,
    QuantRule,
)

OP = "REDUCE_PROD"

OPERATOR.add(OP, OperatorInfo("both", "product over axes"))
QUANTISE.add(OP, QuantRule("real"))
COST.add(OP, cost)
TILE.add(OP, REDUCTION)
add_reduction(OP)
add_examples(OP, many=False)


@FLOAT.row(OP)
def lower_float(low: Lowering, node: Node) -> None:
    value = low.real(node.inputs[0] or "")
    low.put_real(node.outputs[0], reduced(low, "ReduceProd", value, axes_in(node, "native"), node.attrs["keep_dims"]))


def _product(values: Array, axes: Sequence[int], result: Tensor) -> Array:
    """The product of real numbers, or integers, one entry of the reduced axes after the other, as codes."""
    entries = np.moveaxis(values, axes, range(len(axes)))
    entries = entries.reshape(-1, *entries.shape[len(axes) :])
    total = np.array(entries[0])  # an array where all axes are reduced, too
    with np.errstate(all="ignore"):
        for entry in entries[1:]:
            np.multiply(total, entry, out=total)
    total = total.reshape(result.shape)
    return in_type(result, total)


def _make(graph: Graph, node: Node) -> Callable[[list[Array], list[Array]], None]:
    x, y, axes = graph[node.inputs[0] or ""], graph[node.outputs[0]], node.attrs["axes"]

    def run(inputs: list[Array], outputs: list[Array]) -> None:
        np.copyto(outputs[0], _product(numbers(x, inputs[0]), axes, y))

    return run


HOST.add(OP, HostRow(_make))


@REFERENCE.row(OP)
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    codes, x, y, axes = values[0], operands[0], results[0], node.attrs["axes"]
    assert codes is not None and x is not None
    factors = numbers(x, codes)
    total = np.ones([d for a, d in enumerate(x.shape) if a not in axes], factors.dtype)
    with np.errstate(all="ignore"):
        for index in np.ndindex(*(x.shape[a] for a in axes)):
            place = iter(index)
            total = total * factors[tuple(next(place) if a in axes else slice(None) for a in range(factors.ndim))]
    total = np.asarray(total).reshape(y.shape)
    return [in_type(y, total)]
