"""A float network without the rounding of a source that was quantised already, and what that rounding says.

Ranges are the source's: each FAKE_QUANTIZE that goes away leaves the range of its codes as a quantisation parameter of
the tensor that it rounded. Where it kept values from being negative, an activation takes its place; where it changed
the unit (sums of products of codes become codes), that goes into the weights.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.ops._expansion import expanded
from sgs.ops._move import moved_by
from sgs.ops.quantize_linear import FAKE, grid_of
from sgs.passes.editor import Editor
from sgs.passes.pipeline import optimise
from sgs.quant.parameters import QuantParameter
from sgs.registry import QUANTISE

_POSITIVE = frozenset({"RELU", "RELU6", "RELU_0_TO_1", "LOGISTIC", "SOFTMAX"})  # results are never below 0
_AVERAGES = frozenset({"AVERAGE_POOL_2D", "MEAN", "SUM"})  # nor these, of what is never below 0


def unrounded(graph: Graph) -> Graph:
    """The network that a calibration quantises, operators that are short for others written out: the graph itself where
    nothing in it rounds, and there are no such."""
    return expanded(_without(graph)[0])


def rounding_parameters(graph: Graph) -> tuple[QuantParameter, ...]:
    """The ranges that the source has, by tensors of `unrounded(graph)`."""
    plain, ranges = _without(graph)
    found: dict[str, QuantParameter] = {}
    for names, (low, high), bits in ranges:
        name = next((name for name in names if name in plain.tensors), None)
        if name is not None:
            found.setdefault(name, QuantParameter(name, np.array([low]), np.array([high]), bits))
    for node in plain.nodes:
        own = [found.get(node.inputs[i] or "") for i in moved_by(node)]
        if own and own[0] is not None and all(_alike(other, own[0]) for other in own):
            for name in node.outputs:
                found.setdefault(name, replace(own[0], name=name))
    return tuple(found.values())


def _alike(a: QuantParameter | None, b: QuantParameter) -> bool:
    return a is not None and (a.range, a.bit) == (b.range, b.bit)


Range = tuple[tuple[str, str], tuple[float, float], int]  # the names that its tensor may have, (low, high), bits


@dataclass
class _Removal:
    """Takes every FAKE_QUANTIZE out of a graph."""

    edit: Editor
    ranges: list[Range] = field(default_factory=list)

    def join(self, twins: list[Node]) -> None:
        """Roundings of the same values that differ in unit only, whole numbers for sums of products and real ones for
        others, become one where the weights of sums of products can make up for it."""
        main = next((node for node in twins if not self._is_for_sums(node)), twins[0])
        for node in twins:
            steps = [self.edit.graph[one.inputs[3] or ""].number for one in (node, main)]
            if node is main or steps[0] is None or not steps[1]:
                continue
            if steps[0] == steps[1] or self._scale_weights(node, steps[0] / steps[1]):
                self.edit.bypass(node, main.outputs[0])

    def remove(self, node: Node) -> None:
        graph, grid = self.edit.graph, grid_of(self.edit.graph, node)
        x, y = node.inputs[0] or "", node.outputs[0]
        unit = self._unit(node)
        positive = grid is not None and grid.zero == grid.low and not _is_positive(self.edit, x)
        factor = float(unit.reshape(-1)[0]) if unit is not None and unit.size == 1 else None
        inside = factor is not None and not positive and (factor == 1 or self._scale_weights(node, factor))
        if inside and not self.edit.bypass(node, x):  # an input that is an output
            inside, unit = False, np.ones(1)
        if not inside:
            self._replace(node, unit, "RELU" if positive else "NONE")
        if grid is not None:
            low, high = grid.span
            by = factor if inside and factor is not None else 1.0
            bits = 8 if grid.high - grid.low < 256 else 16
            names = (x, y) if x in graph.tensors and inside else (y, x)
            self.ranges.append((names, (low / by, high / by), bits))

    def _unit(self, node: Node) -> Array | None:
        """What values are multiplied by besides being rounded, float64; None where it is computed."""
        if node.inputs[1] == node.inputs[3] and not node.attrs["multiply"]:
            return np.ones(1)
        scale, step = (self.edit.graph[name or ""].data for name in (node.inputs[1], node.inputs[3]))
        if scale is None or step is None:
            return None
        wide = scale.astype(np.float64)
        return np.asarray(step * wide if node.attrs["multiply"] else step / wide)

    def _is_for_sums(self, node: Node) -> bool:
        """Whether only sums of products read the node's result, and a factor of it can go into their weights."""
        graph, name = self.edit.graph, node.outputs[0]
        return name not in graph.outputs and all(_takes_factor(graph, r, name) for r in self.edit.readers[name])

    def _scale_weights(self, node: Node, factor: float) -> bool:
        """Multiply the weights of all that read a node's result by a number; False where it has other readers."""
        graph = self.edit.graph
        if not self._is_for_sums(node):
            return False
        for reader in list(self.edit.readers[node.outputs[0]]):
            at = QUANTISE[reader.op].weight
            weight = graph[reader.inputs[at] or ""]
            assert weight.data is not None
            scaled = (weight.data.astype(np.float64) * factor).astype(np.float32)
            self.edit.set_input(reader, at, self.edit.add_constant(weight.name, scaled))
        return True

    def _replace(self, node: Node, unit: Array | None, activation: str) -> None:
        """The node becomes what it does besides rounding."""
        x, graph = node.inputs[0] or "", self.edit.graph
        if unit is not None and (unit == 1).all():
            identity = activation == "NONE"
            node.op, node.attrs = ("RESHAPE", {"shape": graph[x].shape}) if identity else (activation, {})
            self.edit.set_inputs(node, [x])
            return
        node.op, node.attrs = "MUL", {"activation": activation}
        if unit is not None:
            factor = self.edit.add_constant(f"{node.outputs[0]}/unit", unit.astype(np.float32))
            self.edit.set_inputs(node, [x, factor])
            return
        assert not node.attrs.get("multiply")
        _, scale, _, step = node.inputs
        if graph[step or ""].number == 1:
            node.op = "DIV"
            self.edit.set_inputs(node, [x, scale])
            return
        quotient = graph.add_tensor(f"{node.outputs[0]}/unscaled", graph[x].shape, graph[x].dtype).name
        self.edit.insert_before(node, Node("DIV", [x, scale], [quotient], {"activation": "NONE"}, node.name))
        self.edit.set_inputs(node, [quotient, step])


def _takes_factor(graph: Graph, reader: Node, name: str) -> bool:
    """Whether a factor of the tensor can go into the constant weights of a sum of products that reads it."""
    rule = QUANTISE.get(reader.op)
    if rule is None or rule.kind != "mac" or reader.inputs[0] != name or reader.inputs.count(name) != 1:
        return False
    return graph[reader.inputs[rule.weight] or ""].data is not None


def _twins(graph: Graph) -> list[list[Node]]:
    """The roundings of the same tensor that give the same codes."""
    found: dict[Hashable, list[Node]] = {}
    for node in graph.nodes:
        if node.op == FAKE:
            constants = [graph[name or ""] for name in node.inputs[1:3]]
            content = (t.name if t.data is None else (t.shape, t.data.tobytes()) for t in constants)
            key = (node.inputs[0], *content, *(node.attrs[name] for name in ("low", "high", "multiply")))
            found.setdefault(key, []).append(node)
    return list(found.values())


def _without(graph: Graph) -> tuple[Graph, list[Range]]:
    """(the graph without rounding, what each rounding says)."""
    if not any(node.op == FAKE for node in graph.nodes):
        return graph, []
    plain = graph.copy()
    with Editor(plain) as edit:
        removal = _Removal(edit)
        for twins in _twins(plain):
            removal.join(twins)
        for node in plain.nodes:
            if node.op == FAKE and edit.alive(node):
                removal.remove(node)
    plain.sort()
    optimise(plain)
    return plain, removal.ranges


def _is_positive(edit: Editor, name: str) -> bool:
    """True where a tensor is known to hold nothing below 0."""
    pending, seen = [name], {name}
    while pending:
        name = pending.pop()
        tensor, node = edit.graph[name], edit.producers.get(name)
        if tensor.data is not None:
            if (tensor.data < 0).any():
                return False
            continue
        if node is None:
            return False
        if node.op in _POSITIVE or node.attrs.get("activation") in _POSITIVE:
            continue
        moved = _passed(node)
        if not moved:
            return False
        more = [n for i in moved if (n := node.inputs[i]) is not None and n not in seen]
        pending += more
        seen.update(more)
    return True


def _passed(node: Node) -> Sequence[int]:
    """Operands whose values, or averages of them, are the results' values, beside numbers that are not negative."""
    if node.op == "PADV2" and node.attrs["value"] < 0:
        return []
    return moved_by(node) or ([0] if node.op in _AVERAGES else [])
