"""Known traps of calibration, found by name in what was measured, each with what was done about it.

A detector is a generator over the `Evidence` of a calibration; it yields its findings, the worst first. The limits are
set so that networks that quantise well have no findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from sgs.config.formats import F32, InputSpec
from sgs.config.input_config import InputConfig
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.quant.edit import byte_params, mac_nodes, moved_operands
from sgs.quant.plan import QuantPlan
from sgs.quant.ports import Ports, ports_of
from sgs.quant.prepare import kind_of
from sgs.quant.statistics import Statistics
from sgs.registry import QUANTISE, REAL

RANGES_APART = "ranges far apart"
DEAD_CHANNELS = "dead output channels"
WEIGHT_OUTLIERS = "weight outliers"
INPUTS = "saturated inputs"
NOT_FINITE = "values that are not finite"
NORMALISATION = "mean/std_value disagree with the preprocess script"
ALIKE = "calibration samples alike"
CONSTANT = "constant tensors"

APART_TIMES = 16.0  # ranges of joined tensors
_ENOUGH_CODES = 256  # that are left to the smaller one
OUTLIER_RMS = 16.0  # largest weight of a channel over its root mean square
OUTLIER_CHANNEL = 64.0  # largest weight of a channel over that of the median channel
OBSERVED = 32  # values from which on it means something that all of them are equal
BRIGHT, DARK = 0.2, 0.9  # share of pixels at 255 and at 0; digits on black have 0.8
LEVELS_UNSEEN = 0.05 * 255  # grey levels at either end that no picture had
LEVELS_OUTSIDE = 0.02 * 255  # grey levels beyond 0..255, as data.feed.TAIL_TOLERANCE
PEAK_RMS = 256.0  # largest value of a RAWDATA input over its root mean square
FEW = 8  # samples
SAME, NEAR = 0.02, 0.1  # distance of two samples over that of samples that have nothing to do with each other
_THUMB = 16  # pixels of the pictures that are compared
_GRID = 64  # pixels of pictures whose grey levels are counted


@dataclass(frozen=True)
class Finding:
    """A trap that a calibration met: its name, the tensor, operator or input, the numbers, what was done about it or
    can be, and which output channels are meant, where it is about some.
    """

    trap: str
    where: str
    numbers: str
    outcome: str
    channels: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a calibration knows at its end.

    `prepared` and `statistics` are those of the network as it came, before any equalisation; `core` is the fixed graph
    of `plan` without its boundary, `samples` are float feeds that were kept.
    """

    prepared: Graph
    statistics: Statistics
    plan: QuantPlan
    core: Graph
    samples: Sequence[Mapping[str, Array]]
    config: InputConfig

    def reach(self, name: str) -> float:
        """Largest magnitude of a tensor; 0 where it was not measured."""
        data = self.prepared[name].data
        if data is not None:
            return float(np.abs(data).max(initial=0))
        known = self.statistics.tensors.get(name)
        return 0.0 if known is None else max(map(abs, known.span))

    def scaled_reach(self, name: str) -> float:
        """Largest magnitude of a tensor in the network that the plan quantises."""
        if name not in self.plan.scales or name not in self.statistics.tensors:
            return self.reach(name)
        known = self.statistics.tensors[name]
        return float((np.maximum(np.abs(known.low), np.abs(known.high)) * self.plan.scales[name]).max())

    @property
    def ports(self) -> Ports:
        """Inputs and outputs whose storage the ini has a say in."""
        return ports_of(self.config, self.prepared)

    def observations(self, name: str) -> int:
        """How many values of a tensor were seen."""
        return self.prepared[name].elements * self.statistics.samples


def find_traps(evidence: Evidence) -> tuple[Finding, ...]:
    """All findings, by trap, the worst of each first."""
    return tuple(finding for detect in DETECTORS for finding in detect(evidence))


def summary(findings: Sequence[Finding]) -> list[str]:
    """One line for every trap that was met: its worst finding, and how many more there are."""
    lines = []
    for trap in dict.fromkeys(finding.trap for finding in findings):
        worst, *more = [finding for finding in findings if finding.trap == trap]
        others = f" (and {len(more)} more)" if more else ""
        lines.append(f"{trap}: {worst.where}: {worst.numbers}; {worst.outcome}{others}")
    return lines


# -- ranges ------------------------------------------------------------------------------------------------------------
def ranges_apart(evidence: Evidence) -> Iterator[Finding]:
    """Joined and added tensors of which one is so small beside another that their common codes hardly tell its values
    apart."""
    found = []
    for node in evidence.prepared.nodes:
        joins = kind_of(node) == "move"
        if not joins and not _adds(evidence.prepared, node):
            continue
        names = moved_operands(node) if joins else [name for name in node.inputs if name is not None]
        reach = {name: bound for name in names if (bound := evidence.reach(name)) > 0}
        if not reach or max(reach.values()) <= APART_TIMES * min(reach.values()):
            continue
        small, wide = min(reach, key=reach.__getitem__), max(reach, key=reach.__getitem__)
        times = reach[wide] / reach[small]
        numbers = f"'{wide}' reaches {reach[wide]:.3g}, '{small}' {reach[small]:.3g}, {times:.0f} times less"
        outcome = (_joined if joins else _added)(evidence, node.outputs[0], small, wide)
        found.append((times, Finding(RANGES_APART, node.label, numbers, outcome)))
    yield from (finding for _, finding in sorted(found, key=lambda pair: -pair[0]))


def _adds(prepared: Graph, node: Node) -> bool:
    """Whether two activations meet on one scale: twice the operands, twice the result (a product would be four times
    as large)."""
    operands = [name for name in node.inputs if name is not None]
    if node.op not in REAL or len(operands) != 2 or any(prepared[name].is_constant for name in operands):
        return False
    plain = Node(node.op, list(node.inputs), list(node.outputs), {**node.attrs, "activation": "NONE"})
    once, twice = (REAL[node.op](plain, [np.array(-1.0 * scale), np.array(3.0 * scale)]) for scale in (1, 2))
    return bool(twice == 2 * once)


def _joined(evidence: Evidence, result: str, small: str, wide: str) -> str:
    """What became of the smaller of the tensors that a moving operator joins."""
    core, reach = evidence.core, evidence.scaled_reach(small)
    if evidence.scaled_reach(wide) <= APART_TIMES * reach:
        return "cured: channels were brought to like ranges"
    for output, params in byte_params(evidence.prepared, evidence.plan, evidence.ports).items():
        if output in _moved_into(core, result):
            left = f"{reach / float(params.scale[0]):.0f} of 255 codes are left to the smaller one in output '{output}'"
            return f"{left}; return it as {F32}, or make it an output of its own"
    if core[result].quant is None:
        return "cured: they are joined as real numbers, each from codes of its own"
    codes, held, node = min(_codes_left(core, result, reach), key=lambda left: left[0])
    left = f"{codes:.0f} of {held.qmax} codes are left to the smaller one"
    if held is DType.UINT8:
        return f"{left} in {node}; name its first input in [CONV_CONFIG] tensor_arrays to read it in 16 bits"
    if codes >= _ENOUGH_CODES:
        return f"harmless: {left}"
    return f"{left}; return outputs that hold it as {F32}, or make it an output of its own"


def _codes_left(core: Graph, result: str, reach: float) -> Iterator[tuple[float, DType, str]]:
    """(codes, their type, reader) for a magnitude in a joined tensor and in what its 8-bit readers read."""
    quant = core[result].quant
    assert quant is not None
    yield reach / float(quant.scale[0]), core[result].dtype, f"'{result}'"
    names = _moved_into(core, result)
    for node in core.nodes:
        rule = QUANTISE.get(node.op)
        if node.inputs[0] in names and rule is not None and rule.kind == "mac":
            x = core[node.inputs[0]]
            if x.dtype is DType.UINT8 and x.quant is not None:
                yield reach / float(x.quant.scale[0]), x.dtype, node.label


def _moved_into(core: Graph, result: str) -> set[str]:
    """A tensor, and what moving operators and QUANTIZE make of it."""
    names = {result}
    for node in core.nodes:
        rule = QUANTISE.get(node.op)
        if node.inputs[0] in names and (node.op == "QUANTIZE" or (rule is not None and rule.kind == "move")):
            names.update(node.outputs)
    return names


def _added(evidence: Evidence, result: str, small: str, wide: str) -> str:
    """What became of the smaller of two tensors that are added."""
    tensor = evidence.core[result]
    assert tensor.quant is not None
    codes = evidence.scaled_reach(small) / float(tensor.quant.scale[0])
    told = f"the smaller one moves the result by up to {codes:.3g} of {tensor.dtype.qmax} codes"
    if tensor.dtype is DType.UINT8:
        return f"{told}; name '{result}' in [CONV_CONFIG] tensor_arrays to hold it in 16 bits"
    return f"harmless: each has 16-bit codes of its own, and {told}"


# -- channels and weights ----------------------------------------------------------------------------------------------
def dead_channels(evidence: Evidence) -> Iterator[Finding]:
    """Output channels of sums of products that never change, while others of the same tensor do."""
    found = []
    for node in mac_nodes(evidence.prepared):
        name = node.outputs[0]
        known = evidence.statistics.tensors[name]
        (dead,) = np.nonzero((known.low == known.high) | ~_rows(evidence.prepared, node).any(1))
        if not 0 < dead.size < known.low.size or evidence.observations(name) < OBSERVED * known.low.size:
            continue
        numbers = f"{dead.size} of {known.low.size} never change"
        outcome = "harmless; without them the network would have less to do"
        found.append((dead.size, Finding(DEAD_CHANNELS, node.label, numbers, outcome, tuple(dead.tolist()))))
    yield from (finding for _, finding in sorted(found, key=lambda pair: -pair[0]))


def _rows(prepared: Graph, node: Node) -> Array:
    """The weights of a sum of products, [O, products]."""
    rule = QUANTISE[node.op]
    weight = prepared[node.inputs[rule.weight] or ""].data
    assert weight is not None
    return np.moveaxis(weight, rule.channel_axis, 0).reshape(weight.shape[rule.channel_axis], -1)


def weight_outliers(evidence: Evidence) -> Iterator[Finding]:
    """Channels whose scale is decided by one weight, and channels with far larger weights than the others."""
    found = []
    for node in mac_nodes(evidence.prepared):
        rows, choice = _rows(evidence.prepared, node), evidence.plan.macs[node.outputs[0]]
        peak, rms = np.abs(rows).max(1), np.sqrt((rows.astype(np.float64) ** 2).mean(1))
        times = peak / np.maximum(rms, 1e-30)
        worst, (beyond,) = int(times.argmax()), np.nonzero(times > OUTLIER_RMS)
        if beyond.size:
            numbers = f"the largest weight of channel {worst} is {times[worst]:.0f} times the root mean square"
            numbers += f", more than {OUTLIER_RMS:.0f} times in {beyond.size} of {len(rows)} channels"
            outcome = f"held in {choice.bits} bits"
            if not {node.inputs[0], node.outputs[0]} & evidence.plan.scales.keys():
                share = float(choice.weight_bound[worst]) / float(peak[worst])
                outcome += ", not clipped" if share > 0.99 else f", clipped at {share:.0%} for the least error"
            channels = tuple(beyond.tolist())
            found.append((float(times[worst]), Finding(WEIGHT_OUTLIERS, node.label, numbers, outcome, channels)))
        median, widest = float(np.median(peak)), int(peak.argmax())
        if peak[widest] > OUTLIER_CHANNEL * median > 0:
            numbers = f"weights of channel {widest} are {peak[widest] / median:.3g} times those of the median channel"
            outcome = "harmless to the weights: every channel has a scale of its own"
            found.append((0.0, Finding(WEIGHT_OUTLIERS, node.label, numbers, outcome, (widest,))))
    yield from (finding for _, finding in sorted(found, key=lambda pair: -pair[0]))


# -- what the network is fed -------------------------------------------------------------------------------------------
def saturated_inputs(evidence: Evidence) -> Iterator[Finding]:
    """Inputs at or beyond the ends of what they can hold."""
    for spec in evidence.config.inputs:
        if spec.name in evidence.prepared.inputs and evidence.prepared[spec.name].dtype.is_float:
            check = _picture if spec.is_picture else _raw_data
            for numbers, outcome in check(evidence, spec):
                yield Finding(INPUTS, f"input '{spec.name}'", numbers, outcome)


def _picture(evidence: Evidence, spec: InputSpec) -> Iterator[tuple[str, str]]:
    shape = [1] * 4
    shape[spec.channel_axis] = -1
    mean, std = (
        np.reshape(spec.in_order(values, spec.training_format), shape).astype(np.float64)
        for values in (spec.mean, spec.std)
    )
    low, high, bright, dark = np.inf, -np.inf, 0.0, 0.0
    for sample in evidence.samples:
        levels = _some_pixels(sample[spec.name], spec) * std + mean
        low, high = min(low, float(levels.min())), max(high, float(levels.max()))
        bright += float((levels >= 254.5).mean()) / len(evidence.samples)
        dark += float((levels <= 0.5).mean()) / len(evidence.samples)
    if low < -LEVELS_OUTSIDE or high > 255 + LEVELS_OUTSIDE:
        yield (
            f"the script gives grey levels {low:.0f} to {high:.0f} by mean and std_value",
            "fixed networks are fed 0 to 255: correct the script, mean or std_value",
        )
    if bright > BRIGHT or dark > DARK:
        ends = f"{dark:.0%} of the pixels are at 0, {bright:.0%} at 255"
        yield ends, "harmless where pictures are like that; else look at the exposure and at the preprocess script"
    span = evidence.statistics.tensors[spec.name].span  # codes hold that, and 0
    first, last = float((min(span[0], 0) * std + mean).max()), float((max(span[1], 0) * std + mean).min())
    if first > LEVELS_UNSEEN or last < 255 - LEVELS_UNSEEN:
        seen = f"{max(first, 0):.0f} to {min(last, 255):.0f}"
        yield f"grey levels beyond {seen} were never seen", "they are clipped: calibrate on pictures that have them"


def _some_pixels(picture: Array, spec: InputSpec) -> Array:
    """At most about _GRID rows and columns of a picture."""
    steps = [slice(None, None, -(-extent // _GRID)) for extent in picture.shape]
    steps[0] = steps[spec.channel_axis] = slice(None)
    return picture[tuple(steps)]


def _raw_data(evidence: Evidence, spec: InputSpec) -> Iterator[tuple[str, str]]:
    squares = [np.square(sample[spec.name], dtype=np.float64).mean() for sample in evidence.samples]
    rms = float(np.sqrt(np.mean(squares)))
    peak = evidence.reach(spec.name)
    if peak > PEAK_RMS * rms > 0:
        yield (
            f"the largest magnitude {peak:.3g} is {peak / rms:.0f} times the root mean square",
            "codes are spent on few values: limit them in the preprocess script where they only mark something",
        )


def samples_alike(evidence: Evidence) -> Iterator[Finding]:
    """Too few samples, the same ones again, or samples that hardly differ."""
    count, kept, where = evidence.statistics.samples, len(evidence.samples), "the list of samples"
    if count < FEW:
        numbers = f"{count} {'sample' if count == 1 else 'samples'}"
        yield Finding(ALIKE, where, numbers, f"ranges of others are guessed from them: give {FEW} or more, varied ones")
    if kept < 2:
        return
    rows = np.stack([_thumbnail(evidence, sample) for sample in evidence.samples])
    products = rows @ rows.T
    squares = np.diag(products)
    distance = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * products, 0))
    apart = np.sqrt(2 * np.mean(rows.var(1)) * rows.shape[1])
    pairs = distance[np.triu_indices(kept, 1)] / max(float(apart), 1e-30)
    if np.median(pairs) < NEAR:
        numbers = f"half of the pairs differ by less than {np.median(pairs):.1%} of what pictures usually do"
        yield Finding(ALIKE, where, numbers, "the ranges fit these samples only: calibrate on varied ones")
        return
    twins = int((distance + np.where(np.tri(kept, dtype=bool), np.inf, 0) < SAME * apart).any(0).sum())
    if twins:
        numbers = f"{twins} of {kept} that were compared are as good as the same as another"
        yield Finding(ALIKE, where, numbers, "they add nothing: replace them")


def _thumbnail(evidence: Evidence, sample: Mapping[str, Array]) -> Array:
    """All inputs of a sample as one vector, float64 [D]: pictures at most _THUMB pixels wide and high, some values of
    others."""
    parts = []
    for spec in evidence.config.inputs:
        value = sample[spec.name]
        if spec.is_picture:
            picture = np.moveaxis(value[0], spec.channel_axis - 1, -1)
            height, width = (min(_THUMB, extent) for extent in picture.shape[:2])
            value = cv2.resize(np.ascontiguousarray(picture), (width, height), interpolation=cv2.INTER_AREA)
        parts.append(value.ravel()[:: -(-value.size // _THUMB**3)].astype(np.float64))
    return np.concatenate(parts)


# -- what comes out ----------------------------------------------------------------------------------------------------
def constant_tensors(evidence: Evidence) -> Iterator[Finding]:
    """Tensors that hold one number for every sample, outputs first."""
    prepared, known = evidence.prepared, evidence.statistics.tensors
    names = [t.name for t in prepared.activations() if t.name in known and t.name not in prepared.outputs]
    for name in (*(n for n in prepared.outputs if n in known), *names):
        low, high = known[name].span
        if low != high or evidence.observations(name) < OBSERVED:
            continue
        kind = "output" if name in prepared.outputs else "tensor"
        outcome = "harmless to quantisation, but the network computes nothing there"
        if kind == "output":
            outcome = "check the network, the preprocess script, and that the samples hold what the network looks for"
        yield Finding(CONSTANT, f"{kind} '{name}'", f"is {low:.3g} everywhere on all samples", outcome)


DETECTORS: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    constant_tensors,
    saturated_inputs,
    samples_alike,
    ranges_apart,
    dead_channels,
    weight_outliers,
)
