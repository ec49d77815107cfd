"""Every operator of a .sim alone: run on what the reference feeds it, so that nothing before it has gone wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping

from sgs.compare.sim_stage import SimStage
from sgs.ir import Node
from sgs.numeric.quantise import Array
from sgs.quant.blocks import held_in
from sgs.quant.prepare import known_kind
from sgs.quant.selection import operands
from sgs.registry import QUANTISE

Truth = Callable[
    [str], Array
]  # name of a tensor with a counterpart → what the reference has for it, real, as B lays it


class Isolated:
    """Goes through a .sim of one sample beside the reference, in execution order.

    Operands with a counterpart (`paired`) are the reference's values as the graph holds them. Tensors that the
    reference does not have, inside what is one operator there, are what these operators made alone; inputs that it does
    not have, such as bytes of pictures, are what the .sim is fed.
    """

    def __init__(self, stage: SimStage, paired: Collection[str]) -> None:
        self._stage, self._graph, self._paired = stage, stage.graph, paired
        self._makers = self._graph.producers()
        self._left = Counter(name for node in self._graph.nodes for name in operands(self._graph, node))
        self._inner: dict[str, Array] = {}
        self._made: dict[str, Array] = {}
        self._passed: set[str] = set()  # first results of nodes

    def measured(self, name: str) -> bool:
        """Whether there is an error alone: not of inputs and of moving operators, which add none."""
        node = self._makers.get(name)
        return node is not None and not moves(node)

    def run(self, name: str, held: Array, truth: Truth, done: Callable[[str], None]) -> Array | None:
        """What the maker of a tensor makes of it alone, as B holds it; None for inputs and what only moves there.

        To be called for every tensor of the graph in execution order, `held` being B's own value; `done` is told every
        paired operand that has been read.
        """
        node = self._makers.get(name)
        if node is None:
            self._keep(name, held)
            return None
        if node.outputs[0] not in self._passed:
            self._passed.add(node.outputs[0])
            self._advance(node, truth, done)
        made = self._made.pop(name, None)
        if made is not None:
            self._keep(name, made)
        return made

    def _advance(self, node: Node, truth: Truth, done: Callable[[str], None]) -> None:
        kernel = self._stage.kernel(node)
        if not (moves(node) and all(name in self._paired for name in node.outputs)):
            operands = [self._operand(name, truth) for name in kernel.operands]
            self._made.update(zip(node.outputs, kernel(operands), strict=True))
        for name in kernel.operands:
            self._left[name] -= 1
            if name in self._paired:
                done(name)
            elif not self._left[name]:
                self._inner.pop(name, None)

    def _operand(self, name: str, truth: Truth) -> Array:
        if name not in self._paired:
            return self._inner[name]
        tensor, value = self._graph[name], truth(name)
        return held_in(tensor, value).astype(tensor.dtype.numpy, copy=False)

    def _keep(self, name: str, value: Array) -> None:
        if name not in self._paired and self._left[name]:
            self._inner[name] = value


def moves(node: Node) -> bool:
    """Whether it only moves or selects values."""
    return known_kind(node) == "move"


def weight_bits(stage: SimStage) -> Mapping[str, int]:
    """Result of every sum of products → bits of its weights."""
    graph, found = stage.graph, {}
    for node in graph.nodes:
        rule = QUANTISE.get(node.op)
        if rule is not None and rule.kind == "mac":
            found[node.outputs[0]] = graph[node.inputs[rule.weight] or ""].dtype.bits
    return found
