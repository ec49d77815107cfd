"""A part of a frozen graph → ONNX, by tf2onnx."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, defs

from sgs.errors import UnsupportedOperator, UserError, raise_all
from sgs.frontends.model_file import refused, require_file
from sgs.frontends.onnx_layout import SourceLayout
from sgs.frontends.onnx_message import SOURCE_LABEL, nodes_of, reads_of
from sgs.frontends.platforms import extra_install
from sgs.frontends.tensorflow.child import Answer, Request
from sgs.frontends.tensorflow.keras_files import read_keras
from sgs.frontends.tensorflow.part import Part, label_of, part_of
from sgs.frontends.tensorflow.read import Network, read_graph_def, read_saved_model, refusing, told

OPSET = 18
_CUSTOM_DOMAIN = "ai.onnx.converters.tensorflow"
_CUT = "end the network before it (outputs), or save it with other operators"
_FAILED = "Failed to convert node"  # what tf2onnx logs, with the node's name and the exception
_MADE = re.compile(r"(__\d+)+$")  # what tf2onnx appends to the names of nodes that it makes
_READERS: Mapping[str, Callable[[Request], Network]] = {
    "tensorflow_graphdef": read_graph_def,
    "tensorflow_savemodel": read_saved_model,
    "keras": read_keras,
}
_TURNS = ((0, 3, 1, 2), (0, 2, 3, 1))


def convert(request: Request) -> Answer:
    """The ONNX model of a request. Raises UserError."""
    try:
        import tensorflow as tf
        import tf2onnx.convert
    except ImportError as error:
        remedy = f"install it again: pip uninstall tensorflow, then {extra_install('tensorflow')}"
        raise UserError(f"TensorFlow cannot be imported: {told(error)}", stage="convert", remedy=remedy) from error

    path = request.path
    options = _options(request)
    _load_libraries(request)
    part = _folded(part_of(_READERS[request.platform](request), request), path)
    nchw = {side: _nchw(request, part, side) for side in ("inputs", "outputs")}
    fed, given = list(part.inputs.values()), list(part.outputs.values())
    with refusing(path, "TensorFlow cannot simplify the graph", "save the model again"), tf.Graph().as_default():
        tf.import_graph_def(part.graph, name="")
        graph = tf2onnx.tf_loader.tf_optimize(fed, given, part.graph)
    labels = {node.name: label_of(node) for node in graph.node}
    with _Listener() as heard, refusing(path, "tf2onnx cannot convert it", "save it with other operators, or cut it"):
        model, _ = tf2onnx.convert.from_graph_def(
            graph,
            name=path.stem,
            input_names=fed,
            output_names=given,
            inputs_as_nchw=[part.inputs[name] for name in nchw["inputs"]],
            outputs_as_nchw=[part.outputs[name] for name in nchw["outputs"]],
            tensors_to_rename={tensor: name for side in (part.inputs, part.outputs) for name, tensor in side.items()},
            custom_op_handlers={"Erfc": (_erfc, [])},
            **options,
        )
    _label(model, labels)
    raise_all(_unsupported(model, heard, labels, path), stage="convert", file=path)
    layouts = _layouts(graph, part, nchw)
    versions = f"TensorFlow {tf.__version__}, tf2onnx {tf2onnx.__version__}"
    made = f"{len(model.graph.node)} of ONNX, operator set {options['opset']}"
    note = f"{versions}: {len(graph.node)} operators became {made}"
    return Answer(model.SerializeToString(), layouts, (note, *heard.notes))


# -- options -----------------------------------------------------------------------------------------------------------
def _options(request: Request) -> dict[str, Any]:
    """What tf2onnx is told by the options. Raises UserError."""
    from tf2onnx import constants

    values, path = request.values, request.path
    opset = values["opset"] or OPSET
    if opset not in constants.OPSET_TO_IR_VERSION:
        newest = max(constants.OPSET_TO_IR_VERSION)
        raise refused(path, f"--opset {opset} is none that tf2onnx writes", f"up to {newest}; default: {OPSET}")
    domains = dict(_pair(path, "custom_ops", text, _CUSTOM_DOMAIN) for text in values["custom_ops"] or ())
    pairs = [_pair(path, "extra_opset", text) for text in values["extra_opset"] or ()]
    extra = {domain: _version(path, version) for domain, version in pairs}
    if _CUSTOM_DOMAIN in domains.values():
        extra.setdefault(_CUSTOM_DOMAIN, 1)
    return {
        "opset": opset,
        "custom_ops": domains or None,
        "extra_opset": [onnx.helper.make_opsetid(domain, version) for domain, version in extra.items()],
    }


def _pair(path: Path, option: str, text: str, default: str = "") -> tuple[str, str]:
    """The two sides of "a:b"."""
    first, _, second = text.partition(":")
    if not first or not (second or default) or ":" in second:
        form = "OP:DOMAIN" if option == "custom_ops" else "DOMAIN:VERSION"
        remedy = f"several are separated by commas: {form},{form}"
        raise refused(path, f"--{option}: '{text}' is not like {form}", remedy)
    return first, second or default


def _version(path: Path, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise refused(path, f"--extra_opset: '{text}' is not a version", "write it like com.microsoft:1")
    return int(text)


def _load_libraries(request: Request) -> None:
    import tensorflow as tf

    for name in request.values["load_op_libraries"] or ():
        file = Path(name).absolute()
        require_file(file, "--load_op_libraries takes shared libraries, separated by commas")
        with refusing(file, "is no library of operators that this TensorFlow loads", "build it for this TensorFlow"):
            tf.load_op_library(str(file))


def _nchw(request: Request, part: Part, side: str) -> list[str]:
    """The inputs or outputs that the ONNX model has in NCHW."""
    ports: Mapping[str, str] = getattr(part, side)
    given = request.values[f"{side}_as_nchw"] or ()
    wanted = [name if name in ports else name.removesuffix(":0") for name in given]
    for name in wanted:
        if name not in ports:
            reason = f"--{side}_as_nchw: '{name}' is none of the {side}"
            raise refused(request.path, reason, f"{side}: {', '.join(ports)}")
    return wanted


# -- before tf2onnx ----------------------------------------------------------------------------------------------------
def _folded(part: Part, path: Path) -> Part:
    """The part with numbers in place of quantised constants, as TensorFlow computes them: tf2onnx lacks their types.

    A range that is too narrow for a normal step, as of constants that are all the same, makes TensorFlow give NaN; its
    lower end is what is meant.
    """
    import numpy as np
    import tensorflow as tf

    nodes = {node.name: node for node in part.graph.node}
    names = [node.name for node in part.graph.node if node.op == "Dequantize" and _is_constant(node, nodes)]
    if not names:
        return part
    with refusing(path, "TensorFlow cannot compute its weights", "save or download the model again"):
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(part.graph, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            computed = session.run({name: (f"{name}:0", *_range(nodes[name])) for name in names})
    for name, (value, low, high) in computed.items():
        value = np.where(np.isnan(value) & (high - low < 256 * np.finfo(np.float32).tiny), low, value)
        node = nodes[name]
        node.Clear()
        node.name, node.op = name, "Const"
        node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return part


def _range(node: Any) -> list[str]:
    """The tensors of the least and the largest number that a Dequantize gives."""
    return [name if ":" in name else f"{name}:0" for name in node.input[1:3]]


def _is_constant(node: Any, nodes: Mapping[str, Any]) -> bool:
    """Whether a node reads constants only."""
    pending = [node]
    while pending:
        for operand in pending.pop().input:
            source = nodes[operand.lstrip("^").split(":")[0]]
            if source.op not in ("Const", "Identity"):
                return False
            pending.append(source)
    return True


def _erfc(graph: Any, node: Any, name: str, arguments: Sequence[Any]) -> None:
    """erfc(x) = 1 − erf(x), which tf2onnx has no row for; Keras's GELU has it."""
    import numpy as np
    from tf2onnx import utils

    kind, shape = graph.get_dtype(node.output[0]), graph.get_shape(node.output[0])
    outputs = list(node.output)
    graph.remove_node(node.name)
    one = graph.make_const(utils.make_name(name), np.array(1, utils.map_onnx_to_numpy_type(kind)))
    erf = graph.make_node("Erf", [node.input[0]], dtypes=[kind], shapes=[shape])
    graph.make_node("Sub", [one.output[0], erf.output[0]], name=name, outputs=outputs, dtypes=[kind], shapes=[shape])


# -- what tf2onnx says -------------------------------------------------------------------------------------------------
class _Listener(logging.Handler):
    """Hears what tf2onnx logs for as long as the `with` block lasts. `failed`: (node, why) of nodes that it could not
    convert. An optimiser that fails is a note: tf2onnx goes on with the graph of before it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.failed: list[tuple[str, str]] = []
        self.notes: list[str] = []

    def __enter__(self) -> _Listener:
        log = logging.getLogger("tf2onnx")
        self._before = log.propagate, log.level
        log.propagate = False
        log.setLevel(logging.WARNING)
        log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        log = logging.getLogger("tf2onnx")
        log.removeHandler(self)
        log.propagate, log.level = self._before

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and record.msg.startswith(_FAILED) and isinstance(record.args, tuple):
            self.failed.append((str(record.args[0]), told(error)))
        else:
            self.notes.append(f"tf2onnx: {told(Exception(record.getMessage()))}")


def _unsupported(model: ModelProto, heard: _Listener, labels: Mapping[str, str], path: Path) -> list[UserError]:
    """The operators of TensorFlow that tf2onnx left as they are, because it has no meaning for them, or failed."""
    failed = dict(heard.failed)
    problems: list[UserError] = [
        UnsupportedOperator(f"tf2onnx cannot convert it: {why}", stage="convert", file=path, node=_named(name, labels))
        for name, why in failed.items()
    ]
    for node in nodes_of(model):
        if node.domain in ("", "ai.onnx") and not defs.has(node.op_type) and node.name not in failed:
            label = labels.get(node.name, f"{node.op_type} '{node.name}'")
            problems.append(
                UnsupportedOperator("has no meaning in ONNX", stage="convert", file=path, node=label, remedy=_CUT)
            )
    return problems


def _named(name: str, labels: Mapping[str, str]) -> str:
    return labels.get(name) or labels.get(_MADE.sub("", name)) or f"'{name}'"


def _label(model: ModelProto, labels: Mapping[str, str]) -> None:
    """Write into every node which of TensorFlow's it came from: that of its name, else that of the first node that
    reads it."""
    readers: dict[str, NodeProto] = {}
    for node in model.graph.node:
        for name in reads_of(node):
            readers.setdefault(name, node)
    known: dict[str, str] = {}
    for node in reversed(list(nodes_of(model))):
        label = labels.get(node.name) or labels.get(_MADE.sub("", node.name))
        following = (known.get(readers[name].name) for name in node.output if name in readers)
        label = label or next((other for other in following if other is not None), None)
        if label is not None:
            known[node.name] = label
            node.metadata_props.add(key=SOURCE_LABEL, value=label)


# -- layouts -----------------------------------------------------------------------------------------------------------
def _layouts(graph: Any, part: Part, nchw: Mapping[str, Sequence[str]]) -> dict[str, SourceLayout]:
    """TensorFlow's pictures are NHWC, but where the network computes in NCHW, or turns pictures itself: then it is left
    to the structure of the ONNX model, which shows where."""
    told_nchw: dict[str, SourceLayout] = {name: "NCHW" for names in nchw.values() for name in names}
    if any(_turns(graph)):
        return told_nchw
    nhwc: dict[str, SourceLayout] = dict.fromkeys((*part.inputs, *part.outputs), "NHWC")
    return {**nhwc, **told_nchw}


def _turns(graph: Any) -> Iterator[bool]:
    """Of every operator, whether it computes in NCHW or turns between NHWC and NCHW."""
    import tensorflow as tf

    nodes = {node.name: node for node in graph.node}
    for node in graph.node:
        if node.op == "Transpose":
            perm = nodes.get(node.input[1].split(":")[0])
            values = tf.make_ndarray(perm.attr["value"].tensor) if perm is not None and perm.op == "Const" else ()
            yield tuple(map(int, values)) in _TURNS
        elif "data_format" in node.attr:
            yield node.attr["data_format"].s.startswith(b"NC")
