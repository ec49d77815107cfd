"""A plan as a file that a person may edit: the JSON of `QuantPlan.to_json` read back, and held against a network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from sgs.config.nearest import did_you_mean
from sgs.data.packed_array import unpacked
from sgs.errors import UserError, raise_all
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.quant.edit import mac_nodes
from sgs.quant.equalise import equalised, scalable_tensors
from sgs.quant.plan import PRECISIONS, MacChoice, QuantPlan, TensorRange
from sgs.quant.prepare import prepare
from sgs.quant.statistics import observed_tensors
from sgs.registry import QUANTISE

STAGE = "plan"
LARGEST = float(np.finfo(np.float32).max)


def plan_text(plan: QuantPlan, history: Mapping[str, Any]) -> str:
    """A plan and how it came about as JSON text, with a fingerprint that tells whether it was edited since."""
    record = {**json.loads(plan.to_json()), "calibration": dict(history), "fingerprint": fingerprint(plan)}
    return json.dumps(record, indent=1)


def fingerprint(plan: QuantPlan) -> str:
    """A digest of the decisions."""
    return hashlib.blake2b(plan.to_json().encode(), digest_size=8).hexdigest()


def parse_plan(record: object, *, file: object | None = None) -> QuantPlan:
    """The plan that decoded JSON of `QuantPlan.to_json` stands for; what may be null may be left out.

    Raises UserError listing every unknown key and every value that cannot be.
    """
    reader = _Reader(file)
    table = reader.record(record, "the plan", ("ranges", "macs"), ("level", "narrow", "scales"))
    ranges, narrow = (
        {name: reader.tensor_range(value, f"{key}, '{name}'") for name, value in reader.table(table, key).items()}
        for key in ("ranges", "narrow")
    )
    macs = {name: reader.mac(value, f"macs, '{name}'") for name, value in reader.table(table, "macs").items()}
    scales = {
        name: reader.numbers(value, f"scales, '{name}'", lambda number: number > 0)
        for name, value in reader.table(table, "scales").items()
    }
    raise_all(reader.problems, stage=STAGE, file=file)
    return QuantPlan(ranges, narrow, macs, str(table.get("level", "")), scales)


def is_number(value: object) -> bool:
    """A real number that binary32 holds; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


class _Reader:
    """Parts of a plan's record as values; what is wrong with them is collected in `problems`."""

    def __init__(self, file: object | None) -> None:
        self.file = file
        self.problems: list[UserError] = []

    def problem(self, node: str, reason: str, remedy: str | None = None) -> None:
        self.problems.append(UserError(reason, stage=STAGE, file=self.file, node=node, remedy=remedy))

    def record(self, value: object, node: str, needed: Sequence[str], optional: Sequence[str]) -> Mapping[str, Any]:
        """A JSON object with these keys and no others."""
        if not isinstance(value, dict):
            self.problem(node, f"is no JSON object with the keys {', '.join(needed)}")
            return {}
        for key in value:
            if key not in (*needed, *optional):
                self.problem(node, f"unknown key {key!r}", did_you_mean(key, (*needed, *optional)))
        for key in needed:
            if key not in value:
                self.problem(node, f"{key!r} is missing")
        return value

    def table(self, record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        """A JSON object of tensor names."""
        value = record.get(key, {})
        if isinstance(value, dict):
            return value
        self.problem(key, "is no JSON object of tensor names")
        return {}

    def tensor_range(self, value: object, node: str) -> TensorRange:
        record = self.record(value, node, ("low", "high"), ("method",))
        low, high = record.get("low", 0), record.get("high", 0)
        if not (is_number(low) and is_number(high)):
            self.problem(node, f"low {low!r} and high {high!r} must be finite numbers")
        elif low > high:
            self.problem(node, f"low {low} is above high {high}")
        else:
            return TensorRange(float(low), float(high), str(record.get("method", "edited")))
        return TensorRange(0.0, 0.0)

    def mac(self, value: object, node: str) -> MacChoice:
        record = self.record(value, node, ("bits", "weight_bound"), ("bias_shift", "bias", "weight"))
        bits = record.get("bits", 8)
        if type(bits) is not int or bits not in PRECISIONS:
            self.problem(node, f"bits {bits!r} is not one of {', '.join(map(str, PRECISIONS))}")
        bound = self.numbers(record.get("weight_bound", []), f"{node}, weight_bound", lambda number: number >= 0)
        shift, bias = (
            None if record.get(key) is None else self.numbers(record[key], f"{node}, {key}")
            for key in ("bias_shift", "bias")
        )
        return MacChoice(bits, bound, shift, self.weight(record.get("weight"), f"{node}, weight"), bias)

    def numbers(self, values: object, node: str, legal: Callable[[float], bool] = lambda number: True) -> Array:
        if isinstance(values, list) and all(is_number(v) and legal(v) for v in values):
            return np.array(values, np.float64)
        limit = "" if legal(-1.0) else " from 0 on" if legal(0.0) else " above 0"
        self.problem(node, f"is no list of finite numbers{limit}")
        return np.zeros(0)

    def weight(self, value: object, node: str) -> Array | None:
        if value is None:
            return None
        try:
            if not isinstance(value, dict):
                raise ValueError("is neither null nor an array")
            array = unpacked(value)
            if not np.isfinite(array).all():
                raise ValueError("has values that are not finite")
        except ValueError as error:
            self.problem(node, str(error))
            return None
        return array


def scale_faults(scales: Mapping[str, Array], float_graph: Graph) -> dict[str, str]:
    """Name → what is wrong with it, for the scales of channel equalisation that do not fit a float graph."""
    legal = scalable_tensors(prepare(float_graph)) if scales else set()
    found = {}
    for name, scale in scales.items():
        if name not in legal:
            found[name] = "is not between two sums of products, so its channels cannot be scaled"
        elif scale.shape != float_graph[name].shape[-1:]:
            found[name] = f"has scales for {scale.size} channels, not for {float_graph[name].shape[-1]}"
    return found


def network_of(plan: QuantPlan, float_graph: Graph, *, file: object | None = None) -> Graph:
    """The prepared graph that a plan is for, equalised where the plan says so.

    Raises UserError listing every way in which the plan does not fit it.
    """
    faults = scale_faults(plan.scales, float_graph)
    raise_all(
        [UserError(reason, stage=STAGE, file=file, node=f"scales, '{name}'") for name, reason in faults.items()],
        stage=STAGE,
        file=file,
    )
    prepared = prepare(equalised(float_graph, plan.scales) if plan.scales else float_graph)
    _check(plan, prepared, file)
    return prepared


def _check(plan: QuantPlan, prepared: Graph, file: object | None) -> None:
    problems: list[UserError] = []

    def problem(node: str, reason: str, remedy: str | None = None) -> None:
        problems.append(UserError(reason, stage=STAGE, file=file, node=node, remedy=remedy))

    tensors, macs = [t.name for t in prepared.activations()], {n.outputs[0]: n for n in mac_nodes(prepared)}
    tables: list[tuple[str, Collection[str], Collection[str], Collection[str]]] = [
        ("ranges", plan.ranges, tensors, observed_tensors(prepared)),
        ("narrow", plan.narrow, tensors, ()),
        ("macs", plan.macs, macs, macs),
    ]
    for key, present, known, needed in tables:
        for name in present:
            if name not in known:
                problem(f"{key}, '{name}'", "is not in the float network", did_you_mean(name, known))
        for name in needed:
            if name not in present:
                problem(key, f"'{name}' is missing")
    for name, node in macs.items():
        rule = QUANTISE[node.op]
        weight = prepared[node.inputs[rule.weight] or ""].shape
        channels = (weight[rule.channel_axis],)
        expected = {"weight_bound": channels, "bias_shift": channels, "bias": channels, "weight": weight}
        for key, shape in expected.items() if name in plan.macs else ():
            values = getattr(plan.macs[name], key)
            if values is not None and values.shape != shape:
                problem(f"macs, '{name}', {key}", f"has shape {list(values.shape)}, expected {list(shape)}")
    raise_all(problems, stage=STAGE, file=file)
