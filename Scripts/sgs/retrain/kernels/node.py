"""What a kernel is made from: one node's attributes and constant operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from sgs.numeric.quantise import Array

Constants = Sequence["Array | None"]
# (attributes, value of every operand that is a constant) → (tensors of all operands, None where one is absent) →
# the result, or all of them in a tuple
Make = Callable[[Mapping[str, Any], Constants], Callable[..., Any]]


def read(attributes: Mapping[str, Any], *required: str, **defaults: Any) -> SimpleNamespace:
    """The attributes by name. Raises ValueError for one that is missing, and for one that the kernel does not know."""
    missing, unknown = set(required) - set(attributes), set(attributes) - set(required) - set(defaults)
    if missing or unknown:
        raise ValueError(f"attributes missing: {sorted(missing)}, not supported: {sorted(unknown)}")
    return SimpleNamespace(**{**defaults, **attributes})


def constant(constants: Constants, index: int) -> Array:
    """The value of an operand that is read as numbers. Raises ValueError where it is computed or absent."""
    value = constants[index] if index < len(constants) else None
    if value is None:
        raise ValueError(f"operand {index} is not a constant")
    return value


def integers(constants: Constants, index: int) -> list[int]:
    """Such an operand as a list of integers: a shape, axes, pads, steps."""
    return [int(v) for v in constant(constants, index).reshape(-1)]


def plain(function: Callable[..., Any]) -> Make:
    """A primitive without attributes, that reads no operand as numbers."""

    def make(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Any]:
        read(attributes)
        return function

    return make
