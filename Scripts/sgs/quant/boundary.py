"""The front and back end of a fixed network: what it is fed and what it returns.

Pictures enter as the bytes of `input_formats`: NV12_TO_RGB makes pixels of YUV_NV12, NORMALISE_IMAGE makes codes of
pixels, which leaves alpha and alignment behind. RAWDATA_F32 enters as binary32 through QUANTIZE ("Float2Fix");
RAWDATA_S16 enters as the codes themselves, RAWDATA_U8 as codes that are the values. Outputs are INT16
codes, or UINT8 ones of RAWDATA_U8, and leave with `dequantizations=TRUE` through DEQUANTIZE ("Fix2Float").
Integers of the network's own, and truth values, enter and leave through CAST (docs/NUMERICS.md §6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sgs.config.formats import CHANNELS, INPUT_FORMATS, NV12, RAW_TYPES, InputSpec, OutputSpec
from sgs.config.input_config import InputConfig
from sgs.ir import Graph, Node, Tensor, verify
from sgs.numeric.quantise import Array, QuantParams, asymmetric_params, dequantise, quantise
from sgs.numeric.types import DType
from sgs.ops.image import normalisation_table
from sgs.ops.nv12 import OP as NV12_TO_RGB
from sgs.quant.spans import integer_spans, reach, within

BYTES = asymmetric_params(0, 255)  # scale 1, zero point 0


def attach(core: Graph, config: InputConfig, bytes_out: Mapping[str, QuantParams]) -> Graph:
    """A copy of the integer graph with its front end and back end; metadata describes both for simulators and
    compiler. `bytes_out` has the parameters of outputs that leave as UINT8.
    """
    graph = core.copy()
    front: list[Node] = []
    described: list[dict[str, Any]] = []
    for spec in config.inputs:
        if spec.name in graph.tensors and spec.name in graph.inputs:
            described.append(_attach_input(graph, spec, front))
    outputs = [_attach_output(graph, spec, bytes_out.get(spec.name)) for spec in config.outputs]
    graph.nodes = [*front, *graph.nodes]
    graph.metadata["inputs"], graph.metadata["outputs"] = described, outputs
    graph.prune()  # of what nobody reads no codes are made
    verify(graph, "attaching inputs and outputs")
    return graph


def _renamed(graph: Graph, name: str, suffix: str) -> Tensor:
    """Move a boundary tensor out of the way of the user's name; input and output lists keep the user's name."""
    inputs, outputs = graph.inputs, graph.outputs
    inner = graph.fresh(f"{name}/{suffix}")
    graph.rename_tensor(name, inner)
    graph.inputs, graph.outputs = inputs, outputs
    return graph.tensors[inner]


def _attach_input(graph: Graph, spec: InputSpec, front: list[Node]) -> dict[str, Any]:
    codes = graph[spec.name]
    facts: dict[str, Any] = {
        "name": spec.name,
        "training_format": spec.training_format,
        "input_format": spec.input_format,
        "layout": spec.layout,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "width_alignment": spec.width_alignment,
        "height_alignment": spec.height_alignment,
    }
    if spec.is_picture:
        facts["picture_shape"] = list(codes.shape)
        _picture_input(graph, _renamed(graph, spec.name, "normalised"), spec, front)
        return facts
    fed = Tensor(spec.name, codes.shape, spec.fed_type)
    if codes.quant is None:  # integers of the network's own, such as indices
        _converted_input(graph, fed, "CAST", {"to": codes.dtype.name}, front)
    elif fed.dtype is not DType.INT16:  # which is what the codes are
        fed.quant = BYTES if fed.dtype is DType.UINT8 else None
        _converted_input(graph, fed, "QUANTIZE", {}, front)
    return {**facts, **_parameters(graph[spec.name])}


def _parameters(codes: Tensor) -> dict[str, Any]:
    """What metadata says of the codes that are fed or returned."""
    if codes.quant is None:
        return {}
    return {"scale": float(codes.quant.scale[0]), "zero_point": int(codes.quant.zero_point[0])}


def _converted_input(graph: Graph, fed: Tensor, op: str, attrs: dict[str, Any], front: list[Node]) -> None:
    """Feed a tensor of another type or parameters, which an operator makes the network's own of; the network's own
    where they are the same."""
    own = graph[fed.name]
    if own.dtype is fed.dtype and (own.quant is fed.quant is None or (own.quant and own.quant.same_codes(fed.quant))):
        return
    inner = _renamed(graph, fed.name, "integers" if op == "CAST" else "codes")
    graph.tensors[fed.name] = fed
    front.append(Node(op, [fed.name], [inner.name], attrs, fed.name))


def _picture_input(graph: Graph, inner: Tensor, spec: InputSpec, front: list[Node]) -> None:
    assert inner.quant is not None
    trained, axis = CHANNELS[spec.training_format], spec.channel_axis
    mean, std = (spec.in_order(values, spec.training_format) for values in (spec.mean, spec.std))
    table = normalisation_table(mean, std, inner.quant, inner.dtype)
    size = tuple(extent for place, extent in enumerate(inner.shape) if place not in (0, axis))
    fed = Tensor(spec.name, spec.fed_shape(inner.shape), DType.UINT8)
    graph.tensors[spec.name] = fed
    if spec.input_format == NV12:
        pixels = _of_nv12(graph, fed, spec, size, front)
        order = tuple(range(len(trained)))
    else:
        pixels, channels = fed, INPUT_FORMATS[spec.input_format].channels
        order = tuple(channels.index(colour) for colour in trained)
    operands: list[str | None] = [pixels.name, graph.add_constant(f"{spec.name}/table", table).name]
    attrs = {"order": order, "axis": axis, "size": size}
    front.append(Node("NORMALISE_IMAGE", operands, [inner.name], attrs, spec.name))


def _of_nv12(graph: Graph, fed: Tensor, spec: InputSpec, size: tuple[int, ...], front: list[Node]) -> Tensor:
    """Pixels in the order of the training format and the layout of the spec, those of grey with what else the bytes
    hold behind them."""
    frames, rows, columns, _ = fed.shape

    def made(op: str, inputs: list[str | None], suffixes: Sequence[str], *shapes: Sequence[int], **attrs: Any) -> Node:
        names = [
            graph.add_tensor(f"{spec.name}/{suffix}", shape, DType.UINT8).name
            for suffix, shape in zip(suffixes, shapes, strict=True)
        ]
        front.append(Node(op, inputs, names, attrs, spec.name))
        return front[-1]

    if spec.training_format == "GRAY":
        if spec.layout == "NHWC":
            return fed
        shape = frames, 1, rows, columns
        return graph[made("RESHAPE", [fed.name], ["plane"], shape, shape=shape).outputs[0]]
    high = rows * 2 // 3
    shapes = [(frames, extent, columns, 1) for extent in (high, rows - high)]
    planes = made("SPLIT_V", [fed.name], ["luma", "chroma"], *shapes, axis=1, sizes=(high, rows - high))
    order = CHANNELS[spec.training_format]
    picture = made(NV12_TO_RGB, [*planes.outputs], ["pixels"], (frames, *size, 3), size=size, order=order)
    if spec.layout == "NCHW":
        picture = made("TRANSPOSE", [*picture.outputs], ["planes"], (frames, 3, *size), perm=(0, 3, 1, 2))
    return graph[picture.outputs[0]]


def _attach_output(graph: Graph, spec: OutputSpec, bytes_out: QuantParams | None) -> dict[str, Any]:
    facts = {"name": spec.name, "layout": spec.layout, "format": spec.format, "dequantize": spec.dequantize}
    own, wanted = graph[spec.name], RAW_TYPES[spec.format]
    if own.quant is None and not own.dtype.is_float:
        _integer_output(graph, spec.name, wanted)
        return facts
    if wanted is DType.UINT8 and own.dtype is not DType.UINT8:
        _converted_output(graph, spec.name, "real" if own.quant is None else "codes", "QUANTIZE", wanted, bytes_out)
    if spec.dequantize and graph[spec.name].quant is not None:
        codes = "codes" if own.name == spec.name else "bytes"
        _converted_output(graph, spec.name, codes, "DEQUANTIZE", DType.FLOAT32)
    return {**facts, **_parameters(graph[spec.name])}


def _converted_output(
    graph: Graph, name: str, suffix: str, op: str, dtype: DType, quant: QuantParams | None = None
) -> None:
    """Return what an operator makes of an output, which is called after it from now on."""
    inner = _renamed(graph, name, suffix)
    graph.tensors[name] = Tensor(name, inner.shape, dtype, quant=quant)
    graph.nodes.append(Node(op, [inner.name], [name], {}, name))


def _integer_output(graph: Graph, name: str, wanted: DType) -> None:
    """Return integers of the network's own in another type; what this may not hold saturates."""
    own = graph[name]
    if own.dtype is wanted:
        return
    span = integer_spans(graph).get(name, reach(own.dtype))
    last = own = _renamed(graph, name, "integers")
    if not wanted.is_float and not within(span, wanted):
        if own.dtype is not DType.INT32:
            last = _appended(graph, "CAST", [own], {"to": DType.INT32.name})
        low, high = (np.array(end, np.int32) for end in reach(wanted))
        for op, end in (("MAXIMUM", low), ("MINIMUM", high)):
            last = _appended(graph, op, [last, graph.add_constant(f"{name}/{op.lower()}", end)], {})
    graph.tensors[name] = Tensor(name, own.shape, wanted)
    graph.nodes.append(Node("CAST", [last.name], [name], {"to": wanted.name}, name))


def _appended(graph: Graph, op: str, operands: Sequence[Tensor], attrs: dict[str, Any]) -> Tensor:
    """The INT32 result of a new last node, of the first operand's shape."""
    result = graph.add_tensor(f"{operands[0].name}/{op.lower()}", operands[0].shape, DType.INT32)
    graph.nodes.append(Node(op, [tensor.name for tensor in operands], [result.name], attrs, result.name))
    return result


def codes_of_inputs(core: Graph, sample: Mapping[str, Array]) -> dict[str, Array]:
    """Feeds of the float graph as codes for the integer graph before its front end is attached; integers of the
    network's own stay what they are.
    """
    feeds = {}
    for name in core.inputs:
        tensor, value = core[name], sample[name]
        feeds[name] = value if tensor.quant is None else quantise(value, tensor.quant, tensor.dtype)
    return feeds


def real_outputs(core: Graph, values: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """Values of the integer graph's tensors as float32: codes dequantised, real numbers as they are."""
    quants = {name: core[name].quant for name in names}
    return {name: values[name] if quant is None else dequantise(values[name], quant) for name, quant in quants.items()}
