"""Which torch device a retraining runs on."""

from __future__ import annotations

import torch

from sgs.errors import UserError

STAGE = "quant_config"


def device_of(asked: str) -> torch.device:
    """The device of a name (cpu, cuda, cuda:1); of "" the GPU with the largest share of its memory free, without one
    the CPU. Raises UserError for one that is not there."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "cpu" or (not asked and not count):
        return torch.device("cpu")
    if not asked or asked == "cuda":
        if count:
            return torch.device("cuda", max(range(count), key=_free))
    elif int(asked.partition(":")[2]) < count:
        return torch.device(asked)
    there = f"there are {count} GPUs" if count else "torch sees no GPU here"
    raise UserError(f"device {asked}: {there}", stage=STAGE, remedy="write device: cpu, or leave it out")


def _free(index: int) -> float:
    free, total = torch.cuda.mem_get_info(index)
    return float(free / total)
