"""The plan written down: constants in the weights section, placements, commands, inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sgs import __version__
from sgs.compile.allocate import Plan
from sgs.compile.cost import command_cost
from sgs.compile.live import LiveRange, Residence
from sgs.compile.weights import WeightPool
from sgs.config.chips import Chip
from sgs.img.image import BatchMode, Command, Image, IoTensor, Placement, Program, Space, TensorRef
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.types import DType

RAW_FORMATS = {  # what the caller supplies where the graph's metadata says nothing
    DType.FLOAT32: "RAWDATA_F32_NHWC",
    DType.INT16: "RAWDATA_S16_NHWC",
    DType.UINT8: "RAWDATA_U8_NHWC",
    DType.UINT16: "RAWDATA_U16_NHWC",
}


@dataclass(frozen=True)
class Target:
    """What to compile for."""

    chip: Chip
    batch_mode: BatchMode
    batches: tuple[int, ...]
    category: str


def emit(
    graph: Graph, residence: Residence, ranges: Sequence[LiveRange], plan: Plan, target: Target, names: Sequence[str]
) -> Image:
    """The image of a planned graph; `names` are the outputs' names for the caller.

    One program serves one frame. n_buf runs it once a frame; one_buf stores it for every size, repeated over the
    frames of the buffer. All frames share the arena.
    """
    index = _tensor_indexes(graph, residence)
    pool = WeightPool()
    offsets = {item.name: offset for item, offset in zip(ranges, plan.offsets, strict=True)}
    placements = tuple(_placement(graph[name], i, residence, offsets, pool, graph) for name, i in index.items())
    commands = tuple(_command(graph, node, index, target.chip) for node in residence.commands)
    sizes = (1,) if target.batch_mode is BatchMode.N_BUF else target.batches
    return Image(
        chip=target.chip.name,
        model_name=graph.name,
        batch_mode=target.batch_mode,
        batches=target.batches,
        inputs=tuple(_io(graph[name], index, name, _described(graph, "inputs", name)) for name in graph.inputs),
        outputs=tuple(
            _io(graph[inner], index, name, _described(graph, "outputs", name))
            for inner, name in zip(graph.outputs, names, strict=True)
        ),
        tensors=tuple(TensorRef(name, graph[name].dtype, graph[name].shape, graph[name].quant) for name in index),
        programs=tuple(Program(n, plan.peak, plan.lower_bound, commands, placements, passes=n) for n in sizes),
        weights=pool.bytes(),
        category=target.category,
        config=_config(graph),
        tool_version=__version__,
    )


def _tensor_indexes(graph: Graph, residence: Residence) -> dict[str, int]:
    """Index of every tensor that an input, a command or an output names, in that order."""
    named = [name for node in residence.commands for name in (*node.inputs, *node.outputs) if name is not None]
    return {name: index for index, name in enumerate(dict.fromkeys([*graph.inputs, *named, *graph.outputs]))}


def _placement(
    tensor: Tensor, index: int, residence: Residence, offsets: Mapping[str, int], pool: WeightPool, graph: Graph
) -> Placement:
    storage = residence.storage[tensor.name]
    offset = 0
    if storage.space is Space.ARENA:
        offset = offsets[storage.name]
    elif storage.space is Space.WEIGHTS:
        constant = graph[storage.name]
        assert constant.data is not None
        offset = pool.add(constant.data, constant.dtype)
    return Placement(index, storage.space, offset, storage.size, tensor.shape, storage.buffer)


def _command(graph: Graph, node: Node, index: Mapping[str, int], chip: Chip) -> Command:
    cost = command_cost(graph, node, chip)
    return Command(
        opcode=node.op,
        name=node.name or node.outputs[0],
        inputs=tuple(-1 if name is None else index[name] for name in node.inputs),
        outputs=tuple(index[name] for name in node.outputs),
        attrs=dict(node.attrs),
        macs=cost.macs,
        vector_ops=cost.vector_ops,
        dma_bytes=cost.dma_bytes,
        cycles=cost.cycles,
    )


# -- what the graph's metadata says of inputs and outputs --------------------------------------------------------------
def _described(graph: Graph, side: str, name: str) -> Mapping[str, Any]:
    """The entry of metadata "inputs" or "outputs" for a tensor, {} where there is none."""
    entries = graph.metadata.get(side) or ()
    return next((entry for entry in entries if entry.get("name") == name), {})


def _io(tensor: Tensor, index: Mapping[str, int], name: str, said: Mapping[str, Any]) -> IoTensor:
    form = str(said.get("input_format") or said.get("format") or RAW_FORMATS.get(tensor.dtype, ""))
    return IoTensor(
        tensor=index[tensor.name],
        name=name,
        shape=tuple(int(extent) for extent in said.get("shape") or tensor.shape),
        dtype=tensor.dtype,
        quant=tensor.quant,
        format=form,
        training_format=str(said.get("training_format") or form),
        layout=str(said.get("layout") or "NHWC"),
        width_alignment=int(said.get("width_alignment") or 1),
        height_alignment=int(said.get("height_alignment") or 1),
        mean=tuple(float(value) for value in said.get("mean") or ()),
        std=tuple(float(value) for value in said.get("std") or ()),
    )


def _config(graph: Graph) -> dict[str, Any]:
    """What the file keeps of how the graph came about: the configuration, and how it was calibrated."""
    return {key: graph.metadata[key] for key in ("config", "calibration") if key in graph.metadata}
