"""What a script builds a post-processing network with: the backbone's outputs, and operators to put behind them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder, Operand
from sgs.config.input_config import InputConfig
from sgs.ir.graph import Graph, Tensor
from sgs.numeric.quantise import Array

Value = Tensor | Array | float
"""An operand: a tensor, or numbers, which become a constant."""


class Network:
    """A backbone that a script adds to.

    Tensors have a `name`, a `shape` and a `dtype`. Methods append an operator and return its result; they raise
    ValueError for shapes that do not go together.

    Args:
        graph: the backbone, which is added to.
        config: its ini.
    """

    def __init__(self, graph: Graph, config: InputConfig) -> None:
        self.outputs = {spec.name: graph[spec.name] for spec in config.outputs}
        """The backbone's outputs by name, in the order of its ini and in the layout that this gives them: NHWC where it
        says nothing."""
        self._build = GraphBuilder(graph)
        self._sizes = [
            graph[spec.name].shape[2:4] if spec.layout == "NCHW" else graph[spec.name].shape[1:3]
            for spec in config.inputs
            if len(graph[spec.name].shape) == 4
        ]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the picture that the backbone reads: of its first input of rank 4. Raises ValueError."""
        if not self._sizes:
            raise ValueError("no input of the network has rank 4, so there is no picture")
        height, width = self._sizes[0]
        return height, width

    def output(self, name: str | None = None) -> Tensor:
        """The backbone's output of that name, or its only one. Raises ValueError where it has none or several."""
        if name is None and len(self.outputs) == 1:
            return next(iter(self.outputs.values()))
        if name is None or name not in self.outputs:
            wanted = "one output" if name is None else f"an output '{name}'"
            raise ValueError(f"needed is {wanted}; the network has {', '.join(self.outputs)}")
        return self.outputs[name]

    # -- plain operators -----------------------------------------------------------------------------------------------
    def operator(self, op: str, *operands: Value, **attrs: Any) -> Tensor:
        """Any operator of docs/OPERATORS.md that has one result. Numpy arrays become constants of their own type."""
        results = self._build.node(op, [_operand(x) for x in operands], **attrs)
        if len(results) != 1:
            raise ValueError(f"{op} has {len(results)} results here, and operator() is for those that have one")
        return results[0]

    def sigmoid(self, x: Tensor) -> Tensor:
        return self.operator("LOGISTIC", x)

    def exp(self, x: Tensor) -> Tensor:
        return self.operator("EXP", x)

    def relu(self, x: Tensor) -> Tensor:
        return self.operator("RELU", x)

    def softmax(self, x: Tensor) -> Tensor:
        """Over the last axis."""
        return self.operator("SOFTMAX", x, beta=1.0)

    def add(self, a: Value, b: Value) -> Tensor:
        return self.operator("ADD", _real(a), _real(b), activation="NONE")

    def sub(self, a: Value, b: Value) -> Tensor:
        return self.operator("SUB", _real(a), _real(b), activation="NONE")

    def mul(self, a: Value, b: Value) -> Tensor:
        return self.operator("MUL", _real(a), _real(b), activation="NONE")

    def sum(self, x: Tensor, axis: int, *, keep: bool = False) -> Tensor:
        """The sum over an axis, which goes or is kept with extent 1."""
        return self.operator("SUM", x, axes=(_axis(x, axis),), keep_dims=keep)

    def reshape(self, x: Tensor, *shape: int) -> Tensor:
        """To the shape, of which one extent may be -1: what is left."""
        return self.operator("RESHAPE", x, shape=_resolved(x, shape))

    def transpose(self, x: Tensor, *perm: int) -> Tensor:
        """Axis i of the result is axis perm[i] of x."""
        return self.operator("TRANSPOSE", x, perm=tuple(perm))

    def slice(self, x: Tensor, axis: int, start: int, stop: int) -> Tensor:
        """The places from `start` up to, but not including, `stop` of an axis."""
        axis = _axis(x, axis)
        if not 0 <= start < stop <= x.shape[axis]:
            raise ValueError(f"'{x.name}' has {x.shape[axis]} places on axis {axis}, not {start} to {stop}")
        begin, size = [0] * len(x.shape), list(x.shape)
        begin[axis], size[axis] = start, stop - start
        return self.operator("SLICE", x, begin=tuple(begin), size=tuple(size))

    def concat(self, tensors: Sequence[Tensor], axis: int) -> Tensor:
        """Of a single tensor, that tensor itself."""
        if not tensors:
            raise ValueError("there is nothing to join")
        if len(tensors) == 1:
            return tensors[0]
        return self.operator("CONCATENATION", *tensors, axis=_axis(tensors[0], axis))

    # -- operators of detectors ----------------------------------------------------------------------------------------
    def unpack(
        self, packed: Tensor, *, box: int, confidence: int, first_class: int, classes: int, logistic: bool
    ) -> list[Tensor]:
        """[1, N, K] → boxes [1, N, 4], scores [1, N] and classes [1, N]: the best class of each row. Without boxes
        (`box` -1) the last two only.

        Args:
            box: the first of the four columns of a box, or -1.
            confidence: the column that all scores are multiplied by, or -1.
            first_class: the column of class 0, which `classes` columns begin with.
            logistic: confidence and scores are logits, and become their sigmoid first.
        """
        return self._build.node(
            "DETECTION_UNPACK",
            [packed],
            box=box,
            confidence=confidence,
            first_class=first_class,
            classes=classes,
            logistic=logistic,
        )

    def decode_boxes(
        self, boxes: Tensor, centres: Array, scales: Array, *, order: str, centre: str = "linear", extent: str
    ) -> Tensor:
        """[1, N, 4] → corners [1, N, 4] [ymin, xmin, ymax, xmax]: centre = f(t) · scale + centres, size = g(t) · scale.

        Args:
            centres: [N, 2] (y, x), as `scales` a share of the picture.
            scales: [N, 4] (y, x, height, width).
            order: of the four columns: "xywh", "yxhw", or "ltrb": distances from the centres to the sides.
            centre: f: "linear" t, "logistic" σ(t), "logistic2" 2σ(t) - ½.
            extent: g: "linear" t, "exp" exp(t), "power" (2σ(t))².
        """
        kinds = {"order": order, "centre": centre, "extent": extent}
        return self.operator("BOX_DECODER", boxes, _numbers(centres), _numbers(scales), **kinds)

    def nms(
        self,
        corners: Tensor,
        scores: Tensor,
        classes: Tensor,
        *,
        max_detections: int = 100,
        score_threshold: float = 0.005,
        iou_threshold: float = 0.45,
        class_agnostic: bool = False,
        clip: bool = True,
        index: bool = False,
    ) -> list[Tensor]:
        """Corners [1, N, 4], scores [1, N] and classes [1, N] → detectionBoxes [1, M, 4], detectionClasses [1, M],
        detectionScores [1, M], numDetections [1], and with `index` detectionIndex [1, M], the place of each among the
        N; M = `max_detections`. The best score comes first, and nothing behind the last.

        Args:
            score_threshold: boxes of lower scores are dropped.
            iou_threshold: of two boxes of a class that overlap by more, the better one stays; `class_agnostic`: of two
                of any classes.
            clip: cut the corners to the picture, 0 to 1.
        """
        names = ["detectionBoxes", "detectionClasses", "detectionScores", "numDetections", "detectionIndex"]
        return self._build.node(
            "DETECTION_NMS",
            [corners, scores, classes],
            name="detection",
            outputs=names[: 5 if index else 4],
            max_detections=max_detections,
            score_threshold=float(score_threshold),
            iou_threshold=float(iou_threshold),
            class_agnostic=class_agnostic,
            clip=clip,
            index=index,
        )


def _operand(value: Value) -> Operand:
    return value if isinstance(value, (Tensor, np.ndarray)) else _numbers(value)


def _real(value: Value) -> Value:
    return value if isinstance(value, Tensor) else _numbers(value)


def _numbers(value: Array | float) -> Array:
    return np.atleast_1d(np.asarray(value, np.float32))


def _axis(x: Tensor, axis: int) -> int:
    rank = len(x.shape)
    if not -rank <= axis < rank:
        raise ValueError(f"'{x.name}' {list(x.shape)} has no axis {axis}")
    return axis % rank


def _resolved(x: Tensor, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape with what is left for -1."""
    known = math.prod(extent for extent in shape if extent != -1)
    fits = x.elements == known if -1 not in shape else known > 0 and x.elements % known == 0 and shape.count(-1) == 1
    if not fits:
        raise ValueError(f"'{x.name}' {list(x.shape)} has {x.elements} elements, not as many as {list(shape)}")
    return tuple(x.elements // known if extent == -1 else extent for extent in shape)
