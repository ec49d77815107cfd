"""ConvertTool on networks that PyTorch exports, beside onnx2tf.

usage: TORCH_PYTHON=python ONNX2TF_PYTHON=python python bench/onnx_import.py [--networks NAME ...] [--out FILE]

TORCH_PYTHON has torch, torchvision and onnxscript and writes the networks (bench/torch_networks.py) to
build/torch_networks, where they are looked for first; ONNX2TF_PYTHON has onnx2tf and tensorflow, and is left out where
it is not given. Per network: seconds of the whole ConvertTool process and of the whole onnx2tf process, run one after
the other; the largest difference of the float .sim from onnxruntime, over the output's range; Transposes in the source
and in the .sim.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "Scripts"))

from sgs.engine import FloatEngine  # noqa: E402
from sgs.ir import Graph  # noqa: E402
from sgs.sim import read_sim  # noqa: E402

FOLDER = ROOT / "build" / "torch_networks"
# fmt: off
CONVOLUTIONAL = frozenset((
    "resnet18", "mobilenet_v3_small", "efficientnet_b0", "regnet_y_400mf", "shufflenet_v2_x1_0", "densenet121",
    "unet", "yolo_like",
))
# fmt: on
LIMIT_SECONDS, LIMIT_ERROR = 3.0, 1e-3


def write_networks(names: list[str]) -> list[Path]:
    """The exported networks, written now where they are not there yet."""
    if not any(FOLDER.glob("*.onnx")):
        python = os.environ.get("TORCH_PYTHON")
        if not python:
            raise SystemExit("TORCH_PYTHON names no Python with torch, torchvision and onnxscript")
        subprocess.run([python, str(ROOT / "bench/torch_networks.py"), str(FOLDER)], check=True, capture_output=True)
    files = sorted(FOLDER.glob("*.onnx"))
    return [file for file in files if not names or any(file.stem.startswith(name) for name in names)]


def ports(model: onnx.ModelProto) -> tuple[dict[str, tuple[Any, tuple[int, ...]]], list[str]]:
    """(input name → (element type, shape), output names) of a model with static shapes."""
    inputs = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        inputs[value.name] = (dtype, tuple(dim.dim_value for dim in kind.shape.dim))
    return inputs, [value.name for value in model.graph.output]


def write_ini(path: Path, inputs: dict[str, tuple[Any, tuple[int, ...]]], outputs: list[str]) -> Path:
    kinds = ["RAWDATA_F32_NHWC" if np.dtype(dtype).kind == "f" else "RAWDATA_S16_NHWC" for dtype, _ in inputs.values()]
    told = {
        "INPUT_CONFIG": {
            "inputs": ",".join(inputs),
            "training_input_formats": ",".join(kinds),
            "input_formats": ",".join(kinds),
        },
        "OUTPUT_CONFIG": {"outputs": ",".join(outputs)},
    }
    lines = [f"[{section}]\n" + "".join(f"{k}={v};\n" for k, v in keys.items()) for section, keys in told.items()]
    path.write_text("".join(lines), "utf-8")
    return path


def feeds_for(inputs: dict[str, tuple[Any, tuple[int, ...]]]) -> dict[str, Any]:
    """Random pictures, small numbers where integers are read."""
    rng = np.random.default_rng(5)
    return {
        name: rng.uniform(0, 1, shape).astype(dtype) if np.dtype(dtype).kind == "f" else rng.integers(0, 200, shape)
        for name, (dtype, shape) in inputs.items()
    }


def largest_error(graph: Graph, file: Path, feeds: dict[str, Any]) -> float:
    """Largest |ours − onnxruntime's| over the output's range, over all outputs."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    truth = dict(zip(names, session.run(names, feeds), strict=True))
    ours = {}
    for name, value in feeds.items():
        turned = value.transpose(0, 2, 3, 1) if value.ndim == 4 else value
        ours[name] = np.ascontiguousarray(turned).astype(graph[name].dtype.numpy)
    worst = 0.0
    for name, value in FloatEngine(graph).run(ours).items():
        expected = truth[name].transpose(0, 2, 3, 1) if truth[name].ndim == 4 else truth[name]
        worst = max(worst, float(np.abs(value - expected).max() / max(np.ptp(expected), 1e-30)))
    return worst


def convert(file: Path, folder: Path) -> tuple[float, str, Graph | None]:
    """(seconds, last line of the errors, float graph) of ConvertTool on a file, skipping the simplifier."""
    model = onnx.load(file, load_external_data=False)
    ini = write_ini(folder / "input_config.ini", *ports(model))
    command = [sys.executable, str(ROOT / "Scripts/ConvertTool/ConvertTool.py"), "onnx", "--model_file", str(file)]
    command += ["--input_config", str(ini), "--output_file", str(folder / "net_float.sim")]
    command += ["--soc_version", "pcupid", "--skip_simplify"]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        return seconds, done.stderr.strip()[:2000], None
    return seconds, "", read_sim(folder / "net_float.sim").graph


def peer_seconds(file: Path, folder: Path) -> tuple[float, str] | None:
    """(seconds, how it ended) of onnx2tf on a file."""
    python = os.environ.get("ONNX2TF_PYTHON")
    if not python:
        return None
    command = [python, "-m", "onnx2tf", "-i", str(file.resolve()), "-o", str(folder / "peer"), "-n", "-nuo"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    # pictures that it would fetch from the network, for a check of its own
    np.save(folder / "calibration_image_sample_data_20x128x128x3_float32.npy", np.zeros((20, 128, 128, 3), np.float32))
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=600)
    except subprocess.TimeoutExpired:
        return 600.0, "timeout"
    made = any((folder / "peer").glob("*.tflite"))
    return time.perf_counter() - start, "" if made else (done.stderr or done.stdout).strip().splitlines()[-1][:120]


def transposes(graph: Graph | onnx.GraphProto) -> int:
    if isinstance(graph, Graph):
        return sum(node.op == "TRANSPOSE" for node in graph.nodes)
    return sum(node.op_type == "Transpose" for node in graph.node)


def measure(file: Path) -> dict[str, Any]:
    """One network: what the columns of the table say."""
    model = onnx.load(file)
    record: dict[str, Any] = {"network": file.stem, "nodes": len(model.graph.node), "source": transposes(model.graph)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record["seconds"], record["error"], graph = convert(file, folder)
        peer = peer_seconds(file, folder)
        if peer is not None:
            record["peer_seconds"], record["peer_error"] = peer
    if graph is not None:
        record["transposes"] = transposes(graph)
        record["difference"] = largest_error(graph, file, feeds_for(ports(model)[0]))
    return record


def missed(record: dict[str, Any]) -> list[str]:
    """The bars that a network misses."""
    if record["error"]:
        return ["not converted"]
    found = []
    if record["difference"] > LIMIT_ERROR:
        found.append("differs")
    convolutional = record["network"].removesuffix("_torchscript") in CONVOLUTIONAL
    if record["transposes"] > (0 if convolutional else record["source"]):
        found.append("transposes")
    if record["seconds"] > LIMIT_SECONDS:
        found.append("slow")
    if record.get("peer_error") == "" and record["seconds"] > record["peer_seconds"]:
        found.append("slower than onnx2tf")
    return found


def line(record: dict[str, Any]) -> str:
    peer = f"{record['peer_seconds']:.1f}" if "peer_seconds" in record else "-"
    peer += " (fails)" if record.get("peer_error") else ""
    if record["error"]:
        return f"| {record['network']} | {record['nodes']} | {record['seconds']:.2f} | {peer} | not converted | |"
    turned = f"{record['source']} → {record['transposes']}"
    return (
        f"| {record['network']} | {record['nodes']} | {record['seconds']:.2f} | {peer} | "
        f"{record['difference']:.1e} | {turned} | {', '.join(missed(record))}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    print("| network | nodes | ConvertTool s | onnx2tf s | difference | Transposes |\n|---|---|---|---|---|---|")
    records = []
    for file in write_networks(options.networks):
        records.append(measure(file))
        print(line(records[-1]), flush=True)
        if records[-1]["error"]:
            print(records[-1]["error"], file=sys.stderr)
    if options.out:
        options.out.write_text(json.dumps(records, indent=1), "utf-8")
    raise SystemExit(any(missed(record) for record in records))


if __name__ == "__main__":
    main()
