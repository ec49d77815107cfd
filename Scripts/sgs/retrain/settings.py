"""What a retraining is asked to do. No torch here, so that callers need none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sgs.quant.gather import Wrap, plain


@dataclass(frozen=True)
class Settings:
    """`iterations`: how often every block sees all samples. `scales`: what codes of weights and activations stand for
    is learned as well, beside weights and biases. `device` as torch names it ("": an idle GPU, else the CPU). `batch`:
    samples that are looked at together, at most. `pinned`: activations whose ranges stay and, as `<result>/weight`,
    sums of products whose weights do. `folder` for what has been done so far, from which a later call with the same
    settings goes on (None: nowhere). `wrap` shows progress.
    """

    iterations: int = 40
    scales: bool = False
    device: str = ""
    batch: int = 100
    seed: int = 0
    pinned: frozenset[str] = frozenset()
    folder: Path | None = None
    wrap: Wrap = plain
