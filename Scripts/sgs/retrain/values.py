"""Values between blocks, of all samples: in memory up to a limit, beyond it in temporary files."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

MEMORY = 1 << 29  # bytes that are kept in memory


class Values:
    """Tensors with an axis of samples in front, by key; rows are put and read in any order."""

    def __init__(self, memory: int = MEMORY) -> None:
        self._left = memory
        self._folder = tempfile.TemporaryDirectory(prefix="sgs_retrain_")
        self._held: dict[str, Tensor] = {}
        self._files: dict[str, Path] = {}
        self._count = 0

    def put(self, key: str, first: int, rows: Tensor, samples: int) -> None:
        """Put the rows from `first` on, of `samples` in all."""
        if key not in self._held:
            self._held[key] = self._made(key, (samples, *rows.shape[1:]), rows.dtype)
        self._held[key][first : first + len(rows)] = rows.cpu()

    def rows(self, key: str, index: Sequence[int] | slice, device: torch.device) -> Tensor:
        """Some rows, on a device."""
        return self._held[key][index].to(device)

    def __contains__(self, key: str) -> bool:
        return key in self._held

    def drop(self, key: str) -> None:
        value = self._held.pop(key)
        if key in self._files:
            self._files.pop(key).unlink()
        else:
            self._left += value.nbytes

    def _made(self, key: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        empty = torch.empty(0, dtype=dtype)
        size = int(np.prod(shape)) * empty.element_size()
        if size <= self._left:
            self._left -= size
            return torch.empty(shape, dtype=dtype)
        self._count += 1
        self._files[key] = Path(self._folder.name) / f"{self._count}.bin"
        return torch.from_numpy(np.memmap(self._files[key], empty.numpy().dtype, "w+", shape=shape))
