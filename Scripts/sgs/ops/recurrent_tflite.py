"""TFLite's sequences of LSTM and RNN steps, as ONNX's: the same gates, in another order.

The state before the first step is a variable of the file; it is zeros here, for every sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._tflite import operand, option, real_constant
from sgs.registry import IMPORT_TFLITE, TFLITE_EXAMPLES, ImportContext, TfliteCase

_FUNCTIONS = {"TANH": "Tanh", "RELU": "Relu"}


def _function(ctx: ImportContext) -> str:
    activation = str(option(ctx, "fused_activation_function", "NONE"))
    if activation not in _FUNCTIONS:
        raise ctx.refuse(f"the activation {activation} is not supported", f"there are {', '.join(_FUNCTIONS)}")
    return _FUNCTIONS[activation]


def _absent(ctx: ImportContext, first: int, last: int, what: str) -> None:
    if any(tensor is not None for tensor in ctx.inputs[first : last + 1]):
        raise ctx.refuse(f"it has {what}, which is not supported")


def _start_is_zero(ctx: ImportContext, *states: int) -> None:
    for index in states:
        state = operand(ctx, index)
        if state.data is None or state.data.any():
            raise ctx.refuse("its state comes from outside", "a state that begins with zeros is supported")


def _held(name: str, parts: Sequence[Array]) -> Tensor:
    """Arrays of the directions, stacked."""
    data = np.ascontiguousarray(np.stack(parts), np.float32)
    return Tensor(name, data.shape, DType.FLOAT32, data)


def _stack(ctx: ImportContext, first: int) -> tuple[Array, Array, Array, Array | None]:
    """(W [4·H, I], R [4·H, H], biases [8·H], peepholes [3·H] or None), of gates i, o, f, c, of the operands from
    `first` on: weights of i, f, c, o, of the state, peepholes of i, f, o, biases. Without an input gate i is 1 - f, and
    the logistic of -z is 1 less that of z.
    """
    coupled = ctx.inputs[first] is None
    gates = [real_constant(ctx, first + place, "weights") for place in range(1, 4)]  # f, c, o
    states = [real_constant(ctx, first + place, "weights") for place in range(5, 8)]
    biases = [real_constant(ctx, first + place, "biases") for place in range(12, 15)]
    for place, known in ((0, gates), (4, states), (11, biases)):
        known.insert(0, -known[0] if coupled else real_constant(ctx, first + place, "weights"))
    order = (0, 3, 1, 2)  # i, o, f, c
    weight, recurrent, bias = (np.concatenate([known[k] for k in order]) for known in (gates, states, biases))
    return weight, recurrent, np.concatenate([bias, 0 * bias]), _peepholes(ctx, first + 8, coupled)


def _peepholes(ctx: ImportContext, first: int, coupled: bool) -> Array | None:
    if ctx.inputs[first + 1] is None:
        return None
    forget, output = (real_constant(ctx, first + place, "peepholes") for place in (1, 2))
    entering = -forget if coupled else real_constant(ctx, first, "peepholes")
    return np.concatenate([entering, output, forget])


def _lstm(ctx: ImportContext, firsts: Sequence[int], time_major: bool) -> Tensor:
    """Hidden states [T, D, B, H], or [B, T, D, H] where the batch comes first."""
    if option(ctx, "cell_clip", 0.0) or option(ctx, "proj_clip", 0.0):
        raise ctx.refuse("it clips its cells, which is not supported")
    stacks = [_stack(ctx, first) for first in firsts]
    names = ("weight", "recurrent", "bias")
    weight, recurrent, bias = (_held(name, [s[k] for s in stacks]) for k, name in enumerate(names))  # type: ignore[misc]
    holes = None
    if any(stack[3] is not None for stack in stacks):
        size = 3 * stacks[0][1].shape[1]
        holes = _held("peepholes", [np.zeros(size, np.float32) if s[3] is None else s[3] for s in stacks])
    function = _function(ctx)
    attrs = _attrs(len(firsts), time_major, ["Sigmoid", function, function], recurrent.shape[2])
    return ctx.call("LSTM", operand(ctx, 0), weight, recurrent, bias, None, None, None, holes, **attrs)[0]


def _attrs(directions: int, time_major: bool, activations: list[str], size: int) -> dict[str, Any]:
    direction = "bidirectional" if directions == 2 else "forward"
    return {
        "layout": int(not time_major),
        "hidden_size": size,
        "direction": direction,
        "activations": activations * directions,
    }


def _results(ctx: ImportContext, y: Tensor, time_major: bool) -> list[Tensor]:
    """Hidden states as TFLite has them: [.., .., H] of one direction, of two after one another or as two results."""
    axis = 1 if time_major else 2
    directions, size = y.shape[axis], y.shape[3]
    outer = tuple(extent for a, extent in enumerate(y.shape[:3]) if a != axis)
    if directions == 1:
        return [ctx.emit("RESHAPE", y, shape=(*outer, size))]
    parts = [ctx.emit("RESHAPE", p, shape=(*outer, size)) for p in ctx.emit_many("SPLIT", [y], axis=axis, num_splits=2)]
    return [ctx.emit("CONCATENATION", *parts, axis=2)] if option(ctx, "merge_outputs", False) else parts


@IMPORT_TFLITE.row("UNIDIRECTIONAL_SEQUENCE_LSTM")
def import_lstm(ctx: ImportContext) -> list[Tensor]:
    _absent(ctx, 16, 17, "a projection")
    _absent(ctx, 20, 23, "layer normalisation")
    _start_is_zero(ctx, 18, 19)
    time_major = bool(option(ctx, "time_major", False))
    return _results(ctx, _lstm(ctx, [1], time_major), time_major)


@IMPORT_TFLITE.row("BIDIRECTIONAL_SEQUENCE_LSTM")
def import_bidirectional_lstm(ctx: ImportContext) -> list[Tensor]:
    for first, last in ((16, 17), (33, 34)):
        _absent(ctx, first, last, "a projection")
    _absent(ctx, 39, 47, "an auxiliary input")
    _start_is_zero(ctx, 35, 36, 37, 38)
    time_major = bool(option(ctx, "time_major", True))
    return _results(ctx, _lstm(ctx, [1, 18], time_major), time_major)


@IMPORT_TFLITE.row("UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_RNN")
def import_rnn(ctx: ImportContext) -> list[Tensor]:
    firsts = [1] if ctx.op.startswith("UNI") else [1, 5]
    _absent(ctx, 9, 11, "an auxiliary input")
    _start_is_zero(ctx, *(first + 3 for first in firsts))
    time_major = bool(option(ctx, "time_major", False))
    parts = [[real_constant(ctx, first + k, "weights") for k in range(3)] for first in firsts]
    weight, recurrent = (_held(name, [part[k] for part in parts]) for k, name in enumerate(("weight", "recurrent")))
    bias = _held("bias", [np.concatenate([part[2], 0 * part[2]]) for part in parts])
    attrs = _attrs(len(firsts), time_major, [_function(ctx)], recurrent.shape[2])
    return _results(ctx, ctx.call("RNN", operand(ctx, 0), weight, recurrent, bias, **attrs)[0], time_major)


# -- examples ----------------------------------------------------------------------------------------------------------
def _random(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).uniform(-0.8, 0.8, shape).astype(np.float32)


def _direction(prefix: str, *, peepholes: bool, coupled: bool) -> dict[str, Array | None]:
    """Operands of an LSTM of 5 values and 4 cells, None for those that are left out."""
    made: dict[str, Array | None] = {}
    for kind, width, group in (("w", 5, "ifco"), ("r", 4, "ifco")):
        made |= {f"{prefix}{kind}{gate}": _random(4, width) * (1 + k / 7) for k, gate in enumerate(group)}
    made |= {f"{prefix}p{gate}": _random(4) * (1 + k / 5) if peepholes else None for k, gate in enumerate("ifo")}
    made |= {f"{prefix}b{gate}": _random(4) * (1 + k / 3) for k, gate in enumerate("ifco")}
    for gate in ("wi", "ri", "pi", "bi") if coupled else ():
        made[prefix + gate] = None
    return made


def _lstm_case(*, peepholes: bool = False, coupled: bool = False, **options: Any) -> TfliteCase:
    operands = {**_direction("", peepholes=peepholes, coupled=coupled), "q": None, "qb": None}
    states = {"h": np.zeros((2, 4), np.float32), "c": np.zeros((2, 4), np.float32)}
    order = ("x", *(name if value is not None else "" for name, value in operands.items()), *states, "", "", "", "")
    return TfliteCase(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        {"x": (3, 2, 5) if options.get("time_major") else (2, 3, 5)},
        {name: value for name, value in (operands | states).items() if value is not None},
        {"fused_activation_function": "TANH", **options},
        "UnidirectionalSequenceLSTMOptions",
        order,
        variables=("h", "c"),
    )


def _bidirectional_case(merge: bool) -> TfliteCase:
    operands: dict[str, Array | None] = {}
    for prefix in ("f", "b"):
        operands |= _direction(prefix, peepholes=False, coupled=False) | {f"{prefix}q": None, f"{prefix}qb": None}
    states = {name: np.zeros((2, 4), np.float32) for name in ("fh", "fc", "bh", "bc")}
    order = ("x", *(name if value is not None else "" for name, value in operands.items()), *states, *("",) * 9)
    return TfliteCase(
        "BIDIRECTIONAL_SEQUENCE_LSTM",
        {"x": (3, 2, 5)},
        {name: value for name, value in (operands | states).items() if value is not None},
        {"fused_activation_function": "TANH", "merge_outputs": merge, "time_major": True},
        "BidirectionalSequenceLSTMOptions",
        order,
        ("float32",) * (1 if merge else 2),
        variables=tuple(states),
    )


def _rnn_case(directions: str, **options: Any) -> TfliteCase:
    constants: dict[str, Array] = {}
    for k, d in enumerate(directions):
        weights = {f"{d}w": _random(4, 5) + k / 9, f"{d}r": _random(4, 4) - k / 9, f"{d}b": _random(4) + k / 5}
        constants |= weights | {f"{d}h": np.zeros((2, 4), np.float32)}
    both = len(directions) == 2
    return TfliteCase(
        "BIDIRECTIONAL_SEQUENCE_RNN" if both else "UNIDIRECTIONAL_SEQUENCE_RNN",
        {"x": (2, 3, 5)},
        constants,
        {"fused_activation_function": "TANH", **options},
        "BidirectionalSequenceRNNOptions" if both else "SequenceRNNOptions",
        ("x", *constants, *("",) * (3 if both else 0)),
        ("float32",) * (2 if both else 1),
        variables=tuple(f"{d}h" for d in directions),
    )


TFLITE_EXAMPLES.add(
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    [
        _lstm_case(),
        _lstm_case(time_major=True, peepholes=True),
        _lstm_case(coupled=True, peepholes=True),
    ],
)
TFLITE_EXAMPLES.add("BIDIRECTIONAL_SEQUENCE_LSTM", [_bidirectional_case(merge) for merge in (True, False)])
TFLITE_EXAMPLES.add("UNIDIRECTIONAL_SEQUENCE_RNN", [_rnn_case("f"), _rnn_case("f", fused_activation_function="RELU")])
TFLITE_EXAMPLES.add("BIDIRECTIONAL_SEQUENCE_RNN", [_rnn_case("fb")])
