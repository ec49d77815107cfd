"""Elementwise functions: ELU, Exp, Log, AbsVal, BNLL, Threshold, Clip, CReLU, Axpy, Swish, HardSwish, Mish."""

from __future__ import annotations

from math import log

from sgs.frontends.caffe.context import CAFFE, LayerContext, Value
from sgs.frontends.caffe.layers._arithmetic import affine, number, rectified


def _logarithm(context: LayerContext, base: float) -> float:
    """ln of a base; -1 stands for e."""
    if base != -1 and base <= 0:
        raise context.refuse(f"base {base:g} is not above 0", "-1 stands for e")
    return 1.0 if base == -1 else log(base)


@CAFFE.row("Exp")
def exp(context: LayerContext) -> list[Value]:
    """base ^ (x · scale + shift)."""
    p = context.layer.exp_param
    rate = _logarithm(context, p.base)
    return [context.emit("Exp", [affine(context, context.bottom, p.scale * rate, p.shift * rate)])]


@CAFFE.row("Log")
def logarithm(context: LayerContext) -> list[Value]:
    """Logarithm to a base of x · scale + shift."""
    p = context.layer.log_param
    rate = _logarithm(context, p.base)
    if rate == 0:
        raise context.refuse("there is no logarithm to base 1", "-1 stands for e")
    return [affine(context, context.emit("Log", [affine(context, context.bottom, p.scale, p.shift)]), 1 / rate, 0)]


@CAFFE.row("AbsVal")
def absolute(context: LayerContext) -> list[Value]:
    return [context.emit("Abs", [context.bottom])]


@CAFFE.row("BNLL")
def bnll(context: LayerContext) -> list[Value]:
    """log(1 + e^x)."""
    return [context.emit("Softplus", [context.bottom])]


@CAFFE.row("ELU")
def elu(context: LayerContext) -> list[Value]:
    return [context.emit("Elu", [context.bottom], alpha=context.layer.elu_param.alpha)]


@CAFFE.row("Threshold")
def threshold(context: LayerContext) -> list[Value]:
    """1 where x is above the threshold, else 0."""
    above = context.emit("Greater", [context.bottom, number(context, context.layer.threshold_param.threshold)])
    return [context.emit("Cast", [above], to=1)]


@CAFFE.row("Clip")
def clip(context: LayerContext) -> list[Value]:
    p = context.layer.clip_param
    if not (p.HasField("min") and p.HasField("max")):
        raise context.refuse("it does not say between what it clips", "give clip_param { min max }")
    return [context.emit("Clip", [context.bottom, number(context, p.min), number(context, p.max)])]


@CAFFE.row("CReLU")
def crelu(context: LayerContext) -> list[Value]:
    """The rectified values and those of -x, behind each other."""
    p, x = context.layer.crelu_param, context.bottom
    halves = [rectified(context, value, p.negative_slope) for value in (x, context.emit("Neg", [x]))]
    return [context.emit("Concat", halves, axis=context.axis(p.concat_axis))]


@CAFFE.row("Axpy")
def axpy(context: LayerContext) -> list[Value]:
    """a · x + y, with a of each channel."""
    context.check_bottoms(3)
    a, x, y = context.bottoms
    if x.shape != y.shape or x.rank < 2:
        raise context.refuse(
            f"its inputs {list(x.shape)} and {list(y.shape)} do not fit each other", "check the prototxt"
        )
    factor = context.reshape(a, (*x.shape[:2], *[1] * (x.rank - 2)))
    return [context.emit("Add", [context.emit("Mul", [factor, x]), y])]


@CAFFE.row("Swish")
def swish(context: LayerContext) -> list[Value]:
    """x · sigmoid(beta · x)."""
    x = context.bottom
    gate = context.emit("Sigmoid", [affine(context, x, context.layer.swish_param.beta, 0)])
    return [context.emit("Mul", [x, gate])]


@CAFFE.row("HardSwish", "HSwish", "Hswish")
def hard_swish(context: LayerContext) -> list[Value]:
    """x · clip(x + 3, 0, 6) / 6."""
    return [context.emit("HardSwish", [context.bottom])]


@CAFFE.row("Mish")
def mish(context: LayerContext) -> list[Value]:
    """x · tanh(log(1 + e^x))."""
    x = context.bottom
    return [context.emit("Mul", [x, context.emit("Tanh", [context.emit("Softplus", [x])])])]
