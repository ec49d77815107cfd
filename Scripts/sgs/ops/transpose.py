"""TRANSPOSE: axes in another order. Attr `perm`: axis i of the result is axis perm[i] of the operand."""

from __future__ import annotations

from collections.abc import Sequence

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor, strides_of
from sgs.ir.permute import NCHW_TO_NHWC, compose, identity, is_identity
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._move import no_work
from sgs.registry import (
    CONSTRAINTS,
    COST,
    EXAMPLES,
    FIXED,
    FLOAT,
    IMPORT_ONNX,
    INFER,
    LAYOUT,
    MOVE,
    ONNX_EXAMPLES,
    OPERATOR,
    QUANTISE,
    REFERENCE,
    SIM,
    Copy,
    ImportContext,
    Lowering,
    Moved,
    MoveRow,
    OnnxCase,
    OperatorInfo,
    QuantRule,
    SimRow,
)

OPERATOR.add("TRANSPOSE", OperatorInfo("both", "axes in another order"))
SIM.add("TRANSPOSE", SimRow("TransposeOptions", constant_inputs={1: "perm"}))
COST.add("TRANSPOSE", no_work)
CONSTRAINTS.add("TRANSPOSE", ())
QUANTISE.add("TRANSPOSE", QuantRule("move", moved=lambda node: (0,)))


@INFER.row("TRANSPOSE")
def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    x, perm = operands[0], node.attrs["perm"]
    assert x is not None
    if sorted(perm) != list(range(len(x.shape))):
        raise ValueError(f"{tuple(perm)} does not order the axes of shape {x.shape}")
    return [(tuple(x.shape[axis] for axis in perm), x.dtype)]


def _copies(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> list[Copy]:
    x, y = operands[0], results[0]
    assert x is not None
    strides = strides_of(x.shape)
    return [Copy(0, 0, y.shape, (0, tuple(strides[axis] for axis in node.attrs["perm"])), (0, strides_of(y.shape)))]


MOVE.add("TRANSPOSE", MoveRow(_copies))


@LAYOUT.row("TRANSPOSE")
def layout(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved:
    """The two permutations become one."""
    merged = compose(perm, node.attrs["perm"])
    return Moved({**node.attrs, "perm": merged}, (identity(len(perm)),))


@FLOAT.row("TRANSPOSE")
@FIXED.row("TRANSPOSE")
def lower(low: Lowering, node: Node) -> None:
    """From whichever layout the operand is in to the result as the graph has it, in one step or none."""
    x, perm = node.inputs[0] or "", tuple(node.attrs["perm"])
    held = low.prefer([x]) if len(perm) == 4 else "native"
    if held == "first":
        perm = compose(NCHW_TO_NHWC, perm)
    value = low.codes(x, held)
    low.put(node.outputs[0], value if is_identity(perm) else low.op("Transpose", [value], perm=list(perm)))


@REFERENCE.row("TRANSPOSE")
def reference(
    node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor], values: Sequence[Array | None]
) -> list[Array]:
    assert values[0] is not None
    return [values[0].transpose(node.attrs["perm"])]


@IMPORT_ONNX.row("Transpose")
def import_transpose(ctx: ImportContext) -> list[Tensor]:
    x = ctx.inputs[0]
    assert x is not None
    perm = ctx.attrs.get("perm") or range(len(x.shape))[::-1]
    return [ctx.emit("TRANSPOSE", x, perm=tuple(int(axis) for axis in perm))]


ONNX_EXAMPLES.add(
    "Transpose",
    [
        OnnxCase("Transpose", {"x": (1, 5, 7, 6)}, attrs={"perm": [0, 2, 3, 1]}),
        OnnxCase("Transpose", {"x": (2, 5, 7, 6)}, attrs={"perm": [3, 1, 0, 2]}),
        OnnxCase("Transpose", {"x": (2, 5, 7)}),
    ],
)


def _example(shape: tuple[int, ...], perm: tuple[int, ...]) -> Graph:
    build = GraphBuilder()
    return build.output(build("TRANSPOSE", build.input("x", shape), output="y", perm=perm))


EXAMPLES.add(
    "TRANSPOSE",
    lambda: [
        _example((1, 5, 7, 6), (0, 3, 1, 2)),
        _example((2, 5, 7, 6), (3, 1, 0, 2)),
        _example((5, 7), (1, 0)),
        _example((1, 2, 3, 5, 7), (0, 3, 1, 4, 2)),
    ],
)
