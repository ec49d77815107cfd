"""Tile rules: every operator in pieces gives the codes that it gives at once, and moves are what the operator means."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

import sgs.ops  # noqa: F401  fills the tables
from fixed_examples import code_feeds, fixed_variants
from sgs.compile.tiles import indices_of, part_graph, part_of, result_box
from sgs.engine import run_reference
from sgs.engine.single import NodeKernel
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array, activation_params
from sgs.numeric.types import DType
from sgs.ops._move import border_grain
from sgs.registry import CONSTRAINTS, INFER, MOVE, QUANTISE, REFERENCE, TILE, Box

# along each of these axes some example of the operator is cut: what a compiler relies on
CUTTABLE = {
    **dict.fromkeys(("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "PRELU"), {1, 2, 3}),
    **dict.fromkeys(("FLOOR_DIV", "FLOOR_MOD", "CAST"), {1, 2, 3}),
    **dict.fromkeys(("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"), {1, 2, 3}),
    **dict.fromkeys(("LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT", "SELECT_V2"), {1, 2, 3}),
    **dict.fromkeys(("BITWISE_AND", "BITWISE_OR", "BITWISE_XOR", "LEFT_SHIFT", "RIGHT_SHIFT"), {0, 1, 2}),
    **dict.fromkeys(("TABLE", "QUANTIZE", "DEQUANTIZE"), {1, 2, 3}),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), {0, 1, 2, 3}),
    **dict.fromkeys(("MAX_POOL_2D", "AVERAGE_POOL_2D"), {0, 1, 2, 3}),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"), {0, 1, 2, 3}),
    **dict.fromkeys(("SOFTMAX_SHIFT", "SOFTMAX_NORM"), {0, 1, 2}),
    **dict.fromkeys(("DEPTH_TO_SPACE", "SPACE_TO_DEPTH"), {0, 1, 2}),
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), {0, 1, 2, 3}),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), {0, 1, 2, 3}),
    **dict.fromkeys(("FULLY_CONNECTED", "TRANSPOSE_CONV", "GATHER"), {0, 1, 2, 3}),
    **dict.fromkeys(("BATCH_MATMUL", "NORMALISE"), {0, 1, 2, 3}),
    "DETECTION_NMS": set(),
    "LOCAL_RESPONSE_NORMALIZATION": {0, 1, 2},
    "NORMALISE_IMAGE": {0, 1, 2, 3},
    "NV12_TO_RGB": {0, 1, 2},
    "ONE_HOT": {0, 1, 2},
    "REVERSE_SEQUENCE": {0, 1, 2, 3},
    **dict.fromkeys(("SCATTER_ND_UPDATE", "SCATTER_ND_ADD", "SCATTER_ND_MUL"), {1, 2, 3}),
    **dict.fromkeys(("SCATTER_ND_MAX", "SCATTER_ND_MIN"), {1, 2, 3}),
    "GATHER_ND": {0, 1, 2, 3},
    "CUMSUM": {0, 1, 2, 3},
    **dict.fromkeys(("ROI_ALIGN", "ROI_MAX_POOL"), {0, 3}),
    **dict.fromkeys(("REDUCE_ANY", "REDUCE_ALL"), {2}),
    **dict.fromkeys(("ARG_MAX", "ARG_MIN", "TOPK_V2", "TOPK_SMALLEST"), {0, 1, 2}),
}


def variants(op: str) -> Iterator[tuple[str, Graph]]:
    """The fixed examples; those that compute also with UINT8 results, and real ones with UINT8 operands as well: they
    have kernels of their own."""
    for label, graph in fixed_variants(op):
        yield label, graph
        kind = QUANTISE[op].kind if op in QUANTISE else ""
        if kind in ("mac", "real") and graph.nodes[-1].op == op and graph[graph.outputs[0]].quant is not None:
            yield f"{label}-narrow", narrowed(graph, graph.outputs)
        if kind == "real" and len(graph.nodes) == 1:
            yield f"{label}-bytes", narrowed(graph, [*graph.inputs, *graph.outputs])


def narrowed(graph: Graph, names: Sequence[str]) -> Graph:
    """The graph with these tensors as UINT8 codes for about the same range."""
    fixed = graph.copy()
    for tensor in (fixed[name] for name in names):
        if tensor.quant is None:
            continue
        reach = 2e4 * float(tensor.quant.scale[0])
        tensor.dtype, tensor.quant = DType.UINT8, activation_params(-0.4 * reach, reach, DType.UINT8)
    return fixed


def cases(op: str) -> Iterator[tuple[str, Graph, Node, dict[str, Array]]]:
    """(label, graph, node of the operator, values of all tensors) of every example."""
    for label, graph in variants(op):
        names = [tensor.name for tensor in graph.activations()]
        whole = graph.copy()
        whole.outputs = list(dict.fromkeys([*graph.outputs, *names]))
        values = {**code_feeds(graph, 0)}
        values.update(run_reference(whole, values))
        for node in graph.nodes:
            if node.op == op:
                yield label, graph, node, values


def spans(extent: int, grain: int) -> list[tuple[int, int]]:
    """Cuts of an axis in unequal pieces, all at multiples of the grain."""
    cuts = sorted({0, *(c * grain for c in (1, 2, 5) if c * grain < extent), extent})
    return list(itertools.pairwise(cuts))


def boxes(axes: dict[int, int], shape: tuple[int, ...]) -> Iterator[Box]:
    """Pieces along one axis at a time, then along all together."""
    for chosen in [*({a: g} for a, g in axes.items()), axes]:
        choices = [spans(d, chosen[a]) if a in chosen else [(0, d)] for a, d in enumerate(shape)]
        yield from itertools.product(*choices)


@pytest.mark.parametrize("op", list(TILE))
def test_parts_give_the_whole(op: str) -> None:
    cut: set[int] = set()
    for label, graph, node, values in cases(op):
        results = graph.results(node)
        axes = TILE[op].axes(node, graph.operands(node), results)
        limits = [kept for kept in CONSTRAINTS[op] if kept(node, graph.operands(node), results)]
        cut |= {axis for axis in axes if results[0].shape[axis] > axes[axis]}
        kernels: dict[object, NodeKernel] = {}
        for box in dict.fromkeys(boxes(axes, results[0].shape)):
            part = part_of(graph, node, box)
            alone, made = part_graph(graph, node, box)
            shapes = [shape for shape, _ in INFER[op](made, alone.operands(made))]
            assert shapes == [t.shape for t in alone.results(made)], (label, box)
            assert all(kept(made, alone.operands(made), alone.results(made)) for kept in limits), (label, box)
            taken = zip(made.inputs, node.inputs, part.operands, strict=True)
            reads = {inner: (name, span or ()) for inner, name, span in taken}
            key = (
                repr(made.attrs),
                *((t.shape, None if t.data is None else t.data.tobytes()) for t in alone.tensors.values()),
            )
            if key not in kernels:
                kernels[key] = NodeKernel(alone, made, threads=1)
            kernel = kernels[key]
            cuts = {n: np.ascontiguousarray(values[reads[n][0]][indices_of(reads[n][1])]) for n in kernel.operands}
            got = kernel([cuts[n] for n in kernel.operands])
            data = [None if n is None else cuts.get(n, alone[n].data) for n in made.inputs]
            slow = REFERENCE[op](made, alone.operands(made), alone.results(made), data)
            for value, other, result in zip(got, slow, results, strict=True):
                expected = values[result.name][indices_of(result_box(box, results[0], result))]
                assert np.array_equal(value, expected), f"{label}: {box} differs in {result.name}"
                assert np.array_equal(other, expected), f"{label}: {box} differs in {result.name} of the reference"
    assert CUTTABLE[op] <= cut


@pytest.mark.parametrize("op", list(MOVE))
def test_copies_give_the_whole(op: str) -> None:
    for label, graph, node, values in cases(op):
        operands, results = graph.operands(node), graph.results(node)
        got = [np.zeros(t.shape, t.dtype.numpy) for t in results]
        written = [np.zeros(t.shape, int) for t in results]
        for copy in MOVE[op].copies(node, operands, results):
            source = operands[copy.operand]
            assert source is not None
            data = source.data if source.data is not None else values[source.name]
            views = [
                strided(array, copy.extents, *place)
                for array, place in ((data, copy.source), (got[copy.result], copy.target))
            ]
            views[1][...] = views[0]
            strided(written[copy.result], copy.extents, *copy.target)[...] += 1
        for value, count, result in zip(got, written, results, strict=True):
            assert np.array_equal(value, values[result.name]), label
            assert (count == 1).all(), label


def strided(array: Array, extents: tuple[int, ...], offset: int, strides: tuple[int, ...]) -> Array:
    flat = np.ascontiguousarray(array).reshape(-1) if not array.flags.c_contiguous else array.reshape(-1)
    return np.lib.stride_tricks.as_strided(flat[offset:], extents, [s * flat.itemsize for s in strides])


def test_border_grain_is_the_least_that_leaves_the_borders_whole() -> None:
    for extent, first, last in itertools.product(range(1, 25), range(1, 6), range(1, 6)):
        if max(first, last) > extent:
            continue
        fits = [g for g in range(1, extent + 1) if g >= first and (extent - 1) // g * g <= extent - last]
        assert border_grain(extent, first, last) == fits[0]
