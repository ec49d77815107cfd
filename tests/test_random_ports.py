"""A sample of random inputs and outputs, and proof that wrong ones would be found. `make fuzz` checks many more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import random_ports
from random_ports import F32, KINDS, NV12, OPERATORS, S16, U8, U16, Case, RandomPorts
from sgs.numeric.quantise import Array
from sgs.pipelines import compile_fixed

SEEDS = range(8)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_ports(seed: int, tmp_path: Path) -> None:
    assert Case(seed, tmp_path).run().findings == []


def test_a_network_is_made_by_its_seed() -> None:
    models = [[RandomPorts(seed).model().SerializeToString() for seed in SEEDS] for _ in range(2)]
    assert models[0] == models[1] and len(set(models[0])) == len(SEEDS)


def test_seeds_come_by_everything() -> None:
    ports = [RandomPorts(seed) for seed in range(200)]
    told = Counter(item.told for made in ports for item in made.inputs)
    raw = {f"{form} {quantize}" for form in (F32, S16, U8) for quantize in ("TRUE", "FALSE")} | {f"{U16} TRUE"}
    assert set(told) == raw | {"RGB", "BGR", "GRAY", "RGBA", "BGRA", f"{NV12} grey", f"{NV12} colour"}
    left = {(keys["output_formats"], value.kind) for made in ports for value, keys in made.outputs}
    assert left == {(form, kind) for form in (F32, S16, U8) for kind in ("real", "whole", "truth")}
    ops = {node.op_type for made in ports for node in made.net.nodes}
    assert len(ops) > len({method for methods in OPERATORS.values() for method in methods})
    assert {len(made.inputs) for made in ports} == {len(kinds) for kinds in KINDS}


# -- what would be found -----------------------------------------------------------------------------------------------
def off_by_one(function: Callable[..., dict[str, Array]]) -> Callable[..., dict[str, Array]]:
    """A function whose results' first values are wrong."""

    def wrong(*operands: object, **options: object) -> dict[str, Array]:
        found = {name: value.copy() for name, value in function(*operands, **options).items()}
        for value in found.values():
            value.reshape(-1)[:1] += 1
        return found

    return wrong


SEED = 1  # its outputs follow from pictures


@pytest.mark.parametrize(
    ("place", "told"), [("run_reference", "engine, 1 threads"), ("execute", "byte machine"), ("_truth", "the source")]
)
def test_wrong_results_are_found(place: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if place == "_truth":
        monkeypatch.setattr(Case, place, lambda *operands: {n: -v for n, v in truth(*operands).items()})
    else:
        monkeypatch.setattr(random_ports, place, off_by_one(getattr(random_ports, place)))
    assert any(told in line for line in Case(SEED, tmp_path).run().findings)


truth = Case._truth


def test_a_look_at_what_nobody_may_see_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def everywhere(spec: object, board: Array, shape: object, rng: np.random.Generator) -> Array:
        return rng.integers(0, 256, board.shape).astype(np.uint8)

    monkeypatch.setattr(random_ports, "with_noise", everywhere)
    assert any(line.startswith("without noise") for line in Case(SEED, tmp_path).run().findings)


def test_crashes_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*operands: object, **options: object) -> None:
        compile_fixed(None, *operands[1:], **options)  # type: ignore[arg-type]

    monkeypatch.setattr(random_ports, "compile_fixed", fails)
    assert any("AttributeError" in line for line in Case(SEED, tmp_path).run().findings)
