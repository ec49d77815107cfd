"""The rounding of a source network that is quantised already, in as few operators as it can be.

Between a QUANTIZE_LINEAR and the DEQUANTIZE_LINEAR that undoes it stand at most operators that move codes about. They
can as well move the real numbers that the codes stand for, so that a pair becomes one FAKE_QUANTIZE in front of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import Array
from sgs.ops._move import moved_by
from sgs.ops.quantize_linear import DEQUANTIZE, FAKE, QUANTIZE, Grid, grid_of
from sgs.passes.editor import Editor
from sgs.registry import INFER, QUANTISE

_FILLING = frozenset({"PAD", "PADV2", "SPACE_TO_BATCH_ND"})  # what they put beside the moved is no code


def pair_rounding(graph: Graph) -> int:
    """Moving operators on codes move real numbers; DEQUANTIZE_LINEAR of a QUANTIZE_LINEAR with the same zero point is a
    FAKE_QUANTIZE; one of values that have been through the same one goes away."""
    if not any(node.op in (QUANTIZE, FAKE) for node in graph.nodes):
        return 0
    return _move_real_numbers(graph) + _join_pairs(graph) + _drop_repeated(graph)


def _fake_attrs(node: Node) -> dict[str, object]:
    return {name: node.attrs[name] for name in ("low", "high", "multiply")}


# -- moving operators ------------------------------------------------------------------------------------------------
def _move_real_numbers(graph: Graph) -> int:
    """A moving operator whose operands are all codes of one rounding moves what they stand for, and its results are
    rounded again (which changes nothing)."""
    with Editor(graph) as edit:
        for node in list(graph.nodes):
            source = _one_source(edit, node)
            if source is not None:
                _turn_real(edit, node, source)
                edit.count += 1
    return edit.count


def _moved(node: Node) -> Sequence[int]:
    """Operands of a moving operator that puts nothing beside them; none for any other operator."""
    return () if node.op in _FILLING else moved_by(node)


def _one_source(edit: Editor, node: Node) -> Node | None:
    """A QUANTIZE_LINEAR with the codes of all that a moving operator moves; None where there is no such."""
    names = [node.inputs[i] or "" for i in _moved(node)]
    sources = [edit.producers.get(name) for name in names if not edit.graph[name].is_constant]
    found = [source for source in sources if source is not None and source.op == QUANTIZE]
    grids = {grid_of(edit.graph, source) for source in found}
    return found[0] if found and len(found) == len(sources) and len(grids) == 1 and None not in grids else None


def _turn_real(edit: Editor, node: Node, source: Node) -> None:
    """Put a FAKE_QUANTIZE in front of everything that the node moves, and a QUANTIZE_LINEAR behind its results."""
    graph, grid = edit.graph, grid_of(edit.graph, source)
    assert grid is not None
    step = edit.add_constant(f"{source.outputs[0]}/step", np.array([grid.step], np.float32))
    for index in _moved(node):
        name = node.inputs[index] or ""
        if graph[name].is_constant:
            edit.set_input(node, index, edit.add_constant(f"{name}/real", _real(grid, graph[name])))
        else:
            edit.set_input(node, index, _fake(edit, node, edit.producers[name], step))
    behind = []
    for position, (shape, dtype) in enumerate(INFER[node.op](node, graph.operands(node))):
        if position in QUANTISE[node.op].apart:  # indices
            continue
        codes = node.outputs[position]
        node.outputs[position] = real = graph.add_tensor(f"{codes}/real", shape, dtype).name
        attrs = {**source.attrs, "multiply": False}
        behind.append(Node(QUANTIZE, [real, step, source.inputs[2]], [codes], attrs, node.name))
        edit.producers[real] = node
    edit.insert_behind(node, behind)


def _fake(edit: Editor, place: Node, source: Node, step: str) -> str:
    """A FAKE_QUANTIZE of what `source`, a QUANTIZE_LINEAR, reads, in front of `place`; returns its result."""
    x = edit.graph[source.inputs[0] or ""]
    result = edit.graph.add_tensor(f"{source.outputs[0]}/real", x.shape, x.dtype)
    edit.insert_before(place, Node(FAKE, [*source.inputs, step], [result.name], _fake_attrs(source), source.name))
    return result.name


def _real(grid: Grid, codes: Tensor) -> Array:
    assert codes.data is not None
    return ((codes.data.astype(np.float32) - np.float32(grid.zero)) * np.float32(grid.step)).astype(np.float32)


# -- pairs -----------------------------------------------------------------------------------------------------------
def _join_pairs(graph: Graph) -> int:
    """DEQUANTIZE_LINEAR(QUANTIZE_LINEAR(x)) with the same zero point becomes FAKE_QUANTIZE(x)."""
    with Editor(graph) as edit:
        for node in graph.nodes:
            source = edit.producers.get(node.inputs[0] or "") if node.op == DEQUANTIZE else None
            if source is None or source.op != QUANTIZE or not _equal(graph, node.inputs[2], source.inputs[2]):
                continue
            node.op, node.attrs = FAKE, _fake_attrs(source)
            edit.set_inputs(node, [*source.inputs, node.inputs[1]])
            edit.count += 1
    return edit.count


def _equal(graph: Graph, a: str | None, b: str | None) -> bool:
    """Whether two tensors are one, or constants with the same values."""
    x, y = graph[a or ""], graph[b or ""]
    return x is y or (x.data is not None and y.data is not None and np.array_equal(x.data, y.data))


def _drop_repeated(graph: Graph) -> int:
    """A FAKE_QUANTIZE of values that have been through one with the same parameters, and were moved since, is taken
    out."""
    grids: dict[str, Grid] = {}  # tensor → what all its values are of
    with Editor(graph) as edit:
        for node in graph.nodes:
            if node.op == FAKE and (own := grid_of(graph, node)) is not None:
                same = not node.attrs["multiply"] and graph[node.inputs[1] or ""].number == own.step
                if same and grids.get(node.inputs[0] or "") == own:
                    edit.count += edit.bypass(node, node.inputs[0] or "")
                grids[node.outputs[0]] = own
            elif moved := _moved(node):
                known = {grids.get(node.inputs[i] or "") for i in moved}
                grid = known.pop() if len(known) == 1 else None
                if grid is not None:
                    grids.update(dict.fromkeys(node.outputs, grid))
    return edit.count
