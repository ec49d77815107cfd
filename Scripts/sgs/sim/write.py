"""Graph → .sim file. Same graph, same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import flatbuffers
import numpy as np
from flatbuffers import flexbuffers

from sgs import __version__
from sgs.data.files import atomic_output
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.nibbles import pack_nibbles
from sgs.numeric.quantise import Array, QuantParams
from sgs.numeric.types import DType
from sgs.registry import SIM
from sgs.sim import generated as schema
from sgs.sim.fields import pack_options
from sgs.sim.spelling import spell

Stage = Literal["debug", "float", "fixed"]
TOOL = "open-ipu-toolchain"
RESERVED = frozenset({"stage", "tool", "nodes"})  # metadata keys that are the writer's own
EXTERNAL_ABOVE = 1900 << 20  # bytes of constants that still go into the flatbuffer, which addresses 2 GiB
ALIGNMENT = 16
_LARGEST_OLD_CODE = 127  # PLACEHOLDER_FOR_GREATER_OP_CODES


def write_sim(graph: Graph, path: str | PathLike[str], *, stage: Stage, external_above: int = EXTERNAL_ABOVE) -> None:
    """Write the graph. The file appears complete or not at all.

    Constants go behind the flatbuffer where they are more than `external_above` bytes together; they are then copied to
    the file one by one, else the flatbuffer is the one copy that is made of them. Raises UserError when the file cannot
    be written.
    """
    with atomic_output(Path(path)) as temporary, open(temporary, "wb") as file:
        for part in _parts(graph, stage, external_above):
            file.write(part)


def sim_bytes(graph: Graph, stage: Stage, *, external_above: int = EXTERNAL_ABOVE) -> bytes:
    """The content of the file that `write_sim` writes."""
    return b"".join(_parts(graph, stage, external_above))


def _parts(graph: Graph, stage: Stage, external_above: int) -> Iterator[bytes | memoryview]:
    """The file in pieces: the flatbuffer, then, for large models, each constant with the padding before it."""
    buffers = _Buffers()
    model = _model(spell(graph), graph, stage, buffers)
    if buffers.constant_bytes <= external_above:
        yield _pack(model)
        return
    outside = [i for i, chunk in enumerate(buffers.chunks) if chunk.size and i not in buffers.inline]
    for i in outside:
        # Any offset above 1 takes the same room, so that packing again with the true ones moves nothing.
        model.buffers[i].data, model.buffers[i].offset, model.buffers[i].size = None, 2, buffers.chunks[i].size
    end = start = len(_pack(model))
    for i in outside:
        model.buffers[i].offset = end + -end % ALIGNMENT
        end = model.buffers[i].offset + buffers.chunks[i].size
    yield _pack(model)
    for i in outside:
        yield bytes(model.buffers[i].offset - start)
        yield buffers.chunks[i].data
        start = model.buffers[i].offset + buffers.chunks[i].size


def _pack(model: Any) -> memoryview:
    """The flatbuffer. It is built in place, at the size it needs, and not copied again."""
    inside = sum(buffer.data.size + 2 * ALIGNMENT for buffer in model.buffers if buffer.data is not None)
    graph = model.subgraphs[0]
    builder = flatbuffers.Builder(inside + 1024 * (8 + len(graph.tensors) + len(graph.operators)))
    builder.Finish(model.Pack(builder), b"TFL3")
    return memoryview(builder.Bytes)[builder.Head() :]


class _Buffers:
    """The model's buffers: equal constants share one. Buffer 0 is the empty one of tensors that are computed."""

    def __init__(self) -> None:
        self.chunks: list[Array] = [np.zeros(0, np.uint8)]
        self.inline = {0}  # stay in the flatbuffer, however large the model is
        self.constant_bytes = 0
        self._seen: dict[tuple[int, bytes], int] = {}

    def constant(self, raw: Array) -> int:
        """Index of the buffer that holds these bytes."""
        key = raw.size, hashlib.blake2b(raw.data, digest_size=16).digest()
        if key not in self._seen:
            self._seen[key] = len(self.chunks)
            self.chunks.append(raw)
            self.constant_bytes += raw.size
        return self._seen[key]

    def text(self, text: str) -> int:
        """Index of a new buffer that holds this text."""
        self.inline.add(len(self.chunks))
        self.chunks.append(np.frombuffer(text.encode("utf-8"), np.uint8))
        return len(self.chunks) - 1


def _record(kind: str, **fields: Any) -> Any:
    """An object of the generated class `<kind>T` with these fields."""
    record = getattr(schema, f"{kind}T")()
    for name, value in fields.items():
        if not hasattr(record, name):
            raise ValueError(f"{kind} has no field {name}")
        setattr(record, name, value)
    return record


def _model(file: Graph, graph: Graph, stage: Stage, buffers: _Buffers) -> Any:
    index = {name: i for i, name in enumerate(file.tensors)}
    codes: dict[str, int] = {}
    subgraph = _record(
        "SubGraph",
        tensors=[_tensor(tensor, buffers) for tensor in file.tensors.values()],
        inputs=_indices(index, file.inputs),
        outputs=_indices(index, file.outputs),
        operators=[_operator(node, index, codes.setdefault(node.op, len(codes))) for node in file.nodes],
        name=graph.name or None,
    )
    signature = _record(
        "SignatureDef",
        inputs=[_record("TensorMap", name=name, tensorIndex=index[name]) for name in file.inputs],
        outputs=[_record("TensorMap", name=name, tensorIndex=index[name]) for name in file.outputs],
        signatureKey="serving_default",
    )
    metadata = [_record("Metadata", name=name, buffer=buffers.text(text)) for name, text in _metadata(graph, stage)]
    return _record(
        "Model",
        version=3,
        operatorCodes=[_operator_code(op) for op in codes],
        subgraphs=[subgraph],
        description=f"{TOOL} {__version__}",
        buffers=[_record("Buffer", data=chunk if i else None) for i, chunk in enumerate(buffers.chunks)],
        metadata=metadata,
        signatureDefs=[signature],
    )


def _metadata(graph: Graph, stage: Stage) -> Iterator[tuple[str, str]]:
    """(name, JSON) of every metadata buffer."""
    taken = RESERVED & graph.metadata.keys()
    if taken:
        raise ValueError(f"metadata keys {sorted(taken)} are written by the .sim writer itself")
    own = {
        "stage": stage,
        "tool": {"name": TOOL, "version": __version__},
        "nodes": {node.outputs[0]: node.name for node in graph.nodes if node.name},
    }
    for key, value in {**own, **graph.metadata}.items():
        yield f"sgs.{key}", json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _indices(index: dict[str, int], names: Sequence[str | None]) -> Array:
    return np.array([-1 if name is None else index[name] for name in names], np.int32)


# -- tensors -----------------------------------------------------------------------------------------------------------
def _tensor(tensor: Tensor, buffers: _Buffers) -> Any:
    return _record(
        "Tensor",
        shape=np.array(tensor.shape, np.int32),
        type=getattr(schema.TensorType, tensor.dtype.name),
        buffer=0 if tensor.data is None else buffers.constant(stored(tensor.data, tensor.dtype)),
        name=tensor.name,
        quantization=None if tensor.quant is None else _quantization(tensor.quant),
        hasRank=True,
    )


def stored(data: Array, dtype: DType) -> Array:
    """The bytes that stand for an array in a file, uint8 [n]: a view of it, but INT4 packed."""
    if dtype is DType.INT4:
        return pack_nibbles(data)
    return np.ascontiguousarray(data).reshape(-1).view(np.uint8)


def _quantization(quant: QuantParams) -> Any:
    return _record(
        "QuantizationParameters",
        min=quant.low if quant.low.size else None,
        max=quant.high if quant.high.size else None,
        scale=quant.scale,
        zeroPoint=quant.zero_point.astype(np.int64),
        quantizedDimension=quant.axis,
    )


# -- operators ---------------------------------------------------------------------------------------------------------
def _operator_code(op: str) -> Any:
    row = SIM.get(op)
    if row is not None and row.custom:
        code = schema.BuiltinOperator.CUSTOM
        return _record("OperatorCode", deprecatedBuiltinCode=code, builtinCode=code, customCode=row.code or op)
    code = getattr(schema.BuiltinOperator, op)
    # The first version of an operator is in every runtime, and kernels go by the options, not by the version.
    first = 1 if row is None else row.version
    return _record("OperatorCode", deprecatedBuiltinCode=min(code, _LARGEST_OLD_CODE), builtinCode=code, version=first)


def _operator(node: Node, index: dict[str, int], code: int) -> Any:
    inputs, outputs = _indices(index, node.inputs), _indices(index, node.outputs)
    record = _record("Operator", opcodeIndex=code, inputs=inputs, outputs=outputs)
    row = SIM.get(node.op)
    if row is not None and row.custom:
        record.customOptions = np.frombuffer(flexbuffers.Dumps(_sorted(node.attrs)), np.uint8)
        record.customOptionsFormat = schema.CustomOptionsFormat.FLEXBUFFERS
    elif row is not None and row.options:
        record.builtinOptionsType = getattr(schema.BuiltinOptions, row.options)
        record.builtinOptions = _record(row.options, **pack_options(node.attrs))
    return record


def _sorted(value: Any) -> Any:
    """The value with the keys of its maps in order, so that equal attrs give equal bytes."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, (list, tuple)) else value
