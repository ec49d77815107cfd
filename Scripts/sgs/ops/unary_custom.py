"""Unary functions that TFLite lacks: operators of our own in float files, tables in fixed ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sgs.builder import GraphBuilder
from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.ops._tflite import operand
from sgs.ops._unary import Domain, add_unary, everywhere, same, unary_cases
from sgs.ops.unary import erf
from sgs.registry import IMPORT_ONNX, IMPORT_TFLITE, ONNX_EXAMPLES, TFLITE_EXAMPLES, TfliteCase


def _inside_one(build: GraphBuilder, x: Tensor) -> Tensor:
    return build("MUL", x, np.array([0.3], np.float32), activation="NONE")


def _above_one(build: GraphBuilder, x: Tensor) -> Tensor:
    return build("ADD", build("ABS", x), np.array([1.1], np.float32), activation="NONE")


_FUNCTIONS: dict[
    str, tuple[Callable[[Array], Array], float, float, Domain]
] = {  # ONNX name → (function, bounds of the ONNX examples, domain of our own)
    "Erf": (erf, -4, 4, everywhere),
    "Tan": (np.tan, -1.2, 1.2, _inside_one),
    "Asin": (np.arcsin, -1, 1, _inside_one),
    "Acos": (np.arccos, -1, 1, _inside_one),
    "Atan": (np.arctan, -8, 8, everywhere),
    "Sinh": (np.sinh, -4, 4, everywhere),
    "Cosh": (np.cosh, -4, 4, everywhere),
    "Asinh": (np.arcsinh, -8, 8, everywhere),
    "Acosh": (np.arccosh, 1, 8, _above_one),
    "Atanh": (np.arctanh, -0.9, 0.9, _inside_one),
}


def _add(onnx_op: str) -> None:
    function, low, high, domain = _FUNCTIONS[onnx_op]
    add_unary(onnx_op.upper(), onnx_op, lambda node, x: function(x), custom=True, domain=domain)
    IMPORT_ONNX.add(onnx_op, same(onnx_op.upper()))
    ONNX_EXAMPLES.add(onnx_op, unary_cases(onnx_op, low, high))


for _name in _FUNCTIONS:
    _add(_name)


# TensorFlow's own kernel, for which converters leave a custom operator
IMPORT_TFLITE.add("custom FlexErf", lambda ctx: [ctx.emit("ERF", operand(ctx, 0))])
TFLITE_EXAMPLES.add("custom FlexErf", [TfliteCase("custom FlexErf", {"x": (3, 7)}, judge=lambda x: [erf(x)])])
