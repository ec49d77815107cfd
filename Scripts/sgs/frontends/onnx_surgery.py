"""Part of an ONNX model instead of the whole: inner tensors become inputs and outputs, free dimensions get extents.

Works on the message in memory, as `onnx.utils.Extractor` does on files, and follows values that the bodies of control
flow read from outside. What the part does not need is not copied.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, defs, helper
from onnx.shape_inference import InferenceError, infer_shapes

from sgs.config.nearest import did_you_mean, listing
from sgs.errors import UserError, raise_all
from sgs.frontends.model_file import first_line
from sgs.frontends.onnx_external import without_external
from sgs.frontends.onnx_message import reads_of
from sgs.frontends.onnx_model import Port, Shape, SourceModel, port_of

_log = logging.getLogger(__name__)
_REBUILT = ("node", "initializer", "input", "output", "value_info")  # fields of a graph that a part has its own of
_FLOAT_TYPES = frozenset({"tensor(float)", "tensor(float16)", "tensor(double)", "tensor(bfloat16)"})


@dataclass(frozen=True)
class Endpoint:
    """A tensor where the part begins or ends, and its shape in the source's layout if that is said."""

    name: str
    shape: Shape | None = None


@dataclass(frozen=True)
class Surgery:
    """What to do to a model before its import. No `inputs`: those of the model that the outputs need; no `outputs`:
    those of the model. `free_dim_param` and `free_dim_denotation`: extents of dimensions by symbol and by denotation.
    """

    inputs: tuple[Endpoint, ...] = ()
    outputs: tuple[Endpoint, ...] = ()
    free_dim_param: Mapping[str, int] = field(default_factory=dict)
    free_dim_denotation: Mapping[str, int] = field(default_factory=dict)

    @property
    def input_shapes(self) -> dict[str, Shape]:
        return {end.name: end.shape for end in self.inputs if end.shape is not None}

    @property
    def output_shapes(self) -> dict[str, Shape]:
        return {end.name: end.shape for end in self.outputs if end.shape is not None}


NO_SURGERY = Surgery()


def operate(source: SourceModel, surgery: Surgery) -> SourceModel:
    """The model that `surgery` asks for; `source` itself stays as it is.

    Raises UserError for names that the model does not have, and outputs that need more inputs than those named.
    """
    if surgery.free_dim_param or surgery.free_dim_denotation:
        source = _with_free_dims(source, surgery)
    if surgery.inputs or surgery.outputs:
        source = _extracted(source, surgery)
    return source


def check_shapes(source: SourceModel, surgery: Surgery, ports: Sequence[Port]) -> None:
    """Raise UserError where a shape contradicts the extent that `surgery` gives a dimension of the untouched `source`;
    warn where one symbol gets several extents."""
    shapes = {port.name: port.shape for port in ports}
    seen: dict[str, dict[int, str]] = {}
    problems = []
    for value in source.proto.graph.input:
        shape = shapes.get(value.name) or ()
        for dim, extent in zip(value.type.tensor_type.shape.dim, shape, strict=False):
            wanted = _extent(dim, surgery)
            if wanted not in (None, extent):
                shown = ",".join(map(str, shape))
                reason = f"input '{value.name}' has the shape {shown}, but {_spelt(dim, surgery)}"
                problems.append(_fault(source, reason, "give one of the two"))
            if dim.dim_param and dim.dim_param != "?":  # Paddle's word for an extent that it does not know
                seen.setdefault(dim.dim_param, {}).setdefault(extent, value.name)
    raise_all(problems, stage="convert", file=source.path)
    for symbol, extents in seen.items():
        if len(extents) > 1:
            told = ", ".join(f"{extent} in input '{name}'" for extent, name in extents.items())
            _log.warning("%s: dimension '%s' is %s", source.path, symbol, told)


# -- free dimensions ---------------------------------------------------------------------------------------------------
def _with_free_dims(source: SourceModel, surgery: Surgery) -> SourceModel:
    """The model with extents in place of symbols. Dimensions that have an extent already keep it."""
    graph = source.proto.graph
    _check_free_dims(source, surgery)
    proto = _hull(source.proto)
    proto.graph.node.extend(graph.node)
    proto.graph.initializer.extend(graph.initializer)
    for name in ("input", "output", "value_info"):
        values = getattr(proto.graph, name)
        values.extend(getattr(graph, name))
        for value in values:
            for dim in value.type.tensor_type.shape.dim:
                extent = _extent(dim, surgery)
                if extent is not None and dim.dim_value <= 0:
                    dim.dim_value = extent
    return replace(source, proto=proto)


def _check_free_dims(source: SourceModel, surgery: Surgery) -> None:
    dims = [(value.name, dim) for value in source.proto.graph.input for dim in value.type.tensor_type.shape.dim]
    symbols = sorted({dim.dim_param for _, dim in dims if dim.dim_param})
    denotations = sorted({dim.denotation for _, dim in dims if dim.denotation})
    problems = [
        _fault(source, f"{option}: no input has a dimension with the {kind} '{name}'", f"there are: {listing(known)}")
        for option, kind, named, known in (
            ("--free_dim_param", "symbol", surgery.free_dim_param, symbols),
            ("--free_dim_denotation", "denotation", surgery.free_dim_denotation, denotations),
        )
        for name in named
        if name not in known
    ]
    for name, dim in dims:
        by_symbol = surgery.free_dim_param.get(dim.dim_param)
        by_denotation = surgery.free_dim_denotation.get(dim.denotation)
        if dim.dim_value > 0 and by_denotation not in (None, dim.dim_value):
            reason = f"{_spelt(dim, surgery)}, but that dimension of input '{name}' is {dim.dim_value}"
            problems.append(_fault(source, reason, "change it with --inputs or --input_shapes"))
        elif None not in (by_symbol, by_denotation) and by_symbol != by_denotation:
            reason = f"a dimension of input '{name}' is {by_symbol} by its symbol, {by_denotation} by its denotation"
            problems.append(_fault(source, reason, "give one of the two"))
    raise_all(problems, stage="convert", file=source.path)


def _extent(dim: onnx.TensorShapeProto.Dimension, surgery: Surgery) -> int | None:
    """The extent that a dimension is given by name."""
    by_symbol = surgery.free_dim_param.get(dim.dim_param) if dim.dim_param else None
    return by_symbol if by_symbol is not None else surgery.free_dim_denotation.get(dim.denotation)


def _spelt(dim: onnx.TensorShapeProto.Dimension, surgery: Surgery) -> str:
    if dim.dim_param and dim.dim_param in surgery.free_dim_param:
        return f"--free_dim_param gives '{dim.dim_param}' {surgery.free_dim_param[dim.dim_param]}"
    return f"--free_dim_denotation gives '{dim.denotation}' {surgery.free_dim_denotation[dim.denotation]}"


# -- extraction --------------------------------------------------------------------------------------------------------
def _extracted(source: SourceModel, surgery: Surgery) -> SourceModel:
    graph = source.proto.graph
    fed = [value.name for value in graph.input]
    begin = [end.name for end in surgery.inputs]
    end = [end.name for end in surgery.outputs] or [value.name for value in graph.output]
    _check_ends(source, surgery)
    nodes, reached = _needed(graph, begin, end)
    missing = [name for name in fed if name in reached and name not in begin]
    if surgery.inputs and missing:
        reason = f"the outputs {listing(end)} also need the input{'s' * (len(missing) > 1)} {listing(missing)}"
        raise _fault(source, reason, "name it in --inputs too, or cut further down")
    if not surgery.inputs:
        begin = missing
    idle = [name for name in begin if name not in reached and name not in fed]
    if idle:
        raise _fault(source, f"no output needs {listing(idle)}, which --inputs names", "leave it out, or cut elsewhere")
    proto = _hull(source.proto)
    part = proto.graph
    part.node.extend(nodes)
    part.initializer.extend(tensor for tensor in graph.initializer if tensor.name in reached)
    values = _values(source, [name for name in (*begin, *end) if name not in fed])
    part.input.extend(_input(source, name, values, surgery) for name in begin)
    part.output.extend(values.get(name) or helper.make_empty_tensor_value_info(name) for name in end)
    if surgery.input_shapes:  # what the file says of inner shapes may no longer hold
        return replace(source, proto=proto)
    made = {name for node in nodes for name in node.output}
    part.value_info.extend(value for value in graph.value_info if value.name in made)
    return replace(source, proto=proto)


def _check_ends(source: SourceModel, surgery: Surgery) -> None:
    """Raise UserError for ends that the model does not have, or that are constants."""
    graph = source.proto.graph
    made = {name for node in graph.node for name in node.output if name} | {value.name for value in graph.input}
    constants = {tensor.name for tensor in graph.initializer}
    problems = []
    for option, ends in (("--inputs", surgery.inputs), ("--outputs", surgery.outputs)):
        for end in ends:
            if end.name in constants:
                problems.append(_fault(source, f"{option}: '{end.name}' is a constant", "name a computed tensor"))
            elif end.name not in made:
                reason = f"{option}: the model has no tensor '{end.name}'"
                problems.append(_fault(source, reason, did_you_mean(end.name, sorted(made))))
    raise_all(problems, stage="convert", file=source.path)


def _needed(graph: GraphProto, begin: Iterable[str], end: Iterable[str]) -> tuple[list[NodeProto], set[str]]:
    """(nodes between the ends, in order; names of all values that they and the ends read)."""
    producers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    stop, reached, kept = set(begin), set(end), set()
    pending = list(reached)
    while pending:
        name = pending.pop()
        index = producers.get(name)
        if name in stop or index is None or index in kept:
            continue
        kept.add(index)
        fresh = set(reads_of(graph.node[index])) - reached
        reached |= fresh
        pending.extend(fresh)
    return [graph.node[index] for index in sorted(kept)], reached


def _hull(proto: ModelProto) -> ModelProto:
    """A copy of all that is not in the graph's own lists."""
    hull = ModelProto()
    for descriptor, value in proto.ListFields():
        if descriptor.name != "graph":
            _copy_field(hull, descriptor.name, value)
    for descriptor, value in proto.graph.ListFields():
        if descriptor.name not in _REBUILT:
            _copy_field(hull.graph, descriptor.name, value)
    return hull


def _copy_field(message: ModelProto | GraphProto, name: str, value: object) -> None:
    if isinstance(value, (bytes, int, str)):
        setattr(message, name, value)
    else:
        getattr(message, name).extend(value)


# -- types and shapes of inner tensors ---------------------------------------------------------------------------------
def _values(source: SourceModel, names: Sequence[str]) -> dict[str, ValueInfoProto]:
    """What is known of tensors by the file, or else by ONNX's shape inference."""
    graph = source.proto.graph
    known = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
    if any(name not in known or port_of(known[name]).shape is None for name in names):
        try:
            inferred = infer_shapes(without_external(source.proto), data_prop=True)
        except (InferenceError, RuntimeError, ValueError) as error:
            _log.debug("shapes are not inferred: %s", first_line(error))
        else:
            known.update((value.name, value) for value in (*inferred.graph.value_info, *inferred.graph.output))
    return known


def _input(source: SourceModel, name: str, values: Mapping[str, ValueInfoProto], surgery: Surgery) -> ValueInfoProto:
    """The declaration of an input of the part. Raises UserError where its element type is not known."""
    value = values.get(name)
    if value is not None and value.type.tensor_type.elem_type:
        return value
    shape = surgery.input_shapes.get(name)
    if not _reads_floats(source, name):
        raise _fault(source, f"--inputs: the element type of '{name}' is not known", "cut at another tensor")
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _reads_floats(source: SourceModel, name: str) -> bool:
    """Whether an operator reads a tensor that takes nothing but floats there."""
    for node in source.proto.graph.node:
        for index, operand in enumerate(node.input):
            if operand == name and node.domain in ("", "ai.onnx") and _float_operand(node, index, source.opset):
                return True
    return False


def _float_operand(node: NodeProto, index: int, opset: int) -> bool:
    try:
        schema = defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError:
        return False
    formal = schema.inputs[min(index, len(schema.inputs) - 1)]
    return bool(formal.types) and set(formal.types) <= _FLOAT_TYPES


def _fault(source: SourceModel, reason: str, remedy: str) -> UserError:
    return UserError(reason, stage="convert", file=source.path, remedy=remedy)
