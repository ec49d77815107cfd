"""What 8 bits, or 4 of the weights, do to every sum of products, and through it to the network's outputs.

Two measures. `operand_trials` walks the float network and rounds the operand and the weights of one sum of products at
a time, for several ranges of the operand: the error energy of the sum itself, and the shift of its mean, which bias
correction takes out. `OutputErrors` follows one such error, less its shift, to the network's outputs. Errors of
different operations add up nearly independently, so the list also says what promoting several of them gains. The
measure is the relative error energy Σ(y_q - y)² / Σy² (`fidelity.relative_error`), its mean over the outputs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from sgs.data.shards import processors
from sgs.engine.lowering import SessionBuilder
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array, QuantParams, activation_params, dequantise, quantise_weights, symmetric_params
from sgs.numeric.types import DType
from sgs.ops._mac import activation_float
from sgs.quant.edit import mac_nodes
from sgs.quant.fidelity import energies, is_silent, measures, relative_error
from sgs.quant.observe import Streams
from sgs.quant.plan import QuantPlan, TensorRange
from sgs.quant.walk import Walk
from sgs.registry import FLOAT, MATRIX, QUANTISE

ROWS = 2048  # positions looked at per sum of products, over all samples
ROUNDED_BYTES = 1 << 28  # of rounded weights that are held at a time
Feeds = Sequence[Mapping[str, Array]]


@dataclass(frozen=True, eq=False)
class Trial:
    """A range for the operand of one sum of products: the relative error energy of the sum once its mean is right, and
    the shift of that mean, float64 [O]."""

    range: TensorRange
    error: float
    shift: Array


def rounded_weight(plan: QuantPlan, name: str, weight: Array, axis: int) -> Array:
    """Weights as codes of the plan's bounds hold them, float32: INT4 where it has 4 bits, else INT8."""
    kind = DType.INT4 if plan.macs[name].bits == 4 else DType.INT8
    params = symmetric_params(plan.macs[name].weight_bound, kind, axis)
    return dequantise(quantise_weights(weight, params, kind), params)


def operand_trials(
    float_graph: Graph, prepared: Graph, plan: QuantPlan, samples: Feeds, ranges: Mapping[str, Sequence[TensorRange]]
) -> dict[str, list[Trial]]:
    """Result name of every sum of products → a trial of each of the `ranges` of its operand (the plan's, where there
    are none)."""
    walk = Walk(float_graph, samples, real=True)
    found = {}
    for name in [node.outputs[0] for node in mac_nodes(prepared)]:
        node = walk.until(name)
        tried = ranges.get(node.inputs[0] or "") or [plan.range_of(node.inputs[0] or "", narrow=True)]
        found[name] = _trials(walk, node, plan, tried)
    return found


def _trials(walk: Walk, node: Node, plan: QuantPlan, ranges: Sequence[TensorRange]) -> list[Trial]:
    graph, rule, operand = walk.graph, QUANTISE[node.op], node.inputs[0] or ""
    weight, result = graph[node.inputs[rule.weight] or ""], graph[node.outputs[0]]
    form = MATRIX[node.op](node, graph[operand], weight, result)
    assert weight.data is not None
    rng, rows = np.random.default_rng(0), []
    per_sample = max(ROWS // walk.samples, 16)
    for sample in range(walk.samples):
        count = form.positions
        chosen = np.arange(count) if count <= per_sample else rng.choice(count, per_sample, replace=False)
        rows.append(form.rows(walk.value(operand, sample), chosen))
    real = np.ascontiguousarray(np.concatenate(rows).transpose(1, 0, 2), np.float32)
    exact = form.matrix(weight.data)
    coarse = form.matrix(rounded_weight(plan, result.name, weight.data, rule.channel_axis))
    truth = real @ exact
    power = max(float(truth.var(1).sum()), 1e-30)
    trials = []
    for chosen_range in ranges:
        params = activation_params(chosen_range.low, chosen_range.high, DType.UINT8)
        difference = _as_uint8(real, params) @ coarse - truth
        shift = difference.mean(1, dtype=np.float64).reshape(-1)
        trials.append(Trial(chosen_range, float(difference.var(1).sum()) / power, shift))
    return trials


def _as_uint8(real: Array, params: QuantParams) -> Array:
    """float32 values after rounding to codes."""
    scale, zero = params.scale[0], np.float32(params.zero_point[0])
    codes = np.rint(real / scale)
    return np.asarray(np.clip(codes, -zero, 255 - zero, out=codes) * scale)


class OutputErrors:
    """The float network with a switch at every sum of products, or at those of `names`: at most one at a time has its
    operand in 8 bits and its weights as the plan has them (see `rounded_weight`). What is switched off is not
    computed."""

    def __init__(
        self,
        float_graph: Graph,
        prepared: Graph,
        plan: QuantPlan,
        samples: Feeds,
        names: Collection[str] | None = None,
    ) -> None:
        sums = [node.outputs[0] for node in mac_nodes(prepared)]
        wanted = set(sums if names is None else names)
        self._index = {name: k for k, name in enumerate(sums) if name in wanted}
        self._graph = float_graph.copy()
        self._samples = samples
        builder = SessionBuilder(self._graph)
        for name in self._graph.inputs:
            builder.feed(name, "native")
        self._gate = builder.add_input("gate", ())
        self._scale, self._zero = builder.add_input("scale", ()), builder.add_input("zero", ())
        self._shift = builder.add_input("shift", (None,))
        for node in list(self._graph.nodes):
            FLOAT[node.op](builder, node)
            if node.outputs[0] in self._index:
                self._add_switch(builder, node, plan)
        streams = Streams.of(self._graph, processors())
        self._lanes = streams.lanes
        self._session = builder.finish(dict.fromkeys(self._graph.outputs, "native"), streams.options())
        self._outputs = [f"out:{name}" for name in self._graph.outputs]
        self._measures = measures(float_graph)
        self._truths = [self._run(sample, -1, TensorRange(0, 1), np.zeros(1)) for sample in samples]

    def _add_switch(self, builder: SessionBuilder, node: Node, plan: QuantPlan) -> None:
        graph, rule, result = self._graph, QUANTISE[node.op], node.outputs[0]
        operand, weight = node.inputs[0] or "", graph[node.inputs[rule.weight] or ""]
        layout, operand_layout = builder.layouts(result)[0], builder.layouts(operand)[0]
        true, value = builder.codes(result, layout), builder.codes(operand, operand_layout)
        assert weight.data is not None
        coarse = graph.add_constant(f"{result}/coarse", rounded_weight(plan, result, weight.data, rule.channel_axis))

        def make() -> str:
            codes = builder.op("Round", [builder.op("Div", [value, self._scale])])
            top = builder.op("Sub", [builder.const(np.asarray(255, np.float32)), self._zero])
            clipped = builder.op("Min", [builder.op("Max", [codes, builder.op("Neg", [self._zero])]), top])
            rounded = graph.add_tensor(f"{result}/operand", graph[operand].shape, DType.FLOAT32)
            builder.put(rounded.name, builder.op("Mul", [clipped, self._scale]), operand_layout)
            twin = graph.add_tensor(f"{result}/twin", graph[result].shape, DType.FLOAT32)
            inputs = list(node.inputs)
            inputs[0], inputs[rule.weight] = rounded.name, coarse.name
            linear = Node(node.op, inputs, [twin.name], {**node.attrs, "activation": "NONE"}, node.name)
            FLOAT[node.op](builder, linear)
            shape = [1] * len(twin.shape)
            shape[1 if layout == "first" else -1] = -1
            shift = builder.op("Reshape", [self._shift, builder.const(np.array(shape, np.int64))])
            return activation_float(builder, node, builder.op("Sub", [builder.codes(twin.name, layout), shift]))

        here = builder.op("Equal", [self._gate, builder.const(np.asarray(self._index[result], np.float32))])
        builder.put(result, builder.only_if(here, true, make), layout)

    def _run(self, sample: Mapping[str, Array], gate: int, chosen: TensorRange, shift: Array) -> list[Array]:
        params = activation_params(chosen.low, chosen.high, DType.UINT8)
        feeds = {f"in:{name}": sample[name] for name in self._graph.inputs}
        switches = (gate, params.scale[0], params.zero_point[0], shift)
        names = ("gate", "scale", "zero", "shift")
        feeds.update((name, np.asarray(value, np.float32)) for name, value in zip(names, switches, strict=True))
        return list(self._session.run(self._outputs, feeds))

    def measure(self, trials: Iterable[tuple[str, Trial]]) -> Iterator[float]:
        """Relative error energy at the outputs of each (result of a sum of products, trial), in order."""
        with ThreadPoolExecutor(self._lanes) as pool:
            yield from pool.map(lambda pair: self._one(*pair), trials)

    def _one(self, name: str, trial: Trial) -> float:
        tables = []
        for sample, truths in zip(self._samples, self._truths, strict=True):
            values = self._run(sample, self._index[name], trial.range, trial.shift)
            exact = dict(zip(self._measures, truths, strict=True))
            tables.append([energies(m, exact, value) for m, value in zip(self._measures.values(), values, strict=True)])
        outputs = [np.stack(table) for table in zip(*tables, strict=True)]
        errors = [relative_error(table) for table in outputs if not is_silent(table)]
        return float(np.mean(errors)) if errors else 0.0


def output_errors(
    float_graph: Graph, prepared: Graph, plan: QuantPlan, samples: Feeds, trials: Mapping[str, Trial]
) -> Iterator[float]:
    """Relative error energy at the outputs of a trial of each sum of products, in order. Rounded weights are held for
    a part of them at a time, so that a large network takes little more memory than it does itself."""
    for names in _parts(prepared, trials):
        yield from OutputErrors(float_graph, prepared, plan, samples, names).measure((n, trials[n]) for n in names)


def _parts(prepared: Graph, names: Iterable[str]) -> list[list[str]]:
    """The names in order, in lists of sums of products that have ROUNDED_BYTES of weights together, or of one."""
    nodes, parts, held = {node.outputs[0]: node for node in mac_nodes(prepared)}, list[list[str]](), ROUNDED_BYTES
    for name in names:
        size = prepared[nodes[name].inputs[QUANTISE[nodes[name].op].weight] or ""].nbytes
        if held + size > ROUNDED_BYTES:
            parts.append([])
            held = 0
        parts[-1].append(name)
        held += size
    return parts
