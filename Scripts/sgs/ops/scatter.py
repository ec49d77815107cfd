"""SCATTER_ND_UPDATE, _ADD, _MUL, _MAX and _MIN: a tensor with updates at places of it.

x [D1 .. DK, inner..], indices INT32 [.., K], updates [.., inner..] → x where every update has replaced what was at its
place, or has been combined with it, one update after another. An index lies in [-D, D), negative ones counting from
the end. Places of SCATTER_ND_UPDATE differ. TFLite has none of these.

Fixed: UPDATE, MAX and MIN move and compare codes. ADD and MUL take x and updates by eq. 1, every update is one binary32
operation, the result is quantised by eq. 4. Sums and products of plain integers wrap around.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._elementwise import in_type, numbers
from sgs.ops._layout import fixed
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FIXED,
    FLOAT,
    HOST,
    INFER,
    LAYOUT,
    OPERATOR,
    QUANTISE,
    REFERENCE,
    SIM,
    TILE,
    Box,
    Cost,
    HostRow,
    Lowering,
    OperatorInfo,
    Part,
    QuantRule,
    Shape,
    SimRow,
    TileRow,
    whole_box,
)

UPDATE = "SCATTER_ND_UPDATE"
_COMBINED: dict[str, tuple[str, np.ufunc]] = {  # our name → attribute of ONNX, function
    "SCATTER_ND_ADD": ("add", np.add),
    "SCATTER_ND_MUL": ("mul", np.multiply),
    "SCATTER_ND_MAX": ("max", np.maximum),
    "SCATTER_ND_MIN": ("min", np.minimum),
}
_MOVING = (UPDATE, "SCATTER_ND_MAX", "SCATTER_ND_MIN")
OPS = (UPDATE, *_COMBINED)


@INFER.row(*OPS)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    x, indices, updates = operands
    assert x is not None and indices is not None and updates is not None
    if not indices.shape or not 0 < indices.shape[-1] <= len(x.shape):
        raise ValueError(f"indices of shape {indices.shape} name no places in shape {x.shape}")
    if updates.shape != (*indices.shape[:-1], *x.shape[indices.shape[-1] :]):
        raise ValueError(f"updates of shape {updates.shape} for indices {indices.shape} into shape {x.shape}")
    return [(x.shape, x.dtype)]


# -- meaning -----------------------------------------------------------------------------------------------------------
@FLOAT.row(*OPS)
def lower_float(low: Lowering, node: Node) -> None:
    reduction = _COMBINED[node.op][0] if node.op in _COMBINED else "none"
    x, indices, updates = (low.codes(name or "") for name in node.inputs)
    low.put(node.outputs[0], low.op("ScatterND", [x, low.cast(indices, DType.INT64), updates], reduction=reduction))


FIXED.add(UPDATE, lower_float)


def _make(graph: Graph, node: Node) -> Callable[[list[Array], list[Array]], None]:
    """Update after update; onnxruntime's threads take them at the same time."""
    result, target, _, source = (graph[name or ""] for name in (node.outputs[0], *node.inputs))
    function, moving = _COMBINED[node.op][1], node.op in _MOVING

    def run(inputs: list[Array], outputs: list[Array]) -> None:
        x, indices, updates = inputs
        x, updates = (a if moving else numbers(t, a) for t, a in ((target, x), (source, updates)))
        total = x.copy()
        with np.errstate(all="ignore"):
            function.at(total, tuple(np.moveaxis(indices, -1, 0)), updates)
        np.copyto(outputs[0], total if moving else in_type(result, total))

    return run


for _op in _COMBINED:
    HOST.add(_op, HostRow(_make))


@REFERENCE.row(*OPS)
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    x, indices, updates = values
    assert x is not None and indices is not None and updates is not None
    assert operands[0] is not None and operands[2] is not None
    moving = node.op in _MOVING
    total = np.array(x if moving else numbers(operands[0], x))
    more = updates if moving else numbers(operands[2], updates)
    for at in np.ndindex(*indices.shape[:-1]):
        place = tuple(indices[at])
        with np.errstate(all="ignore"):
            total[place] = _COMBINED[node.op][1](total[place], more[at]) if node.op in _COMBINED else more[at]
    return [total if moving else in_type(results[0], total)]


# -- compiler ----------------------------------------------------------------------------------------------------------
def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """One operation per element of the result, and one per element of the updates."""
    updates = operands[2]
    assert updates is not None
    return Cost(vector_ops=results[0].elements + updates.elements)


def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """Axes behind those that the indices are for."""
    indices = operands[1]
    assert indices is not None
    return dict.fromkeys(range(indices.shape[-1], len(results[0].shape)), 1)


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    indices = operands[1]
    assert indices is not None
    whole = whole_box(indices.shape)
    return Part((box, whole, (*whole[:-1], *box[indices.shape[-1] :])), dict(node.attrs))


for _op in OPS:
    _summary = "replaced by" if _op == UPDATE else f"combined ({_COMBINED[_op][0]}) with"
    OPERATOR.add(_op, OperatorInfo("both", f"values at places of a tensor {_summary} others"))
    LAYOUT.add(_op, fixed)
    SIM.add(_op, SimRow(custom=True))
    QUANTISE.add(_op, QuantRule("move", moved=lambda node: (0, 2)) if _op in _MOVING else QuantRule("real"))
    COST.add(_op, cost)
    TILE.add(_op, TileRow(_axes, _part))
    CONSTRAINTS.add(_op, ())


# -- examples ----------------------------------------------------------------------------------------------------------
def _constant(op: str, shape: Shape, indices: list[list[int]]) -> Graph:
    build = GraphBuilder()
    places = np.array(indices, np.int32)
    updates = build.input("u", (len(places), *shape[places.shape[-1] :]))
    return build.output(build(op, build.input("x", shape), places, updates, output="y"))


def _computed(op: str) -> Graph:
    """Updates for the 3 of 7 rows where another tensor is largest."""
    build = GraphBuilder()
    _, best = build.node("TOPK_V2", [build.input("s", (7,))], k=3)
    places = build("RESHAPE", best, shape=(3, 1))
    x, updates = build.input("x", (7, 5, 6)), build.input("u", (3, 5, 6))
    return build.output(build(op, x, places, updates, output="y"))


def _examples(op: str) -> list[Graph]:
    twice = [] if op == UPDATE else [_constant(op, (5, 37, 6), [[3], [0], [3]])]
    return [
        _constant(op, (1, 5, 7, 6), [[0, 3], [0, -1], [0, 0]]),
        _constant(op, (5, 7), [[4, 6], [0, 2]]),
        _computed(op),
        *twice,
    ]


for _op in OPS:
    EXAMPLES.add(_op, lambda op=_op: _examples(op))  # type: ignore[misc]
