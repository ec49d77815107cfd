"""Read an ONNX file and bring it into the form that the importer walks.

Form: no model-local functions, no initializer among the inputs, every name defined once, small external data in memory
and large ones mapped.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
import onnx.checker
import onnx.shape_inference
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper, inliner, numpy_helper

from sgs.errors import raise_all
from sgs.frontends.model_file import first_line, mapped, refused, require_file
from sgs.frontends.onnx_external import take_external, without_external
from sgs.frontends.onnx_layout import SourceLayout
from sgs.frontends.onnx_message import inlined_nodes, label_of, texts_of
from sgs.numeric.quantise import Array

MOST_INLINED = 200_000  # nodes
_DEFAULT_DOMAINS = ("", "ai.onnx")
_AGAIN = "export or download the model again"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Port:
    """An input or output of the source: name, numpy element type, shape in the source's layout (None: not static)."""

    name: str
    dtype: str
    shape: Shape | None
    declared: tuple[int | str, ...] = ()


@dataclass(frozen=True)
class Judge:
    """The framework that a source comes from, to compare with. `run`: arrays of all inputs by name, in the source's
    layouts → those of all outputs. `bound`: the largest difference of an output that is no fault, as a share of its
    range."""

    framework: str
    run: Callable[[Mapping[str, Array]], Mapping[str, Array]]
    bound: float = 1e-3


@dataclass(frozen=True)
class SourceModel:
    """An ONNX model ready for import. `path` is for messages, `digest` the SHA-256 of the file, `external` holds the
    values of the initializers that the message itself lacks, `layouts` the layouts of rank-4 inputs and outputs that
    the source's framework says, so that the model's structure need not be asked. `format`: "tflite" for a message whose
    nodes are those of a TFLite file (see `tflite.model`). `judge`: what the import is to be compared with, if anything.
    """

    proto: ModelProto
    path: Path
    digest: str
    opset: int
    external: Mapping[str, Array] = field(default_factory=dict)
    layouts: Mapping[str, SourceLayout] = field(default_factory=dict)
    format: str = "onnx"
    judge: Judge | None = None

    @property
    def inputs(self) -> list[Port]:
        """The inputs that a user feeds: those that no initializer gives a value."""
        return [port_of(value) for value in self.proto.graph.input]

    @property
    def outputs(self) -> list[Port]:
        return [port_of(value) for value in self.proto.graph.output]

    def value_of(self, tensor: TensorProto) -> Array:
        """The values of an initializer. Raises ValueError, LookupError or TypeError for a damaged one."""
        if tensor.name in self.external and tensor.data_location == TensorProto.EXTERNAL:
            return self.external[tensor.name]
        if any(extent < 0 for extent in tensor.dims):
            raise ValueError(f"its shape {list(tensor.dims)} is not one")
        return numpy_helper.to_array(tensor)


def port_of(value: ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    dims = tuple(d.dim_value if d.HasField("dim_value") else (d.dim_param or "?") for d in tensor.shape.dim)
    static = tensor.HasField("shape") and all(isinstance(d, int) and d > 0 for d in dims)
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except KeyError:  # undefined, or newer than the onnx package
        dtype = f"type {tensor.elem_type}"
    return Port(value.name, dtype, tuple(d for d in dims if isinstance(d, int)) if static else None, dims)


def load_model(path: Path) -> SourceModel:
    """Read and normalise an ONNX file.

    Raises UserError for a file that is missing, empty, not ONNX, truncated, or whose operator set cannot be read; and
    for external data that are not where they should be.
    """
    return complete_model(*read_message(path), path)


def read_message(path: Path) -> tuple[ModelProto, str]:
    """(what an ONNX file holds, its SHA-256); external data are not looked at. Raises UserError."""
    content = _map(path)
    try:
        proto = ModelProto.FromString(memoryview(content))
    except (DecodeError, ValueError) as error:
        raise refused(path, "is not an ONNX model, or is truncated", _AGAIN) from error
    if any(isinstance(text, bytes) for text in texts_of(proto)):
        raise refused(path, "is damaged: a name in it is not UTF-8", _AGAIN)
    if not (proto.graph.node or proto.graph.output):
        raise refused(path, "holds no graph with outputs", _AGAIN)
    return proto, hashlib.sha256(content).hexdigest()


def complete_model(proto: ModelProto, digest: str, path: Path) -> SourceModel:
    """The model of a message that was read from a file, with its external data. Raises UserError."""
    if not proto.graph.output:
        raise refused(path, "holds no graph with outputs", _AGAIN)
    return normalised(proto, path, digest, take_external(proto, path))


def normalised(
    proto: ModelProto, path: Path, digest: str = "", external: Mapping[str, Array] | None = None
) -> SourceModel:
    """The model of a proto in memory, as `load_model` gives it; other frontends that speak ONNX start here."""
    opset = _default_opset(proto, path)
    if proto.functions:
        if inlined_nodes(proto, MOST_INLINED) > MOST_INLINED:
            raise refused(path, f"its functions come to more than {MOST_INLINED} nodes", _AGAIN)
        proto = inliner.inline_local_functions(proto)
    if proto.graph.sparse_initializer:
        raise refused(path, "holds sparse initializers", "export it with dense weights")
    with_value = {tensor.name for tensor in proto.graph.initializer}
    fed = [value for value in proto.graph.input if value.name not in with_value]
    del proto.graph.input[:]
    proto.graph.input.extend(fed)
    _check_names(proto.graph, path)
    return SourceModel(proto, path, digest, opset, external or {})


def _check_names(graph: GraphProto, path: Path) -> None:
    """Raise UserError for every name that several things of the graph define."""
    makers: dict[str, list[str]] = {}
    for name, maker in _definitions(graph):
        makers.setdefault(name, []).append(maker)
    raise_all(
        [
            refused(path, f"'{name}' is defined {len(made_by)} times: by {', '.join(made_by[:5])}", _AGAIN)
            for name, made_by in makers.items()
            if len(made_by) > 1
        ],
        stage="convert",
        file=path,
    )


def _definitions(graph: GraphProto) -> Iterator[tuple[str, str]]:
    """(name, what defines it) of every value of a graph."""
    yield from ((value.name, "an input") for value in graph.input)
    yield from ((tensor.name, "an initializer") for tensor in graph.initializer)
    for node in graph.node:
        yield from ((name, label_of(node)) for name in node.output if name)


def _map(path: Path) -> mmap.mmap:
    """The bytes of the file, mapped, after a look at what kind of file it is."""
    require_file(path, "give the path of an .onnx file")
    if path.suffix.lower() != ".onnx":
        raise refused(path, f"has the extension '{path.suffix}'", "the onnx platform takes .onnx files")
    return mapped(path, "an ONNX file", again=_AGAIN, smaller="export it again with its weights as external data")


def _default_opset(proto: ModelProto, path: Path) -> int:
    versions = [entry.version for entry in proto.opset_import if entry.domain in _DEFAULT_DOMAINS]
    newest = onnx.defs.onnx_opset_version()
    if not versions and proto.ir_version >= 3:
        raise refused(path, "names no operator set", _AGAIN)
    opset = max(versions, default=1)
    if opset > newest:
        raise refused(path, f"uses operator set {opset}, newer than {newest}", "update the onnx package")
    return int(opset)


# -- shapes ----------------------------------------------------------------------------------------------------
def input_ports(
    source: SourceModel,
    shapes: Sequence[Sequence[int]] | Mapping[str, Sequence[int]] | None,
    order: Sequence[str],
    cut: Mapping[str, Shape] | None = None,
) -> list[Port]:
    """The model's inputs with static shapes, in `order` (their names).

    `shapes` overrides what the file says, by name or one per input in `order`; so does `cut`, the shapes that --inputs
    gives. Raises UserError for an input whose shape is neither static nor given, and for shapes that do not match the
    inputs or each other.
    """
    by_name = {port.name: port for port in source.inputs}
    given = _shapes_by_name(source, shapes, order)
    for name, shape in (cut or {}).items():
        if given.setdefault(name, shape) != shape:
            told = ",".join(map(str, given[name]))
            reason = f"--input_shapes gives '{name}' the shape {told}, --inputs {','.join(map(str, shape))}"
            raise refused(source.path, reason, "give it once")
    ports, dynamic = [], []
    for name in order:
        port = by_name[name]
        if name in given:
            port = _with_shape(source, port, given[name])
        elif port.shape is None:
            dynamic.append(port)
        ports.append(port)
    shapeless = [port.name for port in dynamic if not port.declared]
    if shapeless:
        remedy = "give every input's shape with --input_shapes"
        told = ", ".join(f"'{name}'" for name in shapeless)
        raise refused(source.path, f"the model says no shape of input {told}", remedy)
    if dynamic:
        told = ", ".join(f"'{p.name}' [{','.join(map(str, p.declared))}]" for p in dynamic)
        assumed = assumed_shapes(ports)
        example = ":".join(",".join(map(str, port.shape or assumed[port.name])) for port in ports)
        remedy = f"give every input's shape with --input_shapes, for example --input_shapes {example}"
        raise refused(source.path, f"the shape of input {told} is not static", remedy)
    return ports


def assumed_shapes(ports: Sequence[Port]) -> dict[str, Shape]:
    """Shapes that the declarations allow: a first dimension that is free (the batch) is 1, other free ones are 224; the
    same symbol is the same number everywhere."""
    batches = {port.declared[0] for port in ports if port.declared} - {"?"}

    def extent(dim: int | str, axis: int) -> int:
        return dim if isinstance(dim, int) and dim > 0 else 1 if axis == 0 or dim in batches else 224

    return {port.name: tuple(extent(dim, axis) for axis, dim in enumerate(port.declared)) for port in ports}


def shapes_in_order(shapes: Sequence[Sequence[int]], names: Sequence[str], path: Path) -> dict[str, Shape]:
    """The shapes of --input_shapes by the names of the inputs. Raises UserError for another number of them."""
    if len(shapes) != len(names):
        reason = f"{len(shapes)} input shapes for {len(names)} inputs ({', '.join(names)})"
        raise refused(path, reason, "--input_shapes takes one shape per input, with ':' between them")
    return {name: tuple(shape) for name, shape in zip(names, shapes, strict=True)}


def _shapes_by_name(
    source: SourceModel, shapes: Sequence[Sequence[int]] | Mapping[str, Sequence[int]] | None, order: Sequence[str]
) -> dict[str, Shape]:
    if shapes is None:
        return {}
    if not isinstance(shapes, Mapping):
        shapes = shapes_in_order(shapes, order, source.path)
    for name in shapes:
        if name not in order:
            reason = f"a shape is given for '{name}', which is not an input"
            raise refused(source.path, reason, f"inputs: {', '.join(order)}")
    return {name: tuple(int(d) for d in shape) for name, shape in shapes.items()}


def _with_shape(source: SourceModel, port: Port, shape: Shape) -> Port:
    if any(d <= 0 for d in shape) or (port.declared and len(port.declared) != len(shape)):
        told = f"[{','.join(map(str, port.declared))}]"
        reason = f"shape {','.join(map(str, shape))} does not fit input '{port.name}' {told}"
        raise refused(source.path, reason, "give as many positive extents as the input has dimensions")
    return replace(port, shape=shape)


def fix_shapes(proto: ModelProto, ports: Sequence[Port]) -> ModelProto:
    """A copy of the model whose inputs declare the ports' static shapes; of outputs it keeps only the rank."""
    fixed = ModelProto()
    fixed.CopyFrom(proto)
    shapes = {port.name: port.shape for port in ports}
    for value in fixed.graph.input:
        if value.name in shapes:
            declare(value, shapes[value.name] or ())
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    return fixed


def declare(value: ValueInfoProto, shape: Shape) -> None:
    kind = value.type.tensor_type.elem_type or TensorProto.FLOAT
    value.type.tensor_type.CopyFrom(helper.make_tensor_type_proto(kind, shape).tensor_type)


def check_file(path: Path) -> None:
    """Raise UserError with what onnx.checker has against a file. It is given the path, not the model: files whose data
    lie outside are checked as well."""
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, DecodeError, OSError, ValueError, RuntimeError) as error:
        raise refused(
            path, f"onnx.checker: {first_line(error)}", "run without --checker to try it all the same"
        ) from error


def invalid_because(source: SourceModel, ports: Sequence[Port]) -> str | None:
    """Why ONNX itself finds the model invalid at these input shapes, None when it does not."""
    fixed = fix_shapes(without_external(source.proto), ports)
    try:
        if all(value.type.tensor_type.HasField("shape") for value in fixed.graph.output):  # else it says no more
            onnx.checker.check_model(fixed)
        onnx.shape_inference.infer_shapes(fixed, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        return first_line(error)
    return None
