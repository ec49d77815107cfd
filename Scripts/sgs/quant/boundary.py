"""The front and back end of a fixed network: what it is fed and what it returns.

Pictures enter as the bytes of `input_formats`: NV12_TO_RGB makes pixels of YUV_NV12, NORMALISE_IMAGE makes codes of
pixels, which leaves alpha and alignment behind; RAWDATA_F32 enters as binary32 through QUANTIZE
("Float2Fix"); RAWDATA_S16 enters as the codes themselves. Outputs with `dequantizations=TRUE` leave through
DEQUANTIZE ("Fix2Float").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sgs.config.input_config import CHANNELS, INPUT_FORMATS, NV12, InputConfig, InputSpec, OutputSpec
from sgs.ir import Graph, Node, Tensor, verify
from sgs.numeric.quantise import Array, dequantise, quantise
from sgs.numeric.types import DType
from sgs.ops.image import normalisation_table
from sgs.ops.nv12 import OP as NV12_TO_RGB


def attach(core: Graph, config: InputConfig) -> Graph:
    """A copy of the integer graph with its front end and back end; metadata describes both for simulators and
    compiler.
    """
    graph = core.copy()
    front: list[Node] = []
    described: list[dict[str, Any]] = []
    for spec in config.inputs:
        if spec.name in graph.tensors and spec.name in graph.inputs:
            described.append(_attach_input(graph, spec, front))
    back: list[Node] = []
    outputs = [_attach_output(graph, spec, back) for spec in config.outputs]
    graph.nodes = [*front, *graph.nodes, *back]
    graph.metadata["inputs"], graph.metadata["outputs"] = described, outputs
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
    elif spec.training_format == "RAWDATA_F32_NHWC" and spec.quantize:
        inner = _renamed(graph, spec.name, "codes")
        graph.tensors[spec.name] = Tensor(spec.name, inner.shape, DType.FLOAT32)
        front.append(Node("QUANTIZE", [spec.name], [inner.name], {}, spec.name))
    elif codes.quant is not None:  # else it is integers of the network's own, such as indices
        facts["scale"], facts["zero_point"] = float(codes.quant.scale[0]), int(codes.quant.zero_point[0])
    return facts


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


def _attach_output(graph: Graph, spec: OutputSpec, back: list[Node]) -> dict[str, Any]:
    codes = graph[spec.name]
    facts: dict[str, Any] = {"name": spec.name, "layout": spec.layout, "dequantize": spec.dequantize}
    if codes.quant is None:  # real numbers already, or integers of the network's own
        assert spec.dequantize or not codes.dtype.is_float
    elif spec.dequantize:
        inner = _renamed(graph, spec.name, "codes")
        graph.tensors[spec.name] = Tensor(spec.name, inner.shape, DType.FLOAT32)
        back.append(Node("DEQUANTIZE", [inner.name], [spec.name], {}, spec.name))
    else:
        facts["scale"], facts["zero_point"] = float(codes.quant.scale[0]), int(codes.quant.zero_point[0])
    return facts


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
