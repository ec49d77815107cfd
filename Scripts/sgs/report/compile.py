"""What an image will cost on its chip, per network and per layer, as the machine model predicts it: JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from sgs.compile import Summary, summarise
from sgs.compile.cost import ENGINES, Engine, ideal_mac_cycles
from sgs.config.chips import Chip, chip_facts
from sgs.img.image import Command, Compute, Image, Space
from sgs.numeric.types import DType
from sgs.registry import QUANTISE

FORMAT = 1  # of the JSON
NO_ENGINE = "none"


@dataclass(frozen=True)
class LayerCost:
    """A layer of one frame. `activation_bits` and `weight_bits` are those of its first computation, 0 where there is
    none; `span_cycles` is `end` - `start`, in which other layers may be under way as well;
    `ideal_mac_cycles` is what the MAC array needs for the layer's work at its full rate, `mac_utilisation` the ratio of
    the two. `bound_by` is the engine that the layer keeps busy longest."""

    index: int
    name: str
    opcode: str
    activation_bits: int
    weight_bits: int
    macs: int
    vector_ops: int
    read_bytes: int
    written_bytes: int
    mac_cycles: int
    vector_cycles: int
    dma_cycles: int
    start: int
    end: int
    span_cycles: int
    ideal_mac_cycles: int
    mac_utilisation: float
    bound_by: str
    commands: int
    pieces: int


@dataclass(frozen=True)
class NetworkCost:
    """The sums over a frame. Bytes, cycles and seconds; gaps are parts of the lower bounds, 0 where nothing is needed
    and nothing is taken; a ratio without a denominator is None."""

    model: str
    tool_version: str
    batch_mode: str
    batches: tuple[int, ...]
    layers: int
    cycles: int
    latency_seconds: float
    frames_per_second: float
    macs: int
    vector_ops: int
    mac_cycles: int
    vector_cycles: int
    dma_cycles: int
    ideal_mac_cycles: int
    mac_utilisation: float | None
    dram_read_bytes: int
    dram_written_bytes: int
    dram_bytes: int
    compulsory_bytes: int
    compulsory_ratio: float | None
    bandwidth_bytes_per_second: float | None
    bandwidth_share: float | None
    sram_peak: int
    sram_lower_bound: int
    sram_gap: float | None
    sram_capacity: int
    arena_peak: int
    arena_lower_bound: int
    arena_gap: float | None
    image_bytes: int
    weights_bytes: int
    coded_weights_bytes: int


@dataclass(frozen=True)
class CommandCount:
    """Commands of one frame by what they do; `kernels` are the different computations."""

    total: int
    computations: int
    loads: int
    stores: int
    sram_copies: int
    dram_copies: int
    kernels: int


@dataclass(frozen=True)
class CompileReport:
    """All figures of an image on a chip."""

    chip: Chip
    network: NetworkCost
    commands: CommandCount
    layers: tuple[LayerCost, ...]


def describe_image(image: Image, chip: Chip, image_bytes: int) -> CompileReport:
    """The figures of an image on the chip that it was compiled for; its file has `image_bytes`."""
    by_layer: list[list[Command]] = [[] for _ in image.layers]
    for command in image.programs[0].commands:
        by_layer[command.layer].append(command)
    layers = tuple(_layer(image, chip, index, by_layer[index]) for index in range(len(image.layers)))
    network = _network(image, chip, summarise(image, chip), layers, image_bytes)
    return CompileReport(chip, network, count_commands(image), layers)


def _layer(image: Image, chip: Chip, index: int, commands: Sequence[Command]) -> LayerCost:
    layer = image.layers[index]
    activations, weights = _formats(image, commands)
    ideal = 0 if activations is None else ideal_mac_cycles(layer.macs, chip, activations, weights or DType.INT8)
    span = layer.end - layer.start
    return LayerCost(
        index=index,
        name=layer.name,
        opcode=layer.opcode,
        activation_bits=0 if activations is None else activations.bits,
        weight_bits=0 if weights is None else weights.bits,
        macs=layer.macs,
        vector_ops=layer.vector_ops,
        read_bytes=layer.read_bytes,
        written_bytes=layer.written_bytes,
        mac_cycles=layer.mac_cycles,
        vector_cycles=layer.vector_cycles,
        dma_cycles=layer.dma_cycles,
        start=layer.start,
        end=layer.end,
        span_cycles=span,
        ideal_mac_cycles=ideal,
        mac_utilisation=_ratio(ideal, span) or 0.0,
        bound_by=_busiest({"mac": layer.mac_cycles, "vector": layer.vector_cycles, "dma": layer.dma_cycles}),
        commands=len(commands),
        pieces=sum(isinstance(command, Compute) for command in commands),
    )


def _formats(image: Image, commands: Sequence[Command]) -> tuple[DType | None, DType | None]:
    """Types of a layer's first operand (None for a layer that computes nothing) and of its weights (None without)."""
    for command in commands:
        if isinstance(command, Compute):
            kernel = image.kernels[command.kernel]
            types = [None if tensor == -1 else image.tensors[tensor].dtype for tensor in kernel.inputs]
            rule = QUANTISE.get(kernel.opcode)
            weight = types[rule.weight] if rule is not None and rule.kind == "mac" else None
            return next((kind for kind in types if kind is not None), None), weight
    return None, None


def _busiest(busy: Mapping[Engine, int]) -> str:
    engine = max(ENGINES, key=lambda name: busy[name])
    return engine if busy[engine] else NO_ENGINE


def _network(image: Image, chip: Chip, summary: Summary, layers: Sequence[LayerCost], image_bytes: int) -> NetworkCost:
    bandwidth = _ratio(summary.dram_bytes, summary.latency)
    ideal = sum(layer.ideal_mac_cycles for layer in layers)
    return NetworkCost(
        model=image.model_name,
        tool_version=image.tool_version,
        batch_mode=image.batch_mode.name.lower(),
        batches=image.batches,
        layers=len(layers),
        cycles=summary.cycles,
        latency_seconds=summary.latency,
        frames_per_second=summary.frames_per_second,
        macs=summary.macs,
        vector_ops=summary.vector_ops,
        mac_cycles=sum(layer.mac_cycles for layer in layers),
        vector_cycles=sum(layer.vector_cycles for layer in layers),
        dma_cycles=sum(layer.dma_cycles for layer in layers),
        ideal_mac_cycles=ideal,
        mac_utilisation=_ratio(ideal, summary.cycles),
        dram_read_bytes=sum(layer.read_bytes for layer in layers),
        dram_written_bytes=sum(layer.written_bytes for layer in layers),
        dram_bytes=summary.dram_bytes,
        compulsory_bytes=summary.compulsory_bytes,
        compulsory_ratio=_ratio(summary.dram_bytes, summary.compulsory_bytes),
        bandwidth_bytes_per_second=bandwidth,
        bandwidth_share=None if bandwidth is None else bandwidth / chip.dram_bytes_per_second,
        sram_peak=summary.sram_peak,
        sram_lower_bound=summary.sram_lower_bound,
        sram_gap=_gap(summary.sram_peak, summary.sram_lower_bound),
        sram_capacity=summary.sram_bytes,
        arena_peak=summary.arena_peak,
        arena_lower_bound=summary.arena_lower_bound,
        arena_gap=_gap(summary.arena_peak, summary.arena_lower_bound),
        image_bytes=image_bytes,
        weights_bytes=summary.weights,
        coded_weights_bytes=summary.coded_weights,
    )


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _gap(peak: int, bound: int) -> float | None:
    return 0.0 if peak == bound else peak / bound - 1 if bound else None


def count_commands(image: Image) -> CommandCount:
    """The commands of one frame."""
    commands = image.programs[0].commands
    ways = {"computations": 0, "loads": 0, "stores": 0, "sram_copies": 0, "dram_copies": 0}
    for command in commands:
        if isinstance(command, Compute):
            ways["computations"] += 1
            continue
        inside = command.source.space is Space.SRAM, command.target.space is Space.SRAM
        way = {(False, True): "loads", (True, False): "stores", (True, True): "sram_copies"}.get(inside, "dram_copies")
        ways[way] += 1
    return CommandCount(total=len(commands), kernels=len(image.kernels), **ways)


# -- engines -----------------------------------------------------------------------------------------------------------
def engine_of(image: Image, command: Command) -> Engine:
    """The engine that executes a command: what a layer computes, all of its pieces do on the same one."""
    if not isinstance(command, Compute):
        return "dma"
    return "mac" if image.layers[command.layer].macs else "vector"


def busy_cycles(command: Command, chip: Chip) -> int:
    """Cycles in which a command keeps its engine from the next one: of a transfer from or to DRAM, without the latency
    of its last bytes."""
    if isinstance(command, Compute):
        return command.cycles
    outside = any(place.space is not Space.SRAM for place in (command.source, command.target))
    return max(0, command.cycles - (chip.dram_latency_cycles if outside else 0))


# -- files -------------------------------------------------------------------------------------------------------------
def json_text(report: CompileReport) -> str:
    """All figures, the chip's with where they come from."""
    record: dict[str, Any] = {
        "format": FORMAT,
        "note": "predictions of the machine model for one frame",
        "chip": chip_facts(report.chip),
        "network": asdict(report.network),
        "commands": asdict(report.commands),
        "layers": [asdict(layer) for layer in report.layers],
    }
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def csv_text(report: CompileReport) -> str:
    """The layers, a line each under a line of headings (RFC 4180, UTF-8)."""
    columns = [column.name for column in fields(LayerCost)]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([getattr(layer, column) for column in columns] for layer in report.layers)
    return text.getvalue()
