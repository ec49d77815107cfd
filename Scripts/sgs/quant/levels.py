"""Levels L1 to L5: recipes over the algorithms of `ranges`, `sensitivity` and `bias_correction`.

    L1  activations min/max, weights absmax
    L2  + weight bounds by least squared error
    L3  + activation ranges by histogram search
    L4  + 16 bit for the sums of products that disturb the outputs most, down to the sensitivity threshold
    L5  + finer searches, sequential bias correction

A step's plan replaces the one before only where it lowers the measured error of the network's outputs on calibration
samples, so a higher level is never less accurate on them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sgs.config.input_config import ConvSpec
from sgs.engine import FixedEngine, FloatEngine
from sgs.errors import UserError, raise_all
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.quant import ranges
from sgs.quant.bias_correction import corrected
from sgs.quant.boundary import codes_of_inputs, real_outputs
from sgs.quant.edit import build_fixed, mac_nodes, moved_operands
from sgs.quant.plan import MacChoice, QuantPlan, TensorRange
from sgs.quant.prepare import kind_of, prepare
from sgs.quant.sensitivity import output_errors
from sgs.quant.statistics import Statistics, marked_tensors, measure_extrema
from sgs.registry import COST, QUANTISE, RANGE

_log = logging.getLogger(__name__)
Feeds = Mapping[str, Array]
LEVELS = ("L1", "L2", "L3", "L4", "L5")
JUDGE_SAMPLES = 8  # pictures on which plans are compared
CORRECTION_SAMPLES = 16
SENSITIVITY_SAMPLES = 2
RESULT_COST = 64  # what a 16-bit result costs beside its multiply-accumulates, in such


@dataclass(frozen=True)
class Step:
    """One line of the calibration's record: what was tried, the mean output SQNR in dB it gave, and whether it
    stayed.
    """

    name: str
    sqnr: float
    kept: bool


@dataclass
class Calibration:
    """A calibration under way. `samples` are float feeds kept for judging, at most CORRECTION_SAMPLES of them.

    `threshold`: loss of cosine similarity at the worst output that is tolerated before sums of products are promoted;
    `max_int16_macs`: the largest share of multiply-accumulates that may be (the first one is always granted);
    `wide`: inputs whose codes the user feeds; `on_step` hears of every step as it ends. `steps` tells what
    each step of the last `run` gained.
    """

    float_graph: Graph
    statistics: Statistics
    samples: Sequence[Feeds]
    conv: ConvSpec
    threshold: float = 0.002
    max_int16_macs: float = 0.25
    wide: frozenset[str] = frozenset()
    threads: int = 0
    on_step: Callable[[Step], None] = lambda step: None
    prepared: Graph = field(init=False)
    steps: list[Step] = field(default_factory=list)
    _truth: list[dict[str, Array]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.prepared = prepare(self.float_graph)
        engine = FloatEngine(self.float_graph, threads=self.threads)
        self._truth = [engine.run(sample) for sample in self.samples[:JUDGE_SAMPLES]]

    # -- the first plan ------------------------------------------------------------------------------------------------
    def initial_plan(self) -> QuantPlan:
        """L1: everything seen, nothing clipped, bits as [CONV_CONFIG] says (8 where it is silent)."""
        forced = forced_bits(self.prepared, self.conv)
        macs = {}
        for node in mac_nodes(self.prepared):
            name = node.outputs[0]
            macs[name] = MacChoice(forced.get(name, 8), self._weight_absmax(node))
        known = known_ranges(self.prepared)
        chosen = {
            t.name: known.get(t.name) or ranges.minmax(self.statistics.tensors[t.name])
            for t in self.prepared.activations()
            if t.name in self.statistics.tensors
        }
        return QuantPlan(chosen, {}, macs, "L1")

    # -- judging -------------------------------------------------------------------------------------------------------
    def output_sqnr(self, plan: QuantPlan) -> float:
        """Mean of the outputs' signal to quantisation noise, dB, on the judging samples: capped at 120, outputs that
        are all zero there left out."""
        core = self.fixed(plan)
        engine = FixedEngine(core, threads=self.threads)
        signal, noise = dict.fromkeys(core.outputs, 0.0), dict.fromkeys(core.outputs, 0.0)
        for sample, truth in zip(self.samples, self._truth, strict=False):
            values = real_outputs(core, engine.run(codes_of_inputs(core, sample)), core.outputs)
            for name in core.outputs:
                signal[name] += float((truth[name].astype(np.float64) ** 2).sum())
                noise[name] += float(((truth[name].astype(np.float64) - values[name]) ** 2).sum())
        heard = [name for name in core.outputs if signal[name] > 0]
        decibels = [min(120.0, 10 * np.log10(signal[name] / max(noise[name], 1e-12 * signal[name]))) for name in heard]
        return float(np.mean(decibels)) if heard else 0.0

    def fixed(self, plan: QuantPlan) -> Graph:
        """The integer graph of a plan."""
        return build_fixed(self.prepared, plan, self.wide)

    def better(self, name: str, plan: QuantPlan, trial: QuantPlan) -> QuantPlan:
        """The plan with the smaller measured error of the two; the trial is recorded."""
        best = max(step.sqnr for step in self.steps if step.kept)
        score = self.output_sqnr(trial)
        self._record(Step(name, score, score > best))
        return trial if score > best else plan

    def _record(self, step: Step) -> None:
        self.steps.append(step)
        self.on_step(step)

    # -- the steps -----------------------------------------------------------------------------------------------------
    def search_weights(self, plan: QuantPlan, *, candidates: int) -> QuantPlan:
        """Weight bounds by least squared error."""
        macs = {}
        for node in mac_nodes(self.prepared):
            rule, choice = QUANTISE[node.op], plan.macs[node.outputs[0]]
            weight = self.prepared[node.inputs[rule.weight] or ""].data
            assert weight is not None
            bound = choice.weight_bound
            if choice.bits == 8:
                bound = ranges.weight_mse(weight, rule.channel_axis, steps=127, candidates=candidates)
            macs[node.outputs[0]] = replace(choice, weight_bound=bound)
        return replace(plan, macs=macs)

    def search_ranges(self, plan: QuantPlan, *, candidates: int) -> QuantPlan:
        """Clipped ranges of tensors that sums of products may read in 8 bits, by histogram search."""
        found = dict(plan.narrow)
        for name in searched_tensors(self.prepared):
            if self.statistics.tensors[name].counts is not None:
                found[name] = ranges.histogram_mse(self.statistics.tensors[name], candidates=candidates)
        return replace(plan, narrow=found)

    def promote(self, plan: QuantPlan) -> QuantPlan:
        """16 bit where it helps the outputs most per multiply-accumulate, until what is left in 8 bits is expected to
        cost them less cosine than the threshold, or the budget of 16-bit work is spent; nothing where bits are
        forced."""
        if self.conv.input_format is not None:
            return plan
        errors = output_errors(
            self.float_graph, self.prepared, plan, self.samples[:SENSITIVITY_SAMPLES], threads=self.threads
        )
        nodes = {node.outputs[0]: node for node in mac_nodes(self.prepared)}
        work = {
            name: COST[n.op](n, self.prepared.operands(n), self.prepared.results(n)).macs for name, n in nodes.items()
        }
        left = sum(errors.values())
        budget = self.max_int16_macs * sum(work.values())
        budget -= sum(work[name] for name, mac in plan.macs.items() if mac.bits == 16)
        macs = dict(plan.macs)
        # 1 - cosine is half the relative error energy; what 16 bits cannot reach either is no reason to use them
        tolerated = 2 * self.threshold + 10 ** (-self.output_sqnr(self._all_wide(plan)) / 10)
        cost = {name: work[name] + RESULT_COST * self.prepared[name].elements for name in errors}
        for name in sorted(errors, key=lambda name: -errors[name] / cost[name]):
            if left <= tolerated:
                break
            if errors[name] < tolerated / len(errors):  # even if all did so, they would be tolerated
                continue
            if work[name] > budget and any(mac.bits == 16 for mac in macs.values()):
                continue
            left, budget = left - errors[name], budget - work[name]
            macs[name] = replace(macs[name], bits=16, weight_bound=self._weight_absmax(nodes[name]))
        if left > tolerated:
            _log.info("16 bit: no more within the budget; %.4f of cosine may be lost to 8 bits", left / 2)
        return replace(plan, macs=macs)

    def _all_wide(self, plan: QuantPlan) -> QuantPlan:
        """The plan with every sum of products in 16 bits."""
        wide = {
            node.outputs[0]: replace(plan.macs[node.outputs[0]], bits=16, weight_bound=self._weight_absmax(node))
            for node in mac_nodes(self.prepared)
        }
        return replace(plan, macs=wide)

    def _weight_absmax(self, node: Node) -> Array:
        rule = QUANTISE[node.op]
        weight = self.prepared[node.inputs[rule.weight] or ""].data
        assert weight is not None
        return ranges.weight_absmax(weight, rule.channel_axis)

    def correct_bias(self, plan: QuantPlan) -> QuantPlan:
        """Sequential bias correction on the samples kept."""
        core = self.fixed(plan)
        floats = measure_extrema(self.float_graph, self.samples, threads=self.threads)
        feeds = [codes_of_inputs(core, sample) for sample in self.samples]
        return corrected(core, plan, floats, feeds, threads=self.threads)

    def run(self, level: str) -> QuantPlan:
        """The plan of a level."""
        recipe = RECIPES[: LEVELS.index(level) + 1]
        plan = self.initial_plan()
        self.steps = []
        self._record(Step("start", self.output_sqnr(plan), True))
        for names in recipe:
            for name in names:
                plan = self.better(name, plan, STEPS[name](self, plan))
        return replace(plan, level=level)


STEPS: dict[str, Callable[[Calibration, QuantPlan], QuantPlan]] = {
    "weights: least squares": lambda c, p: c.search_weights(p, candidates=16),
    "activations: histogram": lambda c, p: c.search_ranges(p, candidates=24),
    "16 bit where sensitive": lambda c, p: c.promote(p),
    "activations: fine histogram": lambda c, p: c.search_ranges(p, candidates=64),
    "bias correction": lambda c, p: c.correct_bias(p),
}
RECIPES: tuple[tuple[str, ...], ...] = (
    (),
    ("weights: least squares",),
    ("activations: histogram",),
    ("16 bit where sensitive",),
    ("activations: fine histogram", "bias correction"),
)


def searched_tensors(prepared: Graph) -> list[str]:
    """Activations whose 8-bit range matters: operand 0 of sums of products, and what moves into them."""
    wanted: dict[str, None] = {}
    for node in reversed(prepared.nodes):
        kind = kind_of(node)
        if kind == "mac" and node.inputs[0] is not None:
            wanted[node.inputs[0]] = None
        elif kind == "move" and any(name in wanted for name in node.outputs):
            wanted.update((n, None) for n in moved_operands(node) if not prepared[n].is_constant)
    marked = marked_tensors(prepared)
    return [t.name for t in prepared.activations() if t.name in wanted and t.name not in marked]


def known_ranges(prepared: Graph) -> dict[str, TensorRange]:
    """Ranges that follow from the operator alone."""
    known = {}
    for node in prepared.nodes:
        if node.op in RANGE:
            low, high = RANGE[node.op]
            known[node.outputs[0]] = TensorRange(low, high, "known")
    return known


_FORCED: dict[str, Callable[[Node], int]] = {
    "ALL_UINT8": lambda node: 8,
    "ALL_INT16": lambda node: 16,
    "CONV2D_INT16": lambda node: 8 if node.op == "DEPTHWISE_CONV_2D" else 16,
    "DEPTHWISE_INT16": lambda node: 16 if node.op == "DEPTHWISE_CONV_2D" else 8,
}


def forced_bits(prepared: Graph, conv: ConvSpec) -> dict[str, int]:
    """Result name → bits, as [CONV_CONFIG] asks. The first sum of products keeps 8 bit (manual §1.3.3).

    Raises UserError for a `tensor_arrays` name that is no operand 0 of a sum of products.
    """
    nodes = list(mac_nodes(prepared))
    bits: dict[str, int] = {}
    if conv.input_format is not None:
        bits = {node.outputs[0]: _FORCED[conv.input_format](node) for node in nodes}
    operands = {node.inputs[0] for node in nodes}
    raise_all(
        [
            UserError(
                "no convolution has this first input",
                node=f"[CONV_CONFIG] tensor_arrays, '{name}'",
                remedy="tensor names of the float .sim: " + ", ".join(sorted(o for o in operands if o)[:8]) + " ...",
            )
            for name in conv.tensor_arrays
            if name not in operands
        ],
        stage="calibrate",
    )
    for node in nodes:
        if node.inputs[0] in conv.tensor_arrays:
            bits[node.outputs[0]] = 16
    first = nodes[0] if nodes else None
    exempt = first is not None and first.inputs[0] in prepared.inputs and conv.input_format is None
    if first is not None and exempt and bits.pop(first.outputs[0], None) is not None:
        _log.warning("tensor_arrays: '%s' feeds the first convolution, which stays in 8 bit", first.inputs[0])
    return bits
