"""Arrays of samples kept in temporary files, so that many samples, or large ones, take no memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from sgs.numeric.quantise import Array


class StoredArray:
    """An array in a file of its own: its elements alone, as any number of threads may read them at a time.

    No .npy file: reading one parses its header as Python, which in CPython 3.11, once in a great while, fails when
    several threads do it ("AST constructor recursion depth mismatch").
    """

    def __init__(self, path: Path, array: Array) -> None:
        self._path, self._dtype, self._shape = path, array.dtype, array.shape
        array.tofile(path)

    def read(self) -> Array:
        return np.fromfile(self._path, self._dtype).reshape(self._shape)

    def remove(self) -> None:
        self._path.unlink()


class StoredSample(Mapping[str, Array]):
    """Arrays by name, read from their files at every access. The files live as long as any sample beside them."""

    def __init__(self, folder: tempfile.TemporaryDirectory[str], number: int, arrays: Mapping[str, Array]) -> None:
        self._folder = folder
        self._arrays = {
            name: StoredArray(Path(folder.name) / f"{number}_{k}", array)
            for k, (name, array) in enumerate(arrays.items())
        }

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def stored(samples: Iterable[Mapping[str, Array]]) -> list[StoredSample]:
    """The samples, moved to files one by one."""
    folder = tempfile.TemporaryDirectory(prefix="sgs_samples_")
    return [StoredSample(folder, number, arrays) for number, arrays in enumerate(samples)]
