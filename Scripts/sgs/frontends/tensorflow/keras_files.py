"""Read a model of Keras as a frozen graph."""

from __future__ import annotations

import importlib
import importlib.util
import json
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from sgs.errors import UserError, raise_all
from sgs.frontends.model_file import refused
from sgs.frontends.platforms import missing_extra
from sgs.frontends.tensorflow.child import Request
from sgs.frontends.tensorflow.read import AGAIN, Network, fed_tensors, frozen, given_tensors, refusing
from sgs.frontends.tensorflow.shapes import asked_shapes, single

_EXPORT = "export it (model.export(folder)) and use the platform tensorflow_savemodel"
_REMEDY = f"make it a layer of Keras, or, where you trust the file, load it and {_EXPORT}"


def read_keras(request: Request) -> Network:
    """The graph of a model's call, and the tensors that its layers give, as far as they are asked for. Inputs and
    outputs go by the names of their layers, and by Keras's own."""
    import tensorflow as tf

    path, asked = request.path, request.asked
    keras = _library(path)
    with refusing(path, "Keras cannot load it", f"with the Keras that saved it, {_EXPORT}"):
        model = keras.models.load_model(str(path), compile=False, safe_mode=True)
    if not getattr(model, "inputs", None):
        raise refused(path, "is a model that does not say what it is fed", f"call it once, then {_EXPORT}")
    inputs, outputs = _layer_names(model.inputs), _layer_names(model.outputs)
    layers = _layer_results(model, {*(asked.inputs or ()), *(asked.outputs or ())} - {*inputs, *outputs})
    whole = keras.Model(list(model.inputs), [*model.outputs, *layers.values()])
    shapes = asked_shapes(asked, asked.inputs or inputs, path)
    specs = [
        tf.TensorSpec(shapes.get(name, single(tensor.shape)), tensor.dtype, name=f"fed_{index}")
        for index, (name, tensor) in enumerate(zip(inputs, model.inputs, strict=True))
    ]
    with refusing(path, "Keras cannot trace it", "check --input_shapes" if shapes else _EXPORT):
        function = tf.function(lambda *fed: tf.nest.flatten(whole(list(fed), training=False)))
        traced = function.get_concrete_function(*specs)
        graph = frozen(traced)
    fed, given = fed_tensors(traced), given_tensors(traced)
    own = [tensor.name for tensor in (*model.inputs, *model.outputs)]
    others = dict(zip(own, [*fed, *given[: len(outputs)]], strict=True))
    others |= dict(zip(layers, _sources(graph, given[len(outputs) :]), strict=True))
    return Network(graph, dict(zip(inputs, fed, strict=True)), dict(zip(outputs, given, strict=False)), others)


def _sources(graph: Any, results: Sequence[str]) -> list[str]:
    """The tensors that a function's results are copies of: those that other layers read."""
    nodes = {node.name: node for node in graph.node}
    found = []
    for tensor in results:
        while (node := nodes[tensor.split(":")[0]]).op == "Identity":
            tensor = node.input[0]
        found.append(tensor if ":" in tensor else f"{tensor}:0")
    return found


def _layer_names(tensors: Sequence[Any]) -> list[str]:
    """The names of the layers that give tensors; of those of one layer, all but the first with a number."""
    names: list[str] = []
    for tensor in tensors:
        name = tensor._keras_history[0].name
        before = sum(other.split(":")[0] == name for other in names)
        names.append(f"{name}:{before}" if before else name)
    return names


def _layer_results(model: Any, wanted: Collection[str]) -> dict[str, Any]:
    """The result of every layer that is asked for by its name."""
    found = {}
    for layer in model.layers:
        if layer.name in wanted and len(layer._inbound_nodes) == 1 and hasattr(layer.output, "shape"):
            found[layer.name] = layer.output
    return found


def _library(path: Path) -> Any:
    """The Keras that a file is for, after a look at what is in it. Keras 3 reads only some files of Keras 2, and some
    as another network than they are (its hard sigmoid is another function), so they are for tf_keras, which is Keras 2.

    Raises UserError for a file without a model, one that holds Python code, which to load would be to run, and where
    tf_keras is not installed.
    """
    config, version = _contents(path)
    if config is None:
        remedy = "save the whole model: model.save, not model.save_weights"
        raise refused(path, "holds weights and no model", remedy)
    old = not str(version).startswith("3")
    codes = [f"Lambda '{name}'" for name in _lambdas(config)] + (_foreign(config) if old else [])
    raise_all(
        [
            UserError("holds Python code, which is not run", stage="convert", file=path, node=code, remedy=_REMEDY)
            for code in dict.fromkeys(codes)
        ],
        stage="convert",
        file=path,
    )
    if old and importlib.util.find_spec("tf_keras") is None:
        raise missing_extra("tf_keras, which reads files of Keras 2,", "tensorflow")
    return importlib.import_module("tf_keras" if old else "keras")


def _contents(path: Path) -> tuple[Any, object]:
    """(configuration of the model, version of the Keras that wrote it); None for what a file does not say."""
    import h5py

    with refusing(path, "is no model of Keras, or is damaged", AGAIN):
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("config.json")), json.loads(archive.read("metadata.json"))[
                    "keras_version"
                ]
        with h5py.File(path, "r") as file:
            return json.loads(file.attrs.get("model_config", "null")), file.attrs.get("keras_version")


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Everything in a model's configuration that has a class."""
    pending = [config]
    while pending:
        item = pending.pop(0)
        if isinstance(item, dict):
            if "class_name" in item:
                yield item
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _lambdas(config: Any) -> list[str]:
    """The names of the layers that hold code."""
    inner = [item.get("config") for item in _objects(config) if item["class_name"] == "Lambda"]
    return [str(options.get("name", "?")) if isinstance(options, dict) else "?" for options in inner]


def _foreign(config: Any) -> list[str]:
    """The classes that come from anywhere but Keras and TensorFlow: Keras 2 would import what it finds."""
    return [
        f"{item['class_name']} '{item['module']}.{item['class_name']}'"
        for item in _objects(config)
        if str(item.get("module") or "keras").split(".")[0] not in ("builtins", "keras", "tensorflow", "tf_keras")
    ]
