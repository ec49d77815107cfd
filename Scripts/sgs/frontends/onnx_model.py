"""Read an ONNX file and bring it into the form that the importer walks.

Form: no model-local functions, no initializer among the inputs, external data in memory.
"""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import environ, pathsep
from pathlib import Path

import onnx
import onnx.checker
import onnx.shape_inference
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, inliner
from onnx.external_data_helper import load_external_data_for_model

from sgs.errors import UserError

_DEFAULT_DOMAINS = ("", "ai.onnx")
_SCRIPTS = Path(__file__).resolve().parents[2]  # the folder that holds the package
_log = logging.getLogger(__name__)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Port:
    """An input or output of the source: name, numpy element type, shape in the source's layout (None: not static)."""

    name: str
    dtype: str
    shape: Shape | None
    declared: tuple[int | str, ...] = ()


@dataclass(frozen=True)
class SourceModel:
    """An ONNX model ready for import. `path` is for messages; `digest` the SHA-256 of the file."""

    proto: ModelProto
    path: Path
    digest: str
    opset: int

    @property
    def inputs(self) -> list[Port]:
        """The inputs that a user feeds: those that no initializer gives a value."""
        return [_port(value) for value in self.proto.graph.input]

    @property
    def outputs(self) -> list[Port]:
        return [_port(value) for value in self.proto.graph.output]


def _port(value: ValueInfoProto) -> Port:
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

    Raises UserError for a file that is missing, empty, not ONNX, truncated, or whose operator set cannot be read.
    """
    content = _read(path)
    try:
        proto = onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as error:
        raise _refused(path, "is not an ONNX model, or is truncated", "export or download the model again") from error
    if not proto.graph.output:
        raise _refused(path, "holds no graph with outputs", "export or download the model again")
    try:
        load_external_data_for_model(proto, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        remedy = "keep the data file beside the model"
        raise _refused(path, f"its external data cannot be read: {_first_line(error)}", remedy) from error
    return normalised(proto, path, hashlib.sha256(content).hexdigest())


def normalised(proto: ModelProto, path: Path, digest: str = "") -> SourceModel:
    """The model of a proto in memory, as `load_model` gives it; other frontends that speak ONNX start here."""
    opset = _default_opset(proto, path)
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    if proto.graph.sparse_initializer:
        raise _refused(path, "holds sparse initializers", "export it with dense weights")
    with_value = {tensor.name for tensor in proto.graph.initializer}
    fed = [value for value in proto.graph.input if value.name not in with_value]
    del proto.graph.input[:]
    proto.graph.input.extend(fed)
    return SourceModel(proto, path, digest, opset)


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise _refused(path, "is a folder" if path.is_dir() else "no such file", "give the path of an .onnx file")
    if path.suffix.lower() != ".onnx":
        raise _refused(path, f"has the extension '{path.suffix}'", "the onnx platform takes .onnx files")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}", "check its permissions") from error
    if not content:
        raise _refused(path, "is empty", "export or download the model again")
    return content


def _refused(path: Path, reason: str, remedy: str) -> UserError:
    return UserError(reason, stage="convert", file=path, remedy=remedy)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _default_opset(proto: ModelProto, path: Path) -> int:
    versions = [entry.version for entry in proto.opset_import if entry.domain in _DEFAULT_DOMAINS]
    newest = onnx.defs.onnx_opset_version()
    if not versions and proto.ir_version >= 3:
        raise _refused(path, "names no operator set", "export or download the model again")
    opset = max(versions, default=1)
    if opset > newest:
        raise _refused(path, f"uses operator set {opset}, newer than {newest}", "update the onnx package")
    return int(opset)


# -- shapes ----------------------------------------------------------------------------------------------------
def input_ports(
    source: SourceModel, shapes: Sequence[Sequence[int]] | Mapping[str, Sequence[int]] | None, order: Sequence[str]
) -> list[Port]:
    """The model's inputs with static shapes, in `order` (their names).

    `shapes` overrides what the file says, by name or one per input in `order`. Raises UserError for an input whose
    shape is neither static nor given, and for shapes that do not match the inputs.
    """
    by_name = {port.name: port for port in source.inputs}
    given = _shapes_by_name(source, shapes, order)
    ports, dynamic = [], []
    for name in order:
        port = by_name[name]
        if name in given:
            port = _with_shape(source, port, given[name])
        elif port.shape is None:
            dynamic.append(port)
        ports.append(port)
    if dynamic:
        told = ", ".join(f"'{p.name}' [{','.join(map(str, p.declared))}]" for p in dynamic)
        example = ":".join(",".join(map(str, _example_dims(port))) for port in ports)
        remedy = f"give every input's shape with --input_shapes, for example --input_shapes {example}"
        raise _refused(source.path, f"the shape of input {told} is not static", remedy)
    return ports


def _example_dims(port: Port) -> list[int]:
    """A shape that the declaration allows: a free first dimension (the batch) is 1, free others are 224."""
    dims = port.shape if port.shape is not None else port.declared
    return [dim if isinstance(dim, int) and dim > 0 else 224 if axis else 1 for axis, dim in enumerate(dims)]


def _shapes_by_name(
    source: SourceModel, shapes: Sequence[Sequence[int]] | Mapping[str, Sequence[int]] | None, order: Sequence[str]
) -> dict[str, Shape]:
    if shapes is None:
        return {}
    if not isinstance(shapes, Mapping):
        if len(shapes) != len(order):
            names = ", ".join(order)
            reason = f"{len(shapes)} input shapes for {len(order)} inputs ({names})"
            raise _refused(source.path, reason, "--input_shapes takes one shape per input, with ':' between them")
        shapes = dict(zip(order, shapes, strict=True))
    for name in shapes:
        if name not in order:
            reason = f"a shape is given for '{name}', which is not an input"
            raise _refused(source.path, reason, f"inputs: {', '.join(order)}")
    return {name: tuple(int(d) for d in shape) for name, shape in shapes.items()}


def _with_shape(source: SourceModel, port: Port, shape: Shape) -> Port:
    if any(d <= 0 for d in shape) or (port.declared and len(port.declared) != len(shape)):
        told = f"[{','.join(map(str, port.declared))}]"
        reason = f"shape {','.join(map(str, shape))} does not fit input '{port.name}' {told}"
        raise _refused(source.path, reason, "give as many positive extents as the input has dimensions")
    return replace(port, shape=shape)


def fix_shapes(proto: ModelProto, ports: Sequence[Port]) -> ModelProto:
    """A copy of the model whose inputs declare the ports' static shapes; of outputs it keeps only the rank."""
    fixed = ModelProto()
    fixed.CopyFrom(proto)
    shapes = {port.name: port.shape for port in ports}
    for value in fixed.graph.input:
        _declare(value, shapes[value.name] or ())
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    return fixed


def _declare(value: ValueInfoProto, shape: Shape) -> None:
    kind = value.type.tensor_type.elem_type or TensorProto.FLOAT
    value.type.tensor_type.CopyFrom(helper.make_tensor_type_proto(kind, shape).tensor_type)


def invalid_because(source: SourceModel, ports: Sequence[Port]) -> str | None:
    """Why ONNX itself finds the model invalid at these input shapes, None when it does not."""
    fixed = fix_shapes(source.proto, ports)
    try:
        onnx.checker.check_model(fixed)
        onnx.shape_inference.infer_shapes(fixed, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        return _first_line(error)
    return None


# -- simplification --------------------------------------------------------------------------------------------
def simplified(source: SourceModel, ports: Sequence[Port], time_limit: float = 120.0) -> SourceModel | None:
    """The model after onnxsim at the ports' shapes; None, with a warning in the log, when onnxsim fails.

    onnxsim is native code that has been seen to crash and to hang: it runs in a process of its own with a time limit.
    """
    with tempfile.TemporaryDirectory(prefix="sgs_simplify_") as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        onnx.save_model(fix_shapes(source.proto, ports), before)
        command = [sys.executable, "-m", "sgs.frontends.onnx_simplify", str(before), str(after)]
        paths = [str(_SCRIPTS), *filter(None, [environ.get("PYTHONPATH")])]
        variables = {**environ, "PYTHONPATH": pathsep.join(paths)}
        try:
            done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=time_limit)
        except subprocess.TimeoutExpired:
            _log.warning("onnxsim took longer than %.0f s; the model is imported as it is", time_limit)
            return None
        if done.returncode or not after.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            _log.warning("onnxsim ended with code %d (%s); the model is imported as it is", done.returncode, last)
            return None
        return normalised(onnx.load_model(after), source.path, source.digest)
