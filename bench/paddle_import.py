"""ConvertTool on networks that Paddle saves, against Paddle's own results.

usage: PADDLE_PYTHON=python python bench/paddle_import.py [--networks NAME ...] [--out FILE]

PADDLE_PYTHON has paddlepaddle and paddle2onnx beside it; it writes the networks (bench/paddle_networks.py) to
build/paddle_networks, where they are looked for first. Per network: the largest difference of the float .sim from
Paddle, over the output's range, and the Transposes that are left.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from onnx_import import LIMIT_ERROR, ROOT, transposes, write_ini

sys.path.insert(0, str(ROOT / "Scripts"))

from sgs.engine import FloatEngine
from sgs.ir import Graph
from sgs.sim import read_sim

FOLDER = ROOT / "build" / "paddle_networks"
# Transposes that the networks' authors wrote, and that nothing can take up: of attention, of sequences, of scores that
# come out channels first.
ALLOWED = {"recogniser": 1, "detector": 1, "detector_open": 1, "encoder": 8}


def write_networks(python: str, names: list[str]) -> list[Path]:
    """The folders of the networks, written now where there are none yet."""
    if not any(FOLDER.glob("*/reference.npz")):
        subprocess.run([python, str(ROOT / "bench/paddle_networks.py"), str(FOLDER)], check=True, capture_output=True)
    folders = sorted(file.parent for file in FOLDER.glob("*/reference.npz"))
    return [folder for folder in folders if not names or folder.name in names]


def convert(model: Path, arrays: dict[str, Any], python: str, folder: Path) -> tuple[str, Graph | None]:
    """(last lines of the errors, float graph) of ConvertTool on a saved network."""
    fed = {key.removeprefix("in "): value for key, value in arrays.items() if key.startswith("in ")}
    outputs = [f"fetch_name_{index}" for index in range(len(arrays) - len(fed))]
    ini = write_ini(folder / "input_config.ini", {k: (v.dtype, v.shape) for k, v in fed.items()}, outputs)
    command = [sys.executable, str(ROOT / "Scripts/ConvertTool/ConvertTool.py"), "paddle", "--model_dir", str(model)]
    command += ["--input_config", str(ini), "--output_file", str(folder / "net_float.sim"), "--soc_version", "pcupid"]
    command += ["--skip_simplify", "--input_shapes", ":".join(",".join(map(str, v.shape)) for v in fed.values())]
    environment = {**os.environ, "SGS_PADDLE2ONNX": str(Path(python).parent / "paddle2onnx")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        return done.stderr.strip()[:2000], None
    return "", read_sim(folder / "net_float.sim").graph


def largest_error(graph: Graph, arrays: dict[str, Any]) -> float:
    """Largest |ours − Paddle's| over the output's range, over all outputs."""
    feeds = {}
    for name in graph.inputs:
        value = arrays[f"in {name}"]
        turned = value.transpose(0, 2, 3, 1) if value.ndim == 4 else value
        feeds[name] = np.ascontiguousarray(turned).astype(graph[name].dtype.numpy)
    found = FloatEngine(graph).run(feeds)
    worst = 0.0
    for index, name in enumerate(graph.outputs):
        truth = arrays[f"out {index}"]
        expected = truth.transpose(0, 2, 3, 1) if truth.ndim == 4 else truth
        if found[name].shape != expected.shape:
            return float("inf")
        worst = max(worst, float(np.abs(found[name] - expected).max() / max(np.ptp(expected), 1e-30)))
    return worst


def measure(model: Path, python: str) -> dict[str, Any]:
    """One network: what the columns of the table say."""
    record: dict[str, Any] = {"network": model.name}
    with np.load(model / "reference.npz") as file, tempfile.TemporaryDirectory() as name:
        arrays = dict(file)
        record["error"], graph = convert(model, arrays, python, Path(name))
    if graph is not None:
        record["transposes"] = transposes(graph)
        record["difference"] = largest_error(graph, arrays)
    return record


def missed(record: dict[str, Any]) -> list[str]:
    """The bars that a network misses."""
    if record["error"]:
        return ["not converted"]
    found = ["differs"] if not record["difference"] <= LIMIT_ERROR else []
    return found + ["transposes"] * (record["transposes"] > ALLOWED.get(record["network"], 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    python = os.environ.get("PADDLE_PYTHON")
    if not python:
        raise SystemExit("PADDLE_PYTHON names no Python with paddlepaddle and paddle2onnx")
    print("| network | difference | Transposes left | |\n|---|---|---|---|")
    records = []
    for folder in write_networks(python, options.networks):
        records.append(measure(folder, python))
        told = records[-1]
        if told["error"]:
            print(f"| {told['network']} | | | not converted |\n{told['error']}", flush=True)
        else:
            measured = f"{told['difference']:.1e} | {told['transposes']}"
            print(f"| {told['network']} | {measured} | {', '.join(missed(told))} |", flush=True)
    if options.out:
        options.out.write_text(json.dumps(records, indent=1), "utf-8")
    raise SystemExit(any(missed(record) for record in records))


if __name__ == "__main__":
    main()
