"""The platforms tensorflow_graphdef, tensorflow_savemodel and keras."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sgs.frontends.model_file import LARGEST_MESSAGE, digest_of, reading, refused, require_file
from sgs.frontends.onnx_model import SourceModel
from sgs.frontends.platforms import Asked, Option, Platform, file_option, require_packages
from sgs.frontends.tensorflow.child import Request, in_child

_PACKAGES = ("tensorflow", "tf2onnx")
_SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
_HDF = b"\x89HDF"
_CONVERT_ANYWAY = "give it to the platform tensorflow_savemodel: --saved_model_dir"


def _listed(name: str, help: str, metavar: str, spelling: str = "") -> Option:
    return Option(name, help, "names", metavar=metavar, aliases=(spelling or f"--{name.replace('_', '-')}",))


_TF2ONNX = (
    Option("opset", "operator set of the ONNX model in between (default: 18)", "number"),
    _listed("custom_ops", "operators that tf2onnx leaves as they are, in a domain of their own", "OP:DOMAIN,..."),
    _listed("extra_opset", "operator sets of further domains, which decide what tf2onnx makes", "DOMAIN:N,..."),
    _listed("load_op_libraries", "libraries with operators, loaded before the model", "FILE,..."),
    _listed("inputs_as_nchw", "NHWC inputs that the ONNX model in between takes as NCHW", "NAME,..."),
    _listed("outputs_as_nchw", "NHWC outputs that the ONNX model in between gives as NCHW", "NAME,..."),
    _listed("rename_inputs", "names of the model's inputs, in its order, by which the ini calls them", "NAME,..."),
    _listed("rename_outputs", "names of the model's outputs, in its order, by which the ini calls them", "NAME,..."),
)
_DEFAULTS = (
    _listed("ignore_default", "inputs with a default (PlaceholderWithDefault) that have to be fed", "NAME,..."),
    _listed("use_default", "inputs with a default (PlaceholderWithDefault) that are never fed", "NAME,..."),
)


def _load(platform: str, main: str, values: Mapping[str, Any], asked: Asked) -> SourceModel:
    path = values[main]
    assert isinstance(path, Path)
    _CHECKS[platform](path)
    require_packages(_PACKAGES, "tensorflow")
    return in_child(Request(platform, path, dict(values), asked), digest_of(path))


# -- what the files look like ------------------------------------------------------------------------------------------
def _start_of(path: Path, remedy: str) -> bytes:
    """The first bytes of a file. Raises UserError for what is no file, or empty."""
    if any((path / name).is_file() for name in _SAVED_MODEL):
        raise refused(path, "is the folder of a SavedModel", _CONVERT_ANYWAY)
    require_file(path, remedy)
    with reading(path), path.open("rb") as file:
        start = file.read(4096)
    if not start:
        raise refused(path, "is empty", "save or download the model again")
    return start


def _check_graph_def(path: Path) -> None:
    """Raise UserError for what is plainly no frozen graph."""
    start = _start_of(path, "give the path of a frozen graph in a .pb file")
    if path.stat().st_size > LARGEST_MESSAGE:
        raise refused(path, "is larger than the 2 GiB that a frozen graph may have", "convert it to ONNX elsewhere")
    if path.name == _SAVED_MODEL[0]:
        raise refused(path, "is part of a SavedModel", f"{_CONVERT_ANYWAY} {path.parent}")
    if start[4:8] == b"TFL3":
        raise refused(path, "is a TFLite model", "give it to the platform tflite")
    if start.startswith((_HDF, b"PK")):
        raise refused(path, "is a Keras model", "give it to the platform keras")
    if path.suffix.lower() in (".pbtxt", ".prototxt") or _is_text(start):
        remedy = "give the binary .pb: tf.io.write_graph(graph_def, folder, name, as_text=False) writes one"
        raise refused(path, "is a graph in text form", remedy)


def _is_text(start: bytes) -> bool:
    return not any(byte < 32 and byte not in b"\t\n\r" for byte in start)


def _check_saved_model(path: Path) -> None:
    """Raise UserError for what is plainly no folder of a SavedModel."""
    if path.is_file():
        remedy = f"give its folder: {path.parent}" if path.name in _SAVED_MODEL else "give the folder of a SavedModel"
        raise refused(path, "is a file", remedy)
    if not path.is_dir():
        raise refused(path, "no such folder", "give the folder of a SavedModel")
    if not any((path / name).is_file() for name in _SAVED_MODEL):
        inner = sorted(file.parent.relative_to(path).as_posix() for file in path.glob(f"*/{_SAVED_MODEL[0]}"))
        remedy = f"there are SavedModels in: {', '.join(inner)}" if inner else "give the folder that holds that file"
        raise refused(path, f"holds no {_SAVED_MODEL[0]}", remedy)


def _check_keras(path: Path) -> None:
    """Raise UserError for what is plainly no Keras model."""
    remedy = "give a model that model.save wrote, in a .keras or .h5 file"
    start = _start_of(path, remedy)
    if path.suffix not in _KERAS_SUFFIXES:
        raise refused(path, f"has the extension '{path.suffix}'", f"the keras platform takes .keras and .h5; {remedy}")
    if path.suffix == ".keras" and not (zipfile.is_zipfile(path) and "config.json" in zipfile.ZipFile(path).namelist()):
        older = start.startswith(_HDF)
        raise refused(path, "is an HDF5 file" if older else "is no Keras model", "name it .h5" if older else remedy)
    if path.suffix != ".keras" and not start.startswith(_HDF):
        raise refused(path, "is no HDF5 file, or is damaged", remedy)


_CHECKS = {
    "tensorflow_graphdef": _check_graph_def,
    "tensorflow_savemodel": _check_saved_model,
    "keras": _check_keras,
}


# -- the platforms -----------------------------------------------------------------------------------------------------
def _platform(name: str, kind: str, options: tuple[Option, ...], *suffixes: str) -> Platform:
    load = partial(_load, name, options[0].name)
    return Platform(name, kind, (*options, *_TF2ONNX), load, takes_shapes=True, takes_surgery=True, suffixes=suffixes)


TENSORFLOW_GRAPHDEF = _platform(
    "tensorflow_graphdef",
    "frozen TensorFlow graph",
    (
        Option(
            "graph_def_file",
            "the frozen graph, a .pb file",
            "file",
            required=True,
            metavar="FILE",
            aliases=("--graphdef", "--input"),
        ),
        *_DEFAULTS,
    ),
    ".pb",
)

TENSORFLOW_SAVEMODEL = _platform(
    "tensorflow_savemodel",
    "TensorFlow SavedModel",
    (
        Option(
            "saved_model_dir",
            "the folder of the SavedModel",
            "folder",
            required=True,
            metavar="DIR",
            aliases=("--saved-model",),
        ),
        _listed("tag_set", "tags of the graph in the SavedModel (default: serve)", "TAG,...", "--tag"),
        Option(
            "signature_key",
            "the signature that is meant (default: serving_default, or the only one)",
            metavar="NAME",
            aliases=("--signature_def",),
        ),
        Option("concrete_function", "in place of a signature: a trace of the model's own call, from 0 on", metavar="N"),
        Option(
            "use_graph_names",
            "call inputs and outputs by the names of the graph, not those of the signature",
            "flag",
            aliases=("--use-graph-names",),
        ),
        *_DEFAULTS,
    ),
)

KERAS = _platform(
    "keras",
    "Keras model",
    (replace(file_option(".keras or .h5"), aliases=("--keras",)),),
    *_KERAS_SUFFIXES,
)
