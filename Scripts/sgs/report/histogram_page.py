"""Distributions of tensors for the browser: figures of a page, a page of their own, and single pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from sgs.report.accuracy_charts import histogram_chart, left_out
from sgs.report.histogram import Histogram
from sgs.report.page import Section, document, key

_PICTURE_STYLE = (
    "svg{background:#fff;font-family:system-ui,sans-serif}text{font-size:12px;fill:#1b1f24}.rule{stroke:#5a6472}"
    ".real{fill:#3f7fc4;fill-opacity:.45}.held{fill:none;stroke:#c8741a;stroke-width:1.6}"
    ".range{stroke:#c0392b;stroke-width:1.2;stroke-dasharray:5 3}.outside{fill:#5a6472;fill-opacity:.16}"
)


def about_histograms(histograms: Sequence[Histogram], real: str, held: str) -> str:
    """A legend, as HTML: what is there of two models, which are called so."""
    sides = [(one.real, one.held) for one in histograms]
    models = [key("real", real)] * any(a for a, _ in sides) + [key("held", held)] * any(b for _, b in sides)
    words = f"Values of {' and '.join(models)}, on a logarithmic scale of counts"
    if all(one.range_low is None for one in histograms):
        return f"{words}."
    shaded = key("outside", "shaded")
    return f"{words}; dashed lines are the ends of the range that was chosen, beyond which values saturate ({shaded})."


def histogram_figures(histograms: Iterable[Histogram], told: Mapping[str, str]) -> str:
    """A figure for each, as HTML, with its range and what is `told` of the tensor below it."""
    figures = (
        f"<figure><figcaption>{escape(one.name)}</figcaption>{histogram_chart(one)}"
        f'<figcaption class="soft">{escape(histogram_words(one, told.get(one.name, "")))}</figcaption></figure>'
        for one in histograms
    )
    return f'<div class="many">{"".join(figures)}</div>'


def histogram_words(histogram: Histogram, told: str = "") -> str:
    """What is to be said of a distribution in numbers."""
    parts = [told] if told else []
    if histogram.range_low is not None and histogram.range_high is not None:
        parts.append(f"range {histogram.range_low:.3g} to {histogram.range_high:.3g}")
    outside = left_out(histogram)
    if outside:
        parts.append(f"about {outside:.2%} beyond it")
    return "; ".join(parts)


def histograms_page(title: str, histograms: Sequence[Histogram], real: str, held: str) -> str:
    """A page of nothing else."""
    about = about_histograms(histograms, real, held)
    return document(title, about, [Section("Distributions", histogram_figures(histograms, {}))])


def histogram_picture(histogram: Histogram) -> str:
    """A file of its own: SVG with its style."""
    chart = histogram_chart(histogram)
    title = f"<title>{escape(histogram.name)}</title><desc>{escape(histogram_words(histogram))}</desc>"
    head, _, rest = chart.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg">{title}<style>{_PICTURE_STYLE}</style>{rest}\n'
