"""docs/OPERATORS.md: what the operator tables say, for users. Nothing here knows an operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

import sgs.ops  # noqa: F401  (fills the tables)
from sgs.builder import GraphBuilder
from sgs.compile.legalise import CHIP_LIMITS, LIMITS, told_by
from sgs.config.chips import Chip, all_chips
from sgs.frontends.onnx_context import NodeContext, as_graph_data
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import activation_params
from sgs.numeric.types import DType
from sgs.ops._expansion import expansion
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    EXPAND,
    FIXED_EXPAND,
    IMPORT_ONNX,
    MOVE,
    ONNX_EXAMPLES,
    OPERATOR,
    QUANTISE,
    TILE,
    OnnxCase,
)
from sgs.report.markdown import coded, table

Row = Sequence[str]
INTRODUCTION = """\
# Operators

Generated from the operator tables by `make docs`: change `Scripts/sgs/ops`, not this page.

Graphs are made of the operators below, whose names and meaning are those of TFLite where it has them. A float `.sim`
holds those that may stand in float networks, a fixed `.sim` those that may stand in fixed ones; the calibrator turns
the one into the other. What an ONNX network may hold is [listed at the end](#from-onnx). The arithmetic of fixed
operators is defined in [NUMERICS.md](NUMERICS.md), the machine that executes them in [MACHINE.md](MACHINE.md).

The column "formats" names a kind, or the element types of the first operand and of the result:

| kind | reads | writes |
|---|---|---|
| mac | UINT8 with INT8 or INT4 weights; INT16 with INT16 weights, or narrower ones | UINT8 or INT16 |
| move | any type | the same values in the same type, scale and zero point |
| real | INT16 or UINT8 | INT16 or UINT8 |
| select | INT16 | some of the values in the same type, scale and zero point, and plain integers |
| unary | floating point | becomes a `TABLE` in fixed networks |

Activations of the RELU family behind an operator that takes them as an attribute (convolutions, products, pools,
arithmetic) become that attribute and cost nothing.

## All operators
"""
PIECES = """\
## In pieces

What does not fit the chip's SRAM at once is computed in pieces of the result; where pieces overlap in an operand, that
is read again or kept. An operator can be cut along these axes, those of pictures being pictures, rows, columns and
channels. A layer whose smallest piece does not fit is refused, with the bytes that it needs.
"""
PIECES_END = """\
Operators that the DMA engine does need no piece: the transfer goes from memory to memory. Constants of 4 bits are cut
in whole bytes: channels with an odd number of INT4 weights each by twos, and an odd number of channels of a
`DEPTHWISE_CONV_2D` not at all.
"""
WORK = """\
## Work

What the [machine model](MACHINE.md) counts. Products are the MAC array's, all else are operations of the vector unit,
one lane each. What the DMA engine does is counted in bytes.
"""
LIMITS_TEXT = """\
## Limits

A network that breaks a limit is not compiled: the compiler names every operator at fault, with these words.

### Of all operators
"""
CHIPS_TEXT = """\
### Of a chip

From `Scripts/sgs/config/chips/*.ini`; `show_sdk_info.py --soc_version NAME` shows a chip in full.
"""
ONNX_TEXT = """\
## From ONNX

An ONNX operator becomes one or several of the operators above, by its operands and attributes; passes then simplify the
graph. Nodes whose operands are all constant are evaluated at import, whatever their operator. `Shape` and `Size` of
tensors are constants since all shapes are; an `If` with a constant condition is replaced by the branch taken. An
operator that is not listed, but that the ONNX standard defines by others, is replaced by these.

Floating-point numbers of every width are held as binary32, integers of 32 and 64 bits as signed ones of 32: a constant
that does not fit is refused, numbers that only come about at run time wrap.
"""


def operators_page() -> str:
    """The page, Markdown."""
    becomes = ((f"`{op}`", _becomes(op)) for op in IMPORT_ONNX)
    return "\n".join(
        (
            INTRODUCTION,
            table(("operator", "what it does", "networks", "formats", "executed"), map(_operator, OPERATOR)),
            PIECES,
            table(("operators", "cuts"), _by_text(lambda op: [TILE[op].axes] if op in TILE else [])),
            PIECES_END,
            WORK,
            table(("operators", "operations"), _by_text(lambda op: [COST[op]] if op in TILE else [])),
            LIMITS_TEXT,
            "".join(f"* {told_by(limit)}\n" for limit in LIMITS),
            "### Of single operators\n",
            table(("operators", "limit"), _by_text(lambda op: CONSTRAINTS.get(op) or ())),
            CHIPS_TEXT,
            table(("limit", "chips"), _chip_limits()),
            ONNX_TEXT,
            table(("ONNX operator", "becomes"), becomes),
        )
    )


def _by_text(rules: Callable[[str], Sequence[Callable[..., object]]]) -> Iterator[Row]:
    """(operators, what their rules say), operators with the same rule in one row."""
    ops: dict[str, list[str]] = {}
    for op in OPERATOR:
        for rule in rules(op):
            ops.setdefault(told_by(rule), []).append(op)
    yield from ((coded(named), text) for text, named in ops.items())


# -- one operator ------------------------------------------------------------------------------------------------------
def _operator(op: str) -> Row:
    info = OPERATOR[op]
    stages = {"both": "float, fixed"}.get(info.stage, info.stage)
    return f"`{op}`", info.summary, stages, _formats(op), _executed(op)


def _formats(op: str) -> str:
    if op in QUANTISE:
        return QUANTISE[op].kind
    pairs: dict[str, set[str]] = {}
    for graph, node in _examples(op):
        first = graph.operands(node)[0]
        assert first is not None
        pairs.setdefault(first.dtype.name, set()).add(graph.results(node)[0].dtype.name)
    return "; ".join(f"{source} → {', '.join(sorted(pairs[source]))}" for source in sorted(pairs))


def _executed(op: str) -> str:
    if op in MOVE:
        move = "the DMA engine"
        return f"nothing is done where the bytes may be shared, else {move}" if MOVE[op].alias else move
    if op in TILE:
        (engine,) = {_engine(graph, node) for graph, node in _examples(op)}
        return engine
    return f"as {coded(_expansion(op))}"


def _examples(op: str) -> Iterator[tuple[Graph, Node]]:
    for graph in EXAMPLES[op]():
        yield from ((graph, node) for node in graph.nodes if node.op == op)


def _engine(graph: Graph, node: Node) -> str:
    cost = COST[node.op](node, graph.operands(node), graph.results(node))
    return "vector unit" if cost.array is None else "MAC array"


def _expansion(op: str) -> list[str]:
    """Fixed operators that a float one becomes."""
    if op in EXPAND:
        return sorted({part.op for graph, node in _examples(op) for part in expansion(graph, node)})
    if op not in FIXED_EXPAND:
        return ["TABLE"]
    graph, node = next(_examples(op))
    for tensor in graph.activations():
        tensor.dtype, tensor.quant = DType.INT16, activation_params(-4, 4, DType.INT16)
    FIXED_EXPAND[op](graph, node)
    return list(dict.fromkeys(made.op for made in graph.nodes))


# -- chips -------------------------------------------------------------------------------------------------------------
def _chip_limits() -> Iterator[Row]:
    """(limit, chips that have it in these words)."""
    texts = {chip.name: list(_limits_of(chip)) for chip in all_chips()}
    for same in zip(*texts.values(), strict=True):
        for text in dict.fromkeys(same):
            names = [name for name, other in zip(texts, same, strict=True) if other == text]
            yield text, "all" if len(names) == len(texts) else ", ".join(names)


def _limits_of(chip: Chip) -> Iterator[str]:
    yield from (told_by(limit, chip) for limit in CHIP_LIMITS)
    yield f"A run takes at most {chip.max_batch} frames."


# -- ONNX --------------------------------------------------------------------------------------------------------------
class _Recorder(NodeContext):
    """Notes what a row emits, but for the Transposes from and to the source's layout."""

    emitted: set[str]

    def emit_many(self, op: str, operands: Sequence[Any], **attrs: Any) -> list[Tensor]:
        self.emitted.add(op)
        return super().emit_many(op, operands, **attrs)


def _becomes(op: str) -> str:
    """What an ONNX operator becomes, over all of its examples."""
    cases = [case for case in ONNX_EXAMPLES[op] if case.inputs]
    if not cases:  # no implementation to compare with, or a result that does not depend on inputs
        return "a constant, or what its operands ask for"
    return coded(sorted(set().union(*map(_emitted, cases)))) or "nothing, it is left out"


def _emitted(case: OnnxCase) -> set[str]:
    builder = GraphBuilder()
    tensors = {
        name: builder.input(name, shape, DType.of(as_graph_data(np.zeros(0, case.types.get(name, "float32"))).dtype))
        for name, shape in case.inputs.items()
    }
    for name, value in case.constants.items():
        data = as_graph_data(value)
        tensors[name] = Tensor(name, data.shape, DType.of(data.dtype), data)
    order = case.order or (*case.inputs, *case.constants)
    node = helper.make_node(case.op, order, [f"y{i}" for i in range(case.outputs)], **case.attrs)
    operands = [tensors.get(name) for name in order]
    context = _Recorder(builder, node, operands, case.constants, opset=case.opset, path=Path())
    context.emitted = set()
    IMPORT_ONNX[case.op](context)
    return context.emitted
