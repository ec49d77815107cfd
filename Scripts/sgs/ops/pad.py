"""PAD, PADV2 and MIRROR_PAD: the operand with more values around it. Attr `paddings`: (before, after) for every axis.

PAD fills with real 0, PADV2 with real number attr `value`, MIRROR_PAD with the operand's own values by attr `mode`:
REFLECT leaves the edge out, SYMMETRIC repeats it. In fixed graphs the fill is the code of the real number (eq. 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array, dequantise, quantise
from sgs.numeric.types import DType
from sgs.ops._marker import is_marker
from sgs.ops._move import add_move, all_rank_4, axis_in, border_grain
from sgs.registry import (
    EXAMPLES,
    IMPORT_ONNX,
    INFER,
    LAYOUT,
    ONNX_EXAMPLES,
    RANGE_FROM,
    SIM,
    Box,
    ImportContext,
    Layout,
    Lowering,
    Moved,
    OnnxCase,
    Part,
    SimConstant,
    SimRow,
    TileRow,
)

Paddings = tuple[tuple[int, int], ...]
_NUMPY_MODE: dict[str, Literal["reflect", "symmetric"]] = {"REFLECT": "reflect", "SYMMETRIC": "symmetric"}
_MARKER = 0.9999e4  # from here on (BERT's -1e4, float16's -65504, float32's lowest) a fill is no value but a marker
_LEAST_REAL = float(np.finfo(np.float32).min)


@INFER.row("PAD", "PADV2", "MIRROR_PAD")
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    x, paddings = operands[0], node.attrs["paddings"]
    assert x is not None
    if len(paddings) != len(x.shape) or any(amount < 0 for pair in paddings for amount in pair):
        raise ValueError(f"paddings {paddings} do not fit shape {x.shape}")
    if node.op == "MIRROR_PAD":
        room = [d - (node.attrs["mode"] == "REFLECT") for d in x.shape]
        if any(max(pair) > most for pair, most in zip(paddings, room, strict=True)):
            raise ValueError(f"shape {x.shape} is too small to mirror {paddings}")
    return [(tuple(d + before + after for d, (before, after) in zip(x.shape, paddings, strict=True)), x.dtype)]


@LAYOUT.row("PAD", "PADV2", "MIRROR_PAD")
def layout(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved:
    """Every axis keeps its paddings."""
    paddings = node.attrs["paddings"]
    return Moved({**node.attrs, "paddings": tuple(paddings[i] for i in np.argsort(perm))}, (perm,))


# -- meaning ---------------------------------------------------------------------------------------------------------
def fill_of(node: Node, result: Tensor) -> Array:
    """The padded value, a scalar in the result's element type."""
    real = np.asarray(node.attrs.get("value", 0.0))
    if result.quant is None:
        return real.astype(result.dtype.numpy)
    return quantise(real.astype(np.float32), result.quant, result.dtype)


def _lower(low: Lowering, node: Node, values: list[str], layout: Layout) -> list[str]:
    result = low.graph[node.outputs[0]]
    fill = fill_of(node, result)
    if result.dtype is DType.INT16:  # onnxruntime has no Pad of int16
        return [_lower_by_concat(low, node, values[0], fill, layout)]
    order = np.argsort([axis_in(axis, layout) for axis in range(len(result.shape))])
    pairs = np.array(node.attrs["paddings"], np.int64)[order]
    return [low.op("Pad", [values[0], low.const(pairs.T.reshape(-1)), low.const(fill)])]


def _lower_by_concat(low: Lowering, node: Node, value: str, fill: Array, layout: Layout) -> str:
    x = low.graph[node.inputs[0] or ""]
    shape = [0] * len(x.shape)
    for axis, extent in enumerate(x.shape):
        shape[axis_in(axis, layout)] = extent
    for native, (before, after) in enumerate(node.attrs["paddings"]):
        axis = axis_in(native, layout)
        ends = [np.full((*shape[:axis], n, *shape[axis + 1 :]), fill) for n in (before, after)]
        front, back = (low.const(block) if block.size else "" for block in ends)
        blocks = [block for block in (front, value, back) if block]
        if len(blocks) > 1:
            value = low.op("Concat", blocks, axis=axis)
        shape[axis] += before + after
    return value


def _pad(node: Node, arrays: list[Array], results: Sequence[Tensor]) -> list[Array]:
    return [np.pad(arrays[0], node.attrs["paddings"], constant_values=fill_of(node, results[0]))]


def _lower_mirror(low: Lowering, node: Node, values: list[str], layout: Layout) -> list[str]:
    value = values[0]
    for axis, (pair, extent) in enumerate(
        zip(node.attrs["paddings"], low.graph[node.inputs[0] or ""].shape, strict=True)
    ):
        if any(pair):
            indices = np.pad(np.arange(extent), pair, _NUMPY_MODE[node.attrs["mode"]])
            value = low.op("Gather", [value, low.const(indices)], axis=axis_in(axis, layout))
    return [value]


def _mirror(node: Node, arrays: list[Array], results: Sequence[Tensor]) -> list[Array]:
    return [np.pad(arrays[0], node.attrs["paddings"], _NUMPY_MODE[node.attrs["mode"]])]


def _first(node: Node) -> Sequence[int]:
    return (0,)


def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """Every axis, in pieces of which none is padding alone; where it is mirrored, a border and its image are one
    piece."""
    mode = str(node.attrs.get("mode"))

    def least(amount: int) -> int:
        return max(amount + {"REFLECT": amount + 1, "SYMMETRIC": amount}.get(mode, 1), 1)

    pairs = zip(node.attrs["paddings"], results[0].shape, strict=True)
    return {a: border_grain(extent, least(pair[0]), least(pair[1])) for a, (pair, extent) in enumerate(pairs)}


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    x = operands[0]
    assert x is not None
    read, paddings = [], []
    for (first, last), (before, _), extent in zip(box, node.attrs["paddings"], x.shape, strict=True):
        begin, end = max(first - before, 0), min(last - before, extent)
        read.append((begin, end))
        paddings.append((begin - (first - before), last - before - end))
    return Part((tuple(read),), {**node.attrs, "paddings": tuple(paddings)})


_TILE = TileRow(_axes, _part)
add_move("PAD", "zeros around a tensor", _lower, _pad, moved=_first, any_layout=all_rank_4, tile=_TILE)
add_move("PADV2", "a constant around a tensor", _lower, _pad, moved=_first, any_layout=all_rank_4, tile=_TILE)


@RANGE_FROM.row("PADV2")
def range_from(node: Node, operands: Sequence[Tensor | None]) -> int | None:
    """The operand where the fill is a marker, such as the lowest float in front of a max pool."""
    return 0 if is_marker(node.attrs["value"], _MARKER) else None


add_move(
    "MIRROR_PAD",
    "a tensor's own values mirrored around it",
    _lower_mirror,
    _mirror,
    moved=_first,
    any_layout=all_rank_4,
    tile=_TILE,
)


# -- .sim ------------------------------------------------------------------------------------------------------------
_MODES = ("REFLECT", "SYMMETRIC")
SIM.add("PAD", SimRow("PadOptions", constant_inputs={1: "paddings"}))


def _make_value(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Tensor:
    """PADV2's value as the file has it: one element in the type and parameters of the result."""
    result = results[0]
    return Tensor("value", (1,), result.dtype, fill_of(node, result).reshape(1), result.quant)


def _read_value(constant: Tensor) -> dict[str, Any]:
    if constant.data is None or constant.elements != 1:
        raise ValueError("the padded value is not one number")
    real = constant.data if constant.quant is None else dequantise(constant.data, constant.quant)
    return {"value": float(real.reshape(-1)[0])}


SIM.add(
    "PADV2",
    SimRow(
        "PadV2Options", constant_inputs={1: "paddings"}, file_inputs={2: SimConstant("value", _make_value, _read_value)}
    ),
)


def _encode_mode(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[str, Any]:
    return {"mode": _MODES.index(node.attrs["mode"])}


def _decode_mode(
    options: dict[str, Any], operands: Sequence[Tensor | None], results: Sequence[Tensor]
) -> dict[str, Any]:
    return {"mode": _MODES[options["mode"]]}


SIM.add(
    "MIRROR_PAD", SimRow("MirrorPadOptions", constant_inputs={1: "paddings"}, encode=_encode_mode, decode=_decode_mode)
)


# -- ONNX import -----------------------------------------------------------------------------------------------------
def _paddings(ctx: ImportContext, rank: int) -> Paddings:
    """(before, after) per axis, negative where values are cut off."""
    if ctx.attrs.get("pads") is not None or ctx.attrs.get("paddings") is not None:  # opset 2, opset 1
        flat = np.asarray(ctx.attrs.get("pads", ctx.attrs.get("paddings")), np.int64)
    else:
        constant = ctx.constant(1, "pads")
        if constant is None:
            raise ctx.refuse("Pad without pads")
        flat = constant.astype(np.int64).reshape(-1)
    axes = ctx.constant(3, "axes") if len(ctx.inputs) > 3 else None
    where = range(rank) if axes is None else [int(a) % rank for a in axes.reshape(-1)]
    if flat.size != 2 * len(where):
        raise ctx.refuse(f"{flat.size} pads for {len(where)} axes")
    pairs = [(0, 0)] * rank
    for axis, before, after in zip(where, flat[: len(where)], flat[len(where) :], strict=True):
        pairs[axis] = (int(before), int(after))
    return tuple(pairs)


def _crop(ctx: ImportContext, x: Tensor, paddings: Paddings) -> Tensor:
    """Negative pads cut values off."""
    begin = tuple(max(-before, 0) for before, _ in paddings)
    end = tuple(d - max(-after, 0) for d, (_, after) in zip(x.shape, paddings, strict=True))
    if any(b >= e for b, e in zip(begin, end, strict=True)):
        raise ctx.refuse(f"pads {paddings} leave nothing of shape {x.shape}")
    if begin == (0,) * len(begin) and end == x.shape:
        return x
    return ctx.emit("STRIDED_SLICE", x, begin=begin, end=end, strides=(1,) * len(begin))


def _constant_value(ctx: ImportContext) -> float:
    if len(ctx.inputs) > 2 and ctx.inputs[2] is not None:
        constant = ctx.constant(2, "constant_value")
        value = 0.0 if constant is None or not constant.size else float(constant.reshape(-1)[0])
    else:
        value = float(ctx.attrs.get("value", 0.0) or 0.0)
    return max(value, _LEAST_REAL)  # -inf in front of a max pool


def _by_gather(ctx: ImportContext, x: Tensor, paddings: Paddings, mode: Literal["reflect", "edge", "wrap"]) -> Tensor:
    for axis, pair in enumerate(paddings):
        if any(pair):
            indices = np.pad(np.arange(x.shape[axis], dtype=np.int32), pair, mode)
            x = ctx.emit("GATHER", x, indices, axis=axis)
    return x


@IMPORT_ONNX.row("Pad")
def import_pad(ctx: ImportContext) -> list[Tensor]:
    """Modes constant, reflect, edge and wrap; what MIRROR_PAD cannot express becomes GATHER."""
    x = ctx.inputs[0]
    mode: Any = ctx.attrs.get("mode", "constant") or "constant"
    assert x is not None
    paddings = _paddings(ctx, len(x.shape))
    x = _crop(ctx, x, paddings)
    paddings = tuple((max(before, 0), max(after, 0)) for before, after in paddings)
    if not any(any(pair) for pair in paddings):
        return [x]
    if mode == "constant":
        value = _constant_value(ctx)
        return [
            ctx.emit("PADV2", x, paddings=paddings, value=value) if value else ctx.emit("PAD", x, paddings=paddings)
        ]
    if mode == "reflect" and all(max(pair) < d for pair, d in zip(paddings, x.shape, strict=True)):
        return [ctx.emit("MIRROR_PAD", x, paddings=paddings, mode="REFLECT")]
    if mode not in ("reflect", "edge", "wrap"):
        raise ctx.refuse(f"pad mode {mode}")
    return [_by_gather(ctx, x, paddings, mode)]


_PADS = np.array([0, 0, 1, 2, 0, 3, 2, 0])
ONNX_EXAMPLES.add(
    "Pad",
    [
        OnnxCase("Pad", {"x": (1, 5, 7, 6)}, attrs={"pads": _PADS.tolist(), "value": 0.5}, opset=9),
        OnnxCase("Pad", {"x": (1, 5, 7, 6)}, {"p": _PADS}, opset=11),
        OnnxCase("Pad", {"x": (1, 5, 7, 6)}, {"p": _PADS, "v": np.array(-1.5, np.float32)}, opset=13),
        OnnxCase(
            "Pad",
            {"x": (1, 5, 7, 6)},
            {"p": np.array([1, -2, 2, 0]), "v": np.array(2, np.float32), "a": np.array([-1, 2])},
            opset=18,
        ),
        OnnxCase("Pad", {"x": (1, 5, 7, 6)}, {"p": np.array([0, 0, 2, 3, 0, 0, 1, 4])}, {"mode": "reflect"}),
        OnnxCase("Pad", {"x": (1, 5, 7, 6)}, {"p": _PADS}, {"mode": "edge"}),
        OnnxCase("Pad", {"x": (1, 5, 7, 6)}, {"p": np.array([0, 0, 0, 2, 0, 0, 0, 1])}, {"mode": "wrap"}, opset=19),
        OnnxCase("Pad", {"x": (5, 7)}, {"p": np.array([1, 0, 0, 2])}),
    ],
)


def _example(op: str, shape: tuple[int, ...], paddings: Paddings, **attrs: Any) -> Graph:
    build = GraphBuilder()
    return build.output(build(op, build.input("x", shape), output="y", paddings=paddings, **attrs))


_NHWC: Paddings = ((0, 0), (1, 2), (3, 0), (0, 0))


def _pooled() -> Graph:
    """The fill loses against every value, and the result keeps the operand's range."""
    build = GraphBuilder()
    x = build("PADV2", build.input("x", (1, 5, 7, 6)), paddings=((0, 0), (1, 1), (1, 0), (0, 0)), value=-65504.0)
    window: dict[str, Any] = {"kernel": (3, 2), "strides": (2, 1), "pads": (0, 0, 0, 0), "activation": "NONE"}
    return build.output(build("MAX_POOL_2D", x, output="y", **window))


EXAMPLES.add(
    "PAD",
    lambda: [
        _example("PAD", (1, 5, 7, 6), _NHWC),
        _example("PAD", (1, 5, 7, 6), ((0, 0), (0, 1), (1, 0), (2, 3))),
        _example("PAD", (2, 11, 9, 3), ((0, 0), (1, 2), (2, 1), (0, 0))),
        _example("PAD", (5, 7), ((1, 0), (0, 2))),
    ],
)
EXAMPLES.add(
    "PADV2",
    lambda: [
        _example("PADV2", (1, 5, 7, 6), _NHWC, value=-0.75),
        _example("PADV2", (1, 5, 7, 6), _NHWC, value=-1000.0),
        _example("PADV2", (1, 12, 7, 3), ((1, 0), (1, 1), (1, 2), (0, 1)), value=1.25),
        _pooled(),
        _example("PADV2", (2, 5, 7), ((0, 0), (1, 1), (0, 2)), value=0.5),
    ],
)
EXAMPLES.add(
    "MIRROR_PAD",
    lambda: [
        _example("MIRROR_PAD", (1, 5, 7, 6), ((0, 0), (1, 4), (3, 0), (0, 0)), mode="REFLECT"),
        _example("MIRROR_PAD", (1, 5, 7, 6), ((0, 0), (1, 5), (3, 0), (2, 0)), mode="SYMMETRIC"),
        _example("MIRROR_PAD", (1, 17, 11, 3), ((0, 0), (2, 1), (1, 3), (0, 0)), mode="REFLECT"),
        _example("MIRROR_PAD", (2, 14, 15, 3), ((0, 0), (1, 2), (3, 1), (0, 0)), mode="SYMMETRIC"),
        _example("MIRROR_PAD", (5, 7), ((1, 0), (0, 2)), mode="REFLECT"),
    ],
)
