"""The decisions in a fixed graph as the entries that `quant.parameters` reads (docs/QUANT_PARAMETERS.md)."""

from __future__ import annotations

import json
import pickle
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sgs.errors import UserError
from sgs.ir import Graph, Node, Tensor
from sgs.numeric.quantise import Array, dequantise
from sgs.numeric.types import DType
from sgs.quant.prepare import range_sources
from sgs.registry import QUANTISE

STAGE = "save_quant_param"
SCALES_KEY = "equalised"  # metadata of a fixed .sim: tensor → what its channels are multiplied by


def activations_of(fixed: Graph) -> list[tuple[str, Tensor]]:
    """(name in the float network, codes) of every activation that a plan has a range for, in order.

    A tensor that some read in INT16 and others in UINT8 is there twice.
    """
    names: dict[str, str] = {}
    for node in reversed(fixed.nodes):  # on their way out: INT16 codes → UINT8 codes → real numbers
        name = names.get(node.outputs[0], node.outputs[0])
        if node.op in ("QUANTIZE", "DEQUANTIZE") and name in fixed.outputs:
            names[node.inputs[0] or ""] = name
    marked = range_sources(fixed)
    for node in fixed.nodes:
        source = fixed[node.inputs[0] or ""]
        if node.op == "QUANTIZE" or (source.dtype is DType.UINT8 and source.quant is None):  # pixels on their way in
            names.update(dict.fromkeys(node.outputs, names.get(source.name, source.name)))
    codes = [t for t in fixed.activations() if t.quant is not None and t.dtype in (DType.UINT8, DType.INT16)]
    return [(names.get(t.name, t.name), t) for t in codes if t.name not in marked]


def exported(fixed: Graph) -> list[dict[str, Any]]:
    """Every decision in a fixed graph as entries: imported, they make the same graph of the same float graph.

    Weights and biases come with their data. A weight that several sums of products share, or that channel equalisation
    has changed, goes by the name of the result.
    """
    scales, entries = fixed.metadata.get(SCALES_KEY, {}), []
    activations = activations_of(fixed)
    names = {t.name: name for name, t in activations}
    # Codes that leave, and those that others read, may both have a tensor's own range; bytes that are fed have theirs
    # whatever is imported, so the first of a width is enough.
    first = {(name, tensor.dtype): tensor for name, tensor in reversed(activations)}
    for (name, _), tensor in reversed(first.items()):
        assert tensor.quant is not None
        entry = _entry(name, tensor.quant.low, tensor.quant.high, tensor)
        entries.append({**entry, "scale": list(scales[name])} if name in scales else entry)
    nodes = [node for node in fixed.nodes if (rule := QUANTISE.get(node.op)) is not None and rule.kind == "mac"]
    stems = Counter(_stem(fixed, node) for node in nodes)
    for node in nodes:
        result, stem = names.get(node.outputs[0], node.outputs[0]), _stem(fixed, node)
        x, weight = fixed[node.inputs[0] or ""], _weight(fixed, node)
        bias = fixed[node.inputs[QUANTISE[node.op].bias] or ""]
        assert x.quant is not None and weight.quant is not None and weight.data is not None and bias.data is not None
        data = dequantise(weight.data, weight.quant)
        low, high = weight.quant.low, weight.quant.high
        own = stems[stem] > 1 or scales.keys() & {result, names.get(x.name, x.name)}
        entries.append(_entry(f"{result}/weight" if own else stem, low, high, weight, data))
        unit = x.quant.scale.astype(np.float64) * weight.quant.scale.astype(np.float64)
        real = bias.data.astype(np.float64) * unit
        entries.append(_entry(f"{result}/bias", real.min(keepdims=True), real.max(keepdims=True), weight, real))
    return entries


def _weight(fixed: Graph, node: Node) -> Tensor:
    return fixed[node.inputs[QUANTISE[node.op].weight] or ""]


def _stem(fixed: Graph, node: Node) -> str:
    """The float network's name for a weight, which `quant.edit` has put /q behind."""
    return re.sub(r"/q(_\d+)?$", "", _weight(fixed, node).name)


def _entry(name: str, low: Array, high: Array, tensor: Tensor, data: Array | None = None) -> dict[str, Any]:
    if not low.size:
        raise UserError("holds no range", stage=STAGE, node=f"'{tensor.name}'", remedy="calibrate the network again")
    entry = {"name": name, "min": low.tolist(), "max": high.tolist(), "bit": tensor.dtype.bits}
    return entry if data is None else {**entry, "data": data}


def json_text(entries: Sequence[Mapping[str, Any]]) -> str:
    """Entries as JSON, indent 4, every list on one line."""
    parts = []
    for entry in entries:
        plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in entry.items()}
        lines = [f"        {json.dumps(key)}: {json.dumps(value)}" for key, value in plain.items()]
        parts.append("    {\n" + ",\n".join(lines) + "\n    }")
    return "[\n" + ",\n".join(parts) + "\n]\n"


def pickle_bytes(entries: Sequence[Mapping[str, Any]]) -> bytes:
    """Entries as a pickle of plain containers and numpy arrays."""
    return pickle.dumps([dict(entry) for entry in entries], protocol=4)
