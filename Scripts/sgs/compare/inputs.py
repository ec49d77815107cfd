"""Why what two models are fed differs: channels in another order, or another mean and std."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from sgs.compare.metrics import signal_to_noise
from sgs.numeric.quantise import Array

GAIN = 10.0  # dB that an explanation must be better than the inputs as they are
LEAST = 20.0  # dB that it must leave
CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Explanation:
    """`before` and `after` in dB: how well B's input fits A's as it is, and as the explanation would make it.

    `order`: the channel of B that is in the place of each of A's; `factor`, `offset` [C]: A = factor · B + offset, of B
    in that order.
    """

    before: float
    after: float
    order: tuple[int, ...] = ()
    factor: Array | None = None
    offset: Array | None = None


def explain(reference: Array, value: Array) -> Explanation | None:
    """The simplest explanation of how B's `value` comes of A's `reference`, pictures of one layout, that no other is
    better than by GAIN; None for none."""
    axis = next((axis for axis in (-1, 1) if value.ndim == 4 and value.shape[axis] in CHANNELS), None)
    if axis is None:
        return None
    a, b = (np.moveaxis(part, axis, -1).reshape(-1, part.shape[axis]).astype(np.float64) for part in (reference, value))
    before = signal_to_noise(a, b)
    good = [found for found in _explanations(a, b, before) if found.after >= max(before + GAIN, LEAST)]
    most = max((found.after for found in good), default=0.0)
    return next((found for found in good if found.after >= most - GAIN), None)


def _explanations(a: Array, b: Array, before: float) -> Iterator[Explanation]:
    orders = [order for order in permutations(range(a.shape[1])) if list(order) != sorted(order)]
    if orders:
        after, order = max((signal_to_noise(a, b[:, order]), order) for order in orders)
        yield Explanation(before, after, order)
    for order in [(), *orders]:
        turned = b[:, order] if order else b
        factor, offset = _affine(a, turned)
        yield Explanation(before, signal_to_noise(a, turned * factor + offset), order, factor, offset)


def _affine(a: Array, b: Array) -> tuple[Array, Array]:
    """Per channel, by least squares."""
    centred = b - b.mean(0)
    factor = (centred * (a - a.mean(0))).sum(0) / np.maximum((centred**2).sum(0), 1e-30)
    return factor, a.mean(0) - factor * b.mean(0)


def other_normalisation(found: Explanation, described: Mapping[str, object] | None) -> str | None:
    """The ini's lines that would make B's input A's, from what B's ini says of it."""
    if found.order or found.factor is None or found.offset is None or described is None or (found.factor <= 0).any():
        return None
    mean, std = (np.asarray(described[key], np.float64) for key in ("mean", "std"))
    channels = found.factor.size
    order = slice(None, None, -1 if described["training_format"] == "BGR" else 1)
    factor, offset = found.factor[order], found.offset[order]
    if mean.size not in (1, channels) or std.size not in (1, channels):
        return None
    texts = (
        ":".join(f"{number:.4g}" for number in np.broadcast_to(values, channels))
        for values in (mean - offset * std / factor, std / factor)
    )
    return "mean={}; std_value={};".format(*texts)
