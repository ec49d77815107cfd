"""Between a graph and the operators of a TFLite container: the two forms differ in spelling, never in meaning.

`spell(graph)` gives a graph whose nodes are file operators: operands in the file's order, attrs named like the fields
of the options table (`SIM` rows, snake case). What a file operator cannot say becomes operators and tensors beside it,
recognised by their names when they are read:

| in the graph | in the file | named |
|---|---|---|
| attr that TFLite passes as an operand | constant | `<result>/<attr>` |
| window pads, neither VALID nor SAME | PAD (zeros) or PADV2 (lowest value) in front | `<operand>/pad:<result>` |
| fused activation that the schema lacks | the activation as an operator behind | `<result>/linear` |

`unspell` is the inverse: `unspell(spell(graph))` equals the graph.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.ir.graph import Graph, Node, Tensor
from sgs.ops._mac import ACTIVATIONS
from sgs.ops._window import same_pads
from sgs.registry import INFER, SIM, SimRow
from sgs.sim.generated import ActivationFunctionType

# What rules about shapes and attributes raise on operators that make no sense.
NONSENSE = (ArithmeticError, AssertionError, AttributeError, LookupError, StopIteration, TypeError, ValueError)
_FUSABLE = frozenset(name for name in ACTIVATIONS if hasattr(ActivationFunctionType, name))
_PAD_OPERATOR: dict[str | None, str] = {"zero": "PAD", "lowest": "PADV2"}


class SpellingError(ValueError):
    """File operators that mean nothing, or nothing that the graph can say. `node` names the one, "" for many."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(reason)
        self.node = node


# -- graph → file ------------------------------------------------------------------------------------------------------
def spell(graph: Graph) -> Graph:
    """The graph as the file holds it. Tensors keep their order; new ones follow. Constants are shared, not copied."""
    out = graph.copy()
    out.nodes = []
    for node in graph.nodes:
        row = SIM[node.op]
        if row.custom:
            out.nodes.append(node)
            continue
        operands, results = graph.operands(node), graph.results(node)
        options = {name: node.attrs[attr] for name, attr in row.fields.items()}
        inputs, outputs, behind = list(node.inputs), list(node.outputs), []
        if row.encode is not None:
            options.update(row.encode(node, operands, results))
        if row.window is not None:
            options["padding"], inputs[0] = _spell_pads(out, node, row)
        if row.activation:
            activation = node.attrs.get("activation", "NONE")
            if activation not in _FUSABLE:
                outputs[0] = out.add_tensor(
                    f"{node.outputs[0]}/linear", results[0].shape, results[0].dtype, quant=results[0].quant
                ).name
                behind.append(Node(activation, [outputs[0]], [node.outputs[0]]))
                activation = "NONE"
            options["fused_activation_function"] = activation
        out.nodes.append(Node(node.op, _file_operands(out, node, row, inputs), outputs, options))
        out.nodes.extend(behind)
    return out


def _file_operands(out: Graph, node: Node, row: SimRow, inputs: Sequence[str | None]) -> list[str | None]:
    """The operands in the file's order, attrs that are written as constants among them."""
    names = [inputs[k] for k in row.order if k < len(inputs)] + list(inputs[len(row.order) :])
    for position in sorted({*row.constant_inputs, *row.file_inputs}):
        names.insert(position, _file_constant(out, node, row, position).name)
    return names


def _file_constant(out: Graph, node: Node, row: SimRow, position: int) -> Tensor:
    stem = node.outputs[0]
    if position in row.constant_inputs:
        attr = row.constant_inputs[position]
        return out.add_constant(f"{stem}/{attr}", np.asarray(node.attrs[attr], np.int32))
    form = row.file_inputs[position]
    made = form.make(node, out.operands(node), out.results(node))
    return out.add_tensor(f"{stem}/{form.name}", made.shape, made.dtype, data=made.data, quant=made.quant)


def _spell_pads(out: Graph, node: Node, row: SimRow) -> tuple[str, str | None]:
    """(padding, operand) of a window; appends a PAD where neither SAME nor VALID is what the node says."""
    operands = out.operands(node)
    x, pads = operands[0], tuple(node.attrs["pads"])
    assert x is not None and row.window is not None
    if not any(pads):
        return "VALID", x.name
    strides, dilations = node.attrs["strides"], node.attrs.get("dilations", (1, 1))
    if pads == same_pads(x.shape, row.window.kernel(node, operands), strides, dilations):
        return "SAME", x.name
    assert row.window.fill is not None
    top, left, bottom, right = pads
    shape = (x.shape[0], x.shape[1] + top + bottom, x.shape[2] + left + right, x.shape[3])
    padded = out.add_tensor(f"{x.name}/pad:{node.outputs[0]}", shape, x.dtype, quant=x.quant)
    widths = np.array([(0, 0), (top, bottom), (left, right), (0, 0)], np.int32)
    inputs: list[str | None] = [x.name, out.add_constant(f"{padded.name}/paddings", widths).name]
    if row.window.fill == "lowest":
        lowest = np.array([np.finfo(np.float32).min if x.dtype.is_float else x.dtype.qmin], x.dtype.numpy)
        inputs.append(out.add_constant(f"{padded.name}/value", lowest, quant=x.quant, dtype=x.dtype).name)
    out.nodes.append(Node(_PAD_OPERATOR[row.window.fill], inputs, [padded.name]))
    return "VALID", padded.name


# -- file → graph ------------------------------------------------------------------------------------------------------
def unspell(file: Graph) -> None:
    """Turn a graph of file operators, edited in place, into one of ours.

    Raises SpellingError for operators that no `SIM` row knows (all in one) and for one without a meaning. Every result
    is checked against its operator's shape rule.
    """
    _fold_activations(file)
    _fold_pads(file)
    _refuse_unknown(file)
    spent: set[str] = set()
    for node in file.nodes:
        try:
            _unspell_node(file, node, spent)
        except NONSENSE as error:
            if isinstance(error, SpellingError):
                raise
            detail = f": {error}" if str(error) else ""
            raise SpellingError(node.label, f"its operands and options do not fit together{detail}") from error
    _drop_unread(file, spent)


def _refuse_unknown(file: Graph) -> None:
    counts = Counter(node.op for node in file.nodes if node.op not in SIM)
    if counts:
        listed = ", ".join(f"{op} ({count})" for op, count in sorted(counts.items()))
        raise SpellingError("", f"operators that are not supported: {listed}")


def _is_aside(name: str, stem: str) -> bool:
    """Whether this is the name that `Graph.fresh(stem)` gives, whatever it had to append."""
    return name.startswith(stem) and re.fullmatch(r"(_\d+)?", name[len(stem) :]) is not None


def _read_once(file: Graph) -> set[str]:
    """Tensors with one reader that are not results of the graph."""
    return {name for name, nodes in file.readers().items() if len(nodes) == 1} - set(file.outputs)


def _fold_activations(file: Graph) -> None:
    """Fuse the activations that `spell` set apart."""
    producers, inner = file.producers(), _read_once(file)
    folded: set[int] = set()
    for node in file.nodes:
        if node.op not in ACTIVATIONS or node.op in _FUSABLE or len(node.inputs) != 1 or len(node.outputs) != 1:
            continue
        source = node.inputs[0]
        if source is None or source not in inner or not _is_aside(source, f"{node.outputs[0]}/linear"):
            continue
        producer = producers.get(source)
        if producer is None:
            continue
        if producer.outputs == [source] and producer.attrs.get("fused_activation_function") == "NONE":
            producer.outputs, producer.attrs["fused_activation_function"] = node.outputs, node.op
            folded.add(id(node))
            del file.tensors[source]
    file.nodes = [node for node in file.nodes if id(node) not in folded]


def _fold_pads(file: Graph) -> None:
    """Give windows the pads that `spell` set apart, as option "pads"."""
    producers, inner = file.producers(), _read_once(file)
    folded: set[int] = set()
    spent: set[str] = set()
    for node in file.nodes:
        row = SIM.get(node.op)
        if row is None or row.window is None or node.attrs.get("padding") != "VALID" or not node.inputs:
            continue
        padded = node.inputs[0]
        pad = producers.get(padded or "")
        if padded is None or pad is None or padded not in inner or pad.op != _PAD_OPERATOR.get(row.window.fill):
            continue
        pads = _pads_of(file, pad)
        if pads is not None and _is_aside(padded, f"{pad.inputs[0]}/pad:{node.outputs[0]}"):
            node.attrs = {**node.attrs, "pads": pads}
            node.inputs[0] = pad.inputs[0]
            folded.add(id(pad))
            spent.update(name for name in [padded, *pad.inputs[1:]] if name is not None)
    file.nodes = [node for node in file.nodes if id(node) not in folded]
    _drop_unread(file, spent)


def _pads_of(file: Graph, pad: Node) -> tuple[int, ...] | None:
    """(top, left, bottom, right) of a PAD of rank 4 that leaves batch and channels alone, else None."""
    if len(pad.inputs) < 2 or pad.inputs[0] is None or pad.inputs[1] is None:
        return None
    widths = file[pad.inputs[1]].data
    if widths is None or widths.shape != (4, 2) or widths[[0, 3]].any() or (widths < 0).any():
        return None
    (top, bottom), (left, right) = widths[1:3].tolist()
    return top, left, bottom, right


def _drop_unread(file: Graph, names: set[str]) -> None:
    """Remove those of the tensors that nothing refers to any more."""
    readers = file.readers()
    kept = {*file.inputs, *file.outputs}
    for name in names:
        if not readers[name] and name not in kept:
            del file.tensors[name]


def _unspell_node(file: Graph, node: Node, spent: set[str]) -> None:
    """Options → attrs; adds the constants that became attrs to `spent`."""
    operands, results = file.operands(node), file.results(node)
    kept, node.attrs = meaning(node.op, node.attrs, operands, results, label=node.label)
    node.inputs = [None if tensor is None else tensor.name for tensor in kept]
    spent.update(tensor.name for tensor in operands if tensor is not None and tensor.name not in node.inputs)
    declared = [tensor.shape for tensor in results]
    expected = [tuple(shape) for shape, _ in INFER[node.op](node, kept)]
    if declared != expected:
        raise SpellingError(node.label, f"it gives shapes {expected}, but the file says {declared}")


def meaning(
    op: str,
    options: dict[str, Any],
    operands: Sequence[Tensor | None],
    results: Sequence[Tensor],
    *,
    label: str,
) -> tuple[list[Tensor | None], dict[str, Any]]:
    """(operands, attrs) in our form of a file operator that has a `SIM` row, which may find the attrs in the shapes of
    the `results`. Raises SpellingError, or one of `NONSENSE`, for one without a meaning."""
    row = SIM[op]
    if row.custom:
        return list(operands), options
    attrs = {attr: options[name] for name, attr in row.fields.items() if options.get(name) is not None}
    rest, values = _take_constants(operands, row, label)
    attrs.update(values)
    if row.activation:
        attrs["activation"] = options["fused_activation_function"]
        if attrs["activation"] not in ACTIVATIONS:
            raise SpellingError(label, f"the fused activation {attrs['activation']} is not supported")
    ours = _in_our_order(rest, row.order)
    if row.decode is not None:
        attrs.update(row.decode(options, ours, results))
    if row.window is not None:
        attrs["pads"] = _unspell_pads(Node(op, [], [], attrs), ours, row, options)
    return ours, attrs


def _take_constants(
    operands: Sequence[Tensor | None], row: SimRow, label: str
) -> tuple[list[Tensor | None], dict[str, Any]]:
    """(the other operands, values of those that are attrs of ours)."""
    rest = list(operands)
    values: dict[str, Any] = {}
    for position in sorted({*row.constant_inputs, *row.file_inputs}, reverse=True):
        if position >= len(rest):
            continue  # the options say the same, or the shape rule will miss it
        constant = rest.pop(position)
        attr = row.constant_inputs.get(position)
        if constant is None or constant.data is None or (attr is not None and constant.data.dtype.kind != "i"):
            what = attr or row.file_inputs[position].name
            kind = "a constant" if attr is None else "a constant of integers"
            raise SpellingError(label, f"operand {position} ({what}) must be {kind}")
        if attr is None:
            values.update(row.file_inputs[position].read(constant))
        else:
            values[attr] = as_attr(constant.data.tolist())
    return rest, values


def _in_our_order(operands: Sequence[Tensor | None], order: Sequence[int]) -> list[Tensor | None]:
    """Inverse of the permutation of `_file_operands`."""
    places = [k for k in order if k < len(operands)]
    front = [operands[places.index(k)] for k in range(len(places))]
    return front + list(operands[len(places) :])


def _unspell_pads(
    node: Node, operands: Sequence[Tensor | None], row: SimRow, options: dict[str, Any]
) -> tuple[int, ...]:
    """Explicit pads: SAME by the shapes, VALID with those of a PAD that `_fold_pads` found."""
    x = operands[0]
    assert x is not None and row.window is not None
    if options["padding"] == "VALID":
        return tuple(options.get("pads", (0, 0, 0, 0)))
    strides, dilations = node.attrs["strides"], node.attrs.get("dilations", (1, 1))
    return same_pads(x.shape, row.window.kernel(node, operands), strides, dilations)


def as_attr(value: Any) -> Any:
    """A value as attrs hold it: sequences are tuples, at every depth."""
    if isinstance(value, (list, tuple)):
        return tuple(as_attr(item) for item in value)
    if isinstance(value, dict):
        return {key: as_attr(item) for key, item in value.items()}
    return value
