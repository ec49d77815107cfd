"""What a comparison of two models found, as plain values: what `sgs.compare` measures and the reports show.

A is the reference, the model nearer to the source network; B is judged against it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Errors:
    """Of one tensor of B against its counterpart of A, over all samples, in real (dequantised) numbers.

    a are the values of A, b those of B, n their count:

    * `mse` Σ(a−b)²/n, `rmse` its root, `max_abs` max |a−b|;
    * `relative_l1` Σ|a−b| / Σ|a|: what the vendor's tools call "RMSE";
    * `cosine` Σab / √(Σa²·Σb²), 1 where both are all 0, 0 where one is;
    * `sqnr` 10·log₁₀(Σa² / Σ(a−b)²) in dB, at most 120.
    """

    elements: int
    mse: float
    rmse: float
    relative_l1: float
    cosine: float
    sqnr: float
    max_abs: float


@dataclass(frozen=True)
class ComparedLayer:
    """One tensor of B that has a counterpart in A.

    `name` is B's, `reference` A's; `operator` that of B which makes it; `bits` 8, 16 or 32 (real numbers, plain
    integers) that B holds it in, `weight_bits` those of the weights of a sum of products; `low` and `high` the real
    range of B's codes. `accumulated` is as it comes out of B; `isolated` with the layer alone fed from A, None where it
    is not measured. `jumps`: its values are others at once, so that decibels do not tell how good it is: integers, and
    what an operator selects.
    """

    name: str
    reference: str
    operator: str
    shape: tuple[int, ...]
    bits: int
    weight_bits: int | None
    low: float | None
    high: float | None
    accumulated: Errors
    isolated: Errors | None
    jumps: bool = False


@dataclass(frozen=True)
class Cause:
    """Why a layer is bad, and what helps: whole sentences."""

    layer: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class Comparison:
    """Two models side by side: `a` and `b` say what they are ("float .sim x_float.sim").

    `layers` come in B's execution order; `outputs` are those of them that are outputs of B; `unmatched` the tensors of
    B without a counterpart; `causes` start with the first bad layer, which is `first_bad` (None where there is none,
    and the causes lie in all of them together). Outputs that jump, or have no counterpart, are judged by what they are
    made from, the `stand_ins`: the nearest layers that can be.
    """

    a: str
    b: str
    samples: int
    layers: tuple[ComparedLayer, ...]
    outputs: tuple[str, ...]
    unmatched: tuple[str, ...]
    causes: tuple[Cause, ...]
    first_bad: str | None
    stand_ins: tuple[str, ...] = ()
