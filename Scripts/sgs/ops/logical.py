"""LOGICAL_AND, LOGICAL_OR and LOGICAL_NOT of BOOL tensors, with broadcasting; exclusive or is NOT_EQUAL."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Graph, Tensor
from sgs.ops._elementwise import add_elementwise, onnx
from sgs.ops._integers import present
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase, Shape, SimRow


def _example(op: str, *shapes: Shape) -> Graph:
    build = GraphBuilder()
    zero = np.array([0], np.float32)
    masks = [build("GREATER", build.input(name, shape), zero) for name, shape in zip("xy", shapes, strict=False)]
    return build.output(build(op, *masks, output="z"))


for _op, _onnx, _options, _function in (
    ("LOGICAL_AND", "And", "LogicalAndOptions", np.logical_and),
    ("LOGICAL_OR", "Or", "LogicalOrOptions", np.logical_or),
):
    add_elementwise(
        _op,
        f"logical {_onnx.lower()}, with broadcasting",
        {"boolean": onnx(_onnx, _function)},
        examples=lambda op=_op: [  # type: ignore[misc]
            _example(op, (1, 5, 7, 6), (1, 5, 7, 6)),
            _example(op, (1, 5, 7, 6), (7, 1)),
            _example(op, (3, 7), (3, 7)),
        ],
        sim=SimRow(_options),
        operations=1,
    )
add_elementwise(
    "LOGICAL_NOT",
    "logical not",
    {"boolean": onnx("Not", np.logical_not)},
    examples=lambda: [_example("LOGICAL_NOT", (1, 5, 7, 6)), _example("LOGICAL_NOT", (3, 7))],
    sim=SimRow("LogicalNotOptions"),
    operations=1,
    operands=1,
)


# -- ONNX import -------------------------------------------------------------------------------------------------------
def _import(op: str) -> Callable[[ImportContext], list[Tensor]]:
    return lambda ctx: [ctx.emit(op, *present(ctx))]


for _onnx, _op in {"And": "LOGICAL_AND", "Or": "LOGICAL_OR", "Xor": "NOT_EQUAL"}.items():
    IMPORT_ONNX.add(_onnx, _import(_op))
    ONNX_EXAMPLES.add(
        _onnx,
        [
            OnnxCase(_onnx, {"a": (1, 5, 7, 6), "b": (5, 1, 6)}, types={"a": "bool", "b": "bool"}),
            OnnxCase(_onnx, {"a": (3, 2)}, {"c": np.array([True, False])}, types={"a": "bool"}),
        ],
    )
IMPORT_ONNX.add("Not", _import("LOGICAL_NOT"))
ONNX_EXAMPLES.add("Not", [OnnxCase("Not", {"a": (1, 5, 7, 6)}, types={"a": "bool"})])
