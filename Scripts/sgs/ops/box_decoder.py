"""BOX_DECODER: what a detector says of boxes, as corners relative to the picture.

boxes [1, N, 4], constant centres [N, 2] (y, x), constant scales [N, 4] (y, x, height, width), both relative to the
picture (0 to 1) → corners [1, N, 4] (ymin, xmin, ymax, xmax). Attrs:

    order   how the columns of boxes come: "xywh" or "yxhw", centre and size; "ltrb", distances to the four sides
    centre  f: "linear" t, "logistic" σ(t), "logistic2" 2σ(t) - ½
    extent  g: "linear" t, "exp" e^t, "power" (2σ(t))²

    centre = centres + f(t) · scales[:, :2],  size = g(t) · scales[:, 2:],  corners = centre ∓ size / 2

Of distances, which are linear: corners = centres ∓ t · scales[:, :2].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._expansion import add_expansion
from sgs.registry import Emit, Shape

OP = "BOX_DECODER"
ORDERS = ("xywh", "yxhw", "ltrb")


def _number(value: float) -> Array:
    return np.asarray(value, np.float32)


def _logistic2(emit: Emit, t: Tensor) -> Tensor:
    doubled = emit("twice", "MUL", emit("logistic", "LOGISTIC", t), _number(2), activation="NONE")
    return emit("offset", "SUB", doubled, _number(0.5), activation="NONE")


def _power(emit: Emit, t: Tensor) -> Tensor:
    doubled = emit("doubled", "MUL", emit("extent_logistic", "LOGISTIC", t), _number(2), activation="NONE")
    return emit("power", "SQUARE", doubled)


Function = Callable[[Emit, Tensor], Tensor]
CENTRES: dict[str, Function] = {
    "linear": lambda emit, t: t,
    "logistic": lambda emit, t: emit("logistic", "LOGISTIC", t),
    "logistic2": _logistic2,
}
EXTENTS: dict[str, Function] = {
    "linear": lambda emit, t: t,
    "exp": lambda emit, t: emit("exp", "EXP", t),
    "power": _power,
}


def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    """Raises ValueError for operands that do not go together, or attrs without a meaning."""
    boxes, centres, scales = operands
    assert boxes is not None and centres is not None and scales is not None
    count = boxes.shape[1] if len(boxes.shape) == 3 else 0
    if (boxes.shape, centres.shape, scales.shape) != ((1, count, 4), (count, 2), (count, 4)):
        raise ValueError(f"boxes {boxes.shape} by centres {centres.shape} and scales {scales.shape}")
    if centres.data is None or scales.data is None:
        raise ValueError(f"centres and scales of {OP} are constants")
    order, functions = node.attrs["order"], (node.attrs["centre"], node.attrs["extent"])
    if order not in ORDERS or functions[0] not in CENTRES or functions[1] not in EXTENTS:
        raise ValueError(f"{OP} knows no {order} boxes of {functions[0]} centre and {functions[1]} extent")
    if order == "ltrb" and functions != ("linear", "linear"):
        raise ValueError("distances are linear")
    return [(boxes.shape, boxes.dtype)]


def expand(emit: Emit, node: Node, operands: Sequence[Tensor]) -> list[Tensor]:
    """On pairs [1, N, 2] of y and x."""
    boxes, centres, scales = operands
    assert centres.data is not None and scales.data is not None
    count, order = boxes.shape[1], node.attrs["order"]
    start, unit, halves = centres.data[None], scales.data[None, :, :2], scales.data[None, :, 2:] / np.float32(2)

    def pair(stem: str, first: int) -> Tensor:
        """Columns `first` and the next, which are turned round where x comes before y."""
        begin, end, stride = (first, first + 2, 1) if order == "yxhw" else (first + 1, first - 1, -1)
        bounds = {"begin": (0, 0, begin), "end": (1, count, end), "strides": (1, 1, stride)}
        return emit(stem, "STRIDED_SLICE", boxes, **bounds)

    def arithmetic(stem: str, op: str, a: Tensor | Array, b: Tensor | Array) -> Tensor:
        return emit(stem, op, a, b, activation="NONE")

    first, second = pair("first", 0), pair("second", 2)
    middle: Tensor | Array = start
    if order == "ltrb":
        reach = arithmetic("reach_low", "MUL", first, unit), arithmetic("reach_high", "MUL", second, unit)
    else:
        moved = arithmetic("shift", "MUL", CENTRES[node.attrs["centre"]](emit, first), unit)
        middle = arithmetic("centre", "ADD", moved, start)
        half = arithmetic("half", "MUL", EXTENTS[node.attrs["extent"]](emit, second), halves)
        reach = half, half
    low, high = arithmetic("low", "SUB", middle, reach[0]), arithmetic("high", "ADD", middle, reach[1])
    return [emit("corners", "CONCATENATION", low, high, axis=2)]


def _example(order: str, centre: str, extent: str) -> Graph:
    rng, build = np.random.default_rng(0), GraphBuilder()
    centres = rng.uniform(0, 1, (11, 2)).astype(np.float32)
    scales = rng.uniform(0.05, 0.2, (11, 4)).astype(np.float32)
    x = build.input("x", (1, 11, 4))
    return build.output(build(OP, x, centres, scales, output="y", order=order, centre=centre, extent=extent))


add_expansion(
    OP,
    "corners of boxes, relative to the picture, out of what a detector says of them",
    infer,
    expand,
    lambda: [
        _example("xywh", "logistic", "exp"),
        _example("yxhw", "linear", "exp"),
        _example("xywh", "logistic2", "power"),
        _example("yxhw", "linear", "linear"),
        _example("ltrb", "linear", "linear"),
    ],
)
