"""What every layer of a fixed graph is held in, and how far its values are from those of the float network.

Two errors of a layer: alone, its integers computed from what the float network feeds it, rounded to its operands'
codes; and accumulated, as it comes out of the fixed network with all that went wrong before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from sgs.data.shards import processors
from sgs.engine.lowering import SessionBuilder, session_options
from sgs.engine.single import NodeKernel
from sgs.ir import Graph, Node, Tensor
from sgs.numeric.quantise import Array, dequantise
from sgs.numeric.types import DType
from sgs.quant.blocks import blocks, held_in
from sgs.quant.boundary import codes_of_inputs
from sgs.quant.masks import fading_tensors
from sgs.quant.observe import Streams
from sgs.quant.plan import QuantPlan
from sgs.quant.prepare import known_kind, range_sources
from sgs.quant.selection import selected
from sgs.registry import COST, FLOAT, QUANTISE

SAMPLES = 2  # looked at: errors are of many thousand values each
SEGMENT_BYTES = 1 << 24  # of float results that are computed at a time
_CASTS = ("QUANTIZE", "DEQUANTIZE")
_MOST = 120.0  # dB; a layer without any error has so much
Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class Layer:
    """One operator of a fixed graph that has a float counterpart, by the name of its (first) result.

    `bits` of the operands of a sum of products, of the result elsewhere; `low` and `high` the real range of the
    result's codes, chosen by `method` ("shared" where moving operators tie it to wider tensors, "none" for real
    numbers), `operand_method` likewise for what a sum of products reads; `macs` its share of the multiply-accumulates.
    In dB, None where not measured: `alone` and `accumulated` signal to noise of the result; `gain` what the outputs
    would gain if this layer were in 16 bits.
    """

    name: str
    operator: str
    bits: int
    low: float
    high: float
    method: str
    operand_method: str | None
    macs: float
    alone: float | None = None
    accumulated: float | None = None
    gain: float | None = None


def describe_layers(graph: Graph, core: Graph, plan: QuantPlan, gains: Mapping[str, float]) -> list[Layer]:
    """The layers of the fixed graph of a plan for a float graph, in order, with no errors measured; `gains` as
    `gains_of` gives them."""
    operators = {name: node.op for node in graph.nodes for name in node.outputs}
    real = _counterparts(graph, core)
    work = {n.outputs[0]: COST[n.op](n, core.operands(n), core.results(n)).macs for n in core.nodes}
    total = max(sum(work.values()), 1)
    layers = []
    for node in core.nodes:
        name = node.outputs[0]
        if node.op in _CASTS or name not in plan.ranges:
            continue
        held, rule, operand = core[name], QUANTISE.get(node.op), None
        low, high, method = _range(held, name, plan)
        if rule is not None and rule.kind == "mac":
            x, held = core[node.inputs[0] or ""], core[node.inputs[rule.weight] or ""]
            operand = _range(x, real[x.name], plan)[2]
        bits = 32 if held.quant is None else held.dtype.bits
        operator = str(node.attrs.get("function", operators[name]))
        share = work[name] / total
        layers.append(Layer(name, operator, bits, low, high, method, operand, share, gain=gains.get(name)))
    return layers


def _range(tensor: Tensor, name: str, plan: QuantPlan) -> tuple[float, float, str]:
    """Real range of a fixed tensor that stands for `name`, and how it was chosen."""
    chosen = plan.range_of(name, narrow=tensor.dtype is DType.UINT8)
    if tensor.quant is None:
        return chosen.low, chosen.high, "none"
    low, high = float(tensor.quant.low[0]), float(tensor.quant.high[0])
    own = max(abs(chosen.low), abs(chosen.high)) * (1 + 1e-6) >= max(abs(low), abs(high))
    return low, high, chosen.method if own else "shared"


def gains_of(errors: Mapping[str, float]) -> dict[str, float]:
    """dB at the outputs for each layer taken out of the sum of the error energies of all, as errors of different layers
    add up (`quant.sensitivity`); at most 60."""
    total = sum(errors.values())
    return {name: float(-10 * np.log10(max(1 - error / max(total, 1e-300), 1e-6))) for name, error in errors.items()}


def measured(
    layers: Sequence[Layer], graph: Graph, core: Graph, samples: Sequence[Feeds], scales: Mapping[str, Array]
) -> list[Layer]:
    """The layers with their errors over the samples (float feeds).

    `graph` is the float network that `core` stands for, equalised by `scales` where the plan says so; errors are those
    of the network as it came. Works on a part of the network at a time, and on one sample only where it is large, so
    that memory is bounded by what is alive at any point.
    """
    streams = Streams.of(graph, processors())
    found = _Comparison(graph, core, scales).energies(samples[:1] if streams.large else samples, streams.lanes)
    result = []
    for layer in layers:
        if layer.name in found:
            signal, *noise = found[layer.name]
            alone, accumulated = (_decibels(signal, energy) for energy in noise)
            layer = replace(layer, alone=alone, accumulated=accumulated)
        result.append(layer)
    return result


def _decibels(signal: float, noise: float) -> float | None:
    """None where there is no signal, or no noise was measured (NaN)."""
    if not signal > 0 or np.isnan(noise):
        return None
    return float(10 * np.log10(signal / max(noise, signal * 10 ** (-_MOST / 10))))


@dataclass
class _Segment:
    """Nodes of the float network in one session, and the fixed nodes that can be judged once it has run.

    `reads` and `makes` are the session's tensors; `real` and `codes` those that no later segment wants.
    """

    nodes: list[Node] = field(default_factory=list)
    fixed: list[Node] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    makes: list[str] = field(default_factory=list)
    real: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)

    def session(self, graph: Graph) -> Callable[[Feeds], dict[str, Array]]:
        """What the segment makes, as a function of the values that there are."""
        if not self.makes:
            return lambda values: {}
        builder = SessionBuilder(graph)
        for name in self.reads:
            builder.feed(name, "native")
        for node in self.nodes:
            FLOAT[node.op](builder, node)
        session = builder.finish(dict.fromkeys(self.makes, "native"), session_options(1))
        outputs = [f"out:{name}" for name in self.makes]

        def run(values: Feeds) -> dict[str, Array]:
            results = session.run(outputs, {f"in:{name}": values[name] for name in self.reads})
            return dict(zip(self.makes, results, strict=True))

        return run


@dataclass
class _State:
    """Of one sample: values of the float network and of the fixed one, and `inner` codes of tensors that the float
    network does not have, as they are where nothing went wrong before."""

    real: dict[str, Array]
    codes: dict[str, Array]
    inner: dict[str, Array] = field(default_factory=dict)
    found: dict[str, Array] = field(default_factory=dict)


class _Comparison:
    """A float and a fixed network side by side."""

    def __init__(self, graph: Graph, core: Graph, scales: Mapping[str, Array]) -> None:
        self._graph, self._core, self._scales = graph, core, scales
        self._real = _counterparts(graph, core)
        marked = {*range_sources(core), *fading_tensors(core), *selected(core)}
        self._judged = {n for n in self._real if graph[self._real[n]].dtype.is_float} - marked
        self._segments = _split(graph)
        self._place()
        self._connect(graph)

    def _place(self) -> None:
        """Give every fixed node to the segment that makes the last of its counterparts, or to a later one that the node
        before it is in."""
        made = {name: k for k, segment in enumerate(self._segments) for n in segment.nodes for name in n.outputs}
        place = 0
        for node in self._core.nodes:
            place = max(
                [place, *(made.get(self._real.get(name or "", ""), 0) for name in (*node.inputs, *node.outputs))]
            )
            self._segments[place].fixed.append(node)

    def _connect(self, graph: Graph) -> None:
        """What each segment reads and makes, and what nobody wants behind it."""
        last_real: dict[str, int] = {}
        last_codes: dict[str, int] = {}
        touched = [
            [n for node in part.fixed for n in (*node.inputs, *node.outputs) if n is not None]
            for part in self._segments
        ]
        for k, segment in enumerate(self._segments):
            last_real.update((name, k) for node in segment.nodes for name in node.inputs if name is not None)
            last_real.update((self._real[name], k) for name in touched[k] if name in self._real)
            last_codes.update((name, k) for name in touched[k])
        for k, segment in enumerate(self._segments):
            made = {name: None for node in segment.nodes for name in node.outputs}
            read = {name: None for node in segment.nodes for name in node.inputs if name is not None}
            segment.reads = [name for name in read if name not in made and not graph[name].is_constant]
            wanted = {self._real.get(name) for name in touched[k]}
            segment.makes = [name for name in made if name in wanted or last_real.get(name, -1) > k]
            segment.real = [name for name, end in last_real.items() if end == k]
            segment.codes = [name for name, end in last_codes.items() if end == k]

    def energies(self, samples: Sequence[Feeds], lanes: int) -> dict[str, Array]:
        """Result → energies of the signal, of the noise alone (NaN for moving operators, which add none) and of the
        noise accumulated, float64 [3], over the samples; `lanes` of them are worked on at a time."""
        states = [_State(dict(sample.items()), codes_of_inputs(self._core, sample)) for sample in samples]
        with ThreadPoolExecutor(lanes) as pool:
            for segment in self._segments:
                kernels = [NodeKernel(self._core, node, threads=1) for node in segment.fixed]
                advance = partial(self._advance, segment, segment.session(self._graph), kernels)
                list(pool.map(advance, states))
        names = states[0].found if states else ()
        return {name: np.sum([state.found[name] for state in states], axis=0) for name in names}

    def _advance(
        self,
        segment: _Segment,
        run: Callable[[Feeds], dict[str, Array]],
        kernels: Sequence[NodeKernel],
        state: _State,
    ) -> None:
        """Take one sample through a segment."""
        real, codes, inner = state.real, state.codes, state.inner
        real |= run(real)
        for node, kernel in zip(segment.fixed, kernels, strict=True):
            codes |= zip(node.outputs, kernel([codes[name] for name in kernel.operands]), strict=True)
            name = node.outputs[0]
            if node.op in _CASTS:
                continue
            lone = None
            if name not in self._real or known_kind(node) != "move":
                lone, *_ = results = kernel([self._fed(operand, real, inner) for operand in kernel.operands])
                inner |= ((n, value) for n, value in zip(node.outputs, results, strict=True) if n not in self._real)
            if name in self._judged:
                state.found[name] = self._energies(name, real[self._real[name]], lone, codes[name])
        for values, gone in ((real, segment.real), (codes, segment.codes), (inner, segment.codes)):
            for name in gone:
                values.pop(name, None)

    def _fed(self, name: str, real: Feeds, inner: Feeds) -> Array:
        """What an operand would be if nothing had gone wrong before it."""
        if name not in self._real:
            return inner[name]
        return held_in(self._core[name], real[self._real[name]])

    def _energies(self, name: str, truth: Array, lone: Array | None, codes: Array) -> Array:
        quant, scale = self._core[name].quant, self._scales.get(name, np.ones(1)).astype(np.float32)
        total = np.zeros(3)
        for real, *held in zip(blocks(truth), *(blocks(codes if a is None else a) for a in (lone, codes)), strict=True):
            values = [part if quant is None else dequantise(part, quant) for part in held]
            parts = [part / scale for part in (real, *(value - real for value in values))]
            total += [float(np.vdot(part, part)) for part in parts]
        return total if lone is not None else np.array([total[0], np.nan, total[2]])


def _counterparts(graph: Graph, core: Graph) -> dict[str, str]:
    """Tensor of the fixed graph → the one of the float graph that it stands for."""
    real = {name: name for name in core.inputs}
    for node in core.nodes:
        source = real.get(node.inputs[0] or "")
        if node.op not in _CASTS:
            real.update((name, name) for name in node.outputs if name in graph.tensors)
        elif source is not None:
            real[node.outputs[0]] = source
    return real


def _split(graph: Graph) -> list[_Segment]:
    """The float nodes in order, cut where their results exceed SEGMENT_BYTES."""
    segments, size = [_Segment()], 0
    for node in graph.nodes:
        more = sum(tensor.nbytes for tensor in graph.results(node))
        if segments[-1].nodes and size + more > SEGMENT_BYTES:
            segments.append(_Segment())
            size = 0
        segments[-1].nodes.append(node)
        size += more
    return segments
