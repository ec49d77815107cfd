"""Read a model of TensorFlow as a frozen graph: one without variables, its functions as they come."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sgs.config.nearest import did_you_mean
from sgs.errors import UserError
from sgs.frontends.model_file import refused
from sgs.frontends.tensorflow.child import Request

_NO_RESULTS = ("Assert", "Const", "NoOp", "Placeholder", "PlaceholderWithDefault")
_NAME = re.compile(r"\^?[\w.>][\w.\\/>:-]*", re.ASCII)  # of nodes, and of what they read
AGAIN = "save or download the model again"


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
    text = text.split("Exception encountered: ")[-1]  # Keras puts all that it was doing in front
    line = " ".join(text.split()) or type(error).__name__
    return line if len(line) <= 400 else f"{line[:400]} …"


# -- GraphDef ----------------------------------------------------------------------------------------------------------
def read_graph_def(request: Request) -> Network:
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
        raise refused(path, "is not a frozen graph of TensorFlow, or is damaged", AGAIN) from error
    if graph.node:
        if all(_NAME.fullmatch(name) for node in graph.node for name in (node.name, node.op, *node.input)):
            return graph
        raise refused(path, "is damaged: a name in it is none of TensorFlow's", AGAIN)
    for kind, holds in ((saved_model_pb2.SavedModel, "meta_graphs"), (meta_graph_pb2.MetaGraphDef, "graph_def")):
        message = kind()
        try:
            message.ParseFromString(content)
        except DecodeError:
            continue
        if getattr(message, holds):
            remedy = "give its folder to the platform tensorflow_savemodel, or freeze its graph"
            raise refused(path, f"is a {kind.__name__}, not a frozen graph", remedy)
    raise refused(path, "holds no graph of TensorFlow", AGAIN)


# -- SavedModel --------------------------------------------------------------------------------------------------------
def read_saved_model(request: Request) -> Network:
    import tensorflow as tf

    path, values = request.path, request.values
    tags = list(values["tag_set"] or ("serve",))
    known = _tag_sets(path)
    if sorted(tags) not in [sorted(found) for found in known]:
        told_tags = "; ".join(",".join(found) or "(none)" for found in known)
        raise refused(path, f"holds no graph with the tags {','.join(tags)}", f"there are, for --tag_set: {told_tags}")
    with refusing(path, "TensorFlow cannot load it", AGAIN):
        loaded = tf.saved_model.load(str(path), tags=tags)
    function = _function(loaded, values, path)
    with refusing(path, "TensorFlow cannot freeze it", "freeze it where it was made, and use tensorflow_graphdef"):
        graph = frozen(function)
    fed, given = fed_tensors(function), given_tensors(function)
    by_graph = {name.split(":")[0]: name for name in fed}
    by_signature = dict(zip(_argument_names(function, fed), fed, strict=True))
    results = _result_names(function, given)
    if values["use_graph_names"]:
        return Network(graph, by_graph, {name: name for name in given}, {**by_signature, **results})
    return Network(graph, by_signature, results, by_graph)


def _tag_sets(path: Path) -> list[list[str]]:
    from tensorflow.python.saved_model import loader_impl

    with refusing(path, "is not a SavedModel", AGAIN):
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


def fed_tensors(function: Any) -> list[str]:
    """The tensors that a caller feeds a concrete function; behind them are those that it captured, its variables."""
    return [tensor.name for tensor in function.inputs[: len(function.inputs) - len(function.captured_inputs)]]


def given_tensors(function: Any) -> list[str]:
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


def frozen(function: Any) -> Any:
    """The graph of a concrete function with its variables as constants."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False, aggressive_inlining=True)
    return frozen.graph.as_graph_def()
