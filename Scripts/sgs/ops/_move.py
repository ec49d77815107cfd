"""What operators share that move or select values without computing: one float and integer meaning, codes untouched."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.registry import (
    CONSTRAINTS,
    COST,
    FIXED,
    FLOAT,
    OPERATOR,
    QUANTISE,
    REFERENCE,
    TILE,
    Cost,
    Layout,
    Lowering,
    OperatorInfo,
    QuantRule,
    TileRule,
)

CostRule = Callable[[Node, Sequence[Tensor | None], Sequence[Tensor]], Cost]
Lower = Callable[[Lowering, Node, list[str], Layout], list[str]]


def move_cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    return Cost(vector_ops=sum(r.elements for r in results))


def native_layout(graph: Graph, node: Node) -> bool:
    """`layouts` answer of operators whose lowering only knows the graph's own layout."""
    return False


def add_move(
    op: str,
    summary: str,
    lower: Lower,
    move: Callable[[Node, list[Array], Sequence[Tensor]], list[Array]],
    *,
    moved: Callable[[Node], Sequence[int]] = lambda node: range(len(node.inputs)),
    any_layout: Callable[[Graph, Node], bool] = native_layout,
    tile: TileRule = "whole",
    cost: CostRule = move_cost,
) -> None:
    """Register the rows of a moving operator that are the same for float and fixed graphs.

    `lower(low, node, values, layout)` emits it on values (codes or real numbers) of the operands in `moved`, in
    `layout`; `any_layout(graph, node)` says whether it can do so channels first. `move(node, arrays, results)` is its
    numpy meaning.
    """
    OPERATOR.add(op, OperatorInfo("both", summary))

    def emit(low: Lowering, node: Node) -> None:
        names = [node.inputs[i] for i in moved(node)]
        layout: Layout = low.prefer(names) if any_layout(low.graph, node) else "native"
        values = lower(low, node, [low.codes(name or "", layout) for name in names], layout)
        for result, value in zip(node.outputs, values, strict=True):
            low.put(result, value, layout)

    def reference(
        node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
    ) -> list[Array]:
        arrays = [values[i] for i in moved(node)]
        return move(node, [a for a in arrays if a is not None], results)

    FLOAT.add(op, emit)
    FIXED.add(op, emit)
    REFERENCE.add(op, reference)
    QUANTISE.add(op, QuantRule("move", moved=moved))
    COST.add(op, cost)
    TILE.add(op, tile)
    CONSTRAINTS.add(op, ())


def all_rank_4(graph: Graph, node: Node) -> bool:
    """`any_layout` for operators that keep rank 4: every operand and result is NHWC."""
    return all(
        len(graph[n].shape) == 4 for n in [*node.inputs, *node.outputs] if n is not None and not graph[n].is_constant
    )


TO_FIRST_AXIS = (0, 2, 3, 1)  # NHWC axis → the axis of NCHW that holds it


def axis_in(axis: int, layout: Layout) -> int:
    """Where an NHWC axis (non-negative) is found in `layout`."""
    return TO_FIRST_AXIS[axis] if layout == "first" else axis
