"""ONNX LSTM, GRU and RNN, written out step by step in existing operators.

All steps' products with the weights W of the sequence are one FULLY_CONNECTED; a step then has one with the weights R
of the state, its gates, and what they make of the state. Tensors of a step have shape [1, B, ...], B the batch, H the
hidden size, D the directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.ops._import import add, fully_connected, multiply, number, subtract
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase, Shape

LONGEST = 512  # steps of all directions together: each is a dozen nodes
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# activation → its parameters and their defaults, which are those of the ONNX operator where there is one
_PARAMETERS: dict[str, dict[str, float | None]] = {
    "Affine": {"alpha": None, "beta": None},
    "ScaledTanh": {"alpha": None, "beta": None},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "Elu": {"alpha": 1.0},
    "LeakyRelu": {"alpha": 0.01},
    "ThresholdedRelu": {"alpha": 1.0},
    "Relu": {},
    "Sigmoid": {},
    "Softplus": {},
    "Softsign": {},
    "Tanh": {},
}
Function = Callable[[Tensor], Tensor]


def _sum_or(ctx: ImportContext, a: Tensor | None, b: Tensor) -> Tensor:
    """a + b, where None stands for 0."""
    return b if a is None else add(ctx, a, b)


# -- activations -----------------------------------------------------------------------------------------------------
def _activations(ctx: ImportContext, directions: int) -> list[list[Function]]:
    """The functions of every direction, those of one direction in ONNX's order: f, g, h.

    `activation_alpha` and `activation_beta` are used up by the functions that have such a parameter, in order.
    """
    names = [str(name) for name in ctx.attrs.get("activations", _DEFAULTS[ctx.op] * directions)]
    each = len(_DEFAULTS[ctx.op])
    if len(names) != each * directions:
        raise ctx.refuse(f"{len(names)} activations where {directions} directions have {each} each")
    canonical = {known.lower(): known for known in _PARAMETERS}
    given = {kind: iter(ctx.attrs.get(f"activation_{kind}", [])) for kind in ("alpha", "beta")}
    functions = []
    for name in names:
        if name.lower() not in canonical:
            raise ctx.refuse(f"the activation {name}", f"activations are {', '.join(sorted(_PARAMETERS))}")
        known = canonical[name.lower()]
        attrs = {kind: next(given[kind], default) for kind, default in _PARAMETERS[known].items()}
        if None in attrs.values():
            raise ctx.refuse(f"the activation {name} without alpha and beta")
        functions.append(_function(ctx, known, cast("dict[str, float]", attrs)))
    return [functions[i * each : (i + 1) * each] for i in range(directions)]


def _function(ctx: ImportContext, name: str, attrs: dict[str, float]) -> Function:
    if name == "Affine":
        return lambda x: add(ctx, multiply(ctx, x, attrs["alpha"]), attrs["beta"])
    if name == "ScaledTanh":
        return lambda x: multiply(ctx, ctx.emit("TANH", multiply(ctx, x, attrs["beta"])), attrs["alpha"])
    return lambda x: ctx.call(name, x, **attrs)[0]


def _clipped(ctx: ImportContext, x: Tensor) -> Tensor:
    """Attr `clip` bounds what goes into the gates' activations."""
    bound = ctx.attrs.get("clip")
    if bound is None:
        return x
    return ctx.emit("MINIMUM", ctx.emit("MAXIMUM", x, number(-bound)), number(bound))


# -- one direction ---------------------------------------------------------------------------------------------------
@dataclass
class _Direction:
    """One direction of the node: weight [G·H, I], recurrent [G·H, H], biases [2, G·H], peepholes [3, H] or None, and
    the state before the first step, [1, B, H] or None for zeros."""

    ctx: ImportContext
    functions: list[Function]
    weight: Array
    recurrent: Array
    biases: Array
    peepholes: Array | None
    hidden: Tensor | None
    cell: Tensor | None = None

    def recur(self, state: Tensor | None, rows: slice = slice(None)) -> Tensor | None:
        """The state's product with `rows` of the recurrent weights; None for a state of zeros."""
        return None if state is None else fully_connected(self.ctx, state, self.recurrent[rows])

    def parted(self, x: Tensor, parts: int) -> list[Tensor]:
        """x [1, B, parts·H] cut into gates."""
        return [x] if parts == 1 else self.ctx.emit_many("SPLIT", [x], axis=2, num_splits=parts)


def _step_rnn(it: _Direction, x: Tensor) -> None:
    """H' = f(x + R·H), x the step's product with W, biases included."""
    it.hidden = it.functions[0](_clipped(it.ctx, _sum_or(it.ctx, it.recur(it.hidden), x)))


def _step_lstm(it: _Direction, x: Tensor) -> None:
    """Gates i, o, f by f and the candidate c by g; C' = f·C + i·c, H' = o·h(C'). Peepholes add multiples of C to i and
    f, of C' to o. With attr `input_forget` f is 1 - i."""
    ctx, (f, g, h) = it.ctx, it.functions
    i, o, forget, c = it.parted(_sum_or(ctx, it.recur(it.hidden), x), 4)
    coupled = bool(ctx.attrs.get("input_forget", 0))

    def gate(value: Tensor, peephole: int, cell: Tensor | None) -> Tensor:
        if it.peepholes is not None and cell is not None:
            value = add(ctx, value, multiply(ctx, cell, it.peepholes[peephole]))
        return f(_clipped(ctx, value))

    entering = gate(i, 0, it.cell)
    new = multiply(ctx, entering, g(_clipped(ctx, c)))
    if it.cell is not None:
        kept = subtract(ctx, 1, entering) if coupled else gate(forget, 2, it.cell)
        new = add(ctx, multiply(ctx, kept, it.cell), new)
    it.cell, it.hidden = new, multiply(ctx, gate(o, 1, new), h(new))


def _step_gru(it: _Direction, x: Tensor) -> None:
    """Gates z, r by f; the candidate is h = g(x_h + R_h·(r·H) + b), with attr `linear_before_reset`
    g(x_h + r·(R_h·H + b)); H' = h + z·(H - h)."""
    ctx, (f, g), size = it.ctx, it.functions, it.recurrent.shape[1]
    after, bias = slice(2 * size, None), it.biases[1, 2 * size :]
    gates, candidate = ctx.emit_many("SPLIT_V", [x], axis=2, sizes=(2 * size, size))
    z, r = it.parted(f(_clipped(ctx, _sum_or(ctx, it.recur(it.hidden, slice(2 * size)), gates))), 2)
    if ctx.attrs.get("linear_before_reset", 0):
        if it.hidden is not None:
            inner = fully_connected(ctx, it.hidden, it.recurrent[after], bias)
            candidate = add(ctx, candidate, multiply(ctx, r, inner))
        elif bias.any():
            candidate = add(ctx, candidate, multiply(ctx, r, bias))
    elif it.hidden is not None:
        candidate = add(ctx, candidate, fully_connected(ctx, multiply(ctx, r, it.hidden), it.recurrent[after]))
    new = g(_clipped(ctx, candidate))
    before = it.hidden
    moved = multiply(ctx, z, subtract(ctx, before, new)) if before is not None else None
    it.hidden = add(ctx, new, moved) if moved is not None else subtract(ctx, new, multiply(ctx, z, new))


_STEP: dict[str, Callable[[_Direction, Tensor], None]] = {"LSTM": _step_lstm, "GRU": _step_gru, "RNN": _step_rnn}


def _run(it: _Direction, x: Tensor, backward: bool) -> list[Tensor]:
    """All steps of a direction over x [T, B, I]: the hidden states [1, B, H] in the order of the sequence."""
    ctx, steps = it.ctx, x.shape[0]
    bias = it.biases.sum(0)
    if ctx.op == "GRU" and ctx.attrs.get("linear_before_reset", 0):
        gates = 2 * it.recurrent.shape[1]
        bias = np.concatenate([bias[:gates], it.biases[0, gates:]])  # the rest is inside the reset
    inner = fully_connected(ctx, x, it.weight, bias)
    parts = [inner] if steps == 1 else ctx.emit_many("SPLIT", [inner], axis=0, num_splits=steps)
    states = []
    for part in reversed(parts) if backward else parts:
        _STEP[ctx.op](it, part)
        assert it.hidden is not None
        states.append(it.hidden)
    return states[::-1] if backward else states


# -- the operators ---------------------------------------------------------------------------------------------------
def _matrices(ctx: ImportContext, steps: int, batch: int) -> tuple[Array, Array, Array, Array | None]:
    """W [D, G·H, I], R [D, G·H, H], biases [D, 2, G·H] and peepholes [D, 3, H] or None, checked."""
    weight, recurrent, bias = (ctx.constant(i, what) for i, what in ((1, "weight"), (2, "weight"), (3, "bias")))
    assert weight is not None and recurrent is not None
    directions, rows, size = recurrent.shape
    lengths = ctx.constant(4, "sequence lengths")
    if lengths is not None and not np.array_equal(lengths, np.full(batch, steps)):
        raise ctx.refuse(f"sequences of {lengths.tolist()} of {steps} steps", "sequences of full length are supported")
    if steps * directions > LONGEST:
        raise ctx.refuse(
            f"{steps} steps in {directions} directions, written out one by one",
            f"at most {LONGEST} are supported: feed shorter sequences, and their state with them",
        )
    biases = np.zeros((directions, 2, rows), np.float32) if bias is None else bias.reshape(directions, 2, rows)
    peepholes = ctx.constant(7, "peepholes") if ctx.op == "LSTM" else None
    return weight, recurrent, biases, None if peepholes is None else peepholes.reshape(directions, 3, size)


def _states(ctx: ImportContext, index: int, what: str, directions: int) -> list[Tensor | None]:
    """The state before the first step for every direction, [1, B, H]; None where it is absent or constant zeros."""
    state = ctx.inputs[index] if index < len(ctx.inputs) else None
    if state is None or (state.data is not None and not state.data.any()):
        return [None] * directions
    if ctx.attrs.get("layout", 0):
        state = ctx.emit("TRANSPOSE", state, perm=(1, 0, 2))
    return [state] if directions == 1 else [*ctx.emit_many("SPLIT", [state], axis=0, num_splits=directions)]


def _joined(ctx: ImportContext, tensors: Sequence[Tensor], axis: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else ctx.emit("CONCATENATION", *tensors, axis=axis)


def _sequence(ctx: ImportContext, runs: list[list[Tensor]]) -> Tensor:
    """Hidden states [1, B, H] of every direction and step as [T, D, B, H]."""
    whole = [_joined(ctx, run, 0) for run in runs]
    steps, batch, size = whole[0].shape
    return _joined(ctx, [ctx.emit("RESHAPE", one, shape=(steps, 1, batch, size)) for one in whole], 1)


@IMPORT_ONNX.row("LSTM", "GRU", "RNN")
def import_recurrent(ctx: ImportContext) -> list[Tensor]:
    """Results Y [T, D, B, H], Y_h and for LSTM Y_c [D, B, H]; with attr `layout` 1 the batch comes first."""
    x, first = ctx.inputs[0], bool(ctx.attrs.get("layout", 0))
    assert x is not None
    if first:
        x = ctx.emit("TRANSPOSE", x, perm=(1, 0, 2))
    weight, recurrent, biases, peepholes = _matrices(ctx, *x.shape[:2])
    count = len(recurrent)
    direction = str(ctx.attrs.get("direction", "forward")).lower()
    if direction not in ("forward", "reverse", "bidirectional") or count != 1 + (direction == "bidirectional"):
        raise ctx.refuse(f"direction '{direction}' with weights of {count}")
    functions = _activations(ctx, count)
    hidden = _states(ctx, 5, "state", count)
    cells = _states(ctx, 6, "cell state", count) if ctx.op == "LSTM" else [None] * count
    runs, ends = [], []
    for d in range(count):
        holes = None if peepholes is None else peepholes[d]
        it = _Direction(ctx, functions[d], weight[d], recurrent[d], biases[d], holes, hidden[d], cells[d])
        runs.append(_run(it, x, backward=direction == "reverse" or d == 1))
        ends.append(it)
    last = [[it.hidden for it in ends], [it.cell for it in ends]][: ctx.output_count - 1]
    results = [_sequence(ctx, runs)] + [_joined(ctx, [t for t in part if t is not None], 0) for part in last]
    if not first:
        return results
    perms = [(2, 0, 1, 3), (1, 0, 2), (1, 0, 2)]
    return [ctx.emit("TRANSPOSE", y, perm=perm) for y, perm in zip(results, perms, strict=False)]


# -- examples --------------------------------------------------------------------------------------------------------
def _case(op: str, *, directions: int = 1, batch: int = 2, state: bool = False, **attrs: Any) -> OnnxCase:
    """Three steps of 5 values, 4 hidden ones; `state` fed from outside, `peepholes` (an LSTM's) and a bias there."""
    gates, holes, bias = _GATES[op], attrs.pop("peepholes", False), attrs.pop("bias", True)
    rng = np.random.default_rng(gates + directions)

    def random(*shape: int) -> Array:
        return rng.uniform(-0.8, 0.8, shape).astype(np.float32)

    constants = {"w": random(directions, gates * 4, 5), "r": random(directions, gates * 4, 4)}
    constants |= {"b": random(directions, gates * 8)} if bias else {}
    constants |= {"p": random(directions, 12)} if holes else {}
    fed: dict[str, Shape] = {"x": (3, batch, 5)}
    fed |= {"h": (directions, batch, 4)} if state else {}
    fed |= {"c": (directions, batch, 4)} if state and op == "LSTM" else {}
    order = ["x", "w", "r", "b", "", "h", "c", "p"][: 8 if op == "LSTM" else 6]
    operands = tuple(name if name in constants or name in fed else "" for name in order)
    results = 3 if op == "LSTM" else 2
    if directions == 2:
        attrs["direction"] = "bidirectional"
    return OnnxCase(op, fed, constants, {"hidden_size": 4, **attrs}, operands, outputs=results)


ONNX_EXAMPLES.add(
    "LSTM",
    [
        _case("LSTM"),
        _case("LSTM", batch=1, direction="reverse", bias=False),
        _case("LSTM", directions=2, state=True, peepholes=True),
        _case("LSTM", state=True, clip=0.3, peepholes=True),
        _case("LSTM", state=True, input_forget=1),
        _case(
            "LSTM",
            activations=["HardSigmoid", "ScaledTanh", "Affine"],
            activation_alpha=[0.3, 0.7, 1.2],
            activation_beta=[0.4, 0.9, 0.1],
        ),
    ],
)
ONNX_EXAMPLES.add(
    "GRU",
    [
        _case("GRU"),
        _case("GRU", directions=2, state=True),
        _case("GRU", linear_before_reset=1),
        _case("GRU", state=True, linear_before_reset=1, direction="reverse", clip=0.4),
        _case("GRU", batch=1, bias=False, activations=["Sigmoid", "LeakyRelu"], activation_alpha=[0.2]),
    ],
)
ONNX_EXAMPLES.add(
    "RNN",
    [
        _case("RNN"),
        _case("RNN", directions=2, state=True, activations=["Relu", "Tanh"]),
        _case("RNN", batch=1, state=True, direction="reverse", clip=0.5, bias=False),
    ],
)
