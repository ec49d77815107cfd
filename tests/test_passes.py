"""Each graph rewrite: what it makes of its pattern, when it keeps its hands off, and that no number changes."""

import time
from collections.abc import Callable

import numpy as np
import pytest

import sgs.ops  # noqa: F401  (fills the tables)
from sgs.builder import GraphBuilder
from sgs.compare.match import stands_for
from sgs.engine import FloatEngine
from sgs.ir import Graph, Tensor, verify
from sgs.passes.block_windows import block_windows
from sgs.passes.channel_shuffle import channel_shuffle
from sgs.passes.editor import Editor
from sgs.passes.fold_batch_norm import fold_batch_norm
from sgs.passes.fold_constants import fold_constants
from sgs.passes.fold_gather import fold_gather
from sgs.passes.fold_identity import fold_identity
from sgs.passes.fold_pad import fold_pad
from sgs.passes.fold_reshape import fold_reshape
from sgs.passes.fold_transpose import fold_transpose
from sgs.passes.fuse_activation import fuse_activation
from sgs.passes.fuse_prelu import fuse_prelu
from sgs.passes.hoist_arithmetic import hoist_arithmetic
from sgs.passes.layout import move_transposes
from sgs.passes.merge_duplicates import merge_duplicates
from sgs.passes.permute_fully_connected import permute_fully_connected
from sgs.passes.pipeline import optimise
from sgs.passes.repeat_pixels import repeat_pixels
from sgs.passes.stack_slices import stack_slices
from sgs.passes.whole_windows import whole_windows

NHWC, NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
WINDOW = {"strides": (1, 1), "dilations": (1, 1), "pads": (1, 1, 1, 1), "activation": "NONE"}
POOL = {"strides": (2, 3), "pads": (0, 0, 0, 0), "activation": "NONE"}


def ramp(*shape: int) -> np.ndarray:
    return np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def conv(build: GraphBuilder, x: Tensor, channels: int, **attrs: object) -> Tensor:
    weights = np.random.default_rng(channels).normal(0, 0.3, (channels, 3, 3, x.shape[3])).astype(np.float32)
    return build("CONV_2D", x, weights, ramp(channels), **{**WINDOW, **attrs})


def repeated(b: GraphBuilder, x: Tensor, shape: tuple[int, ...], axis: int, times: int, end: tuple[int, ...]) -> Tensor:
    """x in a shape, again and again along an axis, in another shape."""
    multiples = tuple(times if k == axis else 1 for k in range(len(shape)))
    return b("RESHAPE", b("TILE", b("RESHAPE", x, shape=shape), multiples=multiples), shape=end)


def run(graph: Graph) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    feeds = {n: rng.uniform(-1, 1, graph[n].shape).astype(np.float32) for n in graph.inputs}
    return FloatEngine(graph).run(feeds)


def held(graph: Graph) -> dict[str, np.ndarray]:
    """The numbers of every result, in ascending order, as passes may turn it."""
    every = graph.copy()
    every.outputs = [name for node in graph.nodes for name in node.outputs]
    return {name: np.sort(value, axis=None) for name, value in run(every).items()}


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


Build = Callable[[GraphBuilder, Tensor], Tensor]

# (pass, network over x [1,5,7,6], operators that must be left)
CASES: dict[str, tuple[Callable[[Graph], int], Build, list[str]]] = {
    "mean of a window that is the picture": (
        whole_windows,
        lambda b, x: b("AVERAGE_POOL_2D", x, **{**POOL, "kernel": (5, 7)}),
        ["MEAN"],
    ),
    "mean of a window that is not": (
        whole_windows,
        lambda b, x: b("AVERAGE_POOL_2D", x, **{**POOL, "kernel": (5, 6)}),
        ["AVERAGE_POOL_2D"],
    ),
    "mean of a window that is the picture, clamped": (
        whole_windows,
        lambda b, x: b("AVERAGE_POOL_2D", x, **{**POOL, "kernel": (5, 7), "activation": "RELU"}),
        ["AVERAGE_POOL_2D"],
    ),
    "largest value of a window that is the picture": (
        whole_windows,
        lambda b, x: b("MAX_POOL_2D", x, **{**POOL, "kernel": (5, 7)}),
        ["REDUCE_MAX"],
    ),
    "reshape of reshape": (
        fold_reshape,
        lambda b, x: b("RESHAPE", b("RESHAPE", x, shape=(35, 6)), shape=(7, 30)),
        ["RESHAPE"],
    ),
    "reshape to the same shape": (
        fold_reshape,
        lambda b, x: b("RELU", b("RESHAPE", b("RESHAPE", x, shape=(35, 6)), shape=x.shape)),
        ["RELU"],
    ),
    "reshape that ties input to output": (fold_reshape, lambda b, x: b("RESHAPE", x, shape=x.shape), ["RESHAPE"]),
    "add nothing": (fold_identity, lambda b, x: b("RELU", b("ADD", x, ramp(6) * 0, activation="NONE")), ["RELU"]),
    "add nothing to a broadcast": (
        fold_identity,
        lambda b, x: b("ADD", x, np.zeros((3, 1, 1, 1), np.float32), activation="NONE"),
        ["ADD"],
    ),
    "add nothing, then clamp": (
        fold_identity,
        lambda b, x: b("RELU", b("ADD", x, ramp(6) * 0, activation="RELU")),
        ["ADD", "RELU"],
    ),
    "nothing minus x": (
        fold_identity,
        lambda b, x: b("RELU", b("SUB", ramp(6) * 0, x, activation="NONE")),
        ["SUB", "RELU"],
    ),
    "times one, from the left": (
        fold_identity,
        lambda b, x: b("RELU", b("MUL", np.ones(1, np.float32), x, activation="NONE")),
        ["RELU"],
    ),
    "join of one": (fold_identity, lambda b, x: b("RELU", b("CONCATENATION", x, axis=3)), ["RELU"]),
    "scale and offset behind a convolution": (
        fold_batch_norm,
        lambda b, x: b("ADD", ramp(1, 1, 1, 8), b("MUL", conv(b, x, 8), ramp(8), activation="NONE"), activation="RELU"),
        ["CONV_2D"],
    ),
    "constant minus, and division": (
        fold_batch_norm,
        lambda b, x: b(
            "DIV", b("SUB", ramp(8), conv(b, x, 8), activation="NONE"), ramp(8) + np.float32(2), activation="NONE"
        ),
        ["CONV_2D"],
    ),
    "division of a constant": (
        fold_batch_norm,
        lambda b, x: b("DIV", ramp(8), b("ADD", conv(b, x, 8, activation="RELU"), ramp(8) + 2, activation="NONE"),
                       activation="NONE"),
        ["CONV_2D", "ADD", "DIV"],
    ),
    "scale along the height": (
        fold_batch_norm,
        lambda b, x: b("MUL", conv(b, x, 8), ramp(5, 1, 1), activation="NONE"),
        ["CONV_2D", "MUL"],
    ),
    "scale of a shared convolution": (
        fold_batch_norm,
        lambda b, x: (lambda y: b("ADD", y, b("MUL", y, ramp(8), activation="NONE"), activation="NONE"))(conv(b, x, 8)),
        ["CONV_2D", "MUL", "ADD"],
    ),
    "scale of a depthwise convolution": (
        fold_batch_norm,
        lambda b, x: b("MUL", b("DEPTHWISE_CONV_2D", x, ramp(1, 3, 3, 6), ramp(6), **WINDOW), ramp(6),
                       activation="NONE"),
        ["DEPTHWISE_CONV_2D"],
    ),
    "scale behind the reshape of a convolution": (
        hoist_arithmetic,
        lambda b, x: b("ADD", b("MUL", b("RESHAPE", conv(b, x, 8), shape=(35, 8)), ramp(1, 8), activation="NONE"),
                       ramp(35, 8), activation="NONE"),
        ["CONV_2D", "MUL", "RESHAPE", "ADD"],
    ),
    "scale behind a reshape that moves channels": (
        hoist_arithmetic,
        lambda b, x: b("MUL", b("RESHAPE", conv(b, x, 8), shape=(8, 35)), np.float32([3]), activation="NONE"),
        ["CONV_2D", "RESHAPE", "MUL"],
    ),
    "activation behind the reshape of a convolution": (
        hoist_arithmetic,
        lambda b, x: b("RELU6", b("RESHAPE", conv(b, x, 8), shape=(1, 35, 8))),
        ["CONV_2D", "RELU6", "RESHAPE"],
    ),
    "activation behind the reshape of an activation": (
        hoist_arithmetic,
        lambda b, x: b("RELU6", b("RESHAPE", b("RELU", conv(b, x, 8)), shape=(1, 35, 8))),
        ["CONV_2D", "RELU", "RESHAPE", "RELU6"],
    ),
    "activation": (fuse_activation, lambda b, x: b("RELU6", conv(b, x, 8)), ["CONV_2D"]),
    "second activation": (
        fuse_activation,
        lambda b, x: b("RELU", conv(b, x, 8, activation="RELU6")),
        ["CONV_2D", "RELU"],
    ),
    "activation of an input": (fuse_activation, lambda b, x: b("RELU", x), ["RELU"]),
    "zeros in front of a convolution": (
        fold_pad,
        lambda b, x: conv(b, b("PAD", x, paddings=((0, 0), (1, 2), (0, 3), (0, 0))), 8),
        ["CONV_2D"],
    ),
    "channels padded": (
        fold_pad,
        lambda b, x: conv(b, b("PAD", x, paddings=((0, 0), (1, 2), (0, 3), (0, 1))), 8),
        ["PAD", "CONV_2D"],
    ),
    "ones in front of a convolution": (
        fold_pad,
        lambda b, x: conv(b, b("PADV2", x, paddings=((0, 0), (1, 2), (0, 3), (0, 0)), value=1.0), 8),
        ["PADV2", "CONV_2D"],
    ),
    "channels of a convolution picked": (
        fold_gather,
        lambda b, x: b("GATHER", conv(b, x, 8), np.array([7, 0, 3], np.int32), axis=3),
        ["CONV_2D"],
    ),
    "channels of a depthwise convolution picked": (
        fold_gather,
        lambda b, x: b("GATHER", b("DEPTHWISE_CONV_2D", x, ramp(1, 3, 3, 6), ramp(6), **WINDOW),
                       np.array([5, 0, 3], np.int32), axis=3),
        ["DEPTHWISE_CONV_2D", "GATHER"],
    ),
    "channels permuted in front of convolutions": (
        fold_gather,
        lambda b, x: (lambda y: b("ADD", conv(b, y, 8), conv(b, y, 8, activation="RELU"), activation="NONE"))(
            b("GATHER", x, np.array([2, 0, 5, 1, 3, 4], np.int32), axis=3)),
        ["CONV_2D", "CONV_2D", "ADD"],
    ),
    "channels permuted in front of a depthwise convolution": (
        fold_gather,
        lambda b, x: b("DEPTHWISE_CONV_2D", b("GATHER", x, np.array([2, 0, 5, 1, 3, 4], np.int32), axis=3),
                       ramp(1, 3, 3, 6), ramp(6), **WINDOW),
        ["GATHER", "DEPTHWISE_CONV_2D"],
    ),
    "channels picked in front of a convolution": (
        fold_gather,
        lambda b, x: conv(b, b("GATHER", x, np.array([2, 0, 5], np.int32), axis=3), 8),
        ["GATHER", "CONV_2D"],
    ),
    "the same twice": (
        merge_duplicates,
        lambda b, x: b("ADD", conv(b, x, 8), conv(b, x, 8), activation="NONE"),
        ["CONV_2D", "ADD"],
    ),
    "almost the same twice": (
        merge_duplicates,
        lambda b, x: b("ADD", conv(b, x, 8), conv(b, x, 8, activation="RELU"), activation="NONE"),
        ["CONV_2D", "CONV_2D", "ADD"],
    ),
    "constants computed": (
        fold_constants,
        lambda b, x: b("ADD", x, b("RELU", b("TRANSPOSE", b.constant("c", ramp(6, 7)), perm=(1, 0))),
                       activation="NONE"),
        ["ADD"],
    ),
    "shuffle": (
        channel_shuffle,
        lambda b, x: b("RESHAPE", b("TRANSPOSE", b("RESHAPE", x, shape=(1, 5, 7, 2, 3)), perm=(0, 1, 2, 4, 3)),
                       shape=(1, 35, 6)),
        ["GATHER", "RESHAPE"],
    ),
    "shuffle that is none": (
        channel_shuffle,
        lambda b, x: b("RELU", b("RESHAPE", b("TRANSPOSE", b("RESHAPE", x, shape=(35, 6, 1)), perm=(0, 2, 1)),
                                 shape=(1, 5, 7, 6))),
        ["RESHAPE", "RELU"],
    ),
    "shuffle across pixels": (
        channel_shuffle,
        lambda b, x: b("RESHAPE", b("TRANSPOSE", b("RESHAPE", x, shape=(1, 5, 7, 2, 3)), perm=(0, 1, 3, 2, 4)),
                       shape=(1, 35, 6)),
        ["RESHAPE", "TRANSPOSE", "RESHAPE"],
    ),
    "prelu by its negative": (
        fuse_prelu,
        lambda b, x: b("ADD", b("RELU", x), b("MUL", b("RELU", b("NEG", x)), ramp(6), activation="NONE"),
                       activation="NONE"),
        ["PRELU"],
    ),
    "prelu by its size": (
        fuse_prelu,
        lambda b, x: b("ADD", b("MUL", ramp(7, 6), b("SUB", x, b("ABS", x), activation="NONE"), activation="NONE"),
                       b("RELU", x), activation="NONE"),
        ["PRELU"],
    ),
    "prelu of another tensor": (
        fuse_prelu,
        lambda b, x: b("ADD", b("RELU", x), b("MUL", b("RELU", b("NEG", b("TANH", x))), ramp(6), activation="NONE"),
                       activation="NONE"),
        ["RELU", "TANH", "NEG", "RELU", "MUL", "ADD"],
    ),
    "prelu the other way round": (
        fuse_prelu,
        lambda b, x: b("ADD", b("RELU", x), b("MUL", b("SUB", b("ABS", x), x, activation="NONE"), ramp(6),
                       activation="NONE"), activation="NONE"),
        ["RELU", "ABS", "SUB", "MUL", "ADD"],
    ),
    "prelu beyond its operand": (
        fuse_prelu,
        lambda b, x: b("ADD", b("RELU", x), b("MUL", b("RELU", b("NEG", x)), ramp(3, 1, 1, 6), activation="NONE"),
                       activation="NONE"),
        ["RELU", "NEG", "RELU", "MUL", "ADD"],
    ),
    "transposed operand of a product": (
        fold_transpose,
        lambda b, x: b("BATCH_MATMUL", x, b("TRANSPOSE", x, perm=(0, 1, 3, 2)), adj_x=False, adj_y=False),
        ["BATCH_MATMUL"],
    ),
    "transposed operands of a product": (
        fold_transpose,
        lambda b, x: (lambda t: b("BATCH_MATMUL", b("BATCH_MATMUL", t, t, adj_x=True, adj_y=False), x, adj_x=True,
                                  adj_y=False))(b("TRANSPOSE", x, perm=(0, 1, 3, 2))),
        ["BATCH_MATMUL", "BATCH_MATMUL"],
    ),
    "transposed operand that others read": (
        fold_transpose,
        lambda b, x: (lambda t: b("BATCH_MATMUL", x, b("ADD", t, b("TANH", t), activation="NONE"), adj_x=False,
                                  adj_y=False))(b("TRANSPOSE", x, perm=(0, 1, 3, 2))),
        ["TRANSPOSE", "TANH", "ADD", "BATCH_MATMUL"],
    ),
    "operand transposed in another way": (
        fold_transpose,
        lambda b, x: b("BATCH_MATMUL", x, b("TRANSPOSE", x, perm=(1, 0, 2, 3)), adj_x=False, adj_y=True),
        ["TRANSPOSE", "BATCH_MATMUL"],
    ),
    "gather of a gather": (
        channel_shuffle,
        lambda b, x: b("GATHER", b("GATHER", x, np.array([5, 1, 3], np.int32), axis=3), np.array([2, 0], np.int32),
                       axis=3),
        ["GATHER"],
    ),
    "gather of a part": (
        channel_shuffle,
        lambda b, x: b("GATHER", b.node("SPLIT_V", [x], axis=3, sizes=(2, 4))[1], np.array([3, 0, 2], np.int32),
                       axis=3),
        ["GATHER"],
    ),
    "flattened in another order": (
        permute_fully_connected,
        lambda b, x: b("FULLY_CONNECTED", b("RESHAPE", b("TRANSPOSE", x, perm=NCHW), shape=(1, 210)), ramp(4, 210),
                       ramp(4), activation="NONE", keep_num_dims=False),
        ["RESHAPE", "FULLY_CONNECTED"],
    ),
    "picture from a vector": (
        permute_fully_connected,
        lambda b, x: b("TRANSPOSE", b("RESHAPE", b("FULLY_CONNECTED", b("RESHAPE", x, shape=(7, 30)), ramp(24, 30),
                       ramp(24), activation="RELU", keep_num_dims=False), shape=(7, 4, 2, 3)), perm=NHWC),
        ["RESHAPE", "FULLY_CONNECTED", "RESHAPE"],
    ),
    "inverse pair": (
        move_transposes,
        lambda b, x: b("RELU", b("TRANSPOSE", b("TRANSPOSE", x, perm=NCHW), perm=NHWC)),
        ["RELU"],
    ),
    "chain": (
        move_transposes,
        lambda b, x: b("RELU", b("TRANSPOSE", b("TRANSPOSE", x, perm=NCHW), perm=(0, 1, 3, 2))),
        ["TRANSPOSE", "RELU"],
    ),
    "pair that ties input to output": (
        move_transposes,
        lambda b, x: b("TRANSPOSE", b("TRANSPOSE", x, perm=NCHW), perm=NHWC),
        ["RESHAPE"],
    ),
    "unit axes": (
        move_transposes,
        lambda b, x: b("TRANSPOSE", b("MEAN", x, axes=(1, 2), keep_dims=True), perm=NCHW),
        ["MEAN", "RESHAPE"],
    ),
    "minority operand": (
        move_transposes,
        lambda b, x: b("TRANSPOSE", b("ADD", b("TRANSPOSE", x, perm=NCHW),
                       b("RESHAPE", b("MEAN", x, axes=(1, 2), keep_dims=False), shape=(6, 1, 1)), activation="NONE"),
                       perm=NHWC),
        ["MEAN", "RESHAPE", "RESHAPE", "RESHAPE", "ADD"],
    ),
    "rows and columns repeated, one after the other": (
        repeat_pixels,
        lambda b, x: repeated(b, repeated(b, x, (1, 5, 1, 7, 6), 2, 3, (1, 15, 7, 6)), (1, 15, 7, 1, 6), 3, 2,
                              (1, 15, 14, 6)),
        ["RESIZE_NEAREST_NEIGHBOR"],
    ),
    "columns repeated": (
        repeat_pixels,
        lambda b, x: b("RELU", repeated(b, x, (5, 7, 1, 6), 2, 4, (1, 5, 28, 6))),
        ["RESIZE_NEAREST_NEIGHBOR", "RELU"],
    ),
    "pixels repeated channels first": (
        repeat_pixels,
        lambda b, x: b("TRANSPOSE", b("RESHAPE", b("TILE", b("RESHAPE", b("TRANSPOSE", x, perm=NCHW),
                       shape=(1, 6, 5, 1, 7, 1)), multiples=(1, 1, 1, 2, 1, 3)), shape=(1, 6, 10, 21)), perm=NHWC),
        ["RESIZE_NEAREST_NEIGHBOR"],
    ),
    "the whole picture again": (
        repeat_pixels,
        lambda b, x: b("RELU", b("TILE", x, multiples=(1, 2, 1, 1))),
        ["TILE", "RELU"],
    ),
    "channels repeated": (
        repeat_pixels,
        lambda b, x: repeated(b, x, (1, 5, 7, 6, 1), 4, 2, (1, 5, 7, 12)),
        ["RESHAPE", "TILE", "RESHAPE"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_rewrite(name: str) -> None:
    rewrite, build, expected = CASES[name]
    builder = GraphBuilder()
    graph = builder.output(build(builder, builder.input("x", (1, 5, 7, 6))))
    (output,) = graph.outputs
    before, operators, numbers = graph.copy(), ops(graph), run(graph)
    count = rewrite(graph)
    while rewrite(graph):
        pass
    verify(graph, name)
    assert ops(graph) == expected
    known = held(before)
    for tensor, values in held(graph).items():  # a name says which numbers a tensor holds
        source = stands_for(tensor, known)
        if source is not None:
            np.testing.assert_allclose(values, known[source], rtol=1e-5, atol=1e-5, err_msg=tensor)
    assert count > 0 or operators == expected
    assert (graph.inputs, graph.outputs) == (["x"], [output])
    np.testing.assert_allclose(run(graph)[output], numbers[output], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(run(before)[output], numbers[output])  # the copy shares nothing that was edited


def large_window(b: GraphBuilder, shape: tuple[int, ...], kernel: tuple[int, int], **attrs: object) -> Graph:
    weights = np.random.default_rng(5).normal(0, 0.3, (7, *kernel, shape[3])).astype(np.float32)
    x = b.input("x", shape)
    return b.output(b("CONV_2D", x, weights, ramp(7), **{**WINDOW, "pads": (0, 0, 0, 0), **attrs}))


# operand, kernel, attrs → operators that must be left, kernel that must be left
LARGE_WINDOWS: dict[str, tuple[tuple[int, ...], tuple[int, int], dict[str, object], list[str], tuple[int, int]]] = {
    "patches": ((1, 16, 24, 3), (8, 8), {"strides": (8, 8)}, ["SPACE_TO_DEPTH", "CONV_2D"], (1, 1)),
    "patches that leave a rest": (
        (2, 19, 29, 3), (8, 8), {"strides": (8, 8)}, ["STRIDED_SLICE", "SPACE_TO_DEPTH", "CONV_2D"], (1, 1)
    ),
    "overlapping": (
        (1, 33, 30, 3), (11, 11), {"strides": (4, 4), "pads": (2, 1, 2, 3), "activation": "RELU"},
        ["PAD", "SPACE_TO_DEPTH", "CONV_2D"], (3, 3),
    ),
    "padded and with a rest": (
        (1, 24, 37, 3), (9, 12), {"strides": (6, 6), "pads": (1, 0, 0, 1)},
        ["STRIDED_SLICE", "PAD", "SPACE_TO_DEPTH", "CONV_2D"], (2, 2),
    ),
    "the whole picture": ((1, 9, 9, 5), (9, 9), {}, ["SPACE_TO_DEPTH", "CONV_2D"], (1, 1)),
    "by steps of one": ((1, 11, 13, 5), (9, 9), {}, ["CONV_2D"], (9, 9)),
    "dilated": ((1, 33, 30, 3), (8, 8), {"strides": (2, 2), "dilations": (2, 2)}, ["CONV_2D"], (8, 8)),
    "few taps": ((1, 14, 21, 3), (7, 7), {"strides": (7, 7)}, ["CONV_2D"], (7, 7)),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE_WINDOWS)
def test_large_windows(name: str) -> None:
    shape, kernel, attrs, left, kernel_left = LARGE_WINDOWS[name]
    graph = large_window(GraphBuilder(), shape, kernel, **attrs)
    (output,), numbers = graph.outputs, run(graph)
    assert block_windows(graph) == (kernel != kernel_left)
    assert block_windows(graph) == 0
    verify(graph, name)
    assert ops(graph) == left
    assert graph[graph.nodes[-1].inputs[1] or ""].shape[1:3] == kernel_left
    np.testing.assert_allclose(run(graph)[output], numbers[output], rtol=1e-5, atol=1e-5)


def every(b: GraphBuilder, x: Tensor, axis: int, first: int, step: int = 2) -> Tensor:
    """x[..., first::step, ...] along an axis."""
    begin, end, strides = [0] * 4, list(x.shape), [1] * 4
    begin[axis], strides[axis] = first, step
    return b("STRIDED_SLICE", x, begin=tuple(begin), end=tuple(end), strides=tuple(strides))


def chosen(b: GraphBuilder, x: Tensor, offsets: str, step: int = 2) -> list[Tensor]:
    """x[:, i::step, j::step] for every "ij", rows first."""
    return [every(b, every(b, x, 1, int(o[0]), step), 2, int(o[1]), step) for o in offsets.split()]


# network over x [2,12,18,3] → operators that must be left
FOCUS: dict[str, tuple[Build, list[str]]] = {
    "in TFLite's order": (
        lambda b, x: b("CONCATENATION", *chosen(b, x, "00 01 10 11"), axis=3),
        ["SPACE_TO_DEPTH"],
    ),
    "as YOLOX does": (
        lambda b, x: b("CONCATENATION", *chosen(b, x, "00 10 01 11"), axis=3),
        ["SPACE_TO_DEPTH", "GATHER"],
    ),
    "of nine": (
        lambda b, x: b("CONCATENATION", *chosen(b, x, "00 01 02 10 11 12 20 21 22", 3), axis=3),
        ["SPACE_TO_DEPTH"],
    ),
    "of a crop": (
        lambda b, x: b("CONCATENATION", *chosen(b, b("SLICE", x, begin=(0, 1, 2, 0), size=(2, 10, 14, 2)),
                       "00 01 10 11"), axis=3),
        ["SLICE", "SPACE_TO_DEPTH"],
    ),
    "with parts that others read": (
        lambda b, x: (lambda parts: b("ADD", b("CONCATENATION", *parts, axis=3),
                      b("CONCATENATION", *parts, axis=3), activation="NONE"))(chosen(b, x, "00 01 10 11")),
        ["SPACE_TO_DEPTH", "SPACE_TO_DEPTH", "ADD"],
    ),
    "in one slice each": (
        lambda b, x: b("CONCATENATION", *(
            b("STRIDED_SLICE", x, begin=(0, i, j, 0), end=x.shape, strides=(1, 2, 2, 1))
            for i in (0, 1) for j in (0, 1)), axis=3),
        ["SPACE_TO_DEPTH"],
    ),
    "with an offset twice": (
        lambda b, x: b("CONCATENATION", *chosen(b, x, "00 01 10 10"), axis=3),
        ["STRIDED_SLICE"] * 8 + ["CONCATENATION"],
    ),
    "of three": (
        lambda b, x: b("CONCATENATION", *chosen(b, x, "00 01 10"), axis=3),
        ["STRIDED_SLICE"] * 6 + ["CONCATENATION"],
    ),
    "of every third": (
        lambda b, x: b("CONCATENATION", *chosen(b, x, "00 01 10 11", 3), axis=3),
        ["STRIDED_SLICE"] * 8 + ["CONCATENATION"],
    ),
    "along the width": (
        lambda b, x: b("CONCATENATION", *chosen(b, x, "00 01 10 11"), axis=2),
        ["STRIDED_SLICE"] * 8 + ["CONCATENATION"],
    ),
    "of two tensors": (
        lambda b, x: b("CONCATENATION", *chosen(b, x, "00 01 10"), *chosen(b, b("LOGISTIC", x), "11"), axis=3),
        ["STRIDED_SLICE"] * 6 + ["LOGISTIC"] + ["STRIDED_SLICE"] * 2 + ["CONCATENATION"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOCUS)
def test_focus(name: str) -> None:
    build, expected = FOCUS[name]
    builder = GraphBuilder()
    graph = builder.output(build(builder, builder.input("x", (2, 12, 18, 3))))
    (output,) = graph.outputs
    numbers = run(graph)[output]
    stack_slices(graph)
    verify(graph, name)
    assert ops(graph) == expected
    np.testing.assert_array_equal(run(graph)[output], numbers)


def test_focus_in_front_of_a_convolution_needs_no_gather() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 12, 18, 3))
    graph = builder.output(conv(builder, builder("CONCATENATION", *chosen(builder, x, "00 10 01 11"), axis=3), 5))
    before = run(graph)
    optimise(graph)
    assert ops(graph) == ["SPACE_TO_DEPTH", "CONV_2D"]
    for name in graph.outputs:
        np.testing.assert_allclose(run(graph)[name], before[name], rtol=1e-5, atol=1e-5)


def test_equal_constants_are_stored_once() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 5, 7, 6))
    y = builder("MUL", builder("ADD", x, ramp(6), activation="NONE"), ramp(6), activation="NONE")
    graph = builder.output(y)
    assert merge_duplicates(graph) == 1
    assert sum(tensor.is_constant for tensor in graph.tensors.values()) == 1


def test_an_output_in_the_middle_keeps_its_tensor() -> None:
    builder = GraphBuilder()
    y = conv(builder, builder.input("x", (1, 5, 7, 6)), 8)
    graph = builder.output(y, builder("RELU", y))
    before = run(graph)
    optimise(graph)
    assert ops(graph) == ["CONV_2D", "RELU"]
    after = run(graph)
    for name in graph.outputs:
        np.testing.assert_array_equal(before[name], after[name])


def test_bypass_lets_the_source_take_an_outputs_name() -> None:
    builder = GraphBuilder()
    y = conv(builder, builder.input("x", (1, 5, 7, 6)), 8)
    graph = builder.output(builder("RELU", y, output="wanted"))
    with Editor(graph) as edit:
        assert edit.bypass(graph.nodes[1], graph.nodes[0].outputs[0])
    verify(graph, "bypass")
    assert graph.nodes[0].outputs == graph.outputs == ["wanted"]


def quiet(b: GraphBuilder, x: Tensor, name: str) -> Tensor:
    """x + 0, which goes away."""
    return b("ADD", x, ramp(x.shape[-1]) * 0, activation="NONE", output=name)


# (pass, network over x [1,5,7,6], names of its activations that must be left, in order)
NAMES: dict[str, tuple[Callable[[Graph], int], Build, list[str]]] = {
    "activation": (
        fuse_activation,
        lambda b, x: conv(b, b("RELU", conv(b, x, 8, output="a"), output="b"), 8, output="y"),
        ["x", "b", "y"],
    ),
    "scale": (
        fold_batch_norm,
        lambda b, x: conv(b, b("MUL", conv(b, x, 8, output="a"), ramp(8), activation="NONE", output="b"), 8,
                          output="y"),
        ["x", "b", "y"],
    ),
    "scale, offset and activation": (
        optimise,
        lambda b, x: conv(b, b("RELU", b("ADD", b("MUL", conv(b, x, 8, output="a"), ramp(8), activation="NONE"),
                          ramp(8), activation="NONE", output="bn"), output="b"), 8, output="y"),
        ["x", "b", "y"],
    ),
    "identity of a result": (
        fold_identity,
        lambda b, x: b("TANH", quiet(b, b("LOGISTIC", x, output="a"), "b"), output="y"),
        ["x", "b", "y"],
    ),
    "identity of an input": (
        fold_identity,
        lambda b, x: b("TANH", quiet(b, x, "b"), output="y"),
        ["x", "y"],
    ),
    "identity of a result that others read": (
        fold_identity,
        lambda b, x: (lambda a: b("ADD", a, b("TANH", quiet(b, a, "b"), output="t"), activation="NONE", output="y"))(
            b("LOGISTIC", x, output="a")),
        ["x", "a", "t", "y"],
    ),
    "reshape that a pass put behind": (
        fold_reshape,
        lambda b, x: b("TANH", b("RESHAPE", b("LOGISTIC", x, output="a"), shape=x.shape, output="a/nhwc"), output="y"),
        ["x", "a", "y"],
    ),
    "channels picked": (
        fold_gather,
        lambda b, x: b("TANH", b("GATHER", conv(b, x, 8, output="a"), np.array([7, 0, 3], np.int32), axis=3,
                       output="b"), output="y"),
        ["x", "b", "y"],
    ),
    "channels in another order than the name says": (
        fold_gather,
        lambda b, x: conv(b, b("GATHER", b("TANH", x, output="a"), np.array([2, 0, 5, 1, 3, 4], np.int32), axis=3,
                          output="b"), 8, output="y"),
        ["x", "a", "y"],
    ),
    "shuffle": (
        channel_shuffle,
        lambda b, x: b("TANH", b("RESHAPE", b("TRANSPOSE", b("RESHAPE", x, shape=(1, 5, 7, 2, 3)),
                       perm=(0, 1, 2, 4, 3)), shape=x.shape, output="b"), output="y"),
        ["x", "b", "y"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_results_keep_the_name_that_the_next_operator_reads(name: str) -> None:
    rewrite, build, expected = NAMES[name]
    builder = GraphBuilder()
    graph = builder.output(build(builder, builder.input("x", (1, 5, 7, 6))))
    before = graph.copy()
    rewrite(graph)
    verify(graph, name)
    assert [tensor.name for tensor in graph.activations()] == expected
    before.outputs = graph.outputs = expected[1:]  # what has the same name has the same values
    after = run(graph)
    for output, values in run(before).items():
        np.testing.assert_allclose(after[output], values, rtol=1e-5, atol=1e-5)


def test_large_graphs_take_linear_time() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 4, 6, 3))
    for _ in range(400):
        turned = builder("TRANSPOSE", x, perm=NCHW)
        x = builder("TRANSPOSE", builder("LOGISTIC", turned), perm=NHWC)
        x = conv(builder, x, 3)
    graph = builder.output(x)
    start = time.process_time()
    optimise(graph)
    assert "TRANSPOSE" not in ops(graph)
    assert time.process_time() - start < 3, "1,600 nodes should take well under a second"


def test_products_of_scalars_are_let_be() -> None:
    build = GraphBuilder()
    total = build("SUM", build.input("x", (3, 5)), axes=(0, 1), keep_dims=False)
    graph = build.output(build("MUL", total, np.asarray(2, np.float32), activation="NONE"))
    optimise(graph)
    assert [node.op for node in graph.nodes] == ["SUM", "MUL"]
