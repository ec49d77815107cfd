"""What the tests want of TensorFlow, in a process of its own: `python tensorflow_worker.py FOLDER` makes networks in
the folder, converts each in this one process, and says in FOLDER/results.pkl what TensorFlow itself computes."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np

import tensorflow_layers as layers
from sgs.errors import UserError
from sgs.frontends.platforms import Asked, platform_named
from sgs.frontends.tensorflow.child import Answer, Request
from sgs.frontends.tensorflow.convert import convert


def random_for(spec: Any, rng: Any) -> Any:
    shape = [1 if extent is None else extent for extent in spec.shape]
    return rng.uniform(-1, 1, shape).astype(np.float32)


def convert_file(platform: str, path: Path, asked: Asked, **values: Any) -> Answer | UserError:
    row = platform_named(platform, stage="test")
    request = Request(platform, path, row.complete({row.options[0].name: path, **values}), asked)
    try:
        return convert(request)
    except UserError as error:
        return error


def layer_group(name: str, folder: Path) -> dict[str, Any]:
    model = layers.group(name)
    x = random_for(model.inputs[0], np.random.default_rng(3))
    path = folder / f"{name}.keras"
    model.save(path)
    names = [f"{row}_out" for row in layers.GROUPS[name][1]]
    answer = convert_file("keras", path, Asked(("x",), tuple(names)))
    wanted = dict(zip(names, map(np.asarray, model(x, training=False)), strict=True))
    return {"answer": answer, "feeds": {"x": x}, "wanted": wanted}


def main() -> None:
    folder = Path(sys.argv[1])
    results = {name: layer_group(name, folder) for name in layers.GROUPS}
    (folder / "results.pkl").write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    main()
