"""Mixed precision: what each sum of products does to the outputs in either of two precisions, and plans that mix them.

Sensitivities are measured once (`measure`) and kept in a file; which sums of products get the higher precision at a
given size is then looked up (`quant.front`), and `with_bits` makes the plan of such a choice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sgs.config.input_config import ConvSpec
from sgs.data.files import write_result
from sgs.ir import Graph
from sgs.quant.edit import mac_nodes
from sgs.quant.forced import forced_bits
from sgs.quant.front import Front, Size, sizes_of
from sgs.quant.gather import Wrap, plain
from sgs.quant.levels import Calibration, weight_bound
from sgs.quant.plan import PRECISIONS, MacChoice, QuantPlan
from sgs.quant.plan_file import is_number
from sgs.quant.presets import Presets
from sgs.quant.statistics_file import digest, network_hash

_log = logging.getLogger(__name__)
_FORMAT = "sensitivities 1"  # changes with what is measured


@dataclass(frozen=True)
class Sensitivities:
    """Result of every sum of products → bits → relative error energy at the outputs when it alone is in so many, its
    mean right. `key` tells what they were measured on."""

    key: str
    errors: Mapping[str, Mapping[int, float]]

    def to_json(self) -> str:
        """As JSON text, indent 1. Every number comes back from it as it is."""
        errors = {name: {str(bits): error for bits, error in table.items()} for name, table in self.errors.items()}
        return json.dumps({"format": _FORMAT, "key": self.key, "errors": errors}, indent=1)

    @staticmethod
    def from_json(text: str | bytes) -> Sensitivities:
        """Inverse of `to_json`. Raises ValueError saying what is wrong with the text."""
        record = json.loads(text)
        if not isinstance(record, dict) or record.get("format") != _FORMAT:
            raise ValueError(f"is no file of {_FORMAT}")
        key, errors = record.get("key"), record.get("errors")
        if not isinstance(key, str) or not isinstance(errors, dict):
            raise ValueError("lacks 'key' or 'errors'")
        return Sensitivities(key, {name: _errors(name, table) for name, table in errors.items()})


def _errors(name: str, table: Any) -> dict[int, float]:
    known = {str(bits): bits for bits in PRECISIONS}
    if not isinstance(table, dict) or not table.keys() <= known.keys():
        raise ValueError(f"'{name}' has no table of errors by bits")
    if not all(is_number(error) and error >= 0 for error in table.values()):
        raise ValueError(f"'{name}' has an error that is no number from 0 on")
    return {known[bits]: float(error) for bits, error in table.items()}


def measure(
    calibration: Calibration,
    plan: QuantPlan,
    pair: tuple[int, int],
    *,
    file: Path | None = None,
    wrap: Wrap = plain,
) -> Sensitivities:
    """What every sum of products does in the precisions of the pair, and in those that the plan has: weights of 4 and 8
    bits at bounds of least squared error, where the plan has no others for them, operands in the ranges of the plan. In
    16 bits they do nothing. They are taken from `file` where it holds the same, else left there."""
    key = _key(calibration, plan, pair)
    widths = {16, *pair, *(mac.bits for mac in plan.macs.values())}
    found = None if file is None else _recalled(file, key, dict.fromkeys(plan.macs, widths))
    if found is not None:
        return found
    found = Sensitivities(key, _measured(calibration, plan, widths, wrap))
    if file is not None:
        write_result(file, found.to_json().encode())
    return found


def _measured(calibration: Calibration, plan: QuantPlan, widths: set[int], wrap: Wrap) -> dict[str, dict[int, float]]:
    refitted = {name: mac.bits for name, mac in plan.macs.items() if mac.weight is not None}
    plan = _anew(calibration, plan, refitted)  # weights fitted to what comes before them say nothing alone
    errors: dict[str, dict[int, float]] = {name: {16: 0.0} for name in plan.macs}
    for bits in sorted(widths - {16}):
        trial = _changed(calibration, plan, dict.fromkeys(errors, bits))
        found = calibration.measure_sensitivities(trial, wrap=wrap, title=f"sensitivities, {bits} bit")
        for name, error in found.items():
            errors[name][bits] = error
    return errors


def _key(calibration: Calibration, plan: QuantPlan, pair: tuple[int, int]) -> str:
    """A digest of network, samples, plan and pair."""
    samples = (sample[name].tobytes() for sample in calibration.samples for name in calibration.float_graph.inputs)
    settings = (_FORMAT, str(pair), network_hash(calibration.float_graph), plan.to_json())
    return digest([*(text.encode() for text in settings), *samples])


def _recalled(file: Path, key: str, wanted: Mapping[str, set[int]]) -> Sensitivities | None:
    """What the file holds, if it is of that key; a warning where it is damaged, or lacks some of what is `wanted`."""
    try:
        found = Sensitivities.from_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("%s: %s; sensitivities are measured again", file, error)
        return None
    if found.key != key:
        _log.info("%s: of another network, plan or samples; sensitivities are measured again", file)
        return None
    if {name: set(table) for name, table in found.errors.items()} != wanted:
        _log.warning("%s: has been edited; sensitivities are measured again", file)
        return None
    return found


# -- choices -----------------------------------------------------------------------------------------------------------
def pinned_bits(calibration: Calibration) -> dict[str, int]:
    """Sums of products whose precision is no matter of choice; see `given_bits`."""
    return given_bits(calibration.prepared, calibration.conv, calibration.presets)


def given_bits(prepared: Graph, conv: ConvSpec, presets: Presets) -> dict[str, int]:
    """Sums of products that presets give bits, or that [CONV_CONFIG] wants in 16."""
    forced = forced_bits(prepared, conv)
    return {**{name: bits for name, bits in forced.items() if bits == 16}, **presets.bits}


def check_rate(rate: float, pair: tuple[int, int], prepared: Graph, pinned: Mapping[str, int]) -> None:
    """Raise UserError for a rate that what is pinned makes impossible, whatever the sensitivities."""
    if sizes := sizes_of(prepared):
        Front(pair, sizes, dict.fromkeys(sizes, dict.fromkeys(PRECISIONS, 0.0)), pinned).at(rate)


def front(
    sensitivities: Sensitivities, sizes: Mapping[str, Size], pair: tuple[int, int], pinned: Mapping[str, int]
) -> Front:
    """The choices between the precisions of a pair for sums of products of such `sizes` (`front.sizes_of`)."""
    return Front(pair, dict(sizes), sensitivities.errors, dict(pinned))


def with_bits(calibration: Calibration, plan: QuantPlan, bits: Mapping[str, int]) -> QuantPlan:
    """The plan with these precisions, by result: where they differ from the plan's, the network's own weights at bounds
    found anew; all biases corrected for what comes of it, where that helps."""
    return calibration.with_best_biases(_changed(calibration, plan, bits))


def _changed(calibration: Calibration, plan: QuantPlan, bits: Mapping[str, int]) -> QuantPlan:
    """The plan with these precisions, no biases corrected."""
    return _anew(calibration, plan, {name: wanted for name, wanted in bits.items() if wanted != plan.macs[name].bits})


def _anew(calibration: Calibration, plan: QuantPlan, bits: Mapping[str, int]) -> QuantPlan:
    """The plan with these sums of products decided as if there had been nothing before but presets."""
    prepared, given = calibration.network(plan).prepared, calibration.presets.bounds
    nodes = {node.outputs[0]: node for node in mac_nodes(prepared)}

    def anew(name: str, wanted: int) -> MacChoice:
        bound = given[name] if name in given else weight_bound(prepared, nodes[name], wanted)
        return MacChoice(wanted, bound)

    macs = {name: anew(name, wanted) for name, wanted in bits.items()}
    return replace(plan, macs={**plan.macs, **macs})
