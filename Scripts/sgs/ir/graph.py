"""Graph, Node and Tensor.

A graph is SSA: every tensor is produced by one node, or is a constant, or is a graph input. Nodes are kept in
topological order. Tensors are referred to by name; an absent optional input is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sgs.numeric.quantise import Array, QuantParams
from sgs.numeric.types import DType


def strides_of(shape: Sequence[int]) -> tuple[int, ...]:
    """Elements from one entry of an axis to the next, of a contiguous tensor."""
    result = [1] * len(shape)
    for axis in reversed(range(len(shape) - 1)):
        result[axis] = result[axis + 1] * shape[axis + 1]
    return tuple(result)


@dataclass
class Tensor:
    """A value of the graph. `data` is set for constants; `quant` for quantised tensors. Activations of rank 4 are
    NHWC.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType
    data: Array | None = None
    quant: QuantParams | None = None

    @property
    def is_constant(self) -> bool:
        return self.data is not None

    @property
    def elements(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def number(self) -> float | None:
        """What a constant of one element holds; None for any other tensor."""
        return None if self.data is None or self.data.size != 1 else float(self.data.reshape(-1)[0])

    @property
    def nbytes(self) -> int:
        """Bytes as stored unpacked in memory (INT4: one byte an element)."""
        return self.elements * self.dtype.numpy.itemsize


@dataclass
class Node:
    """One operator. `op` is a TFLite builtin name ("CONV_2D") or one of our custom names; `attrs` are plain Python
    values.

    `name` is the source network's name for it, for messages and reports.
    """

    op: str
    inputs: list[str | None]
    outputs: list[str]
    attrs: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def label(self) -> str:
        """How messages name this node."""
        return f"{self.op} '{self.name or (self.outputs[0] if self.outputs else '?')}'"


@dataclass
class Graph:
    """A network: tensors by name, nodes in topological order, names of inputs and outputs, metadata for the file."""

    name: str = ""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)  # JSON-like values, written as `sgs.<key>` metadata buffers

    # -- queries ---------------------------------------------------------------------------------------------------
    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def operands(self, node: Node) -> list[Tensor | None]:
        """The node's input tensors, None where an optional one is absent."""
        return [None if name is None else self.tensors[name] for name in node.inputs]

    def results(self, node: Node) -> list[Tensor]:
        return [self.tensors[name] for name in node.outputs]

    def producers(self) -> dict[str, Node]:
        """Tensor name → the node that produces it."""
        return {name: node for node in self.nodes for name in node.outputs}

    def readers(self) -> dict[str, list[Node]]:
        """Tensor name → nodes that read it, in order (a node that reads twice appears twice). Every tensor has an
        entry.
        """
        result: dict[str, list[Node]] = {name: [] for name in self.tensors}
        for node in self.nodes:
            for name in node.inputs:
                if name is not None:
                    result[name].append(node)
        return result

    def activations(self) -> Iterator[Tensor]:
        """Graph inputs and node results, in topological order; constants are not among them."""
        for name in self.inputs:
            yield self.tensors[name]
        for node in self.nodes:
            yield from self.results(node)

    # -- edits -----------------------------------------------------------------------------------------------------
    def fresh(self, stem: str) -> str:
        """A tensor name not yet in use: `stem`, else `stem_1`, `stem_2` ..."""
        name, count = stem, 0
        while name in self.tensors:
            count += 1
            name = f"{stem}_{count}"
        return name

    def add_tensor(
        self,
        stem: str,
        shape: Iterable[int],
        dtype: DType,
        *,
        data: Array | None = None,
        quant: QuantParams | None = None,
    ) -> Tensor:
        """Add a tensor under a fresh name."""
        tensor = Tensor(self.fresh(stem), tuple(int(d) for d in shape), dtype, data, quant)
        self.tensors[tensor.name] = tensor
        return tensor

    def add_constant(
        self, stem: str, data: Array, *, quant: QuantParams | None = None, dtype: DType | None = None
    ) -> Tensor:
        """Add a constant; its type follows the array unless `dtype` says else (INT4 lives in int8 arrays)."""
        data = np.asarray(data, order="C")  # np.ascontiguousarray makes a vector of a scalar
        return self.add_tensor(stem, data.shape, dtype or DType.of(data.dtype), data=data, quant=quant)

    def rename_tensor(self, old: str, new: str) -> None:
        """Give a tensor another name everywhere. Raises ValueError when `new` is taken."""
        if old == new:
            return
        if new in self.tensors:
            raise ValueError(f"tensor name {new!r} is taken")
        tensor = self.tensors.pop(old)
        tensor.name = new
        self.tensors[new] = tensor
        for node in self.nodes:
            node.inputs = [new if n == old else n for n in node.inputs]
            node.outputs = [new if n == old else n for n in node.outputs]
        self.inputs = [new if n == old else n for n in self.inputs]
        self.outputs = [new if n == old else n for n in self.outputs]

    def prune(self) -> None:
        """Drop nodes that no output needs, then tensors that nothing refers to."""
        needed = set(self.outputs)
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if any(name in needed for name in node.outputs):
                kept.append(node)
                needed.update(name for name in node.inputs if name is not None)
        self.nodes = kept[::-1]
        used = {*self.inputs, *self.outputs}
        for node in self.nodes:
            used.update(n for n in [*node.inputs, *node.outputs] if n is not None)
        self.tensors = {name: tensor for name, tensor in self.tensors.items() if name in used}

    def sort(self) -> None:
        """Restore topological order after edits, keeping the present order where it is free to. Raises ValueError on
        a cycle.
        """
        producers = self.producers()
        done: set[int] = set()
        open_: set[int] = set()
        ordered: list[Node] = []
        for root in self.nodes:
            stack = [(root, False)]
            while stack:
                node, expanded = stack.pop()
                if expanded:
                    open_.discard(id(node))
                    if id(node) not in done:
                        done.add(id(node))
                        ordered.append(node)
                    continue
                if id(node) in done:
                    continue
                if id(node) in open_:
                    raise ValueError(f"the graph has a cycle through {node.label}")
                open_.add(id(node))
                stack.append((node, True))
                feeders = [producers[n] for n in node.inputs if n is not None and n in producers]
                stack.extend((feeder, False) for feeder in reversed(feeders) if id(feeder) not in done)
        self.nodes = ordered

    def copy(self) -> Graph:
        """A copy whose nodes and tensors can be edited freely; constant arrays are shared, never edited in place."""
        return Graph(
            self.name,
            {name: replace(tensor) for name, tensor in self.tensors.items()},
            [Node(n.op, list(n.inputs), list(n.outputs), dict(n.attrs), n.name) for n in self.nodes],
            list(self.inputs),
            list(self.outputs),
            dict(self.metadata),
        )
