"""Arrays of samples kept in temporary files, so that many samples, or large ones, take no memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from sgs.numeric.quantise import Array


class StoredSample(Mapping[str, Array]):
    """Arrays by name, read from their files at every access. The files live as long as any sample beside them."""

    def __init__(self, folder: tempfile.TemporaryDirectory[str], number: int, arrays: Mapping[str, Array]) -> None:
        self._folder = folder
        self._files = {name: Path(folder.name) / f"{number}_{k}.npy" for k, name in enumerate(arrays)}
        for name, file in self._files.items():
            np.save(file, arrays[name], allow_pickle=False)

    def __getitem__(self, name: str) -> Array:
        return np.asarray(np.load(self._files[name], allow_pickle=False))

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def stored(samples: Iterable[Mapping[str, Array]]) -> list[StoredSample]:
    """The samples, moved to files one by one."""
    folder = tempfile.TemporaryDirectory(prefix="sgs_samples_")
    return [StoredSample(folder, number, arrays) for number, arrays in enumerate(samples)]
