"""The graph that every stage reads, edits and writes: NHWC tensors, TFLite operators, SSA by name."""

from sgs.ir.graph import Graph, Node, Tensor
from sgs.ir.verify import verify, violations

__all__ = ["Graph", "Node", "Tensor", "verify", "violations"]
