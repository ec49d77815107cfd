"""Make a float graph ready for quantisation: elementwise expressions of one tensor become single FUNCTION nodes, and
normalisations single NORMALISE nodes (quant/normalisation.py).

In a fixed graph a unary function is one table whatever it computes, so x·sigmoid(x), HardSigmoid's multiply-add-clamp
or a chain of activations cost one look-up and lose nothing in between. The float .sim keeps the expression in builtin
operators. Channel equalisation makes it another function in every channel: products with constants [C] that carry the
attr `EQUALISE` are part of the expression, while those of the network itself stay nodes of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.ops._move import moved_by
from sgs.quant.masks import bound_constants, fading_tensors
from sgs.quant.normalisation import with_normalisations
from sgs.registry import MOVE, QUANTISE, RANGE_FROM, REAL

FUNCTION = "FUNCTION"  # exists only between `prepare` and the fixed graph; attr "expression"
EQUALISE = "equalise"  # attr, True on a node with a constant [C] of channel equalisation; exists only in memory


@dataclass(frozen=True)
class Expression:
    """A straight-line program over one variable: `steps` in order, `constants`, scalars or [C], by tensor name."""

    variable: str
    result: str
    steps: tuple[Node, ...]
    constants: dict[str, Array]

    @property
    def channels(self) -> int | None:
        """C where the function is another one in every channel, else None."""
        return next((constant.size for constant in self.constants.values() if constant.ndim), None)

    def __call__(self, x: Array) -> Array:
        """Evaluate elementwise on float64 values of any shape, [..., C] where there are channels."""
        values: dict[str, Array] = {self.variable: np.asarray(x, np.float64)}
        with np.errstate(all="ignore"):
            for node in self.steps:
                operands = [values[n] if n in values else self.constants[n] for n in node.inputs if n is not None]
                values[node.outputs[0]] = np.asarray(REAL[node.op](node, operands))
        return np.broadcast_to(values[self.result], np.shape(x))

    def describe(self) -> str:
        """The operators in order, for files and reports: "LOGISTIC MUL"."""
        return " ".join(step.op for step in self.steps)


def variable_of(graph: Graph, node: Node, roots: dict[str, str]) -> str | None:
    """The tensor that this node is an elementwise function of, given the roots of its operands; None when it is not
    one.
    """
    if node.op not in REAL or len(node.outputs) != 1:
        return None
    found: set[str] = set()
    result = graph[node.outputs[0]]
    for tensor in graph.operands(node):
        if tensor is None:
            return None
        if tensor.is_constant:
            if tensor.elements != 1 and not (node.attrs.get(EQUALISE) and tensor.shape == result.shape[-1:]):
                return None
        else:
            found.add(roots.get(tensor.name, tensor.name))
    if len(found) != 1:
        return None
    root = found.pop()
    return root if graph[root].shape == result.shape and graph[root].dtype.is_float else None


def prepare(float_graph: Graph) -> Graph:
    """A copy in which every elementwise expression of one tensor is a FUNCTION node reading that tensor, and every
    normalisation a NORMALISE.

    A lone operator counts as an expression, too; one whose result is no real number is part of one at the most.
    """
    graph = float_graph.copy()
    bound_constants(graph)
    with_normalisations(graph)
    roots: dict[str, str] = {}
    steps: dict[str, tuple[Node, ...]] = {}
    for node in graph.nodes:
        root = variable_of(graph, node, roots)
        if root is not None:
            roots[node.outputs[0]] = root
            merged: dict[int, Node] = {}
            for name in node.inputs:
                merged.update({id(step): step for step in steps.get(name or "", ())})
            steps[node.outputs[0]] = (*merged.values(), node)
    real = [name for name in roots if graph[name].dtype.is_float]  # others are steps only, such as a comparison
    replaced = {name: _function_node(graph, name, roots[name], steps[name]) for name in real}
    graph.nodes = [replaced.get(node.outputs[0], node) for node in graph.nodes]
    graph.prune()
    return graph


def _function_node(graph: Graph, result: str, root: str, steps: Sequence[Node]) -> Node:
    constants: dict[str, Array] = {}
    for name in (name for step in steps for name in step.inputs if name is not None and graph[name].is_constant):
        tensor = graph[name]
        data = np.asarray(tensor.data, np.float64 if tensor.dtype.is_float else None)
        constants[name] = data.reshape(() if tensor.elements == 1 else -1)
    expression = Expression(root, result, tuple(steps), constants)
    return Node(FUNCTION, [root], [result], {"expression": expression}, steps[-1].name)


def range_sources(graph: Graph) -> dict[str, str]:
    """Tensor → the one that gives it its range, for results that hold markers beside values: of the operators that put
    them there, and of those that only copy such results. Those of which only some values matter (quant/masks.py) have a
    range of their own."""
    own = fading_tensors(graph)
    found: dict[str, str] = {}
    for node in graph.nodes:
        source = _marked_from(graph, node) or next((name for name in _copied(node) if name in found), None)
        if source is not None:
            found.update((name, source) for name in node.outputs if name not in own)
    return found


def _copied(node: Node) -> list[str]:
    """What an operator copies as it is, all of it or a part."""
    if node.op not in MOVE:
        return []
    return [name for index in moved_by(node) if (name := node.inputs[index]) is not None]


def _marked_from(graph: Graph, node: Node) -> str | None:
    row = RANGE_FROM.get(node.op)
    index = None if row is None else row(node, graph.operands(node))
    return None if index is None else node.inputs[index]


def kind_of(node: Node) -> str:
    """The quantisation kind of a prepared node."""
    return "unary" if node.op == FUNCTION else QUANTISE[node.op].kind


def known_kind(node: Node) -> str | None:
    """The quantisation kind of a node of any graph; None of operators that only fixed ones have."""
    rule = QUANTISE.get(node.op)
    return None if rule is None else rule.kind
