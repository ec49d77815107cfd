"""TILE and BROADCAST_TO: the operand's values over and over.

TILE repeats every axis as often as attr `multiples` says. BROADCAST_TO has the shape of attr `shape`, to which the
operand's shape broadcasts. A fixed graph has both done by the DMA engine, which reads the same values again.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor, strides_of
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._move import add_move, all_rank_4, axis_in
from sgs.registry import (
    EXAMPLES,
    IMPORT_ONNX,
    INFER,
    LAYOUT,
    ONNX_EXAMPLES,
    SIM,
    Copy,
    ImportContext,
    Layout,
    Lowering,
    Moved,
    OnnxCase,
    Shape,
    SimRow,
)

LARGEST_AXES = 8  # that a copy of the DMA engine has
Axis = tuple[int, int, int]  # extent, stride in the operand (0: the same values again), stride in the result


# -- TILE --------------------------------------------------------------------------------------------------------------
@INFER.row("TILE")
def infer_tile(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    x, multiples = operands[0], node.attrs["multiples"]
    assert x is not None
    if len(multiples) != len(x.shape) or any(m < 1 for m in multiples):
        raise ValueError(f"shape {x.shape} cannot be repeated {tuple(multiples)} times")
    return [(tuple(d * m for d, m in zip(x.shape, multiples, strict=True)), x.dtype)]


@LAYOUT.row("TILE")
def layout_tile(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved:
    """Every axis keeps its number."""
    multiples = node.attrs["multiples"]
    return Moved({"multiples": tuple(multiples[i] for i in np.argsort(perm))}, (tuple(perm),))


def _lower_tile(low: Lowering, node: Node, values: list[str], layout: Layout) -> list[str]:
    multiples = node.attrs["multiples"]
    order = np.argsort([axis_in(axis, layout) for axis in range(len(multiples))])
    return [low.op("Tile", [values[0], low.const(np.array(multiples, np.int64)[order])])]


def _tile(node: Node, arrays: list[Array], results: Sequence[Tensor]) -> list[Array]:
    return [np.tile(arrays[0], node.attrs["multiples"])]


def _copies_tile(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> list[Copy]:
    """Of every axis, a repetition and the values that are repeated."""
    x = operands[0]
    assert x is not None
    axes: list[Axis] = []
    strides = zip(strides_of(x.shape), strides_of(results[0].shape), strict=True)
    for extent, times, (source, target) in zip(x.shape, node.attrs["multiples"], strides, strict=True):
        axes += [(times, 0, extent * target), (extent, source, target)]
    return _copies(axes)


# -- BROADCAST_TO ------------------------------------------------------------------------------------------------------
@INFER.row("BROADCAST_TO")
def infer_broadcast(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[Shape, DType]]:
    x, shape = operands[0], tuple(node.attrs["shape"])
    assert x is not None
    if np.broadcast_shapes(x.shape, shape) != shape:
        raise ValueError(f"shape {x.shape} does not broadcast to {shape}")
    return [(shape, x.dtype)]


@LAYOUT.row("BROADCAST_TO")
def layout_broadcast(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved:
    """Every axis keeps its extent; new axes stay in front."""
    shape = tuple(node.attrs["shape"])
    new = len(shape) - len(perm)
    whole = (*range(new), *(axis + new for axis in perm))
    return Moved({"shape": tuple(shape[i] for i in np.argsort(whole))}, (whole,))


def _lower_broadcast(low: Lowering, node: Node, values: list[str], layout: Layout) -> list[str]:
    shape = node.attrs["shape"]
    order = np.argsort([axis_in(axis, layout) for axis in range(len(shape))])
    return [low.op("Expand", [values[0], low.const(np.array(shape, np.int64)[order])])]


def _broadcast(node: Node, arrays: list[Array], results: Sequence[Tensor]) -> list[Array]:
    return [np.ascontiguousarray(np.broadcast_to(arrays[0], node.attrs["shape"]))]


def _copies_broadcast(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> list[Copy]:
    x, y = operands[0], results[0]
    assert x is not None
    old = (1,) * (len(y.shape) - len(x.shape)) + x.shape
    rows = zip(y.shape, old, strides_of(old), strides_of(y.shape), strict=True)
    return _copies([(d, source if had == d else 0, target) for d, had, source, target in rows])


def _copies(axes: Sequence[Axis]) -> list[Copy]:
    """One copy, or as many as it takes where the axes, joined as far as they can be, are more than a copy has."""
    joined: list[Axis] = []
    for extent, source, target in (axis for axis in axes if axis[0] != 1):
        if joined and joined[-1][1:] == (extent * source, extent * target):
            joined[-1] = (joined[-1][0] * extent, source, target)
        else:
            joined.append((extent, source, target))
    outer, inner = joined[: len(joined) - LARGEST_AXES], joined[max(len(joined) - LARGEST_AXES, 0) :]
    outer = outer if len(joined) > LARGEST_AXES else []
    inner = inner or [(1, 1, 1)]
    extents, sources, targets = (tuple(column) for column in zip(*inner, strict=True))
    starts = itertools.product(*(range(extent) for extent, _, _ in outer))
    return [
        Copy(
            0,
            0,
            extents,
            (sum(n * axis[1] for n, axis in zip(at, outer, strict=True)), sources),
            (sum(n * axis[2] for n, axis in zip(at, outer, strict=True)), targets),
        )
        for at in starts
    ]


add_move("TILE", "a tensor over and over", _lower_tile, _tile, any_layout=all_rank_4, copies=_copies_tile)
add_move(
    "BROADCAST_TO",
    "a tensor repeated along axes of extent 1",
    _lower_broadcast,
    _broadcast,
    any_layout=all_rank_4,
    copies=_copies_broadcast,
)
SIM.add("TILE", SimRow("TileOptions", constant_inputs={1: "multiples"}))
SIM.add("BROADCAST_TO", SimRow("BroadcastToOptions", constant_inputs={1: "shape"}, version=2))


# -- ONNX import -------------------------------------------------------------------------------------------------------
@IMPORT_ONNX.row("Tile")
def import_tile(ctx: ImportContext) -> list[Tensor]:
    """Before operator set 6: a number of times and an axis."""
    x = ctx.inputs[0]
    assert x is not None
    repeats = ctx.constant(1, "repeats")
    assert repeats is not None
    multiples = [int(m) for m in repeats.reshape(-1)]
    if ctx.opset < 6:
        axis = ctx.constant(2, "axis")
        assert axis is not None
        multiples = [multiples[0] if a == int(axis.reshape(-1)[0]) else 1 for a in range(len(x.shape))]
    if 0 in multiples:
        raise ctx.refuse(f"{multiples} repetitions leave nothing")
    return [x if prod(multiples) == 1 else ctx.emit("TILE", x, multiples=tuple(multiples))]


@IMPORT_ONNX.row("Expand")
def import_expand(ctx: ImportContext) -> list[Tensor]:
    """The shape broadcasts as well: its ones keep what the operand has."""
    x, wanted = ctx.inputs[0], ctx.constant(1, "shape")
    assert x is not None and wanted is not None
    shape = tuple(int(d) for d in np.broadcast_shapes(x.shape, tuple(int(d) for d in wanted.reshape(-1))))
    return [x if shape == x.shape else ctx.emit("BROADCAST_TO", x, shape=shape)]


ONNX_EXAMPLES.add(
    "Tile",
    [
        OnnxCase("Tile", {"x": (1, 5, 7, 6)}, {"r": np.array([2, 1, 3, 1])}),
        OnnxCase("Tile", {"x": (5, 7)}, {"r": np.array([1, 4])}),
    ],
)
ONNX_EXAMPLES.add(
    "Expand",
    [
        OnnxCase("Expand", {"x": (1, 5, 1, 6)}, {"s": np.array([2, 1, 7, 6])}),
        OnnxCase("Expand", {"x": (5, 1)}, {"s": np.array([3, 1, 7])}),
        OnnxCase("Expand", {"x": (5, 7)}, {"s": np.array([1])}),
    ],
)


def _example(op: str, operand: Shape, **attrs: Any) -> Graph:
    build = GraphBuilder()
    return build.output(build(op, build.input("x", operand), output="y", **attrs))


EXAMPLES.add(
    "TILE",
    lambda: [
        _example("TILE", (1, 5, 7, 6), multiples=(2, 1, 3, 2)),
        _example("TILE", (5, 7), multiples=(1, 4)),
        _example("TILE", (2, 3, 2, 3, 2), multiples=(2, 3, 2, 2, 2)),
    ],
)
EXAMPLES.add(
    "BROADCAST_TO",
    lambda: [
        _example("BROADCAST_TO", (1, 5, 1, 6), shape=(2, 5, 7, 6)),
        _example("BROADCAST_TO", (7, 1), shape=(3, 5, 7, 6)),
        _example("BROADCAST_TO", (1,), shape=(11,)),
    ],
)
