"""Quantisation parameters that the user brings along: ranges, precisions and constants (docs/QUANT_PARAMETERS.md).

Reading makes frozen values of a file, checking holds them against a float graph, and applying gives a plan that follows
them. `quant.export` writes such files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sgs.config.nearest import did_you_mean, listing, nearest
from sgs.data.packed_array import packed, unpacked
from sgs.data.plain_pickle import load_plain
from sgs.errors import UserError, raise_all
from sgs.ir import Graph
from sgs.numeric.quantise import Array, activation_params
from sgs.quant.edit import BYTE_SPAN, mac_nodes, mac_type
from sgs.quant.equalise import equalised
from sgs.quant.export import activations_of
from sgs.quant.plan import PRECISIONS, MacChoice, QuantPlan, TensorRange
from sgs.quant.plan_file import LARGEST, scale_faults
from sgs.registry import QUANTISE

STAGE = "quant_file"
METADATA_KEY = "quant_parameters"  # of a float .sim
Shape = tuple[int, ...]
KEYS = ("name", "min", "max", "bit", "data", "scale")
_SUGGESTIONS = 20  # unknown names that get a suggestion: looking for one takes time
_LIST = "DumpDebug/show_tensor_info.py -m FILE lists the names; weights of a convolution are <its result>/weight"


@dataclass(frozen=True, eq=False)
class QuantParameter:
    """One entry: `low` and `high` float64 [1] or [C], `bit` 4, 8 or 16, `data` float32 or float64 of the shape of the
    constant that it replaces, `scale` float64 [C] what the channels of an activation are multiplied by.
    """

    name: str
    low: Array
    high: Array
    bit: int
    data: Array | None = None
    scale: Array | None = None

    @property
    def range(self) -> TensorRange:
        """The range of all channels together."""
        return TensorRange(float(self.low.min()), float(self.high.max()), "imported")


# -- reading -----------------------------------------------------------------------------------------------------------
def read_parameters(path: Path) -> tuple[QuantParameter, ...]:
    """The entries of a JSON or Pickle file; which of the two it is shows in its first byte.

    Raises UserError for a file that cannot be read, and one that lists all faults of the entries.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(error.strerror or str(error), stage=STAGE, file=path) from error
    if not data.strip():
        raise UserError("is empty", stage=STAGE, file=path)
    remedy = 'write a list of {"name", "min", "max", "bit"} as JSON or Pickle'
    try:
        entries = load_plain(data) if data[0] >= 0x80 else json.loads(data, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        kind = "Pickle" if data[0] >= 0x80 else "JSON"
        raise UserError(f"is no {kind} file of parameters: {error}", stage=STAGE, file=path, remedy=remedy) from error
    return parse_parameters(entries, file=path)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twins = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twins:
        raise ValueError(f"one entry has the key {twins[0]!r} twice")
    return dict(pairs)


def parse_parameters(entries: object, *, file: object | None = None) -> tuple[QuantParameter, ...]:
    """A list of {"name", "min", "max", "bit"[, "data"]} as values. Raises UserError listing every fault."""
    if not isinstance(entries, (list, tuple)) or not entries:
        raise UserError("is not a list of quantisation parameters, or an empty one", stage=STAGE, file=file)
    problems: list[UserError] = []
    found = []
    for position, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, dict) else None
        node = f"'{name}'" if isinstance(name, str) and name else f"entry {position}"
        faults = list(_faults(entry))
        problems += [UserError(reason, stage=STAGE, file=file, node=node, remedy=remedy) for reason, remedy in faults]
        if not faults:
            found.append(_parameter(entry))
    for (name, bit), count in Counter((p.name, p.bit) for p in found).items():
        if count > 1:
            reason = f"is there {count} times with bit {bit}"
            problems.append(UserError(reason, stage=STAGE, file=file, node=f"'{name}'", remedy="leave one"))
    raise_all(problems, stage=STAGE, file=file)
    return tuple(found)


def _faults(entry: object) -> Iterator[tuple[str, str | None]]:
    """(what is wrong, remedy) of one entry, whatever the network."""
    if not isinstance(entry, dict):
        yield f"is {type(entry).__name__}, not a dictionary with the keys {', '.join(KEYS[:4])}", None
        return
    for key in entry:
        if key not in KEYS:
            yield f"unknown key {key!r}", did_you_mean(str(key), KEYS)
    missing = [key for key in KEYS[:4] if key not in entry]
    if missing:
        yield f"{' and '.join(missing)} missing", None
        return
    if not isinstance(entry["name"], str) or not entry["name"]:
        yield f"the name {entry['name']!r} is no text", None
    bit = entry["bit"]
    if isinstance(bit, bool) or not isinstance(bit, Integral) or int(bit) not in PRECISIONS:
        yield f"bit {bit!r} is not one of {', '.join(map(str, PRECISIONS))}", None
    low, high = _numbers(entry["min"]), _numbers(entry["max"])
    for key, values in (("min", low), ("max", high)):
        if values is None or values.ndim != 1 or not values.size:
            yield f"{key} is no list of numbers", None
        elif not _finite(values):
            yield f"{key} has a value that is not finite", None
    if low is not None and high is not None and low.ndim == high.ndim == 1 and low.size and high.size:
        if low.shape != high.shape:
            yield f"min has {low.size} values, max {high.size}", None
        elif (low > high).any():
            at = int((low > high).argmax())
            yield f"min {low[at]:g} is above max {high[at]:g} at position {at}", None
    if entry.get("data") is not None:
        data = _numbers(entry["data"])
        if data is None:
            yield "data is no array of numbers", None
        elif not _finite(data):
            yield "data has values that are not finite", None
    if entry.get("scale") is not None:
        scale = _numbers(entry["scale"])
        if scale is None or scale.ndim != 1 or not (_finite(scale) and (scale > 0).all()):
            yield "scale is no list of finite numbers above 0", None


def _numbers(value: object) -> Array | None:
    """Real numbers in a list, a nested list, an array or what `packed` makes of one; None for anything else."""
    try:
        if isinstance(value, dict):
            return unpacked(value)
        array = np.asarray(value) if isinstance(value, (list, tuple, np.ndarray)) else None
    except ValueError:  # ragged, or not packed as it says
        return None
    return array if array is not None and array.dtype.kind in "fiu" else None


def _finite(values: Array) -> bool:
    """Whether binary32 holds all of them."""
    return bool((np.abs(values.astype(np.float64)) <= LARGEST).all())


def _parameter(entry: Mapping[str, Any]) -> QuantParameter:
    low, high = (np.array(_numbers(entry[key]), np.float64) for key in ("min", "max"))
    data = None if entry.get("data") is None else _numbers(entry["data"])
    if data is not None and data.dtype != np.float32:
        data = data.astype(np.float64)
    scale = None if entry.get("scale") is None else np.array(_numbers(entry["scale"]), np.float64)
    return QuantParameter(entry["name"], low, high, int(entry["bit"]), data, scale)


def scales_of(parameters: Iterable[QuantParameter]) -> dict[str, Array]:
    """Channel equalisation that the entries ask for: tensor → factors [C]."""
    return {p.name: p.scale for p in parameters if p.scale is not None}


def recorded(parameters: Iterable[QuantParameter]) -> list[dict[str, Any]]:
    """Entries as the metadata of a float .sim holds them: JSON, arrays packed."""
    return [
        {"name": p.name, "min": p.low.tolist(), "max": p.high.tolist(), "bit": p.bit}
        | ({} if p.data is None else {"data": packed(p.data)})
        | ({} if p.scale is None else {"scale": p.scale.tolist()})
        for p in parameters
    ]


# -- holding them against a network ------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Operand:
    """A constant of one sum of products, which is named by its result. `data` is the network's."""

    mac: str
    role: Literal["weight", "bias"]
    shape: tuple[int, ...]
    axis: int
    data: Array | None

    @property
    def channels(self) -> int:
        return self.shape[self.axis]


class Targets:
    """What names may stand for in a float graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.shared: dict[str, list[Operand]] = {}  # a constant → all that read it
        self.own: dict[str, Operand] = {}  # "<result>/weight", "<result>/bias"
        for node in mac_nodes(graph):
            rule, result = QUANTISE[node.op], node.outputs[0]
            weight = graph[node.inputs[rule.weight] or ""]
            self._add(Operand(result, "weight", weight.shape, rule.channel_axis, weight.data), weight.name)
            bias = node.inputs[rule.bias] if len(node.inputs) > rule.bias else None
            self._add(Operand(result, "bias", (weight.shape[rule.channel_axis],), 0, None), bias)

    def _add(self, operand: Operand, name: str | None) -> None:
        self.own[f"{operand.mac}/{operand.role}"] = operand
        if name is not None:
            self.shared.setdefault(name, []).append(operand)

    def operands(self, name: str) -> list[Operand]:
        """The constants that an entry is for: those of the float graph's tensor of this name, else of one sum."""
        if name in self.graph.tensors:
            return self.shared.get(name, [])
        return [self.own[name]] if name in self.own else []

    def faults(self, parameter: QuantParameter) -> Iterator[str]:
        """What is wrong with an entry, whose name is known, for this graph."""
        operands, tensor = self.operands(parameter.name), self.graph.tensors.get(parameter.name)
        if operands:
            own = self.own.get(parameter.name)
            if own is not None and own not in operands:
                yield "names a constant of the network, and is also how that of one sum of products is named"
            for shape, axis, data in {(o.shape, o.axis): (o.shape, o.axis, o.data) for o in operands}.values():
                yield from _constant_faults(parameter, shape, axis, data)
            return
        if parameter.data is not None:
            yield "has data; only weights and biases of sums of products can be replaced"
        if tensor is None or tensor.is_constant:
            return
        if not tensor.dtype.is_float:
            yield f"holds {tensor.dtype.name.lower()} of the network's own, which are not quantised"
        if parameter.bit == 4:
            yield "bit 4 is for weights; activations have 8 or 16"
        yield from _length_faults(parameter, tensor.shape[-1] if tensor.shape else 1)


def _length_faults(parameter: QuantParameter, channels: int) -> Iterator[str]:
    if parameter.low.size not in (1, channels):
        one = "1 value" if channels == 1 else f"1 value or {channels}, one a channel"
        yield f"min and max have {parameter.low.size} values; expected {one}"


def _constant_faults(parameter: QuantParameter, shape: Shape, axis: int, weight: Array | None) -> Iterator[str]:
    """For a weight, whose present values are given, or a bias."""
    lengths = list(_length_faults(parameter, shape[axis]))
    yield from lengths
    if parameter.data is not None and parameter.data.shape != shape:
        yield f"data has shape {list(parameter.data.shape)}, that of the network {list(shape)}"
    elif weight is not None and not lengths:
        data = weight if parameter.data is None else parameter.data
        rows = np.abs(np.moveaxis(data, axis, 0)).reshape(shape[axis], -1)
        if ((_bound(parameter, shape[axis]) == 0) & rows.any(1)).any():
            yield "min and max are 0 for a channel whose weights are not"


def _bound(parameter: QuantParameter, channels: int) -> Array:
    """Largest magnitude per channel, float64 [channels]."""
    return np.broadcast_to(np.maximum(np.abs(parameter.low), np.abs(parameter.high)), channels)


def check_parameters(
    parameters: Sequence[QuantParameter], graph: Graph, *, stage: str = STAGE, file: object | None = None
) -> None:
    """Raise UserError listing every entry that does not fit the float graph."""
    scales = scales_of(parameters)
    wrong = scale_faults(scales, graph)
    own = Targets(graph).own
    there = {n: r for n, r in wrong.items() if n in graph.tensors or n in own}  # others are told below
    problems = [UserError(r, stage=stage, file=file, node=f"'{name}'") for name, r in there.items()]
    for p in parameters:
        if p.name in scales and not np.array_equal(scales[p.name], p.scale if p.scale is not None else ()):
            reason = "has entries of different scale"
            problems.append(UserError(reason, stage=stage, file=file, node=f"'{p.name}'", remedy="give all the same"))
    if scales:
        graph = equalised(graph, {name: scale for name, scale in scales.items() if name not in wrong})
    targets = Targets(graph)
    known = [*graph.tensors, *targets.own]
    suggestions = _SUGGESTIONS
    for parameter in parameters:
        node = f"'{parameter.name}'"
        if parameter.name in graph.tensors or parameter.name in targets.own:
            problems += [UserError(r, stage=stage, file=file, node=node) for r in targets.faults(parameter)]
            continue
        closest = nearest(parameter.name, known) if suggestions > 0 else None
        suggestions -= 1
        remedy = _LIST if closest is None else f"did you mean {closest}?"
        problems.append(
            UserError("is no tensor of the float network", stage=stage, file=file, node=node, remedy=remedy)
        )
    for name, bits in _bits_of(p for p in parameters if targets.operands(p.name)).items():
        if len(bits) > 1:
            reason = f"is a constant and is given with {len(bits)} precisions, bit {' and '.join(map(str, bits))}"
            problems.append(UserError(reason, stage=stage, file=file, node=f"'{name}'", remedy="leave one"))
    raise_all(problems, stage=stage, file=file)


def shared_out(parameters: Sequence[QuantParameter], graphs: Sequence[Graph]) -> list[tuple[QuantParameter, ...]]:
    """For each float graph the entries that name a tensor of it. Raises UserError naming those that fit no graph."""
    scales = scales_of(parameters)
    known = []
    for graph in graphs:
        fitting = {name: scale for name, scale in scales.items() if name not in scale_faults(scales, graph)}
        targets = Targets(equalised(graph, fitting) if fitting else graph)
        known.append({*targets.graph.tensors, *targets.own})
    stray = [p.name for p in parameters if not any(p.name in names for names in known)]
    if stray:
        raise UserError(f"no network has {listing(stray)}", stage=STAGE, remedy=_LIST)
    return [tuple(p for p in parameters if p.name in names) for names in known]


def _bits_of(parameters: Iterable[QuantParameter]) -> dict[str, list[int]]:
    result: dict[str, list[int]] = {}
    for parameter in parameters:
        result.setdefault(parameter.name, []).append(parameter.bit)
    return result


# -- applying ----------------------------------------------------------------------------------------------------------
def with_parameters(plan: QuantPlan, graph: Graph, parameters: Sequence[QuantParameter]) -> QuantPlan:
    """The plan with what the entries, which `check_parameters` has passed for `graph`, say otherwise.

    An activation's entry with bit 8 is its range where UINT8 codes hold it, one with bit 16 its range where INT16
    codes do; a single one is both. A sum of products has the precision of its weight's entry; without one, that of its
    first operand's if there is just one.
    """
    targets = Targets(graph)
    spans: dict[str, dict[int, TensorRange]] = {}
    chosen: dict[str, dict[str, QuantParameter]] = {}
    # what is for one sum of products goes before what is for all that share a constant
    for parameter in sorted(parameters, key=lambda p: p.name not in graph.tensors):
        for operand in targets.operands(parameter.name):
            chosen.setdefault(operand.mac, {})[operand.role] = parameter
        if parameter.name in plan.ranges:
            spans.setdefault(parameter.name, {})[parameter.bit] = parameter.range
    ranges, narrow, macs = dict(plan.ranges), dict(plan.narrow), dict(plan.macs)
    for name, span in spans.items():
        ranges[name] = span.get(16) or span[8]
        narrow[name] = span.get(8) or span[16]
    for node in mac_nodes(graph):
        held = spans.get(node.inputs[0] or "", {})
        macs[node.outputs[0]] = _mac(macs[node.outputs[0]], list(held), **chosen.get(node.outputs[0], {}))
    return replace(plan, ranges=ranges, narrow=narrow, macs=macs)


def _mac(
    choice: MacChoice, held: list[int], weight: QuantParameter | None = None, bias: QuantParameter | None = None
) -> MacChoice:
    if weight is not None:
        bound = _bound(weight, choice.weight_bound.size)
        choice = replace(choice, bits=weight.bit, weight_bound=bound, weight=weight.data)
    elif len(held) == 1:
        choice = replace(choice, bits=held[0])
    if bias is not None and bias.data is not None:
        choice = replace(choice, bias=bias.data, bias_shift=None)
    return choice


def unused(
    parameters: Sequence[QuantParameter], graph: Graph, core: Graph, fed_bytes: Collection[str] = ()
) -> list[str]:
    """Entries that the fixed graph `core`, whose inputs `fed_bytes` are fed as UINT8, does not follow as they stand,
    each with the reason."""
    targets, held = Targets(graph), held_bits(core, fed_bytes)
    result = []
    for parameter in parameters:
        name, operands = parameter.name, targets.operands(parameter.name)
        if operands:
            if all(operand.role == "bias" for operand in operands) and parameter.data is None:
                result.append(f"'{name}' (a bias, which follows from its data)")
        elif graph[name].is_constant:
            result.append(f"'{name}' (a constant, whose range follows from its values)")
        elif name in fed_bytes and not _spans_bytes(parameter):
            result.append(f"'{name}' (fed as bytes, which stand for themselves: 0 to 255)")
        elif name not in held:
            result.append(f"'{name}' (inside a table, or a place for fill values)")
        elif parameter.bit not in held[name]:
            result.append(f"'{name}' (held in {min(held[name])} bits, not in {parameter.bit})")
    return result


def held_bits(core: Graph, fed_bytes: Collection[str] = ()) -> dict[str, set[int]]:
    """Activation of the float graph → bits of what holds it in a fixed graph whose inputs `fed_bytes` are fed so."""
    held: dict[str, set[int]] = {name: {8} for name in fed_bytes}
    for name, tensor in activations_of(core):
        held.setdefault(name, set()).add(tensor.dtype.bits)
    return held


def _spans_bytes(parameter: QuantParameter) -> bool:
    """Whether an activation's range asks for the codes of 0 to 255."""
    dtype = mac_type(parameter.bit)
    asked = activation_params(parameter.range.low, parameter.range.high, dtype)
    return asked.same_codes(activation_params(*BYTE_SPAN, dtype))
