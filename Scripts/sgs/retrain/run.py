"""Retrain a quantised network block by block, from the front to the back."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from sgs.data.files import make_folder, write_result
from sgs.errors import UserError
from sgs.ir import Tensor
from sgs.numeric.types import DType
from sgs.quant.edit import build_groups, mac_nodes
from sgs.quant.levels import Calibration
from sgs.quant.plan import QuantPlan, TensorRange
from sgs.quant.plan_file import parse_plan
from sgs.quant.statistics_file import digest, network_hash
from sgs.retrain.blocks import Block, blocks_of
from sgs.retrain.device import device_of, repeatable
from sgs.retrain.learned import LearnedMac, Range
from sgs.retrain.program import Program
from sgs.retrain.reconstruct import CODED, REAL, Plan, Reconstruction
from sgs.retrain.settings import Settings
from sgs.retrain.values import Values

_log = logging.getLogger(__name__)
_FORMAT = "retraining 1"  # changes with what is learned
LEARNED = "learned"  # method of a range
ELEMENTS = 1 << 25  # of the values of a block that are looked at together


def retrained(calibration: Calibration, plan: QuantPlan, settings: Settings) -> QuantPlan:
    """The plan with weights, biases and ranges of its sums of products learned, each block's only where its results
    came nearer to those of the float network. Blocks without 4- or 8-bit sums stay.

    Raises UserError for a device that is not there, or has too little memory.
    """
    device = device_of(settings.device)
    if all(mac.bits == 16 for mac in plan.macs.values()):
        return plan
    title = "retraining with scales" if settings.scales else "retraining"
    with repeatable(), torch.enable_grad():
        try:
            work = _Retraining(calibration, plan, settings, device)
            for number, block in enumerate(settings.wrap(work.blocks, title)):
                plan = work.pass_block(number, block, plan)
        except torch.OutOfMemoryError as error:
            reason, remedy = str(error).partition(". ")[0], "give a smaller --cal_batchsize, or write device: cpu"
            raise UserError(reason, stage="retraining", remedy=remedy) from error
    return plan


@dataclass(frozen=True, eq=False)
class _Quantisers:
    """Of a block's sums of products: by their results, those and the activations that share the range of their operand,
    in 8 bits; by the first of these their range."""

    macs: dict[str, LearnedMac] = field(default_factory=dict)
    tied: dict[str, list[str]] = field(default_factory=dict)
    spans: dict[str, Range] = field(default_factory=dict)


class _Retraining:
    """A network and the samples on their way through its blocks, with the plan that the retraining starts from."""

    def __init__(self, calibration: Calibration, plan: QuantPlan, settings: Settings, device: torch.device) -> None:
        network = calibration.network(plan)
        self._calibration, self._prepared = calibration, network.prepared
        self._graph = network.graph.copy()
        self._graph.prune()  # what is judged is where retraining ends
        self._settings, self._device = settings, device
        self._sums = {node.outputs[0]: node for node in mac_nodes(self._prepared)}
        self._groups = build_groups(self._prepared)
        constants = [tensor.name for tensor in self._prepared.tensors.values() if tensor.is_constant]
        given = [*self._graph.inputs, *calibration.pixels, *calibration.ports.byte_results, *constants]
        self._fixed_ranges = settings.pinned.union(given)
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
        self._state = _State.of(calibration, plan, settings)

    def pass_block(self, number: int, block: Block, plan: QuantPlan) -> QuantPlan:
        """The plan with one block retrained, as far as that helps, and the values behind the block."""
        programs, known = self._programs(block), self._state.recall(number)
        if known is not None:
            plan = _with_changes(plan, known)
        quantisers = self._quantisers(block, plan)
        work = self._reconstruction(block, programs, quantisers)
        work.want()
        if known is None and any(plan.macs[name].bits < 16 for name in block.macs):
            before, after = work.train()
            _log.info("block %d (%s): error %.3g, retrained %.3g", number + 1, ", ".join(block.macs), before, after)
            known = self._changes(plan, quantisers) if after < before else QuantPlan()
            self._state.keep(number, known)
            plan = _with_changes(plan, known)
            # from the plan, as a later call goes on from it
            work = self._reconstruction(block, programs, self._quantisers(block, plan))
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

    def _reconstruction(
        self, block: Block, programs: tuple[Program, Program], quantisers: _Quantisers
    ) -> Reconstruction:
        spans, plan = list(quantisers.spans.values()), self._plan(block)
        return Reconstruction(block, programs, quantisers.macs, spans, self._values, plan, self._device)

    def _quantisers(self, block: Block, plan: QuantPlan) -> _Quantisers:
        core, found = self._calibration.fixed(plan), _Quantisers()
        read = {node.outputs[0]: node.inputs[0] or "" for node in mac_nodes(core)}
        for name in block.macs:
            node, operand = self._sums[name], core[read[name]]
            span = None
            if operand.dtype is DType.UINT8:
                tied = found.tied[name] = self._tied(node.inputs[0] or "", operand.name)
                if tied[0] not in found.spans:
                    found.spans[tied[0]] = self._range(tied, operand, block, read)
                span = found.spans[tied[0]]
            still = f"{name}/weight" in self._settings.pinned
            found.macs[name] = LearnedMac(
                self._prepared, node, plan.macs[name], span, self._device, still=still, scales=self._settings.scales
            )
        return found

    def _range(self, tied: Sequence[str], operand: Tensor, block: Block, read: Mapping[str, str]) -> Range:
        """The range of an operand of the fixed graph and the activations `tied` to it, learned where that is asked for
        and a matter of this block alone; `read` names the operands of all sums of products."""
        own = tied if operand.name in tied else [operand.name]  # what has these codes
        elsewhere = any(x in own and name not in block.macs for name, x in read.items())
        learned = self._settings.scales and not elsewhere and self._fixed_ranges.isdisjoint(tied)
        assert operand.quant is not None
        return Range(operand.quant, self._device, learned=learned)

    def _tied(self, name: str, operand: str) -> list[str]:
        """Activations that share the range of an operand of the fixed graph: those that moving operators tie to it,
        unless it is converted for its reader alone."""
        return list(self._groups[name].members) if operand == name else [name]

    def _changes(self, plan: QuantPlan, quantisers: _Quantisers) -> QuantPlan:
        """What a block has learned, as the part of a plan that is new."""
        narrow = dict[str, TensorRange]()
        for name, tied in quantisers.tied.items():
            span = quantisers.spans[tied[0]]
            if span.logs.requires_grad:
                low, high = (float(end) for end in span.ends().detach().cpu())
                for member in tied:
                    narrow.setdefault(member, _within(plan, member, low, high))
                narrow[self._sums[name].inputs[0] or ""] = TensorRange(low, high, LEARNED)
        return QuantPlan(narrow=narrow, macs={name: mac.choice() for name, mac in quantisers.macs.items()})


def _within(plan: QuantPlan, name: str, low: float, high: float) -> TensorRange:
    """The range of a tensor, widened to contain 0, that shares one between those ends, which contain 0."""
    own = plan.range_of(name, narrow=True)
    return TensorRange(max(min(own.low, 0.0), low), min(max(own.high, 0.0), high), LEARNED)


def _with_changes(plan: QuantPlan, changed: QuantPlan) -> QuantPlan:
    return replace(plan, narrow={**plan.narrow, **changed.narrow}, macs={**plan.macs, **changed.macs})


@dataclass(frozen=True)
class _State:
    """What blocks have learned, in files of a folder (None: nowhere) whose names tell the `key` of the retraining that
    they are of use to."""

    folder: Path | None
    key: str

    @staticmethod
    def of(calibration: Calibration, plan: QuantPlan, settings: Settings) -> _State:
        if settings.folder is None:
            return _State(None, "")
        parts, inputs = (calibration.fitted, calibration.judges), calibration.float_graph.inputs
        arrays = (sample[name].tobytes() for part in parts for sample in part for name in inputs)
        asked = (settings.iterations, settings.scales, settings.seed, settings.batch, sorted(settings.pinned))
        counts, network = [len(part) for part in parts], network_hash(calibration.float_graph)
        told = (_FORMAT, network, plan.to_json(), repr((asked, counts)))
        return _State(settings.folder, digest([*(text.encode() for text in told), *arrays]))

    def keep(self, number: int, changed: QuantPlan) -> None:
        if self.folder is not None:
            write_result(make_folder(self.folder) / f"{self.key}_{number}.json", changed.to_json().encode())

    def recall(self, number: int) -> QuantPlan | None:
        """What a block has learned in an earlier run; None where that is not known, with a warning for a file that
        cannot be read."""
        file = None if self.folder is None else self.folder / f"{self.key}_{number}.json"
        if file is None or not file.exists():
            return None
        try:
            return parse_plan(json.loads(file.read_bytes()), file=file)
        except (OSError, ValueError, RecursionError, UserError) as error:
            _log.warning("%s: cannot be read (%s); the block is retrained again", file, error)
            return None
