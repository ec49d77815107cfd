"""Ranges and precisions that PRESET_MIN_MAX_BIT of a quant_config.yaml asks for, which hold through every step.

What names mean is as for quantisation parameters (`quant.parameters`): an activation; a weight of the float network, or
`<result>/weight` for that of one sum of products. A sum of products has the precision of its weight's entry, without
one that of its first operand's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sgs.config.quant_config import STAGE, Preset
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.quant.edit import BYTE_SPAN, mac_nodes
from sgs.quant.parameters import QuantParameter, Targets, check_parameters, held_bits, unused
from sgs.quant.plan import QuantPlan, TensorRange
from sgs.quant.ranges import PRESET


@dataclass(frozen=True)
class Presets:
    """`spans` of activations, `bounds` [O] of the weights and `bits` of sums of products, which are named by their
    results, as the `entries` say; `still` are the tensors whose channels may not be scaled, or what is said would be of
    other numbers."""

    entries: tuple[Preset, ...] = ()
    spans: Mapping[str, TensorRange] = field(default_factory=dict)
    bounds: Mapping[str, Array] = field(default_factory=dict)
    bits: Mapping[str, int] = field(default_factory=dict)
    still: frozenset[str] = frozenset()

    def held(self, plan: QuantPlan) -> QuantPlan:
        """The plan with what is preset as it is preset; the plan itself where nothing is."""
        if not (self.spans or self.bounds or self.bits):
            return plan
        spans = {name: span for name, span in self.spans.items() if name in plan.ranges}
        macs = dict(plan.macs)
        for name, bits in self.bits.items():
            macs[name] = replace(macs[name], bits=bits)
        for name, bound in self.bounds.items():
            macs[name] = replace(macs[name], weight_bound=bound)
        return replace(plan, ranges={**plan.ranges, **spans}, narrow={**plan.narrow, **spans}, macs=macs)

    def not_followed(self, graph: Graph, core: Graph, fed_bytes: Collection[str] = ()) -> list[str]:
        """Entries that the fixed graph `core` of a float graph does not follow as they stand, each with the reason."""
        targets, held = Targets(graph), held_bits(core, fed_bytes)
        whole = [_complete(entry, targets, min(held.get(entry.name, {8}))) for entry in self.entries]
        return unused(whole, graph, core, fed_bytes)


NO_PRESETS = Presets()


def presets_for(graph: Graph, entries: Sequence[Preset], *, file: object) -> Presets:
    """What entries of a file say of a float graph. Raises UserError listing every entry that does not fit it."""
    if not entries:
        return NO_PRESETS
    targets = Targets(graph)
    check_parameters([_complete(entry, targets) for entry in entries], graph, stage=STAGE, file=file)
    spans, bounds, still = dict[str, TensorRange](), dict[str, Array](), set[str]()
    of_weights, of_operands = dict[str, int](), dict[str, int]()
    sums = {node.outputs[0]: node for node in mac_nodes(graph)}
    # what is for one sum of products goes before what is for all that share a constant
    for entry in sorted(entries, key=lambda entry: entry.name not in graph.tensors):
        span = None if entry.low is None or entry.high is None else TensorRange(entry.low, entry.high, PRESET)
        operands = targets.operands(entry.name)
        for weight in [operand for operand in operands if operand.role == "weight"]:
            if span is not None:
                still |= {sums[weight.mac].inputs[0] or "", weight.mac}
                bounds[weight.mac] = np.full(weight.channels, max(abs(span.low), abs(span.high)))
            if entry.bit is not None:
                of_weights[weight.mac] = entry.bit
        if not operands and span is not None:
            spans[entry.name] = span
        if not operands and entry.bit is not None:
            of_operands[entry.name] = entry.bit
    of_operand = {name: of_operands[x] for name, node in sums.items() if (x := node.inputs[0] or "") in of_operands}
    still |= set(spans)
    return Presets(tuple(entries), spans, bounds, {**of_operand, **of_weights}, frozenset(still))


def _complete(entry: Preset, targets: Targets, bit: int = 8) -> QuantParameter:
    """An entry with values that no network finds fault with, and this bit, where it says nothing."""
    if entry.low is not None and entry.high is not None:
        low, high = entry.low, entry.high
    else:
        weights = [operand.data for operand in targets.operands(entry.name) if operand.data is not None]
        low, high = BYTE_SPAN[0], max((float(np.abs(data).max(initial=0)) for data in weights), default=BYTE_SPAN[1])
    return QuantParameter(entry.name, np.array([low]), np.array([high]), entry.bit or bit)
