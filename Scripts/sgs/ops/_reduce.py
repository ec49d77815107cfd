"""What reductions share: attrs `axes` (tuple, ascending, non-negative) and `keep_dims`, which keeps the reduced axes
with extent 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.types import DType
from sgs.ops._layout import perm_without, remap_axis
from sgs.ops._move import axis_in
from sgs.ops._tflite import axis_of, integers, operand, option
from sgs.registry import (
    CONSTRAINTS,
    EXAMPLES,
    IMPORT_TFLITE,
    INFER,
    LAYOUT,
    SIM,
    TFLITE_EXAMPLES,
    Box,
    Cost,
    ImportContext,
    Layout,
    Lowering,
    Moved,
    Part,
    Shape,
    SimRow,
    TfliteCase,
    TileRow,
)


def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    """Raises ValueError for axes that are not ascending axes of the operand."""
    x = operands[0]
    assert x is not None
    axes = node.attrs["axes"]
    if any(not 0 <= a < len(x.shape) for a in axes) or list(axes) != sorted(set(axes)):
        raise ValueError(f"axes {tuple(axes)} of a tensor of shape {x.shape} are not ascending axes of it")
    if node.attrs["keep_dims"]:
        return [(tuple(1 if i in axes else d for i, d in enumerate(x.shape)), x.dtype)]
    return [(tuple(d for i, d in enumerate(x.shape) if i not in axes), x.dtype)]


def layout(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved:
    """The axes follow the permutation; without keep_dims the result is permuted as the axes that are left."""
    axes = node.attrs["axes"]
    attrs = {**node.attrs, "axes": tuple(sorted(remap_axis(a, perm) for a in axes))}
    return Moved(attrs, (tuple(perm) if node.attrs["keep_dims"] else perm_without(perm, axes),))


def kept_axes(node: Node, results: Sequence[Tensor]) -> list[int]:
    """Axes of the result that are axes of the operand, in order."""
    gone = node.attrs["axes"] if node.attrs["keep_dims"] else ()
    return [a for a in range(len(results[0].shape)) if a not in gone]


def _tile_axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """Axes that are not reduced."""
    return dict.fromkeys(kept_axes(node, results), 1)


def _tile_part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    """All of the operand along the reduced axes."""
    x, spans = operands[0], iter([box[a] for a in kept_axes(node, results)])
    assert x is not None
    read = tuple((0, d) if a in node.attrs["axes"] else next(spans) for a, d in enumerate(x.shape))
    return Part((read,), dict(node.attrs))


REDUCTION = TileRow(_tile_axes, _tile_part)


def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """One operation per element read, and one per result."""
    read = sum(t.elements for t in operands if t is not None and not t.is_constant)
    return Cost(vector_ops=read + results[0].elements)


def axes_in(node: Node, layout: Layout) -> list[int]:
    """The reduced axes as `layout` has them, ascending."""
    return sorted(axis_in(a, layout) for a in node.attrs["axes"])


def reduced(low: Lowering, onnx_op: str, value: str, axes: Sequence[int], keep: bool) -> str:
    """The value reduced by an operator of ONNX; itself where there are no axes."""
    if not axes:
        return value
    return str(low.op(onnx_op, [value, low.const(np.array(axes, np.int64))], keepdims=int(keep)))


# -- TFLite import ---------------------------------------------------------------------------------------------------
def import_tflite(ctx: ImportContext) -> list[Tensor]:
    """The axes are one number or a list, in any order, and count from either end."""
    x = operand(ctx, 0)
    axes = tuple(sorted({axis_of(ctx, a, len(x.shape)) for a in integers(ctx, 1, "axes")}))
    return [ctx.emit(ctx.op, x, axes=axes, keep_dims=bool(option(ctx, "keep_dims", False)))] if axes else [x]


def tflite_cases(op: str, kind: str = "float32") -> list[TfliteCase]:
    """Examples with axes as TFLite files have them."""
    return [
        TfliteCase(
            op,
            {"x": (2, 5, 7, 6)},
            {"a": np.array(axes, np.int32)},
            {"keep_dims": keep},
            "ReducerOptions",
            results=(kind,),
            types={"x": kind},
        )
        for axes, keep in ((1, False), (-1, True), ((2, 1), False), ((-2, 0), True))
    ]


def add_reduction(op: str, kind: str = "float32") -> None:
    """The rows that every reduction has; `kind` is numpy's name of the type of operands in examples."""
    INFER.add(op, infer)
    LAYOUT.add(op, layout)
    SIM.add(op, SimRow("ReducerOptions", fields={"keep_dims": "keep_dims"}, constant_inputs={1: "axes"}))
    IMPORT_TFLITE.add(op, import_tflite)
    TFLITE_EXAMPLES.add(op, tflite_cases(op, kind))
    if op not in CONSTRAINTS:
        CONSTRAINTS.add(op, ())


def example(op: str, shape: Shape, axes: tuple[int, ...], keep_dims: bool, dtype: DType = DType.FLOAT32) -> Graph:
    build = GraphBuilder()
    return build.output(build(op, build.input("x", shape, dtype), output="y", axes=axes, keep_dims=keep_dims))


def add_examples(op: str, *, many: bool = True) -> None:
    """Pictures, matrices and volumes of real numbers, over one axis or several, also of `many` entries."""
    few = [
        ((1, 5, 7, 6), (1, 2), True),
        ((1, 5, 7, 6), (1, 2), False),
        ((2, 5, 7, 6), (3,), True),
        ((2, 5, 7, 6), (1,), False),
        ((3, 7, 2), (0, 2), False),
        ((3, 7), (0, 1), False),
    ]
    long = [((1, 37, 29, 3), (1, 2), True), ((3, 601), (1,), False)]  # too many terms for a sum in binary32
    EXAMPLES.add(op, lambda: [example(op, *arguments) for arguments in (few + long if many else few)])
