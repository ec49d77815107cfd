"""Primitives that combine values along axes: products of matrices, reductions, orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from sgs.retrain.kernels.node import Constants, Make, integers, plain, read


def _gemm(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    """a · bᵀ + c."""
    if not read(attributes, "transB").transB:
        raise ValueError("Gemm without transB")
    return lambda a, b, c: torch.addmm(c, a, b.T)


def _softmax(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    axis = read(attributes, "axis").axis
    return lambda x: torch.softmax(x, axis)


# -- reductions --------------------------------------------------------------------------------------------------------
def _sum(x: Tensor, axes: Sequence[int]) -> Tensor:
    return x.sum(axes, keepdim=True, dtype=x.dtype)


def _mean(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Of integers, cut towards 0."""
    if x.is_floating_point():
        return x.mean(axes, keepdim=True)
    return torch.div(_sum(x, axes), prod(x.shape[axis] for axis in axes), rounding_mode="trunc")


def _product(x: Tensor, axes: Sequence[int]) -> Tensor:
    for axis in axes:
        x = x.prod(axis, keepdim=True, dtype=x.dtype)
    return x


# (x, axes) → x with these axes of extent 1
_REDUCTIONS: dict[str, Callable[[Tensor, Sequence[int]], Tensor]] = {
    "ReduceMax": lambda x, axes: x.amax(axes, keepdim=True),
    "ReduceMean": _mean,
    "ReduceMin": lambda x, axes: x.amin(axes, keepdim=True),
    "ReduceProd": _product,
    "ReduceSum": _sum,
}


def _reduction(reduce: Callable[[Tensor, Sequence[int]], Tensor]) -> Make:
    def make(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
        keep, axes = read(attributes, "keepdims").keepdims, integers(constants, 1)
        if not axes:
            raise ValueError("a reduction without axes")

        def run(x: Tensor, _: Tensor) -> Tensor:
            y = reduce(x, axes)
            return y if keep else y.squeeze(axes)

        return run

    return make


def _global_mean(x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


# -- orders ------------------------------------------------------------------------------------------------------------
def _place_of(find: Callable[..., Tensor]) -> Make:
    """The first place of the extreme value."""

    def make(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
        given = read(attributes, "axis", "keepdims", "select_last_index")
        if given.select_last_index:
            raise ValueError("select_last_index")
        return lambda x: find(x, given.axis, keepdim=bool(given.keepdims))

    return make


def _top_k(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., tuple[Tensor, Tensor]]:
    """Among equals, the first ones first."""
    given, (count,) = read(attributes, "axis", "largest", sorted=1), integers(constants, 1)

    def run(x: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        values, places = torch.sort(x, dim=given.axis, descending=bool(given.largest), stable=True)
        return values.narrow(given.axis, 0, count), places.narrow(given.axis, 0, count)

    return run


def _running_sum(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    given, (axis,) = read(attributes, exclusive=0, reverse=0), integers(constants, 1)

    def run(x: Tensor, _: Tensor) -> Tensor:
        terms = x.flip(axis) if given.reverse else x
        if given.exclusive:
            earlier = terms.narrow(axis, 0, x.shape[axis] - 1)
            terms = torch.cat([torch.zeros_like(terms.narrow(axis, 0, 1)), earlier], axis)
        sums = terms.cumsum(axis, dtype=x.dtype)
        return sums.flip(axis) if given.reverse else sums

    return run


KERNELS: dict[str, Make] = {
    **{op: _reduction(reduce) for op, reduce in _REDUCTIONS.items()},
    "ArgMax": _place_of(torch.argmax),
    "ArgMin": _place_of(torch.argmin),
    "CumSum": _running_sum,
    "Gemm": _gemm,
    "GlobalAveragePool": plain(_global_mean),
    "MatMul": plain(torch.matmul),
    "Softmax": _softmax,
    "TopK": _top_k,
}
