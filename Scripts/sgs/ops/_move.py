"""What operators share that move or select values without computing: one float and integer meaning, codes untouched."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sgs.ir.graph import Graph, Node, Tensor, strides_of
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.registry import (
    CONSTRAINTS,
    COST,
    FIXED,
    FLOAT,
    MOVE,
    OPERATOR,
    QUANTISE,
    REFERENCE,
    TILE,
    Box,
    Copy,
    Cost,
    Layout,
    Lowering,
    MoveRow,
    OperatorInfo,
    Part,
    QuantRule,
    TileRow,
)

CostRule = Callable[[Node, Sequence[Tensor | None], Sequence[Tensor]], Cost]
Lower = Callable[[Lowering, Node, list[str], Layout], list[str]]


def moved_by(node: Node) -> Sequence[int]:
    """Positions of the operands whose values a node's results hold; none for an operator that is no moving one."""
    rule = QUANTISE.get(node.op)
    return () if rule is None or rule.moved is None else rule.moved(node)


def move_cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """One operation per element of the results."""
    return Cost(vector_ops=sum(r.elements for r in results))


def no_work(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """None: its bytes are transfers'."""
    return Cost()


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
    apart: tuple[int, ...] = (),
    any_layout: Callable[[Graph, Node], bool] = native_layout,
    tile: TileRow | None = None,
    copies: Callable[[Node, Sequence[Tensor | None], Sequence[Tensor]], Sequence[Copy]] | None = None,
    alias: bool = False,
    cost: CostRule | None = None,
) -> None:
    """Register the rows of a moving operator that are the same for float and fixed graphs.

    `lower(low, node, values, layout)` emits it on values (codes or real numbers) of all operands, in `layout`;
    `any_layout(graph, node)` says whether it can do so channels first. `move(node, arrays, results)` is its numpy
    meaning. `moved` and `apart` are as in `QuantRule`. `copies(node, operands, results)` is the DMA engine's; an
    operator without them is computed, piece by piece as `tile` says.
    """
    OPERATOR.add(op, OperatorInfo("both", summary))

    def emit(low: Lowering, node: Node) -> None:
        layout: Layout = low.prefer(node.inputs) if any_layout(low.graph, node) else "native"
        values = lower(low, node, [low.codes(name or "", layout) for name in node.inputs], layout)
        for result, value in zip(node.outputs, values, strict=True):
            low.put(result, value, layout)

    def reference(
        node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
    ) -> list[Array]:
        return move(node, [a for a in values if a is not None], results)

    FLOAT.add(op, emit)
    FIXED.add(op, emit)
    REFERENCE.add(op, reference)
    QUANTISE.add(op, QuantRule("move", moved=moved, apart=apart))
    COST.add(op, cost or (move_cost if copies is None else no_work))
    if tile is not None:
        TILE.add(op, tile)
    if copies is not None:
        MOVE.add(op, MoveRow(copies, alias))
    CONSTRAINTS.add(op, ())


def comparable(low: Lowering, value: str, tensor: Tensor, *, wide: bool = False) -> str:
    """Codes of a tensor in a type that onnxruntime's comparing kernels take: binary32, exact, for those of 16 bits (and
    of 8 bits, where `wide` says so)."""
    known = {DType.FLOAT32, DType.INT32} if wide else {DType.FLOAT32, DType.INT32, DType.UINT8, DType.INT8}
    return value if tensor.dtype in known else low.cast(value, DType.FLOAT32)


def box_copy(
    index: int,
    shape: Sequence[int],
    begins: Sequence[int],
    result: int,
    target: Sequence[int],
    into: Sequence[int],
    extents: Sequence[int],
) -> Copy:
    """Operand `index` of `shape` from `begins` to result number `result` of shape `target` at `into`, `extents` big."""
    source, destination = strides_of(shape), strides_of(target)
    offsets = [
        sum(b * s for b, s in zip(at, strides, strict=True)) for at, strides in ((begins, source), (into, destination))
    ]
    return Copy(index, result, tuple(extents), (offsets[0], source), (offsets[1], destination))


def free_axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """Every axis, anywhere."""
    return dict.fromkeys(range(len(results[0].shape)), 1)


def border_grain(extent: int, first: int, last: int) -> int:
    """The least number such that of an axis cut at multiples of it the first piece has at least `first` entries and
    the last one `last`; there is one when `extent` is no less than either."""
    return next(grain for grain in range(first, extent + 1) if (extent - 1) % grain + 1 >= last)


def broadcast_part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    """Operands of an elementwise operator: the same box, but along axes where they have one entry."""

    def read(tensor: Tensor) -> Box:
        spans = box[len(box) - len(tensor.shape) :]
        return tuple((0, 1) if extent == 1 else span for extent, span in zip(tensor.shape, spans, strict=True))

    return Part(tuple(None if t is None else read(t) for t in operands), dict(node.attrs))


ELEMENTWISE = TileRow(free_axes, broadcast_part, elementwise=True)


def all_rank_4(graph: Graph, node: Node) -> bool:
    """`any_layout` for operators that keep rank 4: every operand and result is NHWC."""
    return all(
        len(graph[n].shape) == 4 for n in [*node.inputs, *node.outputs] if n is not None and not graph[n].is_constant
    )


TO_FIRST_AXIS = (0, 2, 3, 1)  # NHWC axis → the axis of NCHW that holds it


def axis_in(axis: int, layout: Layout) -> int:
    """Where an NHWC axis (non-negative) is found in `layout`."""
    return TO_FIRST_AXIS[axis] if layout == "first" else axis
