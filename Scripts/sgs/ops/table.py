"""TABLE: an elementwise function of codes by look-up, the fixed form of all unary functions (docs/NUMERICS.md §5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array, activation_params
from sgs.numeric.table import SIZES, ChannelTables, apply_expanded, build_table, expand, look_up, shifts
from sgs.numeric.types import DType
from sgs.ops._move import free_axes
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FIXED,
    HOST,
    INFER,
    OPERATOR,
    REFERENCE,
    SIM,
    TILE,
    Box,
    Cost,
    HostRow,
    Lowering,
    OperatorInfo,
    Part,
    SimRow,
    TileRow,
    whole_box,
)

OPERATOR.add("TABLE", OperatorInfo("fixed", "elementwise function by look-up, interpolated for 16-bit operands"))
SIM.add("TABLE", SimRow(custom=True))


@COST.row("TABLE")
def cost(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> Cost:
    """One look-up per element."""
    return Cost(vector_ops=results[0].elements)


def _part(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], box: Box) -> Part:
    """Tables of channels that are not in the box are left out."""
    table = operands[1]
    assert table is not None
    whole = whole_box(table.shape)
    return Part((box, (box[-1], whole[1]) if len(whole) == 2 else whole), dict(node.attrs))


TILE.add("TABLE", TileRow(free_axes, _part, elementwise=True))


def table_fits(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """The table is a constant, of 256 entries for UINT8 operands, of 513, 1,025, 2,049 or 4,097 for INT16 and UINT16
    ones; or as many for every channel."""
    x, table = operands[0], operands[1]
    if x is None or table is None or not table.is_constant or not table.shape:
        return False
    sizes = {DType.UINT8: (256,), DType.INT16: SIZES, DType.UINT16: SIZES}
    return table.shape[-1] in sizes.get(x.dtype, ()) and table.shape[:-1] in ((), x.shape[-1:])


CONSTRAINTS.add("TABLE", (table_fits,))


@INFER.row("TABLE")
def infer_table(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    """Raises ValueError for a table that is neither [entries] nor [C, entries]."""
    x, table = operands[0], operands[1]
    assert x is not None and table is not None
    if table.shape[:-1] not in ((), x.shape[-1:]):
        raise ValueError(f"tables of shape {list(table.shape)} do not fit an operand of shape {list(x.shape)}")
    return [(x.shape, x.dtype)]


@REFERENCE.row("TABLE")
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    """Operands: codes, table [entries] or [C, entries]. Eq. 11."""
    codes, table = values[0], values[1]
    assert codes is not None and table is not None
    return [look_up(codes, table, results[0].dtype)]


def _make(graph: Graph, node: Node) -> Callable[[list[Array], list[Array]], None]:
    """One table is written out for every code and applied in one go; to float32 outputs as codes minus zero point."""
    x, table, y = graph[node.inputs[0] or ""], graph[node.inputs[1] or ""], graph[node.outputs[0]]
    assert table.data is not None and y.quant is not None
    if table.data.ndim == 2:
        apply = ChannelTables(table.data, x.dtype, y.dtype, int(y.quant.zero_point[0]))
        return lambda inputs, outputs: apply(inputs[0], outputs[0])
    expanded = expand(table.data, x.dtype, y.dtype)
    centred = expanded.astype(np.float32) - np.float32(y.quant.zero_point[0])

    def kernel(inputs: list[Array], outputs: list[Array]) -> None:
        codes, out = (a if a.flags.c_contiguous else a.transpose(0, 3, 1, 2) for a in (inputs[0], outputs[0]))
        apply_expanded(codes, centred if out.dtype == np.float32 else expanded, out)

    return kernel


@FIXED.row("TABLE")
def lower_table(low: Lowering, node: Node) -> None:
    """Inside a session, for small tensors: one table written out for every code, by Gather (4 to 7 ns an element)."""
    x, table, y = (low.graph[name or ""] for name in (*node.inputs[:2], node.outputs[0]))
    assert table.data is not None
    if table.data.ndim == 2:
        _lower_channels(low, x, table.data, y)
        return
    layout = low.prefer([x.name])
    expanded = np.roll(expand(table.data, x.dtype, y.dtype), -x.dtype.qmin)  # from the lowest code on
    index = low.cast(low.codes(x.name, layout), DType.INT32)
    if x.dtype.qmin:
        index = low.op("Add", [index, low.const(np.asarray(-x.dtype.qmin, np.int32))])
    low.put(y.name, low.op("Gather", [low.const(expanded), index]), layout)


def _lower_channels(low: Lowering, x: Tensor, tables: Array, y: Tensor) -> None:
    """Eq. 11 in integer-valued binary32, where it is exact: everything stays below 2^24."""
    layout, entries = low.prefer([x.name]), tables.shape[1]
    part_bits, shift = shifts(entries, y.dtype)
    flat, first = tables.reshape(-1).astype(np.float32), np.arange(len(tables)) * entries

    def number(value: float) -> str:
        return low.const(np.asarray(value, np.float32))

    def entry(data: Array) -> str:
        return str(low.op("Gather", [low.const(data), index]))

    offset = low.op("Sub", [low.cast(low.codes(x.name, layout), DType.FLOAT32), number(x.dtype.qmin)])
    row = low.op("Floor", [low.op("Mul", [offset, number(2.0**-part_bits)])])
    base = low.const(first.astype(np.int32).reshape((-1, 1, 1) if layout == "first" else (-1,)))
    index = low.op("Add", [low.cast(row, DType.INT32), base])
    part = low.op("Sub", [offset, low.op("Mul", [row, number(2.0**part_bits)])])
    slope = low.op("Mul", [entry(np.diff(flat, append=flat[-1:])), part])
    value = low.op("Add", [low.op("Mul", [entry(flat), number(2.0**part_bits)]), slope])
    rounded = low.op("Floor", [low.op("Add", [low.op("Mul", [value, number(2.0**-shift)]), number(0.5)])])
    assert y.quant is not None
    zero = (32768 if y.dtype is DType.UINT16 else 0) - int(y.quant.zero_point[0])
    centred = low.op("Add", [rounded, number(zero)]) if zero else rounded
    low.put_scaled(y.name, centred, np.asarray(1, np.float32), layout)


HOST.add("TABLE", HostRow(_make, any_layout=True, centred=True))


def _silu(x: Array) -> Array:
    return np.asarray(x / (1 + np.exp(-x)))


def _equalised_silu(x: Array) -> Array:
    """SiLU of a tensor [..., 6] whose channels were divided by numbers up to 50, and are to be divided by such."""
    return _silu(x * np.geomspace(1, 50, 6)) / np.geomspace(1, 30, 6)


def _table_example(
    kinds: tuple[DType, DType], shape: tuple[int, ...], function: Callable[[Array], Array], channels: int | None = None
) -> Graph:
    params_in, params_out = activation_params(-6, 8, kinds[0]), activation_params(-0.3, 12, kinds[1])
    table = build_table(function, params_in, kinds[0], params_out, kinds[1], channels=channels)
    build = GraphBuilder()
    x = build.input("x", shape, kinds[0])
    x.quant = params_in
    y = build("TABLE", x, table, output="y", function="x * logistic(x)")
    y.dtype, y.quant = kinds[1], params_out
    return build.output(y)


def _table_examples() -> list[Graph]:
    """One table and a table for each channel, of small tensors and of large ones."""
    s16, u8 = DType.INT16, DType.UINT8
    graphs = []
    for kinds in ((s16, s16), (s16, u8), (u8, u8), (u8, s16)):
        graphs.append(_table_example(kinds, (1, 5, 7, 6), _silu))
        for shape in ((1, 5, 7, 6), (2, 31, 17, 6)):
            graphs.append(_table_example(kinds, shape, _equalised_silu, 6))
    graphs.append(_table_example((s16, s16), (2, 59, 71, 6), _equalised_silu, 6))
    graphs.append(_table_example((s16, u8), (5, 131, 6), _equalised_silu, 6))
    return graphs


EXAMPLES.add("TABLE", _table_examples)
