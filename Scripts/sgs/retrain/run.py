"""Retrain a quantised network block by block, from the front to the back."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sgs.data.files import make_folder, write_result
from sgs.errors import UserError
from sgs.ir import Node
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.quant.edit import build_groups, mac_nodes
from sgs.quant.levels import Calibration
from sgs.quant.plan import QuantPlan, TensorRange
from sgs.quant.plan_file import parse_plan
from sgs.quant.statistics_file import digest
from sgs.retrain.blocks import Block, blocks_of
from sgs.retrain.device import device_of
from sgs.retrain.learned import LearnedMac, Range
from sgs.retrain.program import Program
from sgs.retrain.reconstruct import CODED, REAL, Plan, Reconstruction
from sgs.retrain.settings import Settings
from sgs.retrain.values import Values

_log = logging.getLogger(__name__)
LEARNED = "learned"  # method of a range
ELEMENTS = 1 << 25  # of the values of a block that are looked at together


def retrained(calibration: Calibration, plan: QuantPlan, settings: Settings) -> QuantPlan:
    """The plan with weights, biases and ranges of its sums of products learned, each block's only where its results
    came nearer to those of the float network. Blocks without 4- or 8-bit sums stay.

    Raises UserError for a device that is not there.
    """
    device = device_of(settings.device)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    work = _Retraining(calibration, plan, settings, device)
    for number, block in enumerate(settings.wrap(work.blocks, "retraining")):
        plan = work.pass_block(number, block, plan)
    return plan


class _Retraining:
    """A network and the samples on their way through its blocks, with the plan that the retraining starts from."""

    def __init__(self, calibration: Calibration, plan: QuantPlan, settings: Settings, device: torch.device) -> None:
        network = calibration.network(plan)
        self._graph, self._prepared, self._core = network.graph, network.prepared, calibration.fixed(plan)
        self._settings, self._device = settings, device
        self._sums = {node.outputs[0]: node for node in mac_nodes(self._prepared)}
        self._coded = {node.outputs[0]: node for node in mac_nodes(self._core)}
        self._groups = build_groups(self._prepared)
        self._fixed_ranges = {*settings.pinned, *calibration.pixels, *self._graph.inputs}
        self.blocks = blocks_of(self._graph, self._sums)
        self._last = {name: k for k, block in enumerate(self.blocks) for name in block.operands}
        samples = [*calibration.fitted, *calibration.judges]
        self._fitted, self._samples = len(calibration.fitted), len(samples)
        self._values = Values()
        for row, sample in enumerate(samples):
            for name in self._graph.inputs:
                value = torch.from_numpy(np.array(sample[name], order="C"))[None]
                for side in (REAL, CODED):
                    self._values.put(f"{side}/{name}", row, value, self._samples)
        self._state = _State.of(settings, plan, samples)

    def pass_block(self, number: int, block: Block, plan: QuantPlan) -> QuantPlan:
        """The plan with one block retrained, as far as that helps, and the values behind the block."""
        known = self._state.recall(number)
        if known is not None:
            plan = _with_changes(plan, known)
        macs, spans = self._macs(block, plan)
        work = Reconstruction(
            block, self._programs(block), macs, list(spans.values()), self._values, self._plan(block), self._device
        )
        work.want()
        if known is None and any(plan.macs[name].bits < 16 for name in block.macs):
            before, after = work.train()
            _log.info("block %d (%s): error %.3g, retrained %.3g", number + 1, ", ".join(block.macs), before, after)
            changed = self._changes(plan, macs, spans) if after < before else QuantPlan()
            self._state.keep(number, changed)
            plan = _with_changes(plan, changed)
        work.publish()
        done = [name for name in (*block.operands, *block.results) if self._last.get(name, number) == number]
        for name in dict.fromkeys(done):
            for side in (REAL, CODED):
                self._values.drop(f"{side}/{name}")
        return plan

    def _plan(self, block: Block) -> Plan:
        size = sum(tensor.elements for node in block.nodes for tensor in self._graph.results(node))
        batch = max(1, min(self._settings.batch, ELEMENTS // max(1, size)))
        return Plan(self._fitted, self._samples, batch, self._settings.iterations, self._settings.seed)

    def _programs(self, block: Block) -> tuple[Program, Program]:
        quantised = frozenset(block.macs)
        real = Program(self._graph, block.nodes, block.results, self._device)
        return real, Program(self._graph, block.nodes, block.results, self._device, quantised=quantised)

    def _macs(self, block: Block, plan: QuantPlan) -> tuple[dict[str, LearnedMac], dict[str, Range]]:
        """The sums of products of a block, and the ranges that are learned with them, by operand of the fixed graph."""
        macs, spans = {}, dict[str, Range]()
        for name in block.macs:
            node, operand = self._sums[name], self._core[self._coded[name].inputs[0] or ""]
            span = None
            if operand.dtype is DType.UINT8:
                assert operand.quant is not None
                if operand.name not in spans:
                    learned = self._is_learned(node, operand.name, block)
                    spans[operand.name] = Range(operand.quant, self._device, learned=learned)
                span = spans[operand.name]
            still = f"{name}/weight" in self._settings.pinned
            macs[name] = LearnedMac(
                self._prepared, node, plan.macs[name], span, self._device, still=still, scales=self._settings.scales
            )
        return macs, spans

    def _is_learned(self, node: Node, operand: str, block: Block) -> bool:
        """Whether the range of an operand is a matter of this block alone."""
        members = self._members(node.inputs[0] or "", operand)
        readers = [name for name, other in self._coded.items() if other.inputs[0] == operand]
        alone = set(readers) <= set(block.macs)
        return self._settings.scales and alone and self._fixed_ranges.isdisjoint(members)

    def _members(self, name: str, operand: str) -> list[str]:
        """Activations that share the range of an operand of the fixed graph: those that moving operators tie to it,
        unless it is converted for its reader alone."""
        return list(self._groups[name].members) if operand == name else [name]

    def _changes(self, plan: QuantPlan, macs: Mapping[str, LearnedMac], spans: Mapping[str, Range]) -> QuantPlan:
        """What a block has learned, as the part of a plan that is new."""
        narrow = dict[str, TensorRange]()
        for name in macs:
            source, operand = self._sums[name].inputs[0] or "", self._coded[name].inputs[0] or ""
            if operand in spans and spans[operand].logs.requires_grad:
                low, high = (float(end) for end in spans[operand].ends().detach().cpu())
                for member in self._members(source, operand):
                    narrow[member] = _within(plan, member, low, high)
                narrow[source] = TensorRange(low, high, LEARNED)
        return QuantPlan(narrow=narrow, macs={name: mac.choice() for name, mac in macs.items()})


def _within(plan: QuantPlan, name: str, low: float, high: float) -> TensorRange:
    """The range of a tensor that shares one between those ends."""
    own = plan.range_of(name, narrow=True)
    return TensorRange(max(own.low, low), min(own.high, high), LEARNED)


def _with_changes(plan: QuantPlan, changed: QuantPlan) -> QuantPlan:
    return replace(plan, narrow={**plan.narrow, **changed.narrow}, macs={**plan.macs, **changed.macs})


@dataclass(frozen=True)
class _State:
    """What blocks have learned, in files of a folder (None: nowhere) that are of use to a retraining of the same key
    only."""

    folder: Path | None
    key: str

    @staticmethod
    def of(settings: Settings, plan: QuantPlan, samples: Iterable[Mapping[str, Array]]) -> _State:
        if settings.folder is None:
            return _State(None, "")
        told = (
            settings.iterations,
            settings.scales,
            settings.seed,
            settings.batch,
            sorted(settings.pinned),
            plan.to_json(),
        )
        arrays = (np.ascontiguousarray(sample[name]).tobytes() for sample in samples for name in sample)
        return _State(settings.folder, digest([repr(told).encode(), *arrays]))

    def keep(self, number: int, changed: QuantPlan) -> None:
        if self.folder is not None:
            record = {"key": self.key, "plan": json.loads(changed.to_json())}
            write_result(make_folder(self.folder) / f"{self.key}_{number}.json", json.dumps(record).encode())

    def recall(self, number: int) -> QuantPlan | None:
        """What a block has learned in an earlier run; None where that is not known, with a warning for a file that
        cannot be read."""
        file = None if self.folder is None else self.folder / f"{self.key}_{number}.json"
        if file is None or not file.exists():
            return None
        try:
            record = json.loads(file.read_bytes())
            return parse_plan(record["plan"], file=file) if record["key"] == self.key else None
        except (OSError, ValueError, TypeError, KeyError, UserError) as error:
            _log.warning("%s: cannot be read (%s); the block is retrained again", file, error)
            return None
