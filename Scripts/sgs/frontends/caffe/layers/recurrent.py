"""LSTM and RNN, step by step. `cont` says where a sequence goes on: where it is 0 the state begins anew."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from sgs.frontends.caffe.context import CAFFE, LayerContext, Value
from sgs.frontends.caffe.layers.moving import part

LONGEST = 512  # steps: each is a dozen nodes


class _Sequence:
    """The inputs of a recurrent layer: x [T, N, ...], cont [T, N], static [N, ...] maybe; state h and c with
    expose_hidden."""

    def __init__(self, context: LayerContext, gates: int) -> None:
        p = context.layer.recurrent_param
        exposed = 2 if context.type == "LSTM" and p.expose_hidden else 0
        if p.expose_hidden and not exposed:
            raise context.refuse("expose_hidden of an RNN", "make its state part of the network, or leave it inside")
        context.check_bottoms(2 + exposed, 3 + exposed)
        self.context, self.size, self.exposed = context, context.positive(p.num_output, "num_output"), bool(exposed)
        self.x, self.cont = context.bottoms[:2]
        self.static = context.bottoms[2] if len(context.bottoms) == 3 + exposed else None
        self.state: list[Value | None] = [None, None]
        if self.cont.rank != 2 or self.x.rank < 3 or self.x.shape[:2] != self.cont.shape:
            told = f"{list(self.x.shape)} and {list(self.cont.shape)}"
            raise context.refuse(
                f"its inputs {told} are not [steps, batch, ...] and [steps, batch]", "check the prototxt"
            )
        self.steps, self.batch = self.cont.shape
        if self.static is not None and self.static.shape[:1] != (self.batch,):
            raise context.refuse(
                f"its static input {list(self.static.shape)} is not [batch, ...]", "check the prototxt"
            )
        if self.steps > LONGEST:
            raise context.refuse(f"its sequence has {self.steps} steps, and {LONGEST} is the most", "cut the sequence")
        if exposed:
            self.state = [context.reshape(value, (self.batch, self.size)) for value in context.bottoms[-2:]]
        self.width, self.outputs = prod(self.x.shape[2:]), gates * self.size

    def blobs(self, **more: tuple[int, ...]) -> list[Value]:
        """The layer's blobs: those for x, its bias, the static input, and the state, in Caffe's order; then `more`."""
        shapes: dict[str, tuple[int, ...]] = {"input_weights": (self.outputs, self.width), "bias": (self.outputs,)}
        if self.static is not None:
            shapes["static_weights"] = (self.outputs, prod(self.static.shape[1:]))
        shapes |= {"state_weights": (self.outputs, self.size), **more}
        return [self.context.const(blob, name) for name, blob in zip(shapes, self.context.blobs(**shapes), strict=True)]

    def product(self, value: Value, weights: Value, *bias: Value) -> Value:
        """value [rows, ...] · weights transposed + bias."""
        rows = self.context.reshape(value, (value.shape[0], weights.shape[1]))
        return self.context.emit("Gemm", [rows, weights, *bias], transB=1)

    def driven(self, weights: Sequence[Value]) -> Value:
        """What the inputs add to the gates, [T, N, gates · H]."""
        context = self.context
        flat = context.reshape(self.x, (self.steps * self.batch, self.width))
        sums = context.reshape(self.product(flat, *weights[:2]), (self.steps, self.batch, self.outputs))
        return sums if self.static is None else context.emit("Add", [sums, self.product(self.static, weights[2])])

    def step(self, value: Value, t: int) -> Value:
        """What a value [T, N, ...] is at a step, [N, ...]; [N, 1] for cont."""
        width = prod(value.shape[2:])
        return self.context.reshape(part(self.context, value, {0: (t, t + 1)}), (self.batch, width))

    def kept(self, state: Value | None, t: int) -> Value | None:
        """What of a state goes on into a step; None: there is no state yet, it is 0."""
        return None if state is None else self.context.emit("Mul", [state, self.step(self.cont, t)])

    def stacked(self, steps: list[Value]) -> Value:
        context = self.context
        rows = [context.reshape(value, (1, *value.shape)) for value in steps]
        return rows[0] if len(rows) == 1 else context.emit("Concat", rows, axis=0)


@CAFFE.row("LSTM")
def lstm(context: LayerContext) -> list[Value]:
    """Gates i, f, o, g: c = f · c + i · g, h = o · tanh(c)."""
    sequence = _Sequence(context, 4)
    weights = sequence.blobs()
    driven = sequence.driven(weights)
    h, c = sequence.state
    tops: list[Value] = []
    for t in range(sequence.steps):
        gates, h, c = sequence.step(driven, t), sequence.kept(h, t), sequence.kept(c, t)
        if h is not None:
            gates = context.emit("Add", [gates, sequence.product(h, weights[-1])])
        i, f, o, g = context.emit_many("Split", [gates, context.const([sequence.size] * 4)], 4, axis=1)
        fresh = context.emit("Mul", [context.emit("Sigmoid", [i]), context.emit("Tanh", [g])])
        c = fresh if c is None else context.emit("Add", [context.emit("Mul", [context.emit("Sigmoid", [f]), c]), fresh])
        h = context.emit("Mul", [context.emit("Sigmoid", [o]), context.emit("Tanh", [c])])
        tops.append(h)
    states = [sequence.stacked([value]) for value in (h, c) if value is not None] if sequence.exposed else []
    return [sequence.stacked(tops), *states]


@CAFFE.row("RNN")
def rnn(context: LayerContext) -> list[Value]:
    """h = tanh(what x and h give), and the output tanh(W · h + b)."""
    sequence = _Sequence(context, 1)
    size = sequence.size
    *weights, recurrent, out, bias = sequence.blobs(output_weights=(size, size), output_bias=(size,))
    driven = sequence.driven(weights)
    h: Value | None = None
    tops: list[Value] = []
    for t in range(sequence.steps):
        total, h = sequence.step(driven, t), sequence.kept(h, t)
        if h is not None:
            total = context.emit("Add", [total, sequence.product(h, recurrent)])
        h = context.emit("Tanh", [total])
        tops.append(context.emit("Tanh", [sequence.product(h, out, bias)]))
    return [sequence.stacked(tops)]
