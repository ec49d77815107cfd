"""What is known of every layer, from wherever it comes: a row each, for the tables and charts of a report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sgs.ir import Graph, Tensor
from sgs.quant.layers import Layer
from sgs.registry import QUANTISE
from sgs.report.compared import ComparedLayer
from sgs.report.compile import LayerCost

_REAL_BITS = 32
Label = tuple[str, str]  # (what the layers of an image are called, operator)


@dataclass(frozen=True)
class Form:
    """How a fixed graph holds a tensor that a node makes: the `bits` of its values, and those of the weights behind it
    with the bytes that they take packed, None and 0 where it is no sum of products. `label` finds its cost."""

    shape: tuple[int, ...]
    bits: int
    weight_bits: int | None
    weight_bytes: int
    label: Label


@dataclass(frozen=True)
class LayerRow:
    """A layer by the tensor that it makes; None where something is not known. `alone` and `so_far` are signal to noise
    in dB, of the layer fed from the float network and as it comes out of the fixed one; `cosine`, `relative_l1` and
    `max_abs` go with the latter; `macs` is its share of the multiply-accumulates; `gain` what the outputs would gain
    if it were in 16 bits, in dB; `cycles` the span that it takes on the chip."""

    name: str
    operator: str
    shape: tuple[int, ...] | None = None
    bits: int | None = None
    weight_bits: int | None = None
    weight_bytes: int | None = None
    low: float | None = None
    high: float | None = None
    method: str | None = None
    alone: float | None = None
    so_far: float | None = None
    cosine: float | None = None
    relative_l1: float | None = None
    max_abs: float | None = None
    gain: float | None = None
    macs: float | None = None
    cycles: int | None = None


def forms_of(graph: Graph) -> dict[str, Form]:
    """How a fixed graph holds what its nodes make; an output handed over as real numbers is as its codes are."""
    forms: dict[str, Form] = {}
    for node in graph.nodes:
        codes = forms.get(node.inputs[0] or "") if node.op == "DEQUANTIZE" else None
        rule = QUANTISE.get(node.op)
        weights = graph[node.inputs[rule.weight] or ""] if rule is not None and rule.kind == "mac" else None
        bits, size = (None, 0) if weights is None else (weights.dtype.bits, weights.elements * weights.dtype.bits // 8)
        for tensor in graph.results(node):
            label = (node.name or node.outputs[0], node.op)
            forms[tensor.name] = codes or Form(tensor.shape, _bits(tensor), bits, size, label)
    return forms


def _bits(tensor: Tensor) -> int:
    return _REAL_BITS if tensor.quant is None else tensor.dtype.bits


def compared_rows(layers: Iterable[ComparedLayer], forms: Mapping[str, Form]) -> list[LayerRow]:
    """The rows of a comparison, its own figures before those of a fixed graph."""
    return [_compared(layer, forms.get(layer.name)) for layer in layers]


def _compared(layer: ComparedLayer, form: Form | None) -> LayerRow:
    errors = layer.accumulated
    weights = None if form is None or layer.weight_bits is None else form.weight_bytes  # real outputs have their codes'
    return LayerRow(
        layer.name,
        layer.operator,
        layer.shape,
        layer.bits,
        layer.weight_bits,
        weights,
        layer.low,
        layer.high,
        alone=None if layer.isolated is None else _known(layer.isolated.sqnr),
        so_far=_known(errors.sqnr),
        cosine=_known(errors.cosine),
        relative_l1=_known(errors.relative_l1),
        max_abs=_known(errors.max_abs),
    )


def _known(measure: float) -> float | None:
    """None for what values that are not finite, or all zero, leave undefined."""
    return measure if math.isfinite(measure) else None


def calibrated_rows(layers: Iterable[Layer], forms: Mapping[str, Form]) -> list[LayerRow]:
    """The rows of a calibration."""
    return [_calibrated(layer, forms.get(layer.name)) for layer in layers]


def _calibrated(layer: Layer, form: Form | None) -> LayerRow:
    row = LayerRow(
        layer.name,
        layer.operator,
        low=layer.low,
        high=layer.high,
        method=layer.operand_method or layer.method,
        alone=layer.alone,
        so_far=layer.accumulated,
        gain=layer.gain,
        macs=layer.macs,
    )
    if form is None:
        return replace(row, bits=layer.bits)
    row = replace(row, shape=form.shape, bits=form.bits)
    return replace(row, weight_bits=form.weight_bits, weight_bytes=form.weight_bytes or None)


def joined(compared: Sequence[LayerRow], calibrated: Sequence[LayerRow]) -> list[LayerRow]:
    """The rows of a comparison with what only the calibration knows; those of one of them where the other is empty."""
    if not compared:
        return list(calibrated)
    known = {row.name: row for row in calibrated}
    blank = LayerRow("", "")
    found = ((row, known.get(row.name, blank)) for row in compared)
    return [replace(row, method=more.method, gain=more.gain, macs=more.macs) for row, more in found]


def with_cycles(rows: Iterable[LayerRow], costs: Iterable[LayerCost], forms: Mapping[str, Form]) -> list[LayerRow]:
    """The rows with the spans of the layers that make them, where the image has just one layer of that label."""
    costs = list(costs)
    count = Counter((cost.name, cost.opcode) for cost in costs)
    spans = {label: cost.span_cycles for cost in costs if count[label := (cost.name, cost.opcode)] == 1}
    return [replace(row, cycles=spans.get(forms[row.name].label)) if row.name in forms else row for row in rows]
