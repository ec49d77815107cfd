"""A part of a float graph as a function of torch tensors, with sums of products that may be quantised.

What an operator means is said once, by its FLOAT row: here the primitives that the row makes are recorded, and executed
by `kernels`. A sum of products that is to be quantised is lowered with the places of its weights in the place of their
values, so that whatever the row does to weights (it only moves them, and fills up with zeros) becomes a look-up in a
tensor that may change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from sgs.engine.lowering import SessionBuilder
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.registry import FLOAT, QUANTISE, Layout
from sgs.retrain.kernels import BY_SAMPLE, KERNELS

_DOMAIN = "sgs"
_OPERAND = "Operand"  # of a sum of products: what the caller makes of its value


class Quantiser(Protocol):
    """What becomes of the parts of one sum of products."""

    def operand(self, value: Tensor) -> Tensor:
        """The operand as its codes stand for it."""

    def weight(self) -> Tensor:
        """The weights in the order of the graph's constant, flat."""

    def bias(self) -> Tensor:
        """The bias, [O]."""


class _Recorder(SessionBuilder):
    """Records primitives; knows the operand of the sum of products that is being lowered."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.within: tuple[str, str] | None = None  # operand and result
        self._operands: dict[tuple[str, str, str, Layout], str] = {}

    def const(self, data: Array, *, shared: bool = True) -> str:
        """Numbers of places are nobody else's, even where the network has a constant of the same values."""
        return super().const(data, shared=shared and self.within is None)

    def _form(self, name: str, carrier: str, layout: Layout) -> str:
        value = super()._form(name, carrier, layout)
        if self.within is None or name != self.within[0]:
            return value
        key = (*self.within, carrier, layout)
        if key not in self._operands:
            self._operands[key] = str(self.op(_OPERAND, [value], domain=_DOMAIN, result=self.within[1]))
        return self._operands[key]


@dataclass(frozen=True, eq=False)
class _Places:
    """A constant that is made of the `part` "weight" or "bias" of a sum of products: where in it each of its elements
    lies, int64 of the constant's shape; zeros lie behind the last."""

    result: str
    part: str
    index: Tensor


@dataclass(frozen=True, eq=False)
class _Step:
    run: Callable[..., Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operand_of: str = ""


class Program:
    """`nodes` of a float graph, in order, from the activations they read to `results`, on a torch device.

    `quantised`: those of its sums of products (by their results) for which a `Quantiser` is given at every run. Values
    are float32 (or the tensor's own type) of the graph's shapes, with an axis of samples in front. `by_sample`: its
    samples are run one by one.
    """

    def __init__(
        self,
        graph: Graph,
        nodes: Sequence[Node],
        results: Sequence[str],
        device: torch.device,
        *,
        quantised: frozenset[str] = frozenset(),
    ) -> None:
        made = {name for node in nodes for name in node.outputs}
        read = dict.fromkeys(name for node in nodes for name in node.inputs if name is not None)
        self.operands = [name for name in read if name not in made and not graph[name].is_constant]
        self.results = list(results)
        model, numbering = _recorded(graph, nodes, self.operands, self.results, quantised)
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self._places = numbering.places(model, constants, device)
        self._constants = {
            name: torch.from_numpy(np.array(value)).to(device)
            for name, value in constants.items()
            if name not in self._places
        }
        self._steps = [_step(node, constants) for node in model.graph.node]
        self.by_sample = any(node.op_type in BY_SAMPLE for node in model.graph.node)
        self._last = {name: k for k, step in enumerate(self._steps) for name in step.inputs}

    def __call__(self, values: Mapping[str, Tensor], quantisers: Mapping[str, Quantiser] | None = None) -> list[Tensor]:
        """The results, with the axis of samples in front, for `operands` that have one."""
        given = [values[name] for name in self.operands]
        parts = self._parts(quantisers or {})

        def run(*one: Tensor) -> tuple[Tensor, ...]:
            return self._run(one, parts, quantisers or {})

        if self.by_sample:
            rows = [run(*(value[k] for value in given)) for k in range(len(given[0]))]
            return [torch.stack(column) for column in zip(*rows, strict=True)]
        return list(torch.func.vmap(run)(*given))

    def one(self, values: Mapping[str, Tensor], quantisers: Mapping[str, Quantiser] | None = None) -> list[Tensor]:
        """The results for one sample, without the axis of samples."""
        quantisers = quantisers or {}
        return list(self._run([values[name] for name in self.operands], self._parts(quantisers), quantisers))

    def _parts(self, quantisers: Mapping[str, Quantiser]) -> dict[str, Tensor]:
        """Constants that are made of weights and biases."""
        flat: dict[tuple[str, str], Tensor] = {}
        for result, quantiser in quantisers.items():
            for part, value in (("weight", quantiser.weight()), ("bias", quantiser.bias())):
                flat[(result, part)] = torch.cat([value.reshape(-1), value.new_zeros(1)])
        return {name: flat[(place.result, place.part)][place.index] for name, place in self._places.items()}

    def _run(
        self, operands: Sequence[Tensor], parts: Mapping[str, Tensor], quantisers: Mapping[str, Quantiser]
    ) -> tuple[Tensor, ...]:
        known: dict[str, Tensor] = {**self._constants, **parts}
        known.update((f"in:{name}", value) for name, value in zip(self.operands, operands, strict=True))
        for k, step in enumerate(self._steps):
            given = [known[name] if name else None for name in step.inputs]
            if step.operand_of:
                found = quantisers[step.operand_of].operand(given[0])
            else:
                found = step.run(*given)
            known.update(zip(step.outputs, found if isinstance(found, tuple) else (found,), strict=True))
            for name in step.inputs:
                if self._last[name] == k and name not in self._constants:
                    known.pop(name, None)
        return tuple(known[f"out:{name}"] for name in self.results)


def _step(node: onnx.NodeProto, constants: Mapping[str, Array]) -> _Step:
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    attrs = {name: value.decode() if isinstance(value, bytes) else value for name, value in given.items()}
    if node.domain == _DOMAIN:
        return _Step(_same, tuple(node.input), tuple(node.output), attrs["result"])
    if node.op_type == "Identity":  # what the recorder names results with
        return _Step(_same, tuple(node.input), tuple(node.output))
    known = [constants.get(name) for name in node.input]
    return _Step(KERNELS[node.op_type](attrs, known), tuple(node.input), tuple(node.output))


def _same(value: Tensor) -> Tensor:
    return value


def _recorded(
    graph: Graph, nodes: Sequence[Node], operands: Sequence[str], results: Sequence[str], quantised: frozenset[str]
) -> tuple[onnx.ModelProto, _Numbering]:
    """The primitives of the nodes, sums of products in `quantised` with numbers for weights and biases."""
    numbered = graph.copy()
    numbering = _Numbering(graph, nodes, quantised)
    recorder = _Recorder(numbered)
    for name in operands:
        recorder.feed(name, "native")
    for node in nodes:
        result = node.outputs[0]
        if result in quantised:
            recorder.within = (node.inputs[0] or "", result)
            FLOAT[node.op](recorder, numbering.renumbered(numbered, node))
            recorder.within = None
        else:
            FLOAT[node.op](recorder, node)
    return recorder.model(dict.fromkeys(results, "native")), numbering


class _Numbering:
    """Numbers from 1 on for all biases, then all weights, of some sums of products; 0 stands for a real zero. Biases go
    first because rows hold them in binary32, weights in binary64."""

    def __init__(self, graph: Graph, nodes: Sequence[Node], quantised: frozenset[str]) -> None:
        macs = [node for node in nodes if node.outputs[0] in quantised]
        self._first: dict[tuple[str, str], int] = {}
        self._sizes: dict[tuple[str, str], tuple[int, ...]] = {}
        count = 1
        for part in ("bias", "weight"):
            for node in macs:
                rule = QUANTISE[node.op]
                weight = graph[node.inputs[rule.weight] or ""]
                key = (node.outputs[0], part)
                self._first[key] = count
                self._sizes[key] = weight.shape if part == "weight" else (weight.shape[rule.channel_axis],)
                count += int(np.prod(self._sizes[key]))

    def _numbers(self, result: str, part: str, dtype: type) -> Array:
        shape, first = self._sizes[(result, part)], self._first[(result, part)]
        return np.arange(first, first + int(np.prod(shape)), dtype=dtype).reshape(shape)

    def renumbered(self, graph: Graph, node: Node) -> Node:
        """The node, reading constants of numbers, which are put into the graph."""
        rule, result = QUANTISE[node.op], node.outputs[0]
        names = {
            rule.weight: graph.add_constant(f"{result}/weights", self._numbers(result, "weight", np.float64)).name,
            rule.bias: graph.add_constant(f"{result}/biases", self._numbers(result, "bias", np.float32)).name,
        }
        inputs = [*node.inputs, *[None] * (rule.bias + 1 - len(node.inputs))]
        return replace(node, inputs=[names.get(k, name) for k, name in enumerate(inputs)])

    def places(
        self, model: onnx.ModelProto, constants: Mapping[str, Array], device: torch.device
    ) -> dict[str, _Places]:
        """Constants of the primitives that hold numbers."""
        found = {}
        firsts = sorted((first, key) for key, first in self._first.items())
        for node in model.graph.node:
            if len(node.input) < 2 or (numbers := constants.get(node.input[1])) is None:
                continue
            if numbers.dtype != np.float64:
                continue
            for name in node.input[1:]:
                numbers = constants[name]
                first, key = max(pair for pair in firsts if pair[0] <= numbers.max())
                index = np.where(numbers > 0, numbers - first, np.prod(self._sizes[key]))
                found[name] = _Places(*key, torch.from_numpy(index.astype(np.int64)).to(device))
        return found
