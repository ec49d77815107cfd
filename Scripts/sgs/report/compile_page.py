"""The figures of an image as one HTML page, or as part of one."""

from __future__ import annotations

from html import escape

from sgs.config.chips import Chip
from sgs.img.image import Image
from sgs.report.charts import memory_map, roofline, roofline_keys, timeline
from sgs.report.compile import CompileReport, LayerCost, NetworkCost
from sgs.report.memory import stays
from sgs.report.page import DASH, Column, Section, document, facts_table, framed, key, paragraph, percent, table, tiles
from sgs.report.svg import quantity


def page_text(image: Image, report: CompileReport) -> str:
    """The page."""
    title = f"{report.network.model or 'network'} on {report.chip.name}"
    return document(title, escape(introduction(report)), [cost_tiles(report), *cost_sections(image, report)])


def cost_sections(image: Image, report: CompileReport) -> list[Section]:
    """What an image costs: three charts, every layer, and the chip."""
    chart, left_out = memory_map(stays(image, image.programs[0]), report)
    return [
        _charted("Engines over time", _ABOUT_TIMELINE, timeline(image, report)),
        _charted("SRAM over time", _about_map(report.network, left_out), chart),
        _charted("Roofline", _about_roofline(report), roofline(report)),
        Section("Cost by layer", f"{paragraph(_ABOUT_LAYERS)}\n{_layer_table(report)}"),
        _chip_section(report.chip),
    ]


def _charted(heading: str, about: str, chart: str) -> Section:
    return Section(heading, f"<p>{about}</p>\n{framed(heading, chart)}")


_ABOUT_TIMELINE = (
    "The three engines work side by side. Colours tell layers apart; the height of a bar is the share of its time in "
    "which the engine is busy. Point at a bar for its layers. Single commands are in the trace file, for Perfetto or "
    "chrome://tracing."
)
_ABOUT_LAYERS = (
    "Cycles by engine are those in which a layer keeps it busy; the span, from its first command to the end of its "
    "last, may overlap those of other layers: that of all layers is the frame. MAC utilisation is the MAC array's time "
    "for the layer at its full rate over the span. Press a heading to sort."
)


def introduction(report: CompileReport) -> str:
    """What a frame is made of, in plain words."""
    network, counts = report.network, report.commands
    return (
        f"One frame: {network.layers:,} layers in {counts.total:,} commands ({counts.computations:,} computations, "
        f"{counts.loads:,} loads, {counts.stores:,} stores, {counts.sram_copies:,} copies in SRAM, "
        f"{counts.dram_copies:,} in DRAM). All times are predictions of the machine model. "
        f"Toolchain {network.tool_version}; batch mode {network.batch_mode}, "
        f"{'at most ' if network.batch_mode == 'n_buf' else ''}{', '.join(map(str, network.batches))} a run."
    )


def _about_map(network: NetworkCost, left_out: int) -> str:
    more = f" {left_out:,} of the smallest are not drawn." if left_out else ""
    return (
        "Bytes in use, from the first write to the last read: "
        f"{key('weights', 'weights and tables')} {key('activations', 'activations')}. "
        f"The dashed line is the chip's {network.sram_capacity:,} bytes.{more}"
    )


def _about_roofline(report: CompileReport) -> str:
    with_macs = sum(bool(layer.macs) for layer in report.layers)
    keys = " ".join(key(kind, words) for kind, words in roofline_keys(report))
    return (
        f"A dot for every layer with multiply-accumulates, {with_macs:,} of {len(report.layers):,}, at the rate of its "
        f"span{': ' if keys else ''}{keys}. Layers without DRAM traffic are at the right edge; layers that are "
        "executed together, band by band, share their time."
    )


# -- headline figures --------------------------------------------------------------------------------------------------
def cost_tiles(report: CompileReport) -> str:
    """The headline figures of an image."""
    network = report.network
    return tiles(
        [
            ("Latency", f"{network.latency_seconds * 1e3:.3f} ms", f"{network.cycles:,} cycles"),
            ("Frames a second", f"{network.frames_per_second:.1f}", "one frame after the other"),
            ("MAC utilisation", percent(network.mac_utilisation), f"{quantity(network.macs)} multiply-accumulates"),
            ("DRAM traffic", quantity(network.dram_bytes, "B"), _traffic(network)),
            ("Bandwidth needed", quantity(network.bandwidth_bytes_per_second or 0, "B/s"), _share(report)),
            ("SRAM peak", quantity(network.sram_peak, "B"), _filled(network)),
            ("SRAM gap", percent(network.sram_gap, 2), f"lower bound {quantity(network.sram_lower_bound, 'B')}"),
            ("DRAM arena", quantity(network.arena_peak, "B"), "activations that leave the chip"),
            ("Arena gap", percent(network.arena_gap, 2), f"lower bound {quantity(network.arena_lower_bound, 'B')}"),
            ("Image", quantity(network.image_bytes, "B"), f"{network.image_bytes:,} bytes"),
            (
                "Weights",
                quantity(network.coded_weights_bytes, "B"),
                f"coded; {quantity(network.weights_bytes, 'B')} raw",
            ),
        ]
    )


def _traffic(network: NetworkCost) -> str:
    ratio = network.compulsory_ratio
    return "" if ratio is None else f"{ratio:.2f} of {quantity(network.compulsory_bytes, 'B')} compulsory"


def _share(report: CompileReport) -> str:
    return f"{percent(report.network.bandwidth_share)} of {quantity(report.chip.dram_bytes_per_second, 'B/s')}"


def _filled(network: NetworkCost) -> str:
    share = network.sram_peak / network.sram_capacity if network.sram_capacity else None
    return f"{percent(share)} of {network.sram_capacity:,} bytes"


# -- layers ------------------------------------------------------------------------------------------------------------
def _layer_table(report: CompileReport) -> str:
    network, commands = report.network, report.commands
    columns: list[Column[LayerCost]] = [
        Column("#", lambda layer: str(layer.index)),
        Column("layer", lambda layer: layer.name, "all layers", name=True),
        Column("operator", lambda layer: layer.opcode, words=True),
        Column("bound by", lambda layer: layer.bound_by, words=True),
        Column("span", lambda layer: f"{layer.span_cycles:,}", f"{network.cycles:,}"),
        Column(
            "MAC utilisation",
            lambda layer: percent(layer.mac_utilisation if layer.macs else None),
            percent(network.mac_utilisation),
        ),
        Column("MAC", lambda layer: f"{layer.macs:,}", f"{network.macs:,}"),
        Column("vector ops", lambda layer: f"{layer.vector_ops:,}", f"{network.vector_ops:,}"),
        Column("bits", lambda layer: str(layer.activation_bits or DASH)),
        Column("weight bits", lambda layer: str(layer.weight_bits or DASH)),
        Column("DRAM bytes read", lambda layer: f"{layer.read_bytes:,}", f"{network.dram_read_bytes:,}"),
        Column("DRAM bytes written", lambda layer: f"{layer.written_bytes:,}", f"{network.dram_written_bytes:,}"),
        Column("MAC cycles", lambda layer: f"{layer.mac_cycles:,}", f"{network.mac_cycles:,}"),
        Column("vector cycles", lambda layer: f"{layer.vector_cycles:,}", f"{network.vector_cycles:,}"),
        Column("DMA cycles", lambda layer: f"{layer.dma_cycles:,}", f"{network.dma_cycles:,}"),
        Column("start", lambda layer: f"{layer.start:,}"),
        Column("end", lambda layer: f"{layer.end:,}"),
        Column("commands", lambda layer: f"{layer.commands:,}", f"{commands.total:,}"),
        Column("pieces", lambda layer: f"{layer.pieces:,}", f"{commands.computations:,}"),
    ]
    hint = "name, operator, bound …"
    return table("layers", "Cost by layer", columns, report.layers, placeholder=hint, counted="layers")


# -- chip --------------------------------------------------------------------------------------------------------------
def _chip_section(chip: Chip) -> Section:
    rows = [("chip", chip.name, ""), ("TOPS (8 bit)", f"{chip.tops:.3f}", "derived")]
    for name in chip.figures:
        value = getattr(chip, name)
        shown = ", ".join(value) if isinstance(value, tuple) else f"{value:,}" if isinstance(value, int) else value
        rows.append((name.replace("_", " "), shown or DASH, chip.provenance[name]))
    about = "Figures that are not public are modelled."
    return Section("Chip", f"{paragraph(about)}\n{facts_table('Chip', rows)}")
