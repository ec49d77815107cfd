"""Operators that stand in float networks only, because they make no sense in integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.types import DType
from sgs.ops._layout import fixed
from sgs.registry import EXAMPLES, FLOAT, INFER, LAYOUT, OPERATOR, SIM, Lowering, Moved, OperatorInfo, SimRow

Infer = Callable[[Node, Sequence[Tensor | None]], list[tuple[tuple[int, ...], DType]]]


def add_float_only(
    op: str,
    summary: str,
    why: str,
    infer: Infer,
    lower: Callable[[Lowering, Node], None],
    examples: Callable[[], list[Graph]],
    sim: SimRow | None = None,
    layout: Callable[[Graph, Node, tuple[int, ...]], Moved | None] = fixed,
) -> None:
    """All rows of an operator without a fixed form; `why` it has none completes "operator X ...". `sim` is its spelling
    where TFLite has one; no Transpose passes it where `layout` does not say how."""
    OPERATOR.add(op, OperatorInfo("float", summary, no_integers=why))
    INFER.add(op, infer)
    LAYOUT.add(op, layout)
    SIM.add(op, sim or SimRow(custom=True))
    FLOAT.add(op, lower)
    EXAMPLES.add(op, examples)
