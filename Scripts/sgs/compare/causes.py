"""The first bad layer of a comparison, why it is bad and what helps: rules with numbers, each with its evidence.

Between real networks a layer is bad that differs by more than DIFFERENCE alone, or by more than DRIFT where it was not
measured alone. Of a fixed network it is bad below BAD decibels alone; an .img is judged by what comes out of a layer,
and beside its fixed .sim by the first bit that differs. Layers of integers whose outputs are all HEALTHY are not bad,
whatever they lose. Where no layer is bad, but an output is, errors add up. What jumps (`ComparedLayer.jumps`) is not
judged by decibels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sgs.compare.inputs import explain, other_normalisation
from sgs.compare.isolated import moves
from sgs.compare.measure import Measured, Measurement, code_span, jumping
from sgs.compare.stage import StageTensor
from sgs.config.formats import F32
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.ops._move import moved_by
from sgs.quant.prepare import known_kind
from sgs.quant.selection import told_by
from sgs.registry import QUANTISE
from sgs.report.compared import Cause, ComparedLayer, Errors

BAD, HEALTHY = 20.0, 30.0  # dB
DIFFERENCE, DRIFT = 1e-4, 1e-3  # relative L1
ROUNDED = 0.2  # the same where A rounds more than real numbers are (Stage.rounded)
EXPLAINED = 0.5  # share of an error's energy that its cause makes
APART = 16.0  # times that a range is wider than the values
WIDE = 4.0  # the same, where nothing else asks for the range
ROUNDING = 4.0  # times the energy of rounding that an error of rounding is at most
FEW = 2.0  # codes, too few to tell values apart
TOLD = 5  # layers
ENTRY_LEVEL = "L1"  # what a --quant_file leaves open is decided as there

_INTEGER = ("Fixed", "Offline")
_RECODING = ("QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True, eq=False)
class Case:
    """A bad layer, and what is known of it."""

    measurement: Measurement
    layer: ComparedLayer
    measured: Measured

    @property
    def tensor(self) -> StageTensor:
        return self.measurement.b.described[self.layer.name]

    @property
    def graph(self) -> Graph | None:
        return self.measurement.b.graph

    @property
    def node(self) -> Node | None:
        """What makes it, of a .sim."""
        return None if self.graph is None else self.graph.producers().get(self.layer.name)

    @property
    def step(self) -> float:
        """Real difference of two codes; 0 without codes."""
        return 0.0 if self.tensor.quant is None else float(self.tensor.quant.scale[0])

    @property
    def scale(self) -> Array | None:
        """What calibration multiplied its channels by, float32 [C]; None where it did not."""
        return self.measurement.b.scales.get(self.layer.name)

    @property
    def rounding(self) -> float:
        """Mean square error of rounding to its codes, in the network as it came."""
        return float(self.step**2 / 12 * np.mean(1.0 if self.scale is None else self.scale**-2.0))

    @property
    def told(self) -> str:
        """How bad it is."""
        return f"alone it has {self.error.sqnr:.1f} dB" if self.layer.isolated else f"it has {self.error.sqnr:.1f} dB"

    @property
    def error(self) -> Errors:
        return self.layer.isolated or self.layer.accumulated


Rule = Callable[[Case], Cause | None]


def diagnose(
    measurement: Measurement, layers: Sequence[ComparedLayer], outputs: Sequence[str]
) -> tuple[str | None, tuple[Cause, ...]]:
    """(the first bad layer, causes of it and of the next ones), (None, the cause) where errors add up, (None, ()) where
    nothing is wrong."""
    judge, rules = _judgement(measurement.a.kind, measurement.b.kind)
    harmless = _harmless(measurement, layers, outputs) if judge is _noisy else set()
    bad = [layer for layer in layers if judge(measurement, layer) and layer.name not in harmless]
    if bad:
        return bad[0].name, tuple(_causes(measurement, bad, rules))
    judged = [layer for layer in layers if layer.name in outputs and not layer.jumps]
    lost = [layer for layer in judged if layer.accumulated.sqnr < BAD]
    return None, (_added_up(lost[0], layers),) if judge is _noisy and lost else ()


def _harmless(measurement: Measurement, layers: Sequence[ComparedLayer], outputs: Sequence[str]) -> set[str]:
    """Tensors that only HEALTHY outputs are made of, and these. Parts that are joined to an output count as such, and
    what one that jumps is made of, or judged by, in place of it."""
    b, sqnr = measurement.b, {layer.name: layer.accumulated.sqnr for layer in layers}
    jumps = jumping(measurement)
    graph, ends = b.graph, {*b.outputs, *outputs}
    nodes = () if graph is None else graph.nodes[::-1]
    for node in nodes:
        made = ends.intersection(node.outputs)
        if graph is not None and made and (moves(node) or node.op in _RECODING or made <= jumps):
            ends.update(told_by(graph, node))
    ends -= jumps
    needed = {name for name in ends if sqnr.get(name, 0.0 if name in b.outputs else HEALTHY) < HEALTHY}
    if graph is None:
        return set() if needed else set(sqnr)
    for node in nodes:
        if not needed.isdisjoint(node.outputs):
            needed.update(name for name in node.inputs if name is not None)
    return sqnr.keys() - needed


def _causes(measurement: Measurement, bad: Sequence[ComparedLayer], rules: Sequence[Rule]) -> Iterator[Cause]:
    """Those of the first bad layers that are not bad because of another one. Where layers were not measured alone that
    is the first; of a fixed network those whose operands are not bad by their own codes, which they have even alone."""
    graph = measurement.b.graph
    alone = graph is not None and bad[0].isolated is not None
    makers = graph.producers() if graph is not None and measurement.b.kind == "Fixed" else {}
    coarse: set[str] = set()  # bad ones that what reads them suffers from
    told = 0
    for layer in bad if alone else bad[:1]:
        if graph is not None and layer.name in makers and not coarse.isdisjoint(makers[layer.name].inputs):
            continue
        case = Case(measurement, layer, measurement.found[layer.name])
        rule, cause = next((rule, cause) for rule in rules if (cause := rule(case)) is not None)
        if graph is not None and rule is not _operand_bits:
            coarse |= _moved_on(graph, layer.name)
        yield cause
        told += 1
        if told == TOLD:
            return


def _judgement(a: str, b: str) -> tuple[Callable[[Measurement, ComparedLayer], bool], Sequence[Rule]]:
    if a == "Fixed" and b == "Offline":
        return _differs, (_other_image,)
    if b in _INTEGER:
        return _noisy, (_input, _clash, _stuck, _clipped, _wide, _result_bits, _operand_bits, _unexplained)
    return _deviates, (_input, _stuck, _conversion)


def _differs(measurement: Measurement, layer: ComparedLayer) -> bool:
    return layer.accumulated.max_abs > 0


def _noisy(measurement: Measurement, layer: ComparedLayer) -> bool:
    if layer.jumps:
        return False
    if layer.isolated is not None:
        return layer.isolated.sqnr < BAD
    return layer.accumulated.sqnr < BAD and (measurement.b.graph is None or not layer.operator)


def _deviates(measurement: Measurement, layer: ComparedLayer) -> bool:
    rounded = measurement.a.rounded
    if layer.isolated is not None:
        return layer.isolated.relative_l1 > (ROUNDED if layer.reference in rounded else DIFFERENCE)
    drift = ROUNDED if rounded else DRIFT
    return layer.accumulated.relative_l1 > (drift if layer.operator else DIFFERENCE)


# -- what the network is fed -------------------------------------------------------------------------------------------
def _input(case: Case) -> Cause | None:
    """The preprocessing that A and B have differs."""
    if case.measured.first is None:
        return None
    name = case.layer.reference
    error = case.layer.accumulated
    found = explain(*case.measured.first)
    said = f"input '{name}' of the two differs (relative L1 {error.relative_l1:.2g}, {error.sqnr:.1f} dB)"
    if found is None:
        reason = f"{said}, and neither another order of channels nor another mean and std explains it"
        remedy = "check that the preprocess script returns the same picture with norm=True and norm=False"
    elif found.order:
        text = "reversed (RGB and BGR)" if found.order == (2, 1, 0) else f"in the order {list(found.order)}"
        scaled = "" if found.factor is None else ", scaled and shifted by channel,"
        reason = f"{said}: with the channels of B {text}{scaled} it is {found.after:.1f} dB"
        remedy = (
            "make the preprocess script return the same order with norm=True and norm=False, and "
            "[INPUT_CONFIG] training_input_formats name it"
        )
    else:
        assert found.factor is not None and found.offset is not None
        by, to = (", ".join(f"{number:.4g}" for number in values) for values in (found.factor, found.offset))
        reason = f"{said}: by channel it is that of B times {by} plus {to}, then {found.after:.1f} dB"
        lines = other_normalisation(found, _described(case, name))
        remedy = "give the preprocess script that goes with the network, or "
        remedy += "make [INPUT_CONFIG] mean and std_value say what the script does with norm=True"
        remedy += f", about {lines} check_input_config.py -n -i measures it" if lines else ""
    return Cause(case.layer.name, f"{reason}.", f"{remedy[:1].upper()}{remedy[1:]}.")


def _described(case: Case, name: str) -> dict[str, object] | None:
    entries = [] if case.graph is None else case.graph.metadata.get("inputs", [])
    return next((entry for entry in entries if entry["name"] == name), None)


# -- ranges ------------------------------------------------------------------------------------------------------------
def _stuck(case: Case) -> Cause | None:
    """One number where the reference has many, for want of codes if there are codes, or the other way round."""
    spread = case.measured.spread
    if spread.constant == spread.held_constant or (spread.held_constant and case.step and _codes(case) >= FEW):
        return None
    if spread.constant:
        reason = f"it is {spread.low:.3g} everywhere in A, and {spread.held_low:.3g} to {spread.held_high:.3g} in B"
        remedy = "The network computes nothing there on these samples: look at others"
    else:
        reason = f"B holds {spread.held_low:.3g} everywhere, A has {spread.low:.3g} to {spread.high:.3g}"
        remedy = f"Give it the range of its values: {_entry(case)}" if case.tensor.quant else _REPORT
    return Cause(case.layer.name, f"Dead: {reason}.", f"{remedy}.")


def _clipped(case: Case) -> Cause | None:
    spread, span = case.measured.spread, code_span(case.tensor)
    error = case.error
    if span is None or spread.lost < EXPLAINED * error.mse * error.elements:
        return None
    share = spread.lost / max(error.mse * error.elements, 1e-300)
    reason = (
        f"The range is too narrow: codes hold {_range(*span)}, the values are {_range(spread.low, spread.high)}; "
        f"{spread.outside:.2%} of them saturate, which makes {min(share, 1):.0%} of the error ({case.told})."
    )
    return Cause(case.layer.name, reason, f"Calibrate on pictures like these, or give it their range: {_entry(case)}.")


def _clash(case: Case) -> Cause | None:
    """A range that a wider tensor asks for, which is joined with this one."""
    if case.graph is None or case.tensor.quant is None or _times_wider(case) < APART:
        return None
    found = _joined_with(case)
    if found is None:
        return None
    join, wide = found
    spread, reach = case.measured.spread, case.measurement.found[wide].spread
    values = _range(spread.low, spread.high)
    reason = (
        f"Ranges clash in {join.label}: '{wide}' has {_range(reach.low, reach.high)}, this one {values}, and with the "
        f"codes that they share {_codes(case):.0f} of {_all_codes(case)} are left to it ({case.told})."
    )
    remedy = f"Return outputs that hold it as {F32}, or make it an output of its own"
    if case.layer.bits == 8 and (read := _read_by_sums(case, join.outputs[0])):
        remedy = f"{_tensor_arrays(*read)} to hold them in 16 bits; or r{remedy[1:]}"
    return Cause(case.layer.name, reason, f"{remedy}.")


def _joined_with(case: Case) -> tuple[Node, str] | None:
    """The moving operator that joins it, perhaps behind others, with tensors of a far wider range, and the widest."""
    assert case.graph is not None
    found, names = case.measurement.found, {case.layer.name}
    for node in case.graph.nodes:
        if known_kind(node) != "move" or not names.intersection(node.inputs):
            continue
        names.update(node.outputs)
        others = [node.inputs[index] for index in moved_by(node)]
        measured = [name for name in others if name in found and name not in names]
        if measured:
            widest = max(measured, key=lambda name: _reach(found[name]))
            if _reach(found[widest]) > APART * _reach(case.measured):
                return node, widest
    return None


def _wide(case: Case) -> Cause | None:
    span = code_span(case.tensor)
    if span is None or _times_wider(case) < WIDE or not _rounding_explains(case):
        return None
    spread = case.measured.spread
    reason = (
        f"The range is too wide: codes hold {_range(*span)}, the values are {_range(spread.low, spread.high)}, so "
        f"{_codes(case):.0f} of {_all_codes(case)} codes are used ({case.told})."
    )
    return Cause(case.layer.name, reason, f"Give it the range of its values: {_entry(case)}.")


def _reach(measured: Measured) -> float:
    return max(abs(measured.spread.low), abs(measured.spread.high))


def _times_wider(case: Case) -> float:
    span = code_span(case.tensor)
    assert span is not None
    spread = case.measured.spread
    return (
        (span[1] - span[0]) / max(max(spread.high, 0) - min(spread.low, 0), 1e-30) / (2 if span[0] == -span[1] else 1)
    )


def _rounding_explains(case: Case) -> bool:
    return case.error.mse <= ROUNDING * case.rounding


def _codes(case: Case) -> float:
    return (case.measured.spread.high - case.measured.spread.low) / case.step


def _all_codes(case: Case) -> int:
    return 255 if case.layer.bits == 8 else 65534


# -- bits --------------------------------------------------------------------------------------------------------------
def _result_bits(case: Case) -> Cause | None:
    """8 bits for a result whose error is that of rounding to its codes."""
    read = _read_by_sums(case, case.layer.name)
    if case.layer.bits != 8 or not _rounding_explains(case) or not read:
        return None
    reason = (
        f"8 bits are too few for its values: {case.told}, and rounding to steps of {case.step:.3g} makes "
        f"{min(case.rounding / case.error.mse, 1):.0%} of that error."
    )
    return Cause(case.layer.name, reason, f"{_tensor_arrays(*read)}, so that what reads it takes 16 bits.")


def _operand_bits(case: Case) -> Cause | None:
    """8-bit operands of a sum of products, or weights in 4."""
    node, graph = case.node, case.graph
    rule = None if node is None else QUANTISE.get(node.op)
    if node is None or graph is None or rule is None or rule.kind != "mac":
        return None
    x, weight = graph[node.inputs[0] or ""], graph[node.inputs[rule.weight] or ""]
    share = case.rounding / case.error.mse
    own = f"rounding its result makes {'less than 0.1%' if share < 0.001 else f'only {share:.1%}'} of that error"
    if weight.dtype.bits == 4:
        reason = f"4 bits are too few for its weights: {case.told}, and {own}."
        entry = f"{{name: {case.layer.reference}/weight, min: null, max: null, bit: 8}}"
        remedy = f"Put {entry} among the presets of the quant_config, or ask for a higher mp_rate, and calibrate again."
        return Cause(case.layer.name, reason, remedy)
    if x.dtype.bits == 16:
        return None
    name = _named(case, x.name)
    reason = (
        f"8 bits are too few for what it reads: {case.told}, with '{name}' in {x.dtype.bits} and weights in "
        f"{weight.dtype.bits} bits; {own}."
    )
    remedy = _tensor_arrays(name)
    if name in case.measurement.a.inputs:  # which tensor_arrays leaves in 8 bits (quant.forced)
        remedy = "Put input_format=ALL_INT16; below [CONV_CONFIG] in the ini (the first convolution has no other way)"
    return Cause(case.layer.name, reason, f"{remedy} and calibrate again.")


def _unexplained(case: Case) -> Cause | None:
    reason = (
        f"{case.told[:1].upper()}{case.told[1:]} in {case.layer.bits} bits, and neither range nor bits explain it: "
        f"the values are {_range(case.measured.spread.low, case.measured.spread.high)}."
    )
    if case.graph is None:
        remedy = "Compare the fixed .sim that the .img was compiled from: that tells the error of each layer alone."
        return Cause(case.layer.name, reason, remedy)
    level = "Calibrate with a higher --quant_level, on more pictures"
    return Cause(case.layer.name, reason, f"{level}, or give it another range: {_entry(case)}.")


def _added_up(output: ComparedLayer, layers: Sequence[ComparedLayer]) -> Cause:
    """No layer is bad, but all together are."""
    measured = [layer for layer in layers if layer.isolated is not None and layer.bits == 8]
    worst = sorted(measured, key=lambda layer: layer.isolated.sqnr if layer.isolated else 0)[:3]
    names = ", ".join(f"'{layer.name}' {layer.isolated.sqnr:.1f} dB" for layer in worst if layer.isolated)
    lost = f"; those that lose most alone are {names}" if names else ""
    reason = (
        f"No single layer is bad, but the errors of {len(layers)} add up to {output.accumulated.sqnr:.1f} dB in "
        f"'{output.name}'{lost}."
    )
    line = "input_format=ALL_INT16; below [CONV_CONFIG] in the ini"
    return Cause(output.name, reason, f"Calibrate with --quant_level L5; if that is not enough, put {line}.")


# -- conversion and compilation ----------------------------------------------------------------------------------------
_REPORT = "This is a defect of the toolchain: please report it with the model"


def _conversion(case: Case) -> Cause | None:
    error, what = case.error, "alone, fed with what A has," if case.layer.isolated else ""
    reason = (
        f"{case.layer.operator or 'It'} {what} differs from A by {error.relative_l1:.2g} of its values, at most by "
        f"{error.max_abs:.3g}, where {DIFFERENCE:g} is rounding."
    )
    remedy = f"{_REPORT} and the name of this layer."
    if case.measurement.a.kind == "TFLite":
        remedy += " Unless its weights are 8-bit ones beside real values: LiteRT rounds these too."
    return Cause(case.layer.name, " ".join(reason.split()), remedy)


def _other_image(case: Case) -> Cause | None:
    error = case.layer.accumulated
    reason = f"The integers differ, by at most {error.max_abs:.3g}: an .img computes exactly what its fixed .sim does."
    remedy = (
        "The .img is of another fixed .sim: compile this one again. If it is of this one, that is a defect: report it."
    )
    return Cause(case.layer.name, reason, remedy)


# -- words -------------------------------------------------------------------------------------------------------------
def _range(low: float, high: float) -> str:
    return f"{low:.3g} to {high:.3g}"


def _named(case: Case, name: str) -> str:
    """The network's name for a tensor of B."""
    return case.measurement.pairs.get(name, name)


def _tensor_arrays(*names: str) -> str:
    return f"Put tensor_arrays={','.join(names)}; below [CONV_CONFIG] in the ini"


def _read_by_sums(case: Case, name: str) -> list[str]:
    """The first operands of sums of products that hold the values of a tensor: it, or what it is moved into."""
    if case.graph is None:
        return [case.layer.reference]
    held = _moved_on(case.graph, name)
    read = [node.inputs[0] for node in case.graph.nodes if _is_sum(node) and node.inputs[0] in held]
    return list(dict.fromkeys(_named(case, operand) for operand in read if operand is not None))


def _is_sum(node: Node) -> bool:
    rule = QUANTISE.get(node.op)
    return rule is not None and rule.kind == "mac"


def _moved_on(graph: Graph, name: str) -> set[str]:
    """A tensor, and those that hold its values behind operators that only move them."""
    held = {name}
    for node in graph.nodes:
        if (moves(node) or node.op in _RECODING) and not held.isdisjoint(node.inputs):
            held.update(node.outputs)
    return held


def _entry(case: Case) -> str:
    """What gives a tensor the range of its values and leaves all else as it is: an entry of a quantisation parameter
    file, or of the plan where more was decided than such a file leaves."""
    spread, name = case.measured.spread, case.layer.reference
    low, high = (float(np.format_float_positional(end, 4, fractional=False)) for end in (spread.low, spread.high))
    bits = 16 if case.layer.bits == 16 else 8
    if case.measurement.b.calibration.get("level", ENTRY_LEVEL) == ENTRY_LEVEL:
        entry = f'[{{"name": "{name}", "min": [{low}], "max": [{high}], "bit": {bits}}}] as --quant_file'
        return entry if case.scale is None else f'{entry}, with the "scale" that the export of B has for its channels'
    key = "ranges" if bits == 16 else "narrow"
    where = f'under "{key}" in its plan (calibrator.py --save_quant_info writes it, --plan follows it)'
    return f'"{name}": {{"low": {low}, "high": {high}}} {where}'
