"""Weights of a sum of products found anew for the operands that a quantised network gives it.

With X the operands that the float network sees, Q those of the quantised one and W the weights: the bias takes out
the mean of Q·V - X·W (Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction,
section 4.2, on pictures); ridge regression finds the V that brings Q·V closest to X·W (calibration against the float
operands as in GPTAQ, Li et al. 2025); and second-order rounding moves what one weight loses to those not yet rounded
(GPTQ, Frantar et al. 2022). Of the candidates the one with the least error on samples of its own stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sgs.numeric.quantise import Array

MAX_WIDTH = 4608  # products of a sum up to which a D×D matrix is kept: 3·3·512
_BLOCK = 128
RIDGES = (0.1, 1.0, 10.0)  # in units of the mean square of an operand


@dataclass(frozen=True)
class Pairs:
    """Rows of one sum of products: quantised operands [P, G, D] and the results [P, G, O/G] wanted for them."""

    operands: Array
    wanted: Array


class Moments:
    """First and, unless `means` is set, second moments of pairs, summed sample by sample around the first one's
    means.
    """

    def __init__(self, *, means: bool = False) -> None:
        self._count = 0
        self._operands: list[Array] = []  # means of every sample
        self._wanted: list[Array] = []
        self._means = means

    def add(self, pairs: Pairs) -> None:
        """One sample."""
        self._operands.append(pairs.operands.mean(0, dtype=np.float64))
        self._wanted.append(pairs.wanted.mean(0, dtype=np.float64))
        if self._means:
            return
        q = pairs.operands - self._operands[0].astype(np.float32)
        y = pairs.wanted - self._wanted[0].astype(np.float32)
        q, y = (np.ascontiguousarray(part.transpose(1, 0, 2)) for part in (q, y))
        parts = [q.sum(1, dtype=np.float64), y.sum(1, dtype=np.float64), q.transpose(0, 2, 1) @ q]
        parts.append(q.transpose(0, 2, 1) @ y)
        if not self._count:
            self._sums = [part.astype(np.float64) for part in parts]
        else:
            for total, part in zip(self._sums, parts, strict=True):
                total += part
        self._count += len(pairs.operands)

    def covariance(self) -> Array:
        """Of the operands, [G, D, D]."""
        mean = self._sums[0] / self._count
        found = self._sums[2] / self._count
        found -= mean[:, :, None] * mean[:, None, :]
        return np.asarray(found)

    def cross(self) -> Array:
        """Covariance of operands and wanted results, [G, D, O/G]."""
        operand, wanted = self._sums[0] / self._count, self._sums[1] / self._count
        return np.asarray(self._sums[3] / self._count - operand[:, :, None] * wanted[:, None])

    def bias(self, matrix: Array) -> Array:
        """What brings the mean of operands · matrix [G, D, O/G] to the mean wanted, [O]: as far as the samples agree
        about it. What the mean over S samples scatters by, s²/S, is taken off its square (James and Stein 1961), so
        that few samples of one position do not make noise of it."""
        pairs = zip(self._operands, self._wanted, strict=True)
        shifts = np.stack([wanted - np.einsum("gd,gdo->go", operand, matrix) for operand, wanted in pairs])
        mean = shifts.mean(0).reshape(-1)
        if len(shifts) == 1:
            return np.asarray(mean)
        scatter = shifts.var(0, ddof=1).reshape(-1) / len(shifts)
        return np.asarray(mean * np.maximum(0, 1 - scatter / np.maximum(mean**2, 1e-300)))


def squared_error(held: Sequence[Pairs], matrix: Array, bias: Array) -> float:
    """Σ (operands · matrix + bias - wanted)²."""
    total, single = 0.0, matrix.astype(np.float32)
    for pairs in held:
        found = (pairs.operands.transpose(1, 0, 2) @ single).transpose(1, 0, 2)
        difference = found + bias.reshape(found.shape[1:]) - pairs.wanted
        total += float((difference.astype(np.float64) ** 2).sum())
    return total


def regressed(moments: Moments, matrix: Array, ridge: float) -> Array:
    """The weights [G, D, O/G] that fit the pairs best, held to `matrix` by `ridge` · mean variance of an operand."""
    covariance = moments.covariance()
    strength = _damping(covariance, ridge)
    _add_to_diagonal(covariance, strength)
    return np.asarray(np.linalg.solve(covariance, moments.cross() + strength * matrix))


def _add_to_diagonal(covariance: Array, strength: Array) -> None:
    """In place, as matrices of thousands of rows are large."""
    np.einsum("gdd->gd", covariance)[...] += strength[:, 0]


def _damping(covariance: Array, ridge: float) -> Array:
    """[G, 1, 1]."""
    mean = np.einsum("gdd->g", covariance) / covariance.shape[1]
    return np.asarray(ridge * np.maximum(mean, 1e-12 * max(mean.max(initial=0), 1e-30)))[:, None, None]


def rounded(matrix: Array, scale: Array, limit: int) -> Array:
    """Nearest multiples of `scale` [G, O/G] within ±limit, [G, D, O/G]."""
    step = scale[:, None, :]
    return np.asarray(np.clip(np.rint(matrix / step), -limit, limit) * step)


class Rounder:
    """Rounds weights so that each row makes up for the errors of those before it (GPTQ, algorithm 1, with the rows of
    largest variance first), for operands of this covariance [G, D, D]. Raises numpy's LinAlgError when it cannot be
    inverted."""

    def __init__(self, covariance: Array, damping: float = 0.01) -> None:
        self._covariance = covariance
        self._order = np.argsort(-np.einsum("gdd->gd", covariance).sum(0), kind="stable")
        ordered = covariance[:, self._order[:, None], self._order]
        _add_to_diagonal(ordered, _damping(covariance, damping))
        inverse = np.linalg.inv(ordered)
        del ordered
        inverse += inverse.transpose(0, 2, 1)
        inverse /= 2
        self._factor = np.linalg.cholesky(inverse).transpose(0, 2, 1)

    def __call__(self, matrix: Array, scale: Array, limit: int) -> Array:
        """The weights [G, D, O/G] as codes of `scale` [G, O/G] up to `limit` stand for them."""
        width, factor = matrix.shape[1], self._factor
        work = matrix[:, self._order].copy()
        result = np.empty_like(work)
        for start in range(0, width, _BLOCK):
            stop = min(start + _BLOCK, width)
            lost = np.empty((len(matrix), stop - start, matrix.shape[2]))
            for row in range(start, stop):
                result[:, row] = np.clip(np.rint(work[:, row] / scale), -limit, limit) * scale
                lost[:, row - start] = (work[:, row] - result[:, row]) / factor[:, row, row, None]
                work[:, row + 1 : stop] -= factor[:, row, row + 1 : stop, None] * lost[:, None, row - start]
            work[:, stop:] -= factor[:, start:stop, stop:].transpose(0, 2, 1) @ lost
        back = np.empty_like(result)
        back[:, self._order] = result
        return back

    def error(self, matrix: Array, codes: Array) -> Array:
        """Mean squared error in the results of operands whose mean is zero, when `codes` stand for `matrix`, [O]."""
        difference = codes - matrix
        return np.asarray((difference * (self._covariance @ difference)).sum(1).reshape(-1))
