"""TRANSPOSE_CONV: every input value adds a scaled kernel to the result.

x [N,H,W,I], weight [O,KH,KW,I], bias [O] or absent → [N,OH,OW,O]. Attrs: strides (h, w), size (OH, OW), pads
(top, left, bottom, right), activation. The full result has (H-1)·stride + K rows; `pads` says how many of them are cut
off, negative at the bottom and right where the result goes on beyond it (with the bias alone), by less than a stride.
.sim knows two kinds of pads: nothing cut off (VALID), or SAME, see `same_crop`.

The rows of the result fall into stride classes that never meet in one sum: class p takes the kernel's rows p,
p + stride ... Each class is an ordinary convolution, so the operator is also one convolution with O · stride² channels
whose results are then interleaved; and a sum has ceil(K / stride)² · I products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._layout import fixed
from sgs.ops._mac import MAC_LIMITS, accumulate, activation_float, bias_of, finish, publish, qlinear_conv
from sgs.ops._move import border_grain
from sgs.ops._window import mean_window, parted, window_node, window_rows
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FIXED,
    FLOAT,
    INFER,
    LAYOUT,
    MATRIX,
    OPERATOR,
    QUANTISE,
    REFERENCE,
    SIM,
    TILE,
    Box,
    Cost,
    Lowering,
    MatrixForm,
    OperatorInfo,
    Part,
    QuantRule,
    SimConstant,
    SimRow,
    TileRow,
    whole_box,
)

OP = "TRANSPOSE_CONV"
Pads = tuple[int, int, int, int]
OPERATOR.add(OP, OperatorInfo("both", "transposed 2-D convolution", window=True))
QUANTISE.add(OP, QuantRule("mac", channel_axis=0))
LAYOUT.add(OP, fixed)
CONSTRAINTS.add(OP, MAC_LIMITS)


@MATRIX.row(OP)
def matrix_form(node: Node, x: Tensor, weight: Tensor, result: Tensor) -> MatrixForm:
    """A row is the window that an ordinary convolution with the kernel turned round sees, the operand's values being
    a stride apart and zeros between them.
    """
    (sh, sw), (kh, kw), (top, left, bottom, right) = node.attrs["strides"], weight.shape[1:3], node.attrs["pads"]
    pads = (kh - 1 - top, kw - 1 - left, kh - 1 - bottom, kw - 1 - right)
    window = Node(OP, [], [], window_node(pads=tuple(max(pad, 0) for pad in pads)))

    def apart(values: Array) -> Array:
        shape = (len(values), (x.shape[1] - 1) * sh + 1, (x.shape[2] - 1) * sw + 1, x.shape[3])
        spread = np.zeros(shape, values.dtype)
        spread[:, ::sh, ::sw] = values
        cut = [max(-pad, 0) for pad in pads]
        return spread[:, cut[0] : shape[1] - cut[2], cut[1] : shape[2] - cut[3]]

    def rows(values: Array, chosen: Array) -> Array:
        return window_rows(apart(values), window, (kh, kw), chosen).reshape(len(chosen), 1, -1)

    def mean(values: Array) -> Array:
        return mean_window(apart(values), window, (kh, kw)).reshape(1, -1)

    def matrix(data: Array) -> Array:
        return data[:, ::-1, ::-1].reshape(1, len(data), -1).transpose(0, 2, 1)

    def weights(data: Array) -> Array:
        return data.transpose(0, 2, 1).reshape(weight.shape)[:, ::-1, ::-1]

    return MatrixForm(result.shape[1] * result.shape[2], rows, mean, matrix, weights)


# -- shapes ----------------------------------------------------------------------------------------------------------
def full_extent(extent: int, kernel: int, stride: int) -> int:
    """Rows of the result before anything is cut off."""
    return (extent - 1) * stride + kernel


def crop(
    extents: Sequence[int], kernel: Sequence[int], strides: Sequence[int], size: Sequence[int], start: Sequence[int]
) -> Pads:
    """Pads that leave `size` (h, w) from `start` (top, left)."""
    after = [full_extent(extents[i], kernel[i], strides[i]) - start[i] - size[i] for i in range(2)]
    return start[0], start[1], after[0], after[1]


def valid_crop(
    extents: Sequence[int], kernel: Sequence[int], strides: Sequence[int], size: Sequence[int]
) -> Pads | None:
    """What TFLite's VALID cuts off: nothing. None where `size` is smaller than the full result or a stride larger."""
    pads = crop(extents, kernel, strides, size, (0, 0))
    return pads if all(-stride < pad <= 0 for pad, stride in zip(pads[2:], strides, strict=True)) else None


def same_crop(
    extents: Sequence[int], kernel: Sequence[int], strides: Sequence[int], size: Sequence[int]
) -> Pads | None:
    """What TFLite's SAME cuts off: half of what is too much, the odd one at the end.

    None unless size / stride, rounded up, is the operand's extent.
    """
    if any(-(-size[i] // strides[i]) != extents[i] for i in range(2)):
        return None
    spare = [max(full_extent(extents[i], kernel[i], strides[i]) - size[i], 0) for i in range(2)]
    return crop(extents, kernel, strides, size, [parted(s)[0] for s in spare])


def padding_of(node: Node, x: Tensor, weight: Tensor) -> str:
    """VALID or SAME. Raises ValueError for pads that are neither or that do not give `size`."""
    pads, size, strides, kernel = node.attrs["pads"], node.attrs["size"], node.attrs["strides"], weight.shape[1:3]
    if tuple(pads) == valid_crop(x.shape[1:3], kernel, strides, size):
        return "VALID"
    if tuple(pads) == same_crop(x.shape[1:3], kernel, strides, size):
        return "SAME"
    raise ValueError(
        f"pads {pads} are neither VALID nor SAME for inputs of {x.shape[1:3]}, kernels of {kernel}, results of {size}"
    )


@INFER.row(OP)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    x, weight = operands[0], operands[1]
    assert x is not None and weight is not None
    pads, size, strides, kernel = node.attrs["pads"], node.attrs["size"], node.attrs["strides"], weight.shape[1:3]
    within = min(pads[:2]) >= 0 and all(-stride < pad for pad, stride in zip(pads[2:], strides, strict=True))
    if not within or tuple(pads) != crop(x.shape[1:3], kernel, strides, size, pads[:2]):
        raise ValueError(f"pads {pads} do not leave {size} of inputs of {x.shape[1:3]} and kernels of {kernel}")
    if x.shape[3] != weight.shape[3]:
        raise ValueError(f"{x.shape[3]} channels do not fit a weight of shape {weight.shape}")
    height, width = node.attrs["size"]
    return [((x.shape[0], height, width, weight.shape[0]), x.dtype)]


# -- .sim: operands (result shape, weight, x, bias) ------------------------------------------------------------------
def _encode(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[str, Any]:
    x, weight = operands[0], operands[1]
    assert x is not None and weight is not None
    height, width = node.attrs["strides"]
    return {"padding": padding_of(node, x, weight), "stride_h": height, "stride_w": width}


def _decode(options: dict[str, Any], operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[str, Any]:
    x, weight = operands[0], operands[1]
    assert x is not None and weight is not None
    strides, size, kernel = (options["stride_h"], options["stride_w"]), results[0].shape[1:3], weight.shape[1:3]
    find = same_crop if options["padding"] == "SAME" else valid_crop
    pads = find(x.shape[1:3], kernel, strides, size)
    if pads is None:
        raise ValueError(f"padding {options['padding']} does not give {size} from {x.shape[1:3]}")
    return {"strides": strides, "size": tuple(size), "pads": pads}


def _result_shape(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Tensor:
    return Tensor("shape", (4,), DType.INT32, np.array(results[0].shape, np.int32))


SIM.add(
    OP,
    SimRow(
        "TransposeConvOptions",
        activation=True,
        file_inputs={0: SimConstant("shape", _result_shape, lambda constant: {})},
        order=(1, 0, 2),
        encode=_encode,
        decode=_decode,
    ),
)


# -- engine ----------------------------------------------------------------------------------------------------------
def _scatter(low: Lowering, node: Node, value: str, weight: Array, bias: Array | None) -> str:
    """onnxruntime's ConvTranspose, channels first; weight [O,KH,KW,I] and bias [O] binary32."""
    top, left, bottom, right = node.attrs["pads"]
    kernel = low.const(np.ascontiguousarray(weight.transpose(3, 0, 1, 2)))
    return str(
        low.op(
            "ConvTranspose",
            [value, kernel, *([] if bias is None else [low.const(bias)])],
            kernel_shape=list(weight.shape[1:3]),
            strides=list(node.attrs["strides"]),
            pads=[top, left, max(bottom, 0), max(right, 0)],
            output_padding=[max(-bottom, 0), max(-right, 0)],
        )
    )


@FLOAT.row(OP)
def lower_float(low: Lowering, node: Node) -> None:
    weight = low.graph[node.inputs[1] or ""]
    assert weight.data is not None
    bias = bias_of(low, node, weight.shape[0]).astype(np.float32)
    value = _scatter(low, node, low.real(node.inputs[0] or "", "first"), weight.data, bias)
    low.put_real(node.outputs[0], activation_float(low, node, value), "first")


def stride_kernels(weight: Array, strides: Sequence[int]) -> Array:
    """Weight [O,KH,KW,I] as kernels of the stride classes: [SH·SW·O, I, ceil(KH/SH), ceil(KW/SW)], turned by 180°."""
    (channels, height, width, depth), (sh, sw) = weight.shape, strides
    taps_h, taps_w = -(-height // sh), -(-width // sw)
    padded = np.zeros((channels, taps_h * sh, taps_w * sw, depth), weight.dtype)
    padded[:, :height, :width] = weight
    parted = padded.reshape(channels, taps_h, sh, taps_w, sw, depth)[:, ::-1, :, ::-1]
    return np.ascontiguousarray(parted.transpose(2, 4, 0, 5, 1, 3)).reshape(sh * sw * channels, depth, taps_h, taps_w)


def whole_kernel(parts: Array, strides: Sequence[int], shape: Sequence[int]) -> Array:
    """Inverse of `stride_kernels`: the weight of `shape` [O,KH,KW,I]."""
    (channels, height, width, depth), (sh, sw), (taps_h, taps_w) = shape, strides, parts.shape[2:]
    parted = parts.reshape(sh, sw, channels, depth, taps_h, taps_w).transpose(2, 4, 0, 5, 1, 3)[:, ::-1, :, ::-1]
    return parted.reshape(channels, taps_h * sh, taps_w * sw, depth)[:, :height, :width]


@FIXED.row(OP)
def lower_fixed(low: Lowering, node: Node) -> None:
    """UINT8 → UINT8: QLinearConv with the stride classes as channels, interleaved. Else ConvTranspose of integers."""
    x, weight, y = low.graph[node.inputs[0] or ""], low.graph[node.inputs[1] or ""], low.graph[node.outputs[0]]
    strides, channels = node.attrs["strides"], weight.shape[0]
    classes = int(np.prod(strides))
    assert weight.data is not None
    kernel = stride_kernels(weight.data, strides)
    bias = np.tile(bias_of(low, node, channels).astype(np.int64), classes)
    if x.dtype is DType.UINT8 and y.dtype is DType.UINT8:
        grid, pads = _grid(node, x.shape[1:3], kernel.shape[2:])
        attrs: dict[str, Any] = {"kernel_shape": list(kernel.shape[2:]), "pads": pads}
        value = qlinear_conv(low, node, low.codes(x.name), kernel, bias, **attrs)
        low.put(y.name, _interleave(low, node, value, grid))
        return

    def product(value: str, part: Array, offset: Array | None) -> str:
        whole = whole_kernel(part, strides, weight.shape)
        return _scatter(low, node, value, whole, None if offset is None else offset[:channels])

    publish(low, node, accumulate(low, x, kernel, bias, product, "first", repeats=classes), "first")


def _grid(node: Node, extents: Sequence[int], taps: Sequence[int]) -> tuple[tuple[int, int], list[int]]:
    """Rows and columns of every class to compute, from the first that is wanted, and the zeros this puts around x."""
    grid, before, after = [], [], []
    for axis in range(2):
        stride, size, start = node.attrs["strides"][axis], node.attrs["size"][axis], node.attrs["pads"][axis]
        before.append(taps[axis] - 1 - start // stride)
        after.append(max((start + size - 1) // stride - extents[axis] + 1, 0))
        grid.append(extents[axis] + before[axis] + after[axis] - taps[axis] + 1)
    return (grid[0], grid[1]), [*before, *after]


def _interleave(low: Lowering, node: Node, value: str, grid: tuple[int, int]) -> str:
    """Classes [SH, SW, O] in the channels of an NHWC value → pixels, cropped to the node's result."""
    (sh, sw), (rows, columns) = node.attrs["strides"], grid
    batch, height, width, channels = low.graph[node.outputs[0]].shape
    split, whole = (batch, rows, columns, sh, sw, channels), (batch, rows * sh, columns * sw, channels)
    value = low.op("Reshape", [value, low.const(np.array(split, np.int64))])
    value = low.op("Transpose", [value], perm=[0, 1, 3, 2, 4, 5])
    value = low.op("Reshape", [value, low.const(np.array(whole, np.int64))])
    top, left = node.attrs["pads"][0] % sh, node.attrs["pads"][1] % sw
    if (top, left, rows * sh, columns * sw) == (0, 0, height, width):
        return value
    bounds = [low.const(np.array(v, np.int64)) for v in ((top, left), (top + height, left + width), (1, 2))]
    return str(low.op("Slice", [value, *bounds]))


@REFERENCE.row(OP)
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    """acc = Σ (q_x - z_x) q_w + bias, int64, added up tap by tap on the full result; then eq. 7."""
    x, weight, tensor = values[0], values[1], operands[0]
    bias = values[2] if len(values) > 2 else None
    assert x is not None and weight is not None and tensor is not None and tensor.quant is not None
    centred, wide = x.astype(np.int64) - int(tensor.quant.zero_point[0]), weight.astype(np.int64)
    (top, left, _, _), (sh, sw), (height, width) = node.attrs["pads"], node.attrs["strides"], node.attrs["size"]
    batch, rows, columns, _ = x.shape
    channels, kh, kw, _ = weight.shape
    full = np.zeros(
        (batch, max(rows * sh + kh, top + height), max(columns * sw + kw, left + width), channels), np.int64
    )
    for ky in range(kh):
        for kx in range(kw):
            full[:, ky : ky + rows * sh : sh, kx : kx + columns * sw : sw] += centred @ wide[:, ky, kx].T
    acc = full[:, top : top + height, left : left + width] + (0 if bias is None else bias.astype(np.int64))
    return [finish(node, acc, operands, results[0])]


@COST.row(OP)
def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """Products of every position of the operand with every tap."""
    x, weight = operands[0], operands[1]
    assert x is not None and weight is not None
    outputs, kh, kw, inputs = weight.shape
    return Cost.of_products(1, inputs, outputs, x.elements // inputs * kh * kw)


# -- tiles -----------------------------------------------------------------------------------------------------------
def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """Pictures, rows, columns and channels, in pieces of which none lies beyond the full result alone."""
    beyond = [max(-pad, 0) for pad in node.attrs["pads"][2:]]
    pixels = {i + 1: border_grain(results[0].shape[i + 1], 1, beyond[i] + 1) for i in range(2)}
    return {0: 1, **pixels, 3: 1}


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    """The operand's rows whose kernels meet the box; its first row is at or above the box's first."""
    x, weight = operands[0], operands[1]
    assert x is not None and weight is not None
    strides, kernel, read, start = node.attrs["strides"], weight.shape[1:3], [], []
    for i in range(2):
        first, last = box[i + 1][0] + node.attrs["pads"][i], box[i + 1][1] + node.attrs["pads"][i] - 1
        begin = max(min(-((kernel[i] - 1 - first) // strides[i]), first // strides[i]), 0)
        read.append((begin, min(last // strides[i] + 1, x.shape[i + 1])))
        start.append(first - begin * strides[i])
    size = tuple(end - begin for begin, end in box[1:3])
    pads = crop([end - begin for begin, end in read], kernel, strides, size, start)
    rest = tuple(None if t is None else (box[3],) for t in operands[2:])
    operand_boxes = ((box[0], *read, (0, x.shape[3])), (box[3], *whole_box(weight.shape)[1:]), *rest)
    return Part(operand_boxes, {**node.attrs, "size": size, "pads": pads})


TILE.add(OP, TileRow(_axes, _part))


def _example(
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    strides: tuple[int, int],
    size: tuple[int, int],
    same: bool,
    **attrs: Any,
) -> Graph:
    rng = np.random.default_rng(sum(weight))
    build = GraphBuilder()
    pads = (same_crop if same else valid_crop)(shape[1:3], weight[1:3], strides, size)
    bias = rng.normal(0, 0.3, weight[0]).astype(np.float32) if attrs.pop("bias", True) else None
    data = rng.normal(0, 0.3, weight).astype(np.float32)
    attrs = {"activation": "NONE", **attrs, "strides": strides, "size": size, "pads": pads}
    return build.output(build(OP, build.input("x", shape), data, bias, output="y", **attrs))


EXAMPLES.add(
    OP,
    lambda: [
        _example((1, 5, 7, 6), (4, 2, 2, 6), (2, 2), (10, 14), same=False, activation="RELU"),
        _example((1, 5, 7, 6), (3, 4, 4, 6), (2, 2), (10, 14), same=True, activation="RELU6"),
        _example((2, 4, 5, 6), (3, 3, 5, 6), (2, 3), (9, 17), same=False, bias=False),
        _example((1, 4, 5, 3), (7, 3, 3, 3), (1, 1), (4, 5), same=True),
        _example((1, 4, 5, 3), (5, 2, 3, 3), (3, 2), (13, 12), same=False),
        _example((1, 6, 4, 3), (5, 1, 2, 3), (3, 3), (18, 11), same=False),  # rows between the kernels
    ],
)
