"""Levels L1 to L5: recipes over the algorithms of `ranges`, `equalise`, `sensitivity` and `refit`.

    L1  activations min/max, weights absmax
    L2  + weight bounds by least squared error
    L3  + bias correction, channel equalisation (with tables per channel where that gains much), the best of four
        ranges for every activation
    L4  + 16 bit for the sums of products that disturb the outputs most, down to the sensitivity threshold
    L5  + 16 bit as far as the budget goes, ranges by their effect on the outputs, weights refitted with second-order
        rounding

Every step's plan is measured at the network's outputs, on samples that nothing is fitted to (where there are enough),
and replaces the one before only where the error falls. From L3 on a plan is measured as it is and with its biases
corrected.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from sgs.config.input_config import ConvSpec
from sgs.data.stored import stored
from sgs.engine import FixedEngine, FloatEngine
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.quant import ranges
from sgs.quant.boundary import codes_of_inputs, real_outputs
from sgs.quant.edit import build_fixed, mac_nodes, moved_operands
from sgs.quant.equalise import HEADROOM, Scales, channel_scales, equalised, scaled
from sgs.quant.fidelity import decibels, energies, is_silent, judged, measures
from sgs.quant.forced import forced_bits
from sgs.quant.gather import Wrap, plain
from sgs.quant.plan import MacChoice, QuantPlan, TensorRange
from sgs.quant.ports import NO_PORTS, Ports
from sgs.quant.prepare import FUNCTION, kind_of, prepare
from sgs.quant.presets import NO_PRESETS, Presets
from sgs.quant.refit import refitted
from sgs.quant.sensitivity import OutputErrors, Trial, operand_trials, output_errors
from sgs.quant.statistics import Statistics, marked_tensors, measure_extrema
from sgs.registry import COST, QUANTISE, RANGE

_log = logging.getLogger(__name__)
Feeds = Mapping[str, Array]
LEVELS = ("L1", "L2", "L3", "L4", "L5")
KEPT_SAMPLES = 96  # pictures kept beside the statistics
L1_SAMPLES = 8  # where nothing is chosen, and they only tell how near the outputs are
JUDGE_SAMPLES = 32  # of them, at most, judge plans; the others are fitted to
FIT_SAMPLES = 64  # for the final biases and weights
WEIGHT_JUDGES = 8  # of the judging samples also judge single weights
TRIAL_SAMPLES = 8  # for local errors
CORRECTION_SAMPLES = 6  # for biases of plans that are to be judged
SENSITIVITY_SAMPLES = 4
WIDE_HEADROOM = 1.5  # of INT16 ranges over what was seen: other pictures have larger values, and half a bit is no loss
_ACTIVATIONS = 40_000_000  # per sample; of networks with more, fewer samples are looked at
RESULT_COST = 16  # what a 16-bit result costs beside its multiply-accumulates, in such
THRESHOLD, MAX_INT16_MACS = 0.002, 0.25  # unless something else is asked for, see `Calibration`
_BEST = 0.1  # of the threshold: where the best is wanted, the budget is what ends promotion
_ENOUGH = 8  # judging samples below which all samples judge: what few happen to say is worse than what was fitted to
_WORTH_TABLES = 1.0  # dB that tables per channel must gain: they take memory and time
_ROUNDS = 3  # of promotion, until the measured error is tolerable
_FOLLOWED = 24  # sums of products whose ranges are tried at the outputs


@dataclass(frozen=True)
class Step:
    """One line of the calibration's record: what was tried, the mean output SQNR in dB it gave, and whether it
    stayed.
    """

    name: str
    sqnr: float
    kept: bool


@dataclass(frozen=True)
class Network:
    """The float network that a plan is for, with outputs to judge by, its form for quantisation, and what is known of
    its activations."""

    graph: Graph
    prepared: Graph
    statistics: Statistics


@dataclass
class Calibration:
    """A calibration under way. `samples` are float feeds kept for fitting and judging, KEPT_SAMPLES of them at most.

    `threshold`: relative error energy at the outputs that is tolerated before sums of products are promoted;
    `max_int16_macs`: the largest share of multiply-accumulates that may be (the first one is always granted);
    `ports`: storage of inputs and outputs; `pixels`: ranges of pictures that are no matter of choice; `presets`: what
    holds in every plan; `on_step` hears of every step as it ends. `steps` tells what each step of the last `run`
    gained, `sensitivities` what the last promotion measured.
    """

    float_graph: Graph
    statistics: Statistics
    samples: Sequence[Feeds]
    conv: ConvSpec
    threshold: float = THRESHOLD
    max_int16_macs: float = MAX_INT16_MACS
    ports: Ports = NO_PORTS
    pixels: Mapping[str, TensorRange] = field(default_factory=dict)
    presets: Presets = NO_PRESETS
    threads: int = 0
    on_step: Callable[[Step], None] = lambda step: None
    prepared: Graph = field(init=False)
    steps: list[Step] = field(default_factory=list)
    sensitivities: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.prepared = prepare(self.float_graph)
        plain = Network(judged(self.float_graph, self.prepared), self.prepared, self.statistics)
        self._networks: dict[tuple[tuple[str, bytes], ...], Network] = {(): plain}
        self._size = sum(tensor.elements for tensor in self.prepared.activations())
        most = self._few(JUDGE_SAMPLES)
        every = max(3, -(-len(self.samples) // most))
        apart = list(self.samples[::every])
        self._fitted = [s for i, s in enumerate(self.samples) if i % every] or apart
        self._weight_judges = apart[:WEIGHT_JUDGES]
        self._own_judges = len(apart) >= min(most, _ENOUGH) and self._fitted is not apart
        self._judges = apart if self._own_judges else list(self.samples[:: -(-len(self.samples) // most)])
        engine = FloatEngine(plain.graph, threads=self.threads)
        self._truth = stored(engine.run(sample) for sample in self._judges)
        self._measures = measures(plain.graph)
        self._corrects = self._unseen = False
        self._strictness = 1.0
        self._scores: dict[int, tuple[QuantPlan, float]] = {}
        self._corrected: dict[int, QuantPlan] = {}  # of plans that have scores

    @property
    def fitted(self) -> Sequence[Feeds]:
        """The samples that are fitted to: as many as their size lets be looked at."""
        return self._fitted[: self._few(FIT_SAMPLES)]

    @property
    def judges(self) -> Sequence[Feeds]:
        """The samples that plans are judged on."""
        return self._judges

    def _few(self, samples: int) -> int:
        """So many samples, or as few as have as many activations: a large picture tells as much as several."""
        return max(1, min(samples, samples * _ACTIVATIONS // self._size))

    def network(self, plan: QuantPlan) -> Network:
        """What the plan quantises: the float network, equalised where the plan says so."""
        key = tuple((name, scale.tobytes()) for name, scale in plan.scales.items())
        if key not in self._networks:
            self._networks[key] = self._equalised(plan.scales)
        return self._networks[key]

    def _equalised(self, scales: Scales) -> Network:
        graph = equalised(self.float_graph, scales)
        prepared = prepare(graph)
        return Network(judged(graph, prepared), prepared, scaled(self.statistics, scales))

    # -- the first plan ------------------------------------------------------------------------------------------------
    def initial_plan(self, scales: Scales | None = None) -> QuantPlan:
        """L1: everything seen, nothing clipped, bits as [CONV_CONFIG] says (8 where it is silent)."""
        plan = QuantPlan(scales=dict(scales or {}))
        network = self.network(plan)
        forced = forced_bits(network.prepared, self.conv)
        macs = {}
        for node in mac_nodes(network.prepared):
            name = node.outputs[0]
            macs[name] = MacChoice(forced.get(name, 8), _absmax(network.prepared, node))
        measured = [t.name for t in network.prepared.activations() if t.name in network.statistics.tensors]
        seen = {name: ranges.minmax(network.statistics.tensors[name]) for name in measured}
        for name in plan.scales:
            low, high = self.statistics.tensors[name].span
            seen[name] = ranges.widened(seen[name], HEADROOM, max(-low, high))
        known = {**known_ranges(network.prepared), **self.pixels}
        narrow = {name: chosen for name, chosen in seen.items() if name not in known}
        wide = {name: known.get(name) or ranges.widened(chosen, WIDE_HEADROOM) for name, chosen in seen.items()}
        return self.presets.held(replace(plan, ranges=wide, narrow=narrow, macs=macs, level="L1"))

    # -- judging -------------------------------------------------------------------------------------------------------
    def output_sqnr(self, plan: QuantPlan, *, unseen: bool = False) -> float:
        """The outputs' signal to quantisation noise on the judging samples, dB (`fidelity.decibels`), mean over
        outputs; those that are all zero are left out. With `unseen` as if the ranges did not know these samples."""
        core = self.fixed(self.without_judges(plan) if unseen else plan)
        engine = FixedEngine(core, threads=self.threads, extra=self._measures)
        tables: dict[str, list[Array]] = {name: [] for name in self._measures}
        results = engine.map(codes_of_inputs(core, sample) for sample in self._judges)
        for codes, truth in zip(results, self._truth, strict=True):
            for name, value in real_outputs(core, codes, list(self._measures)).items():
                tables[name].append(energies(self._measures[name], truth, value))
        scores = [decibels(table) for table in map(np.stack, tables.values()) if not is_silent(table)]
        return float(np.mean(scores)) if scores else 0.0

    @cached_property
    def _kept_extrema(self) -> tuple[Statistics, Statistics]:
        """Of the samples that are fitted to, and of these and the judges."""
        fitted, judges = (
            measure_extrema(self.float_graph, part, threads=self.threads) for part in (self._fitted, self._judges)
        )
        return fitted, fitted.merged(judges)

    def without_judges(self, plan: QuantPlan) -> QuantPlan:
        """The plan with its ranges made smaller as much as those of the samples kept are when the judging ones are left
        out, so that judges meet values beyond them as often as other pictures do. The plan itself where judges are
        fitted to."""
        if not self._own_judges:
            return plan
        fitted, kept = (scaled(extrema, plan.scales).tensors for extrema in self._kept_extrema)

        def shrunk(name: str, chosen: TensorRange) -> TensorRange:
            if chosen.method in (ranges.KNOWN, ranges.PRESET) or name not in kept:
                return chosen
            low, high = map(_end, (chosen.low, chosen.high), kept[name].span, fitted[name].span)
            return TensorRange(low, high, chosen.method)

        ranges_of, narrow = ({n: shrunk(n, r) for n, r in spans.items()} for spans in (plan.ranges, plan.narrow))
        return replace(plan, ranges=ranges_of, narrow=narrow)

    def fixed(self, plan: QuantPlan) -> Graph:
        """The integer graph of a plan."""
        return build_fixed(self.network(plan).prepared, plan, self.ports)

    def better(self, name: str, plan: QuantPlan, trial: QuantPlan) -> QuantPlan:
        """The plan with the smaller measured error of the two; the trial is recorded. Where biases are corrected, the
        trial counts as it is or with its biases corrected, whichever is better."""
        score, judged = self._judged(trial)
        best = max((step.sqnr for step in self.steps if step.kept), default=-np.inf)
        kept = score > best + (_WORTH_TABLES if name == TABLES else 0)
        if kept:
            self._best = judged
        self._record(Step(name, score, kept))
        return trial if kept else plan

    def note(self, name: str, plan: QuantPlan, *, kept: bool = True) -> None:
        """Record a plan that is kept, or not, for other reasons than its score."""
        self._record(Step(name, self.score(plan), kept))

    def better_of_two(self, name: str, plan: QuantPlan, trial: QuantPlan, *, worth: float = 0.0) -> QuantPlan:
        """The plan with the smaller measured error, whatever was kept before; the trial, which is recorded, only where
        it gains more than `worth` dB."""
        kept = self.score(trial) > self.score(plan) + worth
        self.note(name, trial, kept=kept)
        return trial if kept else plan

    def _judged(self, plan: QuantPlan) -> tuple[float, QuantPlan]:
        """The score of a plan, or of the plan with its biases corrected where that is better, and which of the two."""
        plans = [plan]
        if self._corrects:
            if id(plan) not in self._corrected:
                self._corrected[id(plan)] = self.with_biases(plan, self._few(CORRECTION_SAMPLES))
            plans.append(self._corrected[id(plan)])
        scores = [self.score(candidate) for candidate in plans]
        best = int(np.argmax(scores))
        return scores[best], plans[best]

    def score(self, plan: QuantPlan) -> float:
        """The number that judges steps, dB: `output_sqnr`, above L1 as if the ranges did not know the samples."""
        if id(plan) not in self._scores:  # which keep the plan, and so its identity
            self._scores[id(plan)] = plan, self.output_sqnr(plan, unseen=self._unseen)
        return self._scores[id(plan)][1]

    def _record(self, step: Step) -> None:
        self.steps.append(step)
        self.on_step(step)

    # -- the steps -----------------------------------------------------------------------------------------------------
    def search_weights(self, plan: QuantPlan) -> QuantPlan:
        """Weight bounds by least squared error."""
        prepared = self.network(plan).prepared
        bounds = {n.outputs[0]: weight_bound(prepared, n, plan.macs[n.outputs[0]].bits) for n in mac_nodes(prepared)}
        return replace(plan, macs={name: replace(plan.macs[name], weight_bound=bounds[name]) for name in bounds})

    def equalise(self, plan: QuantPlan) -> QuantPlan:
        """The same decisions for channels brought to like ranges where sums of products alone are concerned."""
        scales, of_functions = self._channel_scales(), self._of_functions()
        return self._with_scales(plan, {name: scale for name, scale in scales.items() if name not in of_functions})

    def equalise_functions(self, plan: QuantPlan) -> QuantPlan:
        """The same decisions for channels brought to like ranges through functions as well; the plan itself where none
        would be."""
        scales = self._channel_scales()
        return self._with_scales(plan, scales if scales.keys() & self._of_functions() else {})

    def _channel_scales(self) -> dict[str, Array]:
        return channel_scales(self.prepared, self.statistics, self.presets.still)

    def _of_functions(self) -> set[str]:
        return {name for n in self.prepared.nodes if n.op == FUNCTION for name in (*n.inputs, *n.outputs) if name}

    def _has_kept(self, step: str) -> bool:
        return any(other.kept for other in self.steps if other.name == step)

    def _with_scales(self, plan: QuantPlan, scales: Scales) -> QuantPlan:
        if not scales:
            return plan
        trial = self.initial_plan(scales)
        return self.search_weights(trial) if self._has_kept("weights") else trial

    def choose_ranges(self, plan: QuantPlan) -> QuantPlan:
        """For every tensor that sums of products may read in 8 bits, the range with the least error of those sums."""
        network, candidates = self.network(plan), self._candidates(plan)
        trials = operand_trials(
            network.graph, network.prepared, plan, self._fitted[: self._few(TRIAL_SAMPLES)], candidates
        )
        found = dict(plan.narrow)
        for name, tried in candidates.items():
            errors = np.zeros(len(tried))
            for node in mac_nodes(network.prepared):
                if node.inputs[0] == name:
                    errors += [trial.error for trial in trials[node.outputs[0]]]
            found[name] = tried[int(np.argmin(errors))]
        return replace(plan, narrow=found)

    def _candidates(self, plan: QuantPlan) -> dict[str, list[TensorRange]]:
        network = self.network(plan)
        operands = {node.inputs[0] for node in mac_nodes(network.prepared)}
        known = network.statistics.tensors
        return {
            name: ranges.candidates(known[name])
            for name in searched_tensors(network.prepared)
            if name in operands and known[name].counts is not None and name not in self.pixels
        }

    def follow_ranges(self, plan: QuantPlan) -> QuantPlan:
        """For the sums of products that disturb the outputs most, the range of the operand with which they do least."""
        network, tried = self.network(plan), self._candidates(plan)
        narrow = [n for n in mac_nodes(network.prepared) if plan.macs[n.outputs[0]].bits == 8]
        trials = operand_trials(network.graph, network.prepared, plan, self._fitted[: self._few(TRIAL_SAMPLES)], tried)
        follow = OutputErrors(network.graph, network.prepared, plan, self._fitted[: self._few(SENSITIVITY_SAMPLES)])
        now = {n.outputs[0]: self._chosen(plan, n, trials[n.outputs[0]]) for n in narrow}
        errors = dict(zip(now, follow.measure(now.items()), strict=True))
        worst = sorted(errors, key=lambda name: -errors[name])[:_FOLLOWED]
        found = dict(plan.narrow)
        for name in {n.inputs[0]: None for n in narrow if n.outputs[0] in worst and n.inputs[0] in tried}:
            readers = [n.outputs[0] for n in narrow if n.inputs[0] == name]
            pairs = [(reader, trial) for reader in readers for trial in trials[reader]]
            totals = np.array(list(follow.measure(pairs))).reshape(len(readers), -1).sum(0)
            found[name or ""] = trials[readers[0]][int(np.argmin(totals))].range
        return replace(plan, narrow=found)

    @staticmethod
    def _chosen(plan: QuantPlan, node: Node, trials: Sequence[Trial]) -> Trial:
        """The trial of the range that the plan has."""
        wanted = plan.range_of(node.inputs[0] or "", narrow=True)
        same = [t for t in trials if (t.range.low, t.range.high) == (wanted.low, wanted.high)]
        return (same or list(trials))[0]

    def promote(self, plan: QuantPlan) -> QuantPlan:
        """16 bit where it helps the outputs most per multiply-accumulate, until what is left in 8 bits is tolerable, or
        the budget of 16-bit work is spent; nothing where bits are forced."""
        if self.conv.input_format is not None:
            return plan
        network = self.network(plan)
        self.sensitivities = self.measure_sensitivities(plan)
        errors = {name: error for name, error in self.sensitivities.items() if name not in self.presets.bits}
        bounds = {node.outputs[0]: _absmax(network.prepared, node) for node in mac_nodes(network.prepared)}
        best, trials = (-np.inf, plan), dict[tuple[str, ...], QuantPlan]()
        for threshold in dict.fromkeys((self.threshold, self.threshold * self._strictness)):
            tolerated = threshold
            for _ in range(_ROUNDS):
                chosen, left = self._worth_most(errors, plan, tolerated)
                macs = {name: replace(plan.macs[name], bits=16, weight_bound=bounds[name]) for name in chosen}
                trial = trials.setdefault(tuple(chosen), replace(plan, macs={**plan.macs, **macs}))
                score, _ = self._judged(trial)
                best = max(best, (score, trial), key=lambda pair: pair[0])
                found = 10 ** (-score / 10)
                if found <= threshold or left > tolerated:
                    break
                tolerated *= threshold / found
        if 10 ** (-best[0] / 10) > self.threshold:
            _log.info("16 bit: no more within the budget; outputs stay at %.2f dB", best[0])
        return best[1]

    def _worth_most(self, errors: Mapping[str, float], plan: QuantPlan, tolerated: float) -> tuple[list[str], float]:
        """The 8-bit sums of products, named with what each does to the outputs, that gain most in 16 bits for what they
        cost, until the others together are `tolerated` or the budget is spent; and the error of the others."""
        prepared = self.network(plan).prepared
        nodes = {node.outputs[0]: node for node in mac_nodes(prepared)}
        work = {name: COST[n.op](n, prepared.operands(n), prepared.results(n)).macs for name, n in nodes.items()}
        cost = {name: work[name] + RESULT_COST * prepared[name].elements for name in errors}
        spent = {name: work[name] for name, mac in plan.macs.items() if mac.bits == 16}
        budget = self.max_int16_macs * sum(work.values()) - sum(spent.values())
        left = sum(errors.values())
        chosen: list[str] = []
        for name in sorted(errors, key=lambda name: -errors[name] / cost[name]):
            if left <= tolerated:
                break
            if errors[name] < tolerated / len(errors):  # even if all did so, they would be tolerated
                continue
            if work[name] <= budget or not (spent or chosen):
                left, budget = left - errors[name], budget - work[name]
                chosen.append(name)
        return chosen, left

    def measure_sensitivities(
        self, plan: QuantPlan, *, wrap: Wrap = plain, title: str = "sensitivities"
    ) -> dict[str, float]:
        """Result of every sum of products in 4 or 8 bits → relative error energy at the outputs when it alone is so
        and its mean is right."""
        network = self.network(plan)
        trials = operand_trials(network.graph, network.prepared, plan, self._fitted[: self._few(TRIAL_SAMPLES)], {})
        narrow = {name: tried[0] for name, tried in trials.items() if plan.macs[name].bits < 16}
        samples = self._fitted[: self._few(SENSITIVITY_SAMPLES)]
        errors = output_errors(network.graph, network.prepared, plan, samples, narrow)
        return dict(zip(wrap(list(narrow), title), errors, strict=True))

    def with_biases(self, plan: QuantPlan, samples: int) -> QuantPlan:
        """The plan with its biases corrected on that many of the samples that are fitted to."""
        return self._refitted(plan, self._fitted[:samples])

    def with_weights(self, plan: QuantPlan) -> QuantPlan:
        """The plan with its weights refitted, by second-order rounding."""
        judges = self._weight_judges
        return self._refitted(plan, [*self.fitted, *judges], held=len(judges))

    def with_best_biases(self, plan: QuantPlan) -> QuantPlan:
        """The plan as it is or with its biases corrected on few or many samples, whichever gives the best outputs."""
        counts = dict.fromkeys(map(self._few, (CORRECTION_SAMPLES, FIT_SAMPLES)))
        trials = [plan, *(self.with_biases(plan, count) for count in counts)]
        return max(trials, key=self.score)

    def _refitted(self, plan: QuantPlan, samples: Sequence[Feeds], held: int = 0) -> QuantPlan:
        plan = self.presets.held(plan)
        core, network = self.fixed(plan), self.network(plan)
        codes = (codes_of_inputs(core, sample) for sample in samples)
        weights = held > 0
        still = self.presets.bounds
        return refitted(
            network.graph, network.prepared, core, plan, samples, codes, weights=weights, held=held, still=still
        )

    def run(self, level: str) -> QuantPlan:
        """The plan of a level."""
        self.steps, self.sensitivities, self._corrects = [], {}, False
        self._scores, self._corrected = {}, {}
        self._unseen = level != "L1"  # which chooses nothing
        self._strictness = _BEST if level == "L5" else 1.0
        plan = self.better("start", self.initial_plan(), self.initial_plan())
        for name in RECIPES[level]:
            if name == BIASES:
                self._corrects = True
                self.better(name, plan, plan)
            else:
                plan = self.better(name, plan, self.presets.held(STEPS[name](self, plan)))
        self._corrects = False
        if level in ("L4", "L5"):
            self.better("biases on more samples", plan, self.with_biases(plan, self._few(FIT_SAMPLES)))
        if level == "L5":
            self.better(WEIGHTS, plan, self.with_weights(plan))
        return replace(self._best, level=level)


BIASES = "biases"
WEIGHTS = "second-order weights"
TABLES = "equalisation by tables"
STEPS: dict[str, Callable[[Calibration, QuantPlan], QuantPlan]] = {
    "weights": Calibration.search_weights,
    "equalisation": Calibration.equalise,
    TABLES: Calibration.equalise_functions,
    "ranges": Calibration.choose_ranges,
    "16 bit": Calibration.promote,
    "ranges at outputs": Calibration.follow_ranges,
}
RECIPES = {
    "L1": (),
    "L2": ("weights",),
    "L3": ("weights", BIASES, "equalisation", TABLES, "ranges"),
    "L4": ("weights", BIASES, "equalisation", TABLES, "16 bit", "ranges"),
    "L5": ("weights", BIASES, "equalisation", TABLES, "16 bit", "ranges", "ranges at outputs"),
}


def _end(chosen: float, kept: float, fitted: float) -> float:
    """One end of a range, for samples of which it was `fitted` when all that were kept had it at `kept`: a clipped end
    stays where it is within that, others move in proportion."""
    if abs(chosen) < abs(kept):
        return min(chosen, fitted, key=abs)
    return chosen * fitted / kept if kept else chosen


def _absmax(prepared: Graph, node: Node) -> Array:
    """Largest magnitude of the weights per output channel, float64 [O]."""
    return weight_bound(prepared, node, 16)


def weight_bound(prepared: Graph, node: Node, bits: int) -> Array:
    """Bound per output channel for the weights of a sum of products, float64 [O]; see `ranges.weight_bound`."""
    rule = QUANTISE[node.op]
    weight = prepared[node.inputs[rule.weight] or ""].data
    assert weight is not None
    return ranges.weight_bound(weight, rule.channel_axis, bits)


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
            known[node.outputs[0]] = TensorRange(low, high, ranges.KNOWN)
    return known
