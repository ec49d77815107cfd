"""NON_MAX_SUPPRESSION: boxes of every class that no better box of the class overlaps.

boxes [N, B, 4], scores [N, C, B] → INT32 [N · C · most, 3], rows (picture, class, box) as ONNX orders them: by picture,
by class, best first. Attrs: most (boxes a class), iou_threshold, center_point_box, and score_threshold where there is
one. A network's shapes are static, so the result has room for all boxes that may be selected; rows beyond those that
are hold -1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.types import DType
from sgs.ops._float_only import add_float_only
from sgs.ops._import import single_operand
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, Lowering, OnnxCase, Shape

OP = "NON_MAX_SUPPRESSION"


def _infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    boxes, scores = operands[0], operands[1]
    assert boxes is not None and scores is not None
    fit = len(boxes.shape) == len(scores.shape) == 3 and boxes.shape == (scores.shape[0], scores.shape[2], 4)
    if not fit or not 0 < node.attrs["most"] <= boxes.shape[1]:
        raise ValueError(f"{node.attrs['most']} boxes of {boxes.shape} by scores {scores.shape}")
    return [((scores.shape[0] * scores.shape[1] * node.attrs["most"], 3), DType.INT32)]


def _lower(low: Lowering, node: Node) -> None:
    """onnxruntime's operator, with rows of -1 behind it, cut to the static size."""
    count = low.graph[node.outputs[0]].shape[0]
    operands = [low.real(name or "") for name in node.inputs]
    operands += [
        low.const(np.array([node.attrs["most"]])),
        low.const(np.array([node.attrs["iou_threshold"]], np.float32)),
    ]
    if "score_threshold" in node.attrs:
        operands.append(low.const(np.array([node.attrs["score_threshold"]], np.float32)))
    rows = low.op("NonMaxSuppression", operands, center_point_box=int(node.attrs["center_point_box"]))
    filled = low.op("Concat", [rows, low.const(np.full((count, 3), -1, np.int64))], axis=0)
    bounds = [low.const(np.array([v], np.int64)) for v in (0, count, 0)]
    low.put(node.outputs[0], low.cast(low.op("Slice", [filled, *bounds]), DType.INT32))


def _example(boxes: int, classes: int, pictures: int, **attrs: Any) -> Graph:
    build = GraphBuilder()
    operands = build.input("boxes", (pictures, boxes, 4)), build.input("scores", (pictures, classes, boxes))
    return build.output(build(OP, *operands, output="y", **attrs))


add_float_only(
    OP,
    "boxes that no better one of their class overlaps; rows beyond the selection hold -1",
    "chooses boxes by comparing ratios of areas, which codes do not keep",
    _infer,
    _lower,
    lambda: [
        _example(7, 2, 1, most=3, iou_threshold=0.5, center_point_box=False),
        _example(5, 3, 2, most=5, iou_threshold=0.25, center_point_box=True, score_threshold=0.5),
    ],
)


# -- ONNX import -------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("NonMaxSuppression")
def import_non_max_suppression(ctx: ImportContext) -> list[Tensor]:
    """At a network's end alone: no operator behind it would know which rows count."""
    boxes, scores = ctx.inputs[0], ctx.inputs[1]
    assert boxes is not None and scores is not None
    most = single_operand(ctx, 2, "max_output_boxes_per_class", int) or 0
    if ctx.reader_of(0) == "node":
        reason = "how many boxes it selects is known at run time only, and operators behind it would have to know"
        raise ctx.refuse(reason, "cut the network in front of it, or end it here")
    if most <= 0:
        raise ctx.refuse("max_output_boxes_per_class is 0, so nothing is selected", "give the number of boxes")
    attrs: dict[str, Any] = {
        "most": min(most, boxes.shape[1]),
        "iou_threshold": single_operand(ctx, 3, "iou_threshold", float) or 0.0,
        "center_point_box": bool(ctx.attrs.get("center_point_box", 0)),
    }
    threshold = single_operand(ctx, 4, "score_threshold", float)
    if threshold is not None:
        attrs["score_threshold"] = threshold
    return [ctx.emit(OP, boxes, scores, **attrs)]


_THRESHOLDS = {"most": np.array([3]), "iou": np.array([1], np.float32)}  # nothing overlaps by more than all of it
ONNX_EXAMPLES.add(
    "NonMaxSuppression",
    [
        OnnxCase("NonMaxSuppression", {"boxes": (2, 7, 4), "scores": (2, 3, 7)}, _THRESHOLDS),
        OnnxCase(
            "NonMaxSuppression",
            {"boxes": (1, 5, 4), "scores": (1, 2, 5)},
            {**_THRESHOLDS, "most": np.array([2**62]), "score": np.array([0.1], np.float32)},
            {"center_point_box": 1},
            low=0.25,
        ),
    ],
)
