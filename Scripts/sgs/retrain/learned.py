"""Sums of products whose weights, biases and ranges are learned, seen as what their codes stand for.

Rounding passes gradients straight through (Bengio et al. 2013, Estimating or Propagating Gradients Through Stochastic
Neurons); clamped values pass none, but move the ends of the range (Esser et al. 2020, Learned Step Size Quantization,
with an offset as in Bhalgat et al. 2020, LSQ+). A weight starts where the float network has it, as far as it still
rounds to the code that it has: so those between two codes change them first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgs.ir import Graph, Node
from sgs.numeric.quantise import QuantParams, symmetric_params
from sgs.quant.edit import WEIGHT_TYPE, bias_values
from sgs.quant.plan import MacChoice
from sgs.registry import QUANTISE

_LAST = 255  # of the codes of UINT8
_INSIDE = 0.49  # of a code, that a weight may start away from it


class _Coded(torch.autograd.Function):  # type: ignore[misc]
    """Values as the nearest UINT8 codes between two ends stand for them; elementwise, ends are scalars."""

    @staticmethod
    def forward(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        scale = (high - low) / _LAST
        zero = torch.round(-low / scale)
        return (x / scale).round_().add_(zero).clamp_(0, _LAST).sub_(zero).mul_(scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, low, high, coded = ctx.saved_tensors
        scale = (high - low) / _LAST
        zero = torch.round(-low / scale)
        below, above = x < -zero * scale, x > (_LAST - zero) * scale
        inside = grad.masked_fill(below | above, 0)
        ends: list[Tensor | None] = [None, None]
        if ctx.needs_input_grad[1]:
            step = (inside * (coded - x)).sum() / (high - low)
            ends = [(grad * below).sum() - step, (grad * above).sum() + step]
        return inside, *ends

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int | None]:
        return _Coded.apply(*inputs), in_dims[0]


class Range:
    """The range of an activation in UINT8: its ends, each a learned factor times what it was."""

    def __init__(self, params: QuantParams, device: torch.device, *, learned: bool) -> None:
        scale, zero = float(params.scale[0]), int(params.zero_point[0])
        ends = [-zero * scale, (_LAST - zero) * scale]
        self._ends = torch.tensor(ends, dtype=torch.float32, device=device)
        self.logs = torch.zeros_like(self._ends, requires_grad=learned)

    def ends(self) -> Tensor:
        return self._ends * torch.exp(self.logs)

    def __call__(self, value: Tensor) -> Tensor:
        low, high = self.ends()
        return _Coded.apply(value, low, high)


@dataclass(frozen=True, eq=False)
class Parameters:
    """What is learned of one sum of products: weights in codes, log of what each code's value grows by, and bias in
    units of its own."""

    codes: Tensor
    growth: Tensor
    bias: Tensor


class LearnedMac:
    """A `program.Quantiser`: one sum of products of a prepared graph, from the choice that it has; `span` is the range
    of its operand, None where that is in 16 bits. Weights in 16 bits stay, and all do where `still`; what a code stands
    for is learned with `scales`."""

    def __init__(
        self,
        prepared: Graph,
        node: Node,
        choice: MacChoice,
        span: Range | None,
        device: torch.device,
        *,
        still: bool = False,
        scales: bool = False,
    ) -> None:
        rule = QUANTISE[node.op]
        own = prepared[node.inputs[rule.weight] or ""].data
        assert own is not None
        held = own if choice.weight is None else choice.weight
        kind, axis = WEIGHT_TYPE[choice.bits], rule.channel_axis
        scale, _ = symmetric_params(choice.weight_bound, kind, axis).shaped(own.ndim)
        codes = np.clip(np.rint(held / scale), -kind.qmax, kind.qmax)
        fixed = still or choice.bits == 16
        start = codes if fixed else np.clip(own / scale, codes - _INSIDE, codes + _INSIDE)
        bias = bias_values(prepared, node, choice)

        def on_device(values: np.ndarray) -> Tensor:
            return torch.tensor(np.asarray(values, np.float32), device=device)

        self._choice, self._most, self._span = choice, kind.qmax, span
        self._scale, self._bias = on_device(scale), on_device(bias)
        self._unit = self._bias.abs().mean().clamp(min=1e-6)
        self.parameters = Parameters(
            on_device(start).requires_grad_(not fixed),
            torch.zeros_like(self._scale).requires_grad_(scales and not fixed),
            torch.zeros_like(self._bias).requires_grad_(),
        )

    def operand(self, value: Tensor) -> Tensor:
        return value if self._span is None else self._span(value)

    def weight(self) -> Tensor:
        codes = self.parameters.codes
        rounded = codes + (codes.round() - codes).detach()
        return rounded.clamp(-self._most, self._most) * self._steps()

    def bias(self) -> Tensor:
        return self._bias + self.parameters.bias * self._unit

    def _steps(self) -> Tensor:
        """Real value of one weight code, broadcastable to the weight."""
        return self._scale * torch.exp(self.parameters.growth)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def choice(self) -> MacChoice:
        """What has been learned."""
        bias = self.bias().cpu().numpy().astype(np.float64)
        if not self.parameters.codes.requires_grad:
            return MacChoice(self._choice.bits, self._choice.weight_bound, None, self._choice.weight, bias)
        bound = self._steps().cpu().numpy().astype(np.float64).reshape(-1) * self._most
        bound[self._choice.weight_bound <= 0] = 0  # a channel of zeros
        return MacChoice(self._choice.bits, bound, None, self.weight().cpu().numpy(), bias)
