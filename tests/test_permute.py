"""Permutations and reshapes against numpy, on random shapes with many extents of 1."""

import numpy as np
import pytest

from sgs.ir import permute


def factors(rng: np.random.Generator, number: int) -> tuple[int, ...]:
    """A random shape with this many elements, units strewn in."""
    shape = [1] * int(rng.integers(0, 3))
    while number > 1 and len(shape) < 6:
        divisors = [d for d in range(2, number + 1) if number % d == 0]
        shape.append(int(rng.choice(divisors)))
        number //= shape[-1]
    shape.append(number)
    return tuple(int(d) for d in rng.permutation(shape))


@pytest.mark.parametrize("seed", range(20))
def test_transposes_move_behind_reshapes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    passed = 0
    for _ in range(100):
        shape = rng.integers(1, 5, rng.integers(1, 6))
        x = np.arange(np.prod(shape)).reshape(shape)
        perm = tuple(int(axis) for axis in rng.permutation(x.ndim))
        turned = x.transpose(perm)
        target = factors(rng, turned.size)
        moved = permute.reshape_first(turned.shape, perm, target)
        if moved is None:
            turn = permute.gather_runs(turned.shape, perm, target)
            x, perm = x.transpose(turn), permute.compose(permute.inverse(turn), perm)
            assert np.array_equal(x.transpose(perm), turned)
            moved = permute.reshape_first(turned.shape, perm, target)
        else:
            passed += 1
        assert moved is not None
        assert np.array_equal(x.reshape(moved[0]).transpose(moved[1]), turned.reshape(target))
    assert 10 < passed < 95, "the sample must hold both cases"


def test_compose_and_inverse() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 5))
    for _ in range(50):
        first, second = (tuple(int(a) for a in rng.permutation(4)) for _ in range(2))
        both = permute.compose(first, second)
        assert np.array_equal(x.transpose(first).transpose(second), x.transpose(both))
        assert permute.is_identity(permute.compose(first, permute.inverse(first)))
        assert permute.permuted(x.shape, first) == x.transpose(first).shape


@pytest.mark.parametrize(
    ("shape", "perm", "free"),
    [
        ((1, 5, 1, 1), (0, 2, 3, 1), True),
        ((1, 1, 7, 5), (0, 2, 3, 1), True),
        ((1, 3, 7, 5), (0, 2, 3, 1), False),
        ((2, 1, 1, 5), (3, 0, 1, 2), False),
        ((), (), True),
    ],
)
def test_moving_only_units_is_a_reshape(shape: tuple[int, ...], perm: tuple[int, ...], free: bool) -> None:
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    assert permute.moves_only_units(shape, perm) == free
    assert np.array_equal(x.transpose(perm).reshape(-1), x.reshape(-1)) == free


def test_reshapes_keep_leading_units_in_front() -> None:
    assert permute.reshape_first((1, 8, 5, 7), (0, 3, 1, 2), (1, 8, 35)) == ((1, 35, 8), (0, 2, 1))
    assert permute.reshape_first((1, 8, 5, 7), (0, 3, 1, 2), (4, 2, 35)) == ((35, 4, 2), (1, 2, 0))
    assert permute.reshape_first((1, 8, 5, 7), (0, 3, 1, 2), (1, 280)) is None
    assert permute.reshape_first((0, 8), (1, 0), (8, 0)) is None
    with pytest.raises(ValueError, match="cannot reshape"):
        permute.reshape_first((2, 3), (1, 0), (4, 2))
