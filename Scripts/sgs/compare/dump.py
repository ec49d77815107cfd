"""Tensors of a stage as an .npz file, and as a table.

The file is what numpy.load opens: an array for every tensor under the tensor's own name, and under `RECORD` the bytes
of a JSON text that says what they are. Arrays are written as they come, so memory does not grow with the network.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgs.compare.stage import Stage, StageTensor
from sgs.data.files import atomic_output
from sgs.numeric.quantise import Array
from sgs.report.columns import aligned

RECORD = "tensors.json"
Facts = dict[str, Any]


def tensor_facts(tensor: StageTensor) -> Facts:
    """What the record and the list say of a tensor."""
    quant = tensor.quant
    return {
        "name": tensor.name,
        "shape": None if tensor.shape is None else list(tensor.shape),
        "dtype": tensor.dtype,
        "operator": tensor.operator,
        "scale": None if quant is None else [float(scale) for scale in quant.scale],
        "zero_point": None if quant is None else [int(zero) for zero in quant.zero_point],
        "axis": None if quant is None or quant.per_tensor else quant.axis,
    }


def stage_facts(stage: Stage, names: Collection[str]) -> Facts:
    """What the record and the list say of a stage and these tensors of it."""
    return {
        "model": stage.path.name,
        "kind": stage.kind,
        "values_of": stage.runner,
        "tensors": [tensor_facts(stage.described[name]) for name in names],
        "left_out": dict(stage.missing),
    }


def table(facts: Facts) -> list[str]:
    """The list as text."""
    rows = [["tensor", "shape", "type", "scale", "zero point", "operator"]]
    for one in facts["tensors"]:
        shape = "?" if one["shape"] is None else f"[{','.join(map(str, one['shape']))}]"
        scale, zero = (_numbers(one[key]) for key in ("scale", "zero_point"))
        rows.append([one["name"], shape, one["dtype"], scale, zero, one["operator"] or "input or constant"])
    left_out = [f"{name}: left out: {reason}" for name, reason in facts["left_out"].items()]
    return [f"{facts['kind']} model, values of {facts['values_of']}", *aligned(rows), *left_out]


def _numbers(values: Sequence[float] | None) -> str:
    if values is None:
        return "-"
    return f"{values[0]:.7g}" if len(values) == 1 else f"{len(values)} channels"


def write_dump(path: Path, values: Iterable[tuple[str, Array]], record: Facts) -> None:
    """Write the arrays as they come, then the record. The same ones make the same bytes. Raises UserError."""
    with atomic_output(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, value in values:
            # a ZipInfo made by hand has a date of its own, 1980, and takes names as they are
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(value, order="C"), allow_pickle=False)
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        archive.writestr(zipfile.ZipInfo(RECORD), text.encode())
