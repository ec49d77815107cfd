"""Compare our translation of Caffe networks with OpenCV 4's Caffe importer.

    python tests/opencv_caffe.py --python PATH [--networks FOLDER] [--kinds Pooling,LRN]

PATH is an interpreter that has opencv-python-headless below 5. All cases of `caffe_cases` and the networks
FOLDER/*/*.prototxt with their caffemodel go through OpenCV there and through onnxruntime here; a table says, per layer
type and per network, how far the results are apart, as a share of the largest magnitude. Differences that are known to
be OpenCV's own are told with their reason. Exit code 1 for any other that is more than 1e-3.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "Scripts")]

import numpy as np  # noqa: E402

from caffe_cases import CASES, Case, weight_file  # noqa: E402
from caffe_reference import parse  # noqa: E402
from onnx_compare import run_onnx  # noqa: E402
from sgs.frontends.onnx_model import SourceModel  # noqa: E402
from sgs.frontends.platforms import Asked, platform_named  # noqa: E402

NEAR = 1e-3
# (layer type, number of the case; None: all of them) → why OpenCV computes something else than Caffe, or nothing
KNOWN: dict[tuple[str, int | None], str] = {}


@dataclass(frozen=True)
class Network:
    """A network as files. `shapes`: of its inputs; `given`: values of inputs that are not to be random."""

    name: str
    text: str
    weights: bytes
    shapes: dict[str, tuple[int, ...]]
    feeds: dict[str, Any]
    key: tuple[str, int | None] = ("", None)


@dataclass
class Row:
    """Of a layer type or a network: the number of its cases, the distances of those that OpenCV takes, and what there
    is to say of the others and of those that are not near."""

    cases: int = 0
    distances: list[float] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


def cases(kinds: set[str]) -> Iterator[Network]:
    for kind, rows in CASES.items():
        if not kinds or kind in kinds:
            for index, case in enumerate(rows):
                yield of_case(f"{kind}_{index}", case, (kind, index))


def of_case(name: str, case: Case, key: tuple[str, int]) -> Network:
    return Network(name, case.text, weight_file(case.text, case.weights), case.inputs, case.feeds(), key)


def public(folder: Path) -> Iterator[Network]:
    """The networks that have both files, with random inputs."""
    for model in sorted(folder.glob("*/*.prototxt")):
        weights = sorted(model.parent.glob("*.caffemodel"))
        if weights:
            text = model.read_text()
            shapes = input_shapes(text)
            rng = np.random.default_rng(5)
            feeds = {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}
            yield Network(model.parent.name, text, weights[0].read_bytes(), shapes, feeds)


def input_shapes(text: str) -> dict[str, tuple[int, ...]]:
    """By any of the ways to declare inputs, with a batch of 1."""
    net = parse(text)
    names, dims = net.all("input"), net.all("input_dim")
    shapes = [tuple(shape.all("dim")) for shape in net.all("input_shape")]
    shapes = shapes or [tuple(dims[i : i + 4]) for i in range(0, len(dims), 4)]
    for layer in net.all("layer"):
        if layer.get("type", "") == "Input":
            names, shapes = (
                [*names, *layer.all("top")],
                [*shapes, tuple(layer.sub("input_param").sub("shape").all("dim"))],
            )
    return {name: (1, *shape[1:]) for name, shape in zip(names, shapes, strict=True)}


def write(network: Network, folder: Path) -> None:
    """What `opencv_worker` reads. OpenCV knows results by the layer that gives them."""
    (folder / f"{network.name}.prototxt").write_text(network.text)
    (folder / f"{network.name}.caffemodel").write_bytes(network.weights)
    np.savez(folder / f"{network.name}.feeds.npz", **network.feeds)  # type: ignore[arg-type]
    read = [name for layer in parse(network.text).all("layer") for name in layer.all("bottom")]
    last: dict[str, tuple[str, ...]] = {}
    for layer in parse(network.text).all("layer"):
        if layer.get("type", "") != "Input" and layer.all("top"):
            last[layer.get("name", "")] = tuple(layer.all("top"))
    asked = {name: tops for name, tops in last.items() if not set(tops) & set(read)}
    (folder / f"{network.name}.json").write_text(json.dumps(asked))


def theirs(networks: list[Network], folder: Path, python: str) -> dict[str, Mapping[str, Any] | str]:
    """What OpenCV makes of each: its results, or what it said."""
    for network in networks:
        write(network, folder)
    names = [network.name for network in networks]
    run = subprocess.run(
        [python, HERE / "opencv_worker.py", folder, *names], capture_output=True, text=True, check=False
    )
    found: dict[str, Mapping[str, Any] | str] = {}
    for name in names:
        results, error = folder / f"{name}.results.npz", folder / f"{name}.error.txt"
        if results.exists():
            found[name] = dict(np.load(results))
        else:
            found[name] = error.read_text() if error.exists() else f"OpenCV died: {run.stderr.strip()[-200:]}"
    return found


def ours(network: Network, folder: Path) -> dict[str, Any]:
    files = {"model_file": folder / f"{network.name}.prototxt", "weight_file": folder / f"{network.name}.caffemodel"}
    platform = platform_named("caffe", stage="judge")
    source = platform.load(
        platform.complete(files), Asked(tuple(network.shapes), shapes=tuple(network.shapes.values()))
    )
    assert isinstance(source, SourceModel)
    return run_onnx(source.proto, {port.name: network.feeds[port.name] for port in source.inputs})


def distance(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> float:
    """The largest difference of all outputs, as a share of the largest magnitude; shapes may differ in ones."""
    worst = 0.0
    for name, value in wanted.items():
        there = found[name]
        if there.size != value.size:
            return float("inf")
        far = float(np.abs(there.astype(np.float64).ravel() - value.ravel()).max(initial=0))
        worst = max(worst, far / max(1e-2, float(np.abs(value).max(initial=0))))
    return worst


def reason(key: tuple[str, int | None]) -> str:
    return KNOWN.get(key, KNOWN.get((key[0], None), ""))


def judge(networks: list[Network], folder: Path, python: str, rows: dict[str, Row]) -> bool:
    """Add to the table; returns whether all is near, or known to be OpenCV's."""
    good = True
    answers = theirs(networks, folder, python)
    for network in networks:
        title = network.key[0] or network.name
        row, answer, why = rows.setdefault(title, Row()), answers[network.name], reason(network.key)
        row.cases += 1
        number = "" if network.key[1] is None else f"case {network.key[1]}: "
        if isinstance(answer, str):
            row.told.append(f"{number}{why or short(answer)}")
            continue
        far = distance(answer, ours(network, folder))
        row.distances.append(far)
        if far > NEAR:
            row.told.append(f"{number}{far:.2g} {why or '???'}")
            good &= bool(why)
    return good


def short(message: str) -> str:
    """What OpenCV's error says, without its place."""
    return "OpenCV: " + message.rpartition("error: ")[2][:110]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="interpreter with OpenCV 4")
    parser.add_argument("--networks", type=Path, help="folder of public networks")
    parser.add_argument("--kinds", default="", help="only cases of these layer types")
    options = parser.parse_args()
    kinds = {kind for kind in options.kinds.split(",") if kind}
    rows: dict[str, Row] = {}
    good = True
    with tempfile.TemporaryDirectory() as name:
        groups: dict[str, list[Network]] = {}
        for network in [*cases(kinds), *(public(options.networks) if options.networks else ())]:
            groups.setdefault(network.key[0] or network.name, []).append(network)
        for group in groups.values():  # a process for each, of which some die
            good &= judge(group, Path(name), options.python, rows)
    print(f"{'layer type or network':28} {'cases':>5} {'near':>5} {'furthest':>9}")
    for title, row in rows.items():
        near = [far for far in row.distances if far <= NEAR]
        print(f"{title:28} {row.cases:5} {len(near):5} {max(near, default=float('nan')):9.1e}")
        for told in row.told:
            print(f"    {told}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
