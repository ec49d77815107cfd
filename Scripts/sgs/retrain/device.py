"""Which torch device a retraining runs on, and how."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sgs.config.quant_config import STAGE
from sgs.errors import UserError


def device_of(asked: str) -> torch.device:
    """The device of a name (cpu, cuda, cuda:1); of "" the GPU with the largest share of its memory free, without one
    the CPU. Raises UserError for one that is not there."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    kind, _, index = asked.partition(":")
    if asked == "cpu" or (not asked and not count):
        return torch.device("cpu")
    if count and asked in ("", "cuda"):
        return torch.device("cuda", max(range(count), key=_free))
    if kind == "cuda" and index.isdecimal() and int(index) < count:
        return torch.device(asked)
    there = f"there are {count} GPUs" if count else "torch sees no GPU here"
    raise UserError(f"device {asked}: {there}", stage=STAGE, remedy="write device: cpu, or leave it out")


def _free(index: int) -> float:
    free, total = torch.cuda.mem_get_info(index)
    return float(free / total)


@contextmanager
def repeatable() -> Iterator[None]:
    """While it lasts, cuDNN computes the same bits from the same numbers, in whole binary32."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False):
        yield
