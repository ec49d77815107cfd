"""The figures of an image as one HTML page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape

from sgs.config.chips import Chip
from sgs.img.image import Image
from sgs.report.charts import memory_map, quantity, roofline, roofline_keys, timeline
from sgs.report.compile import CompileReport, LayerCost, NetworkCost
from sgs.report.memory import stays
from sgs.report.page_style import SCRIPT, STYLE

# Nothing may be fetched from anywhere, whatever a name in the network says.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_DASH = "–"
_NAME = "layer"  # heading of the column that stays in view


def page_text(image: Image, report: CompileReport) -> str:
    """The page."""
    title = f"{report.network.model or 'network'} on {report.chip.name}"
    chart, left_out = memory_map(stays(image, image.programs[0]), report)
    parts = [
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}</style>\n</head>\n<body>",
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{_introduction(report)}</p>',
        _tiles(report),
        _section("Engines over time", _ABOUT_TIMELINE, timeline(image, report)),
        _section("SRAM over time", _about_map(report.network, left_out), chart),
        _section("Roofline", _about_roofline(report), roofline(report)),
        _layer_section(report),
        _chip_section(report.chip),
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _section(heading: str, about: str, chart: str) -> str:
    box = f'<div class="wide" tabindex="0" role="group" aria-label="{escape(heading)}">{chart}</div>'
    return f"<section>\n<h2>{escape(heading)}</h2>\n<p>{about}</p>\n{box}\n</section>"


_ABOUT_TIMELINE = (
    "The three engines work side by side. Colours tell layers apart; the height of a bar is the share of its time in "
    "which the engine is busy. Point at a bar for its layers. Single commands are in the trace file, for Perfetto or "
    "chrome://tracing."
)


def _introduction(report: CompileReport) -> str:
    network, counts = report.network, report.commands
    return escape(
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
        f"{_key('weights', 'weights and tables')} {_key('activations', 'activations')}. "
        f"The dashed line is the chip's {network.sram_capacity:,} bytes.{more}"
    )


def _key(kind: str, words: str) -> str:
    return f'<span class="line"><span class="key {kind}"></span>{words}</span>'


def _about_roofline(report: CompileReport) -> str:
    with_macs = sum(bool(layer.macs) for layer in report.layers)
    keys = " ".join(_key(kind, words) for kind, words in roofline_keys(report))
    return (
        f"A dot for every layer with multiply-accumulates, {with_macs:,} of {len(report.layers):,}, at the rate of its "
        f"span{': ' if keys else ''}{keys}. Layers without DRAM traffic are at the right edge; layers that are "
        "executed together, band by band, share their time."
    )


# -- headline figures --------------------------------------------------------------------------------------------------
def _tiles(report: CompileReport) -> str:
    network = report.network
    tiles = [
        ("Latency", f"{network.latency_seconds * 1e3:.3f} ms", f"{network.cycles:,} cycles"),
        ("Frames a second", f"{network.frames_per_second:.1f}", "one frame after the other"),
        ("MAC utilisation", _percent(network.mac_utilisation), f"{quantity(network.macs)} multiply-accumulates"),
        ("DRAM traffic", quantity(network.dram_bytes, "B"), _traffic(network)),
        ("Bandwidth needed", quantity(network.bandwidth_bytes_per_second or 0, "B/s"), _share(report)),
        ("SRAM peak", quantity(network.sram_peak, "B"), _filled(network)),
        ("SRAM gap", _percent(network.sram_gap, 2), f"lower bound {quantity(network.sram_lower_bound, 'B')}"),
        ("DRAM arena", quantity(network.arena_peak, "B"), "activations that leave the chip"),
        ("Arena gap", _percent(network.arena_gap, 2), f"lower bound {quantity(network.arena_lower_bound, 'B')}"),
        ("Image", quantity(network.image_bytes, "B"), f"{network.image_bytes:,} bytes"),
        ("Weights", quantity(network.coded_weights_bytes, "B"), f"coded; {quantity(network.weights_bytes, 'B')} raw"),
    ]
    cells = (
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for label, value, more in tiles
    )
    return '<dl class="tiles">\n' + "\n".join(cells) + "\n</dl>"


def _percent(share: float | None, digits: int = 1) -> str:
    return _DASH if share is None else f"{share:.{digits}%}"


def _traffic(network: NetworkCost) -> str:
    ratio = network.compulsory_ratio
    return "" if ratio is None else f"{ratio:.2f} of {quantity(network.compulsory_bytes, 'B')} compulsory"


def _share(report: CompileReport) -> str:
    return f"{_percent(report.network.bandwidth_share)} of {quantity(report.chip.dram_bytes_per_second, 'B/s')}"


def _filled(network: NetworkCost) -> str:
    share = network.sram_peak / network.sram_capacity if network.sram_capacity else None
    return f"{_percent(share)} of {network.sram_capacity:,} bytes"


# -- layers ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Column:
    """A column of the table: its heading, the cell of a layer, that of all layers, and whether it holds words, which is
    what the search looks at."""

    heading: str
    cell: Callable[[LayerCost], str]
    total: Callable[[CompileReport], str] = lambda report: ""
    words: bool = False

    @property
    def kind(self) -> str:
        kinds = ["t"] * self.words + ["name"] * (self.heading == _NAME)
        return f' class="{" ".join(kinds)}"' if kinds else ""


_COLUMNS = (
    _Column("#", lambda layer: str(layer.index)),
    _Column(_NAME, lambda layer: layer.name, lambda report: "all layers", words=True),
    _Column("operator", lambda layer: layer.opcode, words=True),
    _Column("bound by", lambda layer: layer.bound_by, words=True),
    _Column("span", lambda layer: f"{layer.span_cycles:,}", lambda report: f"{report.network.cycles:,}"),
    _Column(
        "MAC utilisation",
        lambda layer: _percent(layer.mac_utilisation if layer.macs else None),
        lambda report: _percent(report.network.mac_utilisation),
    ),
    _Column("MAC", lambda layer: f"{layer.macs:,}", lambda report: f"{report.network.macs:,}"),
    _Column("vector ops", lambda layer: f"{layer.vector_ops:,}", lambda report: f"{report.network.vector_ops:,}"),
    _Column("bits", lambda layer: str(layer.activation_bits or _DASH)),
    _Column("weight bits", lambda layer: str(layer.weight_bits or _DASH)),
    _Column(
        "DRAM bytes read", lambda layer: f"{layer.read_bytes:,}", lambda report: f"{report.network.dram_read_bytes:,}"
    ),
    _Column(
        "DRAM bytes written",
        lambda layer: f"{layer.written_bytes:,}",
        lambda report: f"{report.network.dram_written_bytes:,}",
    ),
    _Column("MAC cycles", lambda layer: f"{layer.mac_cycles:,}", lambda report: f"{report.network.mac_cycles:,}"),
    _Column(
        "vector cycles", lambda layer: f"{layer.vector_cycles:,}", lambda report: f"{report.network.vector_cycles:,}"
    ),
    _Column("DMA cycles", lambda layer: f"{layer.dma_cycles:,}", lambda report: f"{report.network.dma_cycles:,}"),
    _Column("start", lambda layer: f"{layer.start:,}"),
    _Column("end", lambda layer: f"{layer.end:,}"),
    _Column("commands", lambda layer: f"{layer.commands:,}", lambda report: f"{report.commands.total:,}"),
    _Column("pieces", lambda layer: f"{layer.pieces:,}", lambda report: f"{report.commands.computations:,}"),
)


def _layer_section(report: CompileReport) -> str:
    count = len(report.layers)
    heads = "".join(
        f'<th scope="col"{column.kind}><button type="button">{escape(column.heading)}</button></th>'
        for column in _COLUMNS
    )
    return "\n".join(
        [
            "<section>\n<h2>Layers</h2>",
            "<p>Cycles by engine are those in which a layer keeps it busy; the span, from its first command to the end "
            "of its last, may overlap those of other layers: that of all layers is the frame. MAC utilisation is the "
            "MAC array's time for the layer at its full rate over the span. Press a heading to sort.</p>",
            '<div class="search"><label for="find">Search</label><input id="find" type="search" placeholder="name, '
            f'operator, bound …"><span id="count" class="soft" role="status">{count} of {count} layers</span></div>',
            '<div class="wide table" tabindex="0" role="group" aria-label="Layers">',
            f'<table id="layers"><thead><tr>{heads}</tr></thead><tbody>',
            *(_row((column, column.cell(layer)) for column in _COLUMNS) for layer in report.layers),
            "</tbody><tfoot>",
            _row((column, column.total(report)) for column in _COLUMNS),
            "</tfoot></table></div>\n</section>",
        ]
    )


def _row(cells: Iterable[tuple[_Column, str]]) -> str:
    parts = []
    for column, words in cells:
        text = escape(words)
        if column.heading == _NAME:
            parts.append(f'<th scope="row"{column.kind} title="{text}">{text}</th>')
        else:
            parts.append(f"<td{column.kind}>{text}</td>")
    return f"<tr>{''.join(parts)}</tr>"


# -- chip --------------------------------------------------------------------------------------------------------------
def _chip_section(chip: Chip) -> str:
    rows = [("chip", chip.name, ""), ("TOPS (8 bit)", f"{chip.tops:.3f}", "derived")]
    for name in chip.figures:
        value = getattr(chip, name)
        shown = ", ".join(value) if isinstance(value, tuple) else f"{value:,}" if isinstance(value, int) else value
        rows.append((name.replace("_", " "), shown or _DASH, chip.provenance[name]))
    cells = (
        f'<tr><th scope="row" class="t">{a}</th><td>{escape(b)}</td><td class="t">{c}</td></tr>' for a, b, c in rows
    )
    return (
        "<section>\n<h2>Chip</h2>\n<p>Figures that are not public are modelled.</p>\n"
        '<div class="wide" tabindex="0" role="group" aria-label="Chip"><table class="chip"><tbody>'
        + "\n".join(cells)
        + "</tbody></table></div>\n</section>"
    )
