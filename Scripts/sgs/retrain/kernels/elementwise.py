"""Elementwise primitives, with numpy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import torch
from onnx import TensorProto
from torch import Tensor
from torch.nn import functional

from sgs.retrain.kernels.node import Constants, Make, constant, plain, read

_TYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.INT64: torch.int64,
    TensorProto.INT32: torch.int32,
    TensorProto.INT16: torch.int16,
    TensorProto.UINT16: torch.uint16,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT8: torch.uint8,
    TensorProto.BOOL: torch.bool,
}


def _divided(a: Tensor, b: Tensor) -> Tensor:
    """Integers are cut towards 0."""
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _largest(*values: Tensor) -> Tensor:
    return reduce(torch.maximum, values)


def _least(*values: Tensor) -> Tensor:
    return reduce(torch.minimum, values)


def _cast(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    dtype = _TYPES[read(attributes, "to").to]
    return lambda x: x.to(dtype)


def _clip(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    read(attributes)
    low, high = (constant(constants, i).item() if i < len(constants) else None for i in (1, 2))
    return lambda x, *bounds: torch.clamp(x, low, high)


def _mod(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    """The sign is the dividend's with `fmod`, else the divisor's."""
    remainder: Callable[..., Tensor] = torch.fmod if read(attributes, fmod=0).fmod else torch.remainder
    return remainder


def _gelu(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    how = read(attributes, approximate="none").approximate
    return lambda x: functional.gelu(x, approximate=how)


def _leaky_relu(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    alpha = read(attributes, "alpha").alpha
    return lambda x: functional.leaky_relu(x, alpha)


_PLAIN: dict[str, Callable[..., Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Add": torch.add,
    "And": torch.logical_and,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Div": _divided,
    "Elu": functional.elu,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "HardSwish": functional.hardswish,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "Max": _largest,
    "Min": _least,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Pow": torch.pow,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,  # ties to even
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "Where": torch.where,
    "Xor": torch.logical_xor,
}
KERNELS: dict[str, Make] = {
    **{op: plain(function) for op, function in _PLAIN.items()},
    "Cast": _cast,
    "Clip": _clip,
    "Gelu": _gelu,
    "LeakyRelu": _leaky_relu,
    "Mod": _mod,
}
