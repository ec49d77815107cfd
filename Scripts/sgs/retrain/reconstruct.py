"""One block of a quantised network retrained: its results brought nearer to those of the float network.

What the block reads is what the quantised network in front of it makes, what is wanted of it is what the float network
makes. The error is relative to the variance of each result. Adam (Kingma and Ba 2015) with a rate that falls along a
cosine; what is kept are the parameters with which the samples that judge came nearest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sgs.retrain.blocks import Block
from sgs.retrain.learned import LearnedMac, Range
from sgs.retrain.program import Program
from sgs.retrain.values import Values

MINIBATCH = 8  # samples of one step
LOOKS = 8  # at the samples that judge, while a block is trained
CODES, GROWTH, BIAS, ENDS = 1e-3, 1e-3, 1e-3, 1e-3  # steps of Adam: in codes, in log, in units of the bias, in log
REAL, CODED = "float", "quantised"  # sides of the network that a value is of


@dataclass(frozen=True)
class Plan:
    """How many samples are fitted to; how many there are, the others judge; how many are looked at together; `seed` of
    their order."""

    fitted: int
    samples: int
    batch: int
    iterations: int
    seed: int


class Reconstruction:
    """A block, float and quantised, on values that lie ready."""

    def __init__(
        self,
        block: Block,
        programs: tuple[Program, Program],
        macs: Mapping[str, LearnedMac],
        ranges: Sequence[Range],
        values: Values,
        plan: Plan,
        device: torch.device,
    ) -> None:
        self._block, self._macs, self._ranges = block, macs, ranges
        self._real, self._coded = programs
        self._values, self._plan, self._device = values, plan, device

    # -- running -------------------------------------------------------------------------------------------------------
    def want(self) -> None:
        """Find what the float block makes of all samples."""
        self._run(self._real, REAL)
        self._power = [self._variance(name) for name in self._block.results]

    def publish(self) -> None:
        """Find what the quantised block makes of all samples."""
        self._run(self._coded, CODED)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _run(self, program: Program, side: str) -> None:
        macs = self._macs if side == CODED else {}
        for rows in self._batches(range(self._plan.samples)):
            results = program(self._given(side, rows), macs)
            for name, value in zip(self._block.results, results, strict=True):
                self._values.put(f"{side}/{name}", rows[0], value, self._plan.samples)

    def _given(self, side: str, rows: Sequence[int]) -> dict[str, Tensor]:
        return {name: self._values.rows(f"{side}/{name}", rows, self._device) for name in self._block.operands}

    def _batches(self, samples: range) -> Iterator[list[int]]:
        for first in range(samples.start, samples.stop, self._plan.batch):
            yield list(range(first, min(first + self._plan.batch, samples.stop)))

    def _variance(self, name: str) -> float:
        """Of a wanted result over the samples that are fitted to."""
        total, square, count = 0.0, 0.0, 0
        for rows in self._batches(range(self._plan.fitted)):
            value = self._values.rows(f"{REAL}/{name}", rows, self._device).double()
            total, square = total + float(value.sum()), square + float((value**2).sum())
            count += value.numel()
        return max(square / count - (total / count) ** 2, 1e-12)

    def _error(self, rows: Sequence[int]) -> Tensor:
        """Mean over results and samples of the squared error over the variance."""
        found = self._coded(self._given(CODED, rows), self._macs)
        errors = []
        for name, value, power in zip(self._block.results, found, self._power, strict=True):
            if value.is_floating_point():
                wanted = self._values.rows(f"{REAL}/{name}", rows, self._device)
                errors.append(((value - wanted) ** 2).mean() / power)
        return torch.stack(errors).mean() if errors else torch.zeros(())

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def judged(self) -> float:
        """The error on the samples that judge."""
        samples = range(self._plan.fitted, self._plan.samples)
        return sum(float(self._error(rows)) * len(rows) for rows in self._batches(samples)) / len(samples)

    # -- training ------------------------------------------------------------------------------------------------------
    def train(self) -> tuple[float, float]:
        """Learn; the error on the samples that judge before and behind, which is never larger. Nothing is learned where
        no gradient leads from the results, such as places of the largest."""
        groups = self._groups()
        optimiser = torch.optim.Adam([{"params": tensors, "lr": rate} for tensors, rate in groups if tensors])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._fall)
        order = torch.Generator().manual_seed(self._plan.seed)
        before = least = self.judged()
        learned = [tensor for tensors, _ in groups for tensor in tensors]
        best = [tensor.detach().clone() for tensor in learned]
        iterations, looks = self._plan.iterations, max(1, self._plan.iterations // LOOKS)
        for iteration in range(iterations):
            for rows in torch.randperm(self._plan.fitted, generator=order).split(self._step()):
                error = self._error(rows.tolist())
                if not error.requires_grad:
                    return before, before
                optimiser.zero_grad()
                error.backward()
                optimiser.step()
                schedule.step()
            if (iteration + 1) % looks == 0 or iteration + 1 == iterations:
                found = self.judged()
                if found < least:
                    least, best = found, [tensor.detach().clone() for tensor in learned]
        with torch.no_grad():
            for tensor, value in zip(learned, best, strict=True):
                tensor.copy_(value)
        return before, least

    def _groups(self) -> list[tuple[list[Tensor], float]]:
        """What is learned, with its rate."""
        parameters = [mac.parameters for mac in self._macs.values()]
        groups = [
            ([p.codes for p in parameters], CODES),
            ([p.growth for p in parameters], GROWTH),
            ([p.bias for p in parameters], BIAS),
            ([span.logs for span in self._ranges], ENDS),
        ]
        return [([tensor for tensor in tensors if tensor.requires_grad], rate) for tensors, rate in groups]

    def _step(self) -> int:
        return min(MINIBATCH, self._plan.batch)

    def _fall(self, step: int) -> float:
        steps = self._plan.iterations * math.ceil(self._plan.fitted / self._step())
        return 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
