"""Weights found for the operands that there are: moments, bias, regression and second-order rounding.

Judged by plain loops, least squares of numpy, all possible roundings, and GPTQ as its paper writes it down.
"""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest

from sgs.numeric.quantise import Array
from sgs.quant.rounding import Moments, Pairs, Rounder, regressed, rounded, squared_error

SHAPES = [(1, 150, 7), (1, 36, 5), (4, 18, 3), (64, 9, 1), (10, 9, 2)]  # G, D, O/G; more than a block, depthwise too


def operands(shape: tuple[int, int, int], positions: int, seed: int = 0) -> Array:
    """[P, G, D]: a third as many causes as operands, and a little of their own; means and powers differ."""
    groups, width, _ = shape
    rng = np.random.default_rng(seed)
    causes = rng.normal(0, 1, (positions, groups, max(width // 3, 1)))
    mixed = np.einsum("pgk,gkd->pgd", causes, np.random.default_rng(99).normal(0, 1, (groups, causes.shape[2], width)))
    power, mean = np.linspace(0.5, 2, width), np.linspace(-1, 3, width)
    return np.asarray((mixed + 0.2 * rng.normal(0, 1, mixed.shape)) * power + mean, np.float32)


def weights(shape: tuple[int, int, int], seed: int = 5) -> Array:
    return np.random.default_rng(seed).normal(0, 0.3, shape)


def moments_of(*pairs: Pairs) -> Moments:
    moments = Moments()
    for one in pairs:
        moments.add(one)
    return moments


def products(values: Array, matrix: Array) -> Array:
    """[P, G, O/G] of operands [P, G, D], float64."""
    return np.asarray(np.einsum("pgd,gdo->pgo", values.astype(np.float64), matrix))


def scale_of(matrix: Array, limit: int) -> Array:
    return np.asarray(np.abs(matrix).max(1) / limit)  # [G, O/G]


def decibels(better: float, worse: float) -> float:
    return float(10 * np.log10(worse / better))


# -- moments -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cuts", [(0, 300), (0, 100, 200, 300), (0, 1, 300), (0, 299, 300), tuple(range(0, 301, 12))])
def test_moments_are_the_same_however_positions_are_split(shape: tuple[int, int, int], cuts: tuple[int, ...]) -> None:
    x, matrix = operands(shape, 300) + 40, weights(shape)  # a mean far above the deviation
    y = products(x, matrix) + 7
    moments = moments_of(*(Pairs(x[a:b], y[a:b]) for a, b in pairwise(cuts)))
    for group in range(shape[0]):
        whole = np.cov(x[:, group].T.astype(np.float64), y[:, group].T, bias=True)
        width = shape[1]
        size = np.abs(whole[:width, :width]).max(), np.abs(whole[:width, width:]).max()
        np.testing.assert_allclose(moments.covariance()[group], whole[:width, :width], rtol=0, atol=3e-5 * size[0])
        np.testing.assert_allclose(moments.cross()[group], whole[:width, width:], rtol=0, atol=3e-5 * size[1])


@pytest.mark.parametrize("shape", [(1, 20, 6), (5, 9, 2)])
def test_squared_error_is_that_of_plain_loops(shape: tuple[int, int, int]) -> None:
    groups, _, outputs = shape
    rng = np.random.default_rng(3)
    held = [Pairs(operands(shape, n, n), rng.normal(0, 1, (n, groups, outputs))) for n in (4, 11)]
    matrix, bias = weights(shape), rng.normal(0, 1, groups * outputs)
    total = 0.0
    for pairs in held:
        for row, wanted in zip(pairs.operands, pairs.wanted, strict=True):
            for g in range(groups):
                for o in range(outputs):
                    found = float(row[g].astype(np.float64) @ matrix[g, :, o]) + bias[g * outputs + o]
                    total += (found - wanted[g, o]) ** 2
    assert squared_error(held, matrix, bias) == pytest.approx(total, rel=1e-5)
    assert squared_error([], matrix, bias) == 0


# -- bias --------------------------------------------------------------------------------------------------------------
def shifted(shifts: list[float], positions: list[int], *, means: bool) -> tuple[Moments, Array]:
    """Samples of a grouped sum that lack these numbers, times 1 … 6 by output channel; and the weights."""
    shape = (3, 8, 2)
    matrix, moments = weights(shape), Moments(means=means)
    for seed, (shift, count) in enumerate(zip(shifts, positions, strict=True)):
        x = operands(shape, count, seed).astype(np.float64)
        moments.add(Pairs(x, products(x, matrix) + shift * np.arange(1, 7).reshape(3, 2)))
    return moments, matrix


@pytest.mark.parametrize("means", [False, True])
@pytest.mark.parametrize(
    ("shifts", "kept"),
    [
        ([2.0], 2.0),  # nothing to compare with
        ([2.0, 2.0, 2.0], 2.0),
        ([1.0, 3.0], 1.5),  # mean 2, s² / S = 2 / 2, 2 · (1 - 1 / 4)
        ([1.0, 2.0, 6.0], 3 * (1 - 7 / 3 / 9)),
        ([-4.0, 4.0], 0.0),
        ([-3.0, 4.0], 0.0),  # scatters by more than it is
    ],
)
def test_the_bias_is_the_mean_shift_as_far_as_samples_agree(shifts: list[float], kept: float, means: bool) -> None:
    moments, matrix = shifted(shifts, [5, 40, 17][: len(shifts)], means=means)
    np.testing.assert_allclose(moments.bias(matrix), kept * np.arange(1, 7), rtol=1e-6, atol=1e-6)


def test_the_bias_takes_out_what_rounded_weights_shift() -> None:
    shape = (1, 20, 6)
    x, matrix = operands(shape, 500), weights(shape)
    coarse = rounded(matrix, scale_of(matrix, 7), 7)
    bias = moments_of(Pairs(x, products(x, matrix))).bias(coarse)
    left = products(x, coarse) + bias - products(x, matrix)
    assert np.abs(left.mean(0)).max() < 1e-6 < 0.01 < np.abs(bias).max()


# -- regression --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_regression_is_least_squares_held_to_the_weights(shape: tuple[int, int, int], ridge: float) -> None:
    groups, width, outputs = shape
    rng = np.random.default_rng(1)
    x, matrix = operands(shape, 400), weights(shape)
    y = products(x, weights(shape, 6)) + rng.normal(0, 0.5, (400, groups, outputs))
    found = regressed(moments_of(Pairs(x, y)), matrix, ridge)
    for g in range(groups):
        centred = (x[:, g] - x[:, g].mean(0)).astype(np.float64)
        strength = np.sqrt(400 * ridge * centred.var(0).mean())
        rows = np.concatenate([centred, strength * np.eye(width)])
        wanted = np.concatenate([y[:, g] - y[:, g].mean(0), strength * matrix[g]])
        np.testing.assert_allclose(found[g], np.linalg.lstsq(rows, wanted, rcond=None)[0], rtol=0, atol=2e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_regression_goes_from_the_true_weights_to_the_given_ones(shape: tuple[int, int, int]) -> None:
    x, truth, given = operands(shape, 2000), weights(shape), weights(shape, 6)
    moments = moments_of(Pairs(x, products(x, truth)))
    far = [np.abs(regressed(moments, given, ridge) - truth).max() for ridge in (1e-7, 1e-1, 1e9)]
    assert far[0] < 2e-3 < far[1] < far[2] and far[2] == pytest.approx(np.abs(given - truth).max(), rel=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_fitted_to_noisy_operands_do_better_with_noise_of_its_kind(shape: tuple[int, int, int]) -> None:
    groups, width, _ = shape
    matrix, noise = weights(shape), np.random.default_rng(2)
    pairs = []
    for seed, count in ((0, 6000), (1, 1000)):
        x = operands(shape, count, seed)
        noisy = (x + noise.normal(0, 0.7, x.shape)).astype(np.float32)
        pairs.append(Pairs(noisy, products(x, matrix)))
    fit, fresh = moments_of(pairs[0]), pairs[1]
    found = regressed(fit, matrix, 1e-4)
    errors = [squared_error([fresh], m, fit.bias(m)) for m in (found, matrix)]
    assert decibels(*errors) > 2
    x = operands(shape, 6000, 0)
    clean = np.stack([np.cov(x[:, g].T, bias=True).reshape(width, width) for g in range(groups)])
    expected = np.linalg.solve(clean + 0.49 * np.eye(width), clean @ matrix)  # what it must be: shrunk where noise is
    assert np.abs(found - expected).max() < 0.1 * np.abs(matrix).max()


# -- rounding ----------------------------------------------------------------------------------------------------------
def textbook(matrix: Array, scale: Array, limit: int, hessian: Array, order: Array) -> Array:
    """GPTQ, equations 2 and 3 of the paper: one row [O] of the weights [D, O] after another, the inverse of the
    Hessian of what is left by elimination."""
    work, inverse, result = matrix.copy(), np.linalg.inv(hessian), np.empty_like(matrix)
    for row in order:
        result[row] = np.clip(np.rint(work[row] / scale), -limit, limit) * scale
        pivot = inverse[row, row]
        work -= np.outer(inverse[:, row], (work[row] - result[row]) / pivot)
        inverse = inverse - np.outer(inverse[:, row], inverse[row]) / pivot
    return result


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("limit", [7, 127])
def test_second_order_rounding_is_that_of_the_paper(shape: tuple[int, int, int], limit: int) -> None:
    x, matrix = operands(shape, 800), weights(shape)
    scale = scale_of(matrix, limit) * 0.7  # so that some are clamped
    covariance = moments_of(Pairs(x, products(x, matrix))).covariance()
    found = Rounder(covariance, 0.02)(matrix, scale, limit)
    power = np.einsum("gdd->gd", covariance)
    order = np.argsort(-power.sum(0), kind="stable")
    for g in range(shape[0]):
        hessian = covariance[g] + 0.02 * power[g].mean() * np.eye(shape[1])
        wanted = textbook(matrix[g], scale[g], limit, hessian, order)
        assert np.array_equal(np.rint(found[g] / scale[g]), np.rint(wanted / scale[g]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("limit", [7, 127])
def test_second_order_rounding_loses_less_than_nearest(shape: tuple[int, int, int], limit: int) -> None:
    x, fresh, matrix = operands(shape, 2000), operands(shape, 500, 1), weights(shape)
    scale, pairs = scale_of(matrix, limit), Pairs(x, products(x, matrix))
    moments = moments_of(pairs)
    together = Rounder(moments.covariance())(matrix, scale, limit)
    nearest = rounded(matrix, scale, limit)
    for judge in (pairs, Pairs(fresh, products(fresh, matrix))):
        errors = [squared_error([judge], m, moments.bias(m)) for m in (together, nearest)]
        assert decibels(*errors) > 3  # operands of a third as many causes


@pytest.mark.parametrize("shape", SHAPES)
def test_rounded_weights_are_codes(shape: tuple[int, int, int]) -> None:
    matrix = weights(shape)
    covariance = moments_of(Pairs(operands(shape, 300), np.zeros((300, shape[0], shape[2])))).covariance()
    for limit, share in ((127, 1.0), (127, 0.3), (7, 0.5)):
        scale = scale_of(matrix, limit) * share
        for found in (rounded(matrix, scale, limit), Rounder(covariance)(matrix, scale, limit)):
            codes = found / scale[:, None]
            assert np.abs(codes - np.rint(codes)).max() < 1e-9 and np.abs(codes).max() <= limit + 1e-9
        assert np.abs(rounded(matrix, scale, limit) - matrix).max() <= (scale.max() / 2 if share == 1 else np.inf)


def test_groups_have_nothing_to_do_with_each_other() -> None:
    shape = (6, 9, 2)
    x, matrix = operands(shape, 400), weights(shape)
    covariance, scale = moments_of(Pairs(x, products(x, matrix))).covariance(), scale_of(matrix, 7)
    found = Rounder(covariance)(matrix, scale, 7)
    turned = Rounder(covariance[::-1])(matrix[::-1], scale[::-1], 7)
    assert np.array_equal(turned[::-1], found)
    other = matrix.copy()
    other[2] = weights(shape, 7)[2]
    changed = Rounder(covariance)(other, scale, 7)
    assert [np.array_equal(changed[g], found[g]) for g in range(6)] == [True, True, False, True, True, True]


def test_second_order_rounding_comes_close_to_the_best_that_there_is() -> None:
    """All roundings of four weights to -2 … 2, many times."""
    shape, every = (1, 4, 1), np.array(list(product(range(-2, 3), repeat=4)), np.float64)
    losses = np.zeros(3)
    for seed in range(100):
        x, matrix = operands(shape, 60, seed), weights(shape, seed)
        covariance, scale = moments_of(Pairs(x, products(x, matrix))).covariance(), scale_of(matrix, 2)

        def loss(candidates: Array, matrix: Array = matrix, covariance: Array = covariance) -> Array:
            off = candidates - matrix[0, :, 0]
            return np.asarray(np.einsum("nd,de,ne->n", off, covariance[0], off))

        found = Rounder(covariance, 1e-6)(matrix, scale, 2)[0, :, 0]
        ways = [every * scale[0, 0], found[None], rounded(matrix, scale, 2)[0, :, 0][None]]
        best, ours, nearest = (float(loss(way).min()) for way in ways)
        assert best <= ours + 1e-12
        losses += best, ours, nearest
    assert losses[0] < losses[1] < 0.5 * losses[2]


@pytest.mark.parametrize("shape", [(1, 12, 3), (5, 9, 1)])
def test_operands_that_never_change_are_rounded_to_nearest(shape: tuple[int, int, int]) -> None:
    x, matrix = operands(shape, 200), weights(shape)
    x[:, 0] = 3.0  # a whole group
    x[..., 4] = 0.0  # one operand of every other
    covariance, scale = moments_of(Pairs(x, products(x, matrix))).covariance(), scale_of(matrix, 7)
    found, nearest = Rounder(covariance)(matrix, scale, 7), rounded(matrix, scale, 7)
    assert np.array_equal(found[0], nearest[0]) and np.array_equal(found[:, 4], nearest[:, 4])
    with pytest.raises(np.linalg.LinAlgError):
        Rounder(covariance, 0.0)(matrix, scale, 7)
