"""DETECTION_UNPACK: what a detector says of every place, taken apart: packed [1, N, K] → boxes, scores and classes.

Results: boxes [1, N, 4], columns `box` to `box` + 3 as they are, unless `box` is -1; scores [1, N]; classes INT32
[1, N]. Attrs: box, confidence (column, or -1 for none), first_class (column), classes (how many), logistic (confidence
and class scores are logits).

    score = confidence · max(class scores)
    class = where that largest one is, the first of equals, counted from `first_class` on

both of logits, where they are such, of which the logistic function is taken behind the maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.types import DType
from sgs.ops._expansion import add_expansion
from sgs.registry import Emit, Shape

OP = "DETECTION_UNPACK"


def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    """Raises ValueError for columns that the operand does not have."""
    x, attrs = operands[0], node.attrs
    assert x is not None
    if len(x.shape) != 3 or x.shape[0] != 1:
        raise ValueError(f"{OP} takes [1, N, K], not {list(x.shape)}")
    spans = [(attrs["box"], 4), (attrs["confidence"], 1)]
    wanted = [(attrs["first_class"], attrs["classes"]), *(span for span in spans if span[0] != -1)]
    for first, count in wanted:
        if first < 0 or count < 1 or first + count > x.shape[2]:
            raise ValueError(f"{count} columns from {first} on are not in {list(x.shape)}")
    places = x.shape[:2]
    boxes = [] if attrs["box"] == -1 else [((*places, 4), x.dtype)]
    return [*boxes, (places, x.dtype), (places, DType.INT32)]


def expand(emit: Emit, node: Node, operands: Sequence[Tensor]) -> list[Tensor]:
    (x,), attrs = operands, node.attrs
    places = x.shape[:2]

    def columns(stem: str, first: int, count: int) -> Tensor:
        return emit(stem, "SLICE", x, begin=(0, 0, first), size=(*places, count))

    def probability(stem: str, value: Tensor) -> Tensor:
        return emit(stem, "LOGISTIC", value) if attrs["logistic"] else value

    each = columns("class_scores", attrs["first_class"], attrs["classes"])
    classes = emit("classes", "ARG_MAX", each, axis=2)
    scores = probability("best_score", emit("best", "REDUCE_MAX", each, axes=(2,), keep_dims=False))
    if attrs["confidence"] != -1:
        column = columns("confidence_column", attrs["confidence"], 1)
        confidence = probability("confidence", emit("confidence_row", "RESHAPE", column, shape=places))
        scores = emit("scores", "MUL", confidence, scores, activation="NONE")
    boxes = [] if attrs["box"] == -1 else [columns("boxes", attrs["box"], 4)]
    return [*boxes, scores, classes]


def _example(columns: int, **attrs: Any) -> Graph:
    build = GraphBuilder()
    results = build.node(OP, [build.input("x", (1, 11, columns))], **attrs)
    return build.output(*results)


add_expansion(
    OP,
    "boxes, scores and classes out of what a detector says of every place",
    infer,
    expand,
    lambda: [
        _example(9, box=0, confidence=4, first_class=5, classes=4, logistic=True),
        _example(8, box=1, confidence=-1, first_class=5, classes=3, logistic=False),
        _example(6, box=-1, confidence=-1, first_class=1, classes=5, logistic=True),
        _example(7, box=3, confidence=0, first_class=2, classes=1, logistic=False),
    ],
)
