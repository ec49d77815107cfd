"""Transposes into the products of matrices that read them."""

from __future__ import annotations

from sgs.ir.graph import Graph, Node
from sgs.ops.batch_matmul import ADJOINTS
from sgs.passes.editor import Editor


def fold_transpose(graph: Graph) -> int:
    """A TRANSPOSE that exchanges the last two axes and is read by BATCH_MATMULs alone: they read its operand, with the
    attr that exchanges those of that operand turned over."""
    with Editor(graph) as edit:
        for node in graph.nodes:
            if not _exchanges(node):
                continue
            result = node.outputs[0]
            readers = list(edit.readers[result])
            if result in graph.outputs or {reader.op for reader in readers} != {"BATCH_MATMUL"}:
                continue
            for reader in readers:
                index = reader.inputs.index(result)
                reader.attrs[ADJOINTS[index]] = not reader.attrs[ADJOINTS[index]]
                edit.set_input(reader, index, node.inputs[0] or "")
            edit.count += 1
    return edit.count


def _exchanges(node: Node) -> bool:
    """Whether a node exchanges the last two axes, and nothing else."""
    if node.op != "TRANSPOSE" or len(node.attrs["perm"]) < 2:
        return False
    rest, last = tuple(node.attrs["perm"][:-2]), tuple(node.attrs["perm"][-2:])
    return (*rest, *last[::-1]) == tuple(range(len(node.attrs["perm"])))
