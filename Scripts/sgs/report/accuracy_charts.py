"""Charts of what integers did to a network, as inline SVG and HTML: errors by layer, distributions, shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import groupby

from sgs.report.histogram import Histogram
from sgs.report.layer_rows import LayerRow
from sgs.report.page import key, percent
from sgs.report.svg import line, number, svg, text

WIDTH, HEIGHT = 1200, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 14, 12, 44
_HIGHEST = 80.0  # dB; what is better is drawn there
SMALL, PLOT = 280, 92  # width of a histogram, and the height of its bars
BITS = {4: "d4", 8: "d8", 16: "d16", 32: "d32"}  # class of the style sheet


# -- errors by layer ---------------------------------------------------------------------------------------------------
def error_chart(rows: Sequence[LayerRow], rows_at: str) -> str:
    """Signal to noise of every layer, alone and so far, in their order; a mark leads to row n of the table, whose id is
    `<rows_at>-<n>`. Empty where nothing was measured."""
    known = [(n, row) for n, row in enumerate(rows) if row.so_far is not None]
    if not known:
        return ""
    values = [v for _, row in known for v in (row.alone, row.so_far) if v is not None]
    low = min(0.0, 10 * math.floor(min(values) / 10))
    high = max(min(_HIGHEST, 10 * math.ceil(max(values) / 10)), low + 10)

    def x(place: int) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (place + 0.5) / len(rows)

    def y(decibels: float) -> float:
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - (min(decibels, high) - low) / (high - low))

    parts = _decibel_axis(low, high, y)
    places = [f"{_tenth(x(n))} {_tenth(y(row.so_far or 0))}" for n, row in known]
    parts.append(f'<path class="path" d="M{"L".join(places)}"/>')
    radius = number(min(4.5, max(2.2, 0.35 * (WIDTH - _LEFT - _RIGHT) / len(rows))))
    for n, row in known:
        dots = ((row.so_far, "so-far"), (row.alone, "alone"))
        marks = "".join(
            f'<circle cx="{_tenth(x(n))}" cy="{_tenth(y(value))}" r="{radius}" class="dot {kind}"/>'
            for value, kind in dots
            if value is not None
        )
        parts.append(f'<a href="#{rows_at}-{n}"><title>{escape(_told(row))}</title>{marks}</a>')
    parts.append(text((_LEFT + WIDTH) / 2, HEIGHT - 10, "layers, in the order in which they run"))
    return svg(WIDTH, HEIGHT, "Signal to noise of every layer", parts, role="group", kind="marks")


def _tenth(value: float) -> str:
    """A coordinate, to a tenth: there may be thousands."""
    return number(round(value, 1))


def _decibel_axis(low: float, high: float, y: Callable[[float], float]) -> list[str]:
    step = 10 if high - low <= 60 else 20
    parts = []
    for tick in range(int(low), int(high) + 1, step):
        parts.append(line(_LEFT, y(tick), WIDTH - _RIGHT, y(tick), "grid"))
        parts.append(text(_LEFT - 8, y(tick) + 4, f"{tick} dB", anchor="end"))
    return parts


def _told(row: LayerRow) -> str:
    alone = "" if row.alone is None else f"{row.alone:.1f} dB alone, "
    return f"{row.name} ({row.operator})\n{alone}{row.so_far:.1f} dB so far"


# -- distributions -----------------------------------------------------------------------------------------------------
def histogram_chart(histogram: Histogram) -> str:
    """The values of the float network as an area, those that are held as a line, on a logarithmic scale of counts; what
    the chosen range leaves out is shaded."""
    most = max([1, *histogram.real, *histogram.held])
    low, high = histogram.low, histogram.high
    shown = [end for end in (histogram.range_low, histogram.range_high) if end is not None]
    reach = (high - low) / 4  # as far as a range that is wider than the values is drawn
    left = min([low, *(max(end, low - reach) for end in shown)])
    right = max([high, *(min(end, high + reach) for end in shown)])

    def x(value: float) -> float:
        return SMALL * (value - left) / (right - left)

    parts = [*_end(x, histogram.range_low, -1), *_end(x, histogram.range_high, 1)]
    for counts, kind in ((histogram.real, "real"), (histogram.held, "held")):
        if counts:
            parts.append(f'<path class="{kind}" d="{_steps(counts, most, x(low), x(high))}"/>')
    parts.append(line(0, PLOT, SMALL, PLOT, "rule"))
    if left < 0 < right:
        parts.append(line(x(0), PLOT, x(0), PLOT + 5, "rule"))
        if 0.16 < -left / (right - left) < 0.84:
            parts.append(text(x(0), PLOT + 17, "0", kind="soft"))
    parts.append(text(0, PLOT + 17, f"{left:.3g}", anchor="start", kind="soft"))
    parts.append(text(SMALL, PLOT + 17, f"{right:.3g}", anchor="end", kind="soft"))
    return svg(SMALL, PLOT + 22, f"Values of {histogram.name}", parts)


def _end(x: Callable[[float], float], end: float | None, side: int) -> list[str]:
    """An end of a range, where it is in view, and a shade over what is beyond it."""
    if end is None or not 0 <= x(end) <= SMALL:
        return []
    start, stop = (0.0, x(end)) if side < 0 else (x(end), float(SMALL))
    shade = f'<rect x="{number(start)}" y="0" width="{number(stop - start)}" height="{PLOT}" class="outside"/>'
    return [shade, line(x(end), 0, x(end), PLOT, "range")]


def _steps(counts: Sequence[int], most: int, left: float, right: float) -> str:
    """The outline of bars, closed at the bottom. Heights are logarithms of the counts."""
    width = (right - left) / len(counts)
    heights = (number(round(PLOT * (1 - 0.96 * math.log1p(count) / math.log1p(most)), 1)) for count in counts)
    runs = ((height, len(list(equal))) for height, equal in groupby(heights))
    steps = (f"V{height}h{number(width * length)}" for height, length in runs)
    return f"M{number(left)} {PLOT}{''.join(steps)}V{PLOT}"


def left_out(histogram: Histogram) -> float | None:
    """About which share of the float network's values is beyond the chosen range: whole bins; None where there is no
    range or nothing was counted."""
    low, high, total = histogram.range_low, histogram.range_high, sum(histogram.real)
    if low is None or high is None or not total:
        return None
    width = (histogram.high - histogram.low) / len(histogram.real)
    ends = (histogram.low + width * n for n in range(len(histogram.real)))
    slack = 1e-6 * width
    outside = (
        count
        for start, count in zip(ends, histogram.real, strict=True)
        if start + width <= low + slack or start >= high - slack
    )
    return sum(outside) / total


# -- shares ------------------------------------------------------------------------------------------------------------
def share_bar(label: str, parts: Iterable[tuple[str, str, float]], told: str) -> str:
    """A bar that is divided in parts: (class of the style sheet, what it is, its size)."""
    parts = [part for part in parts if part[2] > 0]
    total = sum(size for *_, size in parts) or 1.0
    spans = "".join(f'<span class="{kind}" style="width:{size / total:.2%}"></span>' for kind, _, size in parts)
    words = ", ".join(key(kind, f"{what} {percent(size / total)}") for kind, what, size in parts)
    return _bar(label, spans, f"{words}{escape(told)}")


def length_bar(label: str, kind: str, share: float, told: str) -> str:
    """A bar as long as a share of the widest."""
    return _bar(label, f'<span class="{kind}" style="width:{share:.2%}"></span>', escape(told))


def _bar(label: str, spans: str, words: str) -> str:
    return f"<dt>{escape(label)}</dt><dd><div>{spans}</div>{words}</dd>"
