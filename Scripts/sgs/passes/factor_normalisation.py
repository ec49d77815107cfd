"""A normalisation that was multiplied out, as TensorFlow writes it, back into its factors."""

from __future__ import annotations

from sgs.ir.graph import Graph, Node
from sgs.passes.editor import Editor


def factor_normalisation(graph: Graph) -> int:
    """x · f + (b - mean(x) · f) becomes (x - mean(x)) · f + b, with f = r · g for a constant g as two products:
    x - mean(x) is as small as the result, while x · f may be much larger, and quantisation knows the form.

    The mean keeps its axes. Nothing but the ADD may have an activation; other readers keep what they read.
    """
    with Editor(graph) as edit:
        for node in graph.nodes:
            found = _multiplied_out(edit, node)
            if found is None:
                continue
            x, mean, factor, offset = found
            value = _insert(edit, node, "SUB", x, mean, "centred")
            for part in _factors(edit, factor):
                value = _insert(edit, node, "MUL", value, part, "scaled")
            for index, name in enumerate((value, offset)):
                edit.set_input(node, index, name)
            edit.count += 1
    return edit.count


def _multiplied_out(edit: Editor, node: Node) -> tuple[str, str, str, str] | None:
    """(x, mean, factor, offset) where a node is x · factor + (offset - mean · factor) of the shape of x."""
    if node.op != "ADD":
        return None
    for first, second in (_operands(node), _operands(node)[::-1]):
        product, rest = _made(edit, first, "MUL"), _made(edit, second, "SUB")
        inner = None if rest is None else _made(edit, _operands(rest)[1], "MUL")
        if product is None or rest is None or inner is None:
            continue
        for x, factor in (_operands(product), _operands(product)[::-1]):
            for mean, other in (_operands(inner), _operands(inner)[::-1]):
                made = _made(edit, mean, "MEAN")
                shapes = {edit.graph[name].shape for name in (x, *node.outputs, *product.outputs)}
                if factor == other and made and made.inputs[0] == x and made.attrs["keep_dims"] and len(shapes) == 1:
                    return x, mean, factor, _operands(rest)[0]
    return None


def _factors(edit: Editor, name: str) -> tuple[str, ...]:
    """The factors of a product with a constant, the constant last; else the tensor itself."""
    product = _made(edit, name, "MUL")
    if product is None:
        return (name,)
    constant = [part for part in _operands(product) if edit.constant(part) is not None]
    return tuple(sorted(_operands(product), key=lambda part: part in constant)) if len(constant) == 1 else (name,)


def _insert(edit: Editor, place: Node, op: str, first: str, second: str, what: str) -> str:
    """The result of a new elementwise operator of the shape of the result of `place`, in front of it."""
    result = edit.graph[place.outputs[0]]
    made = edit.graph.add_tensor(f"{result.name}/{what}", result.shape, result.dtype)
    edit.insert_before(place, Node(op, [first, second], [made.name], {"activation": "NONE"}, place.name))
    return made.name


def _made(edit: Editor, name: str, op: str) -> Node | None:
    """The node that makes a tensor, where it is this operator and clamps nothing."""
    node = edit.producers.get(name)
    return node if node is not None and node.op == op and node.attrs.get("activation", "NONE") == "NONE" else None


def _operands(node: Node) -> tuple[str, str]:
    first, second = node.inputs
    assert first is not None and second is not None
    return first, second
