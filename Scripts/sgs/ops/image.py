"""NORMALISE_IMAGE: the first step of a fixed network that is fed pictures.

Picture [N,H',W',C'] UINT8 in the board's channel order, table [256,C] in the result's type → codes [N,H,W,C] of the
normalised picture in the network's channel order. Attr `size` (H, W): how much of the picture, from its first row and
column, is looked at; the rest is alignment. Attr `order`: result channel c is looked up from picture channel order[c],
other channels (alpha) are not looked at; attr `axis` is where the channels are (3, or 1 for a picture held as
[N,C,H,W]). The table holds quantise((p - mean_c) / std_c) for every pixel value p (docs/NUMERICS.md §6), so any mean
and std are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array, QuantParams, activation_params, quantise
from sgs.numeric.table import apply_channel_tables
from sgs.numeric.types import DType
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    HOST,
    INFER,
    OPERATOR,
    REFERENCE,
    SIM,
    TILE,
    Box,
    Cost,
    HostRow,
    OperatorInfo,
    Part,
    SimRow,
    TileRow,
    whole_box,
)

OP = "NORMALISE_IMAGE"
OPERATOR.add(OP, OperatorInfo("fixed", "picture to codes: channel order, mean and std by look-up per channel"))
SIM.add(OP, SimRow(custom=True))


def normalisation_table(mean: Sequence[float], std: Sequence[float], params: QuantParams, dtype: DType) -> Array:
    """[256, C] codes of (p - mean) / std, computed in binary64 and quantised by eq. 4."""
    pixels = np.arange(256, dtype=np.float64)[:, None]
    return quantise((pixels - np.asarray(mean, np.float64)) / np.asarray(std, np.float64), params, dtype)


@INFER.row(OP)
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    """Raises ValueError for a size or channels that the picture does not have."""
    x, table, attrs = operands[0], operands[1], node.attrs
    assert x is not None and table is not None
    size, order = tuple(attrs["size"]), attrs["order"]
    held = [extent for axis, extent in enumerate(x.shape) if axis not in (0, attrs["axis"])]
    if any(wanted > extent for wanted, extent in zip(size, held, strict=True)):
        raise ValueError(f"size {size} of a picture of shape {x.shape}")
    if max(order) >= x.shape[attrs["axis"]]:
        raise ValueError(f"channels {tuple(order)} of a picture of shape {x.shape}")
    shape = (x.shape[0], *size, len(order)) if attrs["axis"] == 3 else (x.shape[0], len(order), *size)
    return [(shape, table.dtype)]


def _seen(node: Node) -> tuple[slice, ...]:
    """The part of a picture that is looked at, all of its channels."""
    size = [slice(extent) for extent in node.attrs["size"]]
    return (slice(None), *size) if node.attrs["axis"] == 3 else (slice(None), slice(None), *size)


@REFERENCE.row(OP)
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    picture, table = values[0], values[1]
    assert picture is not None and table is not None
    axis = node.attrs["axis"]
    seen = picture[_seen(node)]
    channels = [table[np.take(seen, source, axis), channel] for channel, source in enumerate(node.attrs["order"])]
    return [np.stack(channels, axis)]


def _make(graph: Graph, node: Node) -> Callable[[list[Array], list[Array]], None]:
    """Channels last: one look-up over all channels (0.3 ns an element); channels first: one a channel."""
    table, order, seen = graph[node.inputs[1] or ""].data, node.attrs["order"], _seen(node)
    assert table is not None

    def interleaved(inputs: list[Array], outputs: list[Array]) -> None:
        for picture, result in zip(inputs[0][seen], outputs[0], strict=True):
            apply_channel_tables(picture, table, order, result)

    def planar(inputs: list[Array], outputs: list[Array]) -> None:
        for picture, result in zip(inputs[0][seen], outputs[0], strict=True):
            for channel, source in enumerate(order):
                plane = picture[source, :, :, np.newaxis]
                apply_channel_tables(plane, table[:, channel : channel + 1], (0,), result[channel])

    return interleaved if node.attrs["axis"] == 3 else planar


HOST.add(OP, HostRow(_make))


@COST.row(OP)
def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """One look-up per element."""
    return Cost(vector_ops=results[0].elements)


def _axes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> dict[int, int]:
    """All but the channels, which change places."""
    return {axis: 1 for axis in range(4) if axis != node.attrs["axis"]}


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    """Rows that the result has whole are read with their alignment, so that they are one run of bytes."""
    x, table, channels = operands[0], operands[1], node.attrs["axis"]
    assert x is not None and table is not None
    columns = 2 if channels == 3 else 3
    whole = {axis for axis in (channels, columns) if box[axis] == (0, results[0].shape[axis])}
    read = tuple((0, x.shape[axis]) if axis in whole else span for axis, span in enumerate(box))
    size = tuple(end - begin for axis, (begin, end) in enumerate(box) if axis not in (0, channels))
    return Part((read, whole_box(table.shape)), {**node.attrs, "size": size})


TILE.add(OP, TileRow(_axes, _part))


def table_fits(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """Pictures are UINT8, and the table is a constant of 256 entries for each channel."""
    x, table = operands[0], operands[1]
    if x is None or table is None or x.dtype is not DType.UINT8 or not table.is_constant:
        return False
    return table.shape == (256, len(node.attrs["order"]))


CONSTRAINTS.add(OP, (table_fits,))


def _example(
    dtype: DType, order: tuple[int, ...], axis: int = 3, picture: tuple[int, ...] = (), size: tuple[int, int] = (7, 6)
) -> Graph:
    mean, std = (103.5, 116.28, 123.675)[: len(order)], (57.4, 57.1, 58.4)[: len(order)]
    params = activation_params(-2.2, 2.7, dtype)
    build = GraphBuilder()
    shape = (1, *size, len(order)) if axis == 3 else (1, len(order), *size)
    x = build.input("x", picture or shape, DType.UINT8)
    y = build(OP, x, normalisation_table(mean, std, params, dtype), output="y", order=order, axis=axis, size=size)
    y.quant = params
    return build.output(y)


EXAMPLES.add(
    OP,
    lambda: [
        _example(DType.UINT8, (2, 1, 0)),
        _example(DType.INT16, (0, 1, 2)),
        _example(DType.UINT8, (0,)),
        _example(DType.INT16, (2, 1, 0), axis=1),
        _example(DType.UINT8, (2, 1, 0), picture=(2, 7, 8, 4)),
        _example(DType.INT16, (0, 1, 2), picture=(1, 7, 6, 4)),
        _example(DType.UINT8, (0,), picture=(2, 9, 8, 1)),
        _example(DType.UINT8, (0,), axis=1, picture=(2, 1, 12, 8)),
    ],
)
