"""A TFLite file as a model for the importer.

The message in memory only carries the graph: its nodes are the file's own operators, in domain `tflite`, with the
options as attributes; nothing is translated to operators of ONNX. `tflite.rows` says what they mean.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from sgs.errors import UserError, raise_all
from sgs.frontends.model_file import digest_of
from sgs.frontends.onnx_model import SourceModel, normalised
from sgs.frontends.tflite.dilation import fold_dilations
from sgs.frontends.tflite.layout import layouts_of
from sgs.frontends.tflite.real import become_real, describe_inputs
from sgs.frontends.tflite.rows import CODES, DOMAIN
from sgs.frontends.tflite.sparse import dense_values
from sgs.numeric.quantise import Array
from sgs.sim.container import MALFORMED, STAGE_KEY, Container, FileOperator, FileTensor, read_container, values_of

_log = logging.getLogger(__name__)
_OPSET, _IR_VERSION = 17, 8  # of the message; nothing depends on them
_ELEMENT = {"FLOAT32": "FLOAT", "FLOAT64": "DOUBLE"}  # names that ONNX spells otherwise
_OTHER_NETWORK = ("IF", "WHILE", "CALL", "CALL_ONCE", "STABLEHLO_COMPOSITE", "STABLEHLO_WHILE", "STABLEHLO_CASE")


def load_tflite(path: Path, *, dequantize: bool = False, named: Sequence[str] = ()) -> SourceModel:
    """Read a .tflite file. Operators that compute in integer codes are refused when they are imported, or with
    `dequantize` become those of real numbers. A tensor is called as the caller has `named` it where a signature of the
    file knows it by that name, else as in the file.

    Raises UserError for a file that is no network of another toolchain.
    """
    file = _opened(path, named)
    values = _constants(file)
    for line in describe_inputs(file) if dequantize else ():
        _log.info("%s", line)
    quantised = become_real(file, values)
    proto = _message(file, {} if dequantize else quantised, values)
    external = {file.tensors[index].name: value for index, value in values.items()}
    model = normalised(proto, path, digest_of(path), external)
    return replace(model, format="tflite", layouts=layouts_of(file, values))


def _opened(path: Path, named: Sequence[str]) -> Container:
    file = read_container(path, stage="convert", kind=".tflite")
    _check_kind(file)
    fold_dilations(file)
    _name_tensors(file, named)
    return file


def tensor_numbers(path: Path, named: Sequence[str]) -> dict[str, int]:
    """Name → number in the file of every tensor, for who runs the file itself; names are those of `load_tflite`."""
    return {tensor.name: index for index, tensor in enumerate(_opened(path, named).tensors)}


def _check_kind(file: Container) -> None:
    if STAGE_KEY in file.metadata:
        stage = file.metadata[STAGE_KEY].decode("utf-8", "replace").strip('"')
        reason, remedy = f"this is a {stage[:20]} .sim, not a .tflite model", "it needs no converting"
        raise UserError(reason, stage="convert", file=file.path, remedy=remedy)
    if file.others and not any(operator.op in _OTHER_NETWORK for operator in file.operators):
        reason = f"it holds {file.others + 1} networks; files of one are supported"
        remedy = "convert to .tflite with a single signature"
        raise UserError(reason, stage="convert", file=file.path, remedy=remedy)


# -- names -------------------------------------------------------------------------------------------------------------
def _name_tensors(file: Container, named: Sequence[str]) -> None:
    """Give every tensor a name of its own."""
    taken = {tensor.name for tensor in file.tensors}
    for name in named:
        if name in file.aliases and name not in taken:
            file.tensors[file.aliases[name]].name = name
    seen: set[str] = set()
    for index, tensor in enumerate(file.tensors):
        stem = tensor.name or f"tensor{index}"
        count, tensor.name = 0, stem
        while tensor.name in seen or (tensor.name != stem and tensor.name in taken):
            count += 1
            tensor.name = f"{stem}_{count}"
        seen.add(tensor.name)


# -- constants ---------------------------------------------------------------------------------------------------------
def _constants(file: Container) -> dict[int, Array]:
    """Number of a tensor → its values, of every constant; variables are zeros, which is what they begin with."""
    found: dict[int, Array] = {}
    problems = []
    for index, tensor in enumerate(file.tensors):
        try:
            value = _value(tensor)
        except MALFORMED as error:
            reason = str(error) or "its values are damaged"
            problems.append(UserError(reason, stage="convert", file=file.path, node=tensor.name))
            continue
        if value is not None:
            found[index] = value
    raise_all(problems, stage="convert", file=file.path)
    return found


def _value(tensor: FileTensor) -> Array | None:
    """Raises one of `MALFORMED` for bytes that are not those of its type and shape."""
    if tensor.special == "a variable":
        return np.broadcast_to(np.float32(0), tensor.shape)
    if tensor.special == "in another file":
        raise ValueError("its values are in another file, which is not supported")
    if tensor.raw is None:
        return None
    if tensor.special == "sparse":
        return dense_values(tensor)
    if tensor.kind in ("STRING", "RESOURCE", "VARIANT"):  # what reads it has no meaning here
        return np.zeros(0, object)
    return values_of(tensor)


# -- the message -------------------------------------------------------------------------------------------------------
def _message(file: Container, quantised: Mapping[int, str], values: Mapping[int, Array]) -> ModelProto:
    proto = ModelProto(ir_version=_IR_VERSION, producer_name=DOMAIN, producer_version=file.description)
    proto.opset_import.extend([helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, 1)])
    graph = proto.graph
    graph.name = file.name or "network"
    graph.input.extend(_declared(file.tensors[index]) for index in file.inputs)
    graph.output.extend(_declared(file.tensors[index]) for index in dict.fromkeys(file.outputs))
    for index, value in values.items():
        tensor = TensorProto(name=file.tensors[index].name, data_location=TensorProto.EXTERNAL, dims=value.shape)
        tensor.data_type = _element_type(file.tensors[index].kind)
        graph.initializer.append(tensor)
    for position, operator in enumerate(file.operators):
        graph.node.append(_node(file, operator, quantised.get(position, "")))
        inner = [index for index in operator.outputs if index not in file.outputs]
        graph.value_info.extend(_declared(file.tensors[index]) for index in inner)
    return proto


def _element_type(kind: str) -> int:
    """ONNX's number for an element type; text stands for those that it lacks, which no graph holds either."""
    return int(getattr(TensorProto, _ELEMENT.get(kind, kind), TensorProto.STRING))


def _declared(tensor: FileTensor) -> ValueInfoProto:
    """Name, type and shape of a tensor. An extent that may change is as the file has it where that may be meant: a
    batch, and any that is not 1."""
    free = [extent < 0 and axis > 0 and tensor.shape[axis] == 1 for axis, extent in enumerate(tensor.signature)]
    shape = [None if is_free else extent for extent, is_free in zip(tensor.shape, free, strict=True)]
    return helper.make_tensor_value_info(tensor.name, _element_type(tensor.kind), shape)


def _node(file: Container, operator: FileOperator, codes: str) -> NodeProto:
    op = f"custom {operator.custom}" if operator.op == "CUSTOM" else operator.op
    names = [["" if i < 0 else file.tensors[i].name for i in side] for side in (operator.inputs, operator.outputs)]
    node = NodeProto(op_type=op, domain=DOMAIN, name=next(iter(names[1]), ""), input=names[0], output=names[1])
    attributes = {**operator.options, **({CODES: codes} if codes else {})}
    if operator.outputs:  # what a CAST is to give, where old files do not say it
        attributes["result_type"] = file.tensors[operator.outputs[0]].kind
    node.attribute.extend(
        helper.make_attribute(name, value) for name, value in attributes.items() if _is_attribute(value)
    )
    if operator.packed is not None:
        packed = numpy_helper.from_array(np.frombuffer(operator.packed, np.uint8))
        node.attribute.append(helper.make_attribute("packed", packed))
    return node


def _is_attribute(value: Any) -> bool:
    return isinstance(value, (int, float, str)) or (isinstance(value, tuple) and len(value) > 0)
