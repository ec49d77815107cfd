"""What a model file says of itself, whether or not it can be imported."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from sgs.frontends.onnx_external import bytes_in_file, is_outside
from sgs.frontends.onnx_message import inner_graphs, nodes_of, tensors_of
from sgs.frontends.onnx_model import SourceModel, port_of


def onnx_facts(proto: ModelProto, path: Path) -> dict[str, Any]:
    """The facts as JSON-like values; `path` is the file that the message was read from."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    return {
        "kind": "ONNX model",
        "file": str(path),
        "file_bytes": path.stat().st_size,
        "producer": " ".join(filter(None, [proto.producer_name, proto.producer_version])),
        "graph": proto.graph.name,
        "ir_version": proto.ir_version,
        "opsets": {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import},
        "inputs": [_port(value) for value in proto.graph.input if value.name not in weights],
        "outputs": [_port(value) for value in proto.graph.output],
        "parameters": _parameters(proto),
        "external_files": _external_files(proto, path.parent),
        "operators": dict(Counter(_kind(node) for node in nodes_of(proto)).most_common()),
        "subgraphs": sum(1 for _ in inner_graphs(proto)),
        "functions": len(proto.functions),
    }


def source_facts(source: SourceModel, kind: str) -> dict[str, Any]:
    """Those of a model of another `kind`, which became a message that is in memory only."""
    facts = onnx_facts(source.proto, source.path)
    for key in ("producer", "ir_version", "opsets", "external_files"):  # of the message
        del facts[key]
    files = [source.path] if source.path.is_file() else [path for path in source.path.rglob("*") if path.is_file()]
    more = "operators and parameters are those of ONNX on the way"
    if source.format != "onnx":  # the nodes are the file's own operators
        more, facts["operators"] = "", dict(Counter(node.op_type for node in source.proto.graph.node).most_common())
    return facts | {"kind": kind, "file_bytes": sum(path.stat().st_size for path in files), "more": more}


def _port(value: ValueInfoProto) -> dict[str, Any]:
    port = port_of(value)
    dims = value.type.tensor_type.shape.dim
    ranked = value.type.tensor_type.HasField("shape")
    names = {str(axis): dim.denotation for axis, dim in enumerate(dims) if dim.denotation}
    shape = list(port.declared) if ranked else None
    return {"name": port.name, "dtype": port.dtype, "shape": shape, "denotations": names}


def _kind(node: NodeProto) -> str:
    return str(node.op_type) if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def _parameters(proto: ModelProto) -> dict[str, int]:
    """Of all tensors in the file: initializers, and constants in nodes."""
    sizes = [(prod(tensor.dims), _size(tensor)) for _, tensor in tensors_of(proto)]
    return {"tensors": len(sizes), "count": sum(n for n, _ in sizes), "bytes": sum(size for _, size in sizes)}


def _size(tensor: TensorProto) -> int:
    """Bytes of a tensor; of one of text, or that makes no sense, what it takes in the message."""
    try:
        return bytes_in_file(tensor)
    except ValueError:
        return int(tensor.ByteSize())


def _external_files(proto: ModelProto, folder: Path) -> list[dict[str, Any]]:
    """Data files that tensors name, and how many do; their size, None for one that is not there, or that is outside of
    the model's folder and so not looked at."""
    external = (tensor for _, tensor in tensors_of(proto) if tensor.data_location == TensorProto.EXTERNAL)
    entries = (entry.value for tensor in external for entry in tensor.external_data if entry.key == "location")
    return [
        {"file": name, "tensors": count, "file_bytes": _file_size(folder, name)}
        for name, count in Counter(entries).items()
    ]


def _file_size(folder: Path, name: str) -> int | None:
    if is_outside(name):
        return None
    try:
        return (folder / name).stat().st_size
    except (OSError, ValueError):
        return None
