"""ONNX Einsum: diagonals and sums over axes, then products of matrices or of elements, two operands at a time.

Every axis has a label. Axes of one operand that nobody else names are summed first. Labels of both operands and of the
result number pairs of matrices, labels of one operand and of the result their rows or columns, labels of both operands
alone are summed over in the product.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from sgs.ir.graph import Tensor
from sgs.ops._import import multiply, reshaped
from sgs.ops.matmul import multiplied, ramp, require_reals
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase, Shape


@dataclass(frozen=True)
class _Term:
    """A tensor and the labels of its axes."""

    tensor: Tensor
    labels: str

    def extent(self, label: str) -> int:
        return self.tensor.shape[self.labels.index(label)] if label in self.labels else 1


@IMPORT_ONNX.row("Einsum")
def import_einsum(ctx: ImportContext) -> list[Tensor]:
    operands = [t for t in ctx.inputs if t is not None]
    require_reals(ctx, *operands)
    inputs, result = _labels(ctx, str(ctx.attrs["equation"]), operands)
    terms = [_diagonal(ctx, _Term(t, labels)) for t, labels in zip(operands, inputs, strict=True)]
    y = terms[0]
    for index, term in enumerate(terms[1:], 1):
        later = set(result).union(*inputs[index + 1 :])
        left, right = _summed(ctx, y, later | set(term.labels)), _summed(ctx, term, later | set(y.labels))
        y = _product(ctx, left, right, later)
    return [_arranged(ctx, _summed(ctx, y, set(result)), result).tensor]


def _labels(ctx: ImportContext, equation: str, operands: Sequence[Tensor]) -> tuple[list[str], str]:
    """Labels of the operands and of the result, a letter an axis; those of "..." get capital ones from Z down."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if len(inputs) != len(operands):
        raise ctx.refuse(f"equation '{equation}' has {len(inputs)} terms for {len(operands)} operands")
    free = [letter for letter in reversed(string.ascii_letters) if letter not in equation]
    rest = [len(t.shape) - len(labels.replace("...", "")) for t, labels in zip(operands, inputs, strict=True)]
    if any(count < 0 or (count and "..." not in labels) for count, labels in zip(rest, inputs, strict=True)):
        raise ctx.refuse(f"equation '{equation}' does not fit shapes {[t.shape for t in operands]}")
    dots = "".join(free[: max(rest)])
    inputs = [labels.replace("...", dots[len(dots) - n :]) for labels, n in zip(inputs, rest, strict=True)]
    named = "".join(inputs)
    once = "".join(sorted(label for label in set(named) if named.count(label) == 1 and label not in dots))
    result = right.replace("...", dots) if arrow else dots + once
    if len(set(result)) < len(result):
        raise ctx.refuse(f"equation '{equation}' names an axis of the result twice")
    if not set(result) <= set(named):
        raise ctx.refuse(f"equation '{equation}' has a result axis that no operand has")
    return inputs, result


def _diagonal(ctx: ImportContext, term: _Term) -> _Term:
    """Without axes of the same label: of each two of them the diagonal."""
    while twice := [label for label in term.labels if term.labels.count(label) > 1]:
        label, x = twice[0], term.tensor
        pair = [axis for axis, other in enumerate(term.labels) if other == label][:2]
        rest = [axis for axis in range(len(term.labels)) if axis not in pair]
        if x.shape[pair[0]] != x.shape[pair[1]]:
            raise ctx.refuse(f"axes '{label}' of shape {x.shape} have no diagonal")
        extent, lead = x.shape[pair[0]], tuple(x.shape[axis] for axis in rest)
        flat = ctx.emit("TRANSPOSE", x, perm=(*rest, *pair))
        flat = ctx.emit("RESHAPE", flat, shape=(*lead, extent * extent))
        spans = {"begin": (0,) * len(flat.shape), "end": flat.shape}
        made = ctx.emit("STRIDED_SLICE", flat, **spans, strides=(*(1,) * len(lead), extent + 1))
        term = _Term(made, "".join(term.labels[axis] for axis in rest) + label)
    return term


def _summed(ctx: ImportContext, term: _Term, wanted: set[str]) -> _Term:
    """Without the axes that nobody wants."""
    axes = tuple(axis for axis, label in enumerate(term.labels) if label not in wanted)
    if not axes:
        return term
    if term.tensor.data is not None:
        data = np.asarray(term.tensor.data.sum(axes, dtype=np.float64), np.float32)
        made = Tensor(term.tensor.name, data.shape, term.tensor.dtype, data)
    else:
        made = ctx.emit("SUM", term.tensor, axes=axes, keep_dims=False)
    return _Term(made, "".join(label for label in term.labels if label in wanted))


def _arranged(ctx: ImportContext, term: _Term, labels: str) -> _Term:
    """The axes in the order of `labels`, which are the same ones."""
    perm = tuple(term.labels.index(label) for label in labels)
    if perm == tuple(range(len(perm))):
        return term
    if term.tensor.data is not None:
        data = np.ascontiguousarray(term.tensor.data.transpose(perm))
        return _Term(Tensor(term.tensor.name, data.shape, term.tensor.dtype, data), labels)
    return _Term(ctx.emit("TRANSPOSE", term.tensor, perm=perm), labels)


def _shaped(ctx: ImportContext, term: _Term, order: str, shape: Shape) -> Tensor:
    """Its axes in the order in which `order` names them, then as `shape`."""
    x = _arranged(ctx, term, "".join(label for label in order if label in term.labels)).tensor
    return reshaped(ctx, x, shape)


def _product(ctx: ImportContext, a: _Term, b: _Term, wanted: set[str]) -> _Term:
    """The sum of products of two operands over the labels of both that nobody wants; axes in any order."""
    both = [label for label in a.labels if label in b.labels]
    batch = "".join(label for label in both if label in wanted)
    inner = "".join(label for label in both if label not in wanted)
    rows = "".join(label for label in a.labels if label not in both)
    columns = "".join(label for label in b.labels if label not in both)
    for label in both:
        extents = (a.extent(label), b.extent(label))
        if extents[0] != extents[1] and (label in inner or 1 not in extents):
            raise ctx.refuse(f"axis '{label}' has {extents[0]} entries in one operand and {extents[1]} in the other")
    if not inner:
        return _outer(ctx, a, b, batch + rows + columns)
    lead = [tuple(term.extent(label) for label in batch) for term in (a, b)]
    m, n = (prod(term.extent(label) for label in labels) for term, labels in ((a, rows), (b, columns)))
    depth = prod(a.extent(label) for label in inner)
    left = _shaped(ctx, a, batch + rows + inner, (*lead[0], m, depth))
    right = _shaped(ctx, b, batch + inner + columns, (*lead[1], depth, n))
    y = multiplied(ctx, left, right)
    labels = batch + rows + columns
    shape = tuple(max(a.extent(label), b.extent(label)) for label in labels)
    return _Term(_shaped(ctx, _Term(y, ""), "", shape) if y.shape != shape else y, labels)


def _outer(ctx: ImportContext, a: _Term, b: _Term, labels: str) -> _Term:
    """Products of elements: each operand has 1 entry along axes that only the other has."""
    shaped = [_shaped(ctx, term, labels, tuple(term.extent(label) for label in labels)) for term in (a, b)]
    return _Term(multiply(ctx, *shaped), labels)


def _case(equation: str, *shapes: Shape, constant: Shape | None = None) -> OnnxCase:
    inputs = dict(zip("abc", shapes, strict=False))
    constants = {} if constant is None else {"w": ramp(*constant)}
    return OnnxCase("Einsum", inputs, constants, {"equation": equation})


ONNX_EXAMPLES.add(
    "Einsum",
    [
        _case("bij, bjk -> bik", (2, 3, 5), (2, 5, 7)),
        _case("bhid,bhjd->bhij", (2, 3, 5, 7), (2, 3, 6, 7)),
        _case("bihd,bjhd->bhij", (2, 5, 3, 7), (2, 6, 3, 7)),
        _case("bhij,bjhd->bihd", (2, 3, 5, 6), (2, 6, 3, 7)),
        _case("bid,dhe->bihe", (2, 3, 5), constant=(5, 4, 6)),
        _case("...ij,...jk", (2, 3, 5), (2, 5, 7)),
        _case("...ij,jk->...ik", (2, 3, 4, 5), (5, 7)),
        _case("i,j->ij", (3,), (5,)),
        _case("bij,bij->bij", (2, 3, 5), (2, 3, 5)),
        _case("bij,bij->b", (2, 3, 5), (2, 3, 5)),
        _case("ij,ijk->ik", (3, 5), (3, 5, 7)),
        _case("i,i", (5,), (5,)),
        _case("bijk,ki->bj", (2, 3, 5, 7), (7, 3)),
        _case("ij->ji", (3, 5)),
        _case("bij->bi", (2, 3, 5)),
        _case("ij->", (3, 5)),
        _case("ba", (3, 5)),
        _case("...i->...", (2, 3, 5)),
        _case("...ii->...i", (2, 5, 5)),
        _case("iij,jk->ki", (3, 3, 5), (5, 7)),
        _case("ii", (5, 5)),
        _case("ij,jk,kl->il", (3, 5), (5, 7), constant=(7, 2)),
        _case("bi,bj,bk->ijk", (2, 3), (2, 5), (2, 7)),
    ],
)
