"""Build graphs by calling operators: used by frontends, passes and operator examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.registry import INFER

Operand = Tensor | Array | None


class GraphBuilder:
    """Appends nodes to a graph; result shapes and types come from the operator's `INFER` row.

    Operands are tensors of the graph, numpy arrays (become constants) or None (absent).
    """

    def __init__(self, graph: Graph | None = None) -> None:
        self.graph = graph if graph is not None else Graph()

    def input(self, name: str, shape: Sequence[int], dtype: DType = DType.FLOAT32) -> Tensor:
        tensor = self.graph.add_tensor(name, shape, dtype)
        self.graph.inputs.append(tensor.name)
        return tensor

    def constant(self, name: str, data: Array) -> Tensor:
        return self.graph.add_constant(name, data)

    def node(
        self, op: str, operands: Sequence[Operand], *, name: str = "", outputs: Sequence[str] = (), **attrs: Any
    ) -> list[Tensor]:
        """Append an operator and return its results. `outputs` are stems for their names (default: node name or op)."""
        names: list[str | None] = []
        stem = name or op.lower()
        for index, operand in enumerate(operands):
            if operand is None:
                names.append(None)
            elif isinstance(operand, np.ndarray):
                names.append(self.graph.add_constant(f"{stem}/const{index}", operand).name)
            else:
                names.append(operand.name)
        node = Node(op, names, [], attrs, name)
        results = INFER[op](node, self.graph.operands(node))
        for index, (shape, dtype) in enumerate(results):
            wanted = outputs[index] if index < len(outputs) else (stem if len(results) == 1 else f"{stem}:{index}")
            node.outputs.append(self.graph.add_tensor(wanted, shape, dtype).name)
        self.graph.nodes.append(node)
        return self.graph.results(node)

    def __call__(self, op: str, *operands: Operand, name: str = "", output: str = "", **attrs: Any) -> Tensor:
        """Append an operator with one result and return it."""
        return self.node(op, operands, name=name, outputs=[output] if output else (), **attrs)[0]

    def output(self, *tensors: Tensor) -> Graph:
        """Declare graph outputs and return the graph."""
        self.graph.outputs.extend(t.name for t in tensors)
        return self.graph
