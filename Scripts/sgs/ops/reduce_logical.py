"""REDUCE_ANY and REDUCE_ALL: whether some or all truth values along attr `axes` hold; see ops/_reduce.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgs.ir.graph import Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._move import add_move, all_rank_4
from sgs.ops._reduce import REDUCTION, add_reduction, axes_in, cost, example, reduced
from sgs.registry import EXAMPLES, Layout, Lowering

ANY, ALL = OPS = ("REDUCE_ANY", "REDUCE_ALL")


def _lower(low: Lowering, node: Node, values: list[str], layout: Layout) -> list[str]:
    onnx_op = "ReduceMax" if node.op == ANY else "ReduceMin"
    value = low.cast(values[0], DType.UINT8)
    return [low.cast(reduced(low, onnx_op, value, axes_in(node, layout), node.attrs["keep_dims"]), DType.BOOL)]


def _move(node: Node, arrays: list[Array], results: Sequence[Tensor]) -> list[Array]:
    holds = np.any if node.op == ANY else np.all
    return [np.asarray(holds(arrays[0], axis=node.attrs["axes"], keepdims=node.attrs["keep_dims"]))]


for _op, _summary in ((ANY, "whether some value along axes holds"), (ALL, "whether all values along axes hold")):
    add_move(_op, _summary, _lower, _move, any_layout=all_rank_4, tile=REDUCTION, cost=cost)
    add_reduction(_op, "bool")
    EXAMPLES.add(
        _op,
        lambda op=_op: [  # type: ignore[misc]
            example(op, (1, 5, 7, 6), (1, 3), True, DType.BOOL),
            example(op, (3, 11), (1,), False, DType.BOOL),
            example(op, (2, 37, 29, 3), (2, 3), False, DType.BOOL),
        ],
    )
