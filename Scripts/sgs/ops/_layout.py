"""Layout traits that many operators share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgs.ir.graph import Graph, Node
from sgs.registry import Moved


def fixed(graph: Graph, node: Node, perm: tuple[int, ...]) -> None:
    """The operator's meaning is bound to its layout: no Transpose passes."""
    return


def transparent(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved | None:
    """Elementwise, with broadcasting: constants are turned the other way, every result keeps the permutation."""
    constants = {}
    inverse = np.argsort(perm)
    for index, tensor in enumerate(graph.operands(node)):
        if tensor is None or tensor.data is None or tensor.elements == 1:
            continue
        data = tensor.data.reshape((1,) * (len(perm) - tensor.data.ndim) + tensor.data.shape)
        constants[index] = np.ascontiguousarray(data.transpose(inverse))
    return Moved(dict(node.attrs), (tuple(perm),) * len(node.outputs), constants)


def keeps_last(graph: Graph, node: Node, perm: tuple[int, ...]) -> Moved | None:
    """The operator works along the last axis: passes what leaves that one last."""
    if perm[-1] != len(perm) - 1:
        return None
    return Moved(dict(node.attrs), (tuple(perm),) * len(node.outputs))


def remap_axis(axis: int, perm: Sequence[int]) -> int:
    """The axis of x that is axis `axis` of transpose(x, perm)."""
    return perm[axis % len(perm)]


def perm_without(perm: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """The permutation of what is left when `axes` of transpose(x, perm), and the axes of x that they are, are gone."""
    left = [perm[axis] for axis in range(len(perm)) if axis not in axes]
    order = sorted(left)
    return tuple(order.index(axis) for axis in left)
