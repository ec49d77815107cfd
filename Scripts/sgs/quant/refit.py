"""Weights and biases of every sum of products, refitted in order, each to what the ones before it make of its operand.

Two walks go side by side over the same samples: the float network gives the results that are wanted, the quantised one,
mended as far as it has got, the operands that they are to be made from. See `quant.rounding` for what is done at each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array, dequantise, symmetric_params
from sgs.quant.edit import WEIGHT_TYPE, mac_nodes, mend_mac
from sgs.quant.plan import MacChoice, QuantPlan
from sgs.quant.ranges import weight_absmax
from sgs.quant.rounding import MAX_WIDTH, RIDGES, Moments, Pairs, Rounder, regressed, rounded, squared_error
from sgs.quant.walk import Walk
from sgs.registry import MATRIX, QUANTISE, MatrixForm

ROWS = 8192  # positions looked at per sum of products, over all samples
SHARES = np.linspace(1.05, 0.45, 13)  # of the largest weight, that the largest 4-bit code may stand for
_ELEMENTS = 1 << 21  # of rows taken from one sample at a time
Feeds = Iterable[Mapping[str, Array]]


def refitted(
    float_graph: Graph,
    prepared: Graph,
    core: Graph,
    plan: QuantPlan,
    samples: Feeds,
    codes: Feeds,
    *,
    weights: bool,
    held: int = 0,
    still: Collection[str] = (),
) -> QuantPlan:
    """The plan with bias_shift of every sum of products set, and with `weights` the weights too where that helps, but
    for those that are to be left `still`.

    `core` is the fixed graph of the plan, `prepared` the graph it was built from; `samples` feed the float graph,
    `codes` the same pictures the fixed one. The last `held` samples are not fitted to; they judge the weights, and
    without any the weights stay.
    """
    truth = Walk(float_graph, samples, real=True)
    walk = Walk(core.copy(), codes)
    macs = dict(plan.macs)
    sources = {node.outputs[0]: node for node in mac_nodes(prepared)}
    for name, source in sources.items():
        wanted, node = truth.until(name), walk.until(name)
        problem = _Problem(float_graph, wanted, walk.graph, node)
        mends = weights and name not in still
        fit, judges = problem.pairs(truth, walk, held, mends)
        choice = problem.solved(plan.macs[name], fit, judges, mends)
        macs[name] = choice
        mend_mac(walk.graph, prepared, source, node, choice)
    return replace(plan, macs=macs)


class _Problem:
    """One sum of products, as in the float graph and as in the fixed one."""

    def __init__(self, float_graph: Graph, wanted: Node, fixed: Graph, node: Node) -> None:
        rule = QUANTISE[node.op]
        self.source, self.operand = wanted.inputs[0] or "", fixed[node.inputs[0] or ""]
        weight = float_graph[wanted.inputs[rule.weight] or ""]
        assert weight.data is not None
        self.axis, self.weight = rule.channel_axis, weight.data.astype(np.float64)
        x, y = float_graph[self.source], float_graph[wanted.outputs[0]]
        self.form: MatrixForm = MATRIX[wanted.op](wanted, x, weight, y)
        self.matrix = self.form.matrix(self.weight)

    def pairs(self, truth: Walk, walk: Walk, held: int, weights: bool) -> tuple[Moments, list[Pairs]]:
        """Moments of the samples that are fitted to, and pairs of the last `held`, which judge."""
        groups, width, _ = self.matrix.shape
        rng, matrix = np.random.default_rng(0), self.matrix.astype(np.float32 if weights else np.float64)
        most = min(max(ROWS // walk.samples, 16), max(_ELEMENTS // (groups * width), 1))
        moments, judges = Moments(means=not weights), []
        assert self.operand.quant is not None
        for sample in range(walk.samples):
            codes, real = walk.value(self.operand.name, sample), truth.value(self.source, sample)
            quantised = dequantise(codes, self.operand.quant)
            if weights:
                count = self.form.positions
                chosen = np.arange(count) if count <= most else np.sort(rng.choice(count, most, replace=False))
                operands, real = self.form.rows(quantised, chosen), self.form.rows(real, chosen)
            else:  # means are enough
                operands, real = self.form.mean(quantised)[None], self.form.mean(real)[None]
            pairs = Pairs(operands, (real.transpose(1, 0, 2) @ matrix).transpose(1, 0, 2))
            if sample < walk.samples - held:
                moments.add(pairs)
            else:
                judges.append(pairs)
        return moments, judges

    def solved(self, choice: MacChoice, fit: Moments, judges: Sequence[Pairs], weights: bool) -> MacChoice:
        """The choice with its bias corrected, and with `weights` those whose error on `judges` is least."""
        bits, bound = choice.bits, choice.weight_bound
        own = self.matrix if choice.weight is None else self.form.matrix(choice.weight.astype(np.float64))
        plain = _Candidate(None, bound, rounded(own, self._steps(bits, bound), WEIGHT_TYPE[bits].qmax))
        candidates = [plain]
        if weights and judges and self.matrix.shape[1] <= MAX_WIDTH:
            candidates += self._refitted(choice, fit, judges)
        best = min(candidates, key=lambda c: squared_error(judges, c.codes, fit.bias(c.codes)))
        weight = choice.weight if best.exact is None else self.form.weights(best.codes)
        return MacChoice(bits, best.bound, fit.bias(best.codes), weight)

    def _refitted(self, choice: MacChoice, fit: Moments, judges: Sequence[Pairs]) -> list[_Candidate]:
        """Regressed and second-order rounded weights."""
        ridges = [regressed(fit, self.matrix, ridge) for ridge in RIDGES]
        best = min(ridges, key=lambda matrix: squared_error(judges, matrix, fit.bias(matrix)))
        absmax = weight_absmax(self.weight, self.axis)
        share = np.where(absmax > 0, choice.weight_bound / np.where(absmax > 0, absmax, 1), 1)
        rounder = None if choice.bits == 16 else Rounder(fit.covariance())
        return [self._codes(exact, choice.bits, share, rounder) for exact in (self.matrix, best)]

    def _codes(self, exact: Array, bits: int, share: Array, rounder: Rounder | None) -> _Candidate:
        """Weights as codes: at bounds that are a `share` [O] of the largest; in 4 bits at those of several with which
        the results of a channel are nearest, as what little each code says of its weight is no guide there."""
        limit, absmax = WEIGHT_TYPE[bits].qmax, weight_absmax(self.form.weights(exact), self.axis)
        if rounder is None:
            return _Candidate(exact, absmax * share, rounded(exact, self._steps(bits, absmax * share), limit))
        bounds = [absmax * part for part in (SHARES if bits == 4 else [share])]
        found = [rounder(exact, self._steps(bits, bound), limit) for bound in bounds]
        if len(found) == 1:
            return _Candidate(exact, bounds[0], found[0])
        best = np.argmin([rounder.error(exact, codes) for codes in found], axis=0)
        bound = np.take_along_axis(np.stack(bounds), best[None], 0)[0]
        chosen = best.reshape(len(exact), 1, -1)
        return _Candidate(exact, bound, np.take_along_axis(np.stack(found), chosen[None], 0)[0])

    def _steps(self, bits: int, bound: Array) -> Array:
        """Real value of one weight code, [G, O/G]."""
        scale = symmetric_params(bound, WEIGHT_TYPE[bits]).scale.astype(np.float64)
        return np.asarray(scale.reshape(len(self.matrix), -1))


@dataclass(frozen=True, eq=False)
class _Candidate:
    """Weights before and after rounding, [G, D, O/G]; `exact` is None for those that there are, rounded to
    nearest."""

    exact: Array | None
    bound: Array
    codes: Array
