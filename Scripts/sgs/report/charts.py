"""Charts as inline SVG: what the engines do when, what lies where in SRAM, and the roofline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from sgs.compile.cost import ENGINES
from sgs.config.chips import Chip
from sgs.config.nearest import listing
from sgs.img.image import Image, Space
from sgs.report.compile import CompileReport, LayerCost, busy_cycles, engine_of
from sgs.report.memory import Stay
from sgs.report.svg import box, line, number, quantity, rounded, svg, text, ticks

WIDTH = 1200  # of a chart over time, in units of its view box
LEFT, RIGHT = 96, 14
LANE, BAR = 54, 42  # of the timeline: a row, and the tallest bar in it
NARROWEST = 2  # units; what is narrower shares a bar with its neighbours
MAP_HEIGHT = 320
LARGEST_MAP = 1000  # rectangles
COLOURS = 6  # classes c0, c1 … of the style sheet
ROOF_WIDTH, ROOF_HEIGHT = 760, 420
_NARROW = 4  # bits of the weights that the MAC array is faster with
# (whether activations are wider than 8 bits, whether weights are narrow) → class of the style sheet and words.
_PRECISIONS = {
    (False, False): ("d8", "8 bit"),
    (False, True): ("d8w4", "8 bit, 4-bit weights"),
    (True, False): ("d16", "16 bit"),
    (True, True): ("d16w4", "16 bit, 4-bit weights"),
}


@dataclass(frozen=True)
class _Time:
    """Cycles → x."""

    cycles: int

    def x(self, cycle: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * cycle / max(self.cycles, 1)

    def axis(self, top: float, bottom: float) -> list[str]:
        """Grid, tick labels and what they mean."""
        parts = []
        for tick in ticks(self.cycles):
            parts.append(line(self.x(tick), top, self.x(tick), bottom, "grid"))
            parts.append(text(self.x(tick), bottom + 17, rounded(tick)))
        return [*parts, text((LEFT + WIDTH) / 2, bottom + 35, "cycles")]


# -- engines over time -------------------------------------------------------------------------------------------------
@dataclass
class Bar:
    """A stretch of one engine's time, and the busy cycles in it by layer."""

    start: int
    end: int
    busy: dict[int, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        return min(1.0, sum(self.busy.values()) / max(self.end - self.start, 1))


def engine_bars(image: Image, chip: Chip, narrowest: float) -> dict[str, list[Bar]]:
    """What every engine does, by layer; stretches and gaps shorter than `narrowest` cycles join their neighbours."""
    bars: dict[str, list[Bar]] = {engine: [] for engine in ENGINES}
    for command in image.programs[0].commands:
        lane, busy = bars[engine_of(image, command)], busy_cycles(command, chip)
        last = lane[-1] if lane else None
        joined = last is not None and command.start - last.end < narrowest
        if last is None or not joined or (set(last.busy) != {command.layer} and last.end - last.start >= narrowest):
            last = Bar(command.start, command.start)
            lane.append(last)
        last.end = max(last.end, command.start + busy)
        last.busy[command.layer] = last.busy.get(command.layer, 0) + busy
    return bars


def timeline(image: Image, report: CompileReport) -> str:
    """A lane for each engine; colours tell layers apart, the height is the share of the time that it is busy."""
    time = _Time(report.network.cycles)
    bars = engine_bars(image, report.chip, NARROWEST * time.cycles / (WIDTH - LEFT - RIGHT))
    bottom = LANE * len(ENGINES) + 6
    parts = time.axis(0, bottom)
    for row, (engine, label) in enumerate(zip(ENGINES, ("MAC array", "vector unit", "DMA"), strict=True)):
        base = LANE * (row + 1)
        share = sum(sum(bar.busy.values()) for bar in bars[engine]) / max(time.cycles, 1)
        parts.append(text(LEFT - 8, base - 22, label, anchor="end"))
        parts.append(text(LEFT - 8, base - 5, f"busy {share:.0%}", anchor="end", kind="soft"))
        parts.append(line(LEFT, base, WIDTH - RIGHT, base, "rule"))
        for bar in bars[engine]:
            main = max(bar.busy, key=lambda layer: bar.busy[layer])
            height = max(4.0, BAR * bar.share)
            width = max(0.6, time.x(bar.end) - time.x(bar.start))
            parts.append(box(time.x(bar.start), base - height, width, height, f"c{main % COLOURS}", _told(bar, image)))
    return svg(WIDTH, bottom + 42, "What the three engines do over time", parts)


def _told(bar: Bar, image: Image) -> str:
    names = [f"{image.layers[layer].name} ({image.layers[layer].opcode})" for layer in bar.busy]
    cycles = f"cycles {bar.start:,} to {bar.end:,}, busy {bar.share:.0%}"
    return f"{listing(names, 4)}\n{cycles}"


# -- SRAM over time ----------------------------------------------------------------------------------------------------
def memory_map(found: Sequence[Stay], report: CompileReport) -> tuple[str, int]:
    """(chart of what lies where in SRAM, how many of the smallest rectangles are left out)."""
    time = _Time(report.network.cycles)
    capacity = max(report.network.sram_capacity, report.network.sram_peak, 1)

    def y(address: float) -> float:
        return 10 + MAP_HEIGHT * (1 - address / capacity)

    shown = sorted(found, key=lambda stay: stay.size * (stay.end - stay.start), reverse=True)[:LARGEST_MAP]
    parts = time.axis(10, 10 + MAP_HEIGHT)
    for tick in ticks(capacity, 6):
        parts.append(line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "grid"))
        parts.append(text(LEFT - 8, y(tick) + 4, rounded(tick, "B"), anchor="end"))
    for stay in sorted(shown, key=lambda stay: (stay.start, stay.low)):
        kind = "weights" if stay.source is Space.WEIGHTS else "activations"
        left, right = time.x(stay.start), time.x(stay.end)
        size = f"{stay.size:,} bytes at {stay.low:,}, cycles {stay.start:,} to {stay.end:,}"
        height = max(0.4, y(stay.low) - y(stay.high))
        parts.append(box(left, y(stay.high), max(0.4, right - left), height, kind, f"{stay.name or 'unnamed'}\n{size}"))
    parts.append(line(LEFT, y(capacity), WIDTH - RIGHT, y(capacity), "limit"))
    name = "What lies where in SRAM over time"
    return svg(WIDTH, MAP_HEIGHT + 10 + 42, name, parts), len(found) - len(shown)


# -- roofline ----------------------------------------------------------------------------------------------------------
def roofline(report: CompileReport) -> str:
    """A dot for every layer with multiply-accumulates, under the roofs of the chip for numbers as wide as its own."""
    chip, bandwidth, roofs = report.chip, report.chip.dram_bytes_per_second, roof_rates(report)
    dots = [(layer, *_work(layer, chip)) for layer in _dotted(report)]
    finite = [intensity for _, intensity, _ in dots if intensity is not None]
    peak, knees = max(roofs), [rate / bandwidth for rate in roofs]
    chart = _Logarithmic(
        _decades([*finite, min(knees) / 10, max(knees) * 10], spare=1),
        _decades([*(rate for _, _, rate in dots), peak, peak / 100]),
    )
    right = 10.0 ** chart.across[1]
    parts = chart.grid("MAC per byte of DRAM traffic", "MAC/s")
    for rate, labels in roofs.items():
        kind = "roof" if rate == chip.macs_per_cycle * chip.clock_hz else "roof second"
        foot = 10.0 ** chart.up[0] / bandwidth
        left = max(10.0 ** chart.across[0], foot)
        corner = chart.x(rate / bandwidth), chart.y(rate)
        slope = line(chart.x(left), chart.y(left * bandwidth), *corner, kind)
        parts += [slope, line(*corner, chart.x(right), chart.y(rate), kind)]
        words = f"{' and '.join(labels)}: {quantity(rate, 'MAC/s')}"
        parts.append(text(chart.x(right) - 6, chart.y(rate) - 6, words, anchor="end", kind="soft"))
    for layer, intensity, rate in dots:
        x = chart.x(right) - 12 if intensity is None else chart.x(intensity)
        told = "no DRAM traffic" if intensity is None else f"{intensity:.3g} MAC/byte"
        kind, words = _PRECISIONS[_precision(layer)]
        title = f"{layer.name} ({layer.opcode})\n{told}, {quantity(rate, 'MAC/s')}, {words}, bound by {layer.bound_by}"
        place = f'cx="{number(x)}" cy="{number(chart.y(rate))}" r="4.5"'
        parts.append(f'<circle {place} class="{kind}"><title>{escape(title)}</title></circle>')
    return svg(ROOF_WIDTH, ROOF_HEIGHT, "Roofline", parts)


def roofline_keys(report: CompileReport) -> list[tuple[str, str]]:
    """(class of the style sheet, words) of the dots that there are."""
    there = {_precision(layer) for layer in _dotted(report)}
    return [key for precision, key in _PRECISIONS.items() if precision in there]


def roof_rates(report: CompileReport) -> dict[float, list[str]]:
    """MAC/s of the full array → what for: 8-bit operands, and the others that layers have where their rate differs."""
    chip, there = report.chip, {_precision(layer) for layer in _dotted(report)}
    roofs: dict[float, list[str]] = {}
    for (wide, narrow), (_, words) in _PRECISIONS.items():
        slower, faster = chip.int16_divisor if wide else 1, chip.int4_multiplier if narrow else 1
        if (wide, narrow) in there or not (wide or narrow):
            roofs.setdefault(chip.macs_per_cycle * chip.clock_hz * faster / slower, []).append(words)
    return roofs


def _dotted(report: CompileReport) -> list[LayerCost]:
    return [layer for layer in report.layers if layer.macs and layer.span_cycles]


def _precision(layer: LayerCost) -> tuple[bool, bool]:
    return layer.activation_bits > 8, layer.weight_bits == _NARROW


def _work(layer: LayerCost, chip: Chip) -> tuple[float | None, float]:
    """(MAC per byte of DRAM traffic, None without traffic; MAC/s over the layer's span)."""
    moved = layer.read_bytes + layer.written_bytes
    return (layer.macs / moved if moved else None), layer.macs * chip.clock_hz / layer.span_cycles


def _decades(values: Sequence[float], spare: int = 0) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1) + spare


@dataclass(frozen=True)
class _Logarithmic:
    """Two logarithmic axes over these decades → x and y."""

    across: tuple[int, int]
    up: tuple[int, int]

    def x(self, value: float) -> float:
        low, high = self.across
        return 70 + (ROOF_WIDTH - 100) * (math.log10(value) - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.up
        return ROOF_HEIGHT - 48 - (ROOF_HEIGHT - 78) * (math.log10(value) - low) / (high - low)

    def grid(self, across: str, up: str) -> list[str]:
        """Lines at powers of ten, their labels, and what the axes show."""
        left, right = (10.0**decade for decade in self.across)
        low, high = (10.0**decade for decade in self.up)
        parts = []
        for decade in range(self.across[0], self.across[1] + 1):
            x = self.x(10.0**decade)
            parts += [line(x, self.y(low), x, self.y(high), "grid"), text(x, self.y(low) + 17, _power(decade))]
        for decade in range(self.up[0], self.up[1] + 1):
            y = self.y(10.0**decade)
            parts.append(line(self.x(left), y, self.x(right), y, "grid"))
            parts.append(text(self.x(left) - 8, y + 4, _power(decade), anchor="end"))
        parts.append(text((self.x(left) + self.x(right)) / 2, self.y(low) + 36, across))
        return [*parts, text(self.x(left) - 8, 13, up, anchor="end")]


def _power(decade: int) -> str:
    return rounded(10.0**decade) if decade >= 0 else f"{10.0**decade:g}"
