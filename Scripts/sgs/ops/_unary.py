"""What unary elementwise functions of real numbers share: in fixed graphs each becomes one TABLE (NUMERICS §5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._layout import transparent
from sgs.registry import (
    EXAMPLES,
    FLOAT,
    INFER,
    LAYOUT,
    OPERATOR,
    QUANTISE,
    REAL,
    SIM,
    ImportContext,
    Lowering,
    OnnxCase,
    OperatorInfo,
    QuantRule,
    SimRow,
)

Compute = Callable[[Lowering, Node, str], str]  # (low, node, value of the operand) → value of the result
Domain = Callable[[GraphBuilder, Tensor], Tensor]  # brings any real numbers to where a function is defined


def infer(node: Node, operands: Sequence[Tensor | None]) -> list[tuple[tuple[int, ...], DType]]:
    """Raises ValueError for an operand that holds no real numbers."""
    x = operands[0]
    assert x is not None
    if not x.dtype.is_float and x.quant is None:
        raise ValueError(f"{node.op} takes real numbers, not {x.dtype.name}")
    return [(x.shape, x.dtype)]


def everywhere(build: GraphBuilder, x: Tensor) -> Tensor:
    """The domain of a function that is defined for all numbers."""
    return x


def add_unary(
    op: str,
    compute: str | Compute,
    function: Callable[[Node, Array], Array],
    *,
    options: str = "",
    attrs: Mapping[str, Any] | None = None,
    custom: bool = False,
    domain: Domain = everywhere,
) -> None:
    """All rows of a unary function: `function(node, x)` in float64; `compute` emits it in float graphs, or names the
    ONNX operator that is it. `attrs` are its attrs with values for the examples, whose operands are brought into
    `domain`. `custom`: TFLite lacks it.
    """
    attrs = dict(attrs or {})

    def lower(low: Lowering, node: Node) -> None:
        x = node.inputs[0] or ""
        layout = low.prefer([x])
        value = low.real(x, layout)
        given = {name: node.attrs[name] for name in attrs}
        y = low.op(compute, [value], **given) if isinstance(compute, str) else compute(low, node, value)
        low.put_real(node.outputs[0], y, layout)

    OPERATOR.add(op, OperatorInfo("float", f"elementwise {op.lower().replace('_', ' ')}"))
    INFER.add(op, infer)
    LAYOUT.add(op, transparent)
    SIM.add(op, SimRow(options, fields={} if custom else {k: k for k in attrs}, custom=custom))
    FLOAT.add(op, lower)
    QUANTISE.add(op, QuantRule("unary"))
    REAL.add(op, lambda node, values: function(node, values[0]))
    EXAMPLES.add(op, lambda: _examples(op, attrs, domain))


def _examples(op: str, attrs: Mapping[str, Any], domain: Domain) -> list[Graph]:
    graphs = []
    for shape in ((1, 5, 7, 6), (3, 11)):
        build = GraphBuilder()
        x = domain(build, build.input("x", shape))
        graphs.append(build.output(build(op, x, output="y", **attrs)))
    return graphs


# -- ONNX import -------------------------------------------------------------------------------------------------------
def same(op: str) -> Callable[[ImportContext], list[Tensor]]:
    """The import row of an ONNX operator that is ours of real numbers."""
    return lambda ctx: [ctx.emit(op, ctx.inputs[0])]


def unary_cases(onnx_op: str, low: float = -8.0, high: float = 8.0, opset: int = 17, **attrs: Any) -> list[OnnxCase]:
    """ONNX examples of an elementwise function between `low` and `high`."""
    return [
        OnnxCase(onnx_op, {"x": shape}, attrs=attrs, low=low, high=high, opset=opset)
        for shape in ((1, 5, 7, 6), (3, 11))
    ]
