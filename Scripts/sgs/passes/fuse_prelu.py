"""PReLU that a network spells out, as one operator."""

from __future__ import annotations

from sgs.ir.graph import Graph, Node
from sgs.numeric.quantise import Array
from sgs.passes.editor import Editor


def fuse_prelu(graph: Graph) -> int:
    """RELU(x) + c · B becomes PRELU of x, where the constant c broadcasts to x, nothing else reads what lies between,
    and B is −x or 0 where x is negative:

    * RELU(−x): the slope is −c;
    * x − |x|, which is 2x there: the slope is 2c.
    """
    with Editor(graph) as edit:
        for node in graph.nodes:
            if node.op != "ADD" or node.attrs.get("activation", "NONE") != "NONE":
                continue
            found = next(filter(None, (_prelu(edit, *pair) for pair in (node.inputs, node.inputs[::-1]))), None)
            if found is None:
                continue
            x, slope = found
            name = edit.add_constant(f"{node.outputs[0]}/slope", slope)
            edit.set_inputs(node, [x, name])
            node.op, node.attrs = "PRELU", {}
            edit.count += 1
    return edit.count


def _prelu(edit: Editor, above: str | None, below: str | None) -> tuple[str, Array] | None:
    """(x, slope) where the two operands of an ADD are those of a PReLU."""
    relu, scaled = edit.sole_producer(above), edit.sole_producer(below)
    if relu is None or relu.op != "RELU" or scaled is None or not _plain(scaled, "MUL"):
        return None
    x = relu.inputs[0] or ""
    for operand, other in (scaled.inputs, scaled.inputs[::-1]):
        constant = edit.constant(other)
        factor = None if constant is None else _factor(edit, x, operand)
        if constant is None or constant.data is None or factor is None or not edit.graph[x].dtype.is_float:
            continue
        if edit.graph[scaled.outputs[0]].shape == edit.graph[x].shape:
            return x, constant.data * constant.data.dtype.type(factor)
    return None


def _factor(edit: Editor, x: str, name: str | None) -> float | None:
    """What a tensor is to be multiplied by to be min(x, 0), None where it is nothing of the kind."""
    node = edit.sole_producer(name)
    if node is None:
        return None
    if node.op == "RELU":
        negative = edit.sole_producer(node.inputs[0])
        return -1.0 if negative is not None and negative.op == "NEG" and negative.inputs == [x] else None
    if _plain(node, "SUB") and node.inputs[0] == x:
        size = edit.sole_producer(node.inputs[1])
        return 2.0 if size is not None and size.op == "ABS" and size.inputs == [x] else None
    return None


def _plain(node: Node, op: str) -> bool:
    """Whether a node is of an operator and carries no activation."""
    return node.op == op and node.attrs.get("activation", "NONE") == "NONE"
