"""Which tensor of one model stands for which of another, and how the axes of the two go together.

All tools keep the source network's names: the import gives a tensor the name that the source has for it, passes leave a
fused operator the name of its last result, and what a tool puts in between is called `<name>/<what was done>`. So two
tensors of one name hold the same numbers up to their layout.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from itertools import permutations
from typing import Any

import numpy as np

from sgs.compare.stage import Stage, StageTensor
from sgs.numeric.quantise import Array
from sgs.quant.export import SCALES_KEY

# `<name>/…` of tensors that hold what <name> does in another layout or type: by the import (frontends.onnx_walk), where
# layouts are chosen (passes.layout), by quantisation (quant.edit) and at the boundary of a fixed network
# (quant.boundary).
_MADE = re.compile(
    r"(.+)/(?:nchw|nhwc|turned|raised|uint8|int16|codes|bytes|inner|integers|real|normalised)(?:_\d+)?", re.DOTALL
)
_AXES = 6  # longer than one, of which every order is tried

Order = tuple[int, ...]


def counterparts(a: Stage, b: Stage) -> dict[str, str]:
    """Tensor of B → the one of A that it stands for, of those that have one."""
    found = {}
    for name, tensor in b.described.items():
        other = stands_for(name, a.described)
        if other is not None and not _raw(tensor, a.described[other]):
            found[name] = other
    return found


def stands_for(name: str, known: Container[str]) -> str | None:
    """The known tensor that one of this name holds the numbers of."""
    while name not in known:
        made = _MADE.fullmatch(name)
        if made is None:
            return None
        name = made[1]
    return name


def scales_of(metadata: Mapping[str, Any], names: Iterable[str]) -> dict[str, Array]:
    """Tensor → what its channels are multiplied by, float32 [C], of those that calibration equalised."""
    scales = {name: np.asarray(scale, np.float32) for name, scale in metadata.get(SCALES_KEY, {}).items()}
    bases = {name: stands_for(name, scales) for name in names}
    return {name: scales[base] for name, base in bases.items() if base is not None}


def _raw(tensor: StageTensor, other: StageTensor) -> bool:
    """Whether a tensor is the bytes of a picture, where the other holds the normalised picture: as real numbers, or as
    codes, which the very bytes are in an .img that need not normalise them (compile.fold_pixels)."""
    if (tensor.quant is None) != (other.quant is None):
        return tensor.dtype == other.dtype
    return tensor.quant is None and tensor.dtype.startswith(("uint", "int")) and other.dtype.startswith("float")


class Alignment:
    """How a tensor of A becomes one of B's layout: found on the first pair of values, the same for all others."""

    def __init__(self, reference: Array, value: Array) -> None:
        self._shape = value.shape
        self._order = _order(reference, value)

    @property
    def found(self) -> bool:
        return self._order is not None

    def __call__(self, reference: Array) -> Array:
        """The values of A, in the shape of B."""
        assert self._order is not None
        return _ordered(reference, self._order, self._shape)


def _order(reference: Array, value: Array) -> Order | None:
    """The order of the reference's axes that makes the value's shape of it. Where shapes leave several, the likeliest
    unless another fits the values twice as well; where they leave none, but both hold as many numbers, the one that
    gives the same ones when it is flattened, if there is one."""
    if reference.size != value.size:
        return None
    fitting, flat = _orders(reference.shape, value.shape)
    if len(fitting) == 1:
        return fitting[0]
    distances = {order: _distance(_ordered(reference, order, value.shape), value) for order in fitting or flat}
    best = min(distances, key=distances.__getitem__)
    if not fitting:
        return best if distances[best] <= _distance(np.zeros_like(value), value) / 2 else None
    return fitting[0] if distances[fitting[0]] <= 2 * distances[best] else best


def _ordered(array: Array, order: Order, shape: tuple[int, ...]) -> Array:
    return array.squeeze().transpose(order).reshape(shape)


def _orders(source: tuple[int, ...], target: tuple[int, ...]) -> tuple[list[Order], list[Order]]:
    """Orders of the source's axes longer than one: those that give the target's shape, and those that are worth trying
    where none does; the likeliest first: as they are, the channels moved to the end, or to the front, any other."""
    axes, wanted = ([extent for extent in shape if extent != 1] for shape in (source, target))
    plain = tuple(range(len(axes)))
    likely = list(dict.fromkeys([plain, (*plain[1:], *plain[:1]), (*plain[-1:], *plain[:-1])]))
    every = dict.fromkeys([*likely, *(permutations(plain) if len(plain) <= _AXES else ())])
    return [order for order in every if [axes[axis] for axis in order] == wanted], likely


def _distance(a: Array, b: Array) -> float:
    """Σ|a−b|, in which places that are not finite in either do not count."""
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.nansum(np.abs(a.astype(np.float64) - b), where=np.isfinite(a) & np.isfinite(b)))
