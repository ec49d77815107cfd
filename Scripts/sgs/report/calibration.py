"""What a calibration did to every layer: in short for the terminal, in full as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from sgs.config.nearest import listing
from sgs.quant.layers import SAMPLES, Layer
from sgs.quant.traps import Finding

WORST = 10  # layers in the table
NAME, OPERATOR = 32, 17  # characters
_COLUMNS = f"{{:<{NAME}}} {{:<{OPERATOR}}} {{:>4}}  {{:<13.13}} {{:>6}} {{:>6}} {{:>6}} {{:>6}}"
_HEADER = ("layer", "operator", "bits", "range by", "alone", "so far", "16 bit", "MACs")


def table(layers: Sequence[Layer], outputs: Sequence[str]) -> str:
    """The worst layers, one a line of at most 100 characters, and the outputs; empty where nothing was measured.

    The worst are those that would gain the outputs most in 16 bits where that was measured, else those with the least
    signal to noise alone.
    """
    judged = [layer for layer in layers if layer.alone is not None]
    if not judged:
        return ""
    gains = {layer.name: layer.gain for layer in layers if layer.gain is not None}
    if gains:
        title = "what 16 bit would gain the outputs"
        judged = sorted((layer for layer in layers if layer.name in gains), key=lambda layer: -gains[layer.name])
    else:
        title = "signal to noise alone"
        judged.sort(key=lambda layer: layer.alone or 0.0)
    worst = judged[:WORST]
    lines = [f"worst {len(worst)} of {len(layers)} layers by {title}, in dB on at most {SAMPLES} samples:"]
    lines += [_COLUMNS.format(*_HEADER), *(_row(layer) for layer in worst)]
    found = {layer.name: layer.accumulated for layer in layers}
    told = [f"{short(name)} {_number(found[name])}" for name in outputs if found.get(name) is not None]
    heard = f"outputs: {listing(told, 3)}; " if told else ""
    lines.append(f"{heard}{_int16_share(layers):.1%} of the multiply-accumulates in 16 bit")
    return "\n".join(line.rstrip() for line in lines)


def _row(layer: Layer) -> str:
    gain = "" if layer.gain is None else f"+{layer.gain:.2f}"
    macs = f"{layer.macs:.1%}" if layer.macs else ""
    measures = (_number(layer.alone), _number(layer.accumulated), gain, macs)
    operator = layer.operator if len(layer.operator) <= OPERATOR else f"{layer.operator[: OPERATOR - 1]}…"
    return _COLUMNS.format(short(layer.name), operator, layer.bits, layer.operand_method or layer.method, *measures)


def _int16_share(layers: Sequence[Layer]) -> float:
    return sum(layer.macs for layer in layers if layer.bits == 16)


def _number(decibels: float | None) -> str:
    return "-" if decibels is None else f"{decibels:.1f}"


def short(name: str) -> str:
    """A tensor's name in at most NAME characters: without what exporters write twice (/a/a.1/a.1.0/x_output_0 is
    a.1.0/x), of operators that TFLite fused (a;b;c) the last one, which it names first, else its end, which tells names
    apart.
    """
    parts = name.split(";")[0].removesuffix("_output_0").strip("/").split("/")
    kept = [a for a, b in pairwise([*parts, ""]) if not b.startswith(f"{a}.")]
    text = "/".join(kept)
    return text if len(text) <= NAME else f"…{text[1 - NAME :]}"


def record(
    layers: Sequence[Layer], findings: Sequence[Finding], outputs: Sequence[str], calibration: Mapping[str, Any]
) -> str:
    """All layers and findings as JSON text, indent 1. `calibration` is how the plan came about, as in the fixed .sim;
    decibels are null where nothing was measured, or where a tensor is zero.
    """
    accumulated = {layer.name: layer.accumulated for layer in layers}
    return json.dumps(
        {
            "calibration": dict(calibration),
            "outputs": {name: accumulated.get(name) for name in outputs},
            "int16_macs": _int16_share(layers),
            "findings": [asdict(finding) for finding in findings],
            "layers": [asdict(layer) for layer in layers],
        },
        indent=1,
    )
