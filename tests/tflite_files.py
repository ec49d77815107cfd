"""TFLite files for tests, written with the generated classes, and what LiteRT makes of files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest

from sgs.frontends.onnx_import import import_model
from sgs.frontends.tflite.model import load_tflite
from sgs.ir.graph import Graph
from sgs.numeric.quantise import Array
from sgs.registry import TfliteCase
from sgs.sim import generated as schema
from sgs.sim.fields import pack_options

_NAMES = ("float32", "float16", "bool", "int8", "uint8", "int16", "int32", "int64")
KINDS = {np.dtype(name): getattr(schema.TensorType, name.upper()) for name in _NAMES}
_LARGEST_OLD_CODE = 127


def record(kind: str, **fields: Any) -> Any:
    made = getattr(schema, f"{kind}T")()
    for name, value in fields.items():
        assert hasattr(made, name), (kind, name)
        setattr(made, name, value)
    return made


def codes(data: Array, scale: Any, zero: Any = 0, axis: int = 0) -> tuple[Array, Any]:
    """A constant of codes with its quantisation."""
    scale = np.atleast_1d(np.asarray(scale, np.float32))
    zeros = np.broadcast_to(np.atleast_1d(np.asarray(zero, np.int64)), scale.shape)
    return data, record("QuantizationParameters", scale=scale, zeroPoint=np.array(zeros), quantizedDimension=axis)


class TfliteFile:
    """A file on its way: tensors and operators are added in order."""

    def __init__(self) -> None:
        self.buffers = [record("Buffer")]
        self.tensors: dict[str, Any] = {}
        self.codes: list[Any] = []
        self.operators: list[Any] = []

    def tensor(self, name: str, shape: Any, kind: Any = "float32", **fields: Any) -> str:
        number = KINDS[np.dtype(kind)] if kind not in vars(schema.TensorType) else getattr(schema.TensorType, kind)
        shape = np.array(shape, np.int32)
        self.tensors[name] = record("Tensor", name=name, shape=shape, type=number, hasRank=True, **fields)
        return name

    def constant(self, name: str, data: Array, **fields: Any) -> str:
        data = np.asarray(data, order="C")
        self.tensor(name, data.shape, data.dtype, buffer=len(self.buffers), **fields)
        self.buffers.append(record("Buffer", data=data.reshape(-1).view(np.uint8)))
        return name

    def operator(
        self,
        op: str,
        inputs: Any,
        outputs: Any,
        table: str = "",
        options: Mapping[str, Any] | None = None,
        packed: bytes | None = None,
    ) -> None:
        """`inputs` "" is an operand that is left out; `op` "custom X" a custom operator."""
        custom = op.removeprefix("custom ") if op.startswith("custom ") else None
        number = getattr(schema.BuiltinOperator, "CUSTOM" if custom else op)
        old = min(number, _LARGEST_OLD_CODE)
        code = record("OperatorCode", deprecatedBuiltinCode=old, builtinCode=number, customCode=custom, version=1)
        self.codes.append(code)
        index = {name: i for i, name in enumerate(self.tensors)}
        sides = [np.array([index.get(name, -1) for name in side], np.int32) for side in (inputs, outputs)]
        made = record("Operator", opcodeIndex=len(self.codes) - 1, inputs=sides[0], outputs=sides[1])
        if table:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            given = {name: list(v) if isinstance(v, tuple) else v for name, v in (options or {}).items()}
            made.builtinOptions = record(table, **pack_options(given))
        if packed is not None:
            made.customOptions = np.frombuffer(packed, np.uint8)
        self.operators.append(made)

    def model(self, inputs: Any, outputs: Any) -> Any:
        index = {name: i for i, name in enumerate(self.tensors)}
        subgraph = record(
            "SubGraph",
            tensors=list(self.tensors.values()),
            inputs=np.array([index[name] for name in inputs], np.int32),
            outputs=np.array([index[name] for name in outputs], np.int32),
            operators=self.operators,
        )
        return record(
            "Model", version=3, operatorCodes=self.codes, subgraphs=[subgraph], buffers=self.buffers, description="test"
        )

    def bytes(self, inputs: Any, outputs: Any) -> bytes:
        return pack(self.model(inputs, outputs))


def pack(model: Any) -> bytes:
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def unpacked(data: bytes) -> Any:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))


def case_file(case: TfliteCase) -> bytes:
    """The file of one operator."""
    file = TfliteFile()
    for name, shape in case.inputs.items():
        file.tensor(name, shape, case.types.get(name, "float32"))
    for name, data in case.constants.items():
        if name in case.variables:
            file.tensor(name, data.shape, data.dtype, isVariable=True)
        else:
            file.constant(name, data)
    results = [file.tensor(f"y{i}", (), kind) for i, kind in enumerate(case.results)]
    order = case.order or (*case.inputs, *case.constants)
    options = {"out_data_type": case.results[0].upper()} if case.table == "CastOptions" else {}
    file.operator(case.op, order, results, case.table, {**options, **case.options}, case.packed)
    return file.bytes(case.inputs, results)


def case_feeds(case: TfliteCase) -> dict[str, Array]:
    rng = np.random.default_rng(5)
    return {
        name: _draw(rng, shape, np.dtype(case.types.get(name, "float32")), case) for name, shape in case.inputs.items()
    }


def _draw(rng: np.random.Generator, shape: Any, kind: Any, case: TfliteCase) -> Array:
    if kind == np.bool_:
        return rng.random(shape) < 0.5
    if kind.kind in "iu":
        return rng.integers(int(case.low), int(case.high) + 1, shape).astype(kind)
    return rng.uniform(case.low, case.high, shape).astype(kind)


def written_out(data: bytes) -> bytes:
    """The file with its constants of codes as real numbers."""
    model, kinds = unpacked(data), {schema.TensorType.INT8: np.int8, schema.TensorType.UINT8: np.uint8}
    for tensor in model.subgraphs[0].tensors:
        quant, kind = tensor.quantization, kinds.get(tensor.type)
        if quant is None or kind is None or not tensor.buffer:
            continue
        shape = [1] * len(tensor.shape)
        shape[quant.quantizedDimension] = -1
        raw = np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(kind).reshape(tensor.shape)
        scale, zero = np.asarray(quant.scale, np.float64).reshape(shape), np.asarray(quant.zeroPoint).reshape(shape)
        value = ((raw.astype(np.float64) - zero) * scale).astype(np.float32)
        model.buffers.append(record("Buffer", data=value.reshape(-1).view(np.uint8)))
        tensor.buffer, tensor.type, tensor.quantization = len(model.buffers) - 1, schema.TensorType.FLOAT32, None
    return pack(model)


def imported(data: bytes, folder: Path, *, dequantize: bool = False, **more: Any) -> Graph:
    """What the importer makes of a file."""
    path = folder / "model.tflite"
    path.write_bytes(data)
    return import_model(load_tflite(path, dequantize=dequantize), **more)


def litert_run(data: bytes, feeds: Mapping[str, Array]) -> list[Array]:
    """What LiteRT's plain kernels make of a file, outputs in its order; skips the test where it is not installed."""
    judge = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
    resolver = judge.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = judge.Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], feeds[detail["name"]])
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
