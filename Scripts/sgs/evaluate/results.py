"""The simulator's result files, one a sample.

Names: `<category>_<model file>_<picture file>.txt`, the category in lower case. Contents are read by other people's
scripts: the lines below are a contract.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from sgs.data.images import Sample
from sgs.numeric.quantise import Array

BEST = 5  # classes in a classification result
PER_LINE = 16  # values in a line of an unknown result

Ranked = list[tuple[int, float]]


def ranked(scores: Array, count: int = BEST) -> Ranked:
    """The classes with the highest scores, best first; of equal ones the lower index first."""
    flat = scores.reshape(-1)
    order = np.argsort(-flat.astype(np.float64), kind="stable")[:count]
    return [(int(index), float(flat[index])) for index in order]


def classification_text(picture: str, best: Ranked) -> str:
    """The picture's name, then `<index> <score>` a line."""
    return "\n".join([picture, *(f"{index} {score:.6f}" for index, score in best)]) + "\n"


def unknown_text(outputs: Mapping[str, Array]) -> str:
    """Every value of every output; outputs of any rank, as real numbers."""
    return "".join(f"{line}\n" for name, values in outputs.items() for line in _unknown_lines(name, values))


def _unknown_lines(name: str, values: Array) -> Iterator[str]:
    shape = " ".join(map(str, values.shape))
    yield f"{name} Tensor:"
    yield "{"
    yield f"tensor dim:{values.ndim}, Original shape:[{shape}]"
    yield "tensor data:"
    flat = values.reshape(-1).tolist()
    for start in range(0, len(flat), PER_LINE):
        yield " ".join(f"{value:.6f}" for value in flat[start : start + PER_LINE])
    yield "}"


# -- names -------------------------------------------------------------------------------------------------------------
def result_name(category: str, model: Path, picture: str) -> str:
    """Name of a result file."""
    return f"{category.lower()}_{model.name}_{picture}.txt"


def picture_names(samples: Sequence[Sample]) -> list[str]:
    """What results of the samples are called: the first input's file name, where needed with its folders or a number.

    Only equal samples get equal names.
    """
    paths = [Path(os.path.abspath(sample[0])) for sample in samples]
    counts = Counter(path.name for path in dict.fromkeys(paths))
    repeated = [path for path in paths if counts[path.name] > 1]
    common = Path(os.path.commonpath([path.parent for path in repeated])) if repeated else Path()
    names: dict[Sample, str] = {}
    taken: set[str] = set()
    for sample, path in zip(samples, paths, strict=True):
        stem = "_".join(path.relative_to(common).parts) if counts[path.name] > 1 else path.name
        if sample not in names:
            names[sample] = next(name for name in _numbered(stem) if name not in taken)
            taken.add(names[sample])
    return [names[sample] for sample in samples]


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    yield from (f"{stem}_{number}" for number in count(2))
