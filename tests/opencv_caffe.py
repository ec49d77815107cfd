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
import shutil
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
from caffe_random import random_weights  # noqa: E402
from caffe_reference import parse  # noqa: E402
from onnx_compare import run_onnx  # noqa: E402
from sgs.frontends.caffe.weights import read_weights, shape_of, values_of  # noqa: E402
from sgs.frontends.onnx_model import SourceModel  # noqa: E402
from sgs.frontends.platforms import Asked, platform_named  # noqa: E402

NEAR = 1e-3
# (layer type, number of the case; None: all of them) → why OpenCV computes something else than Caffe, or nothing
KNOWN: dict[tuple[str, int | None], str] = {
    ("Axpy", None): "OpenCV makes a Scale of it that runs past the axes of its input",
    ("Concat", 2): "OpenCV reads no concat_dim",
    ("Deconvolution", 3): "OpenCV reads no dilation",
    ("Deconvolution", 4): "OpenCV reads no dilation",
    ("InnerProduct", 4): "OpenCV reads no transpose",
    ("Interp", 2): "OpenCV reads no shrink_factor",
    ("Interp", 3): "OpenCV reads no shrink_factor",
    ("Interp", 5): "OpenCV reads no pads",
    ("Interp", 6): "OpenCV takes no size from a second bottom",
    ("Log", 1): "OpenCV's Log is the natural one of x itself",
    ("Log", 2): "OpenCV's Log is the natural one of x itself",
    ("Log", 3): "OpenCV's Log is the natural one of x itself",
    ("LRN", 0): "without lrn_param OpenCV's alpha is 1e-4, Caffe's 1",
    ("LRN", 1): "OpenCV reads no k",
    ("LSTM", None): "OpenCV takes the three weights in another order than Caffe writes them",
    ("MVN", 1): "OpenCV adds eps to the variance, Caffe to its root",
    ("MVN", 3): "OpenCV adds eps to the variance, Caffe to its root",
    ("Normalize", 2): "OpenCV takes no scale per channel across places",
    ("Permute", 1): "OpenCV wants all axes in order",
    ("Pooling", 5): "OpenCV reads no round_mode",
    ("Pooling", 8): "OpenCV leaves no window out along an axis without pads, whatever pads the other one has",
    ("Pooling", 9): "OpenCV takes no window larger than the picture",
    ("Pooling", 15): "OpenCV reads no round_mode",
    ("Pooling", 18): "OpenCV leaves no window out along an axis without pads, whatever pads the other one has",
    ("Pooling", 19): "OpenCV takes no window larger than the picture",
    ("PReLU", 1): "OpenCV takes no slope without axes",
    ("PriorBox", 0): "OpenCV's clip is true where none is given, that of SSD's Caffe false",
    ("PriorBox", 4): "OpenCV takes fractions of min_size, SSD's Caffe whole pixels",
    ("PriorBox", 6): "OpenCV reads no img_size, img_h and img_w",
    ("PriorBox", 7): "OpenCV reads no img_size, img_h and img_w",
    ("Reorg", 1): "OpenCV reads no reorg_param: stride 2, forward",
    ("Reorg", 2): "OpenCV reads no reorg_param: stride 2, forward",
    ("Reshape", 3): "OpenCV takes no num_axes of 0, nor an axis counted from the end",
    ("Reshape", 4): "OpenCV takes no num_axes of 0, nor an axis counted from the end",
    ("Scale", 3): "OpenCV counts no axis from the end",
    ("Scale", 4): "OpenCV takes no scale without axes",
    ("Slice", 0): "OpenCV counts the tops that are read",
    ("Slice", 2): "OpenCV reads no slice_dim",
    ("Slice", 4): "OpenCV counts the tops that are read",
    ("Split", None): "OpenCV gives the top that is read",
    ("Swish", 1): "OpenCV reads no beta",
    ("Swish", 2): "OpenCV reads no beta",
    ("Tile", None): "OpenCV's is that of ONNX",
}


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
    told: dict[str, list[str]] = field(default_factory=dict)  # what there is to say → of which cases

    def tell(self, what: str, key: tuple[str, int | None]) -> None:
        self.told.setdefault(what, []).append("" if key[1] is None else str(key[1]))


def cases(kinds: set[str]) -> Iterator[Network]:
    for kind, rows in CASES.items():
        if not kinds or kind in kinds:
            for index, case in enumerate(rows):
                yield of_case(f"{kind}_{index}", case, (kind, index))


def of_case(name: str, case: Case, key: tuple[str, int]) -> Network:
    return Network(name, case.text, weight_file(case.text, case.weights), case.inputs, case.feeds(), key)


def public(folder: Path) -> Iterator[Network]:
    """Public networks with random inputs; those without a caffemodel get random weights."""
    for model in sorted(folder.glob("*/*.prototxt")):
        files, text = sorted(model.parent.glob("*.caffemodel")), model.read_text()
        shapes = input_shapes(text)
        weights = weight_file(text, named(text, files[0])) if files else random_weights(model)
        rng = np.random.default_rng(5)
        feeds = {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}
        name = model.parent.name if files else model.stem
        yield Network(name, text, weights, shapes, feeds)


def named(text: str, path: Path) -> dict[str, list[Any]]:
    """The weights of a file by layer; in order, where names differ, which OpenCV cannot."""
    held, _ = read_weights(path)
    kinds = ("Convolution", "InnerProduct", "Deconvolution", "BatchNorm", "Scale")
    weighted = [layer.get("name", "") for layer in parse(text).all("layer") if layer.get("type", "") in kinds]
    lacking, free = [name for name in weighted if name not in held], [name for name in held if name not in weighted]
    held = {name: blobs for name, blobs in held.items() if name in weighted}
    held |= dict(zip(lacking, (read_weights(path)[0][name] for name in free), strict=True))
    return {name: [values_of(blob).reshape(shape_of(blob)) for blob in blobs] for name, blobs in held.items()}


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


def judge(networks: list[Network], folder: Path, python: str, row: Row) -> bool:
    """Fill in a row; returns whether all is near, or known to be OpenCV's."""
    good = True
    answers = theirs(networks, folder, python)
    for network in networks:
        answer, why, wanted = answers[network.name], reason(network.key), ours(network, folder)
        if not isinstance(answer, str) and not answer.keys() >= wanted.keys():
            answer = f"gives {len(answer)} of {len(wanted)} outputs"
        if isinstance(answer, str):
            said = "it has no such layer" if "Can't create layer" in answer else answer.rpartition("error: ")[2][:110]
            row.tell(why or f"OpenCV: {said}", network.key)
            good &= bool(network.key[0])
            continue
        far = distance(answer, wanted)
        row.distances.append(far)
        if far > NEAR:
            row.tell(why or f"??? {far:.2g}", network.key)
            good &= bool(why)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="interpreter with OpenCV 4")
    parser.add_argument("--networks", type=Path, help="folder of public networks")
    parser.add_argument("--kinds", default="", help="only cases of these layer types")
    options = parser.parse_args()
    if shutil.which(options.python) is None:
        parser.error(f"no interpreter '{options.python}'; make judge-caffe CV4_PYTHON=/path/to/python with OpenCV 4")
    kinds = {kind for kind in options.kinds.split(",") if kind}
    groups: dict[str, list[Network]] = {}
    for network in [*cases(kinds), *(public(options.networks) if options.networks else ())]:
        groups.setdefault(network.key[0] or network.name, []).append(network)
    good = True
    print(f"{'layer type or network':28} {'cases':>5} {'near':>5} {'furthest':>9}")
    with tempfile.TemporaryDirectory() as name:
        for title, networks in groups.items():  # a process for each, of which some die
            row = Row(len(networks))
            good &= judge(networks, Path(name), options.python, row)
            near = [far for far in row.distances if far <= NEAR]
            print(f"{title:28} {row.cases:5} {len(near):5} {max(near, default=float('nan')):9.1e}")
            for told, numbers in row.told.items():
                print(f"    {', '.join(filter(None, numbers))}: {told}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
