"""The plan written down: constants in the weights section, kernels, commands, inputs and outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sgs import __version__
from sgs.compile.cost import ENGINES, Cycles, Timeline, computation_cycles, transfer_cycles
from sgs.compile.live import Storage
from sgs.compile.plan import Decision
from sgs.compile.program import Buffer, Computation, Spot, Transfer, in_order
from sgs.compile.residency import compulsory_traffic
from sgs.compile.weights import WeightPool
from sgs.config.chips import Chip
from sgs.config.formats import RAW_TYPES
from sgs.img.image import (
    BatchMode,
    Command,
    Compute,
    Dma,
    Image,
    IoTensor,
    Kernel,
    Layer,
    Place,
    Program,
    Space,
    TensorRef,
)
from sgs.ir.graph import Graph, Node, Tensor
from sgs.ops.gather import indexed_entries
from sgs.quant.export import SCALES_KEY
from sgs.registry import COST

RAW_FORMATS = {dtype: name for name, dtype in RAW_TYPES.items()}  # where the graph's metadata says nothing


@dataclass(frozen=True)
class Target:
    """What to compile for."""

    chip: Chip
    batch_mode: BatchMode
    batches: tuple[int, ...]
    category: str
    inplace_inputs: bool = False


def emit(graph: Graph, decision: Decision, target: Target, names: Sequence[str]) -> Image:
    """The image of a planned graph; `names` are the outputs' names for the caller.

    One program serves one frame. n_buf runs it once a frame; one_buf stores it for every size, repeated over the
    frames of the buffer. All frames share the arena.
    """
    writer = _Writer(graph, decision, target.chip)
    entries = indexed_entries(graph)
    inputs = tuple(
        _io(graph[name], writer.tensor(graph[name]), name, _described(graph, "inputs", name), entries.get(name, 0))
        for name in graph.inputs
    )
    outputs = tuple(
        _io(graph[inner], writer.tensor(graph[inner]), name, _described(graph, "outputs", name))
        for inner, name in zip(graph.outputs, names, strict=True)
    )
    commands = writer.commands()
    layers = tuple(writer.layers(commands))
    program = Program(
        batch=1,
        arena_size=decision.arena.peak,
        arena_lower_bound=decision.arena.lower_bound,
        commands=commands,
        sram_size=decision.sram.peak,
        sram_lower_bound=decision.sram.lower_bound,
        cycles=max((command.start + command.cycles for command in commands), default=0),
    )
    sizes = (1,) if target.batch_mode is BatchMode.N_BUF else target.batches
    return Image(
        chip=target.chip.name,
        model_name=graph.name,
        batch_mode=target.batch_mode,
        batches=target.batches,
        inputs=inputs,
        outputs=outputs,
        tensors=tuple(writer.tensors),
        kernels=tuple(writer.kernels),
        layers=layers,
        programs=tuple(replace(program, batch=n, passes=n) for n in sizes),
        sram_bytes=target.chip.sram_bytes,
        compulsory_bytes=compulsory_traffic(decision.residence, target.chip.sram_bytes),
        inplace_inputs=target.inplace_inputs,
        weights=writer.pool.bytes(),
        constants=writer.pool.constants,
        category=target.category,
        config=_config(graph),
        tool_version=__version__,
    )


class _Writer:
    """Turns planned commands into the image's: addresses for spots, numbers for tensors and kernels."""

    def __init__(self, graph: Graph, decision: Decision, chip: Chip) -> None:
        self._graph, self._decision, self._chip = graph, decision, chip
        self.pool = WeightPool()
        self.tensors: list[TensorRef] = []
        self.kernels: list[Kernel] = []
        self._numbers: dict[object, int] = {}
        self._cycles: dict[int, Cycles] = {}  # of kernels
        self._sram = dict(zip(decision.schedule.buffers, decision.sram.offsets, strict=True))
        self._arena = dict(zip(decision.arena_homes, decision.arena.offsets, strict=True))
        self._weights: dict[Storage, int] = {}

    def tensor(self, tensor: Tensor) -> int:
        """Number of a tensor or piece."""
        quant = tensor.quant and (tensor.quant.scale.tobytes(), tensor.quant.zero_point.tobytes(), tensor.quant.axis)
        key = "tensor", tensor.name, tensor.dtype, tensor.shape, quant
        if key not in self._numbers:
            self._numbers[key] = len(self.tensors)
            self.tensors.append(TensorRef(tensor.name, tensor.dtype, tensor.shape, tensor.quant))
        return self._numbers[key]

    def _kernel(self, graph: Graph, node: Node) -> int:
        inputs = tuple(-1 if name is None else self.tensor(graph[name]) for name in node.inputs)
        outputs = tuple(self.tensor(graph[name]) for name in node.outputs)
        constants = tuple(i for i, name in enumerate(node.inputs) if name is not None and graph[name].is_constant)
        key = "kernel", node.op, inputs, outputs, repr(sorted(node.attrs.items()))
        if key not in self._numbers:
            self._numbers[key] = number = len(self.kernels)
            self.kernels.append(Kernel(node.op, inputs, outputs, constants, dict(node.attrs)))
            self._cycles[number] = computation_cycles(graph, node, self._chip)
        return self._numbers[key]

    def commands(self) -> tuple[Command, ...]:
        """All commands in order, with the cycles in which they run."""
        timeline = Timeline(self._decision.sram.peak, self._chip.alignment)
        made: list[Command] = []
        for command in in_order(self._decision.schedule.steps):
            if isinstance(command, Transfer):
                made.append(self._dma(command, timeline))
            else:
                made.append(self._compute(command, timeline))
        return tuple(made)

    def _compute(self, command: Computation, timeline: Timeline) -> Compute:
        kernel = self._kernel(command.graph, command.node)
        reads = [-1 if spot is None else self._place(spot, ()).offset for spot in command.reads]
        writes = [self._place(spot, ()).offset for spot in command.writes]
        spans = [
            [
                (offset, offset + self.tensors[number].nbytes)
                for number, offset in zip(numbers, offsets, strict=True)
                if offset != -1
            ]
            for numbers, offsets in ((self.kernels[kernel].inputs, reads), (self.kernels[kernel].outputs, writes))
        ]
        cycles = self._cycles[kernel]
        start = timeline.add(cycles, *spans)
        return Compute(command.layer, kernel, tuple(reads), tuple(writes), start, cycles.total)

    def _dma(self, command: Transfer, timeline: Timeline) -> Dma:
        source = self._place(command.source, command.source_strides)
        target = self._place(command.target, command.target_strides)
        dram = sum(place.space is not Space.SRAM for place in (source, target))
        strides = (source.strides, target.strides)
        cycles = transfer_cycles(command.extents, strides, command.itemsize, dram, self._chip)
        made = Dma(command.layer, command.extents, command.itemsize, source, target, cycles=cycles.total)
        spans = [[made.reach(place)] if place.space is Space.SRAM else [] for place in (source, target)]
        return replace(made, start=timeline.add(cycles, *spans))

    def _place(self, spot: Spot, strides: tuple[int, ...]) -> Place:
        home = spot.home
        if isinstance(home, Buffer):
            return Place(Space.SRAM, self._sram[home] + spot.offset, strides)
        if home in self._decision.in_inputs:
            buffer, offset = self._decision.in_inputs[home]
            return Place(Space.INPUT, offset + spot.offset, strides, buffer)
        if home.space is Space.ARENA:
            return Place(Space.ARENA, self._arena[home] + spot.offset, strides)
        if home.space is Space.WEIGHTS:
            return Place(Space.WEIGHTS, self._constant(home) + spot.offset, strides)
        return Place(home.space, spot.offset, strides, home.buffer)

    def _constant(self, home: Storage) -> int:
        if home not in self._weights:
            tensor = self._graph[home.name]
            assert tensor.data is not None
            self._weights[home] = self.pool.add(tensor.data, tensor.dtype)
        return self._weights[home]

    def layers(self, commands: Sequence[Command]) -> list[Layer]:
        """The layers with what their commands add up to."""
        made = []
        of_layer: dict[int, list[Command]] = {}
        for command in commands:
            of_layer.setdefault(command.layer, []).append(command)
        for index, node in enumerate(self._decision.residence.layers):
            mine = of_layer.get(index, [])
            work = COST[node.op](node, self._graph.operands(node), self._graph.results(node))
            made.append(
                Layer(
                    name=node.name or node.outputs[0],
                    opcode=node.op,
                    macs=work.macs,
                    vector_ops=work.vector_ops,
                    read_bytes=sum(_dram_bytes(c, c.source) for c in mine if isinstance(c, Dma)),
                    written_bytes=sum(_dram_bytes(c, c.target) for c in mine if isinstance(c, Dma)),
                    start=min((c.start for c in mine), default=0),
                    end=max((c.start + c.cycles for c in mine), default=0),
                    results=tuple(self.tensor(self._graph[name]) for name in node.outputs),
                    **self._busy(mine),
                )
            )
        return made

    def _busy(self, commands: Sequence[Command]) -> dict[str, int]:
        """Cycles in which the commands keep each engine busy."""
        busy = dict.fromkeys((f"{engine}_cycles" for engine in ENGINES), 0)
        for command in commands:
            if isinstance(command, Compute):
                cycles = self._cycles[command.kernel]
                busy[f"{cycles.engine}_cycles"] += cycles.busy
            else:
                dram = any(place.space is not Space.SRAM for place in (command.source, command.target))
                busy["dma_cycles"] += command.cycles - (self._chip.dram_latency_cycles if dram else 0)
        return busy


def _dram_bytes(command: Dma, place: Place) -> int:
    return 0 if place.space is Space.SRAM else math.prod(command.extents) * command.itemsize


# -- what the graph's metadata says of inputs and outputs --------------------------------------------------------------
def _described(graph: Graph, side: str, name: str) -> Mapping[str, Any]:
    """The entry of metadata "inputs" or "outputs" for a tensor, {} where there is none."""
    entries = graph.metadata.get(side) or ()
    return next((entry for entry in entries if entry.get("name") == name), {})


def _io(tensor: Tensor, number: int, name: str, said: Mapping[str, Any], entries: int = 0) -> IoTensor:
    form = str(said.get("input_format") or said.get("format") or RAW_FORMATS.get(tensor.dtype, ""))
    return IoTensor(
        tensor=number,
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
        picture_shape=tuple(int(extent) for extent in said.get("picture_shape") or ()),
        entries=entries,
    )


def _config(graph: Graph) -> dict[str, Any]:
    """What the file keeps of how the graph came about: the configuration, how it was calibrated, and what that
    did to channels."""
    return {key: graph.metadata[key] for key in ("config", "calibration", SCALES_KEY) if key in graph.metadata}
