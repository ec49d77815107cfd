"""One report of a conversion for the browser: how accurate the fixed network is, why, what it costs, how it was made.
Every part is left out where nothing is known of it."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from sgs.config.nearest import counted, listing
from sgs.img.image import Image
from sgs.quant.layers import SAMPLES, Layer
from sgs.quant.traps import Finding
from sgs.report.accuracy_charts import BITS, error_chart, length_bar, share_bar
from sgs.report.calibration import short
from sgs.report.compared import Comparison
from sgs.report.compile import CompileReport
from sgs.report.compile_page import cost_sections, cost_tiles, introduction
from sgs.report.histogram import Histogram
from sgs.report.histogram_page import about_histograms, histogram_figures
from sgs.report.layer_rows import Form, LayerRow, calibrated_rows, compared_rows, joined, with_cycles
from sgs.report.page import DASH, Column, Section, document, facts_table, folded, framed, key, percent, table, tiles
from sgs.report.svg import quantity

WORST = 8  # layers whose distributions are in view
MOST_HISTOGRAMS = 64  # in a page
GOOD, FAIR = 30.0, 20.0  # dB at the outputs
_TABLE = "tensors"  # id of the table; "network" is that of its heading


@dataclass(frozen=True)
class CalibrationResult:
    """What a calibration did: the layers in their order, the traps that were met, and the outputs."""

    layers: tuple[Layer, ...]
    findings: tuple[Finding, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class PicturePair:
    """What the reference and the other model make of one sample: two JPEG files, and words below them."""

    title: str
    float_jpeg: bytes
    fixed_jpeg: bytes
    words: str


@dataclass(frozen=True)
class Report:
    """What there is to tell. `facts` are settings and versions, `forms` how the fixed graph holds every tensor,
    `config` the text of the ini."""

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    comparison: Comparison | None = None
    calibration: CalibrationResult | None = None
    forms: Mapping[str, Form] = field(default_factory=dict)
    histograms: tuple[Histogram, ...] = ()
    pictures: tuple[PicturePair, ...] = ()
    cost: tuple[Image, CompileReport] | None = None
    config: str = ""

    @property
    def outputs(self) -> tuple[str, ...]:
        source = self.comparison or self.calibration
        return () if source is None else source.outputs

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """What is judged in place of outputs."""
        return () if self.comparison is None else self.comparison.stand_ins

    @property
    def jumping(self) -> frozenset[str]:
        """Tensors whose errors do not tell how good the other model is."""
        layers = () if self.comparison is None else self.comparison.layers
        return frozenset(layer.name for layer in layers if layer.jumps)

    @property
    def models(self) -> tuple[str, str]:
        """What the reference and the other model are called."""
        found = self.comparison
        if found is None or (found.a.startswith("float ") and found.b.startswith("fixed ")):
            return "the float network", "the fixed network"
        return found.a, found.b

    def rows(self) -> list[LayerRow]:
        """What is known of every layer."""
        compared = [] if self.comparison is None else compared_rows(self.comparison.layers, self.forms)
        calibrated = [] if self.calibration is None else calibrated_rows(self.calibration.layers, self.forms)
        rows = joined(compared, calibrated)
        return rows if self.cost is None else with_cycles(rows, self.cost[1].layers, self.forms)


def report_text(report: Report) -> str:
    """The page."""
    rows = report.rows()
    made = [
        *_summary(report, rows),
        *_pictures(report.pictures, *report.models),
        *_causes(report),
        *_errors(rows),
        *_network(rows),
        *_distributions(report, rows),
        *_sizes(report, rows),
        *_cost(report),
        *_settings(report),
    ]
    return document(report.title, escape(_about(report)), made)


def _about(report: Report) -> str:
    compared = report.comparison
    if compared is not None:
        return f"{compared.b} beside {compared.a}, on {counted(compared.samples, 'sample')}."
    measured = report.calibration is not None and any(layer.alone is not None for layer in report.calibration.layers)
    return f"Errors are those of at most {SAMPLES} calibration samples." if measured else ""


# -- summary -----------------------------------------------------------------------------------------------------------
def _summary(report: Report, rows: Sequence[LayerRow]) -> list[Section]:
    """In plain words: is it as accurate as float, what is in 16 bit, how large and how fast it is."""
    told = {*report.outputs, *report.stand_ins}
    known = [(row.so_far, row) for row in rows if row.name in told and row.so_far is not None]
    judged = [found for found in known if found[1].name not in report.jumping]
    if not judged and all(decibels >= GOOD for decibels, _ in known):
        judged = known
    worst = min(judged, key=lambda found: found[0], default=None)
    kind, words = ("", _SELECTED if known else "")
    if worst is not None:
        kind, words = _verdict(*worst, report, single=len(judged) == 1)
    lines = [f'<p><b class="{kind}">{escape(words)}</b></p>'] if words else []
    boxes = f"Of all calibration samples: {kept}." if (kept := dict(report.facts).get("boxes")) else ""
    more = (boxes, _precision_words(rows), _first_bad(report), _cost_words(report))
    lines += [f"<p>{escape(line)}</p>" for line in more if line]
    figures = [*_output_tiles([row for _, row in judged or known], report.stand_ins), *_weight_tiles(rows)]
    body = [f'<div class="verdict {kind}">{"".join(lines)}</div>'] if lines else []
    body += [tiles(figures)] if figures else []
    return [Section("Summary", "\n".join(body))] if body else []


_SELECTED = "Outputs are selected or counted, which jumps with the least change: judge them on labelled samples."


def _verdict(decibels: float, row: LayerRow, report: Report, *, single: bool) -> tuple[str, str]:
    """(class of the style sheet, words) for the output of B that is furthest from A's."""
    a, b = report.models
    b = b[:1].upper() + b[1:]
    error = 10 ** (-decibels / 20)
    outputs = "what its outputs are made from" if report.stand_ins else "its outputs"
    subject = f"its output {row.name} differs" if single else f"of {outputs} {short(row.name)} differs most,"
    told = f"{subject} by {_share(error)} of its size ({decibels:.1f} dB)"
    if decibels >= GOOD:
        return "good", f"{b} is as accurate as {a} for most purposes: {told}."
    if decibels >= FAIR:
        return "", f"{b} is close to {a}: {told}. Judge it on labelled samples."
    return "bad", f"{b} is far from {a}: {told}."


def _share(error: float) -> str:
    """A part in per cent, with two digits."""
    return f"{100 * error:.2g} %"


def _precision_words(rows: Sequence[LayerRow]) -> str:
    sums = [row for row in rows if row.weight_bits is not None]
    if not sums:
        return ""
    wide = [row for row in sums if row.weight_bits == 16]
    share = sum(row.macs or 0.0 for row in wide)
    work = f" ({percent(share)} of the multiply-accumulates)" if any(row.macs for row in sums) and wide else ""
    which = f": {listing([short(row.name) for row in wide], 3)}" if wide else ""
    return f"{len(wide)} of {counted(len(sums), 'sum')} of products are in 16 bit{work}{which}."


def _first_bad(report: Report) -> str:
    found = report.comparison
    return "" if found is None or found.first_bad is None else f"The first layer that goes wrong is {found.first_bad}."


def _cost_words(report: Report) -> str:
    if report.cost is None:
        return ""
    network, chip = report.cost[1].network, report.cost[1].chip.name
    return (
        f"A frame takes {network.latency_seconds * 1e3:.3f} ms on {chip} ({network.frames_per_second:,.1f} a second, "
        f"predicted), and the image has {quantity(network.image_bytes, 'B')}."
    )


def _output_tiles(rows: Sequence[LayerRow], stand_ins: Sequence[str]) -> list[tuple[str, str, str]]:
    def more(row: LayerRow) -> str:
        return "signal to noise" if row.cosine is None else f"signal to noise; cosine {row.cosine:.6f}"

    where = dict.fromkeys(stand_ins, "Before the outputs:")
    return [(f"{where.get(row.name, 'Output')} {row.name}", _decibels(row.so_far), more(row)) for row in rows[:12]]


def _weight_tiles(rows: Sequence[LayerRow]) -> list[tuple[str, str, str]]:
    total = sum(row.weight_bytes or 0 for row in rows)
    return [("Weights", quantity(total, "B"), f"{quantity(_float_bytes(rows), 'B')} in float")] if total else []


def _float_bytes(rows: Iterable[LayerRow]) -> int:
    return sum(32 * row.weight_bytes // row.weight_bits for row in rows if row.weight_bytes and row.weight_bits)


# -- pictures and causes -----------------------------------------------------------------------------------------------
def _pictures(pairs: Sequence[PicturePair], a: str, b: str) -> list[Section]:
    if not pairs:
        return []
    figures = (
        f"<figure><figcaption><b>{escape(pair.title)}</b></figcaption>"
        f'<div class="pair"><div>{escape(a)}{_picture(pair.float_jpeg, f"{a}, {pair.title}")}</div>'
        f"<div>{escape(b)}{_picture(pair.fixed_jpeg, f'{b}, {pair.title}')}</div></div>"
        f"<figcaption>{escape(pair.words)}</figcaption></figure>"
        for pair in pairs
    )
    about = f"<p>The same samples through {escape(a)} and {escape(b)}.</p>"
    return [Section("Pictures", f'{about}\n<div class="pairs">{"".join(figures)}</div>')]


def _picture(data: bytes, words: str) -> str:
    return f'<img alt="{escape(words)}" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'


def _causes(report: Report) -> list[Section]:
    """What went wrong and what helps, as the comparison says; what calibration noticed and did."""
    causes = () if report.comparison is None else report.comparison.causes
    findings = () if report.calibration is None else report.calibration.findings
    items = [
        f"<li><b>{escape(cause.layer)}</b>: {escape(cause.reason)}<br>{escape(cause.remedy)}</li>" for cause in causes
    ]
    items += [
        f"<li><b>{escape(found.trap)}</b>: {escape(found.where)}: {escape(found.numbers)}; {escape(found.outcome)}</li>"
        for found in findings
    ]
    return [Section("Causes and remedies", f'<ol class="causes">{"".join(items)}</ol>')] if items else []


# -- layers ------------------------------------------------------------------------------------------------------------
def _errors(rows: Sequence[LayerRow]) -> list[Section]:
    chart = error_chart(rows, _TABLE)
    if not chart:
        return []
    keys = key("so-far", "so far, with the errors of all layers before it")
    if any(row.alone is not None for row in rows):
        keys = f"{key('alone', 'alone, fed with what the float network has there')} {keys}"
    about = (
        f"<p>Signal to noise of every layer; higher is better, 20 dB is an error of 10 %, 40 dB one of 1 %: {keys}. "
        "A mark leads to its row in the table; with the keyboard, arrows go from mark to mark.</p>"
    )
    return [Section("Errors by layer", f"{about}\n{framed('Errors by layer', chart)}")]


def _network(rows: Sequence[LayerRow]) -> list[Section]:
    if not rows:
        return []
    numbered = list(enumerate(rows))
    columns = [column for column, known in _columns() if known is None or any(known(row) for row in rows)]
    about = (
        "<p>Layers by the tensor that they make, in the order in which they run. Errors are signal to noise in dB. "
        "Press a heading to sort.</p>"
    )
    listed = table(_TABLE, "Network", columns, numbered, placeholder="layer, operator, shape …", counted="layers")
    return [Section("Network", f"{about}\n{listed}")]


def _columns() -> list[tuple[Column[tuple[int, LayerRow]], Callable[[LayerRow], bool] | None]]:
    """The columns of the table, each with how to see whether a row has something for it; None where all have."""

    def column(
        heading: str, attribute: str, shown: Callable[[Any], str], *, words: bool = False, hint: str = ""
    ) -> tuple[Column[tuple[int, LayerRow]], Callable[[LayerRow], bool]]:
        def cell(numbered: tuple[int, LayerRow]) -> str:
            value = getattr(numbered[1], attribute)
            return DASH if value is None else shown(value)

        return Column(heading, cell, words=words, hint=hint), lambda row: getattr(row, attribute) is not None

    return [
        (Column("#", lambda numbered: str(numbered[0])), None),
        (Column("layer", lambda numbered: numbered[1].name, name=True), None),
        (Column("operator", lambda numbered: numbered[1].operator, words=True), None),
        column("shape", "shape", lambda shape: "×".join(map(str, shape)) or "scalar", words=True),
        column("bits", "bits", str, hint="that the result is held in; 32: real numbers"),
        column("weight bits", "weight_bits", str),
        column("weight bytes", "weight_bytes", "{:,}".format),
        column("low", "low", "{:.4g}".format, hint="of the range that its codes stand for"),
        column("high", "high", "{:.4g}".format, hint="of the range that its codes stand for"),
        column("range by", "method", str, words=True),
        column("alone", "alone", "{:.1f}".format, hint="signal to noise, fed with what the float network has there"),
        column("so far", "so_far", "{:.1f}".format, hint="signal to noise, with the errors of all layers before it"),
        column("cosine", "cosine", "{:.6f}".format, hint="of the angle to the float network's values"),
        column("relative L1", "relative_l1", "{:.3%}".format, hint="sum of |errors| over sum of |values|"),
        column("max error", "max_abs", "{:.4g}".format),
        column("16 bit gains", "gain", "+{:.2f}".format, hint="at the outputs, if this layer were in 16 bit"),
        column("MACs", "macs", percent, hint="share of the multiply-accumulates"),
        column("cycles", "cycles", "{:,}".format, hint="span on the chip, which others may overlap"),
    ]


def _decibels(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f} dB"


# -- distributions -----------------------------------------------------------------------------------------------------
def _distributions(report: Report, rows: Sequence[LayerRow]) -> list[Section]:
    """Those of the outputs and of the worst layers in view, the others behind a line that opens them."""
    if not report.histograms:
        return []
    alone = any(row.alone is not None for row in rows)  # operators that only move values have no such error
    error = {row.name: row.alone if alone else row.so_far for row in rows}
    known = [(value, name) for name, value in error.items() if value is not None]
    there = {histogram.name for histogram in report.histograms}
    worst = [name for _, name in sorted(known) if name in there][:WORST]
    first = {*report.outputs, *worst} if known else there
    shown = sorted(report.histograms, key=lambda one: one.name not in first)[:MOST_HISTOGRAMS]
    front, behind = ([one for one in shown if (one.name in first) is wanted] for wanted in (True, False))
    cut = len(report.histograms) - len(shown)
    about = about_histograms(shown, *report.models) + (f" {cut} more are not shown." if cut else "")
    told = {name: f"{_decibels(value)}{' alone' * alone}" for value, name in known}
    body = [f"<p>{about}</p>", histogram_figures(front, told)]
    body += [folded(f"{len(behind)} more tensors", histogram_figures(behind, told))] if behind else []
    return [Section("Distributions", "\n".join(body))]


# -- sizes, cost, settings ---------------------------------------------------------------------------------------------
def _sizes(report: Report, rows: Sequence[LayerRow]) -> list[Section]:
    """Shares of the precisions, and bytes."""
    bars = []
    sums = [row for row in rows if row.weight_bits is not None]
    if any(row.macs for row in sums):
        bars.append(_shares("multiply-accumulates", [(row.weight_bits, row.macs or 0.0) for row in sums], ""))
    weights = sum(row.weight_bytes or 0 for row in sums)
    if weights:
        found = [(row.weight_bits, float(row.weight_bytes or 0)) for row in sums]
        bars.append(_shares("weights", found, f" of {quantity(weights, 'B')}"))
    held = [(row.bits, math.prod(row.shape) * row.bits / 8) for row in rows if row.shape is not None and row.bits]
    if held:
        bars.append(_shares("activations", held, f" of {quantity(sum(size for _, size in held), 'B')}"))
    bytes_of = _bytes_of(report, rows)
    most = max((size for _, size in bytes_of), default=1)
    bars += [length_bar(label, "d32", size / most, quantity(size, "B")) for label, size in bytes_of]
    about = "<p>What is held in how many bits, by bytes and by work, and how many bytes the weights have.</p>"
    return [Section("Bits and sizes", f'{about}\n<dl class="bars">{"".join(bars)}</dl>')] if bars else []


def _shares(label: str, found: Iterable[tuple[int | None, float]], told: str) -> str:
    sizes: dict[int, float] = {}
    for bits, size in found:
        sizes[bits or 0] = sizes.get(bits or 0, 0.0) + size
    return share_bar(label, [(BITS[bits], f"{bits} bit", sizes[bits]) for bits in sorted(sizes)], told)


def _bytes_of(report: Report, rows: Sequence[LayerRow]) -> list[tuple[str, int]]:
    """(what, bytes) of the weights as they become smaller, and of the image."""
    weights = sum(row.weight_bytes or 0 for row in rows)
    found = [("float weights", _float_bytes(rows)), ("fixed weights", weights)] if weights else []
    if report.cost is not None:
        network = report.cost[1].network
        found += [("coded in the image", network.coded_weights_bytes), ("the image", network.image_bytes)]
    return found


def _cost(report: Report) -> list[Section]:
    if report.cost is None:
        return []
    image, figures = report.cost
    about = f"<p>{escape(introduction(figures))}</p>"
    return [Section("Cost", f"{about}\n{cost_tiles(figures)}"), *cost_sections(image, figures)]


def _settings(report: Report) -> list[Section]:
    if not report.facts:
        return []
    config = folded("input_config.ini", framed("input_config.ini", f"<pre>{escape(report.config)}</pre>"))
    body = facts_table("Settings", report.facts)
    return [Section("Settings", f"{body}\n{config}" if report.config else body)]
