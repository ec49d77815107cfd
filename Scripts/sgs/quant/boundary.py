"""The front and back end of a fixed network: what it is fed and what it returns.

Pictures enter as UINT8 and are normalised by NORMALISE_IMAGE; RAWDATA_F32 enters as binary32 through QUANTIZE
("Float2Fix"); RAWDATA_S16 enters as the codes themselves. Outputs with `dequantizations=TRUE` leave through
DEQUANTIZE ("Fix2Float").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sgs.config.input_config import CHANNELS, InputConfig, InputSpec, OutputSpec
from sgs.ir import Graph, Node, Tensor, verify
from sgs.numeric.quantise import Array, dequantise, quantise
from sgs.numeric.types import DType
from sgs.ops.image import normalisation_table


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
    trained, fed = CHANNELS[spec.training_format], CHANNELS[spec.input_format]
    mean, std = spec.in_order(spec.mean, spec.training_format), spec.in_order(spec.std, spec.training_format)
    table = graph.add_constant(f"{spec.name}/table", normalisation_table(mean, std, inner.quant, inner.dtype))
    graph.tensors[spec.name] = Tensor(spec.name, inner.shape, DType.UINT8)
    attrs = {"order": tuple(fed.index(colour) for colour in trained), "axis": spec.channel_axis}
    front.append(Node("NORMALISE_IMAGE", [spec.name, table.name], [inner.name], attrs, spec.name))


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
