"""Read a model of TensorFlow or Keras as a frozen graph: one without variables, its functions as they come."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sgs.config.nearest import did_you_mean
from sgs.errors import UserError, raise_all
from sgs.frontends.onnx_model import refused
from sgs.frontends.tensorflow.child import Request
from sgs.frontends.tensorflow.shapes import asked_shapes, single

_NO_RESULTS = ("Assert", "Const", "NoOp", "Placeholder", "PlaceholderWithDefault")
_AGAIN = "save or download the model again"
_EXPORT = "export it (model.export(folder)) and use the platform tensorflow_savemodel"


@dataclass(frozen=True)
class Network:
    """A frozen graph (a GraphDef). `inputs` and `outputs`: the model's own names for them, in its order → tensors, like
    "x:0"; `others`: what else can be named, the layers of Keras among it."""

    graph: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    others: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def refusing(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Whatever TensorFlow raises, as a UserError: a damaged model makes it raise anything."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise refused(path, f"{what}: {told(error)}", remedy) from error


def told(error: BaseException) -> str:
    """What an error of TensorFlow says, as one line of bearable length, without the places in code that it lists."""
    text = str(error)
    if "in user code:" in text:
        text = re.split(r"\b\w+(?:Error|Exception): ", text)[-1]
    line = " ".join(text.split()) or type(error).__name__
    return line if len(line) <= 400 else f"{line[:400]} …"


def read(request: Request) -> Network:
    """The model of a request. Raises UserError."""
    return _READERS[request.platform](request)


# -- GraphDef ----------------------------------------------------------------------------------------------------------
def _read_graph_def(request: Request) -> Network:
    """A graph's own inputs are its Placeholders; its outputs are what nothing reads."""
    graph = _parsed(request.path)
    read_by_others = {name.lstrip("^").split(":")[0] for node in graph.node for name in node.input}
    inputs = {node.name: f"{node.name}:0" for node in graph.node if node.op == "Placeholder"}
    last = [node for node in graph.node if node.name not in read_by_others and node.op not in _NO_RESULTS]
    return Network(graph, inputs, {node.name: f"{node.name}:0" for node in last})


def _parsed(path: Path) -> Any:
    import tensorflow as tf
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

    content = path.read_bytes()
    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(content)
    except DecodeError as error:
        raise refused(path, "is not a frozen graph of TensorFlow, or is damaged", _AGAIN) from error
    if graph.node:
        return graph
    for kind, holds in ((saved_model_pb2.SavedModel, "meta_graphs"), (meta_graph_pb2.MetaGraphDef, "graph_def")):
        message = kind()
        try:
            message.ParseFromString(content)
        except DecodeError:
            continue
        if getattr(message, holds):
            remedy = "give its folder to the platform tensorflow_savemodel, or freeze its graph"
            raise refused(path, f"is a {kind.__name__}, not a frozen graph", remedy)
    raise refused(path, "holds no graph of TensorFlow", _AGAIN)


# -- SavedModel --------------------------------------------------------------------------------------------------------
def _read_saved_model(request: Request) -> Network:
    import tensorflow as tf

    path, values = request.path, request.values
    tags = list(values["tag_set"] or ("serve",))
    known = _tag_sets(path)
    if sorted(tags) not in [sorted(found) for found in known]:
        told_tags = "; ".join(",".join(found) or "(none)" for found in known)
        raise refused(path, f"holds no graph with the tags {','.join(tags)}", f"there are, for --tag_set: {told_tags}")
    with refusing(path, "TensorFlow cannot load it", _AGAIN):
        loaded = tf.saved_model.load(str(path), tags=tags)
    function = _function(loaded, values, path)
    with refusing(path, "TensorFlow cannot freeze it", "freeze it where it was made, and use tensorflow_graphdef"):
        graph = _frozen(function)
    fed, given = _fed(function), _given(function)
    by_graph = {name.split(":")[0]: name for name in fed}
    by_signature = dict(zip(_argument_names(function, fed), fed, strict=True))
    results = _result_names(function, given)
    if values["use_graph_names"]:
        return Network(graph, by_graph, {name: name for name in given}, {**by_signature, **results})
    return Network(graph, by_signature, results, by_graph)


def _tag_sets(path: Path) -> list[list[str]]:
    from tensorflow.python.saved_model import loader_impl

    with refusing(path, "is not a SavedModel", _AGAIN):
        message = loader_impl.parse_saved_model(str(path))
    return [list(graph.meta_info_def.tags) for graph in message.meta_graphs]


def _function(loaded: Any, values: Mapping[str, Any], path: Path) -> Any:
    """The concrete function that is meant."""
    if values["concrete_function"] is not None:
        if values["signature_key"] is not None:
            raise refused(path, "--signature_key and --concrete_function name two functions", "give one of them")
        return _trace(loaded, values["concrete_function"], path)
    signatures = [name for name in loaded.signatures if not name.startswith("_")]
    wanted = values["signature_key"]
    if wanted is None:
        wanted = "serving_default" if "serving_default" in signatures or len(signatures) != 1 else signatures[0]
    if wanted in signatures:
        return loaded.signatures[wanted]
    if signatures:
        raise refused(path, f"has no signature '{wanted}'", f"--signature_key: {did_you_mean(wanted, signatures)}")
    remedy = "save it with signatures, or name a trace of its own call with --concrete_function 0"
    raise refused(path, "has no signatures", remedy)


def _trace(loaded: Any, index: str, path: Path) -> Any:
    """One of the traces of the model's own call."""
    traces = loaded.__call__.concrete_functions if callable(loaded) else []
    if not (index.isascii() and index.isdigit() and int(index) < len(traces)):
        told_traces = f"it has {len(traces)}, counted from 0" if traces else "the model's own call has none"
        raise refused(path, f"has no trace --concrete_function {index}", told_traces)
    return traces[int(index)]


def _fed(function: Any) -> list[str]:
    """The tensors that a caller feeds a concrete function; behind them are those that it captured, its variables."""
    return [tensor.name for tensor in function.inputs[: len(function.inputs) - len(function.captured_inputs)]]


def _given(function: Any) -> list[str]:
    import tensorflow as tf

    return [tensor.name for tensor in function.outputs if tensor.dtype != tf.resource]


def _argument_names(function: Any, fed: Sequence[str]) -> list[str]:
    """What a signature calls its arguments, in the order of the tensors."""
    import tensorflow as tf

    arguments = tf.nest.flatten(function.structured_input_signature)
    names = [spec.name for spec in arguments if isinstance(spec, tf.TensorSpec)]
    plain = [name.split(":")[0] for name in fed]
    return [name or other for name, other in zip(names, plain, strict=True)] if len(names) == len(fed) else plain


def _result_names(function: Any, given: Sequence[str]) -> dict[str, str]:
    """What a signature calls its results → tensors, which are sorted by those names."""
    structure = function.structured_outputs
    named = isinstance(structure, dict) and len(structure) == len(given)
    return dict(zip(sorted(structure) if named else [name.split(":")[0] for name in given], given, strict=True))


def _frozen(function: Any) -> Any:
    """The graph of a concrete function with its variables as constants."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False, aggressive_inlining=True)
    return frozen.graph.as_graph_def()


# -- Keras -------------------------------------------------------------------------------------------------------------
def _read_keras(request: Request) -> Network:
    """The graph of a model's call, and the tensors that its layers give, as far as they are asked for. Inputs and
    outputs go by the names of their layers, and by Keras's own."""
    import keras
    import tensorflow as tf

    path, asked = request.path, request.asked
    _check_layers(path)
    with refusing(path, "Keras cannot load it", f"with the Keras that saved it, {_EXPORT}"):
        model = keras.saving.load_model(str(path), compile=False, safe_mode=True)
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
        graph = _frozen(traced)
    fed, given = _fed(traced), _given(traced)
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
        name = tensor._keras_history.operation.name
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


def _check_layers(path: Path) -> None:
    """Raise UserError for a model that holds Python code, which to load would be to run, and for one without layers."""
    import h5py

    with refusing(path, "is no model of Keras, or is damaged", _AGAIN):
        if path.suffix == ".keras":
            text = zipfile.ZipFile(path).read("config.json")
        else:
            with h5py.File(path, "r") as file:
                text = file.attrs.get("model_config", "null")
        config = json.loads(text)
    if config is None:
        remedy = "save the whole model: model.save, not model.save_weights"
        raise refused(path, "holds weights and no model", remedy)
    raise_all(
        [
            UserError(
                "holds Python code, which is not run",
                stage="convert",
                file=path,
                node=f"Lambda '{name}'",
                remedy="make it a layer of its own, or, where you trust the file, load it and model.export(folder), "
                "then use the platform tensorflow_savemodel",
            )
            for name in dict.fromkeys(_lambdas(config))
        ],
        stage="convert",
        file=path,
    )


def _lambdas(config: Any) -> Iterator[str]:
    """The names of the layers in a model's configuration that hold code."""
    pending = [config]
    while pending:
        item = pending.pop(0)
        if isinstance(item, dict):
            inner = item.get("config")
            if item.get("class_name") == "Lambda":
                yield str(inner.get("name", "?") if isinstance(inner, dict) else "?")
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


_READERS: Mapping[str, Callable[[Request], Network]] = {
    "tensorflow_graphdef": _read_graph_def,
    "tensorflow_savemodel": _read_saved_model,
    "keras": _read_keras,
}
